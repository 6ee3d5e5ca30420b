"""Pictures for reports: exams with their crossing lines, targets, curves, segmentations beside references."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .geometry import Array
from .geometry import Plane
from .geometry import crossing_segment
from .structures import ROLE_COLOURS
from .studies import View

DARK = "#14161c"

LabelMap = npt.NDArray[Any]


def png(figure: Figure, dpi: int = 110, compress_level: int = 6) -> bytes:
    """A figure as the bytes of a PNG file; compress_level is zlib's, 1 the quickest."""
    buffer = io.BytesIO()
    options = {"compress_level": compress_level}
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor(), pil_kwargs=options)
    return buffer.getvalue()


def encode(figure: Figure, dpi: int = 110) -> str:
    """A figure as a ``data:`` address, so that a page needs nothing beside itself."""
    return data_address(png(figure, dpi))


def data_address(content: bytes) -> str:
    """A PNG as a ``data:`` address."""
    return "data:image/png;base64," + base64.b64encode(content).decode()


def dark_figure(columns: int, rows: int, size: float = 2.6) -> tuple[Figure, npt.NDArray[Any]]:
    """A dark figure with bare axes for images, ``(rows, columns)``."""
    figure = Figure(figsize=(columns * size, rows * size + 0.25), layout="constrained", facecolor=DARK)
    axes = figure.subplots(rows, columns, squeeze=False)
    for item in axes.ravel():
        item.set_axis_off()
    return figure, axes


def show_slice(axes: Axes, pixels: npt.NDArray[np.float32], plane: Plane, title: str = "", role: str = "") -> None:
    """One slice in grey with its true proportions."""
    low, high = np.percentile(pixels, (1, 99.5))
    axes.imshow(pixels, cmap="gray", vmin=low, vmax=high, aspect=plane.spacing[1] / plane.spacing[0])
    axes.set_title(title, color=ROLE_COLOURS.get(role, "white"), fontsize=10)
    axes.set_xlim(-0.5, plane.size[0] - 0.5)
    axes.set_ylim(plane.size[1] - 0.5, -0.5)


def draw_crossings(axes: Axes, host: Plane, guests: Mapping[str, Plane], style: str = "-") -> None:
    """The segments where other planes cross a slice, in the colour of their role."""
    for role, guest in guests.items():
        segment = crossing_segment(host, guest)
        if segment is not None:
            (x0, y0), (x1, y1) = segment.host_pixels
            axes.plot([x0, x1], [y0, y1], style, color=ROLE_COLOURS.get(role, "white"), lw=1.4)


def draw_labels(axes: Axes, labels: LabelMap, entries: Sequence[Mapping[str, Any]], opacity: float = 0.5) -> None:
    """A label map in its structures' colours over the image that is there."""
    overlay = np.zeros((*labels.shape, 4))
    for entry in entries:
        overlay[labels == entry["value"]] = (*entry["colour"], opacity)
    axes.imshow(overlay, interpolation="nearest", aspect=axes.get_aspect())


def exam_picture(
    views: Sequence[View], guests: Mapping[str, Plane], predicted: Mapping[str, Plane] | None = None
) -> Figure:
    """The middle slice of each view with the lines of the others; predicted ones are dashed."""
    figure, axes = dark_figure(len(views), 1, 3.0)
    for item, view in zip(axes[0], views, strict=True):
        middle = len(view.planes) // 2
        host = view.planes[middle]
        show_slice(item, view.pixels(0)[middle], host, view.role, view.role)
        for planes, style in ((guests, "-"), (predicted or {}, "--")):
            draw_crossings(item, host, {r: p for r, p in planes.items() if r != view.role}, style)
    return figure


def curve_picture(curves: Mapping[str, Sequence[tuple[float, float]]], ylabel: str, log: bool = False) -> Figure:
    """Curves over training steps."""
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axes = figure.subplots()
    colours = {"pretrained": "#c0392b", "scratch": "#7f8c8d"}
    for name, points in curves.items():
        if points:
            axes.plot(*zip(*points, strict=True), label=name, color=colours.get(name), lw=1.6)
    axes.set_xlabel("training step")
    axes.set_ylabel(ylabel)
    if log:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    if len(curves) > 1:
        axes.legend(frameon=False)
    return figure


def bar_picture(scores: Mapping[str, Mapping[str, float]]) -> Figure:
    """Dice by structure, one colour a method: ``scores[method][structure]``."""
    names = list(dict.fromkeys(n for s in scores.values() for n in s))
    figure = Figure(figsize=(1.6 + 1.25 * len(names), 3.4), layout="constrained")
    axes = figure.subplots()
    colours = {"pretrained": "#c0392b", "scratch": "#95a5a6"}
    width = 0.8 / len(scores)
    for k, (method, values) in enumerate(scores.items()):
        places = np.arange(len(names)) + (k - (len(scores) - 1) / 2) * width
        heights = [values.get(n, 0.0) for n in names]
        bars = axes.bar(places, heights, width, label=method, color=colours.get(method))
        axes.bar_label(bars, [f"{h:.2f}" for h in heights], fontsize=8, padding=1)
    axes.set_xticks(range(len(names)), [n.replace(" ", "\n") for n in names], fontsize=9)
    axes.set_ylim(0, 1.08)
    axes.set_ylabel("Dice on unseen studies")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=len(scores), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return figure


def comparison_picture(
    rows: Sequence[tuple[View, int, Mapping[str, LabelMap | None]]], entries: Sequence[Mapping[str, Any]]
) -> Figure:
    """Image, then each label map over it; one row a slice.

    Args:
        rows: View, slice index, and label maps ``(rows, columns)`` by column title; None leaves a place empty.
        entries: Label entries with value and colour.
    """
    titles = list(rows[0][2])
    figure, axes = dark_figure(1 + len(titles), len(rows), 2.5)
    for line, (view, index, maps) in zip(axes, rows, strict=True):
        plane, pixels = view.planes[index], view.pixels(0)[index]
        box = _box(maps, plane)
        for item, name in zip(line, ["", *titles], strict=True):
            heading = name or f"{view.role} {index + 1}/{len(view.planes)}"
            if name and maps[name] is None:
                continue
            show_slice(item, pixels, plane, heading, "" if name else view.role)
            if name:
                draw_labels(item, np.asarray(maps[name]), entries)
            item.set_xlim(box[0], box[1])
            item.set_ylim(box[3], box[2])
    return figure


def _box(maps: Mapping[str, LabelMap | None], plane: Plane) -> tuple[float, float, float, float]:
    """A square of 140 mm round what is labelled, so that the heart fills the picture."""
    marked = np.any([m > 0 for m in maps.values() if m is not None], axis=0)
    y, x = np.nonzero(marked)
    middle = (x.mean(), y.mean()) if len(x) else ((plane.size[0] - 1) / 2, (plane.size[1] - 1) / 2)
    half = [70 / s for s in plane.spacing]
    return middle[0] - half[0], middle[0] + half[0], middle[1] - half[1], middle[1] + half[1]


def answered(output: Any, target: Any) -> Any:
    """An output without what has no target on this slice: nobody has asked for it."""
    return np.where(np.isnan(target), np.nan, output) if np.shape(output) == np.shape(target) else output


def pretext_picture(task: Any, samples: Sequence[tuple[str, Array, Any, Any]]) -> Figure:
    """Target above, prediction below; samples are (title, image, target, output)."""
    figure, axes = dark_figure(len(samples), 2, 2.4)
    for column, (title, image, target, output) in enumerate(samples):
        for row, (values, what) in enumerate(((target, "target"), (answered(output, target), "predicted"))):
            task.draw(axes[row, column], image, values)
            axes[row, column].set_title(f"{title}: {what}", color="white", fontsize=9)
    return figure
