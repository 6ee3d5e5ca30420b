"""Writes synthetic studies as NIfTI or DICOM, whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..geometry import Plane
from ..studies.reading import LESION_SUFFIX
from ..studies.study import Study
from ..studies.study import StudyError
from ..studies.study import View
from .lesions import SyntheticView
from .writing_dicom import series_name
from .writing_dicom import write_series

FORMATS = ("nifti", "dicom")


def write_study(study: Study, folder: Path, fmt: str = "nifti") -> Path:
    """Writes a study into a folder that does not exist yet.

    Everything is written beside it under another name first, so that a folder of that name is whole.

    Args:
        study: Its views must be volumes (see :attr:`View.regular`).
        folder: The study's folder.
        fmt: ``nifti``: one 4D file a view (3D for a single phase). ``dicom``: all series mixed in one folder.
            Labels are ``<view>_seg.nii.gz`` or ``<series>_seg.nii.gz``, a lesion's place ``..._lesion.nii.gz``.

    Returns:
        The folder.

    Raises:
        StudyError: The format is unknown or the folder exists.
    """
    folder = Path(folder)
    if fmt not in FORMATS:
        msg = f"Expected one of {', '.join(FORMATS)} as format, found {fmt!r}."
        raise StudyError(msg)
    if folder.exists():
        msg = f"A synthetic study cannot be written to {folder}: it exists already; name a new folder."
        raise StudyError(msg)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write_into(study, draft, fmt)
        draft.chmod(0o755)
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return folder


def _write_into(study: Study, folder: Path, fmt: str) -> None:
    if fmt == "dicom":
        write_series(study, folder)
    for view in study.views:
        name = view.name
        if fmt == "nifti":
            _write_volume(view.planes, _stack(view, labels=False), folder / f"{name}.nii.gz")
        else:
            name = series_name(view)
        if view.labelled:
            _write_volume(view.planes, _stack(view, labels=True), folder / f"{name}_seg.nii.gz")
        if isinstance(view, SyntheticView) and view.lesion is not None:
            _write_volume(view.planes, view.lesion.astype(np.int16), folder / f"{name}{LESION_SUFFIX}.nii.gz")
    facts: dict[str, object] = {
        "organ": study.organ,
        "group": study.group,
        "labels": {str(value): name for value, name in study.views[0].label_names.items()},
    }
    if study.side is not None:
        facts["side"] = study.side
    (folder / "study.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _stack(view: View, labels: bool) -> npt.NDArray[np.int16]:
    """All phases of a view's pixels or labels, int16, ``(phases, slices, rows, columns)``."""
    frames = [view.labels(k) if labels else view.pixels(k) for k in range(view.phases)]
    return np.stack([np.zeros(view.shape) if f is None else f for f in frames]).astype(np.int16)


def slice_step(planes: list[Plane]) -> tuple[npt.NDArray[np.float64], float]:
    """Unit vector and mm from one plane to the next; the thickness along the normal for a single plane."""
    if len(planes) == 1:
        return planes[0].normal, planes[0].thickness or 1.0
    step = (planes[-1].origin - planes[0].origin) / (len(planes) - 1)
    length = float(np.linalg.norm(step))
    return step / length, length


def _write_volume(planes: list[Plane], pixels: npt.NDArray[np.int16], path: Path) -> None:
    """Writes ``(phases, slices, rows, columns)`` on the grid of regular planes; one phase gives a 3D file."""
    import SimpleITK as sitk

    from ..studies.volumes import write_image

    first = planes[0]
    direction, step = slice_step(planes)
    frames = []
    for frame in pixels:
        image = sitk.GetImageFromArray(frame)
        image.SetSpacing((*first.spacing, step))
        image.SetOrigin(tuple(first.origin.tolist()))
        image.SetDirection(np.stack([first.x_direction, first.y_direction, direction], axis=1).ravel().tolist())
        frames.append(image)
    write_image(frames[0] if len(frames) == 1 else sitk.JoinSeries(frames), path)
