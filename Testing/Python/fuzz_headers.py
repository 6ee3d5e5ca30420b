"""Mutates DICOM and NIfTI headers and reads the results: nothing but a StudyError may come out, and soon.

Run by hand: ``python Testing/Python/fuzz_headers.py 20000 [seed]``. Each block of cases runs in a child process, so
that a crash of a C++ reader is seen as one and the case can be repeated from its number.
"""

from __future__ import annotations

import faulthandler
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "SSLPretrain")]

import SimpleITK as sitk  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402

from exam_maker import dataset  # noqa: E402
from exam_maker import plane  # noqa: E402
from exam_maker import save  # noqa: E402
from SSLEngine.studies import StudyError  # noqa: E402
from SSLEngine.studies import inspect  # noqa: E402

#: A case that computes longer counts as hung, seconds; one that waits four times as long is ended.
TOO_LONG = 5.0
BLOCK = 500
#: Numbers that break parsers.
NASTY = [0, 1, 0x7F, 0x80, 0xFF]
WORDS = [b"NaN", b"-1", b"1e999", b"\\", b"0", b"\xff\xff\xff\xff", b"\0\0\0\0", b"99999999", b"../../", b"%s%n"]


def seeds(folder: Path) -> dict[str, bytes]:
    """Sound files to mutate: DICOM single and multi-frame, explicit and implicit, NIfTI-1 in 3-D and 4-D, NRRD, MHA."""
    one = plane((0.62, -0.65, -0.44), (10, 20, 30), size=8)
    pixels = np.arange(64).reshape(8, 8)
    found = {}
    for name, syntax in (("explicit", "1.2.840.10008.1.2.1"), ("implicit", "1.2.840.10008.1.2")):
        extra = {"TriggerTime": "12.5", "SeriesDescription": "cine", "EchoTime": "1.5", "RescaleSlope": "2"}
        found[name + ".dcm"] = save(dataset(one, pixels, **extra), folder / "x", syntax).read_bytes()
    found["frames.dcm"] = save(_multi_frame(one), folder / "x").read_bytes()
    for name, shape in (("a.nii", (3, 8, 8)), ("b.nii", (2, 3, 8, 8)), ("c.nrrd", (3, 8, 8)), ("d.mha", (3, 8, 8))):
        image = sitk.GetImageFromArray(np.arange(np.prod(shape)).reshape(shape).astype(np.int16), isVector=False)
        sitk.WriteImage(image, str(folder / name))
        found[name] = (folder / name).read_bytes()
    return found


def _multi_frame(one: object) -> Dataset:
    ds = dataset(one, SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1", NumberOfFrames=2)  # type: ignore[arg-type]
    groups = []
    for k in range(2):
        group, position, orientation = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 8 * k]
        orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        group.PlanePositionSequence = Sequence([position])
        group.PlaneOrientationSequence = Sequence([orientation])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    ds.PixelData = bytes(2 * 64 * 2)
    return ds


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """A few changes, most of them in the header: bytes, bits, words, cuts, repeats, insertions."""
    changed = bytearray(data)
    header = min(len(changed), 352 if data[:2] == b"\x5c\x01" else max(64, len(changed) - 256))
    for _ in range(int(rng.integers(1, 8))):
        at = int(rng.integers(0, max(1, header if rng.random() < 0.9 else len(changed))))
        at = min(at, max(0, len(changed) - 1))
        kind = rng.integers(0, 7)
        if kind == 0:
            changed[at : at + 1] = bytes([int(rng.choice(NASTY))])
        elif kind == 1 and changed:
            changed[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 2:
            word = WORDS[int(rng.integers(len(WORDS)))]
            changed[at : at + len(word)] = word
        elif kind == 3:
            changed[at : at + 4] = rng.bytes(4)
        elif kind == 4 and rng.random() < 0.3:
            del changed[at:]
        elif kind == 5 and rng.random() < 0.3:
            changed[at:at] = changed[at : at + int(rng.integers(1, 64))]
        elif kind == 6 and rng.random() < 0.3:
            del changed[at : at + int(rng.integers(1, 16))]
    return bytes(changed)


def run_case(number: int, seed: int, sound: dict[str, bytes], folder: Path) -> str:
    """Makes one file and reads it; returns what came of it.

    Raises:
        Exception: Anything but a StudyError that the reader let out.
    """
    rng = np.random.default_rng([seed, number])
    name = list(sound)[number % len(sound)]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / name).write_bytes(mutate(sound[name], rng))
    start = time.process_time()
    try:
        inspect(folder)
        result = "read"
    except StudyError as error:
        result = "refused"
        if "\n" in str(error) or not str(error).strip():
            raise AssertionError(f"no clear sentence: {str(error)!r}") from error
    if time.process_time() - start > TOO_LONG:
        raise AssertionError(f"{name} took {time.process_time() - start:.1f} s")
    return result


def run_block(first: int, last: int, seed: int) -> Counter[str]:
    """Runs the cases from ``first`` to before ``last`` in this process."""
    results: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as work:
        (Path(work) / "seeds").mkdir()
        sound = seeds(Path(work) / "seeds")
        for number in range(first, last):
            faulthandler.dump_traceback_later(4 * TOO_LONG, exit=True)
            try:
                results[run_case(number, seed, sound, Path(work) / "case")] += 1
            except Exception as error:
                results["bad"] += 1
                sys.stderr.write(f"case {number}: {type(error).__name__}: {error}\n")
            faulthandler.cancel_dump_traceback_later()
    return results


def main(arguments: list[str]) -> int:
    """Runs all cases in blocks, a child process each."""
    if arguments[:1] == ["--block"]:
        first, last, seed = map(int, arguments[1:])
        results = run_block(first, last, seed)
        sys.stdout.write(" ".join(f"{k}={v}" for k, v in results.items()) + "\n")
        return 0
    count, seed = int(arguments[0]) if arguments else 20_000, int(arguments[1]) if len(arguments) > 1 else 0
    total: Counter[str] = Counter()
    for first in range(0, count, BLOCK):
        last = min(count, first + BLOCK)
        command = [sys.executable, __file__, "--block", str(first), str(last), str(seed)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        sys.stderr.write(done.stderr if done.returncode else "".join(_cases(done.stderr)))
        if done.returncode:
            total["crashed"] += 1
            sys.stderr.write(f"cases {first} to {last - 1}: the process ended with {done.returncode}\n")
        for pair in done.stdout.split():
            total[pair.split("=")[0]] += int(pair.split("=")[1])
    sys.stdout.write(f"{count} cases, seed {seed}: " + ", ".join(f"{v} {k}" for k, v in sorted(total.items())) + "\n")
    return 1 if total["bad"] or total["crashed"] else 0


def _cases(text: str) -> list[str]:
    return [line for line in text.splitlines(keepends=True) if line.startswith("case ")]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
