from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from SSLEngine.geometry import Plane
from SSLEngine.phantom import LESIONS
from SSLEngine.phantom import make_study
from SSLEngine.phantom import write_cohort
from SSLEngine.phantom import write_study
from SSLEngine.phantom.heart import MYOCARDIUM
from SSLEngine.phantom.knee import EFFUSION
from SSLEngine.phantom.lesions import SyntheticView
from SSLEngine.phantom.metal import Metal
from SSLEngine.phantom.metal import add_artefact
from SSLEngine.phantom.metal import shift_mm
from SSLEngine.phantom.rendering import plane_points
from SSLEngine.phantom.shapes import LESION
from SSLEngine.phantom.shapes import Canvas
from SSLEngine.studies import read_study
from SSLEngine.studies.study import Study
from SSLEngine.studies.study import StudyError

SEED = 3


def _view(study: Study, role: str) -> SyntheticView:
    view = study.first(role)
    assert isinstance(view, SyntheticView)
    return view


@pytest.fixture(scope="module")
def clean() -> Study:
    return make_study("heart", SEED)


@pytest.fixture(scope="module", params=LESIONS["heart"])
def pair(request: pytest.FixtureRequest, clean: Study) -> tuple[str, Study, Study]:
    return request.param, clean, make_study("heart", SEED, lesion=request.param)


def test_an_ordinary_exam_has_no_lesion(clean: Study) -> None:
    assert all(_view(clean, v.role).lesion is None for v in clean.views)


def test_a_lesion_changes_nothing_far_from_it(pair: tuple[str, Study, Study]) -> None:
    name, without, with_it = pair
    seen = 0
    for role in ("sax", "2ch", "3ch", "4ch"):
        first, second = without.first(role), _view(with_it, role)
        assert first is not None
        assert second.lesion is not None
        assert second.lesion.shape == (2, *second.shape)
        for phase in range(2):
            for k, where in enumerate(second.lesion[phase]):
                distance = ndimage.distance_transform_edt(where == 0, sampling=second.planes[k].spacing[::-1])
                far = distance > 45 if where.any() else np.zeros(where.shape, bool)
                before, after = first.pixels(phase)[k], second.pixels(phase)[k]
                # A field has no end, but it moves nothing by as much as the noise changes it.
                allowed = 0.02 * before.max() if name == "metal" else 0
                assert np.abs(before - after)[far].max(initial=0) <= allowed, (name, role, k)
                seen += int(where.sum())
                if where.sum() > 40:
                    assert np.abs(after - before)[where > 0].mean() > 3 * np.abs(after - before)[far].mean() + 5
    assert seen > 200


def test_an_infarct_is_thinned_wall_of_another_signal(clean: Study) -> None:
    scarred = make_study("heart", SEED, lesion="infarct")
    view, before = _view(scarred, "sax"), _view(clean, "sax")
    assert view.lesion is not None
    labels, normal = view.labels(0), before.labels(0)
    assert labels is not None
    assert normal is not None
    assert (labels[view.lesion[0] > 0] == MYOCARDIUM).all()
    k = int(view.lesion[0].sum((1, 2)).argmax())
    assert (labels[k] == MYOCARDIUM).sum() < 0.97 * (normal[k] == MYOCARDIUM).sum()
    inner = ndimage.binary_erosion(view.lesion[0, k])
    healthy = ndimage.binary_erosion((labels[k] == MYOCARDIUM) & (view.lesion[0, k] == 0))
    values = view.pixels(0)[k]
    assert abs(values[inner].mean() - values[healthy].mean()) > 0.4 * values[healthy].mean()


def test_an_effusion_lies_round_the_heart_and_sinks_to_the_back(clean: Study) -> None:
    view = _view(make_study("heart", SEED, lesion="effusion"), "sax")
    labels, before = view.labels(0), _view(clean, "sax").labels(0)
    assert labels is not None
    assert view.lesion is not None
    assert np.array_equal(labels, before)
    assert not labels[view.lesion[0] > 0].any()
    slices, rows, columns = np.nonzero(view.lesion[0])
    fluid = np.stack([view.planes[k].to_patient([x, y]) for k, x, y in zip(slices, columns, rows, strict=True)])
    s, r, c = np.nonzero(labels == MYOCARDIUM)
    heart = np.stack([view.planes[k].to_patient([x, y]) for k, x, y in zip(s, c, r, strict=True)])
    # LPS: y runs backwards.
    assert (fluid[:, 1] > heart[:, 1].mean()).mean() > 0.6


def test_a_knee_has_its_effusion_when_it_is_asked_for() -> None:
    view = _view(make_study("knee", SEED, lesion="effusion"), "sag")
    assert view.lesion is not None
    assert np.array_equal(view.lesion[0] > 0, view.labels(0) == EFFUSION)
    assert view.lesion.sum() > 500
    dry = make_study("knee", SEED, group="normal")
    assert dry.group == "normal"
    assert all((v.labels(0) != EFFUSION).all() for v in dry.views)


def _plane() -> Plane:
    """Coronal, with pixels of 1 mm by 2 mm: y runs to the feet."""
    return Plane(np.array([-50.0, 0.0, 60.0]), (1, 0, 0), (0, 0, -1), (1.0, 2.0), (101, 61), 2.0)


def test_the_field_of_a_dipole_is_that_of_the_textbook() -> None:
    metal = Metal(np.array([[[10.0, -5.0, 3.0]]]), 1000.0, 1.0, 1.0)
    beside = np.array([[30.0, -5.0, 3.0], [10.0, 15.0, 3.0]], np.float32).T
    above = np.array([[10.0, -5.0, 23.0]], np.float32).T
    assert shift_mm(metal, beside, 0)[0] == pytest.approx([-1000 / 20**3] * 2)
    assert shift_mm(metal, above, 0)[0] == pytest.approx([2 * 1000 / 20**3])


@pytest.mark.parametrize("along_columns", [False, True])
def test_signal_moves_along_the_readout_and_none_is_lost_without_dephasing(along_columns: bool) -> None:
    plane = _plane()
    # The middle of the image is at pixel (50, 30), LPS (0, 0, 0); the metal lies 12 mm in front of it.
    metal = Metal(np.array([[[0.0, -12.0, 0.0]]]), 9000.0, 1.0, 1e6, along_columns)
    spot = np.zeros((1, 61, 101), np.float32)
    spot[0, 30, 50] = 1.0
    labels = np.full(spot.shape, 2, np.uint8)
    signal, marked = add_artefact(
        metal, spot, labels, lambda offset, moved: plane_points(plane, offset, moved), np.zeros(3), plane
    )
    # At right angles to the field the shift is -m / r^3 = -5.2 mm: along x 5.2 pixels, along y 2.6.
    rows, columns = np.nonzero(signal[0] > 1e-4)
    weights = signal[0][rows, columns]
    expected = (50.0, 30 - 5.21 / 2) if along_columns else (50 - 5.21, 30.0)
    assert weights.sum() == pytest.approx(1.0, abs=1e-3)
    assert (weights @ columns, weights @ rows) == pytest.approx(expected, abs=0.3)
    assert marked[0, 30, 50] == 2 | LESION
    assert marked[0, 0, 0] == 2


def test_metal_leaves_a_void_and_a_bright_rim() -> None:
    plane = _plane()
    metal = Metal(np.array([[[0.0, 0.0, 0.0]]]), 1500.0, 4.0, 2.0)
    even = np.ones((1, 61, 101), np.float32)
    signal, marked = add_artefact(
        metal, even, np.zeros(even.shape, np.uint8), lambda o, m: plane_points(plane, o, m), np.zeros(3), plane
    )
    assert signal[0, 30, 50] < 0.05
    assert signal.max() > 1.3
    assert signal[0, :10].min() > 0.98
    assert (marked[0][np.abs(signal[0] - 1) > 0.3] == LESION).all()


def test_what_is_painted_over_a_lesion_hides_it() -> None:
    canvas = Canvas(np.zeros(3, np.float32), np.zeros(3, np.uint8))
    canvas.paint(np.array([-5, -5, -5], np.float32), 1.0, label=4, lesion=True)
    canvas.paint(np.array([5, -5, 5], np.float32), 0.5)
    canvas.paint(np.array([5, 5, -5], np.float32), 0.5, label=6)
    assert canvas.label.tolist() == [4 | LESION, 4, 6]


@pytest.mark.parametrize("fmt", ["nifti", "dicom"])
def test_the_place_of_a_lesion_is_written_and_never_taken_for_a_view(tmp_path: Path, fmt: str) -> None:
    made = make_study("heart", SEED, phases=1, lesion="infarct")
    folder = write_study(made, tmp_path / "exam", fmt)
    plain = read_study(folder)
    assert sorted(v.role for v in plain.views) == ["2ch", "3ch", "4ch", "sax"]
    truth = _view(made, "sax").lesion
    labels = plain.first("sax").labels(0)  # type: ignore[union-attr]
    assert truth is not None
    assert labels is not None
    assert labels.max() > 1
    with_lesion = read_study(folder, labels_suffix="_lesion").first("sax").labels(0)  # type: ignore[union-attr]
    assert np.array_equal(with_lesion, truth[0])


def test_a_cohort_has_the_lesion_that_was_asked_for(tmp_path: Path) -> None:
    (path,) = write_cohort("heart", 1, 5, tmp_path, lesion="metal", group="hypertrophy")
    assert (path / "sax_lesion.nii.gz").is_file()
    assert read_study(path).group == "hypertrophy"


@pytest.mark.parametrize(
    ("organ", "options", "sentence"),
    [
        ("knee", {"lesion": "infarct"}, "effusion, metal as lesion of a synthetic knee, found 'infarct'"),
        ("heart", {"lesion": "fracture"}, "infarct, effusion, metal as lesion of a synthetic heart"),
        ("knee", {"group": "old"}, "normal, effusion as group of a synthetic knee, found 'old'"),
        ("knee", {"group": "normal", "lesion": "effusion"}, "leave one out"),
    ],
)
def test_what_does_not_exist_is_refused(organ: str, options: dict[str, str], sentence: str) -> None:
    with pytest.raises(StudyError, match=sentence):
        make_study(organ, 0, **options)  # type: ignore[arg-type]
