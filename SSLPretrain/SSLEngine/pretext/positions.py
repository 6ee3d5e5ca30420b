"""Anatomical position prediction: nine places that the long-axis planes mark on a slice.

A reconstruction after Bai et al., "Self-Supervised Learning for Cardiac MR Image Segmentation by Anatomical
Position Prediction", MICCAI 2019 (arXiv 1907.02757). Known from the paper: nine positions derived from the chamber
views' planes, predicted as a 10-way segmentation by a U-Net. Their layout, numbering and size are not known;
they are settings here.

The nine positions stand round the point p0 where two lines cross on the host, along the unit vectors u (first
line) and v (second line), which are signed by the anatomy and never by the image, so that a position means the same
in every patient:

* short-axis hosts: u runs along the 4-chamber line towards the patient's left (lateral wall), v along the
  2-chamber line towards the feet (inferior wall);
* 4-chamber hosts: u runs along the short-axis line towards the left, v along the 2-chamber line from base to apex;
* 2-chamber hosts: u runs along the short-axis line towards the feet, v along the 4-chamber line from base to apex.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ..geometry import Array
from ..geometry import crossing_line
from ..geometry import crossing_point
from ..geometry import crossing_segment
from ..geometry import line_direction
from ..geometry import towards
from ..settings import Positions
from .base import Batch
from .base import Geometry
from .base import Host

#: Host role -> (guest whose line carries u, guest whose line carries v).
GUESTS = {"sax": ("4ch", "2ch"), "4ch": ("sax", "2ch"), "2ch": ("sax", "4ch")}

LEFT, FEET = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, -1.0])

#: Steps (i along u, j along v) of the positions 1 to 9, in reading order.
GRID = [(i, j) for j in (-1, 0, 1) for i in (-1, 0, 1)]
CROSS = [(0, -2), (0, -1), (-2, 0), (-1, 0), (0, 0), (1, 0), (2, 0), (0, 1), (0, 2)]
LAYOUTS = {"grid": GRID, "cross": CROSS}


def orient(host: Host, line_of_u: Array, line_of_v: Array) -> tuple[Array, Array] | None:
    """Signs the two line directions by the anatomy (module docstring); None where the axis is not known."""
    if host.role == "sax":
        # Left decides; a direction nearly at right angles to it is decided by anterior (section 1.3).
        left = towards(line_of_u, LEFT) if abs(line_of_u[0]) > 0.1 else towards(line_of_u, [0.0, -1.0, 0.0])
        return left, towards(line_of_v, FEET)
    if host.axis is None:
        return None
    return towards(line_of_u, LEFT if host.role == "4ch" else FEET), towards(line_of_v, host.axis)


def position_centres(host: Host, settings: Positions) -> Array:
    """Centres of the nine positions in host pixels, ``(9, 2)``; NaN where the geometry does not exist."""
    missing = np.full((9, 2), np.nan)
    names, least = GUESTS.get(host.role), settings.min_angle_deg
    guests = [host.guests[n] for n in names if n in host.guests] if names else []
    # Where the network's square reaches over the edge of the image, there is nothing to see.
    image = host.stack[host.index]
    if len(guests) != 2 or any(crossing_segment(image, g, least) is None for g in guests):
        return missing
    lines = [crossing_line(host.plane, g, least) for g in guests]
    if lines[0] is None or lines[1] is None:
        return missing
    centre = crossing_point(lines[0], lines[1], host.plane.spacing, settings.min_line_angle_deg)
    if centre is None or not image.contains(image.to_pixel(host.plane.to_patient(centre))):
        return missing
    directions = orient(host, *(line_direction(line, host.plane) for line in lines if line is not None))
    if directions is None:
        return missing
    steps = np.array(LAYOUTS[settings.layout], dtype=float) * settings.step_mm
    points = host.plane.to_patient(centre) + steps @ np.stack(directions)
    pixels = host.plane.to_pixel(points)
    # A position whose centre leaves the image becomes background.
    return np.where(image.contains(image.to_pixel(points))[:, None], pixels, np.nan)


class PositionPrediction:
    """The pretext task ``positions``: 10-way segmentation, nine positions and background."""

    name = "positions"
    pixel_outputs = 10
    image_outputs = 0

    def __init__(self, settings: Positions) -> None:
        self.settings = settings

    def geometry(self, host: Host) -> Geometry:
        """The nine centres as points."""
        return Geometry(points=position_centres(host, self.settings))

    def distort(self, batch: Batch, generator: torch.Generator) -> None:
        """Leaves the image as it is."""

    def target(self, batch: Batch) -> torch.Tensor:
        """Class index of every pixel, ``(B, P, P)`` int64; -1 on slices whose positions are not known.

        A position is an axis-aligned square; where augmentation brought two closer than their size, the nearer wins.
        """
        points = batch.points[self.name]
        size = batch.images.shape[-2:]
        y, x = (torch.arange(n, device=points.device, dtype=points.dtype) for n in size)
        half = self.settings.half_size_mm / batch.spacing_mm
        dx = (x[None, None, :] - points[..., 0, None]).abs()
        dy = (y[None, None, :] - points[..., 1, None]).abs()
        distance = torch.maximum(dx[:, :, None, :], dy[:, :, :, None]).nan_to_num(torch.inf)
        nearest, index = distance.min(dim=1)
        target = torch.where(nearest <= half, index + 1, torch.zeros_like(index))
        known = points.isfinite().all(-1).any(-1)
        return torch.where(known[:, None, None], target, torch.full_like(target, -1))

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Cross-entropy over ten classes (the paper's task) plus a Dice term against the large background."""
        known = (target >= 0).flatten(1).all(1)
        if not known.any():
            return output.sum() * 0.0
        logits, truth = output[known].float(), target[known]
        weights = torch.ones(self.pixel_outputs, device=logits.device)
        weights[0] = self.settings.background_weight
        loss = functional.cross_entropy(logits, truth, weight=weights)
        if self.settings.dice:
            share = logits.softmax(1)[:, 1:]
            one_hot = functional.one_hot(truth, self.pixel_outputs).permute(0, 3, 1, 2)[:, 1:].to(share.dtype)
            overlap = 2 * (share * one_hot).sum((0, 2, 3)) + 1
            loss = (
                loss + self.settings.dice * (1 - overlap / (share.sum((0, 2, 3)) + one_hot.sum((0, 2, 3)) + 1)).mean()
            )
        return loss

    def score(self, output: torch.Tensor, target: torch.Tensor, spacing_mm: float) -> dict[str, float]:
        """Hit rate (share of positions whose predicted centre lies in their square) and centre error in mm.

        The predicted centre of a position is the mean of the pixels that reach half of its largest probability.
        """
        share = output.float().softmax(1)[:, 1:]
        predicted = centroids((share - 0.5 * share.amax((2, 3), keepdim=True)).clamp(min=0))
        truth = functional.one_hot(target.clamp(min=0), self.pixel_outputs).permute(0, 3, 1, 2)[:, 1:].float()
        actual = centroids(truth)
        present = (truth.sum((2, 3)) > 0) & (target >= 0).flatten(1).all(1)[:, None]
        # The mean of nothing is NaN, which says "not known" as the interface wants it.
        offset = (predicted - actual)[present] * spacing_mm
        hits = offset.abs().amax(-1) <= self.settings.half_size_mm
        return {"hit_rate": float(hits.float().mean()), "centre_error_mm": float(offset.norm(dim=-1).mean())}

    def draw(self, axes: Any, image: Array, values: Any) -> None:
        """The image with the nine squares in nine colours; ``values`` is a class map or ``(10, P, P)`` logits."""
        classes = np.asarray(values).argmax(0) if np.ndim(values) == 3 else np.asarray(values)
        axes.imshow(image, cmap="gray")
        shown = np.ma.masked_less(classes, 1)
        axes.imshow(shown, cmap="tab10", vmin=1, vmax=10, alpha=0.55, interpolation="nearest")


def centroids(share: torch.Tensor) -> torch.Tensor:
    """Weighted mean pixel ``(x, y)`` of each channel: ``(B, C, H, W)`` to ``(B, C, 2)``."""
    height, width = share.shape[-2:]
    total = share.sum((-2, -1)).clamp(min=1e-9)
    x = (share.sum(-2) * torch.arange(width, device=share.device)).sum(-1) / total
    y = (share.sum(-1) * torch.arange(height, device=share.device)).sum(-1) / total
    return torch.stack([x, y], dim=-1)
