"""Section 2: how the planes lie, and what a network learns from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from . import tables
from .section import ExamSection
from .stepper import Stepper

if TYPE_CHECKING:
    from SSLScene.exams import SceneExam

SHOWN, PLANE, COLOUR = range(3)


class PlanesPanel(ExamSection):
    """Lines, quads, table, layout, targets."""

    def __init__(self, owner: Any) -> None:
        super().__init__(owner)
        self._former: SceneExam | None = None
        self._models: list[Any] = []
        self._table: Any = None
        self._targets, self._crossings = Stepper(), Stepper()
        tables.headers(self.ui.planesTable, [_("Shown"), _("Planes of"), _("Colour")], PLANE)
        self.ui.linesButton.connect("toggled(bool)", self.onLines)
        self.ui.layoutButton.connect("clicked()", self.showSideBySide)
        self.ui.crossingButton.connect("clicked()", self.onCrossing)
        self.ui.planesTable.connect("itemChanged(QTableWidgetItem*)", self.onSwitch)
        self.ui.planesTable.connect("cellDoubleClicked(int,int)", self.onColour)
        self.ui.crossingsGroupBox.connect("toggled(bool)", lambda shown: self._fillCrossings())
        self.ui.targetComboBox.connect("currentIndexChanged(int)", self.onTarget)
        self.ui.predictPlanesButton.connect("clicked()", self.onPredict)

    def setExam(self, exam: SceneExam | None) -> None:
        """Another exam, or other roles: planes are drawn anew if they were shown, and those of the scene taken up."""
        self.release()
        if exam is not None and exam is self._former:
            self._forget(exam)
        self._former, self._models, self._table = exam, [], None
        self.ui.planesCollapsibleButton.enabled = exam is not None
        self.ui.crossingsTableView.setMRMLTableNode(None)
        self._fillTargets(exam)
        if exam is None:
            blocked = self.ui.linesButton.blockSignals(True)
            self.ui.linesButton.checked = False
            self.ui.linesButton.blockSignals(blocked)
            tables.fill(self.ui.planesTable, [])
            return
        self._fillCrossings()
        if self.ui.linesButton.checked:
            self.onLines(True)
        else:
            self._takeUp(self.logic.planesOf(exam))

    def _forget(self, exam: SceneExam) -> None:
        """Takes away what was made of an exam with other roles, which the lists no longer show."""
        from SSLScene import undo

        from . import targets

        targets.show(exam, targets.NOTHING)
        if self._table is not None and slicer.mrmlScene.IsNodePresent(self._table):
            undo.remove_nodes(slicer.mrmlScene, [self._table])

    def _takeUp(self, models: list[Any]) -> None:
        """Planes that are in the scene already, a saved one or drawn by a script, are those that the panel shows."""
        blocked = self.ui.linesButton.blockSignals(True)
        self.ui.linesButton.checked = bool(models)
        self.ui.linesButton.blockSignals(blocked)
        self._models = models
        self._fillPlanes()

    @property
    def working(self) -> bool:
        """Whether a target or the table of crossings is on its way."""
        return self._targets.active or self._crossings.active

    def release(self) -> None:
        """What is on its way is given up."""
        self._targets.cancel()
        self._crossings.cancel()

    def showSideBySide(self) -> None:
        """Sets the layout."""
        if self.exam is not None:
            _told(lambda: self.logic.showSideBySide(self.exam))

    def onCrossing(self) -> None:
        """Jumps to the crossing point."""
        if self.exam is not None:
            _told(lambda: self.logic.goToCrossing(self.exam))

    def onLines(self, shown: bool) -> None:
        """Shows or hides all planes."""
        if self.exam is None:
            return
        if not shown:
            self.logic.hidePlanes(self.exam)
        self._models = (_told(lambda: self.logic.showPlanes(self.exam)) or []) if shown else []
        self._fillPlanes()

    def _fillPlanes(self) -> None:
        from SSLScene import roles

        table = self.ui.planesTable
        tables.fill(
            table,
            [["", f"{roles.label(v.view.role)}: {v.view.name}", ""] for v in self.exam.views[: len(self._models)]],
        )
        blocked = table.blockSignals(True)
        for row, model in enumerate(self._models):
            table.item(row, SHOWN).setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsUserCheckable)
            shown = model.GetDisplayVisibility()
            table.item(row, SHOWN).setCheckState(qt.Qt.Checked if shown else qt.Qt.Unchecked)
            table.item(row, COLOUR).setBackground(qt.QBrush(qt.QColor.fromRgbF(*model.GetDisplayNode().GetColor())))
        table.blockSignals(blocked)

    def onSwitch(self, item: Any) -> None:
        """One view's planes are switched on or off."""
        from SSLScene import planes

        if item.column() == SHOWN and item.row() < len(self._models):
            planes.show(self._models[item.row()], item.checkState() == qt.Qt.Checked)

    def onColour(self, row: int, column: int) -> None:
        """Another colour for one view's planes."""
        from SSLScene import planes

        if column != COLOUR:
            return
        present = qt.QColor.fromRgbF(*self._models[row].GetDisplayNode().GetColor())
        chosen = qt.QColorDialog.getColor(present)
        if chosen.isValid():
            planes.recolour(self._models[row], (chosen.redF(), chosen.greenF(), chosen.blueF()))
            self.ui.planesTable.item(row, COLOUR).setBackground(qt.QBrush(chosen))

    def _fillCrossings(self) -> None:
        """The table takes a moment for cines of many slices: it is made when it is looked at."""
        if self.exam is None or self.ui.crossingsGroupBox.collapsed:
            return
        if self._table is None or slicer.mrmlScene.GetNodeByID(self._table.GetID()) is None:
            from SSLScene import crossings

            self._crossings.run(crossings.showing_table(slicer.mrmlScene, self.exam), self._showCrossings, _display)
        else:
            self._showCrossings(self._table)

    def _showCrossings(self, table: Any) -> None:
        self._table = table
        self.ui.crossingsTableView.setMRMLTableNode(table)

    def _fillTargets(self, exam: SceneExam | None) -> None:
        box = self.ui.targetComboBox
        blocked = box.blockSignals(True)
        box.clear()
        if exam is not None:
            from . import targets

            for key, name in targets.names().items():
                box.addItem(name, key)
        box.blockSignals(blocked)

    def onTarget(self, index: int) -> None:
        """Draws what a network learns to find."""
        from . import targets

        if self.exam is not None:
            steps = targets.showing(self.exam, self.ui.targetComboBox.itemData(index))
            self._targets.run(steps, lambda nodes: None, _display)

    def update(self) -> None:
        """Predicting planes needs an exam and a model that has learned lines, and no other job."""
        able = self.owner.modelPanel.canPredictPlanes
        self.ui.predictPlanesButton.enabled = self.exam is not None and able and not self.owner.busy

    def onPredict(self) -> None:
        """Predicts planes in a job; the segmenting section follows it."""
        self.owner.segmentPanel.predictPlanes()


def _told(show: Callable[[], Any]) -> Any:
    """What something gives that is shown; None where that fails, which is told."""
    try:
        return show()
    except Exception as error:
        _display(error)
        return None


def _display(error: Exception) -> None:
    slicer.util.errorDisplay(str(error))
