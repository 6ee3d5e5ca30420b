"""ctk's and MRML's widgets: thin PySide6 widgets with their names, fed by the real scene."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import vtk
from PySide6 import QtCore
from PySide6 import QtGui
from PySide6 import QtWidgets
from PySide6.QtCore import Property
from PySide6.QtCore import Signal

from . import census


def _flag(name: str, kind: type | str, default: Any) -> Any:
    """A property that is kept and has no effect in the stand-in."""
    return Property(
        kind,
        lambda self: self.__dict__.get(f"_flag_{name}", default),
        lambda self, value: self.__dict__.__setitem__(f"_flag_{name}", value),
    )


class SceneMixin:
    """A widget that is told of a scene."""

    census_name: str
    _scene: Any = None

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene

    def mrmlScene(self) -> Any:
        return self._scene


class ctkCollapsibleButton(QtWidgets.QWidget):
    """A header that folds what lies below it."""

    contentsCollapsed = Signal(bool)
    clicked = Signal(bool)
    toggled = Signal(bool)
    HEADER = 26

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._header = QtWidgets.QToolButton(self)
        self._header.setObjectName("standInHeader")
        self._header.setToolButtonStyle(QtCore.Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._header.setStyleSheet(
            "QToolButton{background:#d5dbe3;border:1px solid #b9c2cd;font-weight:bold;text-align:left}"
        )
        self._header.clicked.connect(lambda: self.setCollapsed(not self._collapsed))
        self._collapsed = False
        self._folded: list[QtWidgets.QWidget] = []
        self.setContentsMargins(0, self.HEADER, 0, 0)
        self._show_arrow()

    def setText(self, text: str) -> None:
        self._header.setText(text)

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        self._header.setGeometry(0, 0, self.width(), self.HEADER - 2)
        super().resizeEvent(event)

    def setCollapsed(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        if collapsed:
            below = [c for c in self.children() if isinstance(c, QtWidgets.QWidget) and c is not self._header]
            # As in CTK: what was hidden before stays so when the rest is shown again.
            self._folded = [child for child in below if not child.isHidden()]
        for child in self._folded:
            child.setHidden(collapsed)
        self.setMaximumHeight(self.HEADER if collapsed else 16777215)
        self._show_arrow()
        self.contentsCollapsed.emit(collapsed)
        self.toggled.emit(not collapsed)

    def _show_arrow(self) -> None:
        arrow = QtCore.Qt.ArrowType.RightArrow if self._collapsed else QtCore.Qt.ArrowType.DownArrow
        self._header.setArrowType(arrow)

    text = Property(str, lambda self: self._header.text(), setText)
    collapsed = Property(bool, lambda self: self._collapsed, setCollapsed)


class qMRMLCollapsibleButton(ctkCollapsibleButton):
    """The same, told of the scene."""


class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    """A group box that folds."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setCheckable(True)
        self.toggled.connect(self._fold)

    def _fold(self, shown: bool) -> None:
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.setHidden(not shown)
        self.setMaximumHeight(16777215 if shown else 22)

    collapsed = Property(bool, lambda self: not self.isChecked(), lambda self, value: self.setChecked(not value))


class ctkPathLineEdit(QtWidgets.QWidget):
    """A path with a button to browse."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._combo = QtWidgets.QComboBox(self)
        self._combo.setEditable(True)
        self._combo.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Fixed)
        self._combo.setMinimumContentsLength(8)
        self._combo.currentTextChanged.connect(self.currentPathChanged)
        browse = QtWidgets.QToolButton(self)
        browse.setText("...")
        layout.addWidget(self._combo)
        layout.addWidget(browse)
        self._filters, self._names, self._key = 0, [], ""

    def comboBox(self) -> QtWidgets.QComboBox:
        return self._combo

    def setCurrentPath(self, path: str) -> None:
        self._combo.setEditText(str(path))

    def addCurrentPathToHistory(self) -> None:
        if self._combo.findText(self._combo.currentText()) < 0:
            self._combo.addItem(self._combo.currentText())

    def read_nameFilters(self) -> list[str]:
        return self._names

    def setNameFilters(self, names: list[str]) -> None:
        self._names = list(names)

    def setFilters(self, filters: int) -> None:
        self._filters = int(filters)

    def setSettingKey(self, key: str) -> None:
        self._key = key

    currentPath = Property(str, lambda self: self._combo.currentText(), setCurrentPath)
    filters = Property(int, lambda self: self._filters, setFilters)
    settingKey = Property(str, lambda self: self._key, setSettingKey)
    nameFilters = Property("QStringList", lambda self: self._names, setNameFilters)
    showHistoryButton = Property(bool, lambda self: False, lambda self, v: None)
    label = Property(str, lambda self: "", lambda self, v: None)


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider with a number beside it."""

    valueChanged = Signal(float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal, self)
        self._spin = QtWidgets.QDoubleSpinBox(self)
        self._slider.setRange(0, 1000)
        self._slider.valueChanged.connect(self._on_slider)
        self._spin.valueChanged.connect(self._on_spin)
        layout.addWidget(self._slider)
        layout.addWidget(self._spin)

    def _on_slider(self, step: int) -> None:
        low, high = self._spin.minimum(), self._spin.maximum()
        if abs(self._spin.value() - (low + (high - low) * step / 1000)) > (high - low) / 1000:
            self._spin.setValue(low + (high - low) * step / 1000)

    def _on_spin(self, value: float) -> None:
        low, high = self._spin.minimum(), self._spin.maximum()
        blocked = self._slider.blockSignals(True)
        self._slider.setValue(round((value - low) / max(high - low, 1e-9) * 1000))
        self._slider.blockSignals(blocked)
        self.valueChanged.emit(value)

    minimum = Property(float, lambda self: self._spin.minimum(), lambda self, v: self._spin.setMinimum(v))
    maximum = Property(float, lambda self: self._spin.maximum(), lambda self, v: self._spin.setMaximum(v))
    value = Property(float, lambda self: self._spin.value(), lambda self, v: self._spin.setValue(v))
    singleStep = Property(float, lambda self: self._spin.singleStep(), lambda self, v: self._spin.setSingleStep(v))
    decimals = Property(int, lambda self: self._spin.decimals(), lambda self, v: self._spin.setDecimals(v))


class ctkComboBox(QtWidgets.QComboBox):
    """A combo box that says what the wheel does."""

    NeverScroll, AlwaysScroll, ScrollWithFocus, ScrollWithNoVScrollBar = range(4)
    scrollWheelEffect = _flag("scrollWheelEffect", int, AlwaysScroll)

    def wheelEvent(self, event: Any) -> None:
        if self.scrollWheelEffect == self.AlwaysScroll or self.hasFocus():
            super().wheelEvent(event)
        else:
            event.ignore()


class ctkCheckableComboBox(QtWidgets.QComboBox):
    """A combo box whose items carry a tick."""

    checkedIndexesChanged = Signal()


class qMRMLWidget(SceneMixin, QtWidgets.QWidget):
    """The top of a panel: hands the scene to the children that a .ui connects to it."""

    mrmlSceneChanged = Signal(object)

    def setMRMLScene(self, scene: Any) -> None:
        super().setMRMLScene(scene)
        self.mrmlSceneChanged.emit(scene)


class _SceneFollower(SceneMixin):
    """Calls ``_update`` whenever nodes come or go."""

    def setMRMLScene(self, scene: Any) -> None:
        super().setMRMLScene(scene)
        if scene is not None:
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent):
                scene.AddObserver(event, lambda *_: self._later())
        self._update()

    def _later(self) -> None:
        try:
            self._update()
        except RuntimeError:  # the widget is gone, the scene lives on
            return

    def _update(self) -> None:
        return


class qMRMLNodeComboBox(_SceneFollower, QtWidgets.QComboBox):
    """Nodes of some classes."""

    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeAddedByUser = Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._types: list[str] = []
        self._attributes: list[tuple[str, str, Any]] = []
        self._none, self._none_text = False, "None"
        self._last: str | None = None
        self.currentIndexChanged.connect(self._announce)

    def _update(self) -> None:
        current = self.currentNodeId()
        blocked = self.blockSignals(True)
        self.clear()
        if self._none:
            self.addItem(self._none_text, "")
        for kind in self._types if self._scene is not None else []:
            for index in range(self._scene.GetNumberOfNodesByClass(kind)):
                node = self._scene.GetNthNodeByClass(index, kind)
                if self._shown(node) and self.findData(node.GetID()) < 0:
                    self.addItem(node.GetName() or node.GetID(), node.GetID())
        found = self.findData(current) if current else -1
        self.setCurrentIndex(found if found >= 0 else (0 if self.count() else -1))
        self.blockSignals(blocked)
        self._announce()

    def _shown(self, node: Any) -> bool:
        return not node.GetHideFromEditors() and all(
            node.IsA(kind) is False or node.GetAttribute(name) == (None if value is None else str(value))
            for kind, name, value in self._attributes
        )

    def _announce(self, *_: Any) -> None:
        identifier = self.currentNodeId()
        if identifier != self._last:
            self._last = identifier
            self.currentNodeChanged.emit(self.currentNode())
            self.currentNodeIDChanged.emit(identifier)

    def currentNodeId(self) -> str:
        return self.currentData() or ""

    def currentNode(self) -> Any:
        identifier = self.currentNodeId()
        return self._scene.GetNodeByID(identifier) if self._scene is not None and identifier else None

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentNodeID(node if isinstance(node, str) else ("" if node is None else node.GetID()))

    def setCurrentNodeID(self, identifier: str) -> None:
        self.setCurrentIndex(self.findData(identifier or ""))

    def nodeCount(self) -> int:
        return self.count() - int(self._none)

    def addAttribute(self, kind: str, name: str, value: Any = None) -> None:
        self._attributes.append((kind, name, value))
        self._update()

    def addNode(self, kind: str | None = None) -> Any:
        node = self._scene.AddNewNodeByClass(kind or self._types[0])
        self.setCurrentNode(node)
        return node

    def setNodeTypes(self, types: list[str]) -> None:
        self._types = [str(kind) for kind in types]
        self._update()

    def setNoneEnabled(self, enabled: bool) -> None:
        self._none = enabled
        self._update()

    def setNoneDisplay(self, text: str) -> None:
        self._none_text = text
        self._update()

    def read_nodeTypes(self) -> list[str]:
        return self._types

    nodeTypes = Property("QStringList", lambda self: self._types, setNodeTypes)
    noneEnabled = Property(bool, lambda self: self._none, setNoneEnabled)
    noneDisplay = Property(str, lambda self: self._none_text, setNoneDisplay)
    currentNodeID = Property(str, currentNodeId, setCurrentNodeID)
    addEnabled = _flag("addEnabled", bool, True)
    removeEnabled = _flag("removeEnabled", bool, True)
    renameEnabled = _flag("renameEnabled", bool, False)
    editEnabled = _flag("editEnabled", bool, False)
    showHidden = _flag("showHidden", bool, False)
    showChildNodeTypes = _flag("showChildNodeTypes", bool, True)
    selectNodeUponCreation = _flag("selectNodeUponCreation", bool, True)
    baseName = _flag("baseName", str, "")


def _table_text(value: Any) -> str:
    return f"{value.ToDouble():.4g}" if value.IsDouble() or value.IsFloat() else value.ToString()


class qMRMLTableView(SceneMixin, QtWidgets.QTableView):
    """Shows a table node."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        self.setModel(QtGui.QStandardItemModel(self))

    def setMRMLTableNode(self, node: Any) -> None:
        self._node = node
        if node is not None:
            node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._fill())
        self._fill()

    def mrmlTableNode(self) -> Any:
        return self._node

    def _fill(self) -> None:
        try:
            model = self.model()
        except RuntimeError:  # the widget is gone, the node lives on
            return
        model.clear()
        if self._node is None:
            return
        table = self._node.GetTable()
        columns = range(table.GetNumberOfColumns())
        model.setHorizontalHeaderLabels([table.GetColumnName(c) or "" for c in columns])
        for row in range(table.GetNumberOfRows()):
            model.appendRow([QtGui.QStandardItem(_table_text(table.GetValue(row, c))) for c in columns])
        self.resizeColumnsToContents()

    firstColumnLocked = _flag("firstColumnLocked", bool, False)
    firstRowLocked = _flag("firstRowLocked", bool, False)


class qMRMLPlotView(SceneMixin, QtWidgets.QWidget):
    """Draws the chart of a plot view node: axes, titles and lines, no more."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: Any = None

    def setMRMLPlotViewNode(self, node: Any) -> None:
        self._node = node
        self.update()

    def _series(self) -> list[tuple[Any, list[float], list[float]]]:
        chart = self._node.GetPlotChartNode() if self._node is not None else None
        found = []
        for index in range(chart.GetNumberOfPlotSeriesNodes() if chart is not None else 0):
            series = chart.GetNthPlotSeriesNode(index)
            table = series.GetTableNode().GetTable() if series.GetTableNode() is not None else None
            columns = (
                [table.GetColumnByName(n) for n in (series.GetXColumnName(), series.GetYColumnName())]
                if table
                else [None]
            )
            if all(column is not None for column in columns):
                found.append((series, *[[c.GetValue(i) for i in range(c.GetNumberOfValues())] for c in columns]))
        return found

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
        painter.fillRect(self.rect(), QtGui.QColor("white"))
        area = self.rect().adjusted(48, 22, -10, -30)
        painter.drawRect(area)
        series = self._series()
        points = [(x, y) for _, xs, ys in series for x, y in zip(xs, ys, strict=False) if x == x and y == y]
        if not points:
            painter.drawText(area, QtCore.Qt.AlignmentFlag.AlignCenter, "no data yet")
            return
        (x0, x1), (y0, y1) = ((min(v), max(v)) for v in zip(*points, strict=True))
        self._texts(painter, area, (x0, x1, y0, y1))
        for node, xs, ys in series:
            pen = QtGui.QPen(QtGui.QColor.fromRgbF(*node.GetColor()), 1.6)
            painter.setPen(pen)
            line = [
                QtCore.QPointF(
                    area.left() + (x - x0) / max(x1 - x0, 1e-12) * area.width(),
                    area.bottom() - (y - y0) / max(y1 - y0, 1e-12) * area.height(),
                )
                for x, y in zip(xs, ys, strict=False)
                if x == x and y == y
            ]
            painter.drawPolyline(line)

    def _texts(self, painter: QtGui.QPainter, area: QtCore.QRect, bounds: tuple[float, float, float, float]) -> None:
        chart = self._node.GetPlotChartNode()
        x0, x1, y0, y1 = bounds
        align = QtCore.Qt.AlignmentFlag
        painter.drawText(self.rect().adjusted(0, 4, 0, 0), align.AlignHCenter | align.AlignTop, chart.GetTitle() or "")
        below = self.rect().adjusted(48, 0, -10, -4)
        painter.drawText(below, align.AlignHCenter | align.AlignBottom, chart.GetXAxisTitle() or "")
        painter.drawText(below, align.AlignLeft | align.AlignBottom, f"{x0:g}")
        painter.drawText(below, align.AlignRight | align.AlignBottom, f"{x1:g}")
        painter.drawText(4, area.top() + 10, f"{y1:.3g}")
        painter.drawText(4, area.bottom(), f"{y0:.3g}")


class qMRMLPlotWidget(SceneMixin, QtWidgets.QWidget):
    """A plot view with its node."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        self._view = qMRMLPlotView(self)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._view)

    def setMRMLPlotViewNode(self, node: Any) -> None:
        self._node = node
        self._view.setMRMLPlotViewNode(node)

    def mrmlPlotViewNode(self) -> Any:
        return self._node

    def plotView(self) -> qMRMLPlotView:
        return self._view


class qMRMLSegmentsTableView(SceneMixin, QtWidgets.QWidget):
    """Lists the segments of a segmentation."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        self._list = QtWidgets.QListWidget(self)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._list)

    def setSegmentationNode(self, node: Any) -> None:
        self._node = node
        self._list.clear()
        segmentation = node.GetSegmentation() if node is not None else None
        for index in range(segmentation.GetNumberOfSegments() if segmentation else 0):
            segment = segmentation.GetNthSegment(index)
            square = QtGui.QPixmap(12, 12)
            square.fill(QtGui.QColor.fromRgbF(*segment.GetColor()))
            self._list.addItem(QtWidgets.QListWidgetItem(QtGui.QIcon(square), segment.GetName()))

    def segmentationNode(self) -> Any:
        return self._node

    def selectedSegmentIDs(self) -> list[str]:
        rows = [index.row() for index in self._list.selectedIndexes()]
        return [self._node.GetSegmentation().GetNthSegmentID(row) for row in rows]


class qMRMLSegmentationShow3DButton(QtWidgets.QPushButton):
    """Turns the closed surface of a segmentation on and off."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setText("Show 3D")
        self.setCheckable(True)
        self._node: Any = None
        self.toggled.connect(self._on_toggled)

    def setSegmentationNode(self, node: Any) -> None:
        self._node = node
        self.setEnabled(node is not None)

    def segmentationNode(self) -> Any:
        return self._node

    def _on_toggled(self, shown: bool) -> None:
        if self._node is not None and shown:
            self._node.CreateClosedSurfaceRepresentation()


class _Effect:
    """An effect of the segment editor by name."""

    def __init__(self, name: str) -> None:
        self.name = name


class qMRMLSegmentEditorWidget(SceneMixin, QtWidgets.QWidget):
    """The nodes of the segment editor and its list of segments; no effect does anything here."""

    census_name = "qMRMLSegmentEditorWidget"
    currentSegmentIDChanged = Signal(str)
    segmentationNodeChanged = Signal(object)
    sourceVolumeNodeChanged = Signal(object)
    EFFECTS = ("Threshold", "Paint", "Draw", "Erase", "Islands", "Smoothing", "Scissors", "Fill between slices")

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._editor: Any = None
        self._effect: str | None = None
        self._segment = ""
        self._segments = qMRMLSegmentsTableView(self)
        self._segments.setMinimumHeight(90)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._segments)
        buttons = QtWidgets.QHBoxLayout()
        layout.addLayout(buttons)
        for name in self.EFFECTS[:6]:
            button = QtWidgets.QToolButton(self)
            button.setText(name)
            buttons.addWidget(button)
        buttons.addStretch(1)

    def setMRMLScene(self, scene: Any) -> None:
        super().setMRMLScene(scene)
        if scene is not None:
            scene.AddObserver(scene.EndCloseEvent, lambda *_: self._segments.setSegmentationNode(None))

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        if node is not None and self._scene is None:
            raise AssertionError("setMRMLScene must come before setMRMLSegmentEditorNode")
        self._editor = node

    def mrmlSegmentEditorNode(self) -> Any:
        return self._editor

    def setSegmentationNode(self, node: Any) -> None:
        if self._editor is None:
            raise AssertionError("the editor has no vtkMRMLSegmentEditorNode yet")
        self._editor.SetAndObserveSegmentationNode(node)
        self._segments.setSegmentationNode(node)
        self.segmentationNodeChanged.emit(node)

    def segmentationNode(self) -> Any:
        return self._editor.GetSegmentationNode() if self._editor is not None else None

    def setSourceVolumeNode(self, node: Any) -> None:
        self._editor.SetAndObserveSourceVolumeNode(node)
        if node is not None and self.autoShowSourceVolumeNode:
            for k in range(self._scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode")):
                composite = self._scene.GetNthNodeByClass(k, "vtkMRMLSliceCompositeNode")
                composite.SetBackgroundVolumeID(node.GetID())
                composite.SetForegroundVolumeID(None)
                composite.SetLabelVolumeID(None)
        self.sourceVolumeNodeChanged.emit(node)

    def sourceVolumeNode(self) -> Any:
        return self._editor.GetSourceVolumeNode() if self._editor is not None else None

    def setCurrentSegmentID(self, identifier: str) -> None:
        self._segment = identifier
        self.currentSegmentIDChanged.emit(identifier)

    def currentSegmentID(self) -> str:
        return self._segment

    def setActiveEffectByName(self, name: str) -> None:
        if name not in self.EFFECTS:
            raise AssertionError(f"no effect '{name}'")
        self._effect = name

    def setActiveEffect(self, effect: Any) -> None:
        self._effect = effect and effect.name

    def activeEffect(self) -> Any:
        return _Effect(self._effect) if self._effect else None

    def setEffectNameOrder(self, names: list[str]) -> None:
        self._order = list(names)

    def effectNameOrder(self) -> list[str]:
        return getattr(self, "_order", list(self.EFFECTS))

    def setupViewObservations(self) -> None:
        self._observing = True

    def removeViewObservations(self) -> None:
        self._observing = False

    installKeyboardShortcuts = setupViewObservations
    uninstallKeyboardShortcuts = removeViewObservations
    segmentationNodeSelectorVisible = _flag("segmentationNodeSelectorVisible", bool, True)
    sourceVolumeNodeSelectorVisible = _flag("sourceVolumeNodeSelectorVisible", bool, True)
    switchToSegmentationsButtonVisible = _flag("switchToSegmentationsButtonVisible", bool, True)
    specifyGeometryButtonVisible = _flag("specifyGeometryButtonVisible", bool, True)
    unorderedEffectsVisible = _flag("unorderedEffectsVisible", bool, True)
    maximumNumberOfUndoStates = _flag("maximumNumberOfUndoStates", int, 10)
    autoShowSourceVolumeNode = _flag("autoShowSourceVolumeNode", bool, True)
    readOnly = _flag("readOnly", bool, False)


class _BrowserWidget(SceneMixin, QtWidgets.QWidget):
    """Steps through a sequence browser."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._node: Any = None
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Orientation.Horizontal, self)
        self._slider.valueChanged.connect(lambda n: self._node is not None and self._node.SetSelectedItemNumber(n))
        layout.addWidget(self._slider)

    def setMRMLSequenceBrowserNode(self, node: Any) -> None:
        self._node = node
        self.setEnabled(node is not None)
        self._slider.setMaximum(max(0, node.GetNumberOfItems() - 1) if node is not None else 0)


class qMRMLSequenceBrowserSeekWidget(_BrowserWidget):
    """A slider over the items."""

    def slider(self) -> QtWidgets.QSlider:
        return self._slider


class qMRMLSequenceBrowserPlayWidget(_BrowserWidget):
    """Play and stop."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._slider.hide()
        for sign in ("|<", "<", "Play", ">", ">|"):
            button = QtWidgets.QToolButton(self)
            button.setText(sign)
            self.layout().addWidget(button)

    RecordingControlsVisible = _flag("RecordingControlsVisible", bool, True)


class qMRMLSliceController(QtWidgets.QWidget):
    """The bar over a slice view."""

    census_name = "qMRMLSliceControllerWidget"


class qMRMLSliceView(QtWidgets.QWidget):
    """Where a slice view would be rendered."""


class qMRMLSliceWidget(SceneMixin, QtWidgets.QWidget):
    """One slice view: its node, composite node and logic are the real ones."""

    def __init__(self, node: Any, logic: Any) -> None:
        super().__init__()
        self._node, self._logic = node, logic
        self._view = qMRMLSliceView(self)
        self._controller = qMRMLSliceController(self)

    def mrmlSliceNode(self) -> Any:
        return self._node

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()

    def sliceLogic(self) -> Any:
        return self._logic

    def sliceView(self) -> QtWidgets.QWidget:
        return self._view

    def sliceController(self) -> QtWidgets.QWidget:
        return self._controller

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()


class qMRMLThreeDView(QtWidgets.QWidget):
    """Where a 3D view would be rendered."""

    def resetFocalPoint(self) -> None:
        self._focused = True

    def resetCamera(self) -> None:
        self._focused = True


class qMRMLThreeDWidget(SceneMixin, QtWidgets.QWidget):
    """One 3D view."""

    def __init__(self, node: Any) -> None:
        super().__init__()
        self._node = node
        self._view = qMRMLThreeDView(self)

    def threeDView(self) -> QtWidgets.QWidget:
        return self._view

    def mrmlViewNode(self) -> Any:
        return self._node


#: Classes that Slicer can make from a .ui file, as tried in the real application.
LOADABLE = {
    kind.__name__: kind
    for kind in (
        ctkCollapsibleButton,
        ctkCollapsibleGroupBox,
        ctkPathLineEdit,
        ctkSliderWidget,
        ctkComboBox,
        ctkCheckableComboBox,
        qMRMLCollapsibleButton,
        qMRMLWidget,
        qMRMLNodeComboBox,
        qMRMLTableView,
        qMRMLPlotWidget,
        qMRMLSegmentsTableView,
        qMRMLSegmentationShow3DButton,
        qMRMLSegmentEditorWidget,
        qMRMLSequenceBrowserPlayWidget,
        qMRMLSequenceBrowserSeekWidget,
    )
}


class UiLoader:
    """Makes a panel from a .ui file, with the checks that the real application leaves to the user."""

    def load(self, path: Path) -> QtWidgets.QWidget:
        if not path.is_file():
            raise RuntimeError(f"could not load UI file: {path}")
        self._check(path)
        document = ElementTree.parse(path)
        wired = [
            tuple(c.findtext(tag) for tag in ("sender", "signal", "receiver", "slot"))
            for c in document.iter("connection")
        ]
        # Signals with MRML types are Python signals here, which Qt's loader cannot connect by their C++ name.
        for parent in list(document.iter()):
            for item in parent.findall("connections"):
                parent.remove(item)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(document.getroot()))
        buffer.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        top = _loader().load(buffer)
        for sender, signal, receiver, slot in wired:
            source = top if top.objectName() == sender else top.findChild(QtWidgets.QWidget, sender)
            target = top.findChild(QtWidgets.QWidget, receiver)
            getattr(source, signal.partition("(")[0]).connect(getattr(target, slot.partition("(")[0]))
        return top

    @staticmethod
    def _check(path: Path) -> None:
        """Every class is one that Slicer can make, listed if it is not Qt's, and told of the scene if it must be."""
        root = ElementTree.parse(path).getroot()
        listed = {item.findtext("class") for item in root.iter("customwidget")}
        connected = {item.findtext("receiver") for item in root.iter("connection")}
        for item in root.iter("widget"):
            kind, name = item.get("class", ""), item.get("name")
            if kind.startswith("Q"):
                continue
            if kind not in LOADABLE or kind not in listed:
                raise AssertionError(f"{path.name}: {name} is of class {kind}, which is not loadable or not listed")
            if (
                kind.startswith("qMRML")
                and item is not root.find("widget")
                and _needs_scene(kind)
                and name not in connected
            ):
                raise AssertionError(f"{path.name}: {name} ({kind}) is not connected to mrmlSceneChanged")


def _needs_scene(kind: str) -> bool:
    return "setMRMLScene" in census.methods(kind)


def _loader() -> Any:
    from PySide6 import QtUiTools

    class Loader(QtUiTools.QUiLoader):
        def createWidget(self, kind: str, parent: Any = None, name: str = "") -> QtWidgets.QWidget:
            if kind not in LOADABLE:
                return super().createWidget(kind, parent, name)
            widget = LOADABLE[kind](parent)
            widget.setObjectName(name)
            self._kept.append(widget)
            return widget

    loader = Loader()
    loader._kept = []
    return loader
