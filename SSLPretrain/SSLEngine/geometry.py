"""Planes, the lines where they cross, and the axis of a stack. numpy only.

Conventions, everywhere in the engine:

* Patient coordinates are LPS in mm (as DICOM and ITK): +x left, +y posterior, +z head.
* A pixel position is ``(x, y)`` = (column, row), 0-based, integers at pixel centres.
* Image arrays are indexed ``[slice, row, column]``, that is ``[z, y, x]``.
* ``spacing`` of a plane is ``(dx, dy)``: ``dx`` mm between columns, ``dy`` mm between rows.
  DICOM's PixelSpacing holds them the other way round; :meth:`Plane.from_dicom` is the one
  place that swaps them.

The formulas are those of section 4 of the project's method notes: for a host pixel ``(x, y)``
the signed distance to a guest plane is linear, ``D(x, y) = a x + b y + e`` with
``a = dx n_g.r_h``, ``b = dy n_g.c_h``, ``e = n_g.(o_h - o_g)``. The crossing line is ``D = 0`` and
the in-plane distance to it is ``|D| / s`` with ``s = |n_h x n_g|``, the sine of the angle between
the planes.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Planes that meet at less than this angle are treated as parallel: no label is drawn.
MIN_PLANE_ANGLE_DEG = 15.0
#: Two lines that meet at less than this angle (in mm) give no crossing point.
MIN_LINE_ANGLE_DEG = 20.0
#: ImageOrientationPatient is rejected when its two vectors are further from orthogonal.
MAX_COSINE_ERROR = 1e-3

#: Where the heart's apex points, LPS: left, anterior, inferior.
TYPICAL_AXIS = np.array([1.0, -1.0, -1.0]) / np.sqrt(3)
#: Knee directions that do not depend on the side.
KNEE_AXES = {"cor": np.array([0.0, -1.0, 0.0]), "ax": np.array([0.0, 0.0, 1.0])}
LATERAL = {"left": np.array([1.0, 0.0, 0.0]), "right": np.array([-1.0, 0.0, 0.0])}

#: Turns LPS into RAS and back. Its determinant is +1, so cross products are unaffected.
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class GeometryError(ValueError):
    """The numbers of a header do not describe a plane."""


@dataclass(frozen=True)
class Plane:
    """One acquired image plane: a rectangle of pixels lying in the patient.

    Attributes:
        origin: Centre of the first pixel, LPS mm, shape ``(3,)``.
        x_direction: Unit vector of increasing column index, LPS, shape ``(3,)``.
        y_direction: Unit vector of increasing row index, LPS, shape ``(3,)``.
        spacing: ``(dx, dy)`` in mm, between columns and between rows.
        size: ``(columns, rows)``.
        thickness: Slice thickness in mm; 0 where it is not known.
    """

    origin: Array
    x_direction: Array
    y_direction: Array
    spacing: tuple[float, float]
    size: tuple[int, int]
    thickness: float = 0.0

    def __post_init__(self) -> None:
        for name in ("origin", "x_direction", "y_direction"):
            vector = np.asarray(getattr(self, name), dtype=np.float64)
            if vector.shape != (3,) or not np.isfinite(vector).all():
                msg = f"Expected three finite numbers for {name}, found {getattr(self, name)!r}."
                raise GeometryError(msg)
            object.__setattr__(self, name, vector)
        spacing = tuple(float(v) for v in self.spacing)
        if len(spacing) != 2 or not all(np.isfinite(v) and v > 0 for v in spacing):
            msg = f"Expected two positive pixel spacings in mm, found {self.spacing!r}."
            raise GeometryError(msg)
        object.__setattr__(self, "spacing", spacing)
        lengths = [float(np.linalg.norm(v)) for v in (self.x_direction, self.y_direction)]
        if min(lengths) < 1e-6:
            msg = "The image orientation holds a zero vector."
            raise GeometryError(msg)
        for name, length in zip(("x_direction", "y_direction"), lengths, strict=True):
            object.__setattr__(self, name, getattr(self, name) / length)
        cosine = float(self.x_direction @ self.y_direction)
        if abs(cosine) > MAX_COSINE_ERROR:
            msg = f"The image's row and column directions are not perpendicular (cosine {cosine:.4f})."
            raise GeometryError(msg)

    @classmethod
    def from_dicom(
        cls,
        position: Sequence[float],
        orientation: Sequence[float],
        pixel_spacing: Sequence[float],
        rows: int,
        columns: int,
        thickness: float = 0.0,
    ) -> Plane:
        """Builds a plane from DICOM's own fields.

        Args:
            position: ImagePositionPatient (0020,0032), LPS mm.
            orientation: ImageOrientationPatient (0020,0037): direction of increasing column
                index, then of increasing row index.
            pixel_spacing: PixelSpacing (0028,0030): [between rows, between columns] in mm.
            rows: Rows (0028,0010).
            columns: Columns (0028,0011).
            thickness: SliceThickness (0018,0050) in mm.

        Raises:
            GeometryError: The fields do not describe a plane.
        """
        if len(orientation) != 6 or len(pixel_spacing) != 2:
            msg = "Expected six orientation cosines and two pixel spacings."
            raise GeometryError(msg)
        return cls(
            origin=np.asarray(position, dtype=np.float64),
            x_direction=np.asarray(orientation[:3], dtype=np.float64),
            y_direction=np.asarray(orientation[3:], dtype=np.float64),
            spacing=(float(pixel_spacing[1]), float(pixel_spacing[0])),
            size=(int(columns), int(rows)),
            thickness=float(thickness),
        )

    @property
    def normal(self) -> Array:
        """Unit normal ``x_direction x y_direction``, shape ``(3,)``."""
        # Written out: np.cross takes ten times as long for one pair, and cohorts ask for thousands.
        (a, b, c), (d, e, f) = self.x_direction.tolist(), self.y_direction.tolist()
        return np.array([b * f - c * e, c * d - a * f, a * e - b * d])

    def to_patient(self, pixels: npt.ArrayLike) -> Array:
        """Pixel positions ``(..., 2)`` to LPS mm ``(..., 3)``."""
        xy = np.asarray(pixels, dtype=np.float64)
        steps = np.stack([self.spacing[0] * self.x_direction, self.spacing[1] * self.y_direction])
        return self.origin + xy @ steps

    def to_pixel(self, points: npt.ArrayLike) -> Array:
        """LPS mm ``(..., 3)`` to pixel positions ``(..., 2)``, projected along the normal."""
        offset = np.asarray(points, dtype=np.float64) - self.origin
        return np.stack(
            [offset @ self.x_direction / self.spacing[0], offset @ self.y_direction / self.spacing[1]], axis=-1
        )

    def signed_distance(self, points: npt.ArrayLike) -> Array:
        """Distance in mm of LPS points ``(..., 3)`` from the plane, positive along the normal."""
        return np.asarray((np.asarray(points, dtype=np.float64) - self.origin) @ self.normal)

    def contains(self, pixels: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether pixel positions ``(..., 2)`` lie on the image, half a pixel of border included."""
        xy = np.asarray(pixels, dtype=np.float64)
        upper = np.asarray(self.size, dtype=np.float64) - 0.5
        return np.asarray(((xy >= -0.5) & (xy <= upper)).all(axis=-1))

    @property
    def corners(self) -> Array:
        """The image's true outer corners (half pixels included), in order round it, LPS, ``(4, 3)``."""
        w, h = self.size
        return self.to_patient([[-0.5, -0.5], [w - 0.5, -0.5], [w - 0.5, h - 0.5], [-0.5, h - 0.5]])

    @property
    def centre(self) -> Array:
        """Centre of the image, LPS mm, shape ``(3,)``."""
        return self.to_patient([(self.size[0] - 1) / 2, (self.size[1] - 1) / 2])

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height of the image in mm, outer edge to outer edge."""
        return self.size[0] * self.spacing[0], self.size[1] * self.spacing[1]

    def resampled(self, spacing: tuple[float, float]) -> Plane:
        """The same rectangle with another spacing (outer edges stay; the size is rounded)."""
        size = tuple(max(1, round(e / s)) for e, s in zip(self.extent, spacing, strict=True))
        first = [(k - 1) / 2 for k in size]
        origin = self.centre - first[0] * spacing[0] * self.x_direction - first[1] * spacing[1] * self.y_direction
        return Plane(origin, self.x_direction, self.y_direction, spacing, (size[0], size[1]), self.thickness)

    def as_json(self) -> dict[str, Any]:
        """Plain numbers, for reports and manifests."""
        return {
            "origin_mm": self.origin.tolist(),
            "x_direction": self.x_direction.tolist(),
            "y_direction": self.y_direction.tolist(),
            "spacing_mm": list(self.spacing),
            "size": list(self.size),
            "thickness_mm": self.thickness,
        }


def planes_of_volume(
    origin: npt.ArrayLike,
    direction: npt.ArrayLike,
    spacing: Sequence[float],
    size: Sequence[int],
    thickness: float | None = None,
) -> list[Plane]:
    """The planes of a volume as ITK describes it, one for each index of its third axis.

    Args:
        origin: Centre of the first voxel, LPS mm, ``(3,)``.
        direction: Direction cosines, columns = directions of the three index axes, ``(3, 3)``.
        spacing: mm along the three index axes.
        size: Voxels along the three index axes.
        thickness: Slice thickness; the third spacing where it is not given.

    Raises:
        GeometryError: The numbers do not describe a volume.
    """
    matrix = np.asarray(direction, dtype=np.float64).reshape(3, 3)
    first = np.asarray(origin, dtype=np.float64)
    step = float(spacing[2])
    if not np.isfinite(step) or step <= 0:
        msg = f"Expected a positive slice spacing in mm, found {spacing[2]!r}."
        raise GeometryError(msg)
    return [
        Plane(
            origin=first + k * step * matrix[:, 2],
            x_direction=matrix[:, 0],
            y_direction=matrix[:, 1],
            spacing=(float(spacing[0]), float(spacing[1])),
            size=(int(size[0]), int(size[1])),
            thickness=step if thickness is None else thickness,
        )
        for k in range(int(size[2]))
    ]


def planes_of_affine(affine_ras: npt.ArrayLike, size: Sequence[int]) -> list[Plane]:
    """The planes of a volume from a 4x4 RAS affine (NIfTI, Slicer's IJKToRAS)."""
    affine = LPS_TO_RAS @ np.asarray(affine_ras, dtype=np.float64)
    columns = affine[:3, :3]
    spacing = np.linalg.norm(columns, axis=0)
    if not np.isfinite(affine).all() or (spacing < 1e-9).any():
        msg = "The affine has a column of length zero or a number that is not finite."
        raise GeometryError(msg)
    return planes_of_volume(affine[:3, 3], columns / spacing, spacing.tolist(), size)


# ---------------------------------------------------------------------------------------------
# Lines


@dataclass(frozen=True)
class Line:
    """A line on a host image: ``a x + b y + e`` is the signed in-plane distance to it in mm.

    The sign is that of the guest plane's normal. Because the value is a distance in mm, a heatmap
    is ``exp(-(value / sigma) ** 2 / 2)`` whatever the pixel's shape and the angle of the planes.

    Attributes:
        coefficients: ``(a, b, e)``, mm per pixel, mm per pixel, mm.
        angle_deg: Angle between the two planes, 0 to 90 degrees.
    """

    coefficients: Array
    angle_deg: float = 90.0

    def distance(self, pixels: npt.ArrayLike) -> Array:
        """Signed in-plane distance in mm of pixel positions ``(..., 2)``."""
        xy = np.asarray(pixels, dtype=np.float64)
        return np.asarray(xy @ self.coefficients[:2] + self.coefficients[2])


def plane_angle_deg(first: Plane, second: Plane) -> float:
    """Angle between two planes, 0 (parallel) to 90 degrees."""
    return normals_angle_deg(first.normal, second.normal)


def normals_angle_deg(first: Array, second: Array) -> float:
    """Angle between the planes that have these unit normals ``(3,)``, 0 (parallel) to 90 degrees."""
    sine = float(np.linalg.norm(np.cross(first, second)))
    return float(np.degrees(np.arctan2(sine, abs(float(first @ second)))))


def crossing_line(host: Plane, guest: Plane, min_angle_deg: float = MIN_PLANE_ANGLE_DEG) -> Line | None:
    """The line where the infinite guest plane cuts the host image, or None if they are parallel."""
    angle = plane_angle_deg(host, guest)
    if angle < min_angle_deg:
        return None
    normal = guest.normal
    coefficients = np.array(
        [
            host.spacing[0] * (normal @ host.x_direction),
            host.spacing[1] * (normal @ host.y_direction),
            normal @ (host.origin - guest.origin),
        ]
    )
    return Line(coefficients / np.sin(np.radians(angle)), angle)


@dataclass(frozen=True)
class Segment:
    """The part of a crossing line that lies on both images.

    Attributes:
        host_pixels: The two ends on the host image, ``(2, 2)``.
        points: The same ends in the patient, LPS mm, ``(2, 3)``.
    """

    host_pixels: Array
    points: Array

    @property
    def length_mm(self) -> float:
        """Distance between the ends."""
        return float(np.linalg.norm(self.points[1] - self.points[0]))


def _clip(start: Array, step: Array, size: tuple[int, int], interval: tuple[float, float]) -> tuple[float, float]:
    """Liang-Barsky: the part of ``start + t step`` on an image; an empty interval has low > high."""
    low, high = interval
    for p, d, n in zip(start, step, size, strict=True):
        if abs(d) < 1e-12:
            if not -0.5 <= p <= n - 0.5:
                return np.inf, -np.inf
            continue
        ends = sorted(((-0.5 - p) / d, (n - 0.5 - p) / d))
        low, high = max(low, ends[0]), min(high, ends[1])
    return low, high


def crossing_segment(host: Plane, guest: Plane, min_angle_deg: float = MIN_PLANE_ANGLE_DEG) -> Segment | None:
    """The finite segment where both acquired images really meet; None if they do not."""
    line = crossing_line(host, guest, min_angle_deg)
    if line is None:
        return None
    a, b, _ = line.coefficients
    middle = np.array([(host.size[0] - 1) / 2, (host.size[1] - 1) / 2])
    foot = middle - line.distance(middle) * np.array([a, b]) / (a * a + b * b)
    step = np.array([-b, a]) / np.hypot(a, b)
    interval = _clip(foot, step, host.size, (-np.inf, np.inf))
    on_guest = guest.to_pixel(host.to_patient(np.stack([foot, foot + step])))
    low, high = _clip(on_guest[0], on_guest[1] - on_guest[0], guest.size, interval)
    if low >= high:
        return None
    ends = np.stack([foot + low * step, foot + high * step])
    return Segment(ends, host.to_patient(ends))


def crossing_point(
    first: Line, second: Line, spacing: tuple[float, float], min_angle_deg: float = MIN_LINE_ANGLE_DEG
) -> Array | None:
    """The pixel ``(2,)`` where two lines of one host meet; None if they are near parallel in mm."""
    scale = np.asarray(spacing)
    g1, g2 = first.coefficients[:2] / scale, second.coefficients[:2] / scale
    sine = abs(g1[0] * g2[1] - g1[1] * g2[0]) / (np.linalg.norm(g1) * np.linalg.norm(g2))
    if sine < np.sin(np.radians(min_angle_deg)):
        return None
    x, y, w = np.cross(first.coefficients, second.coefficients)
    return np.array([x / w, y / w])


def line_direction(line: Line, host: Plane) -> Array:
    """Unit vector along the line in the patient, LPS, ``(3,)``; its sign is arbitrary."""
    a, b, _ = line.coefficients
    vector = -b * host.spacing[0] * host.x_direction + a * host.spacing[1] * host.y_direction
    return vector / np.linalg.norm(vector)


# ---------------------------------------------------------------------------------------------
# Stacks


def stack_normal(planes: Sequence[Plane]) -> Array | None:
    """Mean normal of a stack, ``(3,)``; None where its slices are not parallel within 1e-3."""
    normals = np.array([p.normal for p in planes])
    normals *= np.where(normals @ normals[0] < 0, -1.0, 1.0)[:, None]
    mean = normals.mean(axis=0)
    mean /= np.linalg.norm(mean)
    return mean if (np.abs(normals @ mean) > 1 - 1e-3).all() else None


def slice_positions(planes: Iterable[Plane], axis: npt.ArrayLike) -> Array:
    """Position in mm of each slice's centre along a unit axis, ``(n,)``."""
    centres = np.array([p.centre for p in planes])
    return np.asarray(centres @ np.asarray(axis, dtype=np.float64))


def slice_places(planes: Sequence[Plane], axis: npt.ArrayLike) -> Array:
    """Place of each slice between the ends of its stack, 0 to 1 along ``axis``, ``(n,)``.

    A ratio of millimetres, not of slice indices. A single slice has no place: NaN.
    """
    s = slice_positions(planes, axis)
    length = s.max() - s.min()
    return np.full(len(s), np.nan) if length < 1e-6 else (s - s.min()) / length


def middle_plane(planes: Sequence[Plane]) -> Plane:
    """The middle one of a stack; of an even number the same, whichever end a file begins with."""
    places = slice_positions(planes, towards(planes[0].normal, TYPICAL_AXIS))
    return planes[int(places.argsort(kind="stable")[len(planes) // 2])]


def long_axis(two_chamber: Plane, four_chamber: Plane) -> Array | None:
    """Direction of the left ventricle from base to apex, unit, LPS; None for parallel planes.

    The intersection of the two long-axis planes, signed towards left, anterior and inferior.
    """
    axis = np.cross(two_chamber.normal, four_chamber.normal)
    length = float(np.linalg.norm(axis))
    if length < np.sin(np.radians(MIN_PLANE_ANGLE_DEG)):
        return None
    axis = axis / length
    return axis if axis @ np.array([1.0, -1.0, -1.0]) > 0 else -axis


def towards(vector: npt.ArrayLike, direction: npt.ArrayLike) -> Array:
    """The vector, turned round if need be so that it points along ``direction``."""
    v = np.asarray(vector, dtype=np.float64)
    return v if v @ np.asarray(direction, dtype=np.float64) >= 0 else -v


def anatomical_direction(role: str, planes: Sequence[Plane], axis: Array | None, side: str | None) -> Array | None:
    """Unit vector, LPS, along which places grow in a stack; None where it is not known.

    Args:
        role: Role of the stack's view.
        planes: All of its planes.
        axis: The heart's, base to apex; None where it is not known.
        side: ``left`` or ``right`` for a knee, None where unknown.
    """
    along: Array | None
    if role == "sax":
        along = TYPICAL_AXIS if axis is None else axis
    elif role == "sag":
        along = LATERAL.get(side or "")
    else:
        along = KNEE_AXES.get(role)
    if along is None:
        return None
    normal = stack_normal(planes)
    # Tilted slices have no common normal; their centres still follow each other along the anatomy.
    return along if normal is None else towards(normal, along)


# ---------------------------------------------------------------------------------------------
# Pixels of one plane as pixels of another


def turned(plane: Plane, right: npt.ArrayLike, down: npt.ArrayLike) -> Plane:
    """The same pixels, with rows and columns in the order and directions nearest to ``right`` and ``down``, LPS.

    Files store one image in eight ways; what this gives is the same for all of them, but for the sign of the normal.
    """
    across = (plane.x_direction, plane.spacing[0], plane.size[0])
    along = (plane.y_direction, plane.spacing[1], plane.size[1])
    wanted = np.asarray(right, dtype=np.float64), np.asarray(down, dtype=np.float64)
    chosen = max(
        ((across, along), (along, across)),
        key=lambda axes: sum(abs(axis[0] @ way) for axis, way in zip(axes, wanted, strict=True)),
    )
    origin, directions = plane.origin, []
    for (direction, spacing, size), way in zip(chosen, wanted, strict=True):
        directions.append(towards(direction, way))
        if direction @ way < 0:
            origin = origin + (size - 1) * spacing * direction
    (_, dx, columns), (_, dy, rows) = chosen
    return Plane(origin, directions[0], directions[1], (dx, dy), (columns, rows), plane.thickness)


def plane_to_plane(source: Plane, target: Plane) -> Array:
    """Maps pixels of ``source`` to pixels of a coplanar ``target``, homogeneous 3x3."""
    base = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    image = target.to_pixel(source.to_patient(base))
    matrix = np.eye(3)
    matrix[:2, 0] = image[1] - image[0]
    matrix[:2, 1] = image[2] - image[0]
    matrix[:2, 2] = image[0]
    return matrix
