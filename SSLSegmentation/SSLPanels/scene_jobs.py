"""Jobs on an exam of the scene: it is written for a worker bit by bit, and what the worker finds comes back so."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import slicer

from SSLEngine import jobs

from .follower import Followers
from .follower import wait_for_result
from .stepper import Stepper
from .workers import Workers

if TYPE_CHECKING:
    from SSLScene.exams import SceneExam


def read_result(folder: Path) -> dict[str, Any]:
    """What such a job has written of what it found.

    Raises:
        JobError: It has written nothing, or what is there is broken.
    """
    return jobs.read_json(folder / "result.json")


class SceneJobs:
    """Starts such jobs and takes what they find; any number at a time.

    Args:
        workers: Starts the processes.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._followers = Followers()
        self._steppers: list[Stepper] = []

    def start(self, kind: str, settings: dict[str, Any], exam: SceneExam, out: str = "") -> Path:
        """Creates a job; it starts as soon as the exam has been written for it.

        Args:
            kind: Verb of the command line.
            settings: Its settings, but for those that name the exam and the result.
            exam: The exam; a part of its views may be enough.
            out: Name of the result in the job's folder, where the verb asks for one.

        Returns:
            The job's folder.
        """
        from SSLScene import exams

        folder = self._workers.newFolder(kind)
        places = {"input": str(folder / "input")} | ({"out": str(folder / out)} if out else {})
        self._workers.prepare(kind, settings | places, folder)

        def failed(error: Exception) -> None:
            jobs.Reporter(folder).event(jobs.FAILED, message=str(error))

        def start(written: None) -> None:
            try:
                self._workers.start(folder)
            except jobs.JobError as error:
                failed(error)

        self._work(exams.handing_over(exam, folder / "input"), start, failed)
        return folder

    def outcome(
        self,
        folder: Path,
        show: Callable[[], Generator[Any, None, Any]],
        onUpdate: Callable[..., None] | None,
        onFinished: Callable[[Any], None] | None,
        waitForCompletion: bool,
    ) -> Any:
        """Puts what a job has found into the scene when it has finished.

        Args:
            folder: The job's folder.
            show: Gives the steps of putting it there, which return it.
            onUpdate: Called with status and new events.
            onFinished: Called with what the steps have returned.
            waitForCompletion: Wait and return that.

        Returns:
            What was found if waited for, else the job's folder.

        Raises:
            RuntimeError: Waited for, and the job failed; the message says why.
        """
        from SSLScene import undo

        if waitForCompletion:
            wait_for_result(folder)
            return undo.at_once(show())

        def finished(status: jobs.Status) -> None:
            if status.state == jobs.FINISHED:
                self._work(show(), onFinished or (lambda shown: None), _display)

        self._followers.follow(folder, onUpdate, finished)
        return folder

    def _work(self, steps: Any, onDone: Callable[[Any], None], onError: Callable[[Exception], None]) -> None:
        """Does something on the scene bit by bit while the window stays awake."""
        self._steppers = [known for known in self._steppers if known.active]
        stepper = Stepper()
        self._steppers.append(stepper)
        stepper.run(steps, onDone, onError)

    def release(self) -> None:
        """Ends all following; the jobs go on, but what is on its way into the scene or out of it is given up."""
        self._followers.release()
        for stepper in self._steppers:
            stepper.cancel()
        self._steppers = []


def _display(error: Exception) -> None:
    slicer.util.errorDisplay(str(error))
