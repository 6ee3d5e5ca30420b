from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from SSLEngine.geometry import Plane
from SSLEngine.phantom import LABELS
from SSLEngine.phantom import make_study
from SSLEngine.phantom import write_cohort
from SSLEngine.phantom import write_study
from SSLEngine.phantom import writing
from SSLEngine.phantom.exam import study_seed
from SSLEngine.studies.study import Study
from SSLEngine.studies.study import StudyError


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study("heart", 11)


@pytest.fixture(scope="module")
def nifti(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(study, tmp_path_factory.mktemp("nifti") / "exam", "nifti")


@pytest.fixture(scope="module")
def dicom(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(study, tmp_path_factory.mktemp("dicom") / "exam", "dicom")


def _corners(planes: list[Plane]) -> np.ndarray:
    w, h = planes[0].size
    return np.concatenate([p.to_patient([[0, 0], [w - 1, 0], [0, h - 1], [w - 1, h - 1]]) for p in planes])


def _file_corners(image: sitk.Image) -> np.ndarray:
    w, h, depth = image.GetSize()[:3]
    points = []
    for k in range(depth):
        for i, j in ((0, 0), (w - 1, 0), (0, h - 1), (w - 1, h - 1)):
            index = (i, j, k, 0)[: image.GetDimension()]
            points.append(image.TransformIndexToPhysicalPoint(index)[:3])
    return np.array(points)


def test_nifti_keeps_points_pixels_and_labels(study: Study, nifti: Path) -> None:
    for view in study.views:
        image = sitk.ReadImage(str(nifti / f"{view.name}.nii.gz"))
        seg = sitk.ReadImage(str(nifti / f"{view.name}_seg.nii.gz"))
        assert np.abs(_file_corners(image) - _corners(view.planes)).max() < 1e-3
        assert np.abs(_file_corners(seg) - _corners(view.planes)).max() < 1e-3
        grey, label = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(seg)
        for phase in range(view.phases):
            assert np.array_equal(grey[phase], view.pixels(phase))
            assert np.array_equal(label[phase], view.labels(phase))


def test_single_phase_is_written_in_three_dimensions(tmp_path: Path) -> None:
    folder = write_study(make_study("heart", 2, phases=1), tmp_path / "still")
    assert sitk.ReadImage(str(folder / "sax.nii.gz")).GetDimension() == 3


def test_study_json_tells_group_and_labels_but_no_roles(study: Study, nifti: Path) -> None:
    facts = json.loads((nifti / "study.json").read_text())
    assert facts["group"] == study.group
    assert {int(k): v for k, v in facts["labels"].items()} == LABELS["heart"]
    assert "roles" not in facts


REQUIRED = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "Modality",
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "SeriesNumber",
    "InstanceNumber",
    "ImageType",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelData",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "MRAcquisitionType",
    "RepetitionTime",
    "EchoTime",
    "EchoTrainLength",
    "TriggerTime",
    "CardiacNumberOfImages",
    "SeriesDescription",
    "PatientPosition",
    "PositionReferenceIndicator",
    "Manufacturer",
]


def test_dicom_files_are_valid_mr_images(study: Study, dicom: Path) -> None:
    files = [pydicom.dcmread(path) for path in sorted(dicom.glob("*.dcm"))]
    assert len(files) == sum(v.phases * len(v.planes) for v in study.views)
    for file in files:
        missing = [name for name in REQUIRED if name not in file]
        assert not missing
        assert file.SOPClassUID.name == "MR Image Storage"
        assert file.file_meta.MediaStorageSOPInstanceUID == file.SOPInstanceUID
        assert file.SOPInstanceUID.is_valid
        for element in file:
            if element.VR == "DS" and element.value is not None:
                values = element.value if element.VM > 1 else [element.value]
                assert all(len(str(v)) <= 16 for v in values)
    assert len({f.SOPInstanceUID for f in files}) == len(files)
    assert len({f.StudyInstanceUID for f in files}) == len({f.FrameOfReferenceUID for f in files}) == 1
    assert len({f.SeriesInstanceUID for f in files}) == len(study.views)
    # Mixed: neighbours in the folder are seldom neighbours in the exam.
    order = [(f.SeriesNumber, f.InstanceNumber) for f in files]
    assert order != sorted(order)


def test_dicom_holds_the_true_geometry_and_pixels(study: Study, dicom: Path) -> None:
    files = [pydicom.dcmread(path) for path in dicom.glob("*.dcm")]
    for number, view in enumerate(study.views, start=1):
        series = [f for f in files if f.SeriesNumber == number]
        for file in series:
            index, phase = divmod(file.InstanceNumber - 1, view.phases)
            plane = Plane.from_dicom(
                file.ImagePositionPatient,
                file.ImageOrientationPatient,
                file.PixelSpacing,
                file.Rows,
                file.Columns,
                file.SliceThickness,
            )
            assert np.abs(_corners([plane]) - _corners([view.planes[index]])).max() < 1e-3
            assert plane.thickness == pytest.approx(view.planes[index].thickness)
            assert float(file.TriggerTime) == pytest.approx(view.trigger_times[phase], abs=1e-3)
            assert np.array_equal(file.pixel_array, view.pixels(phase)[index])
        seg = sitk.ReadImage(str(dicom / f"{series[0].SeriesDescription}_seg.nii.gz"))
        assert np.abs(_file_corners(seg) - _corners(view.planes)).max() < 1e-3


def test_writing_fails_whole(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = writing._write_volume

    def broken(planes: list[Plane], pixels: np.ndarray, path: Path) -> None:
        if path.name.startswith("3ch"):
            raise OSError("disk full")
        write(planes, pixels, path)

    monkeypatch.setattr(writing, "_write_volume", broken)
    with pytest.raises(OSError, match="disk full"):
        write_study(study, tmp_path / "exam")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_or_format_that_cannot_be_is_refused(study: Study, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(StudyError, match="exists already"):
        write_study(study, tmp_path / "there")
    with pytest.raises(StudyError, match="nifti, dicom"):
        write_study(study, tmp_path / "new", "png")
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_cohort_names_seeds_and_progress(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    folders = write_cohort("heart", 2, 4, tmp_path / "cohort", progress=lambda done, total: seen.append((done, total)))
    assert [f.name for f in folders] == ["heart-0001", "heart-0002"]
    assert seen == [(1, 2), (2, 2)]
    second = make_study("heart", study_seed(4, 2))
    grey = sitk.GetArrayFromImage(sitk.ReadImage(str(folders[1] / "4ch.nii.gz")))
    assert np.array_equal(grey[1], second.first("4ch").pixels(1))
    seeds = {study_seed(seed, number) for seed in range(20) for number in range(20)}
    assert len(seeds) == 400
