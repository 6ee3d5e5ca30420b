"""Table nodes of text."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import vtk

from .host import new_node


def add_text_table(scene: Any, name: str, columns: Mapping[str, Sequence[str]]) -> Any:
    """Adds a vtkMRMLTableNode; columns by title, all of one length."""
    table = vtk.vtkTable()
    for title, texts in columns.items():
        array = vtk.vtkStringArray()
        array.SetName(title)
        for text in texts:
            array.InsertNextValue(text)
        table.AddColumn(array)
    node = new_node(scene, "vtkMRMLTableNode", name)
    node.SetAndObserveTable(table)
    return node
