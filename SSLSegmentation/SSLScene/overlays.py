"""Targets and maps as coloured layers on their host: lines, place in the stack, anomalies.

All functions take plain arrays on the view's own grid, so nothing here needs a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import vtk

from . import layouts
from . import roles
from . import undo
from .exams import SceneExam
from .exams import SceneView
from .exams import put_under
from .exams import volume_on
from .host import new_node

#: From low to high, readable on grey and for colour-blind eyes.
SCALE: tuple[roles.Colour, ...] = (
    (0.27, 0.00, 0.33),
    (0.23, 0.32, 0.55),
    (0.13, 0.57, 0.55),
    (0.37, 0.79, 0.38),
    (0.99, 0.91, 0.14),
)
#: Hot iron, for what should catch the eye.
HOT: tuple[roles.Colour, ...] = ((0.25, 0.00, 0.00), (0.90, 0.05, 0.00), (1.00, 0.65, 0.00), (1.00, 1.00, 0.60))
#: A heatmap is transparent below this share of its range.
HIDE_BELOW = 0.05


def show_heatmap(
    scene: Any,
    exam: SceneExam,
    item: SceneView,
    values: npt.NDArray[Any] | vtk.vtkImageData,
    name: str,
    colour: roles.Colour,
) -> list[Any]:
    """Shows a map of values 0 to 1 (a line's heatmap) in one colour, transparent where it is low.

    Args:
        scene: The MRML scene.
        exam: The exam, owner of what is added.
        item: The host.
        values: ``(slices, rows, columns)`` on the host's grid; or, of a host that is one volume, the image of these.
        name: Name of the overlay.
        colour: RGB at the value 1.

    Returns:
        One scalar volume, or one a slice for a host that forms no volume.
    """
    return _show_scalars(scene, exam, item, values, name, ((0.0, 0.0, 0.0), colour), (0.0, 1.0), HIDE_BELOW)


def show_hot(
    scene: Any, exam: SceneExam, item: SceneView, values: npt.NDArray[Any], name: str, hide_below: float = 0.2
) -> list[Any]:
    """Shows a map of values 0 to 1 in the colours of hot iron, transparent below ``hide_below``; see `show_heatmap`."""
    return _show_scalars(scene, exam, item, values, name, HOT, (0.0, 1.0), hide_below)


def show_place(scene: Any, exam: SceneExam, item: SceneView, places: Sequence[float], name: str = "Place") -> list[Any]:
    """Shows one value a slice, 0 to 1 (the place in the stack), as a colour over the whole slice."""
    _, rows, columns = item.view.shape
    values = np.broadcast_to(np.asarray(places, np.float32)[:, None, None], (len(places), rows, columns))
    return _show_scalars(scene, exam, item, values, name, SCALE, (0.0, 1.0), None)


def _show_scalars(
    scene: Any,
    exam: SceneExam,
    item: SceneView,
    values: npt.NDArray[Any] | vtk.vtkImageData,
    name: str,
    stops: Sequence[roles.Colour],
    limits: tuple[float, float],
    hide_below: float | None,
) -> list[Any]:
    with undo.owned(scene, exam.token):
        table = _table(scene, f"{name} colours", _ramp(stops))
        volumes = _volumes(scene, item, values, name, exam, limits)
        for volume in volumes:
            display = volume.GetDisplayNode()
            display.SetAndObserveColorNodeID(table.GetID())
            display.SetInterpolate(False)
            if hide_below is not None:
                display.AutoThresholdOff()
                display.SetThreshold(hide_below, 1e30)
                display.ApplyThresholdOn()
    _put_on_top(scene, exam, item, volumes)
    return volumes


def _volumes(
    scene: Any,
    item: SceneView,
    values: npt.NDArray[Any] | vtk.vtkImageData,
    name: str,
    exam: SceneExam,
    limits: tuple[float, float],
) -> list[Any]:
    """The values as volumes on the host's voxels, one for each of the host's volumes.

    Raises:
        ValueError: The values do not lie on the host's grid.
    """
    if isinstance(values, vtk.vtkImageData):
        shape, parts = values.GetDimensions()[::-1], [values]
    else:
        array = values.astype(np.float32, copy=False)
        shape = array.shape
        parts = [array] if len(item.volumes) == 1 else [array[k : k + 1] for k in range(len(item.volumes))]
    if shape != item.view.shape:
        msg = f"The overlay '{name}' has shape {shape}, its host {item.view.name} has {item.view.shape}."
        raise ValueError(msg)
    found = [volume_on(scene, v, name, part, limits=limits) for v, part in zip(item.volumes, parts, strict=True)]
    for volume in found:
        put_under(scene, volume, exam.item) if exam.item else None
    return found


def _table(scene: Any, name: str, colours: Sequence[roles.Colour]) -> Any:
    """A colour table."""
    table = new_node(scene, "vtkMRMLColorTableNode", name)
    table.SetTypeToUser()
    table.SetHideFromEditors(True)
    table.SetNumberOfColors(len(colours))
    for k, colour in enumerate(colours):
        table.SetColor(k, f"{k}", *colour, 1.0)
    return table


def _ramp(stops: Sequence[roles.Colour]) -> list[roles.Colour]:
    """256 colours between the stops."""
    at = np.linspace(0, len(stops) - 1, 256)
    columns = [np.interp(at, range(len(stops)), [s[c] for s in stops]) for c in range(3)]
    return [(float(r), float(g), float(b)) for r, g, b in zip(*columns, strict=True)]


def _put_on_top(scene: Any, exam: SceneExam, item: SceneView, volumes: Sequence[Any]) -> None:
    """Puts the overlay over its host in every slice view that shows the host."""
    for host, overlay in zip(item.volumes, volumes, strict=True):
        for composite in [n for n in undo.nodes(scene) if n.IsA("vtkMRMLSliceCompositeNode")]:
            if composite.GetBackgroundVolumeID() != host.GetID():
                continue
            layouts.remember_view(scene, exam.token, composite.GetLayoutName())
            composite.SetForegroundVolumeID(overlay.GetID())
            composite.SetForegroundOpacity(0.5)
