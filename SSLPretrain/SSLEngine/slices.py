"""All slices of a cohort on the training device; batches are cut, moved and changed there.

Every slice is resampled once to the network's spacing, standardised, and kept as float16. A batch is one indexing,
one ``grid_sample`` for images and labels together (rotation, scale, shear, shift and flip are one matrix) and a few
element-wise changes of grey values. Lines and points move by the same matrix in closed form: they are never rasterised
before the augmentation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from .geometry import Array
from .geometry import Plane
from .geometry import crossing_line
from .geometry import crossing_point
from .geometry import long_axis
from .geometry import middle_plane
from .geometry import plane_to_plane
from .geometry import slice_positions
from .geometry import turned
from .pretext.base import Batch
from .pretext.base import Geometry
from .pretext.base import Host
from .pretext.base import Pretext
from .pretext.location import anatomical_direction
from .settings import NONE_LEFT_OUT
from .settings import Augmentation
from .settings import Grid
from .settings import LeftOut
from .settings import Phases
from .studies.crossings import comparable_views
from .studies.phases import ed_es_phases
from .studies.study import UNKNOWN
from .studies.study import Study
from .studies.study import View

#: Views that training uses, by organ. Others are read and shown, and teach nothing.
HOST_ROLES = ("sax", "2ch", "3ch", "4ch", "sag", "cor", "ax")

_LEFT, _POSTERIOR, _INFERIOR = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0)
#: Where the right and the lower side of an image lie when a network sees it, LPS: as such views are usually shown. The
#: short axis has the inferior wall below, which lies behind as well; the 4-chamber view has its apex above [ours].
UPRIGHT = {
    "sax": (_LEFT, (0.0, 0.7, -0.7)),
    "4ch": (_LEFT, (0.0, 0.7, 0.7)),
    "2ch": (_POSTERIOR, _INFERIOR),
    "3ch": (_POSTERIOR, _INFERIOR),
    "ax": (_LEFT, _POSTERIOR),
    "cor": (_LEFT, _INFERIOR),
    "sag": (_POSTERIOR, _INFERIOR),
}

#: Stored slices are this many patch sides wide, so that a shifted patch still sees real surroundings.
MARGIN = 1.5


@dataclass(frozen=True)
class SliceInfo:
    """Where a stored slice came from."""

    study: str
    subject: str
    role: str
    view: str
    index: int
    phase: int
    labelled: bool


class SliceSet:
    """Slices on one device, with what is carried along for each pretext.

    Attributes:
        images: ``(N, S, S)`` float16.
        labels: ``(L, S, S)`` uint8 class indices; only labelled slices have a row.
        label_row: ``(N,)`` row in ``labels`` or -1.
        acquired: ``(N, 4)`` float32 left, upper, right and lower edge of what was acquired, in stored pixels; beyond it
            the border is repeated.
        lines, points, values: By pretext name, ``(N, k, 3)``, ``(N, k, 2)``, ``(N, k)`` float32, NaN where unknown.
        infos: One a slice.
        spacing_mm: In-plane spacing.
    """

    def __init__(self, records: Sequence[Record], spacing_mm: float, device: torch.device) -> None:
        self.infos = [r.info for r in records]
        self.spacing_mm = spacing_mm
        self.images = torch.from_numpy(np.stack([r.image for r in records])).to(device)
        self.acquired = torch.from_numpy(np.stack([r.acquired for r in records]).astype(np.float32)).to(device)
        rows = np.cumsum([r.labels is not None for r in records]) - 1
        self.label_row = torch.from_numpy(np.where([r.labels is not None for r in records], rows, -1)).to(device)
        labelled = [r.labels for r in records if r.labels is not None]
        self.labels = torch.from_numpy(
            np.stack(labelled) if labelled else np.zeros((0, *records[0].image.shape), np.uint8)
        ).to(device)

        def gather(part: str) -> dict[str, torch.Tensor]:
            names = records[0].geometry
            stacked = {n: np.stack([getattr(r.geometry[n], part) for r in records]) for n in names}
            return {n: torch.from_numpy(a.astype(np.float32)).to(device) for n, a in stacked.items()}

        self.lines, self.points, self.values = gather("lines"), gather("points"), gather("values")

    def __len__(self) -> int:
        return len(self.infos)

    @property
    def device(self) -> torch.device:
        """Where the slices are."""
        return self.images.device

    def where(self, test: Callable[[SliceInfo], bool]) -> torch.Tensor:
        """Indices of the slices that pass a test, int64, on the CPU."""
        return torch.tensor([i for i, info in enumerate(self.infos) if test(info)], dtype=torch.int64)


@dataclass(frozen=True)
class Record:
    """One slice before it is stacked with the others."""

    info: SliceInfo
    image: npt.NDArray[np.float16]
    labels: npt.NDArray[np.uint8] | None
    acquired: Array
    geometry: dict[str, Geometry]


# ---------------------------------------------------------------------------------------------
# From studies to slices


def chosen_phases(view: View, wanted: Phases) -> list[int]:
    """Phases to use, as ``Grid.phases`` says: all for 0, else so many evenly spaced from the first, or ED and ES.

    Where only some phases are labelled, these are used as well: they are what there is to learn from.
    """
    if wanted == 0 or (wanted != "ed-es" and wanted >= view.phases):
        return list(range(view.phases))
    spread = ed_es_phases(view) if wanted == "ed-es" else [round(k * view.phases / wanted) for k in range(wanted)]
    labelled = view.labelled_phases
    return sorted({*spread, *(labelled if len(labelled) < view.phases else ())})


def inner_slices(stack: Sequence[Host], left_out: LeftOut) -> list[int]:
    """Which slices of a view are used, in its order: all but the outermost ones of a short-axis stack."""
    direction = anatomical_direction(stack[0])
    if stack[0].role != "sax" or direction is None:
        return list(range(len(stack)))
    from_base = slice_positions(stack[0].stack, direction).argsort()
    end = max(left_out.basal, len(stack) - left_out.apical)
    return sorted(from_base[left_out.basal : end].tolist())


def standardise(pixels: npt.NDArray[np.float32], clip_percent: tuple[float, float]) -> npt.NDArray[np.float32]:
    """Clips a view at two percentiles and brings it to mean 0 and standard deviation 1."""
    finite = np.nan_to_num(pixels)
    low, high = np.percentile(finite, clip_percent)
    clipped = np.clip(finite, low, high)
    deviation = float(clipped.std())
    return ((clipped - clipped.mean()) / deviation if deviation > 1e-6 else np.zeros_like(clipped)).astype(np.float32)


def network_plane(
    plane: Plane, spacing_mm: float, side: int, centre: Array | None, role: str = UNKNOWN, margin: float = 1.0
) -> Plane:
    """The square of ``side`` pixels in the slice's plane that is kept, round ``centre`` (LPS) or the image's centre.

    The middle of the square is put as near to the wanted centre as the image allows: a square that fits is kept inside.
    It is turned as :data:`UPRIGHT` says for the role, so that a network sees an image alike however its rows and
    columns were stored; where the role is unknown it lies as stored. With a ``margin`` it is so many times as large
    round the same middle, and may well reach over the edge of the image.
    """
    if role in UPRIGHT:
        plane = turned(plane, *UPRIGHT[role])
    spacing = (spacing_mm, spacing_mm)
    middle = plane.to_pixel(plane.centre if centre is None else centre)
    half = np.array([side * spacing_mm / 2 / s for s in plane.spacing])
    whole = np.array(plane.size) - 0.5
    low, high = half - 0.5, whole - half
    middle = np.where(low <= high, np.clip(middle, low, np.maximum(low, high)), (whole - 0.5) / 2)
    corner = plane.to_patient(middle)
    # Whole pixels on both sides, so that the pixels of the square itself are the same with and without a margin.
    side += 2 * round(side * (margin - 1) / 2)
    offset = (side - 1) / 2 * spacing_mm
    origin = corner - offset * plane.x_direction - offset * plane.y_direction
    return Plane(origin, plane.x_direction, plane.y_direction, spacing, (side, side), plane.thickness)


def acquired_box(source: Plane, target: Plane) -> Array:
    """Left, upper, right and lower edge of an image lying in ``source``, ``(4,)`` pixels of the coplanar ``target``."""
    corners = np.array([(-0.5, -0.5, 1), (source.size[0] - 0.5, source.size[1] - 0.5, 1)])
    return np.sort((corners @ plane_to_plane(source, target).T)[:, :2], axis=0).ravel()


def resample(pixels: torch.Tensor, source: Plane, target: Plane, labels: bool = False) -> torch.Tensor:
    """Samples slices ``(B, H, W)`` lying in ``source`` on the coplanar ``target``, ``(B, h, w)``.

    Images are blurred first where the target is coarser (so that it does not alias) and interpolated bilinearly; beyond
    the border the edge is repeated. Labels take the nearest pixel, and 0 beyond the border.
    """
    matrix = torch.from_numpy(np.linalg.inv(plane_to_plane(source, target))).float()
    height, width = pixels.shape[-2:]
    image = pixels[:, None].float()
    if not labels:
        # A step of the target is so many columns and rows of the source, whose axes it may take in the other order.
        image = _antialias(image, matrix[:2, :2].abs().sum(1).tolist())
    grid = sampling_grid(matrix[None].to(pixels.device), (target.size[1], target.size[0]), (height, width))
    mode, padding = ("nearest", "zeros") if labels else ("bilinear", "border")
    return functional.grid_sample(
        image, grid.expand(len(image), -1, -1, -1), mode=mode, padding_mode=padding, align_corners=False
    )[:, 0]


def _antialias(image: torch.Tensor, ratios: Sequence[float]) -> torch.Tensor:
    for axis, ratio in ((-1, ratios[0]), (-2, ratios[1])):
        if ratio > 1.2:
            # Sigma of a Gaussian that brings a pixel of width 1 to about one of width `ratio`.
            image = _blur_axis(image, torch.full((len(image),), 0.5 * math.sqrt(ratio**2 - 1)), axis)
    return image


def _blur_axis(image: torch.Tensor, sigma: torch.Tensor, axis: int) -> torch.Tensor:
    """Gaussian blur along one axis, a sigma in pixels for each sample; sigma 0 changes nothing."""
    radius = max(1, math.ceil(3 * float(sigma.max())))
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    sigma = sigma.to(image).clamp(min=1e-3)
    kernel = torch.exp(-0.5 * (offsets / sigma[:, None]) ** 2)
    kernel = kernel / kernel.sum(1, keepdim=True)
    shape = (len(image), 1, 1, -1) if axis == -1 else (len(image), 1, -1, 1)
    pad = (radius, radius, 0, 0) if axis == -1 else (0, 0, radius, radius)
    padded = functional.pad(image, pad, mode="replicate").transpose(0, 1)
    return functional.conv2d(padded, kernel.reshape(shape), groups=len(image)).transpose(0, 1)


def sampling_grid(matrices: torch.Tensor, out_size: tuple[int, int], in_size: tuple[int, int]) -> torch.Tensor:
    """``grid_sample``'s grid for matrices ``(B, 3, 3)`` that take output pixels ``(x, y, 1)`` to input pixels."""
    height, width = out_size
    device = matrices.device
    y, x = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32),
        torch.arange(width, device=device, dtype=torch.float32),
        indexing="ij",
    )
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(1, -1, 3)
    source = (pixels @ matrices.transpose(1, 2))[..., :2]
    scale = torch.tensor([2 / in_size[1], 2 / in_size[0]], device=device)
    return ((source + 0.5) * scale - 1).reshape(len(matrices), height, width, 2)


def comparable(study: Study, view: View) -> Study:
    """The study with only those views whose positions can be compared with the given view's, which is one of them.

    Lines on slices of two frames of reference do not lie in one plane, however well they are seen.
    """
    return replace(study, views=comparable_views(study.views, view))


def guests_of(study: Study) -> dict[str, Plane]:
    """One plane for each role of a study: the middle slice of :func:`stacks_of`."""
    return {role: middle_plane(planes) for role, planes in stacks_of(study).items()}


def stacks_of(study: Study) -> dict[str, list[Plane]]:
    """All planes of the first view of each role that training uses."""
    found: dict[str, list[Plane]] = {}
    for view in study.views:
        if view.role in HOST_ROLES:
            found.setdefault(view.role, view.planes)
    return found


def anatomical_axis(guests: dict[str, Plane]) -> Array | None:
    """Base to apex from the long-axis planes of a study, or None."""
    if "2ch" in guests and "4ch" in guests:
        return long_axis(guests["2ch"], guests["4ch"])
    return None


def landmark(study: Study) -> Array | None:
    """The point, LPS, where a short-axis slice and both long-axis planes meet: an annotation-free heart localiser."""
    stack = study.first("sax")
    if stack is None:
        return None
    # Views that can be compared with a third one of unknown frame need not be comparable with each other.
    guests = guests_of(comparable(study, stack))
    if not {"sax", "2ch", "4ch"} <= set(guests):
        return None
    host = guests["sax"]
    lines = [crossing_line(host, guests[name]) for name in ("2ch", "4ch")]
    if lines[0] is None or lines[1] is None:
        return None
    pixel = crossing_point(lines[0], lines[1], host.spacing)
    return None if pixel is None or not host.contains(pixel) else host.to_patient(pixel)


def crop_centre(study: Study, view: View, grid: Grid) -> Array | None:
    """The point, LPS, round which a view's slices are cut, as ``Grid.centre`` says; None for each image's middle."""
    return landmark(comparable(study, view)) if grid.centre == "crossing" else None


def study_records(
    study: Study,
    pretexts: Sequence[Pretext],
    grid: Grid,
    classes: Sequence[int],
    left_out: LeftOut = NONE_LEFT_OUT,
) -> Iterable[Record]:
    """The slices of a study on the network's grid.

    Args:
        study: The study.
        pretexts: Tasks whose geometry is carried along.
        grid: The grid.
        classes: Label values, in the order of the class indices 1, 2, ...
        left_out: Slices that are not wanted.
    """
    for view in study.views:
        if view.role not in HOST_ROLES:
            continue
        near, centre = comparable(study, view), crop_centre(study, view, grid)
        guests = guests_of(near)
        axis = anatomical_axis(guests)
        hosts = [network_plane(p, grid.spacing_mm, grid.patch, centre, view.role, MARGIN) for p in view.planes]
        boxes = [acquired_box(p, h) for p, h in zip(view.planes, hosts, strict=True)]
        others = {role: plane for role, plane in guests.items() if role != view.role}
        stacks = {role: planes for role, planes in stacks_of(near).items() if role != view.role}
        stack = [Host(h, view.role, others, view.planes, k, axis, stacks, study.side) for k, h in enumerate(hosts)]
        wanted = inner_slices(stack, left_out)
        described = {k: {t.name: t.geometry(stack[k]) for t in pretexts} for k in wanted}
        for phase in chosen_phases(view, grid.phases):
            labels = view.labels(phase)
            images = standardise(view.pixels(phase), grid.clip_percent)
            for k in wanted:
                image = resample(torch.from_numpy(images[k : k + 1]), view.planes[k], hosts[k])[0]
                # A slice on which something is left open (below 0) teaches nothing.
                truth = None
                if labels is not None and labels[k].min() >= 0:
                    truth = _class_map(labels[k], view.planes[k], hosts[k], classes)
                info = SliceInfo(study.name, study.subject, view.role, view.name, k, phase, truth is not None)
                yield Record(info, image.numpy().astype(np.float16), truth, boxes[k], described[k])


def _class_map(
    labels: npt.NDArray[np.int16], source: Plane, target: Plane, classes: Sequence[int]
) -> npt.NDArray[np.uint8]:
    """Label values to class indices on the network's grid; values that are not among ``classes`` are background."""
    table = np.zeros(max([int(labels.max(initial=0)), *classes]) + 1, np.float32)
    table[list(classes)] = np.arange(1, len(classes) + 1)
    indices = torch.from_numpy(table[np.maximum(labels, 0)])[None]
    return resample(indices, source, target, labels=True)[0].numpy().astype(np.uint8)


# ---------------------------------------------------------------------------------------------
# Batches


def augmentation_matrices(
    count: int, patch: int, side: int, spacing_mm: float, settings: Augmentation | None, generator: torch.Generator
) -> torch.Tensor:
    """Matrices ``(B, 3, 3)`` that take patch pixels to stored pixels; the middle of the slice where not augmented."""

    def uniform(low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=generator, device=generator.device) * (high - low) + low

    zero = torch.zeros(count, device=generator.device)
    if settings is None:
        angle, scale, shear, shift_x, shift_y, sign = zero, zero + 1, zero, zero, zero, zero + 1
    else:
        radians = math.radians(settings.rotation_deg)
        angle = uniform(-radians, radians)
        scale = torch.exp(uniform(-math.log(settings.scale), math.log(settings.scale)))
        shear = uniform(-settings.shear, settings.shear)
        reach = settings.shift_mm / spacing_mm
        shift_x, shift_y = uniform(-reach, reach), uniform(-reach, reach)
        mirrored = uniform(0, 1) < 0.5
        sign = torch.where(mirrored, -1.0, 1.0) if settings.flip else zero + 1
    cosine, sine = angle.cos() / scale, angle.sin() / scale
    linear = torch.stack(
        [torch.stack([cosine * sign, shear * cosine - sine], 1), torch.stack([sine * sign, shear * sine + cosine], 1)],
        1,
    )
    middle_in, middle_out = (side - 1) / 2, (patch - 1) / 2
    shift = torch.stack([shift_x, shift_y], 1) + middle_in - linear.sum(2) * middle_out
    matrices = torch.eye(3, device=generator.device).repeat(count, 1, 1)
    matrices[:, :2, :2] = linear
    matrices[:, :2, 2] = shift
    return matrices


def transport_lines(lines: torch.Tensor, matrices: torch.Tensor, spacing_mm: float) -> torch.Tensor:
    """Lines ``(B, k, 3)`` of stored pixels as lines of patch pixels, in mm of the patch.

    ``matrices`` take patch pixels to stored pixels, so the new coefficients are ``l A``. An enlarged image counts as
    the image of a larger heart: they are rescaled to a gradient of one mm per mm.
    """
    moved = lines @ matrices
    gradient = moved[..., :2].norm(dim=-1, keepdim=True) / spacing_mm
    return moved / gradient.clamp(min=1e-9)


def transport_points(points: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Points ``(B, k, 2)`` of stored pixels as patch pixels."""
    offset = points - matrices[:, None, :2, 2]
    return offset @ torch.linalg.inv(matrices[:, :2, :2]).transpose(1, 2)


def make_batch(
    slices: SliceSet, indices: torch.Tensor, patch: int, settings: Augmentation | None, generator: torch.Generator
) -> Batch:
    """Cuts and augments the slices ``indices``; without settings the middle of each slice, unchanged.

    Args:
        slices: The stored slices.
        indices: ``(B,)`` int64.
        patch: Side of the patch in pixels.
        settings: Ranges, or None.
        generator: On the CPU: the same draws on every device.
    """
    device, side = slices.device, slices.images.shape[-1]
    indices = indices.to(device)
    drawn = augmentation_matrices(len(indices), patch, side, slices.spacing_mm, settings, generator)
    matrices = drawn.to(device)
    grid = sampling_grid(matrices, (patch, patch), (side, side))
    images = functional.grid_sample(
        slices.images[indices][:, None].float(), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    rows = slices.label_row[indices]
    labels = torch.full((len(indices), patch, patch), -1, dtype=torch.int64, device=device)
    known = rows >= 0
    if known.any():
        truth = slices.labels[rows[known]][:, None].float()
        labels[known] = functional.grid_sample(
            truth, grid[known], mode="nearest", padding_mode="zeros", align_corners=False
        )[:, 0].long()
    # grid_sample counts from -1 to 1 between the outer edges of the outermost pixels.
    edges = ((slices.acquired[indices] + 0.5) * (2 / side) - 1)[:, None, None]
    acquired = ((grid >= edges[..., :2]) & (grid <= edges[..., 2:])).all(-1)
    if settings is not None:
        images = change_grey_values(images, slices.spacing_mm, settings, generator)
    return Batch(
        images=images,
        labels=labels,
        lines={n: transport_lines(v[indices], matrices, slices.spacing_mm) for n, v in slices.lines.items()},
        points={n: transport_points(v[indices], matrices) for n, v in slices.points.items()},
        values={n: v[indices] for n, v in slices.values.items()},
        spacing_mm=slices.spacing_mm,
        clean=images,
        acquired=acquired,
    )


def change_grey_values(
    images: torch.Tensor, spacing_mm: float, settings: Augmentation, generator: torch.Generator
) -> torch.Tensor:
    """Gamma, contrast, brightness, a smooth field, blur and noise, each drawn for each sample, ``(B, 1, P, P)``."""
    count, device = len(images), images.device

    def draw(*shape: int) -> torch.Tensor:
        return (torch.rand(count, *shape, generator=generator) * 2 - 1).to(device)

    column = (count, 1, 1, 1)
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    extent = (high - low).clamp(min=1e-3)
    exponent = torch.exp(draw() * math.log(1 + settings.gamma)).reshape(column)
    images = ((images - low) / extent).clamp(min=1e-4) ** exponent * extent + low
    field = functional.interpolate(draw(1, 4, 4), size=images.shape[-2:], mode="bicubic", align_corners=True)
    images = (images - low) * (1 + settings.bias * field) + low
    images = images * (1 + settings.contrast * draw().reshape(column))
    images = images + settings.brightness * draw().reshape(column)
    # Only half of the samples are blurred or get noise, so that sharp and clean images stay in sight.
    sigma = draw().clamp(min=0) * settings.blur_mm / spacing_mm
    if float(sigma.max()) > 0.2:
        images = _blur_axis(_blur_axis(images, sigma, -1), sigma, -2)
    amount = draw().clamp(min=0).reshape(column) * settings.noise
    noise = torch.randn(images.shape, generator=generator).to(device)
    return images + amount * noise
