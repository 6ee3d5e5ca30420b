"""Segments become a labelled exam without holding up the window; given up or failing, they leave all as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from panel_window import Pulse
from panel_window import Window
from slicer_standin import pythonqt
from SSLEngine.geometry import Plane
from SSLEngine.studies import Study
from SSLEngine.studies import View
from SSLEngine.studies import read_study

NAMES = {1: "LV cavity", 2: "LV myocardium", 3: "RV cavity", 4: "LA cavity"}
SHAPE = (24, 320, 300)


@pytest.fixture
def drawn(window: Window, tmp_path: Path) -> Iterator[Any]:
    """A large exam in the panel with segments on its stack, to be collected in ``tmp_path``."""
    from SSLScene import exams
    from SSLScene import segments

    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 900, SHAPE).astype(np.float32)
    slices, rows, columns = SHAPE
    x, y, z = np.eye(3)
    size = (columns, rows)
    planes = [Plane(np.array([-200.0, -190.0, 5.0 * k]), x, y, (1.3, 1.2), size, 5.0) for k in range(slices)]
    sax = View("stack", Path("stack"), planes, 1, lambda phase: pixels, role="sax")
    long = replace(sax, name="long", planes=[Plane(planes[0].origin, x, z, (1.3, 1.2), size, 6.0)], role="4ch")
    long.read_pixels = lambda phase: pixels[:1]
    exam = exams.load_study(window.scene, Study("big", Path("big"), [sax, long], subject="Anna"), "big")
    labels = rng.integers(0, 5, SHAPE).astype(np.int16)
    panel = window.segmentation
    panel.setExam(exam)
    panel.parameters.labelled = str(tmp_path / "labelled")
    panel.parameters.segmentation = segments.add_labels(window.scene, exam, exam.views[0], labels, NAMES, "drawn")[0]
    yield labels
    panel.setExam(None)
    panel.logic.removeExam(exam)


def collected(folder: Path) -> Study:
    """The one labelled exam; nothing else is in the folder."""
    assert [p.name for p in folder.iterdir()] == ["Anna"]
    return read_study(folder / "Anna")


def all_nodes(window: Window) -> list[str]:
    return [str(window.scene.GetNthNode(k).GetID()) for k in range(window.scene.GetNumberOfNodes())]


def test_collects_without_blocking(window: Window, drawn: Any, tmp_path: Path) -> None:
    button = window.segmentation.ui.collectButton
    text, nodes = button.text, all_nodes(window)
    pulse = Pulse()
    button.click()
    assert button.text == "Cancel"
    assert window.segmentation.busy
    window.spin(lambda: not window.segmentation.busy and pulse.ticks > 20)
    pulse.stop()
    assert button.text == text
    assert window.application.messages[-1] == ("status", f"Collected in {tmp_path / 'labelled' / 'Anna'}")
    view = collected(tmp_path / "labelled").first("sax")
    assert view is not None
    np.testing.assert_array_equal(view.labels(0), drawn)
    assert view.label_names == NAMES
    assert all_nodes(window) == nodes


def former(folder: Path) -> dict[str, bytes]:
    """An exam collected before: its files."""
    (folder / "Anna").mkdir(parents=True)
    (folder / "Anna" / "study.json").write_text('{"labels": {"1": "LV cavity"}}')
    return {p.name: p.read_bytes() for p in (folder / "Anna").iterdir()}


def test_cancel_leaves_what_was_collected_before(
    window: Window, drawn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from SSLPanels.stepper import Stepper

    monkeypatch.setattr(Stepper, "SLICE_S", 0.0)
    folder, nodes = tmp_path / "labelled", all_nodes(window)
    before = former(folder)
    button = window.segmentation.ui.collectButton
    button.click()
    window.application.qapp.processEvents()
    while not list(folder.glob("*.part/*.nii")):
        window.application.qapp.processEvents()
    assert window.segmentation.correctPanel.collecting
    button.click()
    assert not pythonqt.slot_errors, pythonqt.slot_errors
    assert not window.segmentation.busy
    assert button.text.startswith("Use the corrected segments")
    assert [p.name for p in folder.iterdir()] == ["Anna"]
    assert {p.name: p.read_bytes() for p in (folder / "Anna").iterdir()} == before
    assert all_nodes(window) == nodes


@pytest.mark.parametrize("where", ["writing", "moving"])
def test_a_failure_leaves_what_was_collected_before(
    window: Window, drawn: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """A full disk in the midst of the label maps; a folder that cannot be moved into its place."""
    import SimpleITK as sitk

    folder = tmp_path / "labelled"
    before = former(folder)
    write, rename = sitk.WriteImage, Path.rename

    def full(image: Any, path: str, *rest: Any, **more: Any) -> None:
        if "_seg" in path:
            raise RuntimeError("no space")
        write(image, path, *rest, **more)

    def held(self: Path, target: Path) -> Path:
        if self.name == "Anna.part":
            raise OSError("held by another program")
        return rename(self, target)

    if where == "writing":
        monkeypatch.setattr(sitk, "WriteImage", full)
    else:
        monkeypatch.setattr(Path, "rename", held)
    window.segmentation.ui.collectButton.click()
    window.spin(lambda: not window.segmentation.busy)
    kind, text = window.application.messages[-1]
    assert kind == "error"
    assert ("space on the disk" if where == "writing" else "held by another program") in text
    assert [p.name for p in folder.iterdir()] == ["Anna"]
    assert {p.name: p.read_bytes() for p in (folder / "Anna").iterdir()} == before
