"""What a network learns to find on an exam, drawn on the user's own slices. Closed forms, no network."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
from slicer.i18n import tr as _

from SSLEngine.geometry import Array
from SSLEngine.geometry import Plane
from SSLEngine.geometry import anatomical_direction
from SSLEngine.geometry import crossing_line
from SSLEngine.geometry import crossing_segment
from SSLEngine.geometry import long_axis
from SSLEngine.geometry import middle_plane
from SSLEngine.geometry import slice_places
from SSLEngine.studies.crossings import comparable_views
from SSLEngine.studies.study import View
from SSLScene import overlays
from SSLScene import roles
from SSLScene import undo
from SSLScene.exams import SceneExam
from SSLScene.exams import SceneView
from SSLScene.exams import filling_image
from SSLScene.host import SceneError

SIGMA_MM = 3.0
NOTHING, LINES, PLACE = "", "lines", "place"


def names() -> dict[str, str]:
    """What can be shown, by key, as the user reads it."""
    return {NOTHING: _("nothing"), LINES: _("crossing lines"), PLACE: _("place in the stack")}


def host_of(exam: SceneExam) -> SceneView:
    """The view on which targets are shown: the short-axis or sagittal stack, else the one with most slices."""
    named = exam.first("sax") or exam.first("sag")
    return named or max(exam.views, key=lambda item: len(item.view.planes))


def heating(
    host: View, guests: Sequence[Plane], sigma_mm: float = SIGMA_MM
) -> Generator[None, None, npt.NDArray[np.float32]]:
    """Heatmap of the lines where guests cross a host, ``exp(-d^2 / 2 sigma^2)`` of the distance d in mm.

    Args:
        host: The view with ``(slices, rows, columns)`` pixels.
        guests: Planes of the other view.
        sigma_mm: Width of the line.

    Yields:
        After each slice.
    """
    slices, rows, columns = host.shape
    heat = np.zeros((slices, rows, columns), np.float32)
    y, x = np.mgrid[:rows, :columns]
    pixels = np.stack([x, y], axis=-1)
    for k, plane in enumerate(host.planes):
        for guest in guests:
            line = crossing_line(plane, guest)
            if line is None or crossing_segment(plane, guest) is None:
                continue
            heat[k] = np.maximum(heat[k], np.exp(-((line.distance(pixels) / sigma_mm) ** 2) / 2))
        yield
    return heat


def show(exam: SceneExam, what: str) -> list[Any]:
    """Shows one kind of target over its host; an earlier one is taken away. Returns the nodes."""
    return undo.at_once(showing(exam, what))


def showing(exam: SceneExam, what: str) -> Generator[None, None, list[Any]]:
    """As :func:`show`, one slice at each step; what is shown comes at the end."""
    scene = slicer.mrmlScene
    shown = exam.owning("targets")
    undo.remove_all(scene, shown.token)
    if what == NOTHING:
        return []
    host = host_of(exam)
    near = comparable_views([item.view for item in exam.views], host.view)
    if what == PLACE:
        places = slice_places(host.view.planes, _direction(exam, host.view, near)).tolist()
        return overlays.show_place(scene, shown, host, places, _("Place in the stack"))
    # A host has one foreground: all lines go into one heatmap, where each guest has its single middle plane.
    guests = [middle_plane(v.planes) for v in near if v is not host.view and v.role in roles.ORDER]
    heat = yield from heating(host.view, guests)
    # A host of several volumes takes its slices one by one.
    heat = (yield from filling_image(heat)) if len(host.volumes) == 1 else heat
    return overlays.show_heatmap(scene, shown, host, heat, _("Crossing lines"), (1.0, 0.85, 0.2))


def _direction(exam: SceneExam, host: View, near: Sequence[View]) -> Array:
    """The direction along which places grow in the host's stack, LPS, as the pretext has it.

    Raises:
        SceneError: There is none, so that nothing is learned from this stack.
    """
    # Of several views of one role the first counts, as in training.
    planes = {v.role: middle_plane(v.planes) for v in reversed(near)}
    axis = long_axis(planes["2ch"], planes["4ch"]) if {"2ch", "4ch"} <= planes.keys() else None
    direction = anatomical_direction(host.role, host.planes, axis, exam.study.side)
    if direction is None or len(host.planes) < 2:
        text = _("A network learns no place in {view}: that takes a stack of which is known where it begins and ends.")
        raise SceneError(text.format(view=host.name))
    return direction
