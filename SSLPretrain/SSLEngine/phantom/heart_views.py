"""Lays the planes of a heart exam over a heart as a technologist does, with human error."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..geometry import Array
from ..geometry import Plane
from .heart import HeartShape

#: Mean error of a hand-laid plane: degrees about each axis, mm along it.
ANGLE_ERROR_DEG = 3.0
OFFSET_ERROR_MM = 2.0


def lay_heart_planes(shape: HeartShape, rng: np.random.Generator) -> Mapping[str, list[Plane]]:
    """Planes of each view of one exam: ``sax``, ``2ch``, ``3ch``, ``4ch``.

    Long-axis planes run through the apex and the mitral valve: the 4-chamber one also through the right
    ventricle's acute margin, the 3-chamber one through the aortic valve, the 2-chamber one along the septum, which
    turns with the right ventricle.
    """
    fov = float(rng.uniform(300, 370))
    columns = int(rng.choice([192, 208, 224, 240, 256]))
    thickness = float(np.round(rng.uniform(6, 8) * 2) / 2)
    root = float(np.degrees(np.arctan2(shape.root[1], shape.root[0])))
    right = float(np.degrees(np.arctan2(shape.rv_shift, shape.radius + shape.wall + 0.5 * shape.rv_width)))
    means = {"2ch": right + 86, "3ch": root, "4ch": right + 16}
    angles = {name: rng.normal(mean, ANGLE_ERROR_DEG) for name, mean in means.items()}
    planes = {"sax": _short_axis(shape, rng, fov, columns, thickness)}
    for name, angle in angles.items():
        planes[name] = [_long_axis(shape, rng, name, float(angle), fov, columns, thickness)]
    return planes


def _short_axis(shape: HeartShape, rng: np.random.Generator, fov: float, columns: int, thickness: float) -> list[Plane]:
    """8 to 12 slices with gaps of 2 to 10 mm, from a little above the valve to a little beyond the apex."""
    axis = _tilted(shape.axes[2], rng)
    above, beyond = rng.uniform(4, 14), rng.uniform(2, 9)
    length = shape.apex + above + beyond
    fitting = [n for n in range(8, 13) if 2 <= length / (n - 1) - thickness <= 10]
    count = int(rng.choice(fitting)) if fitting else 12
    step = float(np.clip(np.round(length / (count - 1), 1), thickness + 2, thickness + 10))
    starts = np.arange(count) * step - above
    if rng.random() < 0.5:
        starts = starts[::-1]
    normal = axis if starts[-1] > starts[0] else -axis
    down = np.array([0.25, 0.65, -0.7])
    turn = rng.normal(0, 12) if rng.random() < 0.7 else rng.uniform(-100, 100)
    x, y = _frame(normal, down, float(turn))
    middle = shape.to_patient((10.0, 0.0, 0.0)) + _wander(x, y, rng)
    rows = _rows(columns, rng)
    return [_plane(middle + start * axis, x, y, fov, columns, rows, thickness) for start in starts]


def _long_axis(
    shape: HeartShape, rng: np.random.Generator, name: str, angle: float, fov: float, columns: int, thickness: float
) -> Plane:
    """One plane through the apex and the valve, at an angle about the axis (degrees from u towards v)."""
    radians = np.radians(angle)
    across = np.cos(radians) * shape.axes[0] + np.sin(radians) * shape.axes[1]
    normal = _tilted(np.cross(across, shape.axes[2]), rng)
    down = {"4ch": np.array([0.0, 1.0, -0.15]), "3ch": np.array([0.0, 0.3, -1.0])}.get(name, np.array([0.0, 0.1, -1.0]))
    # The side from which each view is looked at: the patient's left, or the back, on the right of the picture.
    right = np.array([1.0, 0.0, 0.0]) if name == "4ch" else np.array([0.3, 1.0, 0.0])
    normal *= np.sign(np.cross(right, down) @ normal)
    x, y = _frame(normal, down, float(rng.normal(0, 8)))
    middle = shape.to_patient((0.0, 0.0, 0.3 * shape.length)) + rng.normal(0, OFFSET_ERROR_MM) * normal
    middle = middle + _wander(x, y, rng) + 15 * y * (rng.random() - 0.5)
    return _plane(middle, x, y, fov, columns, _rows(columns, rng), thickness)


def _tilted(direction: npt.ArrayLike, rng: np.random.Generator) -> Array:
    """A direction a few degrees off."""
    vector = np.asarray(direction, dtype=np.float64) + rng.normal(0, np.radians(ANGLE_ERROR_DEG) / np.sqrt(2), 3)
    return vector / np.linalg.norm(vector)


def _wander(x: Array, y: Array, rng: np.random.Generator) -> Array:
    """In-plane offset of an image's centre from the heart: near, but never at the same place."""
    return rng.normal(0, 18) * x + rng.normal(0, 18) * y


def _frame(normal: Array, down: Array, turn_deg: float) -> tuple[Array, Array]:
    """In-plane axes with ``x × y = normal`` and y near ``down``, turned in the plane."""
    y = down - (down @ normal) * normal
    y /= np.linalg.norm(y)
    x = np.cross(y, normal)
    c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    return c * x + s * y, c * y - s * x


def _rows(columns: int, rng: np.random.Generator) -> int:
    """Rows of an image: square, or fewer, as scanners do to save time."""
    return columns if rng.random() < 0.4 else int(round(columns * rng.uniform(0.8, 1.0) / 2) * 2)


def _plane(middle: Array, x: Array, y: Array, fov: float, columns: int, rows: int, thickness: float) -> Plane:
    """A plane from the centre of its image; the pixel is square and ``fov`` mm hold the columns."""
    pixel = round(float(np.clip(fov / columns, 1.2, 1.6)), 4)
    origin = middle - pixel * ((columns - 1) / 2 * x + (rows - 1) / 2 * y)
    return Plane(origin, x, y, (pixel, pixel), (columns, rows), thickness)
