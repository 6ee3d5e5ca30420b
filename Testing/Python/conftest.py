"""Shared fixtures. Real images lie beside the project and are never needed: tests that use them skip."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from toy_exams import write_toy_cohort

if TYPE_CHECKING:
    from panel_window import Window

# The same cases in every run: what fails in CI fails at home, and a change is not blamed for an old rare case.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PACKAGE_PARENT = Path(__file__).resolve().parents[2] / "SSLPretrain"

#: Settings of a network that learns nothing and costs nothing.
TINY = ("network.widths=[4,8,16]", "grid.patch=32", "grid.spacing_mm=6", "schedule.batch=2")

Engine = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"real images are not here: {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def toy_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six tiny labelled heart studies (see ``toy_exams``)."""
    return write_toy_cohort(tmp_path_factory.mktemp("cohort"), 6)


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """Command-line options for the tiny network on the processor."""
    return [part for text in TINY for part in ("--set", text)] + ["--device", "cpu"]


def engine_environment() -> dict[str, str]:
    """Environment in which a child finds the engine and uses one core."""
    return {**os.environ, "PYTHONPATH": str(PACKAGE_PARENT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def engine() -> Engine:
    """Runs ``python -m SSLEngine`` with some arguments to its end."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "SSLEngine", *(str(a) for a in arguments)]
        return subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=300, env=engine_environment()
        )

    return run


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Window]:
    """Both modules' panels in the stand-in for Slicer."""
    from panel_window import opened

    yield from opened(tmp_path_factory)


@pytest.fixture(scope="module")
def exams(window: Window) -> Path:
    """Three synthetic exams, made by the job that the panel's button starts."""
    from SSLEngine import jobs

    folder = window.pretrain.logic.makeSyntheticExams("heart", studies=3, seed=3)
    window.spin(lambda: jobs.status(folder).state == jobs.FINISHED)
    return folder / "exams"
