"""A heart that varies like a population, beating inside a chest.

Heart coordinates ``(u, v, w)`` in mm: the origin is the middle of the mitral valve at end-diastole, ``w`` runs
along the left ventricle's long axis towards the apex, ``u`` from the left ventricle to the right one,
``v`` towards the inferior wall (right-handed). The left ventricle is a pair of truncated ellipsoids whose
muscle keeps its volume while it thickens and the base moves towards the apex.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ..geometry import Array
from .chest import Chest
from .chest import draw_chest
from .shapes import LESION
from .shapes import AnyFloats
from .shapes import Canvas
from .shapes import Floats
from .shapes import Labels
from .shapes import Texture
from .shapes import blend
from .shapes import ellipsoid
from .shapes import smooth_path
from .shapes import tube
from .shapes import warped

LV, MYOCARDIUM, RV, LEFT_ATRIUM, RIGHT_ATRIUM, AORTA = 1, 2, 3, 4, 5, 6
GROUPS = ("normal", "hypertrophy", "infarct")
#: Share of each group in the population.
GROUP_SHARES = (0.5, 0.25, 0.25)
#: Mean direction of the long axis (to the apex) and from the left to the right ventricle, LPS.
APEX_DIRECTION = (0.50, -0.63, -0.60)
SEPTAL_DIRECTION = (-0.86, -0.46, -0.22)
#: Points further than this from the middle of the heart are not asked about the heart.
REACH_MM = 118.0


@dataclass(frozen=True)
class Ventricle:
    """The left ventricle at one moment: two ellipsoids with one centre on the axis, cut off at the base.

    Attributes:
        base: ``w`` of the mitral plane.
        centre: ``w`` of the ellipsoids' centre.
        inner: Radius and half length of the cavity.
        outer: Radius and half length of the epicardium.
    """

    base: float
    centre: float
    inner: tuple[float, float]
    outer: tuple[float, float]


@dataclass(frozen=True)
class Bulge:
    """A region of the wall that is thinner (positive depth) or thicker (negative) than the rest.

    Attributes:
        angle: Its middle round the axis, radians from ``u`` towards ``v``.
        place: Its middle along the axis, 0 at the base to 1 at the apex.
        width: Its half width, radians.
        length: Its half length, share of the axis.
        depth: Share of the wall that is missing in its middle.
    """

    angle: float
    place: float
    width: float
    length: float
    depth: float


@dataclass(frozen=True)
class Scar:
    """An infarct: wall that is thinned and has another signal.

    Attributes:
        region: Where it lies, and how much of the wall is missing in its middle.
        signal: Signal relative to blood.
    """

    region: Bulge
    signal: float


@dataclass(frozen=True)
class HeartShape:
    """One subject's heart; lengths in mm at end-diastole.

    Attributes:
        group: One of :data:`GROUPS`.
        origin: Middle of the mitral valve, LPS.
        axes: Rows are the directions u, v, w in LPS.
        radius: Of the left ventricle's cavity.
        length: Of the cavity from base to apex.
        wall: Thickness of the left ventricle's wall.
        shortening: Share of the cavity's radius and of its length that systole takes away.
        bulge: Where the wall is thinner or thicker.
        rv_width: From the septum to the free wall.
        rv_span: Half extent across the septum.
        rv_shift: Of the right ventricle along ``v``.
        rv_apex: Share of the left ventricle's length that the right one reaches.
        atria: Scale of the left and of the right atrium.
        root: ``(u, v)`` of the aortic valve.
        aorta: Radius of the aortic root.
        fat: Thickness of the fat round the heart.
        papillary: Radius of the papillary muscles.
        trabeculae: Roughness of the cavity's surface.
        scar: An infarct, which is a lesion; the regional wall of the population's groups is none.
        effusion: Thickness of fluid in the pericardium where it is thickest, a lesion; 0 for none.
        effusion_signal: Its signal relative to blood.
    """

    group: str
    origin: tuple[float, float, float]
    axes: Array
    radius: float
    length: float
    wall: float
    shortening: tuple[float, float]
    bulge: Bulge
    rv_width: float
    rv_span: float
    rv_shift: float
    rv_apex: float
    atria: tuple[float, float]
    root: tuple[float, float]
    aorta: float
    fat: float
    papillary: float
    trabeculae: float
    scar: Scar | None = None
    effusion: float = 0.0
    effusion_signal: float = 1.0

    def to_patient(self, points: npt.ArrayLike) -> Array:
        """Heart coordinates ``(..., 3)`` to LPS mm."""
        return np.asarray(points, dtype=np.float64) @ self.axes + np.asarray(self.origin)

    @property
    def apex(self) -> float:
        """``w`` of the epicardium's tip."""
        return self.length + 0.6 * self.wall

    def ventricle(self, contraction: float) -> Ventricle:
        """The left ventricle at a contraction of 0 (end-diastole) to 1 (end-systole).

        The tip of the apex stays, the base comes down to it, and the outer radius follows from the
        muscle's volume, which is that of end-diastole.
        """
        rest = self._ventricle_at_rest
        base = contraction * self.shortening[1] * self.length
        centre = rest.centre + 0.8 * base
        tip = 0.6 * self.wall * (1 + 0.4 * contraction)
        half = self.apex - centre
        inner = (self.radius * (1 - contraction * self.shortening[0]), half - tip)
        cavity = _truncated_volume(inner[0], inner[1], base - centre)
        section = _truncated_volume(1.0, half, base - centre)
        return Ventricle(base, centre, inner, (float(np.sqrt((cavity + self._muscle_mm3) / section)), half))

    @cached_property
    def _ventricle_at_rest(self) -> Ventricle:
        centre = 0.17 * self.length
        outer = (self.radius + self.wall, self.apex - centre)
        return Ventricle(0.0, centre, (self.radius, self.length - centre), outer)

    @cached_property
    def _muscle_mm3(self) -> float:
        rest = self._ventricle_at_rest
        return _truncated_volume(*rest.outer, -rest.centre) - _truncated_volume(*rest.inner, -rest.centre)


def _truncated_volume(radius: float, half: float, start: float) -> float:
    """Volume of an ellipsoid of revolution from ``start`` (along its axis from its centre) to its tip, mm^3."""
    return float(np.pi * radius**2 * ((half - half / 3) - (start - start**3 / (3 * half**2))))


def draw_heart(rng: np.random.Generator, depth: float, group: str | None = None) -> HeartShape:
    """Draws one subject from the population, or from one of its groups.

    Args:
        rng: Source of chance.
        depth: Half the depth of the chest inside the ribs, mm.
        group: One of :data:`GROUPS`; drawn where it is None.
    """
    drawn = str(rng.choice(GROUPS, p=GROUP_SHARES))
    group = drawn if group is None else group
    size = float(np.clip(rng.normal(1.0, 0.08), 0.8, 1.25))
    radius, length, wall = rng.normal(26, 1.7), rng.normal(87, 5), rng.normal(8.2, 1.0)
    shortening = (float(rng.uniform(0.26, 0.36)), float(rng.uniform(0.13, 0.19)))
    bulge = Bulge(float(rng.uniform(-np.pi, np.pi)), 0.5, 0.8, 0.4, float(rng.uniform(-0.15, 0.15)))
    if group == "hypertrophy":
        wall, radius = rng.uniform(12.5, 18), rng.normal(24, 1.8)
        shortening = (float(rng.uniform(0.3, 0.42)), float(rng.uniform(0.09, 0.15)))
        # Mostly the septum.
        bulge = Bulge(float(rng.normal(-0.2, 0.5)), float(rng.uniform(0.2, 0.5)), 0.9, 0.4, -float(rng.uniform(0, 0.5)))
    elif group == "infarct":
        radius, length = rng.normal(30, 2.5), rng.normal(91, 5)
        shortening = (float(rng.uniform(0.08, 0.2)), float(rng.uniform(0.05, 0.11)))
        # In the territory of the left anterior descending, the right or the circumflex artery.
        angle = float(rng.choice([-1.2, 1.6, 2.9]) + rng.normal(0, 0.25))
        bulge = Bulge(angle, float(rng.uniform(0.45, 0.8)), 0.7, 0.3, float(rng.uniform(0.4, 0.7)))
    direction = rng.normal(-0.87, 0.15)
    return HeartShape(
        group=group,
        origin=(float(rng.normal(20, 6)), float(74 - depth + rng.normal(0, 4)), float(rng.normal(0, 6))),
        axes=_axes(rng),
        radius=float(size * np.clip(radius, 18, 36)),
        length=float(size * length),
        wall=float(np.clip(wall, 6, 18)),
        shortening=shortening,
        bulge=bulge,
        rv_width=float(size * rng.normal(37, 4)),
        rv_span=float(size * rng.normal(42, 3)),
        rv_shift=float(rng.normal(-2, 3)),
        rv_apex=float(rng.uniform(0.78, 0.98)),
        atria=(float(size * rng.normal(1, 0.1)), float(size * rng.normal(1, 0.1))),
        root=(float(size * 18 * np.cos(direction)), float(size * 18 * np.sin(direction))),
        aorta=float(size * rng.normal(13.5, 1.2)),
        fat=float(rng.gamma(3, 0.6) + 0.7),
        papillary=float(size * rng.uniform(3.8, 6.2)),
        trabeculae=float(rng.uniform(0.8, 2.6)),
    )


def _axes(rng: np.random.Generator) -> Array:
    """Directions u, v, w (rows) of one subject, LPS: the mean ones turned by some degrees."""
    w = np.asarray(APEX_DIRECTION) + rng.normal(0, 0.12, 3)
    w /= np.linalg.norm(w)
    u = np.asarray(SEPTAL_DIRECTION) + rng.normal(0, 0.12, 3)
    u -= (u @ w) * w
    u /= np.linalg.norm(u)
    return np.stack([u, np.cross(w, u), w])


@dataclass(frozen=True)
class Place:
    """Points near the heart: LPS mm and heart coordinates, ``(3, n)``; fine and coarse texture, ``(n,)``."""

    points: Floats
    local: Floats
    grain: Floats
    lumps: Floats


class HeartBody:
    """One subject, as :class:`~.rendering.Body`: the phases are contractions from 0 to 1."""

    def __init__(self, shape: HeartShape, chest: Chest, texture: Texture) -> None:
        self.shape = shape
        self.chest = chest
        self.texture = texture
        self.middle = shape.to_patient((12.0, 0.0, 18.0)).astype(np.float32)

    def sample(self, points: Floats, phases: Sequence[float]) -> tuple[Floats, Labels]:
        """Signal and label at LPS points ``(3, n)``: both ``(phases, n)``."""
        canvas = Canvas(np.zeros(points.shape[1], np.float32), np.zeros(points.shape[1], np.uint8))
        self.chest.paint(canvas, points, self.texture)
        signal = np.repeat(canvas.signal[None], len(phases), axis=0)
        label = np.repeat(canvas.label[None], len(phases), axis=0)
        away = points - self.middle[:, None]
        near = np.flatnonzero(np.einsum("in,in->n", away, away) < REACH_MM**2)
        if near.size:
            place = self.place(points[:, near])
            for k, contraction in enumerate(phases):
                part = Canvas(signal[k, near], label[k, near])
                _Moment(self, contraction).paint(part, place)
                signal[k, near], label[k, near] = part.signal, part.label
        return signal, label

    def place(self, points: Floats) -> Place:
        """Points ``(3, n)`` with what does not change from phase to phase."""
        offset = warped(points, self.texture, 15.0, 1.4) - np.asarray(self.shape.origin, np.float32)[:, None]
        local = self.shape.axes.astype(np.float32) @ offset
        return Place(points, local, self.texture(points, 5.0), self.texture(points, 22.0, (50.0, 11.0, 29.0)))

    def volumes_ml(self, contraction: float, step_mm: float = 2.0) -> dict[int, float]:
        """Volume of each label in ml, counted on a grid (chambers and myocardium only, not the long aorta)."""
        span = np.arange(-100, 121, step_mm, dtype=np.float32)
        grid = np.stack(np.meshgrid(span, span, span, indexing="ij")).reshape(3, -1)
        points = self.shape.to_patient(grid.T).T.astype(np.float32)
        canvas = Canvas(np.zeros(grid.shape[1], np.float32), np.zeros(grid.shape[1], np.uint8))
        _Moment(self, contraction).paint(canvas, self.place(points))
        counts = np.bincount(canvas.label & (LESION - 1), minlength=AORTA + 1)
        return {
            value: float(counts[value] * step_mm**3 / 1000) for value in (LV, MYOCARDIUM, RV, LEFT_ATRIUM, RIGHT_ATRIUM)
        }


class _Moment:
    """The heart at one moment of the cycle, painted at points near it."""

    def __init__(self, body: HeartBody, contraction: float) -> None:
        self.shape = body.shape
        self.tissues = body.chest.tissues
        self.texture = body.texture
        self.contraction = contraction
        self.lv = body.shape.ventricle(contraction)

    def paint(self, canvas: Canvas, place: Place) -> None:
        """Paints fat, walls, chambers and vessels, from the outside in, on the points of ``place``."""
        s, t = self.shape, self.tissues
        points, local, grain, lumps = place.points, place.local, place.grain, place.lumps
        # Blood swirls, so its texture differs from phase to phase.
        swirl = self.texture(points, 8.0, (9 + 5 * self.contraction, 3.0, 5.0))
        stream = self.texture(points, 24.0, (20.0, 3 + 5 * self.contraction, 33.0))
        blood: Floats = 1 + np.float32(t.flow) * (swirl + np.float32(1.2) * stream + np.float32(0.5) * grain)
        epicardium = self._epicardium(local)
        right = self._right_ventricle(local)
        left_atrium, right_atrium = self._atria(local)
        aorta = self._aorta(local)
        pulmonary = self._pulmonary_artery(local)
        veins = self._veins(local)
        hull = blend(blend(epicardium, right - 3.5, 12.0), blend(left_atrium - 2, right_atrium - 2, 16.0), 20.0)
        hull = blend(hull, blend(aorta - 1, pulmonary - 1, 14.0), 16.0)
        pad = ellipsoid(local, (24.0, 22.0, 0.9 * s.apex), (26.0, 20.0, 18.0))
        hull = blend(hull, pad + 8 - np.float32(1.5 * s.fat), 14.0)
        padded = hull - np.float32(s.fat) * (1 + np.float32(0.7) * lumps) - 0.8
        if s.effusion:
            self._paint_effusion(canvas, points, local, padded, grain)
        canvas.paint(padded - 1.2, t.muscle)
        canvas.paint(padded, np.float32(t.fat) * (np.float32(0.9) + np.float32(0.06) * grain))
        wall: Floats = np.float32(t.myocardium) * (1 + np.float32(0.12) * grain + np.float32(0.08) * swirl)
        canvas.paint(veins - 1.0, wall)
        canvas.paint(veins, blood * np.float32(0.9 * t.right_blood))
        canvas.paint(np.minimum(left_atrium, right_atrium) - 2.2, wall)
        canvas.paint(right_atrium, blood * np.float32(t.right_blood), RIGHT_ATRIUM)
        canvas.paint(left_atrium, blood * np.float32(0.95), LEFT_ATRIUM)
        canvas.paint(np.maximum(right - 3.5, -epicardium), wall)
        # The right ventricle is rough towards its apex.
        ridges = np.clip(local[2] / np.float32(0.4 * s.apex), 0.2, 1) * np.float32(1.6 * s.trabeculae)
        canvas.paint(np.maximum(right + ridges * grain, -epicardium), blood * np.float32(t.right_blood), RV)
        canvas.paint(np.maximum(epicardium, self.lv.base - 2.0 - local[2]), wall)
        muscle = np.maximum(epicardium, self.lv.base - local[2])
        canvas.paint(muscle, wall, MYOCARDIUM)
        if s.scar is not None:
            self._paint_scar(canvas, s.scar, local, muscle, lumps, grain)
        self._paint_cavity(canvas, local, grain, blood, wall)
        self._paint_valves(canvas, local)
        canvas.paint(pulmonary - 1.3, wall)
        canvas.paint(pulmonary, blood * np.float32(t.right_blood))
        self._paint_aorta(canvas, local, aorta, blood, wall)

    def _epicardium(self, p: Floats) -> Floats:
        radius, half = self.lv.outer
        return ellipsoid(p, (0.0, 0.0, self.lv.centre), (radius, radius, half))

    def _paint_effusion(self, canvas: Canvas, points: Floats, p: Floats, padded: AnyFloats, grain: Floats) -> None:
        """Fluid between the heart's own fat and the pericardium: it sinks to the back and spares the great vessels."""
        sunk = np.clip((points[1] - np.float32(self.shape.origin[1])) / np.float32(90) + np.float32(0.5), 0.15, 1)
        ending = np.clip((p[2] + 45) / 30, 0, 1)
        fluid = padded - np.float32(self.shape.effusion) * sunk * ending
        # Nothing but the descending aorta has a label yet, and it does not swim in the fluid.
        free = (ending > 0.05) & (canvas.label == 0)
        signal = np.float32(self.shape.effusion_signal) * (1 + np.float32(0.03) * grain)
        canvas.paint(np.where(free, fluid - 2.2 * ending, np.float32(1e3)), self.tissues.muscle)
        canvas.paint(np.where(free, fluid, np.float32(1e3)), signal, lesion=True)

    def _paint_scar(self, canvas: Canvas, scar: Scar, p: Floats, muscle: Floats, lumps: Floats, grain: Floats) -> None:
        """An infarct through the whole wall; its border is irregular."""
        share = self._region(scar.region, p, 1.0) + np.float32(0.06) * lumps + np.float32(0.04) * grain
        # A share falls from 0.5 to 0 within some 30 mm of the wall.
        border = (np.float32(0.5) - share) * 30
        value = np.float32(scar.signal) * (1 + np.float32(0.06) * grain)
        canvas.paint(np.maximum(muscle, border), value, MYOCARDIUM, lesion=True)

    def _region(self, b: Bulge, p: Floats, height: float) -> Floats:
        """``height`` in the middle of a region of the wall, falling off to 0 away from it."""
        angle = np.arctan2(p[1], p[0]) - np.float32(b.angle)
        # 1 - cos is smooth all the way round, unlike the angle itself.
        round_axis = np.exp((np.cos(angle) - 1) / np.float32(b.width**2))
        along = np.exp(
            -(((p[2] / np.float32(self.shape.length) - np.float32(b.place)) / np.float32(b.length)) ** 2) / 2
        )
        return np.float32(height) * round_axis * along

    def _bulge(self, p: Floats) -> Floats:
        """Depth in mm by which the cavity reaches into the wall."""
        depth = self._region(self.shape.bulge, p, self._depth(self.shape.bulge))
        if self.shape.scar is None:
            return depth
        # A scar ends; a region of the population's walls fades all the way round.
        region = self.shape.scar.region
        thinned = np.maximum(self._region(region, p, 1.25) - np.float32(0.25), 0)
        # A wall keeps a rest even where two thin regions meet.
        limit = np.float32(0.75 * (self.lv.outer[0] - self.lv.inner[0]))
        return np.minimum(depth + np.float32(self._depth(region)) * thinned, limit)

    def _depth(self, b: Bulge) -> float:
        """How much of the wall is missing in a region's middle, mm."""
        thickness = self.lv.outer[0] - self.lv.inner[0]
        # Scar does not thicken: at end-systole more of the wall is missing than at rest.
        return b.depth * thickness + max(b.depth, 0.0) * (thickness - self.shape.wall) * 0.5

    def _paint_cavity(self, canvas: Canvas, p: Floats, grain: Floats, blood: Floats, wall: Floats) -> None:
        """The left ventricle's cavity; papillary muscles and trabeculae count to it, as in the field's contours."""
        radius, half = self.lv.inner
        smooth = ellipsoid(p, (0.0, 0.0, self.lv.centre), (radius, radius, half)) - self._bulge(p)
        base = self.lv.base - p[2]
        canvas.paint(np.maximum(smooth, base), blood, LV)
        depth = np.float32(self.shape.trabeculae) * (np.float32(0.5) + p[2] / np.float32(0.8 * self.shape.apex))
        rough = smooth + np.maximum(depth, 0) * (1 + grain)
        canvas.paint(np.maximum(np.maximum(-rough, smooth), base + 8), wall)
        papillary = np.maximum(self._papillary(p) + np.float32(0.7) * grain, smooth)
        canvas.paint(papillary, wall)

    def _papillary(self, p: Floats) -> Floats:
        """The anterolateral and the posteromedial papillary muscle, leaning on the wall."""
        radius = self.lv.inner[0]
        span = self.shape.apex - self.lv.base
        width = self.shape.papillary
        muscles = []
        for angle in (-2.2, 2.0):
            direction = np.array([np.cos(angle), np.sin(angle)])
            path = [
                (*(direction * (radius * share)), self.lv.base + span * place)
                for share, place in ((0.55, 0.32), (0.68, 0.48), (0.72, 0.68))
            ]
            muscles.append(tube(p, path, (0.6 * width, width, 0.9 * width)))
        return np.minimum(*muscles)

    def _paint_valves(self, canvas: Canvas, p: Floats) -> None:
        """Mitral and tricuspid leaflets."""
        radius = 0.72 * self.shape.radius
        self._paint_leaflets(canvas, p[2] - np.float32(self.lv.base), np.hypot(p[0] + 4, p[1] - 4), radius)
        middle = 0.72 * self.lv.outer[0] + 16
        distance = np.hypot(p[0] - np.float32(middle), p[1] - 6)
        self._paint_leaflets(canvas, p[2] - self._tricuspid(p), distance, 0.8 * radius)

    def _paint_leaflets(self, canvas: Canvas, height: Floats, distance: Floats, radius: float) -> None:
        """Leaflets: closed in systole, open in the middle and hanging into the ventricle in diastole.

        Args:
            canvas: What is there already.
            height: How far each point lies beyond the valve's plane, ``(n,)``.
            distance: How far it lies from the valve's middle, ``(n,)``.
            radius: Of the ring.
        """
        share = np.clip(distance / np.float32(radius), 0, 1.2)
        depth = np.float32(5.0 + 9.0 * (1 - self.contraction))
        sheet = np.abs(height - depth * (1 - share)) - np.float32(0.7)
        gap = np.float32(7.0 * (1 - self.contraction)) - distance
        canvas.paint(np.maximum(np.maximum(sheet, distance - np.float32(radius)), gap), 0.55)

    def _tricuspid(self, p: Floats) -> Floats:
        """``w`` of the tricuspid plane, which is tilted, at points ``(3, n)``."""
        tilt = np.float32(0.12) * (p[0] - np.float32(0.72 * self.lv.outer[0]))
        return tilt + np.float32(1.15 * self.lv.base - 3.0)

    def _right_ventricle(self, p: Floats) -> Floats:
        """The right ventricle with its outflow, as if the left one were not there."""
        s, c = self.shape, self.contraction
        outer = self.lv.outer[0]
        middle = 0.72 * outer
        rim = outer + s.rv_width * (1 - 0.4 * c)
        base = 1.15 * self.lv.base - 3.0
        start = base + 0.22 * s.length
        body = ellipsoid(
            p, (middle, s.rv_shift, start), (rim - middle, s.rv_span * (1 - 0.16 * c), s.rv_apex * s.apex - start)
        )
        # The free wall meets the septum well in front of and behind it: no crescent round the lateral wall.
        body = -blend(-body, p[0] - np.float32(0.35 * outer), 14.0)
        body = np.maximum(body, self._tricuspid(p) - p[2])
        lift = self.lv.base
        path = [(middle + 8, -20.0, 20 + lift), (middle - 4, -32.0, 2 + lift), (14.0, -39.0, -12 + lift)]
        outflow = tube(p, path, np.array([17.0, 15.0, 12.5]) * (1 - 0.15 * c))
        return blend(body, np.maximum(outflow, -(p[2] - lift + 16)), 12.0)

    def _pulmonary_artery(self, p: Floats) -> Floats:
        """Trunk and right branch, beyond the outflow."""
        lift = self.lv.base
        trunk = [(14.0, -39.0, -14 + 0.7 * lift), (4.0, -36.0, -34), (-2.0, -22.0, -52)]
        branches = [(-30.0, -8.0, -70), (-2.0, -22.0, -52), (22.0, -6.0, -62), (60.0, 10.0, -66)]
        width = self.shape.aorta
        stem = tube(p, smooth_path(trunk, 3), np.full(7, 0.9 * width))
        return blend(stem, tube(p, branches, np.array([0.55, 0.75, 0.65, 0.6]) * width), 8.0)

    def _atria(self, p: Floats) -> tuple[Floats, Floats]:
        """Left and right atrium, parted by a septum; they fill while the ventricles empty."""
        s, c = self.shape, self.contraction
        fill = 0.88 + 0.14 * c
        left, right = (scale * fill for scale in s.atria)
        low = self.lv.base
        first = ellipsoid(p, (-4.0, 6.0, low - 24 * left), np.array([33.0, 32, 27]) * left)
        ear = ellipsoid(p, (-25.0, -17.0, low - 10), np.array([10.0, 14, 8]) * left)
        first = np.maximum(blend(first, ear, 8.0), p[2] - low - 2.0)
        middle = 0.72 * self.lv.outer[0] + 16
        second = ellipsoid(p, (middle + 4, 9.0, 1.15 * low - 24 * right), np.array([29.0, 33, 28]) * right)
        valve = self._tricuspid(p)
        second = np.maximum(np.maximum(second, p[2] - valve - 2.0), 2.5 - first)
        return first, second

    def _veins(self, p: Floats) -> Floats:
        """Pulmonary veins and the venae cavae."""
        low = 0.5 * self.lv.base
        up, down = self._patient_up()
        atrium = np.array([52.0, 12.0, low - 24])
        caval = tube(p, [atrium + 90 * up, atrium + 20 * up], (9.0, 9.0))
        lower = tube(p, [atrium + 22 * down, atrium + np.array([0, 8.0, 0]) + 110 * down], (11.0, 12.0))
        veins = np.minimum(caval, lower)
        for end in ((-42.0, 30.0, -38.0), (-44.0, 2.0, -46.0), (46.0, 34.0, -58.0), (40.0, 8.0, -72.0)):
            veins = np.minimum(veins, tube(p, [(0.0, 10.0, low - 26), end], (7.0, 5.5)))
        return veins

    def _patient_up(self) -> tuple[Array, Array]:
        """Headwards and feetwards in heart coordinates."""
        up = self.shape.axes @ np.array([0.0, 0.0, 1.0])
        return up, -up

    def _aorta_path(self) -> Array:
        """Centre line from the outflow tract over the arch to the descending aorta, heart coordinates, ``(k, 3)``."""
        s = self.shape
        u, v = s.root
        low = self.lv.base
        start = np.array([[u * 0.7, v * 0.7, low + 8.0], [u, v, low - 6.0]])
        lps = np.array([[-24.0, -6.0, 48.0], [-22.0, 2.0, 75.0], [-4.0, 22.0, 96.0], [8.0, 48.0, 84.0]])
        return np.concatenate([start, lps @ s.axes.T])

    def _aorta(self, p: Floats) -> Floats:
        path = smooth_path(self._aorta_path(), 3)
        width = self.shape.aorta
        radii = np.interp(
            np.arange(len(path)), [0, 3, 5, 7, len(path) - 1], np.array([0.8, 0.85, 1.12, 1.0, 0.85]) * width
        )
        return tube(p, path, radii)

    def _paint_aorta(self, canvas: Canvas, p: Floats, aorta: Floats, blood: Floats, wall: Floats) -> None:
        """The outflow tract belongs to the ventricle up to the valve; beyond it is the aorta."""
        t = self.tissues
        path = self._aorta_path()
        axis = path[1] - path[0]
        axis /= np.linalg.norm(axis)
        beyond = axis.astype(np.float32) @ p - np.float32(axis @ path[1])
        outflow = np.maximum(aorta, beyond)
        canvas.paint(np.maximum(aorta - 1.5, -beyond - 4), wall)
        canvas.paint(outflow, blood, LV)
        canvas.paint(np.maximum(aorta, -beyond), blood * np.float32(t.aortic_blood), AORTA)
        if self.contraction < 0.9:
            canvas.paint(np.maximum(aorta, np.abs(beyond) - 0.7), 0.6)


def draw_body(rng: np.random.Generator, group: str | None = None) -> HeartBody:
    """Draws one subject with heart, chest and contrast; ``group`` as in :func:`draw_heart`."""
    inner = (float(rng.uniform(120, 145)), float(rng.uniform(74, 93)))
    shape = draw_heart(rng, inner[1], group)
    # The inferior wall of the right ventricle and the apex rest on the diaphragm.
    edge = shape.to_patient([(0.8 * shape.radius, shape.radius + shape.wall, 0.5 * shape.length)])[0]
    chest = draw_chest(rng, inner, (float(edge[0]), float(edge[1]), float(edge[2] + rng.uniform(-8, 2))))
    return HeartBody(shape, chest, Texture(rng))
