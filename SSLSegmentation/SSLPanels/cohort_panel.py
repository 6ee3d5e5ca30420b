"""Sections 1 and 2 of SSLPretrain: choose exams, look at them, and choose what to learn from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ctk
import slicer
from slicer.i18n import tr as _

from . import tables
from .choices import Preset
from .pretrain_logic import PRESETS
from .pretrain_logic import PRETEXTS
from .section import Section
from .target_pictures import TargetPictures


class CohortPanel(Section):
    """The exams and the pretexts."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        self.ui.cohortPathLineEdit.filters = ctk.ctkPathLineEdit.Dirs
        self.ui.cohortPathLineEdit.settingKey = "SSLPretrainCohort"
        tables.headers(self.ui.studiesTable, [_("Exam"), _("Views"), _("Labels"), _("Remarks")], 3)
        available = self.logic.availablePretexts()
        for name in PRETEXTS:
            getattr(self.ui, f"{name}CheckBox").setVisible(name in available)
        self.targets = TargetPictures(self.ui, PRETEXTS)
        self.tiePath(self.ui.cohortPathLineEdit, "cohort")
        self.ui.cohortPathLineEdit.connect("currentPathChanged(QString)", lambda path: self._forget())
        # "activated" comes from the user only: a preset that a scene brings must not undo the settings beside it.
        self.ui.presetComboBox.connect("activated(int)", self.onPreset)
        self.ui.inspectButton.connect("clicked()", self.onInspect)
        self.ui.syntheticButton.connect("clicked()", self.onSynthetic)
        self.ui.targetPreviewButton.connect("clicked()", self.onTargetPreview)

    def update(self) -> None:
        """The folder is shown; looking at exams needs one."""
        self.showPaths([(self.ui.cohortPathLineEdit, "cohort")])
        if not self.owner.task.busy:
            self.ui.inspectButton.enabled = not self.logic.whyNoExams(self.parameters)

    def _forget(self) -> None:
        """Another folder: what was found in the former one, and pictures of it, would mislead."""
        self.targets.clear()
        tables.fill(self.ui.studiesTable, [])

    def release(self) -> None:
        """No more pictures come."""
        self.targets.clear()

    def onPreset(self, index: int) -> None:
        """The organ was changed by hand: its sensible settings replace the present ones."""
        if self.parameters is not None:
            for name, value in PRESETS[list(Preset)[index]].items():
                setattr(self.parameters, name, value)

    def onInspect(self) -> None:
        """Looks at the exams."""
        self.owner.task.press(
            self.ui.inspectButton,
            self.ui.studiesLabel,
            _("Reading the headers ..."),
            lambda: self.logic.inspect(self.parameters.cohort, self.parameters.labelsSuffix),
            lambda folder: self.showStudies(self.logic.document(folder, "inspect.json")),
        )

    def onSynthetic(self) -> None:
        """Makes synthetic exams and takes them as the cohort."""
        self.owner.task.press(
            self.ui.syntheticButton,
            self.ui.studiesLabel,
            _("Making synthetic exams ..."),
            lambda: self.logic.makeSyntheticExams(self.parameters.preset.value),
            self._onSyntheticExams,
        )

    def _onSyntheticExams(self, folder: Path) -> None:
        self.logic.getParameterNode().cohort = str(folder / "exams")
        # The panel may have been left meanwhile.
        if self.parameters is not None:
            self.onInspect()

    def onTargetPreview(self) -> None:
        """Draws on the selected exam what the network would have to find."""
        path = tables.key(self.ui.studiesTable, self.ui.studiesTable.currentRow())
        if path is None:
            slicer.util.infoDisplay(_("Select an exam in the table first."))
            return
        self.owner.task.press(
            self.ui.targetPreviewButton,
            self.ui.targetLabel,
            _("Drawing ..."),
            lambda: self.logic.drawTargets(path, self.logic.commonSettings(self.parameters)),
            self.targets.show,
        )

    def showStudies(self, document: Mapping[str, Any]) -> None:
        """Fills the table of exams."""
        studies = document.get("studies", [])
        rows, tips = zip(*map(row, studies), strict=True) if studies else ((), ())
        tables.fill(self.ui.studiesTable, rows, tips, [study["path"] for study in studies])
        labelled = sum(any(view.get("labelled") for view in study["views"]) for study in studies)
        odd = sum(bool(study["irregularities"]) for study in studies)
        self.ui.studiesLabel.text = _("{count} exams, {labelled} with labels, {odd} with remarks.").format(
            count=len(studies), labelled=labelled, odd=odd
        )


def row(study: Mapping[str, Any]) -> tuple[list[str], str]:
    """Cells of an exam and its tool tip."""
    roles = ", ".join(view["role"].upper() for view in study["views"])
    labelled = sum(bool(view.get("labelled")) for view in study["views"])
    remarks = [f"{item['where']}: {item['what']}; {item['consequence']}" for item in study["irregularities"]]
    remarks += [f"{view['file']}: {view['doubt']}" for view in study["views"] if view.get("doubt")]
    cells = [Path(study["path"]).name, roles, _("yes") if labelled else "", remarks[0] if remarks else ""]
    return cells, "\n".join(remarks) or study["path"]
