"""Pretext tasks, one file each. Importing this package needs torch."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

from ..settings import SettingsError
from .base import Batch
from .base import Geometry
from .base import Host
from .base import Pretext
from .crossings import Crossing
from .distortions import DistortionPrediction
from .location import SliceLocation
from .positions import PositionPrediction
from .restoration import ContextRestoration

#: ``--pretext`` name to class; each takes the settings block of the same name, or None where there is no such block.
TASKS: dict[str, type[Any]] = {
    "positions": PositionPrediction,
    "crossings": Crossing,
    "location": SliceLocation,
    "restoration": ContextRestoration,
    "distortions": DistortionPrediction,
}


def check_names(names: Iterable[str]) -> None:
    """Refuses a name that is no task's.

    Raises:
        SettingsError: A name is not known.
    """
    for name in names:
        if name not in TASKS:
            msg = f"There is no pretext '{name}'; choose from {', '.join(TASKS)}."
            raise SettingsError(msg)


def make_pretexts(names: Sequence[str], settings: Any) -> list[Pretext]:
    """The tasks named, each built from its own block of ``settings`` (``settings.positions`` ...).

    Raises:
        SettingsError: A name is not known.
    """
    check_names(names)
    return [TASKS[name](getattr(settings, name, None)) for name in dict.fromkeys(names)]
