from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from SSLEngine.geometry import crossing_segment
from SSLEngine.geometry import plane_angle_deg
from SSLEngine.phantom import LABELS
from SSLEngine.phantom import knee
from SSLEngine.phantom import make_study
from SSLEngine.phantom import write_cohort
from SSLEngine.phantom import write_study
from SSLEngine.phantom.knee import KneeShape
from SSLEngine.phantom.knee import draw_knee
from SSLEngine.phantom.knee_body import CONTRASTS
from SSLEngine.phantom.knee_body import KneeBody
from SSLEngine.phantom.knee_body import draw_knee_body
from SSLEngine.phantom.knee_body import draw_knee_tissues
from SSLEngine.phantom.knee_views import lay_knee_planes
from SSLEngine.structures import STRUCTURES
from SSLEngine.studies.knee_roles import mirrored
from SSLEngine.studies.reading import read_study
from SSLEngine.studies.study import Study


def _shape(seed: int, side: str | None = None) -> KneeShape:
    return draw_knee(np.random.default_rng(seed), side)


def _body(seed: int, side: str | None = None) -> KneeBody:
    return draw_knee_body(np.random.default_rng(seed), side)


def _seed_of(group: str) -> int:
    return next(s for s in range(50) if draw_knee(np.random.default_rng(np.random.SeedSequence([s, 2]))).group == group)


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study("knee", _seed_of("effusion"))


# ---- the same seed, the same study


def test_same_seed_gives_the_same_study_bit_by_bit(study: Study) -> None:
    again = make_study("knee", _seed_of("effusion"))
    assert (study.group, study.side) == (again.group, again.side)
    for first, second in zip(study.views, again.views, strict=True):
        assert np.array_equal(first.pixels(), second.pixels())
        assert np.array_equal(first.labels(), second.labels())
        assert [p.as_json() for p in first.planes] == [p.as_json() for p in second.planes]


def test_study_takes_little_time() -> None:
    start = time.process_time()
    other = make_study("knee", _seed_of("normal"))
    # About 3.5 s on a processor of its own.
    assert time.process_time() - start < 9.0
    assert other.group == "normal"


# ---- what a study holds


def test_study_has_the_views_of_an_exam(study: Study) -> None:
    assert [v.role for v in study.views] == [v.name for v in study.views] == ["sag", "cor", "ax"]
    assert study.organ == "knee"
    assert study.group == "effusion"
    assert study.side in knee.SIDES
    for view in study.views:
        assert view.phases == 1
        assert view.regular
        assert 20 <= len(view.planes) <= 28
        assert 3 <= view.planes[0].thickness <= 4
        assert view.pixels().shape == view.labels().shape == view.shape
        assert (view.pixels() == np.rint(view.pixels())).all()
        assert dict(view.label_names) == LABELS["knee"]
        assert set(np.unique(view.labels())) == set(range(10)), view.name
    assert study.views[0].planes[0].size[0] == 256
    assert set(LABELS["knee"].values()) <= {s.name for s in STRUCTURES}


def test_contrast_is_that_of_fat_suppressed_images(study: Study) -> None:
    view = study.first("sag")
    grey, label = view.pixels(), view.labels()
    median = {value: float(np.median(grey[label == value])) for value in range(1, 10)}
    fluid = median[knee.EFFUSION]
    assert 0.3 < median[knee.FEMORAL_CARTILAGE] / fluid < 0.8
    assert median[knee.FEMUR] < 0.25 * fluid
    assert median[knee.TIBIA] < 0.25 * fluid
    assert median[knee.MENISCI] < 0.6 * median[knee.FEMORAL_CARTILAGE]


def test_planes_lie_along_the_joint_with_some_error() -> None:
    tilts = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        shape = draw_knee(rng)
        planes = lay_knee_planes(shape, rng)
        for name, axis in zip(("sag", "cor", "ax"), shape.axes, strict=True):
            tilts.append(np.degrees(np.arccos(min(1.0, abs(float(planes[name][0].normal @ axis))))))
            assert planes[name][0].spacing[0] == pytest.approx(planes[name][0].spacing[1])
        assert plane_angle_deg(planes["sag"][0], planes["ax"][0]) > 70
        # Pictures are shown the usual way: front left and head up, patient's right on the left.
        assert planes["sag"][0].x_direction[1] > 0.7
        assert planes["sag"][0].y_direction[2] < -0.7
        assert planes["cor"][0].x_direction[0] > 0.7
        assert planes["ax"][0].y_direction[1] > 0.7
    assert 1 < np.median(tilts) < 6
    assert np.max(tilts) < 25


def test_stacks_cover_the_joint() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shape = draw_knee(rng)
        for name, planes in lay_knee_planes(shape, rng).items():
            heights = [p.signed_distance(shape.to_patient((0.0, 0.0, 10.0))) for p in planes]
            assert min(heights) < -28 < 28 < max(heights), name


# ---- labels


def test_labels_of_crossing_views_agree_along_their_line(study: Study) -> None:
    equal, total, beside = 0, 0, 0
    sag, cor = study.first("sag"), study.first("cor")
    for i in range(4, len(sag.planes) - 4, 3):
        for j in range(4, len(cor.planes) - 4, 3):
            segment = crossing_segment(sag.planes[i], cor.planes[j])
            if segment is None:
                continue
            steps = np.linspace(0.02, 0.98, 150)[:, None]
            points = segment.points[0] + steps * (segment.points[1] - segment.points[0])
            seen = []
            for view, k, shift in ((sag, i, 0.0), (cor, j, 0.0), (sag, i, 12.0)):
                moved = points + shift * cor.planes[j].normal
                column, row = np.rint(view.planes[k].to_pixel(moved)).astype(int).T
                rows, columns = view.shape[1:]
                seen.append(view.labels()[k, np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)])
            either = (seen[0] > 0) | (seen[1] > 0)
            equal += int((seen[0] == seen[1])[either].sum())
            beside += int((seen[2] == seen[1])[either].sum())
            total += int(either.sum())
    assert total > 1500
    # Only pixels at a border may differ, by rounding to the nearest one.
    assert equal / total > 0.9
    assert beside / total < 0.75


def test_right_knee_is_the_mirror_image_of_a_left_one() -> None:
    left, right = _body(3, "left"), _body(3, "right")
    grid = np.stack(np.meshgrid(*[np.arange(-60, 61, 5.0)] * 3)).reshape(3, -1).astype(np.float32)
    points = grid + left.middle[:, None]
    other = points * np.array([[-1.0], [1.0], [1.0]], np.float32)
    first, second = left.sample(points, [0.0]), right.sample(other, [0.0])
    # The texture follows the knee, so even that is mirrored; rounding may move a point over a cell's border.
    assert (first[1] == second[1]).mean() > 0.9999
    assert np.median(np.abs(first[0] - second[0])) < 1e-4
    # The test can fail: without mirroring they differ.
    assert (first[1] == right.sample(points - 2 * left.middle[0] * np.eye(3, 1), [0.0])[1]).mean() < 0.99
    assert np.linalg.det(left.shape.axes) == pytest.approx(1.0)
    assert np.linalg.det(right.shape.axes) == pytest.approx(-1.0)
    assert left.shape.origin[0] > 0 > right.shape.origin[0]


def test_fibula_lies_on_the_outside() -> None:
    for side, sign in (("left", 1.0), ("right", -1.0)):
        shape = _shape(5, side)
        lateral = shape.to_patient((33.0, 17.0, -25.0))[0] - shape.to_patient((-33.0, 17.0, -25.0))[0]
        assert sign * lateral > 40


def test_volumes_are_those_of_people() -> None:
    volumes = {"normal": [], "effusion": []}
    for seed in range(16):
        body = _body(seed)
        volumes[body.shape.group].append(list(body.volumes_ml(2.5).values()))
    both = np.median([*volumes["normal"], *volumes["effusion"]], axis=0)
    limits = ((90, 260), (60, 190), (9, 26), (9, 24), (2.2, 7.5), (1.2, 4.5), (3, 9), (2, 8))
    for value, (low, high) in enumerate(limits, start=1):
        assert low < both[value - 1] < high, LABELS["knee"][value]
    assert np.max(np.array(volumes["normal"])[:, 8]) == 0
    assert np.min(np.array(volumes["effusion"])[:, 8]) > 1.5
    assert np.ptp(np.array(volumes["normal"])[:, 0]) > 20


def test_cartilage_is_as_thick_as_drawn() -> None:
    """Cartilage counted along a line down through the unworn lateral condyle."""
    for seed in range(8):
        shape = replace(_shape(seed), worn=())
        w = np.arange(-14, 34, 0.05, dtype=np.float32)
        p = np.stack([np.full_like(w, 21.0), np.full_like(w, 2.0), w])
        f = shape.to_femur(p)
        bone, ground = knee.femur(shape, f), knee.tibia(shape, p)
        upper = ((bone > 0) & (bone < knee.femoral_cartilage(shape, f))).sum() * 0.05 * shape.scale
        lower = ((ground > 0) & (ground < knee.tibial_cartilage(shape, p))).sum() * 0.05 * shape.scale
        assert upper == pytest.approx(shape.cartilage[0], rel=0.35)
        assert lower == pytest.approx(shape.cartilage[1], rel=0.25)


def test_worn_cartilage_is_thinner() -> None:
    shape = replace(_shape(1), worn=((21.0, 0.0, 8.0, 0.9),))
    spot = np.array([[21.0, -21.0], [0.0, 0.0], [0.0, 0.0]], np.float32)
    worn, whole = knee.femoral_cartilage(shape, spot)
    assert worn < 0.2 * whole


def test_bones_touch_through_cartilage_and_never_overlap() -> None:
    grid = np.stack(np.meshgrid(np.arange(-40, 41, 1.5), np.arange(-58, 40, 1.5), np.arange(-14, 62, 1.5)))
    p = grid.reshape(3, -1).astype(np.float32)
    for seed in range(8):
        shape = _shape(seed)
        f = shape.to_femur(p)
        femur, tibia = knee.femur(shape, f), knee.tibia(shape, p)
        patella = knee.patella(shape, shape.to_patella(f))
        assert not ((femur < 0) & (tibia < 0)).any()
        assert not ((femur < 0) & (patella < 0)).any()
        # As near as their cartilages are thick, with a grid's step to spare.
        assert np.maximum(femur, tibia).min() < 4
        assert np.maximum(femur, patella).min() < 5


def test_population_varies() -> None:
    shapes = [_shape(seed) for seed in range(80)]
    assert {s.side for s in shapes} == set(knee.SIDES)
    share = np.mean([s.group == "effusion" for s in shapes])
    assert 0.25 < share < 0.55
    assert 0.04 < np.std([s.scale for s in shapes]) < 0.1
    assert np.ptp(np.degrees([s.flexion for s in shapes])) > 12
    assert any(s.worn for s in shapes)
    assert not all(s.worn for s in shapes)
    drawn = {draw_knee_tissues(np.random.default_rng(seed)).contrast for seed in range(20)}
    assert drawn == set(CONTRASTS)


# ---- written and read back


def test_nifti_with_shuffled_names_gets_its_roles_back(study: Study, tmp_path: Path) -> None:
    folder = write_study(study, tmp_path / "exam")
    facts = json.loads((folder / "study.json").read_text())
    assert (facts["side"], facts["group"]) == (study.side, "effusion")
    for name, letter in (("ax", "a"), ("cor", "b"), ("sag", "c")):
        (folder / f"{name}.nii.gz").rename(folder / f"{letter}.nii.gz")
        (folder / f"{name}_seg.nii.gz").rename(folder / f"{letter}_seg.nii.gz")
    again = read_study(folder)
    assert (again.organ, again.side, again.group) == ("knee", study.side, "effusion")
    assert {v.name: v.role for v in again.views} == {"a": "ax", "b": "cor", "c": "sag"}
    _assert_same(study, again)


def test_nifti_without_facts_is_still_a_knee_of_its_side(study: Study, tmp_path: Path) -> None:
    folder = write_study(study, tmp_path / "exam")
    (folder / "study.json").unlink()
    again = read_study(folder)
    assert (again.organ, again.side) == ("knee", study.side)
    assert sorted(v.role for v in again.views) == ["ax", "cor", "sag"]


def test_dicom_round_trip_with_laterality(study: Study, tmp_path: Path) -> None:
    folder = write_study(study, tmp_path / "exam", "dicom")
    (folder / "study.json").unlink()
    header = pydicom.dcmread(next(folder.glob("*.dcm")), stop_before_pixels=True)
    assert header.Laterality == header.ImageLaterality == study.side[0].upper()
    assert header.BodyPartExamined == "KNEE"
    again = read_study(folder)
    assert (again.organ, again.side) == ("knee", study.side)
    _assert_same(study, again)


def _assert_same(study: Study, again: Study) -> None:
    """Every pixel and label lies where it lay; readers may turn the order of the slices round."""
    for view in study.views:
        other = again.first(view.role)
        middle = len(view.planes) // 2
        centre = view.planes[middle].centre
        k = int(np.argmin([np.linalg.norm(p.centre - centre) for p in other.planes]))
        assert np.linalg.norm(other.planes[k].centre - centre) < 1e-2
        pixel = np.rint(other.planes[k].to_pixel(view.planes[middle].to_patient([[40, 60], [120, 130]]))).astype(int)
        for (column, row), (i, j) in zip(pixel, [(40, 60), (120, 130)], strict=True):
            assert other.pixels()[k, row, column] == view.pixels()[middle, j, i]
            assert other.labels()[k, row, column] == view.labels()[middle, j, i]
        assert np.array_equal(np.bincount(other.labels().ravel()), np.bincount(view.labels().ravel()))


def test_mirroring_a_study_changes_its_side(study: Study) -> None:
    assert mirrored(study).side != study.side


def test_cohort_of_knees(tmp_path: Path) -> None:
    folders = write_cohort("knee", 1, 3, tmp_path / "cohort")
    assert [f.name for f in folders] == ["knee-0001"]
    assert {p.name for p in folders[0].glob("*.nii.gz")} == {
        f"{role}{end}.nii.gz" for role in ("sag", "cor", "ax") for end in ("", "_seg")
    }
