"""A segmentation as a DICOM SEG object that refers to the images it was drawn on. Needs highdicom."""

from __future__ import annotations

import io
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from . import __version__
from .geometry import Plane
from .jobs import write_atomically
from .structures import structure
from .studies.dicom import Frame
from .studies.dicom import find_dicom
from .studies.dicom import group_exams
from .studies.dicom import quiet_pydicom
from .studies.dicom_views import Slice
from .studies.dicom_views import stacks_of_exam
from .studies.labels import LabelFile
from .studies.labels import read_label_file
from .studies.reading import list_files
from .studies.reading import may_be_dicom
from .studies.reading import refuse_files
from .studies.study import StudyError

#: What a segmentation takes over of its images. Whoever removes a patient's data from files often removes the elements
#: themselves; empty ones are allowed.
TAKEN_OVER = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber"),
)
#: A source slice may lie this far (in label slices) from the slice of the labels.
MAX_OFF = 0.1


def write_dicom_seg(source: Path, segmentation: Path, out: Path, series: str = "", phase: int = 0) -> Path:
    """Writes a segmentation as DICOM SEG.

    Args:
        source: Folder of the exam's DICOM files.
        segmentation: A ``.seg.nrrd`` on the grid of one of its series.
        out: The DICOM file to write.
        series: SeriesInstanceUID of the images that it was drawn on; where empty or absent, the series with most of
            the slices.
        phase: Which phase of a cine it was drawn on, from 0.

    Returns:
        ``out``.

    Raises:
        StudyError: The folder holds no series of single-frame images on all slices that are drawn on, nothing is
            segmented, or ``out`` is one of the images.
        OSError: The file cannot be written.
    """
    labels = read_label_file(segmentation)
    frames, _ = find_dicom([file for file in list_files(source) if may_be_dicom(file)])
    refuse_files([segmentation, *(frame.path for frame in frames)], [out])
    slices = _slices_under(labels, frames, series)
    images = [_image(item, phase) for item in slices.values()]
    # An enhanced image has its position in a functional group, even where it has one frame only.
    if not images or not all("ImagePositionPatient" in image for image in images):
        msg = f"{source} holds no single-frame DICOM images on the slices of {segmentation.name}; choose its exam."
        raise StudyError(msg)
    drawn = {k for k, values in enumerate(labels.on(labels.header.planes(), 0)) if values.any()}
    if not drawn & set(slices):
        msg = f"{segmentation.name} holds no segment on the slices of {source}; there is nothing to export."
        raise StudyError(msg)
    if missing := drawn - set(slices):
        msg = (
            f"{len(missing)} of the {len(drawn)} slices of {segmentation.name} that are drawn on are not in one series "
            f"of {source}, and a DICOM SEG can refer to one alone; save it as .seg.nrrd instead."
        )
        raise StudyError(msg)
    values = labels.on([item.plane for item in slices.values()], 0)
    present = [v for v in labels.names if (values == v).any()]
    numbered = np.zeros(values.shape, np.uint8)
    for number, value in enumerate(present, start=1):
        numbered[values == value] = number
    names = {n: labels.names[v] for n, v in enumerate(present, start=1)}
    buffer = io.BytesIO()
    _document(images, numbered, names).save_as(buffer)
    write_atomically(out, buffer.getvalue())
    return out


def _slices_under(labels: LabelFile, frames: Sequence[Frame], series: str) -> dict[int, Slice]:
    """The slices of one view, of images of one series, that the slices of the labels lie on, in their order."""
    found: dict[tuple[int, str], dict[int, Slice]] = {}
    stacks = [stack for exam in group_exams(frames) for stack in stacks_of_exam(exam)[0]]
    for number, stack in enumerate(stacks):
        for item in stack.slices:
            place = _slice_of(labels, item.plane)
            # The phases of a slice are of one series; the slices of a view may be of a series each.
            if place is not None and item.frames[0].frames == 1:
                found.setdefault((number, item.frames[0].series_uid), {})[place] = item
    asked = [slices for (_, uid), slices in found.items() if uid == series]
    slices = max(asked or found.values(), key=len, default={})
    return {place: slices[place] for place in sorted(slices)}


def _slice_of(labels: LabelFile, plane: Plane) -> int | None:
    """Index of the label slice that a plane lies on, None where it lies on none."""
    header = labels.header
    normal = np.asarray(header.direction)[:, 2]
    if np.linalg.norm(np.cross(normal, plane.normal)) > 1e-3 or plane.size != tuple(header.size[:2]):
        return None
    place = float((plane.origin - header.origin) @ normal) / header.spacing[2]
    index = round(place)
    return index if abs(place - index) < MAX_OFF and 0 <= index < header.size[2] else None


def _image(slice_: Slice, phase: int) -> pydicom.Dataset:
    frames = slice_.frames
    with quiet_pydicom():
        image = pydicom.dcmread(frames[min(phase, len(frames) - 1)].path, stop_before_pixels=True, force=True)
    for keyword in TAKEN_OVER:
        image.setdefault(keyword, None)
    return image


def _document(images: Sequence[Any], numbered: Any, names: Mapping[int, str]) -> Any:
    import highdicom
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import Segmentation
    from highdicom.seg import SegmentDescription
    from highdicom.sr.coding import CodedConcept
    from pydicom.sr.codedict import codes

    def code(entry: tuple[str, str, str]) -> Any:
        scheme, value, meaning = entry
        return CodedConcept(value, scheme, meaning)

    algorithm = AlgorithmIdentificationSequence("SSLSegmentation", codes.DCM.ArtificialIntelligence, __version__)
    descriptions = [
        SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=code(structure(name, number).category),
            segmented_property_type=code(structure(name, number).type),
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
            algorithm_identification=algorithm,
        )
        for number, name in names.items()
    ]
    return Segmentation(
        source_images=list(images),
        pixel_array=numbered,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=highdicom.UID(),
        series_number=9000,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="SSLSegmentation",
        manufacturer_model_name="SSLSegmentation",
        software_versions=__version__,
        device_serial_number="0",
        content_label="SEGMENTATION",
        series_description="SSLSegmentation",
    )
