"""A study in, its class out, with how likely each class is and which slices decided; and scores over many studies."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.metrics import compute_roc_auc
from torch import nn

from .models import Card
from .networks.attention import CLASSIFICATION
from .networks.attention import pool
from .settings import Grid
from .settings import parse
from .slices import HOST_ROLES
from .slices import Record
from .slices import SliceInfo
from .slices import SliceSet
from .slices import make_batch
from .slices import study_records
from .studies import Study
from .studies import StudyError
from .studies.reading import Progress
from .training import autocast
from .training import step_generator

#: Slices that go through the network together.
SLICES_AT_ONCE = 32


@dataclass(frozen=True)
class Verdict:
    """What a model says of a study.

    Attributes:
        study: The study.
        probabilities: By class name; they sum to 1. The model was trained as if all classes were equally frequent.
        slices: The slices that were looked at.
        weights: Their share in the decision, in the same order; they sum to 1.
    """

    study: Study
    probabilities: dict[str, float]
    slices: list[SliceInfo]
    weights: list[float]

    @property
    def group(self) -> str:
        """The most likely class."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])

    def document(self) -> dict[str, Any]:
        """The verdict as plain values; ``known`` is the class that the data give, null where they give none."""
        attention = [
            {"view": i.view, "slice": i.index, "phase": i.phase, "weight": w}
            for i, w in zip(self.slices, self.weights, strict=True)
        ]
        return {
            "study": self.study.name,
            "group": self.group,
            "known": self.study.group,
            "probabilities": self.probabilities,
            "attention": attention,
        }


class Classifier:
    """A classification model on a device.

    Args:
        network: The network.
        card: Its card.
        device: Where to compute.

    Raises:
        StudyError: The model was not trained to classify.
    """

    def __init__(self, network: nn.Module, card: Card, device: torch.device) -> None:
        if card.kind == "segmentation":
            msg = "This model segments and does not tell the class of a study; use 'sslengine segment' with it."
            raise StudyError(msg)
        if card.kind != "classification":
            msg = "This model was only pretrained; fine-tune it with --target classification on studies with a group."
            raise StudyError(msg)
        self.network, self.card, self.device = network.to(device).eval(), card, device
        self.grid = parse(card.grid, Grid)

    def classify(self, study: Study) -> Verdict:
        """The class of a study, from all slices of the views that the model was trained for.

        Raises:
            StudyError: It has no such view.
        """
        records = [r for r in study_records(study, [], self.grid, []) if r.info.role in self.card.roles]
        if not records:
            wanted = ", ".join(self.card.roles)
            msg = f"{study.name} has no view that this model was trained on ({wanted}); see 'inspect' for its views."
            raise StudyError(msg)
        scores, weights = pool(self._slices(records)[None])
        if not bool(scores.isfinite().all()):
            msg = f"The model finds no finite probabilities for {study.name}; its weights are damaged, get it again."
            raise StudyError(msg)
        shares = scores[0].softmax(0).tolist()
        probabilities = dict(zip(self.card.groups, shares, strict=True))
        return Verdict(study, probabilities, [r.info for r in records], weights[0].tolist())

    @torch.no_grad()
    def _slices(self, records: Sequence[Record]) -> torch.Tensor:
        """Class scores and attention score of each slice, ``(n, classes + 1)``, seen as in training."""
        slices = SliceSet(records, self.grid.spacing_mm, self.device)
        found = []
        for part in torch.arange(len(records)).split(SLICES_AT_ONCE):
            batch = make_batch(slices, part, self.grid.patch, None, step_generator(0, 0, 0))
            with autocast(self.device):
                found.append(self.network(batch.images)[CLASSIFICATION].float())
        return torch.cat(found)


def verdicts_of(
    classifier: Classifier, studies: Sequence[Study], progress: Progress | None = None
) -> tuple[list[Verdict], list[dict[str, str]]]:
    """Verdicts of many studies, and ``{"study", "why"}`` of those that cannot be used: they do not stop the others.

    ``progress`` is called with studies done, studies in all, and the next one's name.
    """
    verdicts, left_out = [], []
    for number, study in enumerate(studies):
        if progress:
            progress(number, len(studies), study.name)
        try:
            verdicts.append(classifier.classify(study))
        except StudyError as error:
            left_out.append({"study": study.name, "why": str(error)})
    return verdicts, left_out


def usable(study: Study) -> bool:
    """Whether a study has slices to look at and a known class."""
    return study.group is not None and any(v.role in HOST_ROLES for v in study.views)


# ---------------------------------------------------------------------------------------------
# Scores


def area_under_curve(shares: npt.ArrayLike, truth: Sequence[int]) -> float:
    """Area under the receiver's curve, one class against the rest, mean over the classes; ties count half.

    Args:
        shares: ``(n, classes)`` how likely each class is.
        truth: Class index of each study, -1 where its class is none of them.

    Returns:
        NaN where no class has studies in it and out of it.
    """
    likely = np.asarray(shares, np.float64)
    areas: list[float] = []
    for k in range(likely.shape[1]):
        own = torch.tensor([int(t == k) for t in truth])
        if 0 < int(own.sum()) < len(own):
            area: Any = compute_roc_auc(torch.from_numpy(likely[:, k].copy()), own)
            areas.append(float(area))
    return float(np.mean(areas)) if areas else float("nan")


def balanced_accuracy(found: Sequence[int], truth: Sequence[int]) -> float:
    """Share of the studies of a class that get it, mean over the classes that occur."""
    pairs = list(zip(found, truth, strict=True))
    recalls = [np.mean([f == t for f, t in pairs if t == k]) for k in sorted(set(truth))]
    return float(np.mean(recalls)) if recalls else float("nan")


def verdict_scores(verdicts: Sequence[Verdict], groups: Sequence[str]) -> dict[str, Any] | None:
    """AUC and balanced accuracy over the studies whose class is known; None where there are none.

    ``auc`` is null where only one class occurs. ``cases`` holds each study's class, the one it got, and probabilities.
    """
    known = [v for v in verdicts if v.study.group is not None]
    if not known:
        return None
    places = {name: k for k, name in enumerate(groups)}
    truth = [places.get(str(v.study.group), -1) for v in known]
    area = area_under_curve([[v.probabilities[name] for name in groups] for v in known], truth)
    return {
        "auc": area if np.isfinite(area) else None,
        "balanced_accuracy": balanced_accuracy([places[v.group] for v in known], truth),
        "studies": len(known),
        "cases": [_case(v) for v in known],
    }


def _case(verdict: Verdict) -> dict[str, Any]:
    document = verdict.document()
    return {key: document[key] for key in ("study", "known", "group", "probabilities")}


# ---------------------------------------------------------------------------------------------
# For the command line


def classify_cohort(
    classifier: Classifier, studies: Sequence[Study], progress: Progress | None = None
) -> dict[str, Any]:
    """``{"studies": [...], "left_out": [{"study", "why"}], "scores": ...}``.

    The scores are null where no study's class is known. ``progress`` is that of :func:`verdicts_of`.
    """
    verdicts, left_out = verdicts_of(classifier, studies, progress)
    scores = verdict_scores(verdicts, classifier.card.groups)
    return {"studies": [v.document() for v in verdicts], "left_out": left_out, "scores": scores}


def table(documents: Sequence[Mapping[str, Any]], scores: Mapping[str, Any] | None = None) -> str:
    """Verdicts as lines for the terminal: class, probability, and the slice that counted most."""
    rows = []
    for document in documents:
        main = max(document["attention"], key=lambda entry: float(entry["weight"]))
        place = f"{main['view']} slice {main['slice'] + 1}"
        likely = ", ".join(f"{name} {share:.2f}" for name, share in document["probabilities"].items())
        rows.append(f"{document['study']}: {document['group']} ({likely}); most weight on {place}")
    if scores is not None:
        area = "-" if scores["auc"] is None else f"{scores['auc']:.3f}"
        rows.append(f"AUC {area}, balanced accuracy {scores['balanced_accuracy']:.3f}, {scores['studies']} studies")
    return "\n".join(rows)


def read_classifier(model: Path, device: torch.device) -> Classifier:
    """A classification model from its file.

    Raises:
        ModelError: The file cannot be used.
        StudyError: The model was not trained to classify.
    """
    from .models import load_model

    return Classifier(*load_model(model), device)
