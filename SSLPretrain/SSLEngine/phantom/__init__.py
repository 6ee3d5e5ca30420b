"""Synthetic exams with labels."""

from __future__ import annotations

from .exam import LABELS
from .exam import make_study
from .exam import write_cohort
from .writing import write_study

__all__ = ["LABELS", "make_study", "write_cohort", "write_study"]
