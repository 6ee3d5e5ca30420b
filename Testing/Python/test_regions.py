"""The Mask R-CNN through pretraining, fine-tuning and segmentation; regions and label maps in closed form."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import structs
from safetensors.torch import load_file
from safetensors.torch import save_file
from torch.nn import functional

from SSLEngine.distorting import TYPES
from SSLEngine.finetuning import finetune
from SSLEngine.finetuning import label_entry
from SSLEngine.instances import Instances
from SSLEngine.instances import average_precision
from SSLEngine.instances import boxes_of
from SSLEngine.instances import class_shares
from SSLEngine.instances import found_again
from SSLEngine.instances import found_once
from SSLEngine.instances import instances_of
from SSLEngine.instances import mask_overlaps
from SSLEngine.instances import matches
from SSLEngine.jobs import Reporter
from SSLEngine.measure import dice
from SSLEngine.measure import evaluate
from SSLEngine.models import FORMAT_VERSION
from SSLEngine.models import HEADER_KEY
from SSLEngine.models import Card
from SSLEngine.models import ModelError
from SSLEngine.models import load_model
from SSLEngine.models import make_network
from SSLEngine.models import read_card
from SSLEngine.models import save_model
from SSLEngine.pretext import TASKS
from SSLEngine.pretext import make_pretexts
from SSLEngine.pretext.base import Batch
from SSLEngine.pretext.base import Geometry
from SSLEngine.pretext.base import Host
from SSLEngine.pretraining import pretrain
from SSLEngine.regions import Regions
from SSLEngine.regions import anchor_sides
from SSLEngine.regions import region_tasks
from SSLEngine.segment import Segmenter
from SSLEngine.segment import segment_study
from SSLEngine.settings import Finetune
from SSLEngine.settings import Grid
from SSLEngine.settings import Network
from SSLEngine.settings import Pretrain
from SSLEngine.settings import SettingsError
from SSLEngine.settings import parse
from SSLEngine.settings import plain
from SSLEngine.slices import SliceSet
from SSLEngine.slices import make_batch
from SSLEngine.slices import study_records
from SSLEngine.starting import Start
from SSLEngine.starting import agreed_network
from SSLEngine.starting import completed
from SSLEngine.starting import over
from SSLEngine.studies import read_cohort
from SSLEngine.training import load_checkpoint

CPU = torch.device("cpu")
SMALL = {"channels": 16, "proposals": 20, "sampled": 8, "detections": 5, "score_threshold": 0.0}
#: Beginnings of the names of the parts, in the order in which scenarios carry over more of them.
PARTS = ("backbone.", "fpn.", "rpn.", "box_head.", "mask_head.", "predictors.")


class Blocks:
    """A pretext of regions whose truth is known: one dark and one bright square in every image, to be undone."""

    name = "blocks"
    pixel_outputs = 0
    image_outputs = 0
    region_classes = 2

    def __init__(self, settings: object) -> None:
        pass

    def geometry(self, host: Host) -> Geometry:
        return Geometry()

    def distort(self, batch: Batch, generator: torch.Generator) -> None:
        batch.images = batch.images.clone()
        batch.images[:, :, 4:20, 6:30] = -3
        batch.images[:, :, 30:54, 28:52] = 3

    def target(self, batch: Batch) -> torch.Tensor:
        labels = torch.zeros(len(batch.images), *batch.images.shape[-2:], dtype=torch.int64)
        labels[:, 4:20, 6:30], labels[:, 30:54, 28:52] = 1, 2
        return labels

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        # A network of regions tells its own losses: nobody may ask the task.
        raise NotImplementedError

    def score(self, output: torch.Tensor, target: torch.Tensor, spacing_mm: float) -> dict[str, float]:
        return {"pixels": float((output.argmax(1) == target).float().mean())}

    def instances(self, batch: Batch) -> list[Instances]:
        each = zip(self.target(batch), batch.clean, strict=True)
        return [{**instances_of(labels, 2), "clean": clean} for labels, clean in each]

    def of_regions(self, found: Any, batch: Batch) -> torch.Tensor:
        return class_shares(found, 2)

    def draw(self, axes: Any, image: Any, values: Any) -> None:
        axes.imshow(values if values.ndim == 2 else values.argmax(0))


# ---------------------------------------------------------------------------------------------
# Regions and label maps


def labels_with(*parts: tuple[int, slice, slice]) -> torch.Tensor:
    labels = torch.zeros(12, 16, dtype=torch.int64)
    for index, rows, columns in parts:
        labels[rows, columns] = index
    return labels


def test_a_label_map_is_taken_apart_and_put_together() -> None:
    labels = labels_with(
        (1, slice(0, 3), slice(0, 4)),
        (1, slice(6, 12), slice(9, 11)),
        (2, slice(3, 5), slice(1, 5)),
        (2, slice(10, 11), slice(0, 3)),
    )
    labels[5, 5] = 2  # touches its part at a corner
    found = instances_of(labels, 3)
    assert found["labels"].tolist() == [1, 1, 2]
    assert found["boxes"].tolist() == [[0, 0, 4, 3], [9, 6, 11, 12], [1, 3, 6, 6]]
    assert found["masks"].sum((1, 2)).tolist() == [12, 12, 9]
    shares = class_shares([{**found, "scores": torch.ones(3)}], 3)[0]
    wanted = labels.clone()
    wanted[10, :3] = 0  # a crumb of three pixels
    assert torch.equal(shares.argmax(0), wanted)
    assert torch.equal(shares.sum(0), torch.ones(12, 16))


def test_nothing_is_nothing() -> None:
    found = instances_of(labels_with() - 1, 2)
    assert {k: tuple(v.shape) for k, v in found.items()} == {"boxes": (0, 4), "labels": (0,), "masks": (0, 12, 16)}
    shares = class_shares([{**found, "scores": torch.zeros(0)}], 2)
    assert torch.equal(shares[0, 0], torch.ones(12, 16))
    assert not shares[0, 1:].any()


def test_the_surer_region_decides_and_gives_its_probability() -> None:
    masks = torch.tensor([[0.9, 0.9, 0.2, 0.0], [0.0, 0.8, 0.9, 0.0], [0.6, 0.0, 0.3, 0.0]])[:, None]
    found = {"masks": masks, "scores": torch.tensor([0.5, 0.9, 0.9]), "labels": torch.tensor([1, 2, 1])}
    shares = class_shares([found], 2)[0, :, 0]
    # Score times probability: 0.45 0 0.54; 0.45 0.72 0; 0.1 0.81 0.27; nothing.
    wanted = torch.tensor([[0.4, 0.6, 0], [0.2, 0, 0.8], [0.1, 0, 0.9], [1, 0, 0]])
    assert torch.allclose(shares.T, wanted)


def test_overlaps_and_matches_follow_the_scores() -> None:
    truth = instances_of(labels_with((1, slice(0, 4), slice(0, 4)), (2, slice(6, 10), slice(8, 12))), 2)
    one = labels_with((1, slice(0, 4), slice(0, 3))) > 0  # 12 of 16 pixels
    same = labels_with((1, slice(0, 4), slice(0, 4))) > 0
    aside = labels_with((1, slice(6, 10), slice(10, 14))) > 0  # 8 of 24
    masks = torch.stack([one, same, aside])
    assert torch.allclose(mask_overlaps(masks, truth["masks"]), torch.tensor([[0.75, 0], [1, 0], [0, 8 / 24]]))
    found = {"masks": masks.float(), "labels": torch.tensor([2, 1, 2])}
    # The surer one chooses first, though the other fits better.
    assert matches({**found, "scores": torch.tensor([0.9, 0.8, 0.7])}, truth).tolist() == [0, -1, -1]
    assert matches({**found, "scores": torch.tensor([0.7, 0.8, 0.9])}, truth).tolist() == [-1, 0, -1]
    figures = found_again([{**found, "scores": torch.tensor([0.9, 0.8, 0.7])}], [truth])
    assert figures == {"ap50": 0.5, "named": 0.0}
    figures = found_again([{**found, "scores": torch.tensor([0.7, 0.8, 0.9])}], [truth])
    # The first of three is wrong, the second right, of two.
    assert figures == {"ap50": 0.25, "named": 1.0}


def test_a_region_found_twice_counts_once() -> None:
    truth = instances_of(labels_with((1, slice(0, 4), slice(0, 4)), (2, slice(6, 10), slice(8, 12))), 2)
    twice = {k: torch.cat([truth[k], truth[k]]) for k in ("labels", "masks")}
    twice["labels"] = torch.tensor([2, 2, 1, 1])
    scores = torch.tensor([0.9, 0.3, 0.8, 0.6])
    assert found_once({**twice, "scores": scores})["labels"].tolist() == [2, 1]
    assert found_again([{**twice, "scores": scores}], [truth]) == {"ap50": 1.0, "named": 0.0}
    assert found_again([{**twice, "scores": 1 - scores}], [truth]) == {"ap50": 1.0, "named": 1.0}


def test_average_precision_in_closed_form() -> None:
    scores = torch.tensor([0.1, 0.9, 0.5, 0.7])
    right = torch.tensor([True, True, True, False])
    # In order: right, wrong, right, right; precisions 1, 1/2, 2/3, 3/4, of which the best from there on count.
    assert average_precision(scores, right, 5) == pytest.approx((1 + 0.75 + 0.75) / 5)
    assert average_precision(scores[:0], right[:0], 3) == 0
    assert math.isnan(average_precision(scores, right, 0))
    nothing = {"scores": scores[:0], "labels": scores[:0], "masks": torch.zeros(0, 12, 16)}
    assert math.isnan(found_again([nothing], [instances_of(labels_with(), 1)])["named"])


def test_boxes_hold_their_pixels() -> None:
    masks = torch.zeros(2, 8, 9, dtype=torch.bool)
    masks[0, 2, 5] = True
    masks[1, 1, 3] = masks[1, 7, 8] = True
    assert boxes_of(masks).tolist() == [[5, 2, 6, 3], [3, 1, 9, 8]]


def test_anchors_span_the_regions_by_one_ratio() -> None:
    sides = torch.cat([torch.exp(torch.linspace(math.log(10), math.log(160), 1001)), torch.tensor([1e4])])
    found = anchor_sides(sides)
    # The middle 90 % of four octaves, and one odd region does not matter.
    low, high = 10 * 2 ** (4 * 0.05), 10 * 2 ** (4 * 0.95)
    assert found == pytest.approx([low * (high / low) ** (k / 4) for k in range(5)], rel=0.01)
    assert anchor_sides(torch.tensor([20.0])) == pytest.approx([20 * 2 ** ((k - 2) / 4) for k in range(5)], abs=0.01)


# ---------------------------------------------------------------------------------------------
# Whole runs


@pytest.fixture(autouse=True)
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "blocks", Blocks)


def job_settings(cohort: Path, **more: Any) -> dict[str, Any]:
    """Settings of a small job: 64 px of 3 mm, a step on two slices."""
    scratch = {} if "init" in more else {"network": {"kind": "mask-rcnn", "mask_rcnn": SMALL}}
    return {
        "data": {"path": str(cohort)},
        "grid": {"spacing_mm": 3.0, "patch": 64, "phases": 1},
        "schedule": {"steps": 3, "batch": 2, "checkpoint_every": 2, "validate_every": 3, "average": 0.5},
        "device": "cpu",
        **scratch,
        **more,
    }


def pretrain_blocks(cohort: Path, job: Path) -> Path:
    job.mkdir(exist_ok=True)
    return pretrain(parse(job_settings(cohort, pretext=["blocks"]), Pretrain), Reporter(job))


def tuned(cohort: Path, job: Path, **more: Any) -> Path:
    job.mkdir(exist_ok=True)
    return finetune(parse(job_settings(cohort, labelled=2, **more), Finetune), Reporter(job))


@pytest.fixture(scope="module")
def pretrained(toy_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "blocks", Blocks)
        return pretrain_blocks(toy_cohort, tmp_path_factory.mktemp("regions") / "pretrained")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_a_pretrained_model_says_what_it_is(pretrained: Path) -> None:
    network, card = load_model(pretrained)
    assert card == read_card(pretrained)
    assert card.kind == "pretrained"
    assert card.heads == {"pixel": {}, "image": {}, "region": {"blocks": 2}}
    assert {"pixels", "ap50"} <= set(card.scores["blocks"])
    assert [p.name for p in (pretrained.parent / "samples").iterdir()] == ["0000003.png"]
    anchors = card.network["mask_rcnn"]["anchors_mm"]
    # Of the two squares, 48 by 72 mm and 72 by 72 mm, the sides are closer than a factor of two.
    middle = math.sqrt(math.sqrt(48 * 72) * 72)
    assert anchors == pytest.approx([middle * 2 ** ((k - 2) / 4) for k in range(5)], abs=0.2)
    assert any(name.startswith("restoration.") for name in network.state_dict())


def test_a_resumed_run_goes_the_way_of_the_unbroken_one(pretrained: Path, toy_cohort: Path) -> None:
    unbroken = load_file(pretrained)
    (pretrained.parent / "checkpoint-0000003.pt").unlink()
    pretrained.unlink()
    state = load_checkpoint(pretrained.parent, CPU)
    assert state is not None
    assert state["step"] == 2
    pretrain_blocks(toy_cohort, pretrained.parent)
    assert same(load_file(pretrained), unbroken)


@pytest.mark.parametrize(("carry", "parts"), [("encoder", 1), ("proposals", 3), ("all", 5)])
def test_each_scenario_carries_its_parts_over(
    pretrained: Path, toy_cohort: Path, tmp_path: Path, carry: str, parts: int
) -> None:
    # Held to the end, what is carried over is still what it was.
    held = tuned(toy_cohort, tmp_path / "job", init=str(pretrained), carry=carry, frozen_share=1.0)
    before, after = load_file(pretrained), load_file(held)
    for number, part in enumerate(PARTS):
        weights = [n for n in after if n.startswith(part) and after[n].ndim > 1]
        assert weights
        kept = [n for n in weights if n in before and torch.equal(before[n], after[n])]
        assert kept == (weights if number < parts else [])
    assert not [n for n in after if n.startswith("restoration.")]
    assert read_card(held).network == read_card(pretrained).network


def test_distortions_are_found_named_and_undone_by_the_same_network(toy_cohort: Path, tmp_path: Path) -> None:
    settings = parse(job_settings(toy_cohort, pretext=["distortions"]), Pretrain)
    _, card = load_model(pretrain(settings, Reporter(tmp_path)))
    assert card.heads["region"] == {"distortions": len(TYPES)}
    assert {"region_dice", "restored_rmse", "untouched_rmse", "ap50"} <= set(card.scores["distortions"])
    assert card.pretexts["distortions"]["regions"] == [1, 4]
    low, high = card.network["mask_rcnn"]["anchors_mm"][0], card.network["mask_rcnn"]["anchors_mm"][-1]
    # The longest diameters are 8 to 30 % of 192 mm, and a region may be half as wide as long.
    assert 0.08 * 192 / 2 < low < high < 0.3 * 192


def test_true_regions_are_a_perfect_answer(toy_cohort: Path) -> None:
    settings = parse(job_settings(toy_cohort, pretext=["distortions"]), Pretrain)
    [task] = region_tasks(make_pretexts(["distortions"], settings))
    records = list(study_records(read_cohort(toy_cohort).studies[0], [], settings.grid, []))
    slices, generator = SliceSet(records, 3.0, CPU), torch.Generator().manual_seed(0)
    batch = make_batch(slices, torch.arange(len(slices)), 64, None, generator)
    task.distort(batch, generator)
    truth = task.instances(batch)
    found = [{**t, "scores": torch.ones(len(t["labels"])), "restored": t["clean"]} for t in truth]
    assert sum(len(t["labels"]) for t in truth) > 5
    assert found_again(found, truth) == {"ap50": 1, "named": 1}
    figures = task.score(task.of_regions(found, batch), task.target(batch), 3.0)
    assert figures["restored_rmse"] < 1e-6
    assert figures["untouched_rmse"] > 0.1
    # Where two regions overlap, the answer takes one and the truth the other.
    assert figures["region_dice"] == 1
    assert figures["type_accuracy"] > 0.95


@pytest.mark.parametrize("untouched", [0.5, 0.999])
def test_images_without_regions_are_learned_from_too(toy_cohort: Path, untouched: float) -> None:
    described = {"kind": "mask-rcnn", "mask_rcnn": {**SMALL, "anchors_mm": [8, 16, 32, 48, 64]}}
    given = {"pretext": ["distortions"], "distortions": {"untouched": untouched}, "network": described}
    settings = parse(job_settings(toy_cohort, **given), Pretrain)
    tasks = make_pretexts(["distortions"], settings)
    records = list(study_records(read_cohort(toy_cohort).studies[0], [], settings.grid, []))
    slices, generator = SliceSet(records, 3.0, CPU), torch.Generator().manual_seed(0)
    batch = make_batch(slices, torch.arange(4), 64, None, generator)
    torch.manual_seed(0)
    network = make_network(settings.network, {"region": {"distortions": len(TYPES)}}, 3.0, pretext=True)
    [loss] = Regions().losses(network.train(), batch, tasks, torch.Generator().manual_seed(1)).values()
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    # The classes of regions learn that there is nothing.
    named = dict(network.named_parameters())["predictors.label.weight"]
    assert named.grad is not None
    assert named.grad.abs().max() > 0
    [figures] = Regions().scores(network.eval(), batch, tasks, torch.Generator().manual_seed(1)).values()
    # Without any region there is nothing to score; with some of them there is.
    assert math.isnan(figures["ap50"]) == math.isnan(figures["region_dice"]) == (untouched == 0.999)


def test_a_u_net_goes_on_as_a_backbone_and_back(toy_cohort: Path, tmp_path: Path) -> None:
    def job(name: str) -> Reporter:
        (tmp_path / name).mkdir()
        return Reporter(tmp_path / name)

    unet = {"kind": "unet", "widths": [4, 8, 16]}
    first = pretrain(parse(job_settings(toy_cohort, pretext=["crossings"], network=unet), Pretrain), job("crossings"))
    # Nothing is said of the backbone.
    on_it = {"kind": "mask-rcnn", "mask_rcnn": SMALL}
    settings = job_settings(toy_cohort, pretext=["distortions"], init=str(first), network=on_it)
    second = pretrain(completed(settings, Pretrain), job("distortions"))
    assert read_card(second).network["widths"] == [4, 8, 16]
    settings = job_settings(toy_cohort, labelled=2, init=str(second), network={"kind": "unet"})
    third = finetune(completed({**settings, "frozen_share": 1.0}, Finetune), job("segmentation"))
    before, after = load_file(second), load_file(third)
    held = [name for name in after if name.startswith("encoder.")]
    assert held
    assert all(torch.equal(after[name], before[f"backbone.{name}"]) for name in held)


def test_held_parts_learn_later(pretrained: Path, toy_cohort: Path, tmp_path: Path) -> None:
    job = tmp_path / "job"
    more = {"init": str(pretrained), "frozen_share": 0.67}
    before, end = load_file(pretrained), load_file(tuned(toy_cohort, job, **more))
    name = "backbone.body.layer1.0.conv1.weight"
    held = torch.load(job / "checkpoint-0000002.pt", weights_only=True)["network"]
    assert torch.equal(held[name], before[name])
    assert not torch.equal(before[name], end[name])
    # Resumed where they are still held, they go on to learn as in the unbroken run.
    (job / "checkpoint-0000003.pt").unlink()
    assert same(load_file(tuned(toy_cohort, job, **more)), end)


def test_from_scratch_to_a_label_map_on_the_own_grid(toy_cohort: Path, tmp_path: Path) -> None:
    network, card = load_model(tuned(toy_cohort, tmp_path / "job"))
    assert card.heads["region"] == {"segmentation": 2}
    assert [entry["name"] for entry in card.labels] == ["LV cavity", "LV myocardium"]
    assert {"dice", "ap50"} <= set(card.scores["segmentation"])
    study = read_cohort(toy_cohort).studies[0]
    out = tmp_path / "result.seg.nrrd"
    document = segment_study(Segmenter(network, card, CPU), study, out)
    assert len(document["outputs"]) == 3
    figures = evaluate(out, toy_cohort / study.name / "sax_seg.nii.gz")
    assert set(figures["structures"]) == {"LV cavity", "LV myocardium"}


class Seeing(torch.nn.Module):
    """Stands for a trained network: it finds the regions of the toy heart by their grey values."""

    def forward(self, images: torch.Tensor) -> list[Instances]:
        grey = images[:, 0]
        low = grey.flatten(1).median(1).values[:, None, None]
        share = (grey - low) / (grey.amax((1, 2), keepdim=True) - low)
        found = [instances_of(labels, 2) for labels in torch.where(share > 0.69, 1, torch.where(share > 0.19, 2, 0))]
        return [{**f, "masks": f["masks"].float(), "scores": torch.ones(len(f["labels"]))} for f in found]


def test_what_is_found_lands_where_it_is(toy_cohort: Path) -> None:
    study = read_cohort(toy_cohort).studies[0]
    view = next(v for v in study.views if v.role == "sax")
    labels = [label_entry(1, 1, "LV cavity"), label_entry(2, 2, "LV myocardium")]
    grid = plain(Grid(spacing_mm=2.5, patch=64))
    made = replace(card(), kind="segmentation", grid=grid, roles=["sax"], labels=labels)
    found, truth = Segmenter(Seeing(), made, CPU).segment(study, view, 0).labels, view.labels(0)
    assert truth is not None
    for value in (1, 2):
        assert dice(found == value, truth == value) > 0.85


def test_sides_need_not_be_multiples_of_the_coarsest_stride() -> None:
    network = make_network(parse(card().network, Network), card().heads, 3.0, pretext=True)
    image, clean = torch.randn(2, 1, 1, 48, 80, generator=torch.Generator().manual_seed(0)).unbind()
    larger = [functional.pad(x, (0, 16, 0, 16), mode="replicate") for x in (image, clean)]
    labels = torch.zeros(64, 96, dtype=torch.int64)
    labels[4:20, 6:30], labels[20:48, 50:80] = 1, 2
    losses = []
    for x, known, wanted in ((image, clean, labels[:48, :80]), (larger[0], larger[1], labels)):
        torch.manual_seed(0)
        losses.append(network(x, [{**instances_of(wanted, 2), "clean": known[0]}]))
    assert losses[0] == losses[1]
    network.eval()
    with torch.no_grad():
        [found], [more] = network(image), network(larger[0])
    assert torch.equal(found["masks"], more["masks"][:, :48, :80])
    assert torch.equal(found["restored"], more["restored"][:, :48, :80])
    assert torch.equal(found["boxes"], more["boxes"].minimum(torch.tensor([80.0, 48.0, 80.0, 48.0])))
    assert len(found["boxes"])


# ---------------------------------------------------------------------------------------------
# What is refused


def test_only_one_task_that_marks_regions_can_be_learned(toy_cohort: Path, tmp_path: Path) -> None:
    for names in (["positions"], ["blocks", "positions"]):
        settings = parse(job_settings(toy_cohort, pretext=names), Pretrain)
        with pytest.raises(SettingsError, match=r"cannot learn the pretext 'positions'.*--pretext distortions"):
            pretrain(settings, Reporter(tmp_path))
    with pytest.raises(SettingsError, match="one task at a time"):
        region_tasks([Blocks(None), Blocks(None)])


def test_settings_that_do_not_go_together_are_refused() -> None:
    def settings(**changes: Any) -> Finetune:
        return parse({"data": {"path": "x"}, **changes}, Finetune)

    rcnn, unet = {"kind": "mask-rcnn"}, {"kind": "unet"}
    nothing, start = Start(None, {}), Start(card(), {})
    with pytest.raises(SettingsError, match="'multitask' needs --network unet"):
        agreed_network(settings(network=rcnn, transfer="multitask"), nothing)
    with pytest.raises(SettingsError, match="carry is 'proposals' and must be encoder or all for network unet"):
        agreed_network(settings(network=unet, carry="proposals"), nothing)
    with pytest.raises(SettingsError, match=r"network\.kind is unet but the model is a mask-rcnn"):
        agreed_network(settings(network=unet), Start(card(backbone="resnet18"), {}))
    pretrained = parse(card().network, Network)
    assert agreed_network(settings(), start) == pretrained

    def on_model(said: dict[str, Any]) -> Network:
        return agreed_network(settings(**over({"network": said}, Grid(), pretrained)), start)

    assert on_model(rcnn) == pretrained, "nothing but the kind was said"
    other = on_model({"mask_rcnn": {"detections": 7}})
    assert other == structs.replace(pretrained, mask_rcnn=structs.replace(pretrained.mask_rcnn, detections=7))
    given = (8.0, 12.0, 16.0, 24.0, 40.0)
    assert on_model({"mask_rcnn": {"anchors_mm": given}}).mask_rcnn.anchors_mm == given


def card(**changes: Any) -> Card:
    network = {"kind": "mask-rcnn", "mask_rcnn": {**SMALL, "anchors_mm": [10, 15, 20, 30, 45], **changes}}
    return Card("pretrained", network, {"pixel": {}, "image": {}, "region": {"blocks": 2}}, plain(Grid()))


@pytest.mark.parametrize(
    "change",
    [
        {"anchors_mm": []},
        {"anchors_mm": [10, 15, 20, 30, 1e9]},
        {"anchors_mm": [10, 15, 20, 30, 30]},
        {"anchors_mm": [-1, 15, 20, 30, 45]},
        {"anchors_mm": [10, 15, 20, 30, math.nan]},
        {"aspects": [1e-9]},
        {"detections": 10**9},
        {"proposals": 10**9},
        {"sampled": 10**9},
        {"channels": 1 << 20},
        {"backbone": "os.system"},
        {"skip": True, "second_align": False},
    ],
)
def test_a_hostile_description_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    refused(tmp_path, card(**change))


@pytest.mark.parametrize(
    "heads",
    [
        {"pixel": {}, "image": {}},
        {"pixel": {}, "image": {}, "region": {}},
        {"pixel": {}, "image": {}, "region": {"a": 2, "b": 2}},
        {"pixel": {"a": 2}, "image": {}, "region": {"b": 2}},
        {"pixel": {}, "image": {}, "region": {"blocks": 0}},
        {"pixel": {}, "image": {}, "region": {"blocks": 1 << 40}},
    ],
)
def test_heads_that_no_mask_rcnn_has_are_refused(tmp_path: Path, heads: dict[str, Any]) -> None:
    refused(tmp_path, replace(card(), heads=heads))


def refused(folder: Path, described: Card) -> None:
    save_model(folder / "model.safetensors", torch.nn.Linear(1, 1), described)
    with pytest.raises(ModelError, match=r"description inside .* cannot be used"):
        load_model(folder / "model.safetensors")


def test_damaged_weights_are_refused(pretrained: Path, tmp_path: Path) -> None:
    tensors = load_file(pretrained)
    tensors["predictors.label.weight"] = tensors["predictors.label.weight"][:-1].clone()
    header = {HEADER_KEY: json.dumps({"format": FORMAT_VERSION, **asdict(read_card(pretrained))})}
    save_file(tensors, tmp_path / "model.safetensors", metadata=header)
    with pytest.raises(ModelError, match="is damaged"):
        load_model(tmp_path / "model.safetensors")
