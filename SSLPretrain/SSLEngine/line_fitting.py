"""The straight line that a heatmap shows. numpy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .geometry import Array

#: Directions that are tried first, evenly spread over half a turn.
DIRECTIONS = 60
#: Pixels below this share of the largest value do not vote for a first line.
VOTING_SHARE = 0.3


@dataclass(frozen=True)
class FittedLine:
    """A line on a heatmap.

    Attributes:
        coefficients: ``(a, b, e)`` with ``a^2 + b^2 = 1``: ``a x + b y + e`` is the signed distance in pixels.
        height: Height of the ridge along it.
        quality: Correlation of the heatmap with that of an ideal line there, 0 to 1.
        middle: Middle ``(x, y)`` of the line's part on the heatmap.
    """

    coefficients: Array
    height: float
    quality: float
    middle: Array

    def distance(self, pixel: Array) -> float:
        """Signed distance in pixels of ``(x, y)``."""
        return float(self.coefficients[:2] @ pixel + self.coefficients[2])

    def angle_deg(self, other: FittedLine) -> float:
        """Angle to another line, 0 to 90 degrees."""
        (a, b), (c, d) = self.coefficients[:2], other.coefficients[:2]
        return float(np.degrees(np.arctan2(abs(a * d - b * c), abs(a * c + b * d))))


def fit_line(heat: Array, sigma: float) -> FittedLine:
    """Fits an infinite line with a Gaussian profile to a heatmap.

    The first line is the one with the greatest sum of heat along it (so a bright blob beside a long faint line does not
    win); it is then refined by least squares of the profile itself, which, unlike a weighted mean or principal axis, is
    not drawn aside where the border cuts the line.

    Args:
        heat: ``(H, W)``, finite.
        sigma: Standard deviation of the profile in pixels.
    """
    values = np.clip(np.asarray(heat, dtype=np.float64), 0, None)
    height, width = values.shape
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    x, y = (v.ravel() for v in np.meshgrid(np.arange(width) - centre[0], np.arange(height) - centre[1]))
    heats = values.ravel()
    angle, offset = _refined(x, y, heats, sigma, *_strongest(x, y, heats, sigma))
    normal = np.array([np.cos(angle), np.sin(angle)])
    distance = x * normal[0] + y * normal[1] - offset
    model = np.exp(-0.5 * (distance / sigma) ** 2)
    amount, energy = float(model @ heats), float(model @ model)
    quality = amount / np.sqrt(max(energy * float(heats @ heats), 1e-12))
    along = np.flatnonzero(np.abs(distance) < 1)
    middle = np.array([x[along].mean(), y[along].mean()]) if len(along) else offset * normal
    middle = middle - (middle @ normal - offset) * normal + centre
    coefficients = np.array([*normal, -offset - normal @ centre])
    return FittedLine(coefficients, amount / max(energy, 1e-12), quality, middle)


def _strongest(x: Array, y: Array, values: Array, sigma: float) -> tuple[float, float]:
    """Angle of the normal and offset of the line with most heat along it, to about half a sigma.

    Args:
        x: ``(n,)`` columns of the pixels, from the middle.
        y: ``(n,)`` their rows, from the middle.
        values: ``(n,)`` their heat.
        sigma: As for :func:`fit_line`.
    """
    voting = np.flatnonzero(values > VOTING_SHARE * values.max(initial=0.0))
    if not len(voting):
        return 0.0, 0.0
    x, y, heat = x[voting], y[voting], values[voting]
    reach = int(np.ceil(np.hypot(x, y).max() / sigma)) + 1
    best = (-1.0, 0.0, 0.0)
    for angle in np.arange(DIRECTIONS) * np.pi / DIRECTIONS:
        bins = x * (np.cos(angle) / sigma) + y * (np.sin(angle) / sigma) + (reach + 0.5)
        sums = np.bincount(bins.astype(np.int32), heat)
        k = int(sums.argmax())
        if sums[k] > best[0]:
            best = (float(sums[k]), float(angle), (k - reach) * sigma)
    return best[1], best[2]


def _refined(x: Array, y: Array, values: Array, sigma: float, angle: float, offset: float) -> tuple[float, float]:
    """Gauss-Newton on height, angle and offset of the profile, over the pixels within three sigma of the line."""
    scale = max(1.0, float(x[-1]), float(y[-1]))
    for _ in range(12):
        cosine, sine = np.cos(angle), np.sin(angle)
        distance = x * cosine + y * sine - offset
        near = np.flatnonzero(np.abs(distance) < 3 * sigma)
        d, h = distance[near], values[near]
        model = np.exp(-0.5 * (d / sigma) ** 2)
        height = float(model @ h) / max(float(model @ model), 1e-12)
        if height <= 0:
            break
        # The derivatives by offset and angle are divided by the height, so that all three are of one size.
        slope = model * d / sigma**2
        turning = (x[near] * sine - y[near] * cosine) / scale
        jacobian = np.stack([model, slope, slope * turning])
        step = np.linalg.lstsq(jacobian @ jacobian.T, jacobian @ (h - height * model), rcond=None)[0]
        step[1:] /= height
        # A step of at most one sigma at the border keeps a bad start from running away.
        step *= min(1.0, sigma / max(abs(step[1]), abs(step[2]), 1e-12))
        offset, angle = offset + step[1], angle + step[2] / scale
        if max(abs(step[1]), abs(step[2])) < 1e-6:
            break
    return angle, offset
