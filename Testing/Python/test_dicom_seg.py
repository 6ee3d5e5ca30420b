"""DICOM SEG: what was drawn comes back, slice by slice, with its codes, at the place where it was drawn."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from exam_maker import plane
from exam_maker import write_series
from SSLEngine.phantom import write_cohort
from SSLEngine.studies import StudyError
from SSLEngine.studies import View
from SSLEngine.studies import read_study
from SSLEngine.studies.volumes import itk_image

highdicom = pytest.importorskip("highdicom")


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (folder,) = write_cohort("heart", 1, 5, tmp_path_factory.mktemp("exams"), "dicom")
    return folder


def segmentation(exam: Path, path: Path, labels: np.ndarray) -> None:
    view = read_study(exam).first("sax")
    assert view is not None
    write_labels(view, path, labels)


def write_labels(view: View, path: Path, labels: np.ndarray) -> None:
    image = itk_image(labels, view.planes)
    for number, name in ((1, "LV cavity"), (2, "LV myocardium")):
        image.SetMetaData(f"Segment{number - 1}_ID", f"Segment_{number}")
        image.SetMetaData(f"Segment{number - 1}_Name", name)
        image.SetMetaData(f"Segment{number - 1}_LabelValue", str(number))
        image.SetMetaData(f"Segment{number - 1}_Layer", "0")
    sitk.WriteImage(image, str(path))


def test_round_trip(exam: Path, tmp_path: Path) -> None:
    from SSLEngine.dicom_seg import write_dicom_seg

    view = read_study(exam).first("sax")
    assert view is not None
    labels = np.zeros(view.shape, np.int16)
    labels[2:5, 30:50, 40:70] = 1
    labels[3, 60:64, 10:90] = 2
    segmentation(exam, tmp_path / "a.seg.nrrd", labels)
    document = highdicom.seg.segread(write_dicom_seg(exam, tmp_path / "a.seg.nrrd", tmp_path / "a.dcm"))
    assert [document.get_segment_description(n).SegmentLabel for n in (1, 2)] == ["LV cavity", "LV myocardium"]
    assert document.get_segment_description(1).segmented_property_type.value == "87878005"
    found: dict[tuple[int, int], np.ndarray] = {}
    for frame, pixels in zip(document.PerFrameFunctionalGroupsSequence, document.pixel_array, strict=True):
        number = int(frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        distances = [np.linalg.norm(plane.origin - position) for plane in view.planes]
        assert min(distances) < 1e-3
        found[number, int(np.argmin(distances))] = pixels
    for number in (1, 2):
        for k in range(len(view.planes)):
            truth = labels[k] == number
            assert np.array_equal(found.get((number, k), np.zeros_like(truth)) > 0, truth), (number, k)


def test_images_without_a_patients_data_are_referred_to(exam: Path, tmp_path: Path) -> None:
    from SSLEngine.dicom_seg import TAKEN_OVER
    from SSLEngine.dicom_seg import write_dicom_seg

    shutil.copytree(exam, tmp_path / "exam")
    for path in (tmp_path / "exam").rglob("*.dcm"):
        image = pydicom.dcmread(path)
        for keyword in TAKEN_OVER:
            image.pop(keyword, None)
        image.save_as(path)
    view = read_study(tmp_path / "exam").first("sax")
    assert view is not None
    labels = np.zeros(view.shape, np.int16)
    labels[2, 30:50, 40:70] = 1
    write_labels(view, tmp_path / "a.seg.nrrd", labels)
    made = pydicom.dcmread(write_dicom_seg(tmp_path / "exam", tmp_path / "a.seg.nrrd", tmp_path / "a.dcm"))
    assert int(made.pixel_array.sum()) == 20 * 30


def headers(exam: Path, description: str) -> dict[Path, pydicom.Dataset]:
    """Headers of the series with a description, by file."""
    read = {path: pydicom.dcmread(path, stop_before_pixels=True) for path in exam.rglob("*.dcm")}
    return {path: header for path, header in read.items() if header.SeriesDescription == description}


def test_refers_to_the_phase_and_the_series_that_were_drawn_on(exam: Path, tmp_path: Path) -> None:
    from SSLEngine.dicom_seg import write_dicom_seg

    view = read_study(exam).first("sax")
    assert view is not None
    assert view.phases == 2
    folder = tmp_path / "exam"
    shutil.copytree(exam, folder)
    images = headers(folder, view.attributes["description"])
    # The same cine twice: reconstructed again, as a series of its own, without its first slice.
    first_slice = str(sorted(h.SliceLocation for h in images.values())[0])
    for number, (path, header) in enumerate(images.items()):
        if str(header.SliceLocation) != first_slice:
            again = pydicom.dcmread(path)
            again.SeriesInstanceUID, again.SeriesNumber = "1.2.3", 1
            again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number + 1}"
            again.save_as(folder / f"again{number}.dcm")
    again_of = {f"1.2.3.{number + 1}": header for number, header in enumerate(images.values())}
    labels = np.zeros(view.shape, np.int16)
    labels[2:5, 30:50, 40:70] = 1
    segmentation(exam, tmp_path / "a.seg.nrrd", labels)

    def referred(**choice: Any) -> list[pydicom.Dataset]:
        document = pydicom.dcmread(write_dicom_seg(folder, tmp_path / "a.seg.nrrd", tmp_path / "a.dcm", **choice))
        (series,) = document.ReferencedSeriesSequence
        uids = [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence]
        known = again_of if series.SeriesInstanceUID == "1.2.3" else {h.SOPInstanceUID: h for h in images.values()}
        return [known[uid] for uid in uids]

    def times(found: list[pydicom.Dataset]) -> set[float]:
        return {float(h.TriggerTime) for h in found}

    assert times(referred()) == {view.trigger_times[0]}
    assert len(referred(phase=1)) == len(view.planes)
    assert times(referred(phase=1)) == {view.trigger_times[1]}
    assert len(referred(series="1.2.3", phase=1)) == len(view.planes) - 1
    assert times(referred(series="1.2.3", phase=1)) == {view.trigger_times[1]}
    # A slice that the series lacks is not left out in silence.
    segmentation(exam, tmp_path / "a.seg.nrrd", np.ones(view.shape, np.int16))
    with pytest.raises(StudyError, match=r"1 of the .* slices of a.seg.nrrd that are drawn on are not in one series"):
        referred(series="1.2.3")


@pytest.fixture
def cine(tmp_path: Path) -> list[Path]:
    """A cine of three slices and six phases."""
    planes = [plane((0, 0, 1), (0, 0, 10.0 * k), down=(0, 1, 0)) for k in range(3)]
    empty = dict.fromkeys(
        ("PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "Manufacturer"), ""
    )
    return write_series(tmp_path / "cine", planes, phases=6, ReferringPhysicianName="", **empty)


def referred_to(cine: list[Path], tmp_path: Path, phase: int) -> list[tuple[int, float, str]]:
    """Slice, trigger time and kind of the images that a DICOM SEG of a cine refers to."""
    from SSLEngine.dicom_seg import write_dicom_seg

    folder = cine[0].parent
    (view,) = read_study(folder).views
    assert (len(view.planes), view.phases) == (3, 6)
    write_labels(view, tmp_path / "a.seg.nrrd", np.ones(view.shape, np.int16))
    document = pydicom.dcmread(write_dicom_seg(folder, tmp_path / "a.seg.nrrd", tmp_path / "a.dcm", phase=phase))
    (series,) = document.ReferencedSeriesSequence
    wanted = {item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence}
    images = [pydicom.dcmread(path, force=True) for path in folder.iterdir()]
    found = [image for image in images if image.SOPInstanceUID in wanted]
    return sorted((round(i.ImagePositionPatient[2]), float(i.get("TriggerTime", -1)), i.ImageType[2]) for i in found)


def changed(path: Path, copy: str = "", **elements: Any) -> None:
    """Changes elements of a DICOM file, or of a copy of it as another image."""
    image = pydicom.dcmread(path)
    for keyword, value in elements.items():
        setattr(image, keyword, value)
    if copy:
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    image.save_as(path.with_name(f"{path.stem}{copy}.dcm"))


def test_refers_to_the_last_acquisition(cine: list[Path], tmp_path: Path) -> None:
    for path in cine:
        changed(path, "again", AcquisitionNumber=2, InstanceNumber=pydicom.dcmread(path).InstanceNumber + 100)
    times = sorted({float(pydicom.dcmread(path).TriggerTime) for path in cine})
    assert referred_to(cine, tmp_path, 3) == [(10 * k, times[3], "M") for k in range(3)]


def test_refers_to_no_velocity_image(cine: list[Path], tmp_path: Path) -> None:
    for path in cine:
        changed(path, "velocity", ImageType=["ORIGINAL", "PRIMARY", "P"])
    times = sorted({float(pydicom.dcmread(path).TriggerTime) for path in cine})
    for phase in (0, 3):
        assert referred_to(cine, tmp_path, phase) == [(10 * k, times[phase], "M") for k in range(3)]


def test_refers_to_phases_that_only_their_number_tells(cine: list[Path], tmp_path: Path) -> None:
    for path in cine:
        image = pydicom.dcmread(path)
        number = int(image.pixel_array[0, 0] - 1) % 100
        del image.TriggerTime
        image.TemporalPositionIdentifier, image.InstanceNumber = number + 1, 100 - number
        image.AcquisitionNumber = number
        image.save_as(path)
    found = referred_to(cine, tmp_path, 1)
    assert len(found) == 3
    document = pydicom.dcmread(tmp_path / "a.dcm")
    uids = {i.ReferencedSOPInstanceUID for i in document.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    images = [pydicom.dcmread(path) for path in cine]
    assert {i.TemporalPositionIdentifier for i in images if i.SOPInstanceUID in uids} == {2}


def test_no_image_is_written_over_and_no_half_file_is_left(
    cine: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from SSLEngine import dicom_seg

    (view,) = read_study(cine[0].parent).views
    source = tmp_path / "a.seg.nrrd"
    write_labels(view, source, np.ones(view.shape, np.int16))
    for file in (cine[4], source):
        before = file.read_bytes()
        with pytest.raises(StudyError, match="a file of the exam itself"):
            dicom_seg.write_dicom_seg(cine[0].parent, source, file)
        assert file.read_bytes() == before
    out = cine[0].parent / "seg.dcm"
    dicom_seg.write_dicom_seg(cine[0].parent, source, out)
    before = out.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        dicom_seg.write_dicom_seg(cine[0].parent, source, out)
    assert out.read_bytes() == before
    assert sorted(cine[0].parent.iterdir()) == sorted([*cine, out])


def test_says_why_not(exam: Path, tmp_path: Path) -> None:
    from SSLEngine.dicom_seg import write_dicom_seg

    view = read_study(exam).first("sax")
    assert view is not None
    segmentation(exam, tmp_path / "a.seg.nrrd", np.ones(view.shape, np.int16))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "note.txt").write_text("no image")
    with pytest.raises(StudyError, match="holds no single-frame DICOM images"):
        write_dicom_seg(tmp_path / "elsewhere", tmp_path / "a.seg.nrrd", tmp_path / "a.dcm")
    segmentation(exam, tmp_path / "b.seg.nrrd", np.zeros(view.shape, np.int16))
    with pytest.raises(StudyError, match="nothing to export"):
        write_dicom_seg(exam, tmp_path / "b.seg.nrrd", tmp_path / "a.dcm")
    assert not (tmp_path / "a.dcm").exists()
