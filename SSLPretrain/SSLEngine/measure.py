"""Scores: Dice, HD95, ASSD and volumes by structure, and what a cine adds (ED, ES, ejection fraction)."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import compute_average_surface_distance
from monai.metrics import compute_hausdorff_distance

from .geometry import Plane
from .structures import structure
from .structures import unnamed
from .studies import StudyError
from .studies.cohort import NNUNET_LABELS
from .studies.cohort import ignored_value
from .studies.cohort import names_of
from .studies.labels import LabelFile
from .studies.labels import first_of
from .studies.labels import image_name
from .studies.labels import is_label_file
from .studies.labels import read_label_file
from .studies.reading import MAX_LABEL_VALUE
from .studies.volumes import volume_extension

Mask = npt.NDArray[np.bool_]
LV_CAVITY = "LV cavity"
#: What the names of label files end with where nothing else is asked for.
LABELS_SUFFIX = "_seg"
#: Lines about what was not compared; the others are counted.
MAX_TOLD = 5


def dice(a: Mask, b: Mask) -> float:
    """Overlap ``2 |A and B| / (|A| + |B|)``; 1 where both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def surface_distances(a: Mask, b: Mask, spacing: Sequence[float]) -> tuple[float | None, float | None]:
    """HD95 (larger of the two directed 95th percentiles) and ASSD (symmetric mean) in mm, as MONAI defines them.

    Args:
        a: ``(slices, rows, columns)``.
        b: The same shape.
        spacing: mm along the three axes.

    Returns:
        (None, None) where one of them is empty.
    """
    if not a.any() or not b.any():
        return None, None
    where = np.nonzero(a | b)
    # Only the box round both matters; one voxel more, so that surfaces at its border are surfaces.
    box = tuple(slice(max(0, int(i.min()) - 1), int(i.max()) + 2) for i in where)
    pair = [torch.from_numpy(np.pad(m[box], 1))[None, None] for m in (a, b)]
    millimetres = list(spacing)
    if pair[0].shape[2] == 3:
        # A single slice: the surface is its outline.
        pair, millimetres = [m[:, :, 1] for m in pair], millimetres[1:]
    with warnings.catch_warnings():
        # MONAI 1.6 warns of an argument that it passes to itself.
        warnings.simplefilter("ignore", FutureWarning)
        far = compute_hausdorff_distance(pair[0], pair[1], include_background=True, percentile=95, spacing=millimetres)
        mean = compute_average_surface_distance(
            pair[0], pair[1], include_background=True, symmetric=True, spacing=millimetres
        )
    return float(far), float(mean)


@dataclass(frozen=True)
class Comparison:
    """Two label maps on one grid with the names of their values.

    Attributes:
        predicted: ``(slices, rows, columns)`` values.
        reference: The same shape.
        pairs: Structure name to (its values in predicted, its values in reference).
        spacing: mm along slices, rows, columns.
        others: What is shown in predicted, and in reference, and belongs to no pair.
        complete: Whether the reference says of every voxel what is there; what it leaves open is compared with nothing.
    """

    predicted: npt.NDArray[np.int16]
    reference: npt.NDArray[np.int16]
    pairs: Mapping[str, tuple[list[int], list[int]]]
    spacing: tuple[float, float, float]
    others: tuple[list[str], list[str]]
    complete: bool

    def scores(self) -> dict[str, dict[str, float | None]]:
        """By structure: dice, hd95_mm, assd_mm, predicted_ml, reference_ml."""
        voxel = float(np.prod(self.spacing)) / 1000
        found: dict[str, dict[str, float | None]] = {}
        for name, (p, r) in self.pairs.items():
            a, b = np.isin(self.predicted, p), np.isin(self.reference, r)
            far, mean = surface_distances(a, b, self.spacing)
            found[name] = {
                # What is in neither says nothing: a long-axis view without an aorta is no success.
                "dice": dice(a, b) if a.any() or b.any() else None,
                "hd95_mm": far,
                "assd_mm": mean,
                "predicted_ml": float(a.sum()) * voxel,
                "reference_ml": float(b.sum()) * voxel,
            }
        return found


def compare_files(predicted: Path, reference: Path, phase: int = 0) -> Comparison:
    """Brings two label files together on the reference's grid (nearest neighbour where they differ).

    Raises:
        StudyError: A file cannot be used or is an image, they lie in different places, or they share no structure.
    """
    a, b = read_label_file(predicted), read_label_file(reference)
    planes, own_phase = b.planes(), phase if a.phases > 1 else 0
    if a.elsewhere(b, own_phase):
        msg = (
            f"{predicted} and {reference} do not lie in the same place of the patient (their boxes do not overlap): "
            "give two label maps of the same exam."
        )
        raise StudyError(msg)
    labels = a.on(planes, own_phase), b.on(planes, phase)
    ignored = ignored_value(names_of(b))
    left_open = labels[1] < 0
    if ignored is not None:
        left_open |= labels[1] == ignored
    for drawn in labels:
        drawn[left_open | (drawn < 0)] = 0
    for path, drawn in zip((predicted, reference), labels, strict=True):
        count = len(_values(drawn))
        if count > MAX_LABEL_VALUE:
            msg = f"{path} holds {count} different values: it is an image; give the label map that belongs to it."
            raise StudyError(msg)
    pairs = match_structures(a, b, *labels)
    others = [
        _rest(file, drawn, {value for pair in pairs.values() for value in pair[side]})
        for side, (file, drawn) in enumerate(zip((a, b), labels, strict=True))
    ]
    return Comparison(labels[0], labels[1], pairs, _spacing(planes), (others[0], others[1]), not bool(left_open.any()))


def _spacing(planes: Sequence[Plane]) -> tuple[float, float, float]:
    first = planes[0]
    step = first.thickness or 1.0
    if len(planes) > 1:
        step = abs(float((planes[1].origin - planes[0].origin) @ first.normal))
    return step, first.spacing[1], first.spacing[0]


def _values(labels: npt.NDArray[np.int16]) -> list[int]:
    return [int(v) for v in np.unique(labels) if v]


def _rest(file: LabelFile, labels: npt.NDArray[np.int16], used: Collection[int]) -> list[str]:
    """Names of what is drawn beside the values that are used."""
    names = names_of(file)
    return [names.get(value, unnamed(value)) for value in _values(labels) if value not in used]


def match_structures(
    a: LabelFile, b: LabelFile, a_labels: npt.NDArray[np.int16], b_labels: npt.NDArray[np.int16]
) -> dict[str, tuple[list[int], list[int]]]:
    """Structures of the reference with their values in both files: by name where both have names, else by value.

    Segments that are aliases of one structure count as one. Without names only what the reference shows is compared: a
    reference may hold fewer structures than a model knows. One that shows nothing says that there is nothing to find:
    all that is named or predicted is compared with that.

    Raises:
        StudyError: Both have names and share none.
    """
    present = _values(b_labels)
    names_a, names_b = _structures(a), _structures(b)
    if names_a and names_b:
        if names_a.keys().isdisjoint(names_b):
            msg = f"{a.header.path} and {b.header.path} share no structure by name; check that they belong together."
            raise StudyError(msg)
        named = {n: (names_a.get(n, []), values) for n, values in names_b.items()}
        found = {n: (p, r) for n, (p, r) in named.items() if p or not set(r).isdisjoint(present)}
        # What neither names is known by its value, as in training.
        bare = {*names_of(a), *_values(a_labels)} - {v for values in names_a.values() for v in values}
        bare &= {*present} - {v for values in names_b.values() for v in values}
        return found | {unnamed(v): ([v], [v]) for v in sorted(bare)}
    name_of = {v: n for n, values in (names_a or names_b).items() for v in values}
    by_value: dict[str, list[int]] = {}
    for v in present or sorted({*name_of, *_values(a_labels)}):
        by_value.setdefault(name_of.get(v, unnamed(v)), []).append(v)
    return {n: (values, values) for n, values in by_value.items()}


def _structures(file: LabelFile) -> dict[str, list[int]]:
    """Values of each structure that has a name, of itself or by the exam or dataset that it lies in."""
    found: dict[str, list[int]] = {}
    names = names_of(file)
    for value, name in names.items():
        if name != unnamed(value) and value != ignored_value(names):
            found.setdefault(structure(name, value).name, []).append(value)
    return found


def evaluate(predicted: Path, reference: Path, labels_suffix: str | None = None) -> dict[str, Any]:
    """Compares a file with a file, or the files of two folders by name.

    Args:
        predicted: A label file or a folder of them; of an nnU-Net dataset the root or ``labelsTr``.
        reference: The same.
        labels_suffix: What the names of label files end with, nothing where all volumes are labels. Where it is not
            given, each folder's names tell: ``_seg`` or, if no file is named as labels, nothing.

    Returns:
        ``{"structures": {name: {dice, hd95_mm, assd_mm, predicted_ml, reference_ml}}, "mean_dice", "files": [...]}``;
        over several files the figures are means, and for a cine of one stack ``"cine"`` holds volumes and ejection
        fraction of the LV cavity. ``"unpaired": {"predicted": [...], "reference": [...]}`` names the files of two
        folders that have no partner, where there are any; ``"missing_phases": [{"predicted", "reference", "phases"}]``
        the labelled phases of a cine that the prediction lacks. Without one of them no ejection fraction is given: it
        may be ED or ES; nor where a part of the reference is to be ignored, which may hold a part of the cavity.
        ``"not_compared": {"predicted": [...], "reference": [...]}`` names what one side shows and the other does not
        know.

    Raises:
        StudyError: Nothing can be compared.
    """
    pairs, unpaired = paired_files(predicted, reference, labels_suffix)
    cines = [(a, b, *_phases(a, b)) for a, b in pairs]
    files: list[dict[str, Any]] = []
    slices, complete = 0, True
    others: tuple[dict[str, None], dict[str, None]] = ({}, {})
    for _, b, found, _ in cines:
        for phase, a in found.items():
            compared = compare_files(a, b, phase)
            slices, complete = len(compared.reference), complete and compared.complete
            for names, shown in zip(others, compared.others, strict=True):
                names.update(dict.fromkeys(shown))
            files.append({"predicted": str(a), "reference": str(b), "phase": phase, "structures": compared.scores()})
    missing = [{"predicted": str(a), "reference": str(b), "phases": lacked} for a, b, _, lacked in cines if lacked]
    structures = _means([f["structures"] for f in files])
    known = [s["dice"] for s in structures.values() if s["dice"] is not None]
    mean = float(np.mean(known)) if known else None
    document: dict[str, Any] = {"structures": structures, "mean_dice": mean, "files": files}
    if any(unpaired.values()):
        document["unpaired"] = unpaired
    # What one file lacks may have been compared in another.
    alone = [[name for name in names if structure(name).name not in structures] for names in others]
    if any(alone):
        document["not_compared"] = {"predicted": alone[0], "reference": alone[1]}
    if missing:
        return {**document, "missing_phases": missing}
    # The area of one slice is no volume of a ventricle.
    cine = _cine(files) if slices > 1 and complete else None
    return {**document, "cine": cine} if cine else document


def left_out(document: Mapping[str, Any]) -> list[str]:
    """What :func:`evaluate` did not compare: a line each for the first few, and a count of the others."""
    unpaired = document.get("unpaired", {"predicted": [], "reference": []})
    lines = [
        f"{m['predicted']} lacks phases that are labelled in {m['reference']} ({', '.join(map(str, m['phases']))}): "
        "they are left out, and no ejection fraction is given."
        for m in document.get("missing_phases", [])
    ]
    lines += [f"{path} is left out: no reference has its name." for path in unpaired["predicted"]]
    lines += [f"{path} is left out: no prediction has its name." for path in unpaired["reference"]]
    more = len(lines) - MAX_TOLD
    lines = [*lines[:MAX_TOLD], f"{more} more are left out; --json names all."] if more > 0 else lines
    others = document.get("not_compared", {"predicted": [], "reference": []})
    for side, other in (("predicted", "reference"), ("reference", "prediction")):
        if others[side]:
            lines.append(f"Not compared, as no {other} has it: {', '.join(others[side])} ({side}).")
    return lines


def paired_files(
    predicted: Path, reference: Path, suffix: str | None
) -> tuple[list[tuple[Path, Path]], dict[str, list[str]]]:
    """File pairs to compare: the two files, or the label files of two folders that have the same name.

    Returns:
        The pairs, and under ``"predicted"`` and ``"reference"`` the files that have no partner.

    Raises:
        StudyError: One is a file and the other a folder, one is absent, no names match, or two of a folder are alike.
    """
    for path in (predicted, reference):
        if not path.exists():
            msg = f"{path} does not exist; give a label file or a folder of them."
            raise StudyError(msg)
    if predicted.is_file() and reference.is_file():
        return [(predicted, reference)], {}
    if predicted.is_file() or reference.is_file():
        msg = f"{predicted} and {reference} must be two files or two folders."
        raise StudyError(msg)
    sides = [_label_files(folder, suffix) for folder in (predicted, reference)]
    shared = sorted(set(sides[0]) & set(sides[1]))
    if not shared:
        msg = f"No label file in {predicted} has the name of one in {reference}; name them alike."
        raise StudyError(msg)
    alone = [[str(path) for n, path in side.items() if n not in shared] for side in sides]
    return [(sides[0][n], sides[1][n]) for n in shared], {"predicted": alone[0], "reference": alone[1]}


def _label_files(folder: Path, suffix: str | None) -> dict[str, Path]:
    folder = folder / NNUNET_LABELS if (folder / NNUNET_LABELS).is_dir() else folder
    volumes = [path for path in sorted(folder.rglob("*")) if volume_extension(path)]
    if suffix is None:
        # Where no name says that a file holds labels (nnU-Net's labels and predictions), all do.
        suffix = LABELS_SUFFIX if any(is_label_file(path, LABELS_SUFFIX) for path in volumes) else ""
    found: dict[str, Path] = {}
    for path in volumes:
        # Later phases, and further slices of what is no volume, are found beside the first one.
        later = re.search(r"_phase\d{3}\.seg\.nrrd$", path.name, re.IGNORECASE) or first_of(path)
        if later or not (is_label_file(path, suffix) or not suffix):
            continue
        name = str(path.relative_to(folder).with_name(image_name(path, suffix)))
        if name in found:
            msg = f"{found[name]} and {path} are labels of one name, '{name}'; remove or rename one of them."
            raise StudyError(msg)
        found[name] = path
    return found


def _phases(predicted: Path, reference: Path) -> tuple[dict[int, Path], list[int]]:
    """Predicted file of each phase that is labelled in the reference, and the labelled phases that have none.

    ``<name>_phaseNNN.seg.nrrd`` lie beside the first phase.
    """
    drawn = read_label_file(reference).drawn_phases
    if predicted.name.endswith(".seg.nrrd"):
        name = predicted.name[: -len(".seg.nrrd")]
        files = {k: predicted.with_name(f"{name}_phase{k:03d}.seg.nrrd") if k else predicted for k in drawn}
        found = {k: file for k, file in files.items() if file.is_file()}
    else:
        phases = read_label_file(predicted).phases
        found = {k: predicted for k in drawn if k < phases}
    if not found:
        msg = f"{predicted} has none of the phases that are labelled in {reference}; compare files of the same cine."
        raise StudyError(msg)
    return found, [k for k in drawn if k not in found]


def _means(results: Sequence[Mapping[str, Mapping[str, float | None]]]) -> dict[str, dict[str, float | None]]:
    names = dict.fromkeys(n for r in results for n in r)
    figures = ("dice", "hd95_mm", "assd_mm", "predicted_ml", "reference_ml")
    means: dict[str, dict[str, float | None]] = {}
    for name in names:
        rows = [r[name] for r in results if name in r]
        values = {f: [row[f] for row in rows if row[f] is not None] for f in figures}
        means[name] = {f: float(np.mean(v)) if v else None for f, v in values.items()}  # type: ignore[arg-type]
    return means


def ventricle(structures: Iterable[str]) -> str | None:
    """The structure that an ejection fraction is of: the LV cavity, or label 1 where the labels have no names."""
    return next((name for name in (LV_CAVITY, unnamed(1)) if name in structures), None)


def ejection_fraction(volumes_ml: Sequence[float], phases: Sequence[int] = ()) -> dict[str, float | int] | None:
    """ED and ES phase (largest and smallest cavity), their volumes in ml, and the ejection fraction in percent.

    Args:
        volumes_ml: The cavity's volumes.
        phases: Their phases' numbers; all of a cine from 0 where none are given.
    """
    if len(volumes_ml) < 2 or max(volumes_ml) <= 0:
        return None
    ed, es = int(np.argmax(volumes_ml)), int(np.argmin(volumes_ml))
    edv, esv = float(volumes_ml[ed]), float(volumes_ml[es])
    if phases:
        ed, es = phases[ed], phases[es]
    return {"ed_phase": ed, "es_phase": es, "edv_ml": edv, "esv_ml": esv, "ef_percent": 100 * (edv - esv) / edv}


def _cine(files: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Volumes over the phases of one view and ejection fraction of its ventricle; None without one."""
    if len({f["reference"] for f in files}) != 1 or len(files) < 2:
        return None
    by_phase = sorted(files, key=lambda f: f["phase"])
    name = ventricle({n for f in by_phase for n in f["structures"]})
    if name is None:
        return None
    phases = [f["phase"] for f in by_phase]
    volumes = {
        side: [f["structures"].get(name, {}).get(f"{side}_ml") or 0.0 for f in by_phase]
        for side in ("predicted", "reference")
    }
    return {"structure": name, **{side: ejection_fraction(v, phases) for side, v in volumes.items()}}


def table(document: Mapping[str, Any]) -> str:
    """The scores as a table for the terminal."""
    rows = [f"{'structure':<22}{'Dice':>8}{'HD95 mm':>10}{'ASSD mm':>10}{'ml':>10}{'ref. ml':>10}"]
    figures = (("dice", 8, 3), ("hd95_mm", 10, 1), ("assd_mm", 10, 2), ("predicted_ml", 10, 1), ("reference_ml", 10, 1))
    for name, scores in document["structures"].items():
        cells = [f"{'-':>{w}}" if scores[f] is None else f"{scores[f]:>{w}.{d}f}" for f, w, d in figures]
        rows.append(f"{name:<22}" + "".join(cells))
    mean = document["mean_dice"]
    rows.append(f"{'mean':<22}{'-' if mean is None else format(mean, '.3f'):>8}")
    for side in ("predicted", "reference"):
        cine = (document.get("cine") or {}).get(side)
        if cine:
            volumes = f"EDV {cine['edv_ml']:.0f} ml, ESV {cine['esv_ml']:.0f} ml"
            rows.append(f"{side}: {volumes}, ejection fraction {cine['ef_percent']:.0f} %")
    return "\n".join(rows)
