"""The Mask R-CNN: what it is made of, where its masks lie, and that it learns."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import pytest
import torch
from msgspec import structs

from SSLEngine.networks.torchvision_ops import load_torchvision
from SSLEngine.networks.torchvision_ops import nms
from SSLEngine.networks.torchvision_ops import roi_align
from SSLEngine.settings import MaskRcnn

try:
    load_torchvision()
except ModuleNotFoundError as error:
    pytest.skip(str(error), allow_module_level=True)

from SSLEngine.instances import boxes_of
from SSLEngine.networks import mask_head
from SSLEngine.networks.mask_head import MaskHead
from SSLEngine.networks.mask_head import align
from SSLEngine.networks.mask_head import crop
from SSLEngine.networks.mask_head import paste
from SSLEngine.networks.mask_rcnn import MaskRCNN
from SSLEngine.networks.naming import pixel_loss
from SSLEngine.networks.naming import region_classes
from SSLEngine.networks.naming import region_loss

SMALL = MaskRcnn(channels=32, anchors_mm=(10.0, 16.0, 24.0, 40.0, 60.0), proposals=60, sampled=32)


def ellipse(size: int, centre: tuple[float, float], radii: tuple[float, float]) -> torch.Tensor:
    """Mask of an ellipse; centre and radii are (y, x) in pixels, centres of pixels at half-integers."""
    axis = torch.arange(size) + 0.5
    return ((axis[:, None] - centre[0]) / radii[0]) ** 2 + ((axis - centre[1]) / radii[1]) ** 2 < 1


def target_of(masks: torch.Tensor, labels: list[int], clean: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"boxes": boxes_of(masks), "labels": torch.tensor(labels), "masks": masks, "clean": clean}


def ellipses(count: int, size: int, seed: int) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    """Noise with a bright (class 1) and a dark (class 2) ellipse; the clean image has none."""
    draw = torch.Generator().manual_seed(seed)
    images, targets = [], []
    for _ in range(count):
        clean = 0.3 * torch.randn(1, size, size, generator=draw)
        place = (torch.rand(2, 2, generator=draw) * 0.25 + torch.tensor([[0.12], [0.6]])) * size
        radii = torch.rand(2, 2, generator=draw) * 4 + 5
        masks = torch.stack(
            [ellipse(size, tuple(p), tuple(r)) for p, r in zip(place.tolist(), radii.tolist(), strict=True)]
        )
        image = clean + 2.0 * masks[:1] - 2.0 * masks[1:]
        images.append(image)
        targets.append(target_of(masks, [1, 2], clean))
    return torch.stack(images), targets


def learn(network: MaskRCNN, images: torch.Tensor, targets: list[Any], steps: int) -> list[float]:
    optimiser = torch.optim.AdamW(network.parameters())
    losses = []
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 2e-3 * min(1, (step + 1) / 10) * (1 - step / steps)
        loss = sum(network(images, targets).values())
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        losses.append(float(loss.detach()))
    return losses


def overlap(first: torch.Tensor, second: torch.Tensor) -> float:
    first, second = first.bool(), second.bool()
    return float((first & second).sum() / (first | second).sum().clamp(min=1))


def average_precision(found: list[dict[str, torch.Tensor]], targets: list[dict[str, torch.Tensor]]) -> float:
    """Area under the precision-recall curve of all classes together; a hit overlaps by half and has the class."""
    from torchvision.ops import box_iou

    ranked = sorted(
        ((float(score), image, i) for image, one in enumerate(found) for i, score in enumerate(one["scores"])),
        reverse=True,
    )
    taken: set[tuple[int, int]] = set()
    hits = []
    for _, image, i in ranked:
        wanted = targets[image]
        overlaps = box_iou(found[image]["boxes"][i : i + 1], wanted["boxes"])[0]
        overlaps[wanted["labels"] != found[image]["labels"][i]] = 0
        best = int(overlaps.argmax())
        hit = bool(overlaps[best] > 0.5) and (image, best) not in taken
        taken |= {(image, best)} if hit else set()
        hits.append(hit)
    wanted_count = sum(len(target["boxes"]) for target in targets)
    precisions = torch.tensor(hits).cumsum(0) / torch.arange(1, len(hits) + 1)
    return float(precisions[torch.tensor(hits)].sum()) / wanted_count if hits else 0.0


# ---------------------------------------------------------------------------------------------
# Places


def test_box_of_a_mask_reaches_to_the_edges_of_its_pixels() -> None:
    masks = torch.zeros(3, 20, 30, dtype=torch.bool)
    masks[0, 4:9, 11:25] = True
    masks[1, 0, 29] = True
    assert boxes_of(masks).tolist() == [[11, 4, 25, 9], [29, 0, 30, 1], [0, 0, 0, 0]]
    assert boxes_of(masks[:0]).shape == (0, 4)


@pytest.mark.parametrize("side", [28, 56])
def test_a_rectangle_comes_back_where_it_was(side: int) -> None:
    masks = torch.zeros(2, 64, 80)
    masks[0, 10:27, 20:35] = 1
    masks[1, 40:60, 3:9] = 1
    # A box that is larger than the rectangle, to sides that differ, and does not lie on pixel edges.
    boxes = boxes_of(masks) + torch.tensor([[-6.3, -4.2, 5.4, 7.1], [-2.0, -3.0, 3.5, 1.25]])
    back = paste(crop(masks, torch.arange(2), boxes, side), boxes, (64, 80))
    assert torch.equal(back > 0.5, masks > 0.5)
    # The centre of mass does not move, which a shift by half a pixel would.
    for axis in (1, 2):
        place = torch.arange(masks.shape[axis]) + 0.5
        for mask, image in zip(masks, back, strict=True):
            centres = [(values.sum(2 - axis) * place).sum() / values.sum() for values in (mask, image)]
            assert abs(float(centres[0] - centres[1])) < 0.05


def test_a_full_crop_fills_its_box_and_no_more() -> None:
    pasted = paste(torch.ones(1, 28, 28), torch.tensor([[5.0, 2.0, 9.0, 12.0]]), (16, 16))[0]
    expected = torch.zeros(16, 16)
    expected[2:12, 5:9] = 1
    torch.testing.assert_close(pasted, expected)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_regions_are_cut_where_the_padded_convolutions_put_them(level: int) -> None:
    stride = 4 * 2**level
    # Feature pixel i of a padded convolution with stride s sees image pixel s i, whose centre is at s i + 0.5.
    place = torch.arange(64) * stride + 0.5
    ramp = torch.stack(torch.meshgrid(place, place, indexing="ij"))[None]
    levels = [ramp if number == level else torch.full_like(ramp, 1e6) for number in range(3)]
    side = 112.0 * 2**level * 0.9
    box = torch.tensor([[40.0, 20.0, 40 + side, 20 + side]])
    cut = align(levels, [box], 4)[0]
    centres = (torch.arange(4) + 0.5) / 4 * side
    torch.testing.assert_close(cut[0, :, 0], 20 + centres)
    torch.testing.assert_close(cut[1, 0], 40 + centres)


def test_regions_come_in_the_order_of_their_boxes() -> None:
    levels = [torch.full((2, 1, 64, 64), 10.0 * n) + torch.arange(2).view(2, 1, 1, 1) for n in range(4)]
    big, small = [0.0, 0.0, 150.0, 150.0], [10.0, 10.0, 30.0, 30.0]
    cut = align(levels, [torch.tensor([small, big, small]), torch.tensor([big])], 3)
    assert cut[:, 0, 1, 1].tolist() == [0.0, 10.0, 0.0, 11.0]


# ---------------------------------------------------------------------------------------------
# Structure


def pyramid(batch: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Stem of 24 and levels of 32 channels of a 256 px image."""
    stem = torch.randn(batch, 24, 128, 128, requires_grad=True)
    return stem, [torch.randn(batch, 32, 64 // 2**n, 64 // 2**n, requires_grad=True) for n in range(4)]


def parts(network: torch.nn.Module) -> set[str]:
    return {name.split(".")[0] for name, _ in network.named_parameters()}


def test_parameters_fall_into_the_parts_that_a_transfer_names() -> None:
    network = MaskRCNN(SMALL, 1.0, 3, pretext=True)
    shared = {"backbone", "fpn", "rpn", "box_head", "mask_head", "predictors"}
    assert parts(network) == {*shared, "restoration", "naming"}
    other = MaskRCNN(SMALL, 1.0, 5)
    assert parts(other) == shared
    changed = {
        name for name, value in other.named_parameters() if value.shape != dict(network.named_parameters())[name].shape
    }
    assert {name.split(".")[0] for name in changed} == {"predictors"}
    assert not any(isinstance(module, torch.nn.modules.batchnorm._BatchNorm) for module in network.modules())


@pytest.mark.parametrize(
    ("switches", "side", "present", "absent"),
    [
        ({}, 56, {"widen", "merge", "extra"}, set()),
        ({"extra_layer": False}, 28, {"widen", "merge"}, {"extra"}),
        ({"skip": False}, 56, {"extra"}, {"merge", "widen"}),
        ({"second_align": False, "skip": False}, 56, {"widen", "extra"}, {"merge"}),
        ({"second_align": False, "skip": False, "extra_layer": False}, 28, {"widen"}, {"merge", "extra"}),
    ],
)
def test_each_change_of_imaskrcnn_changes_the_mask_head(
    switches: dict[str, bool], side: int, present: set[str], absent: set[str]
) -> None:
    head = MaskHead(32, 24, **{"second_align": True, "extra_layer": True, "skip": True, **switches})
    assert present <= parts(head)
    assert not absent & parts(head)
    stem, levels = pyramid(2)
    boxes = [torch.tensor([[3.0, 4, 60, 70]]), torch.tensor([[9.0, 9, 200, 200], [0, 0, 20, 30]])]
    assert head(stem, levels, boxes).shape == (3, 32, side, side)


@pytest.mark.parametrize(
    ("second_align", "skip", "expected"),
    [(False, False, [False, False, True]), (True, True, [True, True, True]), (True, False, [True, True, False])],
)
def test_what_the_mask_head_cuts_a_large_region_from(second_align: bool, skip: bool, expected: list[bool]) -> None:
    head = MaskHead(32, 24, second_align, extra_layer=True, skip=skip)
    stem, levels = pyramid(1)
    head(stem, levels, [torch.tensor([[0.0, 0.0, 250.0, 250.0]])]).square().sum().backward()
    used = [x.grad is not None and bool(x.grad.any()) for x in (stem, levels[0], levels[2])]
    assert used == expected


def test_a_finer_mask_keeps_a_boundary_better() -> None:
    # What a perfect mask head of either resolution can say of a wavy shape of 136 px.
    axis = torch.arange(160) - 79.5
    radius, angle = torch.hypot(axis[:, None], axis), torch.atan2(axis[:, None], axis)
    mask = radius < 60 + 8 * torch.sin(9 * angle)
    boxes = boxes_of(mask[None])
    wrong = {}
    for side in (28, 56):
        said = (crop(mask[None], torch.zeros(1), boxes, side) >= 0.5).float()
        wrong[side] = int(((paste(said, boxes, (160, 160))[0] > 0.5) ^ mask).sum())
    assert 0 < wrong[56] < 0.6 * wrong[28]


@pytest.mark.parametrize(("kind", "names"), [("none", set()), ("region", {"region"}), ("both", {"region", "image"})])
def test_restoration_branches(kind: Any, names: set[str]) -> None:
    settings = MaskRcnn(channels=32, anchors_mm=SMALL.anchors_mm, restoration=kind)
    assert set(MaskRCNN(settings, 1.0, 2, pretext=True).restoration) == names


def test_anchors_are_millimetres() -> None:
    network = MaskRCNN(SMALL, 2.0, 2)
    assert network.rpn.anchor_generator.sizes == ((5.0,), (8.0,), (12.0,), (20.0,), (30.0,))
    with pytest.raises(ValueError, match="anchors_mm"):
        MaskRCNN(MaskRcnn(), 2.0, 2)


# ---------------------------------------------------------------------------------------------
# Losses


def test_losses_are_weighted_and_the_same_for_the_same_seed() -> None:
    images, targets = ellipses(2, 64, 0)
    network = MaskRCNN(SMALL, 1.0, 2, pretext=True)
    heavy = deepcopy(network)
    heavy.settings = MaskRcnn(
        anchors_mm=SMALL.anchors_mm, class_weight=2, mask_weight=3, restoration_weight=0, pixel_weight=4
    )
    found = []
    for one in (network, network, heavy):
        torch.manual_seed(3)
        found.append({name: float(loss.detach()) for name, loss in one(images, targets).items()})
    assert found[0] == found[1]
    assert list(found[0]) == ["objectness", "rpn_box", "class", "box", "mask", "restoration", "pixels"]
    weights = {"class": 2, "mask": 3, "restoration": 0, "pixels": 4}
    assert found[2] == pytest.approx({name: weights.get(name, 1) * loss for name, loss in found[0].items()})


@pytest.mark.parametrize("empty", [1, 2])
def test_images_without_instances_give_finite_losses_and_gradients(empty: int) -> None:
    images, targets = ellipses(2, 64, 1)
    for number in range(empty):
        targets[number] = target_of(torch.zeros(0, 64, 64, dtype=torch.uint8), [], targets[number]["clean"])
        targets[number]["labels"] = torch.zeros(0, dtype=torch.int64)
    network = MaskRCNN(SMALL, 1.0, 2, pretext=True)
    losses = network(images, targets)
    assert (float(losses["mask"].detach()) == 0) == (empty == 2)
    sum(losses.values()).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_restoration_is_learned_on_distorted_pixels_alone() -> None:
    images, targets = ellipses(1, 64, 2)
    network = MaskRCNN(SMALL, 1.0, 2, pretext=True)
    moved = [{**targets[0], "clean": targets[0]["clean"] + 5.0 * ~targets[0]["masks"].any(0, keepdim=True)}]
    del network.restoration["region"]  # its targets are averages over bins, which mix at the edge
    found = []
    for wanted in (targets, moved):
        torch.manual_seed(0)
        found.append(float(network(images, wanted)["restoration"].detach()))
    assert found[0] == pytest.approx(found[1])
    assert found[0] > 0


def test_autocast_keeps_the_losses_close() -> None:
    images, targets = ellipses(2, 64, 4)
    network = MaskRCNN(SMALL, 1.0, 2, pretext=True)
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            losses = network(images, targets)
        sum(losses.values()).backward()
        found.append({name: float(loss.detach()) for name, loss in losses.items()})
    assert found[1] == pytest.approx(found[0], rel=0.1, abs=0.02)


@pytest.mark.skipif(
    not load_torchvision().extension._has_ops(), reason="this torchvision's own operators do not load with this torch"
)
def test_losses_are_those_with_the_own_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    images, targets = ellipses(2, 64, 6)
    network = MaskRCNN(SMALL, 1.0, 2, pretext=True)
    found = []
    for align_, nms_ in ((roi_align, nms), (torch.ops.torchvision.roi_align, torch.ops.torchvision.nms)):
        monkeypatch.setattr(mask_head, "roi_align", align_)
        monkeypatch.setattr("torchvision.ops.boxes.nms", nms_)
        torch.manual_seed(0)
        found.append({name: float(loss.detach()) for name, loss in network(images, targets).items()})
    assert found[0] == pytest.approx(found[1], abs=1e-6, rel=1e-6)


def found_by(
    patch: pytest.MonkeyPatch,
    logits: list[list[float]],
    boxes: list[list[float]],
    pretext: bool,
    named: bool = False,
) -> dict[str, torch.Tensor]:
    """What a network makes of proposals that its first stage leaves where they are, with such class logits."""
    network = MaskRCNN(structs.replace(SMALL, pixel_weight=float(named)), 1.0, 2, pretext=pretext).eval()
    network.score_threshold = 0.05
    if named:
        logits_of_pixels = torch.zeros(1, 3, 64, 64)
        # Background is the likeliest everywhere; of the classes the second, right of the middle the first.
        logits_of_pixels[:, 0], logits_of_pixels[:, 1, :, 32:], logits_of_pixels[:, 2, :, :32] = 5.0, 2.0, 2.0
        patch.setattr(network.naming, "forward", lambda fine, stem, pyramid: logits_of_pixels)
    patch.setattr(network.rpn, "forward", lambda images, levels, targets: ([torch.tensor(boxes)], {}))
    still = torch.zeros(len(boxes), 4 * 3)
    patch.setattr(network.predictors, "boxes", lambda features: (torch.tensor(logits), still))
    with torch.no_grad():
        [found] = network(torch.zeros(1, 1, 64, 64))
    return found


def test_of_a_pretext_each_place_is_one_region(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first two overlap; the first may be of either class, the second surely is of the second.
    boxes = [[4.0, 4.0, 24.0, 24.0], [5.0, 4.0, 25.0, 24.0], [40.0, 40.0, 60.0, 60.0]]
    shares = torch.tensor([[0.1, 0.5, 0.4], [0.2, 0.0, 0.8], [0.7, 0.1, 0.2]])
    logits = shares.clamp(min=1e-9).log().tolist()
    found = found_by(monkeypatch, logits, boxes, pretext=True)
    assert found["labels"].tolist() == [1, 2]
    assert found["scores"].tolist() == pytest.approx([0.9, 0.3])
    torch.testing.assert_close(found["boxes"], torch.tensor([boxes[0], boxes[2]]))
    # What the pixels say names them; that they are regions, and how surely, is the boxes' word.
    named = found_by(monkeypatch, logits, boxes, pretext=True, named=True)
    assert named["labels"].tolist() == [2, 1]
    torch.testing.assert_close(named["scores"], found["scores"])
    # Structures may lie in each other: there, each class has regions of its own.
    found = found_by(monkeypatch, logits, boxes, pretext=False)
    assert found["labels"].tolist() == [2, 1, 2, 1]
    assert found["scores"].tolist() == pytest.approx([0.8, 0.5, 0.2, 0.1])


def test_a_region_has_the_class_that_its_pixels_are_likeliest_of() -> None:
    logits = torch.zeros(3, 4, 6)
    logits[0] = 9.0
    logits[1, :, :3], logits[2, :, 3:] = 2.0, 3.0
    masks = torch.zeros(3, 4, 6)
    masks[0, :, :3] = 1
    # Two columns of the first class and three of the second.
    masks[1, 1:3, 1:] = 0.8
    named = region_classes(logits, masks)
    assert named.argmax(1)[:2].tolist() == [0, 1]
    expected = logits[:, :, [0, 5]].log_softmax(0)[1:, 0]
    torch.testing.assert_close(named[0], expected[:, 0])
    torch.testing.assert_close(named[1], 0.4 * expected[:, 0] + 0.6 * expected[:, 1])
    # Nothing is said of a region without pixels, and nothing divides by zero.
    assert named[2].tolist() == [0.0, 0.0]


def test_of_overlapping_regions_the_later_names_the_pixels() -> None:
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :, :6], masks[1, :, 4:] = True, True
    targets = [
        {"masks": masks, "labels": torch.tensor([1, 2])},
        {"masks": masks[:0], "labels": torch.zeros(0, dtype=torch.int64)},
    ]
    right = torch.zeros(2, 3, 8, 8)
    right[0, 1, :, :4], right[0, 2, :, 4:], right[1, 0] = 20.0, 20.0, 20.0
    assert float(pixel_loss(right, targets)) < 1e-6
    wrong = right.clone()
    wrong[0, 1, :, :6] = 25.0
    # Sixteen of 64 pixels are called the first class by 5, beside the other image's background of a tenth.
    assert float(pixel_loss(wrong, targets)) == pytest.approx(16 * 5 / (64 + 0.1 * 64), rel=0.01)


@pytest.mark.parametrize(("backbone", "widths"), [("resnet18", ()), ("unet", (8, 16, 32)), ("unet", (4,) * 6)])
def test_a_backbone_gives_maps_of_every_stride(backbone: Any, widths: tuple[int, ...]) -> None:
    network = MaskRCNN(structs.replace(SMALL, backbone=backbone), 1.0, 2, widths=widths)
    maps = network.backbone(torch.zeros(1, 1, 64, 96))
    shapes = [(channels, 64 >> n, 96 >> n) for n, channels in enumerate(network.backbone.widths)]
    assert [tuple(x.shape[1:]) for x in maps.values()] == shapes
    assert list(maps) == ["fine", "stem", "0", "1", "2", "3"]


def test_the_finest_layers_of_a_residual_network_stay_where_the_image_is() -> None:
    network = MaskRCNN(structs.replace(SMALL, backbone="resnet18"), 1.0, 2)
    image = torch.randn(1, 1, 64, 96, generator=torch.Generator().manual_seed(0)).requires_grad_()
    network.backbone(image)["fine"][0, :, 20, 30].sum().backward()
    assert image.grad is not None
    # Two layers of 3 x 3 see two pixels to each side; through group norm all others count a little.
    row, column = divmod(int(image.grad[0, 0].abs().argmax()), 96)
    assert max(abs(row - 20), abs(column - 30)) <= 2


# ---------------------------------------------------------------------------------------------
# Learning


@pytest.mark.parametrize("backbone", ["resnet18", "unet"])
def test_it_finds_names_outlines_and_restores_what_it_has_seen(backbone: Any) -> None:
    torch.manual_seed(5)
    images, targets = ellipses(2, 64, 5)
    network = MaskRCNN(structs.replace(SMALL, backbone=backbone), 1.0, 2, pretext=True)
    losses = learn(network, images, targets, 100)
    assert losses[-1] < losses[0] / 3
    network.eval()
    with torch.no_grad():
        found = network(images)
        features = network.features(images)
    assert average_precision(found, targets) > 0.9
    for one, target, image in zip(found, targets, images, strict=True):
        for label, mask in zip(target["labels"], target["masks"], strict=True):
            best = one["masks"][one["labels"] == label][0]
            assert overlap(best > 0.5, mask) > 0.65
        inside = target["masks"].any(0, keepdim=True)
        error = (one["restored"] - target["clean"]).abs()[inside].mean()
        assert error < 0.4 * (image - target["clean"]).abs()[inside].mean()
        assert torch.equal(one["restored"][~inside].isfinite(), torch.ones_like(image[~inside], dtype=torch.bool))
    assert features.shape == (2, network.feature_channels)


def test_a_small_region_counts_as_much_as_a_large_one() -> None:
    def loss(small: float, large: float) -> float:
        """Of a region of 4 and one of 40 pixels, with so much more for the right class than for the other."""
        logits = torch.zeros(1, 3, 8, 8)
        logits[0, 1, :2, :2], logits[0, 2, 3:] = small, large
        masks = torch.zeros(2, 8, 8)
        masks[0, :2, :2], masks[1, 3:] = 1, 1
        return float(region_loss(logits, [{"masks": masks, "labels": torch.tensor([1, 2])}]))

    def surprise(lead: float) -> float:
        return math.log1p(math.exp(-lead))

    assert loss(0.0, 0.0) == pytest.approx(math.log(2))
    assert loss(-3.0, 2.0) == pytest.approx(loss(2.0, -3.0))
    assert loss(-3.0, 2.0) == pytest.approx((surprise(-3.0) + surprise(2.0)) / 2)
    # An image without regions teaches nothing here, and does not make the loss NaN.
    nothing = {"masks": torch.zeros(0, 8, 8), "labels": torch.zeros(0, dtype=torch.long)}
    assert float(region_loss(torch.zeros(1, 3, 8, 8), [nothing])) == 0
