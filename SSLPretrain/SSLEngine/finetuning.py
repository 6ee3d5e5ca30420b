"""Fine-tuning for segmentation: from a few labelled exams to a model that draws structures."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .class_training import finetune_classifier
from .jobs import Reporter
from .models import HEADS
from .models import MAX_STRUCTURES
from .models import PARTS
from .models import SEGMENTATION_HEADS
from .models import Card
from .models import Net
from .models import TransferReport
from .models import build
from .models import carried_parts
from .models import key_map
from .models import make_network
from .models import transfer
from .pretext import make_pretexts
from .pretext.base import Pretext
from .regions import with_anchors
from .runs import LEARNING
from .runs import Silent
from .runs import announce
from .runs import finish
from .runs import gather
from .runs import heads_for
from .runs import organ_of
from .runs import provenance
from .runs import read_exams
from .runs import sensible_steps
from .runs import settled
from .settings import Carry
from .settings import Finetune
from .settings import Grid
from .settings import Network
from .settings import parse
from .settings import plain
from .slices import HOST_ROLES
from .slices import SliceSet
from .starting import Start
from .starting import agreed_grid
from .starting import agreed_network
from .starting import check_transfer
from .starting import choose_labelled
from .structures import structure
from .structures import unnamed
from .studies import Study
from .studies import StudyError
from .targets import Segmentation
from .targets import Task
from .targets import class_weights
from .training import Run
from .training import Stream
from .training import choose_device
from .training import make_deterministic
from .training import processes
from .training import train


def finetune(settings: Finetune, reporter: Reporter) -> Path:
    """Runs a fine-tuning job in the reporter's folder; returns the model's path."""
    if settings.target == "classification":
        return finetune_classifier(settings, reporter)
    start = Start.read(settings.init)
    check_transfer(settings, start)
    grid, described = agreed_grid(settings, start), agreed_network(settings, start)
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
        announce(reporter, run, device, world, report)
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
    if not len(learned):
        msg = f"No slice in {settings.data.path} has labels that leave nothing open; draw at least one as a whole."
        raise StudyError(msg)
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
    report, carried = None, carried_parts(start.network, described, settings.carry)
    if start.card is not None:
        keys = carried_keys(start, network, names, described, settings.carry)
        report = transfer(start.weights, network, keys, carried)
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
    start: Start, network: torch.nn.Module, names: Mapping[int, str], described: Network, carry: Carry = "all"
) -> dict[str, str]:
    """Which tensors are carried over: the parts asked for, and with all of them what fits of the heads.

    The segmentation's head is carried over only for the same structures.
    """
    kind, parts = described.kind, carried_parts(start.network, described, carry)
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
    learned = torch.cat([stream.indices for stream in run.streams])
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
        provenance=provenance(settings.seed, run.slices, learned, start.card, settings.transfer),
    )


def _weighted(tasks: Sequence[Pretext], weight: float) -> list[tuple[Task, float]]:
    return [(task, weight) for task in tasks]


def _multitask_pretexts(settings: Finetune, start: Start) -> list[Pretext]:
    if settings.transfer != "multitask":
        return []
    known = start.card.pretexts if start.card else {}
    # A head that is carried over goes on with the target it has learned.
    agreed = parse({**plain(settings), **{k: v for k, v in known.items() if hasattr(settings, k)}}, Finetune)
    return make_pretexts(settings.pretext or tuple(known) or ("positions",), agreed)


def label_names(studies: Sequence[Study], known: Mapping[int, str], settings: Finetune) -> dict[int, str]:
    """Label values that occur in the views that are learned from, in increasing order, with their names.

    Raises:
        StudyError: There are none, or more than a network tells apart.
    """
    values: set[int] = set()
    given: dict[int, str] = dict(known)
    for study in studies:
        for view in (view for view in study.views if view.role in HOST_ROLES):
            given.update({v: n for v, n in view.label_names.items() if v not in given})
            for phase in range(view.phases if view.labelled else 0):
                labels = view.labels(phase)
                if labels is not None:
                    values.update(int(v) for v in torch.from_numpy(labels).unique() if v > 0)
    given.update({int(v): n for v, n in settings.label_names.items()})
    if not values:
        msg = f"The label maps in {settings.data.path} are empty; draw at least one structure."
        raise StudyError(msg)
    if len(values) > MAX_STRUCTURES:
        msg = (
            f"The label maps in {settings.data.path} hold {len(values)} different values; {MAX_STRUCTURES} structures "
            "are the most that can be learned: check that they are label maps, or merge labels."
        )
        raise StudyError(msg)
    return {v: given.get(v, unnamed(v)) for v in sorted(values)}


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
