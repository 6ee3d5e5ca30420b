"""Grey values of single DICOM frames, decoded and rescaled when they are asked for."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk

from .dicom import UNCOMPRESSED
from .dicom import Frame
from .dicom import quiet_pydicom
from .study import StudyError
from .volumes import quiet_itk

#: JPEG, JPEG-LS and JPEG 2000: what ITK's decoders are asked for. They allocate by the header before they look.
COMPRESSED = "1.2.840.10008.1.2.4."

Grey = npt.NDArray[np.float32]


def read_pixels(frame: Frame) -> Grey:
    """Rescaled grey values of one frame, ``(rows, columns)``. MONOCHROME1 is turned round, so that bright is bright.

    Raises:
        StudyError: The file cannot be read or decoded, or changed since it was indexed.
    """
    try:
        state = frame.path.stat()
        stamp = (state.st_mtime_ns, state.st_size)
        load = _decoded_series if frame.frames > 1 else _decoded
        ds, stored = load(str(frame.path), stamp)
    except OSError as error:
        msg = f"{frame.path} can no longer be read ({error.strerror}): was it moved? Read the study again."
        raise StudyError(msg) from error
    stored = stored[frame.index] if stored.ndim == 3 and frame.index < len(stored) else stored
    if stored.shape != (frame.rows, frame.columns):
        msg = f"{frame.path} holds other pixels than its header says: it is damaged or changed, read the study again."
        raise StudyError(msg)
    slope, intercept = _rescale(ds, frame.index)
    values = _turned_round(ds, stored.astype(np.float32)) * np.float32(slope) + np.float32(intercept)
    return np.asarray(np.nan_to_num(values), dtype=np.float32)


def _turned_round(ds: pydicom.Dataset, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Stored values with bright and dark exchanged where the header says MONOCHROME1.

    Each is taken from the least plus the greatest value that there can be: the same for all slices of a stack.
    """
    if ds.get("PhotometricInterpretation") != "MONOCHROME1":
        return stored
    return (-1 if ds.get("PixelRepresentation") else 2 ** int(ds.get("BitsStored") or 16) - 1) - stored


def _decoded(path: str, stamp: tuple[int, int]) -> tuple[pydicom.Dataset, npt.NDArray[Any]]:
    """A file's header and stored values, ``(rows, columns)`` or ``(frames, rows, columns)``."""
    del stamp
    with quiet_pydicom():
        try:
            ds = pydicom.dcmread(path, force=True)
            if "TransferSyntaxUID" not in getattr(ds, "file_meta", {}):
                ds.file_meta = pydicom.dataset.FileMetaDataset()
                implicit = ds.original_encoding[0]
                ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(UNCOMPRESSED[0 if implicit else 1])
        except OSError:
            raise
        except Exception as error:
            msg = f"{path} cannot be read as DICOM any more: it is damaged or changed, copy it again."
            raise StudyError(msg) from error
        try:
            array = ds.pixel_array
        except Exception as error:
            # Missing decoders, odd encapsulation, short data: ITK brings decoders of its own.
            array = _decoded_by_itk(path, ds, error)
    if "PixelData" in ds:
        del ds.PixelData
    return ds, array


#: A multi-frame file is decoded once for all the frames that are asked for in a row.
_decoded_series = lru_cache(maxsize=1)(_decoded)


def _decoded_by_itk(path: str, ds: pydicom.Dataset, first: Exception) -> npt.NDArray[Any]:
    """The same through ITK's GDCM, which decodes JPEG, JPEG-LS and JPEG 2000.

    But it rescales and turns MONOCHROME1 round: both are taken back.
    """
    syntax = ds.file_meta.TransferSyntaxUID
    name, compressed = getattr(syntax, "name", str(syntax)), syntax not in UNCOMPRESSED
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(path)
    try:
        if not str(syntax).startswith(COMPRESSED):
            raise RuntimeError(str(first))
        with quiet_itk():
            image = reader.Execute()
    except RuntimeError as error:
        if compressed:
            remedy = "uncompress it (dcmdjpeg, dcmdjpls or gdcmconv --raw) or pip install pylibjpeg[all]"
            msg = f"{path} is compressed ({name}) and cannot be decoded here: {remedy}."
        else:
            msg = f"{path} has pixels that do not fit its header: it is damaged, export or copy it again."
        raise StudyError(msg) from error
    array = sitk.GetArrayFromImage(image)
    slope, intercept = _rescale(ds, 0)
    values = _turned_round(ds, (array.astype(np.float64) - intercept) / (slope or 1.0))
    return values[0] if values.ndim == 3 and len(values) == 1 else values


def _rescale(ds: pydicom.Dataset, index: int) -> tuple[float, float]:
    """Rescale slope and intercept, of the frame where it has its own."""
    places: list[Any] = []
    for keyword, number in (("PerFrameFunctionalGroupsSequence", index), ("SharedFunctionalGroupsSequence", 0)):
        groups = ds.get(keyword) or []
        if number < len(groups):
            places += list(groups[number].get("PixelValueTransformationSequence") or [])[:1]
    for place in (*places, ds):
        try:
            slope, intercept = float(place.get("RescaleSlope") or 1.0), float(place.get("RescaleIntercept") or 0.0)
        except (TypeError, ValueError):
            continue
        if np.isfinite([slope, intercept]).all() and slope != 0:
            return slope, intercept
    return 1.0, 0.0
