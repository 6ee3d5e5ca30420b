"""A process is told from a later one with the same pid, on every system; Windows is stood in for by its own words."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from ctypes import wintypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from SSLEngine import jobs
from SSLEngine import processes


@pytest.fixture(params=["proc", "ps"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Linux asks /proc; macOS and BSD have none and ask ps."""
    if request.param == "proc" and not processes.PROC.is_dir():
        pytest.skip("this system has no /proc")
    if request.param == "ps":
        if shutil.which("ps") is None:
            pytest.skip("ps is not installed")
        monkeypatch.setattr(processes, "PROC", Path("/nowhere"))
    return str(request.param)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any job."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_the_birth_of_a_process_is_its_own(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = processes.birth(os.getpid())
    assert mine
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert processes.birth(os.getpid()) == mine, "whoever asks, wherever"
    assert processes.birth(2**22 + 1) is None
    # Seconds are the finest that ps has.
    time.sleep(1.1)
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert processes.birth(child.pid) not in (None, mine)
    assert child.stdin is not None
    child.stdin.close()
    end = time.monotonic() + 30
    while processes.birth(child.pid) is not None:
        assert time.monotonic() < end, "a process that has ended, but was not waited for, is dead"
        time.sleep(0.05)
    child.wait()


def test_a_stranger_with_the_workers_pid_is_neither_the_worker_nor_ended(
    way: str, tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    folder = jobs.create(tmp_path / "job", "pretrain", {})
    born = processes.birth(sleeper.pid)
    jobs._write_worker(folder, sleeper.pid, born, None)
    assert jobs.status(folder).state == jobs.RUNNING
    for other in (f"{born} before", None):
        jobs._write_worker(folder, sleeper.pid, other, None)
        assert jobs.status(folder).state == jobs.LOST
        jobs.terminate(folder)
        jobs.kill(folder)
    time.sleep(0.2)
    assert sleeper.poll() is None, "a stranger was ended"


def test_a_child_of_our_own_is_asked_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the system says nothing of processes."""
    monkeypatch.setattr(processes, "birth", lambda pid: None)
    folder = jobs.create(tmp_path / "job", "pretrain", {})
    pid = jobs.start(folder, [sys.executable, "-c", "import time; time.sleep(600)"])
    assert jobs.status(folder).state == jobs.RUNNING
    assert jobs.status(folder).pid == pid
    jobs.kill(folder)
    end = time.monotonic() + 30
    while jobs.status(folder).state == jobs.RUNNING:
        assert time.monotonic() < end
        time.sleep(0.02)
    assert jobs.status(folder).state == jobs.LOST


def test_windows_is_asked_for_the_time_of_creation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls and structures are those of Windows; who answers them here is not: pid 7 runs, pid 8 has ended."""
    held: list[int] = []

    def open_process(access: int, inherit: bool, pid: int) -> int | None:
        assert (access, inherit) == (0x1000, False)
        if pid not in (7, 8):
            return None
        held.append(pid)
        return pid << 40  # a handle has the width of a pointer

    def get_exit_code(handle: Any, code: Any) -> int:
        code._obj.value = {7 << 40: 259, 8 << 40: 0}[handle.value]
        return 1

    def get_times(handle: Any, created: Any, *others: Any) -> int:
        assert len(others) == 3
        created._obj.dwHighDateTime, created._obj.dwLowDateTime = 2, 5
        return 1

    kernel = SimpleNamespace(
        OpenProcess=open_process,
        GetExitCodeProcess=get_exit_code,
        GetProcessTimes=get_times,
        CloseHandle=lambda handle: held.remove(handle.value >> 40),
    )
    monkeypatch.setattr(ctypes, "WinDLL", lambda name: kernel, raising=False)
    monkeypatch.setattr(processes.sys, "platform", "win32")
    assert processes.birth(7) == str((2 << 32) + 5)
    assert processes.birth(8) is None
    assert processes.birth(9) is None
    assert not held, "a handle was left open"
    assert open_process.restype is wintypes.HANDLE  # type: ignore[attr-defined]
    monkeypatch.setattr(subprocess, "CREATE_NO_WINDOW", 0x08000000, raising=False)
    assert processes.without_window() == {"creationflags": 0x08000000}
