"""What a network says of an exam's class: how likely each class is, and how much each slice counted, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import undo
from .exams import SceneExam
from .exams import SceneView
from .tables import add_text_table


@dataclass(frozen=True)
class WeighedSlice:
    """A slice and its share in the decision.

    Attributes:
        item: The exam's view.
        slice: Which of its slices, from 0.
        phase: Which phase of a cine, from 0.
        weight: The share; those of all slices sum to 1.
    """

    item: SceneView
    slice: int
    phase: int
    weight: float


@dataclass(frozen=True)
class ExamClass:
    """What was said of an exam, and the nodes that show it.

    Attributes:
        group: The most likely class.
        probabilities: By class, the most likely first; they sum to 1.
        slices: What was looked at, the weightiest first.
        table: Table node of the classes: class, probability.
        weights: Table node of the slices: view, slice and phase (both from 1), weight.
    """

    group: str
    probabilities: dict[str, float]
    slices: list[WeighedSlice]
    table: Any
    weights: Any


def show_class(scene: Any, exam: SceneExam, chosen: Sequence[SceneView], document: Mapping[str, Any]) -> ExamClass:
    """Adds the tables of what the engine's ``classify`` has said.

    Args:
        scene: The MRML scene.
        exam: The exam, owner of what is added.
        chosen: Its views in the order in which they were written for the job.
        document: As ``classify --json`` gives it; its views are named by their number (``00_sax``).
    """
    likely = dict(sorted(document["probabilities"].items(), key=lambda entry: -entry[1]))
    slices = [
        WeighedSlice(chosen[int(e["view"].split("_", 1)[0])], e["slice"], e["phase"], e["weight"])
        for e in document["attention"]
    ]
    slices.sort(key=lambda entry: -entry.weight)
    with undo.owned(scene, exam.token):
        rows = [(name, f"{p:.3f}") for name, p in likely.items()]
        table = add_text_table(scene, "Classes", ("Class", "Probability"), rows, exam.item)
        weighed = [(s.item.view.name, str(s.slice + 1), str(s.phase + 1), f"{s.weight:.3f}") for s in slices]
        titles = ("View", "Slice", "Phase", "Weight")
        weights = add_text_table(scene, "Weight of slices", titles, weighed, exam.item)
    return ExamClass(document["group"], likely, slices, table, weights)
