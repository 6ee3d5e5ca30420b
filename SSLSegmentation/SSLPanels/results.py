"""What a segmenting job has written, into the scene: segmentations, a table of volumes, a curve over a cine."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from SSLScene import charts
from SSLScene import segments
from SSLScene import undo
from SSLScene.cines import playing
from SSLScene.exams import VIEW
from SSLScene.exams import SceneExam
from SSLScene.exams import SceneView
from SSLScene.tables import add_text_table

from .scene_jobs import read_result

JOB = "SSLSegmentation.Job"


@dataclass
class Results:
    """The nodes that were made of a job's result.

    Attributes:
        segmentations: One a view (or one a slice, where the slices form no volume).
        rows: View, structure and volume in ml (``12.3 ml``); EDV, ESV and ejection fraction of a cine.
        table: The same as a table node.
        chart: Chart of the volume curves of a cine, or None.
    """

    segmentations: list[Any] = field(default_factory=list)
    rows: list[tuple[str, str, str]] = field(default_factory=list)
    table: Any = None
    chart: Any = None


def loading(exam: SceneExam, chosen: Sequence[SceneView], folder: Path) -> Generator[None, None, Results]:
    """Puts a finished job's result into the scene, one phase of one view at each step.

    If a file cannot be read, nothing of it stays.

    Args:
        exam: The exam that was segmented.
        chosen: Its views in the order in which they were written for the job.
        folder: The job's folder.

    Raises:
        SceneError: A file of the result is missing or broken.
    """
    return undo.stepwise(slicer.mrmlScene, exam.token, _load(exam, chosen, folder))


def _load(exam: SceneExam, chosen: Sequence[SceneView], folder: Path) -> Generator[None, None, Results]:
    document = read_result(folder)
    results = Results()
    for number, item in enumerate(chosen):
        outputs = [o for o in document["outputs"] if _belongs(o["view"], number)]
        earlier = _earlier(exam, item)
        results.segmentations += yield from _segmentations(exam, item, outputs, folder)
        for node in earlier if outputs else []:
            node.GetDisplayNode().SetVisibility(False)
    results.rows = _rows(chosen, document)
    titles = (_("View"), _("Structure"), _("Value"))
    results.table = add_text_table(slicer.mrmlScene, _("Volumes"), titles, results.rows, exam.item)
    results.chart = _curve(exam, chosen, document)
    return results


def _earlier(exam: SceneExam, item: SceneView) -> list[Any]:
    """What earlier jobs have found on a view: it stays, but under the new result nothing of it could be told apart."""
    owned = undo.owned_nodes(slicer.mrmlScene, exam.token, "vtkMRMLSegmentationNode")
    return [node for node in owned if node.GetAttribute(JOB) and node.GetAttribute(VIEW) == item.view.name]


def _belongs(view: str, number: int) -> bool:
    """View files are named by their number when they are written for a job (``00_sax``)."""
    return view.split("_", 1)[0] == f"{number:02d}"


def _segmentations(
    exam: SceneExam, item: SceneView, outputs: Sequence[Mapping[str, Any]], folder: Path
) -> Generator[None, None, list[Any]]:
    if not outputs:
        return []
    name = _("{view} segmentation").format(view=item.view.name)
    phases = sorted({o["phase"] for o in outputs})
    first = [o for o in outputs if o["phase"] == phases[0]]
    nodes = [
        segments.load_segmentation(slicer.mrmlScene, exam, item, Path(o["file"]), k, name) for k, o in enumerate(first)
    ]
    for node in nodes:
        node.SetAttribute(JOB, str(folder))
    if len(phases) > 1 and item.browser is not None:
        for k, node in enumerate(nodes):
            files = [[Path(o["file"]) for o in outputs if o["phase"] == phase][k] for phase in phases]
            frames = _frames(exam, item, node, k, dict(zip(phases, files, strict=True)))
            yield from playing(slicer.mrmlScene, item.volume, [node], frames, corrected=True)
    return nodes


def _frames(
    exam: SceneExam, item: SceneView, node: Any, slice_index: int, files: Mapping[int, Path]
) -> Iterator[tuple[int, list[Any]]]:
    """The segmentations of all phases; that of the first is there already."""
    scene = slicer.mrmlScene
    for phase, path in sorted(files.items()):
        shown = segments.load_segmentation(scene, exam, item, path, slice_index, "phase") if phase else node
        # A proxy takes its attributes from the frame that it shows.
        shown.SetAttribute(JOB, node.GetAttribute(JOB))
        yield phase, [shown]


def _rows(chosen: Sequence[SceneView], document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rows = []
    cines = {
        number: c for c in document.get("cine") or [] for number in range(len(chosen)) if _belongs(c["view"], number)
    }
    for number, item in enumerate(chosen):
        outputs = [o for o in document["outputs"] if _belongs(o["view"], number) and o["phase"] == 0]
        for name, ml in sorted(outputs[0]["volumes_ml"].items()) if outputs else []:
            rows.append((item.view.name, name, f"{ml:.1f} ml"))
        rows += [(item.view.name, *row) for row in _function(cines.get(number))]
    return rows


def _function(cine: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """End-diastolic and end-systolic volume, and ejection fraction, as far as the job could tell them."""
    if not cine:
        return []
    found = []
    for key, title, unit in (("edv_ml", "EDV", "ml"), ("esv_ml", "ESV", "ml"), ("ef_percent", "EF", "%")):
        if cine.get(key) is not None:
            found.append((f"{cine['structure']} {title}", f"{cine[key]:.1f} {unit}"))
    return found


def _curve(exam: SceneExam, chosen: Sequence[SceneView], document: Mapping[str, Any]) -> Any:
    cines = document.get("cine") or []
    if not cines:
        return None
    views = [next(v.view for k, v in enumerate(chosen) if _belongs(cine["view"], k)) for cine in cines]
    names = [f"{cine['structure']} ({view.name})" for cine, view in zip(cines, views, strict=True)]
    chart = charts.add_chart(slicer.mrmlScene, _("Volume over the cine"), _("phase"), names, "ml", exam.token)
    longest = max(len(cine["volumes_ml"]) for cine in cines)
    rows = []
    for phase in range(longest):
        values = {n: c["volumes_ml"][phase] for n, c in zip(names, cines, strict=True) if phase < len(c["volumes_ml"])}
        rows.append({_("phase"): phase + 1, **values})
    chart.append(rows)
    return chart.chart
