"""Turns a body into the pictures that a scanner would make of it, plane by plane.

A body is anything that tells the signal and the label at points in the patient. A slice is the mean of
the signal over its thickness (so borders that run obliquely through it are blurred, as in life), seen
through the point spread of the acquisition, the receive coils and the noise of a magnitude image.
Fat may be given a negative signal: its phase is then opposed to that of water and the borders
between them cancel to the dark outline that balanced steady-state images show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from ..geometry import Plane
from .metal import Metal
from .metal import add_artefact

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]


class Body(Protocol):
    """Something that can be imaged."""

    def sample(self, points: Floats, phases: Sequence[float]) -> tuple[Floats, Labels]:
        """Signal and label at points of the patient.

        Args:
            points: LPS mm, ``(3, n)``.
            phases: States of motion, organ-specific; one element for an organ at rest.

        Returns:
            Signal (blood is about 1) and label, both ``(len(phases), n)``.
        """
        ...


@dataclass(frozen=True)
class Imaging:
    """How a scanner turns signal into pixels; drawn once a study.

    Attributes:
        coils: Centres of the receive coil's elements, LPS mm, ``(k, 3)``.
        coil_reach: Distance in mm at which an element has lost half its sensitivity.
        reference: Where the coil's profile is 1, LPS mm, ``(3,)``.
        shading: What is left of the coil's profile after the scanner's correction, 0 (none) to 1 (all).
        noise: Standard deviation of the noise relative to the signal of blood, at the reference point.
        sharpness: Standard deviation of the point spread in mm.
        gain: Grey value of a signal of 1.
        maximum: Largest grey value that is written.
        sub_slices: Planes over which the slice thickness is integrated.
        round_field: Whether pixels outside the circle round the image are blanked, as some scanners do.
    """

    coils: Floats
    coil_reach: float
    reference: Floats
    shading: float
    noise: float
    sharpness: float
    gain: float
    maximum: int
    sub_slices: int = 3
    round_field: bool = False


def draw_imaging(rng: np.random.Generator, coils: Floats, reference: Floats) -> Imaging:
    """Draws a scanner: field strength, coil, reconstruction and grey scale vary from study to study."""
    return Imaging(
        coils=coils + rng.normal(0, 15, coils.shape).astype(np.float32),
        coil_reach=float(rng.uniform(80, 150)),
        reference=reference + rng.normal(0, 25, 3).astype(np.float32),
        shading=float(rng.uniform(0.25, 1.2)),
        noise=float(np.exp(rng.uniform(np.log(0.01), np.log(0.045)))),
        sharpness=float(rng.uniform(0.75, 1.2)),
        gain=float(np.exp(rng.uniform(np.log(110), np.log(900)))),
        maximum=4095,
        round_field=bool(rng.random() < 0.3),
    )


def plane_points(plane: Plane, offset_mm: float, shift: npt.ArrayLike) -> Floats:
    """Points of the anatomy that a plane's pixels see.

    Args:
        plane: The image.
        offset_mm: Distance from the plane along its normal.
        shift: How far the anatomy has moved since the plane was laid, LPS mm, ``(3,)``.

    Returns:
        LPS mm, ``(3, rows * columns)``.
    """
    start = (plane.origin + offset_mm * plane.normal - np.asarray(shift)).astype(np.float32)
    across = (plane.spacing[0] * plane.x_direction).astype(np.float32)
    down = (plane.spacing[1] * plane.y_direction).astype(np.float32)
    columns = np.arange(plane.size[0], dtype=np.float32)
    rows = np.arange(plane.size[1], dtype=np.float32)
    grid = start[:, None, None] + across[:, None, None] * columns + down[:, None, None] * rows[:, None]
    return np.ascontiguousarray(grid.reshape(3, -1))


def coil_profile(points: Floats, imaging: Imaging) -> Floats:
    """Receive sensitivity at points ``(3, n)``: root of the sum of squares over the elements, 1 at the reference."""
    total = np.zeros(points.shape[1] + 1, dtype=np.float32)
    everywhere = np.concatenate([points, imaging.reference[:, None]], axis=1)
    for centre in imaging.coils:
        away = everywhere - centre[:, None]
        squared = np.einsum("in,in->n", away, away) / np.float32(imaging.coil_reach**2)
        total += (1 + squared) ** -2
    return (total[:-1] / total[-1]) ** np.float32(0.5 * imaging.shading)


def render(
    body: Body,
    planes: Sequence[Plane],
    phases: Sequence[float],
    imaging: Imaging,
    rng: np.random.Generator,
    shifts: npt.ArrayLike | None = None,
    metal: Metal | None = None,
) -> tuple[Floats, Labels]:
    """Images a body along planes.

    Labels are those of the tissue at the centre of the slice, so that label maps of crossing planes agree
    along the line where they cross. The bit :data:`~.shapes.LESION` marks pixels of a lesion.

    Args:
        body: What is imaged.
        planes: Planes with their slice thickness; all of one size.
        phases: States of motion, see :meth:`Body.sample`.
        imaging: The scanner.
        rng: Source of the noise.
        shifts: Displacement of the anatomy at each plane (breath-hold position), LPS mm, ``(planes, 3)``.
        metal: Something in the patient that disturbs the field.

    Returns:
        Grey values (whole numbers) and labels, both ``(phases, planes, rows, columns)``.
    """
    columns, rows = planes[0].size
    moved = np.zeros((len(planes), 3)) if shifts is None else np.asarray(shifts, dtype=np.float64)
    pixels = np.empty((len(phases), len(planes), rows, columns), dtype=np.float32)
    labels = np.empty(pixels.shape, dtype=np.uint8)
    for k, plane in enumerate(planes):
        signal, labels[:, k] = _slice(body, plane, phases, imaging, moved[k])
        if metal is not None:
            seen = partial(plane_points, plane)
            signal, labels[:, k] = add_artefact(metal, signal, labels[:, k], seen, moved[k], plane)
        pixels[:, k] = _magnitude(signal, plane, imaging, rng)
    return pixels, labels


def _slice(
    body: Body, plane: Plane, phases: Sequence[float], imaging: Imaging, shift: npt.NDArray[np.float64]
) -> tuple[Floats, Labels]:
    """Mean signal over the thickness and labels at the centre, ``(phases, rows, columns)``."""
    count = imaging.sub_slices
    offsets = ((np.arange(count) + 0.5) / count - 0.5) * plane.thickness
    shape = (len(phases), plane.size[1], plane.size[0])
    total: Floats = np.zeros((len(phases), shape[1] * shape[2]), dtype=np.float32)
    centre: Labels | None = None
    for number, offset in enumerate(offsets):
        signal, label = body.sample(plane_points(plane, float(offset), shift), phases)
        total += signal
        if number == count // 2:
            centre = label
    assert centre is not None
    total /= np.float32(count)
    return total.reshape(shape), centre.reshape(shape)


def _magnitude(signal: Floats, plane: Plane, imaging: Imaging, rng: np.random.Generator) -> Floats:
    """Point spread, coil, Rician noise and grey scale: ``(phases, rows, columns)`` to whole grey values."""
    sigma = [imaging.sharpness / plane.spacing[1], imaging.sharpness / plane.spacing[0]]
    blurred = np.stack([ndimage.gaussian_filter(frame, sigma, truncate=3.0) for frame in signal])
    profile = coil_profile(plane_points(plane, 0.0, np.zeros(3)), imaging).reshape(signal.shape[1:])
    noise = rng.standard_normal((2, *signal.shape), dtype=np.float32)
    # Scanners interpolate their images, so the noise of neighbouring pixels is related.
    noise = ndimage.gaussian_filter(noise, (0, 0, 0.5, 0.5), truncate=2.0)
    noise *= np.float32(imaging.noise) / noise.std()
    magnitude = np.hypot(blurred * profile + noise[0], noise[1])
    if imaging.round_field:
        magnitude *= _circle(plane)
    return np.clip(np.rint(magnitude * imaging.gain), 0, imaging.maximum).astype(np.float32)


def _circle(plane: Plane) -> Floats:
    """1 inside the largest circle round the image's centre that the longer side holds, else 0."""
    columns, rows = plane.size
    x = (np.arange(columns) - (columns - 1) / 2) * plane.spacing[0]
    y = (np.arange(rows) - (rows - 1) / 2) * plane.spacing[1]
    return (np.hypot(x, y[:, None]) <= max(plane.extent) / 2).astype(np.float32)
