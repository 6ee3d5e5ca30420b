"""What the widgets of both modules have in common: a panel of sections, tied to the scene, that follows one job."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from SSLEngine import jobs

from .curves import RunCurves
from .monitor import JobMonitor
from .stepper import Stepper
from .sweeping import sweeping
from .workers import jobs_folder

if TYPE_CHECKING:
    from .section import Section

OnJobFinished = Callable[[Path, jobs.Status], None]

#: Packages that are read anew when a module is. SSLEngine is not: it knows the workers that it has started.
RELOADED = ("SSLPanels", "SSLScene")


class ModuleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Ties a panel to the scene's parameter node while it is shown, and shows the progress of a job.

    A module's own widget calls :meth:`makePanel` and :meth:`connectPanel` in its ``setup`` and makes the sections of
    its panel in between.

    Attributes:
        ui: The widgets of the panel by name.
        logic: The module's logic.
        panels: The sections of the panel, in the order in which they are told of changes.
        monitor: Shows the job that is followed.
        curves: Its losses and scores.
        shown: Whether the panel is the one that is shown.
    """

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Any = None
        self.shown = False
        self.panels: Sequence[Section] = ()
        self._onJobFinished: OnJobFinished | None = None
        self._parameterNode: Any = None
        self._parameterNodeGuiTag: int | None = None

    def makePanel(self, logic: Any) -> None:
        """Makes the panel from the module's .ui file; nothing is installed and nothing heavy is imported here."""
        ScriptedLoadableModuleWidget.setup(self)
        self.uiWidget = slicer.util.loadUI(self.resourcePath(f"UI/{self.moduleName}.ui"))
        self.layout.addWidget(self.uiWidget)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = logic
        self.curves = RunCurves(self.ui.lossPlotWidget, f"{self.moduleName} run")
        self.monitor = JobMonitor(self.ui, self._onEvents, self.onJobFinished, self._onResume)
        self.ui.lossPlotWidget.setVisible(False)

    def connectPanel(self, panels: Sequence[Section]) -> None:
        """Ties the sections of the panel to the scene, and takes away what short jobs of former days have left."""
        self.panels = panels
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.initializeParameterNode()
        self._sweeper = Stepper()
        self._sweeper.run(sweeping(jobs_folder()), lambda done: None, lambda error: logging.warning(str(error)))

    # The life of the panel --------------------------------------------------------------------

    def enter(self) -> None:
        """The panel is shown."""
        self.shown = True
        self.initializeParameterNode()
        for panel in self.panels:
            panel.enter()

    def exit(self) -> None:
        """Another module is shown; a job is still followed."""
        self.shown = False
        for panel in self.panels:
            panel.exit()
        self._setParameterNode(None)

    def cleanup(self) -> None:
        """The application closes or the module is reloaded: following ends, jobs go on."""
        self._sweeper.cancel()
        self.monitor.clear()
        self.curves.release()
        for panel in self.panels:
            panel.release()
        self.logic.release()
        self._setParameterNode(None)
        self.removeObservers()

    def onReload(self) -> None:
        """Developer mode: what the module's file takes from the packages is read anew along with it."""
        for name in [name for name in sys.modules if name.partition(".")[0] in RELOADED]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def onSceneStartClose(self, caller: Any = None, event: Any = None) -> None:
        """The scene is about to be emptied."""
        self.curves.clear()
        self._setParameterNode(None)

    def onSceneEndClose(self, caller: Any = None, event: Any = None) -> None:
        """The scene is empty; a panel that is not shown is tied to it when it is."""
        if self.shown:
            self.initializeParameterNode()
        folder = self.monitor.folder
        if folder is not None and self.monitor.follower.active and not self.monitor.follower.stopping:
            # Its curves went with the scene and are drawn again from its first event on.
            self.curves.start(folder.name)
            self.monitor.follow(folder)

    # Parameters -------------------------------------------------------------------------------

    @property
    def parameters(self) -> Any:
        """The parameter node while the panel is tied to it, else None."""
        return self._parameterNode

    def initializeParameterNode(self) -> None:
        """Ties the panel to the scene's parameter node."""
        self._setParameterNode(self.logic.getParameterNode())

    def _setParameterNode(self, node: Any) -> None:
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.update)
        self._parameterNode = node
        if node is not None:
            self._parameterNodeGuiTag = node.connectGui(self.uiWidget)
            self.addObserver(node.parameterNode, vtk.vtkCommand.ModifiedEvent, self.update)
            self.update()

    def update(self, caller: Any = None, event: Any = None) -> None:
        """Shows the parameters, if the panel is tied to them."""
        if self._parameterNode is not None:
            for panel in self.panels:
                panel.update()

    # The job ----------------------------------------------------------------------------------

    def follow(self, folder: Path, onFinished: OnJobFinished | None = None) -> None:
        """Shows a job's progress, whoever started it; calls back when it has ended."""
        self._onJobFinished = onFinished
        self.curves.start(folder.name)
        self.ui.lossPlotWidget.setVisible(False)
        self.monitor.follow(folder)
        self.update()

    def onJobFinished(self, folder: Path, status: jobs.Status) -> None:
        """The job that was followed has ended, in whatever way."""
        if self._onJobFinished is not None:
            self._onJobFinished(folder, status)
        self.update()

    def _onEvents(self, events: list[dict[str, Any]]) -> None:
        self.curves.add(events)
        if any(event.get("loss") is not None for event in events):
            self.ui.lossPlotWidget.setVisible(True)

    def _onResume(self, folder: Path) -> None:
        with slicer.util.tryWithErrorDisplay(_("The job could not be resumed."), waitCursor=True):
            self.logic.workers.resume(folder)
            self.follow(folder, self._onJobFinished)
