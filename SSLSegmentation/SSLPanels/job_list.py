"""The list of all jobs of a folder: whoever started them, it keeps up with them by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt

from SSLEngine import jobs

from . import tables
from . import wording
from .workers import jobs_folder

#: A job in one of these states changes only when its files do.
AT_REST = (jobs.FINISHED, jobs.FAILED, jobs.CANCELLED, jobs.LOST)


class JobList:
    """Fills a table with jobs, newest first, and looks again every few seconds while it is shown.

    Args:
        table: The table; a row's key is the job's folder.
        listed: Whether a job is listed, by its description (``job.json``).
        onChange: Called when rows have changed.
    """

    INTERVAL_MS = 2000
    #: Jobs that are read at one look, the newest first: hundreds of them at once would hold up the window.
    READ_A_LOOK = 60

    def __init__(self, table: Any, listed: Callable[[dict[str, Any]], bool], onChange: Callable[[], None]) -> None:
        self._table = table
        self._listed = listed
        self._onChange = onChange
        self._known: dict[Path, tuple[tuple[float, ...], list[str] | None]] = {}
        self._shown: list[tuple[str, list[str]]] = []
        self._left = 0
        # Kept on self: a timer without a Python reference never ticks.
        self._timer = qt.QTimer()
        self._timer.setInterval(self.INTERVAL_MS)
        self._timer.connect("timeout()", self.refresh)

    def start(self) -> None:
        """The table is shown."""
        self.refresh()
        self._timer.start()

    def stop(self) -> None:
        """The table is not shown."""
        self._timer.stop()

    @property
    def selected(self) -> Path | None:
        """Folder of the selected job."""
        folder = tables.key(self._table, self._table.currentRow())
        return None if folder is None else Path(folder)

    def refresh(self) -> None:
        """Looks at the folder; the selection stays with its job."""
        root = jobs_folder()
        self._left = self.READ_A_LOOK
        rows = [(str(folder), row) for folder in jobs.find(root) if (row := self._row(folder, root)) is not None]
        if rows == self._shown:
            return
        selected = self.selected
        self._shown = rows
        folders = [folder for folder, _row in rows]
        tables.fill(self._table, [row for _folder, row in rows], folders, folders)
        if selected is not None and str(selected) in folders:
            self._table.selectRow(folders.index(str(selected)))
        self._onChange()

    def _row(self, folder: Path, root: Path) -> list[str] | None:
        """Cells of a job; None of one that is not listed, that is not read yet, or whose folder has gone meanwhile."""
        files = [folder / name for name in (jobs.JOB_FILE, jobs.EVENTS_FILE, jobs.WORKER_FILE)]
        stamp = tuple(file.stat().st_mtime if file.is_file() else 0.0 for file in files)
        known = self._known.get(folder)
        if known is not None and known[0] == stamp:
            return known[1]
        if not self._left:
            return None if known is None else known[1]
        self._left -= 1
        self._known.pop(folder, None)
        try:
            description = jobs.load(folder)
            status = jobs.status(folder) if self._listed(description) else None
        except (jobs.JobError, OSError):
            return None
        row = None if status is None else cells(folder, root, description["kind"], status)
        if status is None or status.state in AT_REST:
            self._known[folder] = stamp, row
        return row


def cells(folder: Path, root: Path, kind: str, status: jobs.Status) -> list[str]:
    """Name, kind, state and progress of a job."""
    name = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)
    share = f"{100 * status.step / status.steps:.0f} %" if status.steps else ""
    return [name, wording.kinds().get(kind, ""), wording.states().get(status.state, ""), share]
