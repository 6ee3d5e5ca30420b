"""Names, colours and codes of structures."""

from __future__ import annotations

import re

import pytest

from SSLEngine.structures import SPARE_COLOURS
from SSLEngine.structures import STRUCTURES
from SSLEngine.structures import structure
from SSLEngine.structures import terminology_entry


def test_every_structure_is_found_by_its_name_and_aliases_and_no_two_are_alike() -> None:
    names = [n.lower() for s in STRUCTURES for n in (s.name, *s.aliases)]
    assert len(set(names)) == len(names)
    assert len({s.colour for s in STRUCTURES}) == len(STRUCTURES)
    # SNOMED CT has no code for the cartilage of the femur or the tibia alone; no others share one.
    assert len({s.type for s in STRUCTURES}) == len(STRUCTURES) - 1
    for item in STRUCTURES:
        for name in (item.name, item.name.upper(), f"  {item.name} ", *item.aliases):
            assert structure(name) is item
        assert all(0 <= c <= 1 for c in item.colour)
        scheme, value, meaning = item.type
        assert scheme == "SCT"
        assert re.fullmatch(r"\d{6,18}", value)
        assert checksum(value)
        assert meaning


def checksum(code: str) -> bool:
    """SNOMED CT's own check of an identifier (Verhoeff)."""
    d = [[(i + j) % 5 if i < 5 and j < 5 else 0 for j in range(10)] for i in range(10)]
    for i in range(10):
        for j in range(10):
            if i < 5 <= j:
                d[i][j] = 5 + (i + j) % 5
            elif j < 5 <= i:
                d[i][j] = 5 + (i - j) % 5
            elif i >= 5 and j >= 5:
                d[i][j] = (i - j) % 5
    p = [list(range(10)), [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
    for _ in range(6):
        p.append([p[-1][p[1][k]] for k in range(10)])
    check = 0
    for position, digit in enumerate(reversed(code)):
        check = d[check][p[position % 8][int(digit)]]
    return check == 0


def test_the_check_itself_knows_right_from_wrong() -> None:
    assert checksum("80891009")  # heart structure
    assert not checksum("80891008")
    assert not checksum("80819009")


def test_an_unknown_name_keeps_its_name_and_gets_a_colour() -> None:
    for value in (1, len(SPARE_COLOURS), len(SPARE_COLOURS) + 1):
        made = structure("Papillary muscle", value)
        assert made.name == "Papillary muscle"
        assert made.colour == SPARE_COLOURS[(value - 1) % len(SPARE_COLOURS)]
        assert made.type[1] == "85756007"


@pytest.mark.parametrize("item", STRUCTURES, ids=lambda s: s.name)
def test_the_terminology_entry_has_slicers_seven_parts(item: object) -> None:
    parts = terminology_entry(item).split("~")  # type: ignore[arg-type]
    assert len(parts) == 7
    assert [part.count("^") for part in parts[1:4]] == [2, 2, 2]
    assert parts[2].split("^")[1].isdigit()
    assert parts[5] == parts[6] == "^^"
