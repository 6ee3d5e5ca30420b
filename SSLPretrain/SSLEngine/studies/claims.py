"""What a volume file claims to hold, checked against the file itself before anything is allocated.

NIfTI, NRRD and MetaImage headers are a few hundred bytes that anybody can write. The checks here read only those
bytes: sizes are positive and within reason, the file is long enough for them, no other file is pointed to. Geometry is
not taken from here, with one exception: whether the two affines of a NIfTI file agree.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..geometry import Array
from .study import StudyError

#: Voxels of one phase, and of all phases together, above which a header is not believed (512 cubed; four times that).
MAX_PHASE_VOXELS = 2**27
MAX_VOXELS = 2**29
#: deflate cannot compress better than this (zlib's own documentation).
MAX_DEFLATE_RATIO = 1032
MAX_TEXT_HEADER = 1 << 20

NIFTI_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}
#: Kinds of pixels that can hold what is no number.
NIFTI_FLOATS = {16: "f4", 64: "f8"}
NRRD_BYTES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8", "uint8_t"), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), 2),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), 2),
    **dict.fromkeys(
        ("int", "signed int", "int32", "int32_t", "uint", "unsigned int", "uint32", "uint32_t", "float"), 4
    ),
    **dict.fromkeys(("longlong", "long long", "long long int", "int64", "int64_t", "signed long long"), 8),
    **dict.fromkeys(("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t", "double"), 8),
}
META_BYTES = {
    **dict.fromkeys(("MET_CHAR", "MET_UCHAR"), 1),
    **dict.fromkeys(("MET_SHORT", "MET_USHORT"), 2),
    **dict.fromkeys(("MET_INT", "MET_UINT", "MET_LONG", "MET_ULONG", "MET_FLOAT"), 4),
    **dict.fromkeys(("MET_LONG_LONG", "MET_ULONG_LONG", "MET_DOUBLE"), 8),
}

#: Fields of numbers in a MetaImage header: one a dimension, or a matrix.
META_NUMBERS = {
    **dict.fromkeys(("ElementSpacing", "Offset", "Position", "Origin"), 1),
    **dict.fromkeys(("TransformMatrix", "Orientation", "Rotation"), 2),
}


@dataclass(frozen=True)
class Claim:
    """What the first bytes of a volume file say.

    Attributes:
        sizes: Length of each axis as stored.
        list_axis: Which stored axis holds phases or layers instead of space; None where none does.
        positioned: Whether the header says where the volume lies in the patient.
        affines: The RAS affines ``(3, 4)`` that a NIfTI file holds, by name (sform, qform); empty elsewhere.
        fields: Key and value pairs of a text header; the keys of NRRD, where case does not matter, in lower case.
    """

    sizes: tuple[int, ...]
    list_axis: int | None = None
    positioned: bool = True
    affines: dict[str, Array] = field(default_factory=dict)
    fields: dict[str, str] = field(default_factory=dict)


def check_claim(path: Path) -> Claim:
    """Reads and checks the first bytes of a ``.nii``, ``.nii.gz``, ``.nrrd`` or ``.mha`` file.

    Raises:
        StudyError: The file is empty, unreadable, truncated, not what its name says, or claims the impossible.
    """
    name = path.name.lower()
    try:
        if path.stat().st_size == 0:
            msg = f"{path} is empty (0 bytes): export it again."
            raise StudyError(msg)
        if name.endswith((".nii", ".nii.gz")):
            return _nifti(path)
        if name.endswith(".mha") and path.suffix != ".mha":
            msg = f"{path} has an ending in capitals, by which ITK does not know this kind of file: rename it to .mha."
            raise StudyError(msg)
        return _nrrd(path) if name.endswith(".nrrd") else _meta(path)
    except PermissionError as error:
        msg = f"{path} may not be read (permission denied): change its permissions or copy it."
        raise StudyError(msg) from error
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> StudyError:
    return StudyError(f"{path} is damaged or truncated ({error}): export or copy it again.")


# ---------------------------------------------------------------------------------------------
# Sizes and lengths


def _check_sizes(path: Path, sizes: tuple[int, ...], phase_axes: tuple[int, ...]) -> None:
    if not sizes or min(sizes) < 1:
        msg = f"{path} has the size {' x '.join(map(str, sizes))} in its header, which is no image: export it again."
        raise StudyError(msg)
    phase = math.prod(n for k, n in enumerate(sizes) if k not in phase_axes)
    if phase > MAX_PHASE_VOXELS or math.prod(sizes) > MAX_VOXELS or max(sizes) > 2**16:
        msg = (
            f"{path} claims {' x '.join(map(str, sizes))} voxels, more than a scanner writes:"
            " its header is damaged, or it must be cropped or resampled first."
        )
        raise StudyError(msg)


def _too_short(path: Path, found: int, expected: int) -> StudyError:
    return StudyError(
        f"{path} holds {found} of the {expected} bytes its header claims: it is truncated, copy it again."
    )


def _check_raw(path: Path, start: int, expected: int) -> None:
    held = path.stat().st_size - start
    if held < expected:
        raise _too_short(path, max(0, held), expected)


def _check_gzip(path: Path, start: int, expected: int) -> None:
    """Whether a gzip stream from byte ``start`` on holds ``expected`` bytes, without keeping them.

    The last four bytes of a gzip file are its length modulo 2^32 (RFC 1952). Only where they do not confirm the
    header is the stream read through, a megabyte at a time.
    """
    packed = path.stat().st_size - start
    if expected > packed * MAX_DEFLATE_RATIO:
        raise _too_short(path, packed * MAX_DEFLATE_RATIO, expected)
    with path.open("rb") as file:
        file.seek(-4, 2)
        if struct.unpack("<I", file.read(4))[0] == expected % 2**32:
            return
        file.seek(start)
        found = 0
        try:
            with gzip.open(file) as stream:
                while found < expected and (block := stream.read(1 << 20)):
                    found += len(block)
        except (EOFError, OSError, zlib.error):
            raise _too_short(path, found, expected) from None
    if found < expected:
        raise _too_short(path, found, expected)


@lru_cache(maxsize=4096)
def check_sum(path: Path, stamp: tuple[int, int]) -> None:
    """Reads a gzip file through, once: images are loaded again for every use. The stamp tells a file that has changed.

    Raises:
        StudyError: Its content is not what its checksum says.
    """
    del stamp
    try:
        with gzip.open(path) as stream:
            while stream.read(1 << 20):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error):
        msg = f"{path} is damaged (its content does not agree with its checksum): copy it again."
        raise StudyError(msg) from None


# ---------------------------------------------------------------------------------------------
# NIfTI (nifti1.h and nifti2.h of the NIfTI standard: byte offsets of the fields)


def _nifti(path: Path) -> Claim:
    packed = _packed(path)
    with gzip.open(path) if packed else path.open("rb") as file:
        head = file.read(544)
    version, order = _nifti_version(path, head)
    if packed != path.name.lower().endswith(".gz"):
        # ITK goes by the name.
        is_what, ending = ("compressed", ".nii.gz") if packed else ("not compressed", ".nii")
        msg = f"{path} is {is_what}, which its name does not say: let its name end in {ending}."
        raise StudyError(msg)
    number = _Fields(head, order)
    if version == 1:
        dims, kind, start = number("8h", 40), number("h", 70)[0], number("f", 108)[0]
        steps, codes = number("8f", 76), number("2h", 252)
        quaternion, rows = number("6f", 256), number("12f", 280)
    else:
        dims, kind, start = number("8q", 16), number("h", 12)[0], number("q", 168)[0]
        steps, codes = number("8d", 104), number("2i", 344)
        quaternion, rows = number("6d", 352), number("12d", 400)
    sizes = _nifti_sizes(path, dims)
    spacing = steps[1 : 1 + min(3, len(sizes))]
    if not all(math.isfinite(v) and v > 0 for v in spacing):
        shown = " x ".join(f"{v:g}" for v in spacing)
        msg = f"{path} has the voxel spacing {shown} mm in its header (pixdim): correct the header, or export it again."
        raise StudyError(msg)
    if kind not in NIFTI_BYTES:
        msg = f"{path} holds colour, complex or unknown pixels (NIfTI datatype {kind:g}): export grey values."
        raise StudyError(msg)
    if not math.isfinite(start) or not 0 <= start < 2**31:
        msg = f"{path} says that its pixels start at byte {start:g}: its header is damaged, export it again."
        raise StudyError(msg)
    expected = math.prod(sizes) * NIFTI_BYTES[int(kind)] + int(start)
    (_check_gzip if packed else _check_raw)(path, 0, expected)
    used = rows if codes[1] > 0 else quaternion
    if not all(math.isfinite(v) for v in used):
        msg = f"{path} has a number that is not finite in its orientation: correct the header, or export it again."
        raise StudyError(msg)
    return Claim(sizes, 3 if len(sizes) > 3 else None, max(codes) > 0, _affines(steps, codes, quaternion, rows))


def _packed(path: Path) -> bool:
    """Whether a NIfTI file is compressed, whatever its name says."""
    with path.open("rb") as plain:
        return plain.read(2) == b"\x1f\x8b"


def nifti_is_finite(path: Path) -> bool:
    """Whether all pixels of a NIfTI file are finite numbers; ITK's reader turns those that are not into 0.

    Raises:
        StudyError: The file is no NIfTI file, or damaged.
    """
    try:
        with gzip.open(path) if _packed(path) else path.open("rb") as file:
            return all(np.isfinite(block).all() for block in _float_pixels(path, file))
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error


def _float_pixels(path: Path, file: BinaryIO | gzip.GzipFile) -> Iterator[Array]:
    """The pixels of a NIfTI file, some millions at a time; none where they are whole numbers."""
    head = file.read(544)
    version, order = _nifti_version(path, head)
    number = _Fields(head, order)
    kind, start = (number("h", 70), number("f", 108)) if version == 1 else (number("h", 12), number("q", 168))
    if kind[0] not in NIFTI_FLOATS:
        return
    pixel = np.dtype(order + NIFTI_FLOATS[int(kind[0])])
    file.seek(int(start[0]))
    while len(block := file.read(1 << 24)) >= pixel.itemsize:
        yield np.frombuffer(block, pixel, len(block) // pixel.itemsize)


@dataclass(frozen=True)
class _Fields:
    head: bytes
    order: str

    def __call__(self, kind: str, at: int) -> tuple[float, ...]:
        return struct.unpack_from(self.order + kind, self.head, at)


def _nifti_version(path: Path, head: bytes) -> tuple[int, str]:
    for version, length, needed in ((1, 348, 352), (2, 540, 540)):
        for order in "<>":
            if len(head) >= needed and struct.unpack_from(order + "i", head)[0] == length:
                magic = head[344:348] if version == 1 else head[4:8]
                if magic[:2] in (b"n+", b"\0\0") or magic[:3] == b"n+1":
                    return version, order
                msg = f"{path} is a NIfTI header without its pixels (magic {magic!r}): give the single .nii file."
                raise StudyError(msg)
    msg = f"{path} is not a NIfTI file, whatever its name says: export it again, or name it after what it is."
    raise StudyError(msg)


def _nifti_sizes(path: Path, dims: tuple[float, ...]) -> tuple[int, ...]:
    count = int(dims[0])
    if not 1 <= count <= 7:
        msg = f"{path} claims {count} dimensions in its header: it is damaged, export it again."
        raise StudyError(msg)
    sizes = [int(n) for n in dims[1 : 1 + count]]
    while len(sizes) > 3 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) < 3:
        msg = f"{path} is a flat {len(sizes)}-D image without a place in the patient: save it as 3-D with one slice."
        raise StudyError(msg)
    if len(sizes) > 4:
        msg = f"{path} has {len(sizes)} dimensions, expected three, or four with time: save one volume a file."
        raise StudyError(msg)
    _check_sizes(path, tuple(sizes), (3,))
    return tuple(sizes)


def quaternion_affine(steps: tuple[float, ...], quaternion: tuple[float, ...]) -> Array:
    """RAS affine ``(3, 4)`` of a NIfTI qform (method 2 of nifti1.h).

    Args:
        steps: ``pixdim``: handedness, then mm along the axes.
        quaternion: ``quatern_b, c, d`` and ``qoffset_x, y, z``.
    """
    b, c, d = quaternion[:3]
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    scale = np.array([steps[1], steps[2], steps[3] * (-1 if steps[0] < 0 else 1)])
    return np.column_stack([rotation * scale, quaternion[3:6]])


def _affines(
    steps: tuple[float, ...], codes: tuple[float, ...], quaternion: tuple[float, ...], rows: tuple[float, ...]
) -> dict[str, Array]:
    found = {}
    if codes[1] > 0:
        found["sform"] = np.reshape(rows, (3, 4))
    if codes[0] > 0 and np.isfinite([*quaternion, *steps[:4]]).all():
        found["qform"] = quaternion_affine(steps, quaternion)
    return found


# ---------------------------------------------------------------------------------------------
# NRRD (https://teem.sourceforge.net/nrrd/format.html)


def _lines(file: BinaryIO, path: Path) -> list[str]:
    """Header lines up to the blank one (NRRD) or the one that names the data (MetaImage)."""
    lines: list[str] = []
    while file.tell() < MAX_TEXT_HEADER:
        raw = file.readline(MAX_TEXT_HEADER)
        line = raw.decode("utf-8", "replace").strip()
        if not raw.endswith(b"\n") or not line:
            return lines
        lines.append(line)
        if line.replace(" ", "").lower().startswith("elementdatafile="):
            return lines
    msg = f"{path} has a header that never ends: it is damaged, export it again."
    raise StudyError(msg)


def _integers(path: Path, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split())
    except ValueError:
        msg = f"{path} has the size '{text[:60]}' in its header, expected whole numbers: export it again."
        raise StudyError(msg) from None


def _check_dimensions(path: Path, claimed: str, sizes: tuple[int, ...]) -> None:
    """Whether the number of dimensions is small and fits the sizes: ITK believes it unseen, and crashes."""
    if claimed.strip() != str(len(sizes)) or not 2 <= len(sizes) <= 5:
        msg = f"{path} claims '{claimed[:20]}' dimensions and {len(sizes)} sizes: its header is damaged, save it again."
        raise StudyError(msg)


def _check_numbers(path: Path, key: str, text: str, count: int) -> None:
    try:
        values = [float(word) for word in text.split()]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        msg = f"{path} has '{text[:40]}' for {key}, expected {count} numbers: its header is damaged, export it again."
        raise StudyError(msg)


def _nrrd(path: Path) -> Claim:
    with path.open("rb") as file:
        if not file.read(16).startswith(b"NRRD"):
            msg = f"{path} is not an NRRD file, whatever its name says: export it again."
            raise StudyError(msg)
        file.seek(0)
        lines = _lines(file, path)
        start = file.tell()
    pairs = [line.split(":", 1) for line in lines[1:] if ":" in line and not line.startswith("#")]
    fields = {key.strip().lower(): value.lstrip("=").strip() for key, value in pairs}
    if "data file" in fields or "datafile" in fields:
        msg = f"{path} keeps its pixels in another file, which is not followed: save it as one .nrrd file."
        raise StudyError(msg)
    sizes = _integers(path, fields.get("sizes", ""))
    _check_dimensions(path, fields.get("dimension", ""), sizes)
    kinds = fields.get("kinds", "").split()
    others = [k for k, kind in enumerate(kinds) if kind.lower() in ("list", "time")]
    _check_sizes(path, sizes, tuple(others))
    expected = math.prod(sizes) * NRRD_BYTES.get(fields.get("type", "").lower(), 1)
    encoding = fields.get("encoding", "").lower()
    if encoding in ("gzip", "gz"):
        _check_gzip(path, start, expected)
    elif encoding == "raw":
        _check_raw(path, start, expected)
    elif encoding not in ("bzip2", "bz2", "ascii", "text", "txt", "hex"):
        msg = f"{path} has the unknown encoding '{encoding[:40]}': save it with gzip or raw encoding."
        raise StudyError(msg)
    return Claim(sizes, others[0] if others else None, "space directions" in fields, {}, fields)


# ---------------------------------------------------------------------------------------------
# MetaImage (https://itk.org/Wiki/ITK/MetaIO/Documentation)


def _meta(path: Path) -> Claim:
    with path.open("rb") as file:
        lines = _lines(file, path)
        start = file.tell()
    fields = {k.strip(): v.strip() for k, v in (line.split("=", 1) for line in lines if "=" in line)}
    if "DimSize" not in fields or "ElementDataFile" not in fields:
        msg = f"{path} is not a MetaImage file, whatever its name says: export it again."
        raise StudyError(msg)
    if fields["ElementDataFile"] != "LOCAL":
        msg = f"{path} keeps its pixels in another file, which is not followed: save it as one .mha file."
        raise StudyError(msg)
    sizes = _integers(path, fields["DimSize"])
    _check_dimensions(path, fields.get("NDims", ""), sizes)
    for key, power in META_NUMBERS.items():
        if key in fields:
            _check_numbers(path, key, fields[key], len(sizes) ** power)
    if fields.get("ElementType") not in META_BYTES:
        msg = f"{path} has pixels of the unknown kind '{fields.get('ElementType', '')[:40]}': export grey values."
        raise StudyError(msg)
    _check_sizes(path, sizes, (3,))
    expected = math.prod(sizes) * META_BYTES.get(fields.get("ElementType", ""), 1)
    if fields.get("CompressedData", "False").lower() == "true":
        held = path.stat().st_size - start
        if expected > held * MAX_DEFLATE_RATIO or held < _claimed_length(fields):
            raise _too_short(path, held, max(expected, _claimed_length(fields)))
    else:
        _check_raw(path, start, expected)
    return Claim(
        sizes, 3 if len(sizes) > 3 else None, "TransformMatrix" in fields or "Orientation" in fields, {}, fields
    )


def _claimed_length(fields: dict[str, str]) -> int:
    text = fields.get("CompressedDataSize", "0")
    return int(text) if text.isdigit() else 0
