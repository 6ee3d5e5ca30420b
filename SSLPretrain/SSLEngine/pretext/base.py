"""What a pretext task is: a target drawn from geometry, a head, a loss, a score, a picture."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import TYPE_CHECKING
from typing import Any
from typing import Protocol

import numpy as np

from ..geometry import Array
from ..geometry import Plane

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes

    from ..distorting import Distorted


@dataclass(frozen=True)
class Host:
    """The slice that a target is drawn on, with the planes of its study that may cross it.

    Attributes:
        plane: The slice on the network's grid.
        role: Role of its view.
        guests: The study's other planes by role, each as it was acquired. A stack stands for itself by its
            middle slice. The host's own role is absent.
        stack: All planes of the host's view, in order, as acquired.
        index: The host's place in ``stack``.
        axis: Unit vector base to apex (heart), LPS; None where no two long-axis planes tell it.
        guest_stacks: All planes of each guest's view, in order.
        side: ``left`` or ``right`` for a knee, None where unknown.
    """

    plane: Plane
    role: str
    guests: Mapping[str, Plane]
    stack: Sequence[Plane]
    index: int
    axis: Array | None
    guest_stacks: Mapping[str, Sequence[Plane]] = field(default_factory=dict)
    side: str | None = None


@dataclass(frozen=True)
class Geometry:
    """What a pretext wants carried with a slice through every augmentation; NaN where there is none.

    Attributes:
        lines: ``(k, 3)`` lines on the host's grid, as :class:`SSLEngine.geometry.Line` has them.
        points: ``(k, 2)`` pixel positions on the host's grid.
        values: ``(k,)`` numbers that no augmentation changes.
    """

    lines: Array = field(default_factory=lambda: np.zeros((0, 3)))
    points: Array = field(default_factory=lambda: np.zeros((0, 2)))
    values: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def present(self) -> bool:
        """Whether any number is there to learn from."""
        return any(np.isfinite(a).any() for a in (self.lines, self.points, self.values))


@dataclass
class Batch:
    """A batch on the training device, after augmentation.

    Attributes:
        images: ``(B, 1, P, P)`` float32.
        labels: ``(B, P, P)`` int64 class indices, -1 where nothing is known.
        lines: By pretext name, ``(B, k, 3)``: signed mm as functions of the patch's pixels.
        points: By pretext name, ``(B, k, 2)`` patch pixels.
        values: By pretext name, ``(B, k)``.
        spacing_mm: In-plane spacing of the patch.
        clean: The images before a pretext distorted them; the same tensor where none did.
        acquired: ``(B, P, P)`` bool, where the scanner measured; elsewhere an image's border is repeated.
        distorted: What a pretext did to regions of the images; None where none did.
    """

    images: torch.Tensor
    labels: torch.Tensor
    lines: dict[str, torch.Tensor]
    points: dict[str, torch.Tensor]
    values: dict[str, torch.Tensor]
    spacing_mm: float
    clean: torch.Tensor
    acquired: torch.Tensor
    distorted: Distorted | None = None


class Pretext(Protocol):
    """One pretext task. Adding one is one file with a class like this and one line in ``TASKS``.

    Attributes:
        name: What ``--pretext`` calls it.
        pixel_outputs: Channels of its head on every pixel, 0 for none.
        image_outputs: Outputs of its head on the whole image, 0 for none.
    """

    name: str
    pixel_outputs: int
    image_outputs: int

    def geometry(self, host: Host) -> Geometry:
        """What to carry along with one slice."""
        ...

    def distort(self, batch: Batch, generator: torch.Generator) -> None:
        """Changes ``batch.images`` in place of the network's input, for tasks that undo something."""
        ...

    def target(self, batch: Batch) -> torch.Tensor:
        """The target of a batch; what is not known is marked as the loss expects it."""
        ...

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Scalar loss of the head's output; zero with a gradient where no target is known."""
        ...

    def score(self, output: torch.Tensor, target: torch.Tensor, spacing_mm: float) -> dict[str, float]:
        """Figures a person can read, from a batch of held-out slices; NaN where nothing is known."""
        ...

    def draw(self, axes: Axes, image: Array, values: Any) -> None:
        """Draws a target or an output (one sample, numpy) over its image."""
        ...
