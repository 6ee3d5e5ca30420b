"""Regions of an image one by one: label maps taken apart into instances, put together again, and judged.

Instances are what torchvision's detectors take and give: ``boxes`` ``(n, 4)`` float32 as x0, y0, x1, y1, ``labels``
``(n,)`` int64 from 1, ``masks`` ``(n, H, W)``; found ones also have ``scores`` ``(n,)``, and their masks are
probabilities. Pixel i covers the interval from i to i + 1, so a box is as wide as the pixels that it holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

Instances = dict[str, torch.Tensor]

#: Parts of a structure with fewer pixels are not taught: they are mostly crumbs of the interpolation.
MIN_PIXELS = 4
#: Found and true region are the same from this intersection over union of their pixels on: the 50 of AP50.
SAME = 0.5
#: Pixels of a found region have at least this probability.
INSIDE = 0.5


def boxes_of(masks: torch.Tensor) -> torch.Tensor:
    """The smallest boxes round masks: ``(n, H, W)`` bool or uint8 to ``(n, 4)`` float32, zeros for an empty mask."""
    spans = []
    for axis in (1, 2):
        hit = masks.bool().any(axis)
        # argmax gives the first of several, and 0 where there is none.
        end = hit.shape[1] - hit.flip(1).int().argmax(1)
        spans.append((hit.int().argmax(1), end * hit.any(1)))
    (x0, x1), (y0, y1) = spans
    return torch.stack([x0, y0, x1, y1], 1).float()


def instances_of(labels: torch.Tensor, classes: int) -> Instances:
    """The connected parts (diagonal neighbours count) of each class of a label map.

    Args:
        labels: ``(H, W)`` class indices; 0 and less is no structure.
        classes: Number of structures.

    Returns:
        Boxes, labels and masks (bool) on the map's device; parts of fewer than :data:`MIN_PIXELS` pixels are left out.
    """
    plain = labels.cpu().numpy()
    masks, kinds = [np.zeros((0, *plain.shape), bool)], []
    for index in range(1, classes + 1):
        parts, count = ndimage.label(plain == index, structure=np.ones((3, 3)))
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        kept = [k for k in range(1, count + 1) if sizes[k] >= MIN_PIXELS]
        masks += [(parts == k)[None] for k in kept]
        kinds += [index] * len(kept)
    stacked = torch.from_numpy(np.concatenate(masks)).to(labels.device)
    return {
        "boxes": boxes_of(stacked),
        "labels": torch.tensor(kinds, dtype=torch.int64, device=labels.device),
        "masks": stacked,
    }


def pixel_classes(masks: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Class of every pixel, ``(H, W)`` int64, 0 outside all regions; of two that overlap the later lies on top.

    Args:
        masks: ``(n, H, W)``.
        labels: ``(n,)`` int64.
    """
    found = torch.zeros(masks.shape[-2:], dtype=torch.int64, device=labels.device)
    for mask, label in zip(masks, labels, strict=True):
        found = torch.where(mask.bool(), label, found)
    return found


def class_shares(found: Sequence[Instances], classes: int) -> torch.Tensor:
    """Found regions of some images as the share of each class on every pixel, ``(B, 1 + classes, H, W)``.

    A class is the union of its regions. On every pixel the region whose score times mask probability is the largest
    decides: its class gets its mask probability, background the rest.
    """
    return torch.stack([_shares(f, classes) for f in found])


def _shares(found: Instances, classes: int) -> torch.Tensor:
    masks = found["masks"].float()
    shares = masks.new_zeros(1 + classes, *masks.shape[-2:])
    if len(masks):
        best = (found["scores"].float()[:, None, None] * masks).argmax(0, keepdim=True)
        shares.scatter_(0, found["labels"][best], masks.gather(0, best))
    shares[0] = 1 - shares[1:].sum(0)
    return shares


# ---------------------------------------------------------------------------------------------
# Judging what was found


def mask_overlaps(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Intersection over union of every mask ``(n, H, W)`` with every mask ``(m, H, W)``, ``(n, m)``; bool both."""
    a, b = one.flatten(1).float(), other.flatten(1).float()
    common = a @ b.T
    return common / (a.sum(1)[:, None] + b.sum(1)[None] - common).clamp(min=1)


def matches(found: Instances, truth: Instances) -> torch.Tensor:
    """For each found region the true one that it is, ``(n,)`` int64, -1 for none.

    The surest region chooses first; it takes the free true region that it overlaps most, by :data:`SAME` at least,
    whatever the two are called.
    """
    chosen = torch.full((len(found["scores"]),), -1, dtype=torch.int64)
    if not len(truth["masks"]):
        return chosen
    overlaps = mask_overlaps(found["masks"] >= INSIDE, truth["masks"].bool()).cpu()
    for k in found["scores"].cpu().argsort(descending=True, stable=True).tolist():
        best = int(overlaps[k].argmax())
        if overlaps[k, best] >= SAME:
            chosen[k] = best
            overlaps[:, best] = -1
    return chosen


def found_once(found: Instances) -> Instances:
    """Found regions, surest first, without those that are a surer one again."""
    order = found["scores"].argsort(descending=True, stable=True)
    masks = found["masks"][order] >= INSIDE
    overlaps = mask_overlaps(masks, masks).cpu()
    kept: list[int] = []
    for k in range(len(order)):
        if not (overlaps[k, kept] >= SAME).any():
            kept.append(k)
    chosen = order[torch.tensor(kept, dtype=torch.int64, device=order.device)]
    return {name: found[name][chosen] for name in ("scores", "labels", "masks")}


def average_precision(scores: torch.Tensor, right: torch.Tensor, total: int) -> float:
    """Area under precision over recall, each precision the best at that recall or beyond; NaN without true regions.

    Args:
        scores: ``(n,)`` of all found regions.
        right: ``(n,)`` bool, which of them are true.
        total: Number of true regions.
    """
    if not total:
        return math.nan
    hits = right[scores.argsort(descending=True, stable=True)].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    best = precision.flip(0).cummax(0).values.flip(0)
    return float((best * hits).sum() / total)


def found_again(found: Sequence[Instances], truth: Sequence[Instances]) -> dict[str, float]:
    """How well regions were found and named on some images.

    A region that overlaps a surer one of its image by :data:`SAME` is that one found twice, under another name, and
    does not count.

    Returns:
        ``ap50``: average precision of finding them, whatever they are called; ``named``: share of those that
        were found and have the right label. NaN where there is nothing to find, or nothing was found.
    """
    found = [found_once(f) for f in found]
    chosen = [matches(f, t) for f, t in zip(found, truth, strict=True)]
    scores = torch.cat([f["scores"].cpu() for f in found])
    total = sum(len(t["labels"]) for t in truth)
    named = [
        f["labels"].cpu()[c >= 0] == t["labels"].cpu()[c[c >= 0]] for f, t, c in zip(found, truth, chosen, strict=True)
    ]
    accuracy = torch.cat(named).double().mean()
    return {"ap50": average_precision(scores, torch.cat(chosen) >= 0, total), "named": float(accuracy)}
