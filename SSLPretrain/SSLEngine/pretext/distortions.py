"""Synthetic distortions, found, named and undone. Needs no headers.

After Felfeliyan et al., CMIG 2023 (10.1016/j.compmedimag.2023.102297), who teach a Mask R-CNN to localise distorted
regions, to tell the type of distortion and to recover the pixels: with ``--network mask-rcnn``, that is done here. A
U-Net learns the same distortions (:mod:`SSLEngine.distorting`) pixel by pixel, so that the task combines with those of
the planes: a type for every pixel, and the image as it was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from ..distorting import TYPES
from ..distorting import distort
from ..distorting import instance_targets
from ..geometry import Array
from ..instances import Instances
from ..instances import class_shares
from ..settings import Distortions
from .base import Batch
from .base import Geometry
from .base import Host

#: Colour of each type in pictures.
COLOURS = ("#e6550d", "#3182bd", "#31a354", "#c51b8a", "#fdae6b", "#9ecae1", "#a1d99b", "#756bb1")
#: Smaller patches of a colour have no name written beside them.
NAMED_PIXELS = 24


class DistortionPrediction:
    """The pretext task ``distortions``.

    Channels of the output: one for each class of a pixel (0 untouched, then ``TYPES``), and last what is added to the
    image given to restore it, so that an output of zeros leaves it alone.
    Channels of the target: the image before, the image given, and the class.
    """

    name = "distortions"
    region_classes = len(TYPES)
    classes = region_classes + 1
    pixel_outputs = classes + 1
    image_outputs = 0

    def __init__(self, settings: Distortions) -> None:
        self.settings = settings

    def geometry(self, host: Host) -> Geometry:
        """Nothing: the task knows no geometry."""
        return Geometry()

    def distort(self, batch: Batch, generator: torch.Generator) -> None:
        """Distorts regions of every image."""
        batch.distorted = distort(batch.images, batch.acquired, self.settings, batch.spacing_mm, generator)
        batch.images = batch.distorted.images

    def target(self, batch: Batch) -> torch.Tensor:
        """The clean image, the one given, and the class of every pixel, ``(B, 3, P, P)`` float32."""
        types = torch.zeros_like(batch.labels) if batch.distorted is None else batch.distorted.types
        return torch.cat([batch.clean, batch.images, types[:, None].to(batch.clean.dtype)], dim=1)

    def instances(self, batch: Batch) -> list[Instances]:
        """The distorted regions of each image, with its clean pixels."""
        assert batch.distorted is not None, "a batch is distorted before its regions are asked for"
        return instance_targets(batch.distorted, batch.clean)

    def of_regions(self, found: Sequence[Instances], batch: Batch) -> torch.Tensor:
        """Share of each class on every pixel, and what restoring adds: what the U-Net's head gives."""
        added = [f.get("restored", image) - image for f, image in zip(found, batch.images, strict=True)]
        return torch.cat([class_shares(found, self.region_classes), torch.stack(added).float()], dim=1)

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Cross-entropy over the classes, a Dice term over the types, and the squared error of the restored image.

        Untouched pixels, most of the image, count ``background_weight`` times in the first and the last.
        """
        clean, given, types = target[:, 0], target[:, 1], target[:, 2].long()
        logits, restored = output[:, : self.classes].float(), given + output[:, self.classes].float()
        weights = torch.ones(self.classes, device=logits.device)
        weights[0] = self.settings.background_weight
        loss = functional.cross_entropy(logits, types, weight=weights)
        weight = torch.where((types > 0) | (clean != given), 1.0, self.settings.background_weight)
        error = (weight * (restored - clean) ** 2).sum() / weight.sum()
        return loss + self.settings.dice * dice_loss(logits, types) + self.settings.restoration * error

    def score(self, output: torch.Tensor, target: torch.Tensor, spacing_mm: float) -> dict[str, float]:
        """Figures over the batch.

        ``region_dice`` of all distorted pixels, whatever their type; ``type_accuracy``, the share of distorted pixels
        whose most likely type is right; ``restored_rmse`` over changed pixels in standard deviations of the image, and
        ``untouched_rmse``, that of leaving them alone.
        """
        clean, given, types = target[:, 0], target[:, 1], target[:, 2].long()
        logits, restored = output[:, : self.classes].float(), given + output[:, self.classes].float()
        found, truth, changed = logits.argmax(1) > 0, types > 0, clean != given
        if not truth.any():
            return dict.fromkeys(("region_dice", "type_accuracy", "restored_rmse", "untouched_rmse"), math.nan)
        right = (logits[:, 1:].argmax(1) + 1 == types)[truth]
        return {
            "region_dice": float(2 * (found & truth).sum() / (found.sum() + truth.sum())),
            "type_accuracy": float(right.float().mean()),
            "restored_rmse": float(((restored - clean) ** 2)[changed].mean().sqrt()),
            "untouched_rmse": float(((given - clean) ** 2)[changed].mean().sqrt()),
        }

    def draw(self, axes: Any, image: Array, values: Any) -> None:
        """The image as it was or is restored, with the regions in the colours and by the names of their types.

        ``values`` is an output ``(classes + 1, P, P)``, or a target ``(3, P, P)``.
        """
        values = np.asarray(values)
        truth = len(values) == 3
        types = values[2].astype(int) if truth else values[: self.classes].argmax(0)
        restored = values[0] if truth else image + values[self.classes]
        low, high = np.percentile(image, (0.5, 99.5))
        axes.imshow(restored, cmap="gray", vmin=low, vmax=high)
        for number, (name, colour) in enumerate(zip(TYPES, COLOURS, strict=True), 1):
            draw_type(axes, types == number, name, colour)


def draw_type(axes: Any, mask: Any, name: str, colour: str) -> None:
    """One type of distortion in its colour, each larger patch of it with its name."""
    from matplotlib.colors import to_rgba

    layer = np.zeros((*mask.shape, 4))
    layer[mask] = to_rgba(colour, 0.35)
    axes.imshow(layer, interpolation="nearest")
    patches, _count = ndimage.label(mask)
    for number, (rows, columns) in enumerate(ndimage.find_objects(patches), 1):
        if (patches == number).sum() >= NAMED_PIXELS:
            # Above the patch or, at the top of the picture, below it; always towards the middle of the picture.
            y, vertical = (rows.start - 1, "bottom") if rows.start > mask.shape[0] / 10 else (rows.stop, "top")
            left = columns.start + columns.stop < mask.shape[1]
            x, horizontal = (columns.start, "left") if left else (columns.stop, "right")
            axes.text(x, y, name, color=colour, fontsize=8, ha=horizontal, va=vertical, clip_on=True)


def dice_loss(logits: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
    """One minus the soft Dice of the types that occur, over the whole batch; 0 where none does."""
    share = logits.softmax(1)[:, 1:]
    one_hot = functional.one_hot(types, logits.shape[1]).permute(0, 3, 1, 2)[:, 1:].to(share.dtype)
    size = one_hot.sum((0, 2, 3))
    dice = (2 * (share * one_hot).sum((0, 2, 3)) + 1) / (share.sum((0, 2, 3)) + size + 1)
    present = size > 0
    return ((1 - dice) * present).sum() / present.sum().clamp(min=1)
