"""What metal does to an image: the field that it disturbs moves signal, piles it up and wipes it out.

Each piece of metal is a magnetic dipole along the scanner's field (head to foot). Its field shifts the frequency of the
tissue round it, which the scanner takes for a shift along the readout direction, ``x' = x + s(x)`` with
``s = m (3 cos^2(a) - 1) / r^3`` (Schenck, Medical Physics 1996): signal is missing where it left and too bright where
it arrived. Where the field varies much within a voxel, the spins lose their common phase and the signal is gone; a
spin echo brings most of it back. Shifts of the slice itself, and the bands of balanced sequences, are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..geometry import Array
from ..geometry import Plane
from .shapes import LESION
from .shapes import Floats
from .shapes import Labels

#: Parts into which a pixel is cut while its signal is moved.
PARTS = 4
#: A pixel belongs to the artefact where its signal was changed by more than this share ...
CHANGED = 0.25
#: ... or moved by more than this, mm.
MOVED_MM = 2.0


@dataclass(frozen=True)
class Metal:
    """Pieces of metal.

    Attributes:
        centres: LPS mm, ``(phases, pieces, 3)``: they move with the heart.
        moment: Strength of each piece: the shift in mm at a distance r in mm, beside it, is ``moment / r^3``.
        radius: Of each piece, mm; inside there is no signal.
        dephasing: Change of the shift per mm at which a voxel has lost two thirds of its signal.
        along_columns: Whether the scanner reads out along the columns (y) and not along the rows (x).
    """

    centres: Array
    moment: float
    radius: float
    dephasing: float
    along_columns: bool = False


def shift_mm(metal: Metal, points: Floats, phase: int) -> tuple[Floats, Floats]:
    """Shift along the readout direction at LPS points ``(3, n)``, and the distance from the nearest piece, mm."""
    total = np.zeros(points.shape[1], np.float32)
    nearest = np.full(points.shape[1], np.inf, np.float32)
    for centre in metal.centres[phase]:
        away = points - centre.astype(np.float32)[:, None]
        squared = np.maximum(np.einsum("in,in->n", away, away), np.float32(metal.radius**2))
        total += np.float32(metal.moment) * (3 * away[2] ** 2 / squared - 1) / squared ** np.float32(1.5)
        nearest = np.minimum(nearest, np.sqrt(np.einsum("in,in->n", away, away)))
    return total, nearest


def add_artefact(
    metal: Metal,
    signal: Floats,
    labels: Labels,
    points_at: Callable[[float, npt.ArrayLike], Floats],
    moved: npt.ArrayLike,
    plane: Plane,
) -> tuple[Floats, Labels]:
    """The image of a slice with metal in or near it.

    Args:
        metal: The pieces.
        signal: Of the slice without metal, ``(phases, rows, columns)``.
        labels: Of the same shape; the anatomy keeps its place.
        points_at: Points of the anatomy that the pixels see at an offset in mm along the normal, given its shift.
        moved: How far the anatomy has moved, LPS mm, ``(3,)``.
        plane: The slice.

    Returns:
        Signal, and labels with the bit :data:`~.shapes.LESION` where the artefact is.
    """
    out, marked = np.empty_like(signal), labels.copy()
    layers = [points_at(offset, moved) for offset in (-plane.thickness / 2, 0.0, plane.thickness / 2)]
    for phase in range(len(signal)):
        before, here, after = (shift_mm(metal, p, phase) for p in layers)
        shift = here[0].reshape(signal.shape[1:])
        steepness = _steepness(shift, (after[0] - before[0]).reshape(shift.shape) / plane.thickness, plane)
        kept = np.exp(-((steepness / np.float32(metal.dephasing)) ** 2))
        kept[here[1].reshape(shift.shape) < metal.radius] = 0
        step = shift / np.float32(plane.spacing[1 if metal.along_columns else 0])
        # What is kept of an even signal tells where the artefact is, whatever the tissue.
        out[phase], share = _pushed(np.stack([signal[phase] * kept, kept]), step, metal.along_columns)
        marked[phase][(np.abs(share - 1) > CHANGED) | (np.abs(shift) > MOVED_MM)] |= LESION
    return out, marked


def _steepness(shift: Floats, through: Floats, plane: Plane) -> Floats:
    """Length of the shift's gradient, mm per mm."""
    down, across = np.gradient(shift, plane.spacing[1], plane.spacing[0])
    return np.asarray(np.sqrt(down**2 + across**2 + through**2), np.float32)


def _pushed(images: Floats, step: Floats, along_columns: bool) -> Floats:
    """Moves the signal of every pixel by ``step`` pixels; what leaves the image is lost.

    Args:
        images: ``(k, rows, columns)``.
        step: ``(rows, columns)``.
        along_columns: Whether it moves along y.
    """
    if along_columns:
        return np.swapaxes(_pushed(np.swapaxes(images, 1, 2), step.T, False), 1, 2)
    rows, columns = step.shape
    count, spare = columns * PARTS, 2
    at = (np.arange(count) + 0.5) / PARTS - 0.5
    inner = np.stack([np.interp(at, np.arange(columns), row) for row in step])
    # Parts land among the parts of pixels: with no shift at all every one stays what it is.
    goal = np.clip(np.arange(count) + PARTS * inner, -spare, count)
    low = np.floor(goal).astype(np.intp)
    upper = goal - low
    width = count + 2 * spare
    base = np.arange(rows)[:, None] * width + low + spare
    out = []
    for image in images:
        parts = np.repeat(image, PARTS, axis=1) / PARTS
        landed = np.zeros(rows * width)
        for place, weight in ((base, 1 - upper), (base + 1, upper)):
            landed += np.bincount(place.ravel(), (weight * parts).ravel(), minlength=landed.size)
        out.append(landed.reshape(rows, width)[:, spare:-spare].reshape(rows, columns, PARTS).sum(2))
    return np.stack(out).astype(np.float32)
