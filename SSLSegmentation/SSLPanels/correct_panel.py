"""Section 5: correct segments, keep them for the next fine-tuning, export them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from SSLEngine import jobs
from SSLScene import undo

from .clicks import once
from .section import ExamSection
from .stepper import Stepper

if TYPE_CHECKING:
    from SSLScene.exams import SceneExam

EFFECTS = ["Paint", "Erase", "Draw", "Smoothing", "Islands", "Threshold", "Fill between slices", "Scissors"]


class CorrectPanel(ExamSection):
    """The segment editor and what follows from it."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        self.editor = self.ui.segmentEditorWidget
        self.editor.setEffectNameOrder(EFFECTS)
        self.editor.unorderedEffectsVisible = False
        self.editor.segmentationNodeSelectorVisible = False
        self.editor.sourceVolumeNodeSelectorVisible = False
        self.editor.switchToSegmentationsButtonVisible = False
        # It would show its source in all views, in the place of what they show side by side.
        self.editor.autoShowSourceVolumeNode = False
        self.editor.maximumNumberOfUndoStates = 10
        self._observed: Any = None
        self._stepper = Stepper()
        self._collectText = self.ui.collectButton.text
        self.ui.newSegmentationButton.connect("clicked()", self.onNewSegmentation)
        self.ui.collectButton.connect("clicked()", self.onCollect)
        self.ui.exportNrrdButton.connect("clicked()", self.onExportNrrd)
        self.ui.exportDicomButton.connect("clicked()", self.onExportDicom)

    def segmentations(self) -> list[Any]:
        """The segmentations of the exam that are used as labels, one an image, in the exam's order."""
        return self._used()[0]

    def _used(self) -> tuple[list[Any], str]:
        """Those segmentations, and what is to be said of others."""
        if self.exam is None:
            return [], ""
        from SSLScene import segments

        from . import corrections

        found = undo.owned_nodes(slicer.mrmlScene, self.exam.token, "vtkMRMLSegmentationNode")
        chosen = self.parameters.segmentation if self.parameters is not None else None
        if chosen is not None and chosen not in found:
            found.append(chosen)
        return corrections.one_an_image(self.exam, [node for node in found if segments.is_drawn(node)], chosen)

    def enter(self) -> None:
        """The panel is shown: the editor listens to the views and the keys."""
        self.editor.setupViewObservations()
        self.editor.installKeyboardShortcuts()
        self._selectNodes()

    def exit(self) -> None:
        """Another module is shown: the editor lets go."""
        self.editor.setActiveEffect(None)
        self.editor.removeViewObservations()
        self.editor.uninstallKeyboardShortcuts()

    def _observe(self, node: Any) -> None:
        """Listens to a segmentation: what is drawn may be used at once."""
        if node is self._observed:
            return
        kind = slicer.vtkSegmentation
        for event in (kind.SegmentRemoved, kind.SourceRepresentationModified):
            if self._observed is not None:
                self.owner.removeObserver(self._observed, event, self._onDrawn)
            if node is not None:
                self.owner.addObserver(node, event, self._onDrawn)
        self._observed = node

    def _onDrawn(self, caller: Any = None, event: Any = None) -> None:
        # Most strokes of the brush change nothing of what can be done next.
        if self.ui.collectButton.enabled != bool(self.segmentations()):
            self.owner.update()

    def release(self) -> None:
        """An editor that still knows the scene when the application ends brings it down."""
        self._stepper.cancel()
        self.editor.setActiveEffect(None)
        self.editor.setMRMLScene(None)

    def setExam(self, exam: SceneExam | None) -> None:
        """Another exam: nothing is edited, what is being collected is given up, and segments of the former go."""
        self._stepper.cancel()
        self.editor.setActiveEffect(None)
        box = self.ui.drawOnComboBox
        box.clear()
        for item in exam.views if exam is not None else []:
            box.addItem(item.view.name)
        box.enabled = self.ui.newSegmentationButton.enabled = box.count > 0
        # The panel may be hidden.
        node = self.logic.getParameterNode()
        if exam is not None and node.segmentation is not None:
            from . import corrections

            if not corrections.one_an_image(exam, [node.segmentation])[0]:
                node.segmentation = None

    def onNewSegmentation(self) -> None:
        """An empty segmentation to draw in, with the structures that the model or the labelled exams have."""
        from . import corrections

        item = self.exam.views[self.ui.drawOnComboBox.currentIndex]
        with slicer.util.tryWithErrorDisplay(_("The segmentation could not be made."), waitCursor=True):
            self.parameters.segmentation = corrections.start_drawing(self.exam, item, self.owner.modelPanel.structures)

    def update(self) -> None:
        """Shows the chosen segmentation in the editor."""
        node = self.parameters.segmentation if self.parameters is not None else None
        self._selectNodes()
        self.ui.show3DButton.setSegmentationNode(node)
        used, said = self._used()
        self.ui.collectButton.enabled = self.collecting or bool(used)
        self.ui.usedSegmentsLabel.text = said
        self.ui.usedSegmentsLabel.setVisible(bool(said))
        self.ui.collectButton.text = _("Cancel") if self.collecting else self._collectText
        self.ui.exportNrrdButton.enabled = node is not None
        from_disk = self.exam is not None and self.exam.study.path.is_dir()
        self.ui.exportDicomButton.enabled = node is not None and from_disk and not self.owner.busy

    def _selectNodes(self) -> None:
        node = self.parameters.segmentation if self.parameters is not None else None
        self._observe(node)
        if self.editor.mrmlSegmentEditorNode() is None:
            self.editor.setMRMLSegmentEditorNode(self._editorNode())
        if self.editor.segmentationNode() is not node:
            self.editor.setSegmentationNode(node)
        if node is not None:
            source = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
            if self.editor.sourceVolumeNode() is not source:
                self.editor.setSourceVolumeNode(source)

    @staticmethod
    def _editorNode() -> Any:
        tag = "SSLSegmentationEditor"
        node = slicer.mrmlScene.GetSingletonNode(tag, "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            node.UnRegister(None)
            node.SetSingletonTag(tag)
            node = slicer.mrmlScene.AddNode(node)
        return node

    @property
    def collecting(self) -> bool:
        """Whether segments are being written."""
        return self._stepper.active

    @once
    def onCollect(self) -> None:
        """The segments are right: they become a labelled exam. Pressed again meanwhile, the button gives up."""
        if self.collecting:
            self._stepper.cancel()
            self.owner.update()
        else:
            self.collect(lambda: None)

    def collect(self, then: Callable[[], None]) -> None:
        """Makes a labelled exam of the segments, bit by bit, and goes on with something when it is there."""
        from . import corrections

        def done(target: Path) -> None:
            slicer.util.showStatusMessage(_("Collected in {folder}").format(folder=target), 5000)
            self.owner.update()
            then()

        steps = corrections.collecting(self.exam, self.segmentations(), self.owner.modelPanel.labelledFolder)
        self._stepper.run(steps, done, self._onCollectError)
        self.owner.update()

    def _onCollectError(self, error: Exception) -> None:
        self.owner.update()
        slicer.util.errorDisplay(_("The segments could not be collected.") + f"\n\n{error}")

    def onExportNrrd(self) -> None:
        """Writes the segmentation as a file."""
        node = self.parameters.segmentation
        path = qt.QFileDialog.getSaveFileName(None, _("Save"), f"{node.GetName()}.seg.nrrd", "*.seg.nrrd")
        if path:
            with slicer.util.tryWithErrorDisplay(_("The segmentation could not be written."), waitCursor=True):
                self.logic.exportSegmentation(node, path)

    def onExportDicom(self) -> None:
        """Writes the segmentation as a DICOM object in a job."""
        path = qt.QFileDialog.getSaveFileName(None, _("Save"), f"{self.exam.study.name}.dcm", "*.dcm")
        if path:
            with slicer.util.tryWithErrorDisplay(_("The DICOM object could not be written."), waitCursor=True):
                folder = self.logic.exportDicom(self.exam.study.path, self.parameters.segmentation, path, self.exam)
                self.owner.follow(folder, self._onExported)

    @staticmethod
    def _onExported(folder: Path, status: jobs.Status) -> None:
        if status.state == jobs.FINISHED:
            slicer.util.showStatusMessage(status.message, 5000)
