"""Volume files: NIfTI, NRRD, MetaImage, and Slicer's volume sequences, one view a file.

Everything goes through SimpleITK, so that origin and direction always belong to the array in hand and are LPS.
Headers are read first; pixels when they are asked for.
"""

from __future__ import annotations

import errno
import gzip
import os
import sys
import zlib
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from ..geometry import Array
from ..geometry import GeometryError
from ..geometry import Plane
from ..geometry import planes_of_volume
from .claims import Claim
from .claims import check_claim
from .claims import check_sum
from .study import Irregularity
from .study import StudyError
from .study import View

EXTENSIONS = (".nii.gz", ".nii", ".nrrd", ".mha")
#: Known volume files that keep their pixels elsewhere, or that nothing here reads.
FOREIGN_EXTENSIONS = (".nhdr", ".mhd", ".raw", ".hdr", ".img", ".mgz", ".mgh", ".par", ".rec", ".vti", ".npy", ".npz")
#: Two affines of one file further apart than this are worth a word.
MAX_AFFINE_GAP_MM = 0.5
#: Voxels of a scanner are no smaller and no larger; metres may have been written, or micrometres.
MIN_SPACING_MM, MAX_SPACING_MM = 0.02, 1000.0
#: The axis of a file whose steps are so many times those along both others is that of its slices, whichever it is; the
#: others are a slice's rows and columns if their steps are no more different than this.
SLICE_STEP_RATIO = 2.0
PIXEL_SIDES_RATIO = 1.25
#: Header of a NIfTI file without extensions, and the four bytes that say so.
NIFTI_HEADER_BYTES = 352
#: So much is written at a time where a window has to stay awake.
PART_BYTES = 1 << 24


def volume_extension(path: Path) -> str | None:
    """The extension of a volume file (``.nii.gz`` counts as one), or None for any other file."""
    name = path.name.lower()
    return next((e for e in EXTENSIONS if name.endswith(e) and len(name) > len(e)), None)


def stem(path: Path) -> str:
    """File name without its volume extension and without ``.seq`` or ``.seg``."""
    base = path.name[: -len(volume_extension(path) or path.suffix) or None]
    return base[:-4] if base.lower().endswith((".seq", ".seg")) else base


@dataclass(frozen=True)
class VolumeHeader:
    """What a volume file says about itself.

    Attributes:
        path: The file.
        size: Voxels along the three index axes, of which the last is that of the slices.
        spacing: mm along them.
        origin: Centre of the first voxel, LPS mm, ``(3,)``.
        direction: Columns are the directions of the index axes, LPS, ``(3, 3)``.
        phases: Volumes in the file: phases of a cine, or layers of a segmentation.
        phase_ms: Time from one phase to the next in ms; 0 where unknown.
        integer: Whether the stored pixels are whole numbers.
        eight_bit: Whether they are bytes.
        claim: What the first bytes say.
        axes: Which of the file's own axes they are.
    """

    path: Path
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: Array
    direction: Array
    phases: int
    phase_ms: float
    integer: bool
    eight_bit: bool
    claim: Claim
    axes: tuple[int, int, int] = (0, 1, 2)

    def turned(self, axes: tuple[int, int, int]) -> VolumeHeader:
        """The same volume, with the file's own axes in another order."""
        x, y, z = (self.axes.index(axis) for axis in axes)
        return replace(
            self,
            size=(self.size[x], self.size[y], self.size[z]),
            spacing=(self.spacing[x], self.spacing[y], self.spacing[z]),
            direction=self.direction[:, [x, y, z]],
            axes=axes,
        )

    @property
    def positioned(self) -> bool:
        """Whether the header places the volume: not missing, and not the bare default (identity at the origin)."""
        axes = np.abs(self.direction)
        return self.claim.positioned and not (np.array_equal(axes, np.eye(3)[:, self.axes]) and not self.origin.any())

    def same_grid(self, other: VolumeHeader, tolerance: float = 0.1) -> bool:
        """Whether both have the same voxels in the same places, to a share of a voxel."""
        if self.size != other.size:
            return False
        gap = np.abs(self._ends() - other._ends()).max()
        return bool(gap < tolerance * min(self.spacing))

    def overlaps(self, other: VolumeHeader) -> bool:
        """Whether the two boxes, outer edges of the voxels included, overlap along all axes of both."""
        for axes in (self.direction, other.direction):
            mine, theirs = self._corners() @ axes, other._corners() @ axes
            if (mine.max(axis=0) <= theirs.min(axis=0)).any() or (theirs.max(axis=0) <= mine.min(axis=0)).any():
                return False
        return True

    def _corners(self) -> Array:
        """The box's corners, LPS mm, ``(8, 3)``."""
        index = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in self.size], indexing="ij"), -1).reshape(-1, 3)
        return np.asarray(self.origin + index * self.spacing @ self.direction.T)

    def _ends(self) -> Array:
        last = (np.array(self.size) - 1) * np.array(self.spacing)
        return np.stack([self.origin, *(self.origin + self.direction[:, k] * last[k] for k in range(3))])

    def planes(self) -> list[Plane]:
        """One plane a slice.

        Raises:
            StudyError: The numbers do not describe planes.
        """
        try:
            return planes_of_volume(self.origin, self.direction, self.spacing, self.size)
        except GeometryError as error:
            msg = f"{self.path} cannot be placed in the patient: {error} Correct the header, or export it again."
            raise StudyError(msg) from error


@contextmanager
def quiet_itk() -> Iterator[None]:
    """ITK prints warnings about odd headers to the terminal; what matters is reported in other ways."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def _itk_reader(path: Path) -> sitk.ImageFileReader:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    return reader


def _unreadable(path: Path, error: Exception) -> StudyError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1].split("): ")[-1].rstrip(".") if lines else "no reason given"
    return StudyError(f"{path} cannot be read as an image ({reason[:160]}): export it again.")


def read_header(path: Path) -> VolumeHeader:
    """Reads and checks the header of a volume file; no pixels are read.

    Raises:
        StudyError: The file cannot be used, in one sentence.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        # ITK ends the whole process at such a name.
        msg = f"{os.fsencode(path).decode(errors='replace')} has a name that is no valid text: rename it."
        raise StudyError(msg) from None
    claim = check_claim(path)
    reader = _itk_reader(path)
    try:
        with quiet_itk():
            reader.ReadImageInformation()
            return _slices_last(_header(path, reader, claim))
    except RuntimeError as error:
        raise _unreadable(path, error) from error


def _header(path: Path, reader: sitk.ImageFileReader, claim: Claim) -> VolumeHeader:
    dimension, components = reader.GetDimension(), reader.GetNumberOfComponents()
    if dimension not in (3, 4) or (components > 1 and (dimension == 4 or claim.list_axis is None)):
        kind = "colour or vector pixels" if components > 1 else f"{dimension} dimensions"
        msg = f"{path} has {kind}, expected grey values in three dimensions, or four with time: save one volume a file."
        raise StudyError(msg)
    size, spacing = reader.GetSize(), reader.GetSpacing()
    direction = np.array(reader.GetDirection()).reshape(dimension, dimension)[:3, :3]
    origin = np.array(reader.GetOrigin()[:3])
    _check_grid(path, spacing[:3], origin, direction)
    pixel = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    return VolumeHeader(
        path=path,
        size=(size[0], size[1], size[2]),
        spacing=(spacing[0], spacing[1], spacing[2]),
        origin=origin,
        direction=direction,
        phases=components if components > 1 else (size[3] if dimension == 4 else 1),
        phase_ms=_phase_ms(spacing[3]) if dimension == 4 else 0.0,
        integer="integer" in pixel,
        eight_bit="8-bit" in pixel,
        claim=claim,
    )


def _slices_last(header: VolumeHeader) -> VolumeHeader:
    """The header with the axis of its slices last, which it is not where a program has turned a file to RAS or LPS."""
    slices = int(np.argmax(header.spacing))
    x, y = (axis for axis in range(3) if axis != slices)
    sides = sorted((header.spacing[x], header.spacing[y]))
    flat = header.spacing[slices] >= SLICE_STEP_RATIO * sides[1] and sides[1] <= PIXEL_SIDES_RATIO * sides[0]
    # Thick voxels are few; there may be one slice alone, of any thickness.
    return header.turned((x, y, slices)) if flat and header.size[slices] == min(header.size) else header


def _check_grid(path: Path, spacing: tuple[float, ...], origin: Array, direction: Array) -> None:
    if not (np.isfinite(spacing).all() and min(spacing) > 0):
        shown = " x ".join(f"{v:g}" for v in spacing)
        msg = f"{path} has the voxel spacing {shown} mm in its header: correct the header, or export it again."
        raise StudyError(msg)
    believable = min(spacing) >= MIN_SPACING_MM and max(spacing) <= MAX_SPACING_MM and np.abs(origin).max() <= 1e5
    if not believable or not np.isfinite([*origin, *direction.ravel()]).all():
        msg = f"{path} has a spacing or position of no human body in its header: correct it, or export it again."
        raise StudyError(msg)
    if np.abs(direction.T @ direction - np.eye(3)).max() > 1e-2:
        msg = f"{path} is sheared (its axes are not perpendicular): resample it to a straight grid, or give DICOM."
        raise StudyError(msg)


def _phase_ms(step: float) -> float:
    """ITK gives seconds where the file names its time unit; files that name none hold seconds or milliseconds."""
    if not np.isfinite(step) or step <= 0 or step == 1:
        return 0.0
    return step * 1000 if step < 5 else step


@lru_cache(maxsize=1)
def _load_series(path: str, stamp: tuple[int, int]) -> npt.NDArray[Any]:
    """All phases of a file, in its own number format. The stamp makes a changed file a different entry."""
    del stamp
    return _load(path)


def _load(path: str) -> npt.NDArray[Any]:
    with quiet_itk():
        return sitk.GetArrayFromImage(sitk.ReadImage(path))


def load_array(header: VolumeHeader, phase: int = 0) -> npt.NDArray[Any]:
    """Stored values of one phase, ``(slices, rows, columns)``, rescaled as the header says.

    Raises:
        StudyError: The pixels cannot be read, or are no longer what the header said.
    """
    path = header.path
    if not 0 <= phase < header.phases:
        msg = f"{path} has {header.phases} phases, asked for number {phase}."
        raise StudyError(msg)
    try:
        state = path.stat()
        stamp = (state.st_mtime_ns, state.st_size)
        if path.name.lower().endswith(".gz"):
            # ITK does not look at the checksum: what was damaged on its way would become an image.
            check_sum(path, stamp)
        array = _load(str(path)) if header.phases == 1 else _load_series(str(path), stamp)
    except (RuntimeError, OSError) as error:
        raise _unreadable(path, error) from error
    if header.phases > 1:
        array = array[..., phase] if header.claim.list_axis is not None and _is_list(header) else array[phase]
    elif array.ndim == 4:
        # A fourth axis of one phase, which ITK keeps of some formats.
        array = array[0]
    if array.shape != header.turned((0, 1, 2)).size[::-1]:
        msg = f"{path} changed while it was being used: read the study again."
        raise StudyError(msg)
    return array.transpose([2 - axis for axis in reversed(header.axes)])


def _is_list(header: VolumeHeader) -> bool:
    """Whether ITK holds the phases as components of a pixel (NRRD's list axis) and not as a fourth axis."""
    return header.path.name.lower().endswith(".nrrd")


def affine_gap(header: VolumeHeader) -> tuple[float, str]:
    """How far in mm the two affines of a NIfTI file put a corner apart, and which of them ITK took."""
    if len(header.claim.affines) < 2:
        return 0.0, ""
    grid = np.stack(np.meshgrid(*[(0, n - 1) for n in header.size], indexing="ij"), -1).reshape(-1, 3)
    corners = {name: grid @ a[:, header.axes].T + a[:, 3] for name, a in header.claim.affines.items()}
    taken = (header.origin + grid * header.spacing @ header.direction.T) * [-1, -1, 1]
    nearest = min(corners, key=lambda name: float(np.abs(corners[name] - taken).max()))
    return float(np.linalg.norm(corners["sform"] - corners["qform"], axis=1).max()), nearest


def header_irregularities(header: VolumeHeader) -> list[Irregularity]:
    """What is odd about a header that can still be used."""
    found = []
    gap, believed = affine_gap(header)
    if gap > MAX_AFFINE_GAP_MM:
        what = f"its two affines (sform and qform) disagree by up to {gap:.1f} mm"
        found.append(
            Irregularity(str(header.path), what, f"the {believed} is believed; check the lines on the pictures")
        )
    if not header.positioned:
        what = "the header does not say where the volume lies in the patient"
        found.append(
            Irregularity(str(header.path), what, "its role is taken from its name, and its crossings mean nothing")
        )
    if header.axes[2] != 2:
        along = ("first", "second")[header.axes[2]]
        what = f"its slices lie along the file's {along} axis, where the steps are {header.spacing[2]:.1f} mm"
        so = "they are taken as they were acquired; results have slices of the same places, and not the file's order"
        found.append(Irregularity(str(header.path), what, so))
    return found


def view_of_volume(header: VolumeHeader) -> View:
    """A view, without role and labels, whose pixels are read on demand."""

    def pixels(phase: int) -> npt.NDArray[np.float32]:
        values = load_array(header, phase).astype(np.float32)
        # Scanner software writes NaN outside the field of view; zero is what it means.
        return np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)

    times = tuple(k * header.phase_ms for k in range(header.phases)) if header.phase_ms else ()
    return View(
        name=stem(header.path),
        source=header.path,
        planes=header.planes(),
        phases=header.phases,
        read_pixels=pixels,
        trigger_times=times,
        attributes={} if header.positioned else {"position": "not in the header"},
    )


def itk_image(array: npt.NDArray[Any], planes: Sequence[Plane]) -> sitk.Image:
    """A volume ``(slices, rows, columns)`` on regular planes as an ITK image (LPS).

    Raises:
        StudyError: The planes do not form a volume.
    """
    first = planes[0]
    origin, third, length = _grid_of_planes(planes)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((*first.spacing, length))
    image.SetOrigin(origin.tolist())
    image.SetDirection(np.column_stack([first.x_direction, first.y_direction, third]).ravel().tolist())
    return image


def _grid_of_planes(planes: Sequence[Plane]) -> tuple[Array, Array, float]:
    """Origin, slice direction and slice step of the grid that fits evenly spaced planes best.

    The slice direction is exactly perpendicular, because a NIfTI quaternion holds nothing else; what DICOM's rounded
    decimals leave over is spread over all slices.

    Raises:
        StudyError: The planes lie more than 0.01 mm from any such grid.
    """
    first = planes[0]
    origins = np.array([p.origin for p in planes])
    index = np.arange(len(planes)) - (len(planes) - 1) / 2
    step = index @ origins / max(float(index @ index), 1e-12)
    length = float(step @ first.normal) if len(planes) > 1 else first.thickness or 1.0
    third, length = (first.normal, length) if length > 0 else (-first.normal, -length)
    start = origins.mean(axis=0) - (len(planes) - 1) / 2 * length * third
    gaps = origins - start - np.arange(len(planes))[:, None] * length * third
    turned = [np.abs(np.stack([p.x_direction - first.x_direction, p.y_direction - first.y_direction])) for p in planes]
    if any(p.size != first.size for p in planes) or np.abs(gaps).max() > 0.01 or np.max(turned) > 1e-4:
        msg = "The slices are shifted, tilted or unevenly spaced, so they cannot be written as one volume."
        raise StudyError(msg)
    return start, third, length


def view_image(view: View, phase: int | None = None) -> sitk.Image:
    """A view's pixels as one volume, or all phases of a cine as a 4-D one.

    Args:
        view: A view whose planes form a volume.
        phase: Only this phase; all of them where it is None.

    Raises:
        StudyError: The planes do not form a volume.
    """
    chosen = range(view.phases) if phase is None else [phase]
    if not view.regular:
        msg = f"{view.name}: the slices are shifted, tilted or unevenly spaced, so they cannot be one volume file."
        raise StudyError(msg)
    volumes = [itk_image(view.pixels(k), view.planes) for k in chosen]
    return volumes[0] if len(volumes) == 1 else sitk.JoinSeries(volumes, 0.0, _time_step(view))


def write_view(view: View, path: Path, phase: int | None = None) -> None:
    """Writes what :func:`view_image` makes of a view.

    Args:
        view: A view whose planes form a volume.
        path: ``.nii``, ``.nii.gz``, ``.nrrd`` or ``.mha``; a 4-D file must be NIfTI or MetaImage.
        phase: Only this phase; all of them where it is None.

    Raises:
        StudyError: The planes do not form a volume, or the file cannot be written.
    """
    image = view_image(view, phase)
    try:
        write_image(image, path)
    except OSError as error:
        msg = f"{path} could not be written: check the folder, the name's extension and the space on the disk."
        raise StudyError(msg) from error


def writing_nifti(array: npt.NDArray[Any], planes: Sequence[Plane], path: Path) -> Iterator[None]:
    """Writes what :func:`itk_image` makes of a volume as uncompressed NIfTI, some MB at each turn of the iteration.

    Args:
        array: ``(slices, rows, columns)``.
        planes: One a slice; they form a volume.
        path: ``.nii``.

    Raises:
        StudyError: The planes do not form a volume, or the file cannot be written.
    """
    image = itk_image(array[:1], planes)
    count = max(1, PART_BYTES // array[:1].nbytes)
    try:
        sitk.WriteImage(image, str(path))
        with path.open("r+b") as file:
            # The file of one slice lacks nothing but the number of slices, dim[3], and the others' pixels.
            file.seek(46)
            file.write(len(planes).to_bytes(2, sys.byteorder))
            # ITK says nothing when the disk is full.
            if file.seek(0, os.SEEK_END) != NIFTI_HEADER_BYTES + array[:1].nbytes:
                raise EOFError
            for start in range(1, len(array), count):
                file.write(np.ascontiguousarray(array[start : start + count]).data)
                yield
    except (RuntimeError, OSError, EOFError) as error:
        path.unlink(missing_ok=True)
        msg = f"{path} could not be written: check the folder and the space on the disk."
        raise StudyError(msg) from error


def write_image(image: sitk.Image, path: Path) -> None:
    """Writes an ITK image, compressed where the format can be; leaves no part of it behind.

    Raises:
        OSError: It could not be written whole.
    """
    try:
        sitk.WriteImage(image, str(path), useCompression=not path.name.endswith(".nii"))
        # ITK says nothing when the disk is full; only reading shows whether all is there.
        sitk.ReadImage(str(path))
        if path.suffix == ".nii" and path.stat().st_size < image.GetNumberOfPixels() * image.GetSizeOfPixelComponent():
            raise EOFError
        if path.name.endswith(".gz"):
            with gzip.open(path) as file:
                while file.read(1 << 22):
                    pass
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        path.unlink(missing_ok=True)
        reason = "could not be written whole"
        raise OSError(errno.EIO, reason, str(path)) from error


def _time_step(view: View) -> float:
    """Seconds between phases, as ITK writes them to NIfTI."""
    times = view.trigger_times
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    return step / 1000 if step > 0 else 1.0
