from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from SSLEngine.geometry import Plane
from SSLEngine.phantom.rendering import Imaging
from SSLEngine.phantom.rendering import coil_profile
from SSLEngine.phantom.rendering import plane_points
from SSLEngine.phantom.rendering import render
from SSLEngine.phantom.shapes import Canvas
from SSLEngine.phantom.shapes import Texture
from SSLEngine.phantom.shapes import ellipsoid
from SSLEngine.phantom.shapes import smooth_path
from SSLEngine.phantom.shapes import tube


@dataclass
class HalfSpace:
    """Signal ``inside`` and label 1 where ``normal . p < 0``, else ``outside``; its phase moves the border in mm."""

    normal: Sequence[float]
    inside: float = 1.0
    outside: float = 0.0

    def sample(self, points: np.ndarray, phases: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
        within = np.stack([np.asarray(self.normal, np.float32) @ points < phase for phase in phases])
        return np.where(within, self.inside, self.outside).astype(np.float32), within.astype(np.uint8)


SCANNER = Imaging(
    coils=np.array([[0.0, -150.0, 0.0]], np.float32),
    coil_reach=120.0,
    reference=np.zeros(3, np.float32),
    shading=0.0,
    noise=1e-6,
    sharpness=0.05,
    gain=1000.0,
    maximum=4095,
    sub_slices=24,
)


def _plane(thickness: float = 8.0) -> Plane:
    return Plane(
        np.array([-40.0, -30.0, 0.0]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]), (1.0, 1.0), (81, 61), thickness
    )


def test_oblique_border_is_a_ramp_as_wide_as_the_slice_projects() -> None:
    # A border at 45 degrees through a slice of 8 mm is smeared over 8 mm in the plane.
    body = HalfSpace((1.0, 0.0, 1.0))
    pixels, labels = render(body, [_plane()], [0.0], SCANNER, np.random.default_rng(0))
    profile = pixels[0, 0, 30] / 1000
    x = np.arange(81) - 40.0
    assert np.abs(profile - np.clip(0.5 - x / 8, 0, 1)).max() < 0.06
    # The label is that of the slice's centre.
    assert np.array_equal(labels[0, 0, 30], x < 0)


def test_rows_and_columns_are_not_swapped() -> None:
    pixels, _ = render(HalfSpace((0.0, 1.0, 0.0)), [_plane()], [0.0], SCANNER, np.random.default_rng(0))
    assert pixels[0, 0, 5, 40] == pytest.approx(1000, abs=2)
    assert pixels[0, 0, 55, 40] < 2


def test_breath_hold_moves_the_anatomy_along_the_shift() -> None:
    body = HalfSpace((1.0, 0.0, 0.0))
    _, labels = render(body, [_plane(), _plane()], [0.0], SCANNER, np.random.default_rng(0), [[0, 0, 0], [5, 0, 0]])
    assert labels[0, 1, 30].sum() - labels[0, 0, 30].sum() == 5


def test_fat_of_opposed_phase_leaves_a_dark_line() -> None:
    scanner = replace(SCANNER, sharpness=1.0)
    opposed = render(HalfSpace((1.0, 0, 0), outside=-1.0), [_plane()], [0.0], scanner, np.random.default_rng(0))[0]
    in_phase = render(HalfSpace((1.0, 0, 0), outside=1.0), [_plane()], [0.0], scanner, np.random.default_rng(0))[0]
    assert opposed[0, 0, 30, 38:43].min() < 450
    assert in_phase[0, 0, 30, 38:43].min() > 990


def test_point_spread_has_the_width_asked_for() -> None:
    scanner = replace(SCANNER, sharpness=2.0)
    profile = render(HalfSpace((1.0, 0, 0)), [_plane(0.0)], [0.5], scanner, np.random.default_rng(0))[0][0, 0, 30]
    slope = -np.gradient(profile / 1000)
    x = np.arange(81) - 40.0
    middle = (slope * x).sum() / slope.sum()
    # A central difference widens the response by half a pixel's variance at most.
    assert np.sqrt((slope * (x - middle) ** 2).sum() / slope.sum()) == pytest.approx(2.0, abs=0.2)


def test_noise_in_air_is_rayleigh() -> None:
    scanner = replace(SCANNER, noise=0.05)
    empty = HalfSpace((0.0, 0.0, 0.0))
    pixels = render(empty, [_plane()], [-1.0], scanner, np.random.default_rng(1))[0]
    assert pixels.mean() == pytest.approx(50 * np.sqrt(np.pi / 2), rel=0.05)
    assert pixels.std() == pytest.approx(50 * np.sqrt(2 - np.pi / 2), rel=0.06)


def test_coil_is_one_at_its_reference_and_falls_with_distance() -> None:
    scanner = replace(SCANNER, shading=1.0)
    profile = coil_profile(np.array([[0, 0, 0], [0, -100, 100], [0, 0, 0]], np.float32), scanner)
    assert profile[0] == pytest.approx(1.0)
    assert profile[1] > 1 > profile[2]


def test_round_field_blanks_the_corners_of_every_view_alike() -> None:
    scanner = replace(SCANNER, round_field=True)
    pixels = render(HalfSpace((0.0, 0, 0)), [_plane()], [1.0], scanner, np.random.default_rng(0))[0][0, 0]
    assert pixels[0, 0] == 0
    assert pixels[30, 40] > 990


def test_plane_points_are_those_of_the_plane() -> None:
    plane = Plane(np.array([3.0, -20, 11]), np.array([0.6, 0.8, 0]), np.array([0, 0, -1.0]), (1.5, 1.2), (7, 5), 6.0)
    points = plane_points(plane, 2.0, (1.0, 0.0, -1.0))
    xy = np.stack(np.meshgrid(np.arange(7), np.arange(5)), axis=-1).reshape(-1, 2)
    assert np.allclose(points.T, plane.to_patient(xy) + 2 * plane.normal - [1, 0, -1], atol=1e-4)


def test_ellipsoid_distance_is_exact_for_a_sphere_and_signed_right() -> None:
    points = np.random.default_rng(0).normal(0, 20, (3, 500)).astype(np.float32)
    expected = np.linalg.norm(points - np.array([[1.0], [2], [3]]), axis=0) - 15
    assert np.allclose(ellipsoid(points, (1, 2, 3), (15, 15, 15)), expected, atol=1e-3)
    oval = ellipsoid(points, (0, 0, 0), (10, 20, 30))
    inside = (points[0] / 10) ** 2 + (points[1] / 20) ** 2 + (points[2] / 30) ** 2 < 1
    assert np.array_equal(oval < 0, inside)
    assert ellipsoid(np.zeros((3, 1), np.float32), (0, 0, 0), (10, 20, 30))[0] < -5


def test_tube_distance_is_that_of_the_nearest_piece() -> None:
    path, points = (
        [(0.0, 0, 0), (10.0, 0, 0), (10.0, 10, 0)],
        np.array([[5.0, 20, 10], [3, 0, 5], [0, 0, 4]], np.float32),
    )
    assert np.allclose(tube(points, path, (2.0, 2.0, 2.0)), [1.0, 8.0, 2.0], atol=1e-5)
    curve = smooth_path([(0, 0, 0), (10, 5, 0), (20, 0, 0)], 4)
    assert np.allclose(curve[[0, 4, 8]], [(0, 0, 0), (10, 5, 0), (20, 0, 0)])


def test_texture_agrees_with_a_general_interpolation() -> None:
    texture = Texture(np.random.default_rng(4))
    points = np.random.default_rng(5).uniform(-300, 300, (3, 400)).astype(np.float32)
    cells = points / 7.0 + np.array([[1.5], [2.5], [3.5]])
    expected = ndimage.map_coordinates(texture._field, cells, order=1, mode="grid-wrap")
    assert np.allclose(texture(points, 7.0, (1.5, 2.5, 3.5)), expected, atol=2e-3)


def test_canvas_fades_over_its_edge_and_labels_inside() -> None:
    canvas = Canvas(np.zeros(5, np.float32), np.zeros(5, np.uint8), edge_mm=2.0)
    canvas.paint(np.array([-5, -0.5, 0.0, 0.5, 5], np.float32), 1.0, 3)
    assert np.allclose(canvas.signal, [1, 0.75, 0.5, 0.25, 0])
    assert canvas.label.tolist() == [3, 3, 0, 0, 0]
