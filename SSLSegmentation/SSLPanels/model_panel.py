"""Section 3: choose a model, and fine-tune it on labels."""

from __future__ import annotations

import html
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import ctk
import slicer
from slicer.i18n import tr as _

from SSLEngine import jobs

from . import corrections_folder
from . import devices
from . import model_card
from . import wording
from .follower import JobFollower
from .section import Section
from .workers import jobs_folder

if TYPE_CHECKING:
    from SSLScene.exams import SceneExam


class ModelPanel(Section):
    """Model, card, fine-tuning."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        self._card: dict[str, Any] = {}
        self._read = ""
        self._shown = ""
        self.ui.modelPathLineEdit.filters = ctk.ctkPathLineEdit.Files
        self.ui.modelPathLineEdit.nameFilters = ["*.safetensors"]
        self.ui.labelledPathLineEdit.filters = ctk.ctkPathLineEdit.Dirs
        self._paths = ((self.ui.modelPathLineEdit, "model"), (self.ui.labelledPathLineEdit, "labelled"))
        for edit, name in self._paths:
            self.tiePath(edit, name)
        self._devices: Sequence[Mapping[str, Any]] = devices.known()
        self._probe = JobFollower(onFinished=self._onProbed)
        self.ui.deviceComboBox.connect("activated(int)", self.onDevice)
        self.ui.probeButton.connect("clicked()", self.onProbe)
        self.ui.jobComboBox.connect("activated(int)", self.onJob)
        self.ui.finetuneButton.connect("clicked()", self.onFinetune)
        self.ui.forecastButton.connect("clicked()", self.onForecast)
        self.refreshJobs()

    def refreshJobs(self) -> None:
        """Lists the models of finished jobs, newest first."""
        box = self.ui.jobComboBox
        box.clear()
        box.addItem(_("choose ..."), "")
        root = jobs_folder()
        for folder in jobs.find(root):
            if (folder / jobs.MODEL_FILE).is_file():
                box.addItem(f"{folder.name} ({wording.kinds().get(jobs.load(folder)['kind'], '')})", str(folder))

    def onJob(self, index: int) -> None:
        """Takes a job's model."""
        folder = self.ui.jobComboBox.itemData(index)
        if folder and self.parameters is not None:
            self.parameters.model = str(Path(folder) / jobs.MODEL_FILE)

    def onDevice(self, index: int) -> None:
        """Takes a device."""
        if self.parameters is not None:
            self.parameters.device = self.ui.deviceComboBox.itemData(index)

    def onProbe(self) -> None:
        """Asks a process for the devices."""
        with slicer.util.tryWithErrorDisplay(_("The devices could not be looked up."), waitCursor=True):
            self._probe.follow(self.logic.probe())
            self.ui.probeButton.enabled = False

    def _onProbed(self, status: jobs.Status) -> None:
        folder = self._probe.folder
        self.ui.probeButton.enabled = True
        if status.state != jobs.FINISHED:
            slicer.util.errorDisplay(wording.failure(folder, status))
            return
        self._takeDevices(folder)

    def _takeDevices(self, folder: Path) -> None:
        self._devices = jobs.read_json(folder / "probe.json")["devices"]
        devices.remember(self._devices)
        self._shown = ""
        self.update()

    def knows(self, pretext: str, model: str) -> bool:
        """Whether the chosen model has learned a pretext."""
        return bool(model) and pretext in self._card.get("pretexts", {})

    @property
    def canSegment(self) -> bool:
        """Whether the chosen model has learned labels."""
        return model_card.can_segment(self._card)

    @property
    def canFindAnomalies(self) -> bool:
        """Whether the chosen model has learned to find distortions."""
        return model_card.can_find_anomalies(self._card)

    @property
    def labelledFolder(self) -> Path:
        """Where labelled exams are collected."""
        text = self.parameters.labelled if self.parameters is not None else ""
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
        if self.parameters.device != self._shown:
            self._shown = self.parameters.device
            devices.fill(self.ui.deviceComboBox, self._devices, self._shown)
        count = len(corrections_folder.collected(self.labelledFolder))
        self.ui.collectedLabel.text = _("Labelled exams collected: {count}, in {folder}").format(
            count=count, folder=self.labelledFolder
        )
        needs_model = self.parameters.transfer.name != "Scratch"
        ready = (bool(self._card) or not needs_model) and self._hasLabels(count)
        self.ui.finetuneButton.enabled = ready and not self.owner.busy
        self.ui.forecastButton.enabled = self.ui.finetuneButton.enabled
        hint = _("Choose a pretrained model, or 'Scratch'; and segments in the scene, or a folder of labelled exams.")
        self.ui.finetuneButton.toolTip = _("Trains the model on the labels in a process of its own.") if ready else hint

    def _hasLabels(self, collected: int) -> bool:
        if self.parameters.labelsFrom.name == "Folder":
            return bool(self.parameters.labelled) and Path(self.parameters.labelled).is_dir()
        return collected > 0 or (self.exam is not None and bool(self.owner.correctPanel.segmentations()))

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
        with slicer.util.tryWithErrorDisplay(_("The fine-tuning could not be started."), waitCursor=True):
            self.owner.follow(self.logic.workers.run("finetune", self._settings()), self._onFinished)

    def onForecast(self) -> None:
        """Tells how long the training will take and how much memory it needs."""
        with slicer.util.tryWithErrorDisplay(_("The forecast could not be started."), waitCursor=True):
            self.ui.forecastLabel.text = _("Making two steps ...")
            self.owner.follow(self.logic.forecast(self._settings()), self._onForecast)

    def _settings(self) -> dict[str, Any]:
        """Settings of the training; the scene's segments are collected first if they are meant."""
        node = self.parameters
        segmentations = self.owner.correctPanel.segmentations()
        if node.labelsFrom.name == "Scene" and self.exam is not None and segmentations:
            self.logic.collect(self.exam, segmentations, self.labelledFolder)
        scratch = node.transfer.name == "Scratch"
        model = None if scratch else node.model
        transfer = "all" if scratch else node.transfer.value
        return self.logic.finetuneSettings(self.labelledFolder, model, transfer, node.steps, node.device)

    def _onForecast(self, folder: Path, status: jobs.Status) -> None:
        self.ui.forecastLabel.text = ""
        if status.state == jobs.FINISHED:
            self.ui.forecastLabel.text = wording.forecast(jobs.read_json(folder / "probe.json")["forecast"])
            self._takeDevices(folder)

    def release(self) -> None:
        """Following ends."""
        self._probe.release()

    def _onFinished(self, folder: Path, status: jobs.Status) -> None:
        self.refreshJobs()
        if status.state == jobs.FINISHED:
            # The panel may have been left meanwhile.
            self.logic.getParameterNode().model = str(folder / jobs.MODEL_FILE)
