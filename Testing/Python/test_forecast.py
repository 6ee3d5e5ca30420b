"""The forecast of a training counts what the training will spend: reading, steps, looking at held-out slices."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from SSLEngine import jobs
from SSLEngine import pretraining
from SSLEngine import tasks
from SSLEngine.jobs import Reporter

READING_S, STEP_S, LOOK_S, STEPS = 0.4, 0.05, 0.2, 100


def pretend(settings: Any, reporter: Reporter) -> None:
    """Spends time as a training does, without computing."""
    time.sleep(READING_S)
    for step in range(1, STEPS + 1):
        if reporter.stop_requested():
            raise jobs.Cancelled
        time.sleep(STEP_S)
        reporter.progress(step, STEPS, 1.0)
        if step % settings.schedule.validate_every == 0:
            time.sleep(LOOK_S)


@pytest.mark.parametrize(("validate_every", "looks"), [(0, 10), (50, 2)])
def test_a_forecast_counts_reading_steps_and_looks(
    validate_every: int, looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "pretrain", pretend)
    settings = {"data": {"path": "x"}, "device": "cpu", "schedule": {"validate_every": validate_every}}
    found = tasks.forecast("pretrain", settings, Reporter(None))
    assert found["steps"] == STEPS
    assert found["seconds"] == pytest.approx(READING_S + STEPS * STEP_S + looks * LOOK_S, rel=0.25)
    assert found["memory_bytes"] > 1e7


def test_a_forecast_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "pretrain", pretend)
    outer = Reporter(None)
    outer.request_stop()
    with pytest.raises(jobs.Cancelled):
        tasks.forecast("pretrain", {"data": {"path": "x"}, "device": "cpu"}, outer)


def test_what_a_forecast_leaves_lies_in_its_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed worker cannot tidy up: what it leaves is taken away with the job's folder."""
    places = []

    def look(settings: Any, reporter: Reporter) -> None:
        assert reporter.folder is not None
        places.append(reporter.folder.parent)

    monkeypatch.setattr(pretraining, "pretrain", look)
    tasks.forecast("pretrain", {"data": {"path": "x"}, "device": "cpu"}, Reporter(tmp_path))
    assert places == [tmp_path]
    assert not list(tmp_path.iterdir())
