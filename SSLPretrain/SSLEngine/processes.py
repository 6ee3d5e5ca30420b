"""Tells a process from a later one that was given the same pid. Standard library only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROC = Path("/proc")
#: Of Windows: the right to ask for times and exit code, and the exit code of a process that has not ended.
QUERY_LIMITED_INFORMATION, STILL_ACTIVE = 0x1000, 259


def birth(pid: int) -> str | None:
    """When a process started, in whatever unit the system has: equal only for the same process.

    Returns:
        A text to compare; None where there is no such process, it has ended, or the system does not say.
    """
    if sys.platform == "win32":
        return _by_windows(pid)
    return _by_proc(pid) if (PROC / "self" / "stat").exists() else _by_ps(pid)


def without_window() -> dict[str, Any]:
    """Options of :mod:`subprocess` for a short command: on Windows no console window flashes up."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NO_WINDOW}
    return {}


def _by_proc(pid: int) -> str | None:
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _by_ps(pid: int) -> str | None:
    # Language and time zone change what it prints: both are the same whoever asks.
    environment = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
    try:
        printed = subprocess.run(command, env=environment, check=False, capture_output=True, text=True).stdout
    except OSError:
        return None
    state, _, started = printed.strip().partition(" ")
    return None if state.startswith("Z") else started.strip() or None


def _by_windows(pid: int) -> str | None:
    if sys.platform != "win32":
        return None
    import ctypes
    from ctypes import wintypes

    kernel = ctypes.WinDLL("kernel32")
    kernel.OpenProcess.restype = wintypes.HANDLE
    handle = wintypes.HANDLE(kernel.OpenProcess(QUERY_LIMITED_INFORMATION, False, pid))
    if not handle:
        return None
    try:
        code = wintypes.DWORD()
        created, exited, in_kernel, in_user = (wintypes.FILETIME() for _ in range(4))
        times = map(ctypes.byref, (created, exited, in_kernel, in_user))
        told = kernel.GetExitCodeProcess(handle, ctypes.byref(code)) and kernel.GetProcessTimes(handle, *times)
    finally:
        kernel.CloseHandle(handle)
    # A process that has ended stays known as long as anyone holds a handle of it.
    if not told or code.value != STILL_ACTIVE:
        return None
    return str(created.dwHighDateTime << 32 | created.dwLowDateTime)
