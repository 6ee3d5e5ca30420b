"""What augmentation does to pixels, labels, points and lines: measured on images and compared with the closed form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given
from hypothesis import settings as quick
from hypothesis import strategies as st

from SSLEngine.geometry import Plane
from SSLEngine.geometry import crossing_line
from SSLEngine.jobs import Reporter
from SSLEngine.phantom import make_study
from SSLEngine.phantom.heart import draw_body
from SSLEngine.phantom.heart_views import lay_heart_planes
from SSLEngine.pretext import make_pretexts
from SSLEngine.pretext.base import Batch
from SSLEngine.pretext.base import Geometry
from SSLEngine.pretext.crossings import Crossing
from SSLEngine.pretext.positions import PositionPrediction
from SSLEngine.runs import gather
from SSLEngine.settings import Augmentation
from SSLEngine.settings import Crossings
from SSLEngine.settings import Data
from SSLEngine.settings import Grid
from SSLEngine.settings import LeftOut
from SSLEngine.settings import Positions
from SSLEngine.settings import Pretrain
from SSLEngine.settings import parse
from SSLEngine.slices import Record
from SSLEngine.slices import SliceInfo
from SSLEngine.slices import SliceSet
from SSLEngine.slices import acquired_box
from SSLEngine.slices import augmentation_matrices
from SSLEngine.slices import chosen_phases
from SSLEngine.slices import comparable
from SSLEngine.slices import crop_centre
from SSLEngine.slices import landmark
from SSLEngine.slices import make_batch
from SSLEngine.slices import network_plane
from SSLEngine.slices import resample
from SSLEngine.slices import stacks_of
from SSLEngine.slices import standardise
from SSLEngine.slices import study_records
from SSLEngine.studies import Study
from SSLEngine.studies import StudyError
from SSLEngine.studies import View
from toy_exams import AXIS
from toy_exams import STORED
from toy_exams import off_centre
from toy_exams import stored
from toy_exams import toy_study

SIDE, PATCH, SPACING = 120, 80, 2.5
DOT, RADIUS = np.array([66.3, 52.8]), 6.0
#: Two parallel lines 30 mm apart on the stored slice, in mm; the dot lies between them.
NORMAL = np.array([0.6, 0.8])
FIRST = np.array([*(NORMAL * SPACING), -float(NORMAL @ DOT) * SPACING + 15])
SECOND = FIRST - [0, 0, 30]
STILL = Augmentation(gamma=0, contrast=0, brightness=0, noise=0, blur_mm=0, bias=0, flip=True, scale=1.3)


def pixel_grid(side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return np.stack([x, y], -1).astype(float)


def one_slice(image: np.ndarray, labels: np.ndarray | None = None) -> SliceSet:
    info = SliceInfo("s", "s", "sax", "sax", 0, 0, labels is not None)
    geometry = {"task": Geometry(lines=np.stack([FIRST, SECOND]), points=np.array([DOT, [np.nan, np.nan]]))}
    truth = None if labels is None else labels.astype(np.uint8)
    edges = np.array([-0.5, -0.5, image.shape[1] - 0.5, image.shape[0] - 0.5])
    return SliceSet([Record(info, image.astype(np.float16), truth, edges, geometry)], SPACING, torch.device("cpu"))


def augmented(image: np.ndarray, labels: np.ndarray | None = None, count: int = 24) -> Batch:
    generator = torch.Generator().manual_seed(3)
    return make_batch(one_slice(image, labels), torch.zeros(count, dtype=torch.int64), PATCH, STILL, generator)


def distance(line: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    return pixels @ line[:2] + line[2]


def test_a_point_goes_where_its_dot_goes() -> None:
    image = np.exp(-((pixel_grid(SIDE) - DOT) ** 2).sum(-1) / (2 * 3.0**2))
    batch = augmented(image)
    compared = 0
    for picture, points in zip(batch.images[:, 0].numpy(), batch.points["task"].numpy(), strict=True):
        if not ((points[0] > 18) & (points[0] < PATCH - 19)).all():
            continue
        weight = np.where(picture > 0.02, picture, 0)[..., None]
        found = (weight * pixel_grid(PATCH)).sum((0, 1)) / weight.sum()
        assert np.abs(found - points[0]).max() < 0.06
        assert np.isnan(points[1]).all()
        compared += 1
    assert compared > 12


def test_lines_run_along_their_edges_in_mm_of_the_patch() -> None:
    inner = distance(FIRST, pixel_grid(SIDE))
    # Bright between the lines; soft edges, so that their middle can be measured below a pixel.
    image = 1 / (1 + np.exp(-inner / 2)) - 1 / (1 + np.exp(-(inner - 30) / 2))
    batch = augmented(image)
    grid, compared = pixel_grid(PATCH), 0
    for picture, lines in zip(batch.images[:, 0].numpy(), batch.lines["task"].numpy(), strict=True):
        for gradient in np.linalg.norm(lines[:, :2], axis=1):
            assert gradient == pytest.approx(SPACING, rel=1e-5)
        edges = np.concatenate([along_rows(picture, grid), along_rows(picture.T, grid.transpose(1, 0, 2))])
        if len(edges) < 40:
            continue
        away = np.stack([distance(line, edges) for line in lines], 1)
        # The points of an edge lie on one of the two lines, to a tenth of a pixel; a corner of a turned patch may show
        # repeated border.
        assert np.quantile(np.abs(away).min(1), 0.97) < 0.1 * SPACING
        first, second = edges[np.abs(away[:, 0]) < 1], edges[np.abs(away[:, 1]) < 1]
        # Points of one edge that lie opposite the other one inside the patch.
        feet = second - distance(lines[0], second)[:, None] * lines[0][:2] / SPACING**2
        opposite = second[((feet > 3) & (feet < PATCH - 4)).all(1)]
        for point in opposite[:: max(1, len(opposite) // 3)] if len(first) > 30 else []:
            # Measured mm between the edges of the enlarged image, against the line's own value.
            gap = np.linalg.norm(point - first, axis=1).min() * SPACING
            assert gap == pytest.approx(abs(distance(lines[0], point)), abs=0.1 * SPACING)
            compared += 1
    assert compared > 6


def along_rows(picture: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Positions between neighbouring pixels of a row at which grey values pass 0.5, ``(n, 2)``."""
    level = picture - 0.5
    rows, columns = np.nonzero(level[:, :-1] * level[:, 1:] < 0)
    share = level[rows, columns] / (level[rows, columns] - level[rows, columns + 1])
    return grid[rows, columns] * (1 - share[:, None]) + grid[rows, columns + 1] * share[:, None]


def test_labels_move_with_the_image_and_mirrored_images_are_mirrored_right() -> None:
    away = np.linalg.norm(pixel_grid(SIDE) - DOT, axis=-1)
    # Two discs side by side in different colours: mirroring exchanges them.
    other = np.linalg.norm(pixel_grid(SIDE) - DOT - [14, 0], axis=-1)
    truth = np.where(away < RADIUS, 1, np.where(other < RADIUS, 2, 0))
    batch = augmented(truth.astype(float), truth)
    seen = batch.images[:, 0]
    clear = (seen - seen.round()).abs() < 0.05
    wrong = (seen.round().long() != batch.labels) & clear
    assert float(wrong.float().mean()) < 0.002
    assert int((batch.labels == 2).sum()) > 200
    assert set(batch.labels.unique().tolist()) == {0, 1, 2}


def test_half_of_the_samples_are_mirrored_only_where_it_is_asked_for() -> None:
    for flip, low, high in ((True, 300, 500), (False, 0, 0)):
        asked = Augmentation(flip=flip)
        made = augmentation_matrices(800, PATCH, SIDE, SPACING, asked, torch.Generator().manual_seed(0))
        assert low <= int((torch.linalg.det(made[:, :2, :2]) < 0).sum()) <= high
    middle = torch.tensor([(PATCH - 1) / 2, (PATCH - 1) / 2, 1.0])
    shift = (made @ middle)[:, :2] - (SIDE - 1) / 2
    assert float(shift.abs().max()) <= Augmentation().shift_mm / SPACING + 1e-4
    assert float(shift.abs().max()) > 0.9 * Augmentation().shift_mm / SPACING


def test_where_the_scanner_measured_moves_with_the_image() -> None:
    host, source = oblique((SIDE, SIDE), (SPACING, SPACING)), oblique((50, 30), (1.4, 1.9))
    source = replace(source, origin=host.to_patient(np.array([20.0, 31.0])))
    # Bright where an image was acquired: its border lies half a pixel of its own outside its outermost centres.
    left, upper = 20 - 0.7 / SPACING, 31 - 0.95 / SPACING
    right, lower = left + 50 * 1.4 / SPACING, upper + 30 * 1.9 / SPACING
    assert np.allclose(acquired_box(source, host), (left, upper, right, lower))
    grid = pixel_grid(SIDE)
    # Coverage of each pixel, so that a half covered one is 0.5.
    across, down = (
        np.clip(np.minimum(grid[..., k] + 0.5, high) - np.maximum(grid[..., k] - 0.5, low), 0, 1)
        for k, (low, high) in enumerate(((left, right), (upper, lower)))
    )
    slices = one_slice(across * down)
    slices.acquired = torch.from_numpy(acquired_box(source, host)[None]).float()
    generator = torch.Generator().manual_seed(3)
    batch = make_batch(slices, torch.zeros(24, dtype=torch.int64), PATCH, STILL, generator)
    seen = batch.images[:, 0]
    assert bool(batch.acquired[seen > 0.9].all())
    assert not bool(batch.acquired[seen < 0.1].any())
    assert 0.05 < float(batch.acquired.float().mean()) < 0.95


def test_without_settings_the_middle_is_cut_out_unchanged() -> None:
    image = np.random.default_rng(0).random((SIDE, SIDE))
    made = make_batch(one_slice(image), torch.tensor([0]), PATCH, None, torch.Generator())
    low = (SIDE - PATCH) // 2
    kept = image.astype(np.float16)[low : low + PATCH, low : low + PATCH]
    assert np.allclose(made.images[0, 0].numpy(), kept, atol=1e-3)
    assert np.allclose(made.points["task"][0, 0].numpy(), DOT - low, atol=1e-4)
    assert (made.labels == -1).all()
    value = distance(made.lines["task"][0, 0].numpy(), np.array([10.0, 20.0]))
    assert value == pytest.approx(distance(FIRST, np.array([10.0 + low, 20.0 + low])), abs=1e-3)


def test_the_generator_decides_everything() -> None:
    image = np.random.default_rng(0).random((SIDE, SIDE))

    def made(seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed + 99)
        return make_batch(one_slice(image), torch.tensor([0, 0]), PATCH, Augmentation(), generator).images

    torch.manual_seed(1)
    assert torch.equal(made(5), made(5))
    assert not torch.equal(made(5), made(6))
    assert not torch.equal(made(5)[0], made(5)[1])


# ---------------------------------------------------------------------------------------------
# From images to stored slices


def oblique(size: tuple[int, int], spacing: tuple[float, float]) -> Plane:
    x = np.array([0.8, 0.36, -0.48])
    y = np.cross([0.6, -0.48, 0.64], x)
    return Plane(np.array([12.0, -7, 31]), x, y / np.linalg.norm(y), spacing, size)


def as_itk(pixels: np.ndarray, plane: Plane) -> sitk.Image:
    image = sitk.GetImageFromArray(pixels[None])
    image.SetOrigin(plane.origin.tolist())
    image.SetSpacing([*plane.spacing, 1.0])
    image.SetDirection(np.stack([plane.x_direction, plane.y_direction, plane.normal], 1).ravel().tolist())
    return image


@pytest.mark.parametrize("labels", [False, True])
def test_resampling_agrees_with_simpleitk(labels: bool) -> None:
    rng = np.random.default_rng(2)
    source = oblique((40, 30), (2.1, 3.2))
    target = network_plane(source, 1.9, 44, source.to_patient([18.0, 16.0]))
    pixels = rng.integers(0, 5, (30, 40)).astype(np.float32) if labels else rng.random((30, 40)).astype(np.float32)
    mine = resample(torch.from_numpy(pixels)[None], source, target, labels)[0].numpy()
    mode = sitk.sitkNearestNeighbor if labels else sitk.sitkLinear
    blank = as_itk(np.zeros((44, 44), np.float32), target)
    theirs = sitk.GetArrayFromImage(sitk.Resample(as_itk(pixels, source), blank, sitk.Transform(), mode, -1.0))[0]
    y, x = np.mgrid[:44, :44]
    place = source.to_pixel(target.to_patient(np.stack([x, y], -1)))
    inside = ((place > 0.01) & (place < np.array(source.size) - 1.01)).all(-1)
    assert inside.sum() > 1500
    if labels:
        # Ties at exactly half a pixel may go either way.
        near_tie = (np.abs(place - np.floor(place) - 0.5) < 1e-3).any(-1)
        assert (mine == theirs)[inside & ~near_tie].all()
        outside = ((place < -0.51) | (place > np.array(source.size) - 0.49)).any(-1)
        assert (mine[outside] == 0).all()
    else:
        assert np.abs(mine - theirs)[inside].max() < 1e-4


def test_a_coarser_grid_is_blurred_first_and_edges_stay_where_they_are() -> None:
    source = oblique((120, 90), (1.0, 1.0))
    target = source.resampled((4.0, 4.0))
    stripes = torch.from_numpy((np.indices((90, 120))[1] % 2).astype(np.float32))[None]
    assert float((resample(stripes, source, target) - 0.5).abs()[0, 2:-2, 2:-2].max()) < 0.02
    edge = torch.zeros(1, 90, 120)
    edge[..., 58:] = 1
    row = resample(edge, source, target)[0, 10].numpy()
    k = int(np.flatnonzero(row < 0.5)[-1])
    crossing = k + (0.5 - row[k]) / (row[k + 1] - row[k])
    # The edge lies between columns 57 and 58: pixel 57.5, that is 58 mm from the left border.
    assert (crossing + 0.5) * 4 == pytest.approx(58, abs=0.3)


@given(
    st.integers(20, 90),
    st.integers(20, 90),
    st.floats(0.8, 4),
    st.floats(0.8, 4),
    st.floats(-1, 2),
    st.floats(-1, 2),
    st.integers(16, 64),
)
@quick(max_examples=60, deadline=None)
def test_the_kept_square_stays_on_the_image_where_it_fits(
    w: int, h: int, dx: float, dy: float, cx: float, cy: float, side: int
) -> None:
    plane = oblique((w, h), (dx, dy))
    wanted = plane.to_patient([cx * w, cy * h])
    kept = network_plane(plane, 2.0, side, wanted)
    assert np.allclose(kept.normal, plane.normal)
    assert np.abs(plane.signed_distance(kept.corners)).max() < 1e-6
    corners = plane.to_pixel(kept.corners)
    for axis, (extent, count) in enumerate(((w * dx, w), (h * dy, h))):
        low, high = corners[:, axis].min(), corners[:, axis].max()
        if side * 2.0 <= extent:
            assert low >= -0.5 - 1e-6
            assert high <= count - 0.5 + 1e-6
        else:
            assert (low + high) / 2 == pytest.approx((count - 1) / 2, abs=1e-6)
    middle = plane.to_pixel(kept.centre)
    half = np.array([side / dx, side / dy])
    free = (np.array([cx * w, cy * h]) > half).all() and (
        np.array([cx * w, cy * h]) < np.array([w, h]) - 1 - half
    ).all()
    if free:
        assert np.allclose(middle, [cx * w, cy * h], atol=1e-6)
    wide = network_plane(plane, 2.0, side, wanted, margin=1.5)
    assert wide.size[0] == wide.size[1] == pytest.approx(1.5 * side, abs=1.01)
    first = wide.to_pixel(kept.origin)
    assert np.allclose(first, (wide.size[0] - side) / 2, atol=1e-6)
    assert np.allclose(first, first.round(), atol=1e-6)


@pytest.mark.parametrize("patch", [16, 32, 48])
def test_a_network_is_trained_on_the_squares_that_it_will_look_at(patch: int) -> None:
    """Also where the stored slice, wider than a patch, is wider than the image."""
    study, grid = off_centre(toy_study(4)), Grid(spacing_mm=7.0, patch=patch)
    slices = SliceSet(list(study_records(study, [], grid, [])), grid.spacing_mm, torch.device("cpu"))
    shown = make_batch(slices, torch.arange(len(slices)), patch, None, torch.Generator()).images[:, 0]
    for info, patch_shown in zip(slices.infos, shown, strict=True):
        view = next(v for v in study.views if v.name == info.view)
        plane = view.planes[info.index]
        square = network_plane(plane, grid.spacing_mm, patch, crop_centre(study, view, grid), view.role)
        pixels = standardise(view.pixels(0), grid.clip_percent)[info.index]
        looked_at = resample(torch.from_numpy(pixels)[None], plane, square)[0]
        assert torch.allclose(patch_shown, looked_at, atol=5e-3), info


def test_grey_values_are_standardised_whatever_is_in_them() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.normal(700, 90, (3, 20, 20)).astype(np.float32)
    pixels[0, 0, 0] = 1e9
    made = standardise(pixels, (1, 99))
    assert float(made.mean()) == pytest.approx(0, abs=1e-4)
    assert float(made.std()) == pytest.approx(1, abs=1e-3)
    assert float(made.max()) < 4
    pixels[1, 1, :2] = [np.nan, np.inf]
    assert np.isfinite(standardise(pixels, (1, 99))).all()
    assert abs(float(standardise(pixels, (1, 99)).std()) - 1) < 0.01
    assert (standardise(np.full((1, 4, 4), 7, np.float32), (1, 99)) == 0).all()


def test_phases_are_spread_over_the_cycle() -> None:
    def view(phases: int) -> View:
        return replace(toy_study(0).views[0], phases=phases, read_labels=None)

    assert chosen_phases(view(1), 2) == [0]
    assert chosen_phases(view(2), 2) == [0, 1]
    assert chosen_phases(view(25), 2) == [0, 12]
    assert chosen_phases(view(8), 4) == [0, 2, 4, 6]
    assert chosen_phases(view(3), 0) == [0, 1, 2]
    assert chosen_phases(view(25), 1) == [0]

    # Where some phases alone are labelled, they are what there is to learn from.
    labels = np.zeros(view(1).shape, np.int16)
    some = replace(view(25), read_labels=lambda k: labels if k in (0, 9) else None)
    assert chosen_phases(some, 2) == [0, 9, 12]
    assert chosen_phases(some, 1) == [0, 9]
    assert chosen_phases(replace(some, read_labels=lambda k: labels), 2) == [0, 12]


def test_end_diastole_and_end_systole_are_chosen_by_the_header() -> None:
    view = replace(toy_study(0).views[0], read_labels=None)
    for phases, wanted in ((1, [0]), (2, [0, 1]), (25, [0, 9])):
        view.phases = phases
        assert chosen_phases(view, "ed-es") == wanted
    # The second half of the cycle was sampled twice as densely: a third of the time is later than a third of the list.
    view.phases, view.trigger_times = 9, (0, 200, 400, 500, 600, 700, 800, 900, 950)
    assert chosen_phases(view, "ed-es") == [0, 2]
    study = toy_study(4, phases=8)
    grid = parse({"spacing_mm": 6, "patch": 32, "phases": "ed-es"}, Grid)
    records = [r for r in study_records(study, [], grid, [1]) if r.info.role == "2ch"]
    assert [r.info.phase for r in records] == [0, 3]
    # The toy heart contracts: its cavity is smaller at the later one.
    areas = [int((r.labels == 1).sum()) for r in records]
    assert areas[1] < 0.8 * areas[0]


# ---------------------------------------------------------------------------------------------
# Which slices


def kept(study: Study, **left_out: int) -> dict[str, list[int]]:
    """Indices of the slices that are used, by role."""
    grid = parse({"spacing_mm": 8, "patch": 32, "phases": 1}, Grid)
    found: dict[str, list[int]] = {}
    for record in study_records(study, [], grid, [], LeftOut(**left_out)):
        found.setdefault(record.info.role, []).append(record.info.index)
    return found


@pytest.mark.parametrize("long_axis_views", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_the_basal_end_is_that_of_the_phantoms_long_axis(seed: int, long_axis_views: bool) -> None:
    """The phantom lays its stacks from base to apex or the other way round, as the seed has it."""
    rng = np.random.default_rng(seed)
    body = draw_body(rng)
    base, apex = body.shape.to_patient([(0, 0, 0), (0, 0, body.shape.apex)])
    roles = ("sax", "2ch", "3ch", "4ch") if long_axis_views else ("sax",)
    planes = {role: stack for role, stack in lay_heart_planes(body.shape, rng).items() if role in roles}
    study = Study("s", Path("s"), [as_view(role, stack) for role, stack in planes.items()], organ="heart")
    from_base = np.argsort([(plane.centre - base) @ (apex - base) for plane in planes["sax"]]).tolist()
    assert from_base in (sorted(from_base), sorted(from_base)[::-1])
    rest = {role: [0] for role in roles[1:]}
    assert kept(study, basal=2) == {"sax": sorted(from_base[2:]), **rest}
    assert kept(study, apical=3) == {"sax": sorted(from_base[:-3]), **rest}
    assert kept(study, basal=1, apical=2) == {"sax": sorted(from_base[1:-2]), **rest}


def as_view(role: str, planes: list[Plane]) -> View:
    columns, rows = planes[0].size
    pixels = np.random.default_rng(0).random((len(planes), rows, columns)).astype(np.float32)
    return View(role, Path(role), planes, 1, lambda _: pixels, role=role)


def test_phantoms_of_both_directions_are_among_those() -> None:
    ways = set()
    for seed in range(4):
        rng = np.random.default_rng(seed)
        body = draw_body(rng)
        stack = lay_heart_planes(body.shape, rng)["sax"]
        ways.add(bool((stack[-1].centre - stack[0].centre) @ body.shape.axes[2] > 0))
    assert ways == {True, False}


def test_left_out_slices_change_nothing_for_the_others() -> None:
    study = toy_study(6)
    tasks = make_pretexts(["crossings", "location"], parse({"data": {"path": "."}}, Pretrain))
    grid = parse({"spacing_mm": 6, "patch": 32}, Grid)
    everything = list(study_records(study, tasks, grid, [1, 2]))
    some = list(study_records(study, tasks, grid, [1, 2], LeftOut(basal=1, apical=2)))
    assert [r.info.index for r in some if r.info.role == "sax"] == [1, 2]
    for record in some:
        [same] = [r for r in everything if r.info == record.info]
        assert np.array_equal(record.image, same.image)
        # A slice keeps its place in the whole stack.
        assert np.array_equal(record.geometry["location"].values, same.geometry["location"].values, equal_nan=True)
        assert np.array_equal(record.geometry["crossings"].lines, same.geometry["crossings"].lines, equal_nan=True)


def test_a_knees_stacks_have_no_base() -> None:
    study = toy_study(6)
    for view, role in zip(study.views, ("sag", "cor", "ax"), strict=True):
        view.role = role
    study.side = "left"
    assert kept(study, basal=1, apical=1) == {"sag": [0, 1, 2, 3, 4], "cor": [0], "ax": [0]}


@pytest.mark.parametrize(("basal", "apical"), [(5, 0), (0, 5), (3, 2), (0, 7), (9, 9)])
def test_of_a_short_stack_nothing_is_left(basal: int, apical: int) -> None:
    study = toy_study(6)
    assert kept(study, basal=basal, apical=apical) == {"2ch": [0], "4ch": [0]}
    study.views = study.views[:1]
    grid = parse({"spacing_mm": 6, "patch": 32}, Grid)
    with pytest.raises(StudyError, match="leave out fewer slices"):
        gather([study], [], grid, [], torch.device("cpu"), Reporter(None), left_out=LeftOut(basal=basal, apical=apical))


# ---------------------------------------------------------------------------------------------
# Where slices are cut


@pytest.mark.parametrize("how", STORED)
def test_slices_are_seen_alike_however_they_were_stored(how: tuple[bool, bool, bool]) -> None:
    study, grid = toy_study(4), Grid(spacing_mm=2.5, patch=32)
    other = replace(study, views=[stored(view, *how) for view in study.views])
    tasks = make_pretexts(["positions", "crossings", "location"], Pretrain(data=Data(path="exams")))
    for mine, theirs in zip(
        study_records(study, tasks, grid, [1, 2]), study_records(other, tasks, grid, [1, 2]), strict=True
    ):
        np.testing.assert_allclose(mine.image, theirs.image, atol=0.01)
        assert mine.labels is not None
        assert theirs.labels is not None
        # A sample in the middle between two pixels may be either's.
        assert (mine.labels != theirs.labels).mean() < 0.01
        np.testing.assert_allclose(mine.acquired, theirs.acquired, atol=1e-4)
        for name, geometry in mine.geometry.items():
            # A line has two equations; which one it gets depends on the side from which its slice was stored.
            np.testing.assert_allclose(abs(geometry.lines), abs(theirs.geometry[name].lines), atol=1e-4)
            np.testing.assert_allclose(geometry.points, theirs.geometry[name].points, atol=1e-4)
            np.testing.assert_allclose(geometry.values, theirs.geometry[name].values, atol=1e-4)


#: By role: what lies further left or above, what further right or below, and along which axis of the image.
SHOWN = {
    "sax": [("RV cavity", "LV cavity", 1)],
    "4ch": [("RV cavity", "LV cavity", 1), ("LV cavity", "Left atrium", 0)],
    "2ch": [("LV cavity", "Left atrium", 1)],
    "sag": [("Patella", "Femur", 1), ("Femur", "Tibia", 0)],
    "cor": [("Femur", "Tibia", 0)],
    "ax": [("Patella", "Femur", 0)],
}


@pytest.mark.parametrize("organ", ["heart", "knee"])
def test_networks_see_views_as_they_are_usually_shown(organ: str) -> None:
    checked = set()
    for seed in range(4):
        study = make_study(organ, seed)
        names = dict(study.views[0].label_names)
        for record in study_records(study, [], Grid(spacing_mm=2.0, patch=96), list(names)):
            assert record.labels is not None
            for first, second, axis in SHOWN.get(record.info.role, []):
                index = {name: k for k, name in enumerate(names.values(), 1)}
                places = [np.argwhere(record.labels == index[name])[:, axis] for name in (first, second)]
                if min(map(len, places)) > 30:
                    assert places[0].mean() < places[1].mean(), (seed, record.info, first, second)
                    checked.add(record.info.role)
    assert checked == {role for role in SHOWN if role in {v.role for v in study.views}}


def test_squares_lie_round_the_crossing_or_the_middle_of_the_image() -> None:
    study = off_centre(toy_study(4))
    [crossing, image] = [
        list(study_records(study, [PositionPrediction(Positions())], Grid(spacing_mm=1.5, patch=32, centre=c), []))
        for c in ("crossing", "image")
    ]
    # The crossing lies 25 mm to the left and 18 mm down of the middle of short-axis images as they are stored, whose
    # rows are columns before the network, from the right.
    for near, plain in zip(crossing, image, strict=True):
        points = near.geometry["positions"].points[4], plain.geometry["positions"].points[4]
        assert np.allclose(points[0], 23.5, atol=1e-6)
        away = [18 / 1.5, 25 / 1.5] if near.info.role == "sax" else [0, 0]
        assert np.allclose(points[1] - 23.5, away, atol=1e-6)
    assert Grid().centre == "crossing"


def test_records_of_a_study_carry_what_its_planes_tell() -> None:
    study = toy_study(4, phases=2)
    grid = parse({"spacing_mm": 6, "patch": 32}, Grid)
    pretexts = make_pretexts(["positions"], parse({"data": {"path": "."}}, Pretrain))
    records = list(study_records(study, pretexts, grid, [2, 1]))
    assert [r.info.role for r in records] == ["sax"] * 10 + ["2ch"] * 2 + ["4ch"] * 2
    assert {r.image.shape for r in records} == {(48, 48)}
    assert [(r.info.index, r.info.phase) for r in records[:6]] == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (0, 1)]
    middle = records[2]
    assert middle.labels is not None
    # Classes follow the order that was asked for: label 2 is class 1.
    place = middle.geometry["positions"].points[4]
    column, row = np.rint(place).astype(int)
    assert middle.labels[row, column] == 2
    # The heart's middle was made the middle of the square.
    assert np.abs(place - 23.5).max() < 3.5
    found = landmark(study)
    assert found is not None
    centre = study.views[0].planes[2].centre
    assert np.linalg.norm(found - centre) < 1e-6
    for record in records:
        label = record.labels
        assert label is not None
        seen = record.image.astype(float)
        # The cavity is bright, so its label must lie on bright pixels.
        assert seen[label == 2].mean() > seen[label == 0].mean() + 1 if (label == 2).any() else True


@pytest.mark.parametrize("how", ["frame of reference", "no position"])
def test_views_that_cannot_be_compared_give_no_targets(how: str) -> None:
    """As ``inspect`` says: after the patient has moved, a plane says nothing about slices of another frame."""
    study = toy_study(6)
    for view in study.views:
        view.frame_of_reference = "1"
    strange = study.first("4ch")
    assert strange is not None
    if how == "no position":
        strange.attributes = {"position": "not in the header"}
    else:
        strange.frame_of_reference = "2"
    task = Crossing(Crossings(guests=("2ch", "4ch", "sax")))
    records = list(study_records(study, [task], parse({"spacing_mm": 6, "patch": 32}, Grid), []))
    known = {r.info.role: np.isfinite(r.geometry["crossings"].lines[:, 0]).tolist() for r in records}
    assert known["sax"] == [True, False, False]
    assert known["4ch"] == [False, False, False]
    assert known["2ch"] == [False, False, True]
    assert landmark(study) is None
    # The others are compared as before.
    strange.frame_of_reference, strange.attributes = "1", {}
    assert landmark(study) is not None
    assert landmark(comparable(study, strange)) is not None


def in_frame(study: Study, frame: str | None) -> Study:
    """The study with all its views in a frame of reference."""
    for view in study.views:
        view.frame_of_reference = frame
    return study


def seen_by_training(study: Study) -> dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """Image, lines and points of the slices of each view, by its name."""
    found: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    # Squares of 144 mm on images of 170 mm: where they lie depends on the point where the planes cross.
    grid = parse({"spacing_mm": 3, "patch": 32}, Grid)
    pretexts = [Crossing(Crossings(stack_guest="basal")), PositionPrediction(Positions())]
    for record in study_records(study, pretexts, grid, []):
        geometry = record.geometry["crossings"].lines, record.geometry["positions"].points
        found.setdefault(record.info.view, []).append((record.image, *geometry))
    return found


def test_two_exams_of_different_frames_in_one_study_teach_as_if_apart() -> None:
    """A patient who was taken out between two short-axis stacks: each goes with its own long-axis planes."""
    one, two = in_frame(toy_study(6), "1"), in_frame(toy_study(7, slices=4), "2")
    for view in two.views:
        view.name += " again"
    alone = seen_by_training(one) | seen_by_training(two)
    assert {name: len(found) for name, found in alone.items()} == {
        **{"sax": 5, "2ch": 1, "4ch": 1},
        **{"sax again": 4, "2ch again": 1, "4ch again": 1},
    }
    both = replace(one, views=[view for pair in zip(one.views, two.views, strict=True) for view in pair])
    together = seen_by_training(both)
    assert set(together) == set(alone)
    for name, found in alone.items():
        for mine, theirs in zip(together[name], found, strict=True):
            assert np.isfinite(mine[1]).any()
            assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(mine, theirs, strict=True)), name
    for exam in (one, two):
        own = landmark(exam)
        for view in exam.views:
            there = landmark(comparable(both, view))
            assert own is not None
            assert there is not None
            assert np.array_equal(own, there)


@pytest.mark.parametrize("frame", ["1", None])
def test_in_one_frame_of_reference_or_none_every_view_is_compared(frame: str | None) -> None:
    study = in_frame(toy_study(6), frame)
    assert all(comparable(study, view).views == study.views for view in study.views)
    # Of two stacks in one frame the first stands for both, on the slices of the second, too.
    again = in_frame(toy_study(6, slices=3), frame).views[0]
    again.name = "again"
    twice = replace(study, views=[*study.views, again])
    assert all(stacks_of(comparable(twice, v))["sax"] is study.views[0].planes for v in twice.views)
    whole = landmark(study)
    assert whole is not None
    assert all(np.array_equal(whole, landmark(comparable(twice, v))) for v in twice.views)  # type: ignore[arg-type]


def test_planes_that_cannot_be_compared_meet_nowhere_even_for_a_view_of_unknown_frame() -> None:
    study = in_frame(toy_study(6), "1")
    sax, two, four = study.views
    two.frame_of_reference, four.frame_of_reference = "2", None
    assert comparable(study, four).views == [sax, two, four]
    assert comparable(study, two).views == [two, four]
    assert landmark(comparable(study, four)) is None


def test_missing_or_other_labels_are_background_or_unknown() -> None:
    study = toy_study(5)
    study.views[1].read_labels = None
    grid = parse({"spacing_mm": 6, "patch": 32}, Grid)
    records = list(study_records(study, [], grid, [2]))
    assert [r.labels is None for r in records] == [False] * 5 + [True, False]
    assert set(np.unique(records[2].labels)) == {0, 1}
    slices = SliceSet(records, 6.0, torch.device("cpu"))
    assert slices.label_row.tolist() == [0, 1, 2, 3, 4, -1, 5]
    batch = make_batch(slices, torch.tensor([6, 5, 0]), 32, None, torch.Generator())
    assert [(part == -1).all().item() for part in batch.labels] == [False, True, False]


def test_lines_of_stored_slices_are_those_of_the_planes() -> None:
    study = toy_study(6)
    sax, two = study.views[0].planes[1], study.views[1].planes[0]
    host = network_plane(sax, 6.0, 48, None)
    near, stored = crossing_line(sax, two), crossing_line(host, two)
    assert near is not None
    assert stored is not None
    point = sax.to_patient([12.0, 3.0])
    assert stored.distance(host.to_pixel(point)) == pytest.approx(float(near.distance([12.0, 3.0])), abs=1e-9)
    assert abs(sax.normal @ AXIS) == pytest.approx(1)
    assert Positions().layout in ("cross", "grid")
