"""Which heart view a plane is, from how it lies in the patient.

The left ventricle's long axis, from base to apex, points to the patient's left, front and feet in everybody. Short-axis
slices lie across it; long-axis planes contain it. Round the axis, counted from the patient's right towards the feet's
far side (see :func:`_frame`), follow the 4-chamber, 2-chamber and 3-chamber plane, roughly 60 degrees apart, all
through the centre of the left ventricle; the RV 2-chamber and RVOT planes pass it on the right ventricle's side.

No single number decides. For every possible centre and every turn of the whole heart each plane takes the role that
fits it best; the centre and turn with the lowest total cost win (a maximum a posteriori estimate: costs are negative
log likelihoods of independent normal deviations). The spreads in :data:`EXPECTED` are those of routine planning.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

import numpy as np
import numpy.typing as npt

from ..geometry import Array
from ..geometry import Plane
from .study import UNKNOWN

#: Base to apex in most people, LPS: left, anterior, inferior.
USUAL_AXIS = np.array([0.62, -0.65, -0.44]) / np.linalg.norm([0.62, -0.65, -0.44])
AXIS_SPREAD_DEG = 18.0
MAX_AXIS_ANGLE_DEG = 45.0
#: Planes within this angle of each other belong to the same stack direction.
SAME_DIRECTION_DEG = 12.0
#: Cost of belonging to no view: worse than this, a plane stays unknown.
UNKNOWN_COST = 7.0
#: Right ventricular planes are acquired in fewer exams than left ones.
RV_COST = 1.5
#: How far the centre of the short-axis images lies from the left ventricle's, and the spread of the heart's turn.
CENTRE_SPREAD_MM = 30.0
TURN_SPREAD_DEG = 15.0
#: Where the 4-chamber plane lies from the patient's right, laid across the long axis.
USUAL_TURN_DEG = 5.0
#: What a name is worth beside the geometry: it decides only where the geometry hardly does.
NAME_COST = 1.0
#: Planes this close to the patient's own axes are scouts; no heart lies so straight.
SCOUT_ANGLE_DEG = 1.0


@dataclass(frozen=True)
class Expected:
    """Mean and spread of what is measured of one long-axis role.

    Attributes:
        turn: Degrees round the long axis from the 4-chamber plane, and spread.
        offset: mm from the centre of the left ventricle towards the right ventricle, and spread.
        tilt: Spread in degrees of the angle between plane and long axis.
        rare: Additional cost.
    """

    turn: tuple[float, float]
    offset: tuple[float, float]
    tilt: float
    rare: float = 0.0


EXPECTED = {
    "4ch": Expected((0, 12), (0, 8), 9),
    "2ch": Expected((66, 12), (0, 8), 9),
    "3ch": Expected((122, 12), (0, 8), 9),
    "rv2ch": Expected((63, 16), (42, 12), 12, RV_COST),
    "rvot": Expected((86, 18), (28, 10), 16, RV_COST),
}


@dataclass(eq=False)
class Candidate:
    """One view as the search sees it.

    Attributes:
        planes: Its slices.
        named: Roles that its name mentions.
        role: What was found.
        reason: Why.
        rival: The second best role.
        margin: By how much cost the rival is worse.
    """

    planes: Sequence[Plane]
    named: frozenset[str] = frozenset()
    role: str = UNKNOWN
    reason: str = ""
    rival: str = ""
    margin: float = field(default=np.inf)

    @property
    def normal(self) -> Array:
        """Normal of the middle slice."""
        return self.planes[len(self.planes) // 2].normal

    @property
    def centre(self) -> Array:
        """Mean of the image centres, LPS mm."""
        return np.asarray(np.mean([p.centre for p in self.planes], axis=0))

    @property
    def scout(self) -> bool:
        """Whether the plane is axial, coronal or sagittal to within a degree."""
        return bool(np.abs(self.normal).max() > np.cos(np.radians(SCOUT_ANGLE_DEG)))


def assign_heart_roles(candidates: Sequence[Candidate]) -> None:
    """Fills in role, reason, rival and margin of every candidate."""
    across = _short_axis_views(candidates)
    axis = _mean_axis(across) if across else None
    for view in across:
        _describe_short_axis(view, axis if axis is not None else USUAL_AXIS)
    others = [c for c in candidates if c not in across]
    if not others:
        return
    axes = [axis] if axis is not None else list(_possible_axes(others))
    best = min((_fit(others, a, across) for a in axes), key=lambda f: f.cost)
    for index, view in enumerate(others):
        _describe_long_axis(view, best, index)


# ---------------------------------------------------------------------------------------------
# Short axis


def _angle_deg(a: Array, b: Array) -> float:
    """Angle between two undirected unit vectors."""
    return float(np.degrees(np.arccos(min(1.0, abs(float(a @ b))))))


def _short_axis_views(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The views across the long axis: the direction that fits the usual axis, the slices and the other views."""
    eligible = [c for c in candidates if _angle_deg(c.normal, USUAL_AXIS) < MAX_AXIS_ANGLE_DEG and not c.scout]
    groups = [[c for c in candidates if _angle_deg(c.normal, e.normal) < SAME_DIRECTION_DEG] for e in eligible]
    costs = [_direction_cost(e, group, candidates) for e, group in zip(eligible, groups, strict=True)]
    if not costs or min(costs) > UNKNOWN_COST / 2:
        return []
    return groups[int(np.argmin(costs))]


def _direction_cost(view: Candidate, group: Sequence[Candidate], everything: Sequence[Candidate]) -> float:
    away = _angle_deg(view.normal, USUAL_AXIS) / AXIS_SPREAD_DEG
    slices = max(len(c.planes) for c in group)
    upright = sum(_angle_deg(c.normal, view.normal) > 60 for c in everything if c not in group)
    named = any("sax" in c.named for c in group)
    return float(0.5 * away**2 + 2.0 - min(3.0, np.log2(slices)) - min(2.0, 0.7 * upright) - NAME_COST * named)


def _mean_axis(views: Sequence[Candidate]) -> Array:
    normals = np.array([c.normal * len(c.planes) * (1 if c.normal @ USUAL_AXIS > 0 else -1) for c in views])
    total = normals.sum(axis=0)
    return np.asarray(total / np.linalg.norm(total))


def _describe_short_axis(view: Candidate, axis: Array) -> None:
    slices = "one slice" if len(view.planes) == 1 else f"{len(view.planes)} parallel slices"
    parts = f"{axis[0]:+.2f} left, {-axis[1]:+.2f} anterior, {-axis[2]:+.2f} inferior"
    view.role = "sax"
    view.reason = f"{slices} across the heart's long axis ({parts})"


# ---------------------------------------------------------------------------------------------
# Long axis


@dataclass(frozen=True)
class _Fit:
    axis: Array
    turn: float
    cost: float
    costs: dict[str, Array]
    measured: Array


def _possible_axes(views: Sequence[Candidate]) -> Iterator[Array]:
    """Without short-axis slices: where two planes cross, if that is near the usual axis; and the usual axis itself."""
    yield USUAL_AXIS
    for one, two in itertools.combinations(views, 2):
        cross = np.cross(one.normal, two.normal)
        length = float(np.linalg.norm(cross))
        if length > np.sin(np.radians(25)) and _angle_deg(cross / length, USUAL_AXIS) < MAX_AXIS_ANGLE_DEG:
            yield cross / length * (1 if cross @ USUAL_AXIS > 0 else -1)


def _frame(axis: Array) -> tuple[Array, Array]:
    """Two directions across the axis: the patient's right, laid across it, and the one a right angle further on.

    The septum and the right ventricle lie to the right, so the 4-chamber plane contains roughly the first.
    """
    right = np.array([-1.0, 0, 0])
    first = right - (right @ axis) * axis
    first = first / np.linalg.norm(first)
    return first, np.cross(axis, first)


def _possible_centres(views: Sequence[Candidate], axis: Array, start: Array) -> Array:
    """Where two planes cross at the height of ``start`` along the axis, and ``start`` itself, ``(n, 3)``."""
    found: list[Array] = [start]
    for one, two in itertools.combinations([p for v in views for p in v.planes[:: max(1, len(v.planes) // 3)]], 2):
        matrix = np.stack([one.normal, two.normal, axis])
        if abs(np.linalg.det(matrix)) > 0.3:
            point = np.linalg.solve(matrix, [one.normal @ one.origin, two.normal @ two.origin, axis @ start])
            if np.linalg.norm(point - start) < 4 * CENTRE_SPREAD_MM:
                found.append(np.asarray(point))
    return np.array(found)


def _fit(views: Sequence[Candidate], axis: Array, across: Sequence[Candidate]) -> _Fit:
    """The best centre and turn of the heart for one long axis."""
    start = np.mean([c.centre for c in (across or views)], axis=0)
    base = 0.0 if across else 0.5 * (_angle_deg(axis, USUAL_AXIS) / AXIS_SPREAD_DEG) ** 2
    fits = []
    for centre in _possible_centres(views, axis, start):
        away = float(np.linalg.norm(centre - start)) / CENTRE_SPREAD_MM
        measured = np.array([_measure(v, axis, centre) for v in views])
        for turn in np.arange(-45.0, 46.0, 3.0):
            costs = {role: _costs(role, measured, turn, views) for role in EXPECTED}
            total = np.minimum(np.min(list(costs.values()), axis=0), UNKNOWN_COST).sum()
            prior = 0.5 * away**2 + 0.5 * ((turn - USUAL_TURN_DEG) / TURN_SPREAD_DEG) ** 2
            fits.append(_Fit(axis, float(turn), float(base + total + prior), costs, measured))
    return min(fits, key=lambda f: f.cost)


def _measure(view: Candidate, axis: Array, centre: Array) -> tuple[float, float, float]:
    """Turn (0 to 180 degrees), offset to the right ventricle's side (mm) and tilt (degrees) of the nearest slice."""
    plane = min(view.planes, key=lambda p: abs(float(p.signed_distance(centre))))
    first, second = _frame(axis)
    along = np.cross(plane.normal, axis)
    turn = float(np.degrees(np.arctan2(along @ second, along @ first))) % 180
    side = 1.0 if plane.normal @ first < 0 else -1.0
    offset = side * float(plane.signed_distance(centre))
    tilt = float(np.degrees(np.arcsin(np.clip(plane.normal @ axis, -1, 1))))
    return turn, offset, tilt


def _costs(role: str, measured: Array, turn: float, views: Sequence[Candidate]) -> Array:
    """Negative log likelihood of one role for every view, up to a constant, ``(n,)``."""
    e = EXPECTED[role]
    turned = (measured[:, 0] - turn - e.turn[0] + 90) % 180 - 90
    deviations = np.stack([turned / e.turn[1], (measured[:, 1] - e.offset[0]) / e.offset[1], measured[:, 2] / e.tilt])
    names = np.array([-NAME_COST if role in v.named else 0.0 for v in views])
    scouts = np.array([UNKNOWN_COST if v.scout else 0.0 for v in views])
    spread: npt.NDArray[np.float64] = np.log(e.turn[1] * e.offset[1] * e.tilt / (12 * 8 * 9)) + e.rare
    return np.asarray(0.5 * (deviations**2).sum(axis=0) + spread + names + scouts)


def _describe_long_axis(view: Candidate, fit: _Fit, index: int) -> None:
    """Role, reason, rival and margin of one view under the best fit."""
    ranked = sorted((float(costs[index]), role) for role, costs in fit.costs.items())
    turn, offset, tilt = fit.measured[index]
    turned = (turn - fit.turn + 20) % 180 - 20
    where = "through the LV centre" if abs(offset) < 12 else f"{abs(offset):.0f} mm from the LV centre"
    where += " on the RV side" if offset >= 12 else ""
    facts = f"{abs(tilt):.0f}° from the long axis, {where}, turned {turned:.0f}° from the 4-chamber position"
    if view.scout:
        view.reason = "lies along the patient's own axes, like a scout"
    elif ranked[0][0] > UNKNOWN_COST:
        view.reason = f"fits no view: {facts}"
    else:
        view.role, view.reason, view.rival = ranked[0][1], facts, ranked[1][1]
        view.margin = ranked[1][0] - ranked[0][0]
