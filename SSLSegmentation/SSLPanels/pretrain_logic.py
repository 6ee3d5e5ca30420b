"""What SSLPretrain can do, for its panel and for scripts, and the parameters that a scene keeps of it."""

# Annotations stay real objects here (no __future__ import): parameterNodeWrapper reads them as types.

import json
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated
from typing import Any

from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import WithinRange
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from SSLEngine import jobs

from . import requirements
from .choices import Network
from .choices import Preset
from .follower import Followers
from .follower import JobFollower
from .follower import wait_for_result
from .workers import Workers
from .workers import merged

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


class SSLPretrainLogic(ScriptedLoadableModuleLogic):
    """Everything the panel does, for scripts.

    Example::

        logic = SSLPretrainLogic()
        job = logic.start("/data/exams", pretexts=["crossings"], waitForCompletion=True)
        print(logic.status(job).model)
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.workers = Workers("SSL Pretrain")
        self._followers = Followers()

    @staticmethod
    def resource(name: str) -> str:
        """Path of a file in the module's resources."""
        return str(requirements.resources() / name)

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
            RuntimeError: Waited for, and the job failed or was stopped; the message says why.
        """
        reason = Network(network).why_not(pretexts)
        if reason:
            raise ValueError(reason)
        document: dict[str, Any] = {
            "data": {"path": str(Path(cohort).resolve())},
            "pretext": list(pretexts),
            "schedule": {"steps": steps},
            "network": {"kind": network},
        }
        folder = self.workers.run("pretrain", merged(document, settings or {}), out)
        self.follow(folder, onUpdate, onFinished)
        if waitForCompletion:
            wait_for_result(folder)
        return folder

    def inspect(self, cohort: str | Path, labelsSuffix: str = "_seg") -> Path:
        """Looks at all exams of a folder in a job; its ``inspect.json`` is what ``sslengine inspect --json`` says.

        The job's folder is taken away a day later; see :mod:`SSLPanels.sweeping`.
        """
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
        trial = merged({"data": data, "init": str(Path(model).resolve())}, settings or {})
        return self.workers.run("study-labels", {"finetune": trial, "counts": list(counts), "seeds": seeds})

    def drawTargets(self, study: str | Path, settings: dict[str, Any] | None = None) -> Path:
        """Draws in a job what each pretext looks for on an exam: a PNG each, named in its ``targets.json``."""
        document = merged({"data": {"path": str(Path(study).resolve())}}, settings or {})
        return self.workers.run("targets", {"study": str(Path(study).resolve()), "pretrain": document})

    def follow(self, folder: str | Path, onUpdate: Any = None, onFinished: Any = None) -> JobFollower:
        """Calls back while a job runs, whoever started it."""
        return self._followers.follow(Path(folder), onUpdate, onFinished)

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
        self._followers.release()

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
