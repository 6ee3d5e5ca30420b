"""Synthetic exams with labels, and with lesions where they are asked for."""

from __future__ import annotations

from .exam import GROUPS
from .exam import LABELS
from .exam import make_study
from .exam import write_cohort
from .lesions import LESIONS
from .lesions import SyntheticView
from .writing import write_study

__all__ = ["GROUPS", "LABELS", "LESIONS", "SyntheticView", "make_study", "write_cohort", "write_study"]
