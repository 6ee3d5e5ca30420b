"""Loads an exam without holding up the window: a job reads it, then its views come into the scene bit by bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import slicer
from slicer.i18n import tr as _

from SSLEngine import jobs

from . import wording
from .follower import JobFollower
from .stepper import Stepper
from .workers import Workers

if TYPE_CHECKING:
    from SSLEngine.studies import Study
    from SSLScene.exams import SceneExam

OnProgress = Callable[[int, int, str], None]


class ExamLoader:
    """One load at a time. Nothing of an exam that fails, or is cancelled, stays in the scene or on the disk.

    Args:
        workers: Starts the job.
        onProgress: ``onProgress(done, total, message)``; ``total`` is 0 while it is not known.
        onFinished: Called once at the end, whatever the end was; see the attributes.

    Attributes:
        exam: The exam once it is loaded, else None.
        error: Why it could not be loaded, one sentence; empty if it was loaded or cancelled.
        report: The same with the end of the job's log and where the log is.
    """

    def __init__(
        self, workers: Workers, onProgress: OnProgress | None = None, onFinished: Callable[[], None] | None = None
    ) -> None:
        self.exam: SceneExam | None = None
        self.error = self.report = ""
        self._workers = workers
        self._onProgress = onProgress
        self._onFinished = onFinished
        self._token = ""
        self._folder: Path | None = None
        self._follower = JobFollower(self._onUpdate, self._onRead)
        self._stepper = Stepper()
        self._observer: int | None = None

    @property
    def active(self) -> bool:
        """Whether an exam is being loaded."""
        return self._folder is not None

    def load(self, path: str | Path) -> Path:
        """Begins to load a folder or a file; returns the folder of the job that reads it.

        Raises:
            JobError: The job cannot be started.
        """
        self.cancel()
        self.exam, self.error, self.report = None, "", ""
        folder = self._workers.newFolder("load")
        settings = {"path": str(Path(path).resolve()), "out": str(folder / "exam")}
        self._workers.run("load", settings, folder)
        self._folder = folder
        scene = slicer.mrmlScene
        self._observer = scene.AddObserver(scene.StartCloseEvent, lambda caller, event: self.cancel())
        self._follower.follow(folder)
        return folder

    def cancel(self) -> None:
        """Gives up; the job is ended at once, as it has nothing worth saving."""
        if self._folder is None:
            return
        if self._follower.active:
            jobs.stop(self._folder)
            jobs.kill(self._folder)
        self._stepper.cancel()
        self._end(keep=False)

    def _onUpdate(self, status: jobs.Status, events: list[dict[str, Any]]) -> None:
        self._tell(status.step, status.steps, status.message)

    def _tell(self, done: int, total: int, message: str) -> None:
        if self._onProgress is not None:
            self._onProgress(done, total, message)

    def _onRead(self, status: jobs.Status) -> None:
        folder = self._folder
        if folder is None:
            return
        if status.state != jobs.FINISHED:
            self.error, self.report = wording.sentence(folder, status), wording.failure(folder, status)
            self._end(keep=True)
            return
        from SSLEngine.studies import take_over
        from SSLScene import undo

        try:
            study = take_over(folder / "exam")
        except ValueError as error:
            self._onError(error)
            return
        self._token = undo.new_token(study.name)
        show = _("into the scene: {view}")
        self._stepper.run(
            _loading(study, self._token),
            self._onLoaded,
            self._onError,
            lambda step: self._tell(step[0], step[1], show.format(view=step[2])),
        )

    def _onLoaded(self, exam: SceneExam) -> None:
        from SSLScene import exams

        exams.read_from_scene(slicer.mrmlScene, exam)
        self.exam = exam
        self._end(keep=False)

    def _onError(self, error: Exception) -> None:
        self.error = self.report = str(error)
        self._end(keep=False)

    def _end(self, keep: bool) -> None:
        """Tidies up. A failed job is kept for its log, but never the patient's images in it."""
        from SSLScene import undo

        folder, self._folder = self._folder, None
        self._follower.release()
        if self._observer is not None:
            slicer.mrmlScene.RemoveObserver(self._observer)
            self._observer = None
        if self.exam is None and self._token:
            undo.remove_all(slicer.mrmlScene, self._token)
        self._token = ""
        if folder is not None:
            shutil.rmtree(folder / "exam" if keep else folder, ignore_errors=True)
        if self._onFinished is not None:
            self._onFinished()


def _loading(study: Study, token: str) -> Generator[tuple[int, int, str], None, SceneExam]:
    """The views of a study into the scene, and the labels that lay beside them."""
    from SSLScene import exams
    from SSLScene import segments

    exam = yield from exams.loading(slicer.mrmlScene, study, token)
    yield from segments.loading_labels(slicer.mrmlScene, exam)
    return exam
