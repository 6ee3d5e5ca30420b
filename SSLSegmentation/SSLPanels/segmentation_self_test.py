"""The self-test of SSLSegmentation for the real application."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING
from typing import Any

import slicer

from SSLEngine import jobs

from . import wording
from .choices import Target
from .choices import Transfer
from .follower import idle
from .follower import wait
from .segmentation_logic import SSLSegmentationLogic
from .self_test import SelfTest

if TYPE_CHECKING:
    from SSLScene.exams import SceneExam


class SSLSegmentationTest(SelfTest):
    """The panel, planes and segments of an exam, and jobs as far as this Slicer has what they need."""

    def test_panel(self) -> None:
        """Every widget that the module uses came out of the .ui file as what it should be."""
        panel = self.panel()
        expected = {
            "viewsTable": "QTableWidget",
            "crossingsTableView": "qMRMLTableView",
            "volumeSelector": "qMRMLNodeComboBox",
            "segmentationSelector": "qMRMLNodeComboBox",
            "segmentEditorWidget": "qMRMLSegmentEditorWidget",
            "show3DButton": "qMRMLSegmentationShow3DButton",
            "volumePlotWidget": "qMRMLPlotWidget",
            "seekWidget": "qMRMLSequenceBrowserSeekWidget",
            "playWidget": "qMRMLSequenceBrowserPlayWidget",
            "studyPathLineEdit": "ctkPathLineEdit",
            "examCollapsibleButton": "ctkCollapsibleButton",
            "crossingsGroupBox": "ctkCollapsibleGroupBox",
            "examProgressBar": "QProgressBar",
            "stepsSpinBox": "QSpinBox",
            "classifyButton": "QPushButton",
        }
        self.checkWidgets(panel, expected)
        self.assertEqual(panel.ui.transferComboBox.currentText, Transfer.All.label())
        panel.parameters.target = Target.Classification
        self.assertEqual(panel.ui.targetKindComboBox.currentText, Target.Classification.label())
        self.assertFalse(panel.ui.labelsComboBox.enabled)
        panel.parameters.target = Target.Segmentation
        for name in ("volumeSelector", "segmentEditorWidget", "crossingsTableView"):
            self.assertIs(getattr(panel.ui, name).mrmlScene(), slicer.mrmlScene, name)
        self.assertFalse(panel.ui.segmentButton.enabled)
        panel.exit()
        panel.enter()

    def _exam(self, panel: Any) -> SceneExam:
        """Three volumes at right angles, as the views of an exam."""
        import numpy as np

        size, roles = 40, {}
        turned = {
            "sax": [[1, 0, 0], [0, 1, 0], [0, 0, 4]],
            "2ch": [[0, 0, 4], [1, 0, 0], [0, 1, 0]],
            "4ch": [[1, 0, 0], [0, 0, -4], [0, 1, 0]],
        }
        for role, axes in turned.items():
            slices = 8 if role == "sax" else 1
            matrix = np.eye(4)
            matrix[:3, :3] = axes
            matrix[:3, 3] = -matrix[:3, :3] @ ((np.array([size, size, slices]) - 1) / 2)
            array = np.random.default_rng(0).integers(0, 100, (slices, size, size), dtype=np.int16)
            node = slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name=f"test {role}")
            roles[node.GetID()] = role
        exam = panel.logic.useVolumes(roles)
        panel.setExam(exam)
        return exam

    def test_planes(self) -> None:
        """Lines, quads, table, layout and targets; and all of it gone again."""
        panel = self.panel()
        exam = self._exam(panel)
        self.assertEqual([item.view.role for item in exam.views], ["sax", "2ch", "4ch"])
        self.assertEqual(panel.ui.viewsTable.rowCount, 3)
        panel.ui.linesButton.click()
        self.assertEqual(panel.ui.planesTable.rowCount, 3)
        panel.planesPanel.showSideBySide()
        slicer.app.processEvents()
        panel.ui.crossingsGroupBox.collapsed = False
        idle(lambda: panel.planesPanel.working)
        self.assertEqual(panel.ui.crossingsTableView.mrmlTableNode().GetNumberOfRows(), 3)
        panel.ui.targetComboBox.currentIndex = 1
        panel.ui.targetComboBox.currentIndex = 2
        idle(lambda: panel.planesPanel.working)
        panel.ui.crossingButton.click()
        slicer.app.processEvents()
        red = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode")
        centre = [red.GetSliceToRAS().GetElement(i, 3) for i in range(3)]
        self.assertLess(max(abs(value) for value in centre), 2.1)
        composite = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceCompositeNode")
        self.assertEqual(composite.GetBackgroundVolumeID(), exam.first("sax").volume.GetID())
        panel.examPanel.onRemove()
        left = slicer.util.getNodesByClass("vtkMRMLModelNode")
        self.assertEqual([node.GetName() for node in left if not node.GetHideFromEditors()], [])

    def test_segments(self) -> None:
        """Labels become segments with names, colours and codes, which the embedded editor takes."""
        import numpy as np

        from SSLScene import segments

        panel = self.panel()
        exam = self._exam(panel)
        item = exam.first("sax")
        labels = np.zeros(item.view.shape, np.int16)
        labels[:, 10:20, 10:20] = 1
        labels[:, 25:30, 10:20] = 2
        (node,) = segments.add_labels(
            slicer.mrmlScene, exam, item, labels, {1: "LV cavity", 2: "LV myocardium"}, "test"
        )
        self.assertEqual(segments.segment_names(node), ["LV cavity", "LV myocardium"])
        panel.parameters.segmentation = node
        slicer.app.processEvents()
        self.assertIs(panel.ui.segmentEditorWidget.segmentationNode(), node)
        self.assertIs(panel.ui.segmentEditorWidget.sourceVolumeNode(), item.volume)
        panel.ui.segmentEditorWidget.setActiveEffectByName("Paint")
        panel.exit()
        self.assertIsNone(panel.ui.segmentEditorWidget.activeEffect())
        panel.enter()
        found, names = segments.labels_of(slicer.mrmlScene, node, item.volume)
        self.assertEqual(int((found == 1).sum()), int((labels == 1).sum()))
        self.assertEqual(names, {1: "LV cavity", 2: "LV myocardium"})

    def test_loading(self) -> None:
        """A process of PythonSlicer looks into a folder; what it cannot use it says in one sentence."""
        with self.ownJobs() as folder:
            (folder / "empty").mkdir()
            nodes = slicer.mrmlScene.GetNumberOfNodes()
            with self.assertRaises(ValueError) as caught:
                SSLSegmentationLogic().loadStudy(folder / "empty")
            readers = all(importlib.util.find_spec(name) for name in ("SimpleITK", "pydicom"))
            self.assertIn("holds no image" if readers else "is missing", str(caught.exception))
            self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)

    def test_sample(self) -> None:
        """A synthetic exam is made and loaded by two processes, with what Slicer ships."""
        self.needs("SimpleITK", "pydicom", "scipy")
        with self.ownJobs():
            volumes = SSLSegmentationLogic().makeSample()
        self.assertGreaterEqual(len(volumes), 3)
        panel = self.panel()
        panel.setExam(panel.logic.examInScene())
        self.assertIn("sax", [item.view.role for item in panel.exam.views])

    def test_torch_is_for_workers_only(self) -> None:
        """A worker tells the devices, or which package it lacks; torch never comes into the application."""
        there = "torch" in sys.modules
        with self.ownJobs() as folder:
            jobs.start(jobs.create(folder / "probe", "probe", {}))
            status = wait(folder / "probe", 120)
            if importlib.util.find_spec("torch") is None:
                self.assertEqual(status.state, jobs.FAILED, jobs.log_tail(folder / "probe"))
                self.assertIn("'torch' is missing", wording.sentence(folder / "probe", status))
            else:
                self.assertEqual(status.state, jobs.FINISHED, jobs.log_tail(folder / "probe"))
                self.assertTrue(jobs.read_json(folder / "probe" / "probe.json")["devices"])
        self.assertEqual("torch" in sys.modules, there)

    def test_segmenting(self) -> None:
        """A network learns a few steps from the segments of an exam and segments it; the result comes as nodes."""
        import numpy as np

        from SSLScene import segments

        self.needsTraining()
        self.needs("SimpleITK", "pydicom", "scipy")
        tiny = {
            "grid": {"spacing_mm": 4.0, "patch": 64},
            "network": {"widths": [8, 16, 32]},
            "schedule": {"steps": 3, "batch": 4},
        }
        with self.ownJobs() as folder:
            logic = SSLSegmentationLogic()
            logic.makeSample()
            exam = logic.examInScene()
            item = exam.first("sax")
            labels = np.zeros(item.view.shape, np.int16)
            labels[:, 40:60, 40:60] = 1
            drawn = segments.add_labels(slicer.mrmlScene, exam, item, labels, {1: "LV cavity"}, "drawn")
            logic.collect(exam, drawn, folder / "labelled")
            tuned = logic.finetune(folder / "labelled", device="cpu", settings=tiny, waitForCompletion=True)
            results = logic.segment(tuned / jobs.MODEL_FILE, item.volume, device="cpu", waitForCompletion=True)
        self.assertEqual([segments.segment_names(node) for node in results.segmentations], [["LV cavity"]])
        self.assertIn("LV cavity", [what for view, what, value in results.rows])
