"""What a network finds unusual in an exam: maps over the views, and a table of the slices that stand out most."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from SSLEngine.studies.study import StudyError
from SSLEngine.studies.volumes import VolumeHeader
from SSLEngine.studies.volumes import load_array
from SSLEngine.studies.volumes import read_header

from . import overlays
from . import undo
from .cines import playing
from .exams import SceneExam
from .exams import SceneView
from .exams import image_data
from .host import SceneError
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
    return undo.at_once(showing(scene, exam, chosen, document))


def showing(
    scene: Any, exam: SceneExam, chosen: Sequence[SceneView], document: Mapping[str, Any]
) -> Generator[None, None, Anomalies]:
    """As :func:`show_anomalies`, one phase of one view at each step."""
    return undo.stepwise(scene, exam.token, _show(scene, exam, chosen, document))


def _show(
    scene: Any, exam: SceneExam, chosen: Sequence[SceneView], document: Mapping[str, Any]
) -> Generator[None, None, Anomalies]:
    found = Anomalies()
    for number, item in enumerate(chosen):
        views = _views_of(document, number)
        if views:
            found.maps += yield from _show_view(scene, exam, item, views)
    found.table = _table(scene, exam, chosen, document)
    return found


def _views_of(document: Mapping[str, Any], number: int) -> list[Mapping[str, Any]]:
    """What is said of a view of the scene, which has the view's number in its name (``00_sax``)."""
    return [v for v in document["views"] if v["view"].split("_", 1)[0] == f"{number:02d}"]


def _headers(item: SceneView, views: Sequence[Mapping[str, Any]]) -> list[VolumeHeader]:
    """The map files of a view, which must lie on its grid: one, or one a slice."""
    try:
        headers = [read_header(Path(file)) for view in views for file in view["files"]]
    except StudyError as error:
        raise SceneError(str(error)) from error
    slices, rows, columns = item.view.shape
    if sum(h.size[2] for h in headers) != slices or any(h.size[:2] != (columns, rows) for h in headers):
        msg = f"The map of '{item.view.name}' has not the view's {columns} x {rows} x {slices} voxels: run it again."
        raise SceneError(msg)
    return headers


def _frame(headers: Sequence[VolumeHeader], phase: int) -> npt.NDArray[np.float32]:
    """One phase of a view's map, ``(slices, rows, columns)``."""
    try:
        return np.concatenate([load_array(header, phase) for header in headers]).astype(np.float32)
    except StudyError as error:
        raise SceneError(str(error)) from error


def _show_view(
    scene: Any, exam: SceneExam, item: SceneView, views: Sequence[Mapping[str, Any]]
) -> Generator[None, None, list[Any]]:
    """A view's map over it; over a cine, in step with it."""
    headers = _headers(item, views)
    maps = overlays.show_hot(scene, exam, item, _frame(headers, 0), f"{item.view.name} anomalies")
    for node in maps:
        # Set before the frames are stored: a proxy takes its attributes from the frame that it shows.
        undo.own(node, exam.token)
    yield
    if item.browser is not None and headers[0].phases == item.browser.GetNumberOfItems():
        frames = _frames(headers, maps, item.browser.GetSelectedItemNumber())
        yield from playing(scene, item.volume, maps, frames)
    return maps


def _frames(headers: Sequence[VolumeHeader], maps: Sequence[Any], shown: int) -> Iterator[tuple[int, Sequence[Any]]]:
    """The maps themselves, showing one phase after the other, last the one that is looked at."""
    for phase in (*(k for k in range(headers[0].phases) if k != shown), shown):
        frame = _frame(headers, phase)
        parts = [frame] if len(maps) == 1 else [frame[k : k + 1] for k in range(len(maps))]
        for node, part in zip(maps, parts, strict=True):
            node.SetAndObserveImageData(image_data(part))
        yield phase, maps


def _table(scene: Any, exam: SceneExam, chosen: Sequence[SceneView], document: Mapping[str, Any]) -> Any:
    rows = []
    for number, item in enumerate(chosen):
        for view in _views_of(document, number):
            for entry in view["slices"]:
                rows.append((entry["score"], item.view.name, entry["slice"] + 1, entry["phase"] + 1, entry["z"]))
    rows.sort(key=lambda row: -row[0])
    texts = [
        (name, str(index), str(phase), f"{score:.3f}", "" if z is None else f"{z:.1f}")
        for score, name, index, phase, z in rows[:LISTED]
    ]
    return add_text_table(scene, "Anomalies", ("View", "Slice", "Phase", "Score", "z"), texts, exam.item)
