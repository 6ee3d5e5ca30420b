"""The class of a study from its slices, by attention (Ilse, Tomczak and Welling, ICML 2018) or by their mean.

The classifier behind the attention is linear, as in the paper. Then the class scores of the pooled features are the
pooled class scores of the slices: a slice gives its own scores and a weight, and pooling needs nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

CLASSIFICATION = "classification"
#: Length of a slice's embedding and of the attention's hidden layer [ours].
HIDDEN = 128


class FeatureNetwork(nn.Module):
    """A network that describes a whole image by some numbers, which is all that classifying needs of it.

    Attributes:
        factor: Sides of images must be multiples of it.
        feature_channels: Length of a slice's features.
    """

    factor: int
    feature_channels: int

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(B, 1, H, W)`` to features ``(B, feature_channels)``."""
        # Each network has its own; there is none that would serve them all.
        raise NotImplementedError


class GatedAttention(nn.Module):
    """Features of slices ``(B, F)`` to class scores and an attention score, ``(B, classes + 1)``.

    The attention score is ``w (tanh(V h) * sigmoid(U h))`` (equation 9 of the paper), or 0 for the plain mean.
    Features are first brought to mean 0 and deviation 1, as those of a frozen network differ far more between channels
    than between slices.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, features: int, classes: int, pooling: str) -> None:
        super().__init__()
        self.pooling = pooling
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.embed = nn.Sequential(nn.Linear(features, HIDDEN), nn.GELU())
        self.classes = nn.Linear(HIDDEN, classes)
        if pooling == "attention":
            self.content, self.gate = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
            self.weigh = nn.Linear(HIDDEN, 1)

    def adapt(self, features: torch.Tensor) -> None:
        """Takes mean and deviation from the features of some slices ``(n, F)``; they stay as they are from then on."""
        self.mean.copy_(features.mean(0))
        # A channel that is the same everywhere is not blown up.
        self.deviation.copy_(features.std(0).clamp(min=1e-3))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features to class scores, then the attention score in the last column."""
        embedded = self.embed((features - self.mean) / self.deviation)
        scores = self.classes(embedded)
        if self.pooling == "mean":
            return torch.cat([scores, torch.zeros_like(scores[:, :1])], dim=1)
        attention = self.weigh(self.content(embedded).tanh() * self.gate(embedded).sigmoid())
        return torch.cat([scores, attention], dim=1)


class StudyClassifier(nn.Module):
    """Any network with features, and a head that lets every slice have its say in the class of its study.

    Args:
        body: The network.
        classes: Number of classes.
        pooling: ``attention`` or ``mean``.
    """

    def __init__(self, body: FeatureNetwork, classes: int, pooling: str) -> None:
        super().__init__()
        self.body = body
        self.head = GatedAttention(body.feature_channels, classes, pooling)

    @property
    def factor(self) -> int:
        """Sides of images must be multiples of it."""
        return self.body.factor

    def forward(self, images: torch.Tensor, tasks: Sequence[str] = ()) -> dict[str, torch.Tensor]:
        """Slices ``(B, 1, H, W)`` to what :func:`pool` takes, ``{"classification": (B, classes + 1)}``."""
        return {CLASSIFICATION: self.head(self.body.features(images))}


def pool(slices: torch.Tensor, present: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Class scores of studies from those of their slices.

    Args:
        slices: ``(S, n, classes + 1)``, the attention score last.
        present: ``(S, n)`` bool, False where a study has fewer than n slices; None where all have n.

    Returns:
        Class scores ``(S, classes)`` and the slices' weights ``(S, n)``, which sum to 1.
    """
    attention = slices[..., -1]
    if present is not None:
        attention = attention.masked_fill(~present, -torch.inf)
    weights = attention.softmax(dim=1)
    values = slices[..., :-1] if present is None else slices[..., :-1].masked_fill(~present[..., None], 0.0)
    return (weights[..., None] * values).sum(1), weights
