"""The folder of labelled exams that corrected segments are collected in. Light: no image is read."""

from __future__ import annotations

import itertools
from pathlib import Path

from SSLEngine.structures import structure


def default() -> Path:
    """Where labelled exams are collected unless the user says otherwise."""
    return Path.home() / "SSLSegmentation" / "labelled"


def collected(folder: Path) -> list[Path]:
    """The labelled exams in a folder."""
    return (
        sorted(p.parent for p in folder.glob("*/study.json") if p.parent.suffix != ".part") if folder.is_dir() else []
    )


def known_labels(folder: Path, but: Path | None = None) -> dict[str, int]:
    """Label value of each structure in the collected exams, each with one of its own: exams may number them otherwise.

    An exam whose ``study.json`` cannot be read is passed over; training says what is wrong with it.
    """
    from SSLEngine.studies.reading import read_overrides
    from SSLEngine.studies.study import StudyError

    found: dict[str, int] = {}
    for study in collected(folder):
        if study == but:
            continue
        try:
            labels = read_overrides(study).labels
        except StudyError:
            continue
        for value, name in labels.items():
            value_of(found, name, value)
    return found


def value_of(values: dict[str, int], name: str, wanted: int = 1) -> int:
    """The value that a structure has, by whatever name; it gets the one that is wanted, or the first free one."""
    known = structure(name).name
    if known not in values:
        free = (n for n in itertools.chain([wanted], itertools.count(1)) if n not in values.values())
        values[known] = next(free)
    return values[known]
