"""Predicted planes beside the acquired ones: as quads and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from SSLEngine.geometry import middle_plane

from . import planes
from . import roles
from . import undo
from .coordinates import plane_through
from .exams import ROLE
from .exams import SceneExam
from .exams import put_under
from .tables import add_text_table

CONFIDENCE = "SSLSegmentation.Confidence"
#: Marks the table.
COMPARISON = "SSLSegmentation.PlaneComparison"
#: Edge length in mm of a predicted plane whose view was not acquired.
EXTENT_MM = 250.0


@dataclass
class PredictedPlane:
    """One predicted plane in the scene.

    Attributes:
        role: The view that would lie there.
        model: Its quad, cut by every slice view.
        doubt: What this holds against the acquired plane, as it follows the view's name; empty where nothing.
    """

    role: str
    model: Any
    doubt: str = ""


@dataclass
class Prediction:
    """What was predicted for an exam, in the scene.

    Attributes:
        planes: The planes.
        table: vtkMRMLTableNode of how far the acquired planes lie from them.
    """

    planes: list[PredictedPlane]
    table: Any

    @property
    def doubts(self) -> list[str]:
        """What is odd about acquired planes, a line each."""
        return [f"{roles.label(plane.role)} {plane.doubt}" for plane in self.planes if plane.doubt]


def show_predicted(scene: Any, exam: SceneExam, predictions: Sequence[Mapping[str, Any]]) -> Prediction:
    """Shows predicted planes in place of earlier ones, each with the size and turn of the acquired view of its role.

    Args:
        scene: The MRML scene.
        exam: The exam, owner of what is added.
        predictions: As the engine's ``planes`` verb gives them: ``role``, ``point_mm`` and ``normal`` (LPS), and,
            where known, the rest.

    Raises:
        GeometryError: A point or a normal is not three finite numbers.
    """
    undo.remove_nodes(scene, [node for node in undo.owned_nodes(scene, exam.token) if _is_shown(node)])
    with undo.owned(scene, exam.token):
        shown = [_show(scene, exam, prediction) for prediction in predictions]
        return Prediction(shown, _table(scene, exam, predictions))


def _is_shown(node: Any) -> bool:
    """Whether a node was made by :func:`show_predicted`."""
    return any(node.GetAttribute(mark) is not None for mark in (CONFIDENCE, COMPARISON))


def _table(scene: Any, exam: SceneExam, predictions: Sequence[Mapping[str, Any]]) -> Any:
    titles = ("Plane", "Angle (°)", "Distance (mm)", "Slices that agree", "Remark")
    table = add_text_table(scene, "Predicted planes", titles, [_row(p) for p in predictions], exam.item)
    table.SetAttribute(COMPARISON, "1")
    return table


def _row(prediction: Mapping[str, Any]) -> tuple[str, ...]:
    """Empty where the engine of an earlier version said nothing."""
    angle, distance = (prediction.get(key) for key in ("error_deg", "error_mm"))
    agreeing = f"{prediction['slices_agreeing']} of {prediction['slices']}" if "slices_agreeing" in prediction else ""
    remark = "no acquired plane to compare with" if angle is None else _doubt(prediction)
    return roles.label(str(prediction["role"])), _figure(angle), _figure(distance), agreeing, remark


def _doubt(prediction: Mapping[str, Any]) -> str:
    return str(prediction.get("doubt") or "")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _show(scene: Any, exam: SceneExam, prediction: Mapping[str, Any]) -> PredictedPlane:
    role = str(prediction["role"])
    acquired = exam.first(role)
    like = middle_plane(acquired.view.planes) if acquired is not None else None
    extent = max(like.extent) if like is not None else EXTENT_MM
    point = np.asarray(prediction["point_mm"], dtype=np.float64)
    if like is not None:
        # The point is anywhere on the predicted plane; the quad is centred where the acquired image is.
        normal = np.asarray(prediction["normal"], dtype=np.float64)
        point = like.centre - ((like.centre - point) @ normal) / (normal @ normal) * normal
    plane = plane_through(point, prediction["normal"], like, extent)
    model = planes.add_planes(scene, f"{roles.label(role)} predicted", [plane], paler(roles.colour(role)))
    model.SetAttribute(ROLE, role)
    model.SetAttribute(CONFIDENCE, f"{float(prediction.get('confidence') or 0.0):.4g}")
    if exam.item:
        put_under(scene, model, exam.item)
    return PredictedPlane(role, model, _doubt(prediction))


def paler(colour: roles.Colour) -> roles.Colour:
    """The colour of a predicted plane, told apart from its acquired plane by being half white."""
    r, g, b = (0.5 + 0.5 * c for c in colour)
    return r, g, b
