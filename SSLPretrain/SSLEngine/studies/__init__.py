"""Exams: read, understood, checked.

A name is fetched from its file when it is first asked for: what a study *is* must be known also where no image reader
is installed, and a window must not wait for one. A new name goes into both lists below.
"""

from importlib import import_module
from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING:
    from .cohort import Cohort
    from .cohort import read_cohort
    from .cohort import subject_order
    from .crossings import Crossing
    from .crossings import crossing_of_views
    from .crossings import same_frame
    from .groups import GROUPS_FILE
    from .groups import group_order
    from .handover import hand_over
    from .handover import take_over
    from .inspect_page import inspect_html
    from .inspect_page import page_of_cohort
    from .inspecting import inspect
    from .inspecting import inspect_cohort
    from .inspecting import inspect_text
    from .knee_roles import mirrored
    from .phases import ed_es_phases
    from .reading import read_study
    from .study import HEART_ROLES
    from .study import KNEE_ROLES
    from .study import ROLES
    from .study import UNKNOWN
    from .study import Irregularity
    from .study import Study
    from .study import StudyError
    from .study import View
    from .volumes import write_view

_NAMES = {
    "cohort": ("Cohort", "read_cohort", "subject_order"),
    "crossings": ("Crossing", "crossing_of_views", "same_frame"),
    "groups": ("GROUPS_FILE", "group_order"),
    "handover": ("hand_over", "take_over"),
    "inspect_page": ("inspect_html", "page_of_cohort"),
    "inspecting": ("inspect", "inspect_cohort", "inspect_text"),
    "knee_roles": ("mirrored",),
    "phases": ("ed_es_phases",),
    "reading": ("read_study",),
    "study": ("HEART_ROLES", "KNEE_ROLES", "ROLES", "UNKNOWN", "Irregularity", "Study", "StudyError", "View"),
    "volumes": ("write_view",),
}
_HOMES = {name: file for file, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
