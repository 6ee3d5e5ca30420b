"""Training: resumed runs go the way of the unbroken one, several processes agree, and what is frozen stays."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from safetensors.torch import load_file

from conftest import Engine
from conftest import engine_environment
from SSLEngine import jobs
from SSLEngine.__main__ import main
from SSLEngine.jobs import Reporter
from SSLEngine.models import Card
from SSLEngine.models import load_model
from SSLEngine.models import read_card
from SSLEngine.networks.unet import TaskUNet
from SSLEngine.pretraining import pretrain
from SSLEngine.runs import Silent
from SSLEngine.runs import read_exams
from SSLEngine.settings import Augmentation
from SSLEngine.settings import Data
from SSLEngine.settings import Grid
from SSLEngine.settings import Network
from SSLEngine.settings import Pretrain
from SSLEngine.settings import Schedule
from SSLEngine.settings import SettingsError
from SSLEngine.settings import parse
from SSLEngine.settings import plain
from SSLEngine.slices import Record
from SSLEngine.slices import SliceInfo
from SSLEngine.slices import SliceSet
from SSLEngine.starting import Start
from SSLEngine.starting import completed
from SSLEngine.starting import going_on
from SSLEngine.targets import Segmentation
from SSLEngine.targets import class_weights
from SSLEngine.training import Run
from SSLEngine.training import Stream
from SSLEngine.training import choose_device
from SSLEngine.training import drawn_indices
from SSLEngine.training import learning_rate
from SSLEngine.training import load_checkpoint
from SSLEngine.training import make_deterministic
from SSLEngine.training import make_optimiser
from SSLEngine.training import save_checkpoint
from SSLEngine.training import step_generator
from SSLEngine.training import train

STEPS = 40


def weights(job: Path) -> dict[str, torch.Tensor]:
    return load_file(job / jobs.MODEL_FILE)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def arguments(cohort: Path, tiny: list[str], out: Path, steps: int = STEPS) -> list[str]:
    fixed = ["--set", "schedule.checkpoint_every=3", "--set", "schedule.validate_every=20", "--steps", str(steps)]
    return ["pretrain", "--data", str(cohort), "--out", str(out), "--pretext", "positions", *tiny, *fixed]


@pytest.fixture(scope="module")
def unbroken(toy_cohort: Path, tiny: list[str], engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretraining that nobody disturbed."""
    job = tmp_path_factory.mktemp("unbroken") / "job"
    done = engine(*arguments(toy_cohort, tiny, job))
    assert done.returncode == 0, done.stderr
    return job


# ---------------------------------------------------------------------------------------------
# Reading exams


def nnunet(cohort: Path, folder: Path) -> Path:
    """The cohort's short-axis stacks as an nnU-Net raw dataset."""
    (folder / "imagesTr").mkdir(parents=True)
    for study in sorted(cohort.iterdir()):
        shutil.copy(study / "sax.nii.gz", folder / "imagesTr" / f"{study.name}_0000.nii.gz")
    return folder


@pytest.mark.parametrize("kind", ["studies", "nnunet"])
def test_reading_tells_how_far_it_is_and_can_be_stopped(
    toy_cohort: Path, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = toy_cohort if kind == "studies" else nnunet(toy_cohort, tmp_path / "dataset")
    job = jobs.create(tmp_path / "job", "pretrain", {})
    reporter = Reporter(job)
    monkeypatch.setattr(jobs, "TELL_S", 0.0)
    assert len(read_exams(Data(str(cohort)), reporter).studies) == 6
    told = [e["message"] for e in jobs.Events(job).new() if e["event"] == "progress"]
    assert told == [f"Reading exams: {k} of 6 (toy-00{k})" for k in range(6)]
    # The numbers are no steps of the training.
    assert (jobs.status(job).step, jobs.status(job).steps) == (0, 0)
    jobs.stop(job)
    with pytest.raises(jobs.Cancelled):
        read_exams(Data(str(cohort)), reporter)
    assert len([e for e in jobs.Events(job).new() if e["event"] == "progress"]) == 6


# ---------------------------------------------------------------------------------------------
# Whole runs in processes of their own


def test_a_run_leaves_what_the_contract_names(unbroken: Path) -> None:
    names = {p.name for p in unbroken.iterdir()}
    assert {"job.json", "events.jsonl", "log.txt", "model.safetensors", "manifest.json"} <= names
    assert sorted(n for n in names if n.startswith("checkpoint")) == ["checkpoint-0000039.pt", "checkpoint-0000040.pt"]
    assert not [n for n in names if n.endswith(".part")]
    manifest = json.loads((unbroken / "manifest.json").read_text())
    assert manifest["seed"] == 0
    assert manifest["subjects"] == [f"toy-{k:03d}" for k in range(6)]
    assert {"torch", "monai", "numpy"} <= set(manifest["versions"])
    assert all(len(digest) == 64 for digest in manifest["inputs"].values())
    assert len(manifest["inputs"]) == 18
    state = torch.load(unbroken / "checkpoint-0000040.pt", weights_only=True)
    assert state["step"] == STEPS
    assert {"network", "average", "optimiser", "random"} <= set(state)


def test_a_stopped_and_killed_run_ends_as_the_unbroken_one(
    unbroken: Path, toy_cohort: Path, tiny: list[str], engine: Engine, tmp_path: Path
) -> None:
    job = tmp_path / "job"
    child = launched(*arguments(toy_cohort, tiny, job))
    wait_for(lambda: bool(checkpoints(job)), child)
    jobs.stop(job)
    assert child.wait() == jobs.EXIT_CANCELLED
    assert jobs.status(job).state == jobs.CANCELLED
    assert not (job / jobs.STOP_FILE).exists()
    stopped_at = max(checkpoints(job))

    child = launched("pretrain", "--job", str(job))
    wait_for(lambda: max(checkpoints(job)) > stopped_at, child)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (job / jobs.MODEL_FILE).exists(), "the run was over before it could be killed"
    assert jobs.status(job).state == jobs.LOST
    # What a killed process may leave: half a checkpoint, half a line. The newest checkpoint is damaged as well.
    (job / "checkpoint-0000999.4711.part").write_bytes(b"half")
    with (job / jobs.EVENTS_FILE).open("a") as events:
        events.write('{"time": 1, "event": "prog')
    newest = max(checkpoints(job))
    newest.write_bytes(newest.read_bytes()[:2000])

    done = engine("pretrain", "--job", job)
    assert done.returncode == 0, done.stderr
    assert f"{newest.name} cannot be read" in done.stdout
    assert same(weights(job), weights(unbroken))
    assert jobs.status(job).state == jobs.FINISHED
    assert [e["event"] for e in jobs.Events(job).new()].count("started") == 3
    assert not list(job.glob("*.part"))


def test_pretraining_goes_on_from_a_model(
    unbroken: Path, toy_cohort: Path, engine: Engine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Little but where to start from is said, and the weights are to stay as they are.
    still = {"steps": 1, "rate": 1e-12, "weight_decay": 0.0, "average": 0.0}
    settings = {"data": {"path": str(toy_cohort)}, "init": str(unbroken / jobs.MODEL_FILE), "schedule": still}
    job = jobs.create(tmp_path / "job", "pretrain", settings)
    said = {"pretext": ["positions", "location"], "grid": {"phases": 1}}
    path = pretrain(completed({**settings, **said}, Pretrain), Reporter(job))
    first, second = read_card(unbroken / jobs.MODEL_FILE), read_card(path)
    assert (second.grid, second.network) == ({**first.grid, "phases": 1}, first.network)
    assert second.pretexts["positions"] == first.pretexts["positions"]
    assert set(second.heads["pixel"]) == {"positions"}
    assert set(second.heads["image"]) == {"location"}
    before, after = weights(unbroken), weights(job)
    assert all(torch.allclose(after[name], before[name], atol=1e-9) for name in before)
    assert second.provenance["pretrained_on"] == first.provenance["subjects"]
    assert str(unbroken / jobs.MODEL_FILE) in json.loads((job / jobs.MANIFEST_FILE).read_text())["inputs"]
    assert "encoder" in capfd.readouterr().out

    # The same by the command line, which refuses what does not go together.
    init = ["--init", unbroken / jobs.MODEL_FILE]
    words = ["pretrain", "--data", toy_cohort, *init, "--out", tmp_path / "other", "--pretext", "positions"]
    refused = engine(*words, "--set", "grid.spacing_mm=3.5")
    assert refused.returncode == jobs.EXIT_UNUSABLE
    assert "grid.spacing_mm is 3.5 but the model was pretrained at" in refused.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("segmentation", {}, "pretrained one alone"),
        (
            "pretrained",
            {"network": {"kind": "mask-rcnn", "mask_rcnn": {"backbone": "resnet18"}}},
            "network.kind is mask-rcnn but the model is a unet",
        ),
    ],
)
def test_what_pretraining_cannot_go_on_from(kind: Any, change: dict[str, Any], said: str) -> None:
    start = Start(Card(kind, plain(Network()), {}, plain(Grid())), {})
    settings = parse({"data": {"path": "exams"}, "init": "model.safetensors", **change}, Pretrain)
    with pytest.raises(SettingsError, match=said):
        going_on(settings, start)


def checkpoints(job: Path) -> list[Path]:
    return list(job.glob("checkpoint-*.pt"))


def launched(*words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "SSLEngine", *words]
    return subprocess.Popen(command, env=engine_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_for(test: object, child: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 300
    while not test():  # type: ignore[operator]
        assert child.poll() is None, "the worker ended early"
        assert time.monotonic() < end
        time.sleep(0.002)


def test_two_processes_keep_the_same_weights(toy_cohort: Path, tiny: list[str], tmp_path: Path) -> None:
    script = tmp_path / "both.py"
    script.write_text(SAVING_EVERY_RANK)
    job = tmp_path / "job"
    environment = {**engine_environment(), "RANKS": str(tmp_path)}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    command = [*torchrun, *arguments(toy_cohort, tiny, job, steps=4)]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    both = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert same(both[0], both[1])
    assert same(both[0], weights(job))
    kinds = [e["event"] for e in jobs.Events(job).new()]
    assert kinds.count("started") == 1
    assert kinds.count("finished") == 1
    assert json.loads((job / "manifest.json").read_text())["subjects"]


SAVING_EVERY_RANK = """
import os, sys, torch
from SSLEngine import pretraining
from SSLEngine.__main__ import main

kept = pretraining.train


def train(run, reporter, rank=0, world=1):
    made = kept(run, reporter, rank, world)
    torch.save(made.state_dict(), os.path.join(os.environ["RANKS"], f"rank{rank}.pt"))
    return made


pretraining.train = train
sys.exit(main())
"""


def test_a_frozen_encoder_stays_bit_identical_and_multitask_learns_both(
    unbroken: Path, toy_cohort: Path, engine: Engine, tmp_path: Path
) -> None:
    before = weights(unbroken)
    common = ["--data", toy_cohort, "--init", unbroken / jobs.MODEL_FILE, "--labelled", 2, "--steps", 3]
    common += ["--device", "cpu", "--set", "schedule.batch=2"]
    done = engine("finetune", *common, "--transfer", "decoder", "--out", tmp_path / "decoder", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["state"] == "finished"
    after = weights(tmp_path / "decoder")
    encoder = [k for k in before if k.startswith("encoder.")]
    assert len(encoder) > 10
    assert all(torch.equal(before[k], after[k]) for k in encoder)
    assert any(not torch.equal(before[k], after[k]) for k in before if k.startswith("decoder."))
    assert not [k for k in after if "positions" in k]
    # The manifest names all that it learned from: the model, and labels beside every image.
    read = json.loads((tmp_path / "decoder" / "manifest.json").read_text())["inputs"]
    init = unbroken / jobs.MODEL_FILE
    assert read[str(init)] == hashlib.sha256(init.name.encode() + init.read_bytes()).hexdigest()
    views = [f for f in sorted(toy_cohort.rglob("*.nii.gz")) if f.name != "unknown.nii.gz"]
    assert {Path(f) for f in read} == {init, *views}

    done = engine("finetune", *common, "--transfer", "multitask", "--out", tmp_path / "both")
    assert done.returncode == 0, done.stderr
    multi = weights(tmp_path / "both")
    assert any(not torch.equal(before[k], multi[k]) for k in encoder)
    assert not [k for k in multi if "positions" in k]
    _, card = load_model(tmp_path / "both" / jobs.MODEL_FILE)
    assert set(card.provenance["subjects"]) == {exam.name for exam in toy_cohort.iterdir()}
    state = load_checkpoint(tmp_path / "both", torch.device("cpu"))
    assert state is not None
    head = "pixel_heads.positions.weight"
    # The pretext's head was carried over and went on learning.
    assert 0 < float((state["network"][head] - before[head]).abs().max()) < 0.1


# ---------------------------------------------------------------------------------------------
# Parts of the loop


def spoil(path: Path, value: float) -> None:
    """One voxel of a label map is no label."""
    image = sitk.Cast(sitk.ReadImage(str(path)), sitk.sitkFloat32)
    image[(0,) * image.GetDimension()] = value
    sitk.WriteImage(image, str(path))


def test_labels_that_cannot_be_used_cost_their_image_its_labels_and_not_the_training(
    toy_cohort: Path, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohort, job = tmp_path / "cohort", tmp_path / "job"
    shutil.copytree(toy_cohort, cohort)
    spoilt = dict(zip(("sax", "2ch", "4ch"), (-1.0, 0.5, math.nan), strict=True))
    for name, value in spoilt.items():
        spoil(cohort / "toy-001" / f"{name}_seg.nii.gz", value)
    words = ["finetune", "--data", str(cohort), *tiny, "--steps", "1"]
    assert main([*words, "--labelled", "5", "--out", str(job)]) == jobs.EXIT_FINISHED
    told = [e["message"] for e in jobs.Events(job).new() if e["event"] == "warning"]
    for name in spoilt:
        (about,) = [t for t in told if f"toy-001/{name}_seg.nii.gz" in t]
        assert about.endswith("its labels are left out, and the image counts as not labelled.")
    assert "toy-001" not in read_card(job / jobs.MODEL_FILE).provenance["subjects"]
    capsys.readouterr()
    assert main([*words, "--labelled", "6", "--out", str(tmp_path / "more")]) == jobs.EXIT_UNUSABLE
    assert "6 labelled subjects were asked for" in capsys.readouterr().err
    for path in cohort.rglob("*_seg.nii.gz"):
        spoil(path, -1.0)
    assert main([*words, "--out", str(tmp_path / "none")]) == jobs.EXIT_UNUSABLE
    assert "has labels; put a label map" in capsys.readouterr().err.splitlines()[-1]


def tiny_run(steps: int = 6, seed: int = 0, **schedule: float) -> Run:
    generator = torch.Generator().manual_seed(1)
    records = []
    for k in range(5):
        image = torch.randn(48, 48, generator=generator)
        info = SliceInfo("s", f"subject {k}", "sax", "sax", k, 0, True)
        truth = (image > 0.5).numpy().astype("uint8")
        records.append(Record(info, image.numpy().astype("float16"), truth, np.array([-0.5, -0.5, 47.5, 47.5]), {}))
    slices = SliceSet(records, 2.0, torch.device("cpu"))
    make_deterministic(seed)
    return Run(
        network=TaskUNet((4, 8, 16), {"segmentation": 2}),
        slices=slices,
        streams=[Stream(torch.arange(4), [(Segmentation(1), 1.0)])],
        schedule=Schedule(steps=steps, batch=2, **schedule),  # type: ignore[arg-type]
        augmentation=Augmentation(),
        patch=32,
        seed=seed,
        held_out=torch.tensor([4]),
    )


def test_the_seed_decides_the_weights() -> None:
    made = [train(tiny_run(seed=s), Reporter(None)).state_dict() for s in (3, 3, 4)]
    assert same(made[0], made[1])
    assert not same(made[0], made[2])


def test_a_rare_structure_weighs_more() -> None:
    labels = torch.tensor([[0] * 81, [1] * 16 + [0] * 65, [2] + [0] * 80])
    shares = torch.tensor([226.0, 16.0, 1.0]) / 243
    weights = class_weights(labels, 2)
    assert torch.allclose((weights * shares).sum(), torch.tensor(1.0))
    assert torch.allclose(weights[2] / weights[1], torch.tensor(4.0))
    # A structure that the labels lack is weighted all the same, by a finite number.
    assert class_weights(labels, 3)[3].isfinite()


def test_no_two_draws_of_a_run_are_alike() -> None:
    keys = {(seed, step, rank) for seed in (0, 1) for step in (0, 1, 4099) for rank in (0, 1)}
    drawn = {tuple(torch.rand(3, generator=step_generator(*key)).tolist()) for key in keys}
    assert len(drawn) == len(keys)


def test_every_slice_is_seen_once_an_epoch_whatever_the_processes() -> None:
    stream = Stream(torch.arange(100, 112), [])
    alone = torch.cat([drawn_indices(stream, 7, step, 4) for step in range(6)])
    assert sorted(alone[:12].tolist()) == list(range(100, 112))
    assert sorted(alone[12:].tolist()) == list(range(100, 112))
    assert alone[:12].tolist() != alone[12:].tolist()
    # Two processes of two slices draw what one of four does.
    shared = torch.cat([drawn_indices(stream, 7, step, 2, rank, 2) for step in range(6) for rank in (0, 1)])
    assert torch.equal(shared, alone)


def test_the_rate_rises_and_falls_as_half_a_cosine() -> None:
    schedule = Schedule(steps=100, rate=0.01, warmup=0.1)
    rates = [learning_rate(schedule, k) for k in range(100)]
    assert rates[0] == pytest.approx(0.001)
    assert rates[9] == rates[10] == pytest.approx(0.01)
    assert rates[55] == pytest.approx(0.01 * 0.505)
    assert rates[99] < 0.00012
    assert all(a < b for a, b in itertools.pairwise(rates[:10]))
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert learning_rate(Schedule(steps=1, rate=0.01), 0) == pytest.approx(0.01)


def test_pretrained_parts_learn_at_their_own_rate_and_norms_do_not_decay() -> None:
    run = tiny_run()
    run.warm, run.warm_rate = ("encoder.",), 0.25
    run.frozen = ("decoder.0.",)
    optimiser = make_optimiser(run)
    names = {id(p): n for n, p in run.network.named_parameters()}
    seen = {}
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            seen[names[id(parameter)]] = (group["factor"], group["weight_decay"], parameter.ndim)
    assert not [n for n in seen if n.startswith("decoder.0.")]
    assert all((f == pytest.approx(0.25)) == n.startswith("encoder.") for n, (f, _, _) in seen.items())
    assert all((decay > 0) == (ndim > 1) for _, decay, ndim in seen.values())


def test_the_model_is_the_running_mean_or_the_last_weights(tmp_path: Path) -> None:
    run = tiny_run(steps=5, average=0.0)
    assert same(train(run, Reporter(None)).state_dict(), run.network.state_dict())
    run = tiny_run(steps=5, average=0.9)
    assert not same(train(run, Reporter(None)).state_dict(), run.network.state_dict())


def test_checkpoints_are_whole_and_two(tmp_path: Path) -> None:
    for step in (3, 6, 9, 12):
        save_checkpoint(tmp_path, step, {"step": step})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-0000009.pt", "checkpoint-0000012.pt"]
    (tmp_path / "checkpoint-0000012.pt").write_bytes(b"not a checkpoint")
    state = load_checkpoint(tmp_path, torch.device("cpu"))
    assert state == {"step": 9}
    # The damaged one does not push the whole one out.
    save_checkpoint(tmp_path, 10, {"step": 10})
    state = load_checkpoint(tmp_path, torch.device("cpu"))
    assert state == {"step": 10}
    save_checkpoint(tmp_path, 11, {"step": 11})
    assert load_checkpoint(tmp_path, torch.device("cpu")) == {"step": 11}
    assert load_checkpoint(None, torch.device("cpu")) is None
    shutil.rmtree(tmp_path / "none", ignore_errors=True)
    assert load_checkpoint(tmp_path / "none", torch.device("cpu")) is None


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"step": Evil()}, tmp_path / "checkpoint-0000001.pt")
    assert load_checkpoint(tmp_path, torch.device("cpu")) is None
    assert not (tmp_path / "executed").exists()


def test_a_loss_that_is_not_finite_ends_the_run_with_advice(tmp_path: Path) -> None:
    run = tiny_run(rate=1e30, checkpoint_every=1)
    with pytest.raises(FloatingPointError, match=r"lower schedule\.rate"):
        train(run, Reporter(tmp_path))


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "mps", "cuda:x", ""])
def test_a_device_that_is_not_here_is_refused_and_not_replaced(name: str) -> None:
    with pytest.raises(SettingsError, match="Device"):
        choose_device(name)


def test_validation_does_not_change_the_way_of_training(tmp_path: Path) -> None:
    often, never = tiny_run(validate_every=1), tiny_run(validate_every=100)
    never.held_out = torch.zeros(0, dtype=torch.int64)
    assert same(train(often, Reporter(None)).state_dict(), train(never, Reporter(None)).state_dict())
    assert len(often.history) == 6
    assert set(often.history[0]) == {"step", "segmentation"}


@pytest.mark.parametrize("patch", [30, 8, 4])
def test_a_patch_that_the_network_cannot_halve_is_refused(patch: int) -> None:
    run = tiny_run()
    run.network = TaskUNet((4, 8, 16, 32), {"segmentation": 2})
    run.patch = patch
    with pytest.raises(SettingsError, match=r"grid\.patch is .* multiple of 8 for network\.widths of 4 levels"):
        train(run, Reporter(None))


NOT_FINITE_ON_THE_SECOND = """
import os, sys, torch
from SSLEngine import training
from SSLEngine.__main__ import main

kept = training.step_loss


def step_loss(run, step, rank, world):
    loss = kept(run, step, rank, world)
    return loss * float("nan") if rank == 1 and step == 2 else loss


training.step_loss = step_loss
sys.exit(main())
"""


def test_a_loss_that_one_process_finds_not_finite_ends_all(toy_cohort: Path, tiny: list[str], tmp_path: Path) -> None:
    script = tmp_path / "one.py"
    script.write_text(NOT_FINITE_ON_THE_SECOND)
    job = tmp_path / "job"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    command = [*torchrun, *arguments(toy_cohort, tiny, job, steps=400)]
    done = subprocess.run(command, check=False, env=engine_environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    status = jobs.status(job)
    assert status.state == jobs.FAILED
    assert "at step 2; lower schedule.rate" in status.message
    assert not (job / jobs.MODEL_FILE).exists()


def test_a_further_process_obeys_the_reporter_that_takes_its_signals(tmp_path: Path) -> None:
    taking = Silent(Reporter(tmp_path))
    asked = Silent(taking)
    assert not asked.stop_requested()
    taking.request_stop()
    assert asked.stop_requested()
