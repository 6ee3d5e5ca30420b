"""Typed settings of every job, validated with errors that name the field. Needs msgspec only.

What the papers leave open is a setting here with a stated default; what a default stands on is said
beside it: [paper], [code] (their released code) or [ours].
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated
from typing import Any
from typing import Literal
from typing import TypeVar

import msgspec
import msgspec.inspect

from .jobs import SettingsError

Positive = Annotated[float, msgspec.Meta(gt=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
LabelValue = Annotated[str, msgspec.Meta(pattern="^[1-9][0-9]{0,4}$")]
#: Below 2 ** 32, so that what generators are seeded with, made of it and the step, fits 64 bits.
Seed = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
#: Whether there is such a device is seen where the training runs.
Device = Annotated[str, msgspec.Meta(pattern="^(auto|cpu|cuda(:[0-9]+)?)$")]

#: Name of a pretext; those that exist are the keys of ``SSLEngine.pretext.TASKS``.
PretextName = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]*$")]
#: Roles of views that training uses; heatmap channels stand in this order.
Role = Literal["sax", "2ch", "3ch", "4ch", "sag", "cor", "ax"]
ROLES: tuple[Role, ...] = ("sax", "2ch", "3ch", "4ch", "sag", "cor", "ax")
Transfer = Literal["all", "decoder", "multitask"]
#: Distortions of a region; class k + 1 is the k-th. ``outpainting`` is no region's but a whole image's.
RegionType = Literal["shuffling", "intensity", "inpainting", "swap", "blur", "noise", "bias"]
REGION_TYPES: tuple[RegionType, ...] = ("shuffling", "intensity", "inpainting", "swap", "blur", "noise", "bias")
#: Phases of a cine that are used: see ``Grid.phases``.
Phases = Annotated[int, msgspec.Meta(ge=0)] | Literal["ed-es"]
#: Smallest angle in degrees of what is not taken as parallel.
Angle = Annotated[float, msgspec.Meta(ge=1, le=80)]
#: A smallest and a largest value.
Range = tuple[NonNegative, NonNegative]
Target = Literal["segmentation", "classification"]
Pooling = Literal["attention", "mean"]
#: What a fine-tuning carries over: see ``Finetune.carry``.
Carry = Literal["all", "encoder", "proposals"]
#: Levels of the Mask R-CNN's feature pyramid.
PYRAMID_LEVELS = 5
#: Levels of a U-Net that a Mask R-CNN can stand on.
BACKBONE_LEVELS = 6


class Strict(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """Base: unknown fields are an error, values do not change."""


class Data(Strict, frozen=True):
    """Which exams, and how they are read.

    Attributes:
        path: Cohort folder, study folder or nnU-Net raw dataset.
        labels_suffix: What follows an image's name in the name of its label file.
        frame_of_reference: What to do where views do not share a frame of reference.
        organ: Overrides what the exams look like.
        groups: Table of the studies' classes, a CSV file with columns ``study`` and ``group``; ``groups.csv`` in the
            cohort's folder where none is named. Without a table, ``group`` in a ``study.json`` gives the class.
    """

    path: str
    labels_suffix: str = "_seg"
    frame_of_reference: Literal["require", "warn", "ignore"] = "warn"
    organ: Literal["auto", "heart", "knee"] = "auto"
    groups: str | None = None


class Grid(Strict, frozen=True):
    """The grid that networks see.

    Attributes:
        spacing_mm: In-plane spacing; pretraining and fine-tuning must agree on it [ours].
        patch: Side of a training patch in pixels, a multiple of 16.
        clip_percent: Intensities of a view are clipped at these percentiles, then standardised [code, Bai].
        phases: How many phases of a cine are used, evenly spaced from the first; 0 means all, 1 the first alone, which
            is end-diastole in a triggered cine. ``ed-es`` takes the first and the one at which systole ends by the
            header's times (``studies/phases.py``): a rule, since volumes alone tell end-systole [ours].
        centre: What has the middle of the square that is kept of each slice: the ``crossing`` of the short-axis stack
            with the 2- and 4-chamber planes, where a study has one [code, CineMA], or the ``image`` [code, Bai].
            Segmenting, anomalies and planes look where training did.
    """

    spacing_mm: Annotated[float, msgspec.Meta(gt=0, le=20)] = 1.75
    patch: Annotated[int, msgspec.Meta(ge=32, multiple_of=16)] = 144
    clip_percent: tuple[Percent, Percent] = (1.0, 99.0)
    phases: Phases = 2
    centre: Literal["crossing", "image"] = "crossing"

    def __post_init__(self) -> None:
        low, high = self.clip_percent
        if low >= high:
            msg = f"Expected a lower and a higher percentile in `clip_percent`, found {low} and {high}"
            raise ValueError(msg)


class Augmentation(Strict, frozen=True):
    """Ranges of the random changes to a batch; uniform unless said otherwise.

    Attributes:
        rotation_deg: Rotation, plus or minus.
        scale: Enlargement is drawn log-uniformly between 1/scale and scale.
        shift_mm: Shift of the patch centre, plus or minus, in each direction.
        shear: Shear, plus or minus.
        flip: Mirror left and right half of the time. Targets move with the anatomy, but real hearts are never mirrored.
        gamma: Exponent is drawn log-uniformly between 1/(1+gamma) and 1+gamma.
        contrast: Factor between 1-contrast and 1+contrast.
        brightness: Offset in standard deviations, plus or minus.
        noise: Largest standard deviation of added noise, in standard deviations of the image.
        blur_mm: Largest standard deviation of a Gaussian blur.
        bias: Strength of a smooth multiplicative field, plus or minus.
    """

    rotation_deg: NonNegative = 20.0
    scale: Annotated[float, msgspec.Meta(ge=1)] = 1.25
    shift_mm: NonNegative = 25.0
    shear: NonNegative = 0.08
    flip: bool = False
    gamma: NonNegative = 0.5
    contrast: Share = 0.3
    brightness: NonNegative = 0.3
    noise: NonNegative = 0.15
    blur_mm: NonNegative = 1.5
    bias: Share = 0.3


class MaskRcnn(Strict, frozen=True):
    """Parts and sizes of the Mask R-CNN, after Felfeliyan et al. 2022 (iMaskRCNN) and 2023; sizes are ours.

    Attributes:
        backbone: A residual network with one input channel and group norm, or the U-Net of ``Network.widths`` with its
            decoder, whose weights a transfer carries between the two kinds of network [ours].
        channels: Channels of the feature pyramid and of the heads.
        anchors_mm: Side of the anchors of each pyramid level, finest first, five in all; empty takes them from the
            sizes of the regions that the cohort teaches.
        aspects: Height to width of the anchors of every level.
        second_align: A second RoIAlign at twice the resolution of the first (first change of iMaskRCNN).
        extra_layer: One more layer in the mask head, which doubles the masks from 28 to 56 px (its second change).
        skip: Joins the second RoIAlign's features to the mask head's (its third change); needs ``second_align``, which
            takes the first RoIAlign's place in the mask head where this is off.
        restoration: Whether a pretext restores each ``region``, the whole ``image``, ``both`` or ``none``.
        class_weight: Weight of the class loss.
        mask_weight: Weight of the mask loss.
        restoration_weight: Weight of the restoration loss.
        pixel_weight: Weight of the losses of every pixel's class, by which a pretext's regions are named, and of every
            region's; 0 leaves that branch out, and regions are named by their boxes [ours].
        proposals: Regions that the first stage passes on for each image.
        sampled: Regions of an image that the second stage learns from in a step.
        score_threshold: Detections below are dropped. After few steps on few labels scores are low where regions and
            outlines are right already: 0.5 then loses most of them [ours].
        overlap: Detections of one class that overlap more than this (intersection over union) are one.
        detections: Detections of one image at most.
    """

    backbone: Literal["unet", "resnet18", "resnet34", "resnet50"] = "resnet18"
    channels: Annotated[int, msgspec.Meta(ge=16, le=512, multiple_of=16)] = 64
    anchors_mm: Annotated[tuple[Positive, ...], msgspec.Meta(max_length=5)] = ()
    aspects: Annotated[tuple[Positive, ...], msgspec.Meta(min_length=1, max_length=5)] = (0.5, 1.0, 2.0)
    second_align: bool = True
    extra_layer: bool = True
    skip: bool = True
    restoration: Literal["none", "region", "image", "both"] = "both"
    class_weight: NonNegative = 1.0
    mask_weight: NonNegative = 1.0
    restoration_weight: NonNegative = 1.0
    pixel_weight: NonNegative = 1.0
    proposals: Count = 200
    sampled: Count = 64
    score_threshold: Share = 0.3
    overlap: Share = 0.5
    detections: Count = 50

    def __post_init__(self) -> None:
        if self.anchors_mm and len(self.anchors_mm) != PYRAMID_LEVELS:
            msg = f"Expected {PYRAMID_LEVELS} sides in `anchors_mm`, or none, and found {len(self.anchors_mm)}"
            raise ValueError(msg)
        if self.skip and not self.second_align:
            msg = "Expected `skip` to be false where `second_align` is: there is nothing to join"
            raise ValueError(msg)


class Network(Strict, frozen=True):
    """The network.

    Attributes:
        kind: ``unet`` is MONAI's DynUNet blocks in two dimensions; ``mask-rcnn`` finds regions, classifies each and
            outlines it.
        widths: Channels of each level of the U-Net, finest first.
        mask_rcnn: Parts and sizes of the Mask R-CNN.
    """

    kind: Literal["unet", "mask-rcnn"] = "unet"
    widths: Annotated[tuple[Count, ...], msgspec.Meta(min_length=3, max_length=7)] = (16, 32, 64, 128, 256)
    mask_rcnn: MaskRcnn = MaskRcnn()

    def __post_init__(self) -> None:
        if self.kind == "mask-rcnn" and self.mask_rcnn.backbone == "unet" and len(self.widths) > BACKBONE_LEVELS:
            msg = f"Expected at most {BACKBONE_LEVELS} levels in `widths` of a backbone, found {len(self.widths)}"
            raise ValueError(msg)


#: Peak learning rate of each kind of network where the settings do not say [ours].
RATES: dict[str, float] = {"unet": 4e-3, "mask-rcnn": 1e-3}


class Schedule(Strict, frozen=True):
    """How long and how fast.

    Attributes:
        steps: Training steps in all; 0 asks for a sensible number for the data.
        batch: Slices a step; classification takes them from ``batch // bag`` studies, at least two.
        rate: Peak learning rate of AdamW; by default that of :data:`RATES`.
        warmup: Share of the steps in which the rate rises; it then falls as half a cosine.
        weight_decay: Of AdamW.
        average: Decay of the running mean of the weights that becomes the model; 0 takes the last weights.
        checkpoint_every: Steps between checkpoints; 0 means one a minute or so.
        validate_every: Steps between scores on held-out subjects; 0 means ten times in a run.
        held_out: Share of the subjects that pretraining keeps for its score.
    """

    steps: Annotated[int, msgspec.Meta(ge=0)] = 0
    batch: Count = 8
    rate: Positive | None = None
    warmup: Share = 0.1
    weight_decay: NonNegative = 1e-2
    average: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.99
    checkpoint_every: Annotated[int, msgspec.Meta(ge=0)] = 0
    validate_every: Annotated[int, msgspec.Meta(ge=0)] = 0
    held_out: Annotated[float, msgspec.Meta(ge=0, le=0.5)] = 0.1


class Positions(Strict, frozen=True):
    """Anatomical position prediction, a reconstruction after Bai et al. 2019.

    Attributes:
        layout: ``cross`` (two steps each way on both lines) or ``grid`` (3 x 3); the paper's is not known [ours].
        step_mm: Distance between neighbouring positions [ours].
        half_size_mm: Half the side of a position's square [ours].
        background_weight: Weight of background pixels in the cross-entropy: the nine squares cover a thirtieth of the
            image, and at equal weights a network stays with "all background" for a long time [ours].
        dice: Weight of a Dice term beside the cross-entropy [ours].
        min_angle_deg: A plane that meets the slice at less is taken as parallel to it: no target [ours].
        min_line_angle_deg: Two lines on the slice that meet at less have no sure crossing: no target [ours].
    """

    layout: Literal["cross", "grid"] = "cross"
    step_mm: Positive = 30.0
    half_size_mm: Positive = 8.0
    background_weight: Positive = 0.1
    dice: NonNegative = 1.0
    min_angle_deg: Angle = 15.0
    min_line_angle_deg: Angle = 20.0


class Crossings(Strict, frozen=True):
    """Heatmaps of the lines where other planes cross a slice, after Zhang et al. 2024.

    Attributes:
        hosts: Roles of the slices that get a target; views that a study does not have are simply absent.
        guests: Roles whose lines are drawn, one output channel each, in this order on every host and in every study.
        sigma_mm: Width of a line: 6 px of 1.26 mm in the released code, 7.56 mm [code].
        peak: ``one`` gives a line the value 1 [code]; ``area`` gives the profile across it an area of 10 mm,
            as the same group's view planner normalises [code].
        line_weight: A pixel counts ``1 + line_weight`` times on the line and once far from it; 0 is the plain mean
            squared error of the released code; at 10 a line counts about as much as all the rest [ours].
        stack_guest: Slice that stands for a short-axis stack: its ``middle`` one, or the most ``basal`` [code: basal].
        min_angle_deg: Planes that meet at less are taken as parallel: no target.
        must_meet: No target where the two acquired images do not reach each other [ours].
    """

    hosts: Annotated[tuple[Role, ...], msgspec.Meta(min_length=1)] = ROLES
    guests: Annotated[tuple[Role, ...], msgspec.Meta(min_length=1)] = ROLES
    sigma_mm: Positive = 7.5
    peak: Literal["one", "area"] = "one"
    line_weight: NonNegative = 10.0
    stack_guest: Literal["middle", "basal"] = "middle"
    min_angle_deg: Angle = 15.0
    must_meet: bool = True


class Location(Strict, frozen=True):
    """Where a slice lies in its stack, after Zhang et al. 2024.

    Attributes:
        hosts: Roles of the stacks that get a target.
        measure: ``mm`` from the middle of the organ, or the ``ratio`` of mm between the stack's ends, 0 to 1 [code].
        min_stack_mm: A stack whose outer slices are closer than this has not covered the organ: it gives no ratio, and
            its mm are counted from where the other views' images have their centre [ours].
    """

    hosts: Annotated[tuple[Literal["sax", "sag", "cor", "ax"], ...], msgspec.Meta(min_length=1)] = (
        "sax",
        "sag",
        "cor",
        "ax",
    )
    measure: Literal["mm", "ratio"] = "mm"
    min_stack_mm: NonNegative = 60.0


class Restoration(Strict, frozen=True):
    """Context restoration, the baseline that needs no headers, after Chen et al. 2019 and Dominic et al. 2023.

    Attributes:
        kind: ``swap`` exchanges patches in pairs, ``mask`` blanks them, ``both`` draws one of the two for each image.
        patch: Side of a square patch [code: 16 px, their paper: 32 px, of knee images of about 0.4 mm].
        unit: What ``patch`` is counted in.
        share: Share of the image that is changed [code].
        loss: ``l2`` (mean squared error over the image) [code] or ``l1``.
    """

    kind: Literal["swap", "mask", "both"] = "swap"
    patch: Positive = 12.0
    unit: Literal["mm", "px"] = "mm"
    share: Annotated[float, msgspec.Meta(gt=0, le=0.9)] = 0.25
    loss: Literal["l2", "l1"] = "l2"


class Distortions(Strict, frozen=True):
    """Synthetic distortions that are found, named and undone, a reconstruction after Felfeliyan et al. 2023.

    Which distortions the paper uses and how strong they are is not known: the list and every number are ours, with
    shuffling, intensity maps and painting in the manner of Models Genesis [code]. Each pair is the range of a uniform
    draw for every region. Grey values are in standard deviations of the image.

    Attributes:
        types: Distortions that regions draw from, about equally often.
        regions: Regions of an image; fewer where too few places pass the conditions below.
        untouched: Share of images that are left as they are, so that nothing is found where nothing is wrong.
        side: Longest diameter of a region, in ``unit``.
        unit: What ``side`` is counted in: a ``share`` of the image's side, or ``mm``.
        slimness: Largest share of the longest diameter by which the other may be shorter.
        irregularity: Largest share of the radius by which an outline is bent in and out.
        edge_mm: Width over which a region fades into the image, at most its radius.
        overlap: Largest intersection over union of two regions.
        foreground: Least share of a region that lies in the foreground.
        least_change: Least root mean square change of a region beyond the image's own noise, in standard deviations of
            the image; regions that would change less (a blur of a flat place) are replaced by others.
        shuffling_mm: Side of the tiles in which pixels change places.
        blur_mm: Standard deviation of the Gaussian.
        noise: Standard deviation of the added noise.
        inpainting: Standard deviation of the uniform noise that a region is filled with.
        bias: Strength of the smooth multiplicative field, plus or minus.
        outpainting: Share of the other images of which, instead of regions, all but one place is filled with noise.
        background_weight: Weight of untouched pixels in the cross-entropy.
        dice: Weight of a Dice term beside the cross-entropy.
        restoration: Weight of the mean squared error of what is restored.
    """

    types: Annotated[tuple[RegionType, ...], msgspec.Meta(min_length=1)] = REGION_TYPES
    regions: tuple[Count, Count] = (1, 4)
    untouched: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.1
    side: tuple[Positive, Positive] = (0.08, 0.30)
    unit: Literal["share", "mm"] = "share"
    slimness: Annotated[float, msgspec.Meta(ge=0, le=0.8)] = 0.5
    irregularity: Annotated[float, msgspec.Meta(ge=0, le=0.8)] = 0.4
    edge_mm: Positive = 6.0
    overlap: Share = 0.1
    foreground: Share = 0.5
    least_change: NonNegative = 0.3
    shuffling_mm: tuple[Positive, Positive] = (6.0, 16.0)
    blur_mm: tuple[Positive, Positive] = (2.5, 6.0)
    noise: Range = (0.25, 0.6)
    inpainting: Range = (0.5, 1.0)
    bias: Range = (0.5, 1.0)
    outpainting: Share = 0.0
    background_weight: Positive = 0.05
    dice: NonNegative = 1.0
    restoration: NonNegative = 1.0

    def __post_init__(self) -> None:
        for name in ("regions", "side", "shuffling_mm", "blur_mm", "noise", "inpainting", "bias"):
            low, high = getattr(self, name)
            if low > high:
                msg = f"Expected a lower and a higher value in `{name}`, found {low} and {high}"
                raise ValueError(msg)
        if self.unit == "share" and self.side[1] > 1:
            msg = f"Expected shares of the image's side of at most 1 in `side`, found {self.side[1]}"
            raise ValueError(msg)


class LeftOut(Strict, frozen=True):
    """Slices at the ends of every short-axis stack that are not used; of a stack of no more than these none is.

    Attributes:
        basal: How many at the end towards the atria.
        apical: How many at the end towards the apex.
    """

    basal: Annotated[int, msgspec.Meta(ge=0)] = 0
    apical: Annotated[int, msgspec.Meta(ge=0)] = 0


#: No slice is left out.
NONE_LEFT_OUT = LeftOut()


class Pretrain(Strict, frozen=True):
    """A pretraining job.

    Attributes:
        init: Model file of an earlier pretraining to go on from, for instance on synthetic or somebody else's exams.
        pretext: Tasks that are learned together, each where its geometry exists.
        weights: Weight of a task's loss, 1 where it is not named. Several losses are balanced first: each is divided
            by what an output of zeros would cost on the same slices, so that 1 means "knows nothing" for all [ours].
        left_out: Slices that are neither learned from nor scored; fine-tuning and segmenting use all.
    """

    data: Data
    init: str | None = None
    pretext: Annotated[tuple[PretextName, ...], msgspec.Meta(min_length=1)] = ("positions",)
    weights: dict[PretextName, NonNegative] = {}
    left_out: LeftOut = NONE_LEFT_OUT
    positions: Positions = Positions()
    crossings: Crossings = Crossings()
    location: Location = Location()
    restoration: Restoration = Restoration()
    distortions: Distortions = Distortions()
    grid: Grid = Grid()
    augmentation: Augmentation = Augmentation()
    network: Network = Network()
    schedule: Schedule = Schedule()
    seed: Seed = 0
    device: Device = "auto"


class Finetune(Strict, frozen=True):
    """A fine-tuning job; without ``init`` it trains from scratch.

    Attributes:
        target: ``segmentation`` learns label maps, ``classification`` the groups of studies.
        pooling: How the slices of a study make its class: by gated ``attention`` (Ilse et al. 2018) or their ``mean``.
        bag: Slices of a study that classification looks at together in a step; all of them decide later [ours].
        init: Model file whose weights are carried over.
        transfer: ``all`` trains everything, ``decoder`` keeps the carried-over encoder frozen, ``multitask``
            trains the segmentation and the pretext together.
        labelled: Number of labelled subjects to use, 0 for all; the first n of the seed's order.
        subjects: Names of the labelled subjects to use, instead of ``labelled``.
        carry: Which parts are carried over. ``all`` is everything but the heads (of the U-Net encoder and decoder; of
            the Mask R-CNN all but the predictors of class, box and mask), ``encoder`` the U-Net's encoder or the Mask
            R-CNN's backbone, ``proposals`` the Mask R-CNN's backbone, feature pyramid and region proposals.
        frozen_share: Share of the steps in which carried-over parts stay as they are; then everything learns. Of a
            U-Net only the encoder is held: its decoder learns from the first step [ours].
        carried_rate: Learning rate of carried-over weights as a share of that of new ones [ours].
        pretext_weight: Weight of the pretext's loss in ``multitask`` (lambda, 1 by default [ours]).
        label_names: Names of the label values where the data do not give them.
    """

    data: Data
    target: Target = "segmentation"
    pooling: Pooling = "attention"
    bag: Count = 8
    init: str | None = None
    transfer: Transfer = "all"
    labelled: Annotated[int, msgspec.Meta(ge=0)] = 0
    subjects: tuple[str, ...] = ()
    pretext: tuple[PretextName, ...] = ()
    carry: Carry = "all"
    frozen_share: Share = 0.0
    carried_rate: Positive = 1.0
    pretext_weight: NonNegative = 1.0
    positions: Positions = Positions()
    crossings: Crossings = Crossings()
    location: Location = Location()
    restoration: Restoration = Restoration()
    distortions: Distortions = Distortions()
    label_names: dict[LabelValue, str] = {}
    grid: Grid | None = None
    augmentation: Augmentation = Augmentation()
    network: Network | None = None
    schedule: Schedule = Schedule()
    seed: Seed = 0
    device: Device = "auto"


SettingsType = TypeVar("SettingsType", bound=Strict)


class LabelStudy(Strict, frozen=True):
    """A few-label study: pretrained against scratch at several numbers of labelled subjects, paired by seed.

    Attributes:
        finetune: Settings of every trial; ``init`` is the pretrained model, or absent to pretrain first.
        pretrain: Settings of that pretraining; its data are the same cohort without the test subjects.
        counts: Numbers of labelled subjects.
        seeds: Draws of the labelled subjects; draw k of n subjects contains draw k of fewer.
        test_subjects: Subjects kept for the test, 0 for all that the largest count leaves, at most 20.
        scratch: Whether the trials from scratch are run as well.
    """

    finetune: Finetune
    pretrain: Pretrain | None = None
    counts: Annotated[tuple[Count, ...], msgspec.Meta(min_length=1)] = (1, 2, 5, 10)
    seeds: Count = 5
    test_subjects: Annotated[int, msgspec.Meta(ge=0)] = 0
    scratch: bool = True


KINDS: dict[str, type[Pretrain] | type[Finetune] | type[LabelStudy]] = {
    "pretrain": Pretrain,
    "finetune": Finetune,
    "study-labels": LabelStudy,
}


def parse(settings: Mapping[str, Any], kind: type[SettingsType]) -> SettingsType:
    """Plain JSON values to typed settings.

    Raises:
        SettingsError: A field is unknown, missing or out of range; the message names it.
    """
    try:
        return msgspec.convert(settings, kind, strict=True)
    except msgspec.ValidationError as error:
        text, _, path = str(error).partition(" - at `$")
        choices = _choices(kind, path) if text.startswith("Invalid enum value") else []
        text += f"; choose from: {', '.join(choices)}" if choices else ""
        text += f" (field `{path.removeprefix('.')}" if path else ""
        msg = f"Settings for {kind.__name__.lower()} cannot be used: {text}{')' if '(field' in text else ''}."
        raise SettingsError(msg) from None


def _choices(kind: type[Strict], path: str) -> list[str]:
    """What a field takes that takes some words alone, from its path in msgspec's error; nothing for other fields."""
    place: Any = msgspec.inspect.type_info(kind)
    for name in re.findall(r"[a-z]\w*", path):
        inside = [
            f.type for part in getattr(place, "types", (place,)) for f in getattr(part, "fields", ()) if f.name == name
        ]
        if not inside:
            return []
        place = inside[0]
    place = getattr(place, "item_type", place)
    return [str(value) for part in getattr(place, "types", (place,)) for value in getattr(part, "values", ())]


def plain(settings: Strict) -> dict[str, Any]:
    """Typed settings back to plain JSON values."""
    values = msgspec.to_builtins(settings)
    assert isinstance(values, dict)
    return values
