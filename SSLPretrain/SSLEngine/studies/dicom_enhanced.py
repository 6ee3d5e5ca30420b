"""Frames of enhanced multi-frame MR images, whose geometry stands in functional groups: per frame first, else shared.

DICOM PS3.3 C.7.6.16: Plane Position (0020,9113), Plane Orientation (0020,9116), Pixel Measures (0028,9110), Frame
Content (0020,9111), Cardiac Synchronization (0018,9118), MR Image Frame Type (0018,9226), MR Echo (0018,9114).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pydicom

from .dicom import ORIGINAL
from .dicom import Frame
from .dicom import UnusableError
from .dicom import check_placed


def enhanced_frames(ds: pydicom.Dataset, common: Frame) -> list[Frame]:
    """The placed frames of a multi-frame file.

    Args:
        ds: Its header.
        common: What the whole file says, as if it were one frame.

    Raises:
        UnusableError: It has no functional groups, or none of its frames is placed in the patient.
    """
    shared = _first(ds, "SharedFunctionalGroupsSequence")
    per_frame: Sequence[pydicom.Dataset] = ds.get("PerFrameFunctionalGroupsSequence") or []
    if not per_frame:
        raise UnusableError("a multi-frame image without a position for each frame", ORIGINAL)
    frames: list[Frame] = []
    problem: UnusableError | None = None
    for index, own in enumerate(per_frame):
        frame = _placed(common, _Groups(own, shared), index, len(per_frame))
        try:
            check_placed(frame)
            frames.append(frame)
        except UnusableError as error:
            problem = error
    if not frames:
        raise problem or UnusableError("a multi-frame image without frames")
    return frames


class _Groups:
    """Looks a value up in a frame's own functional groups, then in the shared ones."""

    def __init__(self, own: pydicom.Dataset, shared: pydicom.Dataset | None) -> None:
        self.groups = [g for g in (own, shared) if g is not None]

    def get(self, sequence: str, keyword: str) -> Any:
        for group in self.groups:
            item = _first(group, sequence)
            value = None if item is None else item.get(keyword)
            if value is not None and str(value):
                return value
        return None

    def numbers(self, sequence: str, keyword: str) -> tuple[float, ...]:
        value = self.get(sequence, keyword)
        if value is None:
            return ()
        values = [value] if isinstance(value, (str, int, float)) else value
        return tuple(float(v) for v in values)


def _first(ds: pydicom.Dataset, keyword: str) -> pydicom.Dataset | None:
    items = ds.get(keyword)
    return items[0] if items else None


def _placed(common: Frame, groups: _Groups, index: int, frames: int) -> Frame:
    trigger = groups.numbers("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime")
    temporal = groups.numbers("FrameContentSequence", "TemporalPositionIndex")
    kind = groups.get("MRImageFrameTypeSequence", "FrameType")
    thickness = groups.numbers("PixelMeasuresSequence", "SliceThickness")
    echo = groups.numbers("MREchoSequence", "EffectiveEchoTime")
    side = groups.get("FrameAnatomySequence", "FrameLaterality")
    texts = {**common.text, **({"laterality": str(side)} if side else {})}
    return replace(
        common,
        index=index,
        frames=frames,
        instance=index + 1,
        position=groups.numbers("PlanePositionSequence", "ImagePositionPatient") or common.position,
        orientation=groups.numbers("PlaneOrientationSequence", "ImageOrientationPatient") or common.orientation,
        spacing=groups.numbers("PixelMeasuresSequence", "PixelSpacing") or common.spacing,
        thickness=thickness[0] if thickness else common.thickness,
        echo_time=echo[0] if echo else common.echo_time,
        trigger_time=trigger[0] if trigger else common.trigger_time,
        temporal=int(temporal[0]) if temporal else common.temporal,
        image_type=tuple(str(w).upper() for w in kind) if kind else common.image_type,
        texts=tuple(texts.items()),
    )
