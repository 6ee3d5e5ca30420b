"""What fine-tuning for the classes of studies does, from its settings to its model file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from .classify import SLICES_AT_ONCE
from .classify import Classifier
from .classify import usable
from .classify import verdict_scores
from .classify import verdicts_of
from .jobs import Reporter
from .models import Card
from .models import TransferReport
from .models import carried_parts
from .models import key_map
from .models import make_network
from .models import transfer
from .networks.attention import CLASSIFICATION
from .networks.attention import StudyClassifier
from .runs import Silent
from .runs import announce
from .runs import finish
from .runs import gather
from .runs import organ_of
from .runs import provenance
from .runs import read_exams
from .runs import sensible_steps
from .runs import settled
from .settings import Finetune
from .settings import Grid
from .settings import SettingsError
from .settings import plain
from .slices import SliceSet
from .slices import make_batch
from .starting import Start
from .starting import agreed_grid
from .starting import agreed_network
from .starting import check_transfer
from .starting import first_subjects
from .studies import Cohort
from .studies import Study
from .studies import StudyError
from .studies import group_order
from .targets import Classification
from .training import SCORED_SLICES
from .training import Run
from .training import Stream
from .training import autocast
from .training import choose_device
from .training import make_deterministic
from .training import processes
from .training import step_generator
from .training import train

#: Heads of the network under a classification: none. A Mask R-CNN cannot be without; nobody asks for its one class.
BODY_HEADS: dict[str, dict[str, dict[str, int]]] = {
    "unet": {"pixel": {}, "image": {}},
    "mask-rcnn": {"pixel": {}, "image": {}, "region": {CLASSIFICATION: 1}},
}
#: Slices that the head is adapted to, at most.
ADAPTED_TO = 256


def finetune_classifier(settings: Finetune, reporter: Reporter) -> Path:
    """Runs a fine-tuning for classification in the reporter's folder; returns the model's path."""
    start = Start.read(settings.init)
    grid = agreed_grid(settings, start)
    check_settings(settings, start)
    device = choose_device(settings.device)
    make_deterministic(settings.seed)
    with processes(device) as (rank, world):
        reporter = reporter if rank == 0 else Silent(reporter)
        cohort = read_exams(settings.data, reporter)
        chosen = choose_grouped(cohort, settings)
        groups = class_names(chosen, settings)
        # Of the studies that are not learned from, a few for a score that decides nothing.
        watched = [s for s in cohort.studies if s not in chosen and s.group in groups and usable(s)]
        watched = watched[: max(1, SCORED_SLICES // settings.bag)]
        slices = gather([*chosen, *watched], [], grid, [], device, reporter, labelled=frozenset())
        run, report = classifier_run(settings, start, grid, slices, chosen, watched, groups, device)
        announce(reporter, run, device, world, report)
        trained = train(run, reporter, rank, world)
        card = classification_card(run, settings, start, grid, groups, organ_of(cohort.studies))
        if watched:
            classifier = Classifier(trained, card, device)
            verdicts, left_out = verdicts_of(classifier, watched)
            for item in left_out:
                reporter.event("warning", message=f"{item['study']} is not among the scores: {item['why']}")
            scores = verdict_scores(verdicts, groups)
            card.scores[CLASSIFICATION] = {k: v for k, v in (scores or {}).items() if k != "cases"}
        return finish(reporter, rank, trained, card, settings, [*chosen, *watched])


def check_settings(settings: Finetune, start: Start) -> None:
    """Refuses what makes no sense for a classification.

    Raises:
        SettingsError: The transfer is not possible.
    """
    if settings.transfer == "multitask":
        msg = "transfer 'multitask' is for segmentation; use 'all' or 'decoder' with target 'classification'."
        raise SettingsError(msg)
    check_transfer(settings, start)
    network = agreed_network(settings, start)
    if network.kind == "mask-rcnn" and not network.mask_rcnn.anchors_mm:
        msg = "Classes of studies do not tell a Mask R-CNN's anchors: give --init, or network.mask_rcnn.anchors_mm."
        raise SettingsError(msg)


def choose_grouped(cohort: Cohort, settings: Finetune) -> list[Study]:
    """The studies to learn from: those named, or those of the first ``labelled`` subjects, of each class in turn.

    Raises:
        StudyError: There are none, or fewer than asked for.
    """
    grouped = [s for s in cohort.studies if usable(s)]
    if not grouped:
        msg = (
            f"No study in {settings.data.path} has a group; put a table groups.csv with the columns study and group "
            'there, name one with --groups, or write "group" into each study.json.'
        )
        raise StudyError(msg)
    return first_subjects(grouped, group_order, settings, "subjects with a group", "ask for fewer")


def class_names(studies: Sequence[Study], settings: Finetune) -> list[str]:
    """Names of the classes that occur, in alphabetical order.

    Raises:
        StudyError: There are fewer than two.
    """
    names = sorted({str(s.group) for s in studies})
    if len(names) < 2:
        msg = f"All {len(studies)} studies chosen from {settings.data.path} are '{names[0]}'; give two groups or more."
        raise StudyError(msg)
    return names


def classifier_run(
    settings: Finetune,
    start: Start,
    grid: Grid,
    slices: SliceSet,
    chosen: Sequence[Study],
    watched: Sequence[Study],
    groups: Sequence[str],
    device: torch.device,
) -> tuple[Run, TransferReport | None]:
    """The training run of a classification: network with what is carried over, bags of slices, schedule.

    Args:
        settings: The job's settings.
        start: Where it starts from.
        grid: The network's grid.
        slices: Slices of all studies below.
        chosen: Studies whose classes are learned.
        watched: Studies of known class that are only scored now and then.
        groups: Names of the classes.
        device: Where to train.
    """
    place = {s.name: groups.index(str(s.group)) for s in (*chosen, *watched)}
    # The class goes with a slice through the augmentation like the numbers of a pretext.
    classes = torch.tensor([[place.get(i.study, -1)] for i in slices.infos], dtype=torch.float32)
    slices.values[CLASSIFICATION] = classes.to(slices.device)
    bags = bags_of(slices, chosen)
    held_out = [evenly(bag, settings.bag) for bag in bags_of(slices, watched)]
    counts = [sum(str(s.group) == name for s in chosen) for name in groups]
    described = agreed_network(settings, start)
    body = make_network(described, BODY_HEADS[described.kind], grid.spacing_mm)
    carried, report = carried_parts(start.network, described, settings.carry), None
    if start.card is not None:
        report = transfer(start.weights, body, key_map(start.weights, body, carried), carried)
    network = StudyClassifier(body, len(groups), settings.pooling).to(device)
    indices = torch.cat(bags)
    adapt(network, slices, evenly(indices, min(ADAPTED_TO, len(indices))), grid.patch)
    steps = sensible_steps(settings.schedule.steps, len(indices), settings.schedule.batch, 40, 400, 3000)
    run = Run(
        network=network,
        slices=slices,
        streams=[Stream(indices, [(Classification(counts, settings.bag), 1.0)], bags, settings.bag)],
        schedule=settled(settings.schedule, steps, described.kind),
        augmentation=settings.augmentation,
        patch=grid.patch,
        seed=settings.seed,
        held_out=torch.cat(held_out) if held_out else torch.zeros(0, dtype=torch.int64),
        warm=tuple(f"body.{part}" for part in carried) if report is not None else (),
        warm_rate=settings.carried_rate,
    )
    if settings.transfer == "decoder":
        run.frozen = ("body.",)
    elif report is not None and settings.frozen_share:
        run.frozen, run.thaw = run.warm, round(settings.frozen_share * steps)
    return run, report


@torch.no_grad()
def adapt(network: StudyClassifier, slices: SliceSet, indices: torch.Tensor, patch: int) -> None:
    """Tells the head how the network's features are distributed over some slices."""
    found = []
    for part in indices.split(SLICES_AT_ONCE):
        batch = make_batch(slices, part, patch, None, step_generator(0, 0, 0))
        with autocast(slices.device):
            found.append(network.body.features(batch.images).float())
    network.head.adapt(torch.cat(found))


def bags_of(slices: SliceSet, studies: Sequence[Study]) -> list[torch.Tensor]:
    """Indices of each study's slices; a study without any (it could not be read) is left out."""
    found = [slices.where(lambda i, name=s.name: i.study == name) for s in studies]  # type: ignore[misc]
    return [bag for bag in found if len(bag)]


def evenly(bag: torch.Tensor, count: int) -> torch.Tensor:
    """``count`` slices of a study, evenly spaced; some twice where it has fewer."""
    return bag[torch.linspace(0, len(bag) - 1, count).round().long()]


def classification_card(
    run: Run, settings: Finetune, start: Start, grid: Grid, groups: Sequence[str], organ: str
) -> Card:
    """What the model of a classification run says about itself."""
    described = agreed_network(settings, start)
    return Card(
        kind="classification",
        network=plain(described),
        heads=BODY_HEADS[described.kind],
        grid=plain(grid),
        organ=organ,
        roles=sorted({run.slices.infos[i].role for i in run.streams[0].indices.tolist()}),
        pretexts=start.card.pretexts if start.card else {},
        groups=list(groups),
        pooling=settings.pooling,
        scores=dict(run.history[-1]) if run.history else {},
        provenance=provenance(settings.seed, run.slices, run.streams[0].indices, start.card, settings.transfer),
    )
