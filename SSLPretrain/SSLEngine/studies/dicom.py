"""DICOM files of an exam."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from typing import Literal

from .study import Irregularity

#: What to do about series without a FrameOfReferenceUID.
FramePolicy = Literal["require", "warn", "ignore"]


def find_dicom(paths: Sequence[Path], progress: Any = None) -> tuple[list[Any], list[Irregularity]]:
    """Headers of the DICOM files among some paths."""
    del paths, progress
    return [], []


def group_exams(headers: Sequence[Any]) -> list[list[Any]]:
    """Headers by exam."""
    return [list(headers)] if headers else []
