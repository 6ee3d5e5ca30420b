"""Synthetic distortions: where they are, what they change, that their seams do not give them away, and the task."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from matplotlib.figure import Figure
from scipy import ndimage
from torch.nn import functional

from SSLEngine import distorting
from SSLEngine.distorting import TYPES
from SSLEngine.distorting import Distorted
from SSLEngine.distorting import Patches
from SSLEngine.distorting import balanced
from SSLEngine.distorting import distort
from SSLEngine.distorting import foreground
from SSLEngine.distorting import instance_targets
from SSLEngine.networks.unet import TaskUNet
from SSLEngine.phantom import make_study
from SSLEngine.pretext import make_pretexts
from SSLEngine.pretext.base import Batch
from SSLEngine.pretext.distortions import DistortionPrediction
from SSLEngine.settings import REGION_TYPES
from SSLEngine.settings import Augmentation
from SSLEngine.settings import Data
from SSLEngine.settings import Distortions
from SSLEngine.settings import Finetune
from SSLEngine.settings import Grid
from SSLEngine.settings import Pretrain
from SSLEngine.settings import Schedule
from SSLEngine.settings import SettingsError
from SSLEngine.settings import parse
from SSLEngine.slices import SliceSet
from SSLEngine.slices import make_batch
from SSLEngine.slices import study_records
from SSLEngine.training import Run
from SSLEngine.training import Stream
from SSLEngine.training import blank_losses
from SSLEngine.training import step_loss
from SSLEngine.training import validate
from toy_exams import toy_study

Array = npt.NDArray[np.float64]

SPACING_MM, PATCH = 1.75, 144
#: How far a seam detector's area under the curve may lie from one half: 0.11 was the most that was measured on hearts
#: and knees, and some 120 regions leave 0.04 to chance.
SEAM_BOUND = 0.15


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Slices of a synthetic heart, standardised, ``(12, 1, 144, 144)``."""
    records = list(study_records(make_study("heart", seed=5), [], Grid(phases=1), []))
    slices = SliceSet(records, SPACING_MM, torch.device("cpu"))
    chosen = torch.linspace(0, len(slices) - 1, 12).long()
    return make_batch(slices, chosen, PATCH, None, torch.Generator()).images


def everywhere(images: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(images[:, 0], dtype=torch.bool)


def distorted(images: torch.Tensor, seed: int = 0, **changes: object) -> Distorted:
    settings = Distortions(**{"untouched": 0.0, **changes})  # type: ignore[arg-type]
    return distort(images, everywhere(images), settings, SPACING_MM, torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------
# Where


def test_shapes_kinds_and_types_belong_together(images: torch.Tensor) -> None:
    before = images.clone()
    found = distorted(images)
    assert torch.equal(images, before)
    assert found.images.shape == images.shape
    assert found.images.dtype == torch.float32
    assert found.regions.shape == (12, 4, PATCH, PATCH)
    assert found.regions.dtype == torch.bool
    assert found.kinds.dtype == found.types.dtype == torch.int64
    assert found.types.shape == (12, PATCH, PATCH)
    there = found.kinds > 0
    assert torch.equal(there, found.regions.any(-1).any(-1))
    assert torch.equal(found.types > 0, found.regions.any(1))
    assert 1 <= int(found.kinds[there].min()) <= int(found.kinds.max()) <= len(REGION_TYPES)
    # Regions of an image stand first.
    assert bool((there.int().diff(dim=1) <= 0).all())


def test_of_two_regions_the_later_lies_on_top() -> None:
    regions = torch.zeros(1, 2, 4, 4, dtype=torch.bool)
    regions[0, 0, :, :3], regions[0, 1, :, 2:] = True, True
    types = Distorted(torch.zeros(1, 1, 4, 4), regions, torch.tensor([[5, 2]])).types
    assert types[0, 0].tolist() == [5, 5, 2, 2]


def test_only_regions_and_their_soft_edges_are_changed(images: torch.Tensor) -> None:
    found = distorted(images, edge_mm=6.0)
    for clean, image, types in zip(images[:, 0], found.images[:, 0], found.types, strict=True):
        # The edge fades over 6 mm, half of it outside, measured along the shorter axis of a slim region.
        far = torch.from_numpy(ndimage.distance_transform_edt((types == 0).numpy())) * SPACING_MM
        assert torch.equal(clean[far > 2 * 3.0 + SPACING_MM], image[far > 2 * 3.0 + SPACING_MM])
        assert float((clean - image)[types > 0].abs().mean()) > 0.1 or not (types > 0).any()


def test_regions_lie_where_the_scanner_measured(images: torch.Tensor) -> None:
    acquired = everywhere(images)
    acquired[:, :, PATCH // 2 :] = False
    settings = Distortions(untouched=0.0)
    found = distort(images, acquired, settings, SPACING_MM, torch.Generator().manual_seed(0))
    for image_regions, kinds in zip(found.regions, found.kinds, strict=True):
        for region in image_regions[kinds > 0]:
            assert float((region & acquired[0]).sum()) >= settings.foreground * float(region.sum())
    assert float((found.kinds > 0).sum(1).float().mean()) > 1
    nowhere = distort(images, ~everywhere(images), settings, SPACING_MM, torch.Generator().manual_seed(0))
    assert torch.equal(nowhere.images, images)
    assert not nowhere.kinds.any()


def test_number_size_overlap_foreground_and_change_keep_their_limits(images: torch.Tensor) -> None:
    settings = Distortions()
    mask = foreground(images, SPACING_MM)
    counts = []
    for seed in range(4):
        found = distorted(images, seed)
        counts += (found.kinds > 0).sum(1).tolist()
        for target, tissue, image, clean in zip(
            instance_targets(found, images), mask, found.images[:, 0], images[:, 0], strict=True
        ):
            masks, boxes = target["masks"].bool(), target["boxes"]
            extent = (boxes[:, 2:] - boxes[:, :2]).amax(1)
            assert bool((extent <= settings.side[1] * PATCH + 1).all())
            assert bool(((masks & tissue).sum((1, 2)) >= settings.foreground * masks.sum((1, 2))).all())
            for k, one in enumerate(masks):
                for other in masks[:k]:
                    assert (one & other).sum() <= settings.overlap * (one | other).sum() + 1e-6
                alone = one & ~(masks[:k].any(0) | masks[k + 1 :].any(0))
                if alone.sum() == one.sum():
                    assert (image - clean)[one].square().mean().sqrt() >= 0.999 * settings.least_change * clean.std()
    assert set(counts) <= {0, 1, 2, 3, 4}
    # 1 to 4 regions, equally often: 2.5 on average, fewer where places were refused.
    assert 2.0 <= sum(counts) / len(counts) <= 3.0


def test_a_single_region_for_each_image(images: torch.Tensor) -> None:
    found = distorted(images, regions=(1, 1))
    assert found.regions.shape == (12, 1, PATCH, PATCH)
    assert (found.kinds > 0).float().mean() > 0.8


def test_sides_can_be_given_in_mm(images: torch.Tensor) -> None:
    found = distorted(images, unit="mm", side=(28.0, 28.0), irregularity=0.0, slimness=0.0, least_change=0.0)
    boxes = torch.cat([t["boxes"] for t in instance_targets(found, images)])
    inside = ((boxes > 0) & (boxes < PATCH)).all(1)
    extent = (boxes[:, 2:] - boxes[:, :2])[inside] * SPACING_MM
    assert len(extent) > 8
    assert torch.allclose(extent, torch.full_like(extent, 28.0), atol=2 * SPACING_MM)


def test_foreground_is_the_tissue_and_everything_where_there_is_none() -> None:
    image = torch.full((2, 1, PATCH, PATCH), -1.0)
    image[0, :, 40:80, 20:100] = 2.0
    mask = foreground(image, SPACING_MM)
    assert bool(mask[0, 40:80, 20:100].all())
    reach = int((distorting.GROWN_MM / SPACING_MM) // 1 + 8)
    assert not mask[0, : 40 - reach].any()
    assert not mask[0, :, 100 + reach :].any()
    assert bool(mask[1].all())


def test_no_type_is_rare_though_blurs_are_refused_more_often(images: torch.Tensor) -> None:
    counts = torch.zeros(1 + len(TYPES), dtype=torch.int64)
    for seed in range(16):
        counts += torch.bincount(distorted(images, seed).kinds.flatten(), minlength=len(counts))
    drawn = counts[1 : 1 + len(REGION_TYPES)]
    assert drawn.sum() > 2.0 * 16 * len(images)
    assert drawn.max() / drawn.min() < 1.5


def test_balancing_favours_what_is_seldom_and_gives_no_more_than_is_wanted() -> None:
    kinds = torch.tensor([[1, 1, 2, 1], [1, 2, 1, 1], [1, 1, 1, 2], [1, 1, 1, 1]])
    good = torch.ones(4, 4, dtype=torch.bool)
    good[3, 1:] = False
    wanted = torch.tensor([[1], [2], [1], [3]])
    chances = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    kept = balanced(kinds, good, wanted, chances)
    assert kept.sum(1).tolist() == [1, 2, 1, 1]
    assert not (kept & ~good).any()
    # Three of the five that are kept can be of the second type, at most.
    assert int((kinds[kept] == 2).sum()) in (2, 3)
    assert not balanced(kinds, good, torch.zeros_like(wanted), chances).any()


def test_a_share_of_images_is_left_untouched(images: torch.Tensor) -> None:
    many = images.repeat(8, 1, 1, 1)
    for outpainting in (0.0, 0.5):
        found = distorted(many, untouched=0.4, outpainting=outpainting)
        same = (found.images == many).flatten(1).all(1)
        assert torch.equal(same, (found.kinds == 0).all(1))
        assert 0.25 < same.float().mean() < 0.55
        assert not found.regions[same].any()
    assert not (distorted(many).kinds == 0).all(1).any()


def test_the_same_seed_gives_the_same_distortions(images: torch.Tensor) -> None:
    one, two, other = distorted(images, 3), distorted(images, 3), distorted(images, 4)
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.regions, two.regions)
    assert not torch.equal(one.images, other.images)


def test_a_blur_of_a_flat_place_is_no_region() -> None:
    flat = torch.zeros(2, 1, PATCH, PATCH)
    flat[:, :, :, PATCH // 2 :] = 1.0
    found = distorted((flat - flat.mean()) / flat.std(), types=("blur",), regions=(4, 4))
    across = found.types[:, :, PATCH // 2 - 8 : PATCH // 2 + 8].flatten(1).any(1)
    assert bool((across | (found.kinds == 0).all(1)).all())
    assert not found.types[:, :, : PATCH // 4].any()


# ---------------------------------------------------------------------------------------------
# Instances


def test_instances_are_what_torchvision_wants(images: torch.Tensor) -> None:
    found = distorted(images, 2)
    targets = instance_targets(found, images)
    assert len(targets) == len(images)
    for target, regions, kinds, clean in zip(targets, found.regions, found.kinds, images, strict=True):
        count = int((kinds > 0).sum())
        assert target["boxes"].shape == (count, 4)
        assert target["labels"].tolist() == [k for k in kinds.tolist() if k]
        assert target["masks"].dtype == torch.bool
        assert torch.equal(target["clean"], clean)
        for (x0, y0, x1, y1), mask in zip(target["boxes"].int().tolist(), target["masks"], strict=True):
            rows, columns = mask.nonzero().unbind(1)
            assert (x0, y0, x1 - 1, y1 - 1) == (columns.min(), rows.min(), columns.max(), rows.max())
        assert torch.equal(target["masks"].bool(), regions[:count])


def test_an_image_without_regions_has_no_instances() -> None:
    empty = Distorted(torch.zeros(1, 1, 8, 8), torch.zeros(1, 2, 8, 8, dtype=torch.bool), torch.zeros(1, 2).long())
    target = instance_targets(empty, torch.zeros(1, 1, 8, 8))[0]
    assert target["boxes"].shape == (0, 4)
    assert target["masks"].shape == (0, 8, 8)


# ---------------------------------------------------------------------------------------------
# Seams
#
# A seam is a step across the outline. Noise or shuffled pixels inside a region are no seam but what the network shall
# find, so both detectors look for the step alone. Zero-mean texture cancels in `step`, which averages over stretches of
# the outline before it takes a difference, and takes off the differences found 3 px further in and out; and it has no
# preferred direction, so `across` compares the slope across the outline with the slope along it. Both are compared
# with outlines of other regions, drawn by the same rules, on images that nothing was done to: outlines avoid flat
# places there too. AUC 0.5 says that the outline of a region looks like any outline.


def step(image: Array, inwards: Array, angle: Array, stretches: int = 12) -> float:
    """Mean difference of the two sides of the outline over stretches of it, less that 3 px further in and out."""
    stretch = (angle * stretches).astype(int)

    def differences(at: float) -> float:
        sides = [(inwards > at) & (inwards < at + 3), (inwards < at) & (inwards > at - 3)]
        found = []
        for k in range(stretches):
            inner, outer = (image[side & (stretch == k)] for side in sides)
            if len(inner) > 2 and len(outer) > 2:
                found.append(abs(inner.mean() - outer.mean()))
        return float(np.mean(found)) if found else 0.0

    return differences(0.0) - (differences(3.0) + differences(-3.0)) / 2


def across(image: Array, inwards: Array, angle: Array) -> float:
    """How much steeper the image, less its finest texture, is across the outline than along it."""
    slope_y, slope_x = np.gradient(ndimage.gaussian_filter(image, 1.0))
    normal_y, normal_x = np.gradient(ndimage.gaussian_filter(inwards, 1.0))
    rim = np.abs(inwards) < 2
    length = np.hypot(normal_y, normal_x) + 1e-6
    through = ((slope_y * normal_y + slope_x * normal_x) / length)[rim]
    along = ((slope_x * normal_y - slope_y * normal_x) / length)[rim]
    return float(np.log(((through**2).mean() + 1e-9) / ((along**2).mean() + 1e-9)))


DETECTORS = (step, across)


def seams(looked_at: torch.Tensor, found: Distorted) -> list[tuple[float, ...]]:
    """What the detectors say of the outlines in some images, of the regions that lie wholly inside."""
    answers_ = []
    for image, regions in zip(looked_at[:, 0].numpy(), found.regions.numpy(), strict=True):
        for region in regions:
            rows, columns = (np.flatnonzero(region.any(axis)) for axis in (1, 0))
            if len(rows) == 0 or min(rows[0], columns[0]) < 8 or max(rows[-1], columns[-1]) >= PATCH - 8:
                continue
            box = slice(rows[0] - 8, rows[-1] + 9), slice(columns[0] - 8, columns[-1] + 9)
            inside = region[box]
            inwards = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
            inwards += np.where(inside, -0.5, 0.5)
            middle_y, middle_x = ndimage.center_of_mass(inside)
            y, x = np.indices(inside.shape)
            angle = np.arctan2(y - middle_y, x - middle_x) / (2 * np.pi) % 1
            answers_.append(tuple(detector(image[box], inwards, angle) for detector in DETECTORS))
    return answers_


def seam_auc(images: torch.Tensor, name: str, **changes: object) -> list[float]:
    """Area under the curve of each detector: outlines of distorted regions against those of untouched places."""
    given = {"types": (name,), "regions": (3, 3), "overlap": 0.0, **changes}
    ours, others = [], []
    for seed in range(6):
        found = distorted(images, seed, **given)
        ours += seams(found.images, found)
        others += seams(images, distorted(images, seed + 100, **given))
    assert min(len(ours), len(others)) > 50
    one, two = np.array(ours), np.array(others)
    return ((one[:, None] > two) + 0.5 * (one[:, None] == two)).mean((0, 1)).tolist()


@pytest.mark.parametrize("name", REGION_TYPES)
def test_a_seam_detector_is_near_chance(images: torch.Tensor, name: str) -> None:
    for detector, area in zip(DETECTORS, seam_auc(images, name), strict=True):
        assert abs(area - 0.5) <= SEAM_BOUND, f"{detector.__name__}: {area:.2f}"


@pytest.mark.parametrize("name", ["swap", "inpainting", "intensity"])
def test_the_seam_detectors_see_seams(images: torch.Tensor, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distorting, "levelled", lambda content, patches: content)
    by_step, by_slope = seam_auc(images, name, edge_mm=0.01)
    assert by_step > 0.85
    assert by_slope > 0.7


# ---------------------------------------------------------------------------------------------
# Each type


def one_patch(image: torch.Tensor) -> Patches:
    """A single round region in the middle of an image ``(P, P)``."""
    side = image.shape[0]
    step_ = torch.arange(side) - (side - 1) / 2
    inside = torch.hypot(step_[:, None], step_) < side / 3
    column = torch.ones(1, 1, 1)
    low, high = float(image.min()) * column, float(image.max()) * column
    return Patches(image[None], image.flip(0)[None], inside[None].float(), torch.tensor([side / 1.5]), low, high)


def made(name: str, patches: Patches, seed: int = 0, **changes: object) -> torch.Tensor:
    draws = distorting.Draws(torch.Generator().manual_seed(seed), torch.device("cpu"))
    settings = Distortions(**changes)  # type: ignore[arg-type]
    return distorting.EFFECTS[name](patches, SPACING_MM, settings, draws)[0]


def test_shuffling_moves_pixels_within_tiles_only() -> None:
    image = torch.arange(40.0)[:, None] * 100 + torch.arange(40.0)
    found = made("shuffling", one_patch(image), shuffling_mm=(7.0, 7.0))
    assert torch.equal(found.flatten().sort().values, image.flatten().sort().values)
    assert (found != image).float().mean() > 0.9
    moved = torch.stack([found // 100 - image // 100, found % 100 - image % 100]).abs()
    # Tiles of 7 mm are 4 px wide: no pixel goes further than 3.
    assert moved.max() == 3


def test_half_of_the_intensity_maps_rise_throughout() -> None:
    ramp = torch.linspace(-1, 3, 40).expand(40, 40)
    rising = 0
    for seed in range(60):
        curve = made("intensity", one_patch(ramp), seed)[0]
        assert torch.allclose(curve[[0, -1]], ramp[0, [0, -1]], atol=1e-5)
        assert (curve - ramp[0]).abs().max() > 0.2
        rising += bool((curve.diff() > -1e-5).all())
    assert 15 <= rising <= 45


def test_inpainting_forgets_what_was_there_and_noise_does_not() -> None:
    image = torch.randn(60, 60, generator=torch.Generator().manual_seed(1))
    painted = made("inpainting", one_patch(image), inpainting=(0.7, 0.7))
    noisy = made("noise", one_patch(image), noise=(0.5, 0.5))
    assert abs(float(torch.corrcoef(torch.stack([painted.flatten(), image.flatten()]))[0, 1])) < 0.1
    assert float(painted.std()) == pytest.approx(0.7, abs=0.03)
    assert float(painted.abs().max()) <= 0.7 * 3**0.5
    assert float((noisy - image).std()) == pytest.approx(0.5, abs=0.03)


def test_blur_has_the_sigma_that_is_set() -> None:
    point = torch.zeros(41, 41)
    point[20, 20] = 1.0
    found = made("blur", one_patch(point), blur_mm=(3.5, 3.5))
    assert float(found.sum()) == pytest.approx(1.0, abs=1e-3)
    away = torch.arange(41.0) - 20
    # 3.5 mm are 2 px, along both axes.
    for axis in (0, 1):
        assert float((found.sum(axis) * away**2).sum()) == pytest.approx(4.0, rel=0.02)


def test_bias_scales_smoothly() -> None:
    image = torch.ones(40, 40) + torch.eye(40)
    image[0, 0] = 0.0
    ratio = made("bias", one_patch(image), bias=(0.5, 0.5)) / image.clamp(min=1e-3)
    middle = ratio[20, 20]
    assert abs(abs(float(middle) - 1) - 0.5) < 0.1
    assert float(ratio[1:, 1:].diff(dim=0).abs().max()) < 0.1
    assert float(ratio[1, 1]) == pytest.approx(1.0, abs=0.05)


def test_swap_takes_content_from_elsewhere_in_the_same_image() -> None:
    # Every pixel of image k holds k + its own place, so that content tells where it comes from.
    place = torch.arange(float(PATCH**2)).reshape(PATCH, PATCH) / PATCH**2
    coded = torch.stack([place + 10 * k for k in range(4)])[:, None]
    settings = Distortions(types=("swap",))
    draws = distorting.Draws(torch.Generator().manual_seed(0), torch.device("cpu"))
    mask = torch.ones(4, PATCH, PATCH, dtype=torch.bool)
    windows = distorting.drawn_windows(mask, SPACING_MM, settings, draws)
    patches = distorting.patches_of(coded, windows)
    owner = torch.arange(4).repeat_interleave(len(windows.sides) // 4)
    for content in (patches.pixels, patches.elsewhere):
        assert torch.equal((content / 10).floor().long(), owner[:, None, None].expand_as(content).contiguous())
    moved = (windows.corners - windows.sources).float().norm(dim=1)
    assert (moved > 0).all()
    assert (moved >= 0.5 * windows.sides).float().mean() > 0.8


def test_outpainting_is_off_unless_asked_and_keeps_one_place(images: torch.Tensor) -> None:
    kind = 1 + TYPES.index("outpainting")
    assert not (distorted(images).kinds == kind).any()
    found = distorted(images, outpainting=1.0)
    assert bool((found.kinds == torch.tensor([kind, 0, 0, 0])).all())
    share = found.regions[:, 0].float().mean((1, 2))
    assert 0.6 < share.min() < share.max() < 0.97
    same = (found.images == images).float().mean((1, 2, 3))
    assert bool((same > 0.02).all())
    assert bool((found.types == kind * found.regions[:, 0]).all())


# ---------------------------------------------------------------------------------------------
# Settings


def test_wrong_settings_are_refused_with_their_name() -> None:
    for wrong, name in (
        ({"types": ["melting"]}, "types"),
        ({"regions": [3, 1]}, "regions"),
        ({"side": [0.1, 1.5]}, "side"),
    ):
        with pytest.raises(SettingsError, match=name):
            parse({"data": {"path": "x"}, "distortions": wrong}, Finetune)


# ---------------------------------------------------------------------------------------------
# The task of the U-Net


def batch_of(images: torch.Tensor) -> Batch:
    labels = torch.full((len(images), PATCH, PATCH), -1)
    return Batch(images, labels, {}, {}, {}, SPACING_MM, images, labels < 0)


@pytest.fixture
def task_and_target(images: torch.Tensor) -> tuple[DistortionPrediction, torch.Tensor]:
    task, batch = DistortionPrediction(Distortions(untouched=0.0)), batch_of(images)
    task.distort(batch, torch.Generator().manual_seed(3))
    return task, task.target(batch)


def perfect(task: DistortionPrediction, target: torch.Tensor) -> torch.Tensor:
    one_hot = functional.one_hot(target[:, 2].long(), task.classes).permute(0, 3, 1, 2).float()
    return torch.cat([20 * one_hot - 10, target[:, :1] - target[:, 1:2]], dim=1)


def test_target_holds_clean_given_and_types(
    images: torch.Tensor, task_and_target: tuple[DistortionPrediction, torch.Tensor]
) -> None:
    task, target = task_and_target
    expected = distorted(images, 3)
    assert task.pixel_outputs == len(TYPES) + 2
    assert torch.equal(target[:, :1], images)
    assert torch.equal(target[:, 1:2], expected.images)
    assert torch.equal(target[:, 2].long(), expected.types)


def test_a_perfect_output_costs_nothing_and_scores_full(
    task_and_target: tuple[DistortionPrediction, torch.Tensor],
) -> None:
    task, target = task_and_target
    best = perfect(task, target)
    assert float(task.loss(best, target)) < 0.01
    scores = task.score(best, target, SPACING_MM)
    assert scores["region_dice"] == scores["type_accuracy"] == 1.0
    assert scores["restored_rmse"] < 1e-5
    assert scores["untouched_rmse"] > 0.2


def test_each_part_of_the_loss_is_felt(task_and_target: tuple[DistortionPrediction, torch.Tensor]) -> None:
    task, target = task_and_target
    best = perfect(task, target)
    wrong_type = best.clone()
    wrong_type[:, 1 : task.classes] = best[:, 1 : task.classes].roll(1, dims=1)
    copied = best.clone()
    copied[:, task.classes] = 0.0
    assert float(task.loss(wrong_type, target)) > 1.0
    assert task.score(wrong_type, target, SPACING_MM)["type_accuracy"] == 0.0
    assert task.score(wrong_type, target, SPACING_MM)["region_dice"] == 1.0
    assert float(task.loss(copied, target)) > float(task.loss(best, target)) + 0.05
    scores = task.score(copied, target, SPACING_MM)
    assert scores["restored_rmse"] == scores["untouched_rmse"]


@pytest.mark.parametrize("distorted_first", [False, True])
def test_images_without_distortions_cost_little_and_have_no_score(images: torch.Tensor, distorted_first: bool) -> None:
    task, batch = DistortionPrediction(Distortions(untouched=0.999)), batch_of(images)
    if distorted_first:
        task.distort(batch, torch.Generator().manual_seed(0))
        assert torch.equal(batch.images, images)
    target = task.target(batch)
    output = perfect(task, target).requires_grad_()
    loss = task.loss(output, target)
    loss.backward()
    assert float(loss.detach()) < 0.01
    assert output.grad is not None
    assert output.grad.isfinite().all()
    assert all(math.isnan(v) for v in task.score(output.detach(), target, SPACING_MM).values())


def test_picture_shows_the_restored_image_with_the_types(
    task_and_target: tuple[DistortionPrediction, torch.Tensor],
) -> None:
    task, target = task_and_target
    given, clean, types = target[0, 1].numpy(), target[0, 0].numpy(), target[0, 2].numpy()
    for values in (perfect(task, target)[0].numpy(), target[0].numpy()):
        axes = Figure().subplots()
        task.draw(axes, given, values)
        shown, *layers = (np.asarray(item.get_array()) for item in axes.images)
        assert np.allclose(shown, clean, atol=1e-5)
        for number, layer in enumerate(layers, 1):
            assert np.array_equal(layer[..., 3] > 0, types == number)
        assert {text.get_text() for text in axes.texts} <= {TYPES[int(k) - 1] for k in np.unique(types) if k}
        assert axes.texts


def test_learns_beside_the_geometric_tasks() -> None:
    names = ("positions", "crossings", "distortions")
    grid = Grid(patch=64, spacing_mm=3.0, phases=1)
    given = Pretrain(data=Data(path="toy"), pretext=names, grid=grid)
    tasks = make_pretexts(names, given)
    records = [r for seed in range(2) for r in study_records(toy_study(seed, slices=5), tasks, grid, [])]
    slices = SliceSet(records, grid.spacing_mm, torch.device("cpu"))
    everything = torch.arange(len(records))
    torch.manual_seed(0)
    network = TaskUNet((4, 8, 16), {t.name: t.pixel_outputs for t in tasks})
    stream = Stream(everything, [(t, 1.0) for t in tasks])
    run = Run(network, slices, [stream], Schedule(steps=2, batch=4), Augmentation(), 64, 0, everything)
    run.blank = blank_losses(run)
    assert set(run.blank) == set(names)
    step_loss(run, 0, 0, 1).backward()
    for name in names:
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.pixel_heads[name].parameters())
    scores = validate(run, network)
    assert set(scores["distortions"]) == {"region_dice", "type_accuracy", "restored_rmse", "untouched_rmse"}
