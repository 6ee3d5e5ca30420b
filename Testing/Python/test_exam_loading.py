"""A big exam comes into the scene, is segmented and its result shown, without holding up the window."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exam_maker import heart_layout
from exam_maker import write_series
from panel_window import Pulse
from panel_window import Window
from SSLEngine import jobs
from SSLEngine.studies import read_study
from toy_exams import toy_study

PHASES = 20


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DICOM cine exam: about 9 short-axis slices and three long axes, 20 phases of 160 x 160 pixels, 240 files."""
    folder = tmp_path_factory.mktemp("dicom") / "exam of <b>Anna"
    rng = np.random.default_rng(5)
    for number, (name, planes) in enumerate(heart_layout(rng, right_ventricle=False).items()):
        sized = [type(p)(p.origin, p.x_direction, p.y_direction, (2.0, 2.0), (160, 160), 8.0) for p in planes]
        write_series(folder, sized, phases=PHASES, shuffle=rng, SeriesDescription=name, SeriesNumber=number + 1)
    return folder


def names(window: Window, kind: str) -> list[str]:
    import slicer

    return [node.GetName() for node in slicer.util.getNodesByClass(kind) if not node.GetHideFromEditors()]


def left_over(window: Window) -> list[Path]:
    """Images of patients that a load has left among the jobs."""
    return [p for p in (window.home / "jobs").glob("load-*/**/*") if p.suffix == ".npy"]


def test_loads_a_big_exam_without_blocking(window: Window, big: Path) -> None:
    panel = window.segmentation
    panel.ui.studyPathLineEdit.currentPath = str(big)
    gc.collect()
    pulse = Pulse()
    panel.ui.loadStudyButton.click()
    assert not panel.ui.examProgressBar._real.isHidden()
    window.spin(lambda: panel.exam is not None)
    pulse.stop()
    assert panel.ui.examProgressBar._real.isHidden()
    assert not left_over(window), "the images are in the scene, not among the jobs"
    assert not list((window.home / "jobs").glob("load-*"))
    # What came through the job is what the folder holds, in every phase.
    study = read_study(big)
    assert {v.view.role for v in panel.exam.views} == {v.role for v in study.views} == {"sax", "2ch", "3ch", "4ch"}
    for item in panel.exam.views:
        read = next(v for v in study.views if v.name == item.view.name)
        assert item.browser.GetNumberOfItems() == PHASES
        for phase in (0, 7, PHASES - 1):
            item.browser.SetSelectedItemNumber(phase)
            from SSLScene.exams import array_of

            np.testing.assert_array_equal(np.concatenate([array_of(v) for v in item.volumes]), read.pixels(phase))
            np.testing.assert_array_equal(item.view.pixels(phase), read.pixels(phase))
    window.picture(panel, "segmentation-cine", 2000)


def test_another_exam_takes_its_place_or_the_present_one_stays(window: Window, big: Path, tmp_path: Path) -> None:
    panel = window.segmentation
    present, nodes = panel.exam, window.scene.GetNumberOfNodes()
    (tmp_path / "a.nii.gz").write_bytes(b"no image")
    panel.ui.studyPathLineEdit.currentPath = str(tmp_path)
    panel.ui.loadStudyButton.click()
    window.spin(lambda: not panel.examPanel.busy)
    kind, text = window.application.messages[-1]
    assert kind == "error"
    assert "a.nii.gz" in text.splitlines()[0]
    assert "log.txt" in text
    assert panel.exam is present
    assert window.scene.GetNumberOfNodes() == nodes
    assert "<b>Anna" in panel.ui.examLabel.text
    assert panel.ui.examLabel._real.textFormat().name == "PlainText", "names are text, never HTML"


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step in a turn of the event loop, so that a test can be quicker than the loading."""
    from SSLPanels.stepper import Stepper

    monkeypatch.setattr(Stepper, "SLICE_S", 0.0)


@pytest.mark.parametrize("when", ["reading", "showing"])
def test_cancel_leaves_nothing(window: Window, big: Path, slowly: None, when: str) -> None:
    """The label says what is done at present, until Cancel is pressed."""
    panel = window.segmentation
    present, nodes = panel.exam, window.scene.GetNumberOfNodes()
    panel.ui.studyPathLineEdit.currentPath = str(big)
    panel.ui.loadStudyButton.click()
    folder = panel.examPanel._loader._folder
    assert folder is not None
    if when == "showing":
        window.spin(lambda: window.scene.GetNumberOfNodes() > nodes)
        assert "into the scene" in panel.ui.examLabel.text
    panel.ui.cancelExamButton.click()
    assert not panel.examPanel.busy
    assert panel.exam is present
    assert window.scene.GetNumberOfNodes() == nodes
    assert panel.ui.loadStudyButton.enabled
    assert not window.application.messages[-1][1].startswith("Cancel")
    window.spin(lambda: not folder.exists())
    assert not left_over(window)


def test_closing_the_scene_cancels(window: Window, big: Path, slowly: None) -> None:
    panel = window.segmentation
    panel.ui.loadStudyButton.click()
    nodes = window.scene.GetNumberOfNodes()
    window.spin(lambda: window.scene.GetNumberOfNodes() > nodes)
    window.scene.Clear(0)
    window.spin(lambda: not panel.examPanel.busy)
    assert panel.exam is None
    assert names(window, "vtkMRMLScalarVolumeNode") == []
    assert "No exam" in panel.ui.examLabel.text


def test_from_a_script(window: Window, big: Path, tmp_path: Path) -> None:
    """With and without waiting; a failure is an exception in the one case, a sentence in the other."""
    logic = window.segmentation.logic
    told: list[tuple[int, int, str]] = []
    exam = logic.loadStudy(big, onProgress=lambda *step: told.append(step))
    assert len(exam.views) == 4
    assert told[-1][1] == 4 * PHASES
    logic.removeExam(exam)
    ended: list[Any] = []
    loader = logic.loadStudy(tmp_path, onFinished=ended.append, waitForCompletion=False)
    assert loader.active
    window.spin(lambda: ended)
    assert ended == [loader]
    assert loader.exam is None
    assert "holds no image" in loader.error
    with pytest.raises(ValueError, match="holds no image"):
        logic.loadStudy(tmp_path)
    assert names(window, "vtkMRMLScalarVolumeNode") == []


def labelled_exam(folder: Path) -> Path:
    """A cine of which two phases are labelled, beside a still image with labels of Slicer's own form."""
    from SSLEngine.segment import write_segmentation
    from SSLEngine.studies import write_view

    study = toy_study(1, phases=4)
    sax, four = study.views[0], next(v for v in study.views if v.role == "4ch")
    four = replace(four, phases=1, trigger_times=())
    sax_labels = [sax.labels(k) if k in (0, 2) else np.zeros(sax.shape, np.int16) for k in range(4)]
    folder.mkdir()
    for view in (sax, four):
        write_view(view, folder / f"{view.role}.nii.gz")
    as_image = replace(sax, read_pixels=lambda k: sax_labels[k].astype(np.float32))
    write_view(as_image, folder / "sax_seg.nii.gz")
    entries = [{"value": 3, "name": "LA cavity", "colour": (1, 0, 0), "category": ("", "", ""), "type": ("", "", "")}]
    write_segmentation(folder / "4ch.seg.nrrd", np.full(four.shape, 3, np.uint8), four.planes, entries)
    names = {"labels": {"1": "LV cavity", "2": "LV myocardium", "3": "LA cavity"}}
    (folder / "study.json").write_text(json.dumps({"roles": {"sax": "sax", "4ch": "4ch"}, **names}))
    return folder


def test_labels_beside_the_images_become_segmentations(window: Window, tmp_path: Path) -> None:
    """With names and colours, in step with a cine; a phase that nobody has labelled has none, and what fails goes."""
    from SSLScene import segments
    from SSLScene import undo

    path, logic = labelled_exam(tmp_path / "labelled"), window.segmentation.logic
    known = read_study(path)
    pulse = Pulse()
    exam = logic.loadStudy(path)
    pulse.stop()
    nodes = {n.GetAttribute("SSLSegmentation.View"): n for n in logic.segmentationsOf(exam)}
    assert set(nodes) == {"sax", "4ch"}
    assert segments.segment_names(nodes["4ch"]) == ["LA cavity"]
    sax, truth = exam.first("sax"), known.first("sax")
    assert truth is not None
    assert truth.labelled_phases == [0, 2]
    for phase in (2, 1, 3, 0):
        sax.browser.SetSelectedItemNumber(phase)
        if phase in (1, 3):
            assert segments.segment_names(nodes["sax"]) == [], phase
            continue
        labels, names = segments.labels_of(window.scene, nodes["sax"], sax.volume, {"LV cavity": 1, "LV myocardium": 2})
        np.testing.assert_array_equal(labels, truth.labels(phase))
        assert set(names.values()) == {"LV cavity", "LV myocardium"}
    segment = nodes["sax"].GetSegmentation().GetNthSegment(0)
    assert segment.GetColor() == pytest.approx((214 / 255, 69 / 255, 65 / 255), abs=1e-3)
    logic.removeExam(exam, withSegmentations=True)
    assert not undo.owned_nodes(window.scene, exam.token)
    assert names_of_frames(window) == []


def names_of_frames(window: Window) -> list[str]:
    return [n for n in names(window, "vtkMRMLSequenceNode") if "labels" in n]


def test_an_exam_is_handed_to_a_worker_without_blocking(window: Window, big: Path) -> None:
    """The job waits in the queue until its input is complete; what it reads is what the scene holds."""
    panel = window.segmentation
    exam = panel.logic.loadStudy(big)
    panel.setExam(exam)
    pulse = Pulse()
    folder = panel.logic.startSegmenting("absent.safetensors", exam, exam.views[:2], "cpu", True)
    assert jobs.status(folder).state == jobs.QUEUED
    window.spin(lambda: jobs.status(folder).state == jobs.FAILED)
    pulse.stop()
    assert "absent.safetensors" in jobs.status(folder).message
    handed = read_study(folder / "input")
    assert [v.name for v in handed.views] == ["00_sax", f"01_{exam.views[1].view.role}"]
    for item, view in zip(exam.views, handed.views, strict=False):
        np.testing.assert_array_equal(view.pixels(PHASES - 1), item.view.pixels(PHASES - 1))
        for a, b in zip(view.planes, item.view.planes, strict=True):
            np.testing.assert_allclose(a.corners, b.corners, atol=1e-9)
    panel.examPanel.onRemove()


def test_stepper_gives_up_its_work(window: Window) -> None:
    from SSLPanels.stepper import Stepper

    ends: list[str] = []

    def work(count: int) -> Generator[int, None, str]:
        try:
            for k in range(count):
                time.sleep(0.002)
                yield k
            if count == 5:
                raise ValueError("five")
        except GeneratorExit:
            ends.append("closed")
            raise
        return "whole"

    stepper = Stepper()
    for count in (3, 5):
        stepper.run(work(count), ends.append, lambda error: ends.append(str(error)))
        window.spin(lambda: not stepper.active)
    steps: list[int] = []
    stepper.run(work(1000), ends.append, lambda error: ends.append(str(error)), steps.append)
    window.spin(lambda: len(steps) > 2)
    stepper.cancel()
    assert steps[1] - steps[0] > 3, "several steps in a turn"
    assert ends == ["whole", "five", "closed"]
