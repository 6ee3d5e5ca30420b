"""Filling table widgets."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import qt


def fill(table: Any, rows: Sequence[Sequence[str]], tips: Sequence[str] = (), keys: Sequence[str] = ()) -> None:
    """Writes texts into a table that is read only; a row's key is kept as data of its first cell."""
    blocked = table.blockSignals(True)
    table.setRowCount(len(rows))
    for r, row in enumerate(rows):
        for c, text in enumerate(row):
            item = qt.QTableWidgetItem(text)
            item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable)
            item.setToolTip(tip(tips[r] if r < len(tips) else text))
            if c == 0 and r < len(keys):
                item.setData(qt.Qt.UserRole, keys[r])
            table.setItem(r, c, item)
    table.blockSignals(blocked)


def tip(text: str) -> str:
    """A tool tip that shows a text as it is: Qt takes for HTML what looks like it, and names may look like anything."""
    return f"<qt>{html.escape(text).replace(chr(10), '<br>')}</qt>" if text else ""


def key(table: Any, row: int) -> str | None:
    """The key of a row; None where there is no such row."""
    item = table.item(row, 0) if 0 <= row < table.rowCount else None
    return None if item is None else item.data(qt.Qt.UserRole)


def headers(table: Any, names: Sequence[str], stretch: int) -> None:
    """Column titles; one column takes the room that is left."""
    table.setColumnCount(len(names))
    table.setHorizontalHeaderLabels(list(names))
    header = table.horizontalHeader()
    header.setMinimumSectionSize(60)
    for column in range(len(names)):
        header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
    header.setSectionResizeMode(stretch, qt.QHeaderView.Stretch)
