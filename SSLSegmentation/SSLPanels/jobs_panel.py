"""Section 5 of SSLPretrain: all jobs, whoever started them, and what can be done with their models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from SSLEngine import jobs

from . import curves
from . import tables
from .clicks import once
from .job_list import JobList
from .section import Section

TRAININGS = ("pretrain", "finetune", "study-labels")


class JobsPanel(Section):
    """Follow, compare, hand on."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        tables.headers(self.ui.jobsTable, [_("Job"), _("Kind"), _("State"), _("Progress")], 0)
        self.jobList = JobList(self.ui.jobsTable, takes_long, self.update)
        self.ui.studyPlotWidget.setVisible(False)
        self.ui.refreshJobsButton.connect("clicked()", self.refresh)
        self.ui.followJobButton.connect("clicked()", self.onFollow)
        self.ui.compareJobButton.connect("clicked()", self.onCompare)
        self.ui.openJobButton.connect("clicked()", self.onOpen)
        self.ui.jobsTable.connect("itemSelectionChanged()", self.update)
        self.ui.jobsTable.connect("cellDoubleClicked(int,int)", lambda row, column: self.onFollow())

    def enter(self) -> None:
        """The list keeps up with the jobs while it is shown."""
        self.jobList.start()

    def exit(self) -> None:
        """Nobody sees the list."""
        self.jobList.stop()

    def release(self) -> None:
        """Nobody will see the list."""
        self.jobList.stop()
        curves.release(self.ui.studyPlotWidget)

    def refresh(self) -> None:
        """Lists all jobs, newest first."""
        self.jobList.refresh()
        self.update()

    def update(self) -> None:
        """What can be done with the selected job."""
        folder = self.jobList.selected
        model = folder is not None and (folder / jobs.MODEL_FILE).is_file()
        self.ui.followJobButton.enabled = folder is not None
        self.ui.openJobButton.enabled = model
        self.ui.compareJobButton.enabled = model and self.parameters is not None and bool(self.parameters.cohort)

    def onFollow(self) -> None:
        """Shows the selected job."""
        folder = self.jobList.selected
        if folder is not None:
            self.owner.follow(folder)

    @once
    def onCompare(self) -> None:
        """Starts the few-label study of the selected model on the cohort."""
        folder = self.jobList.selected
        if folder is None:
            return
        node = self.parameters
        with slicer.util.tryWithErrorDisplay(_("The comparison could not be started."), waitCursor=True):
            settings = {key: self.logic.commonSettings(node)[key] for key in ("data", "device")}
            model = folder / jobs.MODEL_FILE
            self.owner.follow(self.logic.compare(model, node.cohort, numbers(node.counts), node.draws, settings))
            self.refresh()

    def onOpen(self) -> None:
        """Takes the selected job's model to SSL Segmentation."""
        folder = self.jobList.selected
        if folder is None:
            return
        slicer.util.selectModule("SSLSegmentation")
        slicer.modules.SSLSegmentationWidget.useModel(folder / jobs.MODEL_FILE)

    def showComparison(self, folder: Path) -> None:
        """Plots a few-label study, if the job was one: mean score over the number of labels, in both ways."""
        document = self.logic.document(folder, "results.json")
        summary = document.get("summary", [])
        self.ui.studyPlotWidget.setVisible(bool(summary))
        if summary:
            names = {"pretrained": _("pretrained"), "scratch": _("from scratch")}
            lines = {
                name: {entry["count"]: entry[arm] for entry in summary if entry.get(arm) is not None}
                for arm, name in names.items()
            }
            score = _("AUC") if document.get("target") == "classification" else _("mean Dice")
            curves.show_few_labels(self.ui.studyPlotWidget, lines, score)


def takes_long(description: Mapping[str, Any]) -> bool:
    """Whether a job may outlast the window, so that it is looked for again: trainings, and segmenting a folder."""
    return description["kind"] in TRAININGS or bool(description["settings"].get("cohort"))


def numbers(text: str) -> list[int]:
    """``1, 2, 5`` as numbers.

    Raises:
        ValueError: Something else is written there.
    """
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        msg = _("Numbers of labelled exams are written 1, 2, 5, and '{text}' is not.").format(text=text)
        raise ValueError(msg) from None
