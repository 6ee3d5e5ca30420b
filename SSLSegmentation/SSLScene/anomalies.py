"""What a network finds unusual in an exam: maps over the views, and a table of the slices that stand out most."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from SSLEngine.studies.study import StudyError
from SSLEngine.studies.volumes import load_array
from SSLEngine.studies.volumes import read_header

from . import overlays
from . import undo
from .exams import SceneExam
from .exams import SceneView
from .exams import image_data
from .exams import put_under
from .exams import sequence_of
from .host import SceneError
from .host import new_node
from .tables import add_text_table

#: Slices that the table names.
LISTED = 50


@dataclass
class Anomalies:
    """The nodes that were made.

    Attributes:
        maps: Scalar volumes, one a view, or one a slice of a view that forms no volume.
        table: The slices with the highest scores first: view, slice, phase (from 1), score, and z-score.
    """

    maps: list[Any] = field(default_factory=list)
    table: Any = None


def show_anomalies(scene: Any, exam: SceneExam, chosen: Sequence[SceneView], document: Mapping[str, Any]) -> Anomalies:
    """Puts the result of the engine's ``anomalies`` into the scene. If a file cannot be read, nothing of it stays.

    Args:
        scene: The MRML scene.
        exam: The exam, owner of what is added.
        chosen: Its views in the order in which they were written for the job.
        document: As ``anomalies --json`` gives it.

    Raises:
        SceneError: A map is missing, broken, or does not lie on its view.
    """
    before = {node.GetID() for node in undo.nodes(scene)}
    found = Anomalies()
    try:
        for number, item in enumerate(chosen):
            views = _views_of(document, number)
            if views:
                found.maps += _show_view(scene, exam, item, _values(item, views))
        with undo.owned(scene, exam.token):
            found.table = _table(scene, exam, chosen, document)
    except Exception:
        undo.remove_nodes(scene, [node for node in undo.nodes(scene) if node.GetID() not in before])
        raise
    return found


def _views_of(document: Mapping[str, Any], number: int) -> list[Mapping[str, Any]]:
    """What belongs to a view of the scene: its files are named by its number (``00_sax``), one a slice if need be."""
    return [v for v in document["views"] if v["view"].split("_", 1)[0] == f"{number:02d}"]


def _values(item: SceneView, views: Sequence[Mapping[str, Any]]) -> npt.NDArray[np.float32]:
    """The maps of a view, ``(phases, slices, rows, columns)``."""
    try:
        headers = [read_header(Path(file)) for view in views for file in view["files"]]
        frames = [[load_array(h, phase) for h in headers] for phase in range(headers[0].phases)]
    except StudyError as error:
        raise SceneError(str(error)) from error
    values = np.stack([np.concatenate(parts) for parts in frames]).astype(np.float32)
    if values.shape[1:] != item.view.shape:
        msg = f"The map of '{item.view.name}' has {values.shape[1:]} voxels, the view {item.view.shape}: run it again."
        raise SceneError(msg)
    return values


def _show_view(scene: Any, exam: SceneExam, item: SceneView, values: npt.NDArray[np.float32]) -> list[Any]:
    """A view's map over it; over a cine, in step with it."""
    maps = overlays.show_hot(scene, exam, item, values[0], f"{item.view.name} anomalies")
    if item.browser is None or len(values) != item.browser.GetNumberOfItems():
        return maps
    with undo.owned(scene, exam.token):
        for number, (node, host) in enumerate(zip(maps, item.volumes, strict=True)):
            part = slice(None) if len(maps) == 1 else slice(number, number + 1)
            _play(scene, item.browser, node, sequence_of(scene, host), values[:, part])
    return maps


def _play(scene: Any, browser: Any, node: Any, images: Any, values: npt.NDArray[np.float32]) -> None:
    """All phases of a map as a sequence in step with the cine's images; the node becomes its proxy."""
    sequence = new_node(scene, "vtkMRMLSequenceNode", f"{node.GetName()} frames")
    sequence.SetIndexName(images.GetIndexName())
    sequence.SetIndexUnit(images.GetIndexUnit())
    shown = browser.GetSelectedItemNumber()
    for phase in (*(k for k in range(len(values)) if k != shown), shown):
        node.SetAndObserveImageData(image_data(values[phase]))
        sequence.SetDataNodeAtValue(node, images.GetNthIndexValue(phase))
    browser.AddProxyNode(node, sequence, False)


def _table(scene: Any, exam: SceneExam, chosen: Sequence[SceneView], document: Mapping[str, Any]) -> Any:
    rows = []
    for number, item in enumerate(chosen):
        for k, view in enumerate(_views_of(document, number)):
            for entry in view["slices"]:
                # A view that forms no volume was written as one file a slice.
                index = entry["slice"] if item.view.regular else k
                rows.append((entry["score"], item.view.name, index + 1, entry["phase"] + 1, entry["z"]))
    rows.sort(key=lambda row: -row[0])
    texts = [
        (name, str(index), str(phase), f"{score:.3f}", "" if z is None else f"{z:.1f}")
        for score, name, index, phase, z in rows[:LISTED]
    ]
    titles = ("View", "Slice", "Phase", "Score", "z")
    node = add_text_table(scene, "Anomalies", {title: [row[k] for row in texts] for k, title in enumerate(titles)})
    if exam.item:
        put_under(scene, node, exam.item)
    return node
