"""``qt``: PySide6 objects that behave as PythonQt's do in Slicer, checked against the census.

A property is an attribute, a method is called, an unknown name is an error, a wrong number or type of
arguments is a ValueError, enumerations are integers, lists come back as tuples.
"""

from __future__ import annotations

import enum
import inspect
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

from PySide6 import QtCore
from PySide6 import QtGui
from PySide6 import QtWidgets

from . import census

_MODULES = (QtWidgets, QtGui, QtCore)

#: Exceptions raised in slots: Slicer prints them and goes on, a test must fail of them.
slot_errors: list[str] = []


class StandInError(AssertionError):
    """The code under test asked for something that the real application does not have."""


class Enumerator(int):
    """An integer, as PythonQt gives it, that remembers the typed value that PySide6 wants."""

    typed: Any

    def __new__(cls, typed: Any) -> Enumerator:
        value = super().__new__(cls, typed.value)
        value.typed = typed
        return value

    def __or__(self, other: Any) -> Any:
        return Enumerator(self.typed | other.typed) if isinstance(other, Enumerator) else int(self) | other

    def __and__(self, other: Any) -> int:
        return int(self) & int(other)

    def __hash__(self) -> int:
        return int.__hash__(self)


def unwrap(value: Any) -> Any:
    """What PySide6 is to be given for a value of the code under test."""
    if isinstance(value, (Proxy, ValueProxy)):
        return value._real
    if isinstance(value, Enumerator):
        return value.typed
    if isinstance(value, BoundMethod):
        return value._function
    if isinstance(value, (list, tuple)):
        return [unwrap(item) for item in value]
    return value


def wrap(value: Any) -> Any:
    """What the code under test sees of a value from PySide6."""
    if isinstance(value, QtCore.QObject):
        return proxy_of(value)
    if isinstance(value, enum.Enum):
        return Enumerator(value)
    if type(value).__name__ in census.document()["classes"] and type(value).__module__.startswith("PySide6"):
        return value_class(type(value).__name__)._of(value)
    if isinstance(value, (list, tuple)):
        return tuple(wrap(item) for item in value)
    return value


class BoundMethod:
    """A method of a proxied object: checks its arguments the way PythonQt does."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function = function
        self._name = name

    def __call__(self, *args: Any) -> Any:
        if any(argument is None for argument in args) and self._name in ("addWidget", "addRow", "addLayout"):
            msg = f"{self._name}(None) crashes the real application"
            raise StandInError(msg)
        try:
            return wrap(self._function(*[unwrap(argument) for argument in args]))
        except TypeError as error:
            msg = f"{self._name}: wrong number or type of arguments ({error})"
            raise ValueError(msg) from None

    def __bool__(self) -> bool:
        msg = f"'{self._name}' is a method: it needs parentheses"
        raise StandInError(msg)


def _accepted(function: Callable[..., Any]) -> int | None:
    """How many positional arguments a slot takes; None for any number."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


class BoundSignal:
    """A signal of a proxied object, one overload."""

    def __init__(self, owner: Proxy, signature: str) -> None:
        self._owner = owner
        self._signature = signature
        self._name, _, rest = signature.partition("(")
        self._kinds = [kind for kind in rest.rstrip(")").split(",") if kind]

    def connect(self, slot: Callable[..., Any]) -> bool:
        real = unwrap(slot)
        accepted = _accepted(real) if real is slot else len(self._kinds)

        def forward(*args: Any) -> None:
            given = [self._convert(wrap(a), kind) for a, kind in zip(args, self._kinds, strict=False)]
            try:
                slot(*given[: len(given) if accepted is None else accepted])
            except Exception:
                slot_errors.append(traceback.format_exc())
                traceback.print_exc()

        self._owner._connections.setdefault((self._name, slot), []).append(forward)
        self._real().connect(forward)
        return True

    def disconnect(self, slot: Callable[..., Any]) -> bool:
        forwards = self._owner._connections.get((self._name, slot), [])
        if not forwards:
            return False
        self._real().disconnect(forwards.pop())
        return True

    def emit(self, *args: Any) -> None:
        self._real().emit(*[unwrap(argument) for argument in args])

    __call__ = emit

    def _real(self) -> Any:
        signal = getattr(self._owner._real, self._name)
        if self._name in ("clicked", "triggered"):
            return signal[bool]
        return signal

    @staticmethod
    def _convert(value: Any, kind: str) -> Any:
        return bool(value) if kind == "bool" else value


class Proxy:
    """An object that derives from QObject, seen through PythonQt's eyes."""

    _names = "QObject"
    _factory: type[QtCore.QObject] = QtCore.QObject

    def __init__(self, *args: Any, _real: QtCore.QObject | None = None) -> None:
        if _real is None:
            _real = self._make(*args)
        object.__setattr__(self, "_real", _real)
        object.__setattr__(self, "_connections", {})
        _real._proxy = self  # type: ignore[attr-defined]

    def _make(self, *args: Any) -> QtCore.QObject:
        """Makes the PySide6 object; methods that a Python subclass overrides are called from Qt."""
        overridden = {
            name: getattr(self, name)
            for kind in type(self).__mro__
            if not kind.__dict__.get("_generated", False) and kind not in (Proxy, object)
            for name in kind.__dict__
            if name.endswith(("Event", "eventFilter"))
        }
        factory = self._factory
        if overridden:
            members = {n: lambda _self, *a, f=f: f(*[wrap_event(x) for x in a]) for n, f in overridden.items()}
            factory = type(factory.__name__, (factory,), members)
        try:
            return factory(*[unwrap(argument) for argument in args])
        except TypeError as error:
            msg = f"{self._names}: wrong arguments ({error})"
            raise ValueError(msg) from None

    def _is_python_subclass(self) -> bool:
        return not type(self).__dict__.get("_generated", False)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        names = self._names
        if name in census.properties(names):
            return wrap(self._read(name))
        if name in census.signals(names):
            return BoundSignal(self, census.signals(names)[name][0])
        if name in census.enums(names):
            return census.enums(names)[name]
        if name in self._real.dynamicPropertyNames_():
            return self._real.property(name)
        if name not in census.methods(names):
            msg = f"{names} object has no attribute '{name}' (census of {census.document()['version']})"
            raise AttributeError(msg)
        return BoundMethod(self._method(name), name)

    def _read(self, name: str) -> Any:
        custom = getattr(type(self._real), f"read_{name}", None)
        return custom(self._real) if custom else self._real.property(name)

    def _method(self, name: str) -> Callable[..., Any]:
        special = getattr(type(self), f"_do_{name}", None)
        if special is not None:
            return special.__get__(self)
        function = getattr(self._real, name, None)
        if function is None:
            msg = f"{self._names}.{name} exists in Slicer but not in this stand-in (or not in Qt 6)"
            raise StandInError(msg)
        return function

    def __setattr__(self, name: str, value: Any) -> None:
        if name in census.properties(self._names):
            if not census.properties(self._names)[name]:
                msg = f"{self._names}.{name} is read-only"
                raise AttributeError(msg)
            self._write(name, value)
        elif self._is_python_subclass() and name not in census.methods(self._names):
            self.__dict__[name] = value
        else:
            msg = f"{self._names}.{name}: creating new attributes on C++ objects is not allowed"
            raise AttributeError(msg)

    def _write(self, name: str, value: Any) -> None:
        setter = getattr(self._real, f"set{name[0].upper()}{name[1:]}", None)
        given = unwrap(value)
        if setter is None:
            if not self._real.setProperty(name, given):
                msg = f"{self._names}.{name}: property of type {type(given).__name__} is not accepted"
                raise AttributeError(msg)
            return
        if name in ("text", "title", "windowTitle", "toolTip", "html", "plainText"):
            given = "" if given is None else str(given)
        elif isinstance(given, float) and isinstance(self._real.property(name), int):
            given = int(given)
        try:
            setter(given)
        except TypeError as error:
            msg = f"{self._names}.{name}: {error}"
            raise AttributeError(msg) from None

    def _do_connect(self, signature: str, slot: Callable[..., Any]) -> bool:
        name = signature.partition("(")[0]
        known = census.signals(self._names).get(name, [])
        if signature not in known:
            msg = f"{self._names} has no signal '{signature}'; it has {known or sorted(census.signals(self._names))}"
            raise StandInError(msg)
        return BoundSignal(self, signature).connect(slot)

    def _do_disconnect(self, signature: str, slot: Callable[..., Any]) -> bool:
        return BoundSignal(self, signature).disconnect(slot)

    def _do_className(self) -> str:
        return self._names

    def _do_inherits(self, name: str) -> bool:
        return name in census.bases(self._names)

    def _do_delete(self) -> None:
        import shiboken6

        shiboken6.delete(self._real)

    def _do_children(self) -> tuple[Any, ...]:
        return tuple(proxy_of(child) for child in self._real.children())

    def _do_parent(self) -> Any:
        parent = self._real.parent()
        return None if parent is None else proxy_of(parent)

    def _do_findChild(self, name: str) -> Any:
        found = self._real.findChild(QtCore.QObject, name)
        return None if found is None else proxy_of(found)

    def _do_exec(self) -> Any:
        return self._real.exec()

    _do_exec_ = _do_exec


def _dynamic_names(self: QtCore.QObject) -> list[str]:
    return [bytes(name.data()).decode() for name in self.dynamicPropertyNames()]


QtCore.QObject.dynamicPropertyNames_ = _dynamic_names  # type: ignore[attr-defined]


class Event:
    """A Qt event as a virtual override of the code under test sees it: all of it is methods."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._real, name)
        return lambda *args: wrap_event(function(*args))


def wrap_event(value: Any) -> Any:
    if isinstance(value, (QtCore.QEvent, QtCore.QMimeData)):
        return Event(value)
    return wrap(value)


class ValueProxy:
    """A value class (QColor, QTableWidgetItem ...): no properties, every name is called."""

    _names = ""
    _factory: type[Any]

    def __init__(self, *args: Any) -> None:
        object.__setattr__(self, "_real", self._factory(*[unwrap(argument) for argument in args]))

    @classmethod
    def _of(cls, real: Any) -> ValueProxy:
        proxy = cls.__new__(cls)
        object.__setattr__(proxy, "_real", real)
        return proxy

    def __getattr__(self, name: str) -> Any:
        if name not in census.methods(self._names):
            msg = f"{self._names} object has no attribute '{name}'"
            raise AttributeError(msg)
        return BoundMethod(getattr(self._real, name), name)

    def __setattr__(self, name: str, value: Any) -> None:
        msg = f"{self._names} has no properties; '{name}' cannot be set"
        raise AttributeError(msg)

    def __eq__(self, other: object) -> bool:
        return self._real is unwrap(other) or self._real == unwrap(other)

    def __hash__(self) -> int:
        return hash(id(self._real))


class _ClassAttributes(type):
    """Enumerators and static functions asked of a class: ``qt.QHeaderView.Stretch``, ``qt.QTimer.singleShot``."""

    _names: str
    _factory: Any

    def __getattr__(cls, name: str) -> Any:
        own = census.enums(cls._names) if cls._names in census.document()["classes"] else {}
        if name in own and not hasattr(cls._factory, name):
            return own[name]
        value = getattr(cls._factory, name, None)
        if value is None:
            msg = f"{cls._names} has no attribute '{name}'"
            raise AttributeError(msg)
        if isinstance(value, enum.Enum):
            return Enumerator(value)
        return BoundMethod(value, name)


class _ProxyType(_ClassAttributes):
    """Metaclass of the QObject proxies."""


class _ValueType(_ClassAttributes):
    """Metaclass of the value proxies."""


_classes: dict[str, type[Any]] = {}
_values: dict[str, type[Any]] = {}


def proxy_class(name: str, factory: type[QtCore.QObject]) -> type[Any]:
    """The class that the code under test sees under a name of the census."""
    if name not in _classes:
        if name not in census.document()["classes"]:
            msg = f"class {name} is not in the trimmed census; add it to census.USED and trim anew"
            raise StandInError(msg)
        members = {"_names": name, "_factory": factory, "_generated": True, "__doc__": name}
        _classes[name] = _ProxyType(name, (Proxy,), members)
    return _classes[name]


def value_class(name: str) -> type[Any]:
    if name not in _values:
        factory = next(getattr(module, name) for module in _MODULES if hasattr(module, name))
        _values[name] = _ValueType(name, (ValueProxy,), {"_names": name, "_factory": factory})
    return _values[name]


def proxy_of(real: QtCore.QObject) -> Any:
    """The one proxy of a PySide6 object."""
    known = getattr(real, "_proxy", None)
    if known is not None:
        return known
    for kind in type(real).__mro__:
        name = getattr(kind, "census_name", kind.__name__)
        if name in census.document()["classes"]:
            return proxy_class(name, kind)(_real=real)
    return proxy_class("QObject", QtCore.QObject)(_real=real)


class QtNamespace(ModuleType):
    """The module ``qt``."""

    Qt = type("Qt", (), {})

    def __getattr__(self, name: str) -> Any:
        if name in ("Signal", "Slot", "Property") or name.startswith("__"):
            raise AttributeError(name)
        factory = next((getattr(module, name) for module in _MODULES if hasattr(module, name)), None)
        if factory is not None and name in census.document()["qt"]:
            return value_class(name)
        if factory is None or name not in census.document()["classes"]:
            msg = f"module 'qt' has no '{name}', or it is not in the trimmed census (census.USED)"
            raise AttributeError(msg)
        return proxy_class(name, factory) if issubclass(factory, QtCore.QObject) else value_class(name)


class _QtEnums(type):
    def __getattr__(cls, name: str) -> Any:
        for group in vars(QtCore.Qt).values():
            if isinstance(group, enum.EnumMeta) and name in group.__members__:
                return Enumerator(group.__members__[name])
        msg = f"qt.Qt has no '{name}'"
        raise AttributeError(msg)


class QtEnums(metaclass=_QtEnums):
    """``qt.Qt``: all of its enumerators as integers."""


QtNamespace.Qt = QtEnums
