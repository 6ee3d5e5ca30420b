"""Paints a knee: soft tissue of the leg, joint fluid, tendons, ligaments, cartilage and bone, with MR contrast.

Signals are relative to joint fluid. Fat and marrow are dark, as in fat-suppressed images.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from . import knee
from .knee import FAR
from .knee import KneeShape
from .shapes import Canvas
from .shapes import Floats
from .shapes import Labels
from .shapes import Texture
from .shapes import blend
from .shapes import ellipsoid
from .shapes import tube

CONTRASTS = ("DESS", "PD FS")
#: Muscles of thigh and calf: corners of their middle (knee coordinates of a straight leg) and radii, mm.
MUSCLES: tuple[tuple[tuple[tuple[float, float, float], ...], tuple[float, ...]], ...] = (
    (((-27, -20, 115), (-35, -14, 62), (-33, -18, 40)), (24, 15, 4)),
    (((29, -20, 115), (33, -14, 66), (33, -14, 50)), (22, 12, 3)),
    (((0, -36, 120), (0, -38, 92)), (13, 4)),
    (((0, -14, 120), (0, -26, 75)), (24, 5)),
    (((28, 36, 115), (37, 30, 45), (40, 20, -6)), (15, 10, 3)),
    (((-16, 38, 115), (-25, 40, 45), (-30, 33, 8)), (18, 13, 3)),
    (((-10, 54, 115), (-22, 53, 45), (-35, 38, 0)), (9, 4, 2)),
    (((-50, 14, 115), (-48, 22, 40), (-40, 14, -25)), (9, 8, 3)),
    (((-42, 38, 115), (-42, 38, 35)), (6, 4)),
    (((-19, 36, 32), (-23, 43, -8), (-22, 50, -115)), (6, 14, 21)),
    (((20, 35, 30), (22, 42, -8), (20, 48, -115)), (5, 12, 18)),
    (((0, 36, -115), (6, 32, -60), (22, 27, -30)), (20, 13, 4)),
    (((-13, 23, -60), (4, 27, -28), (26, 25, -2)), (9, 8, 3)),
    (((25, -5, -115), (25, -5, -48), (22, -8, -26)), (16, 11, 3)),
    (((43, 6, -115), (39, 4, -38)), (11, 4)),
    (((14, 20, -115), (14, 18, -58)), (12, 5)),
)
#: What else fills the leg, for its outline: fat between the muscles, bone ends, patella and patellar tendon.
CORE: tuple[tuple[tuple[tuple[float, float, float], ...], tuple[float, ...]], ...] = (
    (((0, 14, -115), (0, 9, -10), (0, 7, 20), (0, 5, 115)), (44, 45, 46, 57)),
    (((-17, 0, -8), (17, 0, -8)), (24, 24)),
    (((-15, 2, 24), (15, 2, 24)), (27, 27)),
    (((-8, -39, 42), (8, -39, 42)), (14, 14)),
    (((-6, -44, 16), (0, -30, -40)), (8, 6)),
)
#: Grid on which the leg's outline and its muscles are worked out once: step and half extent, mm.
FIELD_STEP = 3.0
FIELD_REACH = (96.0, 96.0, 120.0)


@dataclass(frozen=True)
class KneeTissues:
    """Signals relative to joint fluid, drawn once a study; see :func:`draw_knee_tissues`."""

    contrast: str
    cartilage: float
    muscle: float
    fat: float
    marrow: float
    trabeculae: float
    patches: float
    meniscus: float
    ligament: float
    tendon: float
    cortex: float
    vessel: float


def draw_knee_tissues(rng: np.random.Generator) -> KneeTissues:
    """Draws the contrast of one study: double-echo steady state or fat-suppressed proton density."""
    dess = bool(rng.random() < 0.5)
    muscle = float(rng.uniform(0.22, 0.32) if dess else rng.uniform(0.28, 0.42))
    return KneeTissues(
        contrast=CONTRASTS[0] if dess else CONTRASTS[1],
        cartilage=float(rng.uniform(0.50, 0.68) if dess else rng.uniform(0.44, 0.60)),
        muscle=muscle,
        fat=float(muscle * rng.uniform(0.3, 0.62)),
        marrow=float(rng.uniform(0.06, 0.11) if dess else rng.uniform(0.08, 0.15)),
        trabeculae=float(rng.uniform(0.2, 0.35) if dess else rng.uniform(0.08, 0.18)),
        patches=float(rng.uniform(0.1, 0.35)),
        meniscus=float(rng.uniform(0.06, 0.16) if dess else rng.uniform(0.04, 0.10)),
        ligament=float(rng.uniform(0.12, 0.22) if dess else rng.uniform(0.07, 0.16)),
        tendon=float(rng.uniform(0.03, 0.08)),
        cortex=float(rng.uniform(0.01, 0.04)),
        vessel=float(rng.uniform(0.4, 0.8) if dess else rng.uniform(0.05, 0.6)),
    )


class Sway:
    """A smooth, slow wobble of space, so that no surface is a perfect ellipse: sines of the other coordinates."""

    def __init__(self, rng: np.random.Generator, amount_mm: float = 0.7) -> None:
        self._amount = np.float32(amount_mm)
        self._waves = (rng.normal(0, 1, (3, 3)) / 9).astype(np.float32)
        self._phases = rng.uniform(0, 2 * np.pi, 3).astype(np.float32)

    def __call__(self, p: Floats) -> Floats:
        """Points ``(3, n)``, moved."""
        angles = self._waves @ p + self._phases[:, None]
        return p + self._amount * np.sin(angles[[1, 2, 0]])


class KneeBody:
    """One subject's knee, as :class:`~.rendering.Body`; it rests, so every phase is the same."""

    def __init__(self, shape: KneeShape, tissues: KneeTissues, texture: Texture, sway: Sway) -> None:
        self.shape = shape
        self.tissues = tissues
        self.texture = texture
        self.sway = sway
        self.middle = shape.to_patient((0.0, 0.0, 8.0)).astype(np.float32)
        self._fields = _leg_fields(shape)

    def sample(self, points: Floats, phases: Sequence[float]) -> tuple[Floats, Labels]:
        """Signal and label at LPS points ``(3, n)``: both ``(len(phases), n)``."""
        signal = np.full(points.shape[1], 0.01, np.float32)
        label = np.zeros(points.shape[1], np.uint8)
        p = self.sway(self.shape.to_knee(points))
        skin = self._field(0, p)
        inside = np.flatnonzero(skin < 0.5)
        if inside.size:
            canvas = Canvas(signal[inside], label[inside])
            _Painting(self, canvas, np.ascontiguousarray(p[:, inside]), skin[inside]).paint()
            signal[inside], label[inside] = canvas.signal, canvas.label
        shape = (len(phases), points.shape[1])
        return np.broadcast_to(signal, shape), np.broadcast_to(label, shape)

    def _field(self, number: int, p: Floats) -> Floats:
        """One of the leg's fields at knee coordinates ``(3, n)``."""
        cells = (p + np.asarray(FIELD_REACH, np.float32)[:, None]) / np.float32(FIELD_STEP)
        values = ndimage.map_coordinates(
            self._fields[number], cells, output=np.float32, order=1, mode="nearest", prefilter=False
        )
        return np.asarray(values, np.float32)

    def volumes_ml(self, step_mm: float = 1.5) -> dict[int, float]:
        """Volume of each label in ml, counted on a grid that holds the joint and 8 cm of each shaft."""
        spans = [np.arange(-r, r + 1, step_mm / self.shape.scale, dtype=np.float32) for r in (50, 62, 85)]
        grid = np.stack(np.meshgrid(*spans, indexing="ij")).reshape(3, -1)
        points = self.shape.to_patient(grid.T).T.astype(np.float32)
        counts = np.bincount(self.sample(points, [0.0])[1][0], minlength=knee.EFFUSION + 1)
        return {value: float(counts[value] * step_mm**3 / 1000) for value in range(1, knee.EFFUSION + 1)}


def _straightened(shape: KneeShape, p: Floats) -> Floats:
    """Knee coordinates ``(3, n)`` to those of a straight leg, in which the soft tissue is described."""
    share = np.clip((p[2] + 20) / 60, 0, 1)
    share = share * share * (3 - 2 * share)
    femoral = shape.to_femur(p)
    femoral[2] += np.float32(shape.rise)
    return p + share * (femoral - p)


def _leg_fields(shape: KneeShape) -> tuple[Floats, Floats]:
    """Distances from the skin and from the muscles on the grid of knee coordinates."""
    spans = [np.arange(-r, r + 1, FIELD_STEP, dtype=np.float32) for r in FIELD_REACH]
    grid = np.stack(np.meshgrid(*spans, indexing="ij"))
    p = _straightened(shape, grid.reshape(3, -1))
    nearest = np.full(p.shape[1], FAR, np.float32)
    second, hull = nearest.copy(), nearest.copy()
    for path, radii in MUSCLES:
        belly = tube(p, path, np.asarray(radii) * shape.muscle)
        second = np.minimum(second, np.maximum(nearest, belly))
        nearest = np.minimum(nearest, belly)
        hull = blend(hull, belly, 16.0)
    for path, radii in CORE:
        hull = blend(hull, tube(p, path, radii), 18.0)
    # Away from the joint muscles fill the leg, and only sheets of fat part one from the next.
    swollen = 11 * np.clip((np.abs(p[2] - 8) - 24) / 44, 0, 1)
    muscle = np.maximum(nearest - swollen, np.float32(0.8) - (second - nearest) / 2)
    skin = hull - _fat(shape, grid.reshape(3, -1))
    size = grid.shape[1:]
    return skin.reshape(size), np.maximum(muscle, hull + 1).reshape(size)


def _fat(shape: KneeShape, p: Floats) -> Floats:
    """Thickness of skin and fat: more on the inside and behind than on the shin and the patella."""
    more = np.float32(1) - p[0] / np.float32(150) + np.clip((p[1] + 20) / 60, -0.5, 0.6)
    return 2 + np.float32(shape.fat) * np.maximum(more, np.float32(0.3))


class _Painting:
    """All structures at the points of one picture, painted from the outside in."""

    def __init__(self, body: KneeBody, canvas: Canvas, p: Floats, skin: Floats) -> None:
        self.body, self.canvas, self.p = body, canvas, p
        self.shape, self.t = body.shape, body.tissues
        self.f = body.shape.to_femur(p)
        texture = body.texture
        self.skin = skin
        self.fascia = skin + _fat(body.shape, p)
        self.fine = texture.nearest(p, 0.7)
        self.slow = texture.nearest(p, 3.6, (31.0, 7.0, 13.0))

    def paint(self) -> None:
        """Paints everything."""
        femur = self._near(self.f, (-46, -44, -6), (46, 42, 200), lambda f: knee.femur(self.shape, f))
        tibia = self._near(self.p, (-46, -36, -200), (46, 36, 16), lambda p: knee.tibia(self.shape, p))
        q = self.shape.to_patella(self.f)
        across, deep, high = (r + 8 for r in self.shape.patella_radii)
        patella = self._near(q, (-across, -deep, -high), (across, deep, high), lambda q: knee.patella(self.shape, q))
        self._leg()
        self._vessels()
        over_femur = self._over(femur, self.f, knee.femoral_cartilage)
        over_tibia = self._over(tibia, self.p, knee.tibial_cartilage)
        over_patella = self._over(patella, q, knee.patellar_cartilage)
        self._fluid(femur, over_femur, over_tibia, over_patella)
        self._tendons(q)
        self._ligaments(femur)
        self._meniscus(over_femur, over_tibia)
        self._cartilage(over_patella, patella, knee.PATELLAR_CARTILAGE)
        self._cartilage(over_tibia, tibia, knee.TIBIAL_CARTILAGE)
        self._cartilage(over_femur, femur, knee.FEMORAL_CARTILAGE)
        self._bone(patella, q[2], 0.9, knee.PATELLA, None)
        self._bone(tibia, self.p[2], 0.8, knee.TIBIA, -17.0)
        self._bone(femur, self.f[2], 0.8, knee.FEMUR, 33.0)
        self._fibula()

    def _near(
        self, p: Floats, low: Sequence[float], high: Sequence[float], distance: Callable[[Floats], Floats]
    ) -> Floats:
        """A distance that is worked out only for the points inside a box; far elsewhere."""
        inside = np.ones(p.shape[1], np.bool_)
        for axis in range(3):
            inside &= p[axis] > np.float32(low[axis])
            inside &= p[axis] < np.float32(high[axis])
        return self._where(inside, p, distance)

    @staticmethod
    def _where(chosen: npt.NDArray[np.bool_], p: Floats, distance: Callable[[Floats], Floats]) -> Floats:
        """A distance that is worked out only for chosen points; far elsewhere."""
        full = np.full(p.shape[1], FAR, np.float32)
        where = np.flatnonzero(chosen)
        if where.size:
            full[where] = distance(p[:, where])
        return full

    def _over(self, bone: Floats, p: Floats, thickness: Callable[[KneeShape, Floats], Floats]) -> Floats:
        """Distance from a bone with its cartilage; that from the bone where there is none or where it is far."""
        over = bone.copy()
        where = np.flatnonzero(np.abs(bone) < 14)
        if where.size:
            over[where] -= thickness(self.shape, p[:, where])
        return over

    def _leg(self) -> None:
        """Skin, fat with its septa, and muscle."""
        t = self.t
        self.canvas.paint(self.skin, t.muscle * 0.7)
        lobes = 1 + np.float32(0.10) * self.fine + np.float32(0.12) * self.slow
        lines = np.abs(self.slow + np.float32(0.3) * self.fine) < np.float32(0.06)
        self.canvas.paint(self.skin + 1.6, np.float32(t.fat) * lobes + np.float32(0.5 * t.fat) * lines)
        self.canvas.paint(np.abs(self.fascia) - 0.25, t.tendon)
        muscle = self.body._field(1, self.p)
        streaks = 1 + np.float32(0.07) * self.fine + np.float32(0.10) * self.slow
        self.canvas.paint(muscle, np.float32(t.muscle) * streaks)

    def _vessels(self) -> None:
        """Popliteal artery and vein, and a geniculate branch."""
        t = self.t

        def artery(p: Floats) -> Floats:
            return tube(p, [(4, 32, 120), (3, 35, 20), (2, 33, -30), (4, 32, -120)], (3.2, 3.0, 2.8, 2.2))

        def vein(p: Floats) -> Floats:
            return tube(p, [(8, 40, 120), (6, 42, 20), (4, 40, -30), (6, 38, -120)], (3.8, 3.6, 3.0, 2.4))

        for pipe, value in ((artery, t.vessel), (vein, 0.8 * t.vessel + 0.1)):
            distance = self._near(self.p, (-6, 24, -130), (18, 52, 130), pipe)
            self.canvas.paint(distance - 0.8, t.tendon)
            self.canvas.paint(distance, value)

    def _fluid(self, femur: Floats, over_femur: Floats, over_tibia: Floats, over_patella: Floats) -> None:
        """The film between the cartilages, and what the suprapatellar recess and the gutters hold."""
        film = np.float32(0.35 + 0.05 * self.shape.fluid)
        lined = [np.where(over < bone - 0.4, over - film, FAR) for over, bone in ((over_femur, femur),)]
        between = np.maximum(over_femur, over_tibia) - np.float32(0.9)
        self.canvas.paint(np.minimum(lined[0], np.where(np.abs(self.p[0]) < 36, between, FAR)), 0.85)
        recess = self._near(self.f, (-46, -62, -2), (46, 44, 100), self._recess)
        recess = np.maximum(np.maximum(recess, 1.0 - femur), self.fascia + 2.5)
        bright = np.float32(1) + np.float32(0.03) * self.slow
        self.canvas.paint(recess - 0.9, self.t.muscle)
        self.canvas.paint(recess, bright, knee.EFFUSION if self.shape.group == "effusion" else None)

    def _recess(self, f: Floats) -> Floats:
        """Distance from the pockets of the joint's cavity, femur coordinates ``(3, n)``."""
        fluid = self.shape.fluid
        # The recess leans against the fat in front of the shaft and bulges upwards and forwards.
        above = ellipsoid(f, (1.0, -29.0 - 0.35 * fluid, 68.0), (12 + fluid, 0.55 * fluid, 14 + fluid))
        if fluid < 2:
            return above
        lateral = ellipsoid(f, (33.0, -20.0, 38.0), (0.40 * fluid, 8 + fluid, 8 + 0.7 * fluid))
        medial = ellipsoid(f, (-33.0, -20.0, 36.0), (0.40 * fluid, 8 + fluid, 7 + 0.7 * fluid))
        beside = np.minimum(lateral, medial)
        behind = ellipsoid(f, (-18.0, 37.0, 20.0), (6.0, 0.30 * fluid, 6 + 0.4 * fluid))
        return np.minimum(blend(above, beside, 10.0), behind)

    def _tendons(self, q: Floats) -> None:
        """Quadriceps and patellar tendon, retinacula."""
        _, deep, high = self.shape.patella_radii
        value = np.float32(self.t.tendon) * (1 + np.float32(0.5) * np.abs(self.slow))

        def quadriceps(q: Floats) -> Floats:
            up = np.maximum(q[2] - np.float32(high - 6), 0)
            sheet = np.abs(q[1] + np.float32(0.35 * deep) - np.float32(0.06) * up) - 3.4
            wide = np.abs(q[0]) - np.float32(15) - np.float32(0.12) * up
            return knee.both(knee.both(sheet, wide, 3.0), np.float32(high - 8) - q[2], 3.0)

        self.canvas.paint(self._near(q, (-34, -20, 8), (34, 16, 75), quadriceps), value)
        pole = self._patella_pole()
        end = np.array([1.5, -27.5, -38.0])

        def patellar(p: Floats) -> Floats:
            step = end - pole
            along = np.clip((p[2] - np.float32(pole[2])) / np.float32(step[2]), 0, 1)
            sheet = np.abs(p[1] - np.float32(pole[1]) - along * np.float32(step[1])) - 2.4
            wide = np.abs(p[0] - np.float32(pole[0]) - along * np.float32(step[0])) - (14 - 3 * along)
            ends = np.abs(p[2] - np.float32((pole[2] + end[2]) / 2)) - np.float32((pole[2] - end[2]) / 2 + 3)
            return knee.both(knee.both(sheet, wide, 3.0), ends, 3.0)

        self.canvas.paint(self._near(self.p, (-20, -66, -50), (20, -15, 45), patellar), value)

    def _patella_pole(self) -> npt.NDArray[np.float64]:
        """Front of the patella's lower pole, knee coordinates."""
        s = self.shape
        low = np.array([[0.0], [-0.25 * s.patella_radii[1]], [-s.patella_radii[2] + 3]], np.float32)
        femoral = knee.turned(low, (0.0, 0.0), (s.patella[1], s.patella[2]), s.patella_tilt)
        femoral[0] += np.float32(s.patella[0])
        return np.asarray(s.from_femur(femoral)[:, 0], np.float64)

    def _ligaments(self, femur: Floats) -> None:
        """Cruciate and collateral ligaments."""
        box = self._near(self.p, (-18, -18, -14), (18, 32, 46), lambda p: np.minimum(*knee.cruciates(self.shape, p)))
        fibres = np.float32(self.t.ligament) * (1 + np.float32(0.25) * self.fine)
        filling = self._near(self.f, (-13, -16, -14), (13, 26, 42), self._notch_filling)
        self.canvas.paint(np.maximum(filling, np.float32(8) - self.p[2]), max(1.1 * self.t.muscle, 0.3))
        self.canvas.paint(box, fibres, knee.CRUCIATES)
        wide = 38.5 * self.shape.widths[0]

        def medial(p: Floats) -> Floats:
            middle = np.interp(p[2], (-45, -8, 10, 34), (-24, -wide, -wide - 1, -wide - 1)).astype(np.float32)
            return np.maximum(np.abs(p[0] - middle) - 1.1, np.maximum(np.abs(p[1] - 1) - 9, np.abs(p[2] + 4) - 38))

        self.canvas.paint(self._near(self.p, (-50, -12, -46), (-18, 14, 38), medial), self.t.tendon)
        lateral = [(wide, 4, 30), (wide + 1, 10, 10), (34, 17, -16)]
        cord = self._near(self.p, (28, -4, -24), (50, 26, 38), lambda p: tube(p, lateral, (2.0, 2.0, 2.2)))
        self.canvas.paint(cord, self.t.tendon)

    def _notch_filling(self, f: Floats) -> Floats:
        """Distance from the synovium round the cruciate ligaments, femur coordinates ``(3, n)``."""
        return knee.both(knee.notch(self.shape, f) - 0.5, ellipsoid(f, (0.0, 5.0, 14.0), (14.0, 16.0, 22.0)), 4.0)

    def _meniscus(self, over_femur: Floats, over_tibia: Floats) -> None:
        near = (over_tibia < 11) & (over_tibia > -1) & (over_femur < 12)
        full = np.full(near.size, FAR, np.float32)
        where = np.flatnonzero(near)
        if where.size == 0:
            return
        full[where] = knee.menisci(self.shape, self.p[:, where], over_tibia[where])
        full = np.maximum(full, np.float32(0.25) - over_femur)
        # Fluid and synovium line the surfaces.
        self.canvas.paint(np.maximum(full - 0.7, np.float32(0.1) - over_femur), 0.5)
        self.canvas.paint(full, np.float32(self.t.meniscus) * (1 + np.float32(0.3) * self.fine), knee.MENISCI)

    def _cartilage(self, over: Floats, bone: Floats, label: int) -> None:
        """Cartilage over a bone: brighter towards the joint, as its deep layer gives less signal."""
        shell = np.where(over < bone - 0.25, over, FAR)
        layers = np.float32(1.06) - np.float32(0.12) * np.clip(1 - bone / 2, 0, 1) + np.float32(0.05) * self.fine
        self.canvas.paint(shell, np.float32(self.t.cartilage) * layers, label)

    def _bone(self, bone: Floats, along: Floats, cortex: float, label: int, growth: float | None) -> None:
        """Dark cortex, thicker round the shaft, over marrow with trabeculae and a scar of the growth plate."""
        t = self.t
        self.canvas.paint(bone, t.cortex, label)
        away = np.abs(along - np.float32(0.0 if growth is None else growth))
        rim = np.float32(cortex) + np.clip((away - 18) / 14, 0, 1) * np.float32(0.0 if growth is None else 2.2)
        grain = 1 + np.float32(t.trabeculae) * self.fine + np.float32(t.patches) * self.slow
        marrow = np.float32(t.marrow) * np.maximum(grain, np.float32(0.2))
        if growth is not None:
            scar = np.abs(along - np.float32(growth) - 2 * self.slow) < np.float32(0.7)
            marrow = np.where(scar, np.float32(0.5 * t.marrow), marrow)
        self.canvas.paint(bone + rim, marrow)

    def _fibula(self) -> None:
        """The fibula has no label of its own."""

        def distance(p: Floats) -> Floats:
            return tube(p, [(33, 17, -19), (33, 18, -30), (34, 20, -130)], (8.0, 6.5, 6.0))

        bone = self._near(self.p, (20, 4, -140), (48, 34, -6), distance)
        self.canvas.paint(bone, self.t.cortex)
        self.canvas.paint(bone + 1.4, np.float32(self.t.marrow) * (1 + np.float32(self.t.trabeculae) * self.fine))


def draw_knee_body(rng: np.random.Generator, side: str | None = None, group: str | None = None) -> KneeBody:
    """Draws one subject with knee, leg and contrast; ``side`` and ``group`` as in :func:`~.knee.draw_knee`."""
    shape = knee.draw_knee(rng, side, group)
    tissues = draw_knee_tissues(rng)
    return KneeBody(shape, tissues, Texture(rng, 1.5), Sway(rng))
