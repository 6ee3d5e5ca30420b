"""Names, colours and codes of structures."""

from __future__ import annotations

import pytest
from pydicom.sr._concepts_dict import concepts

from SSLEngine.structures import CATEGORY
from SSLEngine.structures import SPARE_COLOURS
from SSLEngine.structures import STRUCTURES
from SSLEngine.structures import TISSUE_CATEGORY
from SSLEngine.structures import structure
from SSLEngine.structures import terminology_entry


def test_every_structure_is_found_by_its_name_and_aliases_and_no_two_are_alike() -> None:
    names = [n.lower() for s in STRUCTURES for n in (s.name, *s.aliases)]
    assert len(set(names)) == len(names)
    assert len({s.colour for s in STRUCTURES}) == len(STRUCTURES)
    # DICOM's dictionary has no code for the cartilage of one bone; no other structures share one.
    assert len({s.type for s in STRUCTURES}) == len(STRUCTURES) - 2
    for item in STRUCTURES:
        for name in (item.name, item.name.upper(), f"  {item.name} ", *item.aliases):
            assert structure(name) is item
        assert all(0 <= c <= 1 for c in item.colour)


def test_every_code_means_in_dicoms_own_dictionary_what_it_means_here() -> None:
    dictionary = {c: m for entry in concepts["SCT"].values() for c, (m, _) in entry.items()}
    for item in STRUCTURES:
        for scheme, value, meaning in (item.category, item.type):
            assert scheme == "SCT"
            if value not in (CATEGORY[1], TISSUE_CATEGORY[1]):
                assert words(meaning) <= words(dictionary[value])


def words(meaning: str) -> set[str]:
    """The stems of a meaning's words: "left ventricle" and "left ventricular structure" are one."""
    return {word.strip("()")[:4] for word in meaning.lower().split()} - {"of", "hear"}


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
