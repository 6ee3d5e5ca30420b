"""Starts the engine's jobs as children of the application, in PythonSlicer or a Python that the user names."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import slicer

from SSLEngine import jobs

from . import requirements

PYTHON_KEY = "SSLSegmentation/Python"
FOLDER_KEY = "SSLSegmentation/JobsFolder"
#: Kinds of jobs that run with what Slicer ships.
NEED_NOTHING = ("load", "inspect", "phantom")


def merged(settings: Mapping[str, Any], further: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with further ones, which override; a block keeps what the further one does not name."""
    together = {**settings, **further}
    for name, block in settings.items():
        if isinstance(block, Mapping) and isinstance(together[name], Mapping):
            together[name] = merged(block, together[name])
    return together


def jobs_folder() -> Path:
    """Where jobs are kept unless the user says otherwise: a folder of the user's, never the extension's."""
    kept = slicer.app.settings().value(FOLDER_KEY, "")
    return Path(kept) if kept else Path.home() / "SSLSegmentation" / "jobs"


class Workers:
    """Makes job folders and starts them.

    Args:
        requester: Name of the module, for dialogs.
    """

    def __init__(self, requester: str) -> None:
        self._requirements = requirements.resources() / requirements.WORKER
        self._requester = requester

    @property
    def python(self) -> list[str] | None:
        """Command of the Python to run jobs with; None for Slicer's own."""
        kept = slicer.app.settings().value(PYTHON_KEY, "")
        return [kept] if kept else None

    def usePython(self, path: str) -> None:
        """Runs jobs with another Python that has torch; empty text goes back to Slicer's own."""
        slicer.app.settings().setValue(PYTHON_KEY, path)

    def useFolder(self, path: str) -> None:
        """Keeps new jobs in a folder; empty text goes back to the default."""
        slicer.app.settings().setValue(FOLDER_KEY, path)

    def run(
        self, kind: str, settings: Mapping[str, Any], out: str | Path | None = None, needs: Path | None = None
    ) -> Path:
        """Creates and starts a job.

        Args:
            kind: Verb of the command line.
            settings: Plain values; the worker validates them.
            out: Folder of the job; a new one, named by kind and time, by default.
            needs: A further requirements file.

        Returns:
            The job's folder.

        Raises:
            JobError: It cannot be created or started.
            RequirementsMissing: Something that it needs is not installed.
        """
        folder = self.prepare(kind, settings, out, needs)
        self.start(folder)
        return folder

    def prepare(
        self, kind: str, settings: Mapping[str, Any], out: str | Path | None = None, needs: Path | None = None
    ) -> Path:
        """Creates a job that :meth:`start` will start; as :meth:`run`."""
        wanted = () if kind in NEED_NOTHING or self.python is not None else (self._requirements, needs)
        for path in filter(None, wanted):
            requirements.ensure(path, self._requester)
        return jobs.create(Path(out) if out else self.newFolder(kind), kind, settings)

    def resume(self, folder: Path) -> None:
        """Starts a job that has stopped again."""
        if self.python is None and jobs.load(folder)["kind"] not in NEED_NOTHING:
            requirements.ensure(self._requirements, self._requester)
        self.start(folder)

    def start(self, folder: Path) -> None:
        """Starts a prepared job."""
        # Another Python must not see the libraries of Slicer's own.
        environment = None if self.python is None else slicer.util.startupEnvironment()
        jobs.start(folder, self.python, environment)

    @staticmethod
    def newFolder(kind: str) -> Path:
        """A folder that does not exist yet, named by kind and time."""
        stamp = f"{datetime.datetime.now():%Y-%m-%d_%H%M%S}"
        folder = jobs_folder() / f"{kind}-{stamp}"
        number = 1
        while folder.exists():
            number += 1
            folder = jobs_folder() / f"{kind}-{stamp}-{number}"
        return folder
