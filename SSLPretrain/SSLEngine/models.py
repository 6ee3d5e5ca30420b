"""The model file, and what is carried over from one network to another.

A model is one ``.safetensors`` file: weights, and in its header, as JSON, everything needed to use them. Nothing in it
is executed; a file that does not say what it is is refused.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from typing import Any
from typing import Literal

import msgspec
import torch
from safetensors import SafetensorError
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from .jobs import write_atomically
from .networks.attention import StudyClassifier
from .networks.mask_rcnn import MaskRCNN
from .networks.unet import TaskUNet
from .settings import PYRAMID_LEVELS
from .settings import Carry
from .settings import Grid
from .settings import MaskRcnn
from .settings import Network
from .settings import Pooling
from .settings import parse
from .settings import plain

FORMAT_VERSION = 1
HEADER_KEY = "sslsegmentation"
SEGMENTATION = "segmentation"

#: No description of a network or grid is believed beyond these.
MAX_CHANNELS, MAX_PATCH, MAX_GROUPS = 4096, 4096, 256
MAX_REGIONS, MAX_ANCHOR_MM, MAX_ASPECT = 2000, 2000.0, 100.0
#: Structures that a network tells apart, whose indices are bytes, and the largest value of one in a label map.
MAX_STRUCTURES, MAX_LABEL_VALUE = 255, 32767

#: A transfer that fits less than this share of the wanted weights is refused.
MIN_FIT = 0.8

#: What stands before the names of a U-Net's tensors where it is the backbone of a Mask R-CNN.
AS_BACKBONE = "backbone."
#: What a transfer carries over of each kind of network, by ``Finetune.carry``: beginnings of the tensors' names.
PARTS: dict[str, dict[Carry, tuple[str, ...]]] = {
    "unet": {"encoder": ("encoder.",), "all": ("encoder.", "decoder.")},
    "mask-rcnn": {
        "encoder": (AS_BACKBONE,),
        "proposals": (AS_BACKBONE, "fpn.", "rpn."),
        "all": (AS_BACKBONE, "fpn.", "rpn.", "box_head.", "mask_head."),
    },
}
#: What is made for a task of each kind of network, and what of it knows the structures of a segmentation.
HEADS = {"unet": ("pixel_heads.", "image_heads."), "mask-rcnn": ("predictors.",)}
SEGMENTATION_HEADS = {"unet": f"pixel_heads.{SEGMENTATION}.", "mask-rcnn": "predictors."}


#: Every network that a model file can hold.
Net = TaskUNet | MaskRCNN | StudyClassifier


class ModelError(ValueError):
    """A model file cannot be used. The message is one sentence: what, where, what to do."""


@dataclass(frozen=True)
class Card:
    """What a model file says about itself.

    Attributes:
        kind: ``pretrained`` (neither of the others), ``segmentation``, or ``classification`` of studies.
        network: Network kind and sizes.
        heads: What it answers, by task: ``{"pixel": {...}, "image": {...}}`` are channels of a U-Net's heads,
            ``{"region": {...}}`` the classes of a Mask R-CNN's regions.
        grid: Spacing, patch and intensity rule that the network was trained with.
        organ: ``heart``, ``knee`` or ``unknown``.
        roles: Roles of the views it was trained on.
        pretexts: Names of the pretext tasks it has learned, with their settings.
        labels: Class index to name, colour and codes of a segmentation model; else empty.
        groups: Names of the classes of a classification model, in the order of its outputs; else empty.
        pooling: How a classification model weighs the slices of a study.
        scores: Figures measured on held-out subjects, by task.
        normal: Mean and standard deviation of the anomaly scores of held-out slices, by role; empty where
            ``distortions`` was not learned.
        provenance: Where it came from: program, time, seed, subjects, those of the initial model, and the transfer.
    """

    kind: Literal["pretrained", "segmentation", "classification"]
    network: dict[str, Any]
    heads: dict[str, dict[str, int]]
    grid: dict[str, Any]
    organ: str = "unknown"
    roles: list[str] = field(default_factory=list)
    pretexts: dict[str, Any] = field(default_factory=dict)
    labels: list[dict[str, Any]] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    pooling: Pooling = "attention"
    scores: dict[str, Any] = field(default_factory=dict)
    normal: dict[str, tuple[float, float]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


def seen_by(card: Card) -> list[str]:
    """The subjects that a model has learned from, and those that the models before it have."""
    origin = card.provenance
    return sorted({*origin.get("subjects", []), *origin.get("pretrained_on", [])})


def build_body(card: Card) -> TaskUNet | MaskRCNN:
    """The network that a card describes, without what a classification adds, with fresh weights."""
    pretext = card.kind == "pretrained"
    return make_network(parse(card.network, Network), card.heads, float(card.grid["spacing_mm"]), pretext)


def make_network(
    network: Network, heads: Mapping[str, Mapping[str, int]], spacing_mm: float, pretext: bool = False
) -> TaskUNet | MaskRCNN:
    """A network with fresh weights.

    Args:
        network: Its kind and sizes; of a Mask R-CNN with the anchors.
        heads: As in :class:`Card`.
        spacing_mm: In-plane spacing of the images.
        pretext: Whether a Mask R-CNN learns a pretext: it restores, and its regions do not overlap.
    """
    if network.kind == "unet":
        return TaskUNet(network.widths, heads["pixel"], heads["image"])
    [classes] = heads["region"].values()
    return MaskRCNN(network.mask_rcnn, spacing_mm, classes, pretext, network.widths)


def build(card: Card) -> Net:
    """The network that a card describes, with fresh weights."""
    body = build_body(card)
    return StudyClassifier(body, len(card.groups), card.pooling) if card.kind == "classification" else body


def save_model(path: Path, network: nn.Module, card: Card) -> None:
    """Writes a model file atomically; weights are stored as float32 on the CPU."""
    tensors = {k: v.detach().cpu().float().contiguous() for k, v in network.state_dict().items()}
    header = {HEADER_KEY: json.dumps({"format": FORMAT_VERSION, **asdict(card)})}
    write_atomically(path, save(tensors, metadata=header))


def read_card(path: Path) -> Card:
    """Reads what a model file says about itself, without its weights.

    Raises:
        ModelError: It is no model of this program, or of a newer format.
    """
    return _read(path, weights=False)[0]


def load_model(path: Path) -> tuple[Net, Card]:
    """Reads a model file.

    Raises:
        ModelError: It is no model of this program, of a newer format, or damaged.
    """
    card, tensors = _read(path, weights=True)
    # Compared before any memory is spent on a network that a file merely claims.
    with torch.device("meta"):
        wanted = build(card).state_dict()
    wrong = misfit(tensors, wanted)
    if wrong:
        made_by = card.provenance.get("program", "another version")
        msg = (
            f"{path} is damaged or comes from another version of the network (it was made by {made_by}): of its "
            f"weights {wrong}; get the file again, or train one with this version."
        )
        raise ModelError(msg)
    network = build(card)
    network.load_state_dict(tensors)
    return network, card


def misfit(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> str:
    """Why tensors are not a network's, as "3 are missing (such as encoder.0.weight)"; empty where they are."""
    wrong = {
        "are missing": [k for k in wanted if k not in found],
        "are not known": [k for k in found if k not in wanted],
        "have another shape": [k for k in wanted if k in found and found[k].shape != wanted[k].shape],
    }
    return ", ".join(f"{len(names)} {what} (such as {names[0]})" for what, names in wrong.items() if names)


def _read(path: Path, weights: bool) -> tuple[Card, dict[str, torch.Tensor]]:
    path = Path(path)
    if not path.is_file():
        msg = f"There is no model file {path}; give the model.safetensors of a finished job."
        raise ModelError(msg)
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(HEADER_KEY)
            tensors = {k: file.get_tensor(k) for k in file.keys()} if weights else {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        msg = f"{path} is no safetensors file ({error}); give the model.safetensors of a finished job."
        raise ModelError(msg) from None
    if header is None:
        msg = f"{path} was not made by SSLSegmentation; give the model.safetensors of a finished job."
        raise ModelError(msg)
    return _parse_header(path, header), tensors


class _Label(msgspec.Struct):
    """What every entry of ``Card.labels`` must hold."""

    index: Annotated[int, msgspec.Meta(ge=1, le=MAX_STRUCTURES)]
    value: Annotated[int, msgspec.Meta(ge=1, le=MAX_LABEL_VALUE)]
    name: str
    colour: tuple[float, float, float]
    category: tuple[str, str, str]
    type: tuple[str, str, str]


def _parse_header(path: Path, text: str) -> Card:
    version: Any = None
    card: Card | None = None
    try:
        header = json.loads(text)
        version = header["format"]
        card = msgspec.convert(header, Card)
        usable = version == FORMAT_VERSION and _usable(card)
        card = replace(card, grid=plain(parse(card.grid, Grid)))
    except (TypeError, KeyError, ValueError, RecursionError, msgspec.ValidationError):
        usable = False
    if isinstance(version, int) and version > FORMAT_VERSION:
        msg = f"{path} has format {version}, newer than this program knows ({FORMAT_VERSION}); update SSLSegmentation."
        raise ModelError(msg)
    if card is None or not usable:
        msg = f"The description inside {path} cannot be used; get the file again or choose another."
        raise ModelError(msg)
    return card


def _usable(card: Card) -> bool:
    """Whether a card describes a network that can be built and used; its numbers come from a file of anybody's."""
    network, grid = parse(card.network, Network), parse(card.grid, Grid)
    labels = msgspec.convert(card.labels, list[_Label])
    pixel, regions = card.heads["pixel"], card.heads.get("region", {})
    heads = [*pixel.items(), *card.heads["image"].items(), *regions.items()]
    structures = pixel.get(SEGMENTATION, 0) - 1 if network.kind == "unet" else regions.get(SEGMENTATION)
    return (
        "spacing_mm" in card.grid
        and grid.patch <= MAX_PATCH
        and all(math.isfinite(value) for pair in card.normal.values() for value in pair)
        and all(name.isidentifier() and 0 < count <= MAX_CHANNELS for name, count in heads)
        and (card.kind != "segmentation" or structures == len(labels))
        and (card.kind != "classification" or _usable_groups(card.groups))
        and max(network.widths) <= MAX_CHANNELS
        and (_usable_unet(card) if network.kind == "unet" else _usable_rcnn(card, network.mask_rcnn))
    )


def _usable_unet(card: Card) -> bool:
    return "widths" in card.network and not card.heads.get("region")


def _usable_rcnn(card: Card, network: MaskRcnn) -> bool:
    sides = network.anchors_mm
    return (
        len(card.heads["region"]) == 1
        and not card.heads["pixel"]
        and not card.heads["image"]
        and len(sides) == PYRAMID_LEVELS
        and all(a < b for a, b in itertools.pairwise(sides))
        and sides[-1] <= MAX_ANCHOR_MM
        and all(1 / MAX_ASPECT <= aspect <= MAX_ASPECT for aspect in network.aspects)
        and max(network.proposals, network.sampled, network.detections) <= MAX_REGIONS
    )


def _usable_groups(names: Sequence[str]) -> bool:
    return 2 <= len(names) <= MAX_GROUPS and len(set(names)) == len(names) and all(0 < len(n) <= 200 for n in names)


# ---------------------------------------------------------------------------------------------
# Transfer


@dataclass(frozen=True)
class TransferReport:
    """What happened to each tensor of the new network.

    Attributes:
        loaded: Names of tensors carried over.
        new: Names that start fresh.
        skipped: Names in the source that were not used.
        fit: Share of the wanted numbers (all but heads) that was carried over.
    """

    loaded: list[str]
    new: list[str]
    skipped: list[str]
    fit: float

    def table(self) -> str:
        """A few lines for the log: counts by part."""
        parts = sorted({_part(n) for n in (*self.loaded, *self.new, *self.skipped)})
        width = max(map(len, ("part", *parts)))
        rows = [f"{'part':<{width}}  loaded   new  skipped"]
        for part in parts:
            counts = [sum(_part(n) == part for n in names) for names in (self.loaded, self.new, self.skipped)]
            rows.append(f"{part:<{width}}{counts[0]:>8}{counts[1]:>6}{counts[2]:>9}")
        return "\n".join(rows)


def _part(name: str) -> str:
    return ".".join(name.split(".")[: 2 if "heads" in name else 1])


def carried_parts(source: Network | None, target: Network, carry: Carry) -> tuple[str, ...]:
    """What a transfer between networks carries over: of a U-Net to a Mask R-CNN the backbone, whatever is asked for."""
    only_backbone = source is not None and (source.kind, target.kind) == ("unet", "mask-rcnn")
    return PARTS[target.kind]["encoder" if only_backbone else carry]


def key_map(
    source: Mapping[str, torch.Tensor], target: nn.Module, parts: tuple[str, ...] = PARTS["unet"]["all"]
) -> dict[str, str]:
    """Which tensor of ``target`` takes which of ``source``, of those whose names begin with a part's.

    It is the one of the same name; a U-Net's is the same where it is the backbone of a Mask R-CNN.
    """
    known = {name.removeprefix(AS_BACKBONE): name for name in source}
    wanted = {name: name.removeprefix(AS_BACKBONE) for name in target.state_dict() if name.startswith(parts)}
    return {name: known[plain_name] for name, plain_name in wanted.items() if plain_name in known}


def transfer(
    source: Mapping[str, torch.Tensor],
    target: nn.Module,
    keys: Mapping[str, str],
    body: tuple[str, ...] = PARTS["unet"]["all"],
) -> TransferReport:
    """Carries weights over by an explicit key map.

    Args:
        source: Weights by name.
        target: Takes them.
        keys: Name in ``target`` to name in ``source``.
        body: Beginnings of the names that ought to fit.

    Raises:
        ModelError: Less than :data:`MIN_FIT` of the numbers of ``body`` fits.
    """
    state = target.state_dict()
    loaded = [n for n in state if n in keys and source[keys[n]].shape == state[n].shape]
    wanted = sum(state[n].numel() for n in state if n.startswith(body))
    fit = sum(state[n].numel() for n in loaded if n.startswith(body)) / max(1, wanted)
    used = {keys[n] for n in loaded}
    report = TransferReport(
        loaded, [n for n in state if n not in set(loaded)], [n for n in source if n not in used], fit
    )
    if fit < MIN_FIT:
        msg = (
            f"Only {fit:.0%} of the pretrained weights fit this network; "
            "use the sizes that the model was pretrained with (leave 'network' out of the settings)."
        )
        raise ModelError(msg)
    target.load_state_dict({**state, **{n: source[keys[n]] for n in loaded}})
    return report
