"""Synthetic distortions: where they are, what they change, that their seams do not give them away, and the task."""

from __future__ import annotations

import pytest
import torch
from scipy import ndimage

from SSLEngine import distorting
from SSLEngine.distorting import Distorted
from SSLEngine.distorting import distort
from SSLEngine.distorting import foreground
from SSLEngine.distorting import instance_targets
from SSLEngine.phantom import make_study
from SSLEngine.settings import REGION_TYPES
from SSLEngine.settings import Distortions
from SSLEngine.settings import Finetune
from SSLEngine.settings import Grid
from SSLEngine.settings import SettingsError
from SSLEngine.settings import parse
from SSLEngine.slices import SliceSet
from SSLEngine.slices import make_batch
from SSLEngine.slices import study_records

SPACING_MM, PATCH = 1.75, 144


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


def distorted(images: torch.Tensor, seed: int = 0, **changes: object) -> Distorted:
    return distort(images, Distortions(**changes), SPACING_MM, torch.Generator().manual_seed(seed))  # type: ignore[arg-type]


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
        assert target["masks"].dtype == torch.uint8
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
# Settings


def test_wrong_settings_are_refused_with_their_name() -> None:
    for wrong, name in (
        ({"types": ["melting"]}, "types"),
        ({"regions": [3, 1]}, "regions"),
        ({"side": [0.1, 1.5]}, "side"),
    ):
        with pytest.raises(SettingsError, match=name):
            parse({"data": {"path": "x"}, "distortions": wrong}, Finetune)
