"""The index of a heap of DICOM files: one :class:`Frame` for every acquired image, and what had to be left out.

Only headers are read, several files at a time, and only the elements below are decoded: pydicom's conversion of every
element would take longer than reading the files. Nothing is kept between calls.
"""

from __future__ import annotations

import logging
import math
import struct
import time
import warnings
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Literal

import pydicom
import pydicom.config

from ..geometry import MAX_COSINE_ERROR
from .claims import MAX_DEFLATE_RATIO
from .study import Irregularity

#: What to do about series without a FrameOfReferenceUID.
FramePolicy = Literal["require", "warn", "ignore"]

#: Pixels of one image, and images in one file, above which a header is not believed.
MAX_IMAGE_PIXELS = 2**26
MAX_FRAMES = 2**16
#: A deflated file that grows beyond this is not opened.
MAX_INFLATED_BYTES = 2**29
#: Files are read by so many threads: more would only fight over Python's lock (measured).
THREADS = 4
#: Reading that takes this many times its processor time is waiting for the disk.
WAITING = 3.0
#: Files that one thread reads before it reports.
CHUNK = 32

DEFLATED = b"1.2.840.10008.1.2.1.99"
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
_CLASSES = "1.2.840.10008.5.1.4.1.1."
#: SOP classes of multi-frame images with functional groups: enhanced MR and legacy converted enhanced MR.
ENHANCED = (_CLASSES + "4.1", _CLASSES + "4.4")
#: Starts of SOP class UIDs that hold no acquired image, and what they are called.
NO_IMAGES = {
    _CLASSES + "88.": "a structured report",
    _CLASSES + "104.": "an encapsulated document",
    _CLASSES + "11.": "a presentation state",
    _CLASSES + "66.4": "a segmentation object",
    _CLASSES + "66": "raw data or a registration",
    _CLASSES + "4.2": "spectroscopy",
    _CLASSES + "9.": "a waveform",
    _CLASSES + "7": "a secondary capture",
    "1.2.840.10008.1.3.10": "a DICOMDIR, which only lists other files",
}


class UnusableError(ValueError):
    """A file or frame is left out.

    Attributes:
        what: What it is, a phrase that goes on from "this file:".
        remedy: What to do about it.
    """

    def __init__(self, what: str, remedy: str = "export or copy it again") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


ORIGINAL = "export it again with its full header"


@dataclass(frozen=True)
class Frame:
    """One acquired image: a single-frame file, or one frame of a multi-frame one.

    Attributes:
        path: The file.
        index: Number of the frame in the file.
        patient_id: PatientID, possibly empty.
        study_uid: StudyInstanceUID.
        series_uid: SeriesInstanceUID.
        sop_uid: SOPInstanceUID.
        texts: What else is shown: description, protocol, body part, laterality and the like.
        series_number: SeriesNumber, 0 where missing.
        instance: InstanceNumber, or the frame's number; 0 where missing.
        acquisition: AcquisitionNumber, 0 where missing.
        acquired: Acquisition (else content) date and time as written, for order only.
        position: ImagePositionPatient.
        orientation: ImageOrientationPatient.
        spacing: PixelSpacing, [between rows, between columns].
        rows: Rows.
        columns: Columns.
        thickness: SliceThickness in mm, 0 where missing.
        echo_time: EchoTime in ms, 0 where missing.
        trigger_time: Trigger time in ms, None where missing.
        temporal: TemporalPositionIdentifier, None where missing.
        frame_of_reference: FrameOfReferenceUID, None where blank or missing.
        image_type: ImageType, upper case.
        frames: Frames in the file.
    """

    path: Path
    index: int
    patient_id: str
    study_uid: str
    series_uid: str
    sop_uid: str
    texts: tuple[tuple[str, str], ...]
    series_number: int
    instance: int
    acquisition: int
    acquired: str
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    rows: int
    columns: int
    thickness: float
    echo_time: float
    trigger_time: float | None
    temporal: int | None
    frame_of_reference: str | None
    image_type: tuple[str, ...]
    frames: int = 1

    @property
    def series(self) -> str:
        """What tells its series from others: the SeriesInstanceUID, or the folder where that was stripped."""
        return self.series_uid or str(self.path.parent)

    @property
    def who(self) -> str:
        """A name for the patient that is safe to show and to use as a file name."""
        return safe_name(self.patient_id) or f"study-{self.study_uid[-8:]}"

    @property
    def text(self) -> dict[str, str]:
        """The texts as a dictionary."""
        return dict(self.texts)


def safe_name(text: str) -> str:
    """A header's text as a plain file name: letters, digits, blanks and ``-_.``, no path, at most 60 characters."""
    kept = "".join(c if c.isalnum() or c in " -_." else "_" for c in text)
    return " ".join(kept.split()).strip(" ._")[:60].rstrip(" .")


# ---------------------------------------------------------------------------------------------
# Elements. pydicom's raw elements are decoded here: text, decimal strings and small integers are all that is needed.


Elements = Mapping[int, Any]


def _elements(ds: pydicom.Dataset) -> Elements:
    """The undecoded elements by number. pydicom's own look-up makes a tag object each time, which is slow."""
    return {int(element.tag): element for element in ds.values()}


def _text(ds: Elements, tag: int) -> str:
    item = ds.get(tag)
    value = None if item is None else item.value
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8").strip(" \0")
        except UnicodeDecodeError:
            return value.decode("latin-1").strip(" \0")
    if value is None:
        return ""
    return "\\".join(map(str, value)) if isinstance(value, (list, pydicom.multival.MultiValue)) else str(value)


_BINARY = {"FD": "d", "FL": "f", "US": "H", "SS": "h", "UL": "I", "SL": "i"}


def _numbers(ds: Elements, tag: int) -> list[float]:
    """Values of a numeric element, whatever VR it was written with; empty where it is missing or no number."""
    item = ds.get(tag)
    if item is None or not item.value:
        return []
    kind = _BINARY.get(item.VR or "")
    try:
        if kind and isinstance(item.value, bytes):
            order = "<" if getattr(item, "is_little_endian", True) else ">"
            return [float(v[0]) for v in struct.iter_unpack(order + kind, item.value)]
        return [float(word) for word in _text(ds, tag).split("\\")]
    except (ValueError, struct.error):
        return []


def _count(ds: Elements, tag: int) -> int:
    """A 16-bit element such as Rows; its VR is not written in implicit syntax. 0 where it is missing or nonsense."""
    item = ds.get(tag)
    if item is not None and isinstance(item.value, bytes) and item.VR in (None, "US", "UN") and len(item.value) == 2:
        order = "<" if getattr(item, "is_little_endian", True) else ">"
        return int(struct.unpack(order + "H", item.value)[0])
    return _whole(_numbers(ds, tag))


def _whole(values: Sequence[float]) -> int:
    return int(values[0]) if values and abs(values[0]) < 2**31 else 0


_TEXTS = {
    "description": 0x0008103E,
    "protocol": 0x00181030,
    "body_part": 0x00180015,
    "study_description": 0x00081030,
    "series_number": 0x00200011,
    "manufacturer": 0x00080070,
    "modality": 0x00080060,
    "patient_position": 0x00185100,
}
_LATERALITY = (0x00200062, 0x00200060)


def _texts(ds: Elements) -> tuple[tuple[str, str], ...]:
    found = {key: _text(ds, tag)[:200] for key, tag in _TEXTS.items()}
    found["laterality"] = next((t for tag in _LATERALITY if (t := _text(ds, tag))), "")
    return tuple((key, value) for key, value in found.items() if value)


# ---------------------------------------------------------------------------------------------
# One file


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Pydicom warns about every odd value, in threads and on the terminal; the odd ones that matter are reported."""
    mode, log = pydicom.config.settings.reading_validation_mode, logging.getLogger("pydicom")
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
        log.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            pydicom.config.settings.reading_validation_mode = mode
            log.setLevel(level)


def is_dicom(head: bytes) -> bool:
    """Whether a file starts like DICOM: the usual preamble, or a first element of group 2 or 8 without one."""
    return head[128:132] == b"DICM" or head[:2] in (b"\x08\0", b"\x02\0")


def read_frames(path: Path) -> list[Frame]:
    """All acquired images of one file.

    Raises:
        UnusableError: The file is not DICOM, or holds no image that can be placed in the patient.
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    if size == 0:
        raise UnusableError("empty (0 bytes)")
    with path.open("rb") as file:
        head = file.read(1024)
        if not is_dicom(head):
            raise UnusableError(
                "not DICOM, whatever its name says", "give DICOM files, or volumes such as .nii.gz and .nrrd"
            )
        deflated = DEFLATED in head
        if deflated and size * MAX_DEFLATE_RATIO > MAX_INFLATED_BYTES:
            raise UnusableError("deflated, and too large to be opened safely", "uncompress it with dcmconv")
        file.seek(0)
        try:
            ds = pydicom.dcmread(file, stop_before_pixels=True, force=True)
            # pydicom stops in front of the pixels: what is left is theirs. What is deflated it has read to the end.
            return _frames(path, ds, size * MAX_DEFLATE_RATIO if deflated else size - file.tell())
        except UnusableError:
            raise
        except MemoryError as error:
            raise UnusableError("it claims more than fits into memory") from error
        except Exception as error:
            # pydicom raises whatever its parsers meet in a damaged file, from KeyError to RecursionError.
            raise UnusableError("damaged") from error


def _frames(path: Path, ds: pydicom.Dataset, held: int) -> list[Frame]:
    elements = _elements(ds)
    sop_class = _text(elements, 0x00080016)
    for start, what in NO_IMAGES.items():
        if sop_class == start or (start.endswith(".") and sop_class.startswith(start)):
            raise UnusableError(what, "give the images")
    rows, columns = _count(elements, 0x00280010), _count(elements, 0x00280011)
    frames = max(1, _whole(_numbers(elements, 0x00280008)))
    # Without a file meta group the syntax is one of the uncompressed ones.
    syntax = str(getattr(getattr(ds, "file_meta", None), "TransferSyntaxUID", None) or UNCOMPRESSED[0])
    _check_size(elements, syntax, rows, columns, frames, held)
    if frames > 1 or sop_class in ENHANCED:
        # Imported here because it builds on what stands above.
        from .dicom_enhanced import enhanced_frames

        return enhanced_frames(ds, _frame(path, elements, rows, columns))
    frame = _frame(path, elements, rows, columns)
    check_placed(frame)
    return [frame]


def _check_size(ds: Elements, syntax: str, rows: int, columns: int, frames: int, held: int) -> None:
    """Whether the file is long enough for the pixels that its header claims."""
    if not rows or not columns:
        raise UnusableError("it holds no image", "give the images")
    if rows * columns > MAX_IMAGE_PIXELS or frames > MAX_FRAMES:
        raise UnusableError("it claims more pixels than a scanner writes")
    if _count(ds, 0x00280002) > 1:
        raise UnusableError("a colour image (a screen shot)", "give the original images")
    bits = _count(ds, 0x00280100) or 16
    if syntax in UNCOMPRESSED and held < rows * columns * frames * (bits / 8):
        raise UnusableError("truncated, shorter than the pixels that it claims", "copy it again")
    # JPEG and its relatives do not exceed this even on empty images.
    if held * 4000 < rows * columns * frames:
        raise UnusableError("truncated, shorter than the pixels that it claims", "copy it again")


def _frame(path: Path, ds: Elements, rows: int, columns: int) -> Frame:
    triggers = _numbers(ds, 0x00181060) or _numbers(ds, 0x00209153)
    temporal = _numbers(ds, 0x00200100)
    date = _text(ds, 0x00080022) or _text(ds, 0x00080023)
    return Frame(
        path=path,
        index=0,
        patient_id=_text(ds, 0x00100020),
        study_uid=_text(ds, 0x0020000D),
        series_uid=_text(ds, 0x0020000E),
        sop_uid=_text(ds, 0x00080018),
        texts=_texts(ds),
        series_number=_whole(_numbers(ds, 0x00200011)),
        instance=_whole(_numbers(ds, 0x00200013)),
        acquisition=_whole(_numbers(ds, 0x00200012)),
        acquired=date + (_text(ds, 0x00080032) or _text(ds, 0x00080033)),
        position=tuple(_numbers(ds, 0x00200032)),
        orientation=tuple(_numbers(ds, 0x00200037)),
        spacing=tuple(_numbers(ds, 0x00280030)),
        rows=rows,
        columns=columns,
        thickness=_positive(_numbers(ds, 0x00180050)),
        echo_time=_positive(_numbers(ds, 0x00180081)),
        trigger_time=_finite(triggers),
        temporal=_whole(temporal) if temporal else None,
        frame_of_reference=_text(ds, 0x00200052) or None,
        image_type=tuple(word.strip().upper() for word in _text(ds, 0x00080008).split("\\")),
    )


def _finite(values: Sequence[float]) -> float | None:
    return values[0] if values and math.isfinite(values[0]) else None


def _positive(values: Sequence[float]) -> float:
    value = _finite(values)
    return value if value is not None and 0 < value < 1e4 else 0.0


def check_placed(frame: Frame) -> None:
    """Whether a frame says where it lies.

    Raises:
        UnusableError: Position, orientation or spacing is missing or nonsense.
    """
    if len(frame.orientation) != 6 or len(frame.position) != 3:
        raise UnusableError("no position or orientation in the patient (a screen shot or a stripped header)", ORIGINAL)
    if len(frame.spacing) != 2:
        raise UnusableError("no pixel spacing", ORIGINAL)
    if not all(math.isfinite(v) and 0 < v < 100 for v in frame.spacing):
        raise UnusableError("its pixel spacing is no positive number", "correct PixelSpacing")
    if not all(math.isfinite(v) and abs(v) < 1e5 for v in (*frame.position, *frame.orientation)):
        raise UnusableError("its position or orientation is no finite number", "correct the header")
    r, c = frame.orientation[:3], frame.orientation[3:]
    lengths = math.hypot(*r), math.hypot(*c)
    if min(lengths) < 0.5 or max(lengths) > 1.5:
        raise UnusableError("its orientation vectors do not have length 1", "correct ImageOrientationPatient")
    if abs(sum(a * b for a, b in zip(r, c, strict=True))) / (lengths[0] * lengths[1]) > MAX_COSINE_ERROR:
        raise UnusableError("its row and column directions are not perpendicular", "correct ImageOrientationPatient")


# ---------------------------------------------------------------------------------------------
# Many files


def find_dicom(
    paths: Sequence[Path], progress: Callable[[int, int, str], None] | None = None
) -> tuple[list[Frame], list[Irregularity]]:
    """Frames of all DICOM files among some paths, in the order of the paths, and what was left out.

    Where the disk is slow (a network drive), several threads read: waiting releases Python's lock. Where it is fast
    they would only fight for that lock (three times the processor time, measured), so the first files are read alone
    and tell which. Processes would cost more to start than they save, and cannot be started inside an application.
    """
    chunks = [paths[k : k + CHUNK] for k in range(0, len(paths), CHUNK)]
    frames: list[Frame] = []
    left_out: dict[tuple[str, str], list[Path]] = {}
    done = 0
    with quiet_pydicom():
        for results in _chunks_read(chunks):
            for path, found in results:
                if isinstance(found, UnusableError):
                    left_out.setdefault((found.what, found.remedy), []).append(path)
                else:
                    frames += found
            done += len(results)
            if progress:
                progress(done, len(paths), "reading headers")
    return frames, [_left_out(what, remedy, files) for (what, remedy), files in left_out.items()]


def _chunks_read(chunks: Sequence[Sequence[Path]]) -> Iterator[list[tuple[Path, list[Frame] | UnusableError]]]:
    if not chunks:
        return
    clock, work = time.perf_counter(), time.thread_time()
    yield _read_chunk(chunks[0])
    if time.perf_counter() - clock < WAITING * (time.thread_time() - work):
        yield from map(_read_chunk, chunks[1:])
        return
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(_read_chunk, chunks[1:])


def _read_chunk(paths: Sequence[Path]) -> list[tuple[Path, list[Frame] | UnusableError]]:
    found: list[tuple[Path, list[Frame] | UnusableError]] = []
    for path in paths:
        try:
            found.append((path, read_frames(path)))
        except UnusableError as error:
            found.append((path, error))
        except PermissionError:
            found.append((path, UnusableError("it may not be read", "change its permissions or copy it")))
        except OSError as error:
            found.append((path, UnusableError(f"it cannot be read ({error.strerror})")))
    return found


def _left_out(what: str, remedy: str, files: Sequence[Path]) -> Irregularity:
    where = str(files[0]) + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    return Irregularity(where, what, f"left out; {remedy}")


def group_exams(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Frames by exam: patient and StudyInstanceUID, or patient and frame of reference.

    Some anonymisers give every series a StudyInstanceUID of its own; a common frame of reference shows that they belong
    together. Frames without a PatientID go with those of the same StudyInstanceUID.
    """
    known = {f.study_uid: f.patient_id for f in frames if f.patient_id}
    exams: dict[tuple[str, str], list[Frame]] = {}
    place: dict[tuple[str, str], tuple[str, str]] = {}
    for frame in frames:
        patient = frame.patient_id or known.get(frame.study_uid, "")
        key = place.setdefault((patient, frame.study_uid), (patient, frame.study_uid))
        if frame.frame_of_reference:
            key = place.setdefault((patient, "frame " + frame.frame_of_reference), key)
            place[patient, frame.study_uid] = key
        exams.setdefault(key, []).append(frame)
    return sorted(exams.values(), key=lambda exam: (exam[0].who, exam[0].study_uid))
