"""Follows a job by its folder: a timer looks at it, nothing waits for it, no thread runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer

from SSLEngine import jobs

from . import wording

OnUpdate = Callable[[jobs.Status, list[dict[str, Any]]], None]
OnFinished = Callable[[jobs.Status], None]


class JobFollower:
    """Calls back with a job's state and its new events until it ends.

    The job does not know of it: when the window closes the job goes on, and a new follower takes it up.

    Args:
        onUpdate: Called with the status and the events since the last call.
        onFinished: Called once, when the job has ended in whatever way.
        patience_s: A worker that has not obeyed STOP is terminated, then killed with its children, after these times.
    """

    INTERVAL_MS = 400
    #: Events that are taken at one look: those of a long job would hold up the window.
    EVENTS_A_LOOK = 2000
    #: A folder that cannot be read for so long (a share that is gone) has lost its job.
    UNREADABLE_S = 20.0

    def __init__(
        self,
        onUpdate: OnUpdate | None = None,
        onFinished: OnFinished | None = None,
        patience_s: tuple[float, float] = (60.0, 75.0),
    ) -> None:
        self.onUpdate = onUpdate
        self.onFinished = onFinished
        self.patience_s = patience_s
        self.folder: Path | None = None
        self._events: jobs.Events | None = None
        self._asked: float | None = None
        self._unreadable: float | None = None
        self._degree = 0
        # Kept on self: a timer without a Python reference never ticks.
        self._timer = qt.QTimer()
        self._timer.setInterval(self.INTERVAL_MS)
        self._timer.connect("timeout()", self.poll)

    def follow(self, folder: Path) -> None:
        """Begins with a job, from its first event on."""
        self.folder = Path(folder)
        self._events = jobs.Events(self.folder)
        self._asked, self._unreadable, self._degree = None, None, 0
        self._timer.start()
        self.poll()

    def release(self) -> None:
        """Ends following; the job goes on."""
        self._timer.stop()
        self.folder = None
        self._events = None

    @property
    def active(self) -> bool:
        """Whether a job is being followed that may still change."""
        return bool(self._timer.isActive())

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop from here."""
        return self._asked is not None

    @property
    def killed(self) -> bool:
        """Whether it had to be ended from here because it did not answer."""
        return self._degree == 3

    def stop(self) -> None:
        """Asks the job to save its state and end; :meth:`poll` insists if it does not."""
        if self.folder is not None:
            jobs.stop(self.folder)
            self._asked, self._degree = time.monotonic(), 1

    def poll(self) -> None:
        """One look at the folder (a few ms)."""
        if self.folder is None or self._events is None:
            return
        try:
            status = jobs.status(self.folder)
            events = self._events.new(self.EVENTS_A_LOOK)
            self._unreadable = None
        except jobs.JobError as error:
            self._unreadable = self._unreadable or time.monotonic()
            if time.monotonic() - self._unreadable < self.UNREADABLE_S:
                return
            status, events = jobs.Status(jobs.LOST, message=str(error)), []
        over = status.state not in (jobs.RUNNING, jobs.QUEUED) and len(events) < self.EVENTS_A_LOOK
        if over:
            self._timer.stop()
        else:
            self._insist()
        if self.onUpdate is not None:
            self.onUpdate(status, events)
        if over and self.onFinished is not None:
            self.onFinished(status)

    def _insist(self) -> None:
        if self._asked is None or self.folder is None:
            return
        waited = time.monotonic() - self._asked
        terminate_after, kill_after = self.patience_s
        if waited > kill_after and self._degree < 3:
            self._degree = 3
            jobs.kill(self.folder)
        elif waited > terminate_after and self._degree < 2:
            self._degree = 2
            jobs.terminate(self.folder)


class Followers:
    """Followers of several jobs at a time, each kept until its job has ended."""

    def __init__(self) -> None:
        self._active: list[JobFollower] = []

    def follow(
        self, folder: Path, onUpdate: OnUpdate | None = None, onFinished: OnFinished | None = None
    ) -> JobFollower:
        """Calls back while a job runs, whoever started it; see :class:`JobFollower`."""
        self._active = [follower for follower in self._active if follower.active]
        follower = JobFollower(onUpdate, onFinished)
        self._active.append(follower)
        follower.follow(folder)
        return follower

    def release(self) -> None:
        """Ends all following; the jobs go on."""
        for follower in self._active:
            follower.release()
        self._active = []


def wait(folder: Path, timeout_s: float | None = None) -> jobs.Status:
    """For scripts: lets the application work on until the job has ended.

    Raises:
        TimeoutError: It has not ended in time.
    """
    end = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        status = jobs.status(folder)
        if status.state not in (jobs.RUNNING, jobs.QUEUED):
            return status
        if end is not None and time.monotonic() > end:
            msg = f"The job in {folder} has not ended within {timeout_s:g} s; see its log.txt."
            raise TimeoutError(msg)
        turn()


def wait_for_result(folder: Path) -> None:
    """As :func:`wait`, for those who need what the job finds.

    Raises:
        RuntimeError: It did not finish; the message says why.
    """
    status = wait(folder)
    if status.state != jobs.FINISHED:
        raise RuntimeError(wording.sentence(folder, status))


def idle(busy: Callable[[], bool]) -> None:
    """For scripts: lets the application work on for as long as something is so."""
    while busy():
        turn()


def turn() -> None:
    """Lets the application do what has come up, then rests a moment."""
    slicer.app.processEvents()
    time.sleep(0.02)
