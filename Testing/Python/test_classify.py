"""Classes of studies: scores in closed form, attention over slices, what is learned, the model file, the verbs."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from SSLEngine import few_labels
from SSLEngine.__main__ import main
from SSLEngine.class_training import choose_grouped
from SSLEngine.class_training import evenly
from SSLEngine.class_training import finetune_classifier
from SSLEngine.classify import Classifier
from SSLEngine.classify import Verdict
from SSLEngine.classify import area_under_curve
from SSLEngine.classify import balanced_accuracy
from SSLEngine.classify import classify_cohort
from SSLEngine.classify import read_classifier
from SSLEngine.classify import table
from SSLEngine.classify import verdict_scores
from SSLEngine.jobs import Events
from SSLEngine.jobs import Reporter
from SSLEngine.models import Card
from SSLEngine.models import ModelError
from SSLEngine.models import build
from SSLEngine.models import load_model
from SSLEngine.models import save_model
from SSLEngine.networks.attention import CLASSIFICATION
from SSLEngine.networks.attention import GatedAttention
from SSLEngine.networks.attention import StudyClassifier
from SSLEngine.networks.attention import pool
from SSLEngine.networks.unet import TaskUNet
from SSLEngine.pretext.base import Batch
from SSLEngine.segment import Segmenter
from SSLEngine.settings import Finetune
from SSLEngine.settings import Grid
from SSLEngine.settings import LabelStudy
from SSLEngine.settings import SettingsError
from SSLEngine.settings import parse
from SSLEngine.settings import plain
from SSLEngine.starting import Start
from SSLEngine.studies import Cohort
from SSLEngine.studies import Study
from SSLEngine.studies import StudyError
from SSLEngine.studies import group_order
from SSLEngine.studies import read_cohort
from SSLEngine.studies import read_study
from SSLEngine.studies.groups import read_groups
from SSLEngine.targets import Classification
from SSLEngine.training import Stream
from SSLEngine.training import drawn_indices
from toy_exams import toy_study
from toy_exams import write_group_cohort

CPU = torch.device("cpu")
WIDTHS = (4, 8, 16)
#: A network and a grid on which the toy's walls can be told apart in seconds.
SMALL: dict[str, Any] = {"grid": {"patch": 32, "spacing_mm": 5}, "network": {"widths": [8, 16, 32]}, "device": "cpu"}


# ---------------------------------------------------------------------------------------------
# Scores


def test_area_under_the_curve_counts_pairs_and_ties_half() -> None:
    # Positives 0.8, 0.4, 0.4; negatives 0.6, 0.4, 0.1: of nine pairs five are right and two are ties.
    positive, truth = [0.8, 0.4, 0.4, 0.6, 0.4, 0.1], [1, 1, 1, 0, 0, 0]
    shares = [[1 - p, p] for p in positive]
    assert area_under_curve(shares, truth) == pytest.approx((3 + 1.5 + 1.5) / 9)
    assert area_under_curve(shares, [1 - t for t in truth]) == pytest.approx(1 - 6 / 9)
    assert area_under_curve([[0.5, 0.5]] * 6, truth) == 0.5
    assert math.isnan(area_under_curve(shares, [1] * 6))


def test_area_under_the_curve_of_several_classes_is_their_mean() -> None:
    shares = [[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7]]
    # Class 0 (first two) against the rest: 0.7 > 0.5, 0.1 and 0.4 > 0.1: three of four; class 1 (third): 0.3 above 0.2,
    # 0.2 and below 0.5: two of three; class 2 (fourth): above all.
    assert area_under_curve(shares, [0, 0, 1, 2]) == pytest.approx((3 / 4 + 2 / 3 + 1) / 3)
    # A class that no study has does not count; a study of a class that the model does not know counts as the rest.
    assert area_under_curve(shares, [0, 0, 1, -1]) == pytest.approx((3 / 4 + 2 / 3) / 2)


def test_balanced_accuracy_is_the_mean_recall() -> None:
    assert balanced_accuracy([0, 0, 1, 1, 1], [0, 0, 0, 0, 1]) == pytest.approx((0.5 + 1) / 2)
    assert balanced_accuracy([0, 0, 0], [0, 0, 0]) == 1
    assert balanced_accuracy([0, 1], [0, -1]) == 0.5


def test_scores_of_verdicts() -> None:
    def verdict(name: str, group: str | None, share: float) -> Verdict:
        return Verdict(Study(name, Path(name), [], group=group), {"a": 1 - share, "b": share}, [], [])

    found = verdict_scores([verdict("x", "a", 0.2), verdict("y", "b", 0.4), verdict("z", None, 0.9)], ["a", "b"])
    assert found is not None
    assert (found["auc"], found["balanced_accuracy"], found["studies"]) == (1.0, 0.5, 2)
    assert found["cases"][1] == {"study": "y", "known": "b", "group": "a", "probabilities": {"a": 0.6, "b": 0.4}}
    assert verdict_scores([verdict("z", None, 0.9)], ["a", "b"]) is None
    one = verdict_scores([verdict("x", "a", 0.2)], ["a", "b"])
    assert one is not None
    assert one["auc"] is None


# ---------------------------------------------------------------------------------------------
# Pooling


@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_pooling_does_not_see_order_nor_padding(pooling: str) -> None:
    torch.manual_seed(0)
    head = GatedAttention(6, 3, pooling)
    slices = head(torch.randn(5, 6))[None]
    scores, weights = pool(slices)
    assert scores.shape == (1, 3)
    assert float(weights.detach().sum()) == pytest.approx(1)
    order = torch.tensor([3, 0, 4, 1, 2])
    moved, moved_weights = pool(slices[:, order])
    assert torch.allclose(moved, scores, atol=1e-6)
    assert torch.allclose(moved_weights, weights[:, order], atol=1e-6)
    padded = torch.cat([slices, torch.full((1, 2, 4), 1e6), torch.full((1, 1, 4), torch.inf)], dim=1)
    present = torch.tensor([[True] * 5 + [False] * 3])
    again, padded_weights = pool(padded, present)
    assert torch.allclose(again, scores, atol=1e-6)
    assert float(padded_weights[0, 5:].detach().abs().sum()) == 0
    if pooling == "mean":
        assert torch.allclose(scores[0], slices[0, :, :3].mean(0), atol=1e-6)
        assert torch.allclose(weights, torch.full((1, 5), 0.2))
    else:
        assert float((weights.max() - weights.min()).detach()) > 0.005


def test_attention_equals_the_pooled_features_of_the_paper() -> None:
    """Ilse et al.: z = sum a_k h_k with gated attention a, then a linear classifier of z."""
    torch.manual_seed(1)
    head = GatedAttention(6, 3, "attention")
    features = torch.randn(7, 6)
    h = head.embed(features)
    gated = torch.tanh(h @ head.content.weight.T + head.content.bias)
    gated = gated * torch.sigmoid(h @ head.gate.weight.T + head.gate.bias)
    a = torch.softmax(gated @ head.weigh.weight[0] + head.weigh.bias, dim=0)
    wanted = head.classes((a[:, None] * h).sum(0))
    scores, weights = pool(head(features)[None])
    assert torch.allclose(scores[0], wanted, atol=1e-5)
    assert torch.allclose(weights[0], a, atol=1e-6)


def test_features_are_the_largest_and_the_mean_values_of_the_coarsest_levels() -> None:
    torch.manual_seed(0)
    network = TaskUNet((2, 4, 8, 16), {"a": 2}).eval()
    kept: list[torch.Tensor] = []
    for block in network.encoder:
        block.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    found = network.features(torch.randn(2, 1, 16, 24))
    assert found.shape == (2, network.feature_channels) == (2, 2 * (4 + 8 + 16))
    assert torch.equal(found[:, :4], kept[1].amax((2, 3)))
    assert torch.allclose(found[:, -16:], kept[3].mean((2, 3)))


def test_the_head_does_not_see_how_channels_are_scaled() -> None:
    features = torch.randn(50, 6)
    made = []
    for scale, shift in ((1.0, 0.0), (torch.tensor([1.0, 10, 0.1, 100, 5, 2]), torch.arange(6.0) * 50)):
        torch.manual_seed(0)
        head = GatedAttention(6, 2, "attention")
        head.adapt(features * scale + shift)
        made.append(head((features * scale + shift)[:5]))
    assert torch.allclose(made[0], made[1], atol=1e-3)
    # A channel that never changes stays finite.
    head.adapt(torch.ones(5, 6))
    assert bool(head(torch.ones(5, 6)).isfinite().all())


def test_rare_classes_weigh_more_and_a_step_of_one_class_too() -> None:
    task = Classification([3, 1], bag=2)
    values = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
    nothing = torch.zeros(0)
    batch = Batch(nothing, nothing, {}, {}, {CLASSIFICATION: values}, 1.0, nothing, nothing)
    target = task.target(batch)
    assert target.tolist() == [0, 1]
    # Equal slices: the weight of attention does not matter, the class scores are (1, 0) and (0, 2).
    output = torch.tensor([[1.0, 0, 5], [1, 0, -5], [0, 2, 0], [0, 2, 3]])
    costs = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(-2))]
    weights = [4 / (2 * 3), 4 / (2 * 1)]
    assert float(task.loss(output, target)) == pytest.approx((weights[0] * costs[0] + weights[1] * costs[1]) / 2)
    assert float(task.loss(output[2:], target[1:])) == pytest.approx(weights[1] * costs[1])
    assert task.score(output, target, 1.0) == {"accuracy": 1.0}
    assert task.score(-output, target, 1.0) == {"accuracy": 0.0}


# ---------------------------------------------------------------------------------------------
# Draws


def test_a_step_draws_whole_bags_and_every_study_comes_in_turn() -> None:
    bags = [torch.arange(0, 6), torch.arange(6, 8), torch.arange(8, 20), torch.arange(20, 23), torch.arange(23, 24)]
    stream = Stream(torch.cat(bags), [], bags, bag=4)
    owner = torch.cat([torch.full((len(b),), k) for k, b in enumerate(bags)])
    seen = []
    for step in range(5):
        drawn = drawn_indices(stream, seed=3, step=step, batch=8)
        assert torch.equal(drawn, drawn_indices(stream, seed=3, step=step, batch=8))
        for bag in drawn.reshape(2, 4):
            of = owner[bag].unique()
            assert len(of) == 1
            counts = torch.bincount(bag, minlength=24)[bags[int(of)]]
            # As even as the size allows: no slice twice before all have come once.
            assert int(counts.max() - counts.min()) <= 1
            seen.append(int(of))
    assert sorted(seen[:5]) == sorted(seen[5:]) == [0, 1, 2, 3, 4]
    assert len(drawn_indices(stream, seed=3, step=0, batch=2)) == 8
    assert evenly(torch.arange(10, 20), 4).tolist() == [10, 13, 16, 19]
    assert evenly(torch.arange(3), 5).tolist() in ([0, 0, 1, 2, 2], [0, 1, 1, 1, 2], [0, 0, 1, 1, 2], [0, 1, 1, 2, 2])


def grouped(counts: dict[str, int]) -> list[Study]:
    return [
        Study(f"{g}{k}", Path("x"), [], subject=f"{g}{k}", group=g or None) for g, n in counts.items() for k in range(n)
    ]


def test_draws_hold_every_class_and_are_nested() -> None:
    studies = grouped({"a": 9, "b": 3, "c": 5, "": 4})
    orders = [group_order(studies, seed) for seed in range(8)]
    for order in orders:
        assert sorted(order) == sorted(s.subject for s in studies if s.group)
        for count in (3, 6, 9):
            assert {name: [o[0] for o in order[:count]].count(name) for name in "abc"} == dict.fromkeys(
                "abc", count // 3
            )
    assert len({tuple(o[:3]) for o in orders}) > 4
    assert group_order(studies[::-1], 2) == group_order(studies, 2)
    # A subject with several exams comes once.
    twice = [*studies, replace(studies[0], name="again")]
    assert group_order(twice, 2) == group_order(studies, 2)


# ---------------------------------------------------------------------------------------------
# Tables of groups


@pytest.mark.parametrize(
    "text", ["study,group\nx,a\ny, b \nz,\n", "\ufeffage;Group;Study\n3;a;x\n4;b;y\n", "study\tgroup\nx\ta\ny\tb\n\n"]
)
def test_tables_of_groups(tmp_path: Path, text: str) -> None:
    path = tmp_path / "groups.csv"
    path.write_text(text, encoding="utf-8")
    assert read_groups(path) == {"x": "a", "y": "b"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "columns study and group"),
        (b"name,class\nx,a\n", "columns study and group, found 'name,class'"),
        (b"study,group\n", "gives no study a group"),
        (b"study,group\nx,a\ny,b\nx,b\n", "line 4: x is b here and a above"),
        (b"\xff\xfe\x00s", "cannot be read"),
        (b'study,group\n"' + b"x" * 200_000 + b",a\n", "cannot be read"),
    ],
)
def test_tables_that_cannot_be_used_are_refused_in_one_sentence(tmp_path: Path, text: bytes, says: str) -> None:
    path = tmp_path / "groups.csv"
    path.write_bytes(text)
    with pytest.raises(StudyError) as caught:
        read_groups(path)
    assert says in str(caught.value)
    assert "groups.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_beside_the_cohort_stands_above_study_json(groups_cohort: Path, tmp_path: Path) -> None:
    names = [s.name for s in read_cohort(groups_cohort).studies]
    assert {s.group for s in read_cohort(groups_cohort).studies} == {"thin", "thick"}
    table_file = tmp_path / "by_sex.csv"
    table_file.write_text(f"study,group\n{names[0]},f\n{names[1]},m\nstranger,m\n")
    cohort = read_cohort(groups_cohort, groups=table_file)
    assert [s.group for s in cohort.studies] == ["f", "m"] + [None] * (len(names) - 2)
    assert any("1 studies that are not there (stranger)" in i.what for i in cohort.irregularities)
    table_file.write_text("study,group\nstranger,m\n")
    with pytest.raises(StudyError, match=f"names none of the studies .*for instance {names[0]}"):
        read_cohort(groups_cohort, groups=table_file)
    with pytest.raises(StudyError, match="does not exist"):
        read_cohort(groups_cohort, groups=tmp_path / "absent.csv")


def test_the_groups_of_real_stacks_come_from_a_table(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "heart-stacks"
    names = sorted(p.name for p in folder.iterdir() if p.is_dir())
    table_file = tmp_path / "groups.csv"
    rows = [f"{name},{name.removeprefix('SC-').rpartition('-')[0]}" for name in names]
    table_file.write_text("\n".join(["study,group", *rows]))
    studies = read_cohort(folder, groups=table_file).studies
    counts = {g: sum(s.group == g for s in studies) for g in ("HF-I", "HF-NI", "HYP", "N")}
    assert counts == {"HF-I": 8, "HF-NI": 8, "HYP": 8, "N": 6}


# ---------------------------------------------------------------------------------------------
# Learning


@pytest.fixture(scope="module")
def groups_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve tiny studies with thin and thick walls."""
    return write_group_cohort(tmp_path_factory.mktemp("groups"), 12)


def settings(cohort: Path, **changes: Any) -> Finetune:
    schedule = {"steps": 60, "batch": 16, "rate": 3e-3}
    made = {"data": {"path": str(cohort)}, "target": "classification", **SMALL, "schedule": schedule}
    return parse({**made, **changes}, Finetune)


@pytest.fixture(scope="module")
def trained(groups_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job")
    return finetune_classifier(settings(groups_cohort, labelled=8), Reporter(folder))


def test_thick_and_thin_walls_are_told_apart(trained: Path, groups_cohort: Path, tmp_path: Path) -> None:
    classifier = read_classifier(trained, CPU)
    card = classifier.card
    assert (card.kind, card.groups, card.pooling) == ("classification", ["thick", "thin"], "attention")
    assert card.roles == ["2ch", "4ch", "sax"]
    assert len(card.provenance["subjects"]) == 8
    assert card.scores[CLASSIFICATION]["studies"] == 4
    unseen = read_cohort(write_group_cohort(tmp_path, 10, first=500)).studies
    scores = verdict_scores([classifier.classify(s) for s in unseen], card.groups)
    assert scores is not None
    assert scores["auc"] > 0.9
    assert scores["balanced_accuracy"] >= 0.8


def test_a_verdict_names_every_slice_and_does_not_change(trained: Path, groups_cohort: Path) -> None:
    study = read_study(groups_cohort / "toy-100")
    one, other = (read_classifier(trained, CPU).classify(study).document() for _ in range(2))
    assert one == other
    assert one["study"] == "toy-100"
    assert one["known"] == "thick"
    assert sum(one["probabilities"].values()) == pytest.approx(1)
    assert one["group"] == max(one["probabilities"], key=one["probabilities"].get)
    places = [(a["view"], a["slice"], a["phase"]) for a in one["attention"]]
    assert sorted(places) == [("2ch", 0, 0), ("4ch", 0, 0), ("sax", 0, 0), ("sax", 1, 0), ("sax", 2, 0)]
    assert sum(a["weight"] for a in one["attention"]) == pytest.approx(1)
    assert "toy-100: " in table([one])


def test_weights_of_a_pretrained_network_are_carried_over_and_can_stay_frozen(
    groups_cohort: Path, tmp_path: Path
) -> None:
    network = {"kind": "unet", "widths": [8, 16, 32]}
    grid = plain(Grid(spacing_mm=5, patch=32))
    start = Card("pretrained", network, {"pixel": {"positions": 10}, "image": {}}, grid)
    torch.manual_seed(5)
    made = build(start)
    save_model(tmp_path / "start.safetensors", made, start)
    changes = {"init": str(tmp_path / "start.safetensors"), "transfer": "decoder", "grid": None, "network": None}
    changes["schedule"] = {"steps": 3, "average": 0}
    (tmp_path / "job").mkdir()
    model = finetune_classifier(settings(groups_cohort, **changes), Reporter(tmp_path / "job"))
    tuned, card = load_model(model)
    assert isinstance(tuned, StudyClassifier)
    kept = made.state_dict()
    state = tuned.body.state_dict()
    assert all(torch.equal(v, kept[k]) for k, v in state.items())
    assert not any(k.startswith("pixel_heads") for k in state)
    assert card.grid["spacing_mm"] == 5
    # And on to another fine-tuning: what it starts from is the network without the head.
    again = Start.read(str(model))
    assert again.weights.keys() == state.keys()


def test_a_mask_rcnn_classifies_too(groups_cohort: Path, tmp_path: Path) -> None:
    sizes = {"backbone": "resnet18", "channels": 16, "anchors_mm": [15, 30, 60, 90, 150]}
    changes: dict[str, Any] = {"network": {"kind": "mask-rcnn", "mask_rcnn": sizes}}
    changes |= {"grid": {"patch": 64, "spacing_mm": 5}, "schedule": {"steps": 2, "batch": 4}, "bag": 2, "labelled": 4}
    classifier = read_classifier(finetune_classifier(settings(groups_cohort, **changes), Reporter(tmp_path)), CPU)
    assert classifier.card.network["kind"] == "mask-rcnn"
    verdict = classifier.classify(read_study(groups_cohort / "toy-101"))
    assert sum(verdict.probabilities.values()) == pytest.approx(1)
    with pytest.raises(SettingsError, match="do not tell a Mask R-CNN's anchors"):
        finetune_classifier(
            settings(groups_cohort, **{**changes, "network": {"kind": "mask-rcnn"}}), Reporter(tmp_path)
        )


@pytest.mark.parametrize(("share", "moved"), [(0.0, True), (0.5, True), (1.0, False)])
def test_what_is_carried_over_can_rest_at_first(groups_cohort: Path, tmp_path: Path, share: float, moved: bool) -> None:
    body = Card(
        "pretrained",
        {"kind": "unet", "widths": [8, 16, 32]},
        {"pixel": {}, "image": {}},
        plain(Grid(spacing_mm=5, patch=32)),
    )
    network = build(body)
    save_model(tmp_path / "start.safetensors", network, body)
    changes = {"init": str(tmp_path / "start.safetensors"), "frozen_share": share, "grid": None, "network": None}
    changes["schedule"] = {"steps": 4, "average": 0}
    tuned, _ = load_model(finetune_classifier(settings(groups_cohort, **changes), Reporter(tmp_path)))
    name = "body.encoder.0.conv1.conv.weight"
    assert torch.equal(tuned.state_dict()[name], network.state_dict()[name.removeprefix("body.")]) != moved


def test_a_resumed_run_goes_the_way_of_the_unbroken_one(groups_cohort: Path, tmp_path: Path) -> None:
    changes = {"labelled": 6, "schedule": {"steps": 6, "batch": 16, "checkpoint_every": 3}}
    models = []
    for name in ("unbroken", "resumed"):
        job = tmp_path / name
        job.mkdir()
        if name == "resumed":
            # All that a killed worker left.
            shutil.copy(tmp_path / "unbroken" / "checkpoint-0000003.pt", job)
        models.append(load_file(finetune_classifier(settings(groups_cohort, **changes), Reporter(job))))
    assert all(torch.equal(models[0][k], v) for k, v in models[1].items())


def test_what_makes_no_sense_is_refused(groups_cohort: Path, toy_cohort: Path, tmp_path: Path) -> None:
    def says(error: type[Exception], text: str, cohort: Path = groups_cohort, **changes: Any) -> None:
        with pytest.raises(error, match=text):
            finetune_classifier(settings(cohort, **changes), Reporter(tmp_path))

    says(SettingsError, "'multitask' is for segmentation", transfer="multitask")
    says(SettingsError, "give one with --init", transfer="decoder")
    says(StudyError, r"has a group; put a table groups\.csv", cohort=toy_cohort)
    says(StudyError, "99 subjects with a group were asked for .* 12 found", labelled=99)
    says(StudyError, "nobody missing", subjects=["nobody"])
    says(StudyError, "All 1 studies chosen .* are 'thick'; give two groups", subjects=["toy-100"])
    assert not list(tmp_path.glob("*.safetensors"))


def test_labelled_subjects_are_drawn_of_each_class(groups_cohort: Path) -> None:
    cohort = read_cohort(groups_cohort)
    for seed in range(3):
        chosen = choose_grouped(cohort, settings(groups_cohort, labelled=4, seed=seed))
        assert sorted(str(s.group) for s in chosen) == ["thick", "thick", "thin", "thin"]
    names = ("toy-101", "toy-103")
    assert [s.name for s in choose_grouped(cohort, settings(groups_cohort, subjects=list(names)))] == list(names)


# ---------------------------------------------------------------------------------------------
# The model file


def card(**changes: Any) -> Card:
    made = Card(
        kind="classification",
        network={"kind": "unet", "widths": list(WIDTHS)},
        heads={"pixel": {}, "image": {}},
        grid=plain(Grid(spacing_mm=6, patch=32)),
        roles=["sax"],
        groups=["normal", "hypertrophy"],
    )
    return replace(made, **changes)


@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_a_classification_model_comes_back_as_it_was(tmp_path: Path, pooling: Any) -> None:
    torch.manual_seed(0)
    described = card(pooling=pooling)
    network = build(described).eval()
    save_model(tmp_path / "model.safetensors", network, described)
    loaded, found = load_model(tmp_path / "model.safetensors")
    assert found == described
    image = torch.randn(3, 1, 16, 16)
    assert torch.equal(loaded.eval()(image)[CLASSIFICATION], network(image)[CLASSIFICATION])


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": []},
        {"groups": ["one"]},
        {"groups": ["twice", "twice"]},
        {"groups": ["a", ""]},
        {"groups": ["a", 3]},
        {"groups": [str(k) for k in range(100_000)]},
        {"groups": ["a", "b", "c"]},
        {"pooling": "max"},
        {"pooling": "mean"},
        {"kind": "segmentation"},
        {"kind": "pretrained"},
        {"kind": "planning"},
    ],
)
def test_hostile_descriptions_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "model.safetensors"
    described = card()
    save_model(path, build(described), replace(described, **changes))
    with pytest.raises(ModelError) as caught:
        load_model(path)
    assert "model.safetensors" in str(caught.value)


def test_each_kind_of_model_says_which_verb_it_is_for() -> None:
    network = build(card())
    with pytest.raises(StudyError, match="cannot segment; use 'sslengine classify'"):
        Segmenter(network, card(), CPU)
    with pytest.raises(StudyError, match="use 'sslengine segment'"):
        Classifier(network, card(kind="segmentation"), CPU)
    with pytest.raises(StudyError, match="fine-tune it with --target classification"):
        Classifier(network, card(kind="pretrained"), CPU)
    study, whole = toy_study(1), toy_study(2)
    study.views = study.views[1:]
    classifier = Classifier(network, card(), CPU)
    with pytest.raises(StudyError, match=r"has no view that this model was trained on \(sax\)"):
        classifier.classify(study)
    document = classify_cohort(classifier, [study, whole])
    assert [s["study"] for s in document["studies"]] == [whole.name]
    assert [s["study"] for s in document["left_out"]] == [study.name]
    assert document["scores"] is None
    with torch.no_grad():
        network.head.classes.bias.fill_(torch.nan)  # type: ignore[union-attr]
    with pytest.raises(StudyError, match="weights are damaged"):
        classifier.classify(whole)


# ---------------------------------------------------------------------------------------------
# The verbs


def test_verbs_end_to_end(
    groups_cohort: Path, tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: object) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        told = capsys.readouterr()
        return code, told.out, told.err

    job = tmp_path / "job"
    rows = [f"{s.name},{'left' if k % 2 else 'right'}" for k, s in enumerate(read_cohort(groups_cohort).studies)]
    sides = tmp_path / "sides.csv"
    sides.write_text("\n".join(["study,group", *rows]))
    options = ["--target", "classification", "--groups", sides, "--labelled", "4", "--steps", "3", *tiny]
    code, _, error = run("finetune", "--data", groups_cohort, "--out", job, *options)
    assert code == 0, error
    model = job / "model.safetensors"
    code, out, error = run("classify", "--model", model, groups_cohort / "toy-100", "--json")
    assert code == 0, error
    document = json.loads(out)
    assert document["study"] == "toy-100"
    assert set(document["probabilities"]) == {"left", "right"}
    assert {"view", "slice", "weight"} <= set(document["attention"][0])
    code, out, error = run("classify", "--model", model, "--cohort", groups_cohort, "--groups", sides)
    assert code == 0, error
    assert len(out.splitlines()) == 13
    assert "balanced accuracy" in out.splitlines()[-1]
    for words, says in (
        (["classify", "--model", model], "one study, or --cohort"),
        (["segment", "--model", model, groups_cohort / "toy-100", "--out", tmp_path / "x.seg.nrrd"], "classify"),
        (["planes", "--model", model, groups_cohort / "toy-100"], "pretext crossings"),
        (
            ["finetune", "--data", groups_cohort, "--out", tmp_path / "j", *options, "--groups", tmp_path / "no"],
            "does not exist",
        ),
    ):
        code, _, error = run(*words)
        assert code == 2
        assert says in error
        assert len(error.strip().splitlines()) == 1


def label_study(cohort: Path, **changes: Any) -> LabelStudy:
    common = {"data": {"path": str(cohort)}, **SMALL, "schedule": {"steps": 3, "batch": 4}}
    made = {
        "finetune": {**common, "target": "classification", "bag": 2},
        "pretrain": {**common, "schedule": {"steps": 3, "batch": 2, "held_out": 0}},
        "counts": [2, 4],
        "seeds": 2,
        "test_subjects": 4,
    }
    return parse({**made, **changes}, LabelStudy)


@pytest.fixture
def stacks_alone(groups_cohort: Path, tmp_path: Path) -> Path:
    """The same studies with nothing but their short-axis stacks."""
    folder = shutil.copytree(groups_cohort, tmp_path / "stacks")
    for study in read_cohort(folder).studies:
        for view in study.views:
            if view.role != "sax":
                view.source.unlink()
    return folder


def call_it_long_axis(study: Path) -> None:
    told = json.loads((study / "study.json").read_text())
    (study / "study.json").write_text(json.dumps({**told, "roles": {"sax": "4ch"}}))


def warnings_of(job: Path) -> list[str]:
    return [e["message"] for e in Events(job).new() if e["event"] == "warning"]


def test_a_test_study_of_another_role_is_left_out_of_a_few_label_study(stacks_alone: Path, tmp_path: Path) -> None:
    # A stack alone has no crossing planes to learn from.
    alone = {"pretext": ["restoration"], "schedule": {"steps": 3, "batch": 2, "held_out": 0}}
    pretrain = {"data": {"path": str(stacks_alone)}, **SMALL, **alone}
    wanted = label_study(stacks_alone, seeds=1, counts=[2], pretrain=pretrain)
    _, test = few_labels.split_for_test(read_cohort(stacks_alone), wanted)
    (tmp_path / "job").mkdir()
    for count in (1, 4):
        for study in test[:count]:
            call_it_long_axis(stacks_alone / study.name)
        (tmp_path / "job" / "trials.jsonl").unlink(missing_ok=True)
        document = few_labels.run_label_study(wanted, Reporter(tmp_path / "job"))
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        for trial in document["trials"]:
            assert [item["study"] for item in trial["left_out"]] == [study.name for study in test[:count]]
            assert (trial["auc"] is None) == (count == 4)
    said = warnings_of(tmp_path / "job")
    assert sum(f"scratch: {test[0].name} is not tested: " in text for text in said) == 2
    assert sum("scratch: no AUC, since too few" in text for text in said) == 1


def test_a_watched_study_of_another_role_does_not_end_a_training(stacks_alone: Path, tmp_path: Path) -> None:
    wanted = settings(stacks_alone, labelled=8, schedule={"steps": 3, "batch": 4})
    cohort = read_cohort(stacks_alone)
    watched = [s for s in cohort.studies if s not in choose_grouped(cohort, wanted)]
    call_it_long_axis(stacks_alone / watched[0].name)
    (tmp_path / "job").mkdir()
    model = finetune_classifier(wanted, Reporter(tmp_path / "job"))
    assert read_classifier(model, CPU).card.scores[CLASSIFICATION]["studies"] == 3
    assert f"{watched[0].name} is not among the scores" in warnings_of(tmp_path / "job")[-1]


def test_a_few_label_study_of_classes(groups_cohort: Path, tmp_path: Path) -> None:
    document = few_labels.run_label_study(label_study(groups_cohort), Reporter(tmp_path))
    groups = {s.subject: s.group for s in read_cohort(groups_cohort).studies}
    test = document["test_subjects"]
    assert [groups[s] for s in test].count("thin") == 2
    trials = {(t["seed"], t["count"], t["arm"]): t for t in document["trials"]}
    assert len(trials) == 8
    for (seed, count, _), trial in trials.items():
        assert {groups[s] for s in trial["subjects"]} == {"thin", "thick"}
        assert len(trial["subjects"]) == count
        assert not set(trial["subjects"]) & set(test)
        assert trial["subjects"] == trials[seed, count, "scratch"]["subjects"]
        assert set(trials[seed, 2, "scratch"]["subjects"]) <= set(trial["subjects"])
        assert [c["study"] for c in trial["scores"]["cases"]] == test
        assert 0 <= trial["auc"] <= 1
    assert document["summary"][0]["scratch"] == pytest.approx(np.mean([trials[s, 2, "scratch"]["auc"] for s in (0, 1)]))
    assert document["balanced_accuracy"][1]["pairs"] == 2
    assert json.loads((tmp_path / "results.json").read_text()) == document
    assert (tmp_path / "few-labels.png").read_bytes()[:4] == b"\x89PNG"
    text = few_labels.summary(document)
    assert text.splitlines()[0] == "AUC"
    assert "balanced accuracy" in text


def test_a_few_label_study_without_every_class_is_refused(groups_cohort: Path) -> None:
    cohort = read_cohort(groups_cohort)
    for counts, test, says in (([1], 4, "1 labelled subjects cannot show 2 groups"), ([2], 1, "left to test on")):
        with pytest.raises(StudyError, match=says):
            few_labels.split_for_test(cohort, label_study(groups_cohort, counts=counts, test_subjects=test))
    lone = Cohort(cohort.path, [s for s in cohort.studies if s.group == "thin" or s.name == "toy-100"])
    with pytest.raises(StudyError, match="'thick' is left to learn from"):
        few_labels.split_for_test(lone, label_study(groups_cohort, counts=[2], test_subjects=3))
