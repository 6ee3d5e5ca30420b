"""The one place where the engine's LPS becomes the scene's RAS, and back.

A plane's ``x_direction`` runs along increasing columns and its ``y_direction`` along increasing rows, in LPS. The
scene wants RAS, IJK matrices with spacing in them, and slice views whose second axis points up the screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import vtk

from SSLEngine.geometry import LPS_TO_RAS
from SSLEngine.geometry import Array
from SSLEngine.geometry import Plane


def to_ras(points: npt.ArrayLike) -> Array:
    """Points or vectors ``(..., 3)`` from LPS to RAS; the same call turns them back."""
    return np.asarray(points, dtype=np.float64) * np.diag(LPS_TO_RAS)[:3]


def vtk_matrix(array: npt.ArrayLike) -> Any:
    """A 4x4 array as vtkMatrix4x4."""
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(np.asarray(array, dtype=np.float64).ravel().tolist())
    return matrix


def array_of(matrix: Any) -> Array:
    """A vtkMatrix4x4 as array ``(4, 4)``."""
    return np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])


def ijk_to_ras(planes: Sequence[Plane]) -> Array:
    """IJKToRAS ``(4, 4)`` of the volume that evenly spaced, parallel planes form.

    A single plane becomes a volume of one slice, as thick as the plane says (1 mm where it does not say).
    """
    first = planes[0]
    affine = np.eye(4)
    affine[:3, 0] = first.spacing[0] * first.x_direction
    affine[:3, 1] = first.spacing[1] * first.y_direction
    if len(planes) > 1:
        affine[:3, 2] = (planes[-1].origin - first.origin) / (len(planes) - 1)
    else:
        affine[:3, 2] = (first.thickness or 1.0) * first.normal
    affine[:3, 3] = first.origin
    return LPS_TO_RAS @ affine


def slice_to_ras(plane: Plane, point: npt.ArrayLike | None = None) -> Array:
    """SliceToRAS ``(4, 4)`` that shows a plane as its own image: columns to the right, rows downwards.

    Args:
        plane: The plane to look at.
        point: LPS mm; its projection onto the plane comes to the middle of the view. The image's centre if None.
    """
    centre = plane.centre if point is None else plane.to_patient(plane.to_pixel(point))
    right, up = to_ras(plane.x_direction), -to_ras(plane.y_direction)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([right, up, np.cross(right, up)], axis=1)
    matrix[:3, 3] = to_ras(centre)
    return matrix


def plane_through(
    point: npt.ArrayLike, normal: npt.ArrayLike, like: Plane | None = None, extent: float = 250.0
) -> Plane:
    """A square plane through a point, to show where a view would lie.

    Args:
        point: LPS mm; it becomes the centre.
        normal: LPS, of any length but zero.
        like: The plane whose row direction the new one keeps as far as it can; arbitrary where None.
        extent: Edge length in mm.

    Raises:
        GeometryError: The point or the normal is not three finite numbers.
    """
    n = np.asarray(normal, dtype=np.float64)
    n = n / max(float(np.linalg.norm(n)), 1e-12)
    guide = np.eye(3)[int(np.argmin(np.abs(n)))] if like is None else like.x_direction
    if abs(float(guide @ n)) > 0.95:
        guide = np.eye(3)[int(np.argmin(np.abs(n)))]
    x = guide - (guide @ n) * n
    x = x / max(float(np.linalg.norm(x)), 1e-12)
    y = np.cross(n, x)
    size = max(1, round(extent))
    corner = np.asarray(point, dtype=np.float64) - (size - 1) / 2 * (x + y)
    return Plane(corner, x, y, (extent / size, extent / size), (size, size))
