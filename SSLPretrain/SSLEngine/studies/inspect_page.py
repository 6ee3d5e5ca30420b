"""The ``inspect`` report as one HTML file: no network, everything escaped, a picture of every view with its lines."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..geometry import Array
from ..geometry import crossing_segment
from ..structures import ROLE_COLOURS
from .cohort import Cohort
from .cohort import read_cohort
from .crossings import same_frame
from .dicom import FramePolicy
from .inspecting import inspect_cohort
from .reading import Progress
from .study import Study
from .study import StudyError
from .study import View

#: Studies with pictures; a page with more would not open in a browser.
MAX_PICTURED = 30
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#1d2329;background:#fff}
h1{font-size:1.5em}h2{margin-top:2em;border-bottom:1px solid #cfd6dc;padding-bottom:.2em}
table{border-collapse:collapse;margin:.7em 0}th,td{text-align:left;padding:.25em .8em .25em 0;vertical-align:top}
th{border-bottom:1px solid #90a0ad;font-weight:600}tr+tr td{border-top:1px solid #e6eaed}
.pictures{display:flex;flex-wrap:wrap;gap:1em}figure{margin:0}figcaption{max-width:22em;font-size:.9em}
img{display:block;background:#000;max-width:22em}.doubt{color:#a33b00}.path{color:#5b6770;font-size:.9em}
"""


def inspect_html(
    path: Path,
    out: Path,
    *,
    labels_suffix: str = "_seg",
    frame_of_reference: FramePolicy = "warn",
    organ: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes the page about an exam or a cohort; the other arguments are those of :func:`read_cohort`.

    Raises:
        StudyError: Nothing usable was found, or the page cannot be written, or its name is that of something else.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        msg = f"The page {out} must end in .html."
        raise StudyError(msg)
    cohort = read_cohort(
        path, labels_suffix=labels_suffix, frame_of_reference=frame_of_reference, organ=organ, progress=progress
    )
    page = page_of_cohort(cohort)
    try:
        # A name that is no valid text is shown as far as it is.
        out.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        msg = f"{out} could not be written ({error.strerror}): check the folder and its permissions."
        raise StudyError(msg) from error
    return out


def page_of_cohort(cohort: Cohort) -> str:
    """The page about a cohort, or about a single exam read as one, as text."""
    report = inspect_cohort(cohort)
    sections = [
        _section(study, facts, pictured=number < MAX_PICTURED)
        for number, (study, facts) in enumerate(zip(cohort.studies, report["studies"], strict=True))
    ]
    general = _irregularities(report["irregularities"])
    title = f"Exams in {html.escape(str(cohort.path))}"
    return (
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{general}{''.join(sections)}</body></html>\n"
    )


def _section(study: Study, facts: dict[str, Any], pictured: bool) -> str:
    side = f", {study.side} side" if study.side else ""
    head = f"<h2>{html.escape(study.name)} ({html.escape(study.organ + side)})</h2>"
    path = f"<p class='path'>{html.escape(str(study.path))}</p>"
    pictures = "".join(_figure(view, study) for view in study.views) if pictured else ""
    gallery = f"<div class='pictures'>{pictures}</div>"
    return (
        head
        + path
        + gallery
        + _views(facts["views"])
        + _pairs(facts["pairs"])
        + _irregularities(facts["irregularities"])
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; every cell is escaped."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(c))}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><tr>{top}</tr>{body}</table>"


def _views(views: Sequence[dict[str, Any]]) -> str:
    head = (
        "View",
        "Role",
        "Why",
        "In doubt",
        "Slices",
        "Phases",
        "Matrix",
        "Pixel mm",
        "Step mm",
        "Covers mm",
        "Labels",
    )
    rows = [
        (
            v["name"],
            v["role"],
            v["reason"],
            v["doubt"],
            v["shape"][0],
            v["phases"],
            f"{v['shape'][2]} × {v['shape'][1]}",
            f"{v['spacing_mm'][2]:.2f} × {v['spacing_mm'][1]:.2f}",
            "" if v["step_mm"] is None else f"{v['step_mm']:.1f}",
            f"{v['coverage_mm']:.0f}",
            ", ".join(v["label_names"].values()) or ("yes" if v["labelled"] else ""),
        )
        for v in views
    ]
    return _table(head, rows)


def _pairs(pairs: Sequence[dict[str, Any]]) -> str:
    if not pairs:
        return ""
    rows = [
        (
            p["host"],
            p["guest"],
            "" if p["angle_deg"] is None else f"{p['angle_deg']:.0f}°",
            "" if p["length_mm"] is None else f"{p['length_mm']:.0f} mm",
            p["slices"],
            p["why_not"],
        )
        for p in pairs
    ]
    return _table(("On", "line of", "Angle", "Length", "Slices crossed", "Why not"), rows)


def _irregularities(items: Sequence[dict[str, str]]) -> str:
    if not items:
        return ""
    rows = [(i["where"], i["what"], i["consequence"]) for i in items]
    return "<h3>Irregularities</h3>" + _table(("Where", "What", "Consequence"), rows)


# ---------------------------------------------------------------------------------------------
# Pictures


def _figure(view: View, study: Study) -> str:
    doubt = f"<br><span class='doubt'>{html.escape(view.doubt)}</span>" if view.doubt else ""
    caption = f"<figcaption><b>{html.escape(view.role)}</b> {html.escape(view.name)}{doubt}</figcaption>"
    try:
        data = base64.b64encode(view_picture(view, study)).decode("ascii")
    except StudyError as error:
        return f"<figure><p>{html.escape(str(error))}</p>{caption}</figure>"
    return (
        f"<figure><img alt='{html.escape(view.name, quote=True)}' src='data:image/png;base64,{data}'>{caption}</figure>"
    )


def view_picture(view: View, study: Study, width: int = 360) -> bytes:
    """The middle slice of a view with the lines of all others, as a PNG file.

    Raises:
        StudyError: The pixels cannot be read.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    index = len(view.planes) // 2
    image = view.pixels(0)[index]
    wide, high = view.planes[index].extent
    figure = Figure(figsize=(width / 100, width / 100 * min(3.0, high / wide)), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.axis("off")
    low, high_value = _window(image)
    dx, dy = view.planes[index].spacing
    axes.imshow(image, cmap="gray", vmin=low, vmax=high_value, aspect=dy / dx, interpolation="bilinear")
    _draw_lines(axes, view, study, index)
    axes.set_xlim(-0.5, image.shape[1] - 0.5)
    axes.set_ylim(image.shape[0] - 0.5, -0.5)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _draw_lines(axes: Any, view: View, study: Study, index: int) -> None:
    """The lines of all slices of each other view, the middle one stronger; a repeat of a plane is drawn once."""
    host = view.planes[index]
    drawn: list[Array] = []
    roles: set[str] = set()
    for guest in study.views:
        if guest is view or same_frame(view, guest):
            continue
        for k, plane in enumerate(guest.planes):
            segment = crossing_segment(host, plane)
            if segment is None or any(np.abs(segment.host_pixels - ends).max() < 1 for ends in drawn):
                continue
            drawn.append(segment.host_pixels)
            width = 1.4 if k == len(guest.planes) // 2 else 0.6
            axes.plot(*segment.host_pixels.T, color=ROLE_COLOURS.get(guest.role, "#b0bec5"), linewidth=width)
            roles.add(guest.role)
    _draw_legend(axes, sorted(roles))


def _draw_legend(axes: Any, roles: Sequence[str]) -> None:
    if roles:
        for role in roles:
            axes.plot([], [], color=ROLE_COLOURS.get(role, "#b0bec5"), label=role)
        axes.legend(loc="upper left", fontsize=8, framealpha=0.6, facecolor="black", labelcolor="white", borderpad=0.3)


def _window(image: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Grey values that become black and white: 1st and 99.5th percentile."""
    low, high = np.percentile(image, [1, 99.5])
    return float(low), float(max(high, low + 1e-6))
