"""Named structures and roles: colours and SNOMED CT codes, shared by the engine, the scene and the module.

A label that is not listed here still works; it gets a colour from :data:`SPARE_COLOURS` and the general
code for tissue.
"""

from __future__ import annotations

from dataclasses import dataclass

#: (coding scheme, value, meaning), as DICOM and Slicer's terminologies write a code.
Code = tuple[str, str, str]

CATEGORY: Code = ("SCT", "123037004", "Anatomical Structure")
TISSUE_CATEGORY: Code = ("SCT", "85756007", "Tissue")


@dataclass(frozen=True)
class Structure:
    """One structure that a label map can hold.

    Attributes:
        name: What the user reads.
        colour: RGB, 0 to 1.
        category: Code of the segmented property category.
        type: Code of the segmented property type.
        modifier: Code of the type's modifier (side), or None.
        aliases: Lower-case names under which label files list the same structure.
    """

    name: str
    colour: tuple[float, float, float]
    category: Code
    type: Code
    modifier: Code | None = None
    aliases: tuple[str, ...] = ()


def _s(name: str, rgb: tuple[int, int, int], code: str, meaning: str, *aliases: str, tissue: bool = False) -> Structure:
    colour = (rgb[0] / 255, rgb[1] / 255, rgb[2] / 255)
    return Structure(name, colour, TISSUE_CATEGORY if tissue else CATEGORY, ("SCT", code, meaning), None, aliases)


# Codes that DICOM's own dictionary knows, more general ones where it has none for the structure: a name that a viewer
# looks up must never be another's.
STRUCTURES: tuple[Structure, ...] = (
    _s("LV cavity", (214, 69, 65), "87878005", "Left ventricle of heart", "lv", "left ventricle", "lv blood pool"),
    _s("LV myocardium", (241, 196, 15), "49848007", "Left Ventricle Myocardium", "myo", "myocardium"),
    _s("RV cavity", (52, 120, 201), "53085002", "Right ventricle of heart", "rv", "right ventricle", "rv blood pool"),
    _s("Left atrium", (230, 126, 34), "82471001", "Left atrium", "la"),
    _s("Right atrium", (46, 204, 170), "73829009", "Right atrium", "ra"),
    _s("Aorta", (155, 89, 182), "15825003", "Aorta", "ao"),
    _s("Femur", (241, 214, 145), "71341001", "Femur"),
    _s("Tibia", (214, 186, 120), "12611008", "Tibia"),
    _s("Patella", (230, 200, 160), "64234005", "Patella"),
    _s("Femoral cartilage", (86, 180, 233), "309312004", "Cartilage"),
    _s("Tibial cartilage", (0, 158, 115), "309312004", "Cartilage"),
    _s("Patellar cartilage", (102, 205, 170), "309312004", "Cartilage"),
    _s("Menisci", (204, 121, 167), "74135004", "Meniscus structure of joint", "meniscus"),
    _s("Cruciate ligaments", (213, 94, 0), "52082005", "Ligament"),
    _s("Effusion", (64, 160, 255), "41699000", "Effusion", "joint effusion"),
)

SPARE_COLOURS: tuple[tuple[float, float, float], ...] = (
    (0.90, 0.62, 0.0),
    (0.34, 0.71, 0.91),
    (0.0, 0.62, 0.45),
    (0.94, 0.89, 0.26),
    (0.80, 0.47, 0.65),
    (0.84, 0.37, 0.0),
)


#: Colour of each role in every picture and view. Red and yellow are those of Slicer's own slice views, so that a line
#: has the colour of the view that shows its plane; the others were chosen to be told apart from these and from grey.
ROLE_COLOURS: dict[str, tuple[float, float, float]] = {
    "sax": (0.953, 0.290, 0.200),
    "2ch": (0.431, 0.790, 0.294),
    "4ch": (0.929, 0.835, 0.298),
    "3ch": (0.290, 0.650, 0.960),
    "rv2ch": (0.780, 0.480, 0.950),
    "rvot": (0.250, 0.850, 0.800),
    "ax": (0.953, 0.290, 0.200),
    "cor": (0.431, 0.790, 0.294),
    "sag": (0.929, 0.835, 0.298),
}


def structure(name: str, value: int = 1) -> Structure:
    """The structure with a name or alias; an unknown name keeps the name with a spare colour."""
    wanted = name.strip().lower()
    for known in STRUCTURES:
        if wanted == known.name.lower() or wanted in known.aliases:
            return known
    colour = SPARE_COLOURS[(value - 1) % len(SPARE_COLOURS)]
    return Structure(name, colour, TISSUE_CATEGORY, ("SCT", "85756007", "Tissue"))


def unnamed(value: int) -> str:
    """What a label value is called that nothing names."""
    return f"Label {value}"


def terminology_entry(item: Structure) -> str:
    """The structure as Slicer's serialised terminology entry (``Segment.TerminologyEntry``)."""
    terminology = "Segmentation category and type - 3D Slicer General Anatomy list"
    anatomy = "Anatomic codes - DICOM master list"
    codes = ["^".join(code) for code in (item.category, item.type, item.modifier or ("", "", ""))]
    return "~".join([terminology, *codes, anatomy, "^^", "^^"])
