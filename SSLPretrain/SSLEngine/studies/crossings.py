"""How the views of a study cross: angle, length, slices, or why they do not."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..geometry import MIN_PLANE_ANGLE_DEG
from ..geometry import Segment
from ..geometry import crossing_segment
from ..geometry import plane_angle_deg
from .study import View


@dataclass(frozen=True)
class Crossing:
    """What one view (the guest) draws on the slices of another (the host).

    Attributes:
        host: Name of the host.
        guest: Name of the guest.
        angle_deg: Angle between their middle slices; None where they cannot be compared.
        length_mm: Median length of the lines that lie on both images; None where there are none.
        slices: Slices of the host that at least one slice of the guest crosses.
        why_not: Why there is no line; empty where there is one.
        segments: One entry for every host slice: the line of the guest's middle slice on it, or None.
    """

    host: str
    guest: str
    angle_deg: float | None
    length_mm: float | None
    slices: int
    why_not: str
    segments: tuple[Segment | None, ...]


def comparable_views(views: Iterable[View], view: View) -> list[View]:
    """Those views whose positions can be compared with the given one's, and it itself if it is among them."""
    return [other for other in views if other is view or not same_frame(view, other)]


def same_frame(one: View, other: View) -> str:
    """Empty where the positions of two views can be compared; else why they cannot."""
    if "position" in one.attributes or "position" in other.attributes:
        return "the header does not say where the images lie"
    uids = {one.frame_of_reference, other.frame_of_reference} - {None}
    return "they have different frames of reference (the patient may have moved)" if len(uids) > 1 else ""


def crossing_of_views(host: View, guest: View) -> Crossing:
    """How a guest crosses a host."""
    steps = crossing_slice_by_slice(host, guest)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Crossing = end.value
            return found


def crossing_slice_by_slice(host: View, guest: View) -> Generator[None, None, Crossing]:
    """As :func:`crossing_of_views`, one slice of the host at each step, for windows that must stay awake."""
    why = same_frame(host, guest)
    nothing: tuple[Segment | None, ...] = (None,) * len(host.planes)
    if why:
        return Crossing(host.name, guest.name, None, None, 0, why, nothing)
    middle = guest.planes[len(guest.planes) // 2]
    angle = plane_angle_deg(host.planes[len(host.planes) // 2], middle)
    if angle < MIN_PLANE_ANGLE_DEG:
        return Crossing(host.name, guest.name, angle, None, 0, f"they are nearly parallel ({angle:.0f}°)", nothing)
    lines: list[list[Segment | None]] = []
    for plane in host.planes:
        lines.append([crossing_segment(plane, other) for other in guest.planes])
        yield
    lengths = [s.length_mm for row in lines for s in row if s is not None]
    if not lengths:
        return Crossing(host.name, guest.name, angle, None, 0, "the planes cross outside the images", nothing)
    crossed = sum(any(s is not None for s in row) for row in lines)
    shown = tuple(row[len(guest.planes) // 2] for row in lines)
    return Crossing(host.name, guest.name, angle, float(np.median(lengths)), crossed, "", shown)
