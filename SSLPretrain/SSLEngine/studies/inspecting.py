"""What is in an exam or a cohort: views, crossings, irregularities, as plain data and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .cohort import Cohort
from .cohort import read_cohort
from .crossings import crossing_of_views
from .dicom import FramePolicy
from .phases import ed_es_phases
from .reading import Progress
from .study import Irregularity
from .study import Study
from .study import StudyError
from .study import View
from .study import where_and_what

#: Pixels are looked at only where one phase is smaller than this.
MAX_CHECKED_VOXELS = 2**26


def inspect(
    path: Path,
    *,
    labels_suffix: str = "_seg",
    frame_of_reference: FramePolicy = "warn",
    organ: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Everything that can be said about an exam or a cohort, as plain data for JSON.

    The arguments are those of :func:`read_cohort`.

    Raises:
        StudyError: Nothing usable was found.
    """
    cohort = read_cohort(
        path, labels_suffix=labels_suffix, frame_of_reference=frame_of_reference, organ=organ, progress=progress
    )
    return inspect_cohort(cohort)


def inspect_cohort(cohort: Cohort) -> dict[str, Any]:
    """The same for a cohort that has been read already."""
    return {
        "path": str(cohort.path),
        "studies": [inspect_study(study) for study in cohort.studies],
        "irregularities": [_irregularity(i) for i in cohort.irregularities],
        "label_names": {str(value): name for value, name in sorted(cohort.label_names.items())},
    }


def inspect_study(study: Study) -> dict[str, Any]:
    """Views, pairs and irregularities of one study."""
    found = study.irregularities + [i for view in study.views for i in check_pixels(view)]
    return {
        "path": str(study.path),
        "name": study.name,
        "subject": study.subject,
        "organ": study.organ,
        "side": study.side,
        "group": study.group,
        "views": [_view(view) for view in study.views],
        "pairs": [_pair(host, guest) for host in study.views for guest in study.views if host is not guest],
        "irregularities": [_irregularity(i) for i in found],
    }


def check_pixels(view: View) -> list[Irregularity]:
    """Whether the first phase of a view, and its labels, can be read and hold anything."""
    if np.prod(view.shape) > MAX_CHECKED_VOXELS:
        return []
    try:
        pixels = view.pixels(0)
        labels = view.labels(0)
    except StudyError as error:
        return [Irregularity(view.name, str(error), "the view cannot be used for training or segmentation")]
    found = []
    empty = [k for k, image in enumerate(pixels) if image.min() == image.max()]
    if len(empty) == len(pixels):
        what = "all its pixels have the same value"
        found.append(Irregularity(view.name, what, "there is nothing to see or learn; leave it out"))
    elif empty:
        what = f"{len(empty)} of {len(pixels)} slices are all of one value (number {empty[0] + 1} first)"
        found.append(Irregularity(view.name, what, "these slices teach nothing"))
    if labels is not None and not labels.any():
        found.append(Irregularity(view.name, "its label map is empty", "it counts as labelled, with background only"))
    return found


def leave_out_unreadable(study: Study) -> None:
    """Takes the views whose first phase cannot be read out of a study; what is odd about pixels becomes a remark.

    Raises:
        StudyError: No view is left.
    """
    for view in list(study.views):
        study.irregularities += check_pixels(view)
        try:
            view.pixels(0)
        except StudyError as error:
            study.views.remove(view)
            last = error
    if not study.views:
        raise last


def coverage_mm(view: View) -> float:
    """Length of a stack from outer face to outer face, mm; the thickness of a single slice."""
    first, last = view.planes[0], view.planes[-1]
    return float(abs((last.centre - first.centre) @ first.normal) + (first.thickness + last.thickness) / 2)


def step_mm(view: View) -> float | None:
    """Usual distance from one slice to the next, mm; None for a single slice."""
    centres = np.array([p.centre for p in view.planes])
    return float(np.median(np.linalg.norm(np.diff(centres, axis=0), axis=1))) if len(centres) > 1 else None


def _view(view: View) -> dict[str, Any]:
    ed, es = ed_es_phases(view)
    step = step_mm(view)
    dx, dy = view.planes[0].spacing
    return {
        "file": str(view.source),
        "name": view.name,
        "role": view.role,
        "reason": view.reason,
        "doubt": view.doubt,
        "shape": list(view.shape),
        "spacing_mm": [round(v, 4) for v in (step or view.planes[0].thickness, dy, dx)],
        "thickness_mm": view.planes[0].thickness,
        "step_mm": step,
        "coverage_mm": round(coverage_mm(view), 2),
        "phases": view.phases,
        "ed_phase": ed,
        "es_phase": es,
        "trigger_times_ms": list(view.trigger_times),
        "volume": view.regular,
        "labelled": view.labelled,
        "label_names": {str(value): name for value, name in view.label_names.items()},
        "frame_of_reference": view.frame_of_reference,
        "attributes": dict(view.attributes),
    }


def _pair(host: View, guest: View) -> dict[str, Any]:
    crossing = crossing_of_views(host, guest)
    middle = next((s for s in _from_middle(crossing.segments) if s is not None), None)
    return {
        "host": host.name,
        "guest": guest.name,
        "angle_deg": None if crossing.angle_deg is None else round(crossing.angle_deg, 2),
        "length_mm": None if crossing.length_mm is None else round(crossing.length_mm, 1),
        "slices": crossing.slices,
        "why_not": crossing.why_not,
        "line_px": None if middle is None else np.round(middle.host_pixels, 2).tolist(),
    }


def _from_middle(items: Sequence[Any]) -> list[Any]:
    """The items of a sequence, those nearest its middle first."""
    return [items[k] for k in sorted(range(len(items)), key=lambda k: abs(k - len(items) // 2))]


def _irregularity(item: Irregularity) -> dict[str, str]:
    return {"where": item.where, "what": item.what, "consequence": item.consequence}


# ---------------------------------------------------------------------------------------------
# For the terminal


def inspect_text(report: dict[str, Any]) -> str:
    """The report as text: a table of views, a table of pairs and a list of irregularities for each study."""
    parts = [_study_text(study) for study in report["studies"]]
    if report["irregularities"]:
        parts.append("In the cohort\n" + _irregularity_text(report["irregularities"]))
    return "\n\n".join(parts) + "\n"


def _study_text(study: dict[str, Any]) -> str:
    side = f", {study['side']} side" if study["side"] else ""
    lines = [f"{study['name']} ({study['organ']}{side})  {study['path']}"]
    head = ("view", "role", "slices", "phases", "matrix", "pixel mm", "step", "covers", "labels")
    lines += _table(head, [_view_row(view) for view in study["views"]])
    for view in study["views"]:
        doubt = f"; in doubt: {view['doubt']}" if view["doubt"] else ""
        lines.append(f"    {view['name']} is {view['role']}: {view['reason']}{doubt}")
    if study["pairs"]:
        columns = ("on", "line of", "angle", "length", "slices", "")
        lines += ["  Crossings", *_table(columns, [_pair_row(pair) for pair in study["pairs"]])]
    if study["irregularities"]:
        lines += ["  Irregularities", _irregularity_text(study["irregularities"])]
    return "\n".join(lines)


def _view_row(view: dict[str, Any]) -> tuple[str, ...]:
    slices, rows, columns = view["shape"]
    step, dy, dx = view["spacing_mm"]
    return (
        view["name"],
        view["role"] + (" ?" if view["doubt"] else ""),
        str(slices),
        str(view["phases"]),
        f"{columns} x {rows}",
        f"{dx:.2f} x {dy:.2f}",
        f"{step:.1f} mm" if slices > 1 else "-",
        f"{view['coverage_mm']:.0f} mm",
        "yes" if view["labelled"] else "-",
    )


def _pair_row(pair: dict[str, Any]) -> tuple[str, ...]:
    angle, length = pair["angle_deg"], pair["length_mm"]
    return (
        pair["host"],
        pair["guest"],
        "-" if angle is None else f"{angle:.0f}°",
        "-" if length is None else f"{length:.0f} mm",
        str(pair["slices"]),
        pair["why_not"],
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(str(row[k])) for row in (head, *rows)) for k in range(len(head))]
    lines = [
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)
    ]
    return ["    " + line.rstrip() for line in lines]


def _irregularity_text(items: Sequence[dict[str, str]]) -> str:
    return "\n".join(f"    {where_and_what(i['where'], i['what'])} -> {i['consequence']}" for i in items)
