"""The whole way on synthetic exams: pretrain, fine-tune on two labelled studies, segment unseen ones, compare.

Everything goes through the same jobs, models and files as a user's own exams would.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import __version__
from . import jobs
from .few_labels import test_scores
from .finetuning import finetune
from .jobs import Events
from .jobs import JobError
from .jobs import Reporter
from .jobs import write_json
from .measure import evaluate
from .models import load_model
from .phantom import write_cohort
from .pictures import bar_picture
from .pictures import comparison_picture
from .pictures import curve_picture
from .pictures import data_address
from .pictures import encode
from .pictures import exam_picture
from .pictures import pretext_picture
from .pretext import make_pretexts
from .pretraining import pretrain
from .report import Report
from .runs import gather
from .segment import Segmenter
from .segment import segment_study
from .settings import Finetune
from .settings import Pretrain
from .settings import parse
from .slices import guests_of
from .slices import make_batch
from .studies import Study
from .studies import read_study
from .training import choose_device
from .training import step_generator

#: A file that tells a folder made by the demo from anybody else's: only such a folder is replaced.
MARK = "metrics.json"
PRETRAINED, SCRATCH = "pretrained", "scratch"


@dataclass(frozen=True)
class Plan:
    """Size of the demo for one organ.

    Attributes:
        studies: Synthetic exams without labels for pretraining; the labelled ones are among them.
        unseen: Exams that nothing is learned from.
        labelled: Labelled exams.
        pretext: Pretext tasks.
        pretrain_steps: Steps of pretraining.
        finetune_steps: Steps of fine-tuning, the same with and without pretraining.
        grid: Grid of the networks; coarser than the default, so that two cores are enough.
    """

    studies: int
    unseen: int
    labelled: int
    pretext: tuple[str, ...]
    pretrain_steps: int
    finetune_steps: int
    grid: Mapping[str, Any]


PLANS = {
    "heart": Plan(40, 8, 2, ("crossings",), 1200, 300, {"spacing_mm": 2.0, "patch": 128}),
    "knee": Plan(20, 4, 2, ("crossings", "location"), 1200, 300, {"spacing_mm": 1.25, "patch": 128}),
}


def run_demo(organ: str, out: Path, seed: int = 0, plan: Plan | None = None) -> Path:
    """Runs the demo; returns the path of its report.

    Args:
        organ: ``heart`` or ``knee``.
        out: Folder to make; an earlier demo there is replaced.
        seed: Seed of everything.
        plan: Another size, for tests.

    Raises:
        JobError: ``out`` holds something else than an earlier demo.
    """
    plan = plan or PLANS[organ]
    out = _fresh_folder(out)
    began = time.monotonic()
    seconds: dict[str, float] = {}

    def timed(name: str, since: float) -> None:
        seconds[name] = round(time.monotonic() - since, 1)

    start = time.monotonic()
    _say(f"1/5  {plan.studies + plan.unseen} synthetic {organ} exams")
    cohort, unseen = out / "exams", out / "unseen"
    write_cohort(organ, plan.studies, seed, cohort)
    write_cohort(organ, plan.unseen, seed + 1_000_003, unseen)
    timed("exams", start)

    start = time.monotonic()
    _say(f"2/5  Pretraining on their planes: {', '.join(plan.pretext)}")
    data = {"path": str(cohort)}
    common = {"data": data, "seed": seed, "grid": dict(plan.grid)}
    steps = {"schedule": {"steps": plan.pretrain_steps}}
    pretrained = pretrain(
        *_job(out / "pretraining", "pretrain", Pretrain, {**common, **steps, "pretext": list(plan.pretext)})
    )
    timed("pretraining", start)

    start = time.monotonic()
    steps = {"schedule": {"steps": plan.finetune_steps}, "labelled": plan.labelled}  # type: ignore[dict-item]
    models = {}
    for name, extra in ((PRETRAINED, {"init": str(pretrained)}), (SCRATCH, {})):
        _say(f"3/5  Fine-tuning on {plan.labelled} labelled exams: {name}")
        models[name] = finetune(*_job(out / name, "finetune", Finetune, {**common, **steps, **extra}))
    timed("fine-tuning", start)

    start = time.monotonic()
    _say(f"4/5  Segmenting {plan.unseen} unseen exams")
    studies = [read_study(folder) for folder in sorted(unseen.iterdir()) if folder.is_dir()]
    device = choose_device("auto")
    segmenters = {name: Segmenter(*load_model(path), device) for name, path in models.items()}
    scores = {name: test_scores(segmenter, studies) for name, segmenter in segmenters.items()}
    segmentation = out / "segmentation.seg.nrrd"
    shown = studies[0]
    segment_study(segmenters[PRETRAINED], shown, segmentation)
    timed("segmenting", start)

    _say("5/5  Pictures and report")
    slicer = _slicer_pictures(shown, segmentation, out)
    metrics = {
        "organ": organ,
        "seed": seed,
        "plan": {**plan.__dict__, "grid": dict(plan.grid)},
        "mean_dice": {name: s["mean_dice"] for name, s in scores.items()},
        "gain": scores[PRETRAINED]["mean_dice"] - scores[SCRATCH]["mean_dice"],
        "structures": {name: s["structures"] for name, s in scores.items()},
        "views": {name: s["views"] for name, s in scores.items()},
        "pretext": _last_scores(out / "pretraining"),
        "evaluation": _evaluate(segmentation, shown),
        "seconds": {**seconds, "all": round(time.monotonic() - began, 1)},
        "peak_memory_bytes": jobs.peak_memory_bytes(),
        "version": __version__,
    }
    write_json(out / MARK, metrics)
    report = out / "report.html"
    _write_report(report, out, metrics, segmenters, shown, plan, slicer)
    _say(
        f"Mean Dice {metrics['mean_dice'][PRETRAINED]:.3f} pretrained, {metrics['mean_dice'][SCRATCH]:.3f} from scratch"
    )
    return report


def _fresh_folder(out: Path) -> Path:
    out = Path(out).resolve()
    if out.exists() and any(out.iterdir()):
        if not ((out / MARK).is_file() or any(out.glob("exams/*-0001"))):
            msg = f"{out} is not empty and was not made by the demo; choose another folder with --out."
            raise JobError(msg)
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    return out


def _job(folder: Path, kind: str, settings_type: type[Any], settings: dict[str, Any]) -> tuple[Any, Reporter]:
    jobs.create(folder, kind, settings)
    return parse(settings, settings_type), Reporter(folder)


def _say(text: str) -> None:
    print(text, flush=True)


def _last_scores(folder: Path) -> dict[str, Any]:
    validated = [e for e in Events(folder).new() if e["event"] == "validated"]
    scores: dict[str, Any] = validated[-1]["scores"] if validated else {}
    return scores


def _main_view(study: Study) -> Any:
    return max(study.views, key=lambda v: len(v.planes))


def _evaluate(segmentation: Path, study: Study) -> dict[str, Any]:
    """What the verb ``evaluate`` says of the file that was written."""
    source = _main_view(study).source
    reference = source.with_name(source.name.replace(".nii.gz", "_seg.nii.gz"))
    document = evaluate(segmentation, reference)
    return {k: v for k, v in document.items() if k != "files"}


def _slicer_pictures(study: Study, segmentation: Path, out: Path) -> list[Path]:
    """Has Slicer's own views draw the result, in a child and only where slicer-core is installed."""
    if importlib.util.find_spec("trame_slicer") is None or importlib.util.find_spec("SSLScene") is None:
        return []
    command = [sys.executable, "-m", "SSLScene.pictures", "--study", str(study.path), "--out", str(out / "slicer")]
    first_phases = [f for f in sorted(out.glob(segmentation.name.replace(".", "*.", 1))) if "_phase" not in f.name]
    command += [option for file in first_phases for option in ("--segmentation", str(file))]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        _say(f"Slicer's views could not draw here: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
        return []
    scene = out / "slicer" / "scene.mrb"
    if scene.is_file():
        scene.replace(out / "scene.mrb")
    return sorted((out / "slicer").glob("*.png"))


# ---------------------------------------------------------------------------------------------
# Report


def _write_report(
    path: Path,
    out: Path,
    metrics: Mapping[str, Any],
    segmenters: Mapping[str, Segmenter],
    study: Study,
    plan: Plan,
    slicer: Sequence[Path],
) -> None:
    dice = metrics["mean_dice"]
    lead = (
        f"With {plan.labelled} labelled exams, mean Dice on {plan.unseen} unseen ones is {dice[PRETRAINED]:.3f} after "
        f"pretraining on the planes of {plan.studies} unlabelled exams, and {dice[SCRATCH]:.3f} from scratch."
    )
    report = Report(f"SSLSegmentation demo: {metrics['organ']}", lead)
    report.text(
        "All exams here are synthetic. One run with one draw of labels shows how it works, not how well: for that use "
        "'sslengine study-labels'. Not for clinical use.",
        note=True,
    )
    entries = segmenters[PRETRAINED].card.labels
    report.heading("What it learned to segment")
    report.picture(
        encode(_comparison(segmenters, study)), "An unseen exam: image, reference, pretrained, from scratch."
    )
    report.key(entries)
    report.picture(
        encode(bar_picture(metrics["structures"])), "Dice by structure, mean over the unseen exams, ED and ES."
    )
    rows = [
        [n, *(metrics["structures"][m].get(n) for m in (PRETRAINED, SCRATCH))] for n in metrics["structures"][SCRATCH]
    ]
    report.table(["structure", PRETRAINED, SCRATCH], [*rows, ["mean", dice[PRETRAINED], dice[SCRATCH]]])
    report.heading("Where the supervision came from")
    views = [v for v in study.views if v.role in guests_of(study)]
    report.picture(
        encode(exam_picture(views, guests_of(study))), "How the planes of an exam cross, from its headers alone."
    )
    report.picture(encode(_pretext(out, study)), "What pretraining predicts on an exam it has not seen.")
    report.text(_pretext_sentence(metrics["pretext"]))
    report.heading("Training")
    report.picture(encode(curve_picture({"": _curve(out / "pretraining")}, "pretraining loss")), "Loss of pretraining.")
    losses = {name: _curve(out / name) for name in (PRETRAINED, SCRATCH)}
    report.picture(encode(curve_picture(losses, "fine-tuning loss")), "Loss of fine-tuning, equal steps, equal labels.")
    watched = {name: _score_curve(out / name) for name in (PRETRAINED, SCRATCH)}
    report.picture(encode(curve_picture(watched, "Dice on other exams")), "Dice while training; it decided nothing.")
    if slicer:
        report.heading("In 3D Slicer's own views")
        for picture in slicer:
            report.picture(data_address(picture.read_bytes()), picture.stem.replace("_", " "))
    report.heading("Files")
    report.text(
        "segmentation.seg.nrrd, scene.mrb (where slicer-core is installed), metrics.json, and the job folders "
        "pretraining, pretrained and scratch with model, log and manifest."
    )
    report.text(
        f"SSLSegmentation {__version__}; {metrics['seconds']['all']:.0f} s in all: " + json.dumps(metrics["seconds"]),
        note=True,
    )
    report.write(path)


def _pretext_sentence(scores: Mapping[str, Any]) -> str:
    parts = [
        f"{task}: " + ", ".join(f"{k} {v:.2f}" for k, v in figures.items())
        for task, figures in scores.items()
        if isinstance(figures, dict)
    ]
    return "On held-out exams, " + "; ".join(parts) + "." if parts else "Too few exams for a held-out score."


def _curve(folder: Path) -> list[tuple[float, float]]:
    """Loss over steps, smoothed over neighbours so that single batches do not hide the course."""
    events = [e for e in Events(folder).new() if e["event"] == "progress" and e.get("loss") is not None]
    steps, losses = [e["step"] for e in events], np.array([e["loss"] for e in events])
    if not len(losses):
        return []
    width = max(1, len(losses) // 25)
    kernel = np.ones(width)
    smooth = np.convolve(losses, kernel, "same") / np.convolve(np.ones_like(losses), kernel, "same")
    return list(zip(steps, smooth.tolist(), strict=True))


def _score_curve(folder: Path) -> list[tuple[float, float]]:
    validated = [e for e in Events(folder).new() if e["event"] == "validated"]
    return [(e["step"], e["scores"]["segmentation"]["dice"]) for e in validated if "segmentation" in e["scores"]]


def _comparison(segmenters: Mapping[str, Segmenter], study: Study) -> Any:
    """Slices of every view: three of the only stack, or two of each where there are several."""
    rows = []
    views = segmenters[PRETRAINED].views(study)
    several = sum(len(v.planes) > 1 for v in views) > 1
    for view in views:
        truth = view.labels(0)
        maps = {n: s.segment(study, view, 0).labels for n, s in segmenters.items()}
        for share in (0.5,) if len(view.planes) == 1 else (0.35, 0.6) if several else (0.25, 0.5, 0.75):
            index = int(share * len(view.planes))
            columns = {"reference": None if truth is None else truth[index], **{n: m[index] for n, m in maps.items()}}
            rows.append((view, index, columns))
    return comparison_picture(rows[:6], segmenters[PRETRAINED].card.labels)


def _pretext(out: Path, study: Study) -> Any:
    network, _card = load_model(out / "pretraining" / jobs.MODEL_FILE)
    settings = parse(jobs.load(out / "pretraining")["settings"], Pretrain)
    task = make_pretexts(settings.pretext, settings)[0]
    slices = gather([study], [task], settings.grid, [], torch.device("cpu"), Reporter(None))
    seen = [
        i for i, info in enumerate(slices.infos) if info.phase == 0 and info.role in ("sax", "2ch", "4ch", "sag", "cor")
    ]
    chosen = torch.tensor(seen)[torch.linspace(0, len(seen) - 1, min(6, len(seen))).long()]
    generator = step_generator(0, 0, 0)
    batch = make_batch(slices, chosen, settings.grid.patch, None, generator)
    task.distort(batch, generator)
    with torch.no_grad():
        output = network.eval()(batch.images, [task.name])[task.name]
    target = task.target(batch)
    samples = [
        (slices.infos[i].role, batch.images[k, 0].numpy(), target[k].numpy(), output[k].numpy())
        for k, i in enumerate(chosen.tolist())
    ]
    return pretext_picture(task, samples)
