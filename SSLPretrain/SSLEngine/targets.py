"""The target tasks: what a network is fine-tuned for. They have the shape of a pretext's head, loss and score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import Protocol

import numpy as np
import torch
from monai.losses import DiceCELoss
from torch.nn import functional

from .geometry import Array
from .instances import Instances
from .instances import class_shares
from .instances import instances_of
from .models import SEGMENTATION
from .networks.attention import CLASSIFICATION
from .networks.attention import pool
from .pretext.base import Batch
from .structures import SPARE_COLOURS


class Task(Protocol):
    """What the training loop needs to know of a task, pretext or target."""

    name: str
    pixel_outputs: int
    image_outputs: int

    def distort(self, batch: Batch, generator: torch.Generator) -> None:
        """Changes the network's input."""
        ...

    def target(self, batch: Batch) -> torch.Tensor:
        """The target of a batch."""
        ...

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss."""
        ...

    def score(self, output: torch.Tensor, target: torch.Tensor, spacing_mm: float) -> dict[str, float]:
        """Figures a person can read."""
        ...


def class_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Weights ``(classes + 1,)`` in the loss: one over the root of a class's share of the pixels, their mean 1.

    A meniscus is a thousandth of a knee, and unweighted it is learned long after the bones: with two synthetic knees
    and 300 steps, the mean Dice of all structures is 0.60 with these weights and 0.21 without. A class that no pixel
    belongs to weighs nothing.

    Args:
        labels: Class indices of any shape.
        classes: Number of structures.
    """
    share = torch.bincount(labels.flatten().long(), minlength=classes + 1).float() / labels.numel()
    weights = torch.where(share > 0, share.clamp(min=1e-6).rsqrt(), 0.0)
    return weights / (weights * share).sum()


class Segmentation:
    """Pixel-wise classes; class 0 is background.

    Args:
        classes: Number of structures.
        colours: Red, green and blue from 0 to 1 of each structure in pictures.
        weights: ``(classes + 1,)`` weights of the classes in both parts of the loss; equal by default.
    """

    name = SEGMENTATION
    image_outputs = 0

    def __init__(
        self,
        classes: int,
        colours: Sequence[tuple[float, float, float]] = (),
        weights: torch.Tensor | None = None,
    ) -> None:
        self.pixel_outputs, self.region_classes = classes + 1, classes
        self._colours = colours or [SPARE_COLOURS[k % len(SPARE_COLOURS)] for k in range(classes)]
        # Dice over the whole batch: a structure that is absent from one slice does not weigh as much as one slice.
        self._loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True, weight=weights)

    def distort(self, batch: Batch, generator: torch.Generator) -> None:
        """Leaves the image as it is."""

    def target(self, batch: Batch) -> torch.Tensor:
        """Class indices ``(B, P, P)``, -1 where nothing is known."""
        return batch.labels

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Dice over the structures plus cross-entropy, on the slices that have labels."""
        known = (target >= 0).flatten(1).all(1)
        if not known.any():
            return output.sum() * 0.0
        loss: torch.Tensor = self._loss(output[known].float(), target[known][:, None])
        return loss

    def score(self, output: torch.Tensor, target: torch.Tensor, spacing_mm: float) -> dict[str, float]:
        """Dice over all pixels of the batch, mean of the structures that occur."""
        known = (target >= 0).flatten(1).all(1)
        predicted, truth = output[known].argmax(1), target[known]
        one_hot = [functional.one_hot(m, self.pixel_outputs).flatten(0, -2)[:, 1:].float() for m in (predicted, truth)]
        sizes = one_hot[0].sum(0) + one_hot[1].sum(0)
        present = one_hot[1].sum(0) > 0
        if not present.any():
            return {"dice": float("nan")}
        return {"dice": float((2 * (one_hot[0] * one_hot[1]).sum(0) / sizes.clamp(min=1))[present].mean())}

    def draw(self, axes: Any, image: Array, values: Any) -> None:
        """The image with its structures in their colours; ``values`` is a class map or logits ``(C, P, P)``."""
        classes = np.asarray(values).argmax(0) if np.ndim(values) == 3 else np.asarray(values)
        table = np.array([(0.0, 0.0, 0.0, 0.0), *((*colour, 0.55) for colour in self._colours)])
        axes.imshow(image, cmap="gray")
        axes.imshow(table[np.maximum(classes, 0)], interpolation="nearest")

    def instances(self, batch: Batch) -> list[Instances]:
        """Every connected part of every structure, by image."""
        return [instances_of(labels, self.region_classes) for labels in batch.labels]

    def of_regions(self, found: Sequence[Instances], batch: Batch) -> torch.Tensor:
        """Found regions put together: the share of each class on every pixel ``(B, C, P, P)``."""
        return class_shares(found, self.region_classes)


class Classification:
    """Classes of studies; a batch holds ``bag`` slices of one study after another.

    Args:
        counts: Studies of each class that are learned from; rare classes weigh more, so that all weigh the same.
        bag: Slices of a study.
    """

    name = CLASSIFICATION
    pixel_outputs = 0

    def __init__(self, counts: Sequence[int], bag: int) -> None:
        self.image_outputs = len(counts) + 1
        self.weights = torch.tensor([sum(counts) / (len(counts) * max(1, c)) for c in counts])
        self.bag = bag

    def distort(self, batch: Batch, generator: torch.Generator) -> None:
        """Leaves the image as it is."""

    def target(self, batch: Batch) -> torch.Tensor:
        """Class index of each study ``(S,)``."""
        return batch.values[CLASSIFICATION][:: self.bag, 0].long()

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Weighted cross-entropy, one a study."""
        # Not the reduction of torch, which divides by the weights: a step may see one class alone.
        each = functional.cross_entropy(self._scores(output), target, reduction="none")
        return (self.weights.to(each)[target] * each).mean()

    def score(self, output: torch.Tensor, target: torch.Tensor, spacing_mm: float) -> dict[str, float]:
        """Share of the studies that get their class."""
        return {"accuracy": float((self._scores(output).argmax(1) == target).float().mean())}

    def _scores(self, output: torch.Tensor) -> torch.Tensor:
        return pool(output.float().unflatten(0, (-1, self.bag)))[0]
