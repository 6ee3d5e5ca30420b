"""Jobs on an exam of the scene before their worker runs: the exam is handed over, and a Stop holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from panel_window import Window
from SSLEngine import jobs
from SSLEngine.studies.handover import HANDOVER_FILE
from toy_exams import toy_study


def handing_over(window: Window) -> Path:
    """A job whose exam is on its way to it; the model does not exist, so a worker would fail."""
    from SSLScene import exams
    from SSLScene import undo

    undo.remove_all(window.scene, "handed over")
    exam = exams.load_study(window.scene, toy_study(1, phases=4), "handed over")
    folder: Path = window.segmentation.logic.startClassifying("/absent.safetensors", exam, "cpu")
    window.segmentation.follow(folder)
    assert jobs.status(folder).state == jobs.QUEUED
    return folder


@pytest.mark.parametrize(
    "stop",
    [lambda window: window.segmentation.ui.stopButton.click(), lambda window: window.segmentation.logic.release()],
    ids=["stopped", "module closed"],
)
def test_a_job_that_is_stopped_while_its_exam_is_handed_over_does_not_start(
    window: Window, stop: Callable[[Window], None]
) -> None:
    folder = handing_over(window)
    stop(window)
    status = window.spin_to_end(folder, 60)
    assert status.state == jobs.CANCELLED, status.message
    assert "start it anew" in status.message
    assert not (folder / jobs.WORKER_FILE).exists(), "a worker was started"
    assert not (folder / jobs.STOP_FILE).exists()
    assert not (folder / "input").exists(), "images are not kept"
    window.spin(lambda: not window.segmentation.busy)
    assert "stopped" in window.segmentation.ui.jobStateLabel.text


def test_a_job_that_is_not_stopped_starts(window: Window) -> None:
    folder = handing_over(window)
    status = window.spin_to_end(folder, 120)
    assert status.state == jobs.FAILED
    assert "absent.safetensors" in status.message
    assert (folder / jobs.WORKER_FILE).exists()


def test_a_job_whose_python_is_wrong_keeps_its_exam_for_another_one(window: Window) -> None:
    workers = window.segmentation.logic.workers
    workers.usePython("/nowhere/python")
    try:
        folder = handing_over(window)
        status = window.spin_to_end(folder, 60)
    finally:
        workers.usePython("")
    assert status.state == jobs.FAILED
    assert "check the path of that Python" in status.message
    assert (folder / "input" / HANDOVER_FILE).is_file()


def test_a_job_on_a_view_without_its_volume_is_not_made(window: Window) -> None:
    """It says which view, where a user has deleted the volume in the Data module."""
    from SSLScene import exams
    from SSLScene import undo
    from SSLScene.host import SceneError

    exam = exams.load_study(window.scene, toy_study(1), "deleted")
    window.scene.RemoveNode(exam.views[1].volume)
    before = jobs.find(window.home / "jobs")
    with pytest.raises(SceneError, match=f"'{exam.views[1].view.name}' has lost its volume.*load the exam again"):
        window.segmentation.logic.startClassifying("/absent.safetensors", exam, "cpu")
    assert jobs.find(window.home / "jobs") == before
    undo.remove_all(window.scene, "deleted")


def test_who_waits_for_a_result_is_called_back_too(window: Window, tmp_path: Path) -> None:
    from SSLScene import undo

    folder = jobs.create(tmp_path / "job", "planes", {})
    jobs.Reporter(folder).event(jobs.FINISHED)
    told: list[object] = []
    shown = window.segmentation.logic._sceneJobs.outcome(
        folder,
        lambda: undo.one_step(lambda: "planes"),
        lambda status, events: told.append(status.state),
        told.append,
        waitForCompletion=True,
    )
    assert shown == "planes"
    assert told == [jobs.FINISHED, "planes"]
