"""Broken and odd inputs, each made here: one clear sentence, fast, small, and nothing written."""

from __future__ import annotations

import gzip
import json
import os
import re
import resource
import shutil
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from exam_maker import dataset
from exam_maker import heart_layout
from exam_maker import save
from exam_maker import write_series
from SSLEngine.studies import StudyError
from SSLEngine.studies import inspect
from SSLEngine.studies import inspect_html
from SSLEngine.studies import inspect_text
from SSLEngine.studies import read_cohort
from SSLEngine.studies import read_study

LAYOUT = heart_layout(np.random.default_rng(8))
SAX = LAYOUT["sax"][:4]
Builder = Callable[[Path], object]
ZOO: dict[str, tuple[str, str, Builder]] = {}


def error(words: str) -> Callable[[Builder], Builder]:
    """The input is refused with a sentence that matches."""
    return _case("error", words)


def warning(words: str) -> Callable[[Builder], Builder]:
    """The input is used, and an irregularity matches."""
    return _case("warning", words)


def _case(kind: str, words: str) -> Callable[[Builder], Builder]:
    def keep(builder: Builder) -> Builder:
        ZOO[builder.__name__] = (kind, words, builder)
        return builder

    return keep


def nifti(path: Path, size: tuple[int, ...] = (12, 10, 4), spacing: float = 2.0, value: int | None = None) -> Path:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 500, size[::-1]) if value is None else np.full(size[::-1], value)
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array.astype(np.int16))
    image.SetSpacing((spacing,) * len(size))
    if len(size) == 3:
        image.SetOrigin((30.0, 20.0, 10.0))
    sitk.WriteImage(image, str(path))
    return path


def patched(path: Path, at: int, kind: str, *numbers: float) -> Path:
    """Overwrites bytes of an uncompressed NIfTI header."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<" + kind, data, at, *numbers)
    path.write_bytes(data)
    return path


def one_dicom(folder: Path, **elements: Any) -> Path:
    return save(dataset(SAX[0], np.arange(576).reshape(24, 24), **elements), folder / "a.dcm")


# ------------------------------------------------------------------------------------------ nothing there


@error("holds no image")
def empty_folder(folder: Path) -> None:
    pass


@error("does not exist")
def missing_folder(folder: Path) -> None:
    folder.rmdir()


@error("holds no image")
def only_notes(folder: Path) -> None:
    (folder / "notes.txt").write_text("see the other folder")


@error("is empty")
def zero_byte_nifti(folder: Path) -> None:
    (folder / "a.nii.gz").touch()


@error("empty")
def zero_byte_dicom(folder: Path) -> None:
    (folder / "a.dcm").touch()


@error("holds labels .* but no image")
def labels_without_image(folder: Path) -> None:
    nifti(folder / "a_seg.nii.gz", value=1)


@error("DICOMDIR")
def only_a_dicomdir(folder: Path) -> None:
    one_dicom(folder, SOPClassUID="1.2.840.10008.1.3.10")


# ------------------------------------------------------------------------------------------ damaged files


@error("truncated")
def truncated_nifti(folder: Path) -> None:
    path = nifti(folder / "a.nii")
    path.write_bytes(path.read_bytes()[:-100])


@error("truncated")
def truncated_nifti_gz(folder: Path) -> None:
    path = nifti(folder / "a.nii.gz")
    path.write_bytes(path.read_bytes()[:-100])


@error("damaged or truncated")
def nifti_gz_cut_in_the_header(folder: Path) -> None:
    path = nifti(folder / "a.nii.gz")
    path.write_bytes(path.read_bytes()[:40])


@error("damaged|truncated|cannot be read")
def nifti_gz_with_flipped_bytes(folder: Path) -> None:
    path = nifti(folder / "a.nii.gz")
    data = bytearray(path.read_bytes())
    data[30:300] = bytes(b ^ 0x5A for b in data[30:300])
    path.write_bytes(data)


@warning("damaged")
def nifti_gz_with_other_content_than_its_checksum(folder: Path) -> None:
    # So large that whoever reads the header alone does not come to the checksum.
    path = nifti(folder / "a.nii.gz", (64, 64, 40))
    content = bytearray(gzip.decompress(path.read_bytes()))
    checksum_and_length = gzip.compress(bytes(content))[-8:]
    content[200_000] ^= 0x40
    path.write_bytes(gzip.compress(bytes(content))[:-8] + checksum_and_length)


@error("no valid text: rename it")
def a_name_that_is_no_text(folder: Path) -> None:
    nifti(folder / "a.nii.gz").rename(os.fsdecode(os.fsencode(folder) + b"/x\xff.nii.gz"))


@warning("it is a map of anomalies by its name")
def a_map_of_anomalies_beside_its_image(folder: Path) -> None:
    nifti(folder / "a.nii.gz")
    nifti(folder / "a_anomalies.nii.gz")


@error("truncated")
def truncated_nrrd(folder: Path) -> None:
    path = nifti(folder / "a.nrrd")
    path.write_bytes(path.read_bytes()[:-50])


@error("truncated")
def truncated_mha(folder: Path) -> None:
    path = nifti(folder / "a.mha")
    path.write_bytes(path.read_bytes()[:-50])


@error("truncated")
def truncated_dicom(folder: Path) -> None:
    path = one_dicom(folder)
    path.write_bytes(path.read_bytes()[:-300])


@error("no image|damaged")
def dicom_cut_in_the_header(folder: Path) -> None:
    path = one_dicom(folder)
    path.write_bytes(path.read_bytes()[:420])


@error("damaged|not DICOM|no image|no position")
def noise_with_a_dicom_preamble(folder: Path) -> None:
    noise = np.random.default_rng(0).bytes(20_000)
    (folder / "a.dcm").write_bytes(bytes(128) + b"DICM" + noise)


@error("not a NIfTI file")
def text_named_nii(folder: Path) -> None:
    (folder / "a.nii").write_text("hello " * 200)


@error("not DICOM")
def text_named_dcm(folder: Path) -> None:
    (folder / "a.dcm").write_text("hello " * 200)


@error("not an NRRD file")
def text_named_nrrd(folder: Path) -> None:
    (folder / "a.nrrd").write_text("hello " * 200)


@error("not a MetaImage file")
def text_named_mha(folder: Path) -> None:
    (folder / "a.mha").write_text("hello = \n" * 200)


@error(r"not compressed.*end in \.nii\.")
def plain_nifti_named_gz(folder: Path) -> None:
    nifti(folder / "a.nii").rename(folder / "a.nii.gz")


@error(r"is compressed.*end in \.nii\.gz")
def packed_nifti_named_nii(folder: Path) -> None:
    nifti(folder / "a.nii.gz").rename(folder / "a.nii")


@error(r"rename it to \.mha")
def meta_image_in_capitals(folder: Path) -> None:
    nifti(folder / "a.mha").rename(folder / "A.MHA")


# ------------------------------------------------------------------------------------------ nonsense in headers


@error("no human body")
def metres_for_millimetres(folder: Path) -> None:
    nifti(folder / "a.nii.gz", spacing=0.0014)


@error("no image|truncated")
def wrong_vr_of_rows(folder: Path) -> None:
    ds = dataset(SAX[0])
    del ds.Rows
    ds.add(pydicom.DataElement(0x00280010, "LO", "twenty-four"))
    save(ds, folder / "a.dcm")


@error("no position or orientation")
def wrong_vr_of_position(folder: Path) -> None:
    ds = dataset(SAX[0])
    del ds.ImagePositionPatient
    ds.add(pydicom.DataElement(0x00200032, "LO", ["left", "back", "up"]))
    save(ds, folder / "a.dcm")


@error("no position or orientation")
def missing_orientation(folder: Path) -> None:
    one_dicom(folder, ImageOrientationPatient=None)


@error("no position or orientation")
def missing_position(folder: Path) -> None:
    one_dicom(folder, ImagePositionPatient=None)


@error("no pixel spacing")
def missing_spacing(folder: Path) -> None:
    one_dicom(folder, PixelSpacing=None)


@error("not perpendicular")
def non_orthogonal_cosines(folder: Path) -> None:
    one_dicom(folder, ImageOrientationPatient=[1, 0, 0, 0.3, 0.95, 0])


@error("length 1")
def zero_cosines(folder: Path) -> None:
    one_dicom(folder, ImageOrientationPatient=[0, 0, 0, 0, 0, 0])


def _raw_spacing(folder: Path, text: bytes) -> None:
    path = one_dicom(folder, PixelSpacing=["1.111111", "1.111111"])
    data = path.read_bytes()
    place = data.index(b"1.111111\\1.111111")
    path.write_bytes(data[:place] + text.ljust(17) + data[place + 17 :])


@error("no positive number")
def nan_spacing_dicom(folder: Path) -> None:
    _raw_spacing(folder, b"NaN\\NaN")


@error("no positive number")
def negative_spacing_dicom(folder: Path) -> None:
    _raw_spacing(folder, b"-1.5\\1.5")


@error("no positive number")
def zero_spacing_dicom(folder: Path) -> None:
    _raw_spacing(folder, b"0\\0")


@error("no finite number")
def infinite_position(folder: Path) -> None:
    ds = dataset(SAX[0])
    del ds.ImagePositionPatient
    ds.add(pydicom.DataElement(0x00200032, "LO", ["inf", "0", "0"]))
    save(ds, folder / "a.dcm")


@error("voxel spacing nan")
def nan_spacing_nifti(folder: Path) -> None:
    patched(nifti(folder / "a.nii"), 76, "4f", 1, float("nan"), 2, 2)


@error("voxel spacing -2")
def negative_spacing_nifti(folder: Path) -> None:
    patched(nifti(folder / "a.nii"), 76, "4f", 1, -2, 2, 2)


@error("voxel spacing 0")
def zero_spacing_nifti(folder: Path) -> None:
    patched(nifti(folder / "a.nii"), 76, "4f", 1, 0, 2, 2)


@error("not finite in its orientation")
def nan_affine_nifti(folder: Path) -> None:
    patched(nifti(folder / "a.nii"), 280, "f", float("nan"))


@error("sheared|cannot be read|not perpendicular")
def sheared_nifti(folder: Path) -> None:
    path = patched(nifti(folder / "a.nii"), 280, "12f", 2, 1.5, 0, 0, 0, 2, 1.5, 0, 0, 0, 2, 0)
    patched(path, 252, "2h", 0, 1)


@warning("qform is believed")
def sheared_sform_beside_a_qform(folder: Path) -> None:
    patched(nifti(folder / "a.nii"), 280, "12f", 2, 1.5, 0, 0, 0, 2, 1.5, 0, 0, 0, 2, 0)


@warning("sform and qform.*disagree")
def two_affines(folder: Path) -> None:
    patched(nifti(folder / "a.nii"), 292, "f", 77.0)


@error("claims")
def huge_nifti(folder: Path) -> None:
    patched(nifti(folder / "a.nii"), 40, "8h", 3, 30000, 30000, 30000, 1, 1, 1, 1)


@error("truncated")
def large_nifti_gz_in_a_small_file(folder: Path) -> None:
    path = nifti(folder / "b.nii")
    head = patched(path, 40, "8h", 3, 500, 500, 500, 1, 1, 1, 1).read_bytes()
    path.unlink()
    (folder / "a.nii.gz").write_bytes(gzip.compress(head))


@error("negative|no image|claims|size")
def negative_dimensions(folder: Path) -> None:
    patched(nifti(folder / "a.nii"), 40, "8h", 3, -12, 10, 4, 1, 1, 1, 1)


@error("more pixels than a scanner|truncated")
def huge_dicom(folder: Path) -> None:
    one_dicom(folder, Rows=65535, Columns=65535)


@error("more pixels than a scanner|truncated")
def countless_frames(folder: Path) -> None:
    one_dicom(folder, NumberOfFrames=2**31 - 1)


@error("claims .* more than a scanner")
def huge_nrrd(folder: Path) -> None:
    path = nifti(folder / "a.nrrd")
    path.write_bytes(path.read_bytes().replace(b"sizes: 12 10 4", b"sizes: 9999999 9999999 9999999"))


@error("whole numbers")
def words_for_sizes(folder: Path) -> None:
    path = nifti(folder / "a.nrrd")
    path.write_bytes(path.read_bytes().replace(b"sizes: 12 10 4", b"sizes: a b c"))


@error("cannot be read as an image|spacing")
def nan_directions_nrrd(folder: Path) -> None:
    path = nifti(folder / "a.nrrd")
    path.write_bytes(path.read_bytes().replace(b"(2,0,0)", b"(nan,0,0)"))


@error("colour, complex or unknown")
def colour_nifti(folder: Path) -> None:
    patched(nifti(folder / "a.nii"), 70, "2h", 128, 24)


@error("colour or vector")
def vector_mha(folder: Path) -> None:
    image = sitk.GetImageFromArray(np.zeros((4, 5, 6, 3), np.int16), isVector=True)
    sitk.WriteImage(image, str(folder / "a.mha"))


@error("flat 2-D image")
def flat_nifti(folder: Path) -> None:
    nifti(folder / "a.nii.gz", size=(12, 10))


@error("5 dimensions")
def five_dimensions(folder: Path) -> None:
    patched(nifti(folder / "a.nii"), 40, "8h", 5, 3, 2, 2, 2, 2, 1, 1)


@error("a colour image")
def colour_screen_shot(folder: Path) -> None:
    one_dicom(folder, SamplesPerPixel=3, PixelData=bytes(24 * 24 * 6))


@error("too large to be opened safely")
def deflated_bomb(folder: Path) -> None:
    path = one_dicom(folder)
    with path.open("rb") as file:
        pydicom.filereader.read_preamble(file, False)
        pydicom.filereader._read_file_meta_info(file)
        start = file.tell()
    data = path.read_bytes()
    head = data[:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(1 << 24)) for _ in range(33)) + packer.flush()
    path.write_bytes(head + bomb)


@error("damaged|no image")
def nested_without_end(folder: Path) -> None:
    path = one_dicom(folder)
    item = b"\x08\x00\x11\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"\x08\x00\x16\x00")] + item * 3000)


# ------------------------------------------------------------------------------------------ paths


@error("another file, which is not followed")
def nrrd_pointing_out(folder: Path) -> None:
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nencoding: raw\nendian: little\n"
    (folder / "a.nrrd").write_text(head + "data file: ../../../../etc/passwd\n\n")


@error("another file, which is not followed")
def mha_pointing_out(folder: Path) -> None:
    head = "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\n"
    (folder / "a.mha").write_text(head + "ElementDataFile = ../../../../etc/passwd\n")


@error("are not read")
def analyze_pair(folder: Path) -> None:
    nifti(folder / "a.img")


@warning("view that is not there")
def path_in_study_json(folder: Path) -> None:
    nifti(folder / "a.nii.gz")
    (folder / "study.json").write_text(json.dumps({"organ": "heart", "roles": {"../../../etc/passwd": "sax"}}))


@error("not readable JSON")
def broken_study_json(folder: Path) -> None:
    nifti(folder / "a.nii.gz")
    (folder / "study.json").write_text("{roles: ")


@error("not readable JSON")
def nested_study_json(folder: Path) -> None:
    nifti(folder / "a.nii.gz")
    (folder / "study.json").write_text("[" * 100_000)


@error("expected a whole number and its name")
def odd_number_in_study_json(folder: Path) -> None:
    nifti(folder / "a.nii.gz")
    (folder / "study.json").write_text(json.dumps({"labels": {"²": "LV cavity"}}))


@error("expected one of sax")
def unknown_role_in_study_json(folder: Path) -> None:
    nifti(folder / "a.nii.gz")
    (folder / "study.json").write_text(json.dumps({"roles": {"a": "5ch"}}))


# ------------------------------------------------------------------------------------------ odd but usable


@warning("the file is left out")
def one_bad_file_among_good(folder: Path) -> None:
    nifti(folder / "a.nii.gz")
    (folder / "b.nii.gz").write_bytes(b"no")


@warning("not DICOM")
def one_bad_dicom_among_good(folder: Path) -> None:
    write_series(folder, SAX)
    (folder / "zzz").write_bytes(b"no")


@warning("same value")
def all_black(folder: Path) -> None:
    nifti(folder / "a.nii.gz", value=0)


@warning("same value")
def all_black_dicom(folder: Path) -> None:
    for k, p in enumerate(SAX):
        save(dataset(p, InstanceNumber=k), folder / f"{k}.dcm")


def labels_of(folder: Path, value: float, ending: str = ".nii.gz") -> None:
    nifti(folder / "a.nii.gz")
    labels = sitk.GetImageFromArray(np.full((4, 10, 12), value, np.float32))
    labels.CopyInformation(sitk.ReadImage(str(folder / "a.nii.gz")))
    sitk.WriteImage(labels, str(folder / f"a_seg{ending}"))


@warning(r"a_seg\.nii\.gz should be a label map but holds fractions \(0\.5 for one\).*not labelled")
def labels_with_fractions(folder: Path) -> None:
    labels_of(folder, 0.5)


@warning(r"negative values \(-1 for one\)")
def labels_below_zero(folder: Path) -> None:
    labels_of(folder, -1)


@warning("no finite numbers")
def labels_that_are_no_numbers(folder: Path) -> None:
    labels_of(folder, np.nan)


@warning(r"no finite numbers \(nan for one\)")
def labels_that_are_no_numbers_in_nrrd(folder: Path) -> None:
    labels_of(folder, np.nan, ".nrrd")


@warning("values above 32767")
def labels_too_large(folder: Path) -> None:
    labels_of(folder, 40000)


@warning("another grid")
def labels_on_another_grid(folder: Path) -> None:
    nifti(folder / "a.nii.gz")
    nifti(folder / "a_seg.nii.gz", size=(9, 9, 5), spacing=2.3, value=1)


@warning("no image that these labels belong to")
def labels_of_nobody(folder: Path) -> None:
    nifti(folder / "a.nii.gz")
    nifti(folder / "b_seg.nii.gz", size=(9, 9, 5), value=1)


@warning("label map is empty")
def empty_labels(folder: Path) -> None:
    nifti(folder / "a.nii.gz")
    nifti(folder / "a_seg.nii.gz", value=0)


@warning("its labels are left out")
def damaged_labels(folder: Path) -> None:
    nifti(folder / "a.nii.gz")
    (folder / "a_seg.nii.gz").write_bytes(b"no")


@warning("its labels are left out")
def labels_cut_short(folder: Path) -> None:
    labels_of(folder, 1)
    file = folder / "a_seg.nii.gz"
    file.write_bytes(gzip.compress(gzip.decompress(file.read_bytes())[:1000]))


@warning("does not say where")
def volume_without_position(folder: Path) -> None:
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 99, (4, 8, 8)).astype(np.int16))
    sitk.WriteImage(image, str(folder / "sax.nii.gz"))


@warning("are not read")
def foreign_volume_beside(folder: Path) -> None:
    nifti(folder / "a.nii.gz")
    (folder / "b.mgz").write_bytes(b"mgz")


# ------------------------------------------------------------------------------------------ the test


def _contents(folder: Path) -> list[tuple[str, int]]:
    return sorted((str(f), f.stat().st_mtime_ns) for f in folder.rglob("*")) if folder.exists() else []


def _sentence_about(path: Path, sentence: str) -> None:
    """One line, a full sentence, that names the folder or a file in it and nothing of Python."""
    assert "\n" not in sentence
    assert sentence.rstrip().endswith((".", ".)"))
    assert str(path) in sentence
    assert "Traceback" not in sentence
    assert len(sentence) < 600


def test_the_zoo_is_large_enough() -> None:
    assert len(ZOO) >= 25


@pytest.mark.parametrize("case", ZOO)
def test_zoo(case: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    kind, words, build = ZOO[case]
    folder = tmp_path / "exam"
    folder.mkdir()
    build(folder)
    before = _contents(folder)
    peak, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    if kind == "error":
        with pytest.raises(StudyError, match=words) as refusal:
            inspect(folder)
        _sentence_about(folder, str(refusal.value))
    else:
        report = inspect(folder)
        assert re.search(words, inspect_text(report)), inspect_text(report)
        json.dumps(report)
    assert time.perf_counter() - start < 5
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024 < 1e9
    assert _contents(folder) == before
    assert not [w for w in recwarn if "pydicom" in str(w.filename)]


@pytest.mark.parametrize("name", ["a.nii.gz", "a.dcm"])
def test_unreadable_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Root may read everything, so there the refusal is staged."""
    path = nifti(tmp_path / name) if name.endswith("gz") else one_dicom(tmp_path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        real = Path.open

        def refuse(self: Path, *arguments: Any, **options: Any) -> Any:
            if self == path:
                raise PermissionError(13, "Permission denied", str(self))
            return real(self, *arguments, **options)

        monkeypatch.setattr(Path, "open", refuse)
        monkeypatch.setattr("builtins.open", lambda *a, **k: refuse(Path(a[0]), *a[1:], **k))
    with pytest.raises(StudyError, match=r"may not be read.*permissions"):
        read_study(tmp_path)


def test_unusable_names_stay_names(tmp_path: Path) -> None:
    """Paths and markup in headers and file names neither leave the folder nor enter the page."""
    evil = "../../evil/<script>alert(1)</script>"
    write_series(tmp_path / "exam", SAX, SeriesDescription=evil, PatientID=evil)
    write_series(tmp_path / "exam", LAYOUT["4ch"], SeriesDescription="<b>4ch</b>", PatientID=evil)
    study = read_study(tmp_path / "exam")
    for view in study.views:
        assert not set(view.name) & set("/\\<>")
        assert not view.name.startswith(".")
    odd = tmp_path / "exam <img src=x onerror=alert(1)>"
    (tmp_path / "exam").rename(odd)
    page = inspect_html(odd, tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_bad_study_does_not_spoil_the_cohort(tmp_path: Path) -> None:
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    nifti(tmp_path / "good" / "sax.nii.gz")
    (tmp_path / "bad" / "sax.nii.gz").write_bytes(b"no")
    cohort = read_cohort(tmp_path)
    assert [s.name for s in cohort.studies] == ["good"]
    assert any("bad" in i.where and "left out" in i.consequence for i in cohort.irregularities)
    (tmp_path / "good" / "sax.nii.gz").unlink()
    with pytest.raises(StudyError):
        read_cohort(tmp_path)


def test_linked_folders_are_not_followed(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii.gz")
    (tmp_path / "round").symlink_to(tmp_path, target_is_directory=True)
    assert len(read_study(tmp_path).views) == 1


def test_a_folder_of_exams_is_no_exam(tmp_path: Path) -> None:
    nifti(tmp_path / "exams" / "heart-1" / "sax.nii.gz")
    with pytest.raises(StudyError, match="holds no image itself, but heart-1 in it does: give one exam's folder"):
        read_study(tmp_path / "exams")


def test_linked_exams_of_a_cohort_are_told(tmp_path: Path) -> None:
    nifti(tmp_path / "elsewhere" / "one" / "a.nii.gz")
    nifti(tmp_path / "cohort" / "two" / "a.nii.gz")
    (tmp_path / "cohort" / "one").symlink_to(tmp_path / "elsewhere" / "one", target_is_directory=True)
    cohort = read_cohort(tmp_path / "cohort")
    assert [study.name for study in cohort.studies] == ["two"]
    assert ["one: it is a link to a folder" in i.told for i in cohort.irregularities] == [True]
    shutil.rmtree(tmp_path / "cohort" / "two")
    with pytest.raises(StudyError, match="a link to a folder, which is not followed; put the folder itself there"):
        read_cohort(tmp_path / "cohort")


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_fourth_axis_of_one_phase_is_fine(tmp_path: Path, ending: str) -> None:
    still = sitk.ReadImage(str(nifti(tmp_path / "a.nii.gz")))
    sitk.WriteImage(sitk.JoinSeries([still]), str(tmp_path / f"exam{ending}"))
    view = read_study(tmp_path / f"exam{ending}").views[0]
    assert view.phases == 1
    np.testing.assert_array_equal(view.pixels(), sitk.GetArrayFromImage(still))


def test_a_page_is_not_written_over_an_image(tmp_path: Path) -> None:
    path = nifti(tmp_path / "exam" / "a.nii.gz")
    before = path.read_bytes()
    with pytest.raises(StudyError, match=r"must end in \.html"):
        inspect_html(tmp_path / "exam", path)
    assert path.read_bytes() == before


def test_single_slice_is_fine(tmp_path: Path) -> None:
    one_dicom(tmp_path, SeriesDescription="cine")
    study = read_study(tmp_path)
    assert (study.views[0].shape, study.irregularities) == ((1, 24, 24), [])


def test_a_short_folder_name_does_not_swallow_the_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # "d" is a letter of almost every message; the message must still name the file and the remedy.
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.dcm").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError, match=r"x\.dcm.*copy it again"):
        read_study(Path("d"))
