from __future__ import annotations

import time

import numpy as np
import pytest

from SSLEngine.geometry import Plane
from SSLEngine.geometry import crossing_segment
from SSLEngine.geometry import plane_angle_deg
from SSLEngine.phantom import LABELS
from SSLEngine.phantom import make_study
from SSLEngine.phantom.exam import CHEST_COIL
from SSLEngine.phantom.exam import contractions
from SSLEngine.phantom.heart import LV
from SSLEngine.phantom.heart import MYOCARDIUM
from SSLEngine.phantom.heart import RV
from SSLEngine.phantom.heart import HeartBody
from SSLEngine.phantom.heart import _truncated_volume
from SSLEngine.phantom.heart import draw_body
from SSLEngine.phantom.heart_views import lay_heart_planes
from SSLEngine.phantom.rendering import draw_imaging
from SSLEngine.phantom.rendering import render
from SSLEngine.structures import STRUCTURES
from SSLEngine.studies.study import Study
from SSLEngine.studies.study import StudyError


def _body(seed: int) -> HeartBody:
    return draw_body(np.random.default_rng(seed))


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study("heart", 5)


@pytest.fixture(scope="module")
def unshifted() -> tuple[dict[str, list[Plane]], dict[str, np.ndarray], HeartBody]:
    """One exam without breathing: planes and ED labels of each view."""
    rng = np.random.default_rng(17)
    body = draw_body(rng)
    imaging = draw_imaging(rng, CHEST_COIL, body.middle)
    planes = dict(lay_heart_planes(body.shape, rng))
    labels = {name: render(body, p, [0.0], imaging, rng)[1][0] for name, p in planes.items()}
    return planes, labels, body


# ---- the same seed, the same study


def test_same_seed_gives_the_same_study_bit_by_bit(study: Study) -> None:
    again = make_study("heart", 5)
    for first, second in zip(study.views, again.views, strict=True):
        for phase in range(2):
            assert np.array_equal(first.pixels(phase), second.pixels(phase))
            assert np.array_equal(first.labels(phase), second.labels(phase))
        for p, q in zip(first.planes, second.planes, strict=True):
            assert p.as_json() == q.as_json()
    assert study.group == again.group


def test_another_seed_gives_another_study(study: Study) -> None:
    other = make_study("heart", 6)
    assert other.views[0].shape != study.views[0].shape or not np.array_equal(
        other.views[0].pixels(0), study.views[0].pixels(0)
    )


def test_study_takes_little_time() -> None:
    start = time.process_time()
    make_study("heart", 1)
    assert time.process_time() - start < 6.0


# ---- what a study holds


def test_study_has_the_views_of_an_exam(study: Study) -> None:
    assert [v.role for v in study.views] == ["sax", "2ch", "3ch", "4ch"]
    assert study.organ == "heart"
    assert study.group in {"normal", "hypertrophy", "infarct"}
    for view in study.views:
        assert view.phases == 2
        assert view.regular
        assert view.pixels(0).dtype == np.float32
        assert view.labels(1).dtype == np.int16
        assert view.pixels(0).shape == view.labels(0).shape == view.shape
        assert dict(view.label_names) == LABELS["heart"]
        assert (view.pixels(0) == np.rint(view.pixels(0))).all()
    names = {s.name for s in STRUCTURES}
    assert set(LABELS["heart"].values()) <= names


def test_each_view_shows_the_chambers_that_it_is_named_for(study: Study) -> None:
    present = {v.role: set(np.unique(v.labels(0))) for v in study.views}
    assert present["sax"] >= {0, 1, 2, 3}
    assert present["4ch"] >= {0, 1, 2, 3, 4, 5}
    assert present["2ch"] >= {0, 1, 2, 4}
    assert present["3ch"] >= {0, 1, 2, 3, 4, 6}


def test_blood_is_brighter_than_muscle_and_muscle_than_lung(study: Study) -> None:
    view = study.first("sax")
    grey, label = view.pixels(0), view.labels(0)
    blood, muscle = np.median(grey[label == LV]), np.median(grey[label == MYOCARDIUM])
    assert 0.18 < muscle / blood < 0.6
    assert np.percentile(grey[grey > 0], 10) < 0.35 * blood


def test_phases_sample_the_cycle() -> None:
    assert contractions(1) == [0.0]
    assert contractions(2) == [0.0, 1.0]
    cycle = contractions(25)
    assert cycle[0] == 0.0
    assert np.argmax(cycle) == 9
    assert cycle[9] == pytest.approx(1.0)
    study = make_study("heart", 3, phases=4)
    view = study.first("4ch")
    area = [(view.labels(k) == LV).sum() for k in range(4)]
    assert view.phases == len(view.trigger_times) == 4
    assert np.argmax(area) == 0
    assert min(area) < 0.8 * area[0]


@pytest.mark.parametrize(("organ", "seed", "phases"), [("liver", 1, 2), ("heart", -1, 2), ("heart", 1, 0)])
def test_unusable_requests_are_refused_in_a_sentence(organ: str, seed: int, phases: int) -> None:
    with pytest.raises(StudyError, match="Expected"):
        make_study(organ, seed, phases)


# ---- truth of the geometry


def _on_line(host: Plane, label: np.ndarray, points: np.ndarray) -> np.ndarray:
    x, y = np.rint(host.to_pixel(points)).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < label.shape[1]) & (y < label.shape[0])
    return np.where(inside, label[np.clip(y, 0, label.shape[0] - 1), np.clip(x, 0, label.shape[1] - 1)], 0)


@pytest.mark.parametrize("name", ["2ch", "3ch", "4ch"])
def test_labels_agree_where_planes_cross_and_not_beside(unshifted: tuple, name: str) -> None:
    planes, labels, _ = unshifted
    guest, guest_labels = planes[name][0], labels[name][0]
    same, beside = [], []
    for host, label in zip(planes["sax"], labels["sax"], strict=True):
        segment = crossing_segment(host, guest)
        assert segment is not None
        points = segment.points[0] + np.linspace(0, 1, 200)[:, None] * (segment.points[1] - segment.points[0])
        here, there = _on_line(host, label, points), _on_line(guest, guest_labels, points)
        moved = _on_line(host, label, points + 25 * guest.normal)
        used = (here > 0) | (there > 0)
        same.append((here == there)[used])
        beside.append((moved == there)[used])
    # Nearest pixels of two grids differ by up to a pixel at each border.
    assert np.concatenate(same).mean() > 0.93
    assert np.concatenate(beside).mean() < np.concatenate(same).mean() - 0.3


def test_labels_are_those_of_the_body_at_the_pixel(unshifted: tuple) -> None:
    planes, labels, body = unshifted
    plane = planes["4ch"][0]
    xy = np.stack(np.meshgrid(np.arange(plane.size[0]), np.arange(plane.size[1])), axis=-1).reshape(-1, 2)
    points = plane.to_patient(xy).T.astype(np.float32)
    truth = body.sample(points, [0.0])[1][0].reshape(plane.size[1], plane.size[0])
    assert (truth == labels["4ch"][0]).mean() > 0.9995


def test_planes_are_laid_as_technologists_do() -> None:
    offsets = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shape = draw_body(rng).shape
        views = lay_heart_planes(shape, rng)
        sax = views["sax"]
        step = float(np.linalg.norm(sax[1].origin - sax[0].origin))
        assert 8 <= len(sax) <= 12
        assert 6 <= sax[0].thickness <= 8
        assert 2 - 1e-6 <= step - sax[0].thickness <= 10 + 1e-6
        base, apex = shape.to_patient([(0, 0, 0), (0, 0, shape.apex)])
        span = sorted([sax[0].signed_distance(base), sax[-1].signed_distance(base)])
        assert span[0] <= 0 <= span[1]
        ends = sorted([sax[0].signed_distance(apex), sax[-1].signed_distance(apex)])
        # The short-axis stack is a few degrees off, so its last slice may stop a few mm short of the tip.
        assert ends[0] <= 8
        assert ends[1] >= -8
        for name in ("2ch", "3ch", "4ch"):
            (plane,) = views[name]
            assert abs(plane.signed_distance(shape.to_patient((0, 0, 0.5 * shape.length)))) < 14
            assert plane_angle_deg(plane, sax[0]) > 70
            assert plane.to_pixel(apex)[1] != plane.to_pixel(base)[1]
        assert plane_angle_deg(views["2ch"][0], views["4ch"][0]) > 35
        for plane in (sax[0], *(views[n][0] for n in ("2ch", "3ch", "4ch"))):
            assert 192 <= plane.size[0] <= 256
            assert 1.2 <= plane.spacing[0] <= 1.6
        middle = (np.array(sax[0].size) - 1) / 2
        offsets.append((sax[0].to_pixel(shape.to_patient((0, 0, 0.4 * shape.length))) - middle) * sax[0].spacing)
    # The heart is near the centre of the image but never at a fixed place.
    assert np.std(offsets, axis=0).min() > 10
    assert np.abs(np.median(offsets, axis=0)).max() < 30


def test_apex_points_left_forwards_and_down_and_handedness_is_right() -> None:
    for seed in range(40):
        axes = _body(seed).shape.axes
        assert np.allclose(axes @ axes.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(axes) == pytest.approx(1.0)
        assert axes[2][0] > 0
        assert axes[2][1] < 0
        assert axes[2][2] < 0
        # v runs to the inferior wall.
        assert axes[1][2] < -0.4


# ---- volumes


def test_volumes_are_those_of_people() -> None:
    by_group: dict[str, list[tuple[float, float, float, float]]] = {"normal": [], "hypertrophy": [], "infarct": []}
    for seed in range(20):
        body = _body(seed)
        rest, systole = body.volumes_ml(0.0, 4.0), body.volumes_ml(1.0, 4.0)
        ejection = 100 * (1 - systole[LV] / rest[LV])
        mass = 1.05 * rest[MYOCARDIUM]
        assert 40 < rest[LV] < 360
        assert 60 < rest[RV] < 340
        # Muscle does not vanish: it thickens as it shortens.
        assert systole[MYOCARDIUM] == pytest.approx(rest[MYOCARDIUM], rel=0.12)
        assert all(systole[k] > rest[k] for k in (4, 5))
        by_group[body.shape.group].append((rest[LV], ejection, mass, 100 * (1 - systole[RV] / rest[RV])))
    median = {group: np.median(values, axis=0) for group, values in by_group.items()}
    assert 100 < median["normal"][0] < 180
    assert 52 < median["normal"][1] < 70
    assert 70 < median["normal"][2] < 160
    assert 40 < median["normal"][3] < 65
    assert 18 < median["infarct"][1] < 45
    assert median["hypertrophy"][2] > 1.4 * median["normal"][2]


def test_wall_thickens_and_the_long_axis_shortens() -> None:
    for seed in range(20):
        shape = _body(seed).shape
        rest, systole = shape.ventricle(0.0), shape.ventricle(1.0)
        assert systole.outer[0] - systole.inner[0] > 1.05 * (rest.outer[0] - rest.inner[0])
        assert systole.base == pytest.approx(shape.shortening[1] * shape.length)
        assert rest.centre + rest.outer[1] == pytest.approx(systole.centre + systole.outer[1])


def test_truncated_volume_is_that_of_a_counted_ellipsoid() -> None:
    step = 0.5
    grid = np.arange(-40, 40, step) + step / 2
    x, y, z = np.meshgrid(grid, grid, np.arange(-40, 60, step) + step / 2, indexing="ij")
    inside = ((x**2 + y**2) / 20**2 + z**2 / 50**2 < 1) & (z > -12)
    assert _truncated_volume(20, 50, -12) == pytest.approx(inside.sum() * step**3, rel=0.005)


def test_groups_look_different_in_the_wall() -> None:
    seen = {"normal": [], "hypertrophy": []}
    for seed in range(60):
        shape = _body(seed).shape
        if shape.group in seen:
            seen[shape.group].append(shape.wall)
    assert np.min(seen["hypertrophy"]) > np.max(seen["normal"])
