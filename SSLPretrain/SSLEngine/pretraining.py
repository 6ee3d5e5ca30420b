"""Pretraining: from unlabelled exams to a network that has learned its pretexts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from .anomalies import normal_scores
from .jobs import Reporter
from .models import Card
from .models import Net
from .models import carried_parts
from .models import key_map
from .models import make_network
from .models import transfer
from .pretext import check_names
from .pretext import make_pretexts
from .pretext.base import Pretext
from .pretext.distortions import DistortionPrediction
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
from .settings import Pretrain
from .settings import plain
from .slices import SliceSet
from .starting import Start
from .starting import going_on
from .studies import Study
from .studies import StudyError
from .studies import subject_order
from .training import Run
from .training import Stream
from .training import choose_device
from .training import make_deterministic
from .training import processes
from .training import train

#: Fewer pretraining subjects than this are all used for learning: no share of them would be a fair score.
MIN_SUBJECTS_FOR_SCORE = 5


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
        SettingsError: The model to go on from does not go with the settings.
    """
    device = choose_device(settings.device)
    make_deterministic(settings.seed)
    start = Start.read(settings.init)
    settings = going_on(settings, start)
    pretexts = make_pretexts(settings.pretext, settings)
    kind = settings.network.kind
    heads = heads_for(kind, pretexts)
    slices = gather(studies, pretexts, settings.grid, [], device, reporter, left_out=settings.left_out)
    learned, held_out = _split_for_score(slices, studies, settings)
    _check_targets(slices, pretexts, learned)
    steps = sensible_steps(settings.schedule.steps, len(learned), settings.schedule.batch, 8, 800, 6000)
    check_names(settings.weights)
    patch = settings.grid.patch
    described = with_anchors(
        settings.network, pretexts[0], slices, learned, patch, settings.augmentation, settings.seed
    )
    network = make_network(described, heads, settings.grid.spacing_mm, pretext=True)
    report = None
    if start.card is not None:
        every = key_map(start.weights, network, ("",))
        report = transfer(start.weights, network, every, carried_parts(start.network, described, "all"))
    run = Run(
        network=network.to(device),
        slices=slices,
        streams=[Stream(learned, [(t, settings.weights.get(t.name, 1.0)) for t in pretexts])],
        schedule=settled(settings.schedule, steps, described.kind),
        augmentation=settings.augmentation,
        patch=patch,
        seed=settings.seed,
        held_out=held_out,
        learning=LEARNING[kind],
    )
    announce(reporter, run, device, world, report)
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
        provenance=provenance(settings.seed, slices, learned, start.card),
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
