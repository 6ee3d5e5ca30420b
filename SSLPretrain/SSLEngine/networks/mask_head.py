"""Regions cut from a feature pyramid, the mask head that works on them, and their way back into the image.

Boxes are ``x1 y1 x2 y2`` in pixels; pixel i reaches from i to i + 1 and has its centre at i + 0.5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from .torchvision_ops import roi_align

#: Channels that share a mean and a deviation in a group norm.
GROUP = 16
#: Side of a region with which the pyramid's third level deals (Lin et al. 2017, equation 1).
CANONICAL_SIDE = 224
#: Samples of a bin along each axis.
SAMPLES = 2
#: Sides of what the first and the second RoIAlign cut for the mask head.
FIRST_SIDE, SECOND_SIDE = 14, 28


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm over groups of 16 channels; independent of the batch, which is small here."""
    return nn.GroupNorm(channels // GROUP, channels)


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """3x3 convolution, group norm, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), group_norm(outputs), nn.ReLU())


def doubling(channels: int) -> nn.Sequential:
    """Transposed convolution to twice the side, group norm, ReLU."""
    return nn.Sequential(nn.ConvTranspose2d(channels, channels, 2, 2, bias=False), group_norm(channels), nn.ReLU())


def gathered(pyramid: Sequence[torch.Tensor], reduce: nn.Module) -> torch.Tensor:
    """All levels ``(B, C, H, W)`` of a pyramid through one layer, summed at the size of the finest, which is first."""
    shape = pyramid[0].shape[-2:]
    return torch.stack([functional.interpolate(reduce(x), shape, mode="bilinear") for x in pyramid]).sum(0)


def align(pyramid: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor], side: int) -> torch.Tensor:
    """RoIAlign from the level of the pyramid that suits a region's size.

    Args:
        pyramid: Levels ``(B, C, H, W)`` of stride 4, 8, 16, ..., finest first; one level serves all regions.
        boxes: ``(n, 4)`` for each image of the batch.
        side: Rows and columns of bins.

    Returns:
        ``(sum of n, C, side, side)``, the regions of the first image first.
    """
    rois = with_owner(boxes)
    level = torch.log2((rois[:, 3:] - rois[:, 1:3]).clamp(min=1e-3).prod(1).sqrt() / CANONICAL_SIDE)
    level = (level + 2 + 1e-6).floor().clamp(0, len(pyramid) - 1)
    found, order = [], []
    for number, features in enumerate(pyramid):
        chosen = torch.nonzero(level == number)[:, 0]
        found.append(align_level(features, rois[chosen], side, 4 * 2**number))
        order.append(chosen)
    # Sorted back by an index rather than written into zeros, which keeps the graph free of copies of the whole.
    return torch.cat(found)[torch.cat(order).argsort()]


def align_level(features: torch.Tensor, rois: torch.Tensor, side: int, stride: int) -> torch.Tensor:
    """RoIAlign from one level ``(B, C, H, W)``; ``rois`` are ``(k, 5)`` with the index in the batch first."""
    # Padded convolutions of stride s put feature pixel i at image pixel s i, RoIAlign puts it at s (i + 1/2) - 1/2.
    shift = rois.new_tensor([0, *[(stride - 1) / 2] * 4])
    return roi_align(features, rois + shift, 1 / stride, side, side, SAMPLES, True)


def with_owner(boxes: Sequence[torch.Tensor]) -> torch.Tensor:
    """Boxes of each image to ``(k, 5)`` with the index of the image first."""
    return torch.cat([functional.pad(own, (1, 0), value=number) for number, own in enumerate(boxes)])


class MaskHead(nn.Module):
    """Features of regions at the resolution of their masks: Mask R-CNN's head and the three changes of iMaskRCNN.

    Plain, four convolutions work on 14 px and a transposed one doubles them to 28 px. The changes (Felfeliyan et al.
    2022; where they cut and how large is ours):

    * ``second_align`` cuts the regions a second time, at 28 px, from the finest level and from the backbone's stem,
      which is twice as fine and knows where edges are;
    * ``extra_layer`` doubles the features once more, to 56 px;
    * ``skip`` concatenates the second cut with the doubled first one, and a convolution merges them. Without it the
      second cut takes the place of the first, and the four convolutions work on it at 28 px.

    Args:
        channels: Channels of the pyramid and of the head.
        stem: Channels of the stem.
        second_align: First change.
        extra_layer: Second change.
        skip: Third change; needs the first.
    """

    def __init__(self, channels: int, stem: int, second_align: bool, extra_layer: bool, skip: bool) -> None:
        super().__init__()
        first = second_align and not skip
        inputs = channels + stem if first else channels
        self.tower = nn.Sequential(convolution(inputs, channels), *[convolution(channels, channels) for _ in range(3)])
        self.widen = None if first else doubling(channels)
        self.merge = convolution(2 * channels + stem, channels) if skip else None
        self.extra = doubling(channels) if extra_layer else None
        self.side = SECOND_SIDE * (2 if extra_layer else 1)

    def forward(
        self, stem: torch.Tensor, pyramid: Sequence[torch.Tensor], boxes: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Cuts and decodes regions.

        Args:
            stem: ``(B, stem, H / 2, W / 2)``.
            pyramid: Levels of stride 4, 8, ..., finest first.
            boxes: ``(n, 4)`` for each image.

        Returns:
            ``(sum of n, channels, side, side)``.
        """
        if self.widen is None:
            x = self.tower(fine_cut(stem, pyramid[0], boxes))
        else:
            x = self.widen(self.tower(align(pyramid, boxes, FIRST_SIDE)))
        if self.merge is not None:
            x = self.merge(torch.cat((x, fine_cut(stem, pyramid[0], boxes)), 1))
        return x if self.extra is None else self.extra(x)


def fine_cut(stem: torch.Tensor, finest: torch.Tensor, boxes: Sequence[torch.Tensor]) -> torch.Tensor:
    """The second RoIAlign, ``(k, channels + stem, 28, 28)``."""
    rois = with_owner(boxes)
    return torch.cat([align_level(x, rois, SECOND_SIDE, stride) for x, stride in ((finest, 4), (stem, 2))], 1)


def crop(images: torch.Tensor, owners: torch.Tensor, boxes: torch.Tensor, side: int) -> torch.Tensor:
    """What boxes contain, resampled by averages: the inverse of :func:`paste`.

    Args:
        images: ``(n, H, W)``.
        owners: ``(k,)`` index of each box's image.
        boxes: ``(k, 4)``.
        side: Rows and columns of the result.

    Returns:
        ``(k, side, side)`` float.
    """
    rois = torch.cat((owners.to(boxes)[:, None], boxes), 1)
    return roi_align(images[:, None].to(boxes), rois, 1.0, side, side, -1, True)[:, 0]


def paste(crops: torch.Tensor, boxes: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Crops ``(k, S, S)`` back to where their boxes ``(k, 4)`` lie, ``(k, H, W)``; zero elsewhere.

    Interpolates at pixel centres and does not round the boxes, so that nothing moves by parts of a pixel.
    """
    height, width = shape
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    centres = [torch.arange(count, device=boxes.device, dtype=boxes.dtype) + 0.5 for count in (width, height)]
    across = 2 * (centres[0] - boxes[:, :1]) / size[:, :1] - 1
    down = 2 * (centres[1] - boxes[:, 1:2]) / size[:, 1:] - 1
    grid = torch.stack((across[:, None, :].expand(-1, height, -1), down[:, :, None].expand(-1, -1, width)), -1)
    return functional.grid_sample(crops[:, None].to(boxes), grid, align_corners=False)[:, 0]
