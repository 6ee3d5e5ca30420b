"""What each training job does, from its settings to its model file."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import sys
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from msgspec import structs

from . import __version__
from . import jobs
from .anomalies import normal_scores
from .jobs import Reporter
from .models import HEADS
from .models import PARTS
from .models import SEGMENTATION_HEADS
from .models import Card
from .models import Net
from .models import TransferReport
from .models import build
from .models import key_map
from .models import load_model
from .models import make_network
from .models import save_model
from .models import transfer
from .networks.attention import StudyClassifier
from .pretext import check_names
from .pretext import make_pretexts
from .pretext.base import Pretext
from .pretext.distortions import DistortionPrediction
from .regions import Regions
from .regions import region_tasks
from .regions import with_anchors
from .settings import RATES
from .settings import Carry
from .settings import Data
from .settings import Finetune
from .settings import Grid
from .settings import Network
from .settings import Pretrain
from .settings import Schedule
from .settings import SettingsError
from .settings import parse
from .settings import plain
from .slices import HOST_ROLES
from .slices import Record
from .slices import SliceSet
from .slices import study_records
from .structures import structure
from .studies import Cohort
from .studies import Study
from .studies import StudyError
from .studies import read_cohort
from .studies import subject_order
from .targets import Segmentation
from .targets import Task
from .targets import class_weights
from .training import Heads
from .training import Learning
from .training import Run
from .training import Stream
from .training import choose_device
from .training import make_deterministic
from .training import processes
from .training import train

#: How each kind of network is taught and scored.
LEARNING: dict[str, Learning] = {"unet": Heads(), "mask-rcnn": Regions()}

#: Fewer pretraining subjects than this are all used for learning: no share of them would be a fair score.
MIN_SUBJECTS_FOR_SCORE = 5


def read_exams(data: Data, reporter: Reporter) -> Cohort:
    """The cohort that a job names; its irregularities become warnings.

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
    for item in cohort.irregularities[:50]:
        reporter.event("warning", message=f"{item.where}: {item.what}; {item.consequence}.")
    return cohort


def gather(
    studies: Sequence[Study],
    pretexts: Sequence[Pretext],
    grid: Grid,
    classes: Sequence[int],
    device: torch.device,
    reporter: Reporter,
    labelled: frozenset[str] | None = None,
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

    Raises:
        StudyError: No slice is left.
        Cancelled: A stop was asked for.
    """
    records: list[Record] = []
    for number, study in enumerate(studies):
        if reporter.stop_requested():
            raise jobs.Cancelled
        try:
            found = list(study_records(study, pretexts, grid, classes))
        except StudyError as error:
            reporter.event("warning", message=f"{study.name} is left out: {error}")
            continue
        hidden = labelled is not None and study.name not in labelled
        records += [_without_labels(r) if hidden else r for r in found]
        reporter.event("progress", message=f"Read {study.name} ({number + 1} of {len(studies)})")
    if not records:
        roles = ", ".join(HOST_ROLES)
        msg = f"None of the {len(studies)} studies has a view that can be learned from ({roles}); see 'inspect'."
        raise StudyError(msg)
    return SliceSet(records, grid.spacing_mm, device)


def _without_labels(record: Record) -> Record:
    info = type(record.info)(**{**record.info.__dict__, "labelled": False})
    return Record(info, record.image, None, record.geometry)


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


# ---------------------------------------------------------------------------------------------
# Pretraining


def pretrain(settings: Pretrain, reporter: Reporter) -> Path:
    """Runs a pretraining job in the reporter's folder; returns the model's path."""
    cohort = read_exams(settings.data, reporter)
    with processes(choose_device(settings.device)) as (rank, world):
        speaker = reporter if rank == 0 else Silent(reporter)
        network, card = pretrain_on(settings, cohort.studies, speaker, rank, world)
        return finish(speaker, rank, network, card, settings, cohort.studies)


def pretrain_on(
    settings: Pretrain, studies: Sequence[Study], reporter: Reporter, rank: int = 0, world: int = 1
) -> tuple[Net, Card]:
    """Pretrains on some studies; returns the network and its card.

    Raises:
        StudyError: A pretext has no target on any slice.
    """
    device = choose_device(settings.device)
    make_deterministic(settings.seed)
    pretexts = make_pretexts(settings.pretext, settings)
    kind = settings.network.kind
    heads = heads_for(kind, pretexts)
    slices = gather(studies, pretexts, settings.grid, [], device, reporter)
    learned, held_out = _split_for_score(slices, studies, settings)
    _check_targets(slices, pretexts, learned)
    steps = sensible_steps(settings.schedule.steps, len(learned), settings.schedule.batch, 8, 800, 6000)
    check_names(settings.weights)
    patch = settings.grid.patch
    described = with_anchors(
        settings.network, pretexts[0], slices, learned, patch, settings.augmentation, settings.seed
    )
    run = Run(
        network=make_network(described, heads, settings.grid.spacing_mm, restore=True).to(device),
        slices=slices,
        streams=[Stream(learned, [(t, settings.weights.get(t.name, 1.0)) for t in pretexts])],
        schedule=settled(settings.schedule, steps, described.kind),
        augmentation=settings.augmentation,
        patch=patch,
        seed=settings.seed,
        held_out=held_out,
        learning=LEARNING[kind],
    )
    announce(reporter, run, device, world)
    trained = train(run, reporter, rank, world)
    card = Card(
        kind="pretrained",
        network=plain(described),
        heads=heads,
        grid=plain(settings.grid),
        organ=organ_of(studies),
        roles=sorted({i.role for i in slices.infos}),
        pretexts={t.name: plain(getattr(settings, t.name)) if hasattr(settings, t.name) else {} for t in pretexts},
        scores=run.history[-1] if run.history else {},
        normal=normal_of(trained, run, settings),
        provenance=provenance(settings.seed, slices, learned, None),
    )
    return trained, card


def normal_of(trained: Net, run: Run, settings: Pretrain) -> dict[str, tuple[float, float]]:
    """Which anomaly scores are normal, from the held-out slices; nothing where distortions were not learned."""
    if DistortionPrediction.name not in settings.pretext:
        return {}
    return normal_scores(trained, run.slices, run.held_out, run.patch, settings.distortions)


def _split_for_score(
    slices: SliceSet, studies: Sequence[Study], settings: Pretrain
) -> tuple[torch.Tensor, torch.Tensor]:
    order = subject_order(studies, settings.seed)
    count = round(settings.schedule.held_out * len(order)) if len(order) >= MIN_SUBJECTS_FOR_SCORE else 0
    kept = set(order[:count])
    return slices.where(lambda i: i.subject not in kept), slices.where(lambda i: i.subject in kept)


def _check_targets(slices: SliceSet, pretexts: Sequence[Pretext], indices: torch.Tensor) -> None:
    """Refuses a task that no slice has a target for, before an hour is spent on it."""
    for task in pretexts:
        parts = (slices.lines[task.name], slices.points[task.name], slices.values[task.name])
        carried = [p[indices] for p in parts if p.shape[1]]
        if carried and not any(bool(p.isfinite().any()) for p in carried):
            msg = (
                f"No slice has a target for the pretext '{task.name}': it needs planes that cross each other "
                "(heart: a short-axis stack with 2- and 4-chamber views), or for 'location' a stack of several slices; "
                "see 'inspect' for what was found."
            )
            raise StudyError(msg)


# ---------------------------------------------------------------------------------------------
# Fine-tuning


@dataclass(frozen=True)
class Start:
    """Where fine-tuning starts from: a card and weights, or nothing."""

    card: Card | None
    weights: dict[str, torch.Tensor]

    @classmethod
    def read(cls, path: str | None) -> Start:
        """Reads the initial model, if one is given."""
        if path is None:
            return cls(None, {})
        network, card = load_model(Path(path))
        body = network.body if isinstance(network, StudyClassifier) else network
        return cls(card, body.state_dict())


def finetune(settings: Finetune, reporter: Reporter) -> Path:
    """Runs a fine-tuning job in the reporter's folder; returns the model's path."""
    if settings.target == "classification":
        from .class_training import finetune_classifier

        return finetune_classifier(settings, reporter)
    start = Start.read(settings.init)
    grid, described = agreed_grid(settings, start), agreed_network(settings, start)
    if settings.transfer == "decoder" and start.card is None:
        msg = "transfer 'decoder' keeps a pretrained encoder frozen: give one with --init, or use transfer 'all'."
        raise SettingsError(msg)
    device = choose_device(settings.device)
    make_deterministic(settings.seed)
    with processes(device) as (rank, world):
        reporter = reporter if rank == 0 else Silent(reporter)
        cohort = read_exams(settings.data, reporter)
        chosen = choose_labelled(cohort, settings)
        names = label_names(chosen, cohort.label_names, settings)
        pretexts = _multitask_pretexts(settings, start)
        # Multi-task learning needs the unlabelled exams too; otherwise only labelled ones are read, and of those
        # that are not learned from, a few for a score that watches and decides nothing.
        watched = [s for s in cohort.studies if s not in chosen and any(v.labelled for v in s.views)][:8]
        others = [s for s in cohort.studies if s not in chosen] if pretexts else watched
        visible = frozenset(s.name for s in (*chosen, *watched))
        slices = gather([*chosen, *others], pretexts, grid, list(names), device, reporter, visible)
        described = taught_network(described, settings, grid, slices, chosen, names)
        run, report = finetune_run(settings, start, described, grid, slices, chosen, watched, pretexts, names, device)
        if report is not None:
            print(report.table(), flush=True)
        announce(reporter, run, device, world)
        trained = train(run, reporter, rank, world)
        card = segmentation_card(run, settings, start, described, grid, names, organ_of(cohort.studies))
        model = only_segmentation(trained, card, device)
        return finish(reporter, rank, model, card, settings, [*chosen, *others])


def finetune_run(
    settings: Finetune,
    start: Start,
    described: Network,
    grid: Grid,
    slices: SliceSet,
    chosen: Sequence[Study],
    watched: Sequence[Study],
    pretexts: Sequence[Pretext],
    names: Mapping[int, str],
    device: torch.device,
) -> tuple[Run, TransferReport | None]:
    """The training run of a fine-tuning: network with what is carried over, streams, schedule.

    Args:
        settings: The job's settings.
        start: Where it starts from.
        described: The network; of a Mask R-CNN with its anchors.
        grid: Its grid.
        slices: Slices of all studies below, and of unlabelled ones for multi-task learning.
        chosen: Studies whose labels are learned from.
        watched: Labelled studies that are only scored now and then.
        pretexts: Tasks that are learned beside the segmentation.
        names: Label value to name of the structures.
        device: Where to train.
    """
    watched_names = {s.name for s in watched}
    learned = labelled_slices(slices, chosen)
    known = slices.labels[slices.label_row[learned.to(slices.device)]]
    colours = [structure(name, value).colour for value, name in names.items()]
    target = Segmentation(len(names), colours, class_weights(known, len(names)))
    weight = settings.pretext_weight
    streams = [Stream(learned, [(target, 1.0), *_weighted(pretexts, weight)])]
    learned_names = {s.name for s in chosen}
    unlabelled = slices.where(lambda i: i.study not in learned_names)
    if pretexts and len(unlabelled):
        # A step of multi-task learning sees one labelled batch (both losses) and one unlabelled batch (the pretext).
        streams.append(Stream(unlabelled, _weighted(pretexts, weight)))
    kind = described.kind
    network = make_network(described, heads_for(kind, [target, *pretexts]), grid.spacing_mm)
    report, carried = None, PARTS[kind][settings.carry]
    if start.card is not None:
        report = transfer(start.weights, network, carried_keys(start, network, names, kind, settings.carry), carried)
    steps = sensible_steps(settings.schedule.steps, len(learned), settings.schedule.batch, 40, 400, 3000)
    run = Run(
        network=network.to(device),
        slices=slices,
        streams=streams,
        schedule=settled(settings.schedule, steps, described.kind),
        augmentation=settings.augmentation,
        patch=grid.patch,
        seed=settings.seed,
        held_out=slices.where(lambda i: i.study in watched_names and i.labelled),
        learning=LEARNING[kind],
        warm=carried if report is not None else (),
        warm_rate=settings.carried_rate,
    )
    if settings.transfer == "decoder":
        run.frozen = PARTS[kind]["encoder"]
    elif report is not None and settings.frozen_share:
        run.frozen = carried if kind == "mask-rcnn" else PARTS[kind]["encoder"]
        run.thaw = round(settings.frozen_share * steps)
    return run, report


def labelled_slices(slices: SliceSet, studies: Sequence[Study]) -> torch.Tensor:
    """Indices of the slices of some studies that have labels."""
    names = {s.name for s in studies}
    return slices.where(lambda i: i.study in names and i.labelled)


def taught_network(
    described: Network,
    settings: Finetune,
    grid: Grid,
    slices: SliceSet,
    chosen: Sequence[Study],
    names: Mapping[int, str],
) -> Network:
    """The network with anchors for the structures that it is about to learn, where it has none yet."""
    learned = labelled_slices(slices, chosen)
    task = Segmentation(len(names))
    return with_anchors(described, task, slices, learned, grid.patch, settings.augmentation, settings.seed)


def carried_keys(
    start: Start, network: torch.nn.Module, names: Mapping[int, str], kind: str = "unet", carry: Carry = "all"
) -> dict[str, str]:
    """Which tensors are carried over: the parts asked for, and with all of them what fits of the heads.

    The segmentation's head is carried over only for the same structures.
    """
    parts = PARTS[kind][carry]
    keys = key_map(start.weights, network, (*parts, *HEADS[kind]) if carry == "all" else parts)
    known = [(entry["value"], entry["name"]) for entry in start.card.labels] if start.card else []
    if known == [(value, structure(name, value).name) for value, name in names.items()]:
        return keys
    # A head of the same size may mean other structures: its channels must not be taken for theirs.
    return {new: old for new, old in keys.items() if not new.startswith(SEGMENTATION_HEADS[kind])}


def segmentation_card(
    run: Run, settings: Finetune, start: Start, described: Network, grid: Grid, names: Mapping[int, str], organ: str
) -> Card:
    """What the model of a fine-tuning run says about itself."""
    return Card(
        kind="segmentation",
        network=plain(described),
        heads=heads_for(described.kind, [Segmentation(len(names))]),
        grid=plain(grid),
        organ=organ,
        roles=sorted({run.slices.infos[i].role for i in run.streams[0].indices.tolist()}),
        pretexts=start.card.pretexts if start.card else {},
        labels=[label_entry(k + 1, value, name) for k, (value, name) in enumerate(names.items())],
        scores=run.history[-1] if run.history else {},
        provenance=provenance(settings.seed, run.slices, run.streams[0].indices, start.card, settings.transfer),
    )


def _weighted(tasks: Sequence[Pretext], weight: float) -> list[tuple[Task, float]]:
    return [(task, weight) for task in tasks]


def agreed_grid(settings: Finetune, start: Start) -> Grid:
    """The grid to fine-tune on; the pretrained model's where there is one.

    Raises:
        SettingsError: Another spacing was asked for.
    """
    if start.card is None:
        return settings.grid or Grid()
    pretrained = parse(start.card.grid, Grid)
    if (
        settings.grid is not None
        and abs(settings.grid.spacing_mm - pretrained.spacing_mm) > 0.05 * pretrained.spacing_mm
    ):
        msg = (
            f"grid.spacing_mm is {settings.grid.spacing_mm} but the model was pretrained at {pretrained.spacing_mm}; "
            "a changed spacing destroys what was learned: leave it out, or pretrain again."
        )
        raise SettingsError(msg)
    return settings.grid or pretrained


def agreed_network(settings: Finetune, start: Start) -> Network:
    """The network to fine-tune: the pretrained one's where the settings do not say; its anchors in any case.

    Raises:
        SettingsError: The model is of another kind, or a setting does not go with this kind.
    """
    pretrained = parse(start.card.network, Network) if start.card else None
    wanted = settings.network or pretrained or Network()
    if pretrained is not None and wanted.kind != pretrained.kind:
        msg = f"network.kind is {wanted.kind} but the model is a {pretrained.kind}; leave --network out, or --init."
        raise SettingsError(msg)
    if wanted.kind == "mask-rcnn" and settings.transfer == "multitask":
        msg = "The Mask R-CNN learns one task at a time: transfer 'multitask' needs --network unet."
        raise SettingsError(msg)
    if settings.carry not in PARTS[wanted.kind]:
        msg = f"carry is '{settings.carry}' and must be {' or '.join(PARTS[wanted.kind])} for network {wanted.kind}."
        raise SettingsError(msg)
    if pretrained is None or wanted.kind == "unet":
        return wanted
    if wanted == Network(kind="mask-rcnn"):
        # Nothing but the kind was said.
        return pretrained
    anchors = wanted.mask_rcnn.anchors_mm or pretrained.mask_rcnn.anchors_mm
    return structs.replace(wanted, mask_rcnn=structs.replace(wanted.mask_rcnn, anchors_mm=anchors))


def _multitask_pretexts(settings: Finetune, start: Start) -> list[Pretext]:
    if settings.transfer != "multitask":
        return []
    known = start.card.pretexts if start.card else {}
    # A head that is carried over goes on with the target it has learned.
    agreed = parse({**plain(settings), **{k: v for k, v in known.items() if hasattr(settings, k)}}, Finetune)
    return make_pretexts(settings.pretext or tuple(known) or ("positions",), agreed)


def choose_labelled(cohort: Cohort, settings: Finetune) -> list[Study]:
    """The labelled studies to learn from: those named, or the first ``labelled`` subjects of the seed's order.

    Raises:
        StudyError: There are none, or fewer than asked for.
    """
    labelled = [s for s in cohort.studies if any(v.labelled and v.role in HOST_ROLES for v in s.views)]
    if not labelled:
        msg = (
            f"No study in {settings.data.path} has labels; put a label map beside an image, named like it with "
            f"'{settings.data.labels_suffix}' before the extension, or change --labels-suffix."
        )
        raise StudyError(msg)
    return first_subjects(labelled, subject_order, settings, "labelled subjects", "label more or ask for fewer")


def first_subjects(
    studies: Sequence[Study],
    order: Callable[[Sequence[Study], int], list[str]],
    settings: Finetune,
    what: str,
    remedy: str,
) -> list[Study]:
    """The studies of the subjects that the settings name, or of the first ``labelled`` ones of the seed's order.

    Args:
        studies: Those that can be learned from.
        order: Studies and seed to the names of their subjects.
        settings: Of the fine-tuning.
        what: What is asked for, in the words of an error.
        remedy: What to do, likewise.

    Raises:
        StudyError: There are fewer than asked for.
    """
    subjects = list(settings.subjects) or order(studies, settings.seed)
    count = len(subjects) if settings.subjects else settings.labelled or len(subjects)
    missing = set(settings.subjects) - {s.subject for s in studies}
    if missing or count > len(subjects):
        found = f"{', '.join(sorted(missing))} missing" if missing else f"{len(subjects)} found"
        msg = f"{count} {what} were asked for in {settings.data.path}: {found}; {remedy}."
        raise StudyError(msg)
    wanted = set(subjects[:count])
    return [s for s in studies if s.subject in wanted]


def label_names(studies: Sequence[Study], known: Mapping[int, str], settings: Finetune) -> dict[int, str]:
    """Label values that occur in the studies, in increasing order, with their names."""
    values: set[int] = set()
    given: dict[int, str] = dict(known)
    for study in studies:
        for view in study.views:
            given.update({v: n for v, n in view.label_names.items() if v not in given})
            for phase in range(view.phases if view.labelled else 0):
                labels = view.labels(phase)
                if labels is not None:
                    values.update(int(v) for v in torch.from_numpy(labels).unique())
    given.update({int(v): n for v, n in settings.label_names.items()})
    values.discard(0)
    if not values:
        msg = f"The label maps in {settings.data.path} are empty; draw at least one structure."
        raise StudyError(msg)
    return {v: given.get(v, f"Label {v}") for v in sorted(values)}


def label_entry(index: int, value: int, name: str) -> dict[str, Any]:
    """A structure as ``Card.labels`` has it."""
    item = structure(name, value)
    return {
        "index": index,
        "value": value,
        "name": item.name,
        "colour": list(item.colour),
        "category": list(item.category),
        "type": list(item.type),
    }


def only_segmentation(trained: torch.nn.Module, card: Card, device: torch.device) -> Net:
    """The trained network without the heads of pretexts, which a segmentation model does not need."""
    network = build(card).to(device)
    wanted = network.state_dict()
    network.load_state_dict({k: v for k, v in trained.state_dict().items() if k in wanted})
    return network


# ---------------------------------------------------------------------------------------------
# Common ends


def settled(schedule: Schedule, steps: int, kind: str) -> Schedule:
    """The schedule with its number of steps and its rate settled, for a kind of network."""
    return parse({**plain(schedule), "steps": steps, "rate": schedule.rate or RATES[kind]}, Schedule)


def organ_of(studies: Sequence[Study]) -> str:
    """The organ that all studies show, or ``unknown``."""
    organs = {s.organ for s in studies}
    return organs.pop() if len(organs) == 1 else "unknown"


def announce(reporter: Reporter, run: Run, device: torch.device, world: int) -> None:
    """Tells what a run is about to learn from what, and where."""
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
    earlier = init.provenance.get("subjects", []) if init else []
    return {
        "program": f"SSLSegmentation {__version__}",
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seed": seed,
        "subjects": used,
        "pretrained_on": earlier if init else [],
        "transfer": mode if init else None,
    }


class Silent(Reporter):
    """The reporter of a second process: shares the first one's folder and stop, and says nothing."""

    def __init__(self, first: Reporter) -> None:
        super().__init__(first.folder)

    def event(self, name: str, **fields: Any) -> None:
        """Says nothing."""


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
        jobs.write_json(folder / jobs.MANIFEST_FILE, _manifest(settings, studies, path))
    return path


def _manifest(settings: Pretrain | Finetune, studies: Sequence[Study], model: Path) -> dict[str, Any]:
    files = sorted({v.source for s in studies for v in s.views})
    device = choose_device(settings.device)
    return {
        "settings": plain(settings),
        "versions": {"sslsegmentation": __version__, "python": platform.python_version(), **_versions()},
        "machine": {"system": platform.platform(), "device": _device_name(device), "threads": torch.get_num_threads()},
        "seed": settings.seed,
        "subjects": sorted({s.subject for s in studies}),
        "inputs": {str(f): digest(f) for f in files},
        "model": {"file": model.name, "sha256": digest(model)},
        "command": sys.argv,
    }


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
