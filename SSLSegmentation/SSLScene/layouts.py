"""Views of an exam side by side, each turned to its own plane and brought to the point where they cross.

Whatever is changed of a slice view is remembered under the exam's token, so that :func:`restore_views` (called by
:func:`SSLScene.undo.remove_all`) gives the views back as the user had them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from SSLEngine.geometry import Plane

from . import coordinates
from . import crossings
from . import roles
from . import undo
from .exams import SceneExam
from .exams import SceneView
from .exams import placed
from .host import settle

#: Number of the custom layout; Slicer's own end below 1000, other extensions use 500 to 600.
LAYOUT_ID = 7201
#: Slicer's own four-up layout.
FOUR_UP = 3
#: Keeps the description on the layout node, because Slicer saves only the number of a layout.
DESCRIPTION = "SSLSegmentation.Layout"
_LAYOUT = "layout"


def show_views(
    scene: Any,
    exam: SceneExam,
    chosen: Sequence[SceneView] | None = None,
    point: npt.ArrayLike | None = None,
    with_3d: bool = False,
    layout: int = LAYOUT_ID,
) -> dict[str, SceneView]:
    """Sets the layout and shows each view as its own image, with the crossing point in the middle.

    Args:
        scene: The MRML scene.
        exam: The exam.
        chosen: Its views to show; the first of each role if None.
        point: LPS mm; the exam's meeting point if None.
        with_3d: Adds a 3D view at the end.
        layout: Number of an existing layout to use instead of the custom one.

    Returns:
        The view shown in each slice view, by slice view name.
    """
    views = list(chosen) if chosen is not None else main_views(exam)
    placed = dict(zip(slice_view_names(views), views, strict=True))
    target = crossings.meeting_point(exam) if point is None else np.asarray(point, dtype=np.float64)
    with undo.owned(scene, exam.token):
        _set_layout(scene, exam.token, layout, layout_xml(placed, with_3d))
        for name, item in placed.items():
            turn_view(scene, exam.token, name, item, target)
    return placed


def main_views(exam: SceneExam) -> list[SceneView]:
    """The first view of each role in the order of display, at least one view."""
    found: dict[str, SceneView] = {}
    for item in exam.views:
        if item.view.role in roles.ORDER:
            found.setdefault(item.view.role, item)
    return sorted(found.values(), key=lambda v: roles.rank(v.view.role)) or exam.views[:3]


def slice_view_names(views: Sequence[SceneView]) -> list[str]:
    """One slice view name a view: Red, Green, Yellow for the main roles, names of our own for the others."""
    taken: list[str] = []
    for number, item in enumerate(views):
        wanted = roles.VIEW_NAMES.get(item.view.role, f"SSL{number + 1}")
        taken.append(wanted if wanted not in taken else f"SSL{number + 1}")
    return taken


def layout_xml(placed: dict[str, SceneView], with_3d: bool = False) -> str:
    """The layout's description: slice views in a row, two rows from five on, the 3D view last."""
    cells = [_slice_xml(name, item, k) for k, (name, item) in enumerate(placed.items())]
    if with_3d:
        cells.append('<item><view class="vtkMRMLViewNode" singletontag="1"/></item>')
    if len(cells) < 5:
        return f'<layout type="horizontal">{"".join(cells)}</layout>'
    half = (len(cells) + 1) // 2
    rows = (cells[:half], cells[half:])
    inner = "".join(f'<item><layout type="horizontal">{"".join(row)}</layout></item>' for row in rows)
    return f'<layout type="vertical">{inner}</layout>'


def _slice_xml(name: str, item: SceneView, index: int) -> str:
    role = item.view.role
    colour = "".join(f"{round(255 * c):02x}" for c in roles.colour(role, index))
    # Slicer's own views keep their label and colour: the lines have these colours already.
    own = name in ("Red", "Green", "Yellow")
    label = {"Red": "R", "Green": "G", "Yellow": "Y"}.get(name) or roles.label(role)
    defaults = {"Red": "F34A33", "Green": "6EB04B", "Yellow": "EDD54C"}
    shown = f"#{defaults[name]}" if own else f"#{colour}"
    return (
        f'<item><view class="vtkMRMLSliceNode" singletontag={quoteattr(name)}>'
        f'<property name="orientation" action="default">Axial</property>'
        f'<property name="viewlabel" action="default">{label}</property>'
        f'<property name="viewcolor" action="default">{shown}</property></view></item>'
    )


def _set_layout(scene: Any, token: str, number: int, xml: str) -> None:
    node = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if node is None:
        node = scene.AddNewNodeByClass("vtkMRMLLayoutNode")
    undo.remember(scene, token, _LAYOUT, {"number": node.GetViewArrangement()})
    if number == LAYOUT_ID:
        _describe(node, xml)
    node.SetViewArrangement(number)
    settle(scene)


def _describe(node: Any, xml: str) -> None:
    """Registers the custom layout's description, for this session and for those that open the saved scene."""
    node.SetAttribute(DESCRIPTION, xml)
    if node.IsLayoutDescription(LAYOUT_ID):
        node.SetLayoutDescription(LAYOUT_ID, xml)
    else:
        node.AddLayoutDescription(LAYOUT_ID, xml)
    if node.GetViewArrangement() == LAYOUT_ID:
        # A changed description is only taken up when the number changes.
        node.SetViewArrangement(FOUR_UP)


def view_showing(scene: Any, item: SceneView) -> str:
    """Name of the slice view that shows a view of an exam side by side; where none does, of one that is to be seen."""
    node = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if node is None or node.GetViewArrangement() != LAYOUT_ID:
        return "Red"
    names = re.findall(r'vtkMRMLSliceNode" singletontag="([^"]+)"', node.GetAttribute(DESCRIPTION) or "")
    ids = [volume.GetID() for volume in item.volumes]
    showing = [name for name in names if composite_node(scene, name).GetBackgroundVolumeID() in ids]
    return (showing or [name for name in names if name == "Red"] or names or ["Red"])[0]


def restore_layout(scene: Any) -> None:
    """Gives a scene that was loaded the custom layout that it was saved with, where it was saved with that."""
    node = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    if node is None or node.GetViewArrangement() != LAYOUT_ID:
        return
    xml = node.GetAttribute(DESCRIPTION)
    if xml:
        _describe(node, xml)
        node.SetViewArrangement(LAYOUT_ID)
    elif not node.IsLayoutDescription(LAYOUT_ID):
        # A scene of a version that did not keep it.
        node.SetViewArrangement(FOUR_UP)


# ---------------------------------------------------------------------------------------------
# One slice view


def slice_node(scene: Any, name: str) -> Any:
    """The slice node of a slice view; made where the application has not made it."""
    node = scene.GetSingletonNode(name, "vtkMRMLSliceNode")
    if node is None:
        node = scene.CreateNodeByClass("vtkMRMLSliceNode")
        node.UnRegister(None)
        node.SetSingletonTag(name)
        node.SetName(name)
        node.SetLayoutName(name)
        node = scene.AddNode(node)
    return node


def composite_node(scene: Any, name: str) -> Any:
    """The node that holds a slice view's layers; made where the application has not made it."""
    node = scene.GetSingletonNode(name, "vtkMRMLSliceCompositeNode")
    if node is None:
        node = scene.CreateNodeByClass("vtkMRMLSliceCompositeNode")
        node.UnRegister(None)
        node.SetSingletonTag(name)
        node.SetName(f"{name} composite")
        node.SetLayoutName(name)
        node = scene.AddNode(node)
    return node


def turn_view(scene: Any, token: str, name: str, item: SceneView, point: npt.ArrayLike) -> None:
    """Shows a view's slice nearest to a point in a slice view, turned as its own image, the point in the middle.

    Args:
        scene: The MRML scene.
        token: Owner under which the slice view's state is remembered.
        name: Slice view name.
        item: The exam's view.
        point: LPS mm.
    """
    index = crossings.nearest_slice(placed(item), np.asarray(point, dtype=np.float64))
    show_slice(scene, token, name, item, index, point)


def show_slice(
    scene: Any, token: str, name: str, item: SceneView, index: int, point: npt.ArrayLike | None = None
) -> None:
    """Shows one slice of a view in a slice view, turned as its own image; see :func:`turn_view`.

    Args:
        scene: The MRML scene.
        token: Owner under which the slice view's state is remembered.
        name: Slice view name.
        item: The exam's view.
        index: Which of its slices.
        point: LPS mm that comes to the middle; the image's centre if None.
    """
    remember_view(scene, token, name)
    composite_node(scene, name).SetBackgroundVolumeID(item.volume_of_slice(index).GetID())
    look_at(slice_node(scene, name), placed(item).planes[index], point)


def look_at(node: Any, plane: Plane, point: npt.ArrayLike | None = None, zoom: float = 1.0) -> None:
    """Turns a slice node to a plane so that the whole image fits at zoom 1.

    Args:
        node: vtkMRMLSliceNode.
        plane: The plane.
        point: LPS mm that comes to the middle; the image's centre if None.
        zoom: More than 1 shows less of the image.
    """
    node.GetSliceToRAS().DeepCopy(coordinates.vtk_matrix(coordinates.slice_to_ras(plane, point)))
    node.UpdateMatrices()
    columns, rows, _ = node.GetDimensions()
    pixel = max(plane.extent[0] / max(columns, 1), plane.extent[1] / max(rows, 1)) / zoom
    node.SetFieldOfView(columns * pixel, rows * pixel, node.GetFieldOfView()[2])
    node.UpdateMatrices()


def jump_to(scene: Any, token: str, names: Iterable[str], point: npt.ArrayLike) -> None:
    """Moves slice views so that an LPS point is in their middle; their directions stay."""
    ras = coordinates.to_ras(point).tolist()
    for name in names:
        remember_view(scene, token, name)
        slice_node(scene, name).JumpSliceByCentering(*ras)


# ---------------------------------------------------------------------------------------------
# Undo


def remember_view(scene: Any, token: str, name: str) -> None:
    """Keeps a slice view's place and layers before they are changed."""
    with undo.owned(scene, token):
        node, composite = slice_node(scene, name), composite_node(scene, name)
        state = {
            "matrix": coordinates.array_of(node.GetSliceToRAS()).ravel().tolist(),
            "field_of_view": list(node.GetFieldOfView()),
            "layers": [
                composite.GetBackgroundVolumeID(),
                composite.GetForegroundVolumeID(),
                composite.GetLabelVolumeID(),
            ],
            "opacities": [composite.GetForegroundOpacity(), composite.GetLabelOpacity()],
        }
        undo.remember(scene, token, f"view {name}", state)


def restore_views(scene: Any, token: str = undo.DEFAULT_TOKEN) -> None:
    """Gives the layout and the slice views back as they were before the token's owner changed them."""
    for key, state in undo.recall(scene, token).items():
        if key == _LAYOUT:
            layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
            if layout is not None and layout.GetViewArrangement() != state["number"]:
                layout.SetViewArrangement(state["number"])
        elif key.startswith("view "):
            _restore_view(scene, key.removeprefix("view "), state)


def _restore_view(scene: Any, name: str, state: dict[str, Any]) -> None:
    node, composite = slice_node(scene, name), composite_node(scene, name)
    node.GetSliceToRAS().DeepCopy(state["matrix"])
    node.UpdateMatrices()
    node.SetFieldOfView(*state["field_of_view"])
    background, foreground, labels = state["layers"]
    composite.SetBackgroundVolumeID(background)
    composite.SetForegroundVolumeID(foreground)
    composite.SetLabelVolumeID(labels)
    composite.SetForegroundOpacity(state["opacities"][0])
    composite.SetLabelOpacity(state["opacities"][1])
