"""Section 1: load an exam, see its views, correct their roles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from SSLEngine import jobs

from . import tables
from . import wording
from .exam_loader import ExamLoader
from .follower import JobFollower
from .section import ExamSection

if TYPE_CHECKING:
    from SSLScene.exams import SceneExam
    from SSLScene.exams import SceneView

ROLE, NAME, GEOMETRY, REMARK = range(4)


class DropLabel(qt.QLabel):
    """Where a folder can be dropped from a file manager."""

    def __init__(self, onDropped: Callable[[str], None]) -> None:
        qt.QLabel.__init__(self, _("Drop the folder of an exam here"))
        self.onDropped = onDropped
        self.setAcceptDrops(True)
        self.setAlignment(qt.Qt.AlignCenter)
        self.setStyleSheet("border: 1px dashed gray; padding: 6px; color: gray")

    def dragEnterEvent(self, event: Any) -> None:
        """Takes what lies on this machine."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: Any) -> None:
        """Loads it."""
        paths = [url.toLocalFile() for url in event.mimeData().urls()]
        event.acceptProposedAction()
        if paths and paths[0]:
            self.onDropped(paths[0])


class ExamPanel(ExamSection):
    """Load, list, remove."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        self._sample = JobFollower(onFinished=self._onSampleMade)
        self._loader = ExamLoader(self.logic.workers, self.showProgress, self._onLoaded)
        self.ui.studyPathLineEdit.filters = ctk.ctkPathLineEdit.Dirs
        self.ui.studyPathLineEdit.settingKey = "SSLSegmentationStudy"
        self.tiePath(self.ui.studyPathLineEdit, "study")
        self.dropLabel = DropLabel(self.onDropped)
        self.ui.examCollapsibleButton.layout().insertWidget(0, self.dropLabel)
        tables.headers(self.ui.viewsTable, [_("Role"), _("View"), _("Geometry"), _("Remarks")], REMARK)
        self.ui.loadStudyButton.connect("clicked()", self.onLoad)
        self.ui.useSceneButton.connect("clicked()", self.onUseScene)
        self.ui.sampleButton.connect("clicked()", self.onSample)
        self.ui.removeExamButton.connect("clicked()", self.onRemove)
        self.ui.cancelExamButton.connect("clicked()", self.onCancel)
        self._showBusy()

    @property
    def busy(self) -> bool:
        """Whether an exam is being made or loaded."""
        return self._loader.active or self._sample.active

    def update(self) -> None:
        """The path is shown; loading needs one, and one exam is loaded at a time."""
        self.showPaths([(self.ui.studyPathLineEdit, "study")])
        named = bool(self.parameters is not None and self.parameters.study)
        self.ui.loadStudyButton.enabled = named and not self.busy

    def _showBusy(self) -> None:
        """Progress and Cancel are there while an exam is being made or loaded, and the ways to load another are not."""
        busy = self.busy
        self.ui.examProgressBar.setVisible(busy)
        self.ui.cancelExamButton.setVisible(busy)
        for widget in (self.ui.useSceneButton, self.ui.sampleButton, self.dropLabel):
            widget.enabled = not busy
        if busy:
            self.ui.examProgressBar.setRange(0, 0)
        self.update()

    def showProgress(self, done: int, total: int, message: str) -> None:
        """How far it is; a total of 0 only shows that something happens."""
        self.ui.examProgressBar.setRange(0, total)
        self.ui.examProgressBar.setValue(done)
        if message:
            self.ui.examLabel.text = _("Loading: {what}").format(what=message)

    def setExam(self, exam: SceneExam | None) -> None:
        """Lists the exam's views."""
        self.ui.removeExamButton.enabled = exam is not None
        items = exam.views if exam is not None else []
        rows = [["", item.view.name, geometry(item), remark(item)] for item in items]
        tips = [tip(item) for item in items]
        tables.fill(self.ui.viewsTable, rows, tips)
        for row, item in enumerate(items):
            self.ui.viewsTable.setCellWidget(row, ROLE, self._roleBox(row, item))
        self._showSummary()
        odd = exam.study.irregularities if exam is not None else []
        lines = [f"{item.told}; {item.consequence}" for item in odd]
        self.ui.examLabel.toolTip = tables.tip("\n".join(lines))

    def _showSummary(self) -> None:
        self.ui.examLabel.text = _("No exam is loaded.") if self.exam is None else self._summary(self.exam)

    @staticmethod
    def _summary(exam: SceneExam) -> str:
        odd = exam.study.irregularities
        text = _("{name}: {count} views.").format(name=exam.study.name, count=len(exam.views))
        if odd:
            text += " " + _("{count} remarks, the first: {what}").format(count=len(odd), what=odd[0].what)
        return text

    def _roleBox(self, row: int, item: SceneView) -> Any:
        from SSLEngine.studies import ROLES
        from SSLScene import roles

        box = ctk.ctkComboBox()
        # To scroll over the table must not change roles.
        box.focusPolicy = qt.Qt.StrongFocus
        box.scrollWheelEffect = ctk.ctkComboBox.ScrollWithFocus
        for role in (*ROLES, "unknown"):
            box.addItem(roles.label(role), role)
        box.setCurrentIndex(box.findData(item.view.role))
        box.connect("currentIndexChanged(int)", lambda index: self.onRole(row, box.itemData(index)))
        return box

    def onRole(self, row: int, role: str) -> None:
        """A person knows better: what hangs on the role is made anew."""
        from SSLScene import exams

        exams.set_role(slicer.mrmlScene, self.exam.views[row], role)
        for panel in self.owner.panels:
            if panel is not self:
                panel.setExam(self.exam)

    def onLoad(self) -> None:
        """Loads the folder."""
        self.load(self.parameters.study)

    def onDropped(self, path: str) -> None:
        """A folder, or a file in it, was dropped."""
        self.parameters.study = path
        self.load(path)

    def load(self, path: str | Path) -> None:
        """Loads an exam in place of the present one, which stays in the scene if the new one cannot be read.

        It stays too where it has segmentations that the user does not let go.
        """
        with slicer.util.tryWithErrorDisplay(_("The exam could not be loaded."), waitCursor=True):
            self._loader.load(path)
            self.ui.examLabel.text = _("Loading ...")
            self._showBusy()

    def _onLoaded(self) -> None:
        exam = self._loader.exam
        if exam is not None:
            self.onRemove()
            self.owner.setExam(exam)
            self.owner.planesPanel.showSideBySide()
        else:
            self._showSummary()
        self._showBusy()
        if self._loader.error:
            slicer.util.errorDisplay(self._loader.report, windowTitle=_("The exam could not be loaded."))

    def onCancel(self) -> None:
        """Gives up what is being made or loaded."""
        self._loader.cancel()
        if self._sample.active:
            jobs.stop(self._sample.folder)
            jobs.kill(self._sample.folder)
            self._sample.release()
            self._showSummary()
            self._showBusy()

    def onUseScene(self) -> None:
        """Takes the volumes of the scene."""
        with slicer.util.tryWithErrorDisplay(_("The volumes of the scene cannot be used."), waitCursor=True):
            self.owner.setExam(self.logic.useVolumes())

    def onSample(self) -> None:
        """Makes a synthetic exam in a process, then loads it."""
        with slicer.util.tryWithErrorDisplay(_("The synthetic exam could not be made."), waitCursor=True):
            folder = self.logic.workers.newFolder("phantom")
            settings = {"organ": "heart", "studies": 1, "seed": 0, "out": str(folder / "exams"), "format": "nifti"}
            self.logic.workers.run("phantom", settings, folder)
            self._sample.follow(folder)
            self.ui.examLabel.text = _("Making a synthetic exam ...")
            self._showBusy()

    def _onSampleMade(self, status: jobs.Status) -> None:
        folder = self._sample.folder
        self._showSummary()
        self._showBusy()
        if status.state == jobs.FINISHED:
            self.load(next(path for path in sorted((folder / "exams").iterdir()) if path.is_dir()))
        else:
            slicer.util.errorDisplay(wording.failure(folder, status))

    def onRemove(self) -> None:
        """Takes the exam out again; where a person's work would go with it, only when told so."""
        if self.exam is not None and self._mayRemove(self.exam):
            exam = self.exam
            self.owner.setExam(None)
            self.logic.removeExam(exam, withSegmentations=True)

    def _mayRemove(self, exam: SceneExam) -> bool:
        drawn = [node.GetName() for node in self.logic.segmentationsOf(exam)]
        text = _("The exam '{name}' is removed with its segmentations: {drawn}. Remove it?")
        return not drawn or slicer.util.confirmYesNoDisplay(text.format(name=exam.study.name, drawn=", ".join(drawn)))

    def release(self) -> None:
        """Following ends; what is being loaded is given up."""
        self._sample.release()
        self._loader.cancel()


def geometry(item: SceneView) -> str:
    """``12 slices, 1.4 x 1.4 x 8 mm, 25 phases``."""
    count = len(item.view.planes)
    first, last = item.view.planes[0], item.view.planes[-1]
    step = abs(float(first.signed_distance(last.origin))) / (count - 1) if count > 1 else first.thickness
    text = _("1 slice") if count == 1 else _("{count} slices").format(count=count)
    text += f", {first.spacing[0]:.2g} x {first.spacing[1]:.2g}" + (f" x {step:.2g} mm" if step else " mm")
    return text + (_(", {count} phases").format(count=item.view.phases) if item.view.phases > 1 else "")


def remark(item: SceneView) -> str:
    """What a person should know of a view."""
    shifted = "" if item.view.regular else _("shifted or tilted slices: kept as single planes")
    return "; ".join(filter(None, [item.view.doubt, shifted]))


def tip(item: SceneView) -> str:
    """All that is known of a view."""
    _slices, rows, columns = item.view.shape
    lines = [item.view.reason, remark(item), f"{columns} x {rows}", str(item.view.source)]
    return "\n".join(filter(None, lines))
