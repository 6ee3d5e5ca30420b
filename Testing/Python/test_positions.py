"""Anatomical position prediction: centres worked out by hand, signs by anatomy, squares in mm, loss and score."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from SSLEngine.geometry import Array
from SSLEngine.geometry import Plane
from SSLEngine.geometry import long_axis
from SSLEngine.geometry import plane_angle_deg
from SSLEngine.geometry import planes_of_volume
from SSLEngine.pretext import TASKS
from SSLEngine.pretext import make_pretexts
from SSLEngine.pretext.base import Batch
from SSLEngine.pretext.base import Host
from SSLEngine.pretext.positions import PositionPrediction
from SSLEngine.pretext.positions import position_centres
from SSLEngine.settings import Positions
from SSLEngine.settings import Pretrain
from SSLEngine.settings import parse

STEP = 12.0
CROSS, GRID = (Positions(layout=layout, step_mm=STEP) for layout in ("cross", "grid"))
LAYOUTS = {"cross": CROSS, "grid": GRID}
#: A small turn of the whole patient: everything is oblique, and no sign of an anatomical direction changes.
TURN = np.linalg.qr(np.array([[1.0, 0.2, -0.15], [-0.2, 1.0, 0.1], [0.15, -0.1, 1.0]]))[0]
TURN = TURN * np.sign(np.diag(TURN))
RIGHT_TO_LEFT, TO_FEET, TO_BACK = TURN @ [1.0, 0, 0], TURN @ [0.0, 0, -1], TURN @ [0.0, 1, 0]
MEETING = np.array([14.0, -30.0, 22.0])


def facing(point: Array, x: Array, y: Array, spacing: tuple[float, float], pixel: tuple[float, float]) -> Plane:
    """A 60 x 50 plane on which a point lies at a given pixel."""
    origin = point - pixel[0] * spacing[0] * x - pixel[1] * spacing[1] * y
    return Plane(origin, x, y, spacing, (60, 50))


def short_axis() -> Host:
    """A short-axis slice whose 4-chamber line runs along its rows and whose 2-chamber line down its columns."""
    plane = facing(MEETING, RIGHT_TO_LEFT, TO_FEET, (2.0, 3.0), (30.0, 20.0))
    four = facing(MEETING + 3 * TO_BACK, RIGHT_TO_LEFT, TO_BACK, (1.0, 1.4), (25.0, 25.0))
    two = facing(MEETING - 4 * TO_BACK, TO_FEET, TO_BACK, (1.2, 1.0), (25.0, 25.0))
    return Host(plane, "sax", {"4ch": four, "2ch": two}, [plane], 0, None)


def patient(host: Host, layout: str) -> Array:
    return host.plane.to_patient(position_centres(host, LAYOUTS[layout]))


def test_the_cross_on_a_short_axis_slice_is_where_it_was_worked_out_by_hand() -> None:
    # 12 mm are 6 columns of 2 mm towards the left and 4 rows of 3 mm towards the feet.
    by_hand = [(30, 12), (30, 16), (18, 20), (24, 20), (30, 20), (36, 20), (42, 20), (30, 24), (30, 28)]
    assert np.allclose(position_centres(short_axis(), CROSS), by_hand, atol=1e-6)


def test_the_grid_is_read_along_u_then_along_v() -> None:
    by_hand = [(24, 16), (30, 16), (36, 16), (24, 20), (30, 20), (36, 20), (24, 24), (30, 24), (36, 24)]
    assert np.allclose(position_centres(short_axis(), GRID), by_hand, atol=1e-6)


def turned(plane: Plane, flip_x: bool, flip_y: bool, swap: bool = False) -> Plane:
    """The same rectangle of the patient, stored mirrored, upside down or transposed."""
    w, h = plane.size
    origin = plane.to_patient([(w - 1) * flip_x, (h - 1) * flip_y])
    x, y = plane.x_direction * (-1) ** flip_x, plane.y_direction * (-1) ** flip_y
    if swap:
        return Plane(origin, y, x, plane.spacing[::-1], (h, w), plane.thickness)
    return Plane(origin, x, y, plane.spacing, plane.size, plane.thickness)


@pytest.mark.parametrize("role", ["sax", "4ch", "2ch"])
@pytest.mark.parametrize("layout", ["cross", "grid"])
def test_positions_belong_to_the_patient_and_not_to_the_image(role: str, layout: str) -> None:
    host = {"sax": short_axis, "4ch": four_chamber, "2ch": two_chamber}[role]()
    truth = patient(host, layout)
    assert np.isfinite(truth).all()
    for flips in itertools.product((False, True), repeat=3):
        other = replace(host, plane=turned(host.plane, *flips))
        assert np.allclose(patient(other, layout), truth, atol=1e-6)
        guests = {name: turned(plane, *flips) for name, plane in host.guests.items()}
        assert np.allclose(patient(replace(host, guests=guests), layout), truth, atol=1e-6)


def four_chamber() -> Host:
    """A 4-chamber slice: base to apex runs up its columns (against the rows' direction)."""
    plane = facing(MEETING, RIGHT_TO_LEFT, TO_BACK, (2.0, 3.0), (30.0, 20.0))
    sax = facing(MEETING, RIGHT_TO_LEFT, TO_FEET, (1.0, 1.0), (25.0, 25.0))
    two = facing(MEETING, TO_FEET, TO_BACK, (1.0, 1.0), (25.0, 25.0))
    return Host(plane, "4ch", {"sax": sax, "2ch": two}, [plane], 0, -TO_BACK)


def two_chamber() -> Host:
    """A 2-chamber slice whose columns run towards the feet."""
    plane = facing(MEETING, TO_FEET, TO_BACK, (2.0, 3.0), (30.0, 20.0))
    sax = facing(MEETING, RIGHT_TO_LEFT, TO_FEET, (1.0, 1.0), (25.0, 25.0))
    four = facing(MEETING, RIGHT_TO_LEFT, TO_BACK, (1.0, 1.0), (25.0, 25.0))
    return Host(plane, "2ch", {"sax": sax, "4ch": four}, [plane], 0, -TO_BACK)


@pytest.mark.parametrize(("host", "u"), [(four_chamber(), RIGHT_TO_LEFT), (two_chamber(), TO_FEET)])
def test_long_axis_hosts_run_along_the_short_axis_line_and_from_base_to_apex(host: Host, u: Array) -> None:
    points = patient(host, "cross")
    assert np.allclose(points[4], MEETING)
    # u is towards the left on 4-chamber slices and towards the feet on 2-chamber slices, v towards the apex.
    assert np.allclose(points[6] - points[4], 2 * STEP * u, atol=1e-6)
    assert np.allclose(points[8] - points[4], -2 * STEP * TO_BACK, atol=1e-6)
    upside_down = patient(replace(host, axis=TO_BACK), "cross")
    assert np.allclose(upside_down[[0, 8, 4, 6]], points[[8, 0, 4, 6]], atol=1e-6)
    assert np.isnan(position_centres(replace(host, axis=None), CROSS)).all()


def test_nothing_is_taught_where_the_planes_do_not_tell_it() -> None:
    host = short_axis()
    assert np.isnan(position_centres(replace(host, role="3ch"), CROSS)).all()
    assert np.isnan(position_centres(replace(host, guests={"4ch": host.guests["4ch"]}), CROSS)).all()
    parallel = {"4ch": host.guests["4ch"], "2ch": host.plane}
    assert np.isnan(position_centres(replace(host, guests=parallel), CROSS)).all()
    # A 2-chamber plane whose image ends before it reaches this slice.
    away = replace(host.guests["2ch"], origin=host.guests["2ch"].origin + 60 * TO_BACK)
    assert np.isnan(position_centres(replace(host, guests={**host.guests, "2ch": away}), CROSS)).all()
    assert not PositionPrediction(Positions()).geometry(replace(host, role="3ch")).present


def rotated(plane: Plane, axis: Array, degrees: float) -> Plane:
    """The plane turned about an axis through the point where the planes meet."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))

    def turn(v: Array) -> Array:
        return c * v + s * np.cross(axis, v) + (1 - c) * (axis @ v) * axis

    origin = MEETING + turn(plane.origin - MEETING)
    return replace(plane, origin=origin, x_direction=turn(plane.x_direction), y_direction=turn(plane.y_direction))


@pytest.mark.parametrize(
    ("degrees", "least", "present"), [(16, None, True), (14, None, False), (14, 13, True), (31, 32, False)]
)
def test_planes_that_meet_the_slice_at_too_small_an_angle_teach_nothing(
    degrees: float, least: float | None, present: bool
) -> None:
    host = short_axis()
    # Turned about the line in which it cuts the slice: the line stays, the angle becomes this one.
    flat = rotated(host.guests["4ch"], RIGHT_TO_LEFT, 90 - degrees)
    assert plane_angle_deg(host.plane, flat) == pytest.approx(degrees)
    settings = Positions(step_mm=STEP) if least is None else Positions(step_mm=STEP, min_angle_deg=least)
    points = PositionPrediction(settings).geometry(replace(host, guests={**host.guests, "4ch": flat})).points
    assert np.isfinite(points).any() == present


@pytest.mark.parametrize(
    ("degrees", "least", "present"), [(21, None, True), (19, None, False), (19, 18, True), (41, 42, False)]
)
def test_lines_that_meet_at_too_small_an_angle_teach_nothing(
    degrees: float, least: float | None, present: bool
) -> None:
    host = short_axis()
    # The 2-chamber line runs at a right angle to the 4-chamber one; turned in the slice, it comes near to it.
    near = rotated(host.guests["2ch"], TO_BACK, 90 - degrees)
    settings = Positions(step_mm=STEP) if least is None else Positions(step_mm=STEP, min_line_angle_deg=least)
    points = PositionPrediction(settings).geometry(replace(host, guests={**host.guests, "2ch": near})).points
    assert np.isfinite(points).any() == present


def widened(plane: Plane) -> Plane:
    """The plane with 10 more pixels on each side."""
    return replace(plane, origin=plane.to_patient([-10, -10]), size=(plane.size[0] + 20, plane.size[1] + 20))


def test_positions_that_leave_the_image_are_dropped_and_the_others_stay() -> None:
    host = short_axis()
    acquired = facing(MEETING, RIGHT_TO_LEFT, TO_FEET, (2.0, 3.0), (9.0, 2.0))
    # The network's square reaches over the edge: on what is repeated there, nothing is to be found.
    wide = replace(
        acquired, origin=acquired.to_patient([-10, -10]), size=(acquired.size[0] + 20, acquired.size[1] + 20)
    )
    for plane, first in ((acquired, 0), (wide, 10)):
        found = position_centres(replace(host, plane=plane, stack=[acquired], index=0), CROSS) - first
        # Two steps left of column 9 is -3, one step is column 3; one step above row 2 is -2.
        assert np.isnan(found[[0, 1, 2]]).all()
        assert np.allclose(found[[3, 4, 5]], [(3, 2), (9, 2), (15, 2)], atol=1e-6)
    outside = facing(MEETING, RIGHT_TO_LEFT, TO_FEET, (2.0, 3.0), (-3.0, 20.0))
    for plane in (outside, widened(outside)):
        assert np.isnan(position_centres(replace(host, plane=plane, stack=[outside], index=0), CROSS)).all()


def test_the_crossing_point_of_a_real_exam_lies_in_the_left_ventricle(shared_data: Path) -> None:
    folder = shared_data / "heart-multiview"

    def planes(name: str) -> list[Plane]:
        image = sitk.ReadImage(str(folder / f"{name}.nii.gz"))
        return planes_of_volume(image.GetOrigin(), image.GetDirection(), image.GetSpacing(), image.GetSize())

    two, four = planes("lax_2ch_ED")[0], planes("lax_4ch_ED")[0]
    stack = planes("sax_ED")
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "sax_ED_pseudolabel.nii.gz")))
    axis = long_axis(two, four)
    middles = []
    for k in range(1, 5):
        host = Host(stack[k], "sax", {"2ch": two, "4ch": four}, stack, k, axis)
        points = position_centres(host, Positions())
        column, row = np.rint(points[4]).astype(int)
        middles.append(int(labels[k, row, column]))
        # Two steps to the right along the 4-chamber line lies the right side, to the left the lung: never the LV.
        for far in (2, 6):
            c, r = np.rint(points[far]).astype(int)
            assert labels[k, r, c] != 1
        patient_points = stack[k].to_patient(points)
        assert patient_points[6][0] > patient_points[4][0] > patient_points[2][0]
        assert patient_points[8][2] < patient_points[4][2] < patient_points[0][2]
    assert middles[1:3] == [1, 1]
    assert middles.count(1) >= 3


# ---------------------------------------------------------------------------------------------
# Target, loss, score


def batch_of(points: np.ndarray, side: int = 64, spacing: float = 2.0) -> Batch:
    known = torch.from_numpy(points.astype(np.float32))
    images = torch.zeros(len(points), 1, side, side)
    unlabelled = torch.full((len(points), side, side), -1)
    return Batch(images, unlabelled, {}, {"positions": known}, {}, spacing, images, unlabelled < 0)


def logits_of(target: torch.Tensor, strength: float = 12.0) -> torch.Tensor:
    return strength * torch.nn.functional.one_hot(target.clamp(min=0), 10).permute(0, 3, 1, 2).float()


def task(half: float = 8.0) -> PositionPrediction:
    return PositionPrediction(Positions(half_size_mm=half))


def spaced() -> np.ndarray:
    return np.array([[(11.3 + 20 * (k % 3), 10.6 + 20 * (k // 3)) for k in range(9)]])


def test_squares_have_their_size_in_mm_and_their_place() -> None:
    for spacing, half in ((2.0, 8.0), (1.0, 6.5), (2.5, 5.5)):
        target = task(half).target(batch_of(spaced(), spacing=spacing))[0].numpy()
        for k, (x, y) in enumerate(spaced()[0]):
            rows, columns = np.nonzero(target == k + 1)
            side = 2 * half / spacing
            assert abs(np.ptp(rows) + 1 - side) <= 1
            assert abs(np.ptp(columns) + 1 - side) <= 1
            assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
            assert columns.mean() == pytest.approx(x, abs=0.51)
            assert rows.mean() == pytest.approx(y, abs=0.51)


def test_where_two_squares_meet_the_nearer_wins() -> None:
    points = np.full((1, 9, 2), np.nan)
    points[0, 2], points[0, 6] = (20, 30), (25, 30)
    target = task(8.0).target(batch_of(points))[0]
    assert target[30, 22] == 3
    assert target[30, 23] == 7
    assert target[30, 16] == 3
    assert target[30, 15] == 0
    assert target[30, 29] == 7
    assert set(target.unique().tolist()) == {0, 3, 7}


def test_slices_without_positions_are_unknown_and_teach_nothing() -> None:
    points = np.concatenate([spaced(), np.full((1, 9, 2), np.nan)])
    target = task().target(batch_of(points))
    assert (target[1] == -1).all()
    assert (target[0] >= 0).all()
    output = torch.randn(2, 10, 64, 64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    both, alone = (float(task().loss(output[:n], target[:n]).detach()) for n in (2, 1))
    assert both == pytest.approx(alone, rel=1e-6)
    nothing = task().loss(output[1:], target[1:])
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert output.grad is not None
    assert float(output.grad.abs().max()) == 0
    assert np.isnan(task().score(output[1:], target[1:], 2.0)["hit_rate"])


def test_the_loss_falls_towards_the_right_answer() -> None:
    target = task().target(batch_of(spaced()))
    right = float(task().loss(logits_of(target), target))
    undecided = float(task().loss(torch.zeros(1, 10, 64, 64), target))
    background = float(task().loss(logits_of(torch.zeros_like(target)), target))
    exchanged = float(task().loss(logits_of(torch.where(target > 0, target % 9 + 1, target)), target))
    assert right < 0.01 < undecided
    assert background > right + 1
    assert exchanged > undecided
    # At equal logits the weighted cross-entropy is ln 10.
    plain = PositionPrediction(Positions(dice=0.0)).loss(torch.zeros(1, 10, 64, 64), target)
    assert float(plain) == pytest.approx(np.log(10), rel=1e-5)


@pytest.mark.parametrize(("shift", "hit"), [((0, 0), 1.0), ((0, 3), 1.0), ((4, 0), 1.0), ((5, 0), 0.0), ((0, -5), 0.0)])
def test_the_score_measures_hits_and_mm(shift: tuple[int, int], hit: float) -> None:
    target = task().target(batch_of(spaced(), side=80))
    moved = torch.roll(target, (shift[1], shift[0]), (1, 2))
    score = task().score(logits_of(moved), target, 2.0)
    assert score["hit_rate"] == hit
    assert score["centre_error_mm"] == pytest.approx(2 * np.hypot(*shift), abs=0.05)


def test_the_task_is_made_from_its_settings_by_name() -> None:
    settings = parse({"data": {"path": "x"}, "positions": {"layout": "grid", "step_mm": 17}}, Pretrain)
    (made,) = make_pretexts(["positions", "positions"], settings)
    assert isinstance(made, TASKS["positions"])
    points = made.geometry(short_axis()).points
    assert np.linalg.norm(short_axis().plane.to_patient(points[1]) - MEETING) == pytest.approx(17)
