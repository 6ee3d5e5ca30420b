"""The module SSLPretrain: choose exams, choose what to learn from them, run, watch, compare."""

# Annotations stay real objects here (no __future__ import): parameterNodeWrapper reads them as types.

import json
import sys
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from typing import Any

import ctk
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import ScriptedLoadableModule
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

# In a source tree the packages of the two modules lie in neighbouring folders; installed, beside this file.
for _neighbour in (Path(__file__).resolve().parent, Path(__file__).resolve().parent.parent / "SSLSegmentation"):
    if _neighbour.is_dir() and str(_neighbour) not in sys.path:
        sys.path.append(str(_neighbour))

from SSLEngine import jobs  # noqa: E402
from SSLPanels import devices  # noqa: E402
from SSLPanels import requirements  # noqa: E402
from SSLPanels import tables  # noqa: E402
from SSLPanels import wording  # noqa: E402
from SSLPanels.choices import Network  # noqa: E402
from SSLPanels.choices import Preset  # noqa: E402
from SSLPanels.curves import RunCurves  # noqa: E402
from SSLPanels.curves import show_few_labels  # noqa: E402
from SSLPanels.follower import JobFollower  # noqa: E402
from SSLPanels.follower import wait  # noqa: E402
from SSLPanels.job_list import JobList  # noqa: E402
from SSLPanels.monitor import JobMonitor  # noqa: E402
from SSLPanels.short_task import ShortTask  # noqa: E402
from SSLPanels.target_pictures import TargetPictures  # noqa: E402
from SSLPanels.workers import Workers  # noqa: E402
from SSLPanels.workers import jobs_folder  # noqa: E402


class SSLPretrain(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("SSL Pretrain")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["SlicerSSLSegmentation contributors"]
        self.parent.helpText = _(
            "Pretrains a segmentation network on unlabelled heart or knee MR exams: the way in which a technologist "
            "laid the planes of an exam teaches it the anatomy. Use the model in SSL Segmentation with a few labels."
        )
        self.parent.acknowledgementText = _("Not for clinical use.")


#: What a preset sets, beside the organ. On hearts, crossings alone measured best for few labels.
PRESETS: dict[Preset, dict[str, Any]] = {
    Preset.Heart: {"spacing": 1.75, "patch": 144, "batch": 8, "positions": False, "crossings": True, "location": False},
    Preset.Knee: {"spacing": 0.8, "patch": 192, "batch": 6, "positions": False, "crossings": True, "location": True},
}

#: Parameter name -> name of the pretext in the engine.
PRETEXTS = ("positions", "crossings", "location", "restoration", "distortions")


@parameterNodeWrapper
class SSLPretrainParameterNode:
    """The panel's state, kept in the scene."""

    cohort: str = ""
    device: str = "auto"
    preset: Preset = Preset.Heart
    positions: bool = False
    crossings: bool = True
    location: bool = False
    restoration: bool = False
    distortions: bool = False
    steps: Annotated[int, WithinRange(0, 1000000)] = 0
    spacing: Annotated[float, WithinRange(0.2, 5.0)] = 1.75
    patch: Annotated[int, WithinRange(32, 512)] = 144
    batch: Annotated[int, WithinRange(1, 256)] = 8
    network: Network = Network.UNet
    seed: Annotated[int, WithinRange(0, 999999)] = 0
    labelsSuffix: str = "_seg"
    counts: str = "1, 2, 5"
    draws: Annotated[int, WithinRange(1, 50)] = 3
    extra: str = ""
    job: str = ""


class SSLPretrainLogic(ScriptedLoadableModuleLogic):
    """Everything the panel does, for scripts.

    Example::

        logic = SSLPretrainLogic()
        job = logic.start("/data/exams", pretexts=["crossings"], waitForCompletion=True)
        print(logic.status(job).model)
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.workers = Workers(Path(self.resource("requirements.txt")), "SSL Pretrain")
        self._followers: list[JobFollower] = []

    @staticmethod
    def resource(name: str) -> str:
        """Path of a file in the module's resources."""
        return str(Path(__file__).resolve().parent / "Resources" / name)

    def getParameterNode(self) -> SSLPretrainParameterNode:
        """The typed parameter node."""
        return SSLPretrainParameterNode(super().getParameterNode())

    @staticmethod
    def availablePretexts() -> list[str]:
        """Pretexts that the engine has: one file each. Does not import them, as they import torch."""
        import SSLEngine

        folder = Path(SSLEngine.__file__).parent / "pretext"
        return [name for name in PRETEXTS if (folder / f"{name}.py").is_file()]

    def settings(self, parameters: Any) -> dict[str, Any]:
        """The settings of a pretraining job as the parameters have them.

        Raises:
            ValueError: :meth:`whyNot` says why not, or a further setting is not written as ``name=value``.
        """
        reason = self.whyNot(parameters)
        if reason:
            raise ValueError(reason)
        return {**self.commonSettings(parameters), "pretext": self.chosenPretexts(parameters)}

    def chosenPretexts(self, parameters: Any) -> list[str]:
        """What is to be learned."""
        return [name for name in self.availablePretexts() if getattr(parameters, name)]

    @staticmethod
    def whyNoExams(parameters: Any) -> str:
        """Why there are no exams to look at, in one sentence; empty where there are."""
        if not parameters.cohort:
            return _("Choose a folder of exams first.")
        if not Path(parameters.cohort).is_dir():
            return _("There is no folder of exams at '{path}'; choose one.").format(path=parameters.cohort)
        return ""

    def whyNot(self, parameters: Any) -> str:
        """Why no pretraining can be started with these parameters, in one sentence; empty where it can."""
        reason = self.whyNoExams(parameters)
        if reason:
            return reason
        pretexts = self.chosenPretexts(parameters)
        if not pretexts:
            return _("Nothing to learn is chosen; tick at least one line under 'What to learn from them'.")
        return parameters.network.why_not(pretexts)

    @staticmethod
    def commonSettings(parameters: Any) -> dict[str, Any]:
        """The settings that do not depend on what is learned.

        Raises:
            ValueError: There is no such folder, or a further setting is not written as ``name=value``.
        """
        reason = SSLPretrainLogic.whyNoExams(parameters)
        if reason:
            raise ValueError(reason)
        settings: dict[str, Any] = {
            "data": {
                "path": str(Path(parameters.cohort).resolve()),
                "labels_suffix": parameters.labelsSuffix,
                "organ": parameters.preset.value,
            },
            "grid": {"spacing_mm": parameters.spacing, "patch": parameters.patch},
            "network": {"kind": parameters.network.value},
            "schedule": {"steps": parameters.steps, "batch": parameters.batch},
            "seed": parameters.seed,
            "device": parameters.device,
        }
        for text in filter(None, (part.strip() for part in parameters.extra.split(";"))):
            _put(settings, text)
        return settings

    def start(
        self,
        cohort: str | Path,
        pretexts: Sequence[str] = ("crossings",),
        out: str | Path | None = None,
        steps: int = 0,
        network: str = Network.UNet.value,
        settings: dict[str, Any] | None = None,
        onUpdate: Callable[..., None] | None = None,
        onFinished: Callable[..., None] | None = None,
        waitForCompletion: bool = False,
    ) -> Path:
        """Pretrains a network in a process of its own.

        Args:
            cohort: Folder of exams.
            pretexts: What to learn.
            out: Folder of the job; a new one among the jobs by default.
            steps: Training steps, 0 for a sensible number.
            network: ``unet``, or ``mask-rcnn``, which learns ``distortions`` only.
            settings: Further settings, as in ``job.json``; they override.
            onUpdate: Called with the status and the new events, a few times a second.
            onFinished: Called with the last status.
            waitForCompletion: Return only when the job has ended; the application stays responsive.

        Returns:
            The job's folder; the model is ``status(folder).model``.

        Raises:
            ValueError: There is no such network, or it cannot learn these pretexts.
            JobError: The job cannot be created or started.
        """
        reason = Network(network).why_not(pretexts)
        if reason:
            raise ValueError(reason)
        document: dict[str, Any] = {
            "data": {"path": str(Path(cohort).resolve())},
            "pretext": list(pretexts),
            "schedule": {"steps": steps},
            **(settings or {}),
        }
        document["network"] = {"kind": network, **document.get("network", {})}
        folder = self.workers.run("pretrain", document, out)
        self.follow(folder, onUpdate, onFinished)
        if waitForCompletion:
            wait(folder)
        return folder

    def inspect(self, cohort: str | Path, labelsSuffix: str = "_seg") -> Path:
        """Looks at all exams of a folder in a job; its ``inspect.json`` is what ``sslengine inspect --json`` says."""
        return self.workers.run("inspect", {"path": str(Path(cohort).resolve()), "labels_suffix": labelsSuffix})

    def probe(self, settings: dict[str, Any] | None = None) -> Path:
        """Asks a process which devices there are and, with settings, makes two steps to forecast time and memory."""
        return self.workers.run("probe", {} if settings is None else {"pretrain": settings})

    def makeSyntheticExams(self, organ: str = "heart", studies: int = 12, seed: int = 0) -> Path:
        """Makes synthetic exams with labels in a job; they lie in its folder ``exams``."""
        folder = self.workers.newFolder("phantom")
        settings = {"organ": organ, "studies": studies, "seed": seed, "out": str(folder / "exams"), "format": "nifti"}
        return self.workers.run("phantom", settings, folder)

    def compare(
        self,
        model: str | Path,
        cohort: str | Path,
        counts: Sequence[int] = (1, 2, 5),
        seeds: int = 3,
        settings: dict[str, Any] | None = None,
    ) -> Path:
        """Few-label study in a job: the model against training from scratch, paired by seed.

        Args:
            model: Pretrained model.
            cohort: Folder of exams, some of them labelled.
            counts: Numbers of labelled exams.
            seeds: Draws of the labelled exams.
            settings: Further settings of every fine-tuning; they override.
        """
        data = {"path": str(Path(cohort).resolve())}
        trial = {"data": data, "init": str(Path(model).resolve()), **(settings or {})}
        return self.workers.run("study-labels", {"finetune": trial, "counts": list(counts), "seeds": seeds})

    def drawTargets(self, study: str | Path, settings: dict[str, Any] | None = None) -> Path:
        """Draws in a job what each pretext looks for on an exam: a PNG each, named in its ``targets.json``."""
        document = {"data": {"path": str(Path(study).resolve())}, **(settings or {})}
        return self.workers.run("targets", {"study": str(Path(study).resolve()), "pretrain": document})

    def follow(self, folder: str | Path, onUpdate: Any = None, onFinished: Any = None) -> JobFollower:
        """Calls back while a job runs, whoever started it."""
        self._followers = [follower for follower in self._followers if follower.active]
        follower = JobFollower(onUpdate, onFinished)
        self._followers.append(follower)
        follower.follow(Path(folder))
        return follower

    def status(self, folder: str | Path) -> jobs.Status:
        """Where a job stands."""
        return jobs.status(Path(folder))

    def stop(self, folder: str | Path) -> None:
        """Asks a job to save its state and end."""
        jobs.stop(Path(folder))

    def resume(self, folder: str | Path, onUpdate: Any = None, onFinished: Any = None) -> None:
        """Lets a stopped or interrupted job go on."""
        self.workers.resume(Path(folder))
        if onUpdate is not None or onFinished is not None:
            self.follow(folder, onUpdate, onFinished)

    def release(self) -> None:
        """Ends all following; the jobs go on."""
        for follower in self._followers:
            follower.release()
        self._followers = []

    @staticmethod
    def document(folder: str | Path, name: str) -> dict[str, Any]:
        """A JSON document that a job has left; empty where there is none."""
        path = Path(folder) / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _put(settings: dict[str, Any], text: str) -> None:
    """Puts ``schedule.rate=0.001`` into nested settings; the value is JSON, or else text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(_("Further settings are written name=value, and '{text}' is not.").format(text=text))
    *blocks, last = name.strip().split(".")
    for block in blocks:
        settings = settings.setdefault(block, {})
    try:
        settings[last] = json.loads(value)
    except json.JSONDecodeError:
        settings[last] = value.strip()


class SSLPretrainWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Connects the panel to the logic."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: SSLPretrainLogic | None = None
        self._parameterNode: SSLPretrainParameterNode | None = None
        self._parameterNodeGuiTag: int | None = None

    def setup(self) -> None:
        """Makes the panel; nothing is installed and nothing heavy is imported here."""
        ScriptedLoadableModuleWidget.setup(self)
        self.uiWidget = slicer.util.loadUI(self.resourcePath("UI/SSLPretrain.ui"))
        self.layout.addWidget(self.uiWidget)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = SSLPretrainLogic()
        self.monitor = JobMonitor(self.ui, self._onEvents, self._onJobFinished, self._onResume)
        self.curves = RunCurves(self.ui.lossPlotWidget, "SSLPretrain run")
        self.jobList = JobList(self.ui.jobsTable, ("pretrain", "finetune", "study-labels"), self._updateJobButtons)
        self.targets = TargetPictures(self.ui, PRETEXTS)
        buttons = ("inspect", "synthetic", "targetPreview", "probe", "forecast")
        self._task = ShortTask([getattr(self.ui, f"{name}Button") for name in buttons], self._update)
        self._prepareWidgets()
        self._connect()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """The application closes or the module is reloaded: following ends, jobs go on."""
        self.jobList.stop()
        self.monitor.clear()
        self.curves.clear()
        self.targets.clear()
        self._task.release()
        self.logic.release()
        self._setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """The panel is shown."""
        self.initializeParameterNode()
        self.jobList.start()

    def exit(self) -> None:
        """Another module is shown; a job is still followed."""
        self.jobList.stop()
        self._setParameterNode(None)

    def onSceneStartClose(self, caller: Any = None, event: Any = None) -> None:
        """The scene is about to be emptied."""
        self.curves.clear()
        self._setParameterNode(None)

    def onSceneEndClose(self, caller: Any = None, event: Any = None) -> None:
        """The scene is empty."""
        self.initializeParameterNode()

    # Parameters -------------------------------------------------------------------------------

    def initializeParameterNode(self) -> None:
        """Ties the panel to the scene's parameter node."""
        self._setParameterNode(self.logic.getParameterNode())

    def _setParameterNode(self, node: SSLPretrainParameterNode | None) -> None:
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self._update)
        self._parameterNode = node
        if node is not None:
            self._parameterNodeGuiTag = node.connectGui(self.uiWidget)
            self.addObserver(node.parameterNode, vtk.vtkCommand.ModifiedEvent, self._update)
            self._update()

    def _prepareWidgets(self) -> None:
        for edit in (self.ui.cohortPathLineEdit, self.ui.jobsPathLineEdit):
            edit.filters = ctk.ctkPathLineEdit.Dirs
        self.ui.cohortPathLineEdit.settingKey = "SSLPretrainCohort"
        self.ui.pythonPathLineEdit.filters = ctk.ctkPathLineEdit.Files
        self.ui.pythonPathLineEdit.currentPath = " ".join(self.logic.workers.python or [])
        self.ui.jobsPathLineEdit.currentPath = str(jobs_folder())
        tables.headers(self.ui.studiesTable, [_("Exam"), _("Views"), _("Labels"), _("Remarks")], 3)
        tables.headers(self.ui.jobsTable, [_("Job"), _("Kind"), _("State"), _("Progress")], 0)
        available = self.logic.availablePretexts()
        for name in PRETEXTS:
            getattr(self.ui, f"{name}CheckBox").setVisible(name in available)
        self.ui.lossPlotWidget.setVisible(False)
        self.ui.studyPlotWidget.setVisible(False)
        self._fillDevices(devices.known())

    def _connect(self) -> None:
        for button, slot in (
            (self.ui.inspectButton, self.onInspect),
            (self.ui.syntheticButton, self.onSynthetic),
            (self.ui.targetPreviewButton, self.onTargetPreview),
            (self.ui.probeButton, self.onProbe),
            (self.ui.forecastButton, self.onForecast),
            (self.ui.startButton, self.onStart),
            (self.ui.refreshJobsButton, self.refreshJobs),
            (self.ui.followJobButton, self.onFollow),
            (self.ui.compareJobButton, self.onCompare),
            (self.ui.openJobButton, self.onOpen),
        ):
            button.connect("clicked()", slot)
        self.ui.cohortPathLineEdit.connect("currentPathChanged(QString)", self.onCohort)
        # Folder and Python belong to this machine, not to the scene: they are the application's settings.
        self.ui.jobsPathLineEdit.connect("currentPathChanged(QString)", self.logic.workers.useFolder)
        self.ui.pythonPathLineEdit.connect("currentPathChanged(QString)", self.logic.workers.usePython)
        # "activated" comes from the user only: a preset that a scene brings must not undo the settings beside it.
        self.ui.presetComboBox.connect("activated(int)", self.onPreset)
        self.ui.deviceComboBox.connect("activated(int)", self.onDevice)
        self.ui.jobsTable.connect("itemSelectionChanged()", self._updateJobButtons)
        self.ui.jobsTable.connect("cellDoubleClicked(int,int)", lambda row, column: self.onFollow())

    def _setText(self, name: str, text: str) -> None:
        if self._parameterNode is not None:
            setattr(self._parameterNode, name, text)

    def _update(self, caller: Any = None, event: Any = None) -> None:
        node = self._parameterNode
        if node is None:
            return
        if self.ui.cohortPathLineEdit.currentPath != node.cohort:
            self.ui.cohortPathLineEdit.currentPath = node.cohort
        reason = self.logic.whyNot(node)
        self.ui.startButton.enabled = not reason
        if not self._task.busy:
            self.ui.forecastButton.enabled = not reason
            self.ui.inspectButton.enabled = not self.logic.whyNoExams(node)
        hint = _("Starts the training in a process of its own. It goes on when this window is closed.")
        self.ui.startButton.toolTip = reason or hint
        self.ui.reasonLabel.text = reason
        self.ui.reasonLabel.setVisible(bool(reason))
        self._updateJobButtons()

    def onCohort(self, path: str) -> None:
        """Another folder of exams: pictures of the former ones would mislead."""
        self._setText("cohort", path)
        self.targets.clear()

    def onPreset(self, index: int) -> None:
        """The organ was changed by hand: its sensible settings replace the present ones."""
        node = self._parameterNode
        if node is None:
            return
        for name, value in PRESETS[list(Preset)[index]].items():
            setattr(node, name, value)

    # Short tasks, one at a time ---------------------------------------------------------------

    def onInspect(self) -> None:
        """Looks at the exams."""
        self._task.press(
            self.ui.inspectButton,
            self.ui.studiesLabel,
            _("Reading the headers ..."),
            lambda: self.logic.inspect(self._parameterNode.cohort, self._parameterNode.labelsSuffix),
            lambda folder: self.showStudies(self.logic.document(folder, "inspect.json")),
        )

    def onSynthetic(self) -> None:
        """Makes synthetic exams and takes them as the cohort."""
        self._task.press(
            self.ui.syntheticButton,
            self.ui.studiesLabel,
            _("Making synthetic exams ..."),
            lambda: self.logic.makeSyntheticExams(self._parameterNode.preset.value),
            self._onSyntheticExams,
        )

    def _onSyntheticExams(self, folder: Path) -> None:
        self.logic.getParameterNode().cohort = str(folder / "exams")
        # The panel may have been left meanwhile.
        if self._parameterNode is not None:
            self.onInspect()

    def onProbe(self) -> None:
        """Asks for the devices."""
        self._task.press(
            self.ui.probeButton,
            self.ui.forecastLabel,
            _("Looking at the devices ..."),
            self.logic.probe,
            self._onProbed,
        )

    def onForecast(self) -> None:
        """Makes two steps to forecast the whole."""
        self._task.press(
            self.ui.forecastButton,
            self.ui.forecastLabel,
            _("Making two steps ..."),
            lambda: self.logic.probe(self.logic.settings(self._parameterNode)),
            self._onProbed,
        )

    def _onProbed(self, folder: Path) -> None:
        self.showDevices(self.logic.document(folder, "probe.json"))

    def onTargetPreview(self) -> None:
        """Draws on the selected exam what the network would have to find."""
        path = tables.key(self.ui.studiesTable, self.ui.studiesTable.currentRow())
        if path is None:
            slicer.util.infoDisplay(_("Select an exam in the table first."))
            return
        self._task.press(
            self.ui.targetPreviewButton,
            self.ui.targetLabel,
            _("Drawing ..."),
            lambda: self.logic.drawTargets(path, self.logic.commonSettings(self._parameterNode)),
            self.targets.show,
        )

    def showStudies(self, document: dict[str, Any]) -> None:
        """Fills the table of exams."""
        studies = document.get("studies", [])
        rows, tips = zip(*map(studyRow, studies), strict=True) if studies else ((), ())
        tables.fill(self.ui.studiesTable, rows, tips, [study["path"] for study in studies])
        labelled = sum(any(view.get("labelled") for view in study["views"]) for study in studies)
        odd = sum(bool(study["irregularities"]) for study in studies)
        self.ui.studiesLabel.text = _("{count} exams, {labelled} with labels, {odd} with remarks.").format(
            count=len(studies), labelled=labelled, odd=odd
        )

    def showDevices(self, document: dict[str, Any]) -> None:
        """Fills the list of devices, and the forecast if there is one."""
        devices.remember(document.get("devices", []))
        self._fillDevices(document.get("devices", []))
        forecast = document.get("forecast")
        if not forecast:
            self.ui.forecastLabel.text = document.get("summary", "")
            return
        self.ui.forecastLabel.text = wording.forecast(forecast)

    def _fillDevices(self, found: Sequence[dict[str, Any]]) -> None:
        wanted = self._parameterNode.device if self._parameterNode is not None else devices.AUTOMATIC
        devices.fill(self.ui.deviceComboBox, found, wanted)

    def onDevice(self, index: int) -> None:
        """A device was chosen."""
        self._setText("device", self.ui.deviceComboBox.itemData(index))

    # The run ----------------------------------------------------------------------------------

    def onStart(self) -> None:
        """Starts the pretraining."""
        with slicer.util.tryWithErrorDisplay(_("The pretraining could not be started."), waitCursor=True):
            folder = self.logic.workers.run("pretrain", self.logic.settings(self._parameterNode))
            self.follow(folder)
            self.refreshJobs()

    def _onResume(self, folder: Path) -> None:
        with slicer.util.tryWithErrorDisplay(_("The job could not be resumed."), waitCursor=True):
            self.logic.resume(folder)
            self.follow(folder)

    def follow(self, folder: Path) -> None:
        """Shows a job in the panel, whoever started it."""
        self.curves.start(folder.name)
        self.ui.lossPlotWidget.setVisible(False)
        self.monitor.follow(folder)
        if self._parameterNode is not None:
            self._parameterNode.job = str(folder)

    def _onEvents(self, events: list[dict[str, Any]]) -> None:
        self.curves.add(events)
        if any(event.get("loss") is not None for event in events):
            self.ui.lossPlotWidget.setVisible(True)

    def _onJobFinished(self, folder: Path, status: jobs.Status) -> None:
        self.refreshJobs()
        self.showComparison(folder)

    def showComparison(self, folder: Path) -> None:
        """Plots a few-label study: mean score over the number of labels, pretrained and from scratch."""
        document = self.logic.document(folder, "results.json")
        summary = document.get("summary", [])
        self.ui.studyPlotWidget.setVisible(bool(summary))
        if summary:
            names = {"pretrained": _("pretrained"), "scratch": _("from scratch")}
            curves = {
                name: {entry["count"]: entry[arm] for entry in summary if entry.get(arm) is not None}
                for arm, name in names.items()
            }
            score = _("AUC") if document.get("target") == "classification" else _("mean Dice")
            show_few_labels(self.ui.studyPlotWidget, curves, score)

    # All jobs ---------------------------------------------------------------------------------

    def refreshJobs(self) -> None:
        """Lists all jobs, newest first."""
        self.jobList.refresh()
        self._updateJobButtons()

    def _updateJobButtons(self) -> None:
        folder = self.jobList.selected
        model = folder is not None and (folder / jobs.MODEL_FILE).is_file()
        self.ui.followJobButton.enabled = folder is not None
        self.ui.openJobButton.enabled = model
        self.ui.compareJobButton.enabled = model and bool(self._parameterNode and self._parameterNode.cohort)

    def onFollow(self) -> None:
        """Shows the selected job."""
        folder = self.jobList.selected
        if folder is not None:
            self.follow(folder)

    def onCompare(self) -> None:
        """Starts the few-label study of the selected model on the cohort."""
        folder = self.jobList.selected
        if folder is None:
            return
        node = self._parameterNode
        with slicer.util.tryWithErrorDisplay(_("The comparison could not be started."), waitCursor=True):
            settings = {key: self.logic.commonSettings(node)[key] for key in ("data", "device")}
            model = folder / jobs.MODEL_FILE
            self.follow(self.logic.compare(model, node.cohort, numbers(node.counts), node.draws, settings))
            self.refreshJobs()

    def onOpen(self) -> None:
        """Takes the selected job's model to SSL Segmentation."""
        folder = self.jobList.selected
        if folder is None:
            return
        slicer.util.selectModule("SSLSegmentation")
        slicer.modules.SSLSegmentationWidget.useModel(folder / jobs.MODEL_FILE)


def numbers(text: str) -> list[int]:
    """``1, 2, 5`` as numbers.

    Raises:
        ValueError: Something else is written there.
    """
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        msg = _("Numbers of labelled exams are written 1, 2, 5, and '{text}' is not.").format(text=text)
        raise ValueError(msg) from None


def studyRow(study: dict[str, Any]) -> tuple[list[str], str]:
    """Cells of an exam and its tool tip."""
    roles = ", ".join(view["role"].upper() for view in study["views"])
    labelled = sum(bool(view.get("labelled")) for view in study["views"])
    remarks = [f"{item['where']}: {item['what']}; {item['consequence']}" for item in study["irregularities"]]
    remarks += [f"{view['file']}: {view['doubt']}" for view in study["views"] if view.get("doubt")]
    cells = [Path(study["path"]).name, roles, _("yes") if labelled else "", remarks[0] if remarks else ""]
    return cells, "\n".join(remarks) or study["path"]


class SSLPretrainTest(ScriptedLoadableModuleTest):
    """Self-test for the real application: the panel, a job that cannot succeed, and one that can where torch is."""

    WAIT_S = 120

    def runTest(self) -> None:
        """Runs all tests; takes under three minutes."""
        for test in (self.test_panel, self.test_parameters, self.test_failing_job, self.test_training):
            self.setUp()
            test()

    def _panel(self) -> "SSLPretrainWidget":
        slicer.util.selectModule("SSLPretrain")
        slicer.app.processEvents()
        return slicer.modules.SSLPretrainWidget

    def test_panel(self) -> None:
        """Every widget that the module uses came out of the .ui file as what it should be."""
        panel = self._panel()
        expected = {
            "cohortPathLineEdit": "ctkPathLineEdit",
            "presetComboBox": "QComboBox",
            "studiesTable": "QTableWidget",
            "stepsSpinBox": "QSpinBox",
            "networkComboBox": "QComboBox",
            "spacingSpinBox": "QDoubleSpinBox",
            "advancedGroupBox": "ctkCollapsibleGroupBox",
            "lossPlotWidget": "qMRMLPlotWidget",
            "logText": "QPlainTextEdit",
        }
        for name, kind in expected.items():
            self.assertEqual(getattr(panel.ui, name).className(), kind, name)
        self.assertIs(panel.ui.lossPlotWidget.mrmlScene(), slicer.mrmlScene)
        self.assertFalse(panel.ui.startButton.enabled)
        panel.exit()
        panel.enter()

    def test_parameters(self) -> None:
        """Widgets and parameters follow each other, and a closed scene gives the defaults back."""
        panel = self._panel()
        panel.ui.stepsSpinBox.value = 123
        self.assertEqual(panel.logic.getParameterNode().steps, 123)
        panel.logic.getParameterNode().seed = 5
        self.assertEqual(panel.ui.seedSpinBox.value, 5)
        panel.ui.presetComboBox.currentIndex = 1
        self.assertEqual(panel.logic.getParameterNode().preset, Preset.Knee)
        self.assertEqual(panel.ui.presetComboBox.currentText, Preset.Knee.label())
        panel.logic.getParameterNode().network = Network.MaskRcnn
        self.assertEqual(panel.ui.networkComboBox.currentText, Network.MaskRcnn.label())
        panel.curves.start("self-test")
        panel.curves.add([{"event": "progress", "step": 1, "loss": 2.0}, {"event": "progress", "step": 2, "loss": 1.0}])
        panel.curves.add([{"event": "validated", "step": 2, "scores": {"positions": {"hit_rate": 0.5}}}])
        slicer.app.processEvents()
        slicer.mrmlScene.Clear(0)
        self.assertEqual(panel.logic.getParameterNode().steps, 0)

    def _job(self, kind: str, settings: dict[str, Any]) -> Path:
        folder = Path(slicer.util.tempDirectory()) / kind
        jobs.create(folder, kind, settings)
        jobs.start(folder)
        return folder

    def test_failing_job(self) -> None:
        """A job on an empty folder fails with a sentence, in a process of PythonSlicer, followed by the panel."""
        panel = self._panel()
        empty = slicer.util.tempDirectory()
        folder = self._job("inspect", {"path": empty})
        panel.follow(folder)
        status = wait(folder, self.WAIT_S)
        panel.monitor.follower.poll()
        self.assertIn(status.state, (jobs.FAILED, jobs.LOST))
        self.assertIn(str(folder), wording.failure(folder, status))
        self.assertFalse(panel.ui.stopButton.enabled)

    def test_training(self) -> None:
        """Synthetic exams, a tiny pretraining, stopped and resumed; only where the worker's packages are installed."""
        lacking = requirements.missing(Path(SSLPretrainLogic.resource("requirements.txt")))
        if lacking:
            self.delayDisplay("Skipped the training: not installed are " + ", ".join(lacking))
            return
        exams = Path(slicer.util.tempDirectory()) / "exams"
        made = self._job("phantom", {"organ": "heart", "studies": 2, "seed": 0, "out": str(exams)})
        self.assertEqual(wait(made, self.WAIT_S).state, jobs.FINISHED, jobs.log_tail(made))
        settings = {
            "data": {"path": str(exams)},
            "grid": {"spacing_mm": 3.0, "patch": 64},
            "network": {"widths": [8, 16, 32]},
            "schedule": {"steps": 20, "batch": 4},
        }
        folder = self._job("pretrain", settings)
        panel = self._panel()
        panel.follow(folder)
        while jobs.status(folder).state == jobs.RUNNING and jobs.status(folder).step < 2:
            slicer.app.processEvents()
        panel.monitor.stop()
        self.assertIn(wait(folder, self.WAIT_S).state, (jobs.CANCELLED, jobs.FINISHED), jobs.log_tail(folder))
        if jobs.status(folder).state == jobs.CANCELLED:
            panel.logic.resume(folder)
        self.assertEqual(wait(folder, self.WAIT_S).state, jobs.FINISHED, jobs.log_tail(folder))
        self.assertTrue((folder / jobs.MODEL_FILE).is_file())
