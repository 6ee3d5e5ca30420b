"""The self-test of SSLPretrain for the real application."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer

from SSLEngine import jobs

from . import wording
from .choices import Network
from .choices import Preset
from .follower import wait
from .self_test import SelfTest

WAIT_S = 120


class SSLPretrainTest(SelfTest):
    """The panel, a job that cannot succeed, and one that can where the worker has what it needs."""

    def test_panel(self) -> None:
        """Every widget that the module uses came out of the .ui file as what it should be."""
        panel = self.panel()
        expected = {
            "cohortPathLineEdit": "ctkPathLineEdit",
            "presetComboBox": "QComboBox",
            "studiesTable": "QTableWidget",
            "stepsSpinBox": "QSpinBox",
            "networkComboBox": "QComboBox",
            "spacingSpinBox": "QDoubleSpinBox",
            "advancedGroupBox": "ctkCollapsibleGroupBox",
            "lossPlotWidget": "qMRMLPlotWidget",
            "logText": "QPlainTextEdit",
        }
        self.checkWidgets(panel, expected)
        self.assertIs(panel.ui.lossPlotWidget.mrmlScene(), slicer.mrmlScene)
        self.assertFalse(panel.ui.startButton.enabled)
        panel.exit()
        panel.enter()

    def test_parameters(self) -> None:
        """Widgets and parameters follow each other, and a closed scene gives the defaults back."""
        panel = self.panel()
        panel.ui.stepsSpinBox.value = 123
        self.assertEqual(panel.logic.getParameterNode().steps, 123)
        panel.logic.getParameterNode().seed = 5
        self.assertEqual(panel.ui.seedSpinBox.value, 5)
        panel.ui.presetComboBox.currentIndex = 1
        self.assertEqual(panel.logic.getParameterNode().preset, Preset.Knee)
        self.assertEqual(panel.ui.presetComboBox.currentText, Preset.Knee.label())
        panel.logic.getParameterNode().network = Network.MaskRcnn
        self.assertEqual(panel.ui.networkComboBox.currentText, Network.MaskRcnn.label())
        panel.curves.start("self-test")
        panel.curves.add([{"event": "progress", "step": 1, "loss": 2.0}, {"event": "progress", "step": 2, "loss": 1.0}])
        panel.curves.add([{"event": "validated", "step": 2, "scores": {"positions": {"hit_rate": 0.5}}}])
        slicer.app.processEvents()
        slicer.mrmlScene.Clear(0)
        self.assertEqual(panel.logic.getParameterNode().steps, 0)

    def _job(self, kind: str, settings: dict[str, Any]) -> Path:
        folder = Path(slicer.util.tempDirectory()) / kind
        jobs.create(folder, kind, settings)
        jobs.start(folder)
        return folder

    def test_failing_job(self) -> None:
        """A job on an empty folder fails with a sentence, in a process of PythonSlicer, followed by the panel."""
        panel = self.panel()
        empty = slicer.util.tempDirectory()
        folder = self._job("inspect", {"path": empty})
        panel.follow(folder)
        status = wait(folder, WAIT_S)
        panel.monitor.follower.poll()
        self.assertIn(status.state, (jobs.FAILED, jobs.LOST))
        self.assertIn(str(folder), wording.failure(folder, status))
        self.assertFalse(panel.ui.stopButton.enabled)

    def test_training(self) -> None:
        """Synthetic exams, a tiny pretraining, stopped and resumed; only where the worker's packages are installed."""
        self.needsTraining()
        exams = Path(slicer.util.tempDirectory()) / "exams"
        made = self._job("phantom", {"organ": "heart", "studies": 2, "seed": 0, "out": str(exams)})
        self.assertEqual(wait(made, WAIT_S).state, jobs.FINISHED, jobs.log_tail(made))
        settings = {
            "data": {"path": str(exams)},
            "grid": {"spacing_mm": 3.0, "patch": 64},
            "network": {"widths": [8, 16, 32]},
            "schedule": {"steps": 20, "batch": 4},
        }
        folder = self._job("pretrain", settings)
        panel = self.panel()
        panel.follow(folder)
        while jobs.status(folder).state == jobs.RUNNING and jobs.status(folder).step < 2:
            slicer.app.processEvents()
        panel.monitor.stop()
        self.assertIn(wait(folder, WAIT_S).state, (jobs.CANCELLED, jobs.FINISHED), jobs.log_tail(folder))
        if jobs.status(folder).state == jobs.CANCELLED:
            panel.logic.resume(folder)
        self.assertEqual(wait(folder, WAIT_S).state, jobs.FINISHED, jobs.log_tail(folder))
        self.assertTrue((folder / jobs.MODEL_FILE).is_file())
