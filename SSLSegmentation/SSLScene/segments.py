"""Label maps into segmentation nodes, and segments back into label maps."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import slicer
import vtk

from SSLEngine.geometry import Plane
from SSLEngine.structures import structure
from SSLEngine.structures import terminology_entry
from SSLEngine.structures import unnamed

from . import coordinates
from . import undo
from .cines import playing
from .exams import ROLE
from .exams import VIEW
from .exams import SceneExam
from .exams import SceneView
from .exams import array_of
from .exams import ijk_to_ras_of
from .exams import put_under
from .exams import volume_on
from .host import SceneError
from .host import new_node
from .host import segmentations_logic

LabelMap = npt.NDArray[np.int16]


def add_labels(
    scene: Any, exam: SceneExam, item: SceneView, labels: npt.NDArray[Any], names: Mapping[int, str], name: str
) -> list[Any]:
    """Adds a label map of a view as segmentation, with names, colours, terminology and reference geometry.

    Args:
        scene: The MRML scene.
        exam: The exam, owner of what is added.
        item: The view that the labels belong to.
        labels: Label values ``(slices, rows, columns)`` on the view's grid; 0 is background.
        names: Names of the values; a value without one is called ``Label 3``.
        name: Name of the segmentation.

    Returns:
        One segmentation node, or one a slice for a view that forms no volume.

    Raises:
        ValueError: The labels do not lie on the view's grid.
    """
    if labels.shape != item.view.shape:
        msg = f"The labels have shape {labels.shape}, their view {item.view.name} has {item.view.shape}."
        raise ValueError(msg)
    whole = len(item.volumes) == 1
    parts = [slice(None)] if whole else [slice(k, k + 1) for k in range(len(item.volumes))]
    with undo.owned(scene, exam.token):
        return [
            _segmentation(scene, exam, volume, labels[part], item, names, name)
            for volume, part in zip(item.volumes, parts, strict=True)
        ]


def loading_labels(scene: Any, exam: SceneExam) -> Generator[tuple[int, int, str], None, list[Any]]:
    """Adds the labels that came with an exam's views, one phase at each step: ``(done, total, view's name)``.

    Over a cine they are in step with it. A phase that nobody has labelled has no segments.

    Returns:
        The segmentation nodes.
    """
    return undo.stepwise(scene, exam.token, _load_labels(scene, exam))


def _load_labels(scene: Any, exam: SceneExam) -> Generator[tuple[int, int, str], None, list[Any]]:
    items = [item for item in exam.views if item.view.labelled]
    total, done = sum(item.view.phases for item in items), 0
    made: list[Any] = []
    for item in items:
        nodes = _add_phase(scene, exam, item, 0)
        made += nodes
        done += 1
        yield done, total, item.view.name
        if item.view.phases > 1:
            others = ((k, _add_phase(scene, exam, item, k)) for k in range(1, item.view.phases))
            frames = itertools.chain([(0, nodes)], others)
            for _ in playing(scene, item.volume, nodes, frames, corrected=True):
                yield done, total, item.view.name
            done += item.view.phases - 1
    return made


def _add_phase(scene: Any, exam: SceneExam, item: SceneView, phase: int) -> list[Any]:
    labels = item.view.labels(phase)
    if labels is None:
        labels = np.zeros(item.view.shape, np.int16)
    # The names may be those of all views of the exam: only what was drawn in this one becomes a segment.
    names = {value: name for value, name in item.view.label_names.items() if (labels == value).any()}
    return add_labels(scene, exam, item, labels, names, f"{item.view.name} labels")


def _segmentation(
    scene: Any,
    exam: SceneExam,
    volume: Any,
    labels: npt.NDArray[Any],
    item: SceneView,
    names: Mapping[int, str],
    name: str,
) -> Any:
    logic = segmentations_logic(scene)
    node = _new_segmentation(scene, exam, volume, item, name)
    carrier = volume_on(scene, volume, "labels", labels.astype(np.int16), "vtkMRMLLabelMapVolumeNode")
    try:
        if labels.any() and not logic.ImportLabelmapToSegmentationNode(carrier, node):
            msg = f"The labels of '{volume.GetName()}' could not be imported into '{name}': check their geometry."
            raise SceneError(msg)
    finally:
        undo.remove_nodes(scene, [carrier])
    segmentation = node.GetSegmentation()
    for k in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(k)
        describe(segment, names.get(segment.GetLabelValue(), unnamed(segment.GetLabelValue())))
    for value in sorted(set(names) - {0} - {int(v) for v in np.unique(labels)}):
        # A structure that was looked for and not found is an empty segment, not a missing one.
        empty = segmentation.GetSegment(segmentation.AddEmptySegment("", names[value]))
        empty.SetLabelValue(value)
        describe(empty, names[value])
    return node


def _new_segmentation(scene: Any, exam: SceneExam, volume: Any, item: SceneView, name: str) -> Any:
    segmentations_logic(scene)
    node = new_node(scene, "vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    _attach(scene, exam, node, volume, item)
    return node


def _attach(scene: Any, exam: SceneExam, node: Any, volume: Any, item: SceneView) -> None:
    """Ties a segmentation to its volume: transform, reference geometry, place in the subject hierarchy."""
    # The transform first: the geometry is taken relative to the transforms that both have.
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    node.SetAttribute(VIEW, item.view.name)
    node.SetAttribute(ROLE, item.view.role)
    if exam.item:
        put_under(scene, node, exam.item)
    display = node.GetDisplayNode()
    display.SetOpacity2DFill(0.35)
    display.SetOpacity2DOutline(1.0)


def describe(segment: Any, name: str) -> None:
    """Gives a segment its name, and the colour and terminology of the structure of that name."""
    found = structure(name, max(1, int(segment.GetLabelValue())))
    segment.SetName(found.name)
    segment.SetNameAutoGenerated(False)
    segment.SetColor(*found.colour)
    segment.SetColorAutoGenerated(False)
    entry = terminology_entry(found)
    if hasattr(segment, "SetTerminology"):
        segment.SetTerminology(entry)
    else:
        segment.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), entry)


def load_segmentation(
    scene: Any, exam: SceneExam, item: SceneView, path: Path, slice_index: int = 0, name: str = ""
) -> Any:
    """Reads a ``.seg.nrrd`` of a view into a segmentation node through Slicer's own reader.

    Names, colours and terminology come from the file.

    Args:
        scene: The MRML scene.
        exam: The exam, owner of what is added.
        item: The view that was segmented.
        path: The file.
        slice_index: For a view that forms no volume, the slice that the file holds.
        name: Name of the node; made from the view's name if empty.

    Raises:
        SceneError: The file cannot be read as a segmentation.
    """
    volume = item.volume_of_slice(slice_index)
    if not path.is_file():
        msg = f"There is no segmentation file {path}: run the segmentation again."
        raise SceneError(msg)
    with undo.owned(scene, exam.token):
        node = _new_segmentation(scene, exam, volume, item, name or f"{item.view.name} segmentation")
        storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
        storage.SetFileName(str(path))
        if not storage.ReadData(node):
            undo.remove_nodes(scene, [node, storage])
            msg = f"{path} is not a segmentation that Slicer can read: it should be a .seg.nrrd file."
            raise SceneError(msg)
        # The file may be temporary; on saving, the node goes beside the scene.
        scene.RemoveNode(storage)
        _move_onto(node, volume, item.view.planes if len(item.volumes) == 1 else [item.view.planes[slice_index]])
        _attach(scene, exam, node, volume, item)
    return node


def _move_onto(node: Any, volume: Any, planes: Sequence[Plane]) -> None:
    """Moves segments that lie on planes to where their volume has its voxels, before its transform.

    An exam that was made of volumes of the scene has its planes where they lay in the world, transforms included; the
    segmentation goes under the volume's transform, and would be moved by it twice.
    """
    there = coordinates.array_of(ijk_to_ras_of(volume)) @ np.linalg.inv(coordinates.ijk_to_ras(planes))
    if not np.allclose(there, np.eye(4), atol=1e-6):
        node.ApplyTransformMatrix(coordinates.vtk_matrix(there))


def segment_names(node: Any) -> list[str]:
    """Names of a segmentation's segments, in order."""
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegment(k).GetName() for k in range(segmentation.GetNumberOfSegments())]


def is_drawn(node: Any) -> bool:
    """Whether any segment holds a voxel, or a surface."""
    segmentation = node.GetSegmentation()
    form = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    if segmentation.GetSourceRepresentationName() != form:
        return bool(segmentation.GetNumberOfSegments())
    # Several segments may lie in one image, so this says it of all of them together.
    images = [segmentation.GetNthSegment(k).GetRepresentation(form) for k in range(segmentation.GetNumberOfSegments())]
    return any(i is not None and i.GetNumberOfPoints() and i.GetScalarRange()[1] > 0 for i in images)


def labels_of(
    scene: Any, node: Any, volume: Any, values: Mapping[str, int] | None = None
) -> tuple[LabelMap, dict[int, str]]:
    """Segments as one label map on a volume's grid. Where segments overlap, the later one wins.

    Args:
        scene: The MRML scene.
        node: A segmentation.
        volume: The volume whose grid the label map gets.
        values: Label value by segment name; segments not named are left out. 1, 2, ... in order if None.

    Returns:
        The labels, int16 ``(slices, rows, columns)``, and the names of their values.

    Raises:
        SceneError: The segmentation holds none of the wanted segments.
    """
    return undo.at_once(labelling(scene, node, volume, values))


def labelling(
    scene: Any, node: Any, volume: Any, values: Mapping[str, int] | None = None
) -> Generator[None, None, tuple[LabelMap, dict[int, str]]]:
    """As :func:`labels_of`, one segment at each step."""
    segmentation = node.GetSegmentation()
    ids = [segmentation.GetNthSegmentID(k) for k in range(segmentation.GetNumberOfSegments())]
    given = {i: segmentation.GetSegment(i).GetName() for i in ids}
    table = values if values is not None else {n: k + 1 for k, n in enumerate(given.values())}
    wanted = {i: table[n] for i, n in given.items() if n in table}
    if not wanted:
        found = ", ".join(given.values()) or "nothing"
        msg = f"'{node.GetName()}' holds none of {', '.join(table) or 'the segments'}; it holds {found}."
        raise SceneError(msg)
    labels = np.zeros(array_of(volume).shape, np.int16)
    for segment_id, value in wanted.items():
        labels[_mask(scene, node, volume, segment_id)] = value
        yield
    return labels, {value: given[i] for i, value in wanted.items()}


def _mask(scene: Any, node: Any, volume: Any, segment_id: str) -> npt.NDArray[np.bool_]:
    """One segment on a volume's grid ``(slices, rows, columns)``."""
    logic = segmentations_logic(scene)
    new = undo.additions(scene)
    carrier = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    ids = vtk.vtkStringArray()
    ids.InsertNextValue(segment_id)
    try:
        logic.ExportSegmentsToLabelmapNode(node, ids, carrier, volume)
        image = carrier.GetImageData()
        if image is None or not image.GetNumberOfPoints():
            return np.zeros(array_of(volume).shape, np.bool_)
        return np.array(array_of(carrier) > 0)
    finally:
        # The export also makes a colour table.
        undo.remove_nodes(scene, new())


def add_surface(node: Any) -> None:
    """Makes a segmentation visible in 3D."""
    if node.GetSegmentation().GetNumberOfSegments():
        node.CreateClosedSurfaceRepresentation()
        node.GetDisplayNode().SetVisibility3D(True)


def load_for_exam(scene: Any, exam: SceneExam, path: Path) -> Any:
    """Reads a ``.seg.nrrd`` onto the view of the exam whose grid it has.

    Raises:
        SceneError: No view has that grid, or the file cannot be read.
    """
    from SSLEngine.studies.study import StudyError
    from SSLEngine.studies.volumes import read_header

    try:
        planes = read_header(path).planes()
    except StudyError as error:
        raise SceneError(str(error)) from error
    for item in exam.views:
        for start in range(len(item.view.planes) - len(planes) + 1):
            if _same_planes(item.view.planes[start : start + len(planes)], planes):
                return load_segmentation(scene, exam, item, path, start)
    msg = f"{path} has the grid of none of the views of {exam.study.name}: choose the segmentation of this exam."
    raise SceneError(msg)


def _same_planes(first: Sequence[Plane], second: Sequence[Plane]) -> bool:
    """Whether the planes have equal sizes and corners within half a mm."""
    return all(
        a.size == b.size and np.abs(a.corners - b.corners).max() < 0.5 for a, b in zip(first, second, strict=True)
    )
