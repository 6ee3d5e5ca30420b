"""The loop that makes a few labels enough: approved segments become labelled exams for the next fine-tuning."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Generator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from SSLScene import exams
from SSLScene import segments
from SSLScene import undo
from SSLScene.exams import VIEW
from SSLScene.exams import SceneExam
from SSLScene.exams import SceneView
from SSLScene.host import SceneError

from .corrections_folder import known_labels
from .corrections_folder import value_of

LABELS_SUFFIX = "_seg"


def collect(exam: SceneExam, segmentations: Sequence[Any], folder: Path) -> Path:
    """Writes an exam with its segments as a labelled study of its own.

    An earlier one is replaced where it has the same images and no labels of others than these views; whatever else has
    the exam's name stays, and the exam gets a number.

    A cine is written at the phase that is shown, because that is the one whose segments were approved.

    Args:
        exam: The exam.
        segmentations: Segmentation nodes of its views.
        folder: Folder of labelled exams.

    Returns:
        The study's folder.

    Raises:
        SceneError: A segmentation belongs to no view of the exam, or holds no segments, or two lie on the same image.
        StudyError: A file cannot be written.
    """
    return undo.at_once(collecting(exam, segmentations, folder))


def collecting(exam: SceneExam, segmentations: Sequence[Any], folder: Path) -> Generator[None, None, Path]:
    """As :func:`collect`, one volume or segment at each step; where it does not come to its end nothing has changed."""
    pairs = [(view_of(exam, node), node) for node in segmentations]
    if not pairs:
        raise SceneError(_("There is no segmentation to learn from: segment the exam or draw one first."))
    labelled: dict[str, Any] = {}
    for item, node in pairs:
        other = labelled.setdefault(_stem(exam, item, node), node)
        if other is not node:
            text = _("'{first}' and '{second}' both lie on {view}, which has one as its labels: choose one of them.")
            raise SceneError(text.format(first=other.GetName(), second=node.GetName(), view=item.view.name))
    name = _safe("_".join(dict.fromkeys(filter(None, [exam.study.subject, exam.study.name]))))
    partial = folder / f"{name}.part"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        still = SceneExam(exam.study, [_still(item) for item in exam.views], exam.token, exam.item)
        yield from exams.writing_study(still, partial)
        target = yield from _place(folder, name, partial, set(labelled))
        names = yield from _writing_labels(exam, pairs, partial, known_labels(folder, target))
        document = json.loads((partial / "study.json").read_text(encoding="utf-8"))
        document["labels"] = {str(value): name for value, name in names.items()}
        # Exams of which nobody has said whose they are must not be taken for those of one subject.
        document["subject"] = exam.study.subject or target.name
        (partial / "study.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        _replace(target, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def start_drawing(exam: SceneExam, item: SceneView, names: Sequence[str]) -> Any:
    """Makes an empty segmentation on a view, with a segment for each name; the first of a view that forms no volume."""
    values = {k + 1: name for k, name in enumerate(names)}
    empty = np.zeros(item.view.shape, np.int16)
    return segments.add_labels(slicer.mrmlScene, exam, item, empty, values, f"{item.view.name} segments")[0]


def one_an_image(exam: SceneExam, segmentations: Sequence[Any], chosen: Any = None) -> tuple[list[Any], str]:
    """Of segmentations on the same image of an exam the chosen one, else the last, which was made last.

    Args:
        exam: The exam.
        segmentations: Segmentation nodes; those of no view of the exam are passed over, unless it is the chosen one.
        chosen: The one that is preferred to others on its image.

    Returns:
        The segmentations that are used, and a sentence on those that are not; empty where there are none.
    """
    on: dict[str, list[Any]] = {}
    for node in sorted(segmentations, key=lambda node: node is chosen):
        try:
            on.setdefault(_stem(exam, view_of(exam, node), node), []).append(node)
        except SceneError:
            if node is chosen:
                on[node.GetID()] = [node]
    used = [nodes[-1] for nodes in on.values()]
    text = _("'{used}' is used and not {others} on the same image; choose another above to use that.")
    said = [
        text.format(used=nodes[-1].GetName(), others=", ".join(f"'{node.GetName()}'" for node in nodes[:-1]))
        for nodes in on.values()
        if len(nodes) > 1
    ]
    return [node for node in segmentations if node in used], " ".join(said)


def _place(folder: Path, name: str, partial: Path, labelled: set[str]) -> Generator[None, None, Path]:
    """The folder for an exam whose images have been written: its former one, else one that nothing has the name of."""
    number, target = 1, folder / name
    while target.exists() and not (yield from _may_replace(target, partial, labelled)):
        number += 1
        target = folder / f"{name}-{number}"
    return target


def _may_replace(target: Path, partial: Path, labelled: set[str]) -> Generator[None, None, bool]:
    """Whether the exam has the images of a former one and will have labels wherever that has them."""
    written = yield from _images(partial, labelled)
    known = {path.stem.removesuffix(LABELS_SUFFIX) for path in target.glob(f"*{LABELS_SUFFIX}.nii")}
    former = yield from _images(target, known)
    return written.keys() == former.keys() and all(written[image] >= had for image, had in former.items())


def _images(folder: Path, labelled: set[str]) -> Generator[None, None, dict[bytes, bool]]:
    """Digest of each image of a collected exam, and whether it has labels; some MB at each step."""
    found = {}
    for path in folder.glob("*.nii"):
        if not path.stem.endswith(LABELS_SUFFIX):
            digest = hashlib.blake2b()
            with path.open("rb") as file:
                while block := file.read(1 << 24):
                    digest.update(block)
                    yield
            found[digest.digest()] = path.stem in labelled
    return found


def _replace(target: Path, partial: Path) -> None:
    """Puts a folder in the place of another, which is back where it was if that cannot be done."""
    former = target.with_name(target.name + ".former.part")
    shutil.rmtree(former, ignore_errors=True)
    if target.is_dir():
        target.rename(former)
    try:
        partial.rename(target)
    except OSError:
        if former.is_dir():
            former.rename(target)
        raise
    shutil.rmtree(former, ignore_errors=True)


def _safe(name: str) -> str:
    """A folder name that cannot leave its folder."""
    return re.sub(r"[^\w\- ]+", "_", name).strip("_ ") or "exam"


def view_of(exam: SceneExam, node: Any) -> SceneView:
    """The view that a segmentation was drawn on.

    Raises:
        SceneError: It is of none of the exam.
    """
    reference = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
    # Names need not be unique among volumes of the scene.
    for item in exam.views:
        if reference in item.volumes:
            return item
    # What was made for this exam and has lost its volume; another exam's views have the same names.
    if reference is None and undo.owner_of(node) == exam.token:
        for item in exam.views:
            if item.view.name == node.GetAttribute(VIEW):
                return item
    text = _("'{name}' belongs to no view of the exam; choose the volume it was drawn on as its source.")
    raise SceneError(text.format(name=node.GetName()))


def _part_of(item: SceneView, node: Any) -> slice:
    """The slices of a view that a segmentation was drawn on: all, or one where each has a volume of its own."""
    if item.view.regular:
        return slice(None)
    reference = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
    if reference not in item.volumes:
        text = _("'{name}' lies on no slice of the view {view}; choose one of its volumes as its source.")
        raise SceneError(text.format(name=node.GetName(), view=item.view.name))
    index = item.volumes.index(reference)
    return slice(index, index + 1)


def _stem(exam: SceneExam, item: SceneView, node: Any) -> str:
    """Name of the image file that a segmentation's labels lie beside."""
    start = _part_of(item, node).start
    return exams.view_key(exam.views.index(item), item) + ("" if start is None else f"_{start:03d}")


def _still(item: SceneView) -> SceneView:
    """The view with the phase that is shown."""
    shown, read = item.shown_phase, item.view.read_pixels
    view = replace(item.view, phases=1, trigger_times=(), read_pixels=lambda phase: read(shown), read_labels=None)
    return SceneView(view, item.volumes, None, item.item)


def _writing_labels(
    exam: SceneExam, pairs: Sequence[tuple[SceneView, Any]], folder: Path, known: Mapping[str, int]
) -> Generator[None, None, dict[int, str]]:
    """Writes a label map beside each view's image; returns the names of all values."""
    from SSLEngine.studies.volumes import writing_nifti

    values = dict(known)
    own = {name: value_of(values, name) for _item, node in pairs for name in segments.segment_names(node)}
    for item, node in pairs:
        part = _part_of(item, node)
        volume = item.volume_of_slice(part.start or 0)
        labels, _names = yield from segments.labelling(slicer.mrmlScene, node, volume, own)
        path = folder / f"{_stem(exam, item, node)}{LABELS_SUFFIX}.nii"
        yield from writing_nifti(labels, item.view.planes[part], path)
        yield
    return {value: name for name, value in values.items()}
