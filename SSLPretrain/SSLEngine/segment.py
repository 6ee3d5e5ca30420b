"""A study in, label maps out, each on the grid of its own image."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import nn
from torch.nn import functional

from .geometry import Array
from .geometry import Plane
from .geometry import plane_to_plane
from .instances import class_shares
from .jobs import check_writable
from .measure import ejection_fraction
from .measure import ventricle
from .models import SEGMENTATION
from .models import Card
from .settings import Grid
from .settings import parse
from .slices import HOST_ROLES
from .slices import crop_centre
from .slices import network_plane
from .slices import resample
from .slices import sampling_grid
from .slices import standardise
from .structures import Structure
from .structures import terminology_entry
from .studies import Cohort
from .studies import Study
from .studies import StudyError
from .studies import View
from .studies.cohort import NNUNET_IMAGES
from .studies.labels import RESULT_FIELD
from .studies.labels import SEGMENTATION_EXTENSION as EXTENSION
from .studies.reading import Progress
from .studies.reading import refuse_inputs
from .studies.study import UNKNOWN
from .studies.volumes import itk_image
from .studies.volumes import volume_extension
from .studies.volumes import write_image
from .training import autocast

LabelMap = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
ClassMap = npt.NDArray[np.uint8]

#: Slices that go through the network together.
SLICES_AT_ONCE = 16
#: It looks again where what was found lies further from the patch's centre than this share of its side.
LOOK_AGAIN = 0.1


@dataclass(frozen=True)
class Result:
    """One segmented phase of one view.

    Attributes:
        view: The view.
        phase: Its phase.
        labels: Label values ``(slices, rows, columns)`` on the view's own grid.
        volumes_ml: Volume of each structure by name; for a single slice its area times the thickness.
    """

    view: View
    phase: int
    labels: LabelMap
    volumes_ml: dict[str, float]


class Segmenter:
    """A segmentation model on a device.

    Args:
        network: The network.
        card: Its card; it must have a segmentation head.
        device: Where to compute.
        largest_component: Keep only the largest connected part of each structure.

    Raises:
        StudyError: The model has no segmentation head.
    """

    def __init__(self, network: nn.Module, card: Card, device: torch.device, largest_component: bool = False) -> None:
        if card.kind == "classification":
            msg = "This model tells the class of a study and cannot segment; use 'sslengine classify' with it."
            raise StudyError(msg)
        if card.kind != "segmentation":
            msg = "This model was only pretrained and cannot segment; fine-tune it on a few labels first."
            raise StudyError(msg)
        self.network, self.card, self.device = network.to(device).eval(), card, device
        self.largest_component = largest_component
        # Patches are as large as in training: instance norm measures the whole input, and on a larger one it measures
        # something that it has never seen (0.57 instead of 0.83 Dice at end-systole on real stacks).
        self.grid = parse(card.grid, Grid)

    @property
    def values(self) -> LabelMap:
        """Label value of each class index, 0 for background, in bytes where they suffice."""
        values = [0, *(int(entry["value"]) for entry in self.card.labels)]
        return np.array(values, np.uint8) if max(values) <= np.iinfo(np.uint8).max else np.array(values, np.uint16)

    def views(self, study: Study) -> list[View]:
        """The views of a study that this model was trained for; all usable ones where none has a fitting role.

        Raises:
            StudyError: The study shows another organ.
        """
        return fitting_views(study, self.card)

    def segment(self, study: Study, view: View, phase: int) -> Result:
        """Segments one phase of one view of a study.

        It looks where the study's planes cross, or else at the middle of the image; where what it finds there lies to
        one side, it looks again round that. A model of squares round the middle of images looks there alone.
        """
        images = standardise(view.pixels(phase), self.grid.clip_percent)
        if not images.any():
            # All pixels are alike. A network finds something on them all the same.
            nothing = np.zeros(images.shape, np.uint8)
            return Result(view, phase, self.values[nothing], self._volumes(nothing, view.planes))
        looked_at = crop_centre(study, view, self.grid)
        classes = self._look(images, view, looked_at)
        found = _middle(classes, view.planes) if self.grid.centre == "crossing" else None
        if found is not None:
            before = np.mean([p.centre for p in view.planes], axis=0) if looked_at is None else looked_at
            if _distance_in_plane(found - before, view.planes[0]) > LOOK_AGAIN * self.grid.patch * self.grid.spacing_mm:
                classes = self._look(images, view, found)
        if self.largest_component:
            classes = keep_largest(classes, len(self.card.labels))
        return Result(view, phase, self.values[classes], self._volumes(classes, view.planes))

    def _look(self, images: npt.NDArray[np.float32], view: View, centre: Array | None) -> ClassMap:
        """Class indices of slices ``(slices, rows, columns)`` from patches round a point; background elsewhere."""
        planes, spacing_mm, side = view.planes, self.grid.spacing_mm, self.grid.patch
        hosts = [network_plane(plane, spacing_mm, side, centre, view.role) for plane in planes]
        maps = [plane_to_plane(plane, host) for plane, host in zip(planes, hosts, strict=True)]
        classes = np.zeros(images.shape, np.uint8)
        for part in alike(maps):
            first = part.start
            classes[part] = self._classes(images[part], planes[first], hosts[first])
        return classes

    @torch.no_grad()
    def _classes(self, images: npt.NDArray[np.float32], plane: Plane, host: Plane) -> ClassMap:
        """Class indices of slices that lie alike on their patch: probabilities are interpolated back, not labels."""
        patches = resample(torch.from_numpy(images).to(self.device), plane, host)
        share = self._shares(patches[:, None])
        return to_own_grid(share, host, plane).argmax(1).to(torch.uint8).cpu().numpy()

    def _shares(self, images: torch.Tensor) -> torch.Tensor:
        """Share of each class on every pixel ``(B, C, P, P)`` of images ``(B, 1, P, P)``, background first."""
        if self.card.network.get("kind") == "mask-rcnn":
            with autocast(self.device):
                found = self.network(images)
            return class_shares(found, len(self.card.labels))
        with autocast(self.device):
            logits = self.network(images, [SEGMENTATION])[SEGMENTATION]
        return functional.softmax(logits.float(), dim=1)

    def _volumes(self, classes: ClassMap, planes: Sequence[Plane]) -> dict[str, float]:
        voxel = voxel_ml(planes)
        counts = np.bincount(classes.ravel(), minlength=len(self.card.labels) + 1)
        return {e["name"]: float(counts[e["index"]]) * voxel for e in self.card.labels}


def fitting_views(study: Study, card: Card) -> list[View]:
    """The views of a study that have a role that a model knows; all usable ones where none has.

    Raises:
        StudyError: None has, and the study shows another organ than the model knows.
    """
    fitting = [v for v in study.views if v.role in card.roles]
    if not fitting and UNKNOWN not in (study.organ, card.organ) and study.organ != card.organ:
        msg = (
            f"{study.name} shows a {study.organ} and this model knows the {card.organ}: choose a model of the "
            f"{study.organ}, or correct the organ in a study.json."
        )
        raise StudyError(msg)
    return fitting or [v for v in study.views if v.role in HOST_ROLES] or list(study.views)


def alike(maps: Sequence[Array]) -> Iterator[slice]:
    """Runs of slices, at most :data:`SLICES_AT_ONCE`, whose pixels lie alike on their patches."""
    start = 0
    for k in range(1, len(maps) + 1):
        if k == len(maps) or k - start == SLICES_AT_ONCE or not np.allclose(maps[k], maps[start], atol=1e-3):
            yield slice(start, k)
            start = k


def _middle(classes: ClassMap, planes: Sequence[Plane]) -> Array | None:
    """Mean position, LPS, of everything that was found; None where nothing was."""
    slices, rows, columns = np.nonzero(classes)
    if not len(slices):
        return None
    points = [planes[k].to_patient([columns[slices == k].mean(), rows[slices == k].mean()]) for k in np.unique(slices)]
    weights = np.bincount(slices)[np.unique(slices)]
    return np.asarray(np.average(points, axis=0, weights=weights))


def _distance_in_plane(offset: Array, plane: Plane) -> float:
    return float(np.hypot(offset @ plane.x_direction, offset @ plane.y_direction))


def to_own_grid(share: torch.Tensor, host: Plane, plane: Plane) -> torch.Tensor:
    """Probabilities ``(B, C, h, w)`` on the network's grid to the image's own ``(B, C, H, W)``; background outside."""
    inside = torch.cat([share, torch.ones_like(share[:, :1])], dim=1)
    matrix = torch.from_numpy(plane_to_plane(plane, host)).float().to(share.device)
    grid = sampling_grid(matrix[None], (plane.size[1], plane.size[0]), (host.size[1], host.size[0]))
    sampled = functional.grid_sample(inside, grid.expand(len(inside), -1, -1, -1), mode="bilinear", align_corners=False)
    return torch.cat([sampled[:, :1] + (1 - sampled[:, -1:]), sampled[:, 1:-1]], dim=1)


def keep_largest(classes: ClassMap, count: int) -> ClassMap:
    """Keeps the largest face-connected part of each class; the rest becomes background."""
    kept = np.zeros_like(classes)
    for index in range(1, count + 1):
        parts, found = ndimage.label(classes == index)
        if found:
            sizes = np.bincount(parts.ravel())[1:]
            kept[parts == int(sizes.argmax()) + 1] = index
    return kept


def voxel_ml(planes: Sequence[Plane]) -> float:
    """Volume of a voxel in ml, from the distance between slices (the gap counts), else from the thickness."""
    first = planes[0]
    step = first.thickness
    if len(planes) > 1:
        step = float(np.median([abs((b.origin - a.origin) @ first.normal) for a, b in itertools.pairwise(planes)]))
    return first.spacing[0] * first.spacing[1] * step / 1000


# ---------------------------------------------------------------------------------------------
# NRRD segmentation


def write_segmentation(
    path: Path, labels: LabelMap, planes: Sequence[Plane], entries: Sequence[Mapping[str, Any]]
) -> None:
    """Writes a label map as Slicer's NRRD segmentation, with names, colours and terminology, atomically.

    Args:
        path: Ends in ``.seg.nrrd``.
        labels: Label values ``(slices, rows, columns)``.
        planes: The slices' planes; they must form a volume.
        entries: Label entries of a model card: value, name, colour, category, type.
    """
    image = itk_image(labels, list(planes))
    for key, text in _header(labels, entries).items():
        image.SetMetaData(key, text)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        temporary = Path(folder) / "segmentation.seg.nrrd"
        write_image(image, temporary)
        temporary.replace(path)


def _header(labels: LabelMap, entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    slices, rows, columns = labels.shape
    fields = {
        RESULT_FIELD: "1",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_SourceRepresentation": "Binary labelmap",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
        "Segmentation_ConversionParameters": "",
    }
    for k, entry in enumerate(entries):
        item = Structure(entry["name"], tuple(entry["colour"]), tuple(entry["category"]), tuple(entry["type"]))
        fields |= {
            f"Segment{k}_ID": f"Segment_{entry['value']}",
            f"Segment{k}_Name": item.name,
            f"Segment{k}_NameAutoGenerated": "0",
            f"Segment{k}_Color": " ".join(f"{c:.6g}" for c in item.colour),
            f"Segment{k}_ColorAutoGenerated": "0",
            f"Segment{k}_Extent": f"0 {columns - 1} 0 {rows - 1} 0 {slices - 1}",
            f"Segment{k}_LabelValue": str(entry["value"]),
            f"Segment{k}_Layer": "0",
            f"Segment{k}_Tags": f"TerminologyEntry:{terminology_entry(item)}|",
        }
    return fields


def phase_path(out: Path, phase: int) -> Path:
    """Where a phase of a view goes whose first one goes to ``out``."""
    return out if phase == 0 else out.with_name(f"{out.name[: -len(EXTENSION)]}_phase{phase:03d}{EXTENSION}")


def ordered(views: Sequence[View]) -> list[View]:
    """Views with the one that a person means first: the view with the most slices."""
    return sorted(views, key=lambda v: -len(v.planes))


def segment_study(segmenter: Segmenter, study: Study, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Segments every fitting view and phase of a study and writes the label maps.

    Args:
        segmenter: The model.
        study: A study; a single file read as one works too.
        out: Ends in ``.seg.nrrd``. The first phase of the main view goes there, others beside it. In the end, further
            phases and slices of these names that an earlier run left there are removed.
        progress: ``progress(done, total, message)``.

    Returns:
        ``{"outputs": [{"file", "view", "role", "phase", "volumes_ml"}], "cine": [...]}`` and, of views that were not
        segmented, ``"left_out": [{"view", "why"}]``.

    Raises:
        OSError: A file cannot be written; where that can be seen beforehand, none is.
        StudyError: The output's name is wrong, or that of a file of the exam.
    """
    if not out.name.endswith(EXTENSION):
        msg = f"The output {out} must end in {EXTENSION}, Slicer's segmentation format."
        raise StudyError(msg)
    views = ordered(segmenter.views(study))
    name = out.name[: -len(EXTENSION)]
    others = {view.name: out.with_name(f"{name}_{view.name}{EXTENSION}") for view in views[1:]}
    return _segment_views(segmenter, study, {views[0].name: out, **others}, progress)


def segment_cohort(segmenter: Segmenter, cohort: Cohort, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Segments all studies of a cohort into a folder, where ``evaluate`` finds each result by its image's name.

    Args:
        segmenter: The model.
        cohort: The studies; one that cannot be segmented does not stop the others.
        out: The folder. What comes from ``COHORT/heart-1/sax.nii.gz`` goes to ``heart-1/sax.seg.nrrd`` in it, what
            comes from DICOM to ``study/view.seg.nrrd``, a case of an nnU-Net dataset to ``case.seg.nrrd``.
        progress: ``progress(done, total, message)``.

    Returns:
        ``{"studies": [{"study", "outputs", "cine", "left_out"}], "left_out": [{"study", "why"}]}``.

    Raises:
        OSError: A file cannot be written.
        StudyError: The folder is one of the cohort's own, or no study could be segmented.
    """
    if out.name.endswith(EXTENSION):
        msg = f"The results of a cohort go into a folder, and {out} has the name of a file; choose another."
        raise StudyError(msg)
    if cohort.path.resolve() in (out.resolve(), *out.resolve().parents):
        msg = f"{out} lies in the cohort, whose exams would take the results for labels; choose a folder outside it."
        raise StudyError(msg)
    done: list[dict[str, Any]] = []
    left_out: list[dict[str, str]] = []
    for number, study in enumerate(cohort.studies):
        if progress:
            progress(number, len(cohort.studies), study.name)
        try:
            targets = {view.name: out / result_place(cohort, study, view) for view in segmenter.views(study)}
            done.append({"study": study.name, **_segment_views(segmenter, study, targets)})
        except StudyError as error:
            left_out.append({"study": study.name, "why": str(error)})
    if not done:
        raise StudyError(left_out[0]["why"])
    return {"studies": done, "left_out": left_out}


def result_place(cohort: Cohort, study: Study, view: View) -> Path:
    """Where a view's result goes, relative to the folder of a cohort's results."""
    # Of DICOM files several subjects' may lie in one folder, and the views are named alike.
    inside = view.source.is_file() and volume_extension(view.source) and cohort.path in view.source.parents
    if not inside:
        place = Path(study.name)
    elif cohort.path / NNUNET_IMAGES == view.source.parent:
        place = Path()
    else:
        place = view.source.parent.relative_to(cohort.path)
    return place / f"{view.name}{EXTENSION}"


def _segment_views(
    segmenter: Segmenter, study: Study, targets: Mapping[str, Path], progress: Progress | None = None
) -> dict[str, Any]:
    """As :func:`segment_study`; ``targets`` says by the views' names where the first phase of each goes."""
    views = ordered([view for view in study.views if view.name in targets])
    work = [
        (view, phase, _parts(phase_path(targets[view.name], phase), view))
        for view in views
        for phase in range(view.phases)
    ]
    # Longer names are made of the one that was given: all are looked at, so that no run ends half-way.
    files = [file for _, _, parts in work for file, _ in parts]
    _refuse_twice(study, files)
    stale = [path for target in targets.values() for path in _further(target) if path not in files]
    refuse_inputs(study, [*files, *stale])
    for file in files:
        _check_file(file)
    outputs: list[dict[str, Any]] = []
    for number, (view, phase, parts) in enumerate(work):
        result = segmenter.segment(study, view, phase)
        for file, part in parts:
            write_segmentation(file, result.labels[part], view.planes[part], segmenter.card.labels)
            outputs.append(
                {
                    "file": str(file),
                    "view": view.name,
                    "role": view.role,
                    "phase": phase,
                    "volumes_ml": result.volumes_ml,
                }
            )
        if progress:
            progress(number + 1, len(work), f"{view.shown}, phase {phase + 1} of {view.phases}")
    for path in stale:
        path.unlink(missing_ok=True)
    left_out = [{"view": v.shown, "why": _why_not(v, segmenter.card)} for v in study.views if v not in views]
    cine = [c for c in map(partial(cine_summary, outputs), views) if c]
    return {"outputs": outputs, "cine": cine, "left_out": left_out}


def _refuse_twice(study: Study, files: Sequence[Path]) -> None:
    """Refuses results of which one would replace another: capitals do not tell files apart on Windows and macOS.

    Raises:
        StudyError: There are such.
    """
    known: dict[str, Path] = {}
    for file in files:
        first = known.setdefault(str(file).casefold(), file)
        if first is not file:
            msg = (
                f"Two results of {study.name} would be one file ({first.name} and {file.name}), since its views are "
                "named too much alike; rename one image, or segment it alone."
            )
            raise StudyError(msg)


def _why_not(view: View, card: Card) -> str:
    """Why a view is not segmented, in one sentence."""
    if view.role == UNKNOWN:
        return f"its role is not known ({view.reason}); choose it in the list of views, or in the exam's study.json"
    return f"it is {view.role}, and the model has learned {', '.join(card.roles)}"


def _check_file(file: Path) -> None:
    """Looks whether a file could be written, also under a long name in a folder that is still to be made."""
    check_writable(file)
    there = next(place for place in file.absolute().parents if place.exists())
    try:
        (there / file.name).lstat()
    except FileNotFoundError:
        pass
    except OSError as error:
        error.filename = str(file)
        raise


def _further(out: Path) -> list[Path]:
    """Further phases and slices under an output's name, of an earlier run too, which would be taken for this one's."""
    name = re.escape(out.name[: -len(EXTENSION)])
    further = re.compile(rf"{name}(_phase[0-9]{{3}})?(_slice[0-9]{{3}})?{re.escape(EXTENSION)}")
    beside = sorted(out.parent.iterdir()) if out.parent.is_dir() else []
    return [path for path in beside if further.fullmatch(path.name) and path.is_file() and path != out]


def _parts(path: Path, view: View) -> list[tuple[Path, slice]]:
    """Files for one phase of a view: one for a regular stack, else one a slice, the first under the name itself."""
    if view.regular:
        return [(path, slice(None))]
    name = path.name[: -len(EXTENSION)]
    files = [path, *(path.with_name(f"{name}_slice{k:03d}{EXTENSION}") for k in range(1, len(view.planes)))]
    return [(file, slice(k, k + 1)) for k, file in enumerate(files)]


def cine_summary(outputs: Sequence[Mapping[str, Any]], view: View) -> dict[str, Any] | None:
    """Volumes by phase of a cine view, and ED, ES and ejection fraction of a ventricle; None for a still image.

    The area of a single slice is no volume of a ventricle, and other structures have no ejection fraction.
    """
    curve = {o["phase"]: o["volumes_ml"] for o in outputs if o["view"] == view.name}
    if len(curve) < 2:
        return None
    names = list(next(iter(curve.values())))
    cavity = ventricle(names)
    main = cavity or names[0]
    volumes = [curve[p][main] for p in sorted(curve)]
    function = ejection_fraction(volumes) if cavity and len(view.planes) > 1 else None
    return {"view": view.name, "structure": main, "volumes_ml": volumes, **(function or {})}
