"""An exam goes from one process to another unchanged, with only what Slicer ships."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from conftest import engine_environment
from exam_maker import dataset
from exam_maker import plane
from exam_maker import save
from SSLEngine import jobs
from SSLEngine.geometry import Plane
from SSLEngine.studies import Irregularity
from SSLEngine.studies import Study
from SSLEngine.studies import StudyError
from SSLEngine.studies import hand_over
from SSLEngine.studies import handover
from SSLEngine.studies import read_study
from SSLEngine.studies import take_over
from SSLEngine.studies import volumes
from SSLEngine.studies.handover import HANDOVER_FILE
from toy_exams import toy_study


def exam() -> Study:
    """Two phases; the short-axis stack has a shifted slice, the 2-chamber view has labels in one phase only."""
    study = toy_study(3, phases=2)
    sax, two = study.views[0], study.views[1]
    moved = replace(sax.planes[1], origin=sax.planes[1].origin + 4 * sax.planes[1].x_direction)
    sax.planes[1] = moved
    sax.trigger_times = (0.0, 320.5)
    sax.doubt, sax.reason = "its name says otherwise", "it lies across"
    read = two.read_labels
    assert read is not None
    two.read_labels = lambda phase: read(phase) if phase == 1 else None
    two.attributes = {"SeriesDescription": "größe <b>"}
    two.frame_of_reference = "1.2.3"
    study.irregularities.append(Irregularity("sax", "a slice is shifted", "kept as planes"))
    study.irregularities.append(Irregularity("2ch", "a label file is damaged", "not labelled", costs_labels=True))
    study.side = "left"
    return study


def test_comes_over_unchanged(tmp_path: Path) -> None:
    given = exam()
    steps = list(hand_over(given, tmp_path))
    assert steps == [(k + 1, 6, name) for k, name in enumerate(["sax", "sax", "2ch", "2ch", "4ch", "4ch"])]
    taken = read_study(tmp_path)
    for name in ("name", "subject", "organ", "group", "side", "irregularities"):
        assert getattr(taken, name) == getattr(given, name)
    for a, b in zip(taken.views, given.views, strict=True):
        for name in ("name", "source", "phases", "role", "reason", "doubt", "label_names", "frame_of_reference"):
            assert getattr(a, name) == getattr(b, name), name
        assert (a.trigger_times, a.attributes, a.labelled) == (b.trigger_times, b.attributes, b.labelled)
        for p, q in zip(a.planes, b.planes, strict=True):
            for key, value in asdict(p).items():
                np.testing.assert_allclose(value, asdict(q)[key], rtol=0, atol=1e-12)
        for phase in range(b.phases):
            np.testing.assert_array_equal(a.pixels(phase), b.pixels(phase))
            mine, theirs = a.labels(phase), b.labels(phase)
            assert (mine is None) == (theirs is None)
            assert mine is None or np.array_equal(mine, theirs)


def test_large_images_are_written_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a window which hands over has its turn in between; what is read is the same."""
    monkeypatch.setattr(handover, "PART_BYTES", 1)
    given = exam()
    steps = list(hand_over(given, tmp_path))
    kinds = [1 + (v.labels(k) is not None) for v in given.views for k in range(v.phases) if len(v.planes) > 1]
    slices = [len(v.planes) for v in given.views for k in range(v.phases) if len(v.planes) > 1]
    parts = 6 + sum(n * kind for n, kind in zip(slices, kinds, strict=True))
    assert len(steps) == parts
    assert [done for done, _, _ in steps] == sorted(done for done, _, _ in steps)
    assert steps[-1][0] == steps[-1][1] == 6
    for a, b in zip(read_study(tmp_path).views, given.views, strict=True):
        for phase in range(b.phases):
            np.testing.assert_array_equal(a.pixels(phase), b.pixels(phase))
            mine, theirs = a.labels(phase), b.labels(phase)
            assert (mine is None) == (theirs is None)
            assert mine is None or np.array_equal(mine, theirs)


def test_half_an_exam_is_none(tmp_path: Path) -> None:
    next(hand_over(exam(), tmp_path))
    with pytest.raises(StudyError, match="are not read"):
        read_study(tmp_path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("views", 0, "planes"), []),
        (("views", 0, "role"), "brain"),
        (("views", 0, "planes", 0, "spacing"), [0, 1]),
        (("views", 0, "planes", 0, "origin"), ["a", 1, 2]),
        (("views", 0, "phases"), 0),
        (("views",), None),
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, path: tuple[Any, ...], value: object) -> None:
    list(hand_over(exam(), tmp_path))
    document = json.loads((tmp_path / HANDOVER_FILE).read_text(encoding="utf-8"))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (tmp_path / HANDOVER_FILE).write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(StudyError, match="load the exam again"):
        take_over(tmp_path)


def test_damaged_pixels_are_refused(tmp_path: Path) -> None:
    list(hand_over(exam(), tmp_path))
    study = take_over(tmp_path)
    np.save(tmp_path / "000_0000.npy", np.zeros((2, 3, 4), np.float32))
    with pytest.raises(StudyError, match="expected float32"):
        study.views[0].pixels(0)
    np.save(tmp_path / "000_0001.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(StudyError, match="cannot be read"):
        study.views[0].pixels(1)


#: Runs the engine where nothing is installed but what Slicer ships.
BARE = """
import sys
class Bar:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "monai", "msgspec", "safetensors", "matplotlib", "highdicom"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Bar())
from SSLEngine.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def run(kind: str, settings: dict[str, Any], folder: Path) -> jobs.Status:
    jobs.create(folder, kind, settings)
    command = [sys.executable, "-c", BARE, kind, "--job", str(folder)]
    subprocess.run(command, env=engine_environment(), capture_output=True, check=False, timeout=120)
    return jobs.status(folder)


def test_exams_are_made_looked_at_and_loaded_with_what_slicer_ships(tmp_path: Path) -> None:
    settings = {"organ": "heart", "studies": 1, "seed": 4, "out": str(tmp_path / "made"), "format": "dicom"}
    assert run("phantom", settings, tmp_path / "1").state == jobs.FINISHED
    (folder,) = (p for p in (tmp_path / "made").iterdir() if p.is_dir())
    looked = run("inspect", {"path": str(folder)}, tmp_path / "2")
    assert looked.state == jobs.FINISHED, looked.message
    loaded = run("load", {"path": str(folder), "out": str(tmp_path / "exam")}, tmp_path / "3")
    assert loaded.state == jobs.FINISHED, loaded.message
    assert loaded.step == loaded.steps > 0
    read, taken = read_study(folder), take_over(tmp_path / "exam")
    assert [v.role for v in taken.views] == [v.role for v in read.views]
    for a, b in zip(taken.views, read.views, strict=True):
        np.testing.assert_array_equal(a.pixels(1), b.pixels(1))


def test_views_that_cannot_be_read_are_left_out_with_a_remark(tmp_path: Path) -> None:
    """A black view comes with a remark; one that cannot be decoded does not come; without any other the job fails."""
    folder = tmp_path / "exam"
    broken = dataset(plane((1, 0, 0), (0, 0, 0)), SeriesInstanceUID="1.2.3.4.1.2", SeriesNumber=2)
    broken.PixelData = encapsulate([b"no JPEG at all"])
    broken["PixelData"].VR = "OB"
    save(broken, folder / "b.dcm", JPEGBaseline8Bit)
    failed = run("load", {"path": str(folder), "out": str(tmp_path / "half")}, tmp_path / "1")
    assert failed.state == jobs.FAILED
    assert "b.dcm is compressed" in failed.message
    assert not (tmp_path / "half").exists()
    save(dataset(plane((0, 0, 1), (0, 0, 0))), folder / "a.dcm")
    loaded = run("load", {"path": str(folder), "out": str(tmp_path / "whole")}, tmp_path / "2")
    assert loaded.state == jobs.FINISHED, loaded.message
    study = take_over(tmp_path / "whole")
    assert len(study.views) == 1
    assert any("all its pixels have the same value" in item.what for item in study.irregularities)
    assert any("b.dcm is compressed" in item.what for item in study.irregularities)


@pytest.mark.parametrize("slices", [1, 2, 7])
@pytest.mark.parametrize("kind", [np.float32, np.int16])
def test_nifti_in_parts_is_what_itk_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slices: int, kind: type
) -> None:
    monkeypatch.setattr(volumes, "PART_BYTES", 2000)
    turned, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    x, y = turned[:, 0], turned[:, 1]
    first = np.array([-30.5, 12.25, 7.0])
    planes = [Plane(first + 3.3 * k * np.cross(x, y), x, y, (1.1, 0.9), (20, 15), 3.0) for k in range(slices)]
    array = np.random.default_rng(2).integers(0, 900, (slices, 15, 20)).astype(kind)
    turns = len(list(volumes.writing_nifti(array, planes, tmp_path / "parts.nii")))
    assert turns == (slices > 1) + (slices == 7) * (1 if kind is np.int16 else 5)
    volumes.write_image(volumes.itk_image(array, planes), tmp_path / "whole.nii")
    assert (tmp_path / "parts.nii").read_bytes() == (tmp_path / "whole.nii").read_bytes()
    with pytest.raises(StudyError, match="absent"):
        list(volumes.writing_nifti(array, planes, tmp_path / "absent" / "parts.nii"))
    monkeypatch.setattr(sitk, "WriteImage", lambda image, path: Path(path).write_bytes(b"cut"))
    with pytest.raises(StudyError, match="space on the disk"):
        list(volumes.writing_nifti(array, planes, tmp_path / "cut.nii"))
    assert not (tmp_path / "cut.nii").exists()
