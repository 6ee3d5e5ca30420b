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


def write_dicom_seg(source: Path, segmentation: Path, out: Path) -> Path:
    """Writes a segmentation as DICOM SEG.

    Args:
        source: Folder of the exam's DICOM files.
        segmentation: A ``.seg.nrrd`` on the grid of one of its series.
        out: The DICOM file to write.

    Returns:
        ``out``.

    Raises:
        StudyError: The folder holds no single-frame images on the segmentation's slices, or nothing is segmented.
    """
    labels = read_label_file(segmentation)
    images = _images_under(labels, source)
    if not images:
        msg = f"{source} holds no single-frame DICOM images on the slices of {segmentation.name}; choose its exam."
        raise StudyError(msg)
    reader = labels.reader([_plane(image) for image in images])
    values = reader(0)
    present = [v for v in labels.names if values is not None and (values == v).any()]
    if values is None or not present:
        msg = f"{segmentation.name} holds no segment on the slices of {source}; there is nothing to export."
        raise StudyError(msg)
    numbered = np.zeros(values.shape, np.uint8)
    for number, value in enumerate(present, start=1):
        numbered[values == value] = number
    document = _document(images, numbered, {n: labels.names[v] for n, v in enumerate(present, start=1)})
    document.save_as(str(out))
    return out


def _images_under(labels: LabelFile, source: Path) -> list[Any]:
    """One image a slice of the labels, in slice order: of a cine the first phase."""
    found: dict[int, Any] = {}
    for path in list_files(source):
        image = _image(path)
        if image is None or (place := _slice_of(labels, image)) is None:
            continue
        known = found.get(place)
        if known is None or int(image.get("InstanceNumber") or 0) < int(known.get("InstanceNumber") or 0):
            found[place] = image
    return [found[place] for place in sorted(found)]


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
