"""Exams: read, understood, checked."""

from .cohort import Cohort
from .cohort import read_cohort
from .cohort import split_subjects
from .cohort import subject_order
from .knee_roles import mirrored
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
