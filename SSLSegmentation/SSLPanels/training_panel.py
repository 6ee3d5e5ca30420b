"""Sections 3 and 4 of SSLPretrain: where and how to pretrain, how long it will take, and the start of it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ctk
import slicer
from slicer.i18n import tr as _

from . import devices
from . import wording
from .section import Section
from .workers import jobs_folder


class TrainingPanel(Section):
    """Devices, forecast, start."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        self._prepareMachine()
        self._fillDevices(devices.known())
        self.ui.deviceComboBox.connect("activated(int)", self.onDevice)
        self.ui.probeButton.connect("clicked()", self.onProbe)
        self.ui.forecastButton.connect("clicked()", self.onForecast)
        self.ui.startButton.connect("clicked()", self.onStart)

    def _prepareMachine(self) -> None:
        """Folder and Python belong to this machine, not to the scene: they are the application's settings."""
        workers = self.logic.workers
        self.ui.jobsPathLineEdit.filters = ctk.ctkPathLineEdit.Dirs
        self.ui.pythonPathLineEdit.filters = ctk.ctkPathLineEdit.Files
        self.ui.pythonPathLineEdit.currentPath = " ".join(workers.python or [])
        self.ui.jobsPathLineEdit.currentPath = str(jobs_folder())
        self.ui.jobsPathLineEdit.connect("currentPathChanged(QString)", workers.useFolder)
        self.ui.pythonPathLineEdit.connect("currentPathChanged(QString)", workers.usePython)

    def update(self) -> None:
        """Nothing can be started as long as something is lacking, and the panel says what."""
        reason = self.logic.whyNot(self.parameters)
        self.ui.startButton.enabled = not reason
        if not self.owner.task.busy:
            self.ui.forecastButton.enabled = not reason
        hint = _("Starts the training in a process of its own. It goes on when this window is closed.")
        self.ui.startButton.toolTip = reason or hint
        self.ui.reasonLabel.text = reason
        self.ui.reasonLabel.setVisible(bool(reason))

    def onDevice(self, index: int) -> None:
        """A device was chosen."""
        self.write("device", self.ui.deviceComboBox.itemData(index))

    def onProbe(self) -> None:
        """Asks for the devices."""
        self.owner.task.press(
            self.ui.probeButton,
            self.ui.forecastLabel,
            _("Looking at the devices ..."),
            self.logic.probe,
            self._onProbed,
        )

    def onForecast(self) -> None:
        """Makes two steps to forecast the whole."""
        self.owner.task.press(
            self.ui.forecastButton,
            self.ui.forecastLabel,
            _("Making two steps ..."),
            lambda: self.logic.probe(self.logic.settings(self.parameters)),
            self._onProbed,
        )

    def _onProbed(self, folder: Path) -> None:
        """Shows the devices that a probe has found, and its forecast if there is one."""
        document = self.logic.document(folder, "probe.json")
        devices.remember(document.get("devices", []))
        self._fillDevices(document.get("devices", []))
        forecast = document.get("forecast")
        self.ui.forecastLabel.text = wording.forecast(forecast) if forecast else document.get("summary", "")

    def _fillDevices(self, found: Sequence[Mapping[str, Any]]) -> None:
        wanted = self.parameters.device if self.parameters is not None else devices.AUTOMATIC
        devices.fill(self.ui.deviceComboBox, found, wanted)

    def onStart(self) -> None:
        """Starts the pretraining."""
        with slicer.util.tryWithErrorDisplay(_("The pretraining could not be started."), waitCursor=True):
            self.owner.follow(self.logic.workers.run("pretrain", self.logic.settings(self.parameters)))
            self.owner.jobsPanel.refresh()
