"""torchvision with working ``nms`` and ``roi_align``, also where its compiled operators do not load.

A torchvision that was built for another torch is common (Slicer's SlicerPyTorch #18; a CUDA build beside a CPU torch):
then even ``import torchvision`` fails. :func:`load_torchvision` makes it importable and gives it the two operators in
plain torch, on any device; a torchvision whose own operators load keeps them. Any other operator of torchvision (such
as ``deform_conv2d``) still raises torchvision's own error there.

The Mask R-CNN calls :func:`roi_align` itself, whatever torchvision brings: it is faster than torchvision's own on the
CPU, deterministic, and on CUDA torchvision would compile a deterministic one with a compiler that few users have.
"""

from __future__ import annotations

import functools
import importlib
import sys
from types import ModuleType
from typing import Any
from typing import NamedTuple

import torch
from torch.nn import functional

#: Boxes that :func:`nms` compares with each other at once: more are compared in vain, fewer take more rounds.
NMS_BLOCK = 256
#: Interpolation weights that :func:`roi_align` computes at once, which bounds its memory.
ALIGN_ENTRIES = 1 << 22
#: What ``import torchvision`` registers shapes for, and what its ``roi_align`` calls.
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
)


@functools.cache
def load_torchvision() -> ModuleType:
    """Imports torchvision, with plain-torch ``nms`` and ``roi_align`` where its own do not load.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    if "torchvision" not in sys.modules:
        _forget_torchvision()  # somebody's import that failed leaves parts of it behind
    try:
        torchvision = importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        msg = "The Mask R-CNN needs torchvision, which is not here; install it: pip install 'sslsegmentation[rcnn]'"
        raise ModuleNotFoundError(msg, name="torchvision") from None
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        torchvision = _import_without_operators()
    if not torchvision.extension._has_ops():
        _provide_operators()
    return torchvision


@functools.cache
def _library() -> torch.library.Library:
    return torch.library.Library("torchvision", "FRAGMENT")


def _import_without_operators() -> ModuleType:
    """A second import, after the operators that the first one missed have been declared."""
    for schema in SCHEMAS:
        _library().define(schema)
    _forget_torchvision()
    return importlib.import_module("torchvision")


def _forget_torchvision() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


def _provide_operators() -> None:
    """Lets ``torchvision.ops.nms`` and ``torchvision.ops.roi_align`` call the functions below."""
    _library().impl("nms", nms, "CompositeExplicitAutograd")
    _library().impl("roi_align", roi_align, "CompositeImplicitAutograd")
    # Modules by path: the attributes of torchvision.ops with these names are functions.
    boxes: Any = importlib.import_module("torchvision.ops.boxes")
    align: Any = importlib.import_module("torchvision.ops.roi_align")
    boxes._assert_has_ops = align._assert_has_ops = lambda: None
    align._has_ops = lambda: True
    # What torchvision would compile for CUDA tensors where deterministic algorithms are asked for.
    align._roi_align = roi_align


# ---------------------------------------------------------------------------------------------
# Non-maximum suppression


@torch.no_grad()
def nms(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression, as ``torchvision.ops.nms``.

    Args:
        dets: ``(n, 4)`` boxes ``x1 y1 x2 y2``.
        scores: ``(n,)``.
        iou_threshold: A box that overlaps a better kept one by more than this (intersection over union) is dropped.

    Returns:
        ``(k,)`` int64 indices of the kept boxes, best first; of equal scores the earlier box comes first.
    """
    order = scores.argsort(descending=True, stable=True)
    sorted_boxes = Boxes.of(dets[order])
    kept = order[:0]
    for block in torch.arange(len(order), device=order.device).split(NMS_BLOCK):
        own = sorted_boxes.part(block)
        alive = ~_overlaps(sorted_boxes.part(kept), own, iou_threshold).any(0)
        beats = _overlaps(own, own, iou_threshold).triu(1).to(dets.dtype)
        kept = torch.cat((kept, block[_undefeated(alive.to(dets.dtype), beats)]))
    return order[kept]


class Boxes(NamedTuple):
    """Corners and areas of boxes, each ``(n,)``: side by side in memory, comparing them takes a third of the time."""

    x0: torch.Tensor
    y0: torch.Tensor
    x1: torch.Tensor
    y1: torch.Tensor
    area: torch.Tensor

    @classmethod
    def of(cls, boxes: torch.Tensor) -> Boxes:
        """From ``(n, 4)``."""
        x0, y0, x1, y1 = boxes.T.contiguous()
        return cls(x0, y0, x1, y1, (x1 - x0) * (y1 - y0))

    def part(self, rows: torch.Tensor) -> Boxes:
        """Some of them."""
        return Boxes(*(values[rows] for values in self))


def _overlaps(first: Boxes, second: Boxes, threshold: float) -> torch.Tensor:
    """``(n, m)`` bool: which boxes overlap by more than the threshold."""
    a, b = Boxes(*(values[:, None] for values in first)), second
    width = (torch.minimum(a.x1, b.x1) - torch.maximum(a.x0, b.x0)).clamp_(min=0)
    shared = width.mul_((torch.minimum(a.y1, b.y1) - torch.maximum(a.y0, b.y0)).clamp_(min=0))
    # In double, because the compiled operator compares the rounded ratio with the threshold as given.
    return (shared / (a.area + b.area - shared)).double() > threshold


def _undefeated(alive: torch.Tensor, beats: torch.Tensor) -> torch.Tensor:
    """``(n,)`` bool: which boxes no kept box before them beats.

    A box's fate depends on those before it alone, so that repeating "kept is who no kept one beats" settles at least
    one more box a round and ends at the answer of the sequential rule, in practice after a handful of rounds.

    Args:
        alive: ``(n,)`` 1 or 0, boxes that are still in the running.
        beats: ``(n, n)`` 1 or 0, upper triangle: the row's box drops the column's if it is kept itself.
    """
    kept = alive
    while True:
        now = alive * (kept @ beats == 0)
        if torch.equal(now, kept):
            return kept > 0
        kept = now


# ---------------------------------------------------------------------------------------------
# RoIAlign


def roi_align(
    features: torch.Tensor,
    rois: torch.Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> torch.Tensor:
    """Averages of bilinear samples in the bins of regions, as ``torchvision.ops.roi_align`` (He et al. 2017).

    A bin is a weighted sum of feature pixels, and its weights are products of one for the row and one for the column;
    ``embedding_bag`` sums the weighted rows of a table of pixels without ever holding them side by side. It computes
    in float32 (or float64) whatever autocast says, is deterministic, and differentiable by the features.

    Args:
        features: ``(B, C, H, W)``.
        rois: ``(k, 5)``: index in the batch, then ``x1 y1 x2 y2`` in pixels of the image.
        spatial_scale: Feature pixels per image pixel.
        pooled_height: Rows of bins.
        pooled_width: Columns of bins.
        sampling_ratio: Samples of a bin along each axis; 0 or less takes as many as it has feature pixels, rounded up.
        aligned: Whether pixel centres lie at half-integers; if not, at integers, and regions are at least 1 px wide.

    Returns:
        ``(k, C, pooled_height, pooled_width)`` in the type of ``features``.
    """
    exact = torch.float64 if features.dtype == torch.float64 else torch.float32
    height, width = features.shape[-2:]
    corners = rois[:, 1:].to(exact) * spatial_scale - (0.5 if aligned else 0.0)
    extents = corners[:, 2:] - corners[:, :2]
    if not aligned:
        extents = extents.clamp(min=1)
    samples = sampling_ratio if sampling_ratio > 0 else _most_samples(extents, pooled_height, pooled_width)
    table = features.to(exact).permute(0, 2, 3, 1).flatten(0, 2)
    first_pixel = rois[:, 0].int() * (height * width)
    found = []
    entries = pooled_height * pooled_width * (2 * samples) ** 2
    for part in torch.arange(len(rois), device=rois.device).split(max(1, ALIGN_ENTRIES // entries)):
        ys, down = _axis_weights(corners[part, 1], extents[part, 1], pooled_height, height, sampling_ratio, samples)
        xs, right = _axis_weights(corners[part, 0], extents[part, 0], pooled_width, width, sampling_ratio, samples)
        pixels = (first_pixel[part, None, None] + ys * width)[:, :, None, :, None] + xs[:, None, :, None, :]
        weights = down[:, :, None, :, None] * right[:, None, :, None, :]
        found.append(
            functional.embedding_bag(
                pixels.reshape(-1, (2 * samples) ** 2),
                table,
                per_sample_weights=weights.reshape(-1, (2 * samples) ** 2),
                mode="sum",
            )
        )
    bins = torch.cat(found) if found else table[:0]
    return bins.view(-1, pooled_height, pooled_width, features.shape[1]).permute(0, 3, 1, 2).to(features.dtype)


def _most_samples(extents: torch.Tensor, rows: int, columns: int) -> int:
    """The largest number of samples that any bin takes along an axis, at least 1."""
    if not len(extents):
        return 1
    steps = extents / extents.new_tensor((columns, rows))
    return max(1, int(steps.max().ceil()))


def _axis_weights(
    starts: torch.Tensor, extents: torch.Tensor, bins: int, size: int, ratio: int, samples: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the bins of regions take from the pixels of one axis.

    Args:
        starts: ``(k,)`` where the regions begin, in feature pixels with centres at integers.
        extents: ``(k,)`` their lengths.
        bins: Bins of a region.
        size: Pixels of the axis.
        ratio: Samples of a bin, 0 or less for ``ceil(extent / bins)``.
        samples: Samples to compute; those that a bin does not take weigh nothing.

    Returns:
        ``(k, bins, 2 * samples)`` int32 pixels and their weights, two a sample.
    """
    step = (extents / bins)[:, None, None]
    taken = torch.full_like(step, ratio) if ratio > 0 else step.ceil()
    number = torch.arange(samples, device=starts.device, dtype=starts.dtype)
    bin_starts = starts[:, None, None] + torch.arange(bins, device=starts.device)[:, None] * step
    points = bin_starts + (number + 0.5) * step / taken.clamp(min=1)
    counts = (points >= -1) & (points <= size) & (number < taken)
    points = points.clamp(0, size - 1).nan_to_num(0)
    low = points.floor()
    share = points - low
    weights = torch.stack((1 - share, share), -1) * (counts / taken.clamp(min=1))[..., None]
    pixels = torch.stack((low, (low + 1).clamp(max=size - 1)), -1)
    return pixels.int().flatten(2), weights.flatten(2)
