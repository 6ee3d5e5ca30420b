"""Signed distances of simple bodies, texture, and a canvas to paint them on. Everything is float32.

A distance is negative inside, in mm near the surface (first order), and only ordered right far from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]
#: Bit of a label that marks points inside a lesion; the other bits are the anatomy's.
LESION = 128
#: What arithmetic with plain numbers is taken for by a type checker; the values stay float32.
AnyFloats = npt.NDArray[np.floating[Any]]


def ellipsoid(points: Floats, centre: npt.ArrayLike, radii: npt.ArrayLike) -> Floats:
    """Distance of points ``(d, n)`` from an axis-parallel ellipsoid (ellipse for d = 2).

    First order: ``k0 (k0 - 1) / k1`` with ``k0 = |p / r|`` and ``k1 = |p / r^2|``.
    """
    r = np.asarray(radii, dtype=np.float32)[:, None]
    scaled = (points - np.asarray(centre, dtype=np.float32)[:, None]) / r
    squared = np.einsum("in,in->n", scaled, scaled)
    scaled /= r
    slope = np.sqrt(np.einsum("in,in->n", scaled, scaled)) + np.float32(1e-6)
    length = np.sqrt(squared)
    return length * (length - 1) / slope - np.float32(r.min()) * (length < 1e-3)


def tube(points: Floats, path: npt.ArrayLike, radii: npt.ArrayLike) -> Floats:
    """Distance of points ``(3, n)`` from a chain of cones with round joints.

    Args:
        points: mm, ``(3, n)``.
        path: Corners of the centre line, ``(k, 3)``.
        radii: Radius at each corner, ``(k,)``.
    """
    corners = np.asarray(path, dtype=np.float32)
    widths = np.asarray(radii, dtype=np.float32)
    best = np.full(points.shape[1], np.inf, dtype=np.float32)
    for k in range(len(corners) - 1):
        step = corners[k + 1] - corners[k]
        offset = points - corners[k][:, None]
        along = np.clip(step @ offset / (step @ step), 0, 1)
        offset -= step[:, None] * along
        distance = np.sqrt(np.einsum("in,in->n", offset, offset)) - (widths[k] + (widths[k + 1] - widths[k]) * along)
        np.minimum(best, distance, out=best)
    return best


def smooth_path(corners: npt.ArrayLike, pieces: int = 4) -> npt.NDArray[np.float64]:
    """Rounds a path off: a Catmull-Rom curve through its corners, ``pieces`` steps between two of them."""
    p = np.asarray(corners, dtype=np.float64)
    padded = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, 1, pieces, endpoint=False)[:, None]
    curve = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], strict=True)
    ]
    return np.concatenate([*curve, p[-1:]])


def blend(first: Floats, second: Floats, reach: float) -> Floats:
    """Union of two bodies with the crease between them filled over ``reach`` mm (polynomial smooth minimum)."""
    share = np.maximum(reach - np.abs(first - second), 0) / np.float32(reach)
    return np.minimum(first, second) - share * share * np.float32(reach / 4)


class Texture:
    """A smooth random field that repeats after 64 cells, with mean 0 and standard deviation 1."""

    SIZE = 64

    def __init__(self, rng: np.random.Generator, smoothness: float = 1.2) -> None:
        field = rng.standard_normal((self.SIZE,) * 3, dtype=np.float32)
        field = ndimage.gaussian_filter(field, smoothness, mode="wrap", truncate=3.0)
        self._field = (field - field.mean()) / field.std()

    def __call__(self, points: Floats, cell_mm: float, offset: Sequence[float] = (0.0, 0.0, 0.0)) -> Floats:
        """Values at points ``(3, n)``, with cells of ``cell_mm``, the field moved by ``offset`` cells."""
        cells = points / np.float32(cell_mm) + np.asarray(offset, dtype=np.float32)[:, None]
        low = np.floor(cells)
        x, y, z = cells - low
        corner = low.astype(np.int32)
        mask = self.SIZE - 1
        size = self.SIZE
        i, j, k = ([(corner[axis] + d & mask) * size ** (2 - axis) for d in (0, 1)] for axis in range(3))
        flat = self._field.ravel()

        def along_z(plane: npt.NDArray[np.int32]) -> Floats:
            first = flat[plane + k[0]]
            return first + z * (flat[plane + k[1]] - first)

        def along_y(plane: npt.NDArray[np.int32]) -> Floats:
            first = along_z(plane + j[0])
            return first + y * (along_z(plane + j[1]) - first)

        near = along_y(i[0])
        return near + x * (along_y(i[1]) - near)

    def nearest(self, points: Floats, cell_mm: float, offset: Sequence[float] = (0.0, 0.0, 0.0)) -> Floats:
        """Values of the nearest cells at points ``(3, n)``: several times faster, and in steps."""
        cells = (points / np.float32(cell_mm) + np.asarray(offset, dtype=np.float32)[:, None] + 4096).astype(np.int32)
        i, j, k = cells & (self.SIZE - 1)
        return self._field.ravel()[(i * self.SIZE + j) * self.SIZE + k]


def warped(points: Floats, texture: Texture, cell_mm: float, amount_mm: float) -> Floats:
    """Points ``(3, n)`` moved by a smooth random field, so that no body is a perfect ellipsoid."""
    moves = [texture(points, cell_mm, (13.0 + 17 * axis, 29.0, 5.0 + 11 * axis)) for axis in range(3)]
    return points + np.float32(amount_mm) * np.stack(moves)


class Canvas:
    """Signal and label of points, painted one body over another.

    Attributes:
        signal: ``(n,)``.
        label: ``(n,)``.
        edge_mm: Width over which a border fades, so that borders are not jagged.
    """

    def __init__(self, signal: Floats, label: Labels, edge_mm: float = 1.0) -> None:
        self.signal = signal
        self.label = label
        self.edge_mm = np.float32(edge_mm)
        self._has_lesion = False

    def paint(
        self, distance: AnyFloats, value: AnyFloats | float, label: int | None = None, lesion: bool = False
    ) -> None:
        """Lays a body over what is there.

        Args:
            distance: Signed distance of every point from the body, ``(n,)``.
            value: Its signal, one number or ``(n,)``.
            label: Label of the points inside; None leaves the labels as they are.
            lesion: Whether it is a lesion: its points get the bit :data:`LESION`, which what is laid over them later
                takes off again.
        """
        where = np.flatnonzero(distance < self.edge_mm / 2)
        if where.size == 0:
            return
        near = distance[where]
        cover = np.minimum(np.float32(0.5) - near / self.edge_mm, 1)
        wanted = value[where] if isinstance(value, np.ndarray) else np.float32(value)
        self.signal[where] += cover * (wanted - self.signal[where])
        inside = where[near < 0]
        if label is not None:
            self.label[inside] = label
        if lesion:
            self.label[inside] |= LESION
            self._has_lesion = True
        elif label is None and self._has_lesion:
            self.label[inside] &= LESION - 1
