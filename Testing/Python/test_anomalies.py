"""Anomalies: maps lie where their image lies, scores and areas under curves are those of closed forms."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import nn

from SSLEngine import anomalies
from SSLEngine import tasks
from SSLEngine.__main__ import main
from SSLEngine.anomalies import Detector
from SSLEngine.anomalies import anomaly_map
from SSLEngine.anomalies import auc
from SSLEngine.anomalies import find
from SSLEngine.anomalies import measure
from SSLEngine.anomalies import slice_scores
from SSLEngine.anomalies import table
from SSLEngine.jobs import EXIT_OTHER
from SSLEngine.jobs import Reporter
from SSLEngine.models import Card
from SSLEngine.models import ModelError
from SSLEngine.models import load_model
from SSLEngine.models import save_model
from SSLEngine.networks.mask_rcnn import MaskRCNN
from SSLEngine.networks.unet import TaskUNet
from SSLEngine.pretext.distortions import DistortionPrediction
from SSLEngine.pretraining import pretrain_on
from SSLEngine.runs import read_exams
from SSLEngine.settings import Data
from SSLEngine.settings import Distortions
from SSLEngine.settings import Grid
from SSLEngine.settings import MaskRcnn
from SSLEngine.settings import Network
from SSLEngine.settings import Pretrain
from SSLEngine.settings import Schedule
from SSLEngine.settings import parse
from SSLEngine.settings import plain
from SSLEngine.slices import SliceSet
from SSLEngine.slices import make_batch
from SSLEngine.slices import study_records
from SSLEngine.studies import Study
from SSLEngine.studies import StudyError
from SSLEngine.studies import View
from SSLEngine.studies import read_study
from toy_exams import off_centre
from toy_exams import toy_study
from toy_exams import write_toy_cohort

NAME = DistortionPrediction.name
WIDTHS = (4, 8, 8, 8)
CPU = torch.device("cpu")
WEIGHT = Distortions().background_weight
GRID = Grid(patch=64, spacing_mm=3.0, phases=0)


class Bright(nn.Module):
    """Stands for a network: the further a pixel lies above 6 standard deviations, the surer it is distorted."""

    factor = 4

    def forward(self, images: torch.Tensor, names: list[str]) -> dict[str, torch.Tensor]:
        assert names == [NAME]
        output = torch.zeros(len(images), DistortionPrediction.pixel_outputs, *images.shape[-2:])
        output[:, 0] = -8 * (images[:, 0] - 6) + math.log(WEIGHT)
        return {NAME: output}


def card(**changes: object) -> Card:
    made = Card(
        kind="pretrained",
        network=plain(Network(widths=WIDTHS)),
        heads={"pixel": {NAME: DistortionPrediction.pixel_outputs}, "image": {}},
        grid=plain(GRID),
        organ="heart",
        roles=["sax", "2ch", "4ch"],
        pretexts={NAME: plain(Distortions())},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def with_spot(study: Study, role: str, index: int, pixel: tuple[int, int]) -> Study:
    """A study with a bright square of 3 x 3 pixels round ``pixel`` (x, y) on one slice, and its place as labels."""
    views = []
    for view in study.views:
        where = np.zeros(view.shape, np.int16)
        if view.role == role:
            x, y = pixel
            where[index, y - 1 : y + 2, x - 1 : x + 2] = 1
        views.append(_lit(view, where))
    return replace(study, views=views)


def _lit(view: View, where: np.ndarray) -> View:
    return replace(
        view,
        read_pixels=lambda k: np.where(where > 0, 6000, view.pixels(k)).astype(np.float32),
        read_labels=lambda k: where,
    )


def detector(**changes: object) -> Detector:
    made = card(grid={**plain(GRID), "clip_percent": [0.0, 100.0]}, **changes)
    return Detector(Bright(), made, torch.device("cpu"))


@pytest.mark.parametrize(("role", "index", "pixel"), [("sax", 3, (21, 11)), ("2ch", 0, (12, 17)), ("4ch", 0, (20, 13))])
def test_a_map_lies_on_its_image(role: str, index: int, pixel: tuple[int, int]) -> None:
    """On oblique, anisotropic planes, to 0.15 pixels: half a pixel would show."""
    study = with_spot(toy_study(4), role, index, pixel)
    view = study.first(role)
    assert view is not None
    found = detector().look(study, view, 0)
    assert found.maps.shape == view.shape
    assert found.maps.dtype == np.float32
    spot = found.maps[index]
    y, x = np.indices(spot.shape)
    assert (float((spot * x).sum() / spot.sum()), float((spot * y).sum() / spot.sum())) == pytest.approx(
        pixel, abs=0.15
    )
    assert spot[pixel[1], pixel[0]] > 0.9
    assert found.scores.argmax() == index
    assert found.seen[index, pixel[1], pixel[0]]
    assert (found.maps[~found.seen] == 0).all()


@pytest.mark.parametrize("centre", ["crossing", "image"])
def test_it_looks_where_training_did(centre: str) -> None:
    study, grid = off_centre(toy_study(3)), parse({"spacing_mm": 1.5, "patch": 32, "centre": centre}, Grid)
    records = [r for r in study_records(study, [], grid, []) if r.info.role == "sax"]
    shown = make_batch(SliceSet(records, 1.5, CPU), torch.arange(5), 32, None, torch.Generator()).images
    network = Bright()
    seen: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    Detector(network, card(grid=plain(grid)), CPU).look(study, study.views[0], 0)
    # Training keeps slices as float16.
    assert float((torch.cat(seen) - shown).abs().max()) < 0.01
    assert float(shown.std()) > 0.5


def test_the_probability_of_a_u_net_is_that_of_any_type() -> None:
    logits = torch.zeros(1, DistortionPrediction.pixel_outputs, 2, 1)
    logits[0, 0, 1] = 2.0
    logits[0, -1] = 50.0

    class Fixed(nn.Module):
        def forward(self, images: torch.Tensor, names: list[str]) -> dict[str, torch.Tensor]:
            return {NAME: logits}

    types = DistortionPrediction.classes - 1
    # With untouched pixels at half the weight, their share counts twice.
    found = anomaly_map(Fixed(), torch.zeros(1, 1, 2, 1), Distortions(background_weight=0.5))
    assert found[0, :, 0].tolist() == pytest.approx([types / (types + 2), types / (types + 2 * math.e**2)], abs=1e-6)


def test_of_overlapping_detections_the_surest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = MaskRcnn(anchors_mm=(8, 16, 32, 64, 128), channels=16)
    network = MaskRCNN(settings, 2.0, 7, pretext=True).eval()
    masks = torch.tensor([[[1.0, 0.5], [0.0, 0.0]], [[0.5, 1.0], [0.0, 0.0]]])
    some = {"scores": torch.tensor([0.9, 0.6]), "masks": masks}
    none = {"scores": torch.zeros(0), "masks": torch.zeros(0, 2, 2)}
    monkeypatch.setattr(network, "forward", lambda images: [some, none])
    found = anomaly_map(network, torch.zeros(2, 1, 2, 2), Distortions())
    assert network.score_threshold == settings.score_threshold
    torch.testing.assert_close(found, torch.tensor([[[0.9, 0.6], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]))


def test_a_slices_score_is_the_mean_of_its_highest_pixels() -> None:
    maps = torch.zeros(2, 20, 20)
    maps[1, 3, :4] = torch.tensor([1.0, 0.5, 0.5, 0.2])
    maps[1, 7, 0] = 0.1
    assert slice_scores(maps).tolist() == pytest.approx([0.0, 2.2 / 4])


def test_the_area_under_the_curve() -> None:
    assert auc([1, 2], [3, 4]) == 1
    assert auc([3, 4], [1, 2]) == 0
    assert auc([1, 2, 3], [2, 2.5]) == pytest.approx((1.5 + 2) / 6)


def test_lesions_are_told_from_normal_slices() -> None:
    normal = [toy_study(seed) for seed in (1, 2)]
    abnormal = [with_spot(toy_study(seed), "sax", 2, (17, 14)) for seed in (5, 6)]
    figures = measure(detector(), normal, abnormal)
    assert figures["slice_auc"] == 1
    assert figures["pixel_auc"] > 0.99
    assert (figures["slices"], figures["normal_slices"]) == (2, 14)
    with pytest.raises(StudyError, match="no slices to compare"):
        measure(detector(), normal, [])


def test_a_z_score_compares_with_the_role() -> None:
    own = detector(normal={"sax": (0.2, 0.1), "2ch": (0.5, 0.0)})
    assert own.z_score("sax", 0.5) == pytest.approx(3)
    assert own.z_score("4ch", 0.5) is None
    assert own.z_score("2ch", 0.5) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model after two steps: nothing is learned, everything is in place."""
    folder = tmp_path_factory.mktemp("model")
    write_toy_cohort(folder / "exams", 6)
    settings = Pretrain(
        data=Data(path=str(folder / "exams")),
        pretext=(NAME,),
        grid=GRID,
        network=Network(widths=WIDTHS),
        schedule=Schedule(steps=2, batch=2, held_out=0.3),
    )
    reporter = Reporter(folder)
    network, made = pretrain_on(settings, read_exams(settings.data, reporter).studies, reporter)
    save_model(folder / "model.safetensors", network, made)
    return folder / "model.safetensors"


def test_pretraining_learns_what_is_normal(trained: Path) -> None:
    network, made = load_model(trained)
    # Two of six studies are held out: ten short-axis slices, two of each long-axis view, which is too few.
    assert set(made.normal) == {"sax"}
    mean, sd = made.normal["sax"]
    assert 0 < mean < 1
    assert 0 < sd < 0.5
    held_out = [s for s in (toy_study(k) for k in range(6)) if s.name not in made.provenance["subjects"]]
    own = Detector(network, made, torch.device("cpu"))
    scores = np.concatenate([own.look(s, next(s.with_role("sax")), 0).scores for s in held_out])
    assert (scores.mean(), scores.std()) == pytest.approx((mean, sd), rel=0.1)


def test_the_verb_writes_a_map_for_every_view(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exam = write_toy_cohort(tmp_path / "exams", 1, phases=3) / "toy-000"
    out = tmp_path / "maps"
    assert main(["anomalies", "--model", str(trained), str(exam), "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    study = read_study(exam)
    assert [v["role"] for v in document["views"]] == ["sax", "2ch", "4ch"]
    assert document["score"] == max(s["score"] for v in document["views"] for s in v["slices"])
    for described in document["views"]:
        view = study.first(described["role"])
        assert view is not None
        assert described["file"] == str(out / f"{view.name}_anomalies.nii.gz")
        image, given = sitk.ReadImage(described["file"]), sitk.ReadImage(str(view.source))
        assert image.GetSize() == given.GetSize()
        assert np.allclose(image.GetOrigin()[:3], given.GetOrigin()[:3], atol=1e-3)
        assert np.allclose(image.GetDirection(), given.GetDirection(), atol=1e-4)
        values = sitk.GetArrayFromImage(image)
        assert 0 <= values.min() < values.max() <= 1
        assert [(s["phase"], s["slice"]) for s in described["slices"]] == [
            (phase, k) for phase in range(3) for k in range(view.shape[0])
        ]
    known = [s["z"] is not None for v in document["views"] for s in v["slices"]]
    assert sum(known) == 15


def test_the_table_counts_from_one_as_the_pictures_do() -> None:
    slices = [{"slice": 4, "phase": 0, "score": 0.2, "z": None}, {"slice": 5, "phase": 1, "score": 0.7, "z": 2.0}]
    view = {"view": "sax", "role": "sax", "file": "map.nii.gz", "slices": slices}
    assert table({"views": [view]}).splitlines()[1].split() == ["sax", "0.700", "2.0", "6,", "phase", "2"]


def job(folder: Path) -> Reporter:
    made = folder / "job"
    made.mkdir()
    return Reporter(made)


def test_as_a_job_it_leaves_the_same_document(trained: Path, tmp_path: Path) -> None:
    exam = write_toy_cohort(tmp_path / "exams", 1) / "toy-000"
    settings = {"model": str(trained), "input": str(exam), "out": str(tmp_path / "map.nii.gz")}
    said = tasks.run("anomalies", settings, job(tmp_path))
    document = json.loads((tmp_path / "job" / tasks.RESULT_FILE).read_text())
    assert said == f"Looked for anomalies on 3 views of {exam}"
    files = [Path(v["file"]).name for v in document["views"]]
    assert files == ["map.nii.gz", "map_2ch.nii.gz", "map_4ch.nii.gz"]
    assert document == find(trained, read_study(exam), tmp_path / "map.nii.gz")


def test_slices_that_form_no_volume_get_a_file_each(trained: Path, tmp_path: Path) -> None:
    study = toy_study(0)
    sax = next(study.with_role("sax"))
    shifted = replace(sax.planes[1], origin=sax.planes[1].origin + 4 * sax.planes[1].x_direction)
    sax.planes[1] = shifted
    network, made = load_model(trained)
    found = [Detector(network, made, torch.device("cpu")).look(study, sax, 0)]
    paths = anomalies._paths(tmp_path / "maps", sax, first=True)
    anomalies._described(Detector(network, made, torch.device("cpu")), sax, found, paths)
    assert [p.name for p in paths] == [f"sax_anomalies_slice{k:03d}.nii.gz" for k in range(5)]
    image = sitk.ReadImage(str(paths[1]))
    assert np.allclose(image.GetOrigin(), shifted.origin, atol=1e-3)
    assert np.allclose(sitk.GetArrayFromImage(image)[0], found[0].maps[1])


def test_a_model_that_has_not_learned_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exam = write_toy_cohort(tmp_path / "exams", 1) / "toy-000"
    made = card(heads={"pixel": {"positions": 10}, "image": {}}, pretexts={"positions": {}})
    path = tmp_path / "model.safetensors"
    save_model(path, TaskUNet(WIDTHS, {"positions": 10}), made)
    assert main(["anomalies", "--model", str(path), str(exam), "--out", str(tmp_path / "map.nii.gz")]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0
    with pytest.raises(ModelError, match="pretrained with --pretext distortions"):
        find(path, read_study(exam), tmp_path / "map.nii.gz")
    assert not list(tmp_path.glob("map*"))


def test_an_output_of_another_kind_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"must end in \.nii\.gz or \.mha, or be a folder"):
        find(trained, toy_study(0), tmp_path / "map.nrrd")


def test_a_map_is_not_written_over_its_image(trained: Path, tmp_path: Path) -> None:
    exam = write_toy_cohort(tmp_path / "exams", 1) / "toy-000"
    before = {path: path.read_bytes() for path in exam.iterdir()}
    for path in before:
        if path.name.endswith(".nii.gz"):
            with pytest.raises(StudyError, match="a file of the exam itself, which would be lost"):
                find(trained, read_study(exam), path)
    assert {path: path.read_bytes() for path in exam.iterdir()} == before


def test_a_disk_that_fills_up_is_no_wrong_input(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    exam = write_toy_cohort(tmp_path / "exams", 1) / "toy-000"
    out = tmp_path / "maps"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Files end here as they would where the disk does.
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, before[1]))
    try:
        code = main(["anomalies", "--model", str(trained), str(exam), "--out", str(out)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == EXIT_OTHER
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told == f"sslengine: {out}: could not be written whole; check the path and the disk."
    assert not list(out.iterdir())


def test_what_is_normal_must_be_numbers(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    network = TaskUNet(WIDTHS, {NAME: DistortionPrediction.pixel_outputs})
    save_model(path, network, card(normal={"sax": (math.nan, 1.0)}))
    with pytest.raises(ModelError, match="description"):
        load_model(path)


def test_without_held_out_slices_nothing_is_called_normal() -> None:
    """A cohort of a few subjects learns from all of them; a Mask R-CNN must not be asked about no image at all."""
    never = nn.Module()  # cannot be called
    assert anomalies.normal_scores(never, None, torch.zeros(0, dtype=torch.int64), 32, Distortions()) == {}  # type: ignore[arg-type]
