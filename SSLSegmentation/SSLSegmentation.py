"""The module SSLSegmentation: load an exam, see its planes, fine-tune, segment, correct, and use it again."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

# In a source tree the packages of the two modules lie in neighbouring folders; installed, beside this file.
for _neighbour in (Path(__file__).resolve().parent, Path(__file__).resolve().parent.parent / "SSLPretrain"):
    if _neighbour.is_dir() and str(_neighbour) not in sys.path:
        sys.path.append(str(_neighbour))

from SSLEngine import jobs  # noqa: E402
from SSLPanels import model_card  # noqa: E402
from SSLPanels import wording  # noqa: E402
from SSLPanels.correct_panel import CorrectPanel  # noqa: E402
from SSLPanels.exam_panel import ExamPanel  # noqa: E402
from SSLPanels.model_panel import ModelPanel  # noqa: E402
from SSLPanels.module_widget import ModuleWidget  # noqa: E402
from SSLPanels.module_widget import OnJobFinished  # noqa: E402
from SSLPanels.planes_panel import PlanesPanel  # noqa: E402
from SSLPanels.segment_panel import SegmentPanel  # noqa: E402
from SSLPanels.segmentation_logic import SSLSegmentationLogic  # noqa: E402
from SSLPanels.segmentation_self_test import SSLSegmentationTest  # noqa: E402

if TYPE_CHECKING:
    from SSLScene.exams import SceneExam

#: As in :mod:`SSLScene.layouts`.
LAYOUT_ID = 7201

#: What Slicer, and scripts, look for in this file.
__all__ = [
    "SSLSegmentation",
    "SSLSegmentationFileReader",
    "SSLSegmentationLogic",
    "SSLSegmentationTest",
    "SSLSegmentationWidget",
]


class SSLSegmentation(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("SSL Segmentation")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["SlicerSSLSegmentation contributors"]
        self.parent.helpText = _(
            "Segments heart and knee MR exams with a network that was pretrained on the planes of unlabelled exams and "
            "fine-tuned on a few labelled ones. Correct the result and use it for the next fine-tuning."
        )
        self.parent.acknowledgementText = _("Not for clinical use.")
        slicer.app.connect("startupCompleted()", registerSampleData)
        slicer.app.connect("startupCompleted()", registerLayout)


def registerSampleData() -> None:
    """Offers synthetic exams, made on demand, in the Sample Data module. Nothing is downloaded."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="SSLSegmentation",
        sampleName="SyntheticHeartMR",
        uris=[],
        fileNames=[],
        nodeNames=[],
        customDownloader=lambda source: SSLSegmentationLogic().makeSample(),
        thumbnailFileName=str(Path(__file__).resolve().parent / "Resources" / "Icons" / "SSLSegmentation.png"),
    )


def registerLayout() -> None:
    """Watches for scenes that were saved with the views side by side, whether the module is open or not."""
    slicer.mrmlScene.AddObserver(slicer.mrmlScene.EndImportEvent, restoreLayout)


def restoreLayout(scene: Any, event: Any) -> None:
    """Without its description, which Slicer does not save, such a layout would be empty."""
    node = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    # The package is imported only where there is something to do.
    if node is not None and node.GetViewArrangement() == LAYOUT_ID:
        from SSLScene import layouts

        layouts.restore_layout(scene)


class SSLSegmentationWidget(ModuleWidget):
    """Connects the sections of the panel with each other and with the logic.

    Attributes:
        exam: The exam at hand, or None.
    """

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.exam: SceneExam | None = None
        self._training = False
        self._behind: list[tuple[Path, OnJobFinished | None]] = []

    def setup(self) -> None:
        """Makes the panel; nothing is installed and nothing heavy is imported here."""
        self.makePanel(SSLSegmentationLogic())
        self.examPanel = ExamPanel(self)
        self.planesPanel = PlanesPanel(self)
        self.modelPanel = ModelPanel(self)
        self.segmentPanel = SegmentPanel(self)
        self.correctPanel = CorrectPanel(self)
        self.ui.progressCollapsibleButton.collapsed = True
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        # The others ask the model's section what the model can do, so it looks first.
        self.connectPanel((self.modelPanel, self.examPanel, self.planesPanel, self.segmentPanel, self.correctPanel))
        self._takeUpExam()

    def enter(self) -> None:
        """The panel is shown: an exam that has come into the scene meanwhile is taken up."""
        super().enter()
        if self.exam is None:
            self._takeUpExam()

    @property
    def busy(self) -> bool:
        """Whether a job is followed that is no training, its result comes into the scene, or segments are collected."""
        short = self.monitor.follower.active and not self.training
        return short or self.segmentPanel.loading or self.correctPanel.collecting

    @property
    def training(self) -> bool:
        """Whether the job that is followed is a training: it takes long, and other jobs may run meanwhile."""
        return self._training and self.monitor.follower.active

    def follow(self, folder: Path, onFinished: OnJobFinished | None = None) -> None:
        """Shows a job's progress; calls back when it has ended. A training in progress is shown again after that."""
        if self.training and self.monitor.folder is not None:
            self._behind.append((self.monitor.folder, self._onJobFinished))
        self._training = jobs.load(folder)["kind"] == "finetune"
        self.ui.progressCollapsibleButton.collapsed = False
        super().follow(folder, onFinished)

    def onJobFinished(self, folder: Path, status: jobs.Status) -> None:
        """What it has found is taken by who started it; what it has failed of is said here."""
        super().onJobFinished(folder, status)
        if status.state == jobs.FAILED:
            slicer.util.errorDisplay(wording.failure(folder, status))
        if self._behind:
            self.follow(*self._behind.pop())

    def onSceneStartClose(self, caller: Any = None, event: Any = None) -> None:
        """The scene is about to be emptied."""
        self.setExam(None)
        super().onSceneStartClose(caller, event)

    def onSceneEndImport(self, caller: Any = None, event: Any = None) -> None:
        """A saved scene was opened: an exam that is in it is taken up again."""
        if self.shown:
            self.initializeParameterNode()
        if self.exam is None:
            self._takeUpExam()

    def _takeUpExam(self) -> None:
        """The exam of the scene, if it holds one; what is still being loaded is none yet."""
        if self.examPanel.busy:
            return
        exam, reason = None, ""
        try:
            exam = self.logic.examInScene()
        except ValueError as error:
            reason = str(error)
        self.setExam(exam)
        if reason:
            self.ui.examLabel.text = reason

    def setExam(self, exam: SceneExam | None) -> None:
        """Shows another exam in all sections."""
        self.exam = exam
        for panel in self.panels:
            panel.setExam(exam)
        self.update()

    def useModel(self, path: str | Path) -> None:
        """Takes a model file, as when it is opened from SSL Pretrain or loaded as a file."""
        self.initializeParameterNode()
        self.parameters.model = str(path)


class SSLSegmentationFileReader:
    """Lets models be opened by Add data and by dropping them onto the window."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent

    def description(self) -> str:
        """What the user reads."""
        return "SSL Segmentation model"

    def fileType(self) -> str:
        """What scripts write."""
        return "SSLSegmentationModel"

    def extensions(self) -> list[str]:
        """Which files."""
        return ["SSL Segmentation model (*.safetensors)"]

    def canLoadFile(self, path: str) -> bool:
        """Whether the file's header is one of ours."""
        try:
            model_card.read(Path(path))
        except ValueError:
            return False
        return True

    def load(self, properties: Mapping[str, Any]) -> bool:
        """Chooses the model in the panel; it adds no node."""
        slicer.util.selectModule("SSLSegmentation")
        slicer.modules.SSLSegmentationWidget.useModel(properties["fileName"])
        self.parent.loadedNodes = []
        return True
