"""Curves of loss and scores as Slicer's plot nodes, to which points are added cheaply while a job runs."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import vtk

from . import undo
from .host import new_node

#: Curve colours, readable on white and for colour-blind eyes.
COLOURS = ((0.00, 0.45, 0.70), (0.84, 0.37, 0.00), (0.00, 0.62, 0.45), (0.80, 0.47, 0.65), (0.90, 0.62, 0.00))


@dataclass
class Chart:
    """A table, one curve for each of its columns but the first, and the chart that shows them.

    Attributes:
        table: vtkMRMLTableNode; its first column is the x axis.
        series: One vtkMRMLPlotSeriesNode a curve.
        chart: vtkMRMLPlotChartNode.
    """

    table: Any
    series: list[Any]
    chart: Any

    def append(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Adds rows at the end; a column that a row does not name gets no point there.

        The views redraw once, however many rows are added.
        """
        table = self.table.GetTable()
        for row in rows:
            for k in range(table.GetNumberOfColumns()):
                column = table.GetColumn(k)
                column.InsertNextValue(float(row.get(column.GetName(), vtk.vtkMath.Nan())))
        if rows:
            for k in range(table.GetNumberOfColumns()):
                table.GetColumn(k).Modified()
            table.Modified()
            self.table.Modified()


def add_chart(scene: Any, title: str, x: str, curves: Sequence[str], y: str, token: str = undo.DEFAULT_TOKEN) -> Chart:
    """Adds an empty chart.

    Args:
        scene: The MRML scene.
        title: Shown above it.
        x: Name of the x axis and of the table's first column.
        curves: Names of the curves.
        y: Title of the y axis.
        token: Owner of what is added.
    """
    with undo.owned(scene, token):
        table = new_node(scene, "vtkMRMLTableNode", f"{title} values")
        values = vtk.vtkTable()
        for name in (x, *curves):
            column = vtk.vtkDoubleArray()
            column.SetName(name)
            values.AddColumn(column)
        table.SetAndObserveTable(values)
        chart = new_node(scene, "vtkMRMLPlotChartNode", title)
        chart.SetTitle(title)
        chart.SetXAxisTitle(x)
        chart.SetYAxisTitle(y)
        series = [_curve(scene, table, x, name, k) for k, name in enumerate(curves)]
        for curve in series:
            chart.AddAndObservePlotSeriesNodeID(curve.GetID())
    return Chart(table, series, chart)


def _curve(scene: Any, table: Any, x: str, name: str, index: int) -> Any:
    series = new_node(scene, "vtkMRMLPlotSeriesNode", name)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName(x)
    series.SetYColumnName(name)
    series.SetPlotType(series.PlotTypeScatter)
    series.SetMarkerStyle(series.MarkerStyleNone)
    series.SetLineStyle(series.LineStyleSolid)
    series.SetLineWidth(2)
    series.SetColor(*COLOURS[index % len(COLOURS)])
    return series
