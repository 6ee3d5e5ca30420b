"""Lays the stacks of a knee exam along the joint as a technologist does, with human error."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..geometry import Array
from ..geometry import Plane
from .knee import KneeShape

#: Mean error of a hand-laid stack, degrees.
ANGLE_ERROR_DEG = 3.0


def lay_knee_planes(shape: KneeShape, rng: np.random.Generator) -> Mapping[str, list[Plane]]:
    """Planes of each stack of one exam: ``sag``, ``cor``, ``ax``.

    Coronal planes run along the back of the condyles and the tibia's shaft, sagittal ones at right angles to them
    (in some exams turned outwards along the anterior cruciate ligament), axial ones along the tibial plateau.
    """
    u, v, w = shape.axes
    oblique = np.radians(rng.uniform(6, 14)) if rng.random() < 0.35 else 0.0
    right, back, down = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, -1.0])
    # The plateau falls off backwards by some degrees, and the technologist follows half of it.
    ground = w + 0.05 * v
    stacks = {
        "sag": (np.cos(oblique) * u + np.sin(oblique) * v, back, down, 80.0, 256),
        "cor": (v, right, down, 84.0, 208),
        "ax": (ground, right, back, 96.0, 208),
    }
    centres = {"sag": (0, 2, 12), "cor": (0, -6, 10), "ax": (0, -2, 14)}
    return {
        name: _stack(shape, rng, _tilted(normal, rng), axes, centres[name], length, columns)
        for name, (normal, *axes, length, columns) in stacks.items()
    }


def _stack(
    shape: KneeShape,
    rng: np.random.Generator,
    axis: Array,
    axes: list[Array],
    centre: tuple[float, float, float],
    length: float,
    columns: int,
) -> list[Plane]:
    """20 to 28 slices of 3 to 4 mm that cover ``length`` mm (of the mean adult) along ``axis``."""
    right, down = axes
    y = down - (down @ axis) * axis
    y /= np.linalg.norm(y)
    x = np.cross(y, axis)
    if x @ right < 0:
        x, axis = -x, -axis
    thickness = float(rng.choice([3.0, 3.5, 4.0]))
    step = round(thickness * float(rng.choice([1.0, 1.1, 1.2])), 2)
    count = int(np.clip(round(shape.scale * length / step) + 1, 20, 28))
    order = 1 if rng.random() < 0.5 else -1
    field = shape.scale * rng.uniform(148, 165)
    pixel = round(float(np.clip(field / columns, 0.55, 0.8)), 4)
    rows = columns if rng.random() < 0.5 else int(round(columns * rng.uniform(0.85, 1.0) / 2) * 2)
    middle = shape.to_patient(centre) + rng.normal(0, 4) * x + rng.normal(0, 4) * y + rng.normal(0, 2) * axis
    corner = middle - pixel * ((columns - 1) / 2 * x + (rows - 1) / 2 * y)
    starts = order * step * (np.arange(count) - (count - 1) / 2)
    return [Plane(corner + s * axis, x, y, (pixel, pixel), (columns, rows), thickness) for s in starts]


def _tilted(direction: Array, rng: np.random.Generator) -> Array:
    """A direction a few degrees off."""
    vector = direction + rng.normal(0, np.radians(ANGLE_ERROR_DEG) / np.sqrt(2), 3)
    return np.asarray(vector / np.linalg.norm(vector))
