"""The few-label study: nested draws, a test set that nothing is learned from, paired figures, a study that goes on."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from SSLEngine import few_labels
from SSLEngine.few_labels import ARMS
from SSLEngine.few_labels import interval
from SSLEngine.few_labels import run_label_study
from SSLEngine.few_labels import seen_before
from SSLEngine.few_labels import split_for_test
from SSLEngine.few_labels import summarise
from SSLEngine.few_labels import summary
from SSLEngine.jobs import Cancelled
from SSLEngine.jobs import Events
from SSLEngine.jobs import Reporter
from SSLEngine.models import Card
from SSLEngine.settings import LabelStudy
from SSLEngine.settings import parse
from SSLEngine.starting import Start
from SSLEngine.studies import StudyError
from SSLEngine.studies import read_cohort


def settings(cohort: Path, **changes: Any) -> LabelStudy:
    common = {"data": {"path": str(cohort)}, "device": "cpu"}
    small = {"grid": {"patch": 32, "spacing_mm": 6}, "network": {"widths": [4, 8, 16]}}
    schedule = {"steps": 3, "batch": 2}
    made = {
        "finetune": {**common, **small, "schedule": schedule},
        "pretrain": {**common, **small, "schedule": {**schedule, "held_out": 0}},
        "counts": [1, 2],
        "seeds": 2,
        "test_subjects": 2,
    }
    return parse({**made, **changes}, LabelStudy)


@pytest.fixture(scope="module")
def finished(toy_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("study")
    return folder, run_label_study(settings(toy_cohort), Reporter(folder))


def test_every_trial_is_paired_and_nested_and_never_sees_the_test(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, document = finished
    trials = {(t["seed"], t["count"], t["arm"]): t for t in document["trials"]}
    assert set(trials) == {(s, c, a) for s in (0, 1) for c in (1, 2) for a in ("scratch", "pretrained")}
    test = set(document["test_subjects"])
    assert len(test) == 2
    for (seed, count, _), trial in trials.items():
        assert len(trial["subjects"]) == count
        assert not set(trial["subjects"]) & test
        assert trial["subjects"] == trials[seed, count, "scratch"]["subjects"]
        assert set(trials[seed, 1, "scratch"]["subjects"]) <= set(trial["subjects"])
        assert trial["steps"] == 3
        assert 0 <= trial["mean_dice"] <= 1
        assert {case["study"] for case in trial["scores"]["cases"]} == test
    written = json.loads((folder / "results.json").read_text())
    assert written["summary"] == document["summary"]
    assert (folder / "few-labels.png").read_bytes()[:4] == b"\x89PNG"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert test < set(manifest["subjects"])
    assert manifest["settings"]["counts"] == [1, 2]
    assert manifest["model"]["file"] == "pretrained.safetensors"
    from SSLEngine.models import read_card

    card = read_card(folder / "pretrained.safetensors")
    assert not set(card.provenance["subjects"]) & test
    assert len(card.provenance["subjects"]) == 4


def test_a_study_goes_on_where_it_was(
    finished: tuple[Path, dict[str, Any]], toy_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, document = finished
    lines = (folder / "trials.jsonl").read_text().splitlines()
    (tmp_path / "pretrained.safetensors").write_bytes((folder / "pretrained.safetensors").read_bytes())
    # A worker that was killed while it wrote its sixth trial.
    (tmp_path / "trials.jsonl").write_text("\n".join(lines[:5]) + "\n" + lines[5][:40])
    ran: list[tuple[int, int]] = []
    kept = few_labels.trial

    def counted(chosen: Any, *rest: Any) -> dict[str, Any]:
        ran.append((chosen.seed, chosen.labelled))
        return kept(chosen, *rest)

    monkeypatch.setattr(few_labels, "trial", counted)
    again = run_label_study(settings(toy_cohort), Reporter(tmp_path))
    assert len(ran) == 3
    # The same trials give the same scores, bit for bit.
    assert again["trials"] == document["trials"]
    assert again["summary"] == document["summary"]
    ran.clear()
    run_label_study(settings(toy_cohort), Reporter(tmp_path))
    assert ran == []


def test_a_stop_keeps_the_finished_trials(
    finished: tuple[Path, dict[str, Any]], toy_cohort: Path, tmp_path: Path
) -> None:
    folder, _ = finished
    for name in ("pretrained.safetensors", "trials.jsonl"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "trials.jsonl").write_text((folder / "trials.jsonl").read_text().splitlines()[0] + "\n")
    (tmp_path / "STOP").touch()
    with pytest.raises(Cancelled):
        run_label_study(settings(toy_cohort), Reporter(tmp_path))
    assert len((tmp_path / "trials.jsonl").read_text().splitlines()) == 1
    assert not (tmp_path / "results.json").exists()


def test_a_trial_that_cannot_be_scored_has_no_figure_and_this_is_said(
    finished: tuple[Path, dict[str, Any]], toy_cohort: Path, tmp_path: Path
) -> None:
    folder, document = finished
    cohort = shutil.copytree(toy_cohort, tmp_path / "cohort")
    for subject in document["test_subjects"]:
        # Labelled as before, with a structure that the others do not show.
        for file in (cohort / subject).glob("*_seg.nii.gz"):
            drawn = sitk.ReadImage(str(file))
            sitk.WriteImage(sitk.Cast(drawn > 0, sitk.sitkUInt8) * 9, str(file))
        told = json.loads((cohort / subject / "study.json").read_text())
        (cohort / subject / "study.json").write_text(json.dumps({**told, "labels": {"9": "Scar"}}))
    job = tmp_path / "job"
    job.mkdir()
    shutil.copy(folder / "pretrained.safetensors", job)
    again = run_label_study(settings(cohort, counts=[1], seeds=1), Reporter(job))
    assert [trial["mean_dice"] for trial in again["trials"]] == [None, None]
    assert json.loads(json.dumps(again, allow_nan=False)) == again
    said = [e["message"] for e in Events(job).new() if e["event"] == "warning"]
    assert all(f"seed 0, {arm}: no mean Dice" in text for arm, text in zip(ARMS[::-1], said[-2:], strict=True))
    assert (job / "few-labels.png").is_file()
    assert "-" in summary(again).splitlines()[-1]


def test_test_subjects_that_were_pretrained_on_are_named(toy_cohort: Path) -> None:
    studies = read_cohort(toy_cohort).studies
    card = Card("pretrained", {}, {}, {}, provenance={"subjects": [studies[0].subject, "somebody else"]})
    assert seen_before(Start(card, {}), studies[:2]) == [studies[0].subject]
    assert seen_before(Start(card, {}), studies[1:2]) == []
    assert seen_before(Start(None, {}), studies) == []


def test_a_cohort_that_is_too_small_is_refused(toy_cohort: Path) -> None:
    cohort = read_cohort(toy_cohort)
    pool, test = split_for_test(cohort, settings(toy_cohort, counts=[1, 5], test_subjects=0))
    assert (len(pool), len(test)) == (5, 1)
    assert not {s.subject for s in pool} & {s.subject for s in test}
    for changes in ({"counts": [6], "test_subjects": 0}, {"counts": [5], "test_subjects": 2}):
        with pytest.raises(StudyError, match="has 6; ask for smaller --counts"):
            split_for_test(cohort, settings(toy_cohort, **changes))


def row(seed: int, count: int, arm: str, value: float) -> dict[str, Any]:
    return {"seed": seed, "count": count, "arm": arm, "mean_dice": value}


def test_the_gain_is_paired_by_seed() -> None:
    # Scratch differs a lot between seeds, the gain does not: unpaired figures would hide it.
    scratch, gains = [0.2, 0.5, 0.8], [0.05, 0.06, 0.07]
    rows = [row(s, 5, "scratch", v) for s, v in enumerate(scratch)]
    rows += [row(s, 5, "pretrained", v + g) for s, (v, g) in enumerate(zip(scratch, gains, strict=True))][::-1]
    rows += [row(9, 5, "pretrained", 0.9), row(0, 1, "scratch", 0.1)]
    one, five = summarise(rows)
    assert one == {
        "count": 1,
        "scratch": 0.1,
        "pretrained": None,
        "pairs": 0,
        "gain": None,
        "gain_ci95": None,
    }
    assert five["pairs"] == 3
    assert five["gain"] == pytest.approx(0.06)
    # Student's t for two degrees of freedom: 4.3027.
    assert five["gain_ci95"] == pytest.approx(4.3027 * 0.01 / math.sqrt(3), rel=1e-4)
    text = summary({"target": "segmentation", "summary": [one, five]})
    assert "+0.060 ± 0.025, 3" in text
    assert json.loads(json.dumps([one, five], allow_nan=False)) == [one, five]


def test_one_value_has_no_interval() -> None:
    assert interval([0.3])[0] == 0.3
    assert math.isnan(interval([0.3])[1])
    mean, half = interval(np.arange(10.0).tolist())
    assert mean == 4.5
    assert half == pytest.approx(2.2622 * 3.02765 / math.sqrt(10), rel=1e-4)
