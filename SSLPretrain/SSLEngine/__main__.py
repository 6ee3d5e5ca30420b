"""The command line: ``sslengine VERB`` or ``python -m SSLEngine VERB``."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import TextIO

from . import __version__
from . import jobs
from . import tasks
from .geometry import GeometryError
from .jobs import Cancelled
from .jobs import JobError
from .jobs import Reporter
from .jobs import SettingsError
from .studies.study import Irregularity
from .studies.study import Study
from .studies.study import StudyError
from .studies.study import unread

if TYPE_CHECKING:
    from .studies import Cohort

#: Numbers of labelled subjects of a few-label study where none are asked for.
DEFAULT_COUNTS = {"segmentation": "1,2,5,10", "classification": "5,10,20"}
#: Settings that a few-label study gives to its pretraining as well.
SHARED_SETTINGS = (
    *("data", "seed", "device", "grid", "network"),
    *("positions", "crossings", "location", "restoration", "distortions"),
)

#: Options of the verbs that train which a job has once it is prepared.
PREPARED = (
    *("data", "out", "prepare", "seed", "steps", "device", "network", "labels_suffix", "set", "pretext", "init"),
    *("target", "groups", "transfer", "labelled", "counts", "pretrain_steps"),
)

#: Turns that a thread of GNU OpenMP waits awake before it sleeps. At its default of 300 000, beside another program
#: that is busy, all threads wait at every operation for one that has no core.
SPIN_COUNT = "10000"

#: What the system says of a path that cannot be used, whatever is tried.
WRONG_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError)
WRONG_PLACE = (errno.EROFS, errno.ENAMETOOLONG)

#: What torch says of a lack of memory, in lower case: on the device, on Linux, on Windows, within a CUDA library.
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "_status_alloc_failed")

# Verbs import what they need when they run: --help must answer at once, and light verbs must not wait for torch.


# ---------------------------------------------------------------------------------------------
# Verbs


def phantom(arguments: argparse.Namespace) -> int:
    """Writes synthetic exams with labels."""
    from .phantom import write_cohort

    folders = write_cohort(
        arguments.organ,
        arguments.studies,
        arguments.seed,
        Path(arguments.out),
        arguments.format,
        progress=_show,
        lesion=arguments.lesion,
        group=arguments.group,
    )
    _say(arguments, {"studies": [str(f) for f in folders]}, f"Wrote {len(folders)} studies to {arguments.out}")
    return jobs.EXIT_FINISHED


def inspect(arguments: argparse.Namespace) -> int:
    """Shows the views of an exam or a cohort, how they cross, and what is wrong with them."""
    from . import studies

    path = Path(arguments.path)
    document = studies.inspect(
        path, labels_suffix=arguments.labels_suffix, frame_of_reference=arguments.frame_of_reference
    )
    if arguments.html:
        studies.inspect_html(
            path,
            Path(arguments.html),
            labels_suffix=arguments.labels_suffix,
            frame_of_reference=arguments.frame_of_reference,
        )
    _say(arguments, document, studies.inspect_text(document))
    return jobs.EXIT_FINISHED


def pretrain(arguments: argparse.Namespace) -> int:
    """Pretrains a network on the geometry of unlabelled exams."""
    settings = _common_settings(arguments)
    if arguments.pretext:
        settings["pretext"] = arguments.pretext.split(",")
    return _training_job("pretrain", arguments, settings)


def finetune(arguments: argparse.Namespace) -> int:
    """Trains for segmentation or for classes of exams, from a pretrained model or from scratch."""
    settings = _target_settings(arguments)
    if arguments.labelled is not None:
        settings["labelled"] = arguments.labelled
    return _training_job("finetune", arguments, settings)


def segment(arguments: argparse.Namespace) -> int:
    """Segments a study, a view or a cine, or all studies of a folder."""
    from .models import load_model
    from .segment import Segmenter
    from .segment import segment_cohort
    from .segment import segment_study
    from .training import choose_device

    _check_one_or_many(arguments)
    device = choose_device(arguments.device)
    network, card = load_model(Path(arguments.model))
    segmenter = Segmenter(network, card, device, arguments.largest_component)
    out = Path(arguments.out)
    if arguments.cohort:
        document = segment_cohort(segmenter, _read_many(arguments), out, _show)
        _tell_left_out(document)
        outputs = [o for study in document["studies"] for o in study["outputs"]]
    else:
        study = _read_one(arguments)
        document = segment_study(segmenter, study, out, _show)
        _tell_left_out(document)
        if study.path.is_dir() and out.resolve().parent == study.path.resolve():
            so = "reading the exam again takes it for labels; move it out unless it is to be learned from."
            print(f"{out} lies in the exam's own folder: {so}", file=sys.stderr)
        outputs = document["outputs"]
    _say(arguments, document, "\n".join(o["file"] for o in outputs))
    return jobs.EXIT_FINISHED


def classify(arguments: argparse.Namespace) -> int:
    """Tells the class of an exam, how likely each class is, and which slices decided."""
    from . import classify as classes
    from .training import choose_device

    _check_one_or_many(arguments)
    classifier = classes.read_classifier(Path(arguments.model), choose_device(arguments.device))
    if arguments.cohort:
        document = classes.classify_cohort(classifier, _read_many(arguments).studies, _show)
        _tell_left_out(document)
        text = classes.table(document["studies"], document["scores"])
    else:
        document = classifier.classify(_read_one(arguments)).document()
        text = classes.table([document])
    _say(arguments, document, text)
    return jobs.EXIT_FINISHED


def planes(arguments: argparse.Namespace) -> int:
    """Predicts where the planes of an exam, or of all of a folder, lie, and compares them with the acquired ones."""
    from . import planning

    _check_one_or_many(arguments)
    model = Path(arguments.model)
    hosts = arguments.hosts.split(",") if arguments.hosts else ()
    if arguments.cohort:
        if arguments.picture:
            msg = "--picture is of one study; leave it out with --cohort."
            raise SettingsError(msg)
        document = planning.plan_cohort(model, _read_many(arguments).studies, arguments.device, hosts, _show)
        _tell_left_out(document)
        text = planning.cohort_table(document)
    else:
        picture = Path(arguments.picture) if arguments.picture else None
        document = planning.plan(model, _read_one(arguments), arguments.device, hosts, picture)
        text = planning.table(document)
    _say(arguments, document, text)
    return jobs.EXIT_FINISHED


def anomalies(arguments: argparse.Namespace) -> int:
    """Maps and scores where an exam looks unlike those that a model was pretrained on."""
    from . import anomalies as finding

    document = finding.find(Path(arguments.model), _read_one(arguments), Path(arguments.out), arguments.device, _show)
    _say(arguments, document, finding.table(document))
    return jobs.EXIT_FINISHED


def evaluate(arguments: argparse.Namespace) -> int:
    """Compares segmentations with reference labels."""
    from . import measure

    document = measure.evaluate(Path(arguments.predicted), Path(arguments.reference), arguments.labels_suffix)
    for line in measure.left_out(document):
        print(line, file=sys.stderr)
    _say(arguments, document, measure.table(document))
    return jobs.EXIT_FINISHED


def job(arguments: argparse.Namespace) -> int:
    """Shows, stops or resumes a job from any process, or queues it on a SLURM cluster."""
    folder = Path(arguments.job)
    if arguments.action == "stop":
        jobs.stop(folder)
    elif arguments.action == "resume":
        jobs.resume(folder)
    elif arguments.action == "submit":
        from .cluster import submit

        options: dict[str, Any] = {}
        for text in arguments.slurm or ():
            _set(options, text, "--slurm")
        print(f"Queued as {submit(folder, options)}", file=sys.stderr)
    status = jobs.status(folder)
    text = f"{status.state}: step {status.step} of {status.steps}. {status.message}".strip()
    _say(arguments, status.as_json(), text)
    return jobs.EXIT_FINISHED


def demo(arguments: argparse.Namespace) -> int:
    """Runs the whole way on synthetic exams and writes a report."""
    from .demo import run_demo

    report = run_demo(arguments.organ, Path(arguments.out), arguments.seed)
    print(f"The report is {report}")
    return jobs.EXIT_FINISHED


def bench(arguments: argparse.Namespace) -> int:
    """Measures its own speed against its floor and against MONAI's transforms."""
    from . import bench as speed

    document = speed.run_bench(arguments.device)
    _say(arguments, document, speed.table(document))
    return jobs.EXIT_FINISHED


def study_labels(arguments: argparse.Namespace) -> int:
    """Compares pretrained with scratch over numbers of labels, paired by seed."""
    common = _target_settings(arguments)
    extra: dict[str, Any] = {k: common.pop(k) for k in ("test_subjects", "scratch") if k in common}
    settings: dict[str, Any] = {"finetune": common, "seeds": arguments.seeds, **extra}
    counts = arguments.counts or DEFAULT_COUNTS[common.get("target", "segmentation")]
    try:
        settings["counts"] = [int(c) for c in counts.split(",")]
    except ValueError:
        msg = f"--counts expects numbers, for instance 1,2,5,10, and found '{counts}'."
        raise SettingsError(msg) from None
    if arguments.init and (arguments.pretext or arguments.pretrain_steps):
        msg = "--pretext and --pretrain-steps have no effect beside --init, whose model is pretrained; leave them out."
        raise SettingsError(msg)
    if not arguments.init:
        shared = {k: v for k, v in common.items() if k in SHARED_SETTINGS}
        pretext = (arguments.pretext or "positions").split(",")
        settings["pretrain"] = {**shared, "pretext": pretext}
        if arguments.pretrain_steps:
            settings["pretrain"]["schedule"] = {"steps": arguments.pretrain_steps}
    return _training_job("study-labels", arguments, settings)


# ---------------------------------------------------------------------------------------------
# Training jobs


def _common_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Command-line options as a settings dictionary; only what was given, so that defaults stay in one place."""
    settings: dict[str, Any] = {}
    if arguments.data:
        settings["data"] = {"path": str(Path(arguments.data).resolve())}
        if arguments.labels_suffix:
            settings["data"]["labels_suffix"] = arguments.labels_suffix
    if arguments.seed is not None:
        settings["seed"] = arguments.seed
    if arguments.device:
        settings["device"] = arguments.device
    if arguments.steps is not None:
        settings.setdefault("schedule", {})["steps"] = arguments.steps
    if arguments.network:
        settings["network"] = {"kind": arguments.network}
    for text in arguments.set or ():
        _set(settings, text)
    if arguments.init:
        settings["init"] = str(Path(arguments.init).resolve())
    return settings


def _target_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same with the options of the verbs that learn a target."""
    settings = _common_settings(arguments)
    if arguments.target:
        settings["target"] = arguments.target
    if arguments.transfer:
        settings["transfer"] = arguments.transfer
    if arguments.groups and settings.get("target") != "classification":
        msg = "--groups is for --target classification; leave it out."
        raise SettingsError(msg)
    if arguments.groups:
        settings.setdefault("data", {})["groups"] = str(Path(arguments.groups).resolve())
    return settings


def _set(settings: dict[str, Any], text: str, option: str = "--set") -> None:
    """Applies ``--set schedule.rate=0.002``; the value is JSON, or else a plain string."""
    name, equals, value = text.partition("=")
    if not equals:
        msg = f"{option} expects NAME=VALUE, for instance schedule.rate=0.002 or partition=gpu, and found '{text}'."
        raise SettingsError(msg)
    *blocks, last = name.split(".")
    place = settings
    for block in blocks:
        place = place.setdefault(block, {})
        if not isinstance(place, dict):
            msg = f"--set {text}: '{block}' is no group of settings."
            raise SettingsError(msg)
    try:
        place[last] = json.loads(value)
    except json.JSONDecodeError:
        place[last] = value


def _training_job(kind: str, arguments: argparse.Namespace, settings: dict[str, Any]) -> int:
    """Creates the job if it is new, then runs or resumes it in this process."""
    first = int(os.environ.get("RANK", "0")) == 0
    if not first and kind == "study-labels":
        msg = "A few-label study runs in one process; start it without torchrun."
        raise SettingsError(msg)
    if arguments.job:
        given = [name for name in PREPARED if getattr(arguments, name, None) not in (None, False)]
        if given:
            msg = f"--job runs what was prepared, so --{given[0].replace('_', '-')} would have no effect; leave it out."
            raise SettingsError(msg)
        folder = Path(arguments.job).resolve()
        described = jobs.load(folder)
        if described["kind"] != kind:
            msg = f"{folder} holds a job of kind '{described['kind']}'; run it with that verb."
            raise JobError(msg)
        settings = described["settings"]
    else:
        if not arguments.data or not arguments.out:
            msg = f"{kind} needs --data and --out, or --job with a prepared job."
            raise SettingsError(msg)
        # They need msgspec and torch: a prepared job takes its folder first, so that a missing package is told there.
        from .settings import KINDS
        from .starting import completed

        for name in ("data", "init", "groups"):
            path = getattr(arguments, name, None)
            if path and not Path(path).exists():
                msg = f"{path} does not exist; check --data, --init and --groups."
                raise SettingsError(msg)
        from .checking import check

        # What cannot be used leaves no job folder behind; the folder holds what was said, and nothing of the model.
        check(completed(settings, KINDS[kind]))
        folder = jobs.create(Path(arguments.out), kind, settings) if first else Path(arguments.out).resolve()
        if arguments.prepare:
            _say(arguments, jobs.status(folder).as_json(), f"Prepared {folder}")
            return jobs.EXIT_FINISHED
    with _worker(folder, quiet=arguments.json) if first else _companion(folder) as reporter:
        from . import finetuning
        from . import pretraining
        from .settings import Finetune
        from .settings import LabelStudy
        from .settings import Pretrain
        from .starting import completed

        document: Any = None
        message = f"The model is {folder / jobs.MODEL_FILE}"
        if kind == "pretrain":
            pretraining.pretrain(completed(settings, Pretrain), reporter)
        elif kind == "finetune":
            finetuning.finetune(completed(settings, Finetune), reporter)
        else:
            from . import few_labels

            document = few_labels.run_label_study(completed(settings, LabelStudy), reporter)
            message = f"The figures are in {folder / few_labels.RESULTS_FILE}"
            if not arguments.json:
                print(few_labels.summary(document), flush=True)
        reporter.event("finished", message=message)
    if arguments.json and first:
        print(json.dumps(document or jobs.status(folder).as_json()))
    return jobs.EXIT_FINISHED


@contextlib.contextmanager
def _companion(folder: Path) -> Iterator[Reporter]:
    """A further process of torchrun: it works along, and leaves the folder and all words to the first one."""
    from .runs import Silent

    reporter = Silent(Reporter(folder))
    # torchrun signals every process; the first one decides at which step all of them end.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, reporter.request_stop)
    yield reporter


def _task(kind: str, folder: Path) -> int:
    """Runs a prepared job that is no training: ``VERB --job FOLDER``, as a window starts it."""
    settings = jobs.load(folder)["settings"]
    with _worker(folder.resolve(), quiet=False) as reporter:
        reporter.event("finished", message=tasks.run(kind, settings, reporter))
    return jobs.EXIT_FINISHED


@contextlib.contextmanager
def _worker(folder: Path, quiet: bool) -> Iterator[Reporter]:
    """Runs the body as the job's worker; however it ends, the folder says so in one sentence."""
    with _logged(folder, quiet), jobs.worker(folder, echo=not quiet) as reporter:
        previous = signal.signal(signal.SIGINT, reporter.request_stop)
        try:
            reporter.event("started")
            yield reporter
        except SystemExit:
            # A cluster takes the node away: whoever ends the process so has said why (see ``cluster``).
            raise
        except BaseException as error:
            code, sentence = explain(error)
            if code == jobs.EXIT_CANCELLED:
                reporter.event("cancelled", message=f"Stopped; go on with: sslengine job resume {folder}")
            else:
                if code == jobs.EXIT_OTHER:
                    traceback.print_exc()
                reporter.event("failed", message=sentence, code=code)
            raise
        finally:
            signal.signal(signal.SIGINT, previous)


@contextlib.contextmanager
def _logged(folder: Path, quiet: bool) -> Iterator[None]:
    """Copies what is printed to ``log.txt``, unless it goes there already (a job that a window started).

    A quiet job keeps stdout for its one JSON document.
    """
    path = folder / jobs.LOG_FILE
    path.touch()
    try:
        there = os.path.samestat(os.fstat(sys.stdout.fileno()), path.stat())
    except (OSError, ValueError, AttributeError):
        there = False
    if there:
        yield
        return
    with path.open("a", encoding="utf-8") as log:
        kept = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = log if quiet else _Both(kept[0], log), _Both(kept[1], log)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = kept


class _Both:
    """A stream that writes to two."""

    def __init__(self, first: TextIO, second: TextIO) -> None:
        self._streams = (first, second)

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        for stream in self._streams:
            stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._streams[0], name)


# ---------------------------------------------------------------------------------------------
# Errors and output


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and one sentence for whatever went wrong."""
    text = str(error).strip()
    if isinstance(error, (Cancelled, KeyboardInterrupt)):
        return jobs.EXIT_CANCELLED, "Stopped."
    if isinstance(error, (StudyError, SettingsError, JobError, GeometryError)) or type(error).__name__ == "ModelError":
        return jobs.EXIT_UNUSABLE, text
    if isinstance(error, MemoryError) or any(words in text.lower() for words in NO_MEMORY):
        return jobs.EXIT_MEMORY, "Out of memory: use a smaller schedule.batch or grid.patch, or close other programs."
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        return jobs.EXIT_OTHER, f"The Python package '{package}' is missing; install the requirements (README)."
    if isinstance(error, OSError):
        code = jobs.EXIT_UNUSABLE if isinstance(error, WRONG_PATH) or error.errno in WRONG_PLACE else jobs.EXIT_OTHER
        return code, f"{_meant(error)}: {error.strerror or text}; check the path and the disk."
    if isinstance(error, FloatingPointError):
        return jobs.EXIT_OTHER, text
    first = text.splitlines()[0] if text else "no message"
    advice = "the program did not expect this, please report it with what it printed (a job: log.txt)"
    return jobs.EXIT_OTHER, f"{type(error).__name__}: {first.rstrip('.')}; {advice}."


def _meant(error: OSError) -> str:
    """The file that an error is about, as the user knows it: results are first written beside their place."""
    name = error.filename2 or error.filename
    if not isinstance(name, str):
        return "A file"
    path = Path(name)
    for folder in path.parents:
        if folder.name.startswith(".writing-"):
            return str(folder.parent)
    if path.name.startswith(".writing-"):
        return str(path.parent)
    return name.removesuffix(f".{os.getpid()}.part")


def _check_one_or_many(arguments: argparse.Namespace) -> None:
    if bool(arguments.input) == bool(arguments.cohort):
        msg = f"{arguments.verb} needs one study, or --cohort with a folder of studies."
        raise SettingsError(msg)
    if getattr(arguments, "groups", None) and not arguments.cohort:
        msg = "--groups goes with --cohort, whose studies it classes; leave it out."
        raise SettingsError(msg)


def _read_one(arguments: argparse.Namespace) -> Study:
    """The study that is named; what of it could not be read is told, since a result is of the rest."""
    from .studies import read_study

    study = read_study(Path(arguments.input), labels_suffix=arguments.labels_suffix)
    _tell_unread(study.irregularities)
    return study


def _read_many(arguments: argparse.Namespace) -> Cohort:
    """As :func:`_read_one`, of all studies of a folder."""
    from .studies import read_cohort

    groups = Path(arguments.groups) if getattr(arguments, "groups", None) else None
    path, suffix = Path(arguments.cohort), arguments.labels_suffix
    cohort = read_cohort(path, labels_suffix=suffix, groups=groups, progress=_show)
    for items in (cohort.irregularities, *(study.irregularities for study in cohort.studies)):
        _tell_unread(items)
    return cohort


def _tell_unread(irregularities: Iterable[Irregularity]) -> None:
    for sentence in unread(irregularities):
        print(sentence, file=sys.stderr)


def _tell_left_out(document: Mapping[str, Any]) -> None:
    for sentence in tasks.left_out(document):
        print(sentence, file=sys.stderr)


def _show(done: int, total: int, message: str = "") -> None:
    """Progress on stderr: stdout is for the result."""
    print(f"{done} of {total}: {message}".rstrip(": "), file=sys.stderr, flush=True)


def _say(arguments: argparse.Namespace, document: Any, text: str) -> None:
    print(json.dumps(document, allow_nan=False) if arguments.json else text, flush=True)


# ---------------------------------------------------------------------------------------------
# Options


def build_parser() -> argparse.ArgumentParser:
    """The command line's grammar."""
    parser = argparse.ArgumentParser(prog="sslengine", description="Learning from the planes of heart and knee MR.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, run: Callable[[argparse.Namespace], int], **options: bool) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=(run.__doc__ or "").strip(), description=run.__doc__)
        sub.set_defaults(run=run, json=False)
        if options.get("json", True):
            sub.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
        return sub

    sub = verb("demo", demo, json=False)
    sub.add_argument("--organ", choices=("heart", "knee"), default="heart")
    sub.add_argument("--out", default="demo", metavar="DIR")
    sub.add_argument("--seed", type=_natural, default=0)

    sub = verb("phantom", phantom)
    sub.add_argument("--organ", choices=("heart", "knee"), default="heart")
    sub.add_argument("--studies", type=_positive, default=10, metavar="N")
    sub.add_argument("--seed", type=_natural, default=0)
    sub.add_argument("--out", required=True, metavar="DIR")
    sub.add_argument("--format", choices=("nifti", "dicom"), default="nifti")
    sub.add_argument("--lesion", metavar="NAME", help="in every exam: infarct (heart), effusion or metal; none without")
    sub.add_argument("--group", metavar="NAME", help="subjects of one group only, for instance normal")

    sub = verb("inspect", inspect)
    sub.add_argument("path", metavar="PATH")
    sub.add_argument("--html", metavar="FILE", help="also write a page with pictures")
    sub.add_argument("--labels-suffix", default="_seg")
    sub.add_argument("--frame-of-reference", choices=("require", "warn", "ignore"), default="warn")

    sub = verb("pretrain", pretrain)
    _training_options(sub)
    sub.add_argument("--pretext", metavar="NAME[,NAME]", help="tasks to learn, for instance positions")
    sub.add_argument("--init", metavar="MODEL", help="pretrained model to go on from, for instance on your own exams")

    sub = verb("finetune", finetune)
    _training_options(sub)
    _target_options(sub)
    sub.add_argument("--init", metavar="MODEL", help="pretrained model; from scratch without it")
    sub.add_argument("--labelled", type=_positive, metavar="N", help="use the first N labelled subjects of the seed")

    sub = verb("segment", segment)
    sub.add_argument("--model", required=True)
    sub.add_argument("input", metavar="INPUT", nargs="?", help="study folder or image file")
    sub.add_argument("--cohort", metavar="DIR", help="segment all studies of a folder, --out being a folder too")
    sub.add_argument("--out", required=True, metavar="FILE.seg.nrrd")
    sub.add_argument("--device", default="auto")
    sub.add_argument("--largest-component", action="store_true", help="keep the largest part of each structure")
    sub.add_argument("--labels-suffix", default="_seg")

    sub = verb("classify", classify)
    sub.add_argument("--model", required=True, help="model that was fine-tuned with --target classification")
    sub.add_argument("input", metavar="INPUT", nargs="?", help="study folder or image file")
    sub.add_argument("--cohort", metavar="DIR", help="classify all studies of a folder; scores where groups are known")
    sub.add_argument("--groups", metavar="CSV", help="table of the studies' groups, for the scores")
    sub.add_argument("--device", default="auto")
    sub.add_argument("--labels-suffix", default="_seg")

    sub = verb("planes", planes)
    sub.add_argument("--model", required=True, help="model that was pretrained with --pretext crossings")
    sub.add_argument("input", metavar="INPUT", nargs="?", help="study folder")
    sub.add_argument("--cohort", metavar="DIR", help="all studies of a folder, and the medians of the errors")
    sub.add_argument("--hosts", metavar="ROLE[,ROLE]", help="look at slices of these roles only, for instance sax")
    sub.add_argument("--picture", metavar="FILE.png", help="draw the planes, dashed, with those that were acquired")
    sub.add_argument("--device", default="auto")
    sub.add_argument("--labels-suffix", default="_seg")

    sub = verb("anomalies", anomalies)
    sub.add_argument("--model", required=True, help="model that was pretrained with --pretext distortions")
    sub.add_argument("input", metavar="INPUT", help="study folder or image file")
    sub.add_argument(
        "--out", required=True, metavar="FILE.nii.gz", help="map of the first view, others beside; or a folder"
    )
    sub.add_argument("--device", default="auto")
    sub.add_argument("--labels-suffix", default="_seg")

    sub = verb("evaluate", evaluate)
    sub.add_argument("--predicted", required=True, metavar="A", help="label file, or folder of them")
    sub.add_argument("--reference", required=True, metavar="B", help="the same; an nnU-Net dataset is such a folder")
    sub.add_argument(
        "--labels-suffix", metavar="_seg", help="ending of the names of label files; found out where it is not given"
    )

    sub = verb("study-labels", study_labels)
    _training_options(sub)
    _target_options(sub)
    sub.add_argument("--counts", help="numbers of labelled subjects; 1,2,5,10, for classification 5,10,20")
    sub.add_argument("--seeds", type=_positive, default=5, metavar="K")
    sub.add_argument("--pretext", metavar="NAME[,NAME]", help="tasks to pretrain on where no --init is given")
    sub.add_argument("--pretrain-steps", type=_positive, metavar="N", help="steps of that pretraining")
    sub.add_argument("--init", metavar="MODEL", help="pretrained model; pretrained on the cohort without it")

    sub = verb("bench", bench)
    sub.add_argument("--device", default="auto")

    sub = verb("job", job)
    sub.add_argument("action", choices=("status", "stop", "resume", "submit"))
    sub.add_argument("job", metavar="JOB")
    sub.add_argument(
        "--slurm", action="append", metavar="NAME=VALUE", help="for submit: partition=gpu, timeout_min=600, ..."
    )
    return parser


def _training_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--data", metavar="DIR", help="cohort: a folder of studies, or an nnU-Net raw dataset")
    sub.add_argument("--out", metavar="JOB", help="job folder to make")
    sub.add_argument("--job", metavar="JOB", help="run or resume a prepared job instead")
    sub.add_argument("--prepare", action="store_true", help="make the job folder only, to be run by 'job submit'")
    sub.add_argument("--seed", type=int)
    sub.add_argument("--steps", type=_positive, metavar="N", help="training steps in all")
    sub.add_argument("--device", metavar="auto|cpu|cuda:N")
    sub.add_argument(
        "--network", choices=("unet", "mask-rcnn"), help="mask-rcnn finds regions; it learns --pretext distortions"
    )
    sub.add_argument("--labels-suffix", metavar="_seg")
    sub.add_argument(
        "--set", action="append", metavar="FIELD=VALUE", help="any setting, for instance schedule.rate=0.002"
    )


def _target_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--target", choices=("segmentation", "classification"), help="label maps, or groups of studies")
    sub.add_argument("--groups", metavar="CSV", help="table of the studies' groups, columns study and group")
    sub.add_argument("--transfer", choices=("all", "decoder", "multitask"))


def _positive(text: str) -> int:
    return _at_least(1, text)


def _natural(text: str) -> int:
    return _at_least(0, text)


def _at_least(least: int, text: str) -> int:
    value = int(text)
    if value < least:
        msg = f"expected a number of at least {least}"
        raise argparse.ArgumentTypeError(msg)
    return value


def _refuse_empty(arguments: argparse.Namespace) -> None:
    """Refuses the empty text that a script's unset variable leaves, which as a path would be the folder one is in."""
    empty = [name for name, value in vars(arguments).items() if value == "" and name != "labels_suffix"]
    if empty:
        msg = f"{empty[0]} is empty: give a value, or leave it out (is a variable of your script not set?)."
        raise SettingsError(msg)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code."""
    given = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        # Names of patients and folders may hold what a terminal cannot show.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Read when torch is loaded, which is later.
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    try:
        if len(given) == 3 and given[1] == "--job" and given[0] in tasks.TASKS:
            return _task(given[0], Path(given[2]))
        arguments = build_parser().parse_args(given)
        _refuse_empty(arguments)
        code: int = arguments.run(arguments)
    except BrokenPipeError:
        # Whoever reads has seen enough, as in "inspect exams | head"; what is left must not fail at the very end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return jobs.EXIT_OTHER
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        code, sentence = explain(error)
        if code == jobs.EXIT_OTHER and not isinstance(error, (ModuleNotFoundError, OSError)):
            traceback.print_exc()
        print(f"sslengine: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
