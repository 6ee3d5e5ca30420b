"""The module SSLPretrain: choose exams, choose what to learn from them, run, watch, compare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import ScriptedLoadableModule

# In a source tree the packages of the two modules lie in neighbouring folders; installed, beside this file.
for _neighbour in (Path(__file__).resolve().parent, Path(__file__).resolve().parent.parent / "SSLSegmentation"):
    if _neighbour.is_dir() and str(_neighbour) not in sys.path:
        sys.path.append(str(_neighbour))

from SSLEngine import jobs  # noqa: E402
from SSLPanels.cohort_panel import CohortPanel  # noqa: E402
from SSLPanels.jobs_panel import JobsPanel  # noqa: E402
from SSLPanels.module_widget import ModuleWidget  # noqa: E402
from SSLPanels.pretrain_logic import SSLPretrainLogic  # noqa: E402
from SSLPanels.pretrain_self_test import SSLPretrainTest  # noqa: E402
from SSLPanels.short_task import ShortTask  # noqa: E402
from SSLPanels.training_panel import TrainingPanel  # noqa: E402

#: What Slicer, and scripts, look for in this file.
__all__ = ["SSLPretrain", "SSLPretrainLogic", "SSLPretrainTest", "SSLPretrainWidget"]


class SSLPretrain(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("SSL Pretrain")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["SlicerSSLSegmentation contributors"]
        self.parent.helpText = _(
            "Pretrains a segmentation network on unlabelled heart or knee MR exams: the way in which a technologist "
            "laid the planes of an exam teaches it the anatomy. Use the model in SSL Segmentation with a few labels."
        )
        self.parent.acknowledgementText = _("Not for clinical use.")


class SSLPretrainWidget(ModuleWidget):
    """Connects the sections of the panel with each other and with the logic."""

    def setup(self) -> None:
        """Makes the panel; nothing is installed and nothing heavy is imported here."""
        self.makePanel(SSLPretrainLogic())
        buttons = ("inspect", "synthetic", "targetPreview", "probe", "forecast")
        self.task = ShortTask([getattr(self.ui, f"{name}Button") for name in buttons], self.update)
        self.cohortPanel = CohortPanel(self)
        self.trainingPanel = TrainingPanel(self)
        self.jobsPanel = JobsPanel(self)
        self.connectPanel((self.cohortPanel, self.trainingPanel, self.jobsPanel))

    def cleanup(self) -> None:
        """The application closes or the module is reloaded: following ends, jobs go on."""
        self.task.release()
        super().cleanup()

    def onJobFinished(self, folder: Path, status: jobs.Status) -> None:
        """The list of all jobs knows it at once; of a few-label study, the curves are shown."""
        super().onJobFinished(folder, status)
        self.jobsPanel.refresh()
        self.jobsPanel.showComparison(folder)
