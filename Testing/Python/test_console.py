"""What the README shows for Slicer's Python console runs, line for line; and the same by clicking."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from panel_window import ROOT
from panel_window import Window
from panel_window import choose
from slicer_standin import pythonqt
from SSLEngine import jobs
from SSLEngine.finetuning import label_entry
from SSLEngine.segment import Result
from SSLEngine.segment import segment_study
from SSLEngine.segment import voxel_ml
from SSLEngine.studies import Study
from SSLEngine.studies import View
from SSLEngine.studies import read_study
from toy_exams import toy_study
from toy_exams import write_group_cohort

#: Makes the README's jobs small. The files and folders that it names stand for a user's own.
TINY: dict[str, Any] = {
    "pretrain": {
        "schedule": {"steps": 3, "batch": 4, "held_out": 0},
        "network": {"widths": [8, 16, 32]},
        "grid": {"spacing_mm": 4.0, "patch": 64},
    },
    "finetune": {"schedule": {"steps": 3, "batch": 4}},
}


def console_block() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- tested: [^>]*test_console[^>]*-->\n```py\n(.*?)```", text, re.DOTALL)
    assert found, "the README has no tested block for the console"
    return found[1]


def draw(window: Window, exam: Any) -> None:
    """What a person would draw in the Segment Editor: here the phantom's labels, under the editor's own name."""
    from SSLScene import segments

    view = read_study(exam.study.path).first("sax")
    assert view is not None
    labels = view.labels(0)
    assert labels is not None
    segments.add_labels(window.scene, exam, exam.first("sax"), labels, view.label_names, "Segmentation")


@pytest.fixture(scope="module")
def console(window: Window, exams: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the console holds after the README's block, run as it stands."""
    import slicer

    from SSLPanels.workers import Workers

    data = tmp_path_factory.mktemp("data")
    (data / "exams").symlink_to(exams, target_is_directory=True)
    # The block runs as it is, but for the folder in which a user's data lie.
    first, comment, second = console_block().replace("/data/", f"{data}/").partition("# Draw segments")
    assert comment
    prepare = Workers.prepare

    def small(self: Workers, kind: str, settings: Mapping[str, Any], *rest: Any) -> Path:
        return prepare(self, kind, {**settings, **TINY.get(kind, {})}, *rest)

    names: dict[str, Any] = {"slicer": slicer, "print": lambda *words: names["printed"].append(words), "printed": []}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workers, "prepare", small)
        exec(compile(first, "README.md", "exec"), names)
        draw(window, names["exam"])
        exec(compile(comment + second, "README.md", "exec"), names)
    assert not pythonqt.slot_errors, pythonqt.slot_errors
    return names


def test_readme_block(console: dict[str, Any]) -> None:
    """Each step left what the README says."""
    import slicer

    assert jobs.status(console["job"]).state == jobs.FINISHED
    assert jobs.status(console["tuned"]).state == jobs.FINISHED
    exam, results = console["exam"], console["results"]
    assert len(results.segmentations) >= 1
    for node in results.segmentations:
        assert slicer.mrmlScene.GetNodeByID(node.GetID()) is node
    rows = {(view, what): value for view, what, value in console["printed"]}
    assert any(what == "LV cavity" and value.endswith(" ml") for (_, what), value in rows.items())
    table = results.table.GetTable()
    assert [tuple(table.GetValue(r, c).ToString() for c in range(3)) for r in range(table.GetNumberOfRows())] == [
        tuple(row) for row in console["printed"]
    ]
    assert exam.first("sax") is not None


class Knowing:
    """Segments with the labels that the exam brings: a network that is always right."""

    card = SimpleNamespace(
        labels=[label_entry(k, k, name) for k, name in {1: "LV cavity", 2: "LV myocardium"}.items()], roles=["sax"]
    )

    def views(self, study: Study) -> list[View]:
        return study.views[:1]

    def segment(self, study: Study, view: View, phase: int) -> Result:
        labels = view.labels(phase)
        assert labels is not None
        ml = voxel_ml(view.planes)
        return Result(view, phase, labels.astype(np.uint8), {"LV cavity": ml * (labels == 1).sum()})


@pytest.mark.parametrize("shifted", [False, True])
def test_cine_of_known_volumes(window: Window, tmp_path: Path, shifted: bool) -> None:
    """EDV, ESV and EF in the table, the curve with one value a phase and the playing segments are the truth."""
    import slicer

    from SSLPanels import corrections
    from SSLPanels import results
    from SSLScene import exams as scene_exams
    from SSLScene import segments
    from SSLScene import undo

    study = toy_study(1, phases=4)
    sax = study.views[0]
    if shifted:
        first = sax.planes[0]
        sax.planes[0] = replace(first, origin=first.origin + 5 * first.x_direction)
    true = [sax.labels(phase) == 1 for phase in range(4)]
    volumes = [voxel_ml(sax.planes) * float(mask.sum()) for mask in true]
    exam = scene_exams.load_study(window.scene, study, "known")
    keyed = replace(study, views=[replace(sax, name="00_sax"), *study.views[1:]])
    document = segment_study(Knowing(), keyed, tmp_path / "segmentation.seg.nrrd")  # type: ignore[arg-type]
    jobs.write_json(tmp_path / "result.json", document)
    found = undo.at_once(results.loading(exam, exam.views[:1], tmp_path))
    rows = {what: value for view, what, value in found.rows if view == "sax"}
    assert rows["LV cavity"] == f"{volumes[0]:.1f} ml"
    assert rows["LV cavity EDV"] == f"{max(volumes):.1f} ml"
    assert rows["LV cavity ESV"] == f"{min(volumes):.1f} ml"
    assert rows["LV cavity EF"] == f"{100 * (max(volumes) - min(volumes)) / max(volumes):.1f} %"
    series = found.chart.GetNthPlotSeriesNode(0)
    assert series.GetYColumnName() == "LV cavity (sax)", "a person's name for the view, not the job's"
    curve = slicer.util.arrayFromTableColumn(series.GetTableNode(), series.GetYColumnName())
    np.testing.assert_allclose(curve, volumes)
    for phase in range(4):
        exam.views[0].browser.SetSelectedItemNumber(phase)
        for k, (node, volume) in enumerate(zip(found.segmentations, exam.views[0].volumes, strict=True)):
            labels, _ = segments.labels_of(window.scene, node, volume, {"LV cavity": 1})
            np.testing.assert_array_equal(labels, true[phase][k : k + 1] if shifted else true[phase])
    # Corrected at the phase that is shown, it comes back as labels of that phase.
    exam.views[0].browser.SetSelectedItemNumber(2)
    collected = read_study(corrections.collect(exam, found.segmentations, tmp_path / "labelled"))
    labelled = [v for v in collected.views if v.labelled]
    read = [v.labels(0) == next(k for k, n in v.label_names.items() if n == "LV cavity") for v in labelled]
    np.testing.assert_array_equal(np.concatenate(read), true[2])
    np.testing.assert_allclose(
        [p.origin for v in labelled for p in v.planes], [p.origin for p in sax.planes], atol=1e-3
    )
    np.testing.assert_array_equal(np.concatenate([v.pixels(0) for v in labelled]), sax.pixels(2))
    # Segmented again, the former result is there but does not lie under the new one; what a person drew stays in sight.
    drawn = segments.add_labels(window.scene, exam, exam.views[0], 1 * true[0], {1: "LV cavity"}, "drawn")
    again = undo.at_once(results.loading(exam, exam.views[:1], tmp_path))
    assert not any(node.GetDisplayNode().GetVisibility() for node in found.segmentations)
    assert all(node.GetDisplayNode().GetVisibility() for node in (*again.segmentations, *drawn))
    undo.remove_all(window.scene, "known")


def test_images_are_not_kept_in_jobs(console: dict[str, Any], window: Window) -> None:
    assert not list((window.home / "jobs").rglob("*.npy"))


@pytest.mark.parametrize("state", [jobs.FINISHED, jobs.FAILED, jobs.CANCELLED])
def test_waiting_for_a_training_hears_of_its_failure(
    window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    """A script that goes on with the model of a pretraining or fine-tuning must not do so without one."""
    made = iter([tmp_path / "first", tmp_path / "second"])

    def run(kind: str, settings: Mapping[str, Any], *rest: Any) -> Path:
        folder = jobs.create(next(made), kind, settings)
        jobs.Reporter(folder).event(state, message="That is how it ended.")
        return folder

    pretraining, logic = window.pretrain.logic, window.segmentation.logic
    for start, workers in ((pretraining.start, pretraining.workers), (logic.finetune, logic.workers)):
        monkeypatch.setattr(workers, "run", run)
        if state == jobs.FINISHED:
            assert jobs.status(start(tmp_path, waitForCompletion=True)).state == state
        else:
            with pytest.raises(RuntimeError, match="how it ended"):
                start(tmp_path, waitForCompletion=True)


def predicted_nodes() -> list[Any]:
    import slicer

    return [n for n in slicer.util.getNodesByClass("vtkMRMLModelNode") if "predicted" in n.GetName()]


def check_predicted(exam: Any, models: list[Any]) -> None:
    """A square for each predicted view, as large as its image."""
    assert len(models) >= 2
    for model in models:
        item = exam.first(model.GetAttribute("SSLSegmentation.Role"))
        points = np.array([model.GetPolyData().GetPoint(k) for k in range(4)])
        edges = np.linalg.norm(points[1] - points[0]), np.linalg.norm(points[2] - points[1])
        np.testing.assert_allclose(edges, max(item.view.planes[0].extent), rtol=1e-6)
        assert model.GetDisplayNode().GetVisibility2D()


def test_readme_predicts_planes(console: dict[str, Any], window: Window) -> None:
    check_predicted(console["exam"], predicted_nodes())


def test_clicks_to_predicted_planes(console: dict[str, Any], window: Window, exams: Path) -> None:
    """The button wakes up with a model that knows lines; a second prediction takes the place of the first."""
    import slicer

    panel = window.segmentation
    for model in predicted_nodes():
        window.scene.RemoveNode(model)
    panel.setExam(console["exam"])
    assert not panel.ui.predictPlanesButton.enabled
    panel.useModel(console["job"] / jobs.MODEL_FILE)
    assert panel.ui.predictPlanesButton.enabled
    panel.parameters.device = "cpu"
    counts = []
    for _ in range(2):
        panel.ui.predictPlanesButton.click()
        assert not panel.ui.predictPlanesButton.enabled, "one job at a time"
        window.spin(lambda: not panel.busy)
        models = predicted_nodes()
        check_predicted(panel.exam, models)
        counts.append(len(models))
        table = panel.ui.resultsTableView.mrmlTableNode()
        assert table.GetName().startswith("Predicted planes")
        assert table.GetTable().GetNumberOfRows() == len(models)
    assert counts[0] == counts[1]
    tables = slicer.util.getNodesByClass("vtkMRMLTableNode")
    assert [node for node in tables if node.GetName().startswith("Predicted planes")] == [table]
    window.picture(panel, "segmentation-predicted", 2100)


def test_doubts_about_planes_are_said_in_the_panel(console: dict[str, Any], window: Window, tmp_path: Path) -> None:
    panel = window.segmentation
    panel.setExam(console["exam"])
    lies = {"point_mm": [0, 0, 0], "normal": [0, 0, 1], "slices_agreeing": 11, "slices": 15, "error_deg": 6.2}
    odd = "lies 15 mm from where the other slices show it; the patient may have moved"
    planes = [
        {"role": "2ch", **lies, "error_mm": 1.0, "doubt": None},
        {"role": "4ch", **lies, "error_mm": 15.1, "doubt": odd},
    ]
    label = panel.ui.doubtsLabel
    for shown, text in ((planes, f"4CH {odd}"), (planes[:1], "")):
        jobs.write_json(tmp_path / "result.json", {"planes": shown})
        panel.segmentPanel._showPlanes(panel.exam, tmp_path)
        assert label.text == text
        assert label._real.isHidden() == (not text)
        assert panel.ui.resultsTableView.mrmlTableNode().GetNumberOfRows() == len(shown)


def distortions_model(path: Path) -> Path:
    """A model that says that it has learned to find distortions; its weights are fresh."""
    from SSLEngine.models import Card
    from SSLEngine.models import save_model
    from SSLEngine.networks.unet import TaskUNet
    from SSLEngine.pretext.distortions import DistortionPrediction
    from SSLEngine.settings import Grid
    from SSLEngine.settings import Network
    from SSLEngine.settings import plain

    heads = {"pixel": {DistortionPrediction.name: DistortionPrediction.pixel_outputs}, "image": {}}
    card = Card(
        kind="pretrained",
        network=plain(Network(widths=(4, 8, 8))),
        heads=heads,
        grid=plain(Grid(spacing_mm=4.0, patch=64)),
        roles=["sax", "2ch", "4ch"],
        pretexts={DistortionPrediction.name: {}},
        normal={"sax": (0.5, 0.1)},
    )
    save_model(path, TaskUNet((4, 8, 8), heads["pixel"]), card)
    return path


def test_a_mask_rcnn_is_put_on_the_model_of_a_unet(
    window: Window, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from SSLEngine.settings import Finetune
    from SSLEngine.starting import completed

    panel, ui = window.segmentation, window.segmentation.ui
    former = panel.parameters.model
    request.addfinalizer(lambda: panel.useModel(former))
    panel.parameters.transfer = type(panel.parameters.transfer)("all")
    panel.useModel(distortions_model(tmp_path / "model.safetensors"))
    assert ui.networkComboBox.enabled
    assert "network" not in panel.modelPanel._settings(), "a model brings its own"
    choose(ui.networkComboBox, "Mask R-CNN: looks for regions")
    request.addfinalizer(lambda: choose(ui.networkComboBox, "U-Net: looks at every pixel"))
    network = completed(panel.modelPanel._settings(), Finetune).network
    assert network is not None
    assert (network.kind, network.mask_rcnn.backbone, network.widths) == ("mask-rcnn", "unet", (4, 8, 8))
    choose(ui.transferComboBox, "Train what it learned before along")
    request.addfinalizer(lambda: choose(ui.transferComboBox, "Train all of the model"))
    assert ui.reasonLabel.text == "A Mask R-CNN learns one thing at a time; choose another transfer."


@pytest.mark.parametrize("start", ["startClassifying", "startAnomalies", "startPlanes"])
def test_a_result_that_cannot_be_shown_is_told(
    window: Window, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, start: str
) -> None:
    import slicer

    panel, told = window.segmentation, []
    click = {"startClassifying": "onClassify", "startAnomalies": "onAnomalies", "startPlanes": "predictPlanes"}[start]
    jobs.write_json(tmp_path / "result.json", {"views": "nonsense"})
    monkeypatch.setattr(panel.logic, start, lambda *rest: tmp_path)
    monkeypatch.setattr(panel, "follow", lambda folder, then: then(folder, jobs.Status(state=jobs.FINISHED)))
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, *rest, **more: told.append(text))
    getattr(panel.segmentPanel, click)()
    window.spin(lambda: bool(told))
    assert not pythonqt.slot_errors
    assert told[0].startswith("The result could not be")


def test_clicks_to_anomalies(window: Window, exams: Path, tmp_path: Path) -> None:
    """Maps over the views that the model knows, and the slices that stand out; a second search replaces the first."""
    import slicer

    panel, former = window.segmentation, window.segmentation.exam
    exam = panel.logic.loadStudy(sorted(exams.iterdir())[-1])
    panel.setExam(exam)
    panel.parameters.device = "cpu"
    assert not panel.ui.anomaliesButton.enabled, "the model has not learned to find distortions"
    path = distortions_model(tmp_path / "model.safetensors")
    panel.useModel(path)
    assert panel.ui.anomaliesButton.enabled
    panel.ui.anomaliesButton.click()
    assert not panel.ui.anomaliesButton.enabled, "one job at a time"
    folder = panel.monitor.folder
    window.spin(lambda: not panel.busy)
    assert not (folder / "input").exists(), "the exam's images are not kept"

    def maps() -> list[Any]:
        found = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        return [node for node in found if " anomalies" in node.GetName()]

    assert len(maps()) == 3
    table = panel.ui.resultsTableView.mrmlTableNode()
    assert table.GetName() == "Anomalies"
    scores = [float(table.GetTable().GetValue(row, 3).ToString()) for row in range(table.GetNumberOfRows())]
    assert scores == sorted(scores, reverse=True)
    assert max(scores) > 0
    window.picture(panel, "segmentation-anomalies", 2100)
    found = panel.logic.anomalies(path, panel.exam, "cpu", waitForCompletion=True)
    assert maps() == found.maps
    sax = panel.exam.first("sax")
    assert found.maps[0].GetName().startswith(f"{sax.view.name} anomalies")
    assert found.maps[0].GetImageData().GetDimensions() == sax.volume.GetImageData().GetDimensions()
    panel.setExam(former)
    panel.logic.removeExam(exam, withSegmentations=True)
    assert not maps()


def test_clicks_to_the_class_of_an_exam(
    window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Learned from a folder of exams with groups, told of the exam at hand; the same figures from the console."""
    from SSLPanels.workers import Workers
    from SSLScene import undo

    cohort = write_group_cohort(tmp_path / "groups", 6)
    panel, former = window.segmentation, window.segmentation.exam
    prepare = Workers.prepare
    small = {"schedule": {"steps": 4, "batch": 16}, "grid": {"spacing_mm": 5.0, "patch": 32}}
    network = {"kind": "unet", "widths": [8, 16, 32]}

    def smaller(self: Workers, kind: str, settings: Mapping[str, Any], *rest: Any) -> Path:
        trains = kind == "finetune"
        return prepare(self, kind, {**settings, **small, "network": network} if trains else settings, *rest)

    monkeypatch.setattr(Workers, "prepare", smaller)
    panel.setExam(None)
    request.addfinalizer(lambda: panel.setExam(former))
    node = panel.parameters
    node.model, node.labelled, node.device = "", "", "cpu"
    ui = panel.ui
    choose(ui.targetKindComboBox, "Classes of exams")
    assert not ui.finetuneButton.enabled
    assert ui.reasonLabel.text == "Choose a pretrained model, or train from scratch."
    assert not ui.networkComboBox.enabled
    choose(ui.transferComboBox, "From scratch, without the model")
    assert ui.networkComboBox.enabled
    assert ui.reasonLabel.text == "Choose the folder of exams whose classes are known."
    ui.labelledPathLineEdit.currentPath = str(cohort)
    assert "groups.csv" in ui.collectedLabel.text
    assert ui.finetuneButton.enabled
    choose(ui.networkComboBox, "Mask R-CNN: looks for regions")
    assert not ui.finetuneButton.enabled
    assert "pretrained" in ui.reasonLabel.text
    choose(ui.networkComboBox, "U-Net: looks at every pixel")
    assert ui.reasonLabel._real.isHidden()
    ui.slicesSpinBox.value = 5
    assert panel.modelPanel._settings()["schedule"] == {"steps": node.steps, "batch": 5}
    ui.slicesSpinBox.value = 8
    ui.finetuneButton.click()
    tuned = panel.monitor.folder
    assert window.spin_to_end(tuned).state == jobs.FINISHED, jobs.log_tail(tuned)
    window.spin(lambda: node.model == str(tuned / jobs.MODEL_FILE))
    assert jobs.load(tuned)["settings"]["target"] == "classification"
    assert "Tells the class of an exam</b> thick, thin" in ui.cardLabel.text
    assert not ui.classifyButton.enabled, "there is no exam"
    # Another transfer's sentence, where the model cannot be taught so.
    choose(ui.transferComboBox, "Train what it learned before along")
    assert "choose another transfer" in ui.reasonLabel.text

    exam = panel.logic.loadStudy(next(p for p in sorted(cohort.iterdir()) if p.is_dir()))
    panel.setExam(exam)
    request.addfinalizer(lambda: panel.logic.removeExam(exam, withSegmentations=True))
    assert not ui.segmentButton.enabled
    assert "has learned no labels" in ui.segmentButton.toolTip
    assert ui.classLabel._real.isHidden()
    assert ui.classifyButton.enabled
    ui.classifyButton.click()
    assert not ui.classifyButton.enabled, "one job at a time"
    window.spin(lambda: not panel.busy)
    assert not pythonqt.slot_errors, pythonqt.slot_errors
    document = jobs.read_json(panel.monitor.folder / "result.json")
    assert document["known"] in ("thick", "thin")
    likely = sorted(document["probabilities"].items(), key=lambda pair: -pair[1])
    assert ui.classLabel.text == ", ".join(f"{name} {100 * share:.0f} %" for name, share in likely)
    table = ui.resultsTableView.mrmlTableNode()
    assert table.GetName() == "Weight of slices"
    assert table.GetNumberOfRows() == len(document["attention"]) == 5
    window.picture(panel, "segmentation-classified", 2100)
    # The slice that counted most comes into the red view, turned as it is.
    ui.decidingSliceButton.click()
    assert not pythonqt.slot_errors, pythonqt.slot_errors
    heaviest = max(document["attention"], key=lambda entry: entry["weight"])
    item = exam.views[int(heaviest["view"][:2])]
    plane = item.view.planes[heaviest["slice"]]
    red = window.scene.GetSingletonNode("Red", "vtkMRMLSliceNode").GetSliceToRAS()
    centre = [red.GetElement(row, 3) for row in range(3)]
    np.testing.assert_allclose(centre, plane.centre * [-1, -1, 1], atol=1e-3)
    composite = window.scene.GetSingletonNode("Red", "vtkMRMLSliceCompositeNode")
    assert composite.GetBackgroundVolumeID() == item.volume_of_slice(heaviest["slice"]).GetID()
    # Again from the console: the same figures, and nothing is left of the first time.
    found = panel.logic.classify(node.model, exam, "cpu", waitForCompletion=True)
    assert (found.group, found.probabilities) == (document["group"], pytest.approx(document["probabilities"]))
    weights = [entry.weight for entry in found.slices]
    assert weights == sorted(weights, reverse=True)
    assert sum(weights) == pytest.approx(1, abs=1e-5)
    own = undo.owned_nodes(window.scene, f"{exam.token} classes", "vtkMRMLTableNode")
    assert own == [found.table, found.weights]
    cells = [found.table.GetTable().GetValue(row, 0).ToString() for row in range(2)]
    assert cells == list(found.probabilities) == [name for name, _ in likely]
    choose(ui.targetKindComboBox, "Segments")
    choose(ui.transferComboBox, "Train all of the model")


def test_clicks_to_a_segmented_folder(console: dict[str, Any], window: Window, exams: Path) -> None:
    panel = window.segmentation
    panel.useModel(console["tuned"] / jobs.MODEL_FILE)
    panel.parameters.device = "cpu"
    choose(panel.ui.scopeComboBox, "All exams of a folder")
    assert not panel.ui.segmentButton.enabled
    panel.ui.batchPathLineEdit.currentPath = str(exams)
    assert panel.ui.segmentButton.enabled
    nodes = window.scene.GetNumberOfNodes()
    panel.ui.segmentButton.click()
    folder = panel.monitor.folder
    assert folder is not None
    window.spin(lambda: not panel.busy)
    assert jobs.status(folder).state == jobs.FINISHED, jobs.log_tail(folder)
    written = {p.parent.name for p in (folder / "segmentations").glob("*/sax.seg.nrrd")}
    assert written == {p.name for p in exams.iterdir() if p.is_dir()}
    kind, text = window.application.messages[-1]
    assert kind == "info"
    assert str(folder / "segmentations") in text
    assert window.scene.GetNumberOfNodes() == nodes, "nothing comes into the scene"
    choose(panel.ui.scopeComboBox, "One view")


def test_clicks_to_a_segmented_cine(console: dict[str, Any], window: Window) -> None:
    panel = window.segmentation
    sax = panel.exam.first("sax")
    panel.parameters.volume = sax.volume
    panel.ui.segmentButton.click()
    window.spin(lambda: not panel.busy)
    assert not panel.ui.volumePlotWidget._real.isHidden()
    assert not panel.ui.seekWidget._real.isHidden()
    assert not panel.ui.playWidget._real.isHidden()
    model = panel.ui.resultsTableView._real.model()
    assert "LV cavity" in [model.item(r, 1).text() for r in range(model.rowCount())]
    # The slider moves images and segments together.
    panel.ui.seekWidget.slider().setValue(1)
    assert sax.browser.GetSelectedItemNumber() == 1
    window.picture(panel, "segmentation-cine-segmented", 2300)


def test_devices_have_names_and_the_forecast_comes_before_the_training(
    console: dict[str, Any], window: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe fills the list; the next panel knows the names; a device of another machine is shown as what it is."""
    import slicer

    from SSLPanels import devices

    panel = window.segmentation

    def listed() -> list[str]:
        box = panel.ui.deviceComboBox
        return [box.itemText(k) for k in range(box.count)]

    panel.parameters.device = "cuda:7"
    assert listed() == ["Automatic", "Processor", "cuda:7 (not found here)"]
    assert panel.ui.deviceComboBox.currentText == "cuda:7 (not found here)"
    panel.parameters.device = "auto"
    panel.ui.probeButton.click()
    assert panel.ui.probeButton.text == "Cancel"
    window.spin(lambda: panel.ui.probeButton.text == "Check devices")
    assert any("cores" in name and "GB free" in name for name in listed())
    assert panel.ui.deviceComboBox.currentText == "Automatic"
    assert [item["device"] for item in devices.known()][-1] == "cpu"
    found = [{"device": f"cuda:{k}", "name": f"Card {k}", "free_bytes": 8.5e9 * (k + 1)} for k in range(2)]
    devices.fill(panel.ui.deviceComboBox, found, "cuda:1")
    assert listed() == ["Automatic", "Card 0 (8.5 GB free)", "Card 1 (17.0 GB free)", "Processor"]
    assert panel.ui.deviceComboBox.currentData == "cuda:1"
    slicer.app.settings().setValue(devices.KEY, "no JSON")
    assert devices.known() == []
    panel.parameters.device = "cpu"
    # The forecast: of a fine-tuning on the exams themselves, which bring labels.
    panel.useModel(console["job"] / jobs.MODEL_FILE)
    choose(panel.ui.labelsComboBox, "Labelled exams of a folder")
    panel.parameters.labelled = str(console["exam"].study.path.parent)
    panel.ui.stepsSpinBox.value = 40
    assert panel.ui.forecastButton.enabled
    panel.ui.forecastButton.click()
    window.spin(lambda: "About" in panel.ui.forecastLabel.text)
    assert "for 40 steps" in panel.ui.forecastLabel.text
    assert "GB" in panel.ui.forecastLabel.text
    window.spin(lambda: not panel.busy)
