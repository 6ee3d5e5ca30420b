"""Table nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import vtk

from .exams import put_under
from .host import new_node


def add_text_table(scene: Any, name: str, titles: Sequence[str], rows: Sequence[Sequence[str]], parent: int = 0) -> Any:
    """Adds a vtkMRMLTableNode of texts.

    Args:
        scene: The MRML scene.
        name: The node's name.
        titles: Of the columns.
        rows: Each as long as the titles.
        parent: Subject hierarchy item that the node goes under; 0 for none.
    """
    columns = [texts(title, [row[k] for row in rows]) for k, title in enumerate(titles)]
    return add_table(scene, name, columns, parent)


def add_table(scene: Any, name: str, columns: Sequence[Any], parent: int = 0) -> Any:
    """As :func:`add_text_table`, of columns made by :func:`texts` and :func:`numbers`, all of one length."""
    table = vtk.vtkTable()
    for column in columns:
        table.AddColumn(column)
    node = new_node(scene, "vtkMRMLTableNode", name)
    node.SetAndObserveTable(table)
    if parent:
        put_under(scene, node, parent)
    return node


def texts(title: str, values: Sequence[str]) -> Any:
    """A column of texts."""
    column = vtk.vtkStringArray()
    column.SetName(title)
    for value in values:
        column.InsertNextValue(value)
    return column


def numbers(title: str, values: Sequence[float | None]) -> Any:
    """A column of numbers to one decimal; empty cells where there is none."""
    column = vtk.vtkDoubleArray()
    column.SetName(title)
    for value in values:
        column.InsertNextValue(vtk.vtkMath.Nan() if value is None else round(value, 1))
    return column
