"""What lies round the heart: skin, fat, muscle, ribs, lungs, diaphragm, abdomen, spine, descending aorta.

Coordinates are LPS mm with the origin in the middle of the chest at the height of the mitral valve.
Signals are relative to blood; that of fat is negative (see :mod:`.rendering`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .shapes import Canvas
from .shapes import Floats
from .shapes import Texture
from .shapes import ellipsoid
from .shapes import tube
from .shapes import warped

#: Depth of the diaphragm below the mitral valve, where nothing pushes it up.
DIAPHRAGM_MM = -80.0


@dataclass(frozen=True)
class Tissues:
    """Signals relative to blood, drawn once a study (field strength, flip angle, weighting)."""

    myocardium: float
    fat: float
    lung: float
    liver: float
    spleen: float
    stomach: float
    muscle: float
    marrow: float
    right_blood: float
    aortic_blood: float
    flow: float


def draw_tissues(rng: np.random.Generator) -> Tissues:
    """Draws the contrast of one study round that of clinical balanced steady-state images."""
    myocardium = float(rng.uniform(0.22, 0.45))
    # Where fat is in phase with water (other repetition times) its borders keep their signal.
    phase = -1.0 if rng.random() < 0.7 else 1.0
    return Tissues(
        myocardium=myocardium,
        fat=phase * float(rng.uniform(0.8, 1.6)),
        lung=float(rng.uniform(0.03, 0.15)),
        liver=float(myocardium * rng.uniform(0.75, 1.35)),
        spleen=float(rng.uniform(0.3, 0.6)),
        stomach=float(rng.uniform(0.08, 0.7)),
        muscle=float(myocardium * rng.uniform(0.55, 0.95)),
        marrow=float(rng.uniform(0.12, 0.35)),
        right_blood=float(rng.uniform(0.72, 1.02)),
        aortic_blood=float(rng.uniform(0.8, 1.1)),
        flow=float(rng.uniform(0.04, 0.15)),
    )


@dataclass(frozen=True)
class Chest:
    """Size and shape of one subject's chest; lengths in mm.

    Attributes:
        inner: Half width and half depth of the cavity inside the ribs.
        wall: Thickness of ribs and muscle.
        fat: Thickness of the fat under the skin.
        domes: Height of the right and the left dome above the rest of the diaphragm.
        liver_edge: LPS x up to which the liver reaches under the left dome.
        stomach: Centre of the stomach.
        rib_phase: Where the ribs begin, 0 to 1.
        seat: Where the heart rests on the diaphragm, LPS.
        tissues: Signals.
    """

    inner: tuple[float, float]
    wall: float
    fat: float
    domes: tuple[float, float]
    liver_edge: float
    stomach: tuple[float, float, float]
    rib_phase: float
    seat: tuple[float, float, float]
    tissues: Tissues

    def paint(self, canvas: Canvas, points: Floats, texture: Texture) -> None:
        """Paints the chest at points ``(3, n)``."""
        points = warped(points, texture, 38.0, 3.5)
        cavity = ellipsoid(points[:2], (0.0, 0.0), self.inner)
        rough, slow = texture(points, 9.0), texture(points, 45.0, (3.0, 40.0, 17.0))
        wall = np.float32(self.wall) * (1 + np.float32(0.18) * slow)
        # More fat in front; the back is flat, for people lie on it.
        front = np.float32(0.85) - points[1] / np.float32(4 * self.inner[1])
        skin = cavity - wall - np.float32(self.fat) * (front + np.float32(0.2) * slow)
        skin = np.maximum(skin, points[1] - np.float32(self.inner[1] + self.wall + 12))
        self._paint_arms(canvas, points)
        self._paint_wall(canvas, points, cavity, wall, skin, rough)
        self._paint_inside(canvas, points, cavity, rough, texture)
        self._paint_spine(canvas, points, rough)

    def _paint_wall(
        self, canvas: Canvas, points: Floats, cavity: Floats, wall: Floats, skin: Floats, rough: Floats
    ) -> None:
        """Skin, fat, muscle and ribs."""
        tissues = self.tissues
        canvas.paint(skin, tissues.muscle)
        canvas.paint(skin + 2.0, tissues.fat * (1 + 0.06 * rough))
        muscle = cavity - wall + 2 * rough
        canvas.paint(np.maximum(muscle, skin + 4), tissues.muscle * (1 + 0.25 * rough))
        # Ribs run down and forwards; between them lie muscle and a little fat.
        height = points[2] - np.float32(0.45) * points[1]
        cycle = np.abs((height / np.float32(27.0) + np.float32(self.rib_phase)) % 1 - np.float32(0.5)) * 27.0
        rib = np.maximum(np.abs(cavity - 6.0) - 4.0, cycle - 6.0)
        canvas.paint(np.maximum(np.abs(cavity - 1.0) - 1.0, 7.5 - cycle), tissues.fat * 0.8)
        canvas.paint(rib, 0.08)
        canvas.paint(rib + 1.8, tissues.marrow)
        sternum = ellipsoid(points[:2], (0.0, -self.inner[1] - 6.0), (18.0, 6.0))
        canvas.paint(sternum, 0.08)
        canvas.paint(sternum + 1.5, tissues.marrow * 1.4 * (1 + 0.15 * rough))

    def _paint_arms(self, canvas: Canvas, points: Floats) -> None:
        """Arms beside the body, which fold into wide images."""
        side = self.inner[0] + self.wall + self.fat + 48.0
        for sign in (-1.0, 1.0):
            arm = ellipsoid(points[:2], (sign * side, 25.0), (42.0, 46.0))
            canvas.paint(arm, self.tissues.fat)
            canvas.paint(arm + 9.0, self.tissues.muscle)
            canvas.paint(arm + 33.0, self.tissues.marrow)

    def dome(self, points: Floats) -> Floats:
        """Height of the diaphragm (LPS z) above points ``(3, n)``."""
        x, y = points[0], points[1]
        right = np.exp(-(((x + 70) / 62) ** 2) - ((y - 8) / 75) ** 2)
        left = np.exp(-(((x - 95) / 48) ** 2) - ((y - 25) / 62) ** 2)
        height = np.float32(DIAPHRAGM_MM) + np.float32(self.domes[0]) * right + np.float32(self.domes[1]) * left
        seat = np.exp(-(((x - self.seat[0]) / 60) ** 2) - ((y - self.seat[1]) / 55) ** 2)
        return height + seat * (np.float32(self.seat[2]) - height)

    def _paint_inside(self, canvas: Canvas, points: Floats, cavity: Floats, rough: Floats, texture: Texture) -> None:
        """Lungs with their vessels, and the abdomen below the diaphragm."""
        tissues = self.tissues
        inside = np.flatnonzero(cavity < 1)
        if inside.size == 0:
            return
        p = points[:, inside]
        part = Canvas(canvas.signal[inside], canvas.label[inside], float(canvas.edge_mm))
        bound = cavity[inside]
        # Where two smooth fields are both near zero lies a web of thin curves: vessels.
        first, second = texture(p, 11.0, (7.3, 1.1, 4.2)), texture(p, 11.0, (31.7, 22.9, 40.3))
        web = np.hypot(first, second)
        # They are widest at the hilum.
        hilum = np.hypot(np.hypot(np.abs(p[0]) - 45, p[1] - 15), p[2] - 15)
        reach = np.float32(0.09) + np.float32(0.22) * np.exp(-hilum / 40)
        lung = tissues.lung * (1 + 0.35 * rough[inside])
        part.paint(bound, np.where(web < reach, np.float32(0.5), lung))
        # Oesophagus and fat tie the heart to the spine, fat to the sternum.
        behind = ellipsoid(p[:2], (8.0, self.inner[1] - 48.0), (27.0, 30.0)) + 3 * first
        before = ellipsoid(p[:2], (self.seat[0] - 20.0, -self.inner[1]), (42.0, 14.0)) + 4 * second
        part.paint(np.minimum(behind, before), np.float32(tissues.fat) * (np.float32(0.75) + np.float32(0.12) * second))
        part.paint(ellipsoid(p[:2], (9.0, self.inner[1] - 54.0), (9.0, 6.0)), tissues.muscle)
        below = np.maximum((p[2] - self.dome(p)) * np.float32(0.8), bound)
        part.paint(below, tissues.muscle)
        bowel = np.where(first > -0.8, np.float32(tissues.stomach) * (1 + 0.3 * second), np.float32(tissues.fat * 0.85))
        part.paint(below + 2.5, bowel.astype(np.float32))
        liver = tissues.liver * (1 + 0.09 * rough[inside])
        reach_left = self.liver_edge + 60.0
        organ = np.maximum(below + 2.5, ellipsoid(p, (-60.0, -10.0, -95.0), (reach_left, 105.0, 95.0)) + 2 * first)
        part.paint(organ, np.where(web < 0.16, np.float32(0.85), liver))
        stomach = np.maximum(ellipsoid(p, self.stomach, (46.0, 42.0, 42.0)) + 3 * first, below + 3.5)
        part.paint(stomach, tissues.muscle)
        part.paint(stomach + 4.0, tissues.stomach * (1 + 0.25 * second))
        spleen = np.maximum(ellipsoid(p, (self.inner[0] - 32.0, 48.0, -105.0), (27.0, 38.0, 48.0)), below + 3.5)
        part.paint(spleen, tissues.spleen * (1 + 0.05 * rough[inside]))
        canvas.signal[inside] = part.signal

    def _paint_spine(self, canvas: Canvas, points: Floats, rough: Floats) -> None:
        """Back muscles, vertebrae, discs, the canal with its cord, and the descending aorta."""
        tissues = self.tissues
        back = self.inner[1] - 8.0
        where = np.flatnonzero((points[1] > back - 60) & (np.abs(points[0]) < 75))
        if where.size == 0:
            return
        p, grain = points[:, where], rough[where]
        part = Canvas(canvas.signal[where], canvas.label[where], float(canvas.edge_mm))
        body = ellipsoid(p[:2], (0.0, back - 18.0), (20.0, 17.0))
        part.paint(body - 3.0, tissues.fat * 0.8)
        for side in (-1.0, 1.0):
            part.paint(ellipsoid(p[:2], (side * 27.0, back + 22.0), (24.0, 17.0)), tissues.muscle * (1 + 0.25 * grain))
        part.paint(ellipsoid(p[:2], (0.0, back + 10.0), (17.0, 15.0)), 0.12)
        part.paint(body, 0.1)
        disc = np.abs((p[2] / np.float32(25.0)) % 1 - np.float32(0.5)) * 25.0
        part.paint(np.maximum(body + 1.5, disc - 9.0), tissues.marrow * (1.2 + 0.15 * grain))
        canal = ellipsoid(p[:2], (0.0, back + 7.0), (8.5, 7.5))
        part.paint(canal, 0.95)
        part.paint(canal + 3.2, 0.45)
        path = [(17.0, back - 26.0, 75.0), (22.0, back - 30.0, 20.0), (16.0, back - 36.0, -140.0)]
        aorta = tube(p, path, (11.5, 11.5, 10.0))
        part.paint(aorta - 2.0, tissues.muscle)
        part.paint(aorta, tissues.aortic_blood * (1 + tissues.flow * grain), self.aorta_label)
        canvas.signal[where], canvas.label[where] = part.signal, part.label

    #: Label of the descending aorta, as in the heart's list.
    aorta_label = 6


def draw_chest(rng: np.random.Generator, inner: tuple[float, float], seat: tuple[float, float, float]) -> Chest:
    """Draws one subject's chest round a heart that rests at ``seat``; ``inner`` as in :class:`Chest`."""
    return Chest(
        inner=inner,
        wall=float(rng.uniform(12, 20)),
        fat=float(rng.gamma(4.0, 3.0) + 4.0),
        domes=(float(rng.uniform(28, 55)), float(rng.uniform(15, 40))),
        liver_edge=float(rng.uniform(20, 80)),
        stomach=(float(rng.uniform(55, 85)), float(rng.uniform(-25, 20)), float(rng.uniform(-135, -105))),
        rib_phase=float(rng.random()),
        seat=seat,
        tissues=draw_tissues(rng),
    )
