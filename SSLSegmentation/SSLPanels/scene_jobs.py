"""Jobs on an exam of the scene: it is written for a worker bit by bit, and what the worker finds comes back so."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import slicer
from slicer.i18n import tr as _

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


def half_handed_over(folder: Path) -> bool:
    """Whether a job's exam has not wholly arrived, so that no worker can begin with it."""
    given = folder / "input"
    if not given.is_dir():
        return False
    from SSLEngine.studies.handover import HANDOVER_FILE

    return not (given / HANDOVER_FILE).is_file()


class SceneJobs:
    """Starts such jobs and takes what they find; any number at a time.

    Args:
        workers: Starts the processes.
    """

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._followers = Followers()
        self._steppers: list[Stepper] = []
        self._waiting: set[Path] = set()

    def start(self, kind: str, settings: dict[str, Any], exam: SceneExam, out: str = "") -> Path:
        """Creates a job; it starts as soon as the exam has been written for it, unless it was stopped until then.

        Args:
            kind: Verb of the command line.
            settings: Its settings, but for those that name the exam and the result.
            exam: The exam; a part of its views may be enough.
            out: Name of the result in the job's folder, where the verb asks for one.

        Returns:
            The job's folder.

        Raises:
            SceneError: A view's volume is no longer in the scene.
        """
        from SSLScene import exams

        folder = self._workers.newFolder(kind)
        # Before the folder is made: a job that cannot get its exam is none.
        handing_over = _until_stopped(exams.handing_over(exam, folder / "input"), folder)
        places = {"input": str(folder / "input")} | ({"out": str(folder / out)} if out else {})
        self._workers.prepare(kind, settings | places, folder)

        def ended(error: Exception) -> None:
            self._waiting.discard(folder)
            _give_up(folder, jobs.CANCELLED if isinstance(error, jobs.Cancelled) else jobs.FAILED, str(error))

        def start(written: None) -> None:
            self._waiting.discard(folder)
            try:
                self._workers.start(folder)
            except jobs.JobError as error:
                # What was handed over stays: with another Python it can be resumed.
                jobs.Reporter(folder).event(jobs.FAILED, message=str(error))

        self._waiting.add(folder)
        self._work(handing_over, start, ended)
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
            self._followers.follow(folder, onUpdate)
            wait_for_result(folder)
            shown = undo.at_once(show())
            if onFinished is not None:
                onFinished(shown)
            return shown

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
        """Ends all following; jobs that run go on, but what is on its way into the scene or out of it is given up."""
        self._followers.release()
        for stepper in self._steppers:
            stepper.cancel()
        self._steppers = []
        for folder in self._waiting:
            _give_up(folder, jobs.CANCELLED, _not_started())
        self._waiting = set()


def _until_stopped(steps: Iterator[Any], folder: Path) -> Generator[Any, None, None]:
    """Takes the steps before a job's start: there is no worker yet that could obey a STOP.

    Raises:
        Cancelled: The job was stopped; its start would take the STOP away.
    """
    for step in steps:
        yield step
        _obey(folder)
    _obey(folder)


def _obey(folder: Path) -> None:
    if (folder / jobs.STOP_FILE).exists():
        raise jobs.Cancelled(_not_started())


def _not_started() -> str:
    return _("Stopped before the exam was handed over; start it anew instead of resuming it.")


def _give_up(folder: Path, state: str, message: str) -> None:
    """Ends a job whose exam has not arrived: images are not kept where no worker will read them."""
    shutil.rmtree(folder / "input", ignore_errors=True)
    (folder / jobs.STOP_FILE).unlink(missing_ok=True)
    jobs.Reporter(folder).event(state, message=message)


def _display(error: Exception) -> None:
    slicer.util.errorDisplay(str(error))
