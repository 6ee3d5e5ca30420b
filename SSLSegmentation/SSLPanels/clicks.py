"""Buttons that start something."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

#: Two clicks within this time are one double click; Qt's default.
DOUBLE_CLICK_S = 0.4


def once(handler: Callable[[Any], None]) -> Callable[[Any], None]:
    """Passes over the second click of a double click: it would start the same thing again, or cancel it."""
    last = f"_{handler.__name__}_clicked"

    @functools.wraps(handler)
    def clicked(self: Any) -> None:
        if time.monotonic() - getattr(self, last, -DOUBLE_CLICK_S) >= DOUBLE_CLICK_S:
            try:
                handler(self)
            finally:
                # From the end: a second click may have waited for what the first one did.
                setattr(self, last, time.monotonic())

    return clicked
