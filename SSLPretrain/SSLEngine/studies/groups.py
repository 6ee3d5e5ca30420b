"""Classes of studies: the ``group`` of a ``study.json``, or a table of two columns beside the cohort.

The table is a spreadsheet's CSV (commas, semicolons or tabs) with a header line that names the columns ``study`` and
``group``; other columns are passed over. A study is named as in the cohort, or by its subject. Where there is a table,
it alone counts, so that one cohort can be classified in several ways.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .study import Irregularity
from .study import Study
from .study import StudyError

#: The table that is read without being asked for, in the cohort's folder.
GROUPS_FILE = "groups.csv"
MAX_TABLE_BYTES = 1 << 24
COLUMNS = ("study", "group")


def read_groups(path: Path) -> dict[str, str]:
    """Study or subject to class; rows without a class are left out.

    Raises:
        StudyError: The table cannot be read, lacks a column, or gives a study two classes.
    """
    found: dict[str, str] = {}
    rows = _rows(Path(path))
    places = _places(Path(path), rows[0] if rows else [])
    for number, row in enumerate(rows[1:], start=2):
        name, group = (row[k].strip() if k < len(row) else "" for k in places)
        if name and group and found.setdefault(name, group) != group:
            msg = f"{path}, line {number}: {name} is {group} here and {found[name]} above; give it one group."
            raise StudyError(msg)
    if not found:
        msg = f"{path} gives no study a group; write a line for each, for instance 'exam01,normal'."
        raise StudyError(msg)
    return found


def _rows(path: Path) -> list[list[str]]:
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise ValueError("it is larger than 16 megabytes")
        # A spreadsheet may put a byte order mark in front, and semicolons where a comma is the decimal sign.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        separator = max(",;\t", key=lines[0].count) if lines else ","
        return list(csv.reader(lines, delimiter=separator))
    except FileNotFoundError:
        msg = f"The table of groups {path} does not exist: check the spelling."
        raise StudyError(msg) from None
    except (OSError, ValueError, csv.Error) as error:
        msg = f"The table of groups {path} cannot be read ({error}); save it as CSV with UTF-8 text."
        raise StudyError(msg) from None


def _places(path: Path, header: Sequence[str]) -> list[int]:
    names = [name.strip().lower() for name in header]
    if not set(COLUMNS) <= set(names):
        msg = f"{path}: expected a first line with the columns study and group, found '{','.join(header)[:60]}'."
        raise StudyError(msg)
    return [names.index(column) for column in COLUMNS]


def assign_groups(studies: Sequence[Study], path: Path) -> list[Irregularity]:
    """Gives every study the group that a table says, and none where it says nothing.

    Returns:
        What the table names and the cohort does not have.

    Raises:
        StudyError: The table cannot be used, or names none of the studies.
    """
    table = read_groups(path)
    for study in studies:
        study.group = table.get(study.name, table.get(study.subject))
    foreign = sorted(set(table) - {n for s in studies for n in (s.name, s.subject)})
    if len(foreign) == len(table):
        msg = f"{path} names none of the studies ({foreign[0]}, ...); use their names, for instance {studies[0].name}."
        raise StudyError(msg)
    what = f"it names {len(foreign)} studies that are not there ({', '.join(foreign[:3])})"
    return [Irregularity(str(path), what, "these lines have no effect")] if foreign else []


def group_order(studies: Sequence[Study], seed: int = 0) -> list[str]:
    """Subjects with a group in the order that a seed gives them, one of each class in turn.

    So the first n subjects hold every class where n is at least the number of classes, and are among the first n + 1.
    """
    rng = np.random.default_rng(seed)
    by_group: dict[str, set[str]] = {}
    for subject, group in {s.subject: s.group for s in sorted(studies, key=lambda s: s.name) if s.group}.items():
        by_group.setdefault(group, set()).add(subject)
    names = sorted(by_group)
    shuffled = [sorted(by_group[names[k]]) for k in rng.permutation(len(names))]
    columns = [[subjects[k] for k in rng.permutation(len(subjects))] for subjects in shuffled]
    return [subject for row in itertools.zip_longest(*columns) for subject in row if subject is not None]
