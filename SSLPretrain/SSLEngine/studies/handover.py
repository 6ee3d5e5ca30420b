"""An exam handed from one process to another: a worker has read it, a window shows it, a worker segments it.

A folder with ``handover.json`` (planes, roles, remarks) and one ``.npy`` array a phase of a view. Reading it takes no
image reader and hardly any time, which is why a window can do it. It is a temporary form: nothing is kept in it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..geometry import GeometryError
from ..geometry import Plane
from .study import ROLES
from .study import UNKNOWN
from .study import Irregularity
from .study import Study
from .study import StudyError
from .study import View
from .volumes import PART_BYTES

HANDOVER_FILE = "handover.json"


def hand_over(study: Study, folder: Path) -> Iterator[tuple[int, int, str]]:
    """Writes a study for another process, one phase of one view at each turn of the iteration, or part of a large one.

    The index is written last: a folder without it is not complete and is not taken for an exam.

    Args:
        study: The study; its pixels may be of any type.
        folder: Where; made if absent.

    Yields:
        Phases done, phases in all, name of the view.

    Raises:
        StudyError: Pixels cannot be read.
        OSError: A file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(view.phases for view in study.views)
    done = 0
    labelled: list[list[int]] = []
    for number, view in enumerate(study.views):
        labelled.append([])
        for phase in range(view.phases):
            for _ in _saving(_pixels_path(folder, number, phase), view.pixels(phase), np.float32):
                yield done, total, view.name
            labels = view.labels(phase)
            if labels is not None:
                for _ in _saving(_labels_path(folder, number, phase), labels, np.int16):
                    yield done, total, view.name
                labelled[-1].append(phase)
            done += 1
            yield done, total, view.name
    document = {
        "name": study.name,
        "path": str(study.path.absolute()),
        "subject": study.subject,
        "organ": study.organ,
        "group": study.group,
        "side": study.side,
        "irregularities": [asdict(i) for i in study.irregularities],
        "views": [_view_out(view, phases) for view, phases in zip(study.views, labelled, strict=True)],
    }
    (folder / HANDOVER_FILE).write_text(json.dumps(document) + "\n", encoding="utf-8")


def _saving(path: Path, array: npt.NDArray[Any], dtype: type[np.generic]) -> Iterator[None]:
    """As ``numpy.save`` of an array of that type, some MB at a time: a turn before each, none where one part is all."""
    # To convert a large exam as a whole would take the window's turn longer than to write it.
    header = np.lib.format.header_data_from_array_1_0(np.empty((0, *array.shape[1:]), dtype))
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": array.shape})
        count = max(1, PART_BYTES // max(1, array[:1].size * np.dtype(dtype).itemsize))
        for start in range(0, len(array), count):
            if count < len(array):
                yield
            file.write(np.ascontiguousarray(array[start : start + count], dtype).data)


def take_over(folder: Path) -> Study:
    """Reads what :func:`hand_over` has written; pixels and labels when they are asked for.

    Raises:
        StudyError: The index is absent or not what it should be.
    """
    path = folder / HANDOVER_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return Study(
            name=document["name"],
            path=Path(document["path"]),
            views=[_view_in(folder, number, entry) for number, entry in enumerate(document["views"])],
            irregularities=[Irregularity(**item) for item in document["irregularities"]],
            subject=document["subject"],
            organ=document["organ"],
            group=document["group"],
            side=document["side"],
        )
    except (OSError, ValueError, TypeError, KeyError, GeometryError) as error:
        msg = f"{path} does not describe an exam ({error}): load the exam again."
        raise StudyError(msg) from error


def _pixels_path(folder: Path, number: int, phase: int) -> Path:
    return folder / f"{number:03d}_{phase:04d}.npy"


def _labels_path(folder: Path, number: int, phase: int) -> Path:
    return folder / f"{number:03d}_{phase:04d}_labels.npy"


def _view_out(view: View, labelled: list[int]) -> dict[str, Any]:
    return {
        "name": view.name,
        "source": str(view.source),
        "planes": [_plane_out(plane) for plane in view.planes],
        "phases": view.phases,
        "labelled": labelled,
        "role": view.role,
        "reason": view.reason,
        "doubt": view.doubt,
        "label_names": {str(value): name for value, name in view.label_names.items()},
        "frame_of_reference": view.frame_of_reference,
        "trigger_times": list(view.trigger_times),
        "attributes": dict(view.attributes),
    }


def _view_in(folder: Path, number: int, entry: dict[str, Any]) -> View:
    planes = [_plane_in(plane) for plane in entry["planes"]]
    phases, labelled = int(entry["phases"]), frozenset(entry["labelled"])
    if not planes or phases < 1 or entry["role"] not in (*ROLES, UNKNOWN):
        msg = f"view {entry['name']} has {len(planes)} planes, {phases} phases and the role '{entry['role']}'"
        raise ValueError(msg)
    columns, rows = planes[0].size
    shape = (len(planes), rows, columns)

    def pixels(phase: int) -> npt.NDArray[np.float32]:
        return _load(_pixels_path(folder, number, phase), shape, np.float32)

    def labels(phase: int) -> npt.NDArray[np.int16] | None:
        return _load(_labels_path(folder, number, phase), shape, np.int16) if phase in labelled else None

    return View(
        name=entry["name"],
        source=Path(entry["source"]),
        planes=planes,
        phases=phases,
        read_pixels=pixels,
        read_labels=labels if labelled else None,
        role=entry["role"],
        reason=entry["reason"],
        doubt=entry["doubt"],
        label_names={int(value): name for value, name in entry["label_names"].items()},
        frame_of_reference=entry["frame_of_reference"],
        trigger_times=tuple(entry["trigger_times"]),
        attributes=entry["attributes"],
    )


def _plane_out(plane: Plane) -> dict[str, Any]:
    return {
        "origin": plane.origin.tolist(),
        "x_direction": plane.x_direction.tolist(),
        "y_direction": plane.y_direction.tolist(),
        "spacing": list(plane.spacing),
        "size": list(plane.size),
        "thickness": plane.thickness,
    }


def _plane_in(entry: dict[str, Any]) -> Plane:
    vectors = [np.array(entry[name], dtype=np.float64) for name in ("origin", "x_direction", "y_direction")]
    (dx, dy), (columns, rows) = entry["spacing"], entry["size"]
    return Plane(vectors[0], vectors[1], vectors[2], (dx, dy), (int(columns), int(rows)), float(entry["thickness"]))


def _load(path: Path, shape: tuple[int, int, int], kind: Any) -> Any:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read ({error}): load the exam again."
        raise StudyError(msg) from error
    if array.shape != shape or array.dtype != kind:
        msg = f"{path} holds {array.dtype} {array.shape}, expected {np.dtype(kind)} {shape}: load the exam again."
        raise StudyError(msg)
    return array
