"""``slicer.ScriptedLoadableModule``: base classes of module, widget, logic and test."""

from __future__ import annotations

import sys
import unittest
from pathlib import Path
from types import ModuleType
from typing import Any

import slicer

from .pythonqt import QtNamespace


class ScriptedLoadableModule:
    """What Slicer knows of a module before its panel is made."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__

    def resourcePath(self, filename: str) -> str:
        return str(Path(sys.modules[type(self).__module__].__file__ or "").parent / "Resources" / filename)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        return f"documentation of {docPage or self.moduleName}"

    def runTest(self, msec: int = 100, **kwargs: Any) -> None:
        module = sys.modules[type(self).__module__]
        getattr(module, f"{self.moduleName}Test")().runTest()


class ScriptedLoadableModuleWidget:
    """A module's panel."""

    def __init__(self, parent: Any = None) -> None:
        qt = QtNamespace("qt")
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.parent = parent if parent is not None else qt.QWidget()
        if self.parent.layout() is None:
            self.parent.setLayout(qt.QVBoxLayout())
        self.layout = self.parent.layout()
        self.developerMode = False
        setattr(slicer.modules, f"{self.moduleName}Widget", self)

    def resourcePath(self, filename: str) -> str:
        return str(Path(sys.modules[type(self).__module__].__file__ or "").parent / "Resources" / filename)

    def setup(self) -> None:
        return

    def onReload(self) -> None:
        slicer.util.reloadScriptedModule(self.moduleName)

    def cleanup(self) -> None:
        return


class ScriptedLoadableModuleLogic:
    """A module's functions; its parameter node is a singleton of the scene."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        return node or self.createParameterNode()

    def createParameterNode(self) -> Any:
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        node.SetSingletonTag(self.moduleName)
        node.SetModuleName(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        return slicer.mrmlScene.AddNode(node)


class ScriptedLoadableModuleTest(unittest.TestCase):
    """A module's self-test."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*(args or ("runTest",)), **kwargs)

    def setUp(self) -> None:
        slicer.mrmlScene.Clear(0)

    def runTest(self) -> None:
        for name in [n for n in dir(self) if n.startswith("test_")]:
            self.setUp()
            getattr(self, name)()

    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        slicer.app.processEvents()


def module() -> ModuleType:
    """``slicer.ScriptedLoadableModule``."""
    made = ModuleType("slicer.ScriptedLoadableModule")
    kinds = (
        ScriptedLoadableModule,
        ScriptedLoadableModuleWidget,
        ScriptedLoadableModuleLogic,
        ScriptedLoadableModuleTest,
    )
    for kind in kinds:
        setattr(made, kind.__name__, kind)
    made.__all__ = [kind.__name__ for kind in kinds]  # type: ignore[attr-defined]
    return made
