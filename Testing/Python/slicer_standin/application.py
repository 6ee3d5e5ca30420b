"""``slicer``: the application, its modules, views and utilities, around slicer-core's real scene."""

from __future__ import annotations

import importlib.util
import inspect
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from types import SimpleNamespace
from typing import Any

import slicer
import vtk
from PySide6 import QtWidgets

from . import census
from . import module_base
from . import parameters
from . import pythonqt
from . import widgets
from .pythonqt import StandInError

#: Module name in ``slicer.modules`` -> class of its logic in slicer-core.
LOGICS = {
    "segmentations": "vtkSlicerSegmentationsModuleLogic",
    "models": "vtkSlicerModelsLogic",
    "volumes": "vtkSlicerVolumesLogic",
    "sequences": "vtkSlicerSequencesLogic",
    "markups": "vtkSlicerMarkupsLogic",
    "plots": "vtkSlicerPlotsLogic",
    "tables": "vtkSlicerTablesLogic",
    "colors": "vtkSlicerColorLogic",
    "transforms": "vtkSlicerTransformLogic",
    "terminologies": "vtkSlicerTerminologiesModuleLogic",
    "subjecthierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "texts": "vtkSlicerTextsLogic",
}


class _Strict:
    """Refuses names that the census of this Python module does not have."""

    def __init__(self, module: str, found: dict[str, Any]) -> None:
        self.__dict__.update(_module=module, _found=found)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        known = census.python(self._module)
        if name not in known and f"class {name}" not in known:
            msg = f"module '{self._module}' has no attribute '{name}' (census of {census.document()['version']})"
            raise AttributeError(msg)
        if name not in self._found:
            msg = f"{self._module}.{name} exists in Slicer but not in this stand-in"
            raise StandInError(msg)
        return self._found[name]


class _Module:
    """``slicer.modules.<name>`` of a loadable module."""

    def __init__(self, logic: Any) -> None:
        self._logic = logic

    def logic(self) -> Any:
        return self._logic


class LayoutManager:
    """``slicer.app.layoutManager()``: real slice nodes and logics, nothing rendered."""

    def __init__(self, application: Application) -> None:
        self._app = application
        self._widgets: dict[str, widgets.qMRMLSliceWidget] = {}
        self._layout_logic = slicer.vtkMRMLLayoutLogic()
        self._layout_logic.SetMRMLScene(application.scene)
        self._three_d = widgets.qMRMLThreeDWidget(application.scene.AddNewNodeByClass("vtkMRMLViewNode", "View1"))
        for name, orientation in (("Red", "Axial"), ("Green", "Coronal"), ("Yellow", "Sagittal")):
            self._make(name, orientation)
        self.layout = 3

    def _make(self, name: str, orientation: str) -> None:
        logic = slicer.vtkMRMLSliceLogic()
        logic.SetMRMLApplicationLogic(self._app.application_logic)
        logic.SetMRMLScene(self._app.scene)
        node = self._app.scene.GetSingletonNode(name, "vtkMRMLSliceNode") or logic.AddSliceNode(name)
        logic.SetSliceNode(node)
        node.SetLayoutName(name)
        node.SetMappedInLayout(1)
        node.SetOrientation(orientation)
        node.SetDimensions(400, 400, 1)
        self._app.application_logic.GetSliceLogics().AddItem(logic)
        self._widgets[name] = widgets.qMRMLSliceWidget(node, logic)

    def __getattr__(self, name: str) -> Any:
        known = census.methods("qSlicerLayoutManager") | census.methods("qMRMLLayoutManager")
        if name not in known:
            msg = f"the layout manager has no attribute '{name}'"
            raise AttributeError(msg)
        msg = f"layoutManager().{name} exists in Slicer but not in this stand-in"
        raise StandInError(msg)

    def layoutLogic(self) -> Any:
        return self._layout_logic

    def sliceViewNames(self) -> tuple[str, ...]:
        self._follow()
        return tuple(self._widgets)

    def sliceWidget(self, name: str) -> Any:
        self._follow()
        widget = self._widgets.get(name)
        return None if widget is None else pythonqt.proxy_of(widget)

    def _follow(self) -> None:
        """Slice nodes that a layout has made get a view, as in the application."""
        for index in range(self._app.scene.GetNumberOfNodesByClass("vtkMRMLSliceNode")):
            node = self._app.scene.GetNthNodeByClass(index, "vtkMRMLSliceNode")
            if node.GetLayoutName() and node.GetLayoutName() not in self._widgets:
                self._make(node.GetLayoutName(), "Axial")

    def threeDWidget(self, index: int) -> Any:
        return pythonqt.proxy_of(self._three_d) if index == 0 else None

    def setLayout(self, number: int) -> None:
        self.layout = number
        node = self._layout_logic.GetLayoutNode()
        if node is not None:
            node.SetViewArrangement(number)
        self._follow()

    def resetThreeDViews(self) -> None:
        return

    def resetSliceViews(self) -> None:
        return


class App:
    """``slicer.app``."""

    def __init__(self, application: Application) -> None:
        self.__dict__["_application"] = application
        self.__dict__["_values"] = {
            "temporaryPath": application.folder,
            "applicationName": "Slicer",
            "majorVersion": 5,
            "minorVersion": 13,
        }
        self.__dict__["_start"] = []

    def __getattr__(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        if name not in census.methods("slicer.app") and name not in census.properties("slicer.app"):
            msg = f"slicer.app has no attribute '{name}'"
            raise AttributeError(msg)
        msg = f"slicer.app.{name} exists in Slicer but not in this stand-in"
        raise StandInError(msg)

    def connect(self, signature: str, slot: Callable[..., Any]) -> bool:
        if signature not in census.signals("slicer.app").get(signature.partition("(")[0], []):
            msg = f"slicer.app has no signal '{signature}'"
            raise StandInError(msg)
        self._start.append((signature, slot))
        return True

    def disconnect(self, signature: str, slot: Callable[..., Any]) -> bool:
        return False

    def emit_startup(self) -> None:
        """What the application does once its window stands."""
        for signature, slot in list(self._start):
            if signature == "startupCompleted()":
                slot()

    def testingEnabled(self) -> bool:
        return True

    def processEvents(self) -> None:
        self._application.qapp.processEvents()

    def layoutManager(self) -> LayoutManager:
        return self._application.layout

    def applicationLogic(self) -> Any:
        return self._application.application_logic

    def mrmlScene(self) -> Any:
        return self._application.scene

    def extensionsManagerModel(self) -> Any:
        return self._application.extensions

    def settings(self) -> Any:
        return self._application.settings

    userSettings = settings

    def pauseRender(self) -> None:
        return

    resumeRender = pauseRender
    restoreOverrideCursor = pauseRender

    def setOverrideCursor(self, cursor: Any) -> None:
        return


class Settings:
    """``slicer.app.settings()``: values kept for the test."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def value(self, key: str, default: Any = None) -> Any:
        return self._values.get(key, default)

    def setValue(self, key: str, value: Any) -> None:
        self._values[key] = value

    def remove(self, key: str) -> None:
        self._values.pop(key, None)

    def contains(self, key: str) -> bool:
        return key in self._values


class Extensions:
    """``slicer.app.extensionsManagerModel()``: notes what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def isExtensionInstalled(self, name: str) -> bool:
        return name in self.asked

    def installExtensionFromServer(self, name: str, restart: bool = True, update: bool = True) -> bool:
        self.asked.append(name)
        return True


class Application:
    """The whole stand-in: what was put in place, and what the code under test has asked the user.

    Attributes:
        scene: ``slicer.mrmlScene``, real.
        messages: ``(kind, text)`` of every message box that would have come up.
        answers: Answers to be given to questions, first in first out; True when empty.
        installed: Requirements handed to pip.
    """

    def __init__(self) -> None:
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
        self.qapp = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["SlicerStandIn"])
        self.folder = tempfile.mkdtemp(prefix="standin-")
        self.messages: list[tuple[str, str]] = []
        self.answers: list[bool] = []
        self.installed: list[Any] = []
        self.scene = slicer.vtkMRMLScene()
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        self.scene.AddNode(crosshair)
        self.application_logic = slicer.vtkSlicerApplicationLogic()
        self.application_logic.SetMRMLScene(self.scene)
        self.application_logic.GetColorLogic().SetMRMLScene(self.scene)
        self.application_logic.GetColorLogic().AddDefaultColorNodes()
        self.application_logic.SetSliceLogics(vtk.vtkCollection())
        self.application_logic.SetViewLogics(vtk.vtkCollection())
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)
        self.scene.GetSubjectHierarchyNode()
        self.logics = {name: self._logic(kind) for name, kind in LOGICS.items()}
        self.layout = LayoutManager(self)
        self.settings = Settings()
        self.extensions = Extensions()
        self.app = App(self)

    def _logic(self, kind: str) -> Any:
        logic = getattr(slicer, kind)()
        if hasattr(logic, "SetModuleShareDirectory"):
            logic.SetModuleShareDirectory(_share_directory())
        logic.SetMRMLApplicationLogic(self.application_logic)
        logic.SetMRMLScene(self.scene)
        self.application_logic.SetModuleLogic(
            kind.removeprefix("vtkSlicer").removesuffix("Logic").removesuffix("Module"), logic
        )
        return logic

    def ask(self, kind: str, text: str) -> bool:
        self.messages.append((kind, text))
        return self.answers.pop(0) if self.answers else True

    def load_module(self, path: Path) -> ModuleType:
        """Imports a module file as the application does: by path, its folder on ``sys.path``."""
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module
        spec.loader.exec_module(module)
        parent = SimpleNamespace(
            name=path.stem,
            path=str(path),
            title="",
            categories=[],
            dependencies=[],
            contributors=[],
            helpText="",
            acknowledgementText="",
        )
        instance = getattr(module, path.stem)(parent)
        setattr(slicer.modules, path.stem.lower(), parent)
        setattr(slicer.modules, f"{path.stem}Instance", instance)
        return module

    def open_panel(self, module: ModuleType) -> Any:
        """Makes and shows a module's panel: ``setup``, then ``enter``."""
        widget = getattr(module, f"{module.__name__}Widget")()
        widget.setup()
        widget.enter()
        return widget


def _share_directory() -> str:
    """Terminologies come with trame-slicer, as slicer-core has none."""
    from trame_slicer.resources import resources_path

    return str(Path(resources_path()) / "terminologies")


def _util(application: Application) -> dict[str, Any]:
    """``slicer.util``: slicer-core's own functions, but for those that need a window."""
    real = vars(sys.modules["slicer.util"])
    found = {name: value for name, value in real.items() if not name.startswith("_")}

    def load_ui(path: str) -> Any:
        return pythonqt.proxy_of(widgets.UiLoader().load(Path(path)))

    def child_widget_variables(widget: Any) -> SimpleNamespace:
        named = {
            c.objectName(): pythonqt.proxy_of(c) for c in widget._real.findChildren(QtWidgets.QWidget) if c.objectName()
        }
        return SimpleNamespace(**named)

    def save_node(node: Any, filename: str, properties: Any = None) -> bool:
        node.AddDefaultStorageNode(str(filename))
        node.GetStorageNode().SetFileName(str(filename))
        return bool(node.GetStorageNode().WriteData(node))

    def export_node(node: Any, filename: str, properties: Any = None, world: bool = False) -> bool:
        # As Slicer does, from another scene: the node's own storage stays as it is.
        scene = slicer.vtkMRMLScene()
        copy = scene.AddNewNodeByClass(node.GetClassName())
        copy.CopyContent(node, world)
        return save_node(copy, filename)

    def reload_module(name: str) -> None:
        path = Path(getattr(slicer.modules, name.lower()).path)
        getattr(slicer.modules, f"{name}Widget").cleanup()
        application.open_panel(application.load_module(path))

    def message(kind: str) -> Callable[..., bool]:
        return lambda text, windowTitle=None, parent=None, standardButtons=None, **kwargs: application.ask(kind, text)

    def pip_install(requirements: Any, **kwargs: Any) -> None:
        application.installed.append(requirements)

    found.update(
        loadUI=load_ui,
        childWidgetVariables=child_widget_variables,
        errorDisplay=message("error"),
        warningDisplay=message("warning"),
        infoDisplay=message("info"),
        confirmOkCancelDisplay=message("confirm"),
        confirmYesNoDisplay=message("confirm"),
        messageBox=message("box"),
        showStatusMessage=lambda message, duration=0: application.messages.append(("status", message)),
        saveNode=save_node,
        exportNode=export_node,
        pip_install=pip_install,
        reloadScriptedModule=reload_module,
        startupEnvironment=lambda: dict(os.environ),
        mainWindow=lambda: None,
        selectModule=lambda module: application.messages.append(("module", str(module))),
        getModuleWidget=lambda module: getattr(slicer.modules, f"{module}Widget"),
        tempDirectory=lambda key="", tempDir=None, includeDateTime=True: tempfile.mkdtemp(dir=application.folder),
    )
    return found


def _packaging(application: Application) -> ModuleType:
    """``slicer.packaging`` with the signatures of the census; nothing is installed."""
    module = ModuleType("slicer.packaging")

    def load_requirements(path: str | Path) -> list[str]:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line and not line.startswith("#")]

    def pip_ensure(
        requirements: Any,
        constraints: Any = None,
        skip_packages: list[str] | None = None,
        prompt_install: bool = True,
        prompt_restart: bool = True,
        requester: str | None = None,
        skip_in_testing: bool = True,
        show_progress: bool = True,
    ) -> list[str] | None:
        application.installed.append(requirements)
        return None

    for function in (load_requirements, pip_ensure):
        assert function.__name__ in census.python("slicer.packaging")
        expected = [part.split(":")[0].split("=")[0].strip() for part in _arguments(function.__name__)]
        assert list(inspect.signature(function).parameters) == expected
        setattr(module, function.__name__, function)
    return module


def _arguments(name: str) -> list[str]:
    """Argument list of a census signature, split at its outer commas."""
    text = census.python("slicer.packaging")[name]
    inside = text[1 : text.index(") ->")]
    parts, depth = [""], 0
    for character in inside:
        depth += (character in "[(") - (character in "])")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def _sample_data() -> ModuleType:
    module = ModuleType("SampleData")

    class SampleDataLogic:
        """Keeps the registered sources."""

        @staticmethod
        def registerCustomSampleDataSource(
            category: str = "Custom",
            sampleName: str | None = None,
            uris: Any = None,
            fileNames: Any = None,
            nodeNames: Any = None,
            customDownloader: Any = None,
            thumbnailFileName: str | None = None,
            loadFileTypes: Any = None,
            loadFiles: Any = None,
            loadFileProperties: Any = None,
            checksums: Any = None,
            loadFileType: Any = None,
        ) -> None:
            if uris is None or fileNames is None or nodeNames is None:
                raise TypeError("uris, fileNames and nodeNames must be given, as empty lists for a custom downloader")
            source = SimpleNamespace(
                sampleName=sampleName, customDownloader=customDownloader, thumbnailFileName=thumbnailFileName
            )
            slicer.modules.sampleDataSources.setdefault(category, []).append(source)

    module.SampleDataLogic = SampleDataLogic  # type: ignore[attr-defined]
    return module


def _i18n() -> ModuleType:
    module = ModuleType("slicer.i18n")
    module.tr = lambda text: text  # type: ignore[attr-defined]
    module.translate = lambda context, text: text  # type: ignore[attr-defined]
    return module


def _namespace(kinds: dict[str, type[Any]]) -> Callable[[str], Any]:
    def find(name: str) -> Any:
        if name not in kinds:
            msg = f"module has no attribute '{name}'"
            raise AttributeError(msg)
        return pythonqt.proxy_class(name, kinds[name])

    return find


def boot(patch: Any) -> Application:
    """Puts the stand-in where ``slicer``, ``qt`` and ``ctk`` are looked for.

    Args:
        patch: A ``pytest.MonkeyPatch``: undoing it takes the stand-in away again.
    """
    application = Application()
    qt = pythonqt.QtNamespace("qt")
    ctk = ModuleType("ctk")
    ctk.__getattr__ = _namespace({n: k for n, k in widgets.LOADABLE.items() if n.startswith("ctk")})  # type: ignore[method-assign]
    modules = SimpleNamespace(
        sampleDataSources={},
        sampledata=SimpleNamespace(),
        **{name: _Module(logic) for name, logic in application.logics.items()},
    )
    util = _Strict("slicer.util", _util(application))
    util_module = ModuleType("slicer.util")
    util_module.__getattr__ = util.__getattr__  # type: ignore[method-assign]
    for name, value in {
        "qt": qt,
        "ctk": ctk,
        "SampleData": _sample_data(),
        "slicer.util": util_module,
        "slicer.i18n": _i18n(),
        "slicer.packaging": _packaging(application),
        "slicer.parameterNodeWrapper": parameters.module(),
        "slicer.ScriptedLoadableModule": module_base.module(),
    }.items():
        patch.setitem(sys.modules, name, value)
        if name.startswith("slicer."):
            patch.setattr(slicer, name.removeprefix("slicer."), value, raising=False)
    mrml = {n: k for n, k in widgets.LOADABLE.items() if n.startswith("qMRML")}
    for name, kind in {**mrml, "qMRMLPlotView": widgets.qMRMLPlotView}.items():
        patch.setattr(slicer, name, pythonqt.proxy_class(name, kind), raising=False)
    for name, value in {"app": application.app, "mrmlScene": application.scene, "modules": modules}.items():
        patch.setattr(slicer, name, value, raising=False)
    return application
