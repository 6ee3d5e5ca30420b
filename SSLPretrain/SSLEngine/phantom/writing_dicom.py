"""Writes a synthetic study as DICOM: MR Image Storage, one file an image, all series mixed in one folder."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.uid import generate_uid

from ..geometry import Plane
from ..studies.study import Study
from ..studies.study import View

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"


def series_name(view: View) -> str:
    """SeriesDescription of a view; its labels lie beside it under the same name."""
    return f"cine_{view.name}" if view.phases > 1 else view.name


def write_series(study: Study, folder: Path) -> None:
    """Writes all views of a study into a folder, in an order that tells nothing, as archives return them."""
    images = [
        (number, view, phase, index)
        for number, view in enumerate(study.views, start=1)
        for phase in range(view.phases)
        for index in range(len(view.planes))
    ]
    common = _study_header(study)
    order = np.random.default_rng(zlib.crc32(study.name.encode())).permutation(len(images))
    frames = {(number, phase): view.pixels(phase) for number, view, phase, _ in images}
    for place, image in zip(order, images, strict=True):
        number, view, phase, index = image
        dataset = _image(study, common, view, number, phase, index)
        dataset.PixelData = frames[number, phase][index].astype("<u2").tobytes()
        path = folder / f"IM{place + 1:05d}.dcm"
        if int(pydicom.__version__.split(".", maxsplit=1)[0]) >= 3:
            dataset.save_as(path, enforce_file_format=True)
        else:
            dataset.save_as(path, write_like_original=False)


def _uid(study: Study, *parts: object) -> str:
    """A UID that depends on the study alone: the same study always gets the same ones."""
    content = zlib.crc32(study.views[0].pixels(0).tobytes())
    return str(generate_uid(entropy_srcs=[study.name, str(content), *map(str, parts)]))


def _study_header(study: Study) -> Dataset:
    """What all images of the study share."""
    header = Dataset()
    header.PatientName = f"Synthetic^{study.subject}"
    header.PatientID = study.subject
    header.PatientBirthDate = ""
    header.PatientSex = ""
    header.StudyInstanceUID = _uid(study, "study")
    header.FrameOfReferenceUID = _uid(study, "frame")
    header.StudyDate = header.SeriesDate = header.ContentDate = "20260101"
    header.StudyTime = header.SeriesTime = header.ContentTime = "120000"
    header.StudyID = "1"
    header.AccessionNumber = ""
    header.ReferringPhysicianName = ""
    header.StudyDescription = f"Synthetic {study.organ}"
    header.PositionReferenceIndicator = ""
    header.Modality = "MR"
    header.Manufacturer = "SSLSegmentation phantom"
    header.BodyPartExamined = study.organ.upper()
    header.PatientPosition = "HFS"
    if study.side is not None:
        header.Laterality = header.ImageLaterality = study.side[0].upper()
    header.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
    header.ScanningSequence = "GR"
    header.SequenceVariant = "SS"
    header.ScanOptions = ""
    header.MRAcquisitionType = "2D"
    header.RepetitionTime = "3.0"
    header.EchoTime = "1.5"
    header.EchoTrainLength = "1"
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.BitsAllocated = 16
    header.BitsStored = 12
    header.HighBit = 11
    header.PixelRepresentation = 0
    return header


def _image(study: Study, common: Dataset, view: View, number: int, phase: int, index: int) -> Dataset:
    """Header of one image; instances run through the phases of a slice, then through the slices."""
    instance = index * view.phases + phase + 1
    dataset = Dataset()
    dataset.update(common)
    dataset.SOPClassUID = MR_IMAGE_STORAGE
    dataset.SOPInstanceUID = _uid(study, number, instance)
    dataset.SeriesInstanceUID = _uid(study, number)
    dataset.SeriesNumber = number
    dataset.SeriesDescription = series_name(view)
    dataset.InstanceNumber = instance
    dataset.AcquisitionNumber = 1
    if view.trigger_times:
        dataset.ScanOptions = "CG"
        dataset.CardiacNumberOfImages = view.phases
        dataset.TriggerTime = _decimal(view.trigger_times[phase])
    _add_geometry(dataset, view.planes, index)
    dataset.WindowCenter, dataset.WindowWidth = "500", "1000"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(MR_IMAGE_STORAGE)
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    return dataset


def _add_geometry(dataset: Dataset, planes: list[Plane], index: int) -> None:
    """The plane's place, in DICOM's terms."""
    plane = planes[index]
    dataset.Columns, dataset.Rows = plane.size
    dataset.ImagePositionPatient = [_decimal(v) for v in plane.origin]
    dataset.ImageOrientationPatient = [_decimal(v) for v in (*plane.x_direction, *plane.y_direction)]
    dataset.PixelSpacing = [_decimal(plane.spacing[1]), _decimal(plane.spacing[0])]
    dataset.SliceThickness = _decimal(plane.thickness)
    dataset.SliceLocation = _decimal(float(plane.origin @ planes[0].normal))
    if len(planes) > 1:
        dataset.SpacingBetweenSlices = _decimal(float(np.linalg.norm(planes[1].origin - planes[0].origin)))


def _decimal(value: float) -> str:
    """A DS value: at most 16 characters."""
    return f"{value:.9g}"
