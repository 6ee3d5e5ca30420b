"""The shape of a knee that varies like a population: bones, cartilage, menisci and ligaments as distances.

Knee coordinates ``(u, v, w)`` in mm: the origin is the middle of the tibial plateau, ``u`` runs laterally,
``v`` backwards, ``w`` along the tibia's shaft upwards. They are right-handed for a left knee and left-handed for a
right one, so that a right knee is the mirror image of a left one. The femur has coordinates of its own, with the
lowest point of its condyles at ``w`` = 0: it turns about the middle of its posterior condyles and thereby bends the
knee, and the patella rides on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ..geometry import Array
from .shapes import Floats
from .shapes import blend
from .shapes import ellipsoid
from .shapes import smooth_path
from .shapes import tube

FEMUR, TIBIA, PATELLA = 1, 2, 3
FEMORAL_CARTILAGE, TIBIAL_CARTILAGE, PATELLAR_CARTILAGE = 4, 5, 6
MENISCI, CRUCIATES, EFFUSION = 7, 8, 9
GROUPS = ("normal", "effusion")
#: Share of each group in the population.
GROUP_SHARES = (0.6, 0.4)
SIDES = ("left", "right")
#: Distance from anything that is not near, mm.
FAR = np.float32(1e3)
#: Centre ``(v, w)`` and radius of the circles that a condyle's outline follows: behind, and below and in front.
POSTERIOR = (10.5, 20.0, 20.0)
ANTERIOR = (-5.5, 25.0, 25.0)


@dataclass(frozen=True)
class KneeShape:
    """One subject's knee; lengths in mm, those of bones before ``scale``.

    Attributes:
        group: One of :data:`GROUPS`.
        side: ``left`` or ``right``.
        origin: Middle of the tibial plateau, LPS.
        axes: Rows are the directions u, v, w in LPS.
        scale: Size of everything but cartilage, relative to the mean adult.
        widths: Scale of femur and tibia across and from front to back, relative to ``scale``.
        flexion: Bend of the knee, radians.
        cartilage: Thickness of femoral, tibial and patellar cartilage where it is thickest.
        worn: Places on the condyles (femur coordinates) where cartilage is lost, ``(u, v, radius, share lost)``.
        notch: Half width of the intercondylar notch.
        groove: How much higher the lateral rim of the trochlea is than the medial one.
        rise: How high the femur stands over the plateau.
        patella: Middle of the patella, femur coordinates.
        patella_tilt: Of its long axis in the sagittal plane, radians, from the femur's shaft.
        patella_radii: Half width, depth and height of the patella.
        meniscus: Height at the outer rim and width of the menisci.
        fluid: Thickness of fluid in the suprapatellar recess.
        fat: Thickness of the fat under the skin.
        muscle: Scale of the muscles' girth.
    """

    group: str
    side: str
    origin: tuple[float, float, float]
    axes: Array
    scale: float
    widths: tuple[float, float]
    flexion: float
    cartilage: tuple[float, float, float]
    worn: tuple[tuple[float, float, float, float], ...]
    notch: float
    groove: float
    rise: float
    patella: tuple[float, float, float]
    patella_tilt: float
    patella_radii: tuple[float, float, float]
    meniscus: tuple[float, float]
    fluid: float
    fat: float
    muscle: float

    def to_patient(self, points: npt.ArrayLike) -> Array:
        """Knee coordinates ``(..., 3)`` to LPS mm."""
        return self.scale * np.asarray(points, dtype=np.float64) @ self.axes + np.asarray(self.origin)

    def to_knee(self, points: Floats) -> Floats:
        """LPS mm ``(3, n)`` to knee coordinates of the mean adult's size, ``(3, n)``."""
        offset = points - np.asarray(self.origin, np.float32)[:, None]
        return (self.axes / self.scale).astype(np.float32) @ offset

    @property
    def hinge(self) -> tuple[float, float]:
        """``(v, w)`` in knee coordinates of the axis about which the femur turns."""
        return POSTERIOR[0] - 6.0, POSTERIOR[1] + self.rise

    def to_femur(self, p: Floats) -> Floats:
        """Knee coordinates ``(3, n)`` to the femur's."""
        return turned(p, self.hinge, POSTERIOR[:2], -self.flexion)

    def from_femur(self, p: npt.ArrayLike) -> Floats:
        """The femur's coordinates ``(3, n)`` to those of the knee."""
        return turned(np.asarray(p, np.float32), POSTERIOR[:2], self.hinge, self.flexion)

    def to_patella(self, femoral: Floats) -> Floats:
        """The femur's coordinates ``(3, n)`` to the patella's, which start at its middle."""
        centre = np.asarray(self.patella, np.float32)
        moved = femoral - np.array([[centre[0]], [0], [0]], np.float32)
        return turned(moved, (self.patella[1], self.patella[2]), (0.0, 0.0), -self.patella_tilt)


def turned(p: Floats, pivot: tuple[float, float], goal: tuple[float, float], angle: float) -> Floats:
    """Points ``(3, n)`` turned about ``(v, w) = pivot``, from up to backwards, the pivot moved to ``goal``."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    v, w = p[1] - np.float32(pivot[0]), p[2] - np.float32(pivot[1])
    return np.stack([p[0], c * v + s * w + np.float32(goal[0]), c * w - s * v + np.float32(goal[1])])


def both(first: Floats, second: Floats, reach: float) -> Floats:
    """Intersection of two bodies with its edge rounded off over ``reach`` mm."""
    return -blend(-first, -second, reach)


def disc(x: Floats, y: Floats, a: Floats, b: Floats) -> Floats:
    """Distance (first order) from ellipses of half axes ``a`` and ``b``, all ``(n,)``."""
    scaled = np.sqrt((x / a) ** 2 + (y / b) ** 2)
    slope = np.sqrt((x / a**2) ** 2 + (y / b**2) ** 2) + np.float32(1e-6)
    return scaled * (scaled - 1) / slope


def _condyle_profile(v: Floats, w: Floats) -> Floats:
    """Distance from the outline of the condyles in the sagittal plane."""
    behind = np.hypot(v - np.float32(POSTERIOR[0]), w - np.float32(POSTERIOR[1])) - np.float32(POSTERIOR[2])
    below = np.hypot(v - np.float32(ANTERIOR[0]), w - np.float32(ANTERIOR[1])) - np.float32(ANTERIOR[2])
    return blend(behind, below, 4.0)


def notch(shape: KneeShape, f: Floats) -> Floats:
    """Distance from the intercondylar notch, femur coordinates ``(3, n)``; its roof is Blumensaat's line."""
    u, v, w = f
    roof = np.minimum((w - 6 - np.float32(1.05) * (v + 8)) / np.float32(1.45), 9 - v)
    return both(np.abs(u) - np.float32(shape.notch), roof, 6.0)


def femur(shape: KneeShape, f: Floats) -> Floats:
    """Distance from the femur, femur coordinates ``(3, n)``."""
    u = f[0] / np.float32(shape.widths[0])
    v, w = f[1] / np.float32(shape.widths[1]), f[2]
    across = np.abs(u)
    crown = (across - 21) / 14
    rim = np.float32(shape.groove) * np.clip(u / 20, -1, 1) * np.clip(-v / 25, 0, 1)
    outline = _condyle_profile(v, w) + np.where(crown < 0, np.float32(2.6), 5) * crown * crown - rim
    # The epicondyles are the widest place; the width falls off towards the shaft and towards the plateau.
    side = across - 38 + np.where(w > 26, np.float32(0.012), np.float32(0.006)) * (w - 26) ** 2
    side = side + np.float32(0.3) * np.maximum(-5 - v, 0)
    ends = both(outline, side, 7.0)
    ends = both(ends, -notch(shape, f), 3.0)
    flare = np.exp(-np.square(np.maximum(w - 30, 0)) / np.float32(2 * 22**2))
    shaft = disc(u, v + 10 - 8 * flare, 13.5 + 18 * flare, 13.0 + 4 * flare)
    return blend(ends, both(shaft, 34 - w, 10.0), 10.0)


def femoral_cartilage(shape: KneeShape, f: Floats) -> Floats:
    """Thickness of the femoral cartilage over points, femur coordinates ``(3, n)``; 0 where there is none."""
    u, v, w = f
    across = np.abs(u) / np.float32(shape.widths[0])
    edge = np.clip((34 - across) / 6, 0, 1) * np.clip((notch(shape, f) + 0.5) / 3, 0, 1)
    # It ends at the top of the trochlea in front and of the condyles behind.
    end = np.clip((np.where(v < -4, 46 - w, 37 - w)) / 5, 0, 1) * np.clip((np.abs(v + 4) + 20 - w) / 6, 0, 1)
    thick = np.sqrt(edge * end) * (1 + np.float32(0.15) * np.sin(u / 9 + v / 11))
    for cu, cv, radius, share in shape.worn:
        away = ((u - np.float32(cu)) ** 2 + (v - np.float32(cv)) ** 2) / np.float32(radius**2)
        thick = thick * (1 - np.float32(share) * np.exp(-away * away))
    return np.float32(shape.cartilage[0] / shape.scale) * thick


def plateau(p: Floats) -> Floats:
    """Height of the tibial plateau's bone at ``(u, v)``: sloped backwards, dished medially, with two spines."""
    u, v = p[0], p[1]
    across = np.abs(u)
    dish = (across - 20) ** 2 / 15**2 + v**2 / 20**2
    depth = np.where(u < 0, np.float32(-2.2), np.float32(0.6)) * np.clip(1 - dish, 0, 1)
    spines = np.exp(-(((across - 5) / 4) ** 2) - ((v - 2 - u / 3) / 9) ** 2) * np.where(u < 0, np.float32(8.5), 7)
    return depth + spines - np.float32(0.1) * v


def tibia(shape: KneeShape, p: Floats) -> Floats:
    """Distance from the tibia, knee coordinates ``(3, n)``."""
    u = p[0] / np.float32(shape.widths[0])
    v, w = p[1] / np.float32(shape.widths[1]), p[2]
    taper = np.exp(-np.square(np.maximum(-w - 4, 0)) / np.float32(2 * 19**2))
    back = 5 * np.exp(-((u / 8) ** 2)) * np.clip(v / 15, 0, 1)
    side = disc(u, v - 3 + 3 * taper, 15.5 + 22 * taper, 15 + 10 * taper) + back
    tubercle = tube(np.stack([u, v, w]), [(2, -18, -30), (2, -19, -40), (1, -10, -62)], (8, 7, 7))
    body = blend(side, tubercle, 10.0)
    return both(body, (w - plateau(p)) * np.float32(0.96), 4.0)


def tibial_cartilage(shape: KneeShape, p: Floats) -> Floats:
    """Thickness of the tibial cartilage over points, knee coordinates ``(3, n)``; 0 where there is none."""
    u, v, w = p
    across = np.abs(u) / np.float32(shape.widths[0])
    depth = np.where(u < 0, np.float32(20.5), 18)
    share = ((across - 20.5) / 14.0) ** 2 + ((v / np.float32(shape.widths[1]) - 1) / depth) ** 2
    thick = np.sqrt(np.clip(np.float32(1.15) - share, 0, 1)) * (w > -7)
    return np.float32(shape.cartilage[1] / shape.scale) * thick


def patella(shape: KneeShape, q: Floats) -> Floats:
    """Distance from the patella, patella coordinates ``(3, n)``: rounded in front, two facets behind."""
    across, deep, high = shape.patella_radii
    body = ellipsoid(q, (0.0, 0.0, 0.0), (across, deep, high))
    facets = q[1] - np.float32(0.62 * deep) + np.float32(0.30) * np.abs(q[0] + 2) + np.float32(0.006) * q[2] ** 2
    return both(body, facets, 3.0)


def patellar_cartilage(shape: KneeShape, q: Floats) -> Floats:
    """Thickness of the patellar cartilage over points, patella coordinates ``(3, n)``; 0 where there is none."""
    across, deep, high = shape.patella_radii
    middle = np.float32(0.12 * high)
    share = (q[0] / np.float32(0.85 * across)) ** 2 + ((q[2] - middle) / np.float32(0.72 * high)) ** 2
    behind = np.clip((q[1] + np.float32(0.1 * deep)) / 3, 0, 1)
    return np.float32(shape.cartilage[2] / shape.scale) * np.sqrt(np.clip(np.float32(1.1) - share, 0, 1)) * behind


def menisci(shape: KneeShape, p: Floats, over_tibia: Floats) -> Floats:
    """Distance from the menisci's wedges, to be cut by the femur and its cartilage.

    Args:
        shape: The knee.
        p: Knee coordinates, ``(3, n)``.
        over_tibia: Height over the tibial cartilage, ``(n,)``.
    """
    height, width = shape.meniscus
    u, v = p[0] / np.float32(shape.widths[0]), p[1] / np.float32(shape.widths[1])
    across = np.abs(u)
    medial = u < 0
    depth = np.where(medial, np.float32(23.5), 19.5)
    middle = np.where(medial, np.float32(19.0), 20.0)
    offset_u, offset_v = across - middle, v - 1
    ring = disc(offset_u, offset_v, np.full_like(depth, 17.5), depth)
    # The medial meniscus is broader behind; the lateral one is broad all round and nearly closed.
    broad = np.float32(width) * np.where(medial, 1 + np.float32(0.018) * v, np.float32(1.05))
    slope = np.float32(height) * (ring + broad) / broad
    wedge = np.maximum(over_tibia - slope, -over_tibia + np.float32(0.2))
    opening = np.where(medial, np.float32(8.5), 7.0) - across
    return np.maximum(np.maximum(ring, -ring - broad), np.maximum(wedge * np.float32(0.8), opening))


def cruciates(shape: KneeShape, p: Floats) -> tuple[Floats, Floats]:
    """Distance from the anterior and the posterior cruciate ligament, knee coordinates ``(3, n)``."""
    wall = shape.notch + 0.5
    ends = np.array([(wall - 3, 14.0, 28.0), (3.5 - wall, 0.0, 15.0), (1 - 0.4 * wall, 9.0, 21.0)]).T
    lateral, medial, bend = shape.from_femur(ends).T
    front = smooth_path([lateral, (3.0, 3.0, 15.0 + shape.rise / 2), (-1.5, -10.0, 2.5)], 2)
    back = smooth_path([medial, bend, (0.0, 18.0, 9.0), (0.5, 23.0, -7.0)], 2)
    return (
        tube(p, front, np.linspace(4.0, 5.2, len(front))),
        tube(p, back, np.linspace(4.8, 4.4, len(back))),
    )


def seated(shape: KneeShape) -> KneeShape:
    """The knee with its femur put down on the tibial cartilage and its patella against the trochlea."""
    u, v = np.meshgrid(np.linspace(-32, 32, 40), np.linspace(-18, 20, 30))
    grid = np.stack([u.ravel(), v.ravel(), np.zeros(u.size)]).astype(np.float32)
    ground = grid.copy()
    ground[2] = plateau(grid)
    ground[2] += tibial_cartilage(shape, ground)
    ground = ground[:, np.abs(ground[0]) > 10]
    for _ in range(4):
        f = shape.to_femur(ground)
        gap = float((femur(shape, f) - femoral_cartilage(shape, f)).min())
        shape = replace(shape, rise=shape.rise + 0.35 - gap)
    return _patella_seated(shape)


def _patella_seated(shape: KneeShape) -> KneeShape:
    """The knee with its patella moved until its cartilage just does not touch that of the femur."""
    axes = [np.linspace(-r, r, 15) for r in shape.patella_radii]
    q = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(3, -1).astype(np.float32)
    q = q[:, patella(shape, q) - patellar_cartilage(shape, q) < 0]
    for _ in range(4):
        across, front, up = shape.patella
        f = turned(q, (0.0, 0.0), (front, up), shape.patella_tilt)
        f[0] += np.float32(across)
        gap = float((femur(shape, f) - femoral_cartilage(shape, f)).min())
        shape = replace(shape, patella=(across, front - 0.5 + gap, up))
    return shape


def draw_knee(rng: np.random.Generator, side: str | None = None, group: str | None = None) -> KneeShape:
    """Draws one subject from the population, or from one of its groups.

    Args:
        rng: Source of chance.
        side: ``left`` or ``right``; drawn where it is None. The rest of the knee does not depend on it.
        group: One of :data:`GROUPS`; drawn where it is None. Only the fluid depends on it.
    """
    drawn = str(rng.choice(SIDES))
    side = drawn if side is None else side
    drawn = str(rng.choice(GROUPS, p=GROUP_SHARES))
    group = drawn if group is None else group
    scale = float(np.clip(rng.normal(1.0, 0.07), 0.84, 1.18))
    flexion = float(np.radians(rng.uniform(2, 20)))
    fluid = rng.uniform(5.0, 13.0) if group == "effusion" else rng.uniform(0.4, 1.4)
    age = float(rng.uniform(0, 1))
    worn = tuple(
        (float(rng.choice([-21, 21]) + rng.normal(0, 3)), float(rng.uniform(-14, 14)), float(rng.uniform(6, 12)), share)
        for share in rng.uniform(0.3, 1.0, int(rng.integers(0, 3)))
        if age > 0.3
    )
    thin = 1 - 0.25 * age
    origin = (float(rng.uniform(60, 110)), float(rng.normal(0, 8)), float(rng.normal(0, 10)))
    axes = _axes(rng)
    if side == "right":
        origin = (-origin[0], origin[1], origin[2])
        axes = axes * np.array([-1.0, 1.0, 1.0])
    return seated(
        KneeShape(
            group=group,
            side=side,
            origin=origin,
            axes=axes,
            scale=scale,
            widths=(float(rng.normal(1, 0.035)), float(rng.normal(1, 0.03))),
            flexion=flexion,
            cartilage=(
                float(rng.uniform(2.2, 2.9) * thin),
                float(rng.uniform(2.2, 3.1) * thin),
                float(rng.uniform(2.8, 4.2) * thin),
            ),
            worn=worn,
            notch=float(rng.uniform(8.5, 11)),
            groove=float(rng.uniform(0.5, 2.5)),
            rise=6.0,
            patella=(float(rng.normal(2.0, 1.2)), -42.0, float(37 + rng.normal(0, 3) - 22 * np.sin(flexion))),
            patella_tilt=float(rng.normal(0.0, 0.05) + 0.5 * flexion),
            patella_radii=(float(rng.normal(22, 1.2)), float(rng.normal(12.0, 0.7)), float(rng.normal(21, 1.3))),
            meniscus=(float(rng.uniform(6.0, 7.8)), float(rng.uniform(9.0, 11.5))),
            fluid=float(fluid),
            fat=float(np.clip(rng.gamma(3.0, 2.4), 2.5, 20)),
            muscle=float(rng.normal(1.0, 0.1)),
        )
    )


def _axes(rng: np.random.Generator) -> Array:
    """Directions u, v, w (rows) of one left knee, LPS: turned outwards and tilted by some degrees."""
    about_z, about_y, about_x = np.radians([rng.normal(8, 6), rng.normal(2, 3), rng.normal(0, 3)])
    c, s = np.cos(about_z), np.sin(about_z)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    c, s = np.cos(about_y), np.sin(about_y)
    turn = turn @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    c, s = np.cos(about_x), np.sin(about_x)
    return np.asarray((turn @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])).T)
