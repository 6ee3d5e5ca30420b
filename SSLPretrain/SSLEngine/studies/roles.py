"""What each view of a study is: geometry first, names second, and a doubt where the two disagree."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ..geometry import stack_normal
from .heart_roles import Candidate
from .heart_roles import assign_heart_roles
from .knee_roles import find_side
from .knee_roles import knee_roles
from .study import HEART_ROLES
from .study import KNEE_ROLES
from .study import UNKNOWN
from .study import Irregularity
from .study import Study
from .study import StudyError
from .study import View

#: A second role whose cost is within this of the first (a likelihood ratio of e) is worth a doubt.
CLEAR_MARGIN = 1.0
#: A knee stack is doubtful when another direction is nearly as close.
CLEAR_LEAD_DEG = 8.0

_SIDE = r"(?:ch(?:amber|mbr)?s?|c|kammer(?:blick)?)"
#: In order: what matches is taken out of the name, so that "rv2ch" is not read as "2ch" too.
_NAMES: tuple[tuple[str, str], ...] = (
    ("rv2ch", rf"rv[\s_-]*(?:2|two)[\s_-]*{_SIDE}(?![a-z])|rv[\s_-]*(?:vla|lax)(?![a-z])"),
    ("rvot", r"rvot"),
    ("4ch", rf"(?<!\d)(?:4|four|vier)[\s_-]*{_SIDE}(?![a-z])|(?<![a-z])hla(?![a-z])|horizontal[\s_-]*long"),
    ("3ch", rf"(?<!\d)(?:3|three|drei)[\s_-]*{_SIDE}(?![a-z])|(?<![a-z])lvot"),
    ("2ch", rf"(?<!\d)(?:2|two|zwei)[\s_-]*{_SIDE}(?![a-z])|(?<![a-z])vla(?![a-z])|vertical[\s_-]*long"),
    ("sax", r"sax(?![a-z])|(?<![a-z])sa(?![a-z])|short[\s_-]*ax(?:is|es)?|kurze?[\s_-]*achse"),
    ("sag", r"(?<![a-z])sag(?:ittal)?(?![a-z])"),
    ("cor", r"(?<![a-z])cor(?:onal)?(?![a-z])"),
    ("ax", r"(?<![a-z])(?:ax(?:ial)?|tra(?:ns(?:v(?:ers(?:e|al)?)?)?)?)(?![a-z])"),
)
_HEART_WORDS = re.compile(
    r"heart|cardi|cine|cmr|(?<![a-z])(?:sa|lax|lv|rv)(?![a-z])|sax|\dch|chamber|rvot|lvot|ventric|short.?ax|long.?ax"
)
_KNEE_WORDS = re.compile(r"knee|knie|menis|patell|dess|cartilage|(?<![a-z])(?:acl|pcl|genou)(?![a-z])")
#: Field of view in mm below and above which an image shows a knee or a chest.
KNEE_FIELD_MM = 210.0
HEART_FIELD_MM = 240.0


def roles_in_name(text: str) -> list[str]:
    """Roles that a name or series description mentions, in the order in which they are looked for."""
    rest, found = text.lower(), []
    for role, pattern in _NAMES:
        rest, count = re.subn(pattern, " ", rest)
        if count:
            found.append(role)
    return found


def _text(view: View) -> str:
    """Name and header texts of a view, lower case."""
    keys = ("description", "protocol", "body_part", "study_description")
    return " ".join([view.name, *(view.attributes.get(k, "") for k in keys)]).lower()


def _named(view: View) -> list[str]:
    return roles_in_name(view.name + " " + view.attributes.get("description", ""))


def guess_organ(study: Study) -> str:
    """``heart`` or ``knee`` by the words in names and headers, then cine phases, then the field of view."""
    words = " ".join(_text(v) for v in study.views) + " " + study.name.lower()
    heart, knee = bool(_HEART_WORDS.search(words)), bool(_KNEE_WORDS.search(words))
    if heart != knee:
        return "heart" if heart else "knee"
    if any(v.phases > 1 for v in study.views):
        return "heart"
    field = float(np.median([max(v.planes[0].extent) for v in study.views]))
    if field < KNEE_FIELD_MM:
        return "knee"
    return "heart" if field > HEART_FIELD_MM else UNKNOWN


def assign_roles(study: Study, organ: str | None = None) -> None:
    """Gives every view its role, reason and doubt, and the study its organ and side.

    Args:
        study: Its views are changed in place.
        organ: ``heart`` or ``knee`` where it is known; guessed otherwise.

    Raises:
        StudyError: The organ is neither.
    """
    if organ not in (None, "heart", "knee", UNKNOWN):
        msg = f"{study.path}: expected the organ heart or knee (in study.json, or as asked for), found {organ!r}"
        raise StudyError(msg)
    study.organ = organ if organ not in (None, UNKNOWN) else guess_organ(study)
    placed = [v for v in study.views if "position" not in v.attributes]
    if study.organ == "heart":
        _heart(placed)
    elif study.organ == "knee":
        _knee(placed)
        study.side, _ = find_side(study.views)
    for view in study.views:
        if study.organ == UNKNOWN:
            view.reason = "neither names nor headers say whether this is a heart or a knee"
        elif "position" in view.attributes:
            _by_name(view, HEART_ROLES if study.organ == "heart" else KNEE_ROLES)
        _doubt_name(view, HEART_ROLES if study.organ == "heart" else KNEE_ROLES)
        if view.doubt:
            study.irregularities.append(_as_irregularity(view))


def _heart(views: Sequence[View]) -> None:
    candidates = [Candidate(v.planes, frozenset(_named(v))) for v in views]
    assign_heart_roles(candidates)
    for view, found in zip(views, candidates, strict=True):
        view.role, view.reason = found.role, found.reason
        named = [r for r in _named(view) if r in HEART_ROLES]
        if found.scout and named:
            view.role, view.reason = named[0], "its name says so; it lies exactly along the patient's axes"
            view.doubt = "no heart lies so straight: its orientation seems to be lost, and its crossings mean nothing"
        elif found.role != UNKNOWN and found.margin < CLEAR_MARGIN:
            view.doubt = f"it could also be {found.rival}"


def _knee(views: Sequence[View]) -> None:
    normals = [n if (n := stack_normal(v.planes)) is not None else v.planes[0].normal for v in views]
    for view, (role, reason, lead) in zip(views, knee_roles(normals), strict=True):
        view.role, view.reason = role, reason
        if lead < CLEAR_LEAD_DEG:
            view.doubt = f"it is so oblique that another role is {abs(lead):.0f}° {'away' if lead >= 0 else 'nearer'}"


def _by_name(view: View, possible: Sequence[str]) -> None:
    named = [r for r in _named(view) if r in possible]
    if named:
        view.role = named[0]
        view.reason = "its name says so; the header does not say where it lies"
    else:
        view.reason = "the header does not say where it lies, and its name says nothing"


def _doubt_name(view: View, possible: Sequence[str]) -> None:
    """A doubt where the name mentions another role than the one that was found."""
    others = [r for r in _named(view) if r in possible and r != view.role]
    if others and view.role != UNKNOWN:
        believed = "the geometry" if "name says so" not in view.reason else "the first"
        said = f"the name says {' and '.join(others)}, {believed} was believed ({view.role})"
        view.doubt = f"{view.doubt}; {said}" if view.doubt else said


def _as_irregularity(view: View) -> Irregularity:
    return Irregularity(view.name, view.doubt, f"it is used as {view.role}; study.json can say otherwise")
