"""Section 4: segment a view, an exam, a cine or a folder, tell its class, look for anomalies; volumes and curves."""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import ctk
import slicer
from slicer.i18n import tr as _

from SSLEngine import jobs

from . import curves
from . import wording
from .choices import Scope
from .section import ExamSection
from .stepper import Stepper

if TYPE_CHECKING:
    from SSLPanels.results import Results
    from SSLScene.anomalies import Anomalies
    from SSLScene.classes import ExamClass
    from SSLScene.exams import SceneExam
    from SSLScene.exams import SceneView


class SegmentPanel(ExamSection):
    """Start, results."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        self.ui.batchPathLineEdit.filters = ctk.ctkPathLineEdit.Dirs
        self.tiePath(self.ui.batchPathLineEdit, "batch")
        self.ui.segmentButton.connect("clicked()", self.onSegment)
        self.ui.anomaliesButton.connect("clicked()", self.onAnomalies)
        self.ui.classifyButton.connect("clicked()", self.onClassify)
        self.ui.decidingSliceButton.connect("clicked()", self.onDecidingSlice)
        self._class: ExamClass | None = None
        self._stepper = Stepper()
        self._endTogether: Callable[[], None] | None = None
        self.showResults(None)

    @property
    def loading(self) -> bool:
        """Whether a result comes into the scene."""
        return self._stepper.active

    def release(self) -> None:
        """What has come of a result goes again."""
        self._stepper.cancel()
        self._moveTogether(None)
        curves.release(self.ui.volumePlotWidget)

    def setExam(self, exam: SceneExam | None) -> None:
        """Another exam: its first view is proposed, unless one of it is chosen already."""
        self._stepper.cancel()
        self.showResults(None)
        self._moveTogether(exam)
        # The panel may be hidden.
        node = self.logic.getParameterNode()
        if exam is not None and exam.views and not any(node.volume in item.volumes for item in exam.views):
            node.volume = exam.views[0].volume

    def _moveTogether(self, exam: SceneExam | None) -> None:
        """The slider and the player move all cines of an exam."""
        if self._endTogether is not None:
            self._endTogether()
        self._endTogether = None
        if exam is not None:
            from SSLScene import cines

            browsers = [item.browser for item in exam.views if item.browser is not None]
            self._endTogether = cines.move_together(browsers)

    def update(self) -> None:
        """Segmenting needs a model with labels, and something to segment."""
        if self.parameters is None:
            return
        self.showPaths([(self.ui.batchPathLineEdit, "batch")])
        scope, model = self.parameters.scope, self.owner.modelPanel
        self.ui.volumeSelector.enabled = scope is Scope.View
        self.ui.batchPathLineEdit.enabled = scope is Scope.Folder
        there = {
            Scope.View: self.parameters.volume is not None,
            Scope.Exam: self.exam is not None,
            Scope.Folder: bool(self.parameters.batch) and Path(self.parameters.batch).is_dir(),
        }[scope]
        self.ui.segmentButton.enabled = there and model.canSegment and not self.owner.busy
        tip = _("Segments in a process of its own and puts the result into a segmentation node.")
        if model.canClassify:
            tip = _("This model tells the class of an exam and has learned no labels; choose one that has.")
        elif not model.canSegment:
            tip = _("Choose a model that has learned labels, or fine-tune one, first.")
        elif not there:
            tip = _("Choose what to segment first.")
        self.ui.segmentButton.toolTip = tip
        free = self.exam is not None and not self.owner.busy
        self.ui.anomaliesButton.enabled = free and model.canFindAnomalies
        self.ui.classifyButton.enabled = free and model.canClassify

    def onSegment(self) -> None:
        """Starts the job."""
        with slicer.util.tryWithErrorDisplay(_("The segmentation could not be started."), waitCursor=True):
            node = self.parameters
            if node.scope is Scope.Folder:
                folder = self.logic.segmentFolder(node.model, node.batch, node.device, node.largestComponent)
                self.owner.follow(folder, self._onFolderFinished)
                return
            exam, chosen = self._chosen(node)
            folder = self.logic.startSegmenting(node.model, exam, chosen, node.device, node.largestComponent)
            self._follow(exam, folder, functools.partial(self._load, chosen))

    def _follow(self, exam: SceneExam, folder: Path, show: Callable[[SceneExam, Path], object]) -> None:
        """Follows a job on an exam; calls ``show(exam, folder)`` if it finishes and that is still the exam at hand."""

        def finished(folder: Path, status: jobs.Status) -> None:
            if status.state != jobs.FINISHED:
                return
            if exam is not self.exam:
                text = _(
                    "What was found in {exam} is not shown, since that exam is no longer at hand. It lies in {folder}."
                )
                slicer.util.infoDisplay(text.format(exam=exam.study.name, folder=folder))
                return
            try:
                show(exam, folder)
            except Exception as error:
                self._onError(error)

        self.owner.follow(folder, finished)

    def _ask(
        self, start: Callable[[str, SceneExam, str], Path], show: Callable[[SceneExam, Path], object], failure: str
    ) -> None:
        """Starts a job on the exam at hand by ``start(model, exam, device)``, and follows it."""
        with slicer.util.tryWithErrorDisplay(failure, waitCursor=True):
            exam = self.exam
            self._follow(exam, start(self.parameters.model, exam, self.parameters.device), show)

    def _chosen(self, node: Any) -> tuple[SceneExam, list[SceneView]]:
        if node.scope is Scope.Exam:
            return self.exam, list(self.exam.views)
        for item in self.exam.views if self.exam is not None else []:
            if node.volume in item.volumes:
                return self.exam, [item]
        exam = self.logic.useVolumes([node.volume])
        self.owner.setExam(exam)
        return exam, exam.views

    def _load(self, chosen: list[SceneView], exam: SceneExam, folder: Path) -> None:
        from . import results

        self._stepper.run(results.loading(exam, chosen, folder), self._onLoaded, self._onError)

    def _onLoaded(self, found: Results) -> None:
        self.showResults(found)
        if found.segmentations:
            # The panel may have been left meanwhile.
            self.logic.getParameterNode().segmentation = found.segmentations[0]
        self.owner.update()

    def _onError(self, error: Exception) -> None:
        self.owner.update()
        slicer.util.errorDisplay(_("The result could not be put into the scene.") + f"\n\n{error}")

    def _onFolderFinished(self, folder: Path, status: jobs.Status) -> None:
        if status.state == jobs.FINISHED:
            text = _("The segmentations of all exams lie in {folder}.").format(folder=folder / "segmentations")
            slicer.util.infoDisplay(text)

    def showResults(self, found: Results | None) -> None:
        """Shows the table and, of a cine, the curve and the slider."""
        self._showTable(found.table if found is not None else None)
        chart = found.chart if found is not None else None
        self.ui.volumePlotWidget.setVisible(chart is not None)
        if chart is not None:
            curves.show(self.ui.volumePlotWidget, chart)
        browser = next((v.browser for v in self.exam.views if v.browser is not None), None) if self.exam else None
        for widget in (self.ui.seekWidget, self.ui.playWidget):
            widget.setVisible(browser is not None)
            widget.setMRMLSequenceBrowserNode(browser)

    def _showTable(self, table: Any, found: ExamClass | None = None, doubts: Sequence[str] = ()) -> None:
        """Shows a table node, and what is said of the exam's class, or its planes, where it belongs to that."""
        self.ui.resultsTableView.setVisible(table is not None)
        self.ui.resultsTableView.setMRMLTableNode(table)
        self.ui.doubtsLabel.text = "\n".join(doubts)
        self.ui.doubtsLabel.setVisible(bool(doubts))
        self._class = found
        self.ui.classLabel.text = wording.exam_class(found.probabilities) if found is not None else ""
        self.ui.classLabel.setVisible(found is not None)
        self.ui.decidingSliceButton.setVisible(found is not None)

    def onClassify(self) -> None:
        """Lets the model tell the class of the exam."""
        self._ask(self.logic.startClassifying, self._showClass, _("The exam could not be classified."))

    def _showClass(self, exam: SceneExam, folder: Path) -> None:
        found = self.logic.showClass(exam, folder)
        self._showTable(found.weights, found)

    def onDecidingSlice(self) -> None:
        """Goes to the slice that counted most."""
        if self.exam is not None and self._class is not None:
            self.logic.goToSlice(self.exam, self._class.slices[0])

    def onAnomalies(self) -> None:
        """Looks for what is unusual in the exam."""
        failure = _("The search for anomalies could not be started.")
        self._ask(self.logic.startAnomalies, self._showAnomalies, failure)

    def _showAnomalies(self, exam: SceneExam, folder: Path) -> None:
        self._stepper.run(self.logic.showingAnomalies(exam, folder), self._onAnomaliesShown, self._onError)

    def _onAnomaliesShown(self, found: Anomalies) -> None:
        self._showTable(found.table)
        self.owner.update()

    def predictPlanes(self) -> None:
        """Lets the model tell where the planes should lie."""
        self._ask(self.logic.startPlanes, self._showPlanes, _("The planes could not be predicted."))

    def _showPlanes(self, exam: SceneExam, folder: Path) -> None:
        found = self.logic.showPredictedPlanes(exam, folder)
        self._showTable(found.table, doubts=found.doubts)
