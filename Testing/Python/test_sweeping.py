"""Folders of short jobs are taken away when nobody reads them any more; nothing that a user owns ever is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from panel_window import Pulse
from panel_window import Window
from SSLEngine import jobs
from SSLEngine import processes

STAMP = "2026-01-02_030405"


def job(root: Path, name: str, kind: str, days: float = 2.0, end: str | None = jobs.FINISHED) -> Path:
    """A job that ended some days ago, with files as a load leaves them."""
    folder = jobs.create(root / name, kind, {})
    (folder / "exam").mkdir()
    (folder / "exam" / "000_0000.npy").write_bytes(b"pixels")
    (folder / jobs.LOG_FILE).touch()
    if end is not None:
        jobs.Reporter(folder).event(end)
    then = time.time() - days * 86400
    for path in folder.rglob("*"):
        os.utime(path, (then, then))
    return folder


@pytest.fixture
def root(window: Window, tmp_path: Path) -> Iterator[Path]:
    """The folder of jobs, without those of the window's own life."""
    key = "SSLSegmentation/JobsFolder"
    before = window.application.settings.value(key, "")
    window.application.settings.setValue(key, str(tmp_path / "jobs"))
    yield tmp_path / "jobs"
    window.application.settings.setValue(key, before)


def test_what_short_jobs_have_left_goes_when_the_module_is_opened(window: Window, root: Path) -> None:
    gone = [job(root, f"{kind}-{STAMP}", kind) for kind in ("load", "inspect", "probe", "targets")]
    gone += [
        job(root, f"load-{STAMP}-{number}", "load", end=end)
        for number, end in enumerate((jobs.FAILED, jobs.CANCELLED, None), 2)
    ]
    dead = job(root, f"load-{STAMP}-9", "load", end="started")
    jobs._write_worker(dead, os.getpid(), "long ago", None)
    gone.append(dead)
    panels = [window.application.open_panel(module) for module in (window.pretrain_module, window.segment_module)]
    pulse = Pulse()
    window.spin(lambda: not any(folder.exists() for folder in gone), 30)
    window.spin(lambda: pulse.ticks > 20, 30)
    pulse.stop()
    for panel in panels:
        panel.cleanup()


def sweep(root: Path) -> None:
    from SSLPanels.sweeping import sweeping

    for _ in sweeping(root):
        pass


def test_all_else_stays(window: Window, root: Path, tmp_path: Path) -> None:
    kinds = ("pretrain", "finetune", "segment", "phantom", "planes", "classify", "anomalies", "export", "study-labels")
    kept = [job(root, f"{kind}-{STAMP}", kind) for kind in kinds]
    kept.append(job(root, f"load-{STAMP}", "load", days=0.5))
    kept.append(job(root, "load", "load"))
    kept.append(job(root, f"my load-{STAMP}", "load"))
    kept.append(job(root, f"inspect-{STAMP}", "segment"))
    damaged = job(root, f"load-{STAMP}-2", "load")
    (damaged / jobs.JOB_FILE).write_text("{")
    elsewhere = job(tmp_path / "elsewhere", "load", "load")
    (root / f"load-{STAMP}-3").symlink_to(elsewhere, target_is_directory=True)
    bare = root / f"probe-{STAMP}"
    bare.mkdir()
    kept += [damaged, elsewhere, bare]
    files = {path for folder in kept for path in folder.rglob("*")}
    sweep(root)
    assert all(folder.is_dir() for folder in kept)
    assert {path for folder in kept for path in folder.rglob("*")} == files


def test_links_in_a_folder_are_not_followed(window: Window, root: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "exam.nii").write_bytes(b"mine")
    folder = job(root, f"load-{STAMP}", "load")
    (folder / "folder").symlink_to(mine, target_is_directory=True)
    (folder / "file").symlink_to(mine / "exam.nii")
    sweep(root)
    assert not folder.exists()
    assert (mine / "exam.nii").read_bytes() == b"mine"


def test_a_job_that_runs_stays(window: Window, root: Path) -> None:
    folder = job(root, f"load-{STAMP}", "load", end="started")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        jobs._write_worker(folder, child.pid, processes.birth(child.pid), None)
        sweep(root)
        assert (folder / "exam" / "000_0000.npy").exists()
    finally:
        child.kill()
        child.wait()
    sweep(root)
    assert not folder.exists()


def test_what_was_interrupted_is_finished_the_next_time(window: Window, root: Path) -> None:
    from SSLPanels.sweeping import sweeping

    folder = job(root, f"load-{STAMP}", "load")
    steps = sweeping(root)
    next(steps)
    while any(path.is_file() and path.name != jobs.JOB_FILE for path in folder.rglob("*")):
        assert (folder / jobs.JOB_FILE).exists()
        next(steps)
    steps.close()
    assert (folder / jobs.JOB_FILE).exists()
    sweep(root)
    assert not folder.exists()
