"""The job folder: what is in it, what it says about a worker that lives, ends or dies, and how a worker is stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import engine_environment
from SSLEngine import jobs
from SSLEngine import processes
from SSLEngine.__main__ import explain
from SSLEngine.__main__ import main
from SSLEngine.geometry import GeometryError
from SSLEngine.jobs import JobError
from SSLEngine.settings import SettingsError
from SSLEngine.studies import StudyError
from SSLEngine.tasks import TASKS

#: Stands for Python in ``jobs.start``: a worker that counts until it is stopped, without torch.
WORKER = """
import sys, time
from pathlib import Path
from SSLEngine import jobs

assert sys.argv[1:4] == ["-m", "SSLEngine", "pretrain"], sys.argv
folder = Path(sys.argv[5])
settings = jobs.load(folder)["settings"]
try:
    with jobs.worker(folder, echo=True) as reporter:
        reporter.event("started")
        for step in range(settings["steps"]):
            if reporter.stop_requested():
                reporter.event("cancelled", message="Stopped.")
                sys.exit(jobs.EXIT_CANCELLED)
            reporter.progress(step + 1, settings["steps"], loss=1.0)
            time.sleep(0.02)
        (folder / jobs.MODEL_FILE).write_bytes(b"model")
        reporter.event("finished", message="Done.")
except jobs.JobError as error:
    print(error, file=sys.stderr)
    sys.exit(jobs.EXIT_UNUSABLE)
"""


@pytest.fixture
def python(tmp_path: Path) -> list[str]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER, encoding="utf-8")
    return [sys.executable, str(script)]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A prepared job whose path is no simple word; whatever still runs there is ended."""
    made = jobs.create(tmp_path / "Jobs of Zoë – 心臓" / "one", "pretrain", {"steps": 100_000})
    yield made
    if jobs.status(made).pid is not None:
        jobs.kill(made)


def until(test: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end
        time.sleep(0.02)


def state(folder: Path) -> str:
    return jobs.status(folder).state


def test_a_prepared_job_says_what_it_is(folder: Path) -> None:
    document = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    assert document["kind"] == "pretrain"
    assert document["settings"] == {"steps": 100_000}
    assert state(folder) == jobs.QUEUED
    with pytest.raises(JobError, match="already holds a job"):
        jobs.create(folder, "pretrain", {})
    assert jobs.find(folder.parent.parent) == [folder]
    expected = {"state", "step", "steps", "eta_s", "rate", "message", "model"}
    assert expected <= set(json.loads(json.dumps(jobs.status(folder).as_json())))


@pytest.mark.parametrize(
    ("state", "left", "taken"),
    [
        (jobs.FAILED, [], True),
        (jobs.FAILED, ["checkpoint-0000001.pt"], False),
        (jobs.FAILED, ["notes.txt"], False),
        (jobs.CANCELLED, [], False),
    ],
)
def test_the_folder_of_a_job_that_failed_before_it_made_anything_may_be_taken_again(
    folder: Path, state: str, left: list[str], taken: bool
) -> None:
    jobs.Reporter(folder).event(state, message="wrong")
    for name in ("log.txt", *left):
        (folder / name).write_text("earlier")
    if taken:
        jobs.create(folder, "finetune", {"steps": 7})
        assert jobs.load(folder)["settings"] == {"steps": 7}
        assert jobs.status(folder) == jobs.Status(jobs.QUEUED)
        assert not (folder / "log.txt").exists()
    else:
        before = {path: path.read_bytes() for path in folder.iterdir()}
        with pytest.raises(JobError, match="already holds a job"):
            jobs.create(folder, "finetune", {"steps": 7})
        assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_job_names_its_inputs_and_nothing_else(tmp_path: Path) -> None:
    trial = {"data": {"path": "/exams", "groups": None}, "init": "/model.safetensors", "device": "cpu", "init_": "/no"}
    settings = {"finetune": trial, "pretrain": {"data": {"path": "/exams"}}, "out": "/results", "counts": [1, 2]}
    folder = jobs.create(tmp_path / "job", "study-labels", settings)
    document = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    assert document["inputs"] == ["/exams", "/model.safetensors"]
    assert document["settings"] == settings


def test_a_worker_is_followed_stopped_and_resumed(folder: Path, python: list[str]) -> None:
    pid = jobs.start(folder, python)
    assert state(folder) == jobs.RUNNING
    until(lambda: jobs.status(folder).step > 2)
    status = jobs.status(folder)
    assert status.pid == pid
    assert status.steps == 100_000
    assert status.loss == 1.0
    assert status.memory_bytes
    until(lambda: jobs.status(folder).rate is not None)
    measured = jobs.status(folder)
    assert measured.rate is not None
    assert 10 < measured.rate < 60
    assert measured.eta_s == pytest.approx((measured.steps - measured.step) / measured.rate, rel=0.01)
    with pytest.raises(JobError, match="running already"):
        jobs.start(folder, python)
    jobs.stop(folder)
    until(lambda: state(folder) == jobs.CANCELLED)
    assert jobs.status(folder).pid is None
    assert jobs.status(folder).eta_s is None
    until(lambda: not (folder / jobs.STOP_FILE).exists())
    # A STOP that came too late must not stop the next run.
    jobs.stop(folder)
    jobs.resume(folder, python)
    until(lambda: [e["event"] for e in jobs.Events(folder).new()].count("started") == 2)
    jobs.terminate(folder)
    until(lambda: state(folder) == jobs.CANCELLED)
    kinds = [e["event"] for e in jobs.Events(folder).new()]
    assert kinds[0] == "queued"
    assert kinds.count("started") == kinds.count("cancelled") == 2
    assert "progress" not in jobs.log_tail(folder)
    assert "cancelled" in jobs.log_tail(folder)


@pytest.mark.parametrize("kind", sorted(TASKS))
def test_a_task_that_is_stopped_before_it_begins_ends_at_once(tmp_path: Path, kind: str) -> None:
    folder = jobs.create(tmp_path / "job", kind, {})
    jobs.stop(folder)
    assert main([kind, "--job", str(folder)]) == jobs.EXIT_CANCELLED
    assert state(folder) == jobs.CANCELLED
    assert not (folder / jobs.STOP_FILE).exists()


def test_a_killed_worker_is_lost_and_can_be_resumed_to_the_end(folder: Path, python: list[str]) -> None:
    jobs.start(folder, python)
    until(lambda: jobs.status(folder).step > 0)
    jobs.kill(folder)
    until(lambda: state(folder) == jobs.LOST)
    assert "log.txt" in jobs.status(folder).message
    with (folder / jobs.EVENTS_FILE).open("a") as file:
        file.write('{"time": 1e10, "event": "fin')
    assert state(folder) == jobs.LOST
    document = json.loads((folder / jobs.JOB_FILE).read_text())
    jobs.write_json(folder / jobs.JOB_FILE, {**document, "settings": {"steps": 3}})
    jobs.resume(folder, python)
    until(lambda: state(folder) == jobs.FINISHED)
    status = jobs.status(folder)
    assert status.model == str(folder / jobs.MODEL_FILE)
    assert (status.step, status.steps, status.message) == (3, 3, "Done.")
    with pytest.raises(JobError, match="there is nothing to resume"):
        jobs.resume(folder, python)
    events = (folder / jobs.EVENTS_FILE).read_text().splitlines()
    broken = [line for line in events if not line.endswith("}")]
    assert len(broken) == 1, "the event after half a line was lost"


def test_a_worker_that_ends_before_its_launch_is_written_down_is_not_lost(
    folder: Path, python: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = json.loads((folder / jobs.JOB_FILE).read_text())
    jobs.write_json(folder / jobs.JOB_FILE, {**document, "settings": {"steps": 3}})
    born = processes.birth

    def late(pid: int) -> str | None:
        found = born(pid)
        until(lambda: "finished" in (folder / jobs.EVENTS_FILE).read_text())
        return found

    monkeypatch.setattr(processes, "birth", late)
    jobs.start(folder, python)
    until(lambda: state(folder) != jobs.RUNNING)
    assert state(folder) == jobs.FINISHED


def test_a_worker_that_cannot_even_start_is_lost_and_a_wrong_python_is_an_error(folder: Path) -> None:
    with pytest.raises(JobError, match="could not be started"):
        jobs.start(folder, ["/nowhere/python"])
    assert state(folder) == jobs.QUEUED
    jobs.start(folder, [sys.executable, "-c", "raise SystemExit('no torch here')"])
    until(lambda: state(folder) == jobs.LOST)
    assert "no torch here" in jobs.log_tail(folder)


def test_a_second_worker_is_refused(folder: Path, python: list[str]) -> None:
    jobs.start(folder, python)
    until(lambda: jobs.status(folder).step > 0)
    command = [*python, "-m", "SSLEngine", "pretrain", "--job", str(folder)]
    second = subprocess.run(command, check=False, capture_output=True, text=True, env=engine_environment(), timeout=60)
    assert second.returncode == jobs.EXIT_UNUSABLE
    assert "is being run by process" in second.stderr
    assert state(folder) == jobs.RUNNING
    assert [e["event"] for e in jobs.Events(folder).new()].count("started") == 1


def test_of_workers_that_start_at_once_one_runs(folder: Path, python: list[str]) -> None:
    command = [*python, "-m", "SSLEngine", "pretrain", "--job", str(folder)]
    environment = engine_environment()
    rivals = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) for _ in range(4)]
    until(lambda: sum(rival.poll() is not None for rival in rivals) == 3)
    until(lambda: jobs.status(folder).step > 0)
    jobs.stop(folder)
    errors = [rival.communicate(timeout=60)[1] for rival in rivals]
    assert sorted(rival.returncode for rival in rivals) == [2, 2, 2, 3]
    assert sum("is being run by process" in error for error in errors) == 3
    assert [e["event"] for e in jobs.Events(folder).new()].count("started") == 1
    assert not (folder / jobs.CLAIM_FILE).exists()


def test_what_a_killed_worker_held_is_let_go(folder: Path, python: list[str]) -> None:
    (folder / jobs.CLAIM_FILE).touch()
    long_ago = time.time() - 60
    os.utime(folder / jobs.CLAIM_FILE, (long_ago, long_ago))
    jobs.start(folder, python)
    until(lambda: jobs.status(folder).step > 0)
    assert not (folder / jobs.CLAIM_FILE).exists()


@pytest.mark.parametrize("name", ["model.safetensors", "manifest.json", "checkpoint-best.pt"])
def test_a_job_replaces_no_file_of_somebody_else(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(JobError, match=f"already holds {name}, which a job would replace"):
        jobs.create(tmp_path, "pretrain", {})
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_job_outlives_the_process_that_started_it(folder: Path, python: list[str]) -> None:
    code = (
        "import sys; from pathlib import Path; from SSLEngine import jobs; jobs.start(Path(sys.argv[1]), sys.argv[2:])"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), *python], check=True, env=engine_environment(), timeout=60)
    until(lambda: jobs.status(folder).step > 0)
    before = jobs.status(folder).step
    until(lambda: jobs.status(folder).step > before)
    jobs.stop(folder)
    until(lambda: state(folder) == jobs.CANCELLED)


def test_events_come_once_each_and_whole(folder: Path) -> None:
    events = jobs.Events(folder)
    assert [e["event"] for e in events.new()] == ["queued"]
    assert events.new() == []
    path = folder / jobs.EVENTS_FILE
    with path.open("a", encoding="utf-8") as file:
        file.write('{"event": "started", "message": "Zo')
        file.flush()
        assert events.new() == []
        file.write('ë"}\n{"event": "progress", "step"')
        file.flush()
        assert events.new() == [{"event": "started", "message": "Zoë"}]
        file.write(": 4}\nnot json\n[1]\n{}\n")
        file.flush()
        assert [e.get("step") for e in events.new()] == [4]
    assert jobs.Events(folder.parent / "none").new() == []


def test_progress_is_told_twice_a_second_at_most_and_always_at_the_end(folder: Path) -> None:
    reporter = jobs.Reporter(folder)
    for step in range(200):
        reporter.progress(step + 1, 200, 0.5)
    told = [e for e in jobs.Events(folder).new() if e["event"] == "progress"]
    assert 1 <= len(told) <= 3
    assert told[-1]["step"] == 200
    assert {"time", "event", "step", "steps", "loss", "rate", "eta_s", "memory_bytes", "message"} <= set(told[-1])


def test_every_event_has_every_field(folder: Path) -> None:
    jobs.Reporter(folder).reading(0, 2, "heart-0001")
    jobs.Reporter(folder).event("failed", message="No.", code=2)
    queued, reading, failed = jobs.Events(folder).new()
    for event in (queued, reading, failed):
        assert {"time", "event", "step", "steps", "loss", "rate", "eta_s", "memory_bytes", "message"} <= set(event)
    assert (failed["step"], failed["message"], failed["code"]) == (None, "No.", 2)


def test_a_pid_that_now_belongs_to_another_process_is_not_the_worker(folder: Path) -> None:
    jobs.Reporter(folder).event("started")
    worker = {"pid": os.getpid(), "time": time.time(), "born": "1", "host": socket.gethostname()}
    jobs.write_json(folder / jobs.WORKER_FILE, worker)
    assert state(folder) == jobs.LOST
    jobs.kill(folder)  # must not end this very process


def test_a_worker_elsewhere_is_judged_by_its_silence(folder: Path) -> None:
    reporter = jobs.Reporter(folder)
    worker = {"pid": 1, "time": time.time() + 5, "born": None, "host": "another-machine"}
    jobs.write_json(folder / jobs.WORKER_FILE, worker)
    # Launched there, and silent so far: nobody here can know its process.
    assert state(folder) == jobs.RUNNING
    jobs.write_json(folder / jobs.WORKER_FILE, {**worker, "time": time.time() - 9999})
    reporter.event("started")
    assert state(folder) == jobs.RUNNING
    lines = (folder / jobs.EVENTS_FILE).read_text().splitlines()
    old = [json.dumps({**json.loads(line), "time": time.time() - 2 * jobs.SILENCE_S}) for line in lines]
    (folder / jobs.EVENTS_FILE).write_text("\n".join(old) + "\n")
    assert state(folder) == jobs.LOST


def test_a_file_is_old_or_new_and_never_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    jobs.write_atomically(path, b"old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jobs.os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        jobs.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"kind": 3, "settings": {}}', '{"kind": "pretrain"}'])
def test_a_folder_that_is_no_job_is_refused_in_one_sentence(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / jobs.JOB_FILE).write_text(text)
    for action in (jobs.load, jobs.status, jobs.start, jobs.stop):
        with pytest.raises(JobError) as caught:
            action(tmp_path)
        assert str(tmp_path) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / jobs.STOP_FILE).exists()


def test_a_damaged_worker_file_is_no_worker(folder: Path) -> None:
    for text in ("", "[]", '{"pid": "x", "time": 1}', '{"pid": 5}'):
        (folder / jobs.WORKER_FILE).write_text(text)
        assert state(folder) == jobs.QUEUED


@pytest.mark.parametrize(
    ("error", "code", "word"),
    [
        (StudyError("The exam is empty; choose another."), 2, "choose another"),
        (SettingsError("seed"), 2, "seed"),
        (JobError("job"), 2, "job"),
        (GeometryError("plane"), 2, "plane"),
        (jobs.Cancelled(), 3, "Stopped"),
        (KeyboardInterrupt(), 3, "Stopped"),
        (MemoryError(), 4, "schedule.batch"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB\nmore"), 4, "schedule.batch"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
            4,
            "grid.patch",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
            4,
            "patch",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), 4, "schedule.batch"),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero; "),
        (ZeroDivisionError(), 1, "please report it"),
        (FloatingPointError("The loss is nan; lower schedule.rate."), 1, "The loss is nan; lower schedule.rate."),
        (OSError(28, "No space left on device", "/data/x"), 1, "/data/x"),
        (ModuleNotFoundError("No module named 'monai'", name="monai"), 1, "monai"),
    ],
)
def test_every_end_has_its_code_and_one_sentence(error: BaseException, code: int, word: str) -> None:
    found, sentence = explain(error)
    assert found == code
    assert word in sentence
    assert "\n" not in sentence


def test_a_second_term_signal_only_asks_again(folder: Path) -> None:
    with jobs.worker(folder, echo=False) as reporter:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert reporter.stop_requested()
        reporter.event("cancelled")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_term_signal_before_the_worker_is_ready_stops_it_in_order(folder: Path, python: list[str]) -> None:
    """The signal comes while Python is still starting; it must not end as a worker that died without a word."""
    jobs.start(folder, python)
    jobs.terminate(folder)
    until(lambda: state(folder) != jobs.RUNNING)
    assert state(folder) == jobs.CANCELLED
    assert [e["event"] for e in jobs.Events(folder).new()] == ["queued", "started", "cancelled"]


#: A launcher as PythonSlicer is one: the worker is its child, and has a child itself. Neither obeys.
LAUNCHED = """
import os, signal, subprocess, sys, time
from pathlib import Path
from SSLEngine import jobs
if os.environ.get("LAUNCHED"):
    with jobs.worker(Path(sys.argv[5])) as reporter:
        helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        reporter.event("started", message=str(helper.pid))
        time.sleep(600)
else:
    subprocess.call([sys.executable, *sys.argv], env={**os.environ, "LAUNCHED": "1"})
"""


def test_kill_ends_the_whole_tree_under_a_launcher(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "launcher.py"
    script.write_text(LAUNCHED, encoding="utf-8")
    launcher = jobs.start(folder, [sys.executable, str(script)])
    until(lambda: jobs.status(folder).message != "")
    worker, helper = jobs.status(folder).pid, int(jobs.status(folder).message)
    assert worker is not None
    assert len({launcher, worker, helper}) == 3
    jobs.kill(folder)
    until(lambda: state(folder) == jobs.LOST)
    until(lambda: not any(processes.birth(pid) for pid in (worker, helper)))


def test_the_remaining_time_counts_what_comes_between_the_steps(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 1 s and every tenth one 11 s: on average 2 s a step, wherever one looks after the first few."""
    clock = [1000.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: clock[0])
    reporter = jobs.Reporter(folder)
    for step in range(1, 401):
        clock[0] += 11.0 if step % 10 == 0 else 1.0
        reporter.progress(step, 1000)
        if step >= 50:
            eta = jobs.Events(folder).new()[-1]["eta_s"]
            assert eta == pytest.approx(2.0 * (1000 - step), rel=0.25)


def test_scores_are_said_in_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = jobs.Reporter(tmp_path, echo=True)
    reporter.event("validated", step=20, scores={"crossings": {"line_mm": 52.104211083918344}, "mean_dice": 0.25})
    assert capsys.readouterr().out == "validated step=20 scores.crossings.line_mm=52.1 scores.mean_dice=0.25\n"
