"""The job folder: the only contract between a window and a worker. Standard library only.

Either side may die and the other carries on: the worker never needs its parent, and whoever opens
the folder later finds there all that is to know. Files in the folder::

    job.json            kind, settings, inputs; enough to run it again anywhere
    worker.json         process that runs it: pid, its start time, host
    events.jsonl        one object a line: time event step steps loss rate eta_s memory_bytes message
    log.txt             everything the worker printed
    checkpoint-*.pt     last two
    STOP                its presence asks the worker to write a checkpoint and end
    model.safetensors, manifest.json   the result
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from . import processes

JOB_FILE = "job.json"
WORKER_FILE = "worker.json"
EVENTS_FILE = "events.jsonl"
LOG_FILE = "log.txt"
STOP_FILE = "STOP"
MODEL_FILE = "model.safetensors"
MANIFEST_FILE = "manifest.json"
CHECKPOINTS = "checkpoint-*.pt"
#: What a job writes into its folder and nobody may lose for it.
WRITTEN = (MODEL_FILE, MANIFEST_FILE, EVENTS_FILE, CHECKPOINTS)
#: What a job says of itself: all that is in the folder of one that has made nothing.
RECORD = (JOB_FILE, WORKER_FILE, EVENTS_FILE, LOG_FILE)
#: Held while a worker looks for another one and says that it is there itself.
CLAIM_FILE = "worker.lock"

#: Process exit codes, for every verb.
EXIT_FINISHED, EXIT_OTHER, EXIT_UNUSABLE, EXIT_CANCELLED, EXIT_MEMORY = 0, 1, 2, 3, 4

QUEUED, RUNNING, FINISHED, FAILED, CANCELLED, LOST = "queued", "running", "finished", "failed", "cancelled", "lost"
TERMINAL_EVENTS = (FINISHED, FAILED, CANCELLED)

#: What every event has beside ``time`` and ``event``; null where it is not known.
EVENT_FIELDS = ("step", "steps", "loss", "rate", "eta_s", "memory_bytes", "message")
#: A worker on another machine cannot be asked for its pid: silence longer than this means lost.
SILENCE_S = 600.0
#: How much of the end of the event file is enough to know the state.
TAIL_BYTES = 1 << 17

#: Settings of any job that name a file or folder which it reads.
INPUT_SETTINGS = ("path", "groups", "init", "model", "input", "cohort", "study", "source", "segmentation")

#: Progress is told at most this often.
TELL_S = 0.5
#: Nobody takes so long to look for another worker.
CLAIM_S = 5.0
#: The rate of a job is taken over at least this time.
RATE_S = 20.0

#: Children started from here by pid and birth: they are asked themselves, and finished ones are reaped.
_children: dict[tuple[int, str | None], subprocess.Popen[bytes]] = {}


class JobError(ValueError):
    """A job folder cannot be used. The message is one sentence: what, where, what to do."""


class SettingsError(ValueError):
    """A setting is wrong. The message names the field, what was expected and what was found."""


class Cancelled(Exception):  # noqa: N818 - a state, not an error
    """The worker was asked to stop and has saved its state."""


# ---------------------------------------------------------------------------------------------
# Files


def write_atomically(path: Path, data: bytes) -> None:
    """Writes a file so that a reader sees the old or the new one, never a part (temp, fsync, rename)."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with naming(path), temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Gives a file's name to what goes wrong while it is written; a full disk is told of without one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def check_writable(path: Path, folder: bool = False) -> None:
    """Looks whether a file, or files in a folder, could be written, so that nothing is computed in vain.

    Leaves nothing behind: folders that are missing on the way are for the writer to make.

    Args:
        path: The file or the folder.
        folder: Whether it is a folder.

    Raises:
        OSError: They could not; ``filename`` is the path.
    """
    try:
        if path.is_dir() and not folder:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        start = path.absolute() if folder else path.absolute().parent
        there = next(place for place in (start, *start.parents) if place.exists())
        # By hand: tempfile tries on for ever in some folders of Windows (CPython issue 66305).
        probe = there / f".writing-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        error.filename = str(path)
        raise


def write_json(path: Path, document: Any) -> None:
    """Writes an indented JSON document atomically."""
    write_atomically(path, (json.dumps(document, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        JobError: The file is absent, no JSON, or not an object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        msg = f"{path} cannot be read as JSON ({error}); choose another folder or create the job again."
        raise JobError(msg) from None
    if not isinstance(document, dict):
        msg = f"{path} holds no JSON object; create the job again."
        raise JobError(msg)
    return document


# ---------------------------------------------------------------------------------------------
# The window's side


def create(folder: Path, kind: str, settings: Mapping[str, Any]) -> Path:
    """Prepares a job: makes the folder, writes ``job.json`` and a ``queued`` event.

    Args:
        folder: Where; made if absent. It must not hold another job, unless that failed before it made anything, nor a
            file that the job would replace.
        kind: Verb of the command line that runs it: ``pretrain``, ``finetune`` ...
        settings: Plain JSON values; the worker validates them.

    Returns:
        The folder, absolute.

    Raises:
        JobError: The folder already holds a job or such a file, or cannot be written.
    """
    folder = Path(folder).resolve()
    if _came_to_nothing(folder):
        for name in RECORD:
            (folder / name).unlink(missing_ok=True)
    if (folder / JOB_FILE).exists():
        msg = f"{folder} already holds a job; go on with its settings by 'job resume', or choose another folder."
        raise JobError(msg)
    if foreign := [path.name for pattern in WRITTEN for path in sorted(folder.glob(pattern))]:
        msg = f"{folder} already holds {', '.join(foreign[:3])}, which a job would replace; choose another folder."
        raise JobError(msg)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        inputs = sorted(set(_inputs(settings)))
        document = {"format": 1, "kind": kind, "created": time.time(), "inputs": inputs, "settings": dict(settings)}
        write_json(folder / JOB_FILE, document)
        Reporter(folder).event(QUEUED)
    except OSError as error:
        msg = f"The job folder {folder} cannot be written ({error.strerror}); choose another one."
        raise JobError(msg) from None
    return folder


def _came_to_nothing(folder: Path) -> bool:
    """Whether a job failed before it made anything: put right and started again, it may have the same folder."""
    if not (folder / JOB_FILE).is_file():
        return False
    return status(folder).state == FAILED and all(path.name in RECORD for path in folder.iterdir())


def _inputs(settings: Mapping[str, Any]) -> Iterator[str]:
    """The files and folders that settings name, at any depth: what must come along to run the job elsewhere."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _inputs(value)
        elif name in INPUT_SETTINGS and isinstance(value, str) and value:
            yield value


def load(folder: Path) -> dict[str, Any]:
    """The job's description (``job.json``).

    Raises:
        JobError: It is no job folder.
    """
    path = Path(folder) / JOB_FILE
    if not path.is_file():
        msg = f"{folder} is no job folder (it has no {JOB_FILE}); choose a folder made by 'pretrain' or 'finetune'."
        raise JobError(msg)
    document = read_json(path)
    if not isinstance(document.get("kind"), str) or not isinstance(document.get("settings"), dict):
        msg = f"{path} lacks 'kind' or 'settings'; create the job again."
        raise JobError(msg)
    return document


def child_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment for a worker: finds this package, prints at once, in UTF-8, with a patient allocator."""
    environment = dict(os.environ if base is None else base)
    package_parent = str(Path(__file__).resolve().parent.parent)
    paths = [package_parent, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PYTHONUTF8"] = "1"
    # glibc gives each large tensor back to the system and asks for it again at the next step; with these two
    # limits it keeps them, which makes a training step on the CPU 10 to 30 % faster.
    environment.setdefault("MALLOC_MMAP_THRESHOLD_", str(4 << 30))
    environment.setdefault("MALLOC_TRIM_THRESHOLD_", str(16 << 30))
    return environment


def start(folder: Path, python: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Starts (or resumes) a prepared job in a detached child that outlives this process.

    Args:
        folder: A job folder.
        python: Command of the Python to use; this interpreter's by default (PythonSlicer inside Slicer).
        environment: Environment to start from; this process's by default.

    Returns:
        The child's process id.

    Raises:
        JobError: No job there, it is running already, or the Python cannot be started.
    """
    folder = Path(folder).resolve()
    kind = load(folder)["kind"]
    if status(folder).state == RUNNING:
        msg = f"The job in {folder} is running already; stop it first or wait for it."
        raise JobError(msg)
    (folder / STOP_FILE).unlink(missing_ok=True)
    command = [*(python or [sys.executable]), "-m", "SSLEngine", kind, "--job", str(folder)]
    options: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    # A quick worker's last word may come before this process has written down that it was launched.
    launched = time.time()
    try:
        with (folder / LOG_FILE).open("ab") as log, _term_held_back():
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=child_environment(environment),
                cwd=folder,
                **options,
            )
    except OSError as error:
        msg = f"The worker could not be started with {command[0]} ({error.strerror}); check the path of that Python."
        raise JobError(msg) from None
    born = processes.birth(child.pid)
    _children[child.pid, born] = child
    _write_worker(folder, child.pid, born, child.pid, launched)
    return child.pid


@contextlib.contextmanager
def _term_held_back() -> Iterator[None]:
    """A child that is started meanwhile gets a SIGTERM only when it can obey it (see :func:`worker`)."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def resume(folder: Path, python: Sequence[str] | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Starts a stopped, failed or lost job again; it goes on from its last checkpoint. As :func:`start`.

    Raises:
        JobError: It is finished, or as :func:`start`.
    """
    if status(folder).state == FINISHED:
        msg = f"{folder} is finished; there is nothing to resume."
        raise JobError(msg)
    return start(folder, python, environment)


def stop(folder: Path) -> None:
    """Asks the worker to write a checkpoint and end; it does so within a step."""
    load(folder)
    (Path(folder) / STOP_FILE).touch()


def terminate(folder: Path) -> None:
    """Second degree: SIGTERM to the worker's process group; the worker treats it like STOP."""
    _signal(folder, signal.SIGTERM)


def kill(folder: Path) -> None:
    """Last degree: ends the worker and all its children at once; the last checkpoint remains."""
    _signal(folder, getattr(signal, "SIGKILL", signal.SIGTERM))


def _signal(folder: Path, number: int) -> None:
    worker = _worker(Path(folder))
    if worker is None or worker.get("host") != socket.gethostname() or not _alive(worker):
        return
    pid = worker["pid"]
    if sys.platform == "win32":
        command = ["taskkill", "/T", "/F", "/PID", str(pid)]
        subprocess.run(command, check=False, capture_output=True, **processes.without_window())
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        group = os.getpgid(pid)
        # A worker started in a terminal shares the shell's group: then only itself is meant.
        if group == worker.get("group") and group != os.getpgid(0):
            os.killpg(group, number)
        else:
            os.kill(pid, number)


def find(root: Path) -> list[Path]:
    """All job folders at or below ``root`` (three levels), newest first."""
    root = Path(root)
    patterns = [JOB_FILE, f"*/{JOB_FILE}", f"*/*/{JOB_FILE}", f"*/*/*/{JOB_FILE}"]
    found = {path.parent for pattern in patterns for path in root.glob(pattern)}
    return sorted(found, key=lambda f: (f / JOB_FILE).stat().st_mtime, reverse=True)


@dataclass(frozen=True)
class Status:
    """Where a job stands.

    Attributes:
        state: ``queued``, ``running``, ``finished``, ``failed``, ``cancelled`` or ``lost`` (its worker died).
        step: Steps done.
        steps: Steps in all; 0 before it is known.
        eta_s: Seconds that remain, from the rate of late; None where not known.
        rate: Steps a second of late.
        message: Last message: of a failed job the sentence that says what to do.
        model: Path of the model once there is one.
        pid: Process id of the worker, None without one.
        loss: Last training loss.
        memory_bytes: Peak memory of the worker.
        code: Exit code of a failed job; None where it has not failed, or could not say.
    """

    state: str
    step: int = 0
    steps: int = 0
    eta_s: float | None = None
    rate: float | None = None
    message: str = ""
    model: str | None = None
    pid: int | None = None
    loss: float | None = None
    memory_bytes: int | None = None
    code: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return dict(self.__dict__)


def status(folder: Path) -> Status:
    """Where the job stands, from its files and its process alone.

    Raises:
        JobError: It is no job folder.
    """
    folder = Path(folder)
    load(folder)
    events = list(_tail(folder))
    worker = _worker(folder)
    last: dict[str, Any] = {}
    for event in events:
        last.update({k: v for k, v in event.items() if v is not None and k != "message"})
    model = folder / MODEL_FILE
    state = _state(events, worker)
    message = next((e["message"] for e in reversed(events) if e.get("message")), "")
    if state == LOST:
        message = "The worker ended without a word; see the end of log.txt, then resume the job."
    running = state == RUNNING
    return Status(
        state=state,
        step=int(last.get("step", 0)),
        steps=int(last.get("steps", 0)),
        eta_s=last.get("eta_s") if running else None,
        rate=last.get("rate"),
        message=message,
        model=str(model) if model.is_file() else None,
        pid=None if worker is None or not running else int(worker["pid"]),
        loss=last.get("loss"),
        memory_bytes=last.get("memory_bytes"),
        code=last.get("code") if state == FAILED else None,
    )


def _state(events: Sequence[Mapping[str, Any]], worker: Mapping[str, Any] | None) -> str:
    begun = next((e for e in reversed(events) if e["event"] in ("started", *TERMINAL_EVENTS, QUEUED)), None)
    # A worker that was launched after the last word is still on its way, or died before it could speak.
    launched = worker is not None and (begun is None or worker["time"] > float(begun.get("time", 0)))
    if not launched:
        if begun is None or begun["event"] == QUEUED:
            return QUEUED
        if begun["event"] in TERMINAL_EVENTS:
            return str(begun["event"])
    if worker is None:
        return LOST
    if worker.get("host") != socket.gethostname():
        heard = max(worker["time"], float(events[-1].get("time", 0)) if events else 0.0)
        return RUNNING if time.time() - heard < SILENCE_S else LOST
    return RUNNING if _alive(worker) else LOST


def _tail(folder: Path) -> Iterator[dict[str, Any]]:
    path = folder / EVENTS_FILE
    if not path.is_file():
        return
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        lines = file.read().split(b"\n")
    yield from _parse(lines[1:] if size > TAIL_BYTES else lines)


def _parse(lines: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    for line in lines:
        # A line that a killed worker left unfinished is passed over.
        with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
            event = json.loads(line)
            if isinstance(event, dict) and isinstance(event.get("event"), str):
                yield event


class Events:
    """Reads a job's events as they come: each call of :meth:`new` gives those since the last one."""

    def __init__(self, folder: Path) -> None:
        self._path = Path(folder) / EVENTS_FILE
        self._offset = 0

    def new(self, limit: int | None = None) -> list[dict[str, Any]]:
        """Events written since the last call; a line that is not finished yet is left for the next.

        Args:
            limit: So many at most; the others are left for the next call.
        """
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        lines = data.split(b"\n")[:-1][:limit]
        self._offset += sum(len(line) + 1 for line in lines)
        return list(_parse(lines))


def log_tail(folder: Path, lines: int = 20) -> str:
    """The last lines of the worker's log."""
    path = Path(folder) / LOG_FILE
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAIL_BYTES))
        text = file.read().decode("utf-8", errors="replace")
    return "\n".join(text.splitlines()[-lines:])


# ---------------------------------------------------------------------------------------------
# The process


def _worker(folder: Path) -> dict[str, Any] | None:
    path = folder / WORKER_FILE
    if not path.is_file():
        return None
    try:
        worker = read_json(path)
        born = None if worker.get("born") is None else str(worker["born"])
        return {**worker, "pid": int(worker["pid"]), "time": float(worker["time"]), "born": born}
    except (JobError, KeyError, TypeError, ValueError):
        return None


def _write_worker(folder: Path, pid: int, born: str | None, group: int | None, launched: float | None = None) -> None:
    document = {"pid": pid, "time": launched or time.time(), "born": born, "host": socket.gethostname(), "group": group}
    write_json(folder / WORKER_FILE, document)


def _alive(worker: Mapping[str, Any]) -> bool:
    child = _children.get((worker["pid"], worker["born"]))
    if child is not None:
        return child.poll() is None
    return worker["born"] is not None and processes.birth(worker["pid"]) == worker["born"]


# ---------------------------------------------------------------------------------------------
# The worker's side


class Reporter:
    """Writes a job's events. Safe to use without a folder: then it only keeps time.

    Args:
        folder: Job folder, or None for a run that leaves no events.
        echo: Whether progress also goes to stdout, for people and for ``log.txt``.
    """

    def __init__(self, folder: Path | None, echo: bool = False) -> None:
        self.folder = folder
        self._echo = echo
        self._marks: deque[tuple[float, int]] = deque()
        self._begun = 0.0
        self._last = 0.0
        self._asked = False

    def event(self, name: str, **fields: Any) -> None:
        """Appends one event; of :data:`EVENT_FIELDS`, those that are not given are written as null."""
        # First into the log: who hears of the end reads there why.
        if self._echo and (name != "progress" or self.folder is None):
            print(_sentence(name, fields), flush=True)
        if self.folder is not None:
            line = json.dumps({"time": time.time(), "event": name, **dict.fromkeys(EVENT_FIELDS), **fields})
            with (self.folder / EVENTS_FILE).open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def progress(self, step: int, steps: int, loss: float | None = None, message: str | None = None) -> None:
        """Reports progress at most twice a second, with the rate and the remaining time of late.

        "Of late" is the last half of the time so far, and at least :data:`RATE_S`: long enough to hold what comes
        between the steps now and then, such as validation.
        """
        now = time.monotonic()
        self._begun = self._begun or now
        self._marks.append((now, step))
        while len(self._marks) > 2 and self._marks[1][0] < now - max(RATE_S, (now - self._begun) / 2):
            self._marks.popleft()
        if now - self._last < TELL_S and step < steps:
            return
        self._last = now
        (t0, s0), (t1, s1) = self._marks[0], self._marks[-1]
        rate = (s1 - s0) / (t1 - t0) if t1 > t0 and s1 > s0 else None
        eta = (steps - step) / rate if rate else None
        self.event(
            "progress",
            step=step,
            steps=steps,
            loss=loss,
            rate=rate,
            eta_s=eta,
            memory_bytes=peak_memory_bytes(),
            message=message,
        )

    def reading(self, done: int, total: int, message: str) -> None:
        """Progress callback of what comes before the steps: tells at most twice a second.

        The numbers stand in the message: those of the event are the job's steps.

        Raises:
            Cancelled: A stop was asked for.
        """
        if self.stop_requested():
            raise Cancelled
        now = time.monotonic()
        if now - self._last >= TELL_S:
            self._last = now
            self.event("progress", message=f"Reading exams: {done} of {total} ({message})")

    def stop_requested(self) -> bool:
        """Whether STOP is there or a SIGTERM has come."""
        return self._asked or (self.folder is not None and (self.folder / STOP_FILE).exists())

    def request_stop(self, *_: int | FrameType | None) -> None:
        """Signal handler: end after this step."""
        self._asked = True


def flat(scores: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested scores by dotted name."""
    found: dict[str, Any] = {}
    for name, value in scores.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def _sentence(name: str, fields: Mapping[str, Any]) -> str:
    numbers = {k: v for k, v in flat(fields).items() if v is not None and k not in ("message", "memory_bytes")}
    shown = " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in numbers.items())
    return " ".join(filter(None, [name, shown, str(fields.get("message") or "")]))


def peak_memory_bytes() -> int | None:
    """Largest resident size of this process so far; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextlib.contextmanager
def worker(folder: Path, echo: bool = True) -> Iterator[Reporter]:
    """Runs the body as the job's one worker: takes the folder, obeys SIGTERM, clears a STOP it has honoured.

    Raises:
        JobError: Another live worker has the folder.
    """
    with _claim(folder):
        known, own, here = _worker(folder), os.getpid(), socket.gethostname()
        if known and known["pid"] != own and known.get("host") == here and _alive(known) and not _is_parent(known):
            msg = f"The job in {folder} is being run by process {known['pid']}; stop it first."
            raise JobError(msg)
        _write_worker(folder, own, processes.birth(own), _own_group(known))
    _clear_up(folder)
    reporter = Reporter(folder, echo)
    previous = signal.signal(signal.SIGTERM, reporter.request_stop)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    try:
        yield reporter
    finally:
        signal.signal(signal.SIGTERM, previous)
        if reporter.stop_requested():
            (folder / STOP_FILE).unlink(missing_ok=True)


@contextlib.contextmanager
def _claim(folder: Path) -> Iterator[None]:
    """Lets one worker at a time look whether there is another, and say that it is there.

    Raises:
        JobError: Another one does not come to an end with it.
    """
    path = folder / CLAIM_FILE
    until = time.monotonic() + CLAIM_S
    while True:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError:
            # A worker that was killed in between leaves it behind.
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > CLAIM_S:
                    path.unlink()
                    continue
        if time.monotonic() > until:
            msg = f"The job in {folder} is being started by another process; try again."
            raise JobError(msg)
        time.sleep(0.02)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _own_group(known: Mapping[str, Any] | None) -> int | None:
    """The process group that was made for this worker (and its launcher), None where it shares another's."""
    group = os.getpgrp() if hasattr(os, "getpgrp") else None
    return group if known is not None and group is not None and known.get("group") == group else None


def _clear_up(folder: Path) -> None:
    """Puts right what a killed worker left: half a checkpoint, and a last event without its end."""
    for half in folder.glob("checkpoint-*.part"):
        half.unlink(missing_ok=True)
    path = folder / EVENTS_FILE
    if path.is_file() and not path.read_bytes().endswith(b"\n"):
        with path.open("ab") as file:
            file.write(b"\n")


def _is_parent(known: Mapping[str, Any]) -> bool:
    """A launcher (PythonSlicer) is known by its own pid first; the real Python is its child."""
    return int(known["pid"]) in (os.getppid(), os.getpid())
