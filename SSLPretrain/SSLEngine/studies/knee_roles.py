"""Which knee view a stack is, which side the knee is, and the mirror image of a knee."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..geometry import Array
from ..geometry import Plane
from .study import KNEE_ROLES
from .study import Study
from .study import View

#: Normals of sagittal, coronal and axial planes, LPS.
AXES = {"sag": (1.0, 0.0, 0.0), "cor": (0.0, 1.0, 0.0), "ax": (0.0, 0.0, 1.0)}
AXIS_NAMES = {"sag": "left-right", "cor": "front-back", "ax": "head-feet"}
#: Views whose normals differ by less are the same role, however oblique.
SAME_ROLE_DEG = 30.0
#: A knee whose images lie further from the middle than this is on that side.
MIN_SIDE_MM = 30.0
MIRROR = np.array([-1.0, 1.0, 1.0])

_LEFT = re.compile(r"(?<![a-z0-9])(left|links|li|lt|l)(?![a-z0-9])")
_RIGHT = re.compile(r"(?<![a-z0-9])(right|rechts|re|rt|r)(?![a-z0-9])")


def _groups(normals: Sequence[Array]) -> list[list[int]]:
    """Indices of views with nearly the same normal."""
    groups: list[list[int]] = []
    for k, normal in enumerate(normals):
        near = np.cos(np.radians(SAME_ROLE_DEG))
        home = next((g for g in groups if abs(float(normal @ normals[g[0]])) > near), None)
        if home is None:
            groups.append([k])
        else:
            home.append(k)
    return groups


def knee_roles(normals: Sequence[Array]) -> list[tuple[str, str, float]]:
    """Role, reason and lead over the next role (degrees) of every view, from the normals.

    Up to three differing directions get three different roles, so that an oblique sagittal stack and an oblique coronal
    one are never both called coronal: the assignment with the greatest sum of squared cosines wins.
    """
    groups = _groups(normals)
    cosines = np.array([[abs(float(normals[g[0]] @ np.array(AXES[r]))) for r in KNEE_ROLES] for g in groups])
    if len(groups) <= 3:
        orders = itertools.permutations(range(3), len(groups))
        chosen = max(orders, key=lambda order: float(sum(cosines[g, r] ** 2 for g, r in enumerate(order))))
    else:
        chosen = tuple(int(r) for r in cosines.argmax(axis=1))
    found: list[tuple[str, str, float]] = [("", "", 0.0)] * len(normals)
    for g, group in enumerate(groups):
        role = KNEE_ROLES[chosen[g]]
        for k in group:
            angles = {
                r: float(np.degrees(np.arccos(min(1.0, abs(normals[k] @ np.array(AXES[r])))))) for r in KNEE_ROLES
            }
            lead = min(v for r, v in angles.items() if r != role) - angles[role]
            found[k] = role, f"slices follow each other {angles[role]:.0f}° from {AXIS_NAMES[role]}", lead
    return found


def find_side(views: Sequence[View]) -> tuple[str | None, str]:
    """``left`` or ``right`` and why: laterality tags, then names, then where the images lie; None where unknown."""
    tags = {view.attributes.get("laterality", "").upper()[:1] for view in views} & {"L", "R"}
    if len(tags) == 1:
        return ("left" if tags == {"L"} else "right"), "the laterality in the header says so"
    text = " ".join(v.name + " " + v.attributes.get("description", "") for v in views).lower().replace("_", " ")
    left, right = bool(_LEFT.search(text)), bool(_RIGHT.search(text))
    if left != right:
        return ("left" if left else "right"), "the names say so"
    # Patient coordinates run to the left; the table's middle is the body's. Views without a position lie anywhere.
    places = [p.centre[0] for v in views if "position" not in v.attributes for p in v.planes]
    middle = float(np.median(places)) if places else 0.0
    if abs(middle) > MIN_SIDE_MM:
        side = "left" if middle > 0 else "right"
        return side, f"the images lie {abs(middle):.0f} mm to the {side} of the middle"
    where = "the images lie in the middle" if places else "no image says where it lies"
    return None, f"no laterality in the header, and {where}"


def mirrored_plane(plane: Plane) -> Plane:
    """The plane's mirror image in the patient's sagittal plane; its pixels stay as they are."""
    return replace(
        plane,
        origin=plane.origin * MIRROR,
        x_direction=plane.x_direction * MIRROR,
        y_direction=plane.y_direction * MIRROR,
    )


def mirrored(study: Study) -> Study:
    """The study as if it were of the other side: a left knee becomes a right one.

    Only the planes change. The views of the result share their pixels with those of ``study``.
    """
    views = [replace(v, planes=[mirrored_plane(p) for p in v.planes]) for v in study.views]
    other = {"left": "right", "right": "left"}.get(study.side or "")
    return replace(study, views=views, side=other)
