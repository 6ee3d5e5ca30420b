"""Pretext tasks, one file each. Importing this package needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .base import Batch
from .base import Geometry
from .base import Host
from .base import Pretext
from .crossings import Crossing
from .location import SliceLocation
from .positions import PositionPrediction
from .restoration import ContextRestoration

#: ``--pretext`` name to class; each takes the settings block of the same name.
TASKS: dict[str, type[Any]] = {
    "positions": PositionPrediction,
    "crossings": Crossing,
    "location": SliceLocation,
    "restoration": ContextRestoration,
}


def make_pretexts(names: Sequence[str], settings: Any) -> list[Pretext]:
    """The tasks named, each built from its own block of ``settings`` (``settings.positions`` ...)."""
    return [TASKS[name](getattr(settings, name)) for name in dict.fromkeys(names)]
