"""A segmentation as a DICOM SEG object that refers to the images it was drawn on. Needs highdicom."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from . import __version__
from .geometry import GeometryError
from .geometry import Plane
from .structures import structure
from .studies.labels import LabelFile
from .studies.labels import read_label_file
from .studies.reading import list_files
from .studies.reading import may_be_dicom
from .studies.study import StudyError

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
        StudyError: The folder holds no series of single-frame images on all slices that are drawn on, or nothing is
            segmented.
    """
    labels = read_label_file(segmentation)
    images = _images_under(labels, source, series, phase)
    if not images:
        msg = f"{source} holds no single-frame DICOM images on the slices of {segmentation.name}; choose its exam."
        raise StudyError(msg)
    drawn = {k for k, values in enumerate(labels.on(labels.header.planes(), 0)) if values.any()}
    if not drawn & set(images):
        msg = f"{segmentation.name} holds no segment on the slices of {source}; there is nothing to export."
        raise StudyError(msg)
    if missing := drawn - set(images):
        msg = (
            f"{len(missing)} of the {len(drawn)} slices of {segmentation.name} that are drawn on are not in one series "
            f"of {source}, and a DICOM SEG can refer to one alone; save it as .seg.nrrd instead."
        )
        raise StudyError(msg)
    values = labels.on([_plane(image) for image in images.values()], 0)
    present = [v for v in labels.names if (values == v).any()]
    numbered = np.zeros(values.shape, np.uint8)
    for number, value in enumerate(present, start=1):
        numbered[values == value] = number
    names = {n: labels.names[v] for n, v in enumerate(present, start=1)}
    _document(list(images.values()), numbered, names).save_as(str(out))
    return out


def _images_under(labels: LabelFile, source: Path, series: str, phase: int) -> dict[int, Any]:
    """One image of one series for each slice of the labels that it has, in slice order: of a cine the phase's."""
    found: dict[str, dict[int, list[Any]]] = {}
    for path in list_files(source):
        image = _image(path)
        if image is not None and (place := _slice_of(labels, image)) is not None:
            found.setdefault(str(image.get("SeriesInstanceUID")), {}).setdefault(place, []).append(image)
    slices = found.get(series) or max(found.values(), key=len, default={})
    return {place: sorted(slices[place], key=_time)[min(phase, len(slices[place]) - 1)] for place in sorted(slices)}


def _time(image: Any) -> tuple[float, int]:
    return float(image.get("TriggerTime") or 0), int(image.get("InstanceNumber") or 0)


def _image(path: Path) -> Any | None:
    if not may_be_dicom(path):
        return None
    try:
        image = pydicom.dcmread(path, stop_before_pixels=True)
    except (OSError, ValueError, pydicom.errors.InvalidDicomError):
        return None
    return image if "ImagePositionPatient" in image and "Rows" in image else None


def _plane(image: Any) -> Plane:
    return Plane.from_dicom(
        image.ImagePositionPatient,
        image.ImageOrientationPatient,
        image.PixelSpacing,
        image.Rows,
        image.Columns,
        float(image.get("SliceThickness") or 0),
    )


def _slice_of(labels: LabelFile, image: Any) -> int | None:
    """Index of the label slice that an image lies on, None where it lies on none."""
    try:
        plane = _plane(image)
    except (GeometryError, AttributeError, TypeError, ValueError):
        return None
    header = labels.header
    normal = np.asarray(header.direction)[:, 2]
    if np.linalg.norm(np.cross(normal, plane.normal)) > 1e-3 or plane.size != tuple(header.size[:2]):
        return None
    place = float((plane.origin - header.origin) @ normal) / header.spacing[2]
    index = round(place)
    return index if abs(place - index) < MAX_OFF and 0 <= index < header.size[2] else None


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
