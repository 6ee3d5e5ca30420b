"""Who owns what a plot widget shows: the chart its maker, the view node the widget."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from panel_window import Window

VIEW = "vtkMRMLPlotViewNode"
FEW = {"pretrained": {1: 0.6, 2: 0.7}, "from scratch": {1: 0.5, 2: 0.6}}
EVENTS = [{"event": "progress", "step": 1, "loss": 2.0}, {"event": "validated", "step": 2, "scores": {"dice": 0.5}}]


@pytest.fixture
def panel(window: Window) -> Any:
    return window.application.open_panel(window.pretrain_module)


def kinds(window: Window) -> Counter[str]:
    scene = window.scene
    return Counter(scene.GetNthNode(k).GetClassName() for k in range(scene.GetNumberOfNodes()))


def show_everything(panel: Any) -> None:
    from SSLPanels import curves

    panel.curves.start("a run")
    panel.curves.add(EVENTS)
    curves.show_few_labels(panel.ui.studyPlotWidget, FEW, "mean Dice")


def test_showing_again_adds_nothing(window: Window, panel: Any) -> None:
    show_everything(panel)
    before = kinds(window)
    for _ in range(3):
        show_everything(panel)
    assert kinds(window) == before
    for widget in (panel.ui.lossPlotWidget, panel.ui.studyPlotWidget):
        assert widget.mrmlPlotViewNode().GetPlotChartNode().GetNumberOfPlotSeriesNodes() == 2
    panel.cleanup()


def test_a_view_is_no_part_of_a_saved_scene_and_goes_with_its_panel(window: Window, panel: Any) -> None:
    from SSLScene import undo

    before = window.count(VIEW)
    show_everything(panel)
    views = [widget.mrmlPlotViewNode() for widget in (panel.ui.lossPlotWidget, panel.ui.studyPlotWidget)]
    assert window.count(VIEW) == before + 2
    assert not any(view.GetSaveWithScene() for view in views)
    assert all(view.GetHideFromEditors() for view in views)
    undo.remove_all(window.scene, "SSLSegmentation.FewLabels")
    assert window.count(VIEW) == before + 2, "a chart's owner does not take the widget's view along"
    panel.cleanup()
    assert window.count(VIEW) == before


def test_another_view_with_the_same_id_is_not_taken_for_the_widgets_own(window: Window, panel: Any) -> None:
    show_everything(panel)
    widget = panel.ui.studyPlotWidget
    former = widget.mrmlPlotViewNode()
    window.scene.Clear(0)
    # As when a scene is opened whose file has such a node.
    added = [window.scene.AddNewNodeByClass(VIEW) for _ in range(20)]
    other = next(node for node in added if node.GetID() == former.GetID())
    show_everything(panel)
    assert widget.mrmlPlotViewNode() not in (former, other)
    assert window.scene.GetNodeByID(widget.mrmlPlotViewNode().GetID()) is widget.mrmlPlotViewNode()
    panel.cleanup()
    assert window.scene.GetNodeByID(other.GetID()) is other
