"""The plane that lines on many slices show: what most of them agree with, refined on their heatmaps. numpy and scipy.

1. On each slice, the line that the heatmap shows (:mod:`SSLEngine.line_fitting`), with a quality.
2. Of all planes through two of those lines, the one that most slices agree with; slices far from it lose their say.
3. Least squares of the plane's own heatmaps against the predicted ones, over all slices at once: three numbers from
   some 100,000 pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from .geometry import Array
from .geometry import Plane
from .line_fitting import FittedLine
from .line_fitting import fit_line

#: A slice whose line lies further than this from a plane does not agree with it.
TOLERANCE_MM = 6.0
#: Lines of worse quality than this do not propose a plane.
MIN_QUALITY = 0.2
#: A plane is not determined by lines whose points spread less than this beside their main direction.
MIN_SPREAD_MM = 5.0
#: Places along a line that stand for it, as shares of the image's side from the line's middle.
ALONG = np.linspace(-0.25, 0.25, 5)
#: Half width, in sigmas, of the band round a plane's line in which heatmaps are compared.
BAND = 3.5
#: Sine of the angle between slice and plane below which distances are no longer stretched.
MIN_SINE = 1e-3
#: Slices that agree less with a plane than this do not move it.
MIN_WEIGHT = 1e-3
#: The plane is where it should be once moving it by a mm changes less than this share of the sum of squares.
STILL = 1e-7
#: This many mm turn a radian into mm, so that turns and shifts are of one kind.
ARM_MM = 100.0


@dataclass(frozen=True)
class Seen:
    """What the network sees of one guest on one slice.

    Attributes:
        plane: The slice on the network's grid.
        heat: Heatmap ``(P, P)``, 1 on a line that is certain.
        line: The line fitted to it.
    """

    plane: Plane
    heat: Array
    line: FittedLine

    @property
    def points(self) -> Array:
        """Five points of the line, LPS, ``(5, 3)``, over half of the image's side round its middle."""
        a, b, _ = self.line.coefficients
        return self.plane.to_patient(self.line.middle + ALONG[:, None] * self.plane.size[0] * np.array([-b, a]))

    @property
    def strength(self) -> float:
        """How much the line counts: its quality, less where its ridge is low."""
        return self.line.quality * min(1.0, self.line.height)


@dataclass(frozen=True)
class FoundPlane:
    """A plane in the patient: ``normal . p = offset``.

    Attributes:
        normal: Unit normal, LPS.
        point: The point of the plane nearest to the middle of the lines, LPS mm.
        confidence: Mean over the slices of how well its line explains the predicted heatmap, 0 to 1.
        slices: Number of slices that agree with it.
    """

    normal: Array
    point: Array
    confidence: float
    slices: int


class Lines:
    """The lines of one guest on S slices.

    Attributes:
        normals: ``(S, 3)`` of the slices.
        points: ``(S, 5, 3)`` of the lines, LPS mm.
        strengths: ``(S,)`` how much each counts.
    """

    def __init__(self, seen: Sequence[Seen]) -> None:
        self.normals = np.array([s.plane.normal for s in seen])
        self.points = np.array([s.points for s in seen])
        self.strengths = np.array([s.strength for s in seen])

    def agreement(self, normals: Array, points: Array) -> Array:
        """How much each slice agrees with planes, ``(..., S)``: its line's strength times a Gaussian of its distance.

        Args:
            normals: ``(..., 3)`` unit normals of the planes.
            points: ``(..., 3)`` a point of each.
        """
        sine = np.linalg.norm(np.cross(self.normals, normals[..., None, :]), axis=-1)
        offsets = self.points @ normals[..., None, :, None] - (points * normals).sum(-1)[..., None, None, None]
        distances = offsets[..., 0] / np.maximum(sine, 0.1)[..., None]
        return np.asarray(self.strengths * np.exp(-0.5 * (distances**2).mean(-1) / TOLERANCE_MM**2))


def see(plane: Plane, heat: Array, sigma_mm: float) -> Seen:
    """Fits the line on one slice."""
    return Seen(plane, heat, fit_line(heat, sigma_mm / plane.spacing[0]))


def find_plane(seen: Sequence[Seen], sigma_mm: float) -> FoundPlane | None:
    """The most likely plane of one guest; None where the lines do not determine one.

    Args:
        seen: One entry a slice.
        sigma_mm: Width of the lines.
    """
    start = _consensus([s for s in seen if s.strength > MIN_QUALITY])
    if start is None:
        return None
    normal, point = start
    lines = Lines(seen)
    for _ in range(3):
        normal, point = _refined(seen, lines.agreement(normal, point), normal, point, sigma_mm)
    point = start[1] - (start[1] - point) @ normal * normal
    agreeing = lines.agreement(normal, point) > np.exp(-0.5 * 2**2)
    confidence = float(np.mean([_explained(s, normal, point, sigma_mm) for s in seen]))
    return FoundPlane(normal, point, confidence, int(agreeing.sum()))


def _through(points: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Planes through weighted points ``(..., n, 3)``: normals, centroids, and the spreads in mm that determine them."""
    shares = weights / weights.sum(-1, keepdims=True)
    centroids = (shares[..., None] * points).sum(-2)
    offsets = (points - centroids[..., None, :]) * np.sqrt(shares)[..., None]
    _, values, vectors = np.linalg.svd(offsets, full_matrices=False)
    return vectors[..., 2, :], centroids, values[..., 1]


def _consensus(seen: Sequence[Seen]) -> tuple[Array, Array] | None:
    """Normal and a point of the plane through two lines that the lines of most strength agree with."""
    if len(seen) < 2:
        return None
    lines = Lines(seen)
    one, other = np.triu_indices(len(seen), 1)
    pairs = np.concatenate([lines.points[one], lines.points[other]], axis=1)
    normals, points, spreads = _through(pairs, np.ones(pairs.shape[:2]))
    support = np.where(spreads < MIN_SPREAD_MM, -np.inf, lines.agreement(normals, points).sum(-1))
    best = int(support.argmax())
    normal, point, spread = normals[best], points[best], spreads[best]
    for _ in range(5):
        if spread < MIN_SPREAD_MM:
            return None
        weights = np.repeat(lines.agreement(normal, point), len(ALONG))
        normal, point, spread = _through(lines.points.reshape(-1, 3), weights)
    return None if spread < MIN_SPREAD_MM else (normal, point)


def _distances(plane: Plane, normal: Array, point: Array) -> Array:
    """In-plane distance in mm of every pixel ``(H, W)`` from the line where a plane cuts a slice."""
    sine = max(float(np.linalg.norm(np.cross(plane.normal, normal))), MIN_SINE)
    across, down = plane.spacing[0] * plane.x_direction @ normal, plane.spacing[1] * plane.y_direction @ normal
    columns = np.arange(plane.size[0]) * across + (plane.origin - point) @ normal
    rows = np.arange(plane.size[1]) * down
    return np.asarray((rows[:, None] + columns) / sine)


def _explained(seen: Seen, normal: Array, point: Array, sigma_mm: float) -> float:
    """Correlation of a predicted heatmap with the plane's own, times its height (at most 1)."""
    model = np.exp(-0.5 * (_distances(seen.plane, normal, point) / sigma_mm) ** 2).ravel()
    heat = np.clip(seen.heat.ravel(), 0, None).astype(np.float64)
    product, energy = float(model @ heat), float(model @ model)
    correlation = product / np.sqrt(max(energy * float(heat @ heat), 1e-12))
    return correlation * min(1.0, product / max(energy, 1e-12))


# ---------------------------------------------------------------------------------------------
# Least squares of the heatmaps


@dataclass(frozen=True)
class Band:
    """The part of a slice near the line where a plane cuts it, with n pixels.

    It stays the same while the plane moves, so that the number of residuals does too.

    Attributes:
        pixels: ``(n, 3)`` their places, LPS mm.
        heat: ``(n,)`` the predicted heatmap there.
        host: Unit normal of the slice.
        weight: How much the slice counts.
    """

    pixels: Array
    heat: Array
    host: Array
    weight: float

    def compare(self, normal: Array, point: Array, turns: Array, rise: float, sigma: float) -> tuple[float, Array]:
        """Sum of squares of the heatmap less a plane's own, and its derivatives by three unknowns, ``(3,)``.

        The height of the ridge is the best one for each plane, so that it has no part in the derivatives.

        Args:
            normal: Of the plane.
            point: A point of it.
            turns: ``(2, 3)`` derivatives of the normal by the first two unknowns.
            rise: Derivative of the plane's distance from the origin by the third one, a shift in mm.
            sigma: Width of the lines in mm.
        """
        sine = max(float(np.linalg.norm(np.cross(self.host, normal))), MIN_SINE)
        offsets = self.pixels - point
        distance = offsets @ normal / sine
        profile = np.exp(-0.5 * (distance / sigma) ** 2)
        height = max(float(profile @ self.heat) / max(float(profile @ profile), 1e-9), 0.0)
        residuals = self.heat - height * profile
        pull = 2 * height / sigma**2 * residuals * profile * distance
        # The angle between slice and plane changes too as the plane turns, except where it is kept from vanishing.
        widening = (self.host @ normal) * (turns @ self.host) / sine**2 if sine > MIN_SINE else np.zeros(2)
        turning = turns @ (pull @ offsets) / sine + (pull @ distance) * widening
        return float(residuals @ residuals), np.array([*turning, -pull.sum() * rise / sine])


def _bands(seen: Sequence[Seen], weights: Array, normal: Array, point: Array, sigma_mm: float) -> Iterator[Band]:
    for s, weight in zip(seen, weights, strict=True):
        if weight >= MIN_WEIGHT:
            rows, columns = np.nonzero(np.abs(_distances(s.plane, normal, point)) < BAND * sigma_mm)
            pixels = s.plane.to_patient(np.stack([columns, rows], axis=1))
            yield Band(pixels, s.heat[rows, columns].astype(np.float64), s.plane.normal, float(weight))


def _refined(seen: Sequence[Seen], weights: Array, normal: Array, point: Array, sigma_mm: float) -> tuple[Array, Array]:
    """Least squares of the plane's heatmaps against the predicted ones.

    The three unknowns are turns about two axes in the plane, through ``point``, and a shift along the normal.
    """
    bands = list(_bands(seen, weights, normal, point, sigma_mm))
    if not bands:
        return normal, point
    axes = np.linalg.svd(normal[None])[2][1:] / ARM_MM

    def moved(unknown: Array) -> tuple[Array, Array]:
        turned = normal + unknown[:2] @ axes
        return turned / np.linalg.norm(turned), point + unknown[2] * normal

    def misfit(unknown: Array) -> tuple[float, Array]:
        n, p = moved(unknown)
        turns = (axes - np.outer(axes @ n, n)) * (n @ normal)
        parts = [band.compare(n, p, turns, float(n @ normal), sigma_mm) for band in bands]
        cost = sum(band.weight * part[0] for band, part in zip(bands, parts, strict=True))
        return cost, np.sum([band.weight * part[1] for band, part in zip(bands, parts, strict=True)], axis=0)

    scale = sum(band.weight * float(band.heat @ band.heat) for band in bands)
    solution = minimize(misfit, np.zeros(3), jac=True, method="BFGS", options={"gtol": STILL * scale})
    return moved(solution.x)
