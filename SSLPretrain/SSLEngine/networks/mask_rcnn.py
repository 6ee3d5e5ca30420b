"""Mask R-CNN on torchvision's parts with the changes of iMaskRCNN and a restoration branch.

A reconstruction after Felfeliyan et al. (iMaskRCNN 2022, Self-Supervised-RCNN 2023): the papers' texts name the changes
and the tasks; sizes and losses are ours. Images come standardised and at the right spacing, so that nothing resizes or
normalises them here; no weights are ever downloaded.

torchvision's samplers draw from torch's global random generator: who wants a repeatable step seeds it before the step.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from ..settings import PYRAMID_LEVELS
from ..settings import MaskRcnn
from ..settings import Network
from .attention import FeatureNetwork
from .mask_head import GROUP
from .mask_head import MaskHead
from .mask_head import align
from .mask_head import convolution
from .mask_head import crop
from .mask_head import gathered
from .mask_head import group_norm
from .mask_head import paste
from .naming import DecodedNamer
from .naming import PixelNamer
from .naming import pixel_loss
from .naming import region_classes
from .naming import region_loss
from .torchvision_ops import load_torchvision
from .torchvision_ops import nms
from .unet import UNet

#: Side of what RoIAlign cuts for the box head.
BOX_SIDE = 7
#: Share of an image's sampled regions that may be instances; masks are learned on these alone.
POSITIVE = 0.25
#: Anchors of an image that the first stage learns from in a step.
SAMPLED_ANCHORS = 128
#: Channels of the decoder that restores the whole image.
RESTORE_CHANNELS = 32
#: Least number that sides of images are multiples of, as those of patches are.
LEAST_FACTOR = 16
#: Name of the backbone that is no residual network.
UNET = "unet"
#: What a backbone's maps are called, of stride 1, 2, 4, 8, 16 and 32.
LEVEL_NAMES = ("fine", "stem", "0", "1", "2", "3")
#: Channels of a residual network's layers at full resolution, and of its first of stride 2.
RESIDUAL_WIDTHS = (16, 64)

#: Pixels of the image that a pixel of the pyramid's coarsest level, before the pooled one, stands for.
COARSEST_STRIDE = 32

Target = Mapping[str, torch.Tensor]


class Maps(NamedTuple):
    """What the backbone and the pyramid make of a batch.

    Attributes:
        fine: ``(B, fine, H, W)``, the backbone's finest.
        stem: ``(B, stem, H / 2, W / 2)``, its next.
        levels: The pyramid by level, of stride 4, 8, ..., and a last one, pooled, that serves the first stage alone.
    """

    fine: torch.Tensor
    stem: torch.Tensor
    levels: dict[str, torch.Tensor]

    @property
    def pyramid(self) -> list[torch.Tensor]:
        """The levels that regions are cut from, finest first."""
        return list(self.levels.values())[:-1]

    def of(self, number: int) -> Maps:
        """Those of one image of the batch."""
        one = slice(number, number + 1)
        return Maps(self.fine[one], self.stem[one], {name: x[one] for name, x in self.levels.items()})


class MaskRCNN(FeatureNetwork):
    """Finds, names, outlines and, after distortion, restores instances.

    Parameters are named after parts, so that a transfer can choose: ``backbone.``, ``fpn.``, ``rpn.``, ``box_head.``,
    ``mask_head.``, ``predictors.`` (the last layers, which depend on the classes), ``restoration.`` and ``naming.``.

    Args:
        settings: Sizes and switches; ``anchors_mm`` must be filled.
        spacing_mm: Pixel spacing of the images.
        classes: Number of classes without background.
        pretext: Whether it learns a pretext instead of segmentation: then it has the branches that the settings want to
            restore and to name pixels, and what overlaps is one region, whatever its class.
        widths: Channels of the levels of a U-Net, where that is the backbone.

    Attributes:
        factor: What the sides of an image must be multiples of.
        feature_channels: Length of what :meth:`features` returns.
        score_threshold: Detections below are dropped; may be changed, for instance to 0 for a precision-recall curve.
        exclusive: Whether each place belongs to one region at most.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
        ValueError: ``anchors_mm`` is empty.
    """

    def __init__(
        self,
        settings: MaskRcnn,
        spacing_mm: float,
        classes: int,
        pretext: bool = False,
        widths: Sequence[int] = Network().widths,
    ) -> None:
        super().__init__()
        if len(settings.anchors_mm) != PYRAMID_LEVELS:
            msg = f"Expected {PYRAMID_LEVELS} sides in `anchors_mm`, and found {len(settings.anchors_mm)}"
            raise ValueError(msg)
        load_torchvision()
        channels = settings.channels
        self.settings = settings
        self.score_threshold = settings.score_threshold
        self.exclusive = pretext
        self.feature_channels = 2 * 4 * channels
        self.backbone = make_backbone(settings.backbone, widths)
        self.factor = max(LEAST_FACTOR, self.backbone.factor)
        fine, stem, *levels = self.backbone.widths
        self.fpn = make_pyramid(levels, channels)
        self.rpn = make_proposer(settings, spacing_mm)
        self.box_head = BoxHead(channels)
        self.mask_head = MaskHead(channels, stem, settings.second_align, settings.extra_layer, settings.skip)
        self.predictors = Predictors(self.box_head.outputs, channels, classes)
        kinds = settings.restoration if pretext else "none"
        self.restoration = nn.ModuleDict()
        if kinds in ("region", "both"):
            self.restoration["region"] = nn.Sequential(convolution(channels, channels), nn.Conv2d(channels, 1, 1))
        if kinds in ("image", "both"):
            self.restoration["image"] = ImageRestorer(channels)
        self.naming = None
        if pretext and settings.pixel_weight:
            self.naming = (
                DecodedNamer(fine, classes) if settings.backbone == UNET else PixelNamer(fine, stem, channels, classes)
            )
        self.sampler = make_sampler(settings)
        # Convolutions on a processor are half again as fast in this order.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: torch.Tensor, targets: Sequence[Target] | None = None) -> Any:
        """Losses of a batch in training, detections otherwise.

        Args:
            images: ``(B, 1, H, W)``; inside they are continued to sides that are multiples of the coarsest stride.
            targets: In training, for each image ``boxes`` ``(n, 4)`` (see :func:`SSLEngine.instances.boxes_of`),
                ``labels`` ``(n,)`` int64 from 1, ``masks`` ``(n, H, W)`` and, to restore, ``clean`` ``(1, H, W)``; n
                may be 0.

        Returns:
            In training the weighted losses ``objectness``, ``rpn_box``, ``class``, ``box``, ``mask``, ``restoration``
            and ``pixels``. Otherwise for each image ``boxes``, ``labels``, ``scores``, ``masks`` ``(n, H, W)`` (the
            probability of each pixel) and, with a restoration branch, ``restored`` ``(1, H, W)``, the image with what
            was found replaced.

        Raises:
            ValueError: The network is in training mode and there are no targets.
        """
        height, width = images.shape[-2:]
        spare = (0, -width % COARSEST_STRIDE, 0, -height % COARSEST_STRIDE)
        images = functional.pad(images, spare, mode="replicate")
        maps = self._maps(images)
        if not self.training:
            return [cut_back(found, height, width) for found in self._detect(images, maps)]
        if targets is None:
            msg = "Expected targets in training mode, and found none; call eval() for detections"
            raise ValueError(msg)
        return self._losses(images, maps, [continued(target, spare) for target in targets])

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Images to ``(B, feature_channels)``: mean and maximum of each level of the pyramid, for classification."""
        levels = self._maps(images).pyramid
        return torch.cat([pooled for x in levels for pooled in (x.mean((-2, -1)), x.amax((-2, -1)))], 1).float()

    def _maps(self, images: torch.Tensor) -> Maps:
        found = self.backbone(images.contiguous(memory_format=torch.channels_last))
        return Maps(found.pop("fine"), found.pop("stem"), self.fpn(found))

    def _propose(
        self, images: torch.Tensor, levels: dict[str, torch.Tensor], targets: Sequence[Target] | None
    ) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        from torchvision.models.detection.image_list import ImageList

        shapes = [tuple(images.shape[-2:])] * len(images)
        proposals, losses = self.rpn(ImageList(images, shapes), levels, targets)
        return proposals, losses

    def _losses(self, images: torch.Tensor, maps: Maps, targets: Sequence[Target]) -> dict[str, torch.Tensor]:
        from torchvision.models.detection.roi_heads import fastrcnn_loss

        weights = self.settings
        proposals, first = self._propose(images, maps.levels, targets)
        pyramid = maps.pyramid
        boxes, matched, labels, offsets = self.sampler.select_training_samples(proposals, list(targets))
        logits, deltas = self.predictors.boxes(self.box_head(align(pyramid, boxes, BOX_SIDE)))
        class_loss, box_loss = fastrcnn_loss(logits, deltas, labels, offsets)
        mask_loss = restoration = pixels = images.new_zeros(())
        positive = Positives.among(boxes, matched, labels, targets)
        if len(positive.labels):
            regions = self.mask_head(maps.stem, pyramid, positive.boxes)
            wanted = positive.cut("masks", regions.shape[-1]) >= 0.5
            mask_loss = binary_loss(self.predictors.masks(regions), positive.labels, wanted)
            if "region" in self.restoration:
                clean = positive.cut("clean", regions.shape[-1])
                restoration = masked_l1(self.restoration["region"](regions)[:, 0], clean, wanted)
        if "image" in self.restoration:
            clean = torch.stack([target["clean"] for target in targets])
            wanted = torch.stack([target["masks"].bool().any(0, keepdim=True) for target in targets])
            restoration = restoration + masked_l1(self.restoration["image"](images, pyramid), clean, wanted)
        if self.naming is not None:
            named = self.naming(maps.fine, maps.stem, pyramid)
            pixels = pixel_loss(named, targets) + region_loss(named, targets)
        return {
            "objectness": first["loss_objectness"],
            "rpn_box": first["loss_rpn_box_reg"],
            "class": weights.class_weight * class_loss,
            "box": box_loss,
            "mask": weights.mask_weight * mask_loss,
            "restoration": weights.restoration_weight * restoration,
            "pixels": weights.pixel_weight * pixels,
        }

    def _detect(self, images: torch.Tensor, maps: Maps) -> list[dict[str, torch.Tensor]]:
        proposals, _ = self._propose(images, maps.levels, None)
        shape = (images.shape[-2], images.shape[-1])
        results = self._found(maps.pyramid, proposals, shape)
        wholes = self.restoration["image"](images, maps.pyramid) if "image" in self.restoration else None
        for number, result in enumerate(results):
            # One image after the other, so that many doubtful regions in a batch do not fill the memory.
            own = maps.of(number)
            regions = self.mask_head(own.stem, own.pyramid, [result["boxes"]])
            logits = self.predictors.masks(regions)
            result["masks"] = paste(of_class(logits, result["labels"]).sigmoid(), result["boxes"], shape)
            if self.naming is not None:
                named = region_classes(self.naming(own.fine, own.stem, own.pyramid)[0], result["masks"])
                result["labels"] = named.argmax(1) + 1
            if self.restoration:
                whole = None if wholes is None else wholes[number]
                result["restored"] = self._restored(images[number], whole, regions, result)
        return results

    def _found(
        self, pyramid: list[torch.Tensor], proposals: list[torch.Tensor], shape: tuple[int, int]
    ) -> list[dict[str, torch.Tensor]]:
        """What the proposals of each image turn out to be: ``boxes``, ``scores`` and ``labels``, surest first."""
        logits, deltas = self.predictors.boxes(self.box_head(align(pyramid, proposals, BOX_SIDE)))
        if self.exclusive:
            logits = of_likeliest_class(logits)
        self.sampler.score_thresh = self.score_threshold
        found = self.sampler.postprocess_detections(logits, deltas, proposals, [shape] * len(proposals))
        results = [dict(zip(("boxes", "scores", "labels"), each, strict=True)) for each in zip(*found, strict=True)]
        if self.exclusive:
            # torchvision drops what overlaps within a class alone.
            kept = [nms(r["boxes"], r["scores"], self.settings.overlap) for r in results]
            results = [{name: r[name][k] for name in r} for r, k in zip(results, kept, strict=True)]
        return results

    def _restored(
        self, image: torch.Tensor, whole: torch.Tensor | None, regions: torch.Tensor, result: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """An image ``(1, H, W)`` with what was found replaced: by the whole-image decoder if there is one."""
        if whole is not None:
            return torch.lerp(image, whole, result["masks"].sum(0, keepdim=True).clamp(max=1))
        grey = self.restoration["region"](regions)[:, 0].float()
        pieces = paste(grey, result["boxes"], (image.shape[-2], image.shape[-1]))
        # Weakest first, so that of two regions that overlap the surer one remains.
        for piece, mask in zip(pieces.flip(0), result["masks"].flip(0), strict=True):
            image = torch.lerp(image, piece[None], mask[None])
        return image


@dataclass(frozen=True)
class Positives:
    """Sampled regions that belong to an instance, over a batch.

    Attributes:
        boxes: ``(n, 4)`` for each image.
        matched: ``(n,)`` for each image, which of its instances each region belongs to.
        labels: ``(sum of n,)`` their classes, from 1.
        targets: What the images teach.
    """

    boxes: list[torch.Tensor]
    matched: list[torch.Tensor]
    labels: torch.Tensor
    targets: Sequence[Target]

    @classmethod
    def among(
        cls,
        boxes: Sequence[torch.Tensor],
        matched: Sequence[torch.Tensor],
        labels: Sequence[torch.Tensor],
        targets: Sequence[Target],
    ) -> Positives:
        """Those with a label, of all sampled regions of each image."""
        chosen = [own > 0 for own in labels]
        return cls(
            [own[which] for own, which in zip(boxes, chosen, strict=True)],
            [own[which] for own, which in zip(matched, chosen, strict=True)],
            torch.cat([own[which] for own, which in zip(labels, chosen, strict=True)]),
            targets,
        )

    def cut(self, name: str, side: int) -> torch.Tensor:
        """``masks`` (of each region's own instance) or ``clean`` inside the regions, ``(k, side, side)``."""
        cuts = []
        for boxes, matched, target in zip(self.boxes, self.matched, self.targets, strict=True):
            images = target[name]
            cuts.append(crop(images, matched if name == "masks" else torch.zeros_like(matched), boxes, side))
        return torch.cat(cuts)


def continued(target: Target, spare: tuple[int, int, int, int]) -> Target:
    """A target whose image goes on by so many pixels on the left, right, top and bottom, without regions there."""
    larger = {"masks": functional.pad(target["masks"], spare)}
    if "clean" in target:
        larger["clean"] = functional.pad(target["clean"], spare, mode="replicate")
    return {**target, **larger}


def cut_back(found: dict[str, torch.Tensor], height: int, width: int) -> dict[str, torch.Tensor]:
    """What was found in the image itself, where that is smaller than what was looked at."""
    ends = found["boxes"].new_tensor([width, height, width, height])
    inside = {k: v[..., :height, :width] if k in ("masks", "restored") else v for k, v in found.items()}
    return {**inside, "boxes": found["boxes"].clamp(min=0).minimum(ends)}


def of_likeliest_class(logits: torch.Tensor) -> torch.Tensor:
    """Class logits ``(k, 1 + classes)`` with all that is not background's probability given to the likeliest class.

    A region that may be of one class or another is still surely a region.
    """
    shares = logits.softmax(1)
    sole = torch.zeros_like(shares)
    sole[:, 0] = shares[:, 0]
    sole.scatter_(1, shares[:, 1:].argmax(1, keepdim=True) + 1, shares[:, 1:].sum(1, keepdim=True))
    return sole.log()


def binary_loss(logits: torch.Tensor, labels: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of each region's mask in the channel of its class.

    Args:
        logits: ``(k, classes, S, S)``.
        labels: ``(k,)`` from 1.
        wanted: ``(k, S, S)`` bool.
    """
    return functional.binary_cross_entropy_with_logits(of_class(logits, labels).float(), wanted.float())


def of_class(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mask logits ``(k, classes, S, S)`` to those of each region's class ``(k,)``, from 1: ``(k, S, S)``."""
    return logits[torch.arange(len(labels), device=labels.device), labels - 1]


def masked_l1(found: torch.Tensor, wanted: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference where ``where`` is true, 0 if that is nowhere."""
    return ((found.float() - wanted.float()).abs() * where).sum() / where.sum().clamp(min=1)


# ---------------------------------------------------------------------------------------------
# Parts


class ProposalHead(nn.Module):
    """Objectness and box changes of the anchors of each level, in float32 so that boxes stay exact under autocast."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, anchors, 1)
        self.boxes = nn.Conv2d(channels, 4 * anchors, 1)
        for layer in (self.convolution, self.objectness, self.boxes):
            nn.init.normal_(layer.weight, std=0.01)

    def forward(self, levels: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Levels ``(B, C, H, W)`` to ``(B, A, H, W)`` and ``(B, 4 A, H, W)`` each."""
        shared = [self.convolution(x).relu() for x in levels]
        return [self.objectness(x).float() for x in shared], [self.boxes(x).float() for x in shared]


class BoxHead(nn.Module):
    """Two layers over the pixels of a region, ``(k, C, 7, 7)`` to ``(k, outputs)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.outputs = 2 * channels
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * BOX_SIDE**2, self.outputs),
            nn.ReLU(),
            nn.Linear(self.outputs, self.outputs),
            nn.ReLU(),
        )

    def forward(self, regions: torch.Tensor) -> torch.Tensor:
        """Regions to their features."""
        features: torch.Tensor = self.layers(regions)
        return features


class Predictors(nn.Module):
    """The last layers, whose sizes depend on the classes.

    Args:
        inputs: Features of the box head.
        channels: Channels of the mask head.
        classes: Classes without background.
    """

    def __init__(self, inputs: int, channels: int, classes: int) -> None:
        super().__init__()
        self.label = nn.Linear(inputs, classes + 1)
        self.box = nn.Linear(inputs, 4 * (classes + 1))
        self.mask = nn.Conv2d(channels, classes, 1)

    def boxes(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(k, inputs)`` to class logits ``(k, 1 + classes)`` and box changes ``(k, 4 (1 + classes))``."""
        return self.label(features).float(), self.box(features).float()

    def masks(self, regions: torch.Tensor) -> torch.Tensor:
        """``(k, channels, S, S)`` to mask logits ``(k, classes, S, S)``; class 1 is channel 0."""
        logits: torch.Tensor = self.mask(regions).float()
        return logits


class ImageRestorer(nn.Module):
    """A light decoder that predicts the clean image from the pyramid and the image itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, RESTORE_CHANNELS, 1)
        self.fuse = convolution(RESTORE_CHANNELS, GROUP)
        self.refine = convolution(GROUP + 1, GROUP)
        self.last = nn.Conv2d(GROUP, 1, 3, padding=1)

    def forward(self, images: torch.Tensor, pyramid: Sequence[torch.Tensor]) -> torch.Tensor:
        """``(B, 1, H, W)`` and its pyramid to the restored ``(B, 1, H, W)``."""
        coarse = self.fuse(gathered(pyramid, self.reduce))
        fine = functional.interpolate(coarse, images.shape[-2:], mode="bilinear")
        return images + self.last(self.refine(torch.cat((fine, images.to(fine)), 1))).float()


class UNetBackbone(UNet):
    """A U-Net, the levels of whose decoder serve as those of a residual network.

    What it learned as a U-Net, from planes or from distortions, can so be carried over.

    Args:
        widths: Channels of each level, finest first, three to six.

    Attributes:
        widths: Channels of ``fine``, ``stem``, and the four levels.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(widths)
        self.widths = [*widths, *[widths[-1]] * (len(LEVEL_NAMES) - len(widths))]

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images ``(B, 1, H, W)`` to maps by name: ``fine``, ``stem``, and ``0`` to ``3`` of stride 4, 8, 16, 32."""
        levels = self.decode(self.encode(images))
        while len(levels) < len(LEVEL_NAMES):
            levels.append(functional.max_pool2d(levels[-1], 2))
        return dict(zip(LEVEL_NAMES, levels, strict=True))


class ResidualBackbone(nn.Module):
    """Two layers at full resolution, where textures are, and a residual network of torchvision with group norm.

    Args:
        name: Of the residual network.

    Attributes:
        widths: Channels of ``fine``, ``stem``, and the four levels.
        factor: What the sides of an image must be multiples of: its padded convolutions take any.
    """

    factor = 1

    def __init__(self, name: str) -> None:
        from torchvision.models import resnet
        from torchvision.models._utils import IntermediateLayerGetter

        super().__init__()
        fine, stem = RESIDUAL_WIDTHS
        self.fine = nn.Sequential(convolution(1, fine), convolution(fine, fine))
        body = getattr(resnet, name)(weights=None, norm_layer=group_norm)
        body.conv1 = nn.Conv2d(fine, stem, 5, 2, 2, bias=False)
        nn.init.kaiming_normal_(body.conv1.weight, mode="fan_out", nonlinearity="relu")
        levels = (body.layer1, body.layer2, body.layer3, body.layer4)
        self.widths = [fine, stem, *[level[-1].conv1.in_channels for level in levels]]
        names = ("relu", *[f"layer{number + 1}" for number in range(len(levels))])
        self.body = IntermediateLayerGetter(body, dict(zip(names, LEVEL_NAMES[1:], strict=True)))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images ``(B, 1, H, W)`` to maps by name: ``fine``, ``stem``, and ``0`` to ``3`` of stride 4, 8, 16, 32."""
        fine = self.fine(images)
        return {"fine": fine, **self.body(fine)}


def make_backbone(name: str, widths: Sequence[int]) -> UNetBackbone | ResidualBackbone:
    """The backbone of a name; ``widths`` are those of a U-Net's levels."""
    return UNetBackbone(widths) if name == UNET else ResidualBackbone(name)


def make_pyramid(widths: list[int], channels: int) -> nn.Module:
    """Feature pyramid of the four levels and a fifth, pooled one."""
    from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork
    from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

    return FeaturePyramidNetwork(widths, channels, LastLevelMaxPool(), norm_layer=group_norm)


def make_proposer(settings: MaskRcnn, spacing_mm: float) -> nn.Module:
    """The first stage."""
    from torchvision.models.detection.rpn import AnchorGenerator
    from torchvision.models.detection.rpn import RegionProposalNetwork

    sides = tuple((side / spacing_mm,) for side in settings.anchors_mm)
    anchors = AnchorGenerator(sides, (tuple(settings.aspects),) * len(sides))
    # Before overlapping ones are dropped, each level may name twice as many as are passed on from all of them.
    before, after = ({"training": n, "testing": n} for n in (2 * settings.proposals, settings.proposals))
    return RegionProposalNetwork(
        anchors,
        ProposalHead(settings.channels, len(settings.aspects)),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=SAMPLED_ANCHORS,
        positive_fraction=0.5,
        pre_nms_top_n=before,
        post_nms_top_n=after,
        nms_thresh=0.7,
    )


def make_sampler(settings: MaskRcnn) -> Any:
    """The second stage of torchvision without its heads: it picks what to learn from and cleans up detections."""
    from torchvision.models.detection.roi_heads import RoIHeads

    return RoIHeads(
        box_roi_pool=None,
        box_head=None,
        box_predictor=None,
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=settings.sampled,
        positive_fraction=POSITIVE,
        bbox_reg_weights=None,
        score_thresh=settings.score_threshold,
        nms_thresh=settings.overlap,
        detections_per_img=settings.detections,
    )
