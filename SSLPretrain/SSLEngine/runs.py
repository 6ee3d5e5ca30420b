"""What every training job does before and after its steps: reads exams, gathers slices, writes the model."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from . import __version__
from . import jobs
from .jobs import Reporter
from .models import Card
from .models import TransferReport
from .models import save_model
from .models import seen_by
from .pretext.base import Pretext
from .regions import Regions
from .regions import region_tasks
from .settings import NONE_LEFT_OUT
from .settings import RATES
from .settings import Data
from .settings import Finetune
from .settings import Grid
from .settings import LabelStudy
from .settings import LeftOut
from .settings import Pretrain
from .settings import Schedule
from .settings import parse
from .settings import plain
from .slices import HOST_ROLES
from .slices import Record
from .slices import SliceSet
from .slices import study_records
from .studies import Cohort
from .studies import Study
from .studies import StudyError
from .studies import read_cohort
from .studies.groups import GROUPS_FILE
from .targets import Task
from .training import Heads
from .training import Learning
from .training import Run
from .training import choose_device

#: How each kind of network is taught and scored.
LEARNING: dict[str, Learning] = {"unet": Heads(), "mask-rcnn": Regions()}


def read_exams(data: Data, reporter: Reporter) -> Cohort:
    """The cohort that a job names; its irregularities and labels that cannot be used become warnings.

    Raises:
        StudyError: Nothing there can be used.
        Cancelled: A stop was asked for.
    """
    cohort = read_cohort(
        Path(data.path),
        labels_suffix=data.labels_suffix,
        frame_of_reference=data.frame_of_reference,
        organ=None if data.organ == "auto" else data.organ,
        groups=Path(data.groups) if data.groups else None,
        progress=reporter.reading,
    )
    unusable = [i for study in cohort.studies for i in study.irregularities if i.costs_labels]
    for item in (*cohort.irregularities[:50], *unusable[:50]):
        reporter.event("warning", message=f"{item.told}; {item.consequence}.")
    return cohort


def gather(
    studies: Sequence[Study],
    pretexts: Sequence[Pretext],
    grid: Grid,
    classes: Sequence[int],
    device: torch.device,
    reporter: Reporter,
    labelled: frozenset[str] | None = None,
    left_out: LeftOut = NONE_LEFT_OUT,
) -> SliceSet:
    """Reads the slices of studies onto the device.

    Args:
        studies: The studies.
        pretexts: Tasks whose geometry is carried along.
        grid: The network's grid.
        classes: Label values in the order of their class index.
        device: Where the slices go.
        reporter: Told about every study.
        labelled: Names of the studies whose labels may be seen; all others are taken as unlabelled. None means all.
        left_out: Slices that are not wanted.

    Raises:
        StudyError: No slice is left.
        Cancelled: A stop was asked for.
    """
    records: list[Record] = []
    for number, study in enumerate(studies):
        if reporter.stop_requested():
            raise jobs.Cancelled
        try:
            found = list(study_records(study, pretexts, grid, classes, left_out))
        except StudyError as error:
            reporter.event("warning", message=f"{study.name} is left out: {error}")
            continue
        hidden = labelled is not None and study.name not in labelled
        records += [_without_labels(r) if hidden else r for r in found]
        reporter.event("progress", message=f"Read {study.name} ({number + 1} of {len(studies)})")
    if not records:
        roles = ", ".join(HOST_ROLES)
        fewer = "" if left_out == NONE_LEFT_OUT else ", or leave out fewer slices (left_out)"
        msg = f"None of the {len(studies)} studies has a view that can be learned from ({roles}); see 'inspect'{fewer}."
        raise StudyError(msg)
    return SliceSet(records, grid.spacing_mm, device)


def _without_labels(record: Record) -> Record:
    info = type(record.info)(**{**record.info.__dict__, "labelled": False})
    return Record(info, record.image, None, record.acquired, record.geometry)


def sensible_steps(wanted: int, slices: int, batch: int, epochs: int, low: int, high: int) -> int:
    """The steps asked for, or as many as ``epochs`` passes over the slices take, within bounds."""
    return wanted or max(low, min(high, epochs * slices // batch))


def heads_for(kind: str, tasks: Sequence[Task]) -> dict[str, dict[str, int]]:
    """What a kind of network has for its tasks, as ``Card.heads`` has it.

    Raises:
        SettingsError: It cannot learn them.
    """
    if kind == "mask-rcnn":
        return {"pixel": {}, "image": {}, "region": {t.name: t.region_classes for t in region_tasks(tasks)}}
    return {
        "pixel": {t.name: t.pixel_outputs for t in tasks if t.pixel_outputs},
        "image": {t.name: t.image_outputs for t in tasks if t.image_outputs},
    }


def settled(schedule: Schedule, steps: int, kind: str) -> Schedule:
    """The schedule with its number of steps and its rate settled, for a kind of network."""
    return parse({**plain(schedule), "steps": steps, "rate": schedule.rate or RATES[kind]}, Schedule)


def organ_of(studies: Sequence[Study]) -> str:
    """The organ that all studies show, or ``unknown``."""
    organs = {s.organ for s in studies}
    return organs.pop() if len(organs) == 1 else "unknown"


def announce(
    reporter: Reporter, run: Run, device: torch.device, world: int, report: TransferReport | None = None
) -> None:
    """Tells what a run is about to learn from what, and where, and what was carried over."""
    if report is not None and not isinstance(reporter, Silent):
        print(report.table(), flush=True)
    subjects = len({i.subject for i in run.slices.infos})
    weights = sum(p.numel() for p in run.network.parameters()) / 1e6
    learned = [f"{len(s.indices)} slices for {', '.join(t.name for t, _ in s.tasks)}" for s in run.streams]
    message = f"{subjects} subjects; {'; '.join(learned)}; {weights:.1f} M weights on {device}"
    if world > 1:
        message += f", {world} processes"
    reporter.event("progress", step=0, steps=run.schedule.steps, message=message)


def provenance(
    seed: int, slices: SliceSet, learned: torch.Tensor, init: Card | None, mode: str | None = None
) -> dict[str, Any]:
    """Where a model came from: program, time, seed, subjects of the slices ``learned``, and what it started from."""
    used = sorted({slices.infos[i].subject for i in learned.tolist()})
    earlier = seen_by(init) if init else []
    return {
        "program": f"SSLSegmentation {__version__}",
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seed": seed,
        "subjects": used,
        "pretrained_on": earlier,
        "transfer": mode if init else None,
    }


class Silent(Reporter):
    """The reporter of a second process: shares the first one's folder and stop, and says nothing."""

    def __init__(self, first: Reporter) -> None:
        super().__init__(first.folder)
        self._first = first

    def event(self, name: str, **fields: Any) -> None:
        """Says nothing."""

    def stop_requested(self) -> bool:
        """Whether this process was asked to stop, through whichever of its reporters takes the signal, or the first."""
        return super().stop_requested() or self._first.stop_requested()


def finish(
    reporter: Reporter,
    rank: int,
    trained: torch.nn.Module,
    card: Card,
    settings: Pretrain | Finetune,
    studies: Sequence[Study],
) -> Path:
    """Writes the model and the manifest (the first process does) and returns the model's path."""
    folder = reporter.folder or Path()
    path = folder / jobs.MODEL_FILE
    if rank == 0:
        save_model(path, trained, card)
        write_manifest(folder, settings, studies, path)
    return path


def write_manifest(
    folder: Path, settings: Pretrain | Finetune | LabelStudy, studies: Sequence[Study], model: Path | None
) -> None:
    """Writes down what a job was made of: settings, versions, machine, seed, subjects, and hashes of its files.

    Args:
        folder: Of the job.
        settings: Of the job.
        studies: Those that were read.
        model: The model that the job made, or None.
    """
    manifest = _manifest(settings, settings.finetune if isinstance(settings, LabelStudy) else settings, studies)
    if model is not None:
        manifest["model"] = {"file": model.name, "sha256": digest(model)}
    jobs.write_json(folder / jobs.MANIFEST_FILE, manifest)


def _manifest(
    settings: Pretrain | Finetune | LabelStudy, training: Pretrain | Finetune, studies: Sequence[Study]
) -> dict[str, Any]:
    device = choose_device(training.device)
    return {
        "settings": plain(settings),
        "versions": {"sslsegmentation": __version__, "python": platform.python_version(), **_versions()},
        "machine": {"system": platform.platform(), "device": _device_name(device), "threads": torch.get_num_threads()},
        "seed": training.seed,
        "subjects": sorted({s.subject for s in studies}),
        "inputs": {str(f): digest(f) for f in sorted(_inputs(training, studies))},
        "command": sys.argv,
    }


def _inputs(settings: Pretrain | Finetune, studies: Sequence[Study]) -> set[Path]:
    """The files that a job read: images, what it started from, and for a fine-tuning what it was taught with."""
    files = {v.source for s in studies for v in s.views}
    files |= {Path(settings.init)} if settings.init else set()
    if isinstance(settings, Finetune):
        table = Path(settings.data.groups or Path(settings.data.path) / GROUPS_FILE)
        if settings.target == "segmentation":
            files |= {v.labels_source for s in studies for v in s.views if v.labels_source is not None}
        elif table.is_file():
            files.add(table)
    return files


def _versions() -> dict[str, str]:
    names = ("torch", "monai", "numpy", "SimpleITK", "pydicom", "safetensors", "msgspec")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.processor() or 'unknown'})"


def digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's files."""
    total = hashlib.sha256()
    for file in sorted(f for f in path.rglob("*") if f.is_file()) if path.is_dir() else [path]:
        total.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    return total.hexdigest()
