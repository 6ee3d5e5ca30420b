"""A study into the scene, and volumes of the scene back into a study.

A view whose planes form a volume becomes one scalar volume with its true geometry; any other becomes one volume a
plane in a folder, because one IJKToRAS cannot hold shifted or tilted slices. A cine becomes a sequence with a
browser, and the volume is the browser's proxy.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import vtk
from vtkmodules.util.numpy_support import get_vtk_array_type
from vtkmodules.util.numpy_support import vtk_to_numpy

from SSLEngine.geometry import Plane
from SSLEngine.geometry import planes_of_affine
from SSLEngine.studies.handover import hand_over
from SSLEngine.studies.study import ROLES
from SSLEngine.studies.study import SHOWN_AS
from SSLEngine.studies.study import UNKNOWN
from SSLEngine.studies.study import Study
from SSLEngine.studies.study import View

from . import coordinates
from . import roles
from . import undo
from .cines import browser_of
from .cines import sequence_of
from .host import SceneError
from .host import new_node
from .host import sequences_logic
from .host import subject_hierarchy

ROLE = "SSLSegmentation.Role"
VIEW = "SSLSegmentation.View"
SOURCE = "SSLSegmentation.Source"
SLICE = "SSLSegmentation.Slice"
FRAME = "SSLSegmentation.FrameOfReference"
#: A view's further facts, as JSON.
FACTS = "SSLSegmentation.Facts"
#: Of a study item.
ORGAN = "SSLSegmentation.Organ"
SIDE = "SSLSegmentation.Side"
#: Of a study item that someone else made: the owner of what is shown of it.
EXAM = "SSLSegmentation.Exam"

#: ``progress(done, total, message)``, as the engine's readers call it.
Progress = Callable[[int, int, str], None]


@dataclass
class SceneView:
    """One view of an exam and the nodes that show it.

    Attributes:
        view: Planes, role and pixels.
        volumes: One scalar volume, or one a plane where the planes form no volume.
        browser: The sequence browser of a cine, else None.
        item: Subject hierarchy item that holds the view's nodes.
    """

    view: View
    volumes: list[Any]
    browser: Any | None = None
    item: int = 0

    @property
    def volume(self) -> Any:
        """The volume of a regular view, or of the middle plane of an irregular one."""
        return self.volumes[len(self.volumes) // 2]

    @property
    def shown_phase(self) -> int:
        """The phase of a cine that is shown, from 0."""
        return 0 if self.browser is None else int(self.browser.GetSelectedItemNumber())

    def volume_of_slice(self, index: int) -> Any:
        """The volume that holds a slice."""
        return self.volumes[0] if len(self.volumes) == 1 else self.volumes[index]


@dataclass
class SceneExam:
    """A study in the scene.

    Attributes:
        study: The study.
        views: Its views, in the order of display.
        token: Owner of everything that was added; see :func:`SSLScene.undo.remove_all`.
        item: The study's item in the subject hierarchy.
    """

    study: Study
    views: list[SceneView] = field(default_factory=list)
    token: str = undo.DEFAULT_TOKEN
    item: int = 0

    def first(self, role: str) -> SceneView | None:
        """The first view with a role, or None."""
        return next((v for v in self.views if v.view.role == role), None)

    def owning(self, kind: str) -> SceneExam:
        """The same exam as the owner of one kind of things that are shown of it and taken away without the others."""
        return replace(self, token=f"{self.token} {kind}")


def load_study(
    scene: Any, study: Study, token: str = undo.DEFAULT_TOKEN, progress: Progress | None = None
) -> SceneExam:
    """Puts a study's views into the scene, under a patient and a study of the subject hierarchy.

    Args:
        scene: The MRML scene.
        study: From :func:`SSLEngine.studies.read_study`.
        token: Owner under which everything is added.
        progress: Called after each view.

    Raises:
        StudyError: Pixels cannot be read.
    """
    tell = None if progress is None else lambda step: progress(*step)
    return undo.at_once(loading(scene, study, token), tell)


def loading(
    scene: Any, study: Study, token: str = undo.DEFAULT_TOKEN
) -> Generator[tuple[int, int, str], None, SceneExam]:
    """As :func:`load_study`, one phase of one view at each step: ``(done, total, view's name)``."""
    return undo.stepwise(scene, token, _add_views(scene, SceneExam(study, token=token)))


def _add_views(scene: Any, exam: SceneExam) -> Generator[tuple[int, int, str], None, SceneExam]:
    study = exam.study
    exam.item = _study_item(scene, study, exam.token)
    total, done = sum(view.phases for view in study.views), 0
    for view in sorted(study.views, key=lambda v: roles.rank(v.role)):
        adding = _add_view(scene, view, exam.item, exam.token)
        while True:
            try:
                next(adding)
            except StopIteration as end:
                exam.views.append(end.value)
                break
            done += 1
            yield done, total, view.name
    return exam


def _study_item(scene: Any, study: Study, token: str) -> int:
    hierarchy = subject_hierarchy(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), study.subject or study.name)
    item: int = hierarchy.CreateStudyItem(undo.own_item(scene, patient, token), study.name)
    hierarchy.SetItemAttribute(item, SOURCE, str(study.path))
    hierarchy.SetItemAttribute(item, ORGAN, study.organ)
    hierarchy.SetItemAttribute(item, SIDE, study.side or "")
    return undo.own_item(scene, item, token)


def _add_view(scene: Any, view: View, parent: int, token: str) -> Generator[None, None, SceneView]:
    """Adds a view's volumes, then one phase at each step."""
    if view.regular:
        parts, item = [slice(None)], parent
    else:
        item = undo.own_item(scene, subject_hierarchy(scene).CreateFolderItem(parent, _title(view)), token)
        parts = [slice(k, k + 1) for k in range(len(view.planes))]
    names = [_title(view) + (f" slice {p.start + 1}" if p.start is not None else "") for p in parts]
    pixels = view.pixels(0)
    volumes = [_volume(scene, view, name, pixels, part, token) for name, part in zip(names, parts, strict=True)]
    items = [put_under(scene, volume, item) for volume in volumes]
    browser = None
    if view.phases > 1:
        browser = yield from _cine(scene, view, volumes, parts)
    else:
        yield
    return SceneView(view, volumes, browser, items[0] if view.regular else item)


def _title(view: View) -> str:
    name = roles.label(view.role)
    return view.name if view.role == UNKNOWN or view.name.lower() == view.role else f"{name}: {view.name}"


def put_under(scene: Any, node: Any, parent: int) -> int:
    """Moves a node's subject hierarchy item under another, making it where the application has not; returns it."""
    hierarchy = subject_hierarchy(scene)
    item: int = hierarchy.GetItemByDataNode(node)
    if not item:
        return int(hierarchy.CreateItem(parent, node))
    hierarchy.SetItemParent(item, parent)
    return item


def _volume(scene: Any, view: View, name: str, pixels: npt.NDArray[np.float32], part: slice, token: str) -> Any:
    planes = view.planes[part]
    node = volume_node(scene, name, pixels[part], planes)
    # Set before the frames are stored: a proxy takes its attributes from the frame that it shows.
    undo.own(node, token)
    node.SetAttribute(ROLE, view.role)
    node.SetAttribute(VIEW, view.name)
    node.SetAttribute(SOURCE, str(view.source))
    node.SetAttribute(FRAME, view.frame_of_reference)
    node.SetAttribute(FACTS, json.dumps(dict(view.attributes)))
    if part.start is not None:
        node.SetAttribute(SLICE, str(part.start))
    return node


def volume_node(
    scene: Any,
    name: str,
    array: npt.NDArray[Any],
    planes: Sequence[Plane],
    class_name: str = "vtkMRMLScalarVolumeNode",
    limits: tuple[float, float] | None = None,
) -> Any:
    """Adds an array ``(slices, rows, columns)`` on planes that form a volume, as a volume node with display.

    The limits are the values that are shown darkest and brightest; Slicer takes them from the image where they are not
    given, for which it needs longer than for all the rest.
    """
    matrix = coordinates.vtk_matrix(coordinates.ijk_to_ras(planes))
    return _volume_node(scene, name, array, matrix, class_name, limits)


def volume_on(
    scene: Any,
    host: Any,
    name: str,
    array: npt.NDArray[Any] | vtk.vtkImageData,
    class_name: str = "vtkMRMLScalarVolumeNode",
    limits: tuple[float, float] | None = None,
) -> Any:
    """Adds an array or its image on the voxels of a volume node, under its transform; see :func:`volume_node`."""
    node = _volume_node(scene, name, array, ijk_to_ras_of(host), class_name, limits)
    node.SetAndObserveTransformNodeID(host.GetTransformNodeID())
    return node


def ijk_to_ras_of(node: Any) -> Any:
    """A volume node's own IJKToRAS, without its parent transform, as vtkMatrix4x4."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


def _volume_node(
    scene: Any,
    name: str,
    array: npt.NDArray[Any] | vtk.vtkImageData,
    matrix: Any,
    class_name: str,
    limits: tuple[float, float] | None,
) -> Any:
    node = new_node(scene, class_name, name)
    node.SetIJKToRASMatrix(matrix)
    if limits is not None:
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().AutoWindowLevelOff()
        node.GetDisplayNode().SetWindowLevelMinMax(*limits)
    node.SetAndObserveImageData(array if isinstance(array, vtk.vtkImageData) else image_data(array))
    node.CreateDefaultDisplayNodes()
    return node


def image_data(array: npt.NDArray[Any]) -> Any:
    """An array ``(slices, rows, columns)`` as vtkImageData; whole float numbers become 16 bit, as scanners store."""
    return undo.at_once(filling_image(array))


def filling_image(array: npt.NDArray[Any]) -> Generator[None, None, Any]:
    """As :func:`image_data`, one slice at each step: a large image at once takes longer than a window's turn."""
    # Slice by slice, as the first with a fraction settles it.
    short = array.dtype.kind == "f" and array.size and all(_short(part) for part in array)
    slices, rows, columns = array.shape
    image = vtk.vtkImageData()
    image.SetDimensions(columns, rows, slices)
    image.AllocateScalars(get_vtk_array_type(np.dtype(np.int16) if short else array.dtype), 1)
    # Into the image's own memory: a second copy of a large one would double the time.
    voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(array.shape)
    for k in range(slices):
        voxels[k] = array[k]
        yield
    return image


def _short(values: npt.NDArray[Any]) -> bool:
    """Whether 16 bit hold the values."""
    return bool(np.abs(values).max() < 2**15 and (values == np.rint(values)).all())


def array_of(node: Any) -> npt.NDArray[Any]:
    """The voxels of a volume node ``(slices, rows, columns)``, the node's own memory.

    Raises:
        SceneError: The node holds no image.
    """
    image = node.GetImageData()
    if image is None or image.GetPointData().GetScalars() is None:
        msg = f"The volume '{node.GetName()}' holds no image: load it again or choose another."
        raise SceneError(msg)
    columns, rows, slices = image.GetDimensions()
    values: npt.NDArray[Any] = vtk_to_numpy(image.GetPointData().GetScalars())
    return values.reshape(slices, rows, columns, -1)[..., 0]


def _cine(scene: Any, view: View, volumes: Sequence[Any], parts: Sequence[slice]) -> Generator[None, None, Any]:
    """Stores all phases in sequences and makes the volumes their proxies, in step by one browser."""
    sequences_logic(scene)
    browser = new_node(scene, "vtkMRMLSequenceBrowserNode", f"{_title(view)} cine")
    timed = len(view.trigger_times) == view.phases
    sequences = [new_node(scene, "vtkMRMLSequenceNode", f"{v.GetName()} frames") for v in volumes]
    for sequence in sequences:
        sequence.SetIndexName("time" if timed else "phase")
        sequence.SetIndexUnit("ms" if timed else "")
    for phase in range(view.phases):
        pixels = view.pixels(phase)
        index = f"{view.trigger_times[phase]:g}" if timed else str(phase)
        for sequence, volume, part in zip(sequences, volumes, parts, strict=True):
            volume.SetAndObserveImageData(image_data(pixels[part]))
            sequence.SetDataNodeAtValue(volume, index)
        yield
    for sequence, volume in zip(sequences, volumes, strict=True):
        # The volume itself becomes the proxy; without this the browser would make a copy.
        browser.AddProxyNode(volume, sequence, False)
    browser.SetSelectedItemNumber(0)
    return browser


# ---------------------------------------------------------------------------------------------
# Back from the scene


def read_from_scene(scene: Any, exam: SceneExam) -> None:
    """Lets an exam take its pixels from its nodes from now on, so that the files it was loaded from may go.

    Labels that lay beside the images are forgotten; see :func:`SSLScene.segments.loading_labels`.
    """
    for item in exam.views:
        item.view.read_labels = None
        item.view.read_pixels = _scene_reader(item.volumes, [sequence_of(scene, v) for v in item.volumes])


def _scene_reader(volumes: Sequence[Any], sequences: Sequence[Any]) -> Callable[[int], npt.NDArray[np.float32]]:
    """Reads a phase ``(slices, rows, columns)`` from volumes, each with its sequence or None."""
    return lambda phase: _voxels(volumes, sequences, phase).astype(np.float32)


def _voxels(volumes: Sequence[Any], sequences: Sequence[Any], phase: int) -> npt.NDArray[Any]:
    """What :func:`_scene_reader` reads, as it is in the scene; of one volume, the node's own memory."""
    nodes = [v if s is None else s.GetNthDataNode(phase) for v, s in zip(volumes, sequences, strict=True)]
    arrays = [array_of(node) for node in nodes]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def planes_of_node(node: Any) -> list[Plane]:
    """The planes of a volume node where it lies in the world, one for each index of its third axis.

    A linear parent transform is honoured.

    Raises:
        SceneError: The node holds no image, or its transform bends it.
        GeometryError: The transform shears the image.
    """
    size = array_of(node).shape[::-1]
    return planes_of_affine(world_matrix(node) @ coordinates.array_of(ijk_to_ras_of(node)), size)


def placed(item: SceneView) -> View:
    """A view where its volumes lie now: they may have been moved since the exam was loaded or taken up.

    Raises:
        SceneError: It cannot be said; see :func:`planes_of_node`.
    """
    return replace(item.view, planes=[plane for volume in item.volumes for plane in planes_of_node(volume)])


def world_matrix(node: Any) -> npt.NDArray[np.float64]:
    """The node's parent transform to the world, RAS ``(4, 4)``.

    Raises:
        SceneError: It is not linear.
    """
    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4)
    if not parent.IsTransformToWorldLinear():
        msg = (
            f"'{node.GetName()}' lies under the non-linear transform '{parent.GetName()}', so its slices are no planes:"
            " harden the transform (Data module, right-click on the node's transform) or remove it, and try again."
        )
        raise SceneError(msg)
    matrix = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    return coordinates.array_of(matrix)


def view_of_node(scene: Any, node: Any, role: str | None = None) -> View:
    """A volume of the scene as a view of the engine; a proxy of a sequence gives all its phases.

    Args:
        scene: The MRML scene.
        node: A scalar volume.
        role: The view's role; what the node says of itself where None.

    Raises:
        SceneError: The node cannot be used; see :func:`planes_of_node`.
    """
    return _view_of(scene, [node], role)


def _facts(node: Any) -> dict[str, str]:
    """A view's further facts; none where a scene that comes from elsewhere holds something else there."""
    try:
        facts = json.loads(node.GetAttribute(FACTS) or "{}")
        return {str(key): str(value) for key, value in facts.items()}
    except (ValueError, AttributeError, RecursionError):
        return {}


def _view_of(scene: Any, volumes: Sequence[Any], role: str | None) -> View:
    """As :func:`view_of_node`, of one volume or of one a slice."""
    first = volumes[0]
    sequences = [sequence_of(scene, node) for node in volumes]
    known = role or first.GetAttribute(ROLE) or UNKNOWN
    return View(
        name=view_name(first) or first.GetName(),
        source=Path(first.GetAttribute(SOURCE) or first.GetName()),
        planes=[plane for node in volumes for plane in planes_of_node(node)],
        phases=sequences[0].GetNumberOfDataNodes() if sequences[0] is not None else 1,
        read_pixels=_scene_reader(volumes, sequences),
        role=known if known in ROLES else UNKNOWN,
        reason="chosen in the scene" if role else "",
        frame_of_reference=first.GetAttribute(FRAME),
        trigger_times=_times(sequences[0]),
        attributes=_facts(first),
    )


def _times(sequence: Any) -> tuple[float, ...]:
    if sequence is None or sequence.GetIndexUnit() not in ("ms", "s"):
        return ()
    scale = 1000.0 if sequence.GetIndexUnit() == "s" else 1.0
    try:
        return tuple(scale * float(sequence.GetNthIndexValue(k)) for k in range(sequence.GetNumberOfDataNodes()))
    except ValueError:
        return ()


def set_role(scene: Any, item: SceneView, role: str) -> None:
    """Gives a view another role, on its nodes and on all frames of a cine.

    Raises:
        ValueError: There is no such role.
    """
    if role not in (*ROLES, UNKNOWN):
        msg = f"'{role}' is no role: choose one of {', '.join((*ROLES, UNKNOWN))}."
        raise ValueError(msg)
    item.view.role, item.view.reason, item.view.doubt = role, "chosen by hand", ""
    for volume in item.volumes:
        volume.SetAttribute(ROLE, role)
        sequence = sequence_of(scene, volume)
        for k in range(0 if sequence is None else sequence.GetNumberOfDataNodes()):
            sequence.GetNthDataNode(k).SetAttribute(ROLE, role)


def view_name(volume: Any) -> str:
    """Name of the view of an exam that a volume was added for; empty for a user's own volumes, clones included."""
    return (volume.GetAttribute(VIEW) or "") if undo.owner_of(volume) else ""


def is_overlay(volume: Any) -> bool:
    """Whether a volume, or what it is a clone of, was added to show something of an exam and is no view of it."""
    return volume.GetAttribute(undo.OWNER) is not None and volume.GetAttribute(VIEW) is None


def study_item(scene: Any, node: Any) -> int:
    """The study of the subject hierarchy that a node lies in; 0 where it lies in none."""
    hierarchy = subject_hierarchy(scene)
    item = hierarchy.GetItemByDataNode(node)
    return int(hierarchy.GetItemAncestorAtLevel(item, "Study")) if item else 0


def exam_name(scene: Any, item: int) -> tuple[str, str]:
    """Names of the subject and the study that a study item of the subject hierarchy has; empty where there is none."""
    hierarchy = subject_hierarchy(scene)
    subject = hierarchy.GetItemAncestorAtLevel(item, "Patient") if item else 0
    return hierarchy.GetItemName(subject) if subject else "", hierarchy.GetItemName(item) if item else ""


def token_of_study(scene: Any, item: int) -> str:
    """The owner of what is shown of a study of the subject hierarchy: one and the same, in a saved scene too."""
    hierarchy = subject_hierarchy(scene)
    known = hierarchy.GetItemAttribute(item, undo.OWNER) or hierarchy.GetItemAttribute(item, EXAM)
    if not known:
        known = undo.new_token(hierarchy.GetItemName(item))
        hierarchy.SetItemAttribute(item, EXAM, known)
    return str(known)


def exam_of_scene(
    scene: Any, chosen: Mapping[str, str] | Sequence[Any], name: str = "", token: str = undo.DEFAULT_TOKEN
) -> SceneExam:
    """An exam of volumes that lie in the scene already. Nothing is added or changed.

    Slices that were loaded as the one volume a plane of a view are that view again. Where all volumes lie in one study
    of the subject hierarchy, the exam has its name, its subject, its organ and side, and the folder that it was loaded
    from.

    Args:
        scene: The MRML scene.
        chosen: Volume nodes, or roles by node ID.
        name: The study's name; that of the subject hierarchy if empty.
        token: Owner of what is shown of the exam later.

    Raises:
        SceneError: A node cannot be used.
    """
    given = dict(chosen) if isinstance(chosen, Mapping) else {node.GetID(): "" for node in chosen}
    parts: dict[tuple[str, ...], list[Any]] = {}
    for node_id in given:
        node = scene.GetNodeByID(node_id)
        if node is None:
            msg = f"There is no volume {node_id} in the scene any more: choose another."
            raise SceneError(msg)
        parts.setdefault(_view_key(node), []).append(node)
    items = {study_item(scene, node) for nodes in parts.values() for node in nodes}
    item = items.pop() if len(items) == 1 else 0
    hierarchy = subject_hierarchy(scene)
    subject, known = exam_name(scene, item)
    name = name or known or "scene"
    path, organ, side = (hierarchy.GetItemAttribute(item, key) if item else "" for key in (SOURCE, ORGAN, SIDE))
    study = Study(name, Path(path or name), [], subject=subject, organ=organ or UNKNOWN, side=side or None)
    exam = SceneExam(study, token=token, item=item)
    for nodes in parts.values():
        nodes.sort(key=lambda node: int(node.GetAttribute(SLICE) or 0))
        view = _view_of(scene, nodes, given[nodes[0].GetID()] or None)
        place = hierarchy.GetItemByDataNode(nodes[0])
        place = place if len(nodes) == 1 else hierarchy.GetItemParent(place)
        exam.views.append(SceneView(view, nodes, browser_of(scene, nodes[0]), place))
    exam.views.sort(key=lambda v: roles.rank(v.view.role))
    exam.study.views = [v.view for v in exam.views]
    return exam


def _view_key(node: Any) -> tuple[str, ...]:
    """The same for all slices of a view that forms no volume; a volume of its own for every other node."""
    if node.GetAttribute(SLICE) is None or not view_name(node):
        return (node.GetID(),)
    return (undo.owner_of(node) or "", view_name(node))


def handing_over(exam: SceneExam, folder: Path) -> Iterator[tuple[int, int, str]]:
    """Writes an exam of the scene for a worker, one phase of one view at each step: ``(done, total, name)``.

    Parent transforms are in the geometry. The views are named by their number and role: node names may hold anything,
    and the worker's results are named by them. What the worker tells has the names that are shown.

    Raises:
        SceneError: A view's volume is no longer in the scene; said at once, before anything is written.
        OSError: A file cannot be written.
    """
    views = []
    for number, item in enumerate(exam.views):
        if any(volume.GetScene() is None for volume in item.volumes):
            msg = (
                f"The view '{item.view.name}' has lost its volume in the scene: load the exam again, or take the"
                " volumes that are left as the exam."
            )
            raise SceneError(msg)
        sequences = [sequence_of(volume.GetScene(), volume) for volume in item.volumes]
        # Converted as it is written, some MB at a time: a large volume as a whole would block the window.
        voxels = partial(_voxels, item.volumes, sequences)
        shown = {**item.view.attributes, SHOWN_AS: item.view.name}
        name = view_key(number, item)
        views.append(replace(item.view, name=name, attributes=shown, read_pixels=voxels, read_labels=None))
    return hand_over(replace(exam.study, views=views), folder)


def view_key(number: int, item: SceneView) -> str:
    """Name of an exam's view in what a worker reads and writes: ``00_sax``."""
    return f"{number:02d}_{item.view.role}"


def writing_study(exam: SceneExam, folder: Path) -> Generator[None, None, Path]:
    """Writes an exam of the scene as a study folder that the engine reads, some MB or one cine at each step.

    One volume a view, not compressed, which would take many times as long; roles in study.json. Parent transforms are
    written into the geometry. The folder is made; files of the same name are replaced.

    Raises:
        StudyError: A file cannot be written.
    """
    from SSLEngine.studies import write_view
    from SSLEngine.studies.volumes import writing_nifti

    folder.mkdir(parents=True, exist_ok=True)
    given = {}
    for number, item in enumerate(exam.views):
        for part, view in enumerate(_regular_parts(item.view)):
            # Node names may hold anything; file names are made here and cannot leave the folder.
            name = view_key(number, item) + (f"_{part:03d}" if not item.view.regular else "")
            if view.phases > 1:
                write_view(view, folder / f"{name}.nii")
            else:
                yield from writing_nifti(view.pixels(), view.planes, folder / f"{name}.nii")
            given[name] = view.role
            yield
    text = json.dumps({"roles": given, "subject": exam.study.subject or exam.study.name}, indent=1)
    (folder / "study.json").write_text(text + "\n", encoding="utf-8")
    return folder


def _regular_parts(view: View) -> list[View]:
    """The view itself if it is a volume, else one view a plane."""
    if view.regular:
        return [view]
    return [
        View(
            name=f"{view.name}_{k}",
            source=view.source,
            planes=[plane],
            phases=view.phases,
            read_pixels=lambda phase, k=k: view.pixels(phase)[k : k + 1],  # type: ignore[misc]
            role=view.role,
        )
        for k, plane in enumerate(view.planes)
    ]
