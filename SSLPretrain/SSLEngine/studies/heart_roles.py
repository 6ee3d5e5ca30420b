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
CENTRE_SPREAD_MM = 22.0
TURN_SPREAD_DEG = 15.0
#: Where the 4-chamber plane lies from the patient's right, laid across the long axis.
USUAL_TURN_DEG = 5.0
#: Cost of giving one role to two different planes; planes closer than this (degrees, mm) are not different.
TWICE_COST = 3.0
SAME_PLANE_DEG = 8.0
SAME_PLANE_MM = 10.0
#: How many of the best explanations are looked at again under that rule.
FINALISTS = 40
#: Turns of the heart that are tried, degrees.
TURNS = np.arange(-45.0, 46.0, 3.0)
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
    "rvot": Expected((88, 22), (28, 12), 20, RV_COST),
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
    """One explanation of all long-axis views.

    Attributes:
        cost: Of the whole explanation.
        turn: Degrees from the patient's right to the 4-chamber plane.
        costs: Cost of each role, and last of none, for each view, ``(roles + 1, views)``.
            Each is that of the best explanation of all views in which this view has this role, so that the costs say
            how sure a role is whatever the heart's true centre and turn.
        chosen: Which of them each view takes, ``(views,)``.
        measured: Turn, offset and tilt of each view, ``(views, 3)``.
    """

    cost: float
    turn: float
    costs: Array
    chosen: npt.NDArray[np.intp]
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
    """Where two planes cross at the height of ``start`` along the axis, and a grid round it, ``(n, 3)``."""
    first, second = _frame(axis)
    steps = np.arange(-60.0, 61.0, 10.0)
    found: list[Array] = [start + u * first + v * second for u in steps for v in steps]
    for one, two in itertools.combinations([p for v in views for p in v.planes[:: max(1, len(v.planes) // 3)]], 2):
        matrix = np.stack([one.normal, two.normal, axis])
        if abs(np.linalg.det(matrix)) > 0.3:
            point = np.linalg.solve(matrix, [one.normal @ one.origin, two.normal @ two.origin, axis @ start])
            if np.linalg.norm(point - start) < 4 * CENTRE_SPREAD_MM:
                found.append(np.asarray(point))
    return np.array(found)


def _fit(views: Sequence[Candidate], axis: Array, across: Sequence[Candidate]) -> _Fit:
    """The best centre and turn of the heart for one long axis, by trying them all."""
    start = np.mean([c.centre for c in (across or views)], axis=0)
    centres = _possible_centres(views, axis, start)
    turns, tilts = _measured_angles(views, axis)
    offsets = _measured_offsets(views, axis, centres)
    costs = _all_costs(views, turns, offsets, tilts)
    away = np.linalg.norm(centres - start, axis=1) / CENTRE_SPREAD_MM
    prior = 0.5 * away[:, None] ** 2 + 0.5 * ((TURNS - USUAL_TURN_DEG) / TURN_SPREAD_DEG) ** 2
    if not across:
        prior += 0.5 * (_angle_deg(axis, USUAL_AXIS) / AXIS_SPREAD_DEG) ** 2
    costs = np.concatenate([costs, np.full((1, *costs.shape[1:]), UNKNOWN_COST)])
    total = costs.min(axis=0).sum(axis=0) + prior
    profile = (total - costs.min(axis=0) + costs).min(axis=(2, 3))
    families = _same_planes(views)
    fits = []
    for flat in np.argsort(total, axis=None)[:FINALISTS]:
        c, t = np.unravel_index(int(flat), total.shape)
        chosen, cost = _without_twins(costs[:, :, c, t], families)
        measured = np.stack([turns, offsets[:, c], tilts], axis=1)
        fits.append(_Fit(cost + float(prior[c, t]), float(TURNS[t]), profile, chosen, measured))
    return min(fits, key=lambda f: f.cost)


def _same_planes(views: Sequence[Candidate]) -> list[list[int]]:
    """Indices of views that show the same plane (a still and a cine, a repeat)."""
    families: list[list[int]] = []
    for k, view in enumerate(views):
        for family in families:
            other = views[family[0]]
            apart = abs(float(other.planes[len(other.planes) // 2].signed_distance(view.centre)))
            if _angle_deg(view.normal, other.normal) < SAME_PLANE_DEG and apart < SAME_PLANE_MM:
                family.append(k)
                break
        else:
            families.append([k])
    return families


def _without_twins(costs: Array, families: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.intp], float]:
    """The cheapest role of each view where two different planes of one role cost extra, and the total cost."""
    by_family = np.stack([costs[:, f].sum(axis=1) for f in families], axis=1)
    likely = np.argsort(by_family, axis=0)[: 3 if len(families) < 8 else 2].T
    if len(families) > 12:
        likely = likely[:, :1]
    picks = np.array(list(itertools.product(*likely)))
    total = by_family[picks, np.arange(len(families))].sum(axis=1)
    for one, two in itertools.combinations(range(len(families)), 2):
        total += TWICE_COST * ((picks[:, one] == picks[:, two]) & (picks[:, one] < len(costs) - 1))
    best = int(total.argmin())
    chosen = np.zeros(costs.shape[1], dtype=np.intp)
    for family, role in zip(families, picks[best], strict=True):
        chosen[list(family)] = role
    return chosen, float(total[best])


def _measured_angles(views: Sequence[Candidate], axis: Array) -> tuple[Array, Array]:
    """Turn (0 to 180 degrees from the patient's right) and tilt (degrees) of each view, ``(views,)``."""
    first, second = _frame(axis)
    normals = np.array([v.normal for v in views])
    along = np.cross(normals, axis)
    turns = np.degrees(np.arctan2(along @ second, along @ first)) % 180
    return turns, np.degrees(np.arcsin(np.clip(normals @ axis, -1, 1)))


def _measured_offsets(views: Sequence[Candidate], axis: Array, centres: Array) -> Array:
    """Distance in mm of each centre from each view's nearest slice, ``(views, centres)``, positive on the RV's side."""
    first, _ = _frame(axis)
    found = []
    for view in views:
        distances = np.array([p.signed_distance(centres) for p in view.planes])
        nearest = np.take_along_axis(distances, np.abs(distances).argmin(axis=0)[None], axis=0)[0]
        found.append(nearest if view.normal @ first < 0 else -nearest)
    return np.array(found)


def _all_costs(views: Sequence[Candidate], turns: Array, offsets: Array, tilts: Array) -> Array:
    """Negative log likelihoods up to a constant, ``(roles, views, centres, turns)``."""
    found = []
    for role, e in EXPECTED.items():
        turned = (turns[:, None] - TURNS - e.turn[0] + 90) % 180 - 90
        names = np.array([-NAME_COST if role in v.named else 0.0 for v in views])
        scouts = np.array([UNKNOWN_COST if v.scout else 0.0 for v in views])
        spread = float(np.log(e.turn[1] * e.offset[1] * e.tilt / (12 * 8 * 9)))
        single = 0.5 * (tilts / e.tilt) ** 2 + names + scouts + spread + e.rare
        by_centre = 0.5 * ((offsets - e.offset[0]) / e.offset[1]) ** 2
        by_turn = 0.5 * (turned / e.turn[1]) ** 2
        found.append(single[:, None, None] + by_centre[:, :, None] + by_turn[:, None, :])
    return np.array(found)


def _describe_long_axis(view: Candidate, fit: _Fit, index: int) -> None:
    """Role, reason, rival and margin of one view under the best fit."""
    roles = [*EXPECTED, UNKNOWN]
    costs = dict(zip(roles, fit.costs[:, index].tolist(), strict=True))
    role = roles[fit.chosen[index]]
    turn, offset, tilt = fit.measured[index]
    turned = (turn - fit.turn + 20) % 180 - 20
    where = "through the LV centre" if abs(offset) < 12 else f"{abs(offset):.0f} mm from the LV centre"
    where += " on the RV side" if offset >= 12 else ""
    facts = f"{abs(tilt):.0f}° from the long axis, {where}, turned {turned:.0f}° from the 4-chamber position"
    if view.scout:
        view.reason = "lies along the patient's own axes, like a scout"
    elif role == UNKNOWN:
        view.reason = f"fits no view: {facts}"
    else:
        rival = min((r for r in EXPECTED if r != role), key=lambda r: costs[r])
        view.role, view.reason, view.rival, view.margin = role, facts, rival, costs[rival] - costs[role]
