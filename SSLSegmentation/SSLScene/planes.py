"""The planes of a view as a model that every slice view cuts and the 3D view shows.

One model holds the quads of all slices of a view. Its points are the corners of every slice, always; its polygons
are the slices that are shown. So showing and hiding a slice needs no second node and survives saving.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

import numpy as np
import vtk
from vtkmodules.util.numpy_support import numpy_to_vtk
from vtkmodules.util.numpy_support import vtk_to_numpy

from SSLEngine.geometry import Array
from SSLEngine.geometry import Plane

from . import roles
from . import undo
from .coordinates import to_ras
from .exams import ROLE
from .exams import VIEW
from .exams import SceneExam
from .exams import SceneView
from .exams import placed
from .exams import put_under
from .host import new_node
from .host import subject_hierarchy

#: Quads lie this far (mm) above their image. A slice view that looks exactly along a quad would otherwise cut it
#: where rounding errors change sign, and draw a line that is not there.
LIFT_MM = 1e-3
#: Opacity in 3D of one quad, and of a whole stack of them looked through from end to end.
QUAD_OPACITY = 0.25
STACK_OPACITY = 0.45
LINE_THICKNESS = 2


def show_planes(scene: Any, exam: SceneExam) -> list[Any]:
    """Adds one plane model a view of an exam, in a folder of its study; returns them in the exam's order.

    Raises:
        SceneError: A view cannot be placed; see :func:`SSLScene.exams.placed`.
    """
    with undo.owned(scene, exam.token):
        models = [
            add_planes(scene, plane_name(v), placed(v).planes, roles.colour(v.view.role, k))
            for k, v in enumerate(exam.views)
        ]
        for item, model in zip(exam.views, models, strict=True):
            model.SetAttribute(ROLE, item.view.role)
            model.SetAttribute(VIEW, item.view.name)
        if exam.item:
            folder = subject_hierarchy(scene).CreateFolderItem(exam.item, "Planes")
            for model in models:
                put_under(scene, model, undo.own_item(scene, folder, exam.token))
    return models


def plane_name(item: SceneView) -> str:
    """Name of a view's plane model."""
    known = item.view.role != "unknown"
    return f"{roles.label(item.view.role) if known else item.view.name} planes"


def add_planes(scene: Any, name: str, planes: Sequence[Plane], colour: roles.Colour) -> Any:
    """Adds a model of filled quads with the images' true outer corners, cut by every slice view.

    Args:
        scene: The MRML scene.
        name: Name of the node.
        planes: One a slice.
        colour: RGB, 0 to 1.
    """
    corners = np.concatenate([to_ras(p.corners + LIFT_MM * p.normal) for p in planes])
    points = vtk.vtkPoints()
    points.SetData(numpy_to_vtk(corners, deep=True))
    surface = vtk.vtkPolyData()
    surface.SetPoints(points)
    node = new_node(scene, "vtkMRMLModelNode", name)
    node.SetAndObservePolyData(surface)
    node.CreateDefaultDisplayNodes()
    show_slices(node, range(len(planes)))
    _fill(node.GetDisplayNode(), min(QUAD_OPACITY, 1 - (1 - STACK_OPACITY) ** (1 / len(planes))))
    outline = scene.AddNewNodeByClass("vtkMRMLModelDisplayNode", f"{name} outline")
    _outline(outline)
    node.AddAndObserveDisplayNodeID(outline.GetID())
    recolour(node, colour)
    return node


def _fill(display: Any, opacity: float) -> None:
    """Translucent quads in 3D, full lines in the slice views."""
    display.SetOpacity(opacity)
    display.SetLighting(False)
    display.SetBackfaceCulling(False)
    display.SetBackfaceColorHSVOffset(0.0, 0.0, 0.0)
    display.SetVisibility2D(True)
    display.SetSliceDisplayModeToIntersection()
    display.SetSliceIntersectionThickness(LINE_THICKNESS)
    display.SetSliceIntersectionOpacity(1.0)


def _outline(display: Any) -> None:
    """The quads' edges in 3D only: a polygon's wireframe is its outline."""
    display.SetRepresentation(display.WireframeRepresentation)
    display.SetLineWidth(3)
    display.SetLighting(False)
    display.SetVisibility2D(False)


def number_of_slices(model: Any) -> int:
    """How many slices a plane model holds, shown or not."""
    return int(model.GetPolyData().GetNumberOfPoints()) // 4


def show_slices(model: Any, indices: Iterable[int]) -> None:
    """Shows these slices of a plane model and hides its others.

    Raises:
        IndexError: The view has no such slice.
    """
    wanted = sorted(set(indices))
    count = number_of_slices(model)
    cells = vtk.vtkCellArray()
    for k in wanted:
        if not 0 <= k < count:
            msg = f"'{model.GetName()}' has {count} slices, numbered from 0; there is no slice {k}."
            raise IndexError(msg)
        cells.InsertNextCell(4, [4 * k, 4 * k + 1, 4 * k + 2, 4 * k + 3])
    model.GetPolyData().SetPolys(cells)
    model.GetPolyData().Modified()


def corners(model: Any) -> Array:
    """Corners of all quads of a plane model, RAS mm, ``(slices, 4, 3)``."""
    return np.array(vtk_to_numpy(model.GetPolyData().GetPoints().GetData()), dtype=np.float64).reshape(-1, 4, 3)


def show(model: Any, visible: bool, in_slices: bool = True) -> None:
    """Switches a plane model on or off, and its lines in the slice views apart from that."""
    model.SetDisplayVisibility(visible)
    model.GetDisplayNode().SetVisibility2D(visible and in_slices)


def recolour(model: Any, colour: roles.Colour) -> None:
    """Gives a plane model a colour, lines and outlines included."""
    for k in range(model.GetNumberOfDisplayNodes()):
        model.GetNthDisplayNode(k).SetColor(*colour)
