"""Cohorts: many exams in one folder, and how they are split by subject."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import numpy as np

from ..structures import structure
from .dicom import FramePolicy
from .dicom import find_dicom
from .dicom import group_exams
from .groups import GROUPS_FILE
from .groups import assign_groups
from .labels import MAX_VALUE
from .labels import LabelFile
from .labels import Labels
from .reading import CHANNEL
from .reading import OVERRIDES_FILE
from .reading import Progress
from .reading import files_by_case
from .reading import files_by_subject
from .reading import fill_study
from .reading import links_in
from .reading import list_files
from .reading import may_be_dicom
from .reading import read_overrides
from .reading import report_foreign
from .reading import subject_in
from .reading import unique_names
from .reading import why_nothing
from .study import Irregularity
from .study import Study
from .study import StudyError
from .study import View
from .volumes import stem
from .volumes import volume_extension

NNUNET_IMAGES = "imagesTr"
NNUNET_LABELS = "labelsTr"
NNUNET_FILE = "dataset.json"
NNUNET_IGNORED = "ignore"


@dataclass
class Cohort:
    """Many exams.

    Attributes:
        path: The folder.
        studies: The usable ones, by name; their pixels are read on demand.
        irregularities: What was found wrong, studies that were left out among them.
        label_names: Label values and names, as far as any study gives them.
    """

    path: Path
    studies: list[Study]
    irregularities: list[Irregularity] = field(default_factory=list)
    label_names: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Options:
    labels_suffix: str
    frame_of_reference: FramePolicy
    organ: str | None


def read_cohort(
    path: Path,
    *,
    labels_suffix: str = "_seg",
    frame_of_reference: FramePolicy = "warn",
    organ: str | None = None,
    groups: Path | None = None,
    progress: Progress | None = None,
) -> Cohort:
    """Reads a folder of exams, an nnU-Net raw dataset or its images alone, or a single exam as a cohort of one.

    Exams are folders with volumes, and DICOM files at any depth, told apart by patient and StudyInstanceUID wherever
    they lie. A flat folder of volumes whose names start with numbered subjects (``SCD0000101_sax_ED.nii.gz``) is taken
    apart by subject, and studies with such names (``patient001_frame01``) are of one subject. An exam that cannot be
    used is reported and left out.

    Args:
        path: The folder; a single file is a cohort of one view.
        labels_suffix: Ending of the names of label files that lie beside the images.
        frame_of_reference: As for :func:`read_study`.
        organ: ``heart`` or ``knee`` where it is known.
        groups: Table of the studies' classes (see :mod:`.groups`); ``groups.csv`` in the folder, if there is one.
        progress: Called with files or exams done, how many there are, and what is being done. What it raises ends
            the reading.

    Raises:
        StudyError: No usable exam is left.
    """
    path = Path(path)
    options = _Options(labels_suffix, frame_of_reference, organ)
    table = groups or path / GROUPS_FILE
    if (images := nnunet_images(path)) is not None:
        cohort = _finished(_read_nnunet(path, images, options, progress))
    else:
        cohort = _finished(_read_exams(path, options, progress))
    if groups or table.is_file():
        cohort.irregularities += assign_groups(cohort.studies, table)
    return cohort


def _read_exams(path: Path, options: _Options, progress: Progress | None) -> Cohort:
    """Folders with volumes, and DICOM files at any depth."""
    files = list_files(path)
    cohort = Cohort(path, [], [*map(_not_followed, links_in(path))])
    headers, problems = find_dicom([f for f in files if may_be_dicom(f)], progress)
    cohort.irregularities += problems
    parts = _parts(path, files, group_exams(headers))
    if not parts:
        report_foreign(path, cohort.irregularities)
    for number, (name, folder, exam, volumes) in enumerate(parts):
        if progress:
            progress(number, len(parts), name)
        _add(cohort, Study(name, folder, []), exam, volumes, options)
    return cohort


def _not_followed(link: Path) -> Irregularity:
    return Irregularity(str(link), "it is a link to a folder, which is not followed", "put the folder itself there")


def _add(cohort: Cohort, study: Study, exam: Sequence[Any], volumes: Sequence[Path], options: _Options) -> None:
    try:
        fill_study(study, exam, volumes, options.labels_suffix, options.frame_of_reference, options.organ)
    except StudyError as error:
        cohort.irregularities.append(Irregularity(str(study.path), str(error), "the study is left out"))
        return
    cohort.studies.append(study)


_Part = tuple[str, Path, Sequence[Any], Sequence[Path]]


def _parts(root: Path, files: Sequence[Path], exams: Sequence[Sequence[Any]]) -> list[_Part]:
    """The exams of a folder: name, folder, DICOM headers, volume files."""
    by_folder: dict[Path, list[Path]] = {}
    for file in files:
        if volume_extension(file):
            by_folder.setdefault(root if root.is_file() else file.parent, []).append(file)
    parts: list[_Part] = []
    for exam in exams:
        folder = _common_folder(root, exam, exams)
        inside = [f for f in by_folder if f == folder]
        parts.append(
            (_name(root, folder, exam, len(exams) > 1), folder, exam, by_folder.pop(inside[0]) if inside else [])
        )
    for folder, volumes in by_folder.items():
        subjects = files_by_subject(volumes)
        for subject, own in subjects.items():
            name = subject if len(subjects) > 1 else _name(root, folder, (), False)
            parts.append((name, folder, (), own))
    names = unique_names([part[0] for part in parts])
    return sorted(((name, *part[1:]) for name, part in zip(names, parts, strict=True)), key=lambda part: part[0])


def _common_folder(root: Path, exam: Sequence[Any], exams: Sequence[Sequence[Any]]) -> Path:
    """The folder that holds an exam: the highest one below the root that holds no other exam's files."""
    folder: Path = exam[0].path.parent
    while not all(folder in h.path.parents for h in exam):
        folder = folder.parent
    others = [h.path for e in exams if e is not exam for h in e]
    while folder not in (root, root.parent) and folder.parent != root:
        if any(folder.parent in p.parents for p in others):
            break
        folder = folder.parent
    return root if root.is_file() or (len(exams) == 1 and (root / OVERRIDES_FILE).is_file()) else folder


def _name(root: Path, folder: Path, exam: Sequence[Any], several: bool) -> str:
    if root.is_file():
        return stem(root)
    if folder == root:
        return exam[0].who if exam and several else root.resolve().name
    return "_".join(folder.relative_to(root).parts)


def _finished(cohort: Cohort) -> Cohort:
    """Subjects and label names settled.

    Raises:
        StudyError: No study is left.
    """
    if not cohort.studies:
        raise StudyError(why_nothing(cohort.path, cohort.irregularities))
    _share_subjects(cohort)
    subjects = {study.subject for study in cohort.studies}
    if len(cohort.studies) > 1 and len(subjects) == 1:
        what = f"all {len(cohort.studies)} studies have the same subject ({subjects.pop()})"
        cohort.irregularities.append(
            Irregularity(str(cohort.path), what, "each study is taken as a subject of its own")
        )
        for study in cohort.studies:
            study.subject = study.name
    views = [view for study in cohort.studies for view in study.views]
    used = set(cohort.label_names).union(*({*view.label_values, *view.label_names} for view in views))
    moved: dict[int, int] = {}
    for view in views:
        _number_labels(cohort, view, used, moved)
    return cohort


def _share_subjects(cohort: Cohort) -> None:
    """Takes studies for one subject's whose names start with the same numbered word: ED and ES of a patient, or visits.

    Only where no header or ``study.json`` says otherwise.
    """
    unknown = [s for s in cohort.studies if s.subject == s.name and not read_overrides(s.path).subject]
    subjects = {study.name: subject_in(study.name) or study.name for study in unknown}
    shared = sorted({subjects[s.name] for s in unknown})
    # One word for all is the data set's.
    if not 1 < len(shared) < len(unknown):
        return
    for study in unknown:
        study.subject = subjects[study.name]
    what = f"the names of {len(unknown)} studies look like those of {len(shared)} subjects ({', '.join(shared[:3])})"
    so = "the studies of one subject stay together; a study.json can name other subjects"
    cohort.irregularities.append(Irregularity(str(cohort.path), what, so))


def _number_labels(cohort: Cohort, view: View, used: set[int], moved: dict[int, int]) -> None:
    """Gives a structure the number that it has in the cohort so far, since every file may number them its own way.

    What a file leaves without a name keeps its number, unless one of the file's names has got that.

    Args:
        cohort: The cohort; its names grow.
        view: The view.
        used: Numbers that anything in the cohort has, with or without a name; grows.
        moved: New numbers of values without a name; grows.
    """
    numbers: dict[int, int] = {}
    for value, name in view.label_names.items():
        alike = (v for v, known in cohort.label_names.items() if structure(known).name == structure(name).name)
        # Of two labels with one name each has a number of its own.
        known_as = next((v for v in alike if v not in numbers.values()), None)
        if known_as is not None:
            numbers[value] = known_as
        else:
            numbers[value] = value if value not in cohort.label_names else _free(used)
        cohort.label_names.setdefault(numbers[value], name)
    for value in sorted(view.label_values - view.label_names.keys()):
        if value in numbers.values():
            moved[value] = moved[value] if value in moved else _free(used)
            numbers[value] = moved[value]
    names = view.label_names
    others = [f"{names.get(v, 'unnamed')} {v} instead of {number}" for v, number in numbers.items() if v != number]
    if not others:
        return
    what = f"labels are numbered otherwise than in other exams ({', '.join(others)})"
    # Said once, not for every view of a cohort of two organs.
    if all(told.what != what for told in cohort.irregularities):
        cohort.irregularities.append(Irregularity(str(view.source), what, "they are told apart by their names"))
    view.label_names = {numbers[value]: name for value, name in names.items()}
    if view.read_labels is not None:
        view.read_labels = _renumbered(view.read_labels, numbers)


def _free(used: set[int]) -> int:
    """The lowest number that is not used yet; it is from now on."""
    number = next(n for n in itertools.count(1) if n not in used)
    used.add(number)
    return number


def _renumbered(read: Callable[[int], Labels | None], numbers: Mapping[int, int]) -> Callable[[int], Labels | None]:
    table = np.arange(MAX_VALUE + 1, dtype=np.int16)
    table[list(numbers)] = list(numbers.values())

    def labels(phase: int) -> Labels | None:
        found = read(phase)
        return None if found is None else np.where(found < 0, found, table[found])

    return labels


# ---------------------------------------------------------------------------------------------
# nnU-Net raw datasets (documentation/dataset_format.md of nnU-Net v2)


def nnunet_images(path: Path) -> Path | None:
    """The folder of the images that an nnU-Net dataset is trained on, or a folder of its images itself; else None."""
    if (path / NNUNET_IMAGES).is_dir():
        return path / NNUNET_IMAGES
    here = path.absolute()
    ours = here.name.startswith(NNUNET_IMAGES[:-2]) or (here.parent / NNUNET_FILE).is_file()
    return path if ours and path.is_dir() and files_by_case(_volumes_in(path)) else None


def _volumes_in(folder: Path) -> list[Path]:
    return [file for file in list_files(folder) if volume_extension(file)]


def _read_nnunet(path: Path, images: Path, options: _Options, progress: Progress | None) -> Cohort:
    """One study a case: ``imagesTr/<case>_0000.<ext>`` and ``labelsTr/<case>.<ext>``, or the same of another set."""
    here = images.absolute()
    root, given = here.parent, here.with_name(here.name.replace(NNUNET_IMAGES[:-2], NNUNET_LABELS[:-2]))
    labels = {stem(file): file for file in _volumes_in(given)} if given != here and given.is_dir() else {}
    cohort = Cohort(path, [])
    # Images alone need no names of labels.
    if labels or path != images:
        cohort.label_names = _nnunet_labels(root, cohort.irregularities)
    cases: dict[str, list[Path]] = {}
    for file in _volumes_in(images):
        channel = CHANNEL.fullmatch(stem(file))
        cases.setdefault(channel["case"] if channel else stem(file), []).append(file)
    ignored = ignored_value(cohort.label_names)
    if ignored is not None:
        del cohort.label_names[ignored]
        what = f"the label {ignored} is to be ignored"
        so = "slices that hold it count as not labelled"
        cohort.irregularities.append(Irregularity(str(root / NNUNET_FILE), what, so))
    for number, (case, files) in enumerate(cases.items()):
        if progress:
            progress(number, len(cases), case)
        study = Study(case, files[0], [])
        if len(files) > 1:
            what = f"case {case} has {len(files)} channels"
            cohort.irregularities.append(Irregularity(str(files[0]), what, "only the first channel is read"))
        _add_nnunet_case(cohort, study, files[0], labels.get(case), options, ignored)
    return cohort


def _add_nnunet_case(
    cohort: Cohort, study: Study, image: Path, labels: Path | None, options: _Options, ignored: int | None
) -> None:
    try:
        fill_study(study, (), [image], "", options.frame_of_reference, options.organ, given_labels=labels)
    except StudyError as error:
        cohort.irregularities.append(Irregularity(str(image), str(error), "the case is left out"))
        return
    for view in study.views:
        view.name = study.name
        if view.labelled and ignored is not None:
            _leave_open(view, ignored)
        if view.labelled:
            view.label_names = dict(cohort.label_names)
    cohort.studies.append(study)


def _leave_open(view: View, value: int) -> None:
    """Makes one label value of a view below 0; a view without a slice that is free of it counts as not labelled."""
    read = view.read_labels

    def labels(phase: int) -> Labels | None:
        found = read(phase) if read is not None else None
        return None if found is None else np.where(found == value, np.int16(-1), found)

    drawn = [found for found in map(labels, range(view.phases)) if found is not None]
    whole = any((found.min((1, 2)) >= 0).any() for found in drawn)
    view.read_labels = labels if whole else None


def ignored_value(names: Mapping[int, str]) -> int | None:
    """The label value that nnU-Net leaves out of training and scores, if there is one."""
    return next((value for value, name in names.items() if name.lower() == NNUNET_IGNORED), None)


def _nnunet_labels(path: Path, problems: list[Irregularity]) -> dict[int, str]:
    """Label names of ``dataset.json``, either way round (v2: name to value; v1: value to name)."""
    file = path / NNUNET_FILE
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))["labels"]
        pairs = [(v, k) if not k.isdigit() else (k, v) for k, v in raw.items()]
        named = {int(v): str(k) for v, k in pairs if not isinstance(v, list) and int(v) > 0}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        what = "there is no readable dataset.json with labels"
        problems.append(Irregularity(str(file), what, "labels have numbers instead of names"))
        return {}
    if regions := [str(k) for v, k in pairs if isinstance(v, list)]:
        what = f"it names regions of several label values ({', '.join(regions)})"
        so = "each value is learned by itself, with a number where it has no name of its own"
        problems.append(Irregularity(str(file), what, so))
    return named


def names_of(file: LabelFile) -> Mapping[int, str]:
    """Names of a label file's values: its own, else those that its study or nnU-Net dataset gives.

    Raises:
        StudyError: There is a ``study.json`` beside it that cannot be used.
    """
    folder = file.header.path.absolute().parent
    return file.names or read_overrides(folder).labels or _nnunet_labels(folder.parent, [])


# ---------------------------------------------------------------------------------------------
# Splits


def subject_order(studies: Sequence[Study], seed: int = 0) -> list[str]:
    """All subjects in the order that a seed gives them."""
    subjects = sorted({s.subject for s in studies})
    return [subjects[k] for k in np.random.default_rng(seed).permutation(len(subjects))]
