"""One exam from a folder or a file: views, their roles and labels, and what is wrong."""

from __future__ import annotations

import difflib
import itertools
import json
import os
import re
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from .dicom import FramePolicy
from .dicom import find_dicom
from .dicom import group_exams
from .dicom_views import views_of_exam
from .handover import HANDOVER_FILE
from .handover import take_over
from .labels import LabelFile
from .labels import first_of
from .labels import image_name
from .labels import is_label_file
from .labels import is_result
from .labels import read_label_file
from .roles import assign_roles
from .study import KNEE_ROLES
from .study import ROLES
from .study import UNKNOWN
from .study import Irregularity
from .study import Study
from .study import StudyError
from .study import View
from .volumes import FOREIGN_EXTENSIONS
from .volumes import VolumeHeader
from .volumes import header_irregularities
from .volumes import load_array
from .volumes import read_header
from .volumes import stem
from .volumes import view_of_volume
from .volumes import volume_extension

#: ``progress(done, total, message)``.
Progress = Callable[[int, int, str], None]
OVERRIDES_FILE = "study.json"
#: Files that are not opened to see whether they are DICOM.
NO_IMAGE_EXTENSIONS = (
    *(".json", ".txt", ".csv", ".tsv", ".md", ".html", ".xml", ".yml", ".pdf", ".log", ".py", ".sh", ".xlsx", ".docx"),
    *(".png", ".jpg", ".jpeg", ".gif", ".svg", ".bmp", ".tif", ".tiff", ".avi", ".mp4", ".mov"),
    *(".zip", ".gz", ".tar", ".7z", ".mrml", ".mrb", ".stl", ".vtk", ".vtp", ".h5", ".pt", ".safetensors"),
)
#: A volume with at most this many different values, none above the second number, is a label map.
MAX_LABEL_VALUES = 32
MAX_LABEL_VALUE = 255
#: Ending of the names of files that say where a lesion is; they are never images.
LESION_SUFFIX = "_lesion"
#: What maps of anomalies are named by, of a view or of one of its slices.
ANOMALIES_SUFFIX = "_anomalies"
ANOMALIES = re.compile(rf"{ANOMALIES_SUFFIX}(_slice\d+)?$")
#: What follows where an image's label file cannot be used.
NOT_LABELLED = "its labels are left out, and the image counts as not labelled"
#: Digits that make the first word of a name a subject's, unless they are a year; and what BIDS begins it with.
MIN_SUBJECT_DIGITS = 3
YEAR = re.compile(r"(19|20)\d\d")
BIDS_SUBJECT = "sub-"
#: Name of a channel of a case in nnU-Net's folders of images.
CHANNEL = re.compile(r"(?P<case>.+)_\d{4}")


@dataclass
class Overrides:
    """What ``study.json`` says, which stands above everything found otherwise."""

    roles: dict[str, str] = field(default_factory=dict)
    labels: dict[int, str] = field(default_factory=dict)
    organ: str | None = None
    group: str | None = None
    subject: str | None = None
    side: str | None = None
    misspelt: dict[str, str] = field(default_factory=dict)


def read_study(
    path: Path,
    *,
    labels_suffix: str = "_seg",
    frame_of_reference: FramePolicy = "warn",
    organ: str | None = None,
    progress: Progress | None = None,
) -> Study:
    """Reads one exam: a folder of DICOM files or volumes, or a single file.

    Headers and labels are read now, pixels when they are asked for. An exam that another process has handed over is
    taken as it is (see :mod:`.handover`).

    Args:
        path: The folder, or one image file.
        labels_suffix: Ending of the names of label files that lie beside the images.
        frame_of_reference: What to do about DICOM series without FrameOfReferenceUID: refuse the study, report it,
            or take all positions as comparable without a word. Volume files never have one.
        organ: ``heart`` or ``knee`` where it is known; found out otherwise.
        progress: Called with files done, files in all, and what is being done.

    Raises:
        StudyError: There is no usable image, or the folder holds more than one exam.
    """
    path = Path(path)
    if (path / HANDOVER_FILE).is_file():
        return take_over(path)
    files = list_files(path)
    headers, problems = find_dicom([f for f in files if may_be_dicom(f)], progress)
    exams = group_exams(headers)
    if len(exams) > 1:
        names = ", ".join(exam[0].who for exam in exams[:4])
        msg = f"{path} holds {len(exams)} exams ({names}): give each a folder of its own, or read it as a cohort."
        raise StudyError(msg)
    volumes = [f for f in files if volume_extension(f) and (path.is_file() or f.parent == path)]
    study = Study(name=stem(path) if path.is_file() else path.resolve().name, path=path, views=[])
    study.irregularities += problems
    fill_study(study, exams[0] if exams else [], volumes, labels_suffix, frame_of_reference, organ)
    return study


def list_files(path: Path) -> list[Path]:
    """All files of a folder at any depth, sorted, hidden ones left out; or the single file itself.

    Links to folders are not followed: they may lead out of the folder, or in a circle.

    Raises:
        StudyError: The path does not exist or may not be read.
    """
    try:
        if path.is_file():
            return [path]
        exists = path.is_dir()
        next(path.iterdir() if exists else iter(()), None)
    except (OSError, ValueError) as error:
        reason = "permission denied" if isinstance(error, PermissionError) else str(error)
        msg = f"{path} cannot be opened ({reason}): check the path and its permissions."
        raise StudyError(msg) from error
    if not exists:
        msg = f"{path} does not exist: check the spelling."
        raise StudyError(msg)
    found: list[Path] = []
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not _hidden(name))
        found += [Path(folder, name) for name in files if not _hidden(name)]
    return sorted(f for f in found if f.is_file())


def links_in(path: Path) -> list[Path]:
    """Links to folders that lie in a folder, sorted."""
    return sorted(entry for entry in path.iterdir() if entry.is_symlink() and entry.is_dir()) if path.is_dir() else []


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def may_be_dicom(path: Path) -> bool:
    """Whether a file is worth opening as DICOM: everything that is not plainly something else."""
    name = path.name.lower()
    if name in ("license", "readme", "dicomdir", "thumbs.db", "desktop.ini"):
        return False
    return not (volume_extension(path) or name.endswith((*NO_IMAGE_EXTENSIONS, *FOREIGN_EXTENSIONS)))


def subject_in(name: str) -> str:
    """The subject that a name starts with (``patient001_frame01``, ``sub-1_ses-2``); empty where there is none."""
    first, _, rest = name.partition("_")
    return first if rest and (_numbered(first) or first.startswith(BIDS_SUBJECT)) else ""


def _numbered(name: str) -> bool:
    return sum(c.isdigit() for c in name) >= MIN_SUBJECT_DIGITS and not YEAR.fullmatch(name)


def files_by_subject(volumes: Sequence[Path]) -> dict[str, list[Path]]:
    """Volumes by the subject that their names start with; all under one empty name where any lacks one.

    Channels of numbered cases, named as nnU-Net names them and differing in the number alone, go by case.
    """
    cases = files_by_case(volumes)
    if all(map(_numbered, cases)) and len({re.sub(r"\d+", "", case) for case in cases}) == 1:
        return cases
    found: dict[str, list[Path]] = {}
    for path in volumes:
        found.setdefault(subject_in(stem(path)), []).append(path)
    return {"": list(volumes)} if "" in found else found


def files_by_case(volumes: Iterable[Path]) -> dict[str, list[Path]]:
    """nnU-Net's channels (``<case>_0000.nii.gz``) by case; empty where a volume is none or a case lacks its first."""
    found: dict[str, list[Path]] = {}
    for path in volumes:
        case = CHANNEL.fullmatch(stem(path))
        if case is None:
            return {}
        found.setdefault(case["case"], []).append(path)
    return found if all(stem(min(files)).endswith("_0000") for files in found.values()) else {}


def fill_study(
    study: Study,
    exam: Sequence[Any],
    volumes: Sequence[Path],
    labels_suffix: str,
    frame_of_reference: FramePolicy,
    organ: str | None,
    given_labels: Path | None = None,
) -> None:
    """Builds the views of a study from indexed DICOM headers and volume files, and gives them roles and labels.

    Raises:
        StudyError: Nothing usable is left.
    """
    overrides = read_overrides(study.path)
    label_paths = [f for f in volumes if is_label_file(f, labels_suffix)]
    subjects = files_by_subject(volumes)
    if len(subjects) > 1:
        what = f"the names look like those of {len(subjects)} subjects ({', '.join(list(subjects)[:3])})"
        so = "they are taken as one exam all the same; read the folder as a cohort to keep them apart"
        study.irregularities.append(Irregularity(str(study.path), what, so))
    _add_dicom(study, exam, frame_of_reference)
    _add_volumes(study, [f for f in volumes if f not in label_paths])
    report_foreign(study.path, study.irregularities)
    if not study.views:
        raise StudyError(why_nothing(study.path, study.irregularities, label_paths))
    for view, name in zip(study.views, unique_names([v.name for v in study.views]), strict=True):
        view.name = name
    _attach_labels(study, [f for f in label_paths if first_of(f) is None], labels_suffix)
    if given_labels is not None:
        _attach(study, given_labels, study.views[0])
    _apply(study, overrides, organ)


def _add_dicom(study: Study, exam: Sequence[Any], policy: FramePolicy) -> None:
    if exam:
        views, problems = views_of_exam(exam, policy)
        study.views += views
        study.irregularities += problems
        study.subject = exam[0].patient_id


def _add_volumes(study: Study, paths: Sequence[Path]) -> None:
    headers: list[VolumeHeader] = []
    for path in paths:
        try:
            headers.append(read_header(path))
        except StudyError as error:
            study.irregularities.append(Irregularity(str(path), str(error), "the file is left out"))
    for header in headers:
        other = _labels_of(header, headers)
        lesion = stem(header.path).lower().endswith(LESION_SUFFIX)
        if ANOMALIES.search(stem(header.path)):
            what, so = "it is a map of anomalies by its name, and no image", "it is not taken as a view"
            study.irregularities.append(Irregularity(str(header.path), what, so))
            continue
        if other is None and not lesion:
            _add_volume(study, header)
            continue
        of = "of a lesion" if other is None else f"of {other.path.name}"
        what = f"it looks like a label map {of}, not like an image"
        so = "it is not taken as a view; name its ending with --labels-suffix to use it"
        study.irregularities.append(Irregularity(str(header.path), what, so))


def _add_volume(study: Study, header: VolumeHeader) -> None:
    try:
        study.views.append(view_of_volume(header))
        study.irregularities += header_irregularities(header)
    except StudyError as error:
        study.irregularities.append(Irregularity(str(header.path), str(error), "the file is left out"))


def _labels_of(header: VolumeHeader, others: Sequence[VolumeHeader]) -> VolumeHeader | None:
    """The image of which a file seems to be an unannounced label map, or None.

    Only files on another file's grid are looked into, and only where the name or the number format is suspicious.
    """
    # An exam's phases share a grid: the image whose name its own begins with comes before the others.
    for other in sorted(others, key=lambda other: not stem(header.path).startswith(stem(other.path))):
        named = stem(header.path).startswith(stem(other.path)) and stem(header.path) != stem(other.path)
        lesser = header.eight_bit and not other.eight_bit
        if other is not header and header.integer and (named or lesser) and header.same_grid(other):
            return other if _few_values(header) else None
    return None


def _few_values(header: VolumeHeader) -> bool:
    try:
        values = np.unique(load_array(header))
    except StudyError:
        return False
    return len(values) <= MAX_LABEL_VALUES and values.min() >= 0 and values.max() <= MAX_LABEL_VALUE


def report_foreign(folder: Path, problems: list[Irregularity]) -> None:
    """Notes the volume files of a folder that are of a kind that is not read."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else [folder]:
        if path.name.lower().endswith(FOREIGN_EXTENSIONS) and not path.name.startswith("."):
            what = "volumes of this kind are not read"
            problems.append(Irregularity(str(path), what, "it is left out; save it as .nii.gz or .nrrd"))


def why_nothing(path: Path, problems: Sequence[Irregularity], labels: Sequence[Path] = ()) -> str:
    """The sentence for an input in which nothing is usable: the first problem, and how many there are."""
    if not problems and labels:
        return f"{path} holds labels ({labels[0].name}) but no image: put the image beside them."
    inside = next((f.parent for f in list_files(path) if volume_extension(f)), path)
    if not problems and inside != path and path.is_dir():
        return f"{path} holds no image itself, but {inside.relative_to(path)} in it does: give one exam's folder."
    if not problems:
        return f"{path} holds no image: give DICOM files, or volumes ending in .nii, .nii.gz, .nrrd or .mha."
    first, more = problems[0], len(problems) - 1
    remedy = first.consequence.removeprefix("left out; ")
    # What a StudyError said is a sentence with its file and remedy already.
    whole = first.what if first.where in first.what else f"{first.where}: {first.what}; {remedy}."
    return whole + (f" ({more} more in {path} cannot be used either.)" if more else "")


def refuse_inputs(study: Study, outputs: Sequence[Path]) -> None:
    """Refuses to write results over what a study was read from, or over labels that a person has put beside it.

    Of a single image the labels beside it are not read. What a model has written before may be written again.

    Raises:
        StudyError: An output is one of its images or label files.
    """
    folder = (study.path if study.path.is_dir() else study.path.parent).resolve()
    labels = [view.labels_source for view in study.views if view.labels_source is not None]
    labels += [f for f in outputs if f.resolve().parent == folder and f.is_file() and is_label_file(f, "")]
    refuse_files([*(view.source for view in study.views), *(f for f in labels if not is_result(f))], outputs)


def refuse_files(read: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Refuses to write results over files of an exam.

    Raises:
        StudyError: An output is one of them.
    """
    files = {file.resolve() for file in read}
    for path in outputs:
        if path.resolve() in files:
            msg = f"{path} is a file of the exam itself, which would be lost; choose another name."
            raise StudyError(msg)


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, with a number that makes a new one of each that occurred before."""
    given = set(names)
    found: dict[str, None] = {}
    for name in names:
        numbered = (f"{name}-{number}" for number in itertools.count(2))
        # What is the name of another from the start stays its own.
        own = next(n for n in numbered if n not in given and n not in found) if name in found else name
        found[own] = None
    return list(found)


# ---------------------------------------------------------------------------------------------
# Labels


def _attach_labels(study: Study, paths: Sequence[Path], suffix: str) -> None:
    named = {view.name.lower(): view for view in reversed(study.views)}
    own = {path: named.get(image_name(path, suffix).lower()) for path in paths}
    # A file of another name may lie on the grid of an image that has labels of its own name: these come first.
    for path in sorted(paths, key=lambda path: own[path] is None):
        _attach(study, path, own[path])


def _attach(study: Study, path: Path, view: View | None) -> None:
    """Gives a view its labels; which view, the grid says where none is given.

    The labels are read once, so that who counts as labelled is known before anything is chosen or learned.
    """
    try:
        labels = read_label_file(path)
        view = view or _view_on_grid(study, labels)
        if view is not None and not view.labelled:
            labels.image_positioned = "position" not in view.attributes
            if not (labels.header.positioned and labels.image_positioned) and volume_extension(view.source):
                # They are laid over the image voxel by voxel, whichever of the file's axes is that of the slices.
                labels.header = labels.header.turned(read_header(view.source).axes)
            view.label_values = labels.check(view.planes, view.phases)
    except StudyError as error:
        study.irregularities.append(Irregularity(str(path), str(error), NOT_LABELLED, costs_labels=True))
        return
    if view is None:
        what, so = "there is no image that these labels belong to", "they are left out; name them after their image"
        study.irregularities.append(Irregularity(str(path), what, so, costs_labels=True))
    elif view.labelled:
        # Which of two files is the right one, nobody but a person knows.
        what, so = f"{view.name} has labels already", "this second label file is left out; keep the right one alone"
        study.irregularities.append(Irregularity(str(path), what, so, costs_labels=True))
    else:
        found = (labels.fit(view.planes), labels.overlap(), labels.other_phases(view.phases))
        study.irregularities += filter(None, found)
        view.read_labels = labels.reader(view.planes)
        view.label_names = labels.names
        view.labels_source = path


def _view_on_grid(study: Study, labels: LabelFile) -> View | None:
    """The view without labels on whose grid they lie, if there is just one."""
    fitting = [v for v in study.views if not v.labelled and labels.header.positioned and _same_grid(labels, v)]
    return fitting[0] if len(fitting) == 1 else None


def _same_grid(labels: LabelFile, view: View) -> bool:
    size = (*view.planes[0].size, len(view.planes))
    return labels.header.size == size and labels.fit(view.planes) is None


# ---------------------------------------------------------------------------------------------
# study.json


def read_overrides(folder: Path) -> Overrides:
    """Reads ``study.json`` of a folder; empty where there is none.

    Raises:
        StudyError: It is not JSON, or a field has a wrong type or an unknown role.
    """
    path = folder / OVERRIDES_FILE
    if not folder.is_dir() or not path.is_file():
        return Overrides()
    try:
        if path.stat().st_size > 1 << 20:
            raise ValueError("it is larger than a megabyte")
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{path} is not readable JSON ({error}): correct it or remove it."
        raise StudyError(msg) from error
    return _checked_overrides(path, raw)


def _checked_overrides(path: Path, raw: Any) -> Overrides:
    def fail(field_name: str, expected: str, found: Any) -> StudyError:
        return StudyError(f"{path}: expected {expected} for '{field_name}', found {str(found)[:60]!r}; correct it.")

    if not isinstance(raw, dict):
        raise fail("the file", "an object", raw)
    roles, labels = raw.get("roles", {}), raw.get("labels", {})
    if not isinstance(roles, dict) or not isinstance(labels, dict):
        raise fail("roles and labels", "objects", roles if not isinstance(roles, dict) else labels)
    for name, role in roles.items():
        if role not in (*ROLES, UNKNOWN):
            raise fail(f"roles.{name}", "one of " + ", ".join((*ROLES, UNKNOWN)), role)
    for value, name in labels.items():
        if not (value.isdecimal() and 0 < int(value) < 2**15 and isinstance(name, str)):
            raise fail(f"labels.{value}", "a whole number and its name", name)
    for key in ("organ", "group", "subject", "side"):
        if not isinstance(raw.get(key, ""), str):
            raise fail(key, "text", raw[key])
    if raw.get("side", "left") not in ("left", "right"):
        raise fail("side", "left or right", raw["side"])
    texts = {key: raw[key] for key in ("organ", "group", "subject", "side") if key in raw}
    known = [f.name for f in fields(Overrides) if f.name != "misspelt"]
    alike = {key: difflib.get_close_matches(key.lower(), known, 1, 0.7) for key in raw if key not in known}
    misspelt = {key: close[0] for key, close in alike.items() if close}
    return Overrides(dict(roles), {int(v): n for v, n in labels.items()}, misspelt=misspelt, **texts)


def _apply(study: Study, overrides: Overrides, organ: str | None) -> None:
    assign_roles(study, organ=overrides.organ or organ)
    for view in study.views:
        role = overrides.roles.get(view.name)
        if role is not None:
            view.role, view.reason, view.doubt = role, f"{OVERRIDES_FILE} says so", ""
        if view.labelled and overrides.labels:
            view.label_names = {**view.label_names, **overrides.labels}
    idle = [f"it has a key '{key[:60]}', like '{known}'" for key, known in overrides.misspelt.items()]
    absent = set(overrides.roles) - {v.name for v in study.views}
    if absent:
        # In a flat folder of several subjects a volume beside these is a view of another one's exam.
        absent -= {stem(f) for f in study.path.iterdir() if volume_extension(f)}
    idle += [f"it names a view that is not there: {name[:60]}" for name in sorted(absent)]
    where = str(study.path / OVERRIDES_FILE)
    study.irregularities += [Irregularity(where, what, "the entry has no effect") for what in idle]
    given = [r for r in overrides.roles.values() if r != UNKNOWN]
    if overrides.organ is None and organ is None and given:
        study.organ = "knee" if given[0] in KNEE_ROLES else "heart"
    study.group = overrides.group or study.group
    study.side = overrides.side or study.side
    study.subject = overrides.subject or study.subject or study.name
