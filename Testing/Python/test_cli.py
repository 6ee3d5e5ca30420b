"""The command line: help, one JSON document, one sentence for what is wrong, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from safetensors.torch import save_file

from conftest import Engine
from conftest import engine_environment
from SSLEngine import __version__
from SSLEngine import jobs
from SSLEngine.__main__ import SPIN_COUNT
from SSLEngine.__main__ import build_parser
from SSLEngine.__main__ import explain
from SSLEngine.__main__ import main
from SSLEngine.models import SEGMENTATION
from SSLEngine.models import Card
from SSLEngine.models import build
from SSLEngine.models import save_model
from SSLEngine.settings import Grid
from SSLEngine.settings import plain
from SSLEngine.structures import structure

TRAINED = ("pretrain", "finetune", "study-labels")


def verbs() -> list[str]:
    (sub,) = [a for a in build_parser()._actions if a.dest == "verb"]
    assert sub.choices is not None
    return list(sub.choices)


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert told.startswith("usage: sslengine")
    assert len(told.split("\n\n")[1]) > 20


def test_the_verbs_of_the_contract_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"demo", "phantom", "inspect", "pretrain", "finetune", "segment", "evaluate", "study-labels", "job"} <= set(
        verbs()
    )
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_light_verbs_do_not_wait_for_torch(tmp_path: Path) -> None:
    job = jobs.create(tmp_path / "job", "pretrain", {})
    code = (
        "import sys; from SSLEngine.__main__ import main; main(['job', 'status', sys.argv[1]]);"
        "print([m for m in ('torch', 'monai') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(job)]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=engine_environment()).stdout
    assert told.splitlines()[-1] == "[]"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A segmentation model that has learned nothing."""
    item = structure("LV cavity")
    label = {"index": 1, "value": 1, "name": item.name, "colour": list(item.colour)}
    label |= {"category": list(item.category), "type": list(item.type)}
    grid = plain(Grid(spacing_mm=6.0, patch=32))
    heads = {"pixel": {SEGMENTATION: 2}, "image": {}}
    card = Card("segmentation", {"kind": "unet", "widths": [4, 8, 16]}, heads, grid, roles=["sax"], labels=[label])
    torch.manual_seed(0)
    save_model(tmp_path / "model.safetensors", build(card), card)
    return tmp_path / "model.safetensors"


def document(words: list[object], capsys: pytest.CaptureFixture[str]) -> dict:
    assert main([str(w) for w in words]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_is_one_document_and_nothing_else(
    toy_cohort: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = document(["inspect", toy_cohort, "--json"], capsys)
    assert len(found["studies"]) == 6
    study = found["studies"][0]
    assert {"path", "organ", "views", "pairs", "irregularities"} <= set(study)
    wanted = {"file", "role", "reason", "doubt", "shape", "spacing_mm", "phases"}
    assert all(wanted <= set(view) for view in study["views"])
    assert all({"host", "guest", "angle_deg", "length_mm", "slices"} <= set(pair) for pair in study["pairs"])

    out = tmp_path / "out" / "made.seg.nrrd"
    found = document(["segment", "--model", model, toy_cohort / "toy-000", "--out", out, "--json"], capsys)
    assert found["outputs"][0]["file"] == str(out)
    assert out.is_file()
    found = document(["segment", "--model", model, "--cohort", toy_cohort, "--out", tmp_path / "all", "--json"], capsys)
    assert [study["study"] for study in found["studies"]] == [f"toy-00{k}" for k in range(6)]
    assert found["left_out"] == []
    assert (tmp_path / "all" / "toy-005" / "sax.seg.nrrd").is_file()

    truth = toy_cohort / "toy-000" / "sax_seg.nii.gz"
    found = document(["evaluate", "--predicted", truth, "--reference", truth, "--json"], capsys)
    figures = {"dice", "hd95_mm", "assd_mm", "predicted_ml", "reference_ml"}
    assert all(set(s) == figures for s in found["structures"].values())
    assert found["mean_dice"] == 1.0

    job = jobs.create(tmp_path / "job", "pretrain", {})
    found = document(["job", "status", job, "--json"], capsys)
    assert {"state", "step", "steps", "eta_s", "rate", "message", "model"} <= set(found)
    assert found["state"] == "queued"


def test_a_result_in_the_exams_folder_is_told_to_become_its_labels(
    toy_cohort: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exam = tmp_path / "exam"
    shutil.copytree(toy_cohort / "toy-000", exam)
    for out in (exam / "made.seg.nrrd", tmp_path / "made.seg.nrrd"):
        assert main(["segment", "--model", str(model), str(exam), "--out", str(out)]) == 0
        lines = [line for line in capsys.readouterr().err.splitlines() if "takes it for labels" in line]
        assert [line.startswith(str(out)) for line in lines] == [True] * (out.parent == exam)


def test_what_could_not_be_read_is_told_beside_a_result_of_the_rest(
    toy_cohort: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort = tmp_path / "cohort"
    shutil.copytree(toy_cohort / "toy-000", cohort / "whole")
    shutil.copytree(toy_cohort / "toy-001", cohort / "damaged")
    (cohort / "none").mkdir()
    for broken in (cohort / "damaged" / "2ch.nii.gz", cohort / "none" / "sax.nii.gz"):
        broken.write_bytes((toy_cohort / "toy-000" / "2ch.nii.gz").read_bytes()[:200])
    for given in ([cohort / "damaged"], ["--cohort", cohort]):
        out = tmp_path / ("all" if "--cohort" in given else "one.seg.nrrd")
        assert main([str(word) for word in ("segment", "--model", model, *given, "--out", out)]) == 0
        lines = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
        wanted = ["damaged/2ch.nii.gz", "none"] if "--cohort" in given else ["damaged/2ch.nii.gz"]
        assert all(any(name in line for line in lines) for name in wanted), lines


@pytest.mark.skipif(sys.platform != "linux", reason="only torch for Linux brings GNU OpenMP")
@pytest.mark.parametrize("asked", [None, "7"])
def test_threads_do_not_wait_awake_for_long(asked: str | None) -> None:
    program = "from SSLEngine.__main__ import main; main(['job', 'status', '/']); import torch; torch.ones(1)"
    environment = {k: v for k, v in engine_environment().items() if k != "GOMP_SPINCOUNT"}
    environment |= {"OMP_DISPLAY_ENV": "VERBOSE", **({"GOMP_SPINCOUNT": asked} if asked else {})}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    if "GOMP_" not in ran.stderr:
        pytest.skip("this torch runs on another OpenMP")
    assert f"GOMP_SPINCOUNT = '{asked or SPIN_COUNT}'" in ran.stderr


def test_a_reader_that_has_seen_enough_is_no_error(toy_cohort: Path) -> None:
    command = [sys.executable, "-m", "SSLEngine", "inspect", str(toy_cohort)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=engine_environment()) as asked:
        assert asked.stdout is not None
        assert asked.stderr is not None
        asked.stdout.close()
        assert asked.stderr.read() == b""
    assert asked.returncode == jobs.EXIT_OTHER


def test_a_training_prints_its_state_as_json_and_its_words_to_the_log(
    toy_cohort: Path, tiny: list[str], engine: Engine, tmp_path: Path
) -> None:
    job = tmp_path / "Zoë's job"
    words = ["finetune", "--data", toy_cohort, "--labelled", 1, "--steps", 2, *tiny, "--out", job, "--json"]
    done = engine(*words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["state"] == "finished"
    assert found["model"] == str(job / "model.safetensors")
    again = engine(*words)
    assert again.returncode == jobs.EXIT_UNUSABLE
    assert again.stdout == ""
    assert len(again.stderr.strip().splitlines()) == 1
    assert "already holds a job" in again.stderr
    assert jobs.status(job).state == jobs.FINISHED


#: A network that shares nothing with a U-Net.
RESIDUAL = ("--network", "mask-rcnn", "--set", "network.mask_rcnn.backbone=resnet18")
BAD = [
    ["inspect", "{tmp}/absent"],
    ["inspect", "{tmp}/empty"],
    ["inspect", ""],
    ["finetune", "--data", "{cohort}", "--out", "{tmp}/out", "--init", ""],
    ["pretrain", "--data", "{cohort}", "--out", "{tmp}/out", "--set", "grid.spacing_mm=1e9"],
    ["segment", "--model", "{tmp}/absent", "{cohort}/toy-000", "--out", "{tmp}/out/o.seg.nrrd"],
    ["segment", "--model", "{tmp}/text", "{cohort}/toy-000", "--out", "{tmp}/out/o.seg.nrrd"],
    ["segment", "--model", "{model}", "{tmp}/absent", "--out", "{tmp}/out/o.seg.nrrd"],
    ["segment", "--model", "{model}", "{cohort}/toy-000", "--out", "{tmp}/out/o.nii"],
    ["classify", "--model", "{model}", "{cohort}/toy-000", "--groups", "{tmp}/absent.csv"],
    ["segment", "--model", "{model}", "--out", "{tmp}/out/o.seg.nrrd"],
    ["segment", "--model", "{model}", "{cohort}/toy-000", "--cohort", "{cohort}", "--out", "{tmp}/out"],
    ["segment", "--model", "{model}", "{cohort}/toy-000", "--out", "{tmp}/out/o.seg.nrrd", "--device", "cuda:99"],
    ["evaluate", "--predicted", "{tmp}/absent", "--reference", "{cohort}"],
    ["evaluate", "--predicted", "{tmp}/text", "--reference", "{tmp}/text"],
    ["pretrain", "--data", "{tmp}/absent", "--out", "{tmp}/out"],
    ["pretrain", "--data", "{cohort}"],
    ["pretrain", "--data", "{cohort}", "--out", "{tmp}/out", "--set", "schedule.rate=-1"],
    ["pretrain", "--data", "{cohort}", "--out", "{tmp}/out", "--set", "rate"],
    ["pretrain", "--data", "{cohort}", "--out", "{tmp}/out", "--set", "seed.x=1"],
    ["pretrain", "--data", "{cohort}", "--out", "{tmp}/out", "--pretext", "positions,guess"],
    ["finetune", "--data", "{cohort}", "--out", "{tmp}/out", "--init", "{tmp}/absent"],
    ["study-labels", "--data", "{cohort}", "--out", "{tmp}/out", "--counts", "0"],
    ["study-labels", "--data", "{cohort}", "--out", "{tmp}/out", "--counts", "one,two"],
    ["pretrain", "--data", "{cohort}", "--out", "{tmp}/out", "--network", "mask-rcnn", "--pretext", "crossings"],
    ["pretrain", "--data", "{cohort}", "--out", "{tmp}/out", "--set", "weights.guess=1"],
    ["finetune", "--data", "{cohort}", "--out", "{tmp}/out", "--transfer", "decoder"],
    ["finetune", "--data", "{cohort}", "--out", "{tmp}/out", "--init", "{model}", *RESIDUAL],
    ["finetune", "--data", "{cohort}", "--out", "{tmp}/out", "--init", "{model}", "--set", "grid.spacing_mm=0.5"],
    ["finetune", "--data", "{cohort}", "--out", "{tmp}/out", "--target", "classification", "--transfer", "multitask"],
    ["study-labels", "--data", "{cohort}", "--out", "{tmp}/out", "--network", "mask-rcnn", "--pretext", "positions"],
    ["pretrain", "--data", "{cohort}", "--out", "{tmp}/out", "--device", "foo"],
    ["study-labels", "--data", "{cohort}", "--out", "{tmp}/out", "--init", "{model}", "--pretext", "positions"],
    ["finetune", "--data", "{cohort}", "--out", "{tmp}/out", "--groups", "{tmp}/text"],
    ["pretrain", "--job", "{tmp}/empty"],
    ["job", "status", "{tmp}/empty"],
    ["job", "stop", "{tmp}/absent"],
    ["job", "resume", "{tmp}/empty"],
]


@pytest.mark.parametrize("verb", ["finetune", "study-labels"])
def test_one_setting_of_the_grid_leaves_the_others_to_the_model(
    verb: str, toy_cohort: Path, model: Path, tmp_path: Path
) -> None:
    job = tmp_path / "job"
    words = [verb, "--data", toy_cohort, "--init", model, "--set", "grid.phases=0", "--out", job, "--prepare"]
    assert main([str(w) for w in words]) == jobs.EXIT_FINISHED
    settings = jobs.load(job)["settings"]
    assert settings.get("finetune", settings)["grid"] == {"phases": 0}, "nothing of the model is written down"


def test_an_option_that_a_prepared_job_would_not_heed_is_refused(
    toy_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = str(tmp_path / "job")
    assert main(["pretrain", "--data", str(toy_cohort), "--out", job, "--prepare"]) == jobs.EXIT_FINISHED
    capsys.readouterr()
    for words in (["--steps", "9"], ["--set", "schedule.rate=5"], ["--labels-suffix", "_gt"], ["--prepare"]):
        assert main(["pretrain", "--job", job, *words]) == jobs.EXIT_UNUSABLE
        assert f"so {words[0]} would have no effect" in capsys.readouterr().err
    assert jobs.status(Path(job)).state == jobs.QUEUED


def test_a_terminal_that_cannot_show_a_name_gets_it_in_other_words(
    engine: Engine, toy_cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(next(toy_cohort.iterdir()), tmp_path / "心臓")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = engine("inspect", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\\u5fc3" in done.stdout


@pytest.mark.parametrize("words", BAD, ids=lambda w: " ".join(w)[:70])
def test_what_is_wrong_is_told_in_one_sentence_and_leaves_nothing(
    words: list[str], toy_cohort: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("no image, no model")
    filled = [w.format(tmp=tmp_path, cohort=toy_cohort, model=model) for w in words]
    assert main(filled) == jobs.EXIT_UNUSABLE
    told = capsys.readouterr()
    assert told.out == ""
    assert len(told.err.strip().splitlines()) == 1
    assert told.err.startswith("sslengine: ")
    assert "Traceback" not in told.err
    assert not (tmp_path / "out").exists()
    assert not list((tmp_path / "empty").iterdir())


@pytest.mark.parametrize("words", [["--studies", "0"], ["--seed", "-1"]])
def test_exams_are_not_made_of_numbers_that_mean_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["phantom", *words, "--out", str(tmp_path / "out")])
    assert stopped.value.code == jobs.EXIT_UNUSABLE
    assert f"{words[0]}: expected" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


Weights = dict[str, torch.Tensor]
#: How the weights of another version of the network may differ, and what is then said of them.
CHANGES: list[tuple[Callable[[Weights, str], None], str]] = [
    (lambda weights, name: weights.pop(name), "1 are missing (such as {name})"),
    (lambda weights, name: weights.update(more=torch.zeros(1)), "1 are not known (such as more)"),
    (lambda weights, name: weights.update({name: torch.zeros(3, 5)}), "1 have another shape (such as {name})"),
]


@pytest.mark.parametrize(("change", "what"), CHANGES)
def test_a_model_of_another_version_is_refused_in_one_sentence(
    change: Callable[[Weights, str], None],
    what: str,
    toy_cohort: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with safe_open(model, framework="pt") as file:
        header = file.metadata()
    weights = load_file(model)
    name = sorted(weights)[3]
    change(weights, name)
    save_file(weights, model, metadata=header)
    for words in (
        ["finetune", "--data", toy_cohort, "--init", model, "--out", tmp_path / "out"],
        ["study-labels", "--data", toy_cohort, "--init", model, "--out", tmp_path / "out"],
        ["segment", "--model", model, toy_cohort / "toy-000", "--out", tmp_path / "out" / "o.seg.nrrd"],
    ):
        assert main([str(w) for w in words]) == jobs.EXIT_UNUSABLE
        told = capsys.readouterr()
        assert len(told.err.strip().splitlines()) == 1
        assert what.format(name=name) in told.err
        assert str(model) in told.err
        assert "train one with this version" in told.err
        assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def trained(toy_cohort: Path, tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of two steps."""
    job = tmp_path_factory.mktemp("trained") / "job"
    assert main(["pretrain", "--data", str(toy_cohort), "--steps", "2", "--out", str(job), *tiny]) == 0
    return job


def _thinner_moments(state: dict[str, Any]) -> None:
    state["optimiser"]["state"][0]["exp_avg"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        *(((lambda state, c=c: c(state["network"], "encoder.0.conv1.conv.weight")), w) for c, w in CHANGES),
        *(((lambda state, c=c: c(state["average"], "encoder.0.conv1.conv.weight")), w) for c, w in CHANGES),
        (lambda state: state.pop("network"), "does not hold what this version writes"),
        (lambda state: state.pop("random"), "does not hold what this version writes"),
        (lambda state: state["optimiser"]["param_groups"].pop(), "does not hold what this version writes"),
        (_thinner_moments, "does not hold what this version writes"),
    ],
)
def test_a_checkpoint_of_another_version_is_refused_in_one_sentence(
    change: Callable[[dict[str, Any]], None],
    what: str,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job = Path(shutil.copytree(trained, tmp_path / "job"))
    (job / jobs.MODEL_FILE).unlink()
    for path in job.glob("checkpoint-*.pt"):
        state = torch.load(path, weights_only=True)
        change(state)
        torch.save(state, path)
    assert main(["pretrain", "--job", str(job)]) == jobs.EXIT_UNUSABLE
    told = capsys.readouterr().err.strip().splitlines()[-1]
    status = jobs.status(job)
    assert status.state == jobs.FAILED
    assert told == f"sslengine: {status.message}"
    assert what.format(name="encoder.0.conv1.conv.weight") in status.message
    assert str(job) in status.message
    assert "start a new job" in status.message
    assert not (job / jobs.MODEL_FILE).exists()


PLACES = [
    ["segment", "--model", "{model}", "{study}", "--out", "{tmp}/text/x/o.seg.nrrd"],
    ["segment", "--model", "{model}", "{study}", "--out", "{tmp}/taken.seg.nrrd"],
    ["phantom", "--studies", "1", "--out", "{tmp}/text/x"],
    ["planes", "--model", "{model}", "{study}", "--picture", "{tmp}/text/x.png"],
    ["planes", "--model", "{model}", "{study}", "--picture", "{tmp}"],
    ["anomalies", "--model", "{model}", "{study}", "--out", "{tmp}/text"],
    ["anomalies", "--model", "{model}", "{study}", "--out", "{tmp}/text/x/map.nii.gz"],
]


@pytest.mark.parametrize("words", PLACES, ids=lambda w: " ".join(w)[:70])
def test_a_place_that_cannot_be_written_to_is_the_users_to_change(
    words: list[str],
    toy_cohort: Path,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is told before anything is computed; the model cannot do all of this, which would be told then."""
    monkeypatch.setattr("SSLEngine.segment.Segmenter.segment", lambda *_: pytest.fail("nothing was to be computed"))
    (tmp_path / "text").write_text("no folder")
    (tmp_path / "taken.seg.nrrd").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert main([w.format(tmp=tmp_path, model=model, study=toy_cohort / "toy-000") for w in words]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    sentence = told.err.strip().splitlines()[-1]
    assert sentence.startswith(f"sslengine: {tmp_path}")
    assert "check the path" in sentence
    # Not the names of files that nobody but the program knows.
    assert ".writing-" not in sentence
    assert ".part" not in sentence
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_is_no_wrong_setting(tmp_path: Path) -> None:
    target = tmp_path / "model.safetensors"
    full = OSError(errno.ENOSPC, "No space left on device", f"{target}.{os.getpid()}.part")
    code, sentence = explain(full)
    assert code == jobs.EXIT_OTHER
    assert sentence == f"{target}: No space left on device; check the path and the disk."
    within = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / ".writing-abc" / "map.nii.gz"))
    assert explain(within)[1].startswith(f"{tmp_path}: No space")
    assert explain(PermissionError(errno.EACCES, "Permission denied", str(target)))[0] == jobs.EXIT_UNUSABLE


def test_a_disk_that_fills_up_leaves_no_half_image(
    toy_cohort: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    out = tmp_path / "out"
    calls = [
        ["phantom", "--studies", "1", "--out", str(out)],
        ["segment", "--model", str(model), str(toy_cohort / "toy-000"), "--out", str(out / "o.seg.nrrd")],
    ]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for words in calls:
        # Files end here as they would where the disk does; ITK's NIfTI writer does not mention it.
        resource.setrlimit(resource.RLIMIT_FSIZE, (256, before[1]))
        try:
            code = main(words)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert code == jobs.EXIT_OTHER
        told = capsys.readouterr().err
        assert "Traceback" not in told
        assert "could not be written whole" in told
        assert not [p for p in out.rglob("*") if p.is_file()]


def test_images_are_not_compared_as_if_they_were_labels(
    toy_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = toy_cohort / "toy-000" / "sax.nii.gz"
    assert main(["evaluate", "--predicted", str(image), "--reference", str(image)]) == jobs.EXIT_UNUSABLE
    assert "it is an image" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [[], ["fly"], ["pretrain", "--steps", "0"], ["phantom", "--out", "x", "--organ", "toe"]]
)
def test_a_wrong_command_line_ends_with_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == jobs.EXIT_UNUSABLE
    assert capsys.readouterr().out == ""


def test_running_out_of_memory_has_its_own_code_and_is_written_down(
    toy_cohort: Path, tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from SSLEngine import pretraining

    def full(*_: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(pretraining, "train", full)
    job = tmp_path / "job"
    assert main(["pretrain", "--data", str(toy_cohort), "--out", str(job), *tiny]) == jobs.EXIT_MEMORY
    status = jobs.status(job)
    assert status.state == jobs.FAILED
    assert "schedule.batch" in status.message
    assert [e.get("code") for e in jobs.Events(job).new()][-1] == jobs.EXIT_MEMORY


def test_a_job_without_torch_says_so_in_its_folder(toy_cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "torch.py").write_text("raise ModuleNotFoundError('No module named torch', name='torch')")
    job = jobs.create(tmp_path / "job", "pretrain", {"data": {"path": str(toy_cohort)}})
    environment = engine_environment()
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "fake"), environment["PYTHONPATH"]])
    command = [sys.executable, "-m", "SSLEngine", "pretrain", "--job", str(job)]
    assert subprocess.run(command, check=False, capture_output=True, env=environment).returncode == jobs.EXIT_OTHER
    assert jobs.status(job).state == jobs.FAILED
    assert "'torch' is missing" in jobs.status(job).message


def test_an_unforeseen_error_is_a_sentence_in_the_job_and_a_trace_in_its_log(
    toy_cohort: Path, tmp_path: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from SSLEngine import pretraining

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(pretraining, "train", broken)
    job = tmp_path / "job"
    assert main(["pretrain", "--data", str(toy_cohort), "--out", str(job), *tiny]) == jobs.EXIT_OTHER
    message = jobs.status(job).message
    assert message.startswith("ZeroDivisionError: a bug; ")
    assert "please report it" in message
    assert "Traceback" in (job / jobs.LOG_FILE).read_text()
