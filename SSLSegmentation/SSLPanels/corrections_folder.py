"""The folder of labelled exams that corrected segments are collected in. Standard library only."""

from __future__ import annotations

import json
from pathlib import Path


def default() -> Path:
    """Where labelled exams are collected unless the user says otherwise."""
    return Path.home() / "SSLSegmentation" / "labelled"


def collected(folder: Path) -> list[Path]:
    """The labelled exams in a folder."""
    return (
        sorted(p.parent for p in folder.glob("*/study.json") if p.parent.suffix != ".part") if folder.is_dir() else []
    )


def known_labels(folder: Path, but: Path | None = None) -> dict[str, int]:
    """Label value of each structure in the collected exams: the same name has the same value in all of them."""
    found: dict[str, int] = {}
    for study in collected(folder):
        if study != but:
            labels = json.loads((study / "study.json").read_text(encoding="utf-8")).get("labels", {})
            found |= {name: int(value) for value, name in labels.items()}
    return found
