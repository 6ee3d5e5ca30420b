"""What a model file says about itself, read from its header alone: no weights, no torch, no safetensors."""

from __future__ import annotations

import html
import json
import struct
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from SSLEngine.jobs import flat

#: A header beyond this size is no model of ours.
MAX_HEADER_BYTES = 10_000_000


def read(path: Path) -> dict[str, Any]:
    """The card in a model file's header.

    The file begins with the length of its JSON header (8 bytes, little-endian), as safetensors defines.

    Raises:
        ValueError: It is no model file of this program.
    """
    wrong = _("{path} is no model file of SSLSegmentation; choose a model.safetensors of a finished job.")
    try:
        with Path(path).open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MAX_HEADER_BYTES:
                raise ValueError
            card = json.loads(json.loads(file.read(length))["__metadata__"]["sslsegmentation"])
    except (OSError, struct.error, ValueError, KeyError, TypeError):
        raise ValueError(wrong.format(path=path)) from None
    if not isinstance(card, dict):
        raise ValueError(wrong.format(path=path))
    return card


def can_segment(card: Mapping[str, Any]) -> bool:
    """Whether the model has learned labels; a pretrained one has not."""
    return bool(card.get("labels"))


def can_classify(card: Mapping[str, Any]) -> bool:
    """Whether the model has learned classes of exams."""
    return card.get("kind") == "classification"


def can_predict_planes(card: Mapping[str, Any]) -> bool:
    """Whether the model has learned crossing lines, and nothing else since: fine-tuning takes their heads off."""
    return card.get("kind") == "pretrained" and "crossings" in card.get("pretexts", {})


def can_find_anomalies(card: Mapping[str, Any]) -> bool:
    """Whether the model has learned to find distortions, and nothing else since."""
    return card.get("kind") == "pretrained" and "distortions" in card.get("pretexts", {})


def _made_from(subjects: Sequence[str], seed: object) -> str:
    if not subjects:
        return ""
    text = _("1 subject, seed {seed}") if len(subjects) == 1 else _("{count} subjects, seed {seed}")
    return text.format(count=len(subjects), seed=seed)


def describe(card: Mapping[str, Any]) -> str:
    """The card as a few lines of HTML."""
    kind, what = _("Pretrained; fine-tune it before it can segment"), ""
    if can_segment(card):
        kind, what = _("Segments"), ", ".join(str(entry["name"]) for entry in card["labels"])
    elif can_classify(card):
        kind, what = _("Tells the class of an exam"), ", ".join(str(name) for name in card.get("groups", []))
    grid = card.get("grid", {})
    provenance = card.get("provenance", {})
    subjects = provenance.get("subjects") or []
    scores = [f"{name} {value:.3g}" for name, value in flat(card.get("scores", {})).items() if isinstance(value, float)]
    rows = {
        kind: what,
        _("Organ"): card.get("organ", ""),
        _("Views"): ", ".join(role.upper() for role in card.get("roles", [])),
        _("Spacing"): f"{grid['spacing_mm']:g} mm" if "spacing_mm" in grid else "",
        _("Learned before"): ", ".join(card.get("pretexts", {})),
        _("Scores"): ", ".join(scores[:4]),
        _("Made from"): _made_from(subjects, provenance.get("seed", "?")),
    }
    cells = [f"<b>{html.escape(name)}</b> {html.escape(str(value))}".rstrip() for name, value in rows.items()]
    filled = [cell for cell, value in zip(cells, rows.values(), strict=True) if value or cell is cells[0]]
    return "<br>".join(filled)
