"""Takes away the folders of short jobs that nobody reads any more: what they told was for the moment."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Generator
from pathlib import Path

from SSLEngine import jobs

#: Kinds of jobs whose results a panel takes over at once and whose folders hold nothing else.
PASSING = ("load", "inspect", "probe", "targets")
#: Another window may still read what has just been found.
KEPT_S = 24 * 3600.0


def sweeping(root: Path) -> Generator[None, None, None]:
    """Removes, one file at each step, folders of short jobs that have ended, or whose worker died, a day ago.

    Only what :meth:`SSLPanels.workers.Workers.newFolder` has named is touched, and no link is followed.

    Args:
        root: The folder in which jobs are kept.
    """
    named = re.compile(rf"({'|'.join(PASSING)})-\d{{4}}-\d\d-\d\d_\d{{6}}(-\d+)?")
    for folder in [path for path in root.glob("*") if named.fullmatch(path.name) and not path.is_symlink()]:
        yield
        if _over(folder):
            yield from _removing(folder)


def _over(folder: Path) -> bool:
    try:
        kind, state = jobs.load(folder)["kind"], jobs.status(folder).state
        files = [folder / name for name in (jobs.JOB_FILE, jobs.EVENTS_FILE)]
        last = max(file.stat().st_mtime for file in files if file.is_file())
    except (jobs.JobError, OSError, ValueError, TypeError):
        return False
    return kind in PASSING and state != jobs.RUNNING and time.time() - last > KEPT_S


def _removing(folder: Path) -> Generator[None, None, None]:
    # Bottom up, and the description last: what is interrupted is found and finished the next time.
    description = folder / jobs.JOB_FILE
    for place, folders, files in os.walk(folder, topdown=False):
        for path in [Path(place, name) for name in (*files, *folders)]:
            if path != description:
                _remove(path)
                yield
    # The other module may sweep here, too.
    with contextlib.suppress(OSError):
        if list(folder.iterdir()) == [description]:
            _remove(description)
            _remove(folder)


def _remove(path: Path) -> None:
    """Removes a file, a link or an empty folder; one that another program holds stays for the next time."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
