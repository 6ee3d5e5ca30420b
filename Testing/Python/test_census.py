"""Every use of a widget in the modules' code against the census of the real application, also where no test goes.

The stand-in checks what is executed. Here the source is read: which widget of which class, which name, called or not,
which signal, which keyword.
"""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed", exc_type=ImportError)
pytest.importorskip("slicer", reason="slicer-core is not installed", exc_type=ImportError)

from slicer_standin import census

ROOT = Path(__file__).resolve().parents[2]
PANELS = sorted((ROOT / "SSLSegmentation" / "SSLPanels").glob("*.py"))
#: Files of the panels that are made from SSLPretrain's .ui file, and those that stand for both.
PRETRAIN = ("SSLPretrain", "cohort_panel", "training_panel", "jobs_panel", "pretrain_self_test")
BOTH = ("devices", "monitor", "module_widget")
FILES = [ROOT / "SSLPretrain" / "SSLPretrain.py", ROOT / "SSLSegmentation" / "SSLSegmentation.py", *PANELS]


def widgets_of(name: str) -> dict[str, str]:
    """Class by object name in a module's .ui file."""
    root = ElementTree.parse(ROOT / name / "Resources" / "UI" / f"{name}.ui").getroot()
    return {w.get("name", ""): w.get("class", "") for w in root.iter("widget")}


WIDGETS = {name: widgets_of(name) for name in ("SSLPretrain", "SSLSegmentation")}


class Reader(ast.NodeVisitor):
    """Collects what is wrong with the use of widgets in one file.

    Args:
        module: The module whose .ui file the file's ``ui`` is made from.
    """

    def __init__(self, module: str) -> None:
        self.widgets = WIDGETS[module]
        self.aliases: dict[str, str] = {}
        self.wrong: list[str] = []
        self.seen = 0

    def kind(self, node: ast.AST) -> str | None:
        """Class of the widget or Qt object that an expression stands for; None where that is not plain to see."""
        if isinstance(node, ast.Attribute) and _is_ui(node.value):
            return self.widgets.get(node.attr)
        if isinstance(node, (ast.Attribute, ast.Name)):
            return self.aliases.get(ast.unparse(node))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, name = node.func.value, node.func.attr
            if isinstance(owner, ast.Name) and owner.id == "qt" and name in census.document()["classes"]:
                return name
        return None

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        kept = dict(self.aliases)
        self.generic_visit(node)
        # Names of the function end with it; attributes of self stay.
        self.aliases = {k: v for k, v in self.aliases.items() if "." in k} | kept

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            kind = self.kind(node.value)
            if isinstance(target, (ast.Name, ast.Attribute)) and not (
                isinstance(target, ast.Attribute) and self.kind(target.value)
            ):
                if kind is not None:
                    self.aliases[ast.unparse(target)] = kind
                else:
                    self.aliases.pop(ast.unparse(target), None)

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Attribute):
            kind = self.kind(function.value)
            if kind is not None:
                self._check(kind, function.attr, "called", node.lineno)
                if function.attr in ("connect", "disconnect") and isinstance(node.args[0], ast.Constant):
                    self._check_signal(kind, str(node.args[0].value), node.lineno)
                self.visit(function.value)
            else:
                self._check_function(node, ast.unparse(function))
                self.visit(function)
        else:
            self.visit(function)
        for argument in node.args:
            # A method may be handed on as a slot.
            if isinstance(argument, ast.Attribute) and (kind := self.kind(argument.value)) is not None:
                self._check(kind, argument.attr, "handed on", node.lineno)
            else:
                self.visit(argument)
        for keyword in node.keywords:
            self.visit(keyword.value)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        kind = self.kind(node.value)
        if kind is not None:
            self._check(kind, node.attr, "set" if isinstance(node.ctx, ast.Store) else "read", node.lineno)
        elif _is_ui(node.value) and node.attr not in self.widgets:
            self.wrong.append(f"line {node.lineno}: the .ui file has no widget '{node.attr}'")
        self.generic_visit(node)

    def _check(self, kind: str, name: str, use: str, line: int) -> None:
        self.seen += 1
        properties, methods = census.properties(kind), census.methods(kind)
        if name in properties:
            wrong = (
                "is a property" if use == "called" else "is read-only" if use == "set" and not properties[name] else ""
            )
        elif name in census.signals(kind) or name in census.enums(kind):
            wrong = "cannot be set" if use == "set" else ""
        elif name in methods:
            wrong = "is a method" if use in ("read", "set") else ""
        else:
            wrong = "does not exist"
        if wrong:
            self.wrong.append(f"line {line}: {kind}.{name} is {use} but {wrong}")

    def _check_signal(self, kind: str, signature: str, line: int) -> None:
        if signature not in census.signals(kind).get(signature.partition("(")[0], []):
            self.wrong.append(f"line {line}: {kind} has no signal {signature}")

    def _check_function(self, node: ast.Call, name: str) -> None:
        """Names and keywords of Slicer's own functions."""
        module, _, function = name.rpartition(".")
        if module == "slicer.app":
            self.seen += 1
            if function not in census.methods("slicer.app") and function not in ("connect", "disconnect"):
                self.wrong.append(f"line {node.lineno}: slicer.app.{function} does not exist or is a property")
        elif module == "slicer.util":
            self.seen += 1
            signature = census.python("slicer.util").get(function)
            if signature is None:
                self.wrong.append(f"line {node.lineno}: slicer.util.{function} does not exist")
            elif "**" not in str(signature):
                known = set(re.findall(r"(\w+)\s*(?=[:=,)])", str(signature)))
                unknown = {k.arg for k in node.keywords if k.arg} - known
                if unknown:
                    self.wrong.append(f"line {node.lineno}: {name}{signature} takes no {unknown}")


def _is_ui(node: ast.AST) -> bool:
    return (isinstance(node, ast.Attribute) and node.attr in ("ui", "_ui")) or (
        isinstance(node, ast.Name) and node.id == "ui"
    )


def cases() -> Iterator[tuple[Path, str]]:
    for path in FILES:
        if path.stem in BOTH:
            modules = ("SSLPretrain", "SSLSegmentation")
        else:
            modules = ("SSLPretrain",) if path.stem in PRETRAIN else ("SSLSegmentation",)
        for module in modules:
            yield path, module


@pytest.mark.parametrize(("path", "module"), list(cases()), ids=lambda value: getattr(value, "stem", value))
def test_uses_of_widgets_are_those_of_the_real_application(path: Path, module: str) -> None:
    reader = Reader(module)
    reader.visit(ast.parse(path.read_text(encoding="utf-8")))
    assert not reader.wrong, "\n".join(reader.wrong)
    if path.stem in ("training_panel", "exam_panel", "segmentation_self_test", "monitor"):
        assert reader.seen >= 15, "the reader must find the uses"


@pytest.mark.parametrize(
    ("code", "word"),
    [
        ("self.ui.loadStudyButton.text()", "property"),
        ("self.ui.loadStudyButton.nonsense", "does not exist"),
        ("self.ui.noSuchWidget.text", "no widget"),
        ("x = self.ui.viewsTable\nx.item", "method"),
        ("x = self.ui.viewsTable\nx.rowCount = 3\nx.item = 3", "method"),
        ("self.ui.loadStudyButton.connect('klicked()', f)", "no signal"),
        ("self.timer = qt.QTimer()\nself.timer.begin()", "does not exist"),
        ("slicer.util.noSuch()", "does not exist"),
        ("slicer.util.infoDisplay('x', colour=3)\nslicer.util.plainText(1)", "does not exist"),
        ("slicer.app.noSuch()", "does not exist"),
    ],
)
def test_the_reader_finds_mistakes(code: str, word: str) -> None:
    reader = Reader("SSLSegmentation")
    reader.visit(ast.parse(code))
    assert len(reader.wrong) == 1, reader.wrong
    assert word in reader.wrong[0]


@pytest.mark.parametrize("module", WIDGETS)
def test_ui_properties_exist(module: str) -> None:
    """Slicer's loader passes over a property that a class does not have; it would simply have no effect.

    A label's buddy is none of its properties: the loader (Qt's form builder) sets it by itself.
    """
    root = ElementTree.parse(ROOT / module / "Resources" / "UI" / f"{module}.ui").getroot()
    wrong = []
    for widget in root.iter("widget"):
        kind, name = widget.get("class", ""), widget.get("name", "")
        for prop in widget.findall("property"):
            known = {*census.properties(kind), *(["buddy"] if kind == "QLabel" else [])}
            if prop.get("stdset") != "0" and prop.get("name") not in known:
                wrong.append(f"{name} ({kind}).{prop.get('name')}")
    assert not wrong


@pytest.mark.parametrize("module", WIDGETS)
def test_ui_has_a_tool_tip_for_all_that_can_be_used(module: str) -> None:
    root = ElementTree.parse(ROOT / module / "Resources" / "UI" / f"{module}.ui").getroot()
    silent = ("qMRMLWidget", "QWidget", "ctkCollapsibleButton", "ctkCollapsibleGroupBox", "QLabel", "QPlainTextEdit")
    silent += ("QProgressBar", "qMRMLPlotWidget", "qMRMLSegmentEditorWidget", "qMRMLSegmentationShow3DButton")
    lacking = [
        w.get("name")
        for w in root.iter("widget")
        if w.get("class") not in silent and not any(p.get("name") == "toolTip" for p in w.findall("property"))
    ]
    assert not lacking
