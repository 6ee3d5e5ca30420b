"""The few-label study: what pretraining is worth at 1, 2, 5 ... labelled subjects, paired by seed.

One test set is kept apart from everything, pretraining included. For every seed the labelled subjects are drawn from
the others, nested (the two of a seed contain its one), and the same draw is learned from scratch and from pretrained
weights with the same number of steps. Every trial is written down as it ends, so a stopped study goes on where it was.
For a classification the labelled subjects are those with a group, drawn of each class in turn.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from msgspec.structs import replace
from scipy import stats

from .class_training import check_settings
from .class_training import class_names
from .class_training import classification_card
from .class_training import classifier_run
from .classify import Classifier
from .classify import usable
from .classify import verdict_scores
from .classify import verdicts_of
from .finetuning import finetune_run
from .finetuning import label_names
from .finetuning import only_segmentation
from .finetuning import segmentation_card
from .finetuning import taught_network
from .jobs import Cancelled
from .jobs import Reporter
from .jobs import write_atomically
from .jobs import write_json
from .measure import dice
from .models import save_model
from .models import seen_by
from .pretraining import pretrain_on
from .runs import gather
from .runs import organ_of
from .runs import read_exams
from .runs import write_manifest
from .segment import Segmenter
from .settings import Finetune
from .settings import Grid
from .settings import LabelStudy
from .settings import Network
from .settings import SettingsError
from .slices import HOST_ROLES
from .slices import SliceSet
from .starting import Start
from .starting import agreed_grid
from .starting import agreed_network
from .studies import Cohort
from .studies import Study
from .studies import StudyError
from .studies import group_order
from .studies import subject_order
from .training import choose_device
from .training import make_deterministic
from .training import train

TRIALS_FILE = "trials.jsonl"
RESULTS_FILE = "results.json"
PRETRAINED_FILE = "pretrained.safetensors"
SCRATCH, PRETRAINED = "scratch", "pretrained"
ARMS = (SCRATCH, PRETRAINED)
MAX_TEST_SUBJECTS = 20
#: The figure that a study compares, by target, with its name in tables and plots.
FIGURES = {"segmentation": ("mean_dice", "mean Dice"), "classification": ("auc", "AUC")}
#: Why a trial may have no figure.
NOTHING_SCORED = {
    "segmentation": "no test subject has a labelled view of a role and structure that its model has learned",
    "classification": "too few test subjects have a view of a role that its model has learned",
}


@dataclass
class Material:
    """What all trials share.

    Attributes:
        pool: Studies that labels may be drawn from.
        test: Studies that nothing is learned from.
        names: Label value to name, for a segmentation.
        groups: Names of the classes, for a classification.
        slices: Slices of the pool.
        organ: Organ of the cohort.
        device: Where to train.
    """

    pool: list[Study]
    test: list[Study]
    names: dict[int, str]
    groups: list[str]
    slices: SliceSet
    organ: str
    device: torch.device


def run_label_study(settings: LabelStudy, reporter: Reporter) -> dict[str, Any]:
    """Runs the study in the reporter's folder; writes ``results.json`` and ``few-labels.png``.

    Raises:
        StudyError: There are fewer labelled subjects than the study needs.
        Cancelled: A stop was asked for; finished trials are kept.
    """
    folder = reporter.folder or Path()
    device = choose_device(settings.finetune.device)
    cohort = read_exams(settings.finetune.data, reporter)
    pool, test = split_for_test(cohort, settings)
    start = _pretrained(settings, cohort, test, folder, reporter)
    seen = seen_before(start, test)
    if seen:
        what = "test subjects have the names of subjects that the model was pretrained on"
        reporter.event(
            "warning", message=f"{len(seen)} {what}; if they are the same, the gain is not one on unseen exams."
        )
    grid = agreed_grid(settings.finetune, start)
    material = _material(settings.finetune, cohort, pool, test, grid, device, reporter)
    figure, name = FIGURES[settings.finetune.target]
    network = _network_of_both(settings.finetune, start)
    arms = {PRETRAINED: start, **({SCRATCH: Start(None, {})} if settings.scratch else {})}
    plan = [(s, c, a) for s in range(settings.seeds) for c in settings.counts for a in arms]
    rows = _done(folder)
    for number, (seed, count, arm) in enumerate(plan):
        if any((r["seed"], r["count"], r["arm"]) == (seed, count, arm) for r in rows):
            continue
        if reporter.stop_requested():
            raise Cancelled
        one = replace(settings.finetune, seed=seed, labelled=count, grid=grid, network=network)
        learn = class_trial if material.groups else trial
        row = learn(one, material, arms[arm], _Within(None, reporter))
        rows.append({"seed": seed, "count": count, "arm": arm, **row})
        with (folder / TRIALS_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        trial_of = f"{count} labelled, seed {seed}, {arm}"
        for item in row.get("left_out", ()):
            reporter.event("warning", message=f"{trial_of}: {item['study']} is not tested: {item['why']}")
        if row[figure] is None:
            why = NOTHING_SCORED[settings.finetune.target]
            reporter.event("warning", message=f"{trial_of}: no {name}, since {why}; test on more subjects.")
        message = f"{trial_of}: {name} {_shown(row[figure])}"
        reporter.progress(number + 1, len(plan), message=message)
        print(message, flush=True)
    document: dict[str, Any] = {
        "target": settings.finetune.target,
        "trials": rows,
        "summary": summarise(rows, figure),
        "test_subjects": sorted({s.subject for s in test}),
        "test_subjects_pretrained_on": seen,
    }
    if material.groups:
        document |= {"groups": material.groups, "balanced_accuracy": summarise(rows, "balanced_accuracy")}
    write_json(folder / RESULTS_FILE, document)
    own = folder / PRETRAINED_FILE
    write_manifest(folder, settings, cohort.studies, own if own.is_file() else None)
    plot(document, folder / "few-labels.png")
    return document


def _material(
    settings: Finetune,
    cohort: Cohort,
    pool: list[Study],
    test: list[Study],
    grid: Grid,
    device: torch.device,
    reporter: Reporter,
) -> Material:
    names: dict[int, str] = {}
    groups: list[str] = []
    if settings.target == "classification":
        groups = class_names(pool, settings)
    else:
        names = label_names(pool, cohort.label_names, settings)
    slices = gather(pool, [], grid, list(names), device, reporter, frozenset() if groups else None)
    return Material(pool, test, names, groups, slices, organ_of(cohort.studies), device)


def split_for_test(cohort: Cohort, settings: LabelStudy) -> tuple[list[Study], list[Study]]:
    """Labelled studies to draw from, and labelled studies for the test; no subject is in both.

    Raises:
        StudyError: There are too few, or for a classification not enough to learn every class from.
    """
    classify = settings.finetune.target == "classification"
    if classify:
        labelled = [s for s in cohort.studies if usable(s)]
        order = group_order(labelled, 0)
    else:
        labelled = [s for s in cohort.studies if any(v.labelled and v.role in HOST_ROLES for v in s.views)]
        order = subject_order(labelled, 0)
    most = max(settings.counts)
    count = settings.test_subjects or min(MAX_TEST_SUBJECTS, len(order) - most)
    if count < 1 or most + count > len(order):
        msg = (
            f"The study needs {most} labelled subjects to learn from and at least 1 to test on, and "
            f"{settings.finetune.data.path} has {len(order)}; ask for smaller --counts or label more."
        )
        raise StudyError(msg)
    test = set(order[:count])
    parts = [s for s in labelled if s.subject not in test], [s for s in labelled if s.subject in test]
    if classify:
        _check_classes(settings, *parts)
    return parts


def _check_classes(settings: LabelStudy, pool: Sequence[Study], test: Sequence[Study]) -> None:
    """Refuses a study in which a class is not in every draw and in the test.

    Raises:
        StudyError: It is not.
    """
    classes = {str(s.group) for s in (*pool, *test)}
    for studies, place in ((pool, "to learn from"), (test, "to test on")):
        lacking = sorted(classes - {str(s.group) for s in studies})
        if lacking:
            msg = f"No subject of group '{lacking[0]}' is left {place}; change test_subjects or add subjects."
            raise StudyError(msg)
    if min(settings.counts) < len(classes):
        msg = f"{min(settings.counts)} labelled subjects cannot show {len(classes)} groups; ask for larger --counts."
        raise StudyError(msg)


def seen_before(start: Start, test: Sequence[Study]) -> list[str]:
    """Test subjects whose names are among those that the pretrained model has learned from."""
    known = set(seen_by(start.card)) if start.card else set()
    return sorted({s.subject for s in test} & known)


def _pretrained(settings: LabelStudy, cohort: Cohort, test: Sequence[Study], folder: Path, reporter: Reporter) -> Start:
    """The pretrained model: the one given, or one made on the cohort without the test subjects."""
    path = folder / PRETRAINED_FILE
    if settings.finetune.init is not None:
        return Start.read(settings.finetune.init)
    if path.is_file():
        return Start.read(str(path))
    if settings.pretrain is None:
        msg = "The study needs a pretrained model (--init) or a pretext to pretrain on (--pretext)."
        raise SettingsError(msg)
    kept = {s.subject for s in test}
    others = [s for s in cohort.studies if s.subject not in kept]
    # The pretraining checkpoints live in a folder of their own, so that they never mix with anything here.
    inner = folder / "pretraining"
    inner.mkdir(exist_ok=True)
    network, card = pretrain_on(settings.pretrain, others, _Within(inner, reporter))
    save_model(path, network, card)
    return Start(card, network.state_dict())


def _network_of_both(settings: Finetune, start: Start) -> Network:
    """The network of both arms; only their anchors may differ, which each takes from what it learned first."""
    agreed = agreed_network(settings, start)
    anchors = settings.network.mask_rcnn.anchors_mm if settings.network else ()
    return replace(agreed, mask_rcnn=replace(agreed.mask_rcnn, anchors_mm=anchors))


class _Within(Reporter):
    """Reports to a folder of its own, or nowhere, and obeys the stop of the whole study."""

    def __init__(self, folder: Path | None, outer: Reporter) -> None:
        super().__init__(folder)
        self._outer = outer

    def stop_requested(self) -> bool:
        """Whether the study was asked to stop."""
        return self._outer.stop_requested()


def trial(settings: Finetune, material: Material, start: Start, reporter: Reporter) -> dict[str, Any]:
    """One fine-tuning on the first ``labelled`` subjects of the seed, scored on the test studies."""
    make_deterministic(settings.seed)
    wanted = set(subject_order(material.pool, settings.seed)[: settings.labelled])
    chosen = [s for s in material.pool if s.subject in wanted]
    grid = agreed_grid(settings, start)
    described = agreed_network(settings, start)
    described = taught_network(described, settings, grid, material.slices, chosen, material.names)
    run, _ = finetune_run(
        settings, start, described, grid, material.slices, chosen, [], [], material.names, material.device
    )
    trained = train(run, reporter)
    card = segmentation_card(run, settings, start, described, grid, material.names, material.organ)
    segmenter = Segmenter(only_segmentation(trained, card, material.device), card, material.device)
    scores = test_scores(segmenter, material.test)
    return {"mean_dice": scores["mean_dice"], "scores": scores, "subjects": sorted(wanted), "steps": run.schedule.steps}


def class_trial(settings: Finetune, material: Material, start: Start, reporter: Reporter) -> dict[str, Any]:
    """One classification learned from ``labelled`` subjects of the seed, of each class in turn, scored on the test.

    Test studies that its model cannot be used on are ``left_out`` of the scores; without any the figures are None.
    """
    make_deterministic(settings.seed)
    check_settings(settings, start)
    wanted = set(group_order(material.pool, settings.seed)[: settings.labelled])
    chosen = [s for s in material.pool if s.subject in wanted]
    grid = agreed_grid(settings, start)
    run, _ = classifier_run(settings, start, grid, material.slices, chosen, [], material.groups, material.device)
    trained = train(run, reporter)
    card = classification_card(run, settings, start, grid, material.groups, material.organ)
    classifier = Classifier(trained, card, material.device)
    verdicts, left_out = verdicts_of(classifier, material.test)
    scores = verdict_scores(verdicts, material.groups) or {}
    figures = {name: scores.get(name) for name in ("auc", "balanced_accuracy")}
    facts = {"subjects": sorted(wanted), "steps": run.schedule.steps, "left_out": left_out}
    return {**figures, "scores": scores, **facts}


def test_scores(segmenter: Segmenter, studies: Sequence[Study]) -> dict[str, Any]:
    """Dice of every labelled view and phase of some studies on their own grids.

    Returns:
        ``mean_dice`` (mean over structures of the mean over cases, None where nothing could be scored), ``structures``
        (name to mean), ``views`` (view and phase to mean) and ``cases``.
    """
    cases = []
    for study in studies:
        for view in segmenter.views(study):
            for phase in range(view.phases if view.labelled else 0):
                truth = view.labels(phase)
                if truth is None or not truth.any():
                    continue
                labels = np.where(truth < 0, 0, segmenter.segment(study, view, phase).labels)
                found = {e["name"]: (labels == e["value"], truth == e["value"]) for e in segmenter.card.labels}
                overlaps = {n: dice(a, b) for n, (a, b) in found.items() if b.any()}
                cases.append({"study": study.name, "view": view.name, "phase": phase, "dice": overlaps})
    structures = _group(cases, lambda case, name: name)
    by_view = _group(cases, lambda case, name: f"{case['view']}, phase {case['phase']}")
    mean = float(np.mean(list(structures.values()))) if structures else None
    return {"mean_dice": mean, "structures": structures, "views": by_view, "cases": cases}


def _group(cases: Sequence[Mapping[str, Any]], key: Any) -> dict[str, float]:
    groups: dict[str, list[float]] = {}
    for case in cases:
        for name, value in case["dice"].items():
            groups.setdefault(key(case, name), []).append(value)
    return {name: float(np.mean(values)) for name, values in groups.items()}


def _done(folder: Path) -> list[dict[str, Any]]:
    path = folder / TRIALS_FILE
    if not path.is_file():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for line in lines:
        # A line that a killed worker left unfinished is dropped, and its trial is run again.
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    if len(rows) < len(lines):
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return rows


# ---------------------------------------------------------------------------------------------
# Figures


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % interval (Student's t); NaN for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, math.nan
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, float(stats.t.ppf(0.975, len(values) - 1)) * error


def summarise(rows: Sequence[Mapping[str, Any]], figure: str = "mean_dice") -> list[dict[str, Any]]:
    """By count: mean figure of each arm, and the paired gain with its 95 % interval (null where it has none)."""
    found = []
    for count in sorted({r["count"] for r in rows}):
        here = [r for r in rows if r["count"] == count and r[figure] is not None]
        by_arm = {arm: {r["seed"]: r[figure] for r in here if r["arm"] == arm} for arm in ARMS}
        entry: dict[str, Any] = {"count": count}
        for arm, values in by_arm.items():
            entry[arm] = float(np.mean(list(values.values()))) if values else None
        shared = sorted(set(by_arm[SCRATCH]) & set(by_arm[PRETRAINED]))
        gains = [by_arm[PRETRAINED][s] - by_arm[SCRATCH][s] for s in shared]
        mean, half = interval(gains) if gains else (math.nan, math.nan)
        entry |= {"pairs": len(gains), "gain": _number(mean), "gain_ci95": _number(half)}
        found.append(entry)
    return found


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def summary(document: Mapping[str, Any]) -> str:
    """The study as a table for the terminal."""
    figure = FIGURES[document["target"]][1]
    rows = [figure, *_table(document["summary"])]
    if "balanced_accuracy" in document:
        rows += ["balanced accuracy", *_table(document["balanced_accuracy"])]
    return "\n".join(rows)


def _table(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = ["labelled   scratch   pretrained   gain (95 % interval), pairs"]
    for e in entries:
        arms = [_shown(e[a]) for a in ARMS]
        gain = "-" if e["gain"] is None else f"{e['gain']:+.3f}"
        half = "" if e["gain_ci95"] is None else f" ± {e['gain_ci95']:.3f}"
        rows.append(f"{e['count']:>8}{arms[0]:>10}{arms[1]:>13}   {gain}{half}, {e['pairs']}")
    return rows


def plot(document: Mapping[str, Any], path: Path) -> None:
    """The figure against the number of labelled subjects: every trial a dot, means joined."""
    from matplotlib.figure import Figure

    key, name = FIGURES[document["target"]]
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for arm, colour in ((SCRATCH, "#7f8c8d"), (PRETRAINED, "#c0392b")):
        rows = [r for r in document["trials"] if r["arm"] == arm and r[key] is not None]
        axes.scatter([r["count"] for r in rows], [r[key] for r in rows], s=14, color=colour, alpha=0.5)
        means = [(e["count"], e[arm]) for e in document["summary"] if e[arm] is not None]
        if means:
            axes.plot(*zip(*means, strict=True), "-o", color=colour, label=arm)
    counts = sorted({r["count"] for r in document["trials"]})
    axes.set_xscale("log")
    axes.set_xticks(counts, [str(c) for c in counts])
    axes.minorticks_off()
    axes.set_xlabel("labelled subjects")
    axes.set_ylabel(f"{name} on {len(document['test_subjects'])} unseen subjects")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
