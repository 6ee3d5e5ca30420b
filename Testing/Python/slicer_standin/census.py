"""What the real application has: names of properties, signals, slots and methods by class.

Run ``python -m slicer_standin.census PATH_OF_THE_FULL_CENSUS`` in this folder's parent to trim the full
census anew after a class has been added to :data:`USED`.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

CENSUS = Path(__file__).with_name("census.json")

#: Classes whose names the tests check; everything else is refused.
USED = [
    "QObject",
    "QWidget",
    "QFrame",
    "QLabel",
    "QPushButton",
    "QToolButton",
    "QCheckBox",
    "QComboBox",
    "QSpinBox",
    "QDoubleSpinBox",
    "QLineEdit",
    "QSlider",
    "QPlainTextEdit",
    "QTextBrowser",
    "QProgressBar",
    "QTableWidget",
    "QTableWidgetItem",
    "QTabWidget",
    "QHeaderView",
    "QHBoxLayout",
    "QVBoxLayout",
    "QFormLayout",
    "QGridLayout",
    "QTimer",
    "QColor",
    "QIcon",
    "QPixmap",
    "QSize",
    "QUrl",
    "QFont",
    "QGroupBox",
    "QFileDialog",
    "QMessageBox",
    "QSettings",
    "QDesktopServices",
    "QSignalBlocker",
    "QAction",
    "QMenu",
    "QSplitter",
    "QStackedWidget",
    "QRadioButton",
    "QScrollArea",
    "ctkCollapsibleButton",
    "ctkCollapsibleGroupBox",
    "ctkPathLineEdit",
    "ctkSliderWidget",
    "ctkComboBox",
    "ctkCheckableComboBox",
    "ctkDoubleSpinBox",
    "ctkColorPickerButton",
    "ctkDirectoryButton",
    "qMRMLWidget",
    "qMRMLNodeComboBox",
    "qMRMLSegmentEditorWidget",
    "qMRMLSegmentsTableView",
    "qMRMLSegmentationShow3DButton",
    "qMRMLPlotWidget",
    "qMRMLPlotView",
    "qMRMLTableView",
    "qMRMLSliceWidget",
    "qMRMLSliceView",
    "qMRMLSliceControllerWidget",
    "qMRMLThreeDWidget",
    "qMRMLThreeDView",
    "qMRMLSequenceBrowserPlayWidget",
    "qMRMLSequenceBrowserSeekWidget",
    "qMRMLLayoutManager",
    "qSlicerLayoutManager",
    "qSlicerModuleManager",
    "qSlicerExtensionsManagerModel",
    "qSlicerFileDialog",
    "qMRMLCollapsibleButton",
]

#: Python modules whose function names and signatures the tests check.
MODULES = [
    "slicer.util",
    "slicer.packaging",
    "slicer.i18n",
    "slicer.testing",
    "slicer.ScriptedLoadableModule",
    "SampleData",
    "slicer.app",
    "slicer.modules",
    "slicer.parameterNodeWrapper",
]


#: Names of the ``qt`` module that have no entry of their own in the census.
QT_NAMES = ["QBrush", "QColorDialog"]


def trim(full: Path, out: Path = CENSUS) -> None:
    """Writes the part of the full census that the tests need."""
    document = json.loads(full.read_text(encoding="utf-8"))
    classes = {name: document["classes"][name] for name in USED if name in document["classes"]}
    app = document["python"]["slicer.app"]
    meta_names = {base for entry in classes.values() for base in entry.get("bases", [])} | set(app["bases"])
    meta_names |= set(document["python"]["slicer.util.mainWindow()"]["bases"])
    for base in meta_names & set(document["classes"]):
        classes.setdefault(base, document["classes"][base])
    kept = {
        "version": document["version"],
        "classes": {n: {k: v for k, v in e.items() if k in ("bases", "python_methods")} for n, e in classes.items()},
        "meta": {name: document["meta"][name] for name in sorted(meta_names) if name in document["meta"]},
        "qt": [name for name in QT_NAMES if name in document["python"]["qt_namespace"]],
        "python": {name: document["python"][name] for name in MODULES},
    }
    out.write_text(json.dumps(kept, sort_keys=True, separators=(",", ":")) + "\n", encoding="utf-8")


@cache
def document() -> dict[str, Any]:
    return json.loads(CENSUS.read_text(encoding="utf-8"))


@cache
def bases(name: str) -> tuple[str, ...]:
    """The meta objects of a class, own first; empty for a value class."""
    if name == "slicer.app":
        return tuple(document()["python"]["slicer.app"]["bases"])
    return tuple(document()["classes"][name].get("bases", ()))


@cache
def properties(name: str) -> dict[str, bool]:
    """Property names with whether each can be written."""
    found: dict[str, bool] = {}
    for base in bases(name):
        for prop, kind in document()["meta"].get(base, {}).get("properties", {}).items():
            found.setdefault(prop, "(read-only)" not in kind)
    return found


@cache
def signals(name: str) -> dict[str, list[str]]:
    """Signal signatures by signal name, in the order in which the class declares them."""
    found: dict[str, list[str]] = {}
    for base in bases(name):
        for text in document()["meta"].get(base, {}).get("signals", []):
            found.setdefault(text.partition("(")[0], []).append(text)
    return found


@cache
def methods(name: str) -> frozenset[str]:
    """Names that are called with parentheses."""
    found: set[str] = set()
    entries = document()["classes"]
    for base in (name, *bases(name), *(("QObject",) if bases(name) else ())):
        found.update(entries.get(base, {}).get("python_methods", []))
        meta = document()["meta"].get(base, {})
        for text in (*meta.get("slots", []), *meta.get("invokables", [])):
            found.add(text.partition("(")[0].split()[-1].lstrip("*&"))
    if name == "slicer.app":
        found.update(document()["python"]["slicer.app"]["python_names"])
    return frozenset(found)


@cache
def enums(name: str) -> dict[str, int]:
    """Enumerators that are attributes of a class (ctk's and MRML's own; Qt's come from Qt)."""
    found: dict[str, int] = {}
    for base in bases(name):
        for group in document()["meta"].get(base, {}).get("enums", {}).values():
            found.update(group)
    return found


def python(module: str) -> dict[str, Any]:
    """Function names and signatures of one of Slicer's Python modules."""
    return document()["python"][module]


if __name__ == "__main__":
    trim(Path(sys.argv[1]))
