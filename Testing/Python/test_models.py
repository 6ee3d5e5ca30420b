"""The model file: what goes in comes out, what is no model is refused, and what a transfer carries over."""

from __future__ import annotations

import json
import pickle
import struct
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from msgspec import structs
from safetensors.torch import load_file
from safetensors.torch import save_file

from SSLEngine.finetuning import carried_keys
from SSLEngine.models import FORMAT_VERSION
from SSLEngine.models import HEADER_KEY
from SSLEngine.models import HEADS
from SSLEngine.models import PARTS
from SSLEngine.models import Card
from SSLEngine.models import ModelError
from SSLEngine.models import build
from SSLEngine.models import carried_parts
from SSLEngine.models import key_map
from SSLEngine.models import load_model
from SSLEngine.models import read_card
from SSLEngine.models import save_model
from SSLEngine.models import transfer
from SSLEngine.networks.mask_rcnn import MaskRCNN
from SSLEngine.networks.unet import TaskUNet
from SSLEngine.settings import Finetune
from SSLEngine.settings import Grid
from SSLEngine.settings import LabelStudy
from SSLEngine.settings import MaskRcnn
from SSLEngine.settings import Network
from SSLEngine.settings import Pretrain
from SSLEngine.settings import SettingsError
from SSLEngine.settings import parse
from SSLEngine.settings import plain
from SSLEngine.starting import Start
from SSLEngine.starting import agreed_grid
from SSLEngine.starting import agreed_network
from SSLEngine.starting import completed

WIDTHS = (4, 8, 16)
BODY_AND_HEADS = (*PARTS["unet"]["all"], *HEADS["unet"])


def card(**changes: Any) -> Card:
    made = Card(
        kind="pretrained",
        network={"kind": "unet", "widths": list(WIDTHS)},
        heads={"pixel": {"positions": 10}, "image": {"location": 3}},
        grid=plain(Grid()),
        organ="heart",
        roles=["sax"],
        pretexts={"positions": {"layout": "grid"}},
        scores={"step": 5},
        provenance={"seed": 1, "subjects": ["Zoë"]},
    )
    return replace(made, **changes)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "modèle 心.safetensors"
    torch.manual_seed(0)
    save_model(path, build(card()), card())
    return path


def rewritten(path: Path, change: Any) -> Path:
    """The model with another description."""
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))["__metadata__"][HEADER_KEY]
    made = path.with_name("changed.safetensors")
    text = change if isinstance(change, str) else json.dumps({**json.loads(header), **change})
    save_file(load_file(path), made, metadata={HEADER_KEY: text})
    return made


def test_what_goes_in_comes_out(model: Path) -> None:
    torch.manual_seed(0)
    wanted = build(card())
    network, found = load_model(model)
    assert found == card() == read_card(model)
    state = network.state_dict()
    assert state.keys() == wanted.state_dict().keys()
    assert all(torch.equal(v, state[k]) for k, v in wanted.state_dict().items())
    image = torch.randn(2, 1, 16, 24)
    made = network.eval()(image)
    assert {k: tuple(v.shape) for k, v in made.items()} == {"positions": (2, 10, 16, 24), "location": (2, 3)}
    assert torch.equal(made["positions"], wanted.eval()(image, ["positions"])["positions"])
    assert [p.name for p in model.parent.iterdir()] == [model.name]


def test_a_model_from_before_a_setting_was_there_has_its_default(model: Path) -> None:
    grid = {k: v for k, v in plain(Grid(spacing_mm=2.5)).items() if k != "centre"}
    _, found = load_model(rewritten(model, {"grid": grid}))
    assert found.grid == plain(Grid(spacing_mm=2.5))
    assert found.grid["centre"] == "crossing"


def refused(path: Path) -> str:
    sentences = []
    for read in (load_model, read_card):
        with pytest.raises(ModelError) as caught:
            read(path)
        sentences.append(str(caught.value))
    assert "\n" not in sentences[0]
    assert path.name in sentences[0]
    return sentences[0]


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    assert "no model file" in refused(tmp_path / "absent.safetensors")
    path = tmp_path / "file.safetensors"
    for data in (b"", b"\x00" * 7, b"hello, this is no model at all", struct.pack("<Q", 1 << 62) + b"{}"):
        path.write_bytes(data)
        assert "no safetensors file" in refused(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    assert "no safetensors file" in refused(path)
    save_file({"a": torch.zeros(2)}, path)
    assert "not made by SSLSegmentation" in refused(path)
    assert "no model file" in refused(tmp_path)


def test_a_shortened_file_is_refused(model: Path) -> None:
    data = model.read_bytes()
    for keep in (len(data) - 1, len(data) // 2, 100, 9):
        model.write_bytes(data[:keep])
        refused(model)


def test_weights_that_do_not_fit_the_description_are_refused(model: Path) -> None:
    tensors = load_file(model)
    header = {HEADER_KEY: json.dumps({"format": 1, **card().__dict__})}
    name = next(iter(tensors))
    for change in ({name: torch.zeros(3)}, {"more": torch.zeros(1)}):
        path = model.with_name("other.safetensors")
        save_file({**tensors, **change}, path, metadata=header)
        with pytest.raises(ModelError, match="damaged"):
            load_model(path)
    del tensors[name]
    save_file(tensors, path, metadata=header)
    with pytest.raises(ModelError, match="damaged"):
        load_model(path)


def test_a_newer_format_says_so_even_if_its_fields_are_others(model: Path) -> None:
    newer = FORMAT_VERSION + 1
    assert "update SSLSegmentation" in refused(rewritten(model, {"format": newer}))
    assert "update SSLSegmentation" in refused(rewritten(model, json.dumps({"format": newer, "all": "new"})))


@pytest.mark.parametrize(
    "change",
    [
        "",
        "[]",
        "null",
        "{}",
        "[" * 100_000,
        {"format": "1"},
        {"format": None},
        {"format": 0},
        {"kind": "virus"},
        {"kind": "segmentation"},
        {"network": {}},
        {"network": {"kind": "unet", "widths": []}},
        {"network": {"kind": "unet", "widths": [10**9] * 3}},
        {"network": {"kind": "unet", "widths": [4, -8, 16]}},
        {"network": {"kind": "unet", "widths": [4, 8, 16] * 10}},
        {"network": {"kind": "unet", "widths": "abc"}},
        {"network": {"kind": "transformer", "widths": [4, 8, 16]}},
        {"network": None},
        {"heads": {"pixel": {"positions": 10**9}, "image": {}}},
        {"heads": {"pixel": {"a.b": 3}, "image": {}}},
        {"heads": {"pixel": {}}},
        {"heads": []},
        {"grid": {}},
        {"grid": {**plain(Grid()), "spacing_mm": 0}},
        {"grid": {**plain(Grid()), "spacing_mm": "nan"}},
        {"grid": {**plain(Grid()), "patch": 10**9}},
        {"grid": {**plain(Grid()), "clip_percent": [1]}},
        {"labels": [{}]},
        {"labels": "LV"},
    ],
)
def test_a_silly_description_is_refused_in_one_sentence(model: Path, change: Any) -> None:
    refused(rewritten(model, change))


def test_a_description_of_a_huge_network_costs_no_memory(model: Path) -> None:
    import resource

    path = rewritten(model, {"network": {"kind": "unet", "widths": [4096] * 7}})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ModelError, match="damaged"):
        load_model(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


# ---------------------------------------------------------------------------------------------
# Transfer


def network(widths: tuple[int, ...] = WIDTHS, **heads: int) -> TaskUNet:
    return TaskUNet(widths, heads or {"segmentation": 4})


def test_encoder_and_decoder_go_over_and_heads_start_fresh() -> None:
    source, target = network(positions=10), network(segmentation=4, positions=10)
    fresh = target.state_dict()["pixel_heads.positions.weight"].clone()
    weights = source.state_dict()
    report = transfer(weights, target, key_map(weights, target))
    state = target.state_dict()
    assert all(torch.equal(weights[k], state[k]) for k in weights if k.startswith(("encoder.", "decoder.")))
    assert torch.equal(state["pixel_heads.positions.weight"], fresh)
    assert report.fit == 1
    heads = [k for k in state if k.startswith("pixel_heads.")]
    assert report.new == heads
    assert report.skipped == [k for k in weights if k.startswith("pixel_heads.")]
    assert set(report.loaded) == set(state) - set(heads)

    report = transfer(weights, target, key_map(weights, target, BODY_AND_HEADS))
    assert torch.equal(target.state_dict()["pixel_heads.positions.weight"], weights["pixel_heads.positions.weight"])
    assert report.skipped == []
    lines = report.table().splitlines()
    assert len({len(line) for line in lines}) == 1
    table = [line.split() for line in lines]
    assert table[0] == ["part", "loaded", "new", "skipped"]
    assert ["pixel_heads.segmentation", "0", "2", "0"] in table
    assert ["encoder", str(len([k for k in weights if k.startswith("encoder.")])), "0", "0"] in table


def test_a_u_net_and_a_mask_rcnn_on_it_share_their_weights() -> None:
    torch.manual_seed(0)
    sizes = MaskRcnn(channels=16, backbone="unet", anchors_mm=(8, 16, 32, 48, 64))
    unet, rcnn = TaskUNet(WIDTHS, {"crossings": 2}), MaskRCNN(sizes, 1.0, 2, widths=WIDTHS)
    image = torch.randn(1, 1, 32, 32)
    for source, target, kinds in ((unet, rcnn, ("unet", "mask-rcnn")), (rcnn, unet, ("mask-rcnn", "unet"))):
        old, new = (Network(kind=kind, widths=WIDTHS) for kind in kinds)  # type: ignore[arg-type]
        body, other = carried_parts(old, new, "all"), with_other_weights(target)
        weights = source.state_dict()
        assert transfer(weights, other, key_map(weights, other, body), body).fit == 1
        finest = [n.decode(n.encode(image))[0] for n in (getattr(n, "backbone", n) for n in (source, other))]
        torch.testing.assert_close(*finest)
    assert carried_parts(None, new, "all") == PARTS["unet"]["all"]


def with_other_weights(network: torch.nn.Module) -> torch.nn.Module:
    """The same with other weights."""
    other = deepcopy(network)
    for weight in other.parameters():
        torch.nn.init.normal_(weight)
    return other


def test_networks_without_a_common_part_are_not_mixed() -> None:
    start = Start(card(), {})
    for backbone, told in (("resnet18", True), ("unet", False)):
        asked = {"kind": "mask-rcnn", "mask_rcnn": {"backbone": backbone}}
        settings = parse({"data": {"path": "x"}, "network": asked}, Finetune)
        with pytest.raises(SettingsError, match="share weights where") if told else nullcontext():
            assert agreed_network(settings, start).mask_rcnn.backbone == "unet"


def test_a_head_of_another_size_starts_fresh() -> None:
    source, target = network(positions=10), network(positions=7)
    report = transfer(source.state_dict(), target, key_map(source.state_dict(), target, BODY_AND_HEADS))
    assert {"pixel_heads.positions.weight", "pixel_heads.positions.bias"} <= set(report.new) & set(report.skipped)


def test_too_little_that_fits_is_refused_and_changes_nothing() -> None:
    source, target = network((4, 8, 12)), network()
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(ModelError, match="% of the pretrained weights fit"):
        transfer(source.state_dict(), target, key_map(source.state_dict(), target))
    assert all(torch.equal(v, before[k]) for k, v in target.state_dict().items())
    with pytest.raises(ModelError, match="Only 0%"):
        transfer({}, target, key_map({}, target))


def test_another_spacing_is_refused_and_what_is_left_out_is_taken_over() -> None:
    start = Start(card(grid=plain(Grid(spacing_mm=2.0, patch=96))), {})

    def settings(**changes: Any) -> Finetune:
        return parse({"data": {"path": "x"}, **changes}, Finetune)

    assert agreed_grid(settings(), start) == Grid(spacing_mm=2.0, patch=96)
    assert agreed_grid(settings(grid={"spacing_mm": 2.05}), start).spacing_mm == 2.05
    with pytest.raises(SettingsError, match=r"grid\.spacing_mm is 1\.75 but the model was pretrained at 2\.0"):
        agreed_grid(settings(grid={}), start)
    assert agreed_network(settings(), start) == Network(widths=WIDTHS)
    assert agreed_network(settings(), Start(None, {})) == Network()
    assert agreed_grid(settings(), Start(None, {})) == Grid()


@pytest.mark.parametrize("kind", [Pretrain, Finetune])
def test_what_is_not_said_of_grid_and_network_is_the_models(kind: type[Pretrain | Finetune], tmp_path: Path) -> None:
    file, grid = tmp_path / "model.safetensors", Grid(spacing_mm=3.0, patch=96, phases=4)
    save_model(file, build(card()), card(grid=plain(grid)))

    def agreed(**changes: Any) -> tuple[Grid, Network]:
        made = completed({"data": {"path": "x"}, "init": str(file), **changes}, kind)
        said = Finetune(data=made.data, grid=made.grid, network=made.network)
        start = Start.read(made.init)
        return agreed_grid(said, start), agreed_network(said, start)

    assert agreed() == (grid, Network(widths=WIDTHS))
    # A default that somebody gave is given: it overrides the model's.
    assert agreed(grid={"phases": 2})[0] == structs.replace(grid, phases=2)
    assert agreed(network={"mask_rcnn": {"score_threshold": 0.3}})[1].widths == WIDTHS
    with pytest.raises(SettingsError, match=r"grid\.spacing_mm is 1\.75 but the model was pretrained at 3\.0"):
        agreed(grid={"spacing_mm": 1.75})
    with pytest.raises(SettingsError, match=r"field `grid\.patch`"):
        agreed(grid={"patch": 40})


def test_a_few_label_study_goes_on_with_the_grid_of_its_pretraining(tmp_path: Path) -> None:
    data = {"data": {"path": "x"}}
    first = {**data, "grid": {"spacing_mm": 3.0}, "network": {"widths": [4, 8, 12]}}
    settings = {"pretrain": first, "finetune": {**data, "grid": {"phases": 0}}}
    made = completed(settings, LabelStudy)
    assert made.finetune.grid == Grid(spacing_mm=3.0, phases=0)
    assert made.finetune.network == Network(widths=(4, 8, 12))
    assert made.pretrain is not None
    assert made.pretrain.grid == Grid(spacing_mm=3.0)
    # A model that is given comes before the pretraining, which it spares.
    file = tmp_path / "model.safetensors"
    save_model(file, build(card()), card(grid=plain(Grid(spacing_mm=2.0))))
    made = completed({"finetune": {**settings["finetune"], "init": str(file)}}, LabelStudy)
    assert (made.finetune.grid, made.pretrain) == (Grid(spacing_mm=2.0, phases=0), None)


def test_input_sides_follow_the_factor() -> None:
    made = TaskUNet((4, 8, 16, 32), {"a": 2}, {"b": 5})
    assert made.factor == 8
    out = made(torch.zeros(1, 1, 16, 40))
    assert out["a"].shape == (1, 2, 16, 40)
    assert set(made(torch.zeros(1, 1, 16, 40), ["b"])) == {"b"}


def test_a_segmentation_head_is_carried_over_only_for_the_same_structures() -> None:
    network = TaskUNet(WIDTHS, {"segmentation": 3})
    labels = [{"value": 1, "name": "LV cavity"}, {"value": 2, "name": "LV myocardium"}]
    start = Start(card(kind="segmentation", labels=labels), network.state_dict())
    head = {"pixel_heads.segmentation.weight", "pixel_heads.segmentation.bias"}
    assert head <= set(carried_keys(start, network, {1: "lv", 2: "Myocardium"}, Network()))
    for others in ({1: "RV cavity", 2: "LV myocardium"}, {1: "LV cavity", 3: "LV myocardium"}):
        kept = set(carried_keys(start, network, others, Network()))
        assert not head & kept
        assert kept == set(network.state_dict()) - head
