"""Curves in a plot widget of a panel: of a run, of volumes over a cine, of a few-label study."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import slicer
from slicer.i18n import tr as _

from SSLEngine.jobs import flat
from SSLScene import charts
from SSLScene import undo


def show(widget: Any, chart: Any) -> None:
    """Shows a chart node in a ``qMRMLPlotWidget``; the application's layout stays as it is.

    The chart belongs to whoever has made it. The widget has one view node of its own, whatever it shows: no list names
    it and no scene keeps it, and :func:`release` takes it away.
    """
    view = _view(widget)
    if view is None:
        view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotViewNode", f"{widget.objectName} view")
        view.SetHideFromEditors(True)
        view.SetSaveWithScene(False)
        widget.setMRMLPlotViewNode(view)
    view.SetPlotChartNodeID(chart.GetID())


def release(widget: Any) -> None:
    """Takes the widget's view node out of the scene: the widget goes."""
    view = _view(widget)
    if view is not None:
        slicer.mrmlScene.RemoveNode(view)


def _view(widget: Any) -> Any:
    """The widget's view node; None where it has none or the scene was emptied, whatever has the same ID since."""
    view = widget.mrmlPlotViewNode()
    return view if view is not None and slicer.mrmlScene.GetNodeByID(view.GetID()) is view else None


class RunCurves:
    """Loss and scores of one run, fed with its events.

    Args:
        widget: A ``qMRMLPlotWidget``.
        token: Owner of the nodes, one a panel.
    """

    def __init__(self, widget: Any, token: str) -> None:
        self._widget = widget
        self._token = token
        self._title = ""
        self._loss: charts.Chart | None = None
        self._scores: charts.Chart | None = None

    def start(self, title: str) -> None:
        """Begins with another run."""
        self.clear()
        self._title = title

    def clear(self) -> None:
        """Takes the curves away, as when the scene is closed."""
        undo.remove_all(slicer.mrmlScene, self._token)
        self._loss = self._scores = None

    def release(self) -> None:
        """Takes the curves away for good: the panel goes."""
        self.clear()
        release(self._widget)

    def add(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Adds what new events say; scores that are no share (mm, degrees) are left to the log."""
        step = _("step")
        losses = [{step: e["step"], _("loss"): e["loss"]} for e in events if e.get("loss") is not None]
        if losses:
            self._lossChart().append(losses)
        for event in (e for e in events if e["event"] == "validated"):
            shares = {n: v for n, v in flat(event.get("scores") or {}).items() if _is_share(n, v)}
            if shares:
                self._scoresChart(list(shares)).append([{step: event["step"], **shares}])

    def _hide(self) -> None:
        """The nodes say nothing without the run: no list shows them and no scene keeps them."""
        for node in undo.owned_nodes(slicer.mrmlScene, self._token):
            node.SetHideFromEditors(True)
            node.SetSaveWithScene(False)

    def _lossChart(self) -> charts.Chart:
        if self._loss is None:
            add = charts.add_chart
            self._loss = add(slicer.mrmlScene, self._title, _("step"), [_("loss")], _("loss, scores"), self._token)
            show(self._widget, self._loss.chart)
            self._hide()
        return self._loss

    def _scoresChart(self, names: Sequence[str]) -> charts.Chart:
        """Scores come more seldom than losses, so they have a table of their own and share the chart."""
        if self._scores is None:
            title = f"{self._title} scores"
            self._scores = charts.add_chart(slicer.mrmlScene, title, _("step"), names, "", self._token)
            for number, series in enumerate(self._scores.series):
                series.SetColor(*charts.COLOURS[(number + 1) % len(charts.COLOURS)])
                self._lossChart().chart.AddAndObservePlotSeriesNodeID(series.GetID())
            self._hide()
        return self._scores


def _is_share(name: str, value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= 1 and not name.endswith(("_mm", "_deg"))


def show_few_labels(
    widget: Any, curves: Mapping[str, Mapping[int, float]], score: str, token: str = "SSLSegmentation.FewLabels"
) -> None:
    """Shows the mean score over the number of labelled exams, one curve a way of training, in place of the last one.

    Args:
        widget: A ``qMRMLPlotWidget``.
        curves: Mean score by number of labels, by name of the way.
        score: Name of the score.
        token: Owner of the nodes.
    """
    scene = slicer.mrmlScene
    undo.remove_all(scene, token)
    x = _("labelled exams")
    chart = charts.add_chart(scene, _("Few-label study"), x, list(curves), score, token)
    for node in undo.owned_nodes(scene, token):
        # It is of a job, not of the scene.
        node.SetSaveWithScene(False)
    counts = sorted({count for curve in curves.values() for count in curve})
    chart.append([{x: count, **{name: c[count] for name, c in curves.items() if count in c}} for count in counts])
    show(widget, chart.chart)
