"""Synthetic distortions of regions of an image, in batches on the device: what a network finds, names and undoes.

After Felfeliyan et al., "Self-Supervised-RCNN for medical image segmentation with limited data annotation", CMIG 2023
(10.1016/j.compmedimag.2023.102297). The paper's list of distortions and their parameters are not known here; these
are ours, with pixel shuffling, intensity maps and painting in the manner of Models Genesis (Zhou et al., MedIA 2021).

A network must not learn the seams instead of the image. Outlines are irregular, edges fade over some mm, and what
is put into a region is *levelled*: a smooth field is added that makes it agree with the image along the outline, as
Poisson image interpolation does for the same reason (Tan et al., MICCAI 2021). No step is left at the edge.

All work is done on square windows round the regions. More regions are drawn than are wanted, and the first that lie in
the foreground and hardly overlap are distorted: a fixed number of draws, all of them on the CPU. Of those that really
change the image, such are kept that the types occur about equally often in a batch: a blur is refused half the time, a
filled region never.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from .instances import Instances
from .instances import boxes_of
from .instances import pixel_classes
from .settings import REGION_TYPES
from .settings import Distortions

#: Names of the distortions in class order: class k + 1 is ``TYPES[k]``.
TYPES: tuple[str, ...] = (*REGION_TYPES, "outpainting")

#: Regions of an image that are made beyond the most that are wanted, for the case that others change too little.
SPARE = 3
#: Rounds in which types that were kept too seldom are favoured.
BALANCING = 10
#: Regions that are drawn for each one wanted at most, before the spare ones.
TRIES = 2
#: Other places that are drawn for each region, to take content from one that is apart.
SOURCES = 3
#: Widths of the Gaussians that level a region, as shares of its diameter, and what is added to their divisor.
LEVELS = ((0.2, 1e-4), (0.06, 0.1))
#: Waves round an outline.
WAVES = (2, 3, 4, 5)
#: Cells along a side of the coarse image in which the foreground is found.
COARSE = 36
#: The foreground is grown by this much, so that regions on its border count as inside.
GROWN_MM = 8.0
#: Diameter of the place that out-painting keeps, as shares of the image's side.
KEPT_SHARE = (0.4, 0.6)
#: Points of the table that an intensity map is read from.
MAP_POINTS = 64


@dataclass
class Distorted:
    """A batch with distorted regions.

    Attributes:
        images: ``(B, 1, P, P)`` the distorted images.
        regions: ``(B, R, P, P)`` bool, R the most regions of an image: where a region's weight is over one half, even
            where a later region lies over it.
        kinds: ``(B, R)`` int64 class of each region, 1 to ``len(TYPES)``; 0 where there is none.
    """

    images: torch.Tensor
    regions: torch.Tensor
    kinds: torch.Tensor

    @property
    def types(self) -> torch.Tensor:
        """Class of every pixel, ``(B, P, P)`` int64, 0 where untouched; of two regions the later lies on top."""
        return torch.stack([pixel_classes(r, k) for r, k in zip(self.regions, self.kinds, strict=True)])


@dataclass
class Windows:
    """Square cut-outs of W pixels round regions, C for each of B images, so that there are N = B C.

    Attributes:
        weights: ``(N, W, W)`` 0 outside the region, 1 inside, between them at its edge.
        corners: ``(N, 2)`` int64 x and y of each window's first pixel.
        sources: ``(N, 2)`` the same of a window round another place in the foreground.
        sides: ``(N,)`` longest diameter of the regions in pixels.
    """

    weights: torch.Tensor
    corners: torch.Tensor
    sources: torch.Tensor
    sides: torch.Tensor

    def part(self, rows: torch.Tensor) -> Windows:
        """The windows of some rows."""
        return Windows(self.weights[rows], self.corners[rows], self.sources[rows], self.sides[rows])

    def places(self, corners: torch.Tensor, width: int) -> torch.Tensor:
        """Index of the pixels of windows at some corners in a flattened image of a width, ``(N, W, W)`` int64."""
        step = torch.arange(self.weights.shape[-1], device=corners.device)
        return (corners[:, 1:, None] + step[:, None]) * width + corners[:, :1, None] + step


def cut(images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """What lies in images ``(B, ...)`` at places ``(N, W, W)``, C for each image."""
    return images.flatten(1).gather(1, places.reshape(len(images), -1)).reshape(places.shape)


@dataclass
class Patches:
    """What lies in the windows round regions that are to be changed.

    Attributes:
        pixels: ``(n, W, W)`` grey values.
        elsewhere: ``(n, W, W)`` grey values round another place of the same image.
        weights: ``(n, W, W)`` weights of the regions.
        sides: ``(n,)`` longest diameter of the regions in pixels.
        low: ``(n, 1, 1)`` smallest grey value of the image.
        high: ``(n, 1, 1)`` largest grey value of the image.
    """

    pixels: torch.Tensor
    elsewhere: torch.Tensor
    weights: torch.Tensor
    sides: torch.Tensor
    low: torch.Tensor
    high: torch.Tensor

    def part(self, rows: torch.Tensor) -> Patches:
        """Some of the regions."""
        return Patches(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


class Draws:
    """Uniform and normal numbers from a generator on the CPU, brought to a device: the same ones on every device."""

    def __init__(self, generator: torch.Generator, device: torch.device) -> None:
        self.generator, self.device = generator, device

    def uniform(self, *shape: int, between: tuple[float, float] = (0.0, 1.0)) -> torch.Tensor:
        """Uniform numbers."""
        low, high = between
        return (torch.rand(*shape, generator=self.generator) * (high - low) + low).to(self.device)

    def column(self, count: int, between: tuple[float, float]) -> torch.Tensor:
        """One uniform number for each window, ``(count, 1, 1)``."""
        return self.uniform(count, 1, 1, between=between)

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal numbers."""
        return torch.randn(*shape, generator=self.generator).to(self.device)


# ---------------------------------------------------------------------------------------------
# Where


def foreground(images: torch.Tensor, spacing_mm: float) -> torch.Tensor:
    """Where there is tissue, ``(B, P, P)`` bool: above Otsu's threshold on a coarse image, grown.

    Everything where an image is flat.
    """
    size = images.shape[-2:]
    coarse = functional.adaptive_avg_pool2d(images, (min(COARSE, size[0]), min(COARSE, size[1])))
    # The square root keeps dark tissue from being counted to the air beside bright fat.
    coarse = (coarse - coarse.amin((2, 3), keepdim=True)).sqrt()
    low, high = coarse.amin((2, 3), keepdim=True), coarse.amax((2, 3), keepdim=True)
    candidates = low + (high - low) * torch.linspace(0.02, 0.98, 49, device=images.device)
    above = (coarse.flatten(2).transpose(1, 2) > candidates[:, 0]).float()
    share = above.mean(1)
    values = coarse.flatten(1)[:, :, None]
    # Otsu's between-class variance, up to a factor that all thresholds share: (m w - m1)^2 / (w (1 - w)).
    variance = (values.mean(1) * share - (above * values).mean(1)) ** 2 / (share * (1 - share)).clamp(min=1e-6)
    threshold = candidates[:, 0, 0].gather(1, variance.argmax(1, keepdim=True))[:, :, None, None]
    reach = max(0, round(GROWN_MM / spacing_mm * coarse.shape[-1] / size[-1]))
    grown = functional.max_pool2d((coarse > threshold).float(), 2 * reach + 1, 1, reach)
    grown = torch.where(grown.amax((2, 3), keepdim=True) > 0, grown, torch.ones_like(grown))
    return functional.interpolate(grown, size=size)[:, 0] > 0.5


def drawn_places(mask: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Pixels ``(x, y)`` of a mask ``(B, P, P)``, each as likely as another: ``(B, n, 2)`` from uniform ``(B, n)``."""
    total = mask.flatten(1).long().cumsum(1)
    index = torch.searchsorted(total, (draws * total[:, -1:]).long(), right=True).clamp(max=total.shape[1] - 1)
    return torch.stack([index % mask.shape[-1], index // mask.shape[-1]], dim=-1)


def outline_weights(
    offsets: torch.Tensor, sides: torch.Tensor, edge: float, settings: Distortions, draws: Draws
) -> torch.Tensor:
    """Weights of irregular regions with soft edges: ellipses whose radius waves with the angle.

    Args:
        offsets: ``(N, 2, W)`` of the columns and of the rows from the region's centre.
        sides: ``(N,)`` longest diameters in pixels.
        edge: Width in pixels over which a weight goes from 0 to 1; the outline is where it is one half.
        settings: Slimness and irregularity.
        draws: Random numbers.
    """
    count = len(sides)
    turn = draws.column(count, (0, math.pi))
    shrink = draws.column(count, (1 - settings.slimness, 1))
    dx, dy = offsets[:, 0, None, :], offsets[:, 1, :, None]
    x, y = dx * turn.cos() + dy * turn.sin(), (dy * turn.cos() - dx * turn.sin()) / shrink
    size = draws.uniform(count, len(WAVES)) / torch.tensor(WAVES, device=draws.device)
    size = settings.irregularity * size / size.sum(1, keepdim=True) * draws.uniform(count, 1)
    phase = draws.uniform(count, len(WAVES), between=(0, 2 * math.pi))

    def waves(angle: torch.Tensor) -> torch.Tensor:
        terms = zip(WAVES, size.unbind(1), phase.unbind(1), strict=True)
        return sum((s[:, None] * torch.cos(k * angle + p[:, None]) for k, s, p in terms), torch.zeros_like(angle))

    ring = torch.linspace(0, 2 * math.pi, 49, device=draws.device).expand(count, -1)
    longest = 1 + waves(ring).amax(1)
    bent = (1 + waves(torch.atan2(y, x).flatten(1)).reshape(x.shape)) / longest[:, None, None]
    radius = sides[:, None, None] / 2
    inwards = (bent * radius - torch.hypot(x, y)) * shrink
    along = (0.5 + inwards / torch.minimum(torch.full_like(radius, edge), radius * shrink)).clamp(0, 1)
    return along**2 * (3 - 2 * along)


def drawn_windows(mask: torch.Tensor, spacing_mm: float, settings: Distortions, draws: Draws) -> Windows:
    """Candidate regions, more for each image than are wanted, round places of the mask ``(B, P, P)``."""
    batch, height, width = mask.shape
    each = TRIES * settings.regions[1] + SPARE
    count = batch * each
    unit = min(height, width) if settings.unit == "share" else 1 / spacing_mm
    edge = settings.edge_mm / spacing_mm
    span = min(math.ceil(settings.side[1] * unit + edge) + 2, height, width)
    sides = draws.uniform(count, between=settings.side) * unit
    # Hardly anything is seen of a region whose centre is at the very border.
    rim = math.ceil(settings.side[0] * unit / 2)
    inner = functional.pad(mask[:, rim : height - rim, rim : width - rim], (rim, rim, rim, rim))
    drawn = drawn_places(inner, draws.uniform(batch, each * (1 + SOURCES))).reshape(count, 1 + SOURCES, 2)
    centres, others = drawn[:, 0], drawn[:, 1:]
    # The first of some other places that lies apart from the region, or the one that lies farthest.
    apart = torch.minimum((others - centres[:, None]).float().norm(dim=-1), sides[:, None]).argmax(1)
    other = others.gather(1, apart[:, None, None].expand(-1, 1, 2))[:, 0]
    last = torch.tensor([width - span, height - span], device=mask.device)
    corners, sources = (torch.minimum((at - span // 2).clamp(min=0), last) for at in (centres, other))
    offsets = corners[:, :, None] + torch.arange(span, device=mask.device) - centres[:, :, None]
    weights = outline_weights(offsets.float(), sides, edge, settings, draws)
    return Windows(weights, corners, sources, sides)


# ---------------------------------------------------------------------------------------------
# What


def smooth(pixels: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Gaussian blur of windows ``(N, W, W)`` with a sigma in pixels for each, renormalised at the border.

    As two matrix products, which at this size are several times as fast as a convolution.
    """
    step = torch.arange(pixels.shape[-1], device=pixels.device, dtype=pixels.dtype)
    kernel = torch.exp(-0.5 * ((step[:, None] - step) / sigma.reshape(-1, 1, 1).clamp(min=1e-3)) ** 2)
    kernel = kernel / kernel.sum(-1, keepdim=True)
    return kernel @ pixels @ kernel.transpose(1, 2)


def shuffled(patches: Patches, spacing_mm: float, settings: Distortions, draws: Draws) -> torch.Tensor:
    """Pixels change places within square tiles."""
    count, span, _ = patches.pixels.shape
    side = (draws.uniform(count, 1, between=settings.shuffling_mm) / spacing_mm).round().clamp(min=2)
    step = torch.arange(span, device=draws.device)
    column, row = (((step + draws.uniform(count, 1) * side) // side).long() for _ in range(2))
    tile = (row[:, :, None] * (span + 1) + column[:, None, :]).flatten(1)
    # Sorted by tile, with and without chance inside a tile: the same ranks hold the same tile.
    ordered = tile.argsort(dim=1, stable=True)
    mixed = (tile + 0.999 * draws.uniform(*tile.shape)).double().argsort(1)
    origin = torch.empty_like(ordered).scatter(1, ordered, mixed)
    return patches.pixels.flatten(1).gather(1, origin).reshape(patches.pixels.shape)


def remapped(patches: Patches, spacing_mm: float, settings: Distortions, draws: Draws) -> torch.Tensor:
    """Grey values through a cubic Bezier curve from (0, 0) to (1, 1) of the image's range.

    Half of the curves rise throughout; the others rise, fall and rise again.
    """
    count = len(patches.pixels)
    # Control points apart from the diagonal, which would change nothing.
    bend = draws.uniform(count, 2, between=(0.7, 1.0))
    up = draws.uniform(count, 1) < 0.5
    (x1, x2), (y1, y2) = (torch.where(way, 1 - bend, bend).split(1, dim=1) for way in (up, ~up))
    monotone = draws.uniform(count, 1) < 0.5
    y1 = torch.where(monotone, y1, draws.uniform(count, 1, between=(1.2, 2.5)))
    y2 = torch.where(monotone, y2, draws.uniform(count, 1, between=(-1.5, -0.2)))
    t = torch.linspace(0, 1, MAP_POINTS, device=draws.device)
    x, y = (3 * (1 - t) ** 2 * t * a + 3 * (1 - t) * t**2 * b + t**3 for a, b in ((x1, x2), (y1, y2)))
    # x rises with t, so the curve becomes a table over evenly spaced x, from which pixels are interpolated.
    upper = torch.searchsorted(x, t.expand(count, -1).contiguous()).clamp(1, MAP_POINTS - 1)
    (xa, xb), (ya, yb) = ([v.gather(1, upper - 1), v.gather(1, upper)] for v in (x, y))
    table = ya + (yb - ya) * ((t - xa) / (xb - xa).clamp(min=1e-6)).clamp(0, 1)
    extent = (patches.high - patches.low).clamp(min=1e-6)
    place = ((patches.pixels - patches.low) / extent).flatten(1) * (MAP_POINTS - 1)
    lower = place.long().clamp(0, MAP_POINTS - 2)
    mapped = torch.lerp(table.gather(1, lower), table.gather(1, lower + 1), place - lower)
    return mapped.reshape(patches.pixels.shape) * extent + patches.low


def inpainted(patches: Patches, spacing_mm: float, settings: Distortions, draws: Draws) -> torch.Tensor:
    """Uniform noise; levelling gives it the grey of what surrounds it."""
    count = len(patches.pixels)
    spread = draws.column(count, settings.inpainting) * math.sqrt(3)
    return spread * draws.uniform(*patches.pixels.shape, between=(-1, 1))


def blurred(patches: Patches, spacing_mm: float, settings: Distortions, draws: Draws) -> torch.Tensor:
    """A Gaussian blur."""
    return smooth(patches.pixels, draws.uniform(len(patches.pixels), between=settings.blur_mm) / spacing_mm)


def noised(patches: Patches, spacing_mm: float, settings: Distortions, draws: Draws) -> torch.Tensor:
    """Gaussian noise on top."""
    return patches.pixels + draws.column(len(patches.pixels), settings.noise) * draws.normal(*patches.pixels.shape)


def biased(patches: Patches, spacing_mm: float, settings: Distortions, draws: Draws) -> torch.Tensor:
    """Times a smooth field that bulges once, up or down, somewhere inside the region; as a coil's shading."""
    count = len(patches.pixels)
    strength = draws.column(count, settings.bias)
    sign = torch.where(draws.column(count, (0, 1)) < 0.5, -1.0, 1.0)
    field = smooth(patches.weights, patches.sides / 6)
    return patches.low + (patches.pixels - patches.low) * (1 + sign * strength * field)


def swapped(patches: Patches, spacing_mm: float, settings: Distortions, draws: Draws) -> torch.Tensor:
    """What lies elsewhere in the image."""
    return patches.elsewhere


def patches_of(images: torch.Tensor, windows: Windows) -> Patches:
    """The grey values in the windows."""
    each = len(windows.sides) // len(images)
    flat = images.flatten(1)
    low, high = (v.repeat_interleave(each)[:, None, None] for v in (flat.amin(1), flat.amax(1)))
    width = images.shape[-1]
    here, elsewhere = (cut(images, windows.places(at, width)) for at in (windows.corners, windows.sources))
    return Patches(here, elsewhere, windows.weights, windows.sides, low, high)


Effect = Callable[[Patches, float, Distortions, Draws], torch.Tensor]
#: What each type puts into its windows, ``(N, W, W)``.
EFFECTS: dict[str, Effect] = {
    "shuffling": shuffled,
    "intensity": remapped,
    "inpainting": inpainted,
    "swap": swapped,
    "blur": blurred,
    "noise": noised,
    "bias": biased,
}


def levelled(content: torch.Tensor, patches: Patches) -> torch.Tensor:
    """Content plus a smooth field with which it agrees with the image along the outline.

    The field is the difference along the outline, carried inwards: a normalised convolution with a wide Gaussian, and
    one with a narrow one for what is left, which reaches a few pixels. It is smooth, so half the resolution will do.
    """
    rim = 4 * patches.weights * (1 - patches.weights)
    both = functional.avg_pool2d(torch.stack([rim * (patches.pixels - content), rim], 1), 2, ceil_mode=True)
    left, coarse = both.unbind(1)
    field = torch.zeros_like(left)
    for share, floor in LEVELS:
        sigma = (patches.sides * share / 2).clamp(min=1.0)
        step = smooth(left, sigma) / (smooth(coarse, sigma) + floor)
        field, left = field + step, left - coarse * step
    span = content.shape[-1]
    fine = functional.interpolate(field[:, None], scale_factor=2.0, mode="bilinear")[:, 0, :span, :span]
    return (content + fine).maximum(patches.low).minimum(patches.high)


def changed(
    patches: Patches, kinds: torch.Tensor, spacing_mm: float, settings: Distortions, draws: Draws
) -> torch.Tensor:
    """What is put into the regions, ``(N, W, W)``, each by its class ``(N,)``, on the CPU."""
    content = torch.empty_like(patches.pixels)
    for number, name in enumerate(REGION_TYPES, 1):
        rows = (kinds == number).nonzero()[:, 0].to(content.device)
        if len(rows):
            content[rows] = EFFECTS[name](patches.part(rows), spacing_mm, settings, draws)
    return levelled(content, patches)


# ---------------------------------------------------------------------------------------------
# All together


def pasted(canvas: torch.Tensor, windows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Windows ``(M, W, W)`` written at their places into M flat canvases ``(M, H W)``."""
    return canvas.scatter(1, places.flatten(1), windows.flatten(1))


def kept_apart(windows: Windows, mask: torch.Tensor, most: int, settings: Distortions) -> tuple[Windows, torch.Tensor]:
    """The first ``most`` regions of each image that lie in the foreground ``(B, P, P)`` and hardly overlap.

    Returns:
        ``most`` windows for each image, and ``(B, most)`` bool: which of them are as they should be.
    """
    inside = windows.weights > 0.5
    places = windows.places(windows.corners, mask.shape[-1])
    tissue = (cut(mask, places) & inside).sum((1, 2))
    good = (tissue >= settings.foreground * inside.sum((1, 2))).reshape(len(mask), -1)
    blank = inside.new_zeros(len(inside), mask[0].numel())
    regions = pasted(blank, inside, places).reshape(len(mask), -1, mask[0].numel())
    kept = first_free(good, overlapping(regions, settings.overlap))
    row, there = first_rows(kept, most)
    return windows.part(row.flatten()), there


def first_rows(kept: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Of ``(B, C)`` bool the first ``most`` that are true: flat rows ``(B, most)``, and which of them are."""
    order = (~kept).int().argsort(dim=1, stable=True)[:, :most]
    first = torch.arange(len(kept), device=kept.device)[:, None] * kept.shape[1]
    return order + first, kept.gather(1, order)


def overlapping(regions: torch.Tensor, limit: float) -> torch.Tensor:
    """Which regions ``(B, C, H W)`` overlap by more than a limit (intersection over union), ``(B, C, C)`` bool."""
    shapes = regions.float()
    shared = shapes @ shapes.transpose(1, 2)
    area = shapes.sum(2)
    return shared > limit * (area[:, :, None] + area[:, None, :] - shared)


def first_free(candidates: torch.Tensor, overlaps: torch.Tensor) -> torch.Tensor:
    """Which candidates ``(B, C)`` bool overlap, by ``overlaps`` ``(B, C, C)``, none of those kept before them."""
    kept = torch.zeros_like(candidates)
    for number in range(candidates.shape[1]):
        kept[:, number] = candidates[:, number] & ~(overlaps[:, number] & kept).any(1)
    return kept


def mean_square_change(patches: Patches, content: torch.Tensor) -> torch.Tensor:
    """Mean square change within each region, ``(N,)``."""
    inside = patches.weights > 0.5
    change = (patches.weights * (content - patches.pixels)) ** 2 * inside
    return change.sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)


def least_square_change(images: torch.Tensor, mask: torch.Tensor, settings: Distortions) -> torch.Tensor:
    """What a region must change at least to be seen, ``(B, 1)``: mean square.

    On top of the setting stands twice the variance of the image's own noise, which is what other noise of the same
    strength would change. The noise is read off the differences of neighbouring pixels in the foreground ``(B, P, P)``.
    """
    rows = slice(None, None, 8)
    steps = (images[:, 0, rows, 1:] - images[:, 0, rows, :-1]).abs()
    middle = steps.masked_fill(~mask[:, rows, 1:], math.nan).flatten(1).nanquantile(0.5, dim=1, keepdim=True)
    # The median of the absolute difference of two normal numbers is 0.6745 sqrt(2) standard deviations of one.
    variance = (middle.nan_to_num() / 0.6745) ** 2 / 2
    return settings.least_change**2 * images.var((1, 2, 3))[:, None] + 2 * variance


def balanced(kinds: torch.Tensor, good: torch.Tensor, wanted: torch.Tensor, chances: torch.Tensor) -> torch.Tensor:
    """Which regions to keep, ``(B, C)`` bool, so that the types occur about equally often in the batch.

    Chance decides between the regions of an image (Gumbel's trick: each is kept in proportion to its type's weight),
    and the weights are put right by what was kept, for :data:`BALANCING` rounds.

    Args:
        kinds: ``(B, C)`` class of each region.
        good: ``(B, C)`` bool: which may be kept.
        wanted: ``(B, 1)`` how many of an image are kept, as far as there are any.
        chances: ``(B, C)`` uniform.
    """
    noise = -(-chances.clamp(1e-6, 1 - 1e-6).log()).log()
    one_hot = functional.one_hot(kinds, 1 + len(TYPES)).to(noise.dtype)
    possible = (one_hot.sum((0, 1)) > 0).sum()
    favour, kept = torch.zeros_like(one_hot[0, 0]), good
    for _ in range(BALANCING):
        place = (noise + favour[kinds]).masked_fill(~good, -math.inf).argsort(1, descending=True).argsort(1)
        kept = good & (place < wanted)
        counts = (one_hot * kept[..., None]).sum((0, 1))
        favour = favour - ((counts + 1) / (counts.sum() / possible + 1)).log()
    return kept


def outpainted(
    found: Distorted,
    clean: torch.Tensor,
    mask: torch.Tensor,
    touched: torch.Tensor,
    spacing_mm: float,
    settings: Distortions,
    draws: Draws,
) -> Distorted:
    """Of a share of the ``touched`` images ``(B,)`` all but one place is filled with noise, as their only region."""
    (batch, most), side = found.kinds.shape, clean.shape[-1]
    picked = touched & (draws.uniform(batch) < settings.outpainting)
    centres = drawn_places(mask, draws.uniform(batch, 1))
    offsets = (torch.arange(side, device=clean.device) - centres[:, 0, :, None]).float()
    sides = draws.uniform(batch, between=KEPT_SHARE) * side
    weights = 1 - outline_weights(offsets, sides, settings.edge_mm / spacing_mm, settings, draws)
    grey = smooth(clean[:, 0], sides / 6)
    spread = draws.column(batch, settings.inpainting) * math.sqrt(3)
    noise = grey + spread * draws.uniform(batch, side, side, between=(-1, 1))
    region = (weights > 0.5)[:, None] & (torch.arange(most, device=clean.device) == 0)[:, None, None]
    kinds = torch.zeros_like(found.kinds)
    kinds[:, 0] = 1 + TYPES.index("outpainting")
    return Distorted(
        images=torch.where(
            picked[:, None, None, None], torch.lerp(clean, noise[:, None], weights[:, None]), found.images
        ),
        regions=torch.where(picked[:, None, None, None], region, found.regions),
        kinds=torch.where(picked[:, None], kinds, found.kinds),
    )


def laid_over(
    images: torch.Tensor, windows: Windows, content: torch.Tensor, row: torch.Tensor, there: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, and regions ``(B, R, P, P)``, with the windows of those rows ``(B, R)`` that are ``there`` faded in."""
    flat, everywhere = images.flatten(1), windows.places(windows.corners, images.shape[-1])
    regions = torch.zeros(*row.shape, flat.shape[1], dtype=torch.bool, device=images.device)
    for slot, (part, present) in enumerate(zip(row.unbind(1), there.unbind(1), strict=True)):
        places, weights = everywhere[part], windows.weights[part] * present[:, None, None]
        under = flat.gather(1, places.flatten(1)).reshape(places.shape)
        flat = pasted(flat, torch.lerp(under, content[part], weights), places)
        regions[:, slot] = pasted(regions[:, slot], weights > 0.5, places)
    return flat.reshape(images.shape), regions.reshape(*row.shape, *images.shape[-2:])


def distort(
    images: torch.Tensor,
    acquired: torch.Tensor,
    settings: Distortions,
    spacing_mm: float,
    generator: torch.Generator,
) -> Distorted:
    """Distorts regions of every image; the images given are left as they are.

    An image has fewer regions than were drawn for it, or none, where too few of the candidates can be used; a share of
    the images has none in any case.

    Args:
        images: ``(B, 1, P, P)`` float32, standardised.
        acquired: ``(B, P, P)`` bool: regions lie where the scanner measured, not in the repeated border beyond.
        settings: Which distortions, how large, how strong.
        spacing_mm: Spacing of the images.
        generator: On the CPU: the same draws on every device.
    """
    batch, (fewest, most) = len(images), settings.regions
    draws = Draws(generator, images.device)
    wanted = torch.randint(fewest, most + 1, (batch, 1), generator=generator).to(images.device)
    touched = draws.uniform(batch) >= settings.untouched
    mask = foreground(images, spacing_mm) & acquired
    windows, there = kept_apart(drawn_windows(mask, spacing_mm, settings, draws), mask, most + SPARE, settings)
    enabled = torch.tensor([1 + TYPES.index(name) for name in dict.fromkeys(settings.types)])
    # Shuffled, not drawn: each type is tried equally often.
    kinds = enabled[torch.randperm(there.numel(), generator=generator) % len(enabled)]
    patches = patches_of(images, windows)
    content = changed(patches, kinds, spacing_mm, settings, draws)

    there &= mean_square_change(patches, content).reshape(there.shape) >= least_square_change(images, mask, settings)
    kinds = kinds.to(images.device)
    kept = balanced(kinds.reshape(there.shape), there, wanted * touched[:, None], draws.uniform(*there.shape))
    row, there = first_rows(kept, most)

    found = Distorted(*laid_over(images, windows, content, row, there), kinds[row] * there)
    return outpainted(found, images, mask, touched, spacing_mm, settings, draws) if settings.outpainting else found


def instance_targets(found: Distorted, clean: torch.Tensor) -> list[Instances]:
    """What torchvision's Mask R-CNN learns from, one dictionary for each image.

    Args:
        found: The distorted batch.
        clean: ``(B, 1, P, P)`` the images before.

    Returns:
        ``boxes`` ``(n, 4)`` float32 x0 y0 x1 y1, round the outer edges of the outermost pixels (so x1 is the last
        column plus one); ``labels`` ``(n,)`` int64 from 1; ``masks`` ``(n, P, P)`` bool; ``clean`` ``(1, P, P)``.
    """
    targets = []
    for regions, kinds, image in zip(found.regions, found.kinds, clean, strict=True):
        masks = regions[kinds > 0]
        targets.append({"boxes": boxes_of(masks), "labels": kinds[kinds > 0], "masks": masks, "clean": image})
    return targets
