"""The class of every pixel beside that of every region, by which a pretext's Mask R-CNN names what it finds.

The semantic branch of Hybrid Task Cascade (Chen et al., CVPR 2019), on the backbone's layers at full resolution: what
tells shuffled pixels from noise lies between neighbouring pixels, of which a box's 7 x 7 cells keep nothing. Sizes are
ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..instances import pixel_classes
from .mask_head import convolution
from .mask_head import gathered

#: Channels of the branch.
CHANNELS = 32
#: Weight of pixels outside all regions, which are most of an image.
BACKGROUND_WEIGHT = 0.1


class PixelNamer(nn.Module):
    """Class logits of every pixel from the pyramid, the stem and the finest layers.

    Args:
        fine: Channels of the finest layers.
        stem: Channels of the stem.
        channels: Channels of the pyramid.
        classes: Classes without background.
    """

    def __init__(self, fine: int, stem: int, channels: int, classes: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, CHANNELS, 1)
        self.stem = nn.Conv2d(stem, CHANNELS, 1)
        self.fuse = convolution(CHANNELS, CHANNELS)
        self.last = nn.Sequential(convolution(CHANNELS + fine, CHANNELS), nn.Conv2d(CHANNELS, classes + 1, 1))

    def forward(self, fine: torch.Tensor, stem: torch.Tensor, pyramid: Sequence[torch.Tensor]) -> torch.Tensor:
        """Class logits, background first.

        Args:
            fine: ``(B, fine, H, W)``.
            stem: ``(B, stem, H / 2, W / 2)``.
            pyramid: Levels of stride 4, 8, ..., finest first.

        Returns:
            ``(B, 1 + classes, H, W)`` float32.
        """
        coarse = functional.interpolate(gathered(pyramid, self.reduce), stem.shape[-2:], mode="bilinear")
        half = self.fuse(coarse + self.stem(stem))
        whole = functional.interpolate(half, fine.shape[-2:], mode="bilinear")
        logits: torch.Tensor = self.last(torch.cat((whole, fine), 1)).float()
        return logits


class DecodedNamer(nn.Module):
    """The same from a decoder's finest level, which has gathered all the others already.

    Args:
        fine: Channels of the finest level.
        classes: Classes without background.
    """

    def __init__(self, fine: int, classes: int) -> None:
        super().__init__()
        self.last = nn.Conv2d(fine, classes + 1, 1)

    def forward(self, fine: torch.Tensor, *_coarser: Any) -> torch.Tensor:
        """Class logits, background first, ``(B, 1 + classes, H, W)`` float32, from ``(B, fine, H, W)``."""
        logits: torch.Tensor = self.last(fine).float()
        return logits


def pixel_loss(logits: torch.Tensor, targets: Sequence[Mapping[str, torch.Tensor]]) -> torch.Tensor:
    """Cross-entropy of every pixel's class; of two regions that overlap the later lies on top.

    Args:
        logits: ``(B, 1 + classes, H, W)``.
        targets: For each image ``masks`` ``(n, H, W)`` and ``labels`` ``(n,)`` from 1.
    """
    weights = torch.ones(logits.shape[1], device=logits.device)
    weights[0] = BACKGROUND_WEIGHT
    classes = torch.stack([pixel_classes(target["masks"], target["labels"]) for target in targets])
    return functional.cross_entropy(logits, classes, weights)


def region_loss(logits: torch.Tensor, targets: Sequence[Mapping[str, torch.Tensor]]) -> torch.Tensor:
    """Cross-entropy of the classes that :func:`region_classes` gives the true regions, small ones as much as large.

    The mean over all regions of the batch, 0 where there are none. Arguments as in :func:`pixel_loss`.
    """
    named = torch.cat([region_classes(own, target["masks"]) for own, target in zip(logits, targets, strict=True)])
    labels = torch.cat([target["labels"] for target in targets])
    # Without regions, a mean would be NaN.
    return functional.cross_entropy(named, labels - 1, reduction="sum") / max(1, len(labels))


def region_classes(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Log probability of each class for regions of one image: the mean over a region's pixels, ``(n, classes)``.

    Args:
        logits: ``(1 + classes, H, W)``.
        masks: ``(n, H, W)`` probability that a pixel belongs to each region.
    """
    shares = logits.log_softmax(0)[1:].flatten(1)
    weights = masks.flatten(1).to(shares)
    return weights @ shares.T / weights.sum(1, keepdim=True).clamp(min=1)
