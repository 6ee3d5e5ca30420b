"""The two modules' panels, clicked through with real jobs on slicer-core's real scene.

The window round them is a stand-in (``slicer_standin``), strict about what the real application has. What it cannot
show is left to the self-tests that the modules carry for the real application.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed", exc_type=ImportError)
slicer = pytest.importorskip("slicer", reason="slicer-core is not installed", exc_type=ImportError)

from panel_window import ROOT  # noqa: E402
from panel_window import Pulse  # noqa: E402
from panel_window import Window  # noqa: E402
from panel_window import choose  # noqa: E402
from slicer_standin import pythonqt  # noqa: E402
from SSLEngine import jobs  # noqa: E402

MODULES = ("SSLPretrain", "SSLSegmentation")
TINY = (
    "schedule.batch=4; schedule.checkpoint_every=5; schedule.held_out=0; "
    "network.widths=[8,16,32]; grid.spacing_mm=3; grid.patch=64"
)


# ---------------------------------------------------------------------------------------------
# Loading


def run_apart(code: str) -> str:
    """What a clean interpreter prints that finds the sources."""
    paths = [ROOT / "Testing" / "Python", *(ROOT / module for module in MODULES)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_modules_load_fast_and_bring_nothing_heavy() -> None:
    """In a clean interpreter, without what the worker needs, and in well under a second."""
    code = (
        "import sys, time, pytest\n"
        "from pathlib import Path\n"
        "from slicer_standin import boot\n"
        "patch = pytest.MonkeyPatch()\n"
        "application = boot(patch)\n"
        "before = set(sys.modules)\n"
        "begin = time.thread_time()\n"
        f"for path in {[str(ROOT / m / f'{m}.py') for m in MODULES]!r}:\n"
        "    application.load_module(Path(path))\n"
        "print('SECONDS', time.thread_time() - begin)\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print('HEAVY', sorted(new & {'torch', 'monai', 'msgspec', 'safetensors', 'SimpleITK', 'pydicom', 'scipy'}))\n"
    )
    printed = dict(line.split(" ", 1) for line in run_apart(code).splitlines() if line.startswith(("SECONDS", "HEAVY")))
    assert printed["HEAVY"] == "[]"
    assert float(printed["SECONDS"]) < 0.3


def test_reload_reads_the_packages_anew() -> None:
    """The button "Reload" of developer mode: widget, logic and self-test are those of the files as they now stand."""
    code = (
        "import sys, pytest\n"
        "from pathlib import Path\n"
        "from slicer_standin import boot\n"
        "import slicer\n"
        "application = boot(pytest.MonkeyPatch())\n"
        f"for path in {[str(ROOT / m / f'{m}.py') for m in MODULES]!r}:\n"
        "    application.open_panel(application.load_module(Path(path)))\n"
        f"for name in {MODULES!r}:\n"
        "    before, module = getattr(slicer.modules, f'{name}Widget'), sys.modules[name]\n"
        "    before.parameters.device = 'cpu'\n"
        "    before.onReload()\n"
        "    after, again = getattr(slicer.modules, f'{name}Widget'), sys.modules[name]\n"
        "    assert after is not before and again is not module\n"
        "    assert type(after.logic) is not type(before.logic)\n"
        "    assert getattr(again, f'{name}Test') is not getattr(module, f'{name}Test')\n"
        "    assert type(after.logic) is getattr(again, f'{name}Logic')\n"
        "    assert before.parameters is None and after.parameters.device == 'cpu'\n"
        "    after.cleanup()\n"
        "print('RELOADED')\n"
    )
    assert "RELOADED" in run_apart(code)


def test_module_metadata(window: Window) -> None:
    for name in ("sslpretrain", "sslsegmentation"):
        parent = getattr(slicer.modules, name)
        assert parent.categories == ["Segmentation"]
        assert parent.title.startswith("SSL ")
        assert len(parent.helpText) > 80


def test_sample_data_is_offered(window: Window) -> None:
    window.application.app.emit_startup()
    (source,) = slicer.modules.sampleDataSources["SSLSegmentation"]
    assert source.sampleName == "SyntheticHeartMR"
    assert Path(source.thumbnailFileName).is_file()


def test_a_scene_that_was_saved_side_by_side_is_shown_so(window: Window) -> None:
    """The module watches from the start of the application, whether its panel has been opened or not."""
    from SSLScene import layouts

    module = window.segment_module
    assert module.LAYOUT_ID == layouts.LAYOUT_ID
    assert ("startupCompleted()", module.registerLayout) in window.application.app._start
    module.registerLayout()
    node = window.scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    before = node.GetViewArrangement()
    node.SetAttribute(layouts.DESCRIPTION, layouts.layout_xml({}, with_3d=True))
    node.SetViewArrangement(layouts.LAYOUT_ID)
    window.scene.InvokeEvent(window.scene.EndImportEvent)
    assert node.IsLayoutDescription(layouts.LAYOUT_ID)
    assert node.GetLayoutRootElement().GetNumberOfNestedElements() == 1
    node.SetViewArrangement(before)


# ---------------------------------------------------------------------------------------------
# The stand-in is strict


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("qt.QPushButton('x').text()", TypeError),
        ("qt.QPushButton('x').nonsense", AttributeError),
        ("qt.QPushButton('x').connect('klicked(bool)', print)", AssertionError),
        ("qt.QTableWidget(1, 1).setItem(0, 0, 'text')", ValueError),
        ("qt.QTableWidget(1, 1).rowCount()", TypeError),
        ("slicer.util.noSuchFunction", AttributeError),
        ("slicer.app.noSuchMethod", AttributeError),
    ],
)
def test_stand_in_refuses(window: Window, code: str, error: type[Exception]) -> None:
    import qt

    with pytest.raises(error):
        eval(code, {"qt": qt, "slicer": slicer})


def test_stand_in_refuses_wrong_parameters(window: Window) -> None:
    node = window.pretrain.logic.getParameterNode()
    with pytest.raises(ValueError, match="outside"):
        node.patch = 5
    with pytest.raises(TypeError):
        node.seed = 1.5


@pytest.mark.parametrize("module", ["pretrain_module", "segment_module"])
def test_self_tests_of_the_modules(window: Window, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the modules bring for the real application runs here too; a training has its own tests."""
    tested = getattr(window, module)
    name = tested.__name__
    setattr(slicer.modules, f"{name}Widget", window.pretrain if name == "SSLPretrain" else window.segmentation)
    suite = getattr(tested, f"{name}Test")()
    monkeypatch.setattr(suite, "test_training", lambda: None, raising=False)
    suite.runTest()
    assert not pythonqt.slot_errors, pythonqt.slot_errors


# ---------------------------------------------------------------------------------------------
# SSLPretrain


def test_looks_at_exams(window: Window, exams: Path) -> None:
    panel = window.pretrain
    assert not panel.ui.startButton.enabled
    panel.ui.cohortPathLineEdit.currentPath = str(exams)
    assert panel.ui.startButton.enabled
    panel.ui.inspectButton.click()
    assert panel.ui.inspectButton.text == "Cancel"
    assert not panel.ui.probeButton.enabled, "one short task at a time"
    window.spin(lambda: panel.ui.studiesTable.rowCount == 3)
    assert "3 exams, 3 with labels" in panel.ui.studiesLabel.text
    assert "SAX" in panel.ui.studiesTable.item(0, 1).text()
    window.spin(lambda: panel.ui.inspectButton.text == "Look at the exams")
    window.picture(panel, "pretrain-exams")


def test_draws_every_target_on_the_users_own_slices(window: Window, exams: Path) -> None:
    panel = window.pretrain
    panel.ui.cohortPathLineEdit.currentPath = str(exams)
    panel.ui.inspectButton.click()
    window.spin(lambda: panel.ui.inspectButton.text == "Look at the exams")
    nodes = window.scene.GetNumberOfNodes()
    pulse = Pulse()
    panel.ui.targetPreviewButton.click()
    assert "Select an exam" in window.application.messages[-1][1]
    panel.ui.studiesTable.selectRow(0)
    panel.ui.targetPreviewButton.click()
    assert panel.ui.targetPreviewButton.text == "Cancel"
    assert not panel.ui.inspectButton.enabled
    window.spin(lambda: panel.ui.targetPreviewButton.text != "Cancel" and not panel.cohortPanel.targets.active)
    pulse.stop()
    for name in panel.logic.availablePretexts():
        label = getattr(panel.ui, f"{name}TargetLabel")
        assert not label._real.isHidden(), name
        assert label.pixmap is not None
        assert label.pixmap.height() > 100, name
    assert window.scene.GetNumberOfNodes() == nodes
    window.picture(panel, "pretrain-targets", 2100)


def test_says_where_a_target_does_not_exist(window: Window, tmp_path: Path) -> None:
    panel = window.pretrain
    jobs.write_json(tmp_path / "targets.json", {"positions": None, "crossings": "../outside.png"})
    panel.cohortPanel.targets.show(tmp_path)
    window.spin(lambda: not panel.cohortPanel.targets.active)
    assert "nothing to find" in panel.ui.positionsTargetLabel.text
    assert panel.ui.locationTargetLabel._real.isHidden()
    panel.cohortPanel.targets.clear()
    assert panel.ui.positionsTargetLabel._real.isHidden()


def test_a_short_task_is_cancelled_by_its_button(window: Window) -> None:
    panel = window.pretrain
    cohort = panel.parameters.cohort
    panel.ui.syntheticButton.click()
    assert panel.ui.syntheticButton.text == "Cancel"
    window.spin(lambda: " of 12" in panel.ui.studiesLabel.text)
    panel.ui.syntheticButton.click()
    assert not panel.ui.syntheticButton.enabled
    window.spin(lambda: panel.ui.syntheticButton.text == "Make synthetic exams")
    assert panel.ui.studiesLabel.text == "Stopped."
    assert panel.ui.inspectButton.enabled
    assert panel.parameters.cohort == cohort


def test_probes_the_devices(window: Window) -> None:
    panel = window.pretrain
    panel.ui.probeButton.click()
    window.spin(lambda: "PyTorch" in panel.ui.forecastLabel.text)
    names = [panel.ui.deviceComboBox.itemText(i) for i in range(panel.ui.deviceComboBox.count)]
    assert names[0] == "Automatic"
    assert any("cores" in name and "free" in name for name in names)


def test_settings_of_the_panel(window: Window) -> None:
    """What the engine is given, checked by the engine's own validation."""
    from SSLEngine.settings import Pretrain
    from SSLEngine.settings import parse

    panel = window.pretrain
    node = panel.parameters
    panel.ui.extraLineEdit.text = TINY
    panel.ui.stepsSpinBox.value = 60
    panel.ui.seedSpinBox.value = 7
    parsed = parse(panel.logic.settings(node), Pretrain)
    assert parsed.schedule.steps == 60
    assert parsed.seed == 7
    assert parsed.network.widths == (8, 16, 32)
    assert parsed.grid.patch == 64
    panel.ui.distortionsCheckBox.checked = True
    assert parse(panel.logic.settings(node), Pretrain).pretext == ("crossings", "distortions")
    panel.ui.distortionsCheckBox.checked = False
    panel.ui.crossingsCheckBox.checked = False
    with pytest.raises(ValueError, match="Nothing to learn"):
        panel.logic.settings(node)
    panel.ui.crossingsCheckBox.checked = True

    def ticked() -> list[str]:
        return [name for name in panel.logic.availablePretexts() if getattr(node, name)]

    panel.ui.positionsCheckBox.checked = True
    panel.ui.presetComboBox.currentIndex = 1
    panel.ui.presetComboBox.activated(1)
    assert (node.preset.name, node.patch, *ticked()) == ("Knee", 192, "crossings", "location")
    panel.ui.presetComboBox.currentIndex = 0
    panel.ui.presetComboBox.activated(0)
    assert (node.preset.name, panel.ui.patchSpinBox.value, *ticked()) == ("Heart", 144, "crossings")


def test_further_settings_of_a_script_keep_what_they_do_not_name(
    window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    for panel in (window.pretrain, window.segmentation):
        monkeypatch.setattr(panel.logic.workers, "run", lambda kind, settings, *_: given.append(settings) or tmp_path)
    monkeypatch.setattr(window.pretrain.logic, "follow", lambda *_: None)
    more = {"schedule": {"batch": 4}, "data": {"organ": "heart"}, "network": {"widths": [4, 8]}}
    window.pretrain.logic.start(tmp_path, steps=30, settings=more)
    window.segmentation.logic.finetune(tmp_path, steps=30, settings=more)
    for settings in given:
        assert settings["schedule"] == {"steps": 30, "batch": 4}
        assert settings["data"] == {"path": str(tmp_path.resolve()), "organ": "heart"}
        assert settings["network"] == {"kind": "unet", "widths": [4, 8]}
    window.segmentation.logic.finetune(tmp_path, steps=30, settings={"schedule": {"steps": 5}, "device": "cpu"})
    assert (given[-1]["schedule"], given[-1]["device"]) == ({"steps": 5}, "cpu")
    window.pretrain.logic.compare(tmp_path / "model", tmp_path, settings=more)
    assert given[-1]["finetune"]["data"] == {"path": str(tmp_path.resolve()), "organ": "heart"}


def test_a_network_that_cannot_learn_the_pretexts_is_not_started(
    window: Window, exams: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason stands in the panel instead of in a failed job; a script hears it as an error."""
    from SSLEngine.settings import Pretrain
    from SSLEngine.settings import parse

    panel = window.pretrain
    node = panel.parameters
    hidden = panel.ui.reasonLabel._real.isHidden
    assert panel.ui.startButton.enabled
    assert hidden()
    choose(panel.ui.networkComboBox, "Mask R-CNN: looks for regions")
    assert node.network.value == "mask-rcnn"
    for ticks, can in (({"crossings"}, False), ({"crossings", "distortions"}, False), ({"distortions"}, True)):
        for name in ("crossings", "distortions"):
            getattr(panel.ui, f"{name}CheckBox").checked = name in ticks
        assert panel.ui.startButton.enabled is panel.ui.forecastButton.enabled is can, ticks
        assert hidden() is can
        assert ("learns to find distortions and nothing else" in panel.ui.reasonLabel.text) is not can
        if not can:
            with pytest.raises(ValueError, match="nothing else"):
                panel.logic.settings(node)
        if len(ticks) == 2:
            panel.ui.advancedGroupBox.collapsed = False
            window.picture(panel, "pretrain-network", 1700)
            panel.ui.advancedGroupBox.collapsed = True
    parsed = parse(panel.logic.settings(node), Pretrain)
    assert (parsed.network.kind, parsed.pretext) == ("mask-rcnn", ("distortions",))
    assert parsed.network.widths == (8, 16, 32), "further settings of the network stay"
    panel.ui.distortionsCheckBox.checked = False
    assert "Nothing to learn" in panel.ui.reasonLabel.text
    panel.ui.crossingsCheckBox.checked = True
    choose(panel.ui.networkComboBox, "U-Net: looks at every pixel")
    assert panel.ui.startButton.enabled
    # The same from the console.
    asked: list[Any] = []
    monkeypatch.setattr(panel.logic.workers, "run", lambda *arguments: asked.append(arguments) or tmp_path)
    monkeypatch.setattr(panel.logic, "follow", lambda *arguments: None)
    with pytest.raises(ValueError, match="nothing else"):
        panel.logic.start(exams, network="mask-rcnn")
    with pytest.raises(ValueError, match="resnet"):
        panel.logic.start(exams, network="resnet")
    assert not asked
    more = {"network": {"mask_rcnn": {"channels": 32}}}
    panel.logic.start(exams, pretexts=["distortions"], network="mask-rcnn", settings=more)
    (arguments,) = asked
    assert parse(arguments[1], Pretrain).network.kind == "mask-rcnn"
    assert parse(arguments[1], Pretrain).network.mask_rcnn.channels == 32


def test_lists_are_in_words(window: Window) -> None:
    """What a person chooses from reads as words; Slicer would show the names of enumerations."""
    boxes = {
        window.pretrain: {"preset": "presetComboBox", "network": "networkComboBox"},
        window.segmentation: {
            "target": "targetKindComboBox",
            "labelsFrom": "labelsComboBox",
            "transfer": "transferComboBox",
            "network": "networkComboBox",
            "scope": "scopeComboBox",
        },
    }
    for panel, names in boxes.items():
        node = panel.logic.getParameterNode()
        for parameter, name in names.items():
            box = getattr(panel.ui, name)
            before = getattr(node, parameter)
            shown = [box.itemText(k) for k in range(box.count)]
            assert shown == [member.label() for member in type(before)]
            assert all(text[0].isupper() for text in shown)
            # Each choice arrives, and a parameter that is set shows its own words.
            for index, member in enumerate(type(before)):
                box.currentIndex = index
                assert getattr(node, parameter) is member
                setattr(node, parameter, before)
                assert box.currentText == before.label()


def test_every_parameter_is_used(window: Window) -> None:
    """A field of a scene's parameters is tied to a widget, or the code reads it."""
    sources = [*ROOT.glob("SSL*/SSL*.py"), *ROOT.glob("SSLSegmentation/SSLPanels/*.py")]
    code = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    for name, panel in zip(MODULES, (window.pretrain, window.segmentation), strict=True):
        ui = (ROOT / name / "Resources" / "UI" / f"{name}.ui").read_text(encoding="utf-8")
        for field in panel.logic.getParameterNode().allParameters:
            tied = f'<string notr="true">{field}</string>' in ui
            read = re.search(rf"(node|parameters|getParameterNode\(\))\.{field}\b(?!\s*=[^=])", code)
            assert tied or read, f"{name}: '{field}' is written and never read"


def test_forecasts_time_and_memory(window: Window) -> None:
    panel = window.pretrain
    panel.ui.forecastButton.click()
    window.spin(lambda: "About" in panel.ui.forecastLabel.text)
    assert "for 60 steps" in panel.ui.forecastLabel.text
    assert "GB" in panel.ui.forecastLabel.text


def test_pretrains_stops_closes_finds_and_resumes(window: Window) -> None:
    panel = window.pretrain
    panel.ui.stepsSpinBox.value = 400
    pulse = Pulse()
    panel.ui.startButton.click()
    folder = panel.monitor.folder
    assert folder is not None
    window.spin(lambda: jobs.status(folder).step > 5)
    window.spin(lambda: panel.ui.progressBar.value > 0)
    assert "step" in panel.ui.jobStateLabel.text
    window.spin(lambda: "%" in panel.ui.jobsTable.item(0, 3).text() and pulse.ticks > 20)
    assert panel.ui.jobsTable.item(0, 2).text() == "running"
    assert not panel.ui.lossPlotWidget._real.isHidden()
    pulse.stop()
    window.picture(panel, "pretrain-running", 1700)
    # The window closes; the job goes on; a new window finds and follows it.
    panel.cleanup()
    assert jobs.status(folder).state == jobs.RUNNING
    window.pretrain = panel = window.application.open_panel(window.pretrain_module)
    names = [panel.ui.jobsTable.item(r, 0).text() for r in range(panel.ui.jobsTable.rowCount)]
    panel.ui.jobsTable.selectRow(names.index(folder.name))
    panel.ui.followJobButton.click()
    pulse = Pulse()
    window.spin(lambda: panel.ui.stopButton.enabled)
    panel.ui.stopButton.click()
    window.spin(lambda: jobs.status(folder).state == jobs.CANCELLED)
    window.spin(lambda: "stopped" in panel.ui.jobStateLabel.text and pulse.ticks > 20)
    pulse.stop()
    stopped_at = jobs.status(folder).step
    assert 0 < stopped_at < 400
    assert list(folder.glob("checkpoint-*.pt"))
    window.picture(panel, "pretrain-stopped", 1700)
    # Fewer steps are enough for the rest of the way.
    document = jobs.load(folder)
    document["settings"]["schedule"]["steps"] = stopped_at + 5
    jobs.write_json(folder / jobs.JOB_FILE, document)
    panel.ui.resumeButton.click()
    window.spin(lambda: jobs.status(folder).state == jobs.FINISHED)
    window.spin(lambda: "finished" in panel.ui.jobStateLabel.text)
    assert (folder / jobs.MODEL_FILE).is_file()
    panel.jobsPanel.refresh()
    assert panel.ui.jobsTable.item(0, 2).text() == "finished"
    window.model = folder / jobs.MODEL_FILE  # type: ignore[attr-defined]


def test_compares_with_training_from_scratch(
    window: Window, exams: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The few-label study gets settings that the engine takes; its figures become a plot with one curve a way."""
    from SSLEngine.settings import KINDS
    from SSLEngine.settings import parse

    panel = window.pretrain
    asked: list[Any] = []
    monkeypatch.setattr(panel.logic.workers, "run", lambda *arguments: asked.append(arguments) or tmp_path)
    folder = jobs.create(window.home / "jobs" / "made-elsewhere", "pretrain", {})
    (folder / jobs.MODEL_FILE).write_bytes(b"model")
    panel.ui.cohortPathLineEdit.currentPath = str(exams)
    # A job that a terminal made comes into the list by itself.
    window.spin(
        lambda: folder.name in [panel.ui.jobsTable.item(r, 0).text() for r in range(panel.ui.jobsTable.rowCount)]
    )
    names = [panel.ui.jobsTable.item(r, 0).text() for r in range(panel.ui.jobsTable.rowCount)]
    panel.ui.jobsTable.selectRow(names.index(folder.name))
    assert panel.ui.compareJobButton.enabled
    panel.ui.countsLineEdit.text = "1, 2"
    panel.ui.drawsSpinBox.value = 2
    panel.ui.labelsSuffixLineEdit.text = "_label"
    monkeypatch.setattr(panel, "follow", lambda folder: None)
    panel.ui.compareJobButton.click()
    assert not pythonqt.slot_errors, pythonqt.slot_errors
    panel.ui.labelsSuffixLineEdit.text = "_seg"
    # Another job comes above it: the selection stays with the job, and its state keeps up.
    later = jobs.create(window.home / "jobs" / "later", "finetune", {})
    jobs.Reporter(folder).event("failed", message="No.")
    window.spin(lambda: later.name == panel.ui.jobsTable.item(0, 0).text())
    assert panel.jobsPanel.jobList.selected == folder
    assert panel.ui.jobsTable.item(panel.ui.jobsTable.currentRow(), 2).text() == "failed"
    kind, settings = asked[0]
    parsed = parse(settings, KINDS[kind])
    assert parsed.finetune.init == str(folder / jobs.MODEL_FILE)  # type: ignore[attr-defined]
    assert parsed.finetune.data.labels_suffix == "_label"  # type: ignore[attr-defined]
    assert parsed.seeds == 2  # type: ignore[attr-defined]
    assert parsed.counts == (1, 2)  # type: ignore[attr-defined]
    summary = [{"count": 1, "scratch": 0.5, "pretrained": 0.7}, {"count": 2, "scratch": 0.6, "pretrained": 0.75}]
    jobs.write_json(tmp_path / "results.json", {"target": "classification", "summary": summary})
    panel.jobsPanel.showComparison(tmp_path)
    chart = panel.ui.studyPlotWidget.mrmlPlotViewNode().GetPlotChartNode()
    assert chart.GetYAxisTitle() == "AUC"
    jobs.write_json(tmp_path / "results.json", {"summary": summary})
    panel.jobsPanel.showComparison(tmp_path)
    chart = panel.ui.studyPlotWidget.mrmlPlotViewNode().GetPlotChartNode()
    assert chart.GetYAxisTitle() == "mean Dice"
    assert chart.GetNumberOfPlotSeriesNodes() == 2
    assert slicer.util.arrayFromTableColumn(chart.GetNthPlotSeriesNode(0).GetTableNode(), "pretrained").tolist() == [
        0.7,
        0.75,
    ]
    from SSLScene import undo

    undo.remove_all(window.scene, "SSLSegmentation.FewLabels")


def test_the_card_of_a_classification_model_names_its_classes(window: Window) -> None:
    from SSLPanels.model_card import can_segment
    from SSLPanels.model_card import describe

    card = {"kind": "classification", "groups": ["normal", "<b>thick</b>"], "labels": []}
    assert not can_segment(card)
    assert describe(card) == "<b>Tells the class of an exam</b> normal, &lt;b&gt;thick&lt;/b&gt;"


def node_names(window: Window) -> set[str]:
    """All nodes, but for the views that belong to a panel's widgets."""
    nodes = [window.scene.GetNthNode(k) for k in range(window.scene.GetNumberOfNodes())]
    nodes = [node for node in nodes if not node.IsA("vtkMRMLAbstractViewNode")]
    return {f"{node.GetClassName()} {node.GetName()}" for node in nodes}


#: Stands for Python in ``jobs.start``: runs the real engine after a few words of its own.
ENGINE = "import runpy, sys; {words}; sys.argv[:3] = ['sslengine']; runpy.run_module('SSLEngine', run_name='__main__')"
FAULTS = {
    # What there is now, and 300 MB more.
    "no memory": (
        "import resource, torch, monai, monai.networks.nets, monai.losses, SimpleITK, scipy.stats; "
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize(); "
        "resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)"
    ),
    "missing package": "sys.modules['monai'] = None",
    "no settings": "sys.modules['msgspec'] = None",
    "nothing installed": "sys.modules['numpy'] = None",
}


@pytest.mark.parametrize(
    ("fault", "code", "sentence"),
    [
        ("settings", 2, "steps"),
        ("no exams", 2, "holds no image"),
        ("broken file", 2, "broken.nii.gz"),
        ("no memory", 4, "Out of memory: start again with fewer 'Slices per step'"),
        ("missing package", 1, "The Python package 'monai' is missing"),
        ("no settings", 1, "The Python package 'msgspec' is missing"),
        ("nothing installed", None, "Python package is missing"),
        ("killed", None, "ended from outside"),
    ],
)
def test_failing_jobs_say_why(
    window: Window, exams: Path, tmp_path: Path, fault: str, code: int | None, sentence: str
) -> None:
    """One sentence, the end of the log, where the log is; nothing half-made in the folder or in the scene."""
    panel = window.pretrain
    before = node_names(window)
    settings: dict[str, Any] = {
        "data": {"path": str(exams)},
        "schedule": {"steps": 3000},
        "grid": {"patch": 64},
        "network": {"widths": [8, 16, 32]},
    }
    if fault == "settings":
        settings["schedule"] = {"steps": "many"}
    elif fault == "no memory":
        settings |= {"grid": {"patch": 512}, "schedule": {"batch": 128}}
    elif fault in ("no exams", "broken file"):
        (tmp_path / "exams").mkdir()
        settings["data"] = {"path": str(tmp_path / "exams")}
    if fault == "broken file":
        whole = next(exams.rglob("*.nii.gz")).read_bytes()
        (tmp_path / "exams" / "broken.nii.gz").write_bytes(whole[: len(whole) // 2])
    folder = jobs.create(tmp_path / "job", "pretrain", settings)
    jobs.start(folder, [sys.executable, "-c", ENGINE.format(words=FAULTS[fault])] if fault in FAULTS else None)
    panel.follow(folder)
    if fault == "killed":
        window.spin(lambda: jobs.status(folder).step > 0)
        jobs.kill(folder)
    window.spin(lambda: not panel.monitor.follower.active)
    assert jobs.status(folder).state == (jobs.LOST if code is None else jobs.FAILED)
    assert [e["code"] for e in jobs.Events(folder).new() if e["event"] == "failed"] == ([] if code is None else [code])
    assert sentence in panel.ui.jobStateLabel.text
    first, *rest = panel.ui.logText.plainText.splitlines()
    assert sentence in first
    assert "Traceback" not in first
    assert rest[-1].endswith(str(folder / jobs.LOG_FILE))
    # The worker's last words may come after the event that the window hears of.
    told = {line for line in jobs.log_tail(folder, 8).splitlines() if not line.startswith("sslengine: ")}
    assert told <= set(rest)
    assert panel.ui.resumeButton.enabled
    assert not panel.ui.stopButton.enabled
    assert not (folder / jobs.MODEL_FILE).exists()
    assert not list(folder.glob("*.part"))
    panel.curves.clear()
    assert node_names(window) <= before
    window.picture(panel, f"pretrain-failed-{fault.replace(' ', '-')}", 1500)


#: A worker that obeys nothing, or only SIGTERM.
STUBBORN = """
import signal, sys, time
from pathlib import Path
from SSLEngine import jobs

with jobs.worker(Path(sys.argv[5])) as reporter:
    if jobs.load(Path(sys.argv[5]))["settings"]["deaf"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    reporter.event("started")
    while not reporter._asked:
        time.sleep(0.02)
    reporter.event("cancelled", message="Stopped.")
"""


@pytest.mark.parametrize(("deaf", "state"), [(False, jobs.CANCELLED), (True, jobs.LOST)])
def test_stop_insists_until_the_worker_has_ended(window: Window, tmp_path: Path, deaf: bool, state: str) -> None:
    """First STOP, which these workers do not look for, then SIGTERM, then the end of the process tree."""
    panel = window.pretrain
    script = tmp_path / "worker.py"
    script.write_text(STUBBORN, encoding="utf-8")
    folder = jobs.create(tmp_path / "job", "pretrain", {"deaf": deaf})
    jobs.start(folder, [sys.executable, str(script)])
    panel.follow(folder)
    window.spin(lambda: "started" in [e["event"] for e in jobs.Events(folder).new()])
    # Another window's STOP does not take this one's button away.
    jobs.stop(folder)
    panel.monitor.follower.poll()
    assert panel.ui.stopButton.enabled
    patience = panel.monitor.follower.patience_s
    panel.monitor.follower.patience_s = (1.0, 2.5)
    begin = time.monotonic()
    panel.ui.stopButton.click()
    assert not panel.ui.stopButton.enabled
    window.spin(lambda: not panel.monitor.follower.active)
    took = time.monotonic() - begin
    panel.monitor.follower.patience_s = patience
    assert patience == (60.0, 75.0)
    assert jobs.status(folder).state == state
    assert took > (2.5 if deaf else 1.0)
    assert panel.monitor.follower.killed == deaf
    assert ("did not answer" in panel.ui.jobStateLabel.text) == deaf
    assert panel.ui.resumeButton.enabled


# ---------------------------------------------------------------------------------------------
# SSLSegmentation


def test_loads_an_exam_and_shows_its_planes(window: Window, exams: Path) -> None:
    import qt

    panel = window.segmentation
    window.picture(panel, "segmentation-empty", 2000)
    assert not panel.ui.loadStudyButton.enabled
    panel.ui.studyPathLineEdit.currentPath = str(sorted(exams.iterdir())[0])
    panel.ui.loadStudyButton.click()
    assert not panel.ui.loadStudyButton.enabled, "one exam at a time"
    window.spin(lambda: panel.exam is not None)
    assert panel.ui.loadStudyButton.enabled
    roles = [item.view.role for item in panel.exam.views]
    assert set(roles) >= {"sax", "2ch", "4ch"}
    assert panel.ui.viewsTable.rowCount == len(roles)
    panel.ui.linesButton.click()
    models = [m for m in slicer.util.getNodesByClass("vtkMRMLModelNode") if not m.GetHideFromEditors()]
    assert all(model.GetDisplayNode().GetVisibility2D() for model in models)
    assert len(models) == len(roles)
    panel.ui.planesTable.item(0, 0).setCheckState(qt.Qt.Unchecked)
    assert not models[0].GetDisplayNode().GetVisibility()
    panel.ui.crossingsGroupBox.collapsed = False
    window.spin(lambda: not panel.planesPanel.working)
    assert panel.ui.crossingsTableView.mrmlTableNode().GetNumberOfRows() == len(roles) * (len(roles) - 1) // 2
    panel.ui.targetComboBox.currentIndex = 1
    window.spin(lambda: not panel.planesPanel.working)
    assert slicer.app.layoutManager().sliceWidget("Red").mrmlSliceCompositeNode().GetForegroundVolumeID()
    panel.ui.targetComboBox.currentIndex = 0
    panel.ui.crossingButton.click()
    window.picture(panel, "segmentation-planes", 2100)
    # A person knows better what the last view is: role, attribute and planes follow.
    box = panel.ui.viewsTable.cellWidget(len(roles) - 1, 0)
    box.currentIndex = box.findData("rvot")
    assert not pythonqt.slot_errors, pythonqt.slot_errors
    assert panel.exam.views[-1].view.role == "rvot"
    assert panel.exam.views[-1].volume.GetAttribute("SSLSegmentation.Role") == "rvot"
    assert "RVOT" in panel.ui.planesTable.item(len(roles) - 1, 1).text()
    # It stays when another phase is shown: a proxy takes its attributes from the frame.
    panel.exam.views[-1].browser.SetSelectedItemNumber(1)
    assert panel.exam.views[-1].volume.GetAttribute("SSLSegmentation.Role") == "rvot"
    panel.ui.removeExamButton.click()
    assert not pythonqt.slot_errors
    assert panel.exam is None
    # The slices themselves are models too, hidden ones.
    for kind in ("vtkMRMLModelNode", "vtkMRMLScalarVolumeNode", "vtkMRMLTableNode"):
        assert not [n.GetName() for n in slicer.util.getNodesByClass(kind) if not n.GetHideFromEditors()]


def test_a_slice_is_shown_where_its_image_is(window: Window, request: pytest.FixtureRequest) -> None:
    """In its view side by side; an image that is not among them takes a slice view that is to be seen."""
    from SSLScene import exams
    from SSLScene import layouts
    from SSLScene import undo
    from SSLScene.classes import WeighedSlice
    from toy_exams import toy_study

    exam = exams.load_study(window.scene, toy_study(1, phases=2), "weighed")
    request.addfinalizer(lambda: undo.remove_all(window.scene, "weighed"))
    go, sax, two, four = window.segmentation.logic.goToSlice, *exam.views

    def shown(name: str) -> str:
        return str(layouts.composite_node(window.scene, name).GetBackgroundVolumeID())

    layouts.show_views(window.scene, exam)
    go(exam, WeighedSlice(two, 0, 1, 1.0))
    assert [shown(name) for name in ("Red", "Green", "Yellow")] == [v.volume.GetID() for v in (sax, two, four)]
    assert two.shown_phase == 1
    layouts.show_views(window.scene, exam, [two])
    go(exam, WeighedSlice(sax, 3, 0, 1.0))
    assert (shown("Red"), shown("Green")) == (sax.volume.GetID(), sax.volume.GetID()), "Red is not to be seen"
    centre = layouts.slice_node(window.scene, "Green").GetSliceToRAS()
    assert [centre.GetElement(k, 3) for k in range(3)] == pytest.approx(sax.view.planes[3].centre * [-1, -1, 1])
    layouts.show_views(window.scene, exam, [four, sax], layout=layouts.FOUR_UP)
    go(exam, WeighedSlice(two, 0, 0, 1.0))
    assert shown("Red") == two.volume.GetID(), "another layout"


def test_a_tall_panel_leaves_no_gaps(window: Window) -> None:
    """What is left of the height lies below the last section, not within one."""
    for panel, names in (
        (window.pretrain, ("exams", "pretexts", "settings", "run", "jobs")),
        (window.segmentation, ("exam", "planes", "model", "segment")),
    ):
        window.picture(panel, f"{type(panel).__name__}-tall", 3000)
        for name in names:
            section = getattr(panel.ui, f"{name}CollapsibleButton")._real
            wanted = max(section.sizeHint().height(), section.heightForWidth(section.width()))
            assert section.height() <= wanted, f"{name}: {section.height()} px for {wanted}"


def test_a_broken_exam_leaves_the_scene_as_it_was(window: Window, tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"no image")
    before = window.scene.GetNumberOfNodes()
    with pytest.raises(ValueError, match=r"a\.nii\.gz|nothing|no "):
        window.segmentation.logic.loadStudy(tmp_path)
    assert window.scene.GetNumberOfNodes() == before


def test_dropped_folder_is_loaded(window: Window, exams: Path) -> None:
    """Qt's own events, as a file manager causes them; what is no file is not taken."""
    from PySide6 import QtCore
    from PySide6 import QtGui

    panel = window.segmentation
    label = panel.examPanel.dropLabel._real
    place, copy = QtCore.QPointF(5, 5), QtCore.Qt.DropAction.CopyAction
    none, left = QtCore.Qt.KeyboardModifier.NoModifier, QtCore.Qt.MouseButton.LeftButton

    def drop(mime: QtCore.QMimeData) -> bool:
        enter = QtGui.QDragEnterEvent(place.toPoint(), copy, mime, left, none)
        # Qt sets it to not accepted before it asks the widget.
        enter.ignore()
        window.application.qapp.sendEvent(label, enter)
        if enter.isAccepted():
            window.application.qapp.sendEvent(label, QtGui.QDropEvent(place, copy, mime, left, none))
        return enter.isAccepted()

    words = QtCore.QMimeData()
    words.setText("no file")
    assert not drop(words)
    dropped = QtCore.QMimeData()
    dropped.setUrls([QtCore.QUrl.fromLocalFile(str(sorted(exams.iterdir())[1]))])
    assert drop(dropped)
    window.spin(lambda: panel.exam is not None)
    assert panel.exam.study.name == sorted(exams.iterdir())[1].name
    assert panel.parameters.study == str(sorted(exams.iterdir())[1])


def started(window: Window, kind: str) -> Path:
    """The job that follows upon the collecting of segments."""
    panel = window.segmentation
    window.spin(lambda: not panel.correctPanel.collecting)
    assert panel.monitor.folder is not None
    assert panel.monitor.folder.name.startswith(kind)
    return panel.monitor.folder


def draw_labels(window: Window) -> Any:
    """A person's segmentation of the short-axis view: here the phantom's own labels."""
    from SSLEngine.studies import read_study
    from SSLScene import segments

    exam = window.segmentation.exam
    item, known = exam.first("sax"), read_study(exam.study.path).first("sax")
    labels = known.labels(0)
    names = dict(known.label_names) or {int(v): f"Label {v}" for v in sorted(set(labels.ravel())) if v}
    return segments.add_labels(window.scene, exam, item, labels, names, "drawn")[0]


def test_fine_tunes_on_the_scenes_segments(window: Window) -> None:
    panel = window.segmentation
    panel.useModel(window.model)  # type: ignore[attr-defined]
    assert "Pretrained" in panel.ui.cardLabel.text
    assert not panel.ui.segmentButton.enabled, "a pretrained model cannot segment yet"
    node = draw_labels(window)
    panel.parameters.segmentation = node
    panel.parameters.labelled = str(window.home / "labelled")
    panel.ui.stepsSpinBox.value = 4
    assert panel.ui.finetuneButton.enabled
    panel.ui.finetuneButton.click()
    assert not panel.ui.finetuneButton.enabled, "the segments are collected first"
    folder = started(window, "finetune")
    assert not pythonqt.slot_errors
    assert len(list((window.home / "labelled").glob("*/study.json"))) == 1
    window.spin_to_end(folder)
    assert jobs.status(folder).state == jobs.FINISHED, jobs.log_tail(folder)
    window.spin(lambda: panel.parameters.model == str(folder / jobs.MODEL_FILE))
    assert "Segments" in panel.ui.cardLabel.text
    assert "LV" in panel.ui.cardLabel.text
    window.picture(panel, "segmentation-finetuned", 2200)


def test_collected_labels_are_the_drawn_ones(window: Window) -> None:
    """What the engine reads back is, voxel by voxel, what was drawn, under the same names."""
    import numpy as np

    from SSLEngine.studies import read_study

    (folder,) = (p.parent for p in (window.home / "labelled").glob("*/study.json"))
    study = read_study(folder)
    written = study.first("sax")
    drawn = read_study(window.segmentation.exam.study.path).first("sax")
    assert written is not None
    assert written.labelled
    assert np.array_equal(written.planes[0].origin.round(3), drawn.planes[0].origin.round(3))
    truth = {drawn.label_names[v]: drawn.labels(0) == v for v in drawn.label_names if (drawn.labels(0) == v).any()}
    found = {name: written.labels(0) == v for v, name in written.label_names.items()}
    assert set(truth) <= set(found)
    for name, mask in truth.items():
        assert np.array_equal(found[name], mask), name


def test_segments_a_view_into_nodes(window: Window) -> None:
    panel = window.segmentation
    panel.parameters.volume = panel.exam.first("sax").volume
    panel.parameters.largestComponent = False
    before = window.count("vtkMRMLSegmentationNode")
    assert panel.ui.segmentButton.enabled
    panel.ui.segmentButton.click()
    folder = panel.monitor.folder
    assert not panel.ui.segmentButton.enabled, "one job at a time"
    window.spin_to_end(folder)
    assert jobs.status(folder).state == jobs.FINISHED, jobs.log_tail(folder)
    window.spin(lambda: window.count("vtkMRMLSegmentationNode") > before)
    node = panel.parameters.segmentation
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is panel.exam.first("sax").volume
    names = [
        node.GetSegmentation().GetNthSegment(k).GetName() for k in range(node.GetSegmentation().GetNumberOfSegments())
    ]
    assert "LV cavity" in names
    segment = node.GetSegmentation().GetNthSegment(names.index("LV cavity"))
    assert "87878005" in segment.GetTerminology()
    assert segment.GetColor() == pytest.approx((214 / 255, 69 / 255, 65 / 255), abs=1e-3)
    assert panel.ui.resultsTableView.mrmlTableNode().GetNumberOfRows() >= len(names)
    window.picture(panel, "segmentation-segmented", 2300)


def test_takes_up_the_exam_of_a_saved_scene(window: Window) -> None:
    panel = window.segmentation
    before = panel.exam
    roles = [(item.view.role, item.volume) for item in before.views]
    panel.setExam(None)
    panel.onSceneEndImport()
    assert [(item.view.role, item.volume) for item in panel.exam.views] == roles
    assert panel.exam.token == before.token
    panel.setExam(before)


def test_console(window: Window) -> None:
    """What the documentation shows for scripts: sample data, then a cine segmented while the script waits."""
    logic = window.segment_module.SSLSegmentationLogic()
    (source,) = slicer.modules.sampleDataSources["SSLSegmentation"]
    volumes = source.customDownloader(source)
    assert len(volumes) >= 3
    before = window.count("vtkMRMLSegmentationNode")
    results = logic.segment(window.segmentation.parameters.model, volumes[0], waitForCompletion=True)
    assert window.count("vtkMRMLSegmentationNode") == before + len(results.segmentations) == before + 1
    node = results.segmentations[0]
    browser = slicer.modules.sequences.logic().GetFirstBrowserNodeForProxyNode(volumes[0])
    assert browser.IsProxyNode(node.GetID()), "the segments follow the phase that is shown"
    assert browser.GetSequenceNode(node).GetNumberOfDataNodes() == browser.GetNumberOfItems() > 1
    assert browser.GetSaveChanges(browser.GetSequenceNode(node)), "corrections of a phase are kept"
    assert results.chart is not None
    with pytest.raises(RuntimeError, match="absent"):
        logic.segment(window.home / "absent.safetensors", volumes[0], waitForCompletion=True)
    assert window.count("vtkMRMLSegmentationNode") == before + 1
    window.scene.RemoveNode(browser)


def test_corrects_and_fine_tunes_again(window: Window) -> None:
    import numpy as np

    from SSLScene import segments

    panel = window.segmentation
    node, volume = panel.parameters.segmentation, panel.exam.first("sax").volume
    editor = panel.ui.segmentEditorWidget
    assert editor.segmentationNode() is node
    assert editor.sourceVolumeNode() is volume
    editor.setActiveEffectByName("Paint")
    # A stroke of the brush in the last segment, which lies over the others.
    painted = segments.segment_names(node)[-1]
    identifier = node.GetSegmentation().GetSegmentIdBySegmentName(painted)
    mask = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
    mask[:, 20:40, 30:50] = 1
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, identifier, volume)
    window.scene.RemoveNode(slicer.util.getFirstNodeByClassByName("vtkMRMLSegmentationNode", "drawn"))
    panel.correctPanel.update()
    panel.ui.collectButton.click()
    window.spin(lambda: not panel.busy)
    (collected,) = (p.parent for p in (window.home / "labelled").glob("*/study.json"))
    assert window.application.messages[-1] == ("status", f"Collected in {collected}")
    panel.ui.finetuneButton.click()
    folder = started(window, "finetune")
    window.spin_to_end(folder)
    assert jobs.status(folder).state == jobs.FINISHED, jobs.log_tail(folder)
    window.spin(lambda: not panel.busy)
    from SSLEngine.studies import read_study

    study = read_study(next((window.home / "labelled").glob("*/study.json")).parent)
    view = study.first("sax")
    value = {n: v for v, n in view.label_names.items()}[painted]
    assert np.array_equal(view.labels(0) == value, mask > 0)


def test_exports(window: Window, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file holds the segments on the exam's grid; DICOM SEG of an exam that is no DICOM says so."""
    import numpy as np
    import qt

    from SSLEngine.studies.labels import read_label_file

    panel = window.segmentation
    path = tmp_path / "saved.seg.nrrd"
    monkeypatch.setattr(type(qt.QFileDialog), "getSaveFileName", lambda *_: str(path), raising=False)
    panel.ui.exportNrrdButton.click()
    from SSLScene import segments

    item = panel.exam.first("sax")
    labels, names = segments.labels_of(window.scene, panel.parameters.segmentation, item.volume)
    written = read_label_file(path)
    read = written.reader(item.view.planes)(0)
    for value, name in names.items():
        stored = [v for v, n in written.names.items() if n == name]
        assert np.array_equal(read == stored[0], labels == value), name
    path = tmp_path / "saved.dcm"
    item.view.attributes = {**item.view.attributes, "series_uid": "1.2.3"}
    if item.browser is not None:
        item.browser.SetSelectedItemNumber(1)
    panel.ui.exportDicomButton.click()
    folder = panel.monitor.folder
    window.spin(lambda: not panel.busy)
    settings = jobs.load(folder)["settings"]
    assert (settings["series"], settings["phase"]) == ("1.2.3", item.shown_phase)
    assert jobs.status(folder).state == jobs.FAILED
    assert "no single-frame DICOM images" in jobs.status(folder).message
    assert window.application.messages[-1][0] == "error"


def test_state_is_kept_in_the_scene_and_closing_clears(window: Window, tmp_path: Path) -> None:
    panel = window.segmentation
    model = panel.parameters.model
    panel.exit()
    assert panel.parameters is None
    panel.enter()
    assert panel.parameters.model == model
    window.scene.Clear(0)
    window.application.qapp.processEvents()
    assert panel.exam is None
    assert panel.ui.viewsTable.rowCount == 0
    assert panel.parameters.model == ""
    assert not pythonqt.slot_errors, pythonqt.slot_errors


def test_model_files_are_recognised(window: Window, tmp_path: Path) -> None:
    reader = window.segment_module.SSLSegmentationFileReader(SimpleNamespace(loadedNodes=None))
    assert reader.canLoadFile(str(window.model))  # type: ignore[attr-defined]
    (tmp_path / "other.safetensors").write_bytes(b"\x02\x00\x00\x00\x00\x00\x00\x00{}")
    assert not reader.canLoadFile(str(tmp_path / "other.safetensors"))
    assert not reader.canLoadFile(str(tmp_path / "absent.safetensors"))
    assert reader.load({"fileName": str(window.model)})  # type: ignore[attr-defined]
    assert window.segmentation.parameters.model == str(window.model)  # type: ignore[attr-defined]


def test_requirements_ask_before_they_install(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    from SSLPanels import requirements

    path = ROOT / "SSLPretrain" / "Resources" / "requirements.txt"
    monkeypatch.setattr(requirements, "installed", lambda name: None if name == "msgspec" else "99")
    window.application.installed.clear()
    requirements.ensure(path, "a test")
    assert window.application.installed == [["msgspec>=0.18"]]
    # Slicer 5.10 has no slicer.packaging; a person who declines is not overruled.
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    window.application.installed.clear()
    window.application.answers.append(False)
    with pytest.raises(requirements.RequirementsMissing, match="msgspec"):
        requirements.ensure(path, "a test")
    assert not window.application.installed
    requirements.ensure(path, "a test")
    assert window.application.installed == [["--no-deps", "--only-binary=:all:", "msgspec>=0.18"]]


def test_torch_stays_out_of_the_application(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorchUtils imports what it has installed; here it must not succeed in that, and must not be missed either."""
    from types import ModuleType

    from SSLPanels import requirements

    seen: list[bool] = []

    class PyTorchUtilsLogic:
        def installTorch(self, **options: object) -> None:
            present["torch"] = "2.13.0"
            seen.append(bool(options["askConfirmation"]))
            import torch  # noqa: F401

    present: dict[str, str | None] = {"torch": None}
    utils = ModuleType("PyTorchUtils")
    utils.PyTorchUtilsLogic = PyTorchUtilsLogic  # type: ignore[attr-defined]
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == "torch"}
    monkeypatch.setitem(sys.modules, "PyTorchUtils", utils)
    monkeypatch.setattr(requirements, "installed", lambda name: present.get(name, "99"))
    try:
        requirements.ensure(ROOT / "SSLPretrain" / "Resources" / "requirements.txt", "a test")
        assert seen == [True]
        assert "torch" not in sys.modules
    finally:
        sys.modules.update(kept)


def test_missing_pytorch_extension_is_offered(window: Window, monkeypatch: pytest.MonkeyPatch) -> None:
    from SSLPanels import requirements

    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    monkeypatch.setattr(requirements, "installed", lambda name: None if name == "torch" else "99")
    with pytest.raises(requirements.RequirementsMissing, match="Extensions Manager"):
        requirements.ensure(ROOT / "SSLPretrain" / "Resources" / "requirements.txt", "a test")
    assert "PyTorch" in window.application.extensions.asked
