"""What the panels do with clicks, other exams, and jobs that do not go as they should; no job runs here."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import slicer

from panel_window import Window
from SSLEngine import jobs
from toy_exams import toy_study


@pytest.fixture
def panel(window: Window) -> Iterator[Any]:
    """The panel of SSL Segmentation without an exam."""
    panel = window.segmentation
    yield panel
    panel.setExam(None)
    window.scene.Clear(0)


def loaded(window: Window, seed: int = 1) -> Any:
    from SSLScene import exams

    study = toy_study(seed)
    return exams.load_study(window.scene, study, study.name)


def models(window: Window) -> list[Any]:
    return [node for node in slicer.util.getNodesByClass("vtkMRMLModelNode") if "planes" in node.GetName()]


def test_planes_of_the_scene_are_taken_up(window: Window, panel: Any) -> None:
    from SSLScene import planes

    exam = loaded(window)
    shown = panel.logic.showPlanes(exam)
    planes.recolour(shown[1], (0.1, 0.2, 0.3))
    planes.show(shown[2], False)
    panel.setExam(exam)
    assert panel.ui.linesButton.checked
    assert models(window) == shown
    assert shown[1].GetDisplayNode().GetColor() == pytest.approx((0.1, 0.2, 0.3))
    boxes = [panel.ui.planesTable.item(row, 0).checkState() for row in range(3)]
    assert boxes[0] == boxes[1] != boxes[2]
    panel.ui.linesButton.click()
    assert models(window) == []


def test_another_role_leaves_nothing_of_the_former_one(window: Window, panel: Any) -> None:
    exam = loaded(window)
    panel.setExam(exam)
    panel.ui.crossingsGroupBox.collapsed = False
    panel.planesPanel._fillCrossings()
    window.spin(lambda: not panel.planesPanel.working)
    panel.ui.targetComboBox.currentIndex = 1
    window.spin(lambda: not panel.planesPanel.working)
    volumes = window.count("vtkMRMLScalarVolumeNode")
    assert volumes > 3
    panel.examPanel.onRole(2, "3ch")
    window.spin(lambda: not panel.planesPanel.working)
    assert panel.ui.targetComboBox.currentIndex == 0
    assert window.count("vtkMRMLScalarVolumeNode") == 3
    tables = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLTableNode")]
    assert len([name for name in tables if name.startswith("Plane crossings")]) == 1
    panel.ui.crossingsGroupBox.collapsed = True


def test_scrolling_over_the_views_changes_no_role(window: Window, panel: Any) -> None:
    from PySide6 import QtCore
    from PySide6 import QtGui

    panel.setExam(loaded(window))
    table = panel.ui.viewsTable._real
    box = next(w for c in range(table.columnCount()) if (w := table.cellWidget(1, c)) is not None)
    middle, down = QtCore.QPointF(box.rect().center()), QtCore.QPoint(0, -120)
    buttons, keys = QtCore.Qt.MouseButton.NoButton, QtCore.Qt.KeyboardModifier.NoModifier
    event = QtGui.QWheelEvent(
        middle, box.mapToGlobal(middle), down, down, buttons, keys, QtCore.Qt.ScrollPhase.NoScrollPhase, False
    )
    window.application.qapp.sendEvent(box, event)
    assert panel.exam.views[1].view.role == "2ch"
    assert not event.isAccepted(), "the panel scrolls instead"


def test_cines_of_an_exam_move_together(window: Window, panel: Any) -> None:
    from SSLScene import exams

    study, other = toy_study(1, phases=6), toy_study(1, phases=4)
    study.views[1] = other.views[1]
    exam = exams.load_study(window.scene, study, "cines")
    panel.setExam(exam)
    browsers = [item.browser for item in exam.views]
    panel.ui.seekWidget.slider().setValue(3)
    assert [browser.GetSelectedItemNumber() for browser in browsers] == [3, 2, 3]
    browsers[1].SetSelectedItemNumber(3)
    assert [browser.GetSelectedItemNumber() for browser in browsers] == [4, 3, 4]
    browsers[0].SetSelectedItemNumber(5)
    assert [browser.GetSelectedItemNumber() for browser in browsers] == [5, 3, 5]
    panel.setExam(None)
    browsers[0].SetSelectedItemNumber(0)
    assert [browser.GetSelectedItemNumber() for browser in browsers] == [0, 3, 5]


def test_planes_that_cannot_be_placed_are_told_of(window: Window, panel: Any) -> None:
    exam = loaded(window)
    panel.setExam(exam)
    bent = window.scene.AddNewNodeByClass("vtkMRMLGridTransformNode")
    exam.views[0].volume.SetAndObserveTransformNodeID(bent.GetID())
    for button in (panel.ui.linesButton, panel.ui.layoutButton, panel.ui.crossingButton):
        window.application.messages.clear()
        button.click()
        assert [kind for kind, _ in window.application.messages] == ["error"]
        assert "transform" in window.application.messages[0][1]
    panel.ui.linesButton.checked = False


def test_a_double_click_starts_one_training(window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from SSLPanels import clicks

    monkeypatch.setattr(clicks, "DOUBLE_CLICK_S", 0.4)
    panel = window.pretrain
    begun = []

    def run(kind: str, settings: Any, *_: Any) -> Path:
        begun.append(kind)
        return jobs.create(tmp_path / str(len(begun)), kind, settings)

    monkeypatch.setattr(panel.logic.workers, "run", run)
    monkeypatch.setattr(panel.logic, "whyNot", lambda parameters: "")
    panel.parameters.cohort = str(tmp_path)
    panel.update()
    panel.ui.startButton.click()
    panel.ui.startButton.click()
    assert begun == ["pretrain"]
    time.sleep(0.5)
    panel.ui.startButton.click()
    assert begun == ["pretrain", "pretrain"]
    panel.monitor.clear()
    window.application.qapp.processEvents()


def test_what_was_found_in_a_former_folder_is_not_shown_for_another(window: Window, tmp_path: Path) -> None:
    panel = window.pretrain
    from SSLPanels import tables

    tables.fill(panel.ui.studiesTable, [["heart", "3", "1", ""]])
    panel.ui.cohortPathLineEdit.currentPath = str(tmp_path)
    assert panel.ui.studiesTable.rowCount == 0


def test_a_job_whose_folder_has_gone_is_lost(window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from SSLPanels.follower import JobFollower

    folder = jobs.create(tmp_path / "job", "pretrain", {})
    ended: list[jobs.Status] = []
    follower = JobFollower(onFinished=ended.append)
    follower.follow(folder)
    text = (folder / "job.json").read_text()
    (folder / "job.json").unlink()
    follower.poll()
    assert follower.active
    assert not ended, "a share may be away for a moment"
    (folder / "job.json").write_text(text)
    follower.poll()
    (folder / "job.json").unlink()
    monkeypatch.setattr(JobFollower, "UNREADABLE_S", 0.0)
    follower.poll()
    assert not follower.active
    assert [status.state for status in ended] == [jobs.LOST]
    assert "no job folder" in ended[0].message


def test_the_events_of_a_long_job_come_bit_by_bit(
    window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from SSLPanels.follower import JobFollower

    folder = jobs.create(tmp_path / "job", "pretrain", {})
    reporter = jobs.Reporter(folder)
    for step in range(6):
        reporter.event("progress", step=step, steps=6)
    reporter.event(jobs.FINISHED)
    monkeypatch.setattr(JobFollower, "EVENTS_A_LOOK", 3)
    told: list[Any] = []
    follower = JobFollower(lambda status, events: told.append(events), lambda status: told.append(status.state))
    follower.follow(folder)
    window.spin(lambda: not follower.active)
    assert [len(entry) if isinstance(entry, list) else entry for entry in told] == [3, 3, 2, jobs.FINISHED]
    events = [event for entry in told[:-1] for event in entry]
    assert events == jobs.Events(folder).new()


def test_a_job_is_not_resumed_while_its_exam_is_on_its_way(window: Window, panel: Any, tmp_path: Path) -> None:
    folder = jobs.create(tmp_path / "job", "segment", {})
    (folder / "input").mkdir()
    panel.monitor.follow(folder)
    assert not panel.ui.resumeButton.enabled
    (folder / "input" / "handover.json").write_text("{}")
    panel.monitor.follower.poll()
    assert panel.ui.resumeButton.enabled
    panel.monitor.clear()


def test_a_fine_tuning_starts_though_the_panel_is_left(
    window: Window, panel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from SSLScene import segments

    exam, begun = loaded(window), []
    panel.setExam(exam)
    labels = np.ones(exam.views[0].view.shape, np.int16)
    panel.parameters.labelled = str(tmp_path / "labelled")
    panel.parameters.segmentation = segments.add_labels(
        window.scene, exam, exam.views[0], labels, {1: "LV cavity"}, "drawn"
    )[0]
    panel.parameters.slicesPerStep = 5

    def run(kind: str, settings: Any, *_: Any) -> Path:
        begun.append(settings)
        return jobs.create(tmp_path / "job", kind, settings)

    monkeypatch.setattr(panel.logic.workers, "run", run)
    panel.modelPanel.onFinetune()
    panel.exit()
    window.spin(lambda: not panel.correctPanel.collecting)
    panel.enter()
    (settings,) = begun
    assert settings["data"]["path"] == str(tmp_path / "labelled")
    assert settings["schedule"]["batch"] == 5
    panel.monitor.clear()


def test_a_result_of_an_exam_that_is_no_longer_at_hand_is_told_of(window: Window, panel: Any, tmp_path: Path) -> None:
    first, second = loaded(window, 1), loaded(window, 2)
    panel.setExam(first)
    folder = jobs.create(tmp_path / "job", "segment", {})
    shown: list[Any] = []
    panel.segmentPanel._follow(first, folder, lambda exam, folder: shown.append(exam))
    panel.setExam(second)
    jobs.Reporter(folder).event(jobs.FINISHED)
    window.spin(lambda: not panel.monitor.follower.active)
    assert not shown
    assert window.application.messages[-1][0] == "info"
    assert first.study.name in window.application.messages[-1][1]
    assert str(folder) in window.application.messages[-1][1]


def test_an_exam_that_comes_while_the_panel_is_hidden_has_a_view_proposed(window: Window, panel: Any) -> None:
    panel.exit()
    exam = loaded(window)
    panel.setExam(exam)
    panel.enter()
    assert panel.parameters.volume is exam.views[0].volume


def test_the_curves_of_a_comparison_are_not_saved_with_the_scene(window: Window, tmp_path: Path) -> None:
    document = {"summary": [{"count": 1, "scratch": 0.3, "pretrained": 0.5}]}
    (tmp_path / "results.json").write_text(json.dumps(document))
    window.pretrain.jobsPanel.showComparison(tmp_path)
    charts = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    assert charts
    assert not any(node.GetSaveWithScene() for node in charts)


def test_nothing_of_a_patient_is_left_where_an_export_is_declined(
    window: Window, panel: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from SSLPanels import requirements
    from SSLScene import segments

    exam = loaded(window)
    labels = np.ones(exam.views[0].view.shape, np.int16)
    node = segments.add_labels(window.scene, exam, exam.views[0], labels, {1: "LV cavity"}, "drawn")[0]

    def declined(path: Path, requester: str) -> None:
        raise RuntimeError("not installed")

    monkeypatch.setattr(requirements, "ensure", declined)
    before = jobs.find(window.home / "jobs")
    with pytest.raises(RuntimeError, match="not installed"):
        panel.logic.exportDicom(tmp_path, node, tmp_path / "seg.dcm", exam)
    assert jobs.find(window.home / "jobs") == before
    assert not list((window.home / "jobs").rglob("segmentation.seg.nrrd"))


def test_a_training_is_shown_again_after_what_was_done_meanwhile(window: Window, panel: Any, tmp_path: Path) -> None:
    training = jobs.create(tmp_path / "training", "finetune", {})
    other = jobs.create(tmp_path / "segment", "segment", {})
    ended: list[str] = []
    panel.follow(training, lambda folder, status: ended.append(folder.name))
    assert panel.training
    assert not panel.busy, "there is no need to wait for it"
    assert not panel.ui.finetuneButton.enabled
    panel.follow(other, lambda folder, status: ended.append(folder.name))
    assert panel.busy
    jobs.Reporter(other).event(jobs.FINISHED)
    window.spin(lambda: not panel.busy)
    assert panel.monitor.folder == training
    jobs.Reporter(training).event(jobs.FINISHED)
    window.spin(lambda: not panel.training)
    assert ended == ["segment", "training"]


def test_segmenting_a_folder_is_found_again(window: Window, tmp_path: Path) -> None:
    window.pretrain.exit()
    for name, settings in (("folder", {"cohort": str(tmp_path)}), ("one", {"input": str(tmp_path)})):
        jobs.create(window.home / "jobs" / name, "segment", settings)
    window.pretrain.enter()
    table = window.pretrain.ui.jobsTable
    listed = [(table.item(row, 0).text(), table.item(row, 1).text()) for row in range(table.rowCount)]
    assert ("folder", "Segmenting") in listed
    assert "one" not in [name for name, _ in listed]


def test_a_panel_that_is_not_shown_is_not_tied_to_a_new_scene(window: Window, panel: Any) -> None:
    for widget in (panel, window.pretrain):
        widget.exit()
        window.scene.Clear(0)
        assert widget.parameters is None
        widget.enter()
        assert widget.parameters is not None


@pytest.mark.parametrize("facts", ["[1]", "{", "3", "[" * 100_000])
def test_a_scene_from_elsewhere_may_say_anything_of_its_volumes(window: Window, panel: Any, facts: str) -> None:
    from SSLScene import exams

    exam = loaded(window)
    exam.views[0].volume.SetAttribute(exams.FACTS, facts)
    again = panel.logic.useVolumes([item.volume for item in exam.views])
    assert again.views[0].view.attributes == {}


def test_the_curve_of_a_running_job_outlives_the_scene(window: Window, tmp_path: Path) -> None:
    panel = window.pretrain
    folder = jobs.create(tmp_path / "job", "pretrain", {})
    reporter = jobs.Reporter(folder)
    for step in range(5):
        reporter.event("progress", step=step, steps=9, loss=1.0 / (step + 1))

    def points() -> int:
        (node,) = [n for n in slicer.util.getNodesByClass("vtkMRMLTableNode") if n.GetName().startswith("job")]
        return int(node.GetNumberOfRows())

    panel.follow(folder)
    assert points() == 5
    window.scene.Clear(0)
    assert points() == 5
    reporter.event("progress", step=5, steps=9, loss=0.1)
    panel.monitor.follower.poll()
    assert points() == 6
    panel.monitor.clear()
    panel.curves.clear()


def test_many_jobs_are_listed_bit_by_bit_the_newest_first(
    window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    from SSLPanels import job_list
    from SSLPanels.jobs_panel import takes_long

    monkeypatch.setattr(job_list, "jobs_folder", lambda: tmp_path)
    monkeypatch.setattr(job_list.JobList, "READ_A_LOOK", 3)
    for number in range(7):
        folder = jobs.create(tmp_path / f"{number}", "pretrain", {})
        jobs.Reporter(folder).event(jobs.FINISHED)
        os.utime(folder / jobs.JOB_FILE, (1e9 + number, 1e9 + number))
    table = slicer.util.childWidgetVariables(window.pretrain.uiWidget).jobsTable
    listed = job_list.JobList(table, takes_long, lambda: None)
    for names in ("654", "654321", "6543210", "6543210"):
        listed.refresh()
        assert [table.item(row, 0).text() for row in range(table.rowCount)] == list(names)
    window.pretrain.jobsPanel.refresh()
