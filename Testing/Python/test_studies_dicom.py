"""DICOM exams as scanners and archives really write them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import generate_uid

from exam_maker import dataset
from exam_maker import heart_layout
from exam_maker import plane
from exam_maker import save
from exam_maker import write_series
from SSLEngine.geometry import Plane
from SSLEngine.phantom import make_study
from SSLEngine.phantom import write_study
from SSLEngine.studies import Study
from SSLEngine.studies import StudyError
from SSLEngine.studies import dicom
from SSLEngine.studies import read_cohort
from SSLEngine.studies import read_study
from SSLEngine.studies import same_frame
from SSLEngine.studies import write_view
from SSLEngine.studies.phases import ed_es_phases

LAYOUT = heart_layout(np.random.default_rng(21))
SAX = LAYOUT["sax"][:6]


def said(study: Study) -> str:
    return "\n".join(f"{i.where}: {i.what} -> {i.consequence}" for i in study.irregularities)


def shifted(p: Plane, by: Any) -> Plane:
    return Plane(p.origin + np.asarray(by), p.x_direction, p.y_direction, p.spacing, p.size, p.thickness)


def values(study: Study, phase: int = 0) -> list[int]:
    """The value of every slice of the first view; the maker writes 100 x slice + phase + 1."""
    return [int(image[0, 0]) for image in study.views[0].pixels(phase)]


# ---------------------------------------------------------------------------------------------
# The real one


def test_real_cine_is_regrouped(shared_data: Path, tmp_path: Path) -> None:
    study = read_study(shared_data / "heart-sax-dicom")
    (view,) = study.views
    assert (view.role, view.shape, view.phases) == ("sax", (12, 256, 256), 4)
    assert list(view.trigger_times) == sorted(view.trigger_times)
    places = [p.centre @ view.planes[0].normal for p in view.planes]
    np.testing.assert_allclose(np.diff(places), 10.0, atol=0.01)
    for file in sorted((shared_data / "heart-sax-dicom").iterdir())[::7]:
        ds = pydicom.dcmread(file)
        where = np.linalg.norm([p.origin - np.array(ds.ImagePositionPatient, float) for p in view.planes], axis=1)
        when = np.abs(np.array(view.trigger_times) - float(ds.TriggerTime))
        assert where.min() < 1e-9
        # Heart rates differ between breath holds: the view's times are medians over the slices.
        assert when.min() < 60
        pixels = view.pixels(int(when.argmin()))[int(where.argmin())]
        np.testing.assert_array_equal(pixels, ds.pixel_array.astype(np.float32))
    assert study.subject == "SCD0000101"


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mha", "a.nrrd"])
def test_real_cine_survives_writing(shared_data: Path, tmp_path: Path, name: str) -> None:
    view = read_study(shared_data / "heart-sax-dicom").views[0]
    still = name.endswith("nrrd")
    write_view(view, tmp_path / name, phase=2 if still else None)
    again = read_study(tmp_path).views[0]
    assert again.phases == (1 if still else 4)
    gaps = [np.abs(a.corners - b.corners).max() for a, b in zip(view.planes, again.planes, strict=True)]
    assert max(gaps) < 1e-3
    np.testing.assert_array_equal(again.pixels(0 if still else 2), view.pixels(2))


# ---------------------------------------------------------------------------------------------
# Order and phases


def test_any_depth_and_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    paths = write_series(tmp_path, SAX, phases=3, shuffle=rng, SeriesDescription="cine")
    for k, path in enumerate(rng.permutation(paths)):
        folder = tmp_path / "x" / str(k % 3) / "deep"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.move(path, folder / f"{rng.integers(1 << 60)}")
    study = read_study(tmp_path)
    (view,) = study.views
    assert (view.phases, len(view.planes), view.trigger_times) == (3, 6, (0.0, 40.0, 80.0))
    order = values(study)
    assert order in ([1, 101, 201, 301, 401, 501], [501, 401, 301, 201, 101, 1])
    assert values(study, 2) == [v + 2 for v in order]
    assert (view.planes[1].centre - view.planes[0].centre) @ view.planes[0].normal > 0
    assert not study.irregularities


def test_missing_trigger_times_use_instance_order(tmp_path: Path) -> None:
    for k, p in enumerate(SAX):
        for phase in range(4):
            ds = dataset(p, np.full((24, 24), 10 * k + phase), InstanceNumber=4 * k + phase + 1)
            save(ds, tmp_path / f"{k}{phase}.dcm")
    study = read_study(tmp_path)
    assert study.views[0].phases == 4
    assert [int(v) % 10 for v in study.views[0].pixels(3)[:, 0, 0]] == [3] * 6
    assert study.views[0].trigger_times == ()
    assert "trigger times are missing" in said(study)


def test_temporal_position_stands_in_for_trigger_time(tmp_path: Path) -> None:
    for phase, number in enumerate([3, 1, 2]):
        common = {"TemporalPositionIdentifier": number, "InstanceNumber": phase + 1}
        save(dataset(SAX[0], np.full((24, 24), number), **common), tmp_path / f"{phase}.dcm")
    study = read_study(tmp_path)
    assert [study.views[0].pixels(k)[0, 0, 0] for k in range(3)] == [1, 2, 3]


def test_temporal_position_stands_in_for_a_constant_trigger_time(tmp_path: Path) -> None:
    for phase, number in enumerate([4, 3, 2, 1]):
        common = {"TriggerTime": 0.0, "TemporalPositionIdentifier": number, "InstanceNumber": phase + 1}
        save(dataset(SAX[0], np.full((24, 24), number), **common), tmp_path / f"{phase}.dcm")
    study = read_study(tmp_path)
    (view,) = study.views
    assert [view.pixels(k)[0, 0, 0] for k in range(4)] == [1, 2, 3, 4]
    assert "trigger times" not in said(study)
    # Times that are all the same do not say when the systole ends.
    assert (view.trigger_times, ed_es_phases(view)) == ((), (0, 1))


def test_stack_acquired_twice_in_one_series(tmp_path: Path) -> None:
    for acquisition in (1, 2):
        for k, p in enumerate(SAX):
            common = {"AcquisitionNumber": acquisition, "InstanceNumber": 10 * acquisition + k}
            save(dataset(p, np.full((24, 24), acquisition), **common), tmp_path / f"{acquisition}{k}.dcm")
    study = read_study(tmp_path)
    assert (study.views[0].phases, len(study.views[0].planes)) == (1, 6)
    assert values(study) == [2] * 6
    assert "acquired more than once" in said(study)


def test_cine_slice_acquired_twice(tmp_path: Path) -> None:
    write_series(tmp_path, SAX, phases=3, SeriesInstanceUID="1.2.9")
    for phase in range(3):
        common = {"SeriesInstanceUID": "1.2.9", "TriggerTime": 40.0 * phase, "AcquisitionNumber": 5}
        save(dataset(SAX[2], np.full((24, 24), 900 + phase), **common), tmp_path / f"again{phase}.dcm")
    study = read_study(tmp_path)
    assert study.views[0].phases == 3
    assert 901 in values(study, 1)
    assert "1 of 6 slices were acquired more than once" in said(study)


@pytest.mark.parametrize("step_ms", [27.0, 31.0, 300.0])
def test_cine_slice_acquired_again_at_another_heart_rate(tmp_path: Path, step_ms: float) -> None:
    write_series(tmp_path, SAX, phases=5, SeriesInstanceUID="1.2.9")
    _acquired(tmp_path, SAX[2], 2, 5, step_ms)
    study = read_study(tmp_path)
    again = values(study).index(2000)
    assert [values(study, phase)[again] for phase in range(5)] == [2000, 2001, 2002, 2003, 2004]
    assert "1 of 6 slices were acquired more than once -> the last complete acquisition" in said(study)
    assert "like the others" not in said(study)


def _acquired(folder: Path, place: Plane, acquisition: int, phases: int, step_ms: float, start: int = 0) -> None:
    """Writes one acquisition of one place; a pixel's value is 1000 x acquisition + phase."""
    for phase in range(start, start + phases):
        common = {"SeriesInstanceUID": "1.2.9", "TriggerTime": step_ms * phase, "AcquisitionNumber": acquisition}
        pixels = np.full((24, 24), 1000 * acquisition + phase)
        save(dataset(place, pixels, **common), folder / f"again{acquisition}-{phase}.dcm")


@pytest.mark.parametrize(("counts", "used"), [((5, 5), 2), ((5, 3), 1), ((3, 5), 2)])
def test_single_slice_cine_acquired_twice(tmp_path: Path, counts: tuple[int, int], used: int) -> None:
    for number, count in enumerate(counts, 1):
        _acquired(tmp_path, SAX[0], number, count, 30.0 - 3 * number)
    study = read_study(tmp_path)
    assert [values(study, k) for k in range(study.views[0].phases)] == [[1000 * used + k] for k in range(5)]
    assert "acquired more than once" in said(study)


def test_parts_of_the_cycle_that_count_as_acquisitions_are_no_repeats(tmp_path: Path) -> None:
    for number in (1, 2):
        _acquired(tmp_path / "halves", SAX[0], number, 3, 30.0, 3 * (number - 1))
    for phase in range(6):
        _acquired(tmp_path / "phases", SAX[0], phase + 1, 1, 30.0, phase)
    for name in ("halves", "phases"):
        study = read_study(tmp_path / name)
        assert study.views[0].trigger_times == (0.0, 30.0, 60.0, 90.0, 120.0, 150.0)
        assert "more than once" not in said(study)


def test_stack_acquired_twice_in_two_series(tmp_path: Path) -> None:
    for number in (1, 2):
        write_series(tmp_path, SAX, SeriesNumber=number, SeriesDescription="cine sax")
    study = read_study(tmp_path)
    assert [v.name for v in study.views] == ["cine sax-1", "cine sax-2"]
    assert "acquired twice" in said(study)


def test_series_whose_descriptions_differ_in_capitals_are_numbered(tmp_path: Path) -> None:
    for number, description in enumerate(("Cine SAX", "cine sax"), 1):
        write_series(tmp_path, SAX, SeriesNumber=number, SeriesDescription=description)
    assert [v.name for v in read_study(tmp_path).views] == ["Cine SAX-1", "cine sax-2"]


def test_lost_phase_is_filled_from_its_neighbour(tmp_path: Path) -> None:
    paths = write_series(tmp_path, SAX, phases=5)
    paths[2 * 5 + 4].unlink()
    study = read_study(tmp_path)
    assert study.views[0].phases == 5
    assert "1 of 6 slices do not have 5 phases" in said(study)
    assert study.views[0].pixels(4).shape == (6, 24, 24)


# ---------------------------------------------------------------------------------------------
# Geometry


def test_slices_as_one_series_each(tmp_path: Path) -> None:
    for k, p in enumerate(SAX):
        write_series(tmp_path, [p], phases=2, SeriesNumber=k + 1, SeriesDescription=f"cine {k}")
    write_series(tmp_path, LAYOUT["4ch"], phases=2, SeriesNumber=20, SeriesDescription="cine")
    study = read_study(tmp_path)
    assert sorted((v.role, len(v.planes), v.phases) for v in study.views) == [("4ch", 1, 2), ("sax", 6, 2)]
    assert "6 series hold one slice each" in said(study)


def test_parallel_long_axis_planes_are_not_joined(tmp_path: Path) -> None:
    four = LAYOUT["4ch"][0]
    for k, by in enumerate((0.0, 60.0)):
        write_series(tmp_path, [shifted(four, by * four.normal)], SeriesNumber=k)
    assert len(read_study(tmp_path).views) == 2


def test_radial_series_is_taken_apart(tmp_path: Path) -> None:
    write_series(tmp_path, [LAYOUT[r][0] for r in ("2ch", "3ch", "4ch")], SeriesDescription="lax")
    write_series(tmp_path, SAX, SeriesDescription="sax")
    study = read_study(tmp_path)
    assert sorted(v.role for v in study.views) == ["2ch", "3ch", "4ch", "sax"]
    assert len({v.name for v in study.views}) == 4


def test_differing_matrix_sizes_are_taken_apart(tmp_path: Path) -> None:
    other = [plane(p.normal, p.centre, p.y_direction, size=32) for p in SAX[4:]]
    write_series(tmp_path, [*SAX[:4], *other])
    study = read_study(tmp_path)
    assert sorted(v.shape for v in study.views) == [(2, 32, 32), (4, 24, 24)]


def test_shifted_slices_are_a_list_of_planes(tmp_path: Path) -> None:
    moved = [shifted(p, (3.0 if k == 2 else 0.0) * p.x_direction) for k, p in enumerate(SAX)]
    write_series(tmp_path, moved)
    study = read_study(tmp_path)
    (view,) = study.views
    assert not view.regular
    assert "shifted or tilted" in said(study)
    with pytest.raises(StudyError, match="shifted, tilted"):
        write_view(view, tmp_path / "x.nii.gz")


def test_tilted_slices_stay_one_view(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    tilted = [plane(p.normal + rng.normal(0, 0.02, 3), p.centre, p.y_direction) for p in SAX]
    write_series(tmp_path, tilted)
    study = read_study(tmp_path)
    (view,) = study.views
    assert (len(view.planes), view.regular, view.role) == (6, False, "sax")


def test_missing_slice_and_big_gap(tmp_path: Path) -> None:
    write_series(tmp_path, [p for k, p in enumerate(SAX) if k != 3], SliceThickness="2")
    text = said(read_study(tmp_path))
    assert "a slice seems to be missing" in text
    assert "slices 2 mm thick lie" in text


@pytest.mark.parametrize(("policy", "words"), [("warn", "FrameOfReferenceUID is blank"), ("ignore", "")])
def test_blank_frame_of_reference(tmp_path: Path, policy: Any, words: str) -> None:
    write_series(tmp_path, SAX, FrameOfReferenceUID="")
    write_series(tmp_path, LAYOUT["4ch"])
    study = read_study(tmp_path, frame_of_reference=policy)
    assert words in said(study)
    assert bool(study.irregularities) == bool(words)
    assert same_frame(*study.views) == ""


def test_required_frame_of_reference(tmp_path: Path) -> None:
    write_series(tmp_path, SAX, FrameOfReferenceUID=None)
    with pytest.raises(StudyError, match="no FrameOfReferenceUID"):
        read_study(tmp_path, frame_of_reference="require")


def test_two_frames_of_reference(tmp_path: Path) -> None:
    write_series(tmp_path, SAX)
    write_series(tmp_path, LAYOUT["4ch"], FrameOfReferenceUID="1.2.3.4.10")
    study = read_study(tmp_path)
    assert "another frame of reference" in said(study)
    assert "patient may have moved" in same_frame(*study.views)
    assert same_frame(*read_study(tmp_path, frame_of_reference="ignore").views) == ""


# ---------------------------------------------------------------------------------------------
# What is no ordinary image


def test_what_is_left_out(tmp_path: Path) -> None:
    write_series(tmp_path, SAX)
    odd: dict[str, dict[str, Any]] = {
        "localisers": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        "derived": {"ImageType": ["DERIVED", "SECONDARY", "MPR"]},
        "phase images": {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]},
        "a secondary capture": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        "a structured report": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33", "PixelData": None, "Rows": None},
        "a colour image": {"SamplesPerPixel": 3, "PixelData": bytes(24 * 24 * 6)},
        "no position or orientation": {"ImageOrientationPatient": None},
        "not perpendicular": {"ImageOrientationPatient": [1, 0, 0, 0.1, 1, 0]},
    }
    for k, elements in enumerate(odd.values()):
        save(dataset(SAX[0], SeriesInstanceUID=f"1.7.{k}", **elements), tmp_path / f"odd{k}.dcm")
    study = read_study(tmp_path)
    assert len(study.views) == 1
    for words in odd:
        assert words in said(study), words
    assert len(study.irregularities) == len(odd)


def test_derived_images_are_used_where_there_is_nothing_else(tmp_path: Path) -> None:
    write_series(tmp_path, SAX, ImageType=["DERIVED", "PRIMARY", "M"])
    study = read_study(tmp_path)
    assert len(study.views) == 1
    assert "nothing but derived" in said(study)


def test_duplicates(tmp_path: Path) -> None:
    for path in write_series(tmp_path / "a", SAX):
        (tmp_path / "b").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "b" / path.name)
    study = read_study(tmp_path)
    assert (len(study.views), study.views[0].phases) == (1, 1)
    assert "6 duplicates" in said(study)


def test_one_instance_uid_for_all(tmp_path: Path) -> None:
    write_series(tmp_path, SAX, phases=2, SOPInstanceUID="1.2.3")
    study = read_study(tmp_path)
    assert (len(study.views[0].planes), study.views[0].phases) == (6, 2)


def test_two_patients(tmp_path: Path) -> None:
    write_series(tmp_path, SAX)
    write_series(tmp_path, SAX, PatientID="P2")
    with pytest.raises(StudyError, match=r"2 exams \(P1, P2\)"):
        read_study(tmp_path)
    cohort = read_cohort(tmp_path)
    assert [(s.name, s.subject, len(s.views)) for s in cohort.studies] == [("P1", "P1", 1), ("P2", "P2", 1)]


def test_series_with_study_uids_of_their_own(tmp_path: Path) -> None:
    write_series(tmp_path, SAX, StudyInstanceUID="1.5.1")
    write_series(tmp_path, LAYOUT["4ch"], StudyInstanceUID="1.5.2")
    assert sorted(v.role for v in read_study(tmp_path).views) == ["4ch", "sax"]


def test_series_without_uids_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    blank = {"StudyInstanceUID": "", "SeriesInstanceUID": "", "SeriesDescription": "SAX"}
    for number, name in enumerate(("a", "b")):
        for k, place in enumerate(SAX):
            pixels = np.full((24, 24), 100 * number + k)
            save(dataset(shifted(place, (0, 0, 3 * number)), pixels, **blank), tmp_path / name / f"{k}.dcm")
    views = read_study(tmp_path).views
    assert len(views) == 2, "not one stack of slices in turn"
    for number, view in enumerate(views):
        assert sorted(view.pixels()[:, 0, 0]) == [100 * number + k for k in range(6)]


def test_series_folders_make_one_study_and_exam_folders_a_cohort(tmp_path: Path) -> None:
    for patient in ("A", "B"):
        for role in ("sax", "4ch"):
            folder = tmp_path / patient / role
            write_series(folder, LAYOUT[role], PatientID=patient, StudyInstanceUID=f"1.6.{ord(patient)}")
    assert len(read_study(tmp_path / "A").views) == 2
    one = read_cohort(tmp_path / "A")
    assert [(s.name, len(s.views)) for s in one.studies] == [("A", 2)]
    both = read_cohort(tmp_path)
    assert [(s.name, s.path, len(s.views)) for s in both.studies] == [(name, tmp_path / name, 2) for name in ("A", "B")]


def test_labels_beside_dicom(tmp_path: Path) -> None:
    write_series(tmp_path, SAX, SeriesDescription="cine sax")
    view = read_study(tmp_path).views[0]
    write_view(view, tmp_path / "cine sax_seg.nii.gz")
    again = read_study(tmp_path)
    assert not again.irregularities
    labels = again.views[0].labels()
    assert labels is not None
    np.testing.assert_array_equal(labels, view.pixels().astype(np.int16))


def test_phantom_study_survives_dicom(tmp_path: Path) -> None:
    """Roles, planes, pixels and labels of a whole synthetic exam, all series mixed in one folder."""
    made = make_study("heart", 3)
    study = read_study(write_study(made, tmp_path / "exam", "dicom"))
    assert study.organ == "heart"
    assert not [v.doubt for v in study.views if v.doubt]
    found = {v.role: v for v in study.views}
    assert set(found) == {v.role for v in made.views}
    for view in made.views:
        again = found[view.role]
        # Slices are put in order along their normal, which may be the other way round.
        turn = slice(None, None, 1 if np.allclose(view.planes[0].origin, again.planes[0].origin, atol=0.1) else -1)
        for a, b in zip(view.planes, again.planes[turn], strict=True):
            np.testing.assert_allclose(a.corners, b.corners, atol=1e-3)
        for phase in range(view.phases):
            np.testing.assert_array_equal(view.pixels(phase), again.pixels(phase)[turn])
            labels = again.labels(phase)
            assert labels is not None
            np.testing.assert_array_equal(view.labels(phase), labels[turn])
        assert again.label_names == view.label_names


# ---------------------------------------------------------------------------------------------
# Pixels


def test_rescale_and_monochrome1(tmp_path: Path) -> None:
    pixels = np.arange(24 * 24).reshape(24, 24)
    save(dataset(SAX[0], pixels, RescaleSlope="2", RescaleIntercept="-10"), tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_study(tmp_path).views[0].pixels()[0], pixels * 2 - 10)


@pytest.mark.parametrize(
    ("stored", "ends"), [({"BitsStored": 12}, 4095), ({"PixelRepresentation": 1}, -1), ({}, 65535)]
)
def test_monochrome1_is_turned_round_alike_on_all_slices(tmp_path: Path, stored: dict[str, int], ends: int) -> None:
    """What is grey on one slice stays the same grey on the next, whatever the darkest and brightest there are."""
    pixels = np.stack([np.arange(24 * 24).reshape(24, 24) + 700 * k for k in range(3)])
    for image, place in zip(pixels, SAX, strict=False):
        common = {"PhotometricInterpretation": "MONOCHROME1", "RescaleSlope": "2", "RescaleIntercept": "-10", **stored}
        save(dataset(place, image, **common), tmp_path / f"{image[0, 0]}.dcm")
    seen = read_study(tmp_path).views[0].pixels()
    np.testing.assert_array_equal(sorted(seen, key=lambda image: -image.max()), (ends - pixels) * 2 - 10)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_plain_syntaxes(tmp_path: Path, syntax: str) -> None:
    pixels = np.arange(24 * 24).reshape(24, 24)
    save(dataset(SAX[0], pixels, TriggerTime=12.5), tmp_path / "a", syntax)
    study = read_study(tmp_path)
    np.testing.assert_array_equal(study.views[0].pixels()[0], pixels)


def test_without_preamble(tmp_path: Path) -> None:
    ds = dataset(SAX[0])
    path = save(ds, tmp_path / "a.dcm", "1.2.840.10008.1.2")
    with path.open("rb") as file:
        pydicom.filereader.read_preamble(file, False)
        pydicom.filereader._read_file_meta_info(file)
        rest = file.read()
    path.write_bytes(rest)
    assert read_study(tmp_path).views[0].pixels().shape == (1, 24, 24)


@pytest.mark.parametrize("name", ["JPEG2000Lossless", "RLELossless", "DeflatedExplicitVRLittleEndian"])
def test_compressed(tmp_path: Path, name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 4000, (24, 24))
    ds = dataset(SAX[0], pixels, RescaleSlope="2", RescaleIntercept="1")
    path = save(ds, tmp_path / "a.dcm")
    ds = pydicom.dcmread(path)
    if name == "RLELossless":
        ds.compress(pydicom.uid.RLELossless)
    elif name == "DeflatedExplicitVRLittleEndian":
        ds.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    else:
        ds.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
        ds.PixelData = pydicom.encaps.encapsulate([_jpeg2000(pixels)])
        ds["PixelData"].is_undefined_length = True
    ds.save_as(path)
    np.testing.assert_array_equal(read_study(tmp_path).views[0].pixels()[0], pixels * 2 + 1)


def test_compressed_monochrome1_is_turned_round_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pydicom has no decoder ITK does the work, and turns such images round by itself."""
    pixels = np.random.default_rng(0).integers(0, 4000, (24, 24))
    path = save(dataset(SAX[0], pixels, PhotometricInterpretation="MONOCHROME1", RescaleSlope="2"), tmp_path / "a.dcm")
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    ds.PixelData = pydicom.encaps.encapsulate([_jpeg2000(pixels)])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path)
    monkeypatch.delattr(pydicom.Dataset, "pixel_array")
    np.testing.assert_array_equal(read_study(tmp_path).views[0].pixels()[0], (65535 - pixels) * 2)


def _jpeg2000(pixels: Any) -> bytes:
    import io

    image = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    try:
        image.fromarray(pixels.astype("<u2")).save(stream, "JPEG2000", irreversible=False, no_jp2=True)
    except OSError:
        pytest.skip("this Pillow cannot write JPEG 2000")
    return stream.getvalue()


def test_undecodable_pixels_are_named(tmp_path: Path) -> None:
    ds = dataset(SAX[0])
    path = save(ds, tmp_path / "a.dcm")
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLosslessSV1
    ds.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8 no jpeg at all \xff\xd9"])
    ds["PixelData"].is_undefined_length = True
    ds.save_as(path)
    view = read_study(tmp_path).views[0]
    with pytest.raises(StudyError, match=r"compressed \(JPEG Lossless.*cannot be decoded.*gdcmconv"):
        view.pixels()


def test_private_tags_do_no_harm(tmp_path: Path) -> None:
    ds = dataset(SAX[0])
    block = ds.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", bytes(1000))
    block.add_new(0x11, "UN", b"\\\\not a number")
    save(ds, tmp_path / "a.dcm")
    study = read_study(tmp_path)
    assert len(study.views) == 1
    assert not study.irregularities


# ---------------------------------------------------------------------------------------------
# Enhanced multi-frame


def _enhanced(planes: list[Plane], phases: int) -> Dataset:
    """Frames in the order phase, slice; a frame's value is 100 x slice + phase + 1."""
    first = planes[0]
    ds = dataset(first, SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1")
    del ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing, ds.SliceThickness
    shared = Dataset()
    measures, orientation, transformation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [first.spacing[1], first.spacing[0]]
    measures.SliceThickness = 8.0
    orientation.ImageOrientationPatient = [f"{v:.9f}" for v in (*first.x_direction, *first.y_direction)]
    transformation.RescaleSlope, transformation.RescaleIntercept = "1", "0"
    shared.PixelMeasuresSequence = Items([measures])
    shared.PlaneOrientationSequence = Items([orientation])
    shared.PixelValueTransformationSequence = Items([transformation])
    ds.SharedFunctionalGroupsSequence = Items([shared])
    frames, pixels = [], []
    for phase in range(phases):
        for k, p in enumerate(planes):
            group, position, cardiac = Dataset(), Dataset(), Dataset()
            position.ImagePositionPatient = [f"{v:.6f}" for v in p.origin]
            cardiac.NominalCardiacTriggerDelayTime = 50.0 * phase
            group.PlanePositionSequence = Items([position])
            group.CardiacSynchronizationSequence = Items([cardiac])
            frames.append(group)
            pixels.append(np.full((24, 24), 100 * k + phase + 1))
    ds.PerFrameFunctionalGroupsSequence = Items(frames)
    ds.NumberOfFrames = len(frames)
    ds.PixelData = np.array(pixels).astype("<u2").tobytes()
    return ds


def test_enhanced_multi_frame(tmp_path: Path) -> None:
    save(_enhanced(SAX, 3), tmp_path / "a.dcm")
    study = read_study(tmp_path)
    (view,) = study.views
    assert (view.shape, view.phases, view.trigger_times) == ((6, 24, 24), 3, (0.0, 50.0, 100.0))
    assert values(study, 1) in ([2, 102, 202, 302, 402, 502], [502, 402, 302, 202, 102, 2])
    truth = {tuple(np.round(p.origin, 3)) for p in SAX}
    assert {tuple(np.round(p.origin, 3)) for p in view.planes} == truth


def test_multi_frame_without_positions(tmp_path: Path) -> None:
    ds = _enhanced(SAX, 1)
    del ds.PerFrameFunctionalGroupsSequence
    save(ds, tmp_path / "a.dcm")
    with pytest.raises(StudyError, match="multi-frame image without a position"):
        read_study(tmp_path)


# ---------------------------------------------------------------------------------------------
# Many files


def test_2000_files_become_one_stack_and_progress_is_told(tmp_path: Path) -> None:
    """The time that it takes is measured by ``bench``, against pydicom reading the same headers."""
    _many_files(tmp_path)
    told: list[tuple[int, int]] = []
    study = read_study(tmp_path, organ="heart", progress=lambda done, total, _: told.append((done, total)))
    assert (len(study.views[0].planes), study.views[0].phases) == (100, 20)
    assert told[-1] == (2000, 2000)
    assert told == sorted(told)


def test_a_slow_disk_is_read_by_threads_with_the_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = _many_files(tmp_path)[:200]
    alone = [f.path for f in dicom.find_dicom(paths)[0]]
    monkeypatch.setattr(dicom, "WAITING", 0.0)
    assert [f.path for f in dicom.find_dicom(paths)[0]] == alone == paths


def _many_files(folder: Path) -> list[Path]:
    """100 slices x 20 phases; the phases are made from one file by replacing bytes, which is quick."""
    paths = []
    for k in range(100):
        one = plane((0, 0, 1), (0, 0, 4.0 * k), size=32)
        extra = {"SOPInstanceUID": f"1.2.3.{k}.9999", "TriggerTime": "9999.0", "SeriesInstanceUID": "1.2.4"}
        data = save(dataset(one, **extra), folder / "one").read_bytes()
        for phase in range(20):
            paths.append(folder / f"{phase:02d}{k:03d}.dcm")
            paths[-1].write_bytes(data.replace(b"9999", b"%04d" % (1000 + phase)))
    (folder / "one").unlink()
    return paths


def test_progress_is_reported(tmp_path: Path) -> None:
    write_series(tmp_path, SAX)
    seen: list[tuple[int, int, str]] = []
    read_study(tmp_path, progress=lambda done, total, what: seen.append((done, total, what)))
    assert seen[-1][:2] == (6, 6)


def test_nothing_is_kept_that_could_go_stale(tmp_path: Path) -> None:
    (path,) = write_series(tmp_path, SAX[:1])
    view = read_study(tmp_path).views[0]
    assert view.pixels()[0, 0, 0] == 1
    save(dataset(SAX[0], np.full((24, 24), 7), SOPInstanceUID=generate_uid()), path)
    assert view.pixels()[0, 0, 0] == 7
    path.unlink()
    with pytest.raises(StudyError, match="can no longer be read"):
        view.pixels()
