"""Sections 3 and 4 of SSLPretrain: where and how to pretrain, how long it will take, and the start of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ctk
import slicer
from slicer.i18n import tr as _

from . import tables
from . import wording
from .clicks import once
from .devices import DeviceRow
from .section import Section
from .workers import jobs_folder


class TrainingPanel(Section):
    """Devices, forecast, start."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        self._prepareMachine()
        self.devices = DeviceRow(owner, owner.task)
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

    def enter(self) -> None:
        """The panel is shown."""
        self.devices.enter()

    def update(self) -> None:
        """Nothing can be started as long as something is lacking, and the panel says what."""
        self.devices.update()
        reason = self.logic.whyNot(self.parameters)
        self.ui.startButton.enabled = not reason
        if not self.owner.task.busy:
            self.ui.forecastButton.enabled = not reason
        hint = _("Starts the training in a process of its own. It goes on when this window is closed.")
        self.ui.startButton.toolTip = tables.tip(reason) or hint
        self.ui.reasonLabel.text = reason
        self.ui.reasonLabel.setVisible(bool(reason))

    def onForecast(self) -> None:
        """Makes two steps to forecast the whole."""
        self.owner.task.press(
            self.ui.forecastButton,
            self.ui.forecastLabel,
            _("Making two steps ..."),
            lambda: self.logic.probe(self.logic.settings(self.parameters)),
            self._onForecast,
        )

    def _onForecast(self, folder: Path) -> None:
        """Shows a forecast; the probe that made it has found the devices, too."""
        self.devices.take(folder)
        self.ui.forecastLabel.text = wording.forecast(self.logic.document(folder, "probe.json")["forecast"])

    @once
    def onStart(self) -> None:
        """Starts the pretraining."""
        with slicer.util.tryWithErrorDisplay(_("The pretraining could not be started."), waitCursor=True):
            self.owner.follow(self.logic.workers.run("pretrain", self.logic.settings(self.parameters)))
            self.owner.jobsPanel.refresh()
