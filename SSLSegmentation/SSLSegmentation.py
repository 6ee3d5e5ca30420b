"""The module SSLSegmentation: load an exam, see its planes, fine-tune, segment, correct, and use it again."""

# Annotations stay real objects here (no __future__ import): parameterNodeWrapper reads them as types.

import contextlib
import dataclasses
import functools
import importlib.util
import json
import shutil
import sys
import unittest
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Annotated
from typing import Any

import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer import vtkMRMLSegmentationNode
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
for _neighbour in (Path(__file__).resolve().parent, Path(__file__).resolve().parent.parent / "SSLPretrain"):
    if _neighbour.is_dir() and str(_neighbour) not in sys.path:
        sys.path.append(str(_neighbour))

from SSLEngine import jobs  # noqa: E402
from SSLPanels import wording  # noqa: E402
from SSLPanels.choices import LabelsFrom  # noqa: E402
from SSLPanels.choices import Network  # noqa: E402
from SSLPanels.choices import Scope  # noqa: E402
from SSLPanels.choices import Target  # noqa: E402
from SSLPanels.choices import Transfer  # noqa: E402
from SSLPanels.correct_panel import CorrectPanel  # noqa: E402
from SSLPanels.curves import RunCurves  # noqa: E402
from SSLPanels.exam_loader import ExamLoader  # noqa: E402
from SSLPanels.exam_panel import ExamPanel  # noqa: E402
from SSLPanels.follower import JobFollower  # noqa: E402
from SSLPanels.follower import idle  # noqa: E402
from SSLPanels.follower import wait  # noqa: E402
from SSLPanels.model_panel import ModelPanel  # noqa: E402
from SSLPanels.monitor import JobMonitor  # noqa: E402
from SSLPanels.planes_panel import PlanesPanel  # noqa: E402
from SSLPanels.segment_panel import SegmentPanel  # noqa: E402
from SSLPanels.stepper import Stepper  # noqa: E402
from SSLPanels.workers import FOLDER_KEY  # noqa: E402
from SSLPanels.workers import PYTHON_KEY  # noqa: E402
from SSLPanels.workers import Workers  # noqa: E402

if TYPE_CHECKING:
    # What meets the scene reads images, which takes long to import: only where it is used.
    from SSLPanels.results import Results
    from SSLScene.anomalies import Anomalies
    from SSLScene.classes import ExamClass
    from SSLScene.classes import WeighedSlice
    from SSLScene.exams import SceneExam
    from SSLScene.exams import SceneView
    from SSLScene.predicted import Prediction


class SSLSegmentation(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("SSL Segmentation")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["SlicerSSLSegmentation contributors"]
        self.parent.helpText = _(
            "Segments heart and knee MR exams with a network that was pretrained on the planes of unlabelled exams and "
            "fine-tuned on a few labelled ones. Correct the result and use it for the next fine-tuning."
        )
        self.parent.acknowledgementText = _("Not for clinical use.")
        slicer.app.connect("startupCompleted()", registerSampleData)


SAMPLE_CATEGORY = "SSLSegmentation"


def registerSampleData() -> None:
    """Offers synthetic exams, made on demand, in the Sample Data module. Nothing is downloaded."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category=SAMPLE_CATEGORY,
        sampleName="SyntheticHeartMR",
        uris=[],
        fileNames=[],
        nodeNames=[],
        customDownloader=lambda source: SSLSegmentationLogic().makeSample(),
        thumbnailFileName=str(Path(__file__).resolve().parent / "Resources" / "Icons" / "SSLSegmentation.png"),
    )


@parameterNodeWrapper
class SSLSegmentationParameterNode:
    """The panel's state, kept in the scene."""

    study: str = ""
    model: str = ""
    labelled: str = ""
    batch: str = ""
    device: str = "auto"
    target: Target = Target.Segmentation
    labelsFrom: LabelsFrom = LabelsFrom.Scene
    transfer: Transfer = Transfer.All
    network: Network = Network.UNet
    steps: Annotated[int, WithinRange(0, 1000000)] = 0
    slicesPerStep: Annotated[int, WithinRange(1, 256)] = 8
    scope: Scope = Scope.View
    volume: vtkMRMLScalarVolumeNode
    largestComponent: bool = True
    segmentation: vtkMRMLSegmentationNode


class SSLSegmentationLogic(ScriptedLoadableModuleLogic):
    """Everything the panel does, for scripts.

    Example::

        logic = SSLSegmentationLogic()
        exam = logic.loadStudy("/data/exam01")
        logic.showPlanes(exam)
        nodes = logic.segment("/models/heart.safetensors", exam, waitForCompletion=True).segmentations
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.workers = Workers(_requirements(), "SSL Segmentation")
        self._followers: list[JobFollower] = []
        self._loaders: list[ExamLoader] = []
        self._steppers: list[Stepper] = []

    def getParameterNode(self) -> SSLSegmentationParameterNode:
        """The typed parameter node."""
        return SSLSegmentationParameterNode(super().getParameterNode())

    # Exam and planes --------------------------------------------------------------------------

    def loadStudy(
        self,
        path: str | Path,
        onProgress: Callable[[int, int, str], None] | None = None,
        onFinished: "Callable[[ExamLoader], None] | None" = None,
        waitForCompletion: bool = True,
    ) -> "SceneExam | ExamLoader":
        """Loads a study folder (or one image file) into the scene: a process reads it, the window stays awake.

        Args:
            path: Folder with DICOM files at any depth, or with volumes.
            onProgress: ``onProgress(done, total, message)``; ``total`` is 0 while it is not known.
            onFinished: Called with the loader at the end; its ``exam`` is None if that was no success, and its
                ``error`` then says why.
            waitForCompletion: Return when the exam is there; the application stays responsive meanwhile. Otherwise
                return at once.

        Returns:
            The exam if waited for, else the loader, which has ``active`` and ``cancel()``.

        Raises:
            StudyError: Waited for, and nothing there can be used; the message says why. Nothing stays in the scene.
        """
        from SSLEngine.studies import StudyError

        self._loaders = [known for known in self._loaders if known.active]
        loader = ExamLoader(self.workers, onProgress, lambda: onFinished(loader) if onFinished is not None else None)
        self._loaders.append(loader)
        loader.load(path)
        if not waitForCompletion:
            return loader
        idle(lambda: loader.active)
        if loader.exam is None:
            raise StudyError(loader.error or _("Loading was cancelled."))
        return loader.exam

    def useVolumes(self, volumes: Sequence[Any] | Mapping[str, str] | None = None) -> "SceneExam":
        """Takes volumes of the scene as the views of an exam.

        Args:
            volumes: Volume nodes, or roles by node ID; all scalar volumes of the scene by default.

        Raises:
            SceneError: A volume cannot be used, for instance under a non-linear transform.
        """
        from SSLEngine.studies.roles import assign_roles
        from SSLScene import exams

        chosen = volumes if volumes is not None else self._sceneVolumes()
        exam = exams.exam_of_scene(slicer.mrmlScene, chosen, token="exam of the scene")
        if not isinstance(chosen, Mapping):
            given = {item.view.name: item.view.role for item in exam.views}
            assign_roles(exam.study, organ=None)
            for item in exam.views:
                known = given[item.view.name]
                item.view.role = item.view.role if known == "unknown" else known
        return exam

    @staticmethod
    def _sceneVolumes() -> list[Any]:
        nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        plain = [n for n in nodes if not n.IsA("vtkMRMLLabelMapVolumeNode") and not n.GetHideFromEditors()]
        return [n for n in plain if n.GetImageData() is not None]

    @staticmethod
    def examInScene() -> "SceneExam | None":
        """The exam whose views a saved scene holds, with the roles that they had; None where there is none."""
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if not any(node.GetAttribute("SSLSegmentation.View") for node in volumes):
            return None
        from SSLScene import exams
        from SSLScene import undo

        views = [node for node in volumes if node.GetAttribute(exams.VIEW)]
        token = views[0].GetAttribute(undo.OWNER) or undo.DEFAULT_TOKEN
        chosen = {n.GetID(): n.GetAttribute(exams.ROLE) or "" for n in views if n.GetAttribute(undo.OWNER) == token}
        return exams.exam_of_scene(slicer.mrmlScene, chosen, token.removeprefix("exam "), token)

    @staticmethod
    def removeExam(exam: "SceneExam") -> None:
        """Takes out of the scene all that was added for an exam, and gives the views back as they were."""
        from SSLPanels import targets
        from SSLScene import undo

        targets.show(exam, targets.NOTHING)
        for kind in (" planes", " anomalies", " classes", ""):
            undo.remove_all(slicer.mrmlScene, exam.token + kind)

    @staticmethod
    def showPlanes(exam: "SceneExam") -> list[Any]:
        """Shows every view's planes as lines in the others and as quads in 3D; returns one model a view."""
        from SSLScene import exams
        from SSLScene import planes

        SSLSegmentationLogic.hidePlanes(exam)
        owner = exams.SceneExam(exam.study, exam.views, f"{exam.token} planes", exam.item)
        return planes.show_planes(slicer.mrmlScene, owner)

    @staticmethod
    def hidePlanes(exam: "SceneExam") -> None:
        """Takes the planes away."""
        from SSLScene import undo

        undo.remove_all(slicer.mrmlScene, f"{exam.token} planes")

    @staticmethod
    def showCrossings(exam: "SceneExam") -> Any:
        """Table node of angles and lengths."""
        from SSLScene import crossings

        return crossings.show_table(slicer.mrmlScene, exam)

    @staticmethod
    def showSideBySide(exam: "SceneExam") -> None:
        """Shows the views beside each other, each turned to its own plane, at the crossing point."""
        from SSLScene import layouts

        layouts.show_views(slicer.mrmlScene, exam)

    @staticmethod
    def goToCrossing(exam: "SceneExam") -> None:
        """Moves all slice views to the point where the planes meet."""
        from SSLScene import crossings
        from SSLScene import layouts

        names = [node.GetLayoutName() for node in slicer.util.getNodesByClass("vtkMRMLSliceNode")]
        layouts.jump_to(slicer.mrmlScene, exam.token, names, crossings.meeting_point(exam))

    # Jobs -------------------------------------------------------------------------------------

    def segment(
        self,
        model: str | Path,
        what: Any,
        device: str = "auto",
        largestComponent: bool = True,
        onUpdate: Callable[..., None] | None = None,
        onFinished: "Callable[[Results], None] | None" = None,
        waitForCompletion: bool = False,
    ) -> Any:
        """Segments a view, a cine or an exam in a process of its own and puts the result into the scene.

        Args:
            model: A fine-tuned model file.
            what: A scalar volume node (of a cine, the proxy), or an exam.
            device: ``auto``, ``cpu`` or ``cuda:N``.
            largestComponent: Keep only the largest part of each structure.
            onUpdate: Called with status and new events.
            onFinished: Called with the results.
            waitForCompletion: Wait and return the results; the application stays responsive.

        Returns:
            The results if waited for, else the job's folder.

        Raises:
            RuntimeError: Waited for, and the job failed; the message says why.
        """
        from SSLPanels import results

        exam, chosen = self._chosen(what)
        folder = self.startSegmenting(model, exam, chosen, device, largestComponent)
        show = functools.partial(results.loading, exam, chosen, folder)
        return self._outcome(folder, show, onUpdate, onFinished, waitForCompletion)

    def _outcome(
        self,
        folder: Path,
        show: "Callable[[], Generator[Any, None, Any]]",
        onUpdate: Callable[..., None] | None,
        onFinished: Callable[[Any], None] | None,
        waitForCompletion: bool,
    ) -> Any:
        """Puts what a job has found into the scene when it has finished; returns that if waited for, else the folder.

        ``show`` gives the steps of putting it there, which return it.
        """
        from SSLScene import undo

        if waitForCompletion:
            self.wait(folder)
            return undo.at_once(show())

        def finished(status: jobs.Status) -> None:
            if status.state == jobs.FINISHED:
                self._work(show(), onFinished or (lambda shown: None))

        self._follow(folder, onUpdate, finished)
        return folder

    def _work(
        self, steps: Any, onDone: Callable[[Any], None], onError: Callable[[Exception], None] | None = None
    ) -> None:
        """Does something on the scene bit by bit while the window stays awake."""
        self._steppers = [known for known in self._steppers if known.active]
        stepper = Stepper()
        self._steppers.append(stepper)
        stepper.run(steps, onDone, onError or (lambda error: slicer.util.errorDisplay(str(error))))

    def _chosen(self, what: Any) -> "tuple[SceneExam, list[SceneView]]":
        """An exam and the views of it that are meant."""
        if hasattr(what, "views"):
            return what, list(what.views)
        exam = self.useVolumes([what])
        return exam, exam.views

    def startSegmenting(
        self, model: str | Path, exam: "SceneExam", chosen: "Sequence[SceneView]", device: str, largestComponent: bool
    ) -> Path:
        """Hands views of an exam to a worker and starts it; :func:`SSLPanels.results.loading` takes its result."""
        settings = {
            "model": str(Path(model).resolve()),
            "device": device,
            "largest_component": largestComponent,
        }
        part = dataclasses.replace(exam, views=list(chosen))
        return self._startOnScene("segment", settings, part, "segmentation.seg.nrrd")

    def _startOnScene(self, kind: str, settings: dict[str, Any], exam: "SceneExam", out: str = "") -> Path:
        """Creates a job on an exam of the scene; it starts as soon as the exam has been written for it."""
        from SSLScene import exams

        folder = self.workers.newFolder(kind)
        settings["input"] = str(folder / "input")
        if out:
            settings["out"] = str(folder / out)
        self.workers.prepare(kind, settings, folder)

        def failed(error: Exception) -> None:
            jobs.Reporter(folder).event(jobs.FAILED, message=str(error))

        def start(written: None) -> None:
            try:
                self.workers.start(folder)
            except jobs.JobError as error:
                failed(error)

        self._work(exams.handing_over(exam, folder / "input"), start, failed)
        return folder

    def segmentFolder(
        self,
        model: str | Path,
        cohort: str | Path,
        device: str = "auto",
        largestComponent: bool = True,
        onUpdate: Callable[..., None] | None = None,
        onFinished: Callable[..., None] | None = None,
        waitForCompletion: bool = False,
    ) -> Path:
        """Segments all exams of a folder in a job, into its folder ``segmentations``; nothing comes into the scene."""
        folder = self.workers.newFolder("segment")
        settings = {
            "model": str(Path(model).resolve()),
            "cohort": str(Path(cohort).resolve()),
            "out": str(folder / "segmentations"),
            "device": device,
            "largest_component": largestComponent,
        }
        self.workers.run("segment", settings, folder)
        self._follow(folder, onUpdate, onFinished)
        if waitForCompletion:
            self.wait(folder)
        return folder

    def startPlanes(self, model: str | Path, exam: "SceneExam", device: str = "auto") -> Path:
        """Lets a model that has learned crossing lines tell, in a job, where the planes of an exam should lie."""
        return self._startOnScene("planes", {"model": str(Path(model).resolve()), "device": device}, exam)

    def predictPlanes(
        self,
        model: str | Path,
        exam: "SceneExam",
        device: str = "auto",
        onUpdate: Callable[..., None] | None = None,
        onFinished: Callable[[list[Any]], None] | None = None,
        waitForCompletion: bool = False,
    ) -> Any:
        """Lets a model that has learned crossing lines tell where the planes of an exam should lie, and shows them.

        The table ``Predicted planes`` under the exam says how far the acquired planes are from there, and which of
        them look misnamed or moved.

        Args:
            model: A model that was pretrained with ``crossings``.
            exam: The exam.
            device: ``auto``, ``cpu`` or ``cuda:N``.
            onUpdate: Called with status and new events.
            onFinished: Called with the planes; each has ``role``, ``model`` (its quad) and ``markup`` (to be moved).
            waitForCompletion: Wait and return the planes.

        Returns:
            The planes if waited for, else the job's folder.

        Raises:
            RuntimeError: Waited for, and the job failed; the message says why.
        """
        from SSLScene import undo

        folder = self.startPlanes(model, exam, device)

        def show() -> Generator[Any, None, list[Any]]:
            return undo.one_step(lambda: self.showPredictedPlanes(exam, folder).planes)

        return self._outcome(folder, show, onUpdate, onFinished, waitForCompletion)

    def startAnomalies(self, model: str | Path, exam: "SceneExam", device: str = "auto") -> Path:
        """Lets a model that has learned to find distortions look, in a job, for what is unusual in an exam."""
        return self._startOnScene("anomalies", {"model": str(Path(model).resolve()), "device": device}, exam, "maps")

    def anomalies(
        self,
        model: str | Path,
        exam: "SceneExam",
        device: str = "auto",
        onUpdate: Callable[..., None] | None = None,
        onFinished: "Callable[[Anomalies], None] | None" = None,
        waitForCompletion: bool = False,
    ) -> Any:
        """Shows where an exam looks unlike those that a model was pretrained on: hot colours over the views.

        Args:
            model: A model that was pretrained with ``distortions``.
            exam: The exam.
            device: ``auto``, ``cpu`` or ``cuda:N``.
            onUpdate: Called with status and new events.
            onFinished: Called with the result: ``maps`` (volumes) and ``table`` (the slices that stand out most).
            waitForCompletion: Wait and return the result.

        Returns:
            The result if waited for, else the job's folder.

        Raises:
            RuntimeError: Waited for, and the job failed; the message says why.
        """
        folder = self.startAnomalies(model, exam, device)
        show = functools.partial(self.showingAnomalies, exam, folder)
        return self._outcome(folder, show, onUpdate, onFinished, waitForCompletion)

    @staticmethod
    def showingAnomalies(exam: "SceneExam", folder: Path) -> "Generator[None, None, Anomalies]":
        """Puts what a job has found over the views, bit by bit, in place of what was found before."""
        from SSLScene import anomalies
        from SSLScene import undo

        owner = dataclasses.replace(exam, token=f"{exam.token} anomalies")
        undo.remove_all(slicer.mrmlScene, owner.token)
        document = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return anomalies.showing(slicer.mrmlScene, owner, owner.views, document)

    def startClassifying(self, model: str | Path, exam: "SceneExam", device: str = "auto") -> Path:
        """Lets a model that has learned classes tell, in a job, to which an exam belongs."""
        return self._startOnScene("classify", {"model": str(Path(model).resolve()), "device": device}, exam)

    def classify(
        self,
        model: str | Path,
        exam: "SceneExam",
        device: str = "auto",
        onUpdate: Callable[..., None] | None = None,
        onFinished: "Callable[[ExamClass], None] | None" = None,
        waitForCompletion: bool = False,
    ) -> Any:
        """Tells the class of an exam, how likely each class is, and which slices decided.

        Args:
            model: A model that was fine-tuned with the target ``classification``.
            exam: The exam.
            device: ``auto``, ``cpu`` or ``cuda:N``.
            onUpdate: Called with status and new events.
            onFinished: Called with the result: ``group``, ``probabilities`` by class, ``slices`` with the weightiest
                first, and the tables of both.
            waitForCompletion: Wait and return the result.

        Returns:
            The result if waited for, else the job's folder.

        Raises:
            RuntimeError: Waited for, and the job failed; the message says why.
        """
        from SSLScene import undo

        folder = self.startClassifying(model, exam, device)
        show = functools.partial(undo.one_step, functools.partial(self.showClass, exam, folder))
        return self._outcome(folder, show, onUpdate, onFinished, waitForCompletion)

    @staticmethod
    def showClass(exam: "SceneExam", folder: Path) -> "ExamClass":
        """Puts what a job says of an exam's class into tables, in place of what was said before."""
        from SSLScene import classes
        from SSLScene import undo

        owner = dataclasses.replace(exam, token=f"{exam.token} classes")
        undo.remove_all(slicer.mrmlScene, owner.token)
        document = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return classes.show_class(slicer.mrmlScene, owner, owner.views, document)

    @staticmethod
    def goToSlice(exam: "SceneExam", weighed: "WeighedSlice") -> None:
        """Shows a slice, for instance the one that decided most, in the red view."""
        from SSLScene import layouts

        if weighed.item.browser is not None:
            weighed.item.browser.SetSelectedItemNumber(weighed.phase)
        layouts.show_slice(slicer.mrmlScene, exam.token, "Red", weighed.item, weighed.slice)

    @staticmethod
    def wait(folder: str | Path) -> None:
        """Returns when a job has ended; the application stays responsive.

        Raises:
            RuntimeError: It did not finish; the message says why.
        """
        status = wait(Path(folder))
        if status.state != jobs.FINISHED:
            raise RuntimeError(wording.sentence(Path(folder), status))

    @staticmethod
    def showPredictedPlanes(exam: "SceneExam", folder: Path) -> "Prediction":
        """Shows what a job has predicted beside the acquired planes, as planes that can be moved, and as a table."""
        from SSLScene import predicted

        document = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return predicted.show_predicted(slicer.mrmlScene, exam, document["planes"])

    def finetune(
        self,
        labelled: str | Path,
        model: str | Path | None = None,
        transfer: str = "all",
        steps: int = 0,
        device: str = "auto",
        target: str = Target.Segmentation.value,
        network: str = Network.UNet.value,
        settings: Mapping[str, Any] | None = None,
        onUpdate: Callable[..., None] | None = None,
        onFinished: Callable[..., None] | None = None,
        waitForCompletion: bool = False,
    ) -> Path:
        """Trains a model on labelled exams in a process of its own.

        Args:
            labelled: Folder of exams with labels, as :meth:`collect` makes it; for classes, of exams that have a
                ``group`` in their ``study.json``, or in a table ``groups.csv`` beside them.
            model: Pretrained model; from scratch without it.
            transfer: ``all``, ``decoder`` or ``multitask``.
            steps: Training steps, 0 for a sensible number.
            device: ``auto``, ``cpu`` or ``cuda:N``.
            target: ``segmentation``, or ``classification`` of whole exams.
            network: ``unet`` or ``mask-rcnn``, from scratch; a model brings its own.
            settings: Further settings; they override.
            onUpdate: Called with status and new events.
            onFinished: Called with the last status.
            waitForCompletion: Return only when the job has ended.

        Returns:
            The job's folder; its model is ``model.safetensors`` there.

        Raises:
            RuntimeError: Waited for, and the job failed; the message says why.
        """
        document = self.finetuneSettings(labelled, model, transfer, steps, device, target, network)
        folder = self.workers.run("finetune", {**document, **(settings or {})})
        self._follow(folder, onUpdate, onFinished)
        if waitForCompletion:
            self.wait(folder)
        return folder

    @staticmethod
    def finetuneSettings(
        labelled: str | Path,
        model: str | Path | None,
        transfer: str,
        steps: int,
        device: str,
        target: str = Target.Segmentation.value,
        network: str = Network.UNet.value,
    ) -> dict[str, Any]:
        """Settings of a fine-tuning job; see :meth:`finetune`."""
        settings: dict[str, Any] = {
            "data": {"path": str(Path(labelled).resolve())},
            "target": target,
            "schedule": {"steps": steps},
            "device": device,
        }
        if model:
            return settings | {"init": str(Path(model).resolve()), "transfer": transfer}
        return settings | {"network": {"kind": network}}

    def forecast(self, settings: Mapping[str, Any]) -> Path:
        """Makes the first steps of a fine-tuning in a job; its ``probe.json`` has time and memory of the whole."""
        return self.workers.run("probe", {"finetune": dict(settings)})

    def probe(self) -> Path:
        """Asks a process which devices there are; its ``probe.json`` names them."""
        return self.workers.run("probe", {})

    @staticmethod
    def collect(exam: "SceneExam", segmentations: Sequence[Any], folder: str | Path) -> Path:
        """Adds an exam with these segments to the labelled exams in a folder; returns where it lies."""
        from SSLPanels import corrections

        return corrections.collect(exam, segmentations, Path(folder))

    @staticmethod
    def exportSegmentation(node: Any, path: str | Path) -> None:
        """Writes a segmentation as ``.seg.nrrd``.

        Raises:
            RuntimeError: The file could not be written.
        """
        if not slicer.util.saveNode(node, str(path)):
            raise RuntimeError(_("{path} could not be written; check folder and disk.").format(path=path))

    def exportDicom(self, source: str | Path, node: Any, path: str | Path) -> Path:
        """Writes a segmentation as DICOM SEG in a job.

        Args:
            source: Folder of the exam's DICOM files.
            node: A segmentation of one of its series.
            path: The DICOM file to write.

        Returns:
            The job's folder.
        """
        folder = self.workers.newFolder("export")
        folder.mkdir(parents=True)
        self.exportSegmentation(node, folder / "segmentation.seg.nrrd")
        settings = {
            "source": str(Path(source).resolve()),
            "segmentation": str(folder / "segmentation.seg.nrrd"),
            "out": str(Path(path).resolve()),
        }
        needs = _requirements().with_name("requirements-dicomseg.txt")
        return self.workers.run("export", settings, folder, needs)

    def makeSample(self, organ: str = "heart", seed: int = 0) -> list[Any]:
        """Makes one synthetic exam in a process, waits for it and loads it; returns its volume nodes."""
        folder = self.workers.newFolder("phantom")
        settings = {"organ": organ, "studies": 1, "seed": seed, "out": str(folder / "exams"), "format": "nifti"}
        self.workers.run("phantom", settings, folder)
        self.wait(folder)
        exam = self.loadStudy(next(path for path in sorted((folder / "exams").iterdir()) if path.is_dir()))
        return [volume for item in exam.views for volume in item.volumes]

    def _follow(self, folder: Path, onUpdate: Any, onFinished: Any) -> None:
        if onUpdate is None and onFinished is None:
            return
        self._followers = [follower for follower in self._followers if follower.active]
        follower = JobFollower(onUpdate, onFinished)
        self._followers.append(follower)
        follower.follow(folder)

    def release(self) -> None:
        """Ends all following; the jobs go on, but what is being loaded is given up."""
        for follower in self._followers:
            follower.release()
        for unfinished in (*self._loaders, *self._steppers):
            unfinished.cancel()
        self._followers, self._loaders, self._steppers = [], [], []


def _requirements() -> Path:
    """The worker's requirements; they lie with the engine."""
    here = Path(__file__).resolve().parent
    beside = here / "Resources" / "requirements.txt"
    return beside if beside.is_file() else here.parent / "SSLPretrain" / "Resources" / "requirements.txt"


class SSLSegmentationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """Connects the sections of the panel with each other and with the parameter node."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: SSLSegmentationLogic | None = None
        self.exam: SceneExam | None = None
        self._parameterNode: SSLSegmentationParameterNode | None = None
        self._parameterNodeGuiTag: int | None = None

    def setup(self) -> None:
        """Makes the panel; nothing is installed and nothing heavy is imported here."""
        ScriptedLoadableModuleWidget.setup(self)
        self.uiWidget = slicer.util.loadUI(self.resourcePath("UI/SSLSegmentation.ui"))
        self.layout.addWidget(self.uiWidget)
        self.ui = slicer.util.childWidgetVariables(self.uiWidget)
        self.uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = SSLSegmentationLogic()
        self.examPanel = ExamPanel(self)
        self.planesPanel = PlanesPanel(self)
        self.modelPanel = ModelPanel(self)
        self.segmentPanel = SegmentPanel(self)
        self.correctPanel = CorrectPanel(self)
        self.curves = RunCurves(self.ui.lossPlotWidget, "SSLSegmentation run")
        self._onJobFinished: Callable[[Path, jobs.Status], None] | None = None
        self.monitor = JobMonitor(self.ui, self._onEvents, self._onFinished, self._onResume)
        self.ui.lossPlotWidget.setVisible(False)
        self.ui.progressCollapsibleButton.collapsed = True
        # The others ask the model's section what the model can do, so it looks first.
        self.panels = (self.modelPanel, self.examPanel, self.planesPanel, self.segmentPanel, self.correctPanel)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.initializeParameterNode()
        self.setExam(None)

    @property
    def busy(self) -> bool:
        """Whether a job is being followed, its result comes into the scene, or segments are collected."""
        return self.monitor.follower.active or self.segmentPanel.loading or self.correctPanel.collecting

    def follow(self, folder: Path, onFinished: Callable[[Path, jobs.Status], None]) -> None:
        """Shows a job's progress; calls back when it has ended."""
        self._onJobFinished = onFinished
        self.curves.start(folder.name)
        self.ui.lossPlotWidget.setVisible(False)
        self.ui.progressCollapsibleButton.collapsed = False
        self.monitor.follow(folder)
        self.update()

    def _onEvents(self, events: list[dict[str, Any]]) -> None:
        self.curves.add(events)
        if any(event.get("loss") is not None for event in events):
            self.ui.lossPlotWidget.setVisible(True)

    def _onFinished(self, folder: Path, status: jobs.Status) -> None:
        if self._onJobFinished is not None:
            self._onJobFinished(folder, status)
        self.update()
        if status.state == jobs.FAILED:
            slicer.util.errorDisplay(wording.failure(folder, status))

    def _onResume(self, folder: Path) -> None:
        with slicer.util.tryWithErrorDisplay(_("The job could not be resumed."), waitCursor=True):
            self.logic.workers.resume(folder)
            self.follow(folder, self._onJobFinished or (lambda folder, status: None))

    @property
    def parameters(self) -> SSLSegmentationParameterNode | None:
        """The parameter node while the panel is tied to it."""
        return self._parameterNode

    def cleanup(self) -> None:
        """The application closes or the module is reloaded: following ends, jobs go on."""
        self.monitor.clear()
        self.curves.clear()
        for panel in self.panels:
            panel.release()
        self.logic.release()
        self._setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """The panel is shown."""
        self.initializeParameterNode()
        self.correctPanel.enter()

    def exit(self) -> None:
        """Another module is shown; a job is still followed."""
        self.correctPanel.exit()
        self._setParameterNode(None)

    def onSceneStartClose(self, caller: Any = None, event: Any = None) -> None:
        """The scene is about to be emptied."""
        self.curves.clear()
        self.setExam(None)
        self._setParameterNode(None)

    def onSceneEndClose(self, caller: Any = None, event: Any = None) -> None:
        """The scene is empty."""
        self.initializeParameterNode()

    def onSceneEndImport(self, caller: Any = None, event: Any = None) -> None:
        """A saved scene was opened: an exam that is in it is taken up again."""
        self.initializeParameterNode()
        if self.exam is None:
            self.setExam(self.logic.examInScene())

    def initializeParameterNode(self) -> None:
        """Ties the panel to the scene's parameter node."""
        self._setParameterNode(self.logic.getParameterNode())

    def _setParameterNode(self, node: SSLSegmentationParameterNode | None) -> None:
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

    def setExam(self, exam: "SceneExam | None") -> None:
        """Shows another exam in all sections."""
        self.exam = exam
        for panel in self.panels:
            panel.setExam(exam)
        self.update()

    def useModel(self, path: str | Path) -> None:
        """Takes a model file, as when it is opened from SSL Pretrain or loaded as a file."""
        self.initializeParameterNode()
        self._parameterNode.model = str(path)


class SSLSegmentationFileReader:
    """Lets models be opened by Add data and by dropping them onto the window."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent

    def description(self) -> str:
        """What the user reads."""
        return "SSL Segmentation model"

    def fileType(self) -> str:
        """What scripts write."""
        return "SSLSegmentationModel"

    def extensions(self) -> list[str]:
        """Which files."""
        return ["SSL Segmentation model (*.safetensors)"]

    def canLoadFile(self, path: str) -> bool:
        """Whether the file's header is one of ours."""
        from SSLPanels import model_card

        try:
            model_card.read(Path(path))
        except ValueError:
            return False
        return True

    def load(self, properties: Mapping[str, Any]) -> bool:
        """Chooses the model in the panel; it adds no node."""
        slicer.util.selectModule("SSLSegmentation")
        slicer.modules.SSLSegmentationWidget.useModel(properties["fileName"])
        self.parent.loadedNodes = []
        return True


class SSLSegmentationTest(ScriptedLoadableModuleTest):
    """Self-test for the real application, with or without a main window, in under three minutes.

    What needs packages that this Slicer does not have is skipped, and says so.
    """

    def runTest(self) -> None:
        """Runs all tests, as the button "Reload and Test" does."""
        for name in [name for name in dir(self) if name.startswith("test_")]:
            self.setUp()
            try:
                getattr(self, name)()
            except unittest.SkipTest as why:
                print(f"{name} skipped: {why}")

    def _panel(self) -> "SSLSegmentationWidget":
        slicer.util.selectModule("SSLSegmentation")
        slicer.app.processEvents()
        # Without a main window no module can be selected, but its panel can be made.
        panel = slicer.util.getModuleWidget("SSLSegmentation")
        if panel.parameters is None:
            panel.enter()
        return panel

    def _needs(self, *packages: str) -> None:
        """Skips the test where a package that the worker needs is not there; nothing is imported to find out."""
        lacking = [name for name in packages if importlib.util.find_spec(name) is None]
        if lacking:
            self.skipTest("not installed: " + ", ".join(lacking))

    @contextlib.contextmanager
    def _jobs(self) -> Iterator[Path]:
        """Keeps the jobs of a test apart from the user's, in Slicer's own Python."""
        folder = Path(slicer.util.tempDirectory("SSLSegmentationTest"))
        settings = slicer.app.settings()
        kept = {key: settings.value(key, "") for key in (FOLDER_KEY, PYTHON_KEY)}
        settings.setValue(FOLDER_KEY, str(folder / "jobs"))
        settings.setValue(PYTHON_KEY, "")
        try:
            yield folder
        finally:
            for key, value in kept.items():
                settings.setValue(key, value)
            shutil.rmtree(folder, ignore_errors=True)

    def test_panel(self) -> None:
        """Every widget that the module uses came out of the .ui file as what it should be."""
        panel = self._panel()
        expected = {
            "viewsTable": "QTableWidget",
            "crossingsTableView": "qMRMLTableView",
            "volumeSelector": "qMRMLNodeComboBox",
            "segmentationSelector": "qMRMLNodeComboBox",
            "segmentEditorWidget": "qMRMLSegmentEditorWidget",
            "show3DButton": "qMRMLSegmentationShow3DButton",
            "volumePlotWidget": "qMRMLPlotWidget",
            "seekWidget": "qMRMLSequenceBrowserSeekWidget",
            "studyPathLineEdit": "ctkPathLineEdit",
            "examCollapsibleButton": "ctkCollapsibleButton",
            "crossingsGroupBox": "ctkCollapsibleGroupBox",
            "examProgressBar": "QProgressBar",
            "stepsSpinBox": "QSpinBox",
            "classifyButton": "QPushButton",
        }
        for name, kind in expected.items():
            self.assertEqual(getattr(panel.ui, name).className(), kind, name)
        self.assertEqual(panel.ui.transferComboBox.currentText, Transfer.All.label())
        panel.parameters.target = Target.Classification
        self.assertEqual(panel.ui.targetKindComboBox.currentText, Target.Classification.label())
        self.assertFalse(panel.ui.labelsComboBox.enabled)
        panel.parameters.target = Target.Segmentation
        for name in ("volumeSelector", "segmentEditorWidget", "crossingsTableView"):
            self.assertIs(getattr(panel.ui, name).mrmlScene(), slicer.mrmlScene, name)
        self.assertFalse(panel.ui.segmentButton.enabled)
        panel.exit()
        panel.enter()

    def _exam(self, panel: "SSLSegmentationWidget") -> "SceneExam":
        """Three volumes at right angles, as the views of an exam."""
        import numpy as np

        size, roles = 40, {}
        turned = {
            "sax": [[1, 0, 0], [0, 1, 0], [0, 0, 4]],
            "2ch": [[0, 0, 4], [1, 0, 0], [0, 1, 0]],
            "4ch": [[1, 0, 0], [0, 0, -4], [0, 1, 0]],
        }
        for role, axes in turned.items():
            slices = 8 if role == "sax" else 1
            matrix = np.eye(4)
            matrix[:3, :3] = axes
            matrix[:3, 3] = -matrix[:3, :3] @ ((np.array([size, size, slices]) - 1) / 2)
            array = np.random.default_rng(0).integers(0, 100, (slices, size, size), dtype=np.int16)
            node = slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name=f"test {role}")
            roles[node.GetID()] = role
        exam = panel.logic.useVolumes(roles)
        panel.setExam(exam)
        return exam

    def test_planes(self) -> None:
        """Lines, quads, table, layout and targets; and all of it gone again."""
        panel = self._panel()
        exam = self._exam(panel)
        self.assertEqual([item.view.role for item in exam.views], ["sax", "2ch", "4ch"])
        self.assertEqual(panel.ui.viewsTable.rowCount, 3)
        panel.ui.linesButton.click()
        self.assertEqual(panel.ui.planesTable.rowCount, 3)
        panel.planesPanel.showSideBySide()
        slicer.app.processEvents()
        panel.ui.crossingsGroupBox.collapsed = False
        self.assertEqual(panel.ui.crossingsTableView.mrmlTableNode().GetNumberOfRows(), 3)
        panel.ui.targetComboBox.currentIndex = 1
        panel.ui.targetComboBox.currentIndex = 2
        panel.ui.crossingButton.click()
        slicer.app.processEvents()
        red = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode")
        centre = [red.GetSliceToRAS().GetElement(i, 3) for i in range(3)]
        self.assertLess(max(abs(value) for value in centre), 2.1)
        composite = slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceCompositeNode")
        self.assertEqual(composite.GetBackgroundVolumeID(), exam.first("sax").volume.GetID())
        panel.examPanel.onRemove()
        left = slicer.util.getNodesByClass("vtkMRMLModelNode")
        self.assertEqual([node.GetName() for node in left if not node.GetHideFromEditors()], [])

    def test_segments(self) -> None:
        """Labels become segments with names, colours and codes, which the embedded editor takes."""
        import numpy as np

        from SSLScene import segments

        panel = self._panel()
        exam = self._exam(panel)
        item = exam.first("sax")
        labels = np.zeros(item.view.shape, np.int16)
        labels[:, 10:20, 10:20] = 1
        labels[:, 25:30, 10:20] = 2
        (node,) = segments.add_labels(
            slicer.mrmlScene, exam, item, labels, {1: "LV cavity", 2: "LV myocardium"}, "test"
        )
        self.assertEqual(segments.segment_names(node), ["LV cavity", "LV myocardium"])
        panel.parameters.segmentation = node
        slicer.app.processEvents()
        self.assertIs(panel.ui.segmentEditorWidget.segmentationNode(), node)
        self.assertIs(panel.ui.segmentEditorWidget.sourceVolumeNode(), item.volume)
        panel.ui.segmentEditorWidget.setActiveEffectByName("Paint")
        panel.exit()
        self.assertIsNone(panel.ui.segmentEditorWidget.activeEffect())
        panel.enter()
        found, names = segments.labels_of(slicer.mrmlScene, node, item.volume)
        self.assertEqual(int((found == 1).sum()), int((labels == 1).sum()))
        self.assertEqual(names, {1: "LV cavity", 2: "LV myocardium"})

    def test_loading(self) -> None:
        """A process of PythonSlicer looks into a folder; what it cannot use it says in one sentence."""
        with self._jobs() as folder:
            (folder / "empty").mkdir()
            nodes = slicer.mrmlScene.GetNumberOfNodes()
            with self.assertRaises(ValueError) as caught:
                SSLSegmentationLogic().loadStudy(folder / "empty")
            readers = all(importlib.util.find_spec(name) for name in ("SimpleITK", "pydicom"))
            self.assertIn("holds no image" if readers else "is missing", str(caught.exception))
            self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), nodes)

    def test_sample(self) -> None:
        """A synthetic exam is made and loaded by two processes, with what Slicer ships."""
        self._needs("SimpleITK", "pydicom", "scipy")
        with self._jobs():
            volumes = SSLSegmentationLogic().makeSample()
        self.assertGreaterEqual(len(volumes), 3)
        panel = self._panel()
        panel.setExam(panel.logic.examInScene())
        self.assertIn("sax", [item.view.role for item in panel.exam.views])

    def test_torch_is_for_workers_only(self) -> None:
        """A worker tells the devices, or which package it lacks; torch never comes into the application."""
        there = "torch" in sys.modules
        with self._jobs() as folder:
            jobs.start(jobs.create(folder / "probe", "probe", {}))
            status = wait(folder / "probe", 120)
            if importlib.util.find_spec("torch") is None:
                self.assertEqual(status.state, jobs.FAILED, jobs.log_tail(folder / "probe"))
                self.assertIn("'torch' is missing", wording.sentence(folder / "probe", status))
            else:
                self.assertEqual(status.state, jobs.FINISHED, jobs.log_tail(folder / "probe"))
                self.assertTrue(jobs.read_json(folder / "probe" / "probe.json")["devices"])
        self.assertEqual("torch" in sys.modules, there)

    def test_segmenting(self) -> None:
        """A network learns a few steps from the segments of an exam and segments it; the result comes as nodes."""
        import numpy as np

        from SSLPanels import requirements
        from SSLScene import segments

        lacking = requirements.missing(_requirements())
        if lacking:
            self.skipTest("not installed: " + ", ".join(lacking))
        self._needs("SimpleITK", "pydicom", "scipy")
        tiny = {
            "grid": {"spacing_mm": 4.0, "patch": 64},
            "network": {"widths": [8, 16, 32]},
            "schedule": {"steps": 3, "batch": 4},
        }
        with self._jobs() as folder:
            logic = SSLSegmentationLogic()
            logic.makeSample()
            exam = logic.examInScene()
            item = exam.first("sax")
            labels = np.zeros(item.view.shape, np.int16)
            labels[:, 40:60, 40:60] = 1
            drawn = segments.add_labels(slicer.mrmlScene, exam, item, labels, {1: "LV cavity"}, "drawn")
            logic.collect(exam, drawn, folder / "labelled")
            tuned = logic.finetune(folder / "labelled", device="cpu", settings=tiny, waitForCompletion=True)
            results = logic.segment(tuned / jobs.MODEL_FILE, item.volume, device="cpu", waitForCompletion=True)
        self.assertEqual([segments.segment_names(node) for node in results.segmentations], [["LV cavity"]])
        self.assertIn("LV cavity", [what for view, what, value in results.rows])
