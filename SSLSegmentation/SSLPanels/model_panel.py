"""Section 3: choose a model, and fine-tune it on labels."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import ctk
import slicer
from slicer.i18n import tr as _

from SSLEngine import jobs

from . import corrections_folder
from . import model_card
from . import wording
from .choices import LabelsFrom
from .choices import Network
from .choices import Target
from .choices import Transfer
from .devices import DeviceRow
from .section import ExamSection
from .short_task import ShortTask
from .workers import jobs_folder

if TYPE_CHECKING:
    from SSLScene.exams import SceneExam

#: So long a remark stands in the status bar.
STATUS_MS = 10000


class ModelPanel(ExamSection):
    """Model, card, fine-tuning."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        self._card: dict[str, Any] = {}
        self._read = ""
        self.ui.modelPathLineEdit.filters = ctk.ctkPathLineEdit.Files
        self.ui.modelPathLineEdit.nameFilters = ["*.safetensors"]
        self.ui.labelledPathLineEdit.filters = ctk.ctkPathLineEdit.Dirs
        self._paths = ((self.ui.modelPathLineEdit, "model"), (self.ui.labelledPathLineEdit, "labelled"))
        for edit, name in self._paths:
            self.tiePath(edit, name)
        self._probe = ShortTask([self.ui.probeButton], lambda: None)
        self.devices = DeviceRow(owner, self._probe)
        self.ui.jobComboBox.connect("activated(int)", self.onJob)
        self.ui.finetuneButton.connect("clicked()", self.onFinetune)
        self.ui.forecastButton.connect("clicked()", self.onForecast)
        self.refreshJobs()

    def refreshJobs(self) -> None:
        """Lists the models of finished jobs, newest first; says which jobs cannot be read."""
        box = self.ui.jobComboBox
        box.clear()
        box.addItem(_("choose ..."), "")
        for folder in jobs.find(jobs_folder()):
            if not (folder / jobs.MODEL_FILE).is_file():
                continue
            try:
                kind = wording.kinds().get(jobs.load(folder)["kind"], "")
            except jobs.JobError as error:
                slicer.util.showStatusMessage(str(error), STATUS_MS)
                continue
            box.addItem(f"{folder.name} ({kind})", str(folder))
        self._showJob()

    def _showJob(self) -> None:
        """Shows in the list of jobs the one whose model is chosen."""
        model = self.parameters.model if self.parameters is not None else ""
        self.ui.jobComboBox.currentIndex = max(0, self.ui.jobComboBox.findData(str(Path(model).parent)))

    def onJob(self, index: int) -> None:
        """Takes a job's model."""
        folder = self.ui.jobComboBox.itemData(index)
        if folder and self.parameters is not None:
            self.parameters.model = str(Path(folder) / jobs.MODEL_FILE)

    @property
    def canSegment(self) -> bool:
        """Whether the chosen model has learned labels."""
        return model_card.can_segment(self._card)

    @property
    def canClassify(self) -> bool:
        """Whether the chosen model has learned classes of exams."""
        return model_card.can_classify(self._card)

    @property
    def canPredictPlanes(self) -> bool:
        """Whether the chosen model has learned crossing lines."""
        return model_card.can_predict_planes(self._card)

    @property
    def canFindAnomalies(self) -> bool:
        """Whether the chosen model has learned to find distortions."""
        return model_card.can_find_anomalies(self._card)

    @property
    def structures(self) -> list[str]:
        """Names of the structures that the chosen model has learned, else of those in the labelled exams."""
        learned = [label["name"] for label in self._card.get("labels", [])]
        return learned or list(corrections_folder.known_labels(self.labelledFolder))

    @property
    def labelledFolder(self) -> Path:
        """Where labelled exams are collected."""
        text = self.logic.getParameterNode().labelled
        return Path(text) if text else corrections_folder.default()

    def setExam(self, exam: SceneExam | None) -> None:
        """Another exam."""
        if self.parameters is not None:
            self.update()

    def update(self) -> None:
        """Shows the model's card and what there is to learn from."""
        if self.parameters is None:
            return
        self.showPaths(self._paths)
        if self.parameters.model != self._read:
            self._read = self.parameters.model
            self._card = self._readCard(self._read)
            self._showJob()
        self.devices.update()
        node = self.parameters
        classes = node.target is Target.Classification
        self.ui.labelsComboBox.enabled = not classes
        self.ui.networkComboBox.enabled = self._networkIsFree
        count = len(corrections_folder.collected(self.labelledFolder))
        collected = _("Labelled exams collected: {count}, in {folder}").format(count=count, folder=self.labelledFolder)
        groups = _("The class of an exam is the group in its study.json, or stands in groups.csv in the folder.")
        self.ui.collectedLabel.text = groups if classes else collected
        reason = self._whyNot(count)
        for button in (self.ui.finetuneButton, self.ui.forecastButton):
            button.enabled = not reason and not self.owner.busy and not self.owner.training
        self.ui.finetuneButton.toolTip = reason or _("Trains the model on the labels in a process of its own.")
        self.ui.reasonLabel.text = reason
        self.ui.reasonLabel.setVisible(bool(reason))

    def _whyNot(self, collected: int) -> str:
        """Why nothing can be learned with these parameters, in one sentence; empty where it can."""
        node = self.parameters
        scratch = node.transfer is Transfer.Scratch
        network = node.network.value if self._networkIsFree else self._card.get("network", {}).get("kind")
        regions = network == Network.MaskRcnn.value
        folder = bool(node.labelled) and Path(node.labelled).is_dir()
        if not scratch and not self._card:
            return _("Choose a pretrained model, or train from scratch.")
        if regions and node.transfer is Transfer.Multitask:
            return _("A Mask R-CNN learns one thing at a time; choose another transfer.")
        if node.target is Target.Classification:
            if node.transfer is Transfer.Multitask:
                return _("Classes are not learned along with something else; choose another transfer.")
            if scratch and regions:
                return _("A Mask R-CNN needs a pretrained model to learn classes; choose one, or the U-Net.")
            return "" if folder else _("Choose the folder of exams whose classes are known.")
        if node.labelsFrom is LabelsFrom.Folder:
            return "" if folder else _("Choose the folder of labelled exams.")
        drawn = self.exam is not None and bool(self.owner.correctPanel.segmentations())
        return "" if drawn or collected else _("Draw segments in this scene first, or learn from a folder.")

    @property
    def _networkIsFree(self) -> bool:
        """Whether there is a network to choose: from scratch, and on a U-Net, which a Mask R-CNN may stand on."""
        # The panel may have been left while segments are collected.
        node = self.logic.getParameterNode()
        on_unet = self._card.get("network", {}).get("kind") == Network.UNet.value
        return node.transfer is Transfer.Scratch or (on_unet and node.target is Target.Segmentation)

    def _readCard(self, path: str) -> dict[str, Any]:
        if not path:
            self.ui.cardLabel.text = _("No model is chosen.")
            return {}
        try:
            card = model_card.read(Path(path))
        except ValueError as error:
            self.ui.cardLabel.text = html.escape(str(error))
            return {}
        self.ui.cardLabel.text = model_card.describe(card)
        return card

    def onFinetune(self) -> None:
        """Collects the scene's segments if they are meant, and starts the training."""
        self._withLabels(self._startFinetuning)

    def _startFinetuning(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The fine-tuning could not be started."), waitCursor=True):
            self.owner.follow(self.logic.workers.run("finetune", self._settings()), self._onFinished)

    def onForecast(self) -> None:
        """Tells how long the training will take and how much memory it needs."""
        self._withLabels(self._startForecast)

    def _startForecast(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The forecast could not be started."), waitCursor=True):
            self.ui.forecastLabel.text = _("Making two steps ...")
            self.owner.follow(self.logic.forecast(self._settings()), self._onForecast)

    def _withLabels(self, start: Callable[[], None]) -> None:
        """Starts something when the labels are there: the scene's segments are collected first if they are meant."""
        node = self.parameters
        meant = node.target is Target.Segmentation and node.labelsFrom is LabelsFrom.Scene
        if meant and self.exam is not None and self.owner.correctPanel.segmentations():
            self.owner.correctPanel.collect(start)
        else:
            start()

    def _settings(self) -> dict[str, Any]:
        """Settings of the training."""
        node = self.logic.getParameterNode()
        model = None if node.transfer is Transfer.Scratch else node.model
        settings = self.logic.finetuneSettings(
            self.labelledFolder,
            model,
            node.transfer.value,
            node.steps,
            node.device,
            node.target.value,
            (node.network if self._networkIsFree else Network.UNet).value,
        )
        settings["schedule"]["batch"] = node.slicesPerStep
        return settings

    def _onForecast(self, folder: Path, status: jobs.Status) -> None:
        self.ui.forecastLabel.text = ""
        if status.state == jobs.FINISHED:
            self.devices.take(folder)
            self.ui.forecastLabel.text = wording.forecast(jobs.read_json(folder / "probe.json")["forecast"])

    def enter(self) -> None:
        """The panel is shown; jobs may have ended meanwhile."""
        self.devices.enter()
        self.refreshJobs()

    def release(self) -> None:
        """Following ends."""
        self._probe.release()

    def _onFinished(self, folder: Path, status: jobs.Status) -> None:
        self.refreshJobs()
        if status.state == jobs.FINISHED:
            # The panel may have been left meanwhile.
            self.logic.getParameterNode().model = str(folder / jobs.MODEL_FILE)
