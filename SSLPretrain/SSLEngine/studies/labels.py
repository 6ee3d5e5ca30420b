"""Labels that lie beside the images: ``<name>_seg.<ext>``, or Slicer's ``<name>.seg.nrrd`` with segment names.

A label map is brought to the slices of its image: where Slicer cropped it, or it was drawn on another grid, by nearest
neighbour in patient space.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..geometry import Array
from ..geometry import Plane
from .claims import check_claim
from .claims import nifti_is_finite
from .study import Irregularity
from .study import StudyError
from .volumes import VolumeHeader
from .volumes import load_array
from .volumes import read_header
from .volumes import stem

Labels = npt.NDArray[np.int16]
#: Labels whose voxels lie further than this (in voxels) from the image's are said to be resampled.
MAX_OFF_GRID = 0.1
SEGMENTATION_EXTENSION = ".seg.nrrd"
#: Slices that form no volume have a file each, named so but for the first, which has the view's own name.
PART = re.compile(r"(?P<name>.+)_slice[0-9]{3}\.seg\.nrrd", re.IGNORECASE)
#: Field of a segmentation's header that a model has written. Slicer drops it when a person saves the file again.
RESULT_FIELD = "SSLSegmentation_Result"
#: The largest label value.
MAX_VALUE = np.iinfo(np.int16).max


@dataclass(frozen=True)
class Segment:
    """One segment of a ``.seg.nrrd``: the value it has in the file, its layer, and the value it gets here."""

    name: str
    stored: int
    layer: int
    value: int


@dataclass
class LabelFile:
    """A label map beside an image.

    Attributes:
        header: Its header.
        segments: What the file says about its values; empty for a bare label map.
        parts: The files of the further slices, where the slices form no volume and each has a file; see :data:`PART`.
        image_positioned: Whether the image says where it lies in the patient.
    """

    header: VolumeHeader
    segments: list[Segment]
    parts: Sequence[LabelFile] = ()
    image_positioned: bool = True

    @property
    def names(self) -> Mapping[int, str]:
        """Names of the values, as far as the file gives them."""
        return {s.value: s.name for s in self.segments}

    def planes(self) -> list[Plane]:
        """The slices, those of the further files included."""
        return [plane for file in (self, *self.parts) for plane in file.header.planes()]

    def _nearest(self, plane: Plane) -> LabelFile:
        """The file whose slices lie nearest to a plane: slabs of tilted slices overlap."""
        return min((self, *self.parts), key=lambda file: file._off_slab(plane)) if self.parts else self

    def fit(self, planes: Sequence[Plane]) -> Irregularity | None:
        """What has to be done to bring the labels onto an image's slices; None where nothing has."""
        if max(self._nearest(plane)._off_grid(plane) for plane in planes) <= MAX_OFF_GRID:
            return None
        if self._voxel_by_voxel(planes):
            which = "the image" if self.header.positioned else "the label file"
            what, so = f"{which} has no position of its own", "the labels are laid over the image voxel by voxel"
        else:
            what, so = "the labels lie on another grid than the image", "they are resampled by nearest neighbour"
        return Irregularity(str(self.header.path), what, so)

    def other_phases(self, phases: int) -> Irregularity | None:
        """What follows where the file has other phases than its image with so many; None where it has not.

        A file of one phase is that of the first one.
        """
        if self.phases in (1, phases):
            return None
        what = f"the labels have {self.phases} phases and the image {phases}"
        so = "those of the same number belong together, and no others are used"
        return Irregularity(str(self.header.path), what, so, costs_labels=self.drawn_phases[-1] >= phases)

    def elsewhere(self, other: LabelFile, phase: int = 0) -> bool:
        """Whether what is drawn in a phase lies outside another file's box: the two are not of one exam.

        An empty label map may have any box; it says that nothing was found.
        """
        if self._voxel_by_voxel(other.header.planes()) or self.header.overlaps(other.header):
            return False
        return bool(self._values(phase).any())

    def _voxel_by_voxel(self, planes: Sequence[Plane]) -> bool:
        return self._of_size(planes) and not (self.header.positioned and self.image_positioned)

    def _of_size(self, planes: Sequence[Plane]) -> bool:
        return self.header.size == (*planes[0].size, len(planes))

    def _index_map(self, plane: Plane) -> tuple[Array, Array, Array]:
        """Label index at the plane's first pixel, and its steps along columns and rows, each ``(3,)``."""
        matrix = self.header.direction / np.array(self.header.spacing)
        start = (plane.origin - self.header.origin) @ matrix
        return start, plane.spacing[0] * plane.x_direction @ matrix, plane.spacing[1] * plane.y_direction @ matrix

    def _off_grid(self, plane: Plane) -> float:
        """Largest distance of the plane's corner pixels from a label voxel's centre, in voxels."""
        _, right, down = self._index_map(plane)
        corners = self._corners(plane)
        steps = np.abs(np.stack([right - np.round(right), down - np.round(down)])).max()
        return float(max(np.abs(corners - np.round(corners)).max(), steps))

    def _off_slab(self, plane: Plane) -> float:
        """Largest distance of the plane's corner pixels from the middle of the labels' slices, in slices."""
        return float(np.abs(self._corners(plane)[:, 2] - (self.header.size[2] - 1) / 2).max())

    def _corners(self, plane: Plane) -> Array:
        """Label indices of the plane's corner pixels, ``(4, 3)``."""
        start, right, down = self._index_map(plane)
        w, h = plane.size
        return start + np.outer([0, 1, 0, 1], right * (w - 1)) + np.outer([0, 0, 1, 1], down * (h - 1))

    def reader(self, planes: Sequence[Plane]) -> Callable[[int], Labels | None]:
        """``read_labels`` of the view that has these planes."""
        return lambda phase: self.on(planes, phase) if phase in self.drawn_phases else None

    @property
    def phases(self) -> int:
        """Number of phases; the layers of a ``.seg.nrrd`` are none."""
        return 1 if self.segments else self.header.phases

    @functools.cached_property
    def drawn_phases(self) -> list[int]:
        """Phases that have labels, from the pixels.

        In a cine often only end-diastole and end-systole are drawn, and the file holds zeros for the others (as that of
        the M&Ms challenge): where any phase holds labels, those that hold none are unknown, and not background.
        """
        held = [k for k in range(self.phases) if self.phases > 1 and self._values(k).any()]
        return held or list(range(self.phases))

    def check(self, planes: Sequence[Plane], phases: int) -> frozenset[int]:
        """Reads every phase once, for an image on these planes with so many phases.

        Returns:
            The values that are drawn, without that of the background.

        Raises:
            StudyError: One cannot be read, or holds what is no label; or they do not lie on the image.
        """
        self._check_place(planes)
        drawn: set[int] = set()
        lies = self._voxel_by_voxel(planes)
        for phase, file in itertools.product(range(self.phases), (self, *self.parts)):
            values = file._values(phase)
            if values.any():
                drawn.update(np.unique(values[values > 0]).tolist())
                lies = lies or any(file._sample(values, plane).any() for plane in planes)
        if drawn and not lies:
            msg = f"{self.header.path} has labels only where its image is not: check that the two belong together."
            raise StudyError(msg)
        if self.drawn_phases[0] >= phases:
            msg = f"{self.header.path} has labels only in phases that its image lacks: export both with all phases."
            raise StudyError(msg)
        return frozenset(drawn)

    def _check_place(self, planes: Sequence[Plane]) -> None:
        # Slicer crops the labels of an image without a position on the image's own grid.
        placed = self.image_positioned or max(self._off_grid(plane) for plane in planes) <= MAX_OFF_GRID
        if not self._of_size(planes) and not (self.header.positioned and placed):
            which = "the image" if self.header.positioned else "the label file"
            msg = (
                f"{self.header.path} is not of the size of its image, and {which} has no position of its own: "
                "export the labels on the image's grid."
            )
            raise StudyError(msg)

    def on(self, planes: Sequence[Plane], phase: int) -> Labels:
        """Labels of one phase on some planes of one size, ``(planes, rows, columns)``.

        Where each slice has a file of its own, a plane on which none of them lies is left open (-1).

        Raises:
            StudyError: The files of the slices have different segments.
        """
        if self.parts:
            return np.stack([self._of_part(plane, phase) for plane in planes])
        values = self._values(phase)
        if self._voxel_by_voxel(planes):
            return values
        return np.stack([self._sample(values, plane) for plane in planes])

    def _of_part(self, plane: Plane, phase: int) -> Labels:
        file = self._nearest(plane)
        if file.names != self.names:
            where = f"{file.header.path} and {self.header.path}"
            msg = f"{where} are slices of one view with different segments: give both the same."
            raise StudyError(msg)
        if file._off_slab(plane) > 0.5:
            return np.full(plane.size[::-1], -1, np.int16)
        return file._sample(file._values(phase), plane)

    def _values(self, phase: int) -> Labels:
        if not self.segments:
            if not self._finite:
                raise _no_label_map(self.header.path, "values that are no finite numbers")
            return _whole_numbers(load_array(self.header, phase), self.header.path)
        merged = np.zeros(self.header.size[::-1], np.int16)
        layers = self._layers()
        # Endo is often drawn within epi: what is smaller lies on top, or it would be gone.
        for s in sorted(self._stored_segments(), key=lambda s: -np.count_nonzero(layers[s.layer] == s.stored)):
            merged[layers[s.layer] == s.stored] = s.value
        return merged

    def overlap(self) -> Irregularity | None:
        """What is done where segments overlap, which they do in different layers; None where none do."""
        if len({s.layer for s in self._stored_segments()}) < 2:
            return None
        layers = self._layers()
        drawn = sum(np.count_nonzero(layers[s.layer] == s.stored) for s in self._stored_segments())
        if drawn == np.count_nonzero(self._values(0)):
            return None
        what, so = "its segments overlap", "where they do, the smallest one counts"
        return Irregularity(str(self.header.path), what, so)

    def _layers(self) -> dict[int, npt.NDArray[Any]]:
        return {layer: load_array(self.header, layer) for layer in {s.layer for s in self._stored_segments()}}

    def _stored_segments(self) -> list[Segment]:
        return [s for s in self.segments if s.layer < self.header.phases]

    @functools.cached_property
    def _finite(self) -> bool:
        """False where ITK hides that there are pixels without a number."""
        nifti = self.header.path.name.lower().endswith((".nii", ".nii.gz"))
        return self.header.integer or not nifti or nifti_is_finite(self.header.path)

    def _sample(self, values: Labels, plane: Plane) -> Labels:
        """The label nearest to every pixel of a plane, ``(rows, columns)``; 0 outside the label volume."""
        start, right, down = self._index_map(plane)
        w, h = plane.size
        grid = start + np.arange(h)[:, None, None] * down + np.arange(w)[:, None] * right
        x, y, z = np.moveaxis(np.floor(grid + 0.5).astype(np.intp), -1, 0)
        inside = (x >= 0) & (y >= 0) & (z >= 0)
        inside &= (x < values.shape[2]) & (y < values.shape[1]) & (z < values.shape[0])
        found = np.zeros((h, w), np.int16)
        found[inside] = values[z[inside], y[inside], x[inside]]
        return found


def _whole_numbers(values: npt.NDArray[Any], path: Path) -> Labels:
    rounded = np.rint(values)
    with np.errstate(invalid="ignore"):
        wrong = {
            "values that are no finite numbers": ~np.isfinite(values),
            "negative values": rounded < 0,
            f"values above {MAX_VALUE}": rounded > MAX_VALUE,
            "fractions": np.abs(values - rounded) > 1e-3,
        }
    for what, where in wrong.items():
        if where.any():
            raise _no_label_map(path, f"{what} ({values[where][0]:g} for one)")
    return rounded.astype(np.int16)


def _no_label_map(path: Path, what: str) -> StudyError:
    msg = f"{path} should be a label map but holds {what}: export it as whole numbers from 0 to {MAX_VALUE}."
    return StudyError(msg)


def read_label_file(path: Path) -> LabelFile:
    """The header of a label map and what it says about its segments.

    Raises:
        StudyError: The file cannot be used.
    """
    header = read_header(path)
    if not path.name.lower().endswith(SEGMENTATION_EXTENSION):
        return LabelFile(header, [])
    parts = [p for p in sorted(path.parent.iterdir()) if first_of(p) == path] if first_of(path) is None else []
    return LabelFile(header, _segments(header), [read_label_file(part) for part in parts])


def first_of(path: Path) -> Path | None:
    """The file of the first slice, of a file of a further one (:data:`PART`); None of any other file."""
    part = PART.fullmatch(path.name)
    first = path.with_name(part["name"] + SEGMENTATION_EXTENSION) if part else None
    return first if first is not None and first.is_file() else None


def _segments(header: VolumeHeader) -> list[Segment]:
    """Segments in the file's order (``SegmentN_Name``, ``SegmentN_LabelValue``, ``SegmentN_Layer``).

    Values that two layers use alike would collide in one map, so all are renumbered from 1 where that happens.
    """
    fields = header.claim.fields
    found: list[tuple[str, int, int]] = []
    for n in range(len(fields)):
        if f"segment{n}_id" not in fields and f"segment{n}_name" not in fields:
            break
        name = fields.get(f"segment{n}_name") or fields.get(f"segment{n}_id", f"Segment {n + 1}")
        value, layer = (
            fields.get(f"segment{n}_{key}", default) for key, default in (("labelvalue", "1"), ("layer", "0"))
        )
        if value.isdigit() and layer.isdigit() and 0 < int(value) <= MAX_VALUE:
            found.append((name, int(value), int(layer)))
    distinct = len({value for _, value, _ in found}) == len(found)
    return [Segment(name, v, layer, v if distinct else k + 1) for k, (name, v, layer) in enumerate(found)]


def is_label_file(path: Path, suffix: str) -> bool:
    """Whether a volume file's name says that it holds labels and not an image."""
    return path.name.lower().endswith(SEGMENTATION_EXTENSION) or (
        bool(suffix) and stem(path).lower().endswith(suffix.lower())
    )


def is_result(path: Path) -> bool:
    """Whether a segmentation is as a model has written it, so that nothing that a person has drawn is in it."""
    try:
        return RESULT_FIELD.lower() in check_claim(path).fields
    except StudyError:
        return False


def image_name(path: Path, suffix: str) -> str:
    """The name of the image that a label file belongs to."""
    name = stem(path)
    return name[: -len(suffix)] if suffix and name.lower().endswith(suffix.lower()) else name
