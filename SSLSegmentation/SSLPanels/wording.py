"""Words for people: durations, sizes, what a job is doing, why it failed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from SSLEngine import jobs


def duration(seconds: float | None) -> str:
    """``1 h 5 min``, ``3 min``, ``12 s``; empty where not known."""
    if seconds is None or seconds < 0:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def size(count: float | None) -> str:
    """``1.5 GB``; empty where not known."""
    return "" if not count else f"{count / 1e9:.1f} GB"


def states() -> dict[str, str]:
    """What each state of a job is called."""
    return {
        jobs.QUEUED: _("waiting"),
        jobs.RUNNING: _("running"),
        jobs.FINISHED: _("finished"),
        jobs.FAILED: _("failed"),
        jobs.CANCELLED: _("stopped"),
        jobs.LOST: _("interrupted"),
    }


def kinds() -> dict[str, str]:
    """What each kind of job is called."""
    return {
        "pretrain": _("Pretraining"),
        "finetune": _("Fine-tuning"),
        "segment": _("Segmenting"),
        "inspect": _("Looking at exams"),
        "load": _("Loading an exam"),
        "study-labels": _("Few-label study"),
        "probe": _("Looking at the devices"),
        "phantom": _("Making synthetic exams"),
        "planes": _("Predicting planes"),
        "classify": _("Classifying an exam"),
        "anomalies": _("Looking for anomalies"),
        "targets": _("Drawing targets"),
        "export": _("Exporting"),
    }


def progress(status: jobs.Status) -> str:
    """One line: state, step, rate, what remains, memory."""
    parts = [states().get(status.state, status.state)]
    if status.steps:
        parts.append(_("step {step} of {steps}").format(step=status.step, steps=status.steps))
    if status.state == jobs.RUNNING:
        if status.rate:
            parts.append(_("{rate:.3g} steps/s").format(rate=status.rate))
        if status.eta_s is not None:
            parts.append(_("about {time} left").format(time=duration(status.eta_s)))
    if status.memory_bytes:
        parts.append(size(status.memory_bytes))
    return ", ".join(parts)


def task(status: jobs.Status) -> str:
    """How far a short job is: what it has in hand, and how much of all is done."""
    parts = [status.message, _("{done} of {all}").format(done=status.step, all=status.steps)]
    if status.eta_s is not None and status.eta_s > 5:
        parts.append(_("about {time} left").format(time=duration(status.eta_s)))
    return ", ".join(filter(None, parts))


def forecast(document: Mapping[str, Any]) -> str:
    """How long a training will take and how much memory it needs."""
    return _("About {time} for {steps} steps, {memory} of memory.").format(
        time=duration(document["seconds"]), steps=document["steps"], memory=size(document["memory_bytes"])
    )


def exam_class(probabilities: Mapping[str, float]) -> str:
    """How likely each class is, the most likely first."""
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in probabilities.items())


def sentence(folder: Path, status: jobs.Status) -> str:
    """Why a job did not finish, in one sentence; also of a worker that ended before it could say so itself."""
    if status.code == jobs.EXIT_MEMORY:
        return out_of_memory(jobs.load(folder)["kind"])
    if status.state != jobs.LOST:
        return status.message or _("The job failed without saying why.")
    last = jobs.log_tail(folder, 1)
    if last.startswith("ModuleNotFoundError"):
        return _("A Python package is missing ({error}); install the requirements, then resume.").format(
            error=last.partition(": ")[2]
        )
    return _(
        "The worker was ended from outside, perhaps for want of memory: resume it, or start again with fewer "
        "'Slices per step'."
    )


def out_of_memory(kind: str) -> str:
    """What helps a job of a kind, in the words of the panels; the engine names its settings."""
    if kind in ("pretrain", "finetune", "study-labels", "probe"):
        return _("Out of memory: start again with fewer 'Slices per step', or close other programs.")
    return _("Out of memory: choose another device, or close other programs.")


def killed() -> str:
    """Of a worker that had to be killed."""
    return _("The worker did not answer and was ended; resume goes on from the last saved state.")


def failure(folder: Path, status: jobs.Status, why: str | None = None, lines: int = 8) -> str:
    """Why a job failed: one sentence, the end of the log, where the whole log is."""
    log = Path(folder) / jobs.LOG_FILE
    return "\n\n".join(
        [why or sentence(folder, status), jobs.log_tail(folder, lines), _("The whole log: {path}").format(path=log)]
    )
