"""DICOM SEG: what was drawn comes back, slice by slice, with its codes, at the place where it was drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
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
