"""What a training starts from: a pretrained model or none, its grid and network, and the labelled studies."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from msgspec import structs

from .models import PARTS
from .models import Card
from .models import load_model
from .models import read_card
from .networks.attention import StudyClassifier
from .settings import Finetune
from .settings import Grid
from .settings import LabelStudy
from .settings import Network
from .settings import Pretrain
from .settings import SettingsError
from .settings import SettingsType
from .settings import parse
from .settings import plain
from .slices import HOST_ROLES
from .studies import Cohort
from .studies import Study
from .studies import StudyError
from .studies import subject_order


@dataclass(frozen=True)
class Start:
    """Where a training starts from: a card and weights, or nothing."""

    card: Card | None
    weights: dict[str, torch.Tensor]

    @property
    def network(self) -> Network | None:
        """What the model's network is."""
        return parse(self.card.network, Network) if self.card else None

    @classmethod
    def read(cls, path: str | None) -> Start:
        """Reads the initial model, if one is given."""
        if path is None:
            return cls(None, {})
        network, card = load_model(Path(path))
        body = network.body if isinstance(network, StudyClassifier) else network
        return cls(card, body.state_dict())


def completed(settings: Mapping[str, Any], kind: type[SettingsType]) -> SettingsType:
    """Plain settings to typed ones; what they do not say of grid and network is that of the model to start from.

    In a few-label study that pretrains first, it is that of the pretraining.

    Raises:
        SettingsError: A field is unknown, missing or out of range.
        ModelError: The model cannot be used.
    """
    typed = parse(settings, kind)
    if isinstance(typed, LabelStudy):
        pretrain = completed(settings["pretrain"], Pretrain) if typed.pretrain else None
        finetune = completed(settings["finetune"], Finetune)
        if pretrain is not None and finetune.init is None:
            finetune = parse(over(settings["finetune"], pretrain.grid, pretrain.network), Finetune)
        return structs.replace(typed, pretrain=pretrain, finetune=finetune)
    assert isinstance(typed, (Pretrain, Finetune))
    if typed.init is None:
        return typed
    card = read_card(Path(typed.init))
    return parse(over(settings, parse(card.grid, Grid), parse(card.network, Network)), kind)


def over(settings: Mapping[str, Any], grid: Grid, network: Network) -> dict[str, Any]:
    """Plain settings of a training laid over the grid and network of a model, all but its anchors.

    Anchors stay out, so that those which somebody gave can be told from those which a cohort's regions gave. A Mask
    R-CNN from a U-Net's model has it as its backbone.
    """
    said = {name: settings.get(name) or {} for name in ("grid", "network")}
    on_it = network.kind == "unet" and said["network"].get("kind") == "mask-rcnn"
    backbone = "unet" if on_it else network.mask_rcnn.backbone
    network = structs.replace(network, mask_rcnn=structs.replace(network.mask_rcnn, anchors_mm=(), backbone=backbone))
    described = plain(network)
    return {
        **settings,
        "grid": {**plain(grid), **said["grid"]},
        "network": {
            **described,
            **said["network"],
            "mask_rcnn": {**described["mask_rcnn"], **said["network"].get("mask_rcnn", {})},
        },
    }


def going_on(settings: Pretrain, start: Start) -> Pretrain:
    """The :func:`completed` settings of a pretraining, agreed with the model that it goes on from.

    A task that the model has learned goes on with the target that it was learned with.

    Raises:
        SettingsError: The model was not pretrained, or another spacing or kind of network is asked for.
    """
    if start.card is None:
        return settings
    if start.card.kind != "pretrained":
        msg = f"{settings.init} is a {start.card.kind} model, and a pretraining goes on from a pretrained one alone."
        raise SettingsError(msg)
    said = Finetune(data=settings.data, grid=settings.grid, network=settings.network)
    known = {name: target for name, target in start.card.pretexts.items() if name in settings.pretext}
    agreed = parse({**plain(settings), **known}, Pretrain)
    return structs.replace(agreed, grid=agreed_grid(said, start), network=agreed_network(said, start))


def check_transfer(settings: Finetune, start: Start) -> None:
    """Refuses a transfer that needs a pretrained model where there is none.

    Raises:
        SettingsError: There is none.
    """
    if settings.transfer == "decoder" and start.card is None:
        msg = "transfer 'decoder' keeps a pretrained encoder frozen: give one with --init, or use transfer 'all'."
        raise SettingsError(msg)


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
    pretrained = start.network
    wanted = settings.network or pretrained or Network()
    if pretrained is not None and not share_weights(wanted, pretrained):
        msg = (
            f"network.kind is {wanted.kind} but the model is a {pretrained.kind}; leave --network out, or --init "
            "(a U-Net and a Mask R-CNN share weights where network.mask_rcnn.backbone is unet)."
        )
        raise SettingsError(msg)
    if wanted.kind == "mask-rcnn" and settings.transfer == "multitask":
        msg = "The Mask R-CNN learns one task at a time: transfer 'multitask' needs --network unet."
        raise SettingsError(msg)
    if settings.carry not in PARTS[wanted.kind]:
        msg = f"carry is '{settings.carry}' and must be {' or '.join(PARTS[wanted.kind])} for network {wanted.kind}."
        raise SettingsError(msg)
    if pretrained is None or wanted.kind == "unet":
        return wanted
    anchors = wanted.mask_rcnn.anchors_mm or pretrained.mask_rcnn.anchors_mm
    return structs.replace(wanted, mask_rcnn=structs.replace(wanted.mask_rcnn, anchors_mm=anchors))


def share_weights(one: Network, other: Network) -> bool:
    """Whether two networks have a part in common: they are of one kind, or a U-Net is the other's backbone."""
    return one.kind == other.kind or all(n.kind == "unet" or n.mask_rcnn.backbone == "unet" for n in (one, other))


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
