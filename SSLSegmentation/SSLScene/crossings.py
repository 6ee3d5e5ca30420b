"""How the views of an exam cross: a table, and the point where they meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import vtk

from SSLEngine.geometry import MIN_PLANE_ANGLE_DEG
from SSLEngine.geometry import Array
from SSLEngine.geometry import Plane
from SSLEngine.geometry import crossing_segment
from SSLEngine.geometry import plane_angle_deg
from SSLEngine.studies.study import View

from . import roles
from . import undo
from .exams import SceneExam
from .exams import put_under
from .host import new_node


@dataclass(frozen=True)
class Crossing:
    """How one view crosses another.

    Attributes:
        first: Name of one view.
        second: Name of the other.
        angle_deg: Largest angle between their planes.
        slices: Slices of the first that the second really meets.
        of: Slices of the first.
        length_mm: Length of the longest line.
        note: Why there is no line; empty where there is one.
    """

    first: str
    second: str
    angle_deg: float
    slices: int
    of: int
    length_mm: float
    note: str = ""


def crossing(first: View, second: View) -> Crossing:
    """Measures where the images of one view meet those of another."""
    angle = max(plane_angle_deg(a, b) for a in first.planes for b in second.planes)
    lengths = []
    for plane in first.planes:
        found = [s.length_mm for s in (crossing_segment(plane, other) for other in second.planes) if s is not None]
        lengths.append(max(found, default=0.0))
    met = sum(length > 0 for length in lengths)
    note = "" if met else ("parallel" if angle < MIN_PLANE_ANGLE_DEG else "the images do not meet")
    return Crossing(_name(first), _name(second), angle, met, len(lengths), max(lengths), note)


def _name(view: View) -> str:
    return view.name if view.role == "unknown" else roles.label(view.role)


def show_table(scene: Any, exam: SceneExam, name: str = "Plane crossings") -> Any:
    """Adds a table node with one row a pair of views: angle, slices crossed, length of the longest line."""
    views = [item.view for item in exam.views]
    rows = [crossing(a, b) for k, a in enumerate(views) for b in views[k + 1 :]]
    with undo.owned(scene, exam.token):
        node = new_node(scene, "vtkMRMLTableNode", name)
        table = vtk.vtkTable()
        table.AddColumn(_texts("View", [r.first for r in rows]))
        table.AddColumn(_texts("Crosses", [r.second for r in rows]))
        table.AddColumn(_numbers("Angle (deg)", [r.angle_deg for r in rows]))
        table.AddColumn(_texts("Slices", [f"{r.slices} of {r.of}" for r in rows]))
        table.AddColumn(_numbers("Length (mm)", [r.length_mm for r in rows]))
        table.AddColumn(_texts("Note", [r.note for r in rows]))
        node.SetAndObserveTable(table)
        if exam.item:
            put_under(scene, node, exam.item)
    return node


def _texts(name: str, values: Sequence[str]) -> Any:
    column = vtk.vtkStringArray()
    column.SetName(name)
    for value in values:
        column.InsertNextValue(value)
    return column


def _numbers(name: str, values: Sequence[float]) -> Any:
    column = vtk.vtkDoubleArray()
    column.SetName(name)
    for value in values:
        column.InsertNextValue(round(value, 1))
    return column


def meeting_point(exam: SceneExam) -> Array:
    """The point nearest to all middle planes of the views with a role, LPS mm, ``(3,)``.

    It minimises ``sum (n_i . (p - c_i))^2``. In directions that the planes leave open (nearly parallel planes) it
    stays at the mean of the images' centres ``c_i``.
    """
    chosen = [v.view for v in exam.views if v.view.role in ("sax", "2ch", "4ch", "sag", "cor", "ax")]
    return nearest_point([middle_plane(v) for v in chosen or [v.view for v in exam.views]])


def nearest_point(planes: Sequence[Plane]) -> Array:
    """See :func:`meeting_point`; directions with a singular value below the sine of 15 degrees count as open."""
    normals = np.array([p.normal for p in planes])
    centres = np.array([p.centre for p in planes])
    start = centres.mean(axis=0)
    distances = ((centres - start) * normals).sum(axis=1)
    step, *_ = np.linalg.lstsq(normals, distances, rcond=float(np.sin(np.radians(MIN_PLANE_ANGLE_DEG))))
    return start + step


def middle_plane(view: View) -> Plane:
    """The plane in the middle of a view's stack."""
    return view.planes[len(view.planes) // 2]


def nearest_slice(view: View, point: Array) -> int:
    """Index of the slice whose plane lies nearest to an LPS point."""
    return int(np.argmin([abs(float(p.signed_distance(point))) for p in view.planes]))
