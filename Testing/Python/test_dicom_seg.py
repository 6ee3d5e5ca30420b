"""DICOM SEG: what was drawn comes back, slice by slice, with its codes, at the place where it was drawn."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from SSLEngine.phantom import write_cohort
from SSLEngine.studies import StudyError
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
