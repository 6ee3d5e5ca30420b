"""What SSLSegmentation can do, for its panel and for scripts, and the parameters that a scene keeps of it."""

# Annotations stay real objects here (no __future__ import): parameterNodeWrapper reads them as types.

import functools
import shutil
from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Annotated
from typing import Any

import slicer
from slicer import vtkMRMLScalarVolumeNode
from slicer import vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from . import requirements
from .choices import LabelsFrom
from .choices import Network
from .choices import Scope
from .choices import Target
from .choices import Transfer
from .exam_loader import ExamLoader
from .follower import Followers
from .follower import idle
from .follower import wait_for_result
from .scene_jobs import SceneJobs
from .scene_jobs import read_result
from .workers import Workers
from .workers import merged

if TYPE_CHECKING:
    # What meets the scene reads images, which takes long to import: only where it is used.
    from SSLScene.anomalies import Anomalies
    from SSLScene.classes import ExamClass
    from SSLScene.classes import WeighedSlice
    from SSLScene.exams import SceneExam
    from SSLScene.exams import SceneView
    from SSLScene.predicted import Prediction

    from .results import Results

#: Kinds of things that are shown of an exam and taken away without the others; see ``SceneExam.owning``.
PLANES, ANOMALIES, CLASSES = "planes", "anomalies", "classes"


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
        self.workers = Workers("SSL Segmentation")
        self._sceneJobs = SceneJobs(self.workers)
        self._followers = Followers()
        self._loaders: list[ExamLoader] = []

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
            volumes: Volume nodes, or roles by node ID; all scalar volumes of the scene by default. Where those lie in
                several studies of the subject hierarchy, those of the study in which the panel's chosen volume lies.

        Raises:
            SceneError: A volume cannot be used, for instance under a non-linear transform; or they are of several
                exams and none is chosen.
        """
        from SSLEngine.studies.roles import assign_roles
        from SSLScene import exams

        scene = slicer.mrmlScene
        chosen = volumes if volumes is not None else self._sceneVolumes()
        exam = exams.exam_of_scene(scene, chosen)
        exam.token = exams.token_of_study(scene, exam.item) if exam.item else "exam of the scene"
        if not isinstance(chosen, Mapping):
            given, side = [item.view.role for item in exam.views], exam.study.side
            assign_roles(exam.study, organ=exam.study.organ)
            exam.study.side = side or exam.study.side
            for item, known in zip(exam.views, given, strict=True):
                item.view.role = item.view.role if known == "unknown" else known
        return exam

    def _sceneVolumes(self) -> list[Any]:
        from SSLScene import exams
        from SSLScene.host import SceneError

        scene = slicer.mrmlScene
        nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        plain = [n for n in nodes if not n.IsA("vtkMRMLLabelMapVolumeNode") and not n.GetHideFromEditors()]
        by_study: dict[int, list[Any]] = {}
        for node in plain:
            if node.GetImageData() is not None and not exams.is_overlay(node):
                by_study.setdefault(exams.study_item(scene, node), []).append(node)
        wanted = self.getParameterNode().volume
        for group in by_study.values():
            if len(by_study) == 1 or wanted in group:
                return group
        if not by_study:
            return []
        names = [" / ".join(exams.exam_name(scene, item)) if item else _("no study") for item in by_study]
        text = _("The scene holds volumes of {count} exams ({names}): choose a volume of one of them to segment first.")
        raise SceneError(text.format(count=len(names), names=", ".join(names)))

    def examInScene(self) -> "SceneExam | None":
        """The exam whose views a saved scene holds, with the roles that they had; None where there is none.

        Of several, the one of the panel's chosen volume, else the first.
        """
        volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        if not any(node.GetAttribute("SSLSegmentation.View") for node in volumes):
            return None
        from SSLScene import exams
        from SSLScene import undo

        views = [node for node in volumes if exams.view_name(node)]
        if not views:
            return None
        wanted = self.getParameterNode().volume
        token = undo.owner_of(wanted if wanted in views else views[0])
        chosen = [node for node in views if undo.owner_of(node) == token]
        return exams.exam_of_scene(slicer.mrmlScene, chosen, token=token or undo.DEFAULT_TOKEN)

    @staticmethod
    def segmentationsOf(exam: "SceneExam") -> list[Any]:
        """The segmentations that go when an exam is removed, but for empty ones."""
        from SSLScene import undo

        found = undo.owned_nodes(slicer.mrmlScene, exam.token, "vtkMRMLSegmentationNode")
        return [node for node in found if node.GetSegmentation().GetNumberOfSegments()]

    @staticmethod
    def removeExam(exam: "SceneExam", withSegmentations: bool = False) -> None:
        """Takes out of the scene all that was added for an exam, and gives the views back as they were.

        Args:
            exam: The exam.
            withSegmentations: Its segmentations too, in which there may be a person's work.

        Raises:
            SceneError: It has segmentations and they are not meant; nothing is removed.
        """
        from SSLPanels import targets
        from SSLScene import undo
        from SSLScene.host import SceneError

        drawn = SSLSegmentationLogic.segmentationsOf(exam)
        if drawn and not withSegmentations:
            text = _("'{name}' has the segmentations {drawn}: save them, and remove it with withSegmentations=True.")
            raise SceneError(text.format(name=exam.study.name, drawn=", ".join(f"'{n.GetName()}'" for n in drawn)))
        targets.show(exam, targets.NOTHING)
        for kind in (PLANES, ANOMALIES, CLASSES):
            undo.remove_all(slicer.mrmlScene, exam.owning(kind).token)
        undo.remove_all(slicer.mrmlScene, exam.token)

    @staticmethod
    def showPlanes(exam: "SceneExam") -> list[Any]:
        """Shows every view's planes as lines in the others and as quads in 3D; returns one model a view."""
        from SSLScene import planes

        SSLSegmentationLogic.hidePlanes(exam)
        return planes.show_planes(slicer.mrmlScene, exam.owning(PLANES))

    @staticmethod
    def planesOf(exam: "SceneExam") -> list[Any]:
        """The models that :meth:`showPlanes` has made; none unless there is one for each view."""
        from SSLScene import undo

        models = undo.owned_nodes(slicer.mrmlScene, exam.owning(PLANES).token, "vtkMRMLModelNode")
        return models if len(models) == len(exam.views) else []

    @staticmethod
    def hidePlanes(exam: "SceneExam") -> None:
        """Takes the planes away."""
        from SSLScene import undo

        undo.remove_all(slicer.mrmlScene, exam.owning(PLANES).token)

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
        return self._sceneJobs.outcome(folder, show, onUpdate, onFinished, waitForCompletion)

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
        part = replace(exam, views=list(chosen))
        return self._sceneJobs.start("segment", settings, part, "segmentation.seg.nrrd")

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
        return self._sceneJobs.start("planes", {"model": str(Path(model).resolve()), "device": device}, exam)

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
            onFinished: Called with the planes; each has ``role`` and ``model`` (its quad).
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

        return self._sceneJobs.outcome(folder, show, onUpdate, onFinished, waitForCompletion)

    def startAnomalies(self, model: str | Path, exam: "SceneExam", device: str = "auto") -> Path:
        """Lets a model that has learned to find distortions look, in a job, for what is unusual in an exam."""
        return self._sceneJobs.start("anomalies", {"model": str(Path(model).resolve()), "device": device}, exam, "maps")

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
        return self._sceneJobs.outcome(folder, show, onUpdate, onFinished, waitForCompletion)

    @staticmethod
    def showingAnomalies(exam: "SceneExam", folder: Path) -> "Generator[None, None, Anomalies]":
        """Puts what a job has found over the views, bit by bit, in place of what was found before."""
        from SSLScene import anomalies
        from SSLScene import undo

        document = read_result(folder)
        owner = exam.owning(ANOMALIES)
        undo.remove_all(slicer.mrmlScene, owner.token)
        return (yield from anomalies.showing(slicer.mrmlScene, owner, owner.views, document))

    def startClassifying(self, model: str | Path, exam: "SceneExam", device: str = "auto") -> Path:
        """Lets a model that has learned classes tell, in a job, to which an exam belongs."""
        return self._sceneJobs.start("classify", {"model": str(Path(model).resolve()), "device": device}, exam)

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
        return self._sceneJobs.outcome(folder, show, onUpdate, onFinished, waitForCompletion)

    @staticmethod
    def showClass(exam: "SceneExam", folder: Path) -> "ExamClass":
        """Puts what a job says of an exam's class into tables, in place of what was said before."""
        from SSLScene import classes
        from SSLScene import undo

        document = read_result(folder)
        owner = exam.owning(CLASSES)
        undo.remove_all(slicer.mrmlScene, owner.token)
        return classes.show_class(slicer.mrmlScene, owner, owner.views, document)

    @staticmethod
    def goToSlice(exam: "SceneExam", weighed: "WeighedSlice") -> None:
        """Shows a slice, for instance the one that decided most: in place of its view side by side, else in Red."""
        from SSLScene import layouts

        if weighed.item.browser is not None:
            weighed.item.browser.SetSelectedItemNumber(weighed.phase)
        name = layouts.view_showing(slicer.mrmlScene, weighed.item)
        layouts.show_slice(slicer.mrmlScene, exam.token, name, weighed.item, weighed.slice)

    @staticmethod
    def wait(folder: str | Path) -> None:
        """Returns when a job has ended; the application stays responsive.

        Raises:
            RuntimeError: It did not finish; the message says why.
        """
        wait_for_result(Path(folder))

    @staticmethod
    def showPredictedPlanes(exam: "SceneExam", folder: Path) -> "Prediction":
        """Shows what a job has predicted beside the acquired planes, and as a table."""
        from SSLScene import predicted

        document = read_result(folder)
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
            network: ``unet`` or ``mask-rcnn``; a model brings its own, but on a U-Net's a Mask R-CNN may stand.
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
        folder = self.workers.run("finetune", merged(document, settings or {}))
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
            settings |= {"init": str(Path(model).resolve()), "transfer": transfer}
        if not model or network == Network.MaskRcnn.value:
            settings["network"] = {"kind": network}
        return settings

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
            raise RuntimeError(_notWritten(path))

    def exportDicom(self, source: str | Path, node: Any, path: str | Path, exam: "SceneExam | None" = None) -> Path:
        """Writes a segmentation as DICOM SEG in a job.

        Args:
            source: Folder of the exam's DICOM files.
            node: A segmentation of one of its series.
            path: The DICOM file to write.
            exam: The exam in the scene, which tells the series and the phase that is shown; without it, the first phase
                of the series with most of the slices is referred to.

        Returns:
            The job's folder.

        Raises:
            SceneError: The segmentation is of no view of the exam.
            RuntimeError: The segmentation could not be written for the job.
        """
        from . import corrections

        item = None if exam is None else corrections.view_of(exam, node)
        folder = self.workers.newFolder("export")
        given = folder / "segmentation.seg.nrrd"
        settings: dict[str, Any] = {
            "source": str(Path(source).resolve()),
            "segmentation": str(given),
            "out": str(Path(path).resolve()),
        }
        if item is not None:
            settings |= {"series": item.view.attributes.get("series_uid", ""), "phase": item.shown_phase}
        # A person who does not want what it needs installed leaves nothing of the patient behind.
        self.workers.prepare("export", settings, folder, requirements.resources() / requirements.DICOM_SEG)
        # Not saved: the node would have its file in the job's folder from then on. The properties are given because
        # Slicer writes into its default for them, and takes that for the next node.
        if not slicer.util.exportNode(node, str(given), {}):
            shutil.rmtree(folder, ignore_errors=True)
            raise RuntimeError(_notWritten(given))
        self.workers.start(folder)
        return folder

    def makeSample(self, organ: str = "heart", seed: int = 0) -> list[Any]:
        """Makes one synthetic exam in a process, waits for it and loads it; returns its volume nodes."""
        folder = self.workers.newFolder("phantom")
        settings = {"organ": organ, "studies": 1, "seed": seed, "out": str(folder / "exams"), "format": "nifti"}
        self.workers.run("phantom", settings, folder)
        self.wait(folder)
        exam = self.loadStudy(next(path for path in sorted((folder / "exams").iterdir()) if path.is_dir()))
        return [volume for item in exam.views for volume in item.volumes]

    def _follow(self, folder: Path, onUpdate: Any, onFinished: Any) -> None:
        if onUpdate is not None or onFinished is not None:
            self._followers.follow(folder, onUpdate, onFinished)

    def release(self) -> None:
        """Ends all following; the jobs go on, but what is being loaded is given up."""
        self._followers.release()
        self._sceneJobs.release()
        for loader in self._loaders:
            loader.cancel()
        self._loaders = []


def _notWritten(path: str | Path) -> str:
    return _("{path} could not be written; check folder and disk.").format(path=path)
