"""The pretext tasks: targets against brute force, what has no target, losses, scores, balance."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from example_pretext import Tilt
from SSLEngine.geometry import Array
from SSLEngine.geometry import Plane
from SSLEngine.geometry import crossing_segment
from SSLEngine.jobs import Reporter
from SSLEngine.line_fitting import fit_line
from SSLEngine.pretext import TASKS
from SSLEngine.pretext import Batch
from SSLEngine.pretext import Geometry
from SSLEngine.pretext import Host
from SSLEngine.pretext import make_pretexts
from SSLEngine.pretext.crossings import Crossing
from SSLEngine.pretext.location import UNIT_MM
from SSLEngine.pretext.location import SliceLocation
from SSLEngine.pretext.location import slice_place
from SSLEngine.pretext.restoration import ContextRestoration
from SSLEngine.pretraining import pretrain_on
from SSLEngine.settings import Augmentation
from SSLEngine.settings import Crossings
from SSLEngine.settings import Data
from SSLEngine.settings import Grid
from SSLEngine.settings import LeftOut
from SSLEngine.settings import Location
from SSLEngine.settings import Network
from SSLEngine.settings import Pretrain
from SSLEngine.settings import Restoration
from SSLEngine.settings import Schedule
from SSLEngine.settings import SettingsError
from SSLEngine.slices import Record
from SSLEngine.slices import SliceInfo
from SSLEngine.slices import SliceSet
from SSLEngine.slices import acquired_box
from SSLEngine.slices import make_batch
from SSLEngine.slices import network_plane
from SSLEngine.slices import resample
from SSLEngine.slices import study_records
from SSLEngine.structures import ROLE_COLOURS
from SSLEngine.studies import read_study
from SSLEngine.training import Run
from SSLEngine.training import Stream
from SSLEngine.training import answers
from SSLEngine.training import blank_losses
from toy_exams import toy_study

AXES = np.eye(3)


def turned(rng: np.random.Generator) -> Array:
    """A random rotation, or a mirrored one."""
    matrix, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return matrix


def random_plane(rng: np.random.Generator, centre: Array) -> Plane:
    """An oblique plane with anisotropic pixels, its image's middle near ``centre``; mirrored in half of the cases."""
    x, y, _ = turned(rng)
    spacing = tuple(float(v) for v in rng.uniform(0.7, 2.6, 2))
    size = tuple(int(v) for v in rng.integers(60, 130, 2))
    origin = (
        centre + rng.normal(0, 10, 3) - sum((n - 1) / 2 * s * d for n, s, d in zip(size, spacing, (x, y), strict=False))
    )
    return Plane(origin, x, y, spacing, size)  # type: ignore[arg-type]


def host_of(plane: Plane, role: str = "sax", guests: dict[str, Plane] | None = None, **more: object) -> Host:
    facts: dict[str, object] = {"stack": [plane], "index": 0, "axis": None, **more}
    return Host(plane, role, guests or {}, **facts)  # type: ignore[arg-type]


def batch_of(lines: Array, patch: int = 64, spacing_mm: float = 2.0) -> Batch:
    """A batch of blank images with the lines ``(B, k, 3)`` of ``crossings``."""
    images = torch.zeros(len(lines), 1, patch, patch)
    none: dict[str, torch.Tensor] = {}
    labels = torch.full((len(lines), patch, patch), -1)
    return Batch(images, labels, {"crossings": torch.tensor(lines).float()}, none, none, spacing_mm, images, labels < 0)


# ---------------------------------------------------------------------------------------------
# Acceptance: targets against brute force in 3D, after every augmentation

ONLY_MOTION = Augmentation(
    rotation_deg=180,
    scale=1.6,
    shift_mm=30,
    shear=0.2,
    flip=True,
    gamma=0,
    contrast=0,
    brightness=0,
    noise=0,
    blur_mm=0,
    bias=0,
)


def marched(field: Array, usable: np.ndarray) -> Array:
    """Where a field changes its sign along rows and columns, ``(n, 3)``: x, y, and 0 or 1 for the axis."""
    found = []
    for axis in (0, 1):
        d, ok = (field, usable) if axis == 0 else (field.T, usable.T)
        rows, columns = np.nonzero((d[:, :-1] * d[:, 1:] < 0) & ok[:, :-1] & ok[:, 1:])
        places = columns + d[rows, columns] / (d[rows, columns] - d[rows, columns + 1])
        pair = (places, rows) if axis == 0 else (rows, places)
        found.append(np.stack([*pair, np.full(len(rows), axis)], axis=1))
    return np.concatenate(found)


def ridge(heat: Array, place: Array) -> float:
    """Distance in pixels of a heatmap's crest from a place, along the place's row or column; NaN on its border.

    The logarithm of a Gaussian profile is a parabola, so that three pixels give its crest exactly.
    """
    x, y, axis = place
    profile, at = (heat[int(y)], x) if axis == 0 else (heat[:, int(x)], y)
    k = round(at)
    if not 1 <= k < len(profile) - 1:
        return math.nan
    low, middle, high = np.log(profile[k - 1 : k + 2].astype(float))
    return k + 0.5 * (low - high) / (low - 2 * middle + high) - at


@given(st.integers(0, 2**32 - 1))
@hypothesis_settings(max_examples=200, deadline=None)
def test_lines_lie_where_marching_through_the_patient_finds_the_guest(seed: int) -> None:
    """Each pixel is painted with its own place in the patient and sent the way of an image; signs tell the guest."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(-100, 100, 3)
    acquired, guest = random_plane(rng, centre), random_plane(rng, centre)
    assume(crossing_segment(acquired, guest) is not None)
    task = Crossing(Crossings(must_meet=True))
    spacing_mm, patch, side = float(rng.uniform(1.2, 3)), 64, 96
    plane = network_plane(acquired, spacing_mm, side, centre + rng.normal(0, 5, 3))
    geometry = {task.name: task.geometry(host_of(plane, "sax", {"4ch": guest}, stack=[acquired]))}

    y, x = np.mgrid[: acquired.size[1], : acquired.size[0]].astype(float)
    places = (
        acquired.origin
        + x[..., None] * acquired.spacing[0] * acquired.x_direction
        + y[..., None] * acquired.spacing[1] * acquired.y_direction
    )
    inner = np.zeros_like(x)
    inner[1:-1, 1:-1] = 1
    painted = torch.from_numpy(np.concatenate([places.transpose(2, 0, 1), inner[None]])).float()
    stored = [resample(p[None], acquired, plane)[0].numpy() for p in painted]
    # Beyond the border of an image, or of the stored square, its last pixels are repeated: their places are not true.
    stored[3][[0, -1]] = stored[3][:, [0, -1]] = 0
    info = SliceInfo("s", "s", "sax", "v", 0, 0, False)
    slices = SliceSet(
        [Record(info, s, None, acquired_box(acquired, plane), geometry) for s in stored],
        spacing_mm,
        torch.device("cpu"),
    )
    # One generator state for all four: the same place, four things painted on it.
    batches = [
        make_batch(slices, torch.tensor([k]), patch, ONLY_MOTION, torch.Generator().manual_seed(seed)) for k in range(4)
    ]
    moved = [b.images[0, 0].double().numpy() for b in batches]
    distance = np.stack(moved[:3], -1) @ guest.normal - guest.origin @ guest.normal
    found = marched(distance, moved[3] > 0.999)
    assume(len(found) > 10)

    a, b, e = batches[0].lines[task.name][0, task.guests.index("4ch")].double().numpy()
    off = np.abs(found[:, 0] * a + found[:, 1] * b + e) / np.hypot(a, b)
    assert off.max() < 0.05
    heat = task.target(batches[0])[0, task.guests.index("4ch")].numpy()
    steep = found[found[:, 2] == (0 if abs(a) > abs(b) else 1)]
    assert np.nanmax(np.abs([ridge(heat, p) for p in steep]), initial=0) < 0.05


# ---------------------------------------------------------------------------------------------
# Crossings


def axial(spacing: tuple[float, float] = (1.0, 2.0), size: tuple[int, int] = (100, 50)) -> Plane:
    return Plane(np.zeros(3), AXES[0], AXES[1], spacing, size)


def leaning(angle_deg: float, x_mm: float = 50.0) -> Plane:
    """A plane that meets the axial one in the line x = ``x_mm``, at an angle."""
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    down = np.array([c, 0, s])
    return Plane(np.array([x_mm, 0, 0]) - 100 * down, AXES[1], down, (1, 1), (200, 200))


@pytest.mark.parametrize("angle", [20, 45, 90, 130])
@pytest.mark.parametrize(("peak", "top"), [("one", 1.0), ("area", 10 / (7.5 * math.sqrt(2 * math.pi)))])
def test_heat_is_a_gaussian_of_mm_within_the_plane(angle: float, peak: str, top: float) -> None:
    """Whatever the angle of the planes and the shape of the pixels."""
    task = Crossing(Crossings(peak=peak))  # type: ignore[arg-type]
    lines = task.geometry(host_of(axial(), "sax", {"2ch": leaning(angle)})).lines
    heat = task.target(batch_of(lines[None], 100, 1.0))[0, task.guests.index("2ch")]
    x = torch.arange(100.0)
    assert torch.allclose(heat[10], top * torch.exp(-0.5 * ((x - 50) / 7.5) ** 2), atol=1e-5)
    if peak == "area":
        assert float(heat[10].sum()) == pytest.approx(10, rel=1e-3)


def test_what_has_no_target() -> None:
    far = replace(leaning(90), origin=np.array([50.0, 500, -100]))
    guests = {"sax": leaning(90), "2ch": leaning(10), "3ch": far, "4ch": leaning(80)}
    task = Crossing(Crossings())
    lines = task.geometry(host_of(axial(), "sax", guests)).lines
    assert np.isfinite(lines).all(1).tolist() == [role == "4ch" for role in task.guests]
    assert np.isfinite(Crossing(Crossings(must_meet=False)).geometry(host_of(axial(), "sax", guests)).lines[2]).all()
    assert not Crossing(Crossings(hosts=("2ch",))).geometry(host_of(axial(), "sax", guests)).present
    assert Crossing(Crossings(guests=("4ch", "2ch"))).pixel_outputs == 2


def test_a_channel_means_the_same_guest_on_every_host() -> None:
    records = list(study_records(toy_study(1), [Crossing(Crossings())], Grid(patch=64, spacing_mm=4.0), []))
    known: dict[str, set[tuple[bool, ...]]] = {}
    for r in records:
        known.setdefault(r.info.role, set()).add(tuple(np.isfinite(r.geometry["crossings"].lines).all(1)[[0, 1, 3]]))
    assert known == {"sax": {(False, True, True)}, "2ch": {(True, False, True)}, "4ch": {(True, True, False)}}


def test_a_basal_guest_is_the_most_basal_slice_in_either_order() -> None:
    down = np.array([0.0, 0, -1])
    stack = [replace(axial(), origin=np.array([0, 0, z])) for z in (-30.0, -10, 10, 30)]
    host = Plane(np.array([0, 20.0, -100]), AXES[0], AXES[2], (1, 1), (100, 200))
    for order in (stack, stack[::-1]):
        facts = {"axis": down, "guest_stacks": {"sax": order}}
        rows = {
            choice: Crossing(Crossings(stack_guest=choice)).geometry(host_of(host, "4ch", {"sax": order[2]}, **facts))
            for choice in ("basal", "middle")
        }
        # Row of the line on the host: 100 is z = 0.
        places = {c: -g.lines[0, 2] / g.lines[0, 1] for c, g in rows.items()}
        assert places["basal"] == pytest.approx(130)
        assert places["middle"] == pytest.approx(100 + order[2].origin[2])


def test_the_loss_weighs_the_line_and_leaves_unknown_channels_out() -> None:
    lines = np.full((2, 7, 3), np.nan)
    lines[0, 1] = [2.0, 0, -60]
    task = Crossing(Crossings(line_weight=10))
    target = task.target(batch_of(lines))
    output = torch.randn(target.shape, requires_grad=True)
    loss = task.loss(output, target)
    heat = target[0, 1]
    assert float(loss.detach()) == pytest.approx(
        float(((1 + 10 * heat) * (output.detach()[0, 1] - heat) ** 2).mean()), rel=1e-5
    )
    (gradient,) = torch.autograd.grad(loss, output)
    assert (gradient.flatten(2).abs().sum(2) > 0).nonzero().tolist() == [[0, 1]]
    assert float(task.loss(output.detach(), torch.full_like(target, math.nan))) == 0
    # At the default weight, the line and the rest of a patch count about the same.
    patch = task.target(batch_of(lines[:1], 144, 1.75))[0, 1]
    assert 0.5 < float((10 * patch).mean()) < 2


def test_the_score_reads_shift_and_turn_of_a_line_past_a_brighter_blob() -> None:
    angle = math.radians(4)
    true = np.array([2.0, 0, -64.0])
    off = np.array([2 * math.cos(angle), 2 * math.sin(angle), -2 * (32 * math.cos(angle) + 31.5 * math.sin(angle)) - 6])
    lines = np.full((1, 7, 3), np.nan)
    task = Crossing(Crossings(sigma_mm=5))
    lines[0, 3] = true
    target = task.target(batch_of(lines))
    lines[0, 3] = off
    output = task.target(batch_of(lines)).nan_to_num()
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    output[0, 3] += 1.5 * torch.exp(-0.5 * (((x - 8) ** 2 + (y - 50) ** 2) / 9))
    output += 0.1 * torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
    score = task.score(output, target, 2.0)
    assert score["line_deg"] == pytest.approx(4, abs=0.2)
    assert score["line_mm"] == pytest.approx(6, abs=0.2)
    assert math.isnan(task.score(output, torch.full_like(target, math.nan), 2.0)["line_mm"])


@given(st.integers(0, 2**32 - 1))
@hypothesis_settings(max_examples=40, deadline=None)
def test_a_fitted_line_is_exact_even_where_a_corner_cuts_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    angle, through = rng.uniform(0, np.pi), rng.uniform(12, 68, 2)
    normal = np.array([np.cos(angle), np.sin(angle)])
    y, x = np.mgrid[:80, :80]
    distance = np.stack([x, y], -1) @ normal - through @ normal
    line = fit_line(0.7 * np.exp(-0.5 * (distance / 4) ** 2), 4)
    assert abs(line.distance(through)) < 0.02
    assert abs(line.coefficients[:2] @ normal) > math.cos(math.radians(0.05))
    assert line.height == pytest.approx(0.7, abs=1e-3)
    assert line.quality > 0.99


# ---------------------------------------------------------------------------------------------
# Location


def stack_along(direction: Array, positions: Array, centre: Array | None = None) -> list[Plane]:
    """Slices whose middles lie at positions along a direction."""
    x = np.cross(direction, [0.3, 0.4, 0.86])
    x /= np.linalg.norm(x)
    y = np.cross(direction, x)
    middle = np.zeros(3) if centre is None else centre
    return [Plane(middle + s * direction - 50 * x - 50 * y, x, y, (1, 1), (101, 101)) for s in positions]


def places(stack: list[Plane], role: str, measure: str = "mm", **facts: object) -> list[float]:
    return [
        slice_place(host_of(p, role, **{"stack": stack, "index": k, **facts}), measure, 60)[0]  # type: ignore[arg-type]
        for k, p in enumerate(stack)
    ]


@pytest.mark.parametrize(
    ("role", "side", "direction"),
    [
        ("sax", None, [0.7, -0.5, -0.5]),
        ("cor", None, [0, -1, 0]),
        ("ax", "left", [0, 0, 1]),
        ("sag", "left", [1, 0, 0]),
        ("sag", "right", [-1, 0, 0]),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_places_grow_along_the_anatomy_in_either_order(
    role: str, side: str | None, direction: list[float], order: int
) -> None:
    """Base to apex, posterior to anterior, feet to head, medial to lateral; in mm from the middle, and as a ratio."""
    towards = np.array(direction) / np.linalg.norm(direction)
    positions = np.array([0, 10, 40, 80.0])[::order]
    for axis in (None, towards) if role == "sax" else (None,):
        stack = stack_along(towards, positions)
        assert np.allclose(np.array(places(stack, role, side=side, axis=axis)) * UNIT_MM, positions - 40)
        assert np.allclose(places(stack, role, "ratio", side=side, axis=axis), positions / 80)


def test_a_short_stack_is_placed_by_the_other_views_or_not_at_all() -> None:
    down = np.array([0.0, 0, -1])
    stack = stack_along(down, np.array([0.0, 10, 20]), np.array([0, 0, 5.0]))
    other = stack_along(AXES[1], np.array([0.0]), np.array([0, 0, -25.0]))[0]
    assert np.allclose(np.array(places(stack, "sax", axis=down, guests={"4ch": other})) * UNIT_MM, [-30, -20, -10])
    assert np.isnan(places(stack, "sax", axis=down)).all()
    assert np.isnan(places(stack, "sax", "ratio", axis=down, guests={"4ch": other})).all()
    assert np.isnan(places(stack[:1], "sax", axis=down, guests={"4ch": other})).all()
    assert np.isnan(places(stack_along(AXES[0], np.arange(9) * 10.0), "sag")).all(), "a knee of unknown side"


def test_the_typical_direction_is_that_of_a_real_heart(shared_data: Path) -> None:
    study = read_study(shared_data / "heart-multiview")
    grid = Grid(patch=32, spacing_mm=8.0, phases=1)
    task = SliceLocation(Location(min_stack_mm=30))
    alone = replace(study, views=list(study.with_role("sax")))
    found = [
        np.array([r.geometry["location"].values[0] for r in study_records(s, [task], grid, []) if r.info.role == "sax"])
        for s in (study, alone)
    ]
    assert len(found[0]) >= 6
    assert np.allclose(*found)
    assert np.ptp(found[0]) * UNIT_MM > 40


def test_location_loss_and_score_are_in_mm() -> None:
    task = SliceLocation(Location())
    target = torch.tensor([[0.5, 30.0], [-1.0, 30.0], [0.2, 30.0], [math.nan, math.nan]])
    output = torch.tensor([[0.4], [-1.0], [0.2], [9.0]], requires_grad=True)
    assert float(task.loss(output.detach(), target)) == pytest.approx(0.5 * 0.1**2 / 3)
    assert task.score(output.detach(), target, 2.0)["location_mm"] == pytest.approx(1.0)
    assert float(task.loss(output.detach(), target[3:].expand(4, 2))) == 0


# ---------------------------------------------------------------------------------------------
# Restoration


def image_batch(count: int = 6, side: int = 96) -> Batch:
    batch = batch_of(np.zeros((count, 0, 3)), side)
    batch.images = batch.clean = torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(1))
    return batch


@pytest.mark.parametrize(("unit", "patch", "side"), [("px", 8.0, 8), ("mm", 24.0, 12), ("px", 500.0, 48)])
def test_swapping_moves_square_patches_and_nothing_is_lost(unit: str, patch: float, side: int) -> None:
    batch = image_batch()
    task = ContextRestoration(Restoration(unit=unit, patch=patch))  # type: ignore[arg-type]
    task.distort(batch, torch.Generator().manual_seed(3))
    assert torch.equal(batch.images.flatten(1).sort().values, batch.clean.flatten(1).sort().values)
    changed = (batch.images != batch.clean).flatten(1).float()
    assert torch.allclose(changed.mean(1), changed.mean())
    assert float(changed.mean()) == pytest.approx(0.25 if side < 48 else 0.5, abs=0.03)
    # A changed pixel's right neighbour came from beside the same place, except at the patches' borders.
    moved = torch.zeros(6, 96, 96, dtype=torch.int64)
    for k in range(6):
        table = {float(v): i for i, v in enumerate(batch.clean[k].flatten())}
        moved[k] = torch.tensor([table[float(v)] for v in batch.images[k].flatten()]).reshape(96, 96)
    broken = (moved[:, :, 1:] - moved[:, :, :-1] != 1).float().mean() * 96
    assert float(broken) < 1.2 * 96 / side


def test_masking_blanks_the_same_share_and_both_draws_one_of_the_two() -> None:
    batch = image_batch(40)
    ContextRestoration(Restoration(kind="mask", unit="px", patch=8)).distort(batch, torch.Generator().manual_seed(3))
    changed = batch.images != batch.clean
    assert float(changed.float().mean()) == pytest.approx(0.25, abs=0.01)
    assert not batch.images[changed].any()
    batch = image_batch(40)
    ContextRestoration(Restoration(kind="both", unit="px", patch=8)).distort(batch, torch.Generator().manual_seed(3))
    masked = (batch.images == 0).flatten(1).any(1).sum()
    assert 10 < int(masked) < 30


def test_a_restored_image_costs_nothing_and_one_left_alone_scores_as_such() -> None:
    batch = image_batch()
    task = ContextRestoration(Restoration())
    task.distort(batch, torch.Generator().manual_seed(3))
    target = task.target(batch)
    assert float(task.loss(batch.clean, target)) == 0
    assert task.score(batch.clean, target, 2.0)["restored_rmse"] == 0
    score = task.score(batch.images, target, 2.0)
    assert score["restored_rmse"] == pytest.approx(score["untouched_rmse"])
    assert score["untouched_rmse"] == pytest.approx(math.sqrt(2), rel=0.05)


# ---------------------------------------------------------------------------------------------
# Several tasks in one run

SMALL = Grid(patch=32, spacing_mm=6.0, phases=1)
FOUR = ("positions", "crossings", "location", "restoration")


def small_run(names: tuple[str, ...], **more: object) -> tuple[Pretrain, Run]:
    given = Pretrain(data=Data(path="toy"), pretext=names, grid=SMALL, **more)  # type: ignore[arg-type]
    tasks = make_pretexts(names, given)
    records = [r for seed in range(2) for r in study_records(toy_study(seed, slices=7), tasks, SMALL, [])]
    slices = SliceSet(records, SMALL.spacing_mm, torch.device("cpu"))
    everything = torch.arange(len(records))
    streams = [Stream(everything, [(t, 1.0) for t in tasks])]
    run = Run(torch.nn.Module(), slices, streams, Schedule(steps=2), Augmentation(), 32, 0, everything)  # type: ignore[arg-type]
    return given, run


class Recorder(torch.nn.Module):
    """A network that answers zeros and remembers what it was shown."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.outputs = {t.name: t.pixel_outputs for t, _ in run.streams[0].tasks}
        self.shown: dict[str, torch.Tensor] = {}

    def forward(self, images: torch.Tensor, tasks: list[str]) -> dict[str, torch.Tensor]:
        self.shown.update(dict.fromkeys(tasks, images))
        shapes = {n: (len(images), c, *images.shape[-2:]) if c else (len(images), 1) for n, c in self.outputs.items()}
        return {n: torch.zeros(shapes[n]) for n in tasks}


def test_only_the_task_that_distorts_sees_distorted_images() -> None:
    _, run = small_run(FOUR)
    batch = make_batch(run.slices, run.held_out, 32, None, torch.Generator().manual_seed(0))
    network = Recorder(run)
    found = answers(network, batch, [t for t, _ in run.streams[0].tasks], torch.Generator().manual_seed(0))
    assert set(found) == set(FOUR)
    assert all(network.shown[n] is batch.images for n in FOUR[:3])
    assert not torch.equal(network.shown["restoration"], batch.images)
    assert torch.equal(found["restoration"][1][:, :1], batch.images)


def test_knowing_nothing_costs_every_task_the_same() -> None:
    _, run = small_run(FOUR)
    run.blank = blank_losses(run)
    assert set(run.blank) == set(FOUR)
    batch = make_batch(run.slices, run.held_out, 32, None, torch.Generator().manual_seed(5))
    tasks = [t for t, _ in run.streams[0].tasks]
    for name, (output, target) in answers(Recorder(run), batch, tasks, torch.Generator().manual_seed(5)).items():
        task = next(t for t in tasks if t.name == name)
        assert float(task.loss(output, target)) / run.blank[name] == pytest.approx(1, rel=0.15)
    assert blank_losses(run) == run.blank, "the rule must give a resumed run the same divisors"
    assert blank_losses(small_run(("crossings",))[1]) == {}


def weights_after(given: Pretrain, folder: Path) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    network, _ = pretrain_on(given, [toy_study(k, slices=7) for k in range(2)], Reporter(folder))
    return {k: v.clone() for k, v in network.state_dict().items()}


@pytest.mark.parametrize(("left_out", "slices"), [({}, 9), ({"basal": 1}, 8), ({"basal": 1, "apical": 2}, 6)])
def test_slices_that_are_left_out_are_not_learned_from(left_out: dict[str, int], slices: int, tmp_path: Path) -> None:
    given = Pretrain(
        data=Data(path="toy"),
        pretext=("crossings",),
        left_out=LeftOut(**left_out),
        grid=SMALL,
        network=Network(widths=(4, 8, 8)),
        schedule=Schedule(steps=1, batch=2),
        device="cpu",
    )
    pretrain_on(given, [toy_study(0, slices=7)], Reporter(tmp_path))
    assert f"; {slices} slices for crossings; " in (tmp_path / "events.jsonl").read_text(encoding="utf-8")


def test_a_run_with_four_tasks_resumes_exactly(tmp_path: Path) -> None:
    given = Pretrain(
        data=Data(path="toy"),
        pretext=FOUR,
        weights={"location": 0.5},
        grid=SMALL,
        network=Network(widths=(4, 8, 8)),
        schedule=Schedule(steps=6, batch=4, checkpoint_every=3),
        device="cpu",
    )
    unbroken = weights_after(given, tmp_path / "job")
    (tmp_path / "job" / "checkpoint-0000006.pt").unlink()
    assert [p.name for p in (tmp_path / "job").glob("checkpoint-*")] == ["checkpoint-0000003.pt"]
    resumed = weights_after(given, tmp_path / "job")
    assert all(torch.equal(v, resumed[k]) for k, v in unbroken.items())
    heavier = weights_after(
        Pretrain(
            **{f: getattr(given, f) for f in ("data", "pretext", "grid", "network")},
            schedule=given.schedule,
            device="cpu",
        ),
        tmp_path / "other",
    )
    assert not all(torch.equal(v, heavier[k]) for k, v in unbroken.items()), "the weights of tasks must matter"


def test_names_of_tasks_are_checked() -> None:
    with pytest.raises(SettingsError, match=r"no pretext 'crosings'.*crossings"):
        make_pretexts(["crosings"], Pretrain(data=Data(path="x")))


def test_every_task_draws_its_target_and_an_output() -> None:
    from matplotlib.figure import Figure

    _, run = small_run(FOUR)
    batch = make_batch(run.slices, run.held_out[:1], 32, None, torch.Generator().manual_seed(0))
    for task, _ in run.streams[0].tasks:
        for values in (
            task.target(batch)[0].numpy(),
            np.zeros((task.pixel_outputs, 32, 32) if task.pixel_outputs else 1),
        ):
            axes = Figure().subplots()
            task.draw(axes, batch.images[0, 0].numpy(), values)  # type: ignore[attr-defined]
            assert axes.images


def test_a_line_has_the_colour_of_the_plane_that_it_belongs_to() -> None:
    from matplotlib.figure import Figure

    task = Crossing(Crossings(guests=("2ch", "4ch")))
    heat = np.full((2, 8, 8), np.nan, np.float32)
    heat[1, :, 3] = 1.0
    axes = Figure().subplots()
    task.draw(axes, np.zeros((8, 8)), heat)
    _, band = axes.images
    assert tuple(band.get_array()[0, 0, :3]) == pytest.approx(ROLE_COLOURS["4ch"])


# ---------------------------------------------------------------------------------------------
# The developer section's example


def test_a_task_of_ones_own_is_one_file_and_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(TASKS, "tilt", Tilt)
    given = Pretrain(
        data=Data(path="toy"),
        pretext=("tilt", "crossings"),
        grid=SMALL,
        network=Network(widths=(8, 16, 16)),
        schedule=Schedule(steps=60, batch=8, held_out=0.2, validate_every=5, average=0),
        device="cpu",
    )
    studies = [toy_study(k) for k in range(6)]
    _, card = pretrain_on(given, studies, Reporter(tmp_path))
    assert card.pretexts["tilt"] == {}
    assert card.heads["image"] == {"tilt": 1}
    assert card.scores["tilt"]["tilt_deg"] < 12
    assert Tilt(None).geometry(host_of(axial())).values == pytest.approx([0])
    assert isinstance(Tilt(None).geometry(host_of(leaning(30))), Geometry)


def test_the_example_is_short() -> None:
    lines = (Path(__file__).parent / "example_pretext.py").read_text(encoding="utf-8").splitlines()
    body = lines[next(k for k, line in enumerate(lines) if line.startswith("class ")) :]
    assert len([line for line in body if line.strip()]) <= 30
