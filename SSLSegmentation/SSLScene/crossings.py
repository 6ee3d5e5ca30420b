"""How the views of an exam cross: a table, and the point where they meet."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence
from typing import Any

import numpy as np

from SSLEngine.geometry import MIN_PLANE_ANGLE_DEG
from SSLEngine.geometry import Array
from SSLEngine.geometry import Plane
from SSLEngine.geometry import middle_plane
from SSLEngine.studies.crossings import comparable_views
from SSLEngine.studies.crossings import crossing_slice_by_slice
from SSLEngine.studies.study import UNKNOWN
from SSLEngine.studies.study import View

from . import roles
from . import undo
from .exams import SceneExam
from .exams import placed
from .tables import add_table
from .tables import numbers
from .tables import texts


def show_table(scene: Any, exam: SceneExam, name: str = "Plane crossings") -> Any:
    """Adds a table node with one row a pair of views: angle, slices crossed, median length of the lines."""
    return undo.at_once(showing_table(scene, exam, name))


def showing_table(scene: Any, exam: SceneExam, name: str = "Plane crossings") -> Generator[None, None, Any]:
    """As :func:`show_table`, one slice of a view at each step; the table is added at the end."""
    views = [placed(item) for item in exam.views]
    pairs = [(a, b) for k, a in enumerate(views) for b in views[k + 1 :]]
    found = []
    for a, b in pairs:
        found.append((yield from crossing_slice_by_slice(a, b)))
    columns = [
        texts("View", [_name(a) for a, _ in pairs]),
        texts("Crosses", [_name(b) for _, b in pairs]),
        numbers("Angle (deg)", [c.angle_deg for c in found]),
        texts("Slices", [f"{c.slices} of {len(a.planes)}" for (a, _), c in zip(pairs, found, strict=True)]),
        numbers("Length (mm)", [c.length_mm for c in found]),
        texts("Note", [c.why_not for c in found]),
    ]
    with undo.owned(scene, exam.token):
        return add_table(scene, name, columns, exam.item)


def _name(view: View) -> str:
    return view.name if view.role == UNKNOWN else roles.label(view.role)


def meeting_point(exam: SceneExam) -> Array:
    """The point nearest to all middle planes of the views with a role, LPS mm, ``(3,)``.

    It minimises ``sum (n_i . (p - c_i))^2``. In directions that the planes leave open (nearly parallel planes) it
    stays at the mean of the images' centres ``c_i``. Views that cannot be compared with the one of most slices are left
    out.
    """
    views = [placed(item) for item in exam.views]
    chosen = [v for v in views if v.role in ("sax", "2ch", "4ch", "sag", "cor", "ax")] or views
    main = max(chosen, key=lambda v: ("position" not in v.attributes, len(v.planes)))
    return nearest_point([middle_plane(v.planes) for v in comparable_views(chosen, main)])


def nearest_point(planes: Sequence[Plane]) -> Array:
    """See :func:`meeting_point`; directions with a singular value below the sine of 15 degrees count as open."""
    normals = np.array([p.normal for p in planes])
    centres = np.array([p.centre for p in planes])
    start = centres.mean(axis=0)
    distances = ((centres - start) * normals).sum(axis=1)
    step, *_ = np.linalg.lstsq(normals, distances, rcond=float(np.sin(np.radians(MIN_PLANE_ANGLE_DEG))))
    return start + step


def nearest_slice(view: View, point: Array) -> int:
    """Index of the slice whose plane lies nearest to an LPS point."""
    return int(np.argmin([abs(float(p.signed_distance(point))) for p in view.planes]))
