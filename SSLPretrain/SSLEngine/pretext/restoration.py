"""Context restoration: undo what was done to patches of the image. Needs no headers.

The strongest published baseline for few labels, and as easy to choose as the geometric tasks, so that users can
compare. After Chen et al., "Self-supervised learning for medical image analysis using image context restoration",
MedIA 2019, with the sizes of Dominic et al., Bioengineering 2023 (arXiv 2210.07936). They place patches by Poisson-disc
sampling; here they are cells of a grid that is shifted at random for every image, which cannot overlap either and is
one gather for a whole batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from ..geometry import Array
from ..settings import Restoration
from .base import Batch
from .base import Geometry
from .base import Host


def changed_cells(count: int, cells: int, share: float, generator: torch.Generator) -> torch.Tensor:
    """Pairs of cells that are exchanged, as a table ``(B, cells)`` of where each cell's content comes from."""
    pairs = min(max(1, round(share * cells / 2)), cells // 2)
    order = torch.rand(count, cells, generator=generator).argsort(1)
    one, other = order[:, :pairs], order[:, pairs : 2 * pairs]
    table = torch.arange(cells).repeat(count, 1)
    return table.scatter(1, one, other).scatter(1, other, one)


def swap_or_mask(
    images: torch.Tensor, side: int, share: float, masked: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Exchanges square patches in pairs, or blanks them.

    Args:
        images: ``(B, 1, P, P)``.
        side: Side of a patch in pixels, at most half of the image.
        share: Share of the image that is changed.
        masked: ``(B,)`` bool: patches are set to 0, the mean of a standardised image, instead of exchanged.
        generator: On the CPU: the same draws on every device.
    """
    count, _, height, width = images.shape
    rows, columns = height // side, width // side
    spare = torch.tensor([height - rows * side, width - columns * side])
    shift = (torch.rand(count, 2, generator=generator) * (spare + 1)).long()
    # The share is of the image, and the grid may leave a border out.
    table = changed_cells(count, rows * columns, share * height * width / (rows * columns * side**2), generator)
    y, x = torch.arange(height) - shift[:, :1], torch.arange(width) - shift[:, 1:]
    inside = ((y >= 0) & (y < rows * side))[:, :, None] & ((x >= 0) & (x < columns * side))[:, None, :]
    cell = (y // side).clamp(0, rows - 1)[:, :, None] * columns + (x // side).clamp(0, columns - 1)[:, None, :]
    origin = torch.where(inside, table.gather(1, cell.flatten(1)).reshape(cell.shape), cell)
    source_y = y[:, :, None] + (origin // columns - cell // columns) * side + shift[:, :1, None]
    source_x = x[:, None, :] + (origin % columns - cell % columns) * side + shift[:, 1:, None]
    index = (source_y * width + source_x).to(images.device)
    swapped = images.flatten(1).gather(1, index.flatten(1)).reshape(images.shape)
    blank = ((origin != cell) & masked[:, None, None]).to(images.device)
    return swapped.masked_fill(blank[:, None], 0.0)


class ContextRestoration:
    """The pretext task ``restoration``: the clean image from one with changed patches."""

    name = "restoration"
    pixel_outputs = 1
    image_outputs = 0

    def __init__(self, settings: Restoration) -> None:
        self.settings = settings

    def geometry(self, host: Host) -> Geometry:
        """Nothing: the task knows no geometry."""
        return Geometry()

    def distort(self, batch: Batch, generator: torch.Generator) -> None:
        """Changes patches of every image."""
        side = self.settings.patch / (batch.spacing_mm if self.settings.unit == "mm" else 1.0)
        side = max(1, min(round(side), min(batch.images.shape[-2:]) // 2))
        draws = torch.rand(len(batch.images), generator=generator) < 0.5
        masked = draws if self.settings.kind == "both" else torch.full_like(draws, self.settings.kind == "mask")
        batch.images = swap_or_mask(batch.images, side, self.settings.share, masked, generator)

    def target(self, batch: Batch) -> torch.Tensor:
        """The clean image and the distorted one, ``(B, 2, P, P)``; the second is what a score compares with."""
        return torch.cat([batch.clean, batch.images], dim=1)

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean squared or absolute error over the whole image."""
        error = functional.l1_loss if self.settings.loss == "l1" else functional.mse_loss
        return error(output.float(), target[:, :1])

    def score(self, output: torch.Tensor, target: torch.Tensor, spacing_mm: float) -> dict[str, float]:
        """Root mean squared error over the changed pixels, in standard deviations; and that of leaving them alone."""
        clean, given = target[:, :1], target[:, 1:]
        changed = clean != given
        error = ((output.float() - clean) ** 2)[changed].mean().sqrt()
        untouched = ((given - clean) ** 2)[changed].mean().sqrt()
        return {"restored_rmse": float(error), "untouched_rmse": float(untouched)}

    def draw(self, axes: Any, image: Array, values: Any) -> None:
        """The restored image ``(1, P, P)``, or of a target ``(2, P, P)`` the clean one, in the image's own window."""
        axes.imshow(np.asarray(values)[0], cmap="gray", vmin=float(np.min(image)), vmax=float(np.max(image)))
