"""A job in a panel: progress bar, one line of state, log, stop and resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt

from SSLEngine import jobs

from . import tables
from . import wording
from .follower import JobFollower
from .scene_jobs import half_handed_over

SAMPLE_WIDTH = 380


class JobMonitor:
    """Ties a :class:`JobFollower` to the widgets of a panel.

    Args:
        ui: Has ``progressBar``, ``jobStateLabel``, ``logText``, ``stopButton``, ``resumeButton``, and optionally
            ``sampleLabel`` for the newest picture that the worker has left.
        onEvents: Called with each batch of new events.
        onFinished: Called once when the job has ended.
        onResume: Called when the resume button is pressed.
    """

    def __init__(
        self,
        ui: Any,
        onEvents: Callable[[list[dict[str, Any]]], None] | None = None,
        onFinished: Callable[[Path, jobs.Status], None] | None = None,
        onResume: Callable[[Path], None] | None = None,
    ) -> None:
        self._ui = ui
        self._onEvents = onEvents
        self._onFinished = onFinished
        self._onResume = onResume
        self._sample: tuple[str, float] | None = None
        self.follower = JobFollower(self._update, self._finished)
        ui.stopButton.connect("clicked()", self.stop)
        ui.resumeButton.connect("clicked()", self.resume)
        self.clear()

    @property
    def folder(self) -> Path | None:
        """The job that is shown."""
        return self.follower.folder

    def follow(self, folder: Path) -> None:
        """Shows a job."""
        self.clear()
        self.follower.follow(folder)

    def clear(self) -> None:
        """Shows no job; one that runs goes on."""
        self.follower.release()
        self._sample = None
        self._ui.progressBar.setRange(0, 100)
        self._ui.progressBar.setValue(0)
        self._ui.progressBar.setVisible(False)
        self._ui.jobStateLabel.text = ""
        self._ui.jobStateLabel.toolTip = ""
        self._ui.logText.setPlainText("")
        self._ui.stopButton.enabled = False
        self._ui.resumeButton.enabled = False
        self._sample_label(None)

    def stop(self) -> None:
        """Asks the job to stop; the button waits for the worker's answer."""
        self.follower.stop()
        self._ui.stopButton.enabled = False
        self._ui.jobStateLabel.text += " ..."

    def resume(self) -> None:
        """Lets the owner start the job again."""
        if self.folder is not None and self._onResume is not None:
            self._onResume(self.folder)

    def _update(self, status: jobs.Status, events: list[dict[str, Any]]) -> None:
        folder = self.follower.folder
        if folder is None:
            return
        running = status.state in (jobs.RUNNING, jobs.QUEUED)
        bar = self._ui.progressBar
        bar.setVisible(running)
        # No steps yet: the bar only shows that something happens.
        bar.setRange(0, status.steps)
        bar.setValue(status.step)
        self._ui.stopButton.enabled = running and not self.follower.stopping
        at_rest = status.state in (jobs.FAILED, jobs.CANCELLED, jobs.LOST, jobs.QUEUED)
        self._ui.resumeButton.enabled = at_rest and not half_handed_over(folder)
        self._ui.jobStateLabel.text = wording.progress(status)
        self._ui.jobStateLabel.toolTip = tables.tip(str(folder))
        self._show_log(folder)
        self._show_sample(folder)
        if events and self._onEvents is not None:
            self._onEvents(events)

    def _finished(self, status: jobs.Status) -> None:
        folder = self.follower.folder
        if folder is None:
            return
        if status.state in (jobs.FAILED, jobs.LOST):
            why = wording.killed() if self.follower.killed else wording.sentence(folder, status)
            self._ui.logText.setPlainText(wording.failure(folder, status, why))
            self._ui.jobStateLabel.text = f"{wording.progress(status)}: {why}"
        if self._onFinished is not None:
            self._onFinished(folder, status)

    def _show_log(self, folder: Path) -> None:
        text = jobs.log_tail(folder, 200)
        if text != self._ui.logText.plainText:
            # Appending, unlike setting, scrolls to the end.
            self._ui.logText.clear()
            self._ui.logText.appendPlainText(text)

    def _show_sample(self, folder: Path) -> None:
        pictures = sorted(folder.glob("samples/*.png"), key=lambda p: p.stat().st_mtime)
        newest = (str(pictures[-1]), pictures[-1].stat().st_mtime) if pictures else None
        if newest != self._sample:
            self._sample = newest
            self._sample_label(newest[0] if newest else None)

    def _sample_label(self, path: str | None) -> None:
        label = getattr(self._ui, "sampleLabel", None)
        if label is None:
            return
        label.setVisible(path is not None)
        if path is not None:
            picture = qt.QPixmap(path)
            label.setPixmap(picture.scaledToWidth(min(SAMPLE_WIDTH, picture.width()), qt.Qt.SmoothTransformation))
