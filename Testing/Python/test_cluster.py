"""Jobs on a cluster, with submitit's executor of local processes in SLURM's place."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from conftest import Engine
from conftest import engine_environment
from SSLEngine import jobs
from SSLEngine.jobs import JobError

submitit = pytest.importorskip("submitit", reason="submitit is not installed")

from SSLEngine.cluster import Worker  # noqa: E402
from SSLEngine.cluster import submit  # noqa: E402


@pytest.fixture
def prepared(toy_cohort: Path, tiny: list[str], engine: Engine, tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    done = engine("pretrain", "--data", toy_cohort, "--out", folder, *tiny, "--steps", 4, "--prepare", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == jobs.QUEUED
    return folder


def wait_for_end(folder: Path) -> jobs.Status:
    end = time.monotonic() + 90
    while jobs.status(folder).state in (jobs.QUEUED, jobs.RUNNING):
        assert time.monotonic() < end, jobs.log_tail(folder)
        time.sleep(0.1)
    return jobs.status(folder)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_queued_job_runs_in_one_process_or_many(
    prepared: Path, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", engine_environment()["PYTHONPATH"], prepend=os.pathsep)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    number = submit(prepared, {"tasks_per_node": processes, "timeout_min": 5, "partition": "gpu"}, "local")
    assert number
    status = wait_for_end(prepared)
    assert status.state == jobs.FINISHED, jobs.log_tail(prepared)
    assert status.model
    events = jobs.Events(prepared).new()
    kinds = [e["event"] for e in events]
    assert kinds.count("started") == kinds.count("finished") == 1
    assert any("2 processes" in (e.get("message") or "") for e in events) == (processes == 2)


def test_a_worker_that_is_taken_away_waits_in_the_queue(prepared: Path) -> None:
    jobs.Reporter(prepared).event("started")
    again = Worker(prepared).checkpoint()
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    assert jobs.status(prepared).state == jobs.QUEUED
    assert "queued again" in jobs.status(prepared).message


@pytest.mark.parametrize(
    ("options", "cluster", "text"),
    [({}, "slurm", "srun"), ({"colour": "red"}, "local", "colour"), ({"timeout_min": "long"}, "local", "timeout_min")],
)
def test_what_cannot_be_queued_is_said_in_one_sentence(
    prepared: Path, options: dict[str, str], cluster: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No SLURM, wherever this runs.
    monkeypatch.setenv("PATH", "")
    with pytest.raises(JobError, match=text) as caught:
        submit(prepared, options, cluster)
    assert "\n" not in str(caught.value)
    assert jobs.status(prepared).state == jobs.QUEUED
