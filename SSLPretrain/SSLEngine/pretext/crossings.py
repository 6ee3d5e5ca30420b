"""Relative orientation: heatmaps of the lines where the study's other planes cross a slice.

A reconstruction after Zhang et al., MedIA 2024 (arXiv 2403.16499), who learn from anatomy-oriented planes. Their
released code draws each line as a raster and refits it; here a line is a closed form from the headers to the loss, so
a heatmap is exact after any rotation, scale, shear, shift or flip.

Every guest role has its own output channel, the same one on every host. A channel has no target (NaN, and is left out
of loss and score) where the host has the guest's own role, the planes are nearly parallel, or the two acquired images
do not meet.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from ..geometry import Array
from ..geometry import Plane
from ..geometry import crossing_line
from ..geometry import crossing_segment
from ..geometry import slice_positions
from ..line_fitting import fit_line
from ..settings import Crossings
from ..structures import ROLE_COLOURS
from .base import Batch
from .base import Geometry
from .base import Host

#: Area under a profile across the line, in mm, for ``peak = "area"``: the view planner of the same group divides by
#: ``sigma sqrt(2 pi)`` and trains on ten times that.
PROFILE_AREA_MM = 10.0


def guest_plane(host: Host, role: str, stack_guest: str) -> Plane | None:
    """The plane that stands for a guest: its middle slice, or the most basal one of a short-axis stack."""
    stack = host.guest_stacks.get(role, ())
    if stack_guest == "basal" and role == "sax" and host.axis is not None and len(stack) > 1:
        return stack[int(slice_positions(stack, host.axis).argmin())]
    return host.guests.get(role)


def guest_line(host: Host, guest: Plane, settings: Crossings) -> Array:
    """Coefficients ``(3,)`` of the guest's line on the host's grid; NaN where there is none.

    Whether the images meet is asked of the host as it was acquired, not of the network's grid, which may be larger.
    """
    acquired = host.stack[host.index]
    meet = not settings.must_meet or crossing_segment(acquired, guest, settings.min_angle_deg) is not None
    line = crossing_line(host.plane, guest, settings.min_angle_deg)
    return line.coefficients if meet and line is not None else np.full(3, np.nan)


class Crossing:
    """The pretext task ``crossings``: one heatmap for each guest role."""

    name = "crossings"
    image_outputs = 0

    def __init__(self, settings: Crossings) -> None:
        self.settings = settings
        self.guests = tuple(dict.fromkeys(settings.guests))
        self.pixel_outputs = len(self.guests)

    def geometry(self, host: Host) -> Geometry:
        """One line for each guest role, in the order of the channels."""
        lines = np.full((len(self.guests), 3), np.nan)
        if host.role in self.settings.hosts:
            for row, role in enumerate(self.guests):
                guest = None if role == host.role else guest_plane(host, role, self.settings.stack_guest)
                if guest is not None:
                    lines[row] = guest_line(host, guest, self.settings)
        return Geometry(lines=lines)

    def distort(self, batch: Batch, generator: torch.Generator) -> None:
        """Leaves the image as it is."""

    @property
    def peak(self) -> float:
        """Value of a heatmap on its line."""
        if self.settings.peak == "one":
            return 1.0
        return PROFILE_AREA_MM / (self.settings.sigma_mm * math.sqrt(2 * math.pi))

    def target(self, batch: Batch) -> torch.Tensor:
        """Heatmaps ``(B, guests, P, P)``: ``peak exp(-d^2 / 2 sigma^2)``, d in mm in the plane; NaN if unknown."""
        lines = batch.lines[self.name]
        height, width = batch.images.shape[-2:]
        x = torch.arange(width, device=lines.device, dtype=lines.dtype)
        y = torch.arange(height, device=lines.device, dtype=lines.dtype)
        a, b, e = (lines[..., k, None, None] for k in range(3))
        distance = a * x + b * y[:, None] + e
        return self.peak * torch.exp(-0.5 * (distance / self.settings.sigma_mm) ** 2)

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Squared error over the known channels, weighted ``1 + line_weight h`` with h from 0 (far) to 1 (on the line).

        A line covers some 7 % of a patch: at ``line_weight`` 10 it counts about as much as all the rest. At 0 this is
        the plain mean squared error of the released code.
        """
        known = target[:, :, 0, 0].isfinite()
        if not known.any():
            return output.sum() * 0.0
        predicted, truth = output[known].float(), target[known]
        weight = 1 + self.settings.line_weight * truth / self.peak
        return (weight * (predicted - truth) ** 2).mean()

    def score(self, output: torch.Tensor, target: torch.Tensor, spacing_mm: float) -> dict[str, float]:
        """Median distance (mm) and angle (degrees) between the lines fitted to output and target.

        The distance is measured at the middle of the part of the true line that lies on the patch.
        """
        sigma = self.settings.sigma_mm / spacing_mm
        predicted, truth = output.float().cpu().numpy(), target.cpu().numpy()
        seen = np.isfinite(truth[:, :, 0, 0]) & (truth.max((-2, -1)) > 0.5 * self.peak)
        offsets, angles = [], []
        for sample, channel in np.argwhere(seen):
            true, found = (fit_line(m[sample, channel], sigma) for m in (truth, predicted))
            offsets.append(abs(found.distance(true.middle)) * spacing_mm)
            angles.append(found.angle_deg(true))
        if not offsets:
            return {"line_mm": math.nan, "line_deg": math.nan}
        return {"line_mm": float(np.median(offsets)), "line_deg": float(np.median(angles))}

    def draw(self, axes: Any, image: Array, values: Any) -> None:
        """The image with a band for every line in its guest's colour; ``values`` are heatmaps ``(guests, P, P)``."""
        from matplotlib.colors import to_rgba

        axes.imshow(image, cmap="gray")
        for role, heat in zip(self.guests, np.asarray(values), strict=True):
            shares = np.clip(np.nan_to_num(heat) / self.peak, 0, 1)
            if shares.max() > 0:
                layer = np.tile(to_rgba(ROLE_COLOURS[role]), (*heat.shape, 1))
                layer[..., 3] = 0.8 * shares
                axes.imshow(layer, interpolation="nearest")
