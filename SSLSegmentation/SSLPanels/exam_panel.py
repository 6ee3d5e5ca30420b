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
from .follower import JobFollower
from .section import Section

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


class ExamPanel(Section):
    """Load, list, remove."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        self._sample = JobFollower(onFinished=self._onSampleMade)
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

    def update(self) -> None:
        """The path is shown; loading needs one."""
        self.showPaths([(self.ui.studyPathLineEdit, "study")])
        self.ui.loadStudyButton.enabled = bool(self.parameters is not None and self.parameters.study)

    def setExam(self, exam: SceneExam | None) -> None:
        """Lists the exam's views."""
        self.ui.removeExamButton.enabled = exam is not None
        items = exam.views if exam is not None else []
        rows = [["", item.view.name, geometry(item), remark(item)] for item in items]
        tips = [tip(item) for item in items]
        tables.fill(self.ui.viewsTable, rows, tips)
        for row, item in enumerate(items):
            self.ui.viewsTable.setCellWidget(row, ROLE, self._roleBox(row, item))
        self.ui.examLabel.text = _("No exam is loaded.") if exam is None else self._summary(exam)
        odd = exam.study.irregularities if exam is not None else []
        self.ui.examLabel.toolTip = "\n".join(f"{item.where}: {item.what}; {item.consequence}" for item in odd)

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

        box = qt.QComboBox()
        for role in (*ROLES, "unknown"):
            box.addItem(roles.label(role), role)
        box.setCurrentIndex(box.findData(item.view.role))
        box.connect("currentIndexChanged(int)", lambda index: self.onRole(row, box.itemData(index)))
        return box

    def onRole(self, row: int, role: str) -> None:
        """A person knows better: what hangs on the role is made anew."""
        from SSLScene.exams import ROLE as ROLE_ATTRIBUTE

        item = self.exam.views[row]
        item.view.role, item.view.reason, item.view.doubt = role, _("chosen by hand"), ""
        for volume in item.volumes:
            volume.SetAttribute(ROLE_ATTRIBUTE, role)
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
        """Loads an exam in place of the present one; if it cannot be read, the present one stays."""
        with slicer.util.tryWithErrorDisplay(_("The exam could not be loaded."), waitCursor=True):
            exam = self.logic.loadStudy(path)
            self.onRemove()
            self.owner.setExam(exam)
            self.owner.planesPanel.showSideBySide()

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
            self.ui.examLabel.text = _("Making a synthetic exam ...")
            self.ui.sampleButton.enabled = False
            self._sample.follow(folder)

    def _onSampleMade(self, status: jobs.Status) -> None:
        self.ui.sampleButton.enabled = True
        folder = self._sample.folder
        if status.state != jobs.FINISHED:
            self.ui.examLabel.text = status.message
            slicer.util.errorDisplay(wording.failure(folder, status))
            return
        self.load(next(path for path in sorted((folder / "exams").iterdir()) if path.is_dir()))

    def onRemove(self) -> None:
        """Takes the exam out again."""
        if self.exam is not None:
            exam = self.exam
            self.owner.setExam(None)
            self.logic.removeExam(exam)

    def release(self) -> None:
        """Following ends."""
        self._sample.release()


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
