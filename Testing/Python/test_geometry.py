"""Planes and crossing lines against brute force in three dimensions, SimpleITK, and a real exam."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import assume
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from SSLEngine.geometry import Array
from SSLEngine.geometry import GeometryError
from SSLEngine.geometry import Line
from SSLEngine.geometry import Plane
from SSLEngine.geometry import crossing_line
from SSLEngine.geometry import crossing_point
from SSLEngine.geometry import crossing_segment
from SSLEngine.geometry import line_direction
from SSLEngine.geometry import long_axis
from SSLEngine.geometry import middle_plane
from SSLEngine.geometry import plane_angle_deg
from SSLEngine.geometry import plane_to_plane
from SSLEngine.geometry import planes_of_affine
from SSLEngine.geometry import planes_of_volume
from SSLEngine.geometry import slice_places
from SSLEngine.geometry import slice_positions
from SSLEngine.geometry import stack_normal
from SSLEngine.geometry import towards
from SSLEngine.geometry import turned

QUICK = settings(max_examples=60, deadline=None)


def rotation(a: float, b: float, c: float) -> Array:
    """A rotation matrix from three angles, written out."""
    ca, sa, cb, sb, cc, sc = np.cos(a), np.sin(a), np.cos(b), np.sin(b), np.cos(c), np.sin(c)
    rx = np.array([[1, 0, 0], [0, ca, -sa], [0, sa, ca]])
    ry = np.array([[cb, 0, sb], [0, 1, 0], [-sb, 0, cb]])
    rz = np.array([[cc, -sc, 0], [sc, cc, 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx)


@st.composite
def any_plane(draw: st.DrawFn) -> Plane:
    """An oblique, anisotropic, perhaps mirrored plane whose centre lies within 30 mm of the origin."""
    turn = rotation(*(draw(st.floats(-3.1, 3.1)) for _ in range(3)))
    x, y = turn[:, 0], turn[:, 1]
    if draw(st.booleans()):
        x = -x
    dx, dy = draw(st.floats(0.5, 3)), draw(st.floats(0.5, 3))
    w, h = draw(st.integers(20, 60)), draw(st.integers(20, 60))
    centre = np.array([draw(st.floats(-30, 30)) for _ in range(3)])
    origin = centre - (w - 1) / 2 * dx * x - (h - 1) / 2 * dy * y
    return Plane(origin, x, y, (dx, dy), (w, h))


def at(plane: Plane, x: float, y: float) -> Array:
    """A pixel's place in the patient, written out with the conventions of geometry.py."""
    return plane.origin + x * plane.spacing[0] * plane.x_direction + y * plane.spacing[1] * plane.y_direction


def height(plane: Plane, point: Array) -> float:
    """Signed distance of a point from a plane, written out."""
    n = np.cross(plane.x_direction, plane.y_direction)
    return float(np.dot(n, point - plane.origin))


def on_image(plane: Plane, points: Array) -> np.ndarray:
    """Which of ``(n, 3)`` points of a plane lie on its image, half pixels included."""
    x = (points - plane.origin) @ plane.x_direction / plane.spacing[0]
    y = (points - plane.origin) @ plane.y_direction / plane.spacing[1]
    return (x >= -0.5) & (x <= plane.size[0] - 0.5) & (y >= -0.5) & (y <= plane.size[1] - 0.5)


def common_line(host: Plane, guest: Plane) -> tuple[Array, Array]:
    """A point and the unit direction of the line in 3D that two planes share, from their equations."""
    normals = np.stack([np.cross(p.x_direction, p.y_direction) for p in (host, guest)])
    levels = [n @ p.origin for n, p in zip(normals, (host, guest), strict=True)]
    direction = np.cross(normals[0], normals[1])
    return np.linalg.lstsq(normals, np.array(levels), rcond=None)[0], direction / np.linalg.norm(direction)


# ---------------------------------------------------------------------------------------------
# Planes


@given(any_plane(), st.floats(-20, 80), st.floats(-20, 80), st.floats(-40, 40))
@QUICK
def test_pixels_and_points_are_inverse_and_follow_the_conventions(plane: Plane, x: float, y: float, up: float) -> None:
    point = at(plane, x, y)
    assert np.allclose(plane.to_patient([x, y]), point, atol=1e-9)
    lifted = point + up * np.cross(plane.x_direction, plane.y_direction)
    assert np.allclose(plane.to_pixel(lifted), [x, y], atol=1e-9)
    assert plane.signed_distance(lifted) == pytest.approx(up, abs=1e-9)
    # On the very border, rounding decides.
    border = [abs(v - edge) for v, size in zip((x, y), plane.size, strict=True) for edge in (-0.5, size - 0.5)]
    if min(border) > 1e-6:
        assert bool(plane.contains([x, y])) == bool(on_image(plane, point[None])[0])


def test_dicom_pixel_spacing_is_rows_first() -> None:
    plane = Plane.from_dicom([10, 20, 30], [0, 1, 0, 0, 0, -1], [3.0, 0.5], rows=4, columns=100)
    # Three columns on: 3 x 0.5 mm along +y. Two rows down: 2 x 3 mm along -z.
    assert np.allclose(plane.to_patient([3, 2]), [10, 21.5, 24])
    assert plane.size == (100, 4)
    assert plane.extent == (50.0, 12.0)
    assert np.allclose(plane.normal, [-1, 0, 0])
    assert np.allclose(plane.corners[2], [10, 20 + 99.5 * 0.5, 30 - 3.5 * 3])


@given(any_plane(), st.floats(0.7, 5), st.integers(1, 6))
@QUICK
def test_planes_of_a_volume_agree_with_simpleitk(plane: Plane, step: float, count: int) -> None:
    third = -plane.normal if count % 2 else plane.normal
    image = sitk.Image([*plane.size, count], sitk.sitkUInt8)
    image.SetOrigin(plane.origin.tolist())
    image.SetSpacing([*plane.spacing, step])
    image.SetDirection(np.stack([plane.x_direction, plane.y_direction, third], 1).ravel().tolist())
    made = planes_of_volume(image.GetOrigin(), image.GetDirection(), image.GetSpacing(), image.GetSize())
    assert len(made) == count
    for k, one in enumerate(made):
        for i, j in ((0, 0), (7, 0), (0, 11), (13, 5)):
            assert np.allclose(one.to_patient([i, j]), image.TransformIndexToPhysicalPoint((i, j, k)), atol=1e-6)


@given(any_plane(), st.floats(0.7, 5))
@QUICK
def test_planes_of_an_affine_are_turned_from_ras_to_lps(plane: Plane, step: float) -> None:
    lps = np.eye(4)
    lps[:3, 0] = plane.spacing[0] * plane.x_direction
    lps[:3, 1] = plane.spacing[1] * plane.y_direction
    lps[:3, 2] = step * plane.normal
    lps[:3, 3] = plane.origin
    ras = np.array([[-1, -1, -1, -1], [-1, -1, -1, -1], [1, 1, 1, 1], [1, 1, 1, 1]]) * lps
    third = planes_of_affine(ras, (*plane.size, 3))[2]
    assert np.allclose(third.to_patient([4, 9]), (lps @ [4, 9, 2, 1])[:3], atol=1e-9)
    assert third.spacing == pytest.approx(plane.spacing)


@given(any_plane(), st.floats(0.5, 4), st.floats(0.5, 4))
@QUICK
def test_a_resampled_plane_keeps_its_centre_and_directions(plane: Plane, dx: float, dy: float) -> None:
    other = plane.resampled((dx, dy))
    assert np.allclose(other.centre, plane.centre)
    assert abs(other.extent[0] - plane.extent[0]) <= dx / 2 + 1e-9
    assert abs(other.extent[1] - plane.extent[1]) <= dy / 2 + 1e-9
    matrix = plane_to_plane(plane, other)
    moved = matrix @ [3.0, 8.0, 1.0]
    assert np.allclose(other.to_patient(moved[:2]), at(plane, 3, 8), atol=1e-9)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"origin": [0, 0, np.nan]}, "origin"),
        ({"spacing": (0.0, 1.0)}, "spacing"),
        ({"spacing": (1.0, np.inf)}, "spacing"),
        ({"x_direction": [0, 0, 0]}, "zero"),
        ({"y_direction": [0.5, 1, 0]}, "perpendicular"),
    ],
)
def test_numbers_that_are_no_plane_are_refused(change: dict, word: str) -> None:
    good = {"origin": [0, 0, 0], "x_direction": [1, 0, 0], "y_direction": [0, 1, 0], "spacing": (1, 1), "size": (5, 5)}
    Plane(**good)
    with pytest.raises(GeometryError, match=word):
        Plane(**{**good, **change})


# ---------------------------------------------------------------------------------------------
# Lines


@given(any_plane(), any_plane(), st.integers(0, 59))
@QUICK
def test_the_line_is_where_a_ray_along_the_host_passes_through_the_guest(host: Plane, guest: Plane, row: int) -> None:
    line = crossing_line(host, guest)
    assume(line is not None)
    assert line is not None
    steps = np.linspace(-100, 160, 1301)
    for horizontal in (True, False):
        path = [(s, float(row)) if horizontal else (float(row), s) for s in steps]
        heights = np.array([height(guest, at(host, *p)) for p in path])
        for k in np.flatnonzero(heights[:-1] * heights[1:] < 0):
            t = heights[k] / (heights[k] - heights[k + 1])
            crossing = np.asarray(path[k]) * (1 - t) + np.asarray(path[k + 1]) * t
            assert abs(line.distance(crossing)) < 1e-6
        # The sign is that of the guest's normal.
        assert (np.sign(line.distance(path)) == np.sign(heights))[np.abs(heights) > 1e-6].all()


@given(any_plane(), any_plane(), st.floats(-10, 70), st.floats(-10, 70))
@QUICK
def test_the_distance_is_mm_in_the_host_plane(host: Plane, guest: Plane, x: float, y: float) -> None:
    line = crossing_line(host, guest)
    assume(line is not None)
    assert line is not None
    point, direction = common_line(host, guest)
    offset = at(host, x, y) - point
    across = offset - (offset @ direction) * direction
    assert abs(line.distance([x, y])) == pytest.approx(float(np.linalg.norm(across)), abs=1e-6)
    assert abs(line_direction(line, host) @ direction) == pytest.approx(1, abs=1e-9)
    cosine = abs(np.cross(host.x_direction, host.y_direction) @ np.cross(guest.x_direction, guest.y_direction))
    assert line.angle_deg == pytest.approx(np.degrees(np.arccos(min(1.0, float(cosine)))), abs=1e-4)


@given(any_plane(), any_plane())
@QUICK
def test_the_segment_is_the_part_that_lies_on_both_images(host: Plane, guest: Plane) -> None:
    assume(plane_angle_deg(host, guest) > 16)
    point, direction = common_line(host, guest)
    t = np.linspace(-500, 500, 100_001)
    points = point + t[:, None] * direction
    inside = np.flatnonzero(on_image(host, points) & on_image(guest, points))
    segment = crossing_segment(host, guest)
    if len(inside) == 0:
        assert segment is None or segment.length_mm < 0.02
        return
    assert segment is not None
    expected = points[[inside[0], inside[-1]]]
    ends = segment.points if (segment.points[1] - segment.points[0]) @ direction > 0 else segment.points[::-1]
    assert np.abs(ends - expected).max() < 0.03
    assert segment.length_mm == pytest.approx(t[inside[-1]] - t[inside[0]], abs=0.03)
    assert np.allclose(host.to_pixel(segment.points), segment.host_pixels, atol=1e-6)


@given(any_plane(), any_plane(), any_plane())
@QUICK
def test_two_lines_meet_where_three_planes_do(host: Plane, first: Plane, second: Plane) -> None:
    lines = [crossing_line(host, p) for p in (first, second)]
    assume(lines[0] is not None and lines[1] is not None)
    assert lines[0] is not None
    assert lines[1] is not None
    directions = [common_line(host, p)[1] for p in (first, second)]
    angle = np.degrees(np.arccos(np.clip(abs(directions[0] @ directions[1]), 0, 1)))
    pixel = crossing_point(lines[0], lines[1], host.spacing)
    assume(abs(angle - 20) > 0.01)
    if angle < 20:
        assert pixel is None
        return
    normals = np.stack([np.cross(p.x_direction, p.y_direction) for p in (host, first, second)])
    levels = np.array([n @ p.origin for n, p in zip(normals, (host, first, second), strict=True)])
    assert pixel is not None
    assert np.allclose(at(host, *pixel), np.linalg.solve(normals, levels), atol=1e-5)


@given(any_plane(), any_plane())
@QUICK
def test_turned_pixels_stay_where_they_are_and_lie_as_wanted_however_they_were_stored(plane: Plane, way: Plane) -> None:
    right, down = way.x_direction, way.y_direction
    x, y, (dx, dy), (w, h) = plane.x_direction, plane.y_direction, plane.spacing, plane.size
    far_x, far_y = (w - 1) * dx * x, (h - 1) * dy * y
    ways = []
    for from_right in (False, True):
        for from_below in (False, True):
            origin = plane.origin + far_x * from_right + far_y * from_below
            a, b = -x if from_right else x, -y if from_below else y
            ways += [Plane(origin, a, b, (dx, dy), (w, h)), Plane(origin, b, a, (dy, dx), (h, w))]
    fits = sorted(p.x_direction @ right + p.y_direction @ down for p in ways)
    assume(fits[-1] - fits[-2] > 1e-6)
    wanted = max(ways, key=lambda p: float(p.x_direction @ right + p.y_direction @ down))
    for stored in ways:
        found = turned(stored, right, down)
        assert (found.size, found.spacing) == (wanted.size, wanted.spacing)
        for name in ("origin", "x_direction", "y_direction"):
            assert np.allclose(getattr(found, name), getattr(wanted, name), atol=1e-9), name


@given(any_plane(), st.integers(1, 6), st.booleans())
@QUICK
def test_the_middle_of_a_stack_does_not_depend_on_how_it_was_stored(first: Plane, count: int, mirrored: bool) -> None:
    stack = [replace(first, origin=first.origin + 9.0 * k * first.normal) for k in range(count)]
    assume(abs(first.normal @ np.array([1.0, -1.0, -1.0])) > 1e-3)
    chosen = middle_plane(stack)
    assert any(chosen is stack[k] for k in ((count - 1) // 2, count // 2))
    again = stack[::-1]
    if mirrored:
        far = (first.size[0] - 1) * first.spacing[0] * first.x_direction
        again = [replace(p, origin=p.origin + far, x_direction=-p.x_direction) for p in again]
    assert np.allclose(middle_plane(again).centre, chosen.centre)


def test_nearly_parallel_planes_have_no_line() -> None:
    host = Plane(np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (1, 1), (50, 50))
    for degrees, crosses in ((0, False), (14, False), (16, True), (164, True), (166, False), (180, False)):
        tilt = rotation(np.radians(degrees), 0, 0)
        guest = Plane(np.array([0, 25.0, 0]), tilt[:, 0], tilt[:, 1], (1, 1), (50, 50))
        assert (crossing_line(host, guest) is not None) == crosses


# ---------------------------------------------------------------------------------------------
# Stacks


def test_the_long_axis_points_to_left_anterior_and_feet_whatever_way_the_images_were_laid() -> None:
    axis = np.array([0.7, -0.5, -0.5]) / np.linalg.norm([0.7, -0.5, -0.5])
    side = np.cross(axis, [0, 0, 1.0])
    side /= np.linalg.norm(side)
    other = np.cross(axis, side)
    for flips in range(8):
        sign = [1 if flips & (1 << b) else -1 for b in range(3)]
        two = Plane(np.zeros(3), sign[0] * axis, side, (1, 1), (9, 9))
        four = Plane(np.zeros(3), sign[1] * other, sign[2] * axis, (1, 1), (9, 9))
        found = long_axis(two, four)
        assert found is not None
        assert np.allclose(found, axis, atol=1e-9)
        swapped = long_axis(four, two)
        assert swapped is not None
        assert np.allclose(swapped, axis, atol=1e-9)
    assert long_axis(two, two) is None


def test_places_are_ratios_of_mm_and_not_of_slice_numbers() -> None:
    x, y = np.array([0, 1.0, 0]), np.array([0, 0, 1.0])
    stack = [Plane(np.array([s, 5.0, -3]), x, y, (1, 2), (20, 10)) for s in (10.0, 14.0, 30.0)]
    assert np.allclose(slice_places(stack, [1, 0, 0]), [0, 0.2, 1])
    assert np.allclose(slice_places(stack, [-1, 0, 0]), [1, 0.8, 0])
    assert np.allclose(slice_positions(stack, [1, 0, 0]), [10, 14, 30])
    assert np.isnan(slice_places(stack[:1], [1, 0, 0])).all()


def test_a_stack_has_a_normal_although_single_slices_are_turned_over() -> None:
    x, y = np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    planes = [Plane(np.array([0, 0, float(k)]), x * (-1) ** k, y, (1, 1), (9, 9)) for k in range(3)]
    normal = stack_normal(planes)
    assert normal is not None
    assert np.allclose(normal, [0, 0, 1])
    tilted = rotation(np.radians(5), 0, 0)
    assert stack_normal([*planes, Plane(np.zeros(3), tilted[:, 0], tilted[:, 1], (1, 1), (9, 9))]) is None
    assert np.allclose(towards([1, 2, 3], [0, 0, -1]), [-1, -2, -3])
    assert np.allclose(towards([1, 2, 3], [0, 0, 1]), [1, 2, 3])


# ---------------------------------------------------------------------------------------------
# A real exam


def read(path: Path) -> tuple[np.ndarray, list[Plane]]:
    image = sitk.ReadImage(str(path))
    planes = planes_of_volume(image.GetOrigin(), image.GetDirection(), image.GetSpacing(), image.GetSize())
    return sitk.GetArrayFromImage(image).astype(float), planes


def profile(pixels: np.ndarray, plane: Plane, points: Array) -> np.ndarray:
    """Grey values of one slice at points in the patient, centred and scaled."""
    x, y = plane.to_pixel(points).T
    values = map_coordinates(pixels, [y, x], order=1, mode="nearest")
    return (values - values.mean()) / values.std()


@pytest.mark.parametrize("name", ["lax_4ch", "lax_3ch_named4CH", "lax_2ch", "lax_rv2ch_named2CH", "rvot"])
def test_every_long_axis_plane_meets_all_short_axis_slices(shared_data: Path, name: str) -> None:
    folder = shared_data / "heart-multiview"
    _, stack = read(folder / "sax_ED.nii.gz")
    _, (guest,) = read(folder / f"{name}_ED.nii.gz")
    assert len(stack) == 6
    for host in stack:
        segment = crossing_segment(host, guest)
        assert segment is not None
        assert segment.length_mm > 100
        assert 68 < plane_angle_deg(host, guest) < 89


@pytest.mark.parametrize("name", ["lax_4ch", "lax_3ch_named4CH", "lax_2ch"])
def test_both_images_show_the_same_along_their_line_and_not_beside_it(shared_data: Path, name: str) -> None:
    folder = shared_data / "heart-multiview"
    images, stack = read(folder / "sax_ED.nii.gz")
    pixels, (guest,) = read(folder / f"{name}_ED.nii.gz")
    along: list[np.ndarray] = []
    beside: dict[float, list[np.ndarray]] = {-15.0: [], 15.0: []}
    wanted: list[np.ndarray] = []
    for image, host in zip(images, stack, strict=True):
        segment = crossing_segment(host, guest)
        assert segment is not None
        points = np.linspace(*segment.points, int(segment.length_mm))
        across = np.cross(host.normal, segment.points[1] - segment.points[0]) / segment.length_mm
        wanted.append(profile(pixels[0], guest, points))
        along.append(profile(image, host, points))
        for mm, found in beside.items():
            found.append(profile(image, host, points + mm * across))
    truth = np.concatenate(wanted)
    on_line = np.corrcoef(truth, np.concatenate(along))[0, 1]
    off_line = [np.corrcoef(truth, np.concatenate(found))[0, 1] for found in beside.values()]
    assert on_line > 0.75
    # Measured: 0.84, 0.89, 0.82 on the line; 0.53, 0.67, 0.55 in the mean of both sides.
    assert np.mean(off_line) < on_line - 0.2
    assert max(off_line) < on_line - 0.12


def test_a_line_that_lies_is_noticed() -> None:
    """The tests above can fail: a line whose spacing is swapped is far from the truth."""
    host = Plane(np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (1.0, 3.0), (50, 50))
    guest = Plane(np.array([10.0, 10, -5]), np.array([1.0, 1, 0]), np.array([0, 0, 1.0]), (1, 1), (50, 50))
    line = crossing_line(host, guest)
    assert line is not None
    wrong = Line(line.coefficients[[1, 0, 2]], line.angle_deg)
    pixel = [16.0, 16 / 3]
    assert abs(line.distance(pixel)) < 1e-9
    assert abs(wrong.distance(pixel)) > 5
