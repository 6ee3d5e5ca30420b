"""Where an exam looks unlike those that a network was pretrained on: a map and a score a slice.

A network that has learned to find and undo synthetic distortions (pretext ``distortions``) answers to lesions, which it
has never seen, as well; Tan et al. (MELBA 2022) detect outliers in this way. The map holds, for each pixel between 0
and 1, how likely the network takes it for distorted. A slice's score is the mean of its highest pixels; how far it lies
above what slices of the same role score in normal exams is its z-score.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import mannwhitneyu
from torch import nn

from .geometry import Array
from .geometry import plane_to_plane
from .jobs import check_writable
from .models import Card
from .models import ModelError
from .models import load_model
from .networks.mask_rcnn import MaskRCNN
from .pretext.distortions import DistortionPrediction
from .regions import all_regions
from .segment import SLICES_AT_ONCE
from .segment import alike
from .segment import fitting_views
from .segment import ordered
from .segment import to_own_grid
from .settings import Distortions
from .settings import Grid
from .settings import parse
from .slices import SliceSet
from .slices import crop_centre
from .slices import make_batch
from .slices import network_plane
from .slices import resample
from .slices import standardise
from .studies import Study
from .studies import StudyError
from .studies import View
from .studies.reading import ANOMALIES_SUFFIX
from .studies.reading import refuse_inputs
from .studies.volumes import view_image
from .studies.volumes import volume_extension
from .studies.volumes import write_image
from .training import autocast
from .training import choose_device

Maps = npt.NDArray[np.float32]
#: Share of a slice's pixels whose mean is its score.
TOP_SHARE = 0.01
#: Fewer normal slices of a role than this tell no mean and spread.
MIN_NORMAL = 4
#: Endings of the file that a map is written to; both hold a cine.
ENDINGS = (".nii.gz", ".mha")
#: Less lesion than this on a slice does not make it one with a lesion, mm^2.
MIN_LESION_MM2 = 50.0


@dataclass(frozen=True)
class Found:
    """What was found on one phase of one view.

    Attributes:
        maps: 0 to 1, ``(slices, rows, columns)`` on the view's own grid; 0 outside the network's patch.
        seen: Which pixels the network looked at, the same shape.
        scores: Score of each slice, 0 to 1.
    """

    maps: Maps
    seen: npt.NDArray[np.bool_]
    scores: Array


def anomaly_map(network: nn.Module, images: torch.Tensor, settings: Distortions) -> torch.Tensor:
    """How likely a network takes each pixel of a batch for distorted.

    A U-Net learns with untouched pixels weighing less than distorted ones, and so overrates distortions; the weight is
    taken out again (Elkan, IJCAI 2001).

    Args:
        network: In evaluation mode, pretrained on ``distortions``.
        images: ``(B, 1, H, W)``, standardised.
        settings: What it was pretrained with.

    Returns:
        0 to 1, ``(B, H, W)`` float32.
    """
    if isinstance(network, MaskRCNN):
        # Unsure ones too: a lesion is not quite what the network has learned.
        with all_regions(network):
            return torch.stack([_of_detections(found, images.shape[-2:]) for found in network(images)])
    name, classes = DistortionPrediction.name, DistortionPrediction.classes
    output = network(images, [name])[name].float()
    logits = output[:, :classes]
    logits[:, 0] -= math.log(settings.background_weight)
    return 1 - logits.softmax(1)[:, 0]


def _of_detections(found: Mapping[str, torch.Tensor], size: torch.Size) -> torch.Tensor:
    """The surest detection of each pixel: its score times its mask."""
    if not len(found["scores"]):
        return torch.zeros(size, device=found["scores"].device)
    return (found["scores"][:, None, None] * found["masks"]).amax(0).float()


def slice_scores(maps: torch.Tensor) -> torch.Tensor:
    """Mean of the highest :data:`TOP_SHARE` of the pixels of each map ``(B, H, W)``, ``(B,)``."""
    flat = maps.flatten(1)
    return flat.topk(max(1, round(TOP_SHARE * flat.shape[1])), dim=1).values.mean(1)


class Detector:
    """A model that was pretrained on distortions, on a device.

    Args:
        network: The network.
        card: Its card.
        device: Where to compute.

    Raises:
        ModelError: The model has not learned ``distortions``.
    """

    def __init__(self, network: nn.Module, card: Card, device: torch.device) -> None:
        if card.kind != "pretrained" or DistortionPrediction.name not in card.pretexts:
            msg = "This model has not learned to find distortions: use one pretrained with --pretext distortions."
            raise ModelError(msg)
        self.network, self.card, self.device = network.to(device).eval(), card, device
        self.settings = parse(card.pretexts[DistortionPrediction.name], Distortions)
        # Patches are as large as in training, for the reason that segmentation has (instance norm).
        self.grid = parse(card.grid, Grid)

    def look(self, study: Study, view: View, phase: int) -> Found:
        """Looks at one phase of one view of a study, at patches that lie as in training."""
        images = standardise(view.pixels(phase), self.grid.clip_percent)
        centre = crop_centre(study, view, self.grid)
        spacing_mm, side = self.grid.spacing_mm, self.grid.patch
        hosts = [network_plane(plane, spacing_mm, side, centre, view.role) for plane in view.planes]
        places = [plane_to_plane(plane, host) for plane, host in zip(view.planes, hosts, strict=True)]
        found = Found(np.zeros(images.shape, np.float32), np.zeros(images.shape, np.bool_), np.zeros(len(images)))
        for part in alike(places):
            plane, host = view.planes[part.start], hosts[part.start]
            maps = self._maps(resample(torch.from_numpy(images[part]).to(self.device), plane, host))
            found.scores[part] = slice_scores(maps).cpu().numpy()
            # Channel 0 stands for what lies outside the patch.
            own = to_own_grid(torch.stack([torch.zeros_like(maps), maps], 1), host, plane)
            found.maps[part] = own[:, 1].cpu().numpy()
            found.seen[part] = (own[:, 0] < 0.5).cpu().numpy()
        return found

    @torch.no_grad()
    def _maps(self, patches: torch.Tensor) -> torch.Tensor:
        with autocast(self.device):
            return anomaly_map(self.network, patches[:, None], self.settings)

    def z_score(self, role: str, score: float) -> float | None:
        """How many standard deviations a slice's score lies above normal slices of its role; None where unknown."""
        normal = self.card.normal.get(role)
        return None if normal is None else (score - normal[0]) / max(normal[1], 1e-6)


# ---------------------------------------------------------------------------------------------
# The verb


def find(
    model: Path,
    exam: Study,
    out: Path,
    device: str = "auto",
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Writes a map of every view that fits the model; the document of ``anomalies --json``.

    Args:
        model: Model file that was pretrained with ``distortions``.
        exam: The study.
        out: An image file for the view with the most slices, with others beside it; or a folder, which gets
            ``<view>_anomalies.nii.gz``.
        device: ``auto``, ``cpu`` or ``cuda:N``.
        progress: ``progress(done, total, message)``.

    Returns:
        ``{"score", "z", "views": [{"view", "role", "file", "files", "slices": [{"slice", "phase", "score", "z"}]}]}``.
        A score is 0 to 1, ``z`` is in standard deviations above normal slices of the same role (null where the model
        does not know them); the exam's are the highest of its slices.

    Raises:
        ModelError: The model cannot be used for this.
        OSError: A map cannot be written.
        StudyError: The study or the name of the output cannot be used.
    """
    check_output(out)
    network, card = load_model(model)
    detector = Detector(network, card, choose_device(device))
    views = ordered(fitting_views(exam, card))
    refuse_inputs(exam, [path for view in views for path in _paths(out, view, view is views[0])])
    work = [(view, phase) for view in views for phase in range(view.phases)]
    found: dict[str, list[Found]] = {}
    for number, (view, phase) in enumerate(work):
        found.setdefault(view.name, []).append(detector.look(exam, view, phase))
        if progress:
            progress(number + 1, len(work), f"{view.shown}, phase {phase + 1} of {view.phases}")
    described = [
        _described(detector, view, found[view.name], _paths(out, view, first=view is views[0])) for view in views
    ]
    slices = [s for view in described for s in view["slices"]]
    known = [s["z"] for s in slices if s["z"] is not None]
    return {
        "study": str(exam.path),
        "score": max(s["score"] for s in slices),
        "z": max(known) if known else None,
        "views": described,
    }


def check_output(out: Path) -> None:
    """Refuses a file that cannot hold maps, and a place where none can be written.

    Raises:
        OSError: Nothing can be written there.
        StudyError: Its name ends otherwise than in :data:`ENDINGS`.
    """
    if (volume_extension(out) or "") not in ("", *ENDINGS):
        msg = f"The output {out} must end in {' or '.join(ENDINGS)}, or be a folder."
        raise StudyError(msg)
    check_writable(out, folder=not volume_extension(out))


def _paths(out: Path, view: View, first: bool) -> list[Path]:
    """Files of a view's map: one, or one a slice where its slices form no volume."""
    ending = volume_extension(out)
    if not ending:
        name, ending = out / f"{view.name}{ANOMALIES_SUFFIX}", ".nii.gz"
    else:
        name = out.with_name(out.name[: -len(ending)] + ("" if first else f"_{view.name}"))
    if view.regular:
        return [name.with_name(name.name + ending)]
    return [name.with_name(f"{name.name}_slice{k:03d}{ending}") for k in range(len(view.planes))]


def _described(detector: Detector, view: View, phases: Sequence[Found], paths: Sequence[Path]) -> dict[str, Any]:
    """Writes a view's map and says what is in it."""
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        part = slice(None) if len(paths) == 1 else slice(number, number + 1)
        _write(path, view, [found.maps[part] for found in phases], part)
    slices = [
        {"slice": k, "phase": phase, "score": float(score), "z": detector.z_score(view.role, float(score))}
        for phase, found in enumerate(phases)
        for k, score in enumerate(found.scores)
    ]
    files = [str(path) for path in paths]
    return {"view": view.name, "role": view.role, "file": files[0], "files": files, "slices": slices}


def _write(path: Path, view: View, maps: Sequence[Maps], part: slice) -> None:
    """Writes maps ``(slices, rows, columns)``, one a phase, as one volume on the grid of some of a view's slices."""
    shown = replace(view, planes=view.planes[part], phases=len(maps), read_pixels=lambda phase: maps[phase])
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        temporary = Path(folder) / path.name
        write_image(view_image(shown), temporary)
        temporary.replace(path)


def table(document: Mapping[str, Any]) -> str:
    """The document as lines of text: each view's highest slice, slices and phases counted from 1."""
    rows = [f"{'view':<20} {'highest':>8} {'z':>6}  slice"]
    for view in document["views"]:
        top = max(view["slices"], key=lambda s: s["score"])
        z = "-" if top["z"] is None else f"{top['z']:.1f}"
        place = f"{top['slice'] + 1}, phase {top['phase'] + 1}"
        rows.append(f"{view['view'][:20]:<20} {top['score']:>8.3f} {z:>6}  {place}")
    return "\n".join([*rows, *(v["file"] for v in document["views"])])


# ---------------------------------------------------------------------------------------------
# What is normal, and how well lesions are told from it


def normal_scores(
    network: nn.Module, slices: SliceSet, indices: torch.Tensor, patch: int, settings: Distortions
) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of the scores of normal slices, by role.

    Args:
        network: Pretrained on ``distortions``.
        slices: Slices that it can see.
        indices: ``(n,)`` those that it has not learned from.
        patch: Side of its patches in pixels.
        settings: What it was pretrained with.

    Returns:
        Mean and standard deviation by role; roles with fewer than :data:`MIN_NORMAL` slices are left out.
    """
    by_role: dict[str, list[float]] = {}
    network.eval()
    # An empty tensor splits into one empty part, which a Mask R-CNN cannot look at.
    for part in indices.split(SLICES_AT_ONCE) if len(indices) else ():
        # No augmentation: the middle of each slice, as an exam is looked at; the generator draws nothing.
        images = make_batch(slices, part, patch, None, torch.Generator()).images
        with torch.no_grad(), autocast(slices.device):
            scores = slice_scores(anomaly_map(network, images, settings)).tolist()
        for index, score in zip(part.tolist(), scores, strict=True):
            by_role.setdefault(slices.infos[index].role, []).append(score)
    return {
        role: (float(np.mean(scores)), float(np.std(scores)))
        for role, scores in by_role.items()
        if len(scores) >= MIN_NORMAL
    }


def auc(normal: npt.ArrayLike, abnormal: npt.ArrayLike) -> float:
    """Area under the ROC curve: how often an abnormal value is above a normal one; ties count half."""
    first, second = np.ravel(normal), np.ravel(abnormal)
    return float(mannwhitneyu(second, first, method="asymptotic").statistic / (len(first) * len(second)))


def measure(detector: Detector, normal: Iterable[Study], abnormal: Iterable[Study]) -> dict[str, Any]:
    """How well slices and pixels with a lesion are told from those without.

    Args:
        detector: The model.
        normal: Studies without a lesion; their labels are not looked at.
        abnormal: Studies whose labels say, by any value but 0, where a lesion is.

    Returns:
        ``slice_auc``: of slices with at least :data:`MIN_LESION_MM2` of lesion inside the patch, against all slices of
        the normal studies, by z-score where the model knows what is normal. ``pixel_auc``: of lesion pixels against
        the other pixels of the same slices, inside the patch. ``slices`` and ``normal_slices``: how many there were.
    """
    below = [score for study in normal for score, _, _ in _scored(detector, study)]
    with_lesion = [
        (score, values, truth) for study in abnormal for score, values, truth in _scored(detector, study) if truth.any()
    ]
    if not below or not with_lesion:
        msg = "There are no slices to compare: give exams without a lesion, and exams whose labels show one."
        raise StudyError(msg)
    pixels = np.concatenate([values for _, values, _ in with_lesion])
    truth = np.concatenate([t for _, _, t in with_lesion])
    return {
        "slice_auc": auc(below, [score for score, _, _ in with_lesion]),
        "pixel_auc": auc(pixels[~truth], pixels[truth]),
        "slices": len(with_lesion),
        "normal_slices": len(below),
    }


def _scored(detector: Detector, study: Study) -> Iterator[tuple[float, Maps, npt.NDArray[np.bool_]]]:
    """Score, pixels and lesion of every slice of a study, inside the network's patch."""
    for view in fitting_views(study, detector.card):
        for phase in range(view.phases):
            found, labels = detector.look(study, view, phase), view.labels(phase)
            for k, score in enumerate(found.scores):
                seen = found.seen[k]
                truth = np.zeros(seen.sum(), np.bool_) if labels is None else labels[k][seen] > 0
                z = detector.z_score(view.role, float(score))
                # Scraps at the border of a lesion make no slice abnormal.
                large = truth.sum() * np.prod(view.planes[k].spacing) >= MIN_LESION_MM2
                yield float(score) if z is None else z, found.maps[k][seen], truth & large
