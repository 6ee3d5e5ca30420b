"""What a study is in memory: views, each a list of planes with the pixels on them."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..geometry import Array
from ..geometry import Plane
from ..geometry import stack_normal

#: Roles a view can have. ``unknown`` views are kept and shown, and give no targets.
HEART_ROLES = ("sax", "2ch", "3ch", "4ch", "rv2ch", "rvot")
KNEE_ROLES = ("sag", "cor", "ax")
ROLES = (*HEART_ROLES, *KNEE_ROLES)
UNKNOWN = "unknown"
#: Attribute of a view that a window hands over under a name of its own making: the name that a person knows.
SHOWN_AS = "shown_as"


class StudyError(ValueError):
    """An input cannot be used. The message is one sentence: what, where, what to do."""


@dataclass(frozen=True)
class Irregularity:
    """Something about an input that a user should know, and what follows from it.

    Attributes:
        where: The file or folder.
        what: What is odd about it.
        consequence: What follows.
        costs_labels: Whether labels are left out for it, which a training has to say aloud.
    """

    where: str
    what: str
    consequence: str
    costs_labels: bool = False

    @property
    def told(self) -> str:
        """Where and what; what an error has said begins with its file already."""
        return where_and_what(self.where, self.what)


def where_and_what(where: str, what: str) -> str:
    """A remark about a place without naming the place twice."""
    return what.removesuffix(".") if what.startswith(where) else f"{where}: {what}"


def unread(irregularities: Iterable[Irregularity]) -> list[str]:
    """What could not be read, a sentence each: a result is of the rest."""
    return [f"{i.told}; {i.consequence}." for i in irregularities if not i.costs_labels and "left out" in i.consequence]


@dataclass(eq=False)
class View:
    """One stack of parallel planes, or one plane, of a study.

    Attributes:
        name: Unique in its study: the file's stem, or made from the series description.
        source: The file or folder that it was read from, as the user knows it.
        planes: One plane a slice, in stack order (the order of ``pixels``' first axis).
        phases: Number of cine phases, 1 for a still image.
        read_pixels: ``read_pixels(phase)`` gives float32 ``(slices, rows, columns)``.
        read_labels: The same for the label map, int16, or None where there is none for a phase.
        role: One of :data:`ROLES` or ``unknown``.
        reason: Why it got this role, a sentence.
        doubt: What speaks against it; empty where nothing does.
        label_names: Names of the label values found beside the labels, possibly empty.
        frame_of_reference: DICOM FrameOfReferenceUID; None where it is unknown (NIfTI).
        trigger_times: Trigger time of each phase in ms, empty where unknown.
        attributes: Further facts from the header (series description, laterality ...), for display.
        labels_source: The file that the labels were read from; None where there is none.
        label_values: Values that are drawn in that file.
    """

    name: str
    source: Path
    planes: list[Plane]
    phases: int
    read_pixels: Callable[[int], npt.NDArray[np.float32]]
    read_labels: Callable[[int], npt.NDArray[np.int16] | None] | None = None
    role: str = UNKNOWN
    reason: str = ""
    doubt: str = ""
    label_names: Mapping[int, str] = field(default_factory=dict)
    frame_of_reference: str | None = None
    trigger_times: tuple[float, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    labels_source: Path | None = None
    label_values: frozenset[int] = frozenset()

    def pixels(self, phase: int = 0) -> npt.NDArray[np.float32]:
        """Grey values of one phase, float32, ``(slices, rows, columns)``."""
        return self.read_pixels(phase)

    def labels(self, phase: int = 0) -> npt.NDArray[np.int16] | None:
        """Label map of one phase, int16, ``(slices, rows, columns)``; None where there is none.

        It is below 0 where a person has left open what is there.
        """
        return None if self.read_labels is None else self.read_labels(phase)

    @property
    def shown(self) -> str:
        """The name that a person knows: that in the window which handed the view over, else its own."""
        return self.attributes.get(SHOWN_AS, self.name)

    @property
    def labelled(self) -> bool:
        """Whether any phase has labels."""
        return self.read_labels is not None

    @property
    def labelled_phases(self) -> list[int]:
        """Phases that have labels; all of them are read."""
        return [k for k in range(self.phases) if self.labels(k) is not None]

    @property
    def normal(self) -> Array | None:
        """Common normal of the slices, or None where they are not parallel."""
        return stack_normal(self.planes)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(slices, rows, columns)``; rows and columns of the first slice."""
        columns, rows = self.planes[0].size
        return len(self.planes), rows, columns

    @property
    def regular(self) -> bool:
        """Whether the planes form a volume: same size and directions, evenly spaced, not sheared (0.01 mm)."""
        first = self.planes[0]
        last = self.planes[-1]
        step = (last.origin - first.origin) / max(1, len(self.planes) - 1)
        # A single plane is a volume of one slice; several must advance along their normal.
        if len(self.planes) > 1 and np.linalg.norm(np.cross(step, first.normal)) > 0.01:
            return False
        return all(
            p.size == first.size
            and np.allclose(p.spacing, first.spacing, atol=1e-4)
            and np.allclose(p.x_direction, first.x_direction, atol=1e-4)
            and np.allclose(p.y_direction, first.y_direction, atol=1e-4)
            and np.allclose(p.origin, first.origin + k * step, atol=0.01)
            for k, p in enumerate(self.planes)
        )


@dataclass(eq=False)
class Study:
    """One exam of one subject.

    Attributes:
        name: Folder name; unique in a cohort.
        path: The folder (or single file) that it was read from.
        views: In the order in which they should be shown.
        irregularities: What was found wrong or odd, with its consequence.
        subject: Subject identifier; splits are by subject. The study's name unless the data say more.
        organ: ``heart``, ``knee`` or ``unknown``.
        group: Class of the study for classification, None where unknown.
        side: ``left`` or ``right`` for a knee, None where unknown.
    """

    name: str
    path: Path
    views: list[View]
    irregularities: list[Irregularity] = field(default_factory=list)
    subject: str = ""
    organ: str = UNKNOWN
    group: str | None = None
    side: str | None = None

    def with_role(self, *roles: str) -> Iterator[View]:
        """The views that have one of the roles, in order."""
        return (view for view in self.views if view.role in roles)

    def first(self, role: str) -> View | None:
        """The first view with a role, or None."""
        return next(self.with_role(role), None)
