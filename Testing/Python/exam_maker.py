"""Makes small exams for tests: planes as they are laid in people, and DICOM files of them.

The numbers are drawn from how exams are planned, not from the engine's own expectations.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.uid import generate_uid

from SSLEngine.geometry import Array
from SSLEngine.geometry import Plane

MR = "1.2.840.10008.5.1.4.1.1.4"


def unit(vector: Any) -> Array:
    array = np.asarray(vector, dtype=np.float64)
    return array / np.linalg.norm(array)


def tilted(vector: Any, degrees: float, rng: np.random.Generator) -> Array:
    """A direction that is off by about so many degrees."""
    return unit(unit(vector) + rng.normal(0, np.radians(degrees) / np.sqrt(2), 3))


def plane(normal: Any, centre: Any, down: Any = (0, 0.1, -1), size: int = 24, field: float = 330.0) -> Plane:
    """A square image plane with a normal through a centre; ``down`` is roughly its row direction."""
    n = unit(normal)
    y = np.asarray(down, dtype=np.float64)
    y = unit(y - (y @ n) * n)
    x = np.cross(y, n)
    pixel = field / size
    origin = np.asarray(centre, dtype=np.float64) - pixel * (size - 1) / 2 * (x + y)
    return Plane(origin, x, y, (pixel, pixel), (size, size), 8.0)


def heart_layout(rng: np.random.Generator, right_ventricle: bool = True) -> dict[str, list[Plane]]:
    """The planes of one heart exam: axis, septum and planning errors vary as between people."""
    axis = tilted((0.62, -0.65, -0.44), rng.uniform(0, 18), rng)
    centre = np.array([25.0, -15.0, -20.0]) + rng.normal(0, 15, 3)
    right = unit(np.array([-1.0, 0, 0]) + axis[0] * axis)
    further = np.cross(axis, right)

    def round_axis(degrees: float) -> Array:
        radians = np.radians(degrees)
        return np.cos(radians) * right + np.sin(radians) * further

    four = rng.normal(4, 9)
    septum = round_axis(four)
    found = {
        name: [plane(tilted(np.cross(round_axis(four + turn), axis), 4, rng), centre + rng.normal(0, 4, 3))]
        for name, turn in {"4ch": 0.0, "2ch": rng.normal(66, 7), "3ch": rng.normal(122, 6)}.items()
    }
    across = tilted(axis, 3, rng) * rng.choice([-1, 1])
    count, step = int(rng.integers(7, 13)), rng.uniform(8, 12)
    middle = centre + rng.normal(0, 10, 3)
    starts = (np.arange(count) - (count - 1) / 2) * step
    found["sax"] = [plane(across, middle + s * across, down=(0.3, 0.6, -0.7)) for s in starts]
    if right_ventricle:
        two = found["2ch"][0].normal
        found["rv2ch"] = [plane(tilted(two, 8, rng), centre + rng.normal(43, 5) * septum)]
        outflow = centre + rng.normal(28, 4) * septum + np.array([0, -15, 35.0])
        found["rvot"] = [plane(tilted((-1, -0.03, -0.12), 5, rng), outflow)]
    return found


def knee_layout(rng: np.random.Generator, side: str = "left") -> dict[str, list[Plane]]:
    """Three stacks along a knee that is turned and bent a little."""
    angles = np.radians(rng.uniform(-18, 18, 3))
    turn = np.eye(3)
    for k, angle in enumerate(angles):
        i, j = [a for a in range(3) if a != k]
        step = np.eye(3)
        step[i, i] = step[j, j] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    centre = np.array([90.0 if side == "left" else -90.0, 5, 10]) + rng.normal(0, 8, 3)
    found = {}
    for name, column, down in (("sag", 0, (0, 0, -1)), ("cor", 1, (0, 0, -1)), ("ax", 2, (0, 1, 0))):
        normal = tilted(turn[:, column], 3, rng)
        count = int(rng.integers(15, 30))
        found[name] = [
            plane(normal, centre + (k - count / 2) * 3.5 * normal, down=down, field=160.0) for k in range(count)
        ]
    return found


def dataset(plane: Plane, pixels: Any = None, **elements: Any) -> Dataset:
    """An MR image of a plane; ``elements`` override or, where None, remove."""
    columns, rows = plane.size
    ds = Dataset()
    ds.SOPClassUID = MR
    ds.SOPInstanceUID = generate_uid()
    ds.PatientID = "P1"
    ds.PatientName = "Test^Patient"
    ds.Modality = "MR"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    ds.StudyInstanceUID = "1.2.3.4.1"
    ds.SeriesInstanceUID = "1.2.3.4.1.1"
    ds.FrameOfReferenceUID = "1.2.3.4.9"
    ds.SeriesNumber = 1
    ds.InstanceNumber = 1
    ds.ImagePositionPatient = [f"{v:.6f}" for v in plane.origin]
    ds.ImageOrientationPatient = [f"{v:.9f}" for v in (*plane.x_direction, *plane.y_direction)]
    ds.PixelSpacing = [f"{plane.spacing[1]:.6f}", f"{plane.spacing[0]:.6f}"]
    ds.SliceThickness = f"{plane.thickness:.4f}"
    ds.Rows, ds.Columns = rows, columns
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = 0
    values = np.zeros((rows, columns)) if pixels is None else np.asarray(pixels)
    ds.PixelData = values.astype("<u2").tobytes()
    for keyword, value in elements.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    return ds


def save(ds: Dataset, path: Path, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Writes a dataset as a DICOM file."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", MR)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "1.2.3")
    ds.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    path.parent.mkdir(parents=True, exist_ok=True)
    if int(pydicom.__version__.split(".", maxsplit=1)[0]) >= 3:
        ds.save_as(path, enforce_file_format=True)
    else:
        ds.save_as(path, write_like_original=False)
    return path


def write_series(
    folder: Path, planes: Sequence[Plane], *, phases: int = 1, shuffle: np.random.Generator | None = None, **common: Any
) -> list[Path]:
    """Writes slices x phases of one series; a pixel's value is 100 x slice + phase + 1."""
    images = [(s, p) for s in range(len(planes)) for p in range(phases)]
    order = list(range(len(images))) if shuffle is None else shuffle.permutation(len(images)).tolist()
    uid = common.setdefault("SeriesInstanceUID", generate_uid())
    paths = []
    for place, (s, p) in zip(order, images, strict=True):
        extra: Mapping[str, Any] = {"TriggerTime": 40.0 * p} if phases > 1 else {}
        columns, rows = planes[s].size
        values = {"InstanceNumber": place + 1, **extra, **common}
        ds = dataset(planes[s], np.full((rows, columns), 100 * s + p + 1), **values)
        paths.append(save(ds, folder / f"{uid[-12:]}-{place:04d}.dcm"))
    return paths
