"""What a window asks of a worker beside training: look at exams, make synthetic ones, segment, tell the devices.

Each is a job like any other (``job.json`` in, events and a JSON document out), so that a window never waits.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from . import jobs
from .jobs import Cancelled
from .jobs import Reporter
from .jobs import SettingsError
from .studies.handover import HANDOVER_FILE
from .studies.study import unread

INSPECT_FILE = "inspect.json"
PROBE_FILE = "probe.json"
RESULT_FILE = "result.json"
TARGETS_FILE = "targets.json"
#: Steps of a forecast; the first one warms up and does not count.
FORECAST_STEPS = 3


def run(kind: str, settings: Mapping[str, Any], reporter: Reporter) -> str:
    """Runs a task in the reporter's folder.

    Args:
        kind: A key of :data:`TASKS`.
        settings: Its settings from ``job.json``.
        reporter: Told of progress; its folder takes the result.

    Returns:
        One sentence that says what was done.

    Raises:
        SettingsError: A setting is missing or not known.
        Cancelled: A stop was asked for, be it before this began: not every task looks for one in between.
    """
    if reporter.stop_requested():
        raise Cancelled
    task = TASKS[kind]
    names = task.__code__.co_varnames[1 : task.__code__.co_argcount]
    required = len(names) - len(task.__defaults__ or ())
    for name in names[:required]:
        if name not in settings:
            msg = f"{kind}: the setting '{name}' is missing; give it in job.json."
            raise SettingsError(msg)
    for name in settings:
        if name not in names:
            msg = f"{kind}: expected the settings {', '.join(names)}, found '{name}'; remove it."
            raise SettingsError(msg)
    return task(reporter, **settings)


def _tell(reporter: Reporter) -> Callable[..., None]:
    """A progress callback that reports, and stops the task when that was asked for."""

    def tell(done: int, total: int, message: str = "") -> None:
        if reporter.stop_requested():
            raise Cancelled
        reporter.progress(done, total, message=message or None)

    return tell


def _folder(reporter: Reporter) -> Path:
    if reporter.folder is None:
        msg = "A task needs a job folder; create the job first."
        raise SettingsError(msg)
    return reporter.folder


def inspect(reporter: Reporter, path: str, labels_suffix: str = "_seg") -> str:
    """Looks at all exams of a folder."""
    from .studies import inspect as look

    document = look(Path(path), labels_suffix=labels_suffix, progress=_tell(reporter))
    jobs.write_json(_folder(reporter) / INSPECT_FILE, document)
    return f"Found {len(document['studies'])} exams in {path}"


def load(reporter: Reporter, path: str, out: str, labels_suffix: str = "_seg") -> str:
    """Reads one exam and hands it over to the window, in the folder ``out``; nothing is left there if it fails."""
    from .studies import hand_over
    from .studies import read_study
    from .studies.inspecting import leave_out_unreadable

    tell = _tell(reporter)
    study = read_study(Path(path), labels_suffix=labels_suffix, progress=tell)
    leave_out_unreadable(study)
    try:
        for step in hand_over(study, Path(out)):
            tell(*step)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise
    return f"Read {len(study.views)} views of {study.name}"


def phantom(reporter: Reporter, organ: str, studies: int, seed: int, out: str, format: str = "nifti") -> str:  # noqa: A002
    """Makes synthetic exams."""
    from .phantom import write_cohort

    write_cohort(organ, studies, seed, Path(out), format, progress=_tell(reporter))
    return f"Made {studies} synthetic exams in {out}"


def segment(
    reporter: Reporter,
    model: str,
    out: str,
    input: str = "",  # noqa: A002
    cohort: str = "",
    device: str = "auto",
    largest_component: bool = False,
    labels_suffix: str = "_seg",
) -> str:
    """Segments one study into ``out`` (``.seg.nrrd``), or every study of a cohort into the folder ``out``."""
    from .models import load_model
    from .segment import Segmenter
    from .segment import segment_cohort
    from .segment import segment_study
    from .studies import read_cohort
    from .studies import read_study
    from .training import choose_device

    network, card = load_model(Path(model))
    segmenter = Segmenter(network, card, choose_device(device), largest_component)
    if not cohort:
        study = read_study(Path(input), labels_suffix=labels_suffix, progress=_tell(reporter))
        document = segment_study(segmenter, study, Path(out), _tell(reporter))
        _warn(reporter, left_out(document))
        jobs.write_json(_folder(reporter) / RESULT_FILE, document)
        _forget(reporter, Path(input))
        return f"Segmented {input} into {len(document['outputs'])} files"
    found = read_cohort(Path(cohort), labels_suffix=labels_suffix, progress=_tell(reporter))
    for items in (found.irregularities, *(study.irregularities for study in found.studies)):
        _warn(reporter, unread(items))
    document = segment_cohort(segmenter, found, Path(out), _tell(reporter))
    _warn(reporter, left_out(document))
    jobs.write_json(_folder(reporter) / RESULT_FILE, document)
    return f"Segmented {len(document['studies'])} exams into {out}"


def left_out(document: Mapping[str, Any]) -> list[str]:
    """What a result lacks, a sentence each: studies of a cohort, and views of the others or of the one study."""
    found = [f"{i.get('study') or i['view']} is left out: {i['why'].rstrip('.')}." for i in document["left_out"]]
    for study in document.get("studies", ()):
        found += [f"{study['study']}: {sentence}" for sentence in (left_out(study) if "left_out" in study else ())]
    return found


def _warn(reporter: Reporter, sentences: Iterable[str]) -> None:
    for sentence in sentences:
        reporter.event("warning", message=sentence)


def _forget(reporter: Reporter, handed_over: Path) -> None:
    """Removes an exam that a window has handed over inside the job's folder: images are not kept where none looks."""
    if handed_over.parent == _folder(reporter) and (handed_over / HANDOVER_FILE).is_file():
        shutil.rmtree(handed_over, ignore_errors=True)


def planes(reporter: Reporter, model: str, input: str, device: str = "auto", labels_suffix: str = "_seg") -> str:  # noqa: A002
    """Predicts the planes of a study; the document is the one of ``planes --json``."""
    from .planning import plan
    from .studies import read_study

    document = plan(Path(model), read_study(Path(input), labels_suffix=labels_suffix), device)
    jobs.write_json(_folder(reporter) / RESULT_FILE, document)
    _forget(reporter, Path(input))
    return f"Found {len(document['planes'])} planes of {input}"


def classify(reporter: Reporter, model: str, input: str, device: str = "auto", labels_suffix: str = "_seg") -> str:  # noqa: A002
    """Tells the class of a study; the document is the one of ``classify --json``."""
    from .classify import read_classifier
    from .studies import read_study
    from .training import choose_device

    classifier = read_classifier(Path(model), choose_device(device))
    verdict = classifier.classify(read_study(Path(input), labels_suffix=labels_suffix))
    jobs.write_json(_folder(reporter) / RESULT_FILE, verdict.document())
    _forget(reporter, Path(input))
    return f"The class of {verdict.study.name} is {verdict.group}"


def anomalies(
    reporter: Reporter,
    model: str,
    input: str,  # noqa: A002
    out: str,
    device: str = "auto",
    labels_suffix: str = "_seg",
) -> str:
    """Writes maps of what looks unlike the pretraining's exams; the document is the one of ``anomalies --json``."""
    from .anomalies import find
    from .studies import read_study

    exam = read_study(Path(input), labels_suffix=labels_suffix)
    document = find(Path(model), exam, Path(out), device, _tell(reporter))
    jobs.write_json(_folder(reporter) / RESULT_FILE, document)
    _forget(reporter, Path(input))
    return f"Looked for anomalies on {len(document['views'])} views of {input}"


def targets(reporter: Reporter, study: str, pretrain: Mapping[str, Any]) -> str:
    """Draws what each pretext would have a network find on slices of a study.

    Leaves a PNG for each pretext that has a target there, and ``targets.json``: its name by pretext, null for the
    others. ``pretrain`` holds the settings of a pretraining; which pretexts it names does not matter.
    """
    import torch
    from msgspec.structs import replace

    from .pretext import TASKS as PRETEXTS
    from .pretext import make_pretexts
    from .runs import gather
    from .samples import write_targets
    from .settings import Pretrain
    from .settings import parse
    from .studies import read_study

    folder = _folder(reporter)
    settings = parse({**pretrain, "pretext": list(PRETEXTS)}, Pretrain)
    # Training leaves a share of the images untouched; among the two of a preview that would look like a fault.
    settings = replace(settings, distortions=replace(settings.distortions, untouched=0.0))
    pretexts = make_pretexts(settings.pretext, settings)
    exam = read_study(Path(study), labels_suffix=settings.data.labels_suffix, progress=_tell(reporter))
    device = torch.device("cpu")
    slices = gather([exam], pretexts, settings.grid, [], device, reporter, left_out=settings.left_out)
    pictures: dict[str, str | None] = {}
    for number, task in enumerate(pretexts):
        _tell(reporter)(number, len(pretexts), task.name)
        file = f"{task.name}.png"
        pictures[task.name] = file if write_targets(task, slices, settings.grid.patch, folder / file) else None
    jobs.write_json(folder / TARGETS_FILE, pictures)
    return f"Drew what {len(pretexts)} pretexts look for on {exam.name}"


def export(reporter: Reporter, source: str, segmentation: str, out: str, series: str = "", phase: int = 0) -> str:
    """Writes a segmentation as DICOM SEG."""
    from .dicom_seg import write_dicom_seg

    return f"Wrote {write_dicom_seg(Path(source), Path(segmentation), Path(out), series, phase)}"


def probe(
    reporter: Reporter, pretrain: Mapping[str, Any] | None = None, finetune: Mapping[str, Any] | None = None
) -> str:
    """Tells the devices that torch can use and, for a training's settings, how long and how large it would be."""
    import torch

    document: dict[str, Any] = {"torch": torch.__version__, "devices": devices()}
    names = ", ".join(device["name"] for device in document["devices"])
    document["summary"] = f"PyTorch {torch.__version__} can use: {names}."
    for kind, settings in (("pretrain", pretrain), ("finetune", finetune)):
        if settings is not None:
            document["forecast"] = forecast(kind, settings, reporter)
    jobs.write_json(_folder(reporter) / PROBE_FILE, document)
    return str(document["summary"])


def devices() -> list[dict[str, Any]]:
    """Every device by name, with its free memory in bytes (None where the system does not say)."""
    import torch

    found: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        name, (free, _total) = torch.cuda.get_device_name(index), torch.cuda.mem_get_info(index)
        found.append({"device": f"cuda:{index}", "name": name, "free_bytes": free})
    cores = os.cpu_count() or 1
    found.append({"device": "cpu", "name": f"Processor, {cores} cores", "free_bytes": _free_memory()})
    return found


def _free_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return None


class _FirstSteps(Reporter):
    """Lets a training make its first steps and look once at its held-out slices, timed, and then stop.

    Args:
        folder: Where the training leaves what nobody needs.
        outer: The reporter of the forecast itself; its stop is obeyed.
    """

    def __init__(self, folder: Path, outer: Reporter) -> None:
        super().__init__(folder)
        self._outer = outer
        self.begun = time.monotonic()
        self.times: list[float] = []
        self.looked_s = 0.0
        self.steps = 0

    def progress(self, step: int, steps: int, loss: float | None = None, message: str | None = None) -> None:
        """Notes the time of a step."""
        self.times.append(time.monotonic())
        self.steps = steps

    def stop_requested(self) -> bool:
        """Asked before each step: after the last one that is timed, the time since then went into looking."""
        enough = len(self.times) >= FORECAST_STEPS
        if enough and not self.looked_s:
            self.looked_s = time.monotonic() - self.times[-1]
        return enough or self._outer.stop_requested()

    def seconds(self, looks: int) -> float:
        """Time of the whole training: reading, steps, and looking a number of times."""
        gaps = [b - a for a, b in pairwise(self.times)]
        reading = (self.times[0] if self.times else time.monotonic()) - self.begun
        return reading + self.steps * statistics.median(gaps or [0.0]) + looks * self.looked_s


def forecast(kind: str, settings: Mapping[str, Any], outer: Reporter) -> dict[str, Any]:
    """Time and memory of a training, from its first steps: ``{"steps", "seconds", "memory_bytes"}``.

    Raises:
        Cancelled: A stop was asked for.
    """
    import torch
    from msgspec.structs import replace

    from . import finetuning
    from . import pretraining
    from .settings import Finetune
    from .settings import Pretrain
    from .starting import completed

    # In the job's folder: what a killed worker leaves of it goes when that goes.
    with tempfile.TemporaryDirectory(prefix="forecast-", dir=outer.folder) as folder:
        reporter = _FirstSteps(Path(folder), outer)
        wanted = completed(settings, Pretrain) if kind == "pretrain" else completed(settings, Finetune)
        tried = replace(wanted, schedule=replace(wanted.schedule, validate_every=FORECAST_STEPS))
        with contextlib.suppress(Cancelled):
            if isinstance(tried, Pretrain):
                pretraining.pretrain(tried, reporter)
            else:
                finetuning.finetune(tried, reporter)
    if outer.stop_requested():
        raise Cancelled
    on_gpu = torch.cuda.is_available() and settings.get("device", "auto") != "cpu"
    memory = torch.cuda.max_memory_allocated() if on_gpu else jobs.peak_memory_bytes()
    looks = reporter.steps // (wanted.schedule.validate_every or max(1, reporter.steps // 10))
    return {"steps": reporter.steps, "seconds": reporter.seconds(looks), "memory_bytes": memory}


TASKS: dict[str, Callable[..., str]] = {
    "inspect": inspect,
    "load": load,
    "phantom": phantom,
    "segment": segment,
    "planes": planes,
    "classify": classify,
    "anomalies": anomalies,
    "targets": targets,
    "export": export,
    "probe": probe,
}
