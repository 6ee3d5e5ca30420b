"""A short fuzz run of the header readers; the long one is run by hand (fuzz_headers.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import fuzz_headers


def test_short_fuzz_run() -> None:
    """In a child process, so that a crash of a C++ reader fails this test and not the whole run."""
    import subprocess
    import sys

    command = [sys.executable, fuzz_headers.__file__, "300", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "300 cases, seed 7" in done.stdout


def test_cases_repeat_and_differ(tmp_path: Path) -> None:
    sound = fuzz_headers.seeds(tmp_path)
    data = sound["a.nii"]
    made = [fuzz_headers.mutate(data, np.random.default_rng([7, k])) for k in range(20)]
    assert made == [fuzz_headers.mutate(data, np.random.default_rng([7, k])) for k in range(20)]
    assert len({bytes(m) for m in made}) > 15
    assert len(sound) == 7
