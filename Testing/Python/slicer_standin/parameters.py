"""``slicer.parameterNodeWrapper``: a typed view of a real parameter node, and its ties to widgets.

Written from what was tried in the application: which types can be stored and as what text, what is refused on
writing, and which widget class may stand for which type. Only what the two modules use is here.
"""

from __future__ import annotations

import enum
import pathlib
import typing
from collections.abc import Callable
from types import ModuleType
from types import UnionType
from typing import Any

import vtk

from .pythonqt import Proxy
from .pythonqt import StandInError


class Choice:
    """The value must be one of these."""

    def __init__(self, choices: Any) -> None:
        self.choices = list(choices)

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            msg = f"{value!r} is not one of {self.choices}"
            raise ValueError(msg)


class WithinRange:
    """Bounds, both included."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value: Any) -> None:
        if value is not None and not self.minimum <= value <= self.maximum:
            msg = f"{value} is outside [{self.minimum}, {self.maximum}]"
            raise ValueError(msg)


class Minimum:
    """Lower bound."""

    def __init__(self, minimum: float) -> None:
        self.minimum = minimum

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            msg = f"{value} is below {self.minimum}"
            raise ValueError(msg)


class Default:
    """A default for a type that an assignment cannot give."""

    def __init__(self, value: Any = None, *, generator: Callable[[], Any] | None = None) -> None:
        self.value, self.generator = value, generator


def _is_node(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, vtk.vtkObject)


class Field:
    """One parameter: its type, its checks, its text."""

    def __init__(self, name: str, annotation: Any, default: Any, has_default: bool) -> None:
        self.name = name
        parts = typing.get_args(annotation) if typing.get_origin(annotation) is typing.Annotated else (annotation,)
        self.kind: Any = parts[0]
        self.validators = [p for p in parts[1:] if hasattr(p, "validate")]
        self.optional = False
        if typing.get_origin(self.kind) in (typing.Union, UnionType):
            rest = [t for t in typing.get_args(self.kind) if t is not type(None)]
            self.optional = len(rest) < len(typing.get_args(self.kind))
            self.kind = rest[0]
        self.element = typing.get_args(self.kind)[0] if typing.get_origin(self.kind) is list else None
        known = (int, float, str, bool)
        plain = self.kind in known or (
            isinstance(self.kind, type) and issubclass(self.kind, (enum.Enum, pathlib.PurePath))
        )
        if not (plain or _is_node(self.kind) or self.element in known):
            msg = f"parameter {name}: type {annotation} cannot be stored (or not in this stand-in)"
            raise StandInError(msg)
        self.default = default if has_default else self._natural_default()
        self.validate(self.default)

    def _natural_default(self) -> Any:
        if self.optional or _is_node(self.kind):
            return None
        if self.element is not None:
            return []
        if issubclass(self.kind, enum.Enum):
            return next(iter(self.kind))
        return self.kind()

    def validate(self, value: Any) -> None:
        if value is None:
            if not (self.optional or _is_node(self.kind)):
                msg = f"parameter {self.name} must not be None"
                raise ValueError(msg)
            return
        expected = list if self.element is not None else self.kind
        exact = type(value) in (int, float) if expected is float else isinstance(value, expected)
        if not exact or (expected is int and type(value) is not int):
            msg = f"parameter {self.name} is {expected.__name__}, not {type(value).__name__}"
            raise TypeError(msg)
        for validator in self.validators:
            validator.validate(value)

    def write(self, node: Any, value: Any) -> None:
        self.validate(value)
        if _is_node(self.kind):
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
        elif self.element is not None:
            node.SetParameter(f"{self.name}.len", str(len(value)))
            for index, item in enumerate(value):
                node.SetParameter(f"{self.name}.{index}", str(item))
        else:
            node.SetParameter(self.name, self._text(value))

    def _text(self, value: Any) -> str:
        if value is None:
            return "None"
        return value.name if isinstance(value, enum.Enum) else str(float(value) if self.kind is float else value)

    def read(self, node: Any) -> Any:
        if _is_node(self.kind):
            return node.GetNodeReference(self.name)
        if self.element is not None:
            length = node.GetParameter(f"{self.name}.len")
            return [self.element(node.GetParameter(f"{self.name}.{i}")) for i in range(int(length or 0))]
        if not node.HasParameter(self.name):
            return self.default
        return self._value(node.GetParameter(self.name))

    def _value(self, text: str) -> Any:
        if self.optional and text == "None":
            return None
        if self.kind is bool:
            return text == "True"
        return self.kind[text] if issubclass(self.kind, enum.Enum) else self.kind(text)


def _check_box(field: Field, widget: Proxy) -> Any:
    return ("toggled(bool)", lambda: widget.checked, widget.setChecked) if field.kind is bool else None


def _number(field: Field, widget: Proxy) -> Any:
    whole = widget.className() == "QSpinBox"
    if field.kind not in ((int,) if whole else (int, float)):
        return None
    bounds = next((v for v in field.validators if isinstance(v, WithinRange)), None)
    if bounds is None and widget.className() in ("ctkSliderWidget", "QSlider"):
        msg = f"{field.name}: a slider needs WithinRange"
        raise RuntimeError(msg)
    if bounds is not None:
        widget.minimum, widget.maximum = bounds.minimum, bounds.maximum
    signal = "valueChanged(int)" if whole or widget.className() == "QSlider" else "valueChanged(double)"
    return signal, lambda: field.kind(widget.value), lambda v: setattr(widget, "value", v)


def _combo(field: Field, widget: Proxy) -> Any:
    if isinstance(field.kind, type) and issubclass(field.kind, enum.Enum):
        members = list(field.kind)
        # As Slicer's QComboBoxToEnumConnector does: a member's method label(), else its name.
        label = getattr(field.kind, "label", lambda member: member.name)
        widget.clear()
        widget.addItems([label(member) for member in members])
        return (
            "currentIndexChanged(int)",
            lambda: members[widget.currentIndex],
            lambda value: setattr(widget, "currentIndex", members.index(value)),
        )
    choice = next((v for v in field.validators if isinstance(v, Choice)), None)
    if field.kind is not str:
        return None
    if choice is not None:
        widget.clear()
        widget.addItems(choice.choices)
    return "currentIndexChanged(int)", lambda: widget.currentText, _select(widget, str)


def _select(widget: Proxy, text: Callable[[Any], str]) -> Callable[[Any], None]:
    def select(value: Any) -> None:
        widget.currentIndex = widget.findText(text(value))

    return select


def _line(field: Field, widget: Proxy) -> Any:
    return (
        ("textChanged(QString)", lambda: widget.text, lambda v: setattr(widget, "text", v))
        if field.kind is str
        else None
    )


def _path(field: Field, widget: Proxy) -> Any:
    if not (isinstance(field.kind, type) and issubclass(field.kind, pathlib.PurePath)):
        return None
    return (
        "currentPathChanged(QString)",
        lambda: field.kind(widget.currentPath),
        lambda v: setattr(widget, "currentPath", str(v)),
    )


def _node(field: Field, widget: Proxy) -> Any:
    return (
        ("currentNodeChanged(vtkMRMLNode*)", widget.currentNode, widget.setCurrentNode)
        if _is_node(field.kind)
        else None
    )


#: The pairs of widget class and type that the application accepts (class must match exactly).
CONNECTORS: dict[str, Callable[[Field, Proxy], Any]] = {
    "QCheckBox": _check_box,
    "QPushButton": _check_box,
    "QSpinBox": _number,
    "QDoubleSpinBox": _number,
    "QSlider": _number,
    "ctkSliderWidget": _number,
    "QComboBox": _combo,
    "ctkComboBox": _combo,
    "QLineEdit": _line,
    "ctkPathLineEdit": _path,
    "qMRMLNodeComboBox": _node,
}


class _Connection:
    """A widget and a parameter kept equal."""

    def __init__(self, wrapper: Any, field: Field, widget: Proxy) -> None:
        made = CONNECTORS.get(widget.className(), lambda *_: None)(field, widget)
        if made is None:
            msg = f"no connector for {widget.className()} and {field.kind} (parameter {field.name})"
            raise RuntimeError(msg)
        self.signal, self._read, self._write = made
        self._wrapper, self._field, self._widget = wrapper, field, widget
        self.update()
        widget.connect(self.signal, self._changed)

    def _changed(self) -> None:
        setattr(self._wrapper, self._field.name, self._read())

    def update(self) -> None:
        value = getattr(self._wrapper, self._field.name)
        if value is not None or _is_node(self._field.kind):
            self._write(value)

    def cut(self) -> None:
        self._widget.disconnect(self.signal, self._changed)


class _Base:
    """What every wrapped parameter node has."""

    _fields: dict[str, Field]

    def __init__(self, parameterNode: Any = None) -> None:
        self.__dict__["parameterNode"] = parameterNode
        self.__dict__["_ties"] = {}
        for name, field in self._fields.items():
            present = parameterNode.HasParameter(name) or parameterNode.HasParameter(f"{name}.len")
            if not present and not _is_node(field.kind):
                field.write(parameterNode, field.default)

    def getValue(self, name: str) -> Any:
        return getattr(self, name)

    def setValue(self, name: str, value: Any) -> None:
        setattr(self, name, value)

    def default(self, name: str) -> Any:
        return Default(self._fields[name].default)

    @property
    def allParameters(self) -> dict[str, Any]:
        return dict(self._fields)

    def AddObserver(self, event: int, callback: Callable[..., Any]) -> int:
        return self.parameterNode.AddObserver(event, callback)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def connectGui(self, top: Proxy) -> int:
        tied = [w for w in _descendants(top) if w.property("SlicerParameterName")]
        return self.connectParametersToGui({w.property("SlicerParameterName"): w for w in tied})

    def connectParametersToGui(self, mapping: dict[str, Proxy]) -> int:
        for name in mapping:
            if name not in self._fields:
                msg = f"SlicerParameterName '{name}' is no parameter; there are {sorted(self._fields)}"
                raise ValueError(msg)
        connections = [_Connection(self, self._fields[name], widget) for name, widget in mapping.items()]
        observer = self.parameterNode.AddObserver(
            vtk.vtkCommand.ModifiedEvent, lambda *_: [c.update() for c in connections]
        )
        self._ties[observer] = connections
        return observer

    def disconnectGui(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)
        for connection in self._ties.pop(tag, []):
            connection.cut()


def _descendants(top: Proxy) -> list[Proxy]:
    from PySide6 import QtWidgets

    from .pythonqt import proxy_of

    return [proxy_of(child) for child in top._real.findChildren(QtWidgets.QWidget)]


def parameterNodeWrapper(classtype: type) -> type:
    """Class decorator: every annotated attribute becomes a parameter of the node."""
    fields = {}
    for name, annotation in typing.get_type_hints(classtype, include_extras=True).items():
        given = next((p for p in getattr(annotation, "__metadata__", ()) if isinstance(p, Default)), None)
        default = given.value if given else getattr(classtype, name, None)
        fields[name] = Field(name, annotation, default, given is not None or hasattr(classtype, name))
    members: dict[str, Any] = {"_fields": fields, "__doc__": classtype.__doc__}
    for name, field in fields.items():
        members[name] = property(
            lambda self, f=field: f.read(self.parameterNode),
            lambda self, value, f=field: f.write(self.parameterNode, value),
        )
    extra = {k: v for k, v in vars(classtype).items() if callable(v) and not k.startswith("__")}
    return type(classtype.__name__, (_Base,), {**extra, **members})


def module() -> ModuleType:
    """``slicer.parameterNodeWrapper``."""
    made = ModuleType("slicer.parameterNodeWrapper")
    for item in (Choice, WithinRange, Minimum, Default, parameterNodeWrapper):
        setattr(made, item.__name__, item)
    return made
