"""How a view's role looks: its colour, its short name, and the slice view that it goes to."""

from __future__ import annotations

from SSLEngine.structures import ROLE_COLOURS

Colour = tuple[float, float, float]

#: For views whose role is not known.
SPARE: tuple[Colour, ...] = ((0.95, 0.60, 0.70), (0.70, 0.70, 0.95), (0.95, 0.65, 0.35), (0.60, 0.80, 0.75))

#: The slice view in which a role is shown.
VIEW_NAMES: dict[str, str] = {
    "sax": "Red",
    "2ch": "Green",
    "4ch": "Yellow",
    "ax": "Red",
    "cor": "Green",
    "sag": "Yellow",
}

#: The order in which views stand side by side.
ORDER = ("sax", "2ch", "4ch", "3ch", "rv2ch", "rvot", "sag", "cor", "ax")

_LABELS = {"rv2ch": "RV 2CH", "unknown": "other"}


def colour(role: str, index: int = 0) -> Colour:
    """The colour of a role, RGB 0 to 1; ``index`` tells views without a known role apart."""
    return ROLE_COLOURS.get(role, SPARE[index % len(SPARE)])


def label(role: str) -> str:
    """What the user reads: ``SAX``, ``2CH``."""
    return _LABELS.get(role, role.upper())


def rank(role: str) -> int:
    """Place of a role in the order of display; unknown roles come last."""
    return ORDER.index(role) if role in ORDER else len(ORDER)
