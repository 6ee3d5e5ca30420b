"""Relative location: where a slice lies in its stack, along the anatomy.

After Zhang et al., MedIA 2024 (arXiv 2403.16499). Their target is the ratio of millimetres between the first and the
last slice, with the direction that the scanner gave; here the direction is the anatomy's, so that it means the same in
every patient, and a short stack does not pretend to reach from end to end.

* The direction is the stack's normal, turned base to apex (``sax``), medial to lateral (``sag``; the side of the knee
  comes from laterality, names or position, and without a side there is no target), posterior to anterior (``cor``),
  feet to head (``ax``). Where no long-axis planes tell the heart's axis, left-anterior-inferior stands for it: that
  settles the sign of any short-axis stack.
* ``ratio`` depends on what the technologist covered: a short stack's 0 is not the base. It exists only for stacks of at
  least ``min_stack_mm``.
* ``mm`` is counted from the middle of the organ: the middle of a stack of at least ``min_stack_mm``, which reached from
  end to end; for a shorter one the mean centre of the study's other views, which technologists put on the organ and
  which does not depend on how far this stack reached; without other views there is no target.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from .. import geometry
from ..geometry import Array
from ..geometry import slice_positions
from ..settings import Location
from .base import Batch
from .base import Geometry
from .base import Host

#: mm are learned in units of this many, so that targets are of the order of 1.
UNIT_MM = 30.0
#: Ends of the scale in pictures, to both sides of the organ's middle.
SCALE_MM = 80.0


def anatomical_direction(host: Host) -> Array | None:
    """Unit vector, LPS, along which places grow in the host's stack; None where it is not known."""
    return geometry.anatomical_direction(host.role, host.stack, host.axis, host.side)


def slice_place(host: Host, measure: str, min_stack_mm: float) -> tuple[float, float]:
    """Place of the host and the mm that one unit of it means; NaN where it is not known.

    Args:
        host: The slice and its stack.
        measure: ``mm`` (in units of :data:`UNIT_MM`) or ``ratio``.
        min_stack_mm: Stacks that span less have not covered the organ.
    """
    direction = anatomical_direction(host)
    if direction is None or len(host.stack) < 2:
        return math.nan, math.nan
    positions = slice_positions(host.stack, direction)
    first, span = float(positions.min()), float(np.ptp(positions))
    here = float(positions[host.index])
    if measure == "ratio":
        return ((here - first) / span, span) if span >= max(min_stack_mm, 1e-6) else (math.nan, math.nan)
    if span >= min_stack_mm:
        middle = first + span / 2
    elif host.guests:
        middle = float(np.mean([guest.centre @ direction for guest in host.guests.values()]))
    else:
        return math.nan, math.nan
    return (here - middle) / UNIT_MM, UNIT_MM


class SliceLocation:
    """The pretext task ``location``: one number for the whole image."""

    name = "location"
    pixel_outputs = 0
    image_outputs = 1

    def __init__(self, settings: Location) -> None:
        self.settings = settings

    def geometry(self, host: Host) -> Geometry:
        """Place and mm a unit; no augmentation within the plane changes them."""
        if host.role not in self.settings.hosts:
            return Geometry(values=np.full(2, np.nan))
        return Geometry(values=np.array(slice_place(host, self.settings.measure, self.settings.min_stack_mm)))

    def distort(self, batch: Batch, generator: torch.Generator) -> None:
        """Leaves the image as it is."""

    def target(self, batch: Batch) -> torch.Tensor:
        """Place and mm a unit, ``(B, 2)``; NaN where unknown."""
        return batch.values[self.name]

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Smooth L1 of the place, in its own unit."""
        known = target.isfinite().all(1)
        if not known.any():
            return output.sum() * 0.0
        return functional.smooth_l1_loss(output[known, 0].float(), target[known, 0])

    def score(self, output: torch.Tensor, target: torch.Tensor, spacing_mm: float) -> dict[str, float]:
        """Mean error in mm, and the mean error of always answering the batch's median, to compare with."""
        known = target.isfinite().all(1)
        place, unit = target[known, 0], target[known, 1]
        if not len(place):
            return {"location_mm": math.nan, "constant_mm": math.nan}
        error = (output[known, 0].float() - place).abs() * unit
        constant = (place - place.median()).abs() * unit
        return {"location_mm": float(error.mean()), "constant_mm": float(constant.mean())}

    def draw(self, axes: Any, image: Array, values: Any) -> None:
        """The image with its place on a scale beside it; ``values`` is ``(2,)`` (a target) or ``(1,)`` (an output)."""
        axes.imshow(image, cmap="gray")
        place = float(np.ravel(values)[0])
        ratio = self.settings.measure == "ratio"
        text = f"{place:.2f}" if ratio else f"{place * UNIT_MM:+.0f} mm"
        style = {"transform": axes.transAxes, "clip_on": False}
        if math.isfinite(place):
            height = min(1.0, max(0.0, 1 - place if ratio else 0.5 - place * UNIT_MM / (2 * SCALE_MM)))
            axes.plot([0.95, 0.95], [0.1, 0.9], color="w", lw=1.5, alpha=0.7, **style)
            axes.plot([0.95], [0.1 + 0.8 * height], "o", color="#fdae6b", ms=8, **style)
        box = {"facecolor": "k", "alpha": 0.6, "edgecolor": "none", "pad": 2}
        shown = text if math.isfinite(place) else "no place"
        axes.text(0.04, 0.96, shown, transform=axes.transAxes, va="top", color="w", fontsize=9, bbox=box)
