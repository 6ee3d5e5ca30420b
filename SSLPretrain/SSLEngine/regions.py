"""How a network of regions (the Mask R-CNN) is taught and scored, and where its anchors come from."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol
from typing import cast

import torch
from msgspec import structs
from torch import nn

from .instances import Instances
from .instances import found_again
from .networks.mask_rcnn import MaskRCNN
from .pretext.base import Batch
from .settings import PYRAMID_LEVELS
from .settings import Augmentation
from .settings import Network
from .settings import SettingsError
from .slices import SliceSet
from .slices import make_batch
from .targets import Task
from .training import Answer
from .training import autocast
from .training import step_generator

#: Slices that the sizes of regions are measured on, and how many at once.
MEASURED_SLICES, AT_ONCE = 64, 16
#: Anchors span the sizes between these quantiles, so that a few odd regions do not stretch them,
ANCHOR_QUANTILES = (0.05, 0.95)
#: and at least this ratio of largest to smallest.
MIN_SPAN = 2.0
#: Score above which regions count in a curve of precision over recall, as torchvision has it.
DOUBTFUL = 0.05


class RegionTask(Task, Protocol):
    """A task that can also be learned as regions to be found.

    Attributes:
        region_classes: Number of their classes.
    """

    region_classes: int

    def instances(self, batch: Batch) -> list[Instances]:
        """The true regions of each image, after :meth:`distort`; with ``clean`` where the image is to be restored."""
        ...

    def of_regions(self, found: Sequence[Instances], batch: Batch) -> torch.Tensor:
        """What was found as the output that a head on every pixel would give."""
        ...


def region_tasks(tasks: Sequence[Task]) -> list[RegionTask]:
    """The same tasks, if a network of regions can learn them.

    Raises:
        SettingsError: It cannot.
    """
    for task in tasks:
        if not hasattr(task, "instances"):
            msg = (
                f"The Mask R-CNN cannot learn the pretext '{task.name}', which marks no regions; "
                "use --pretext distortions, or --network unet."
            )
            raise SettingsError(msg)
    if len(tasks) != 1:
        msg = f"The Mask R-CNN learns one task at a time and was given {len(tasks)}; use --pretext distortions."
        raise SettingsError(msg)
    return [cast(RegionTask, task) for task in tasks]


class Regions:
    """The network is shown the true regions and tells its losses itself; see :class:`SSLEngine.training.Learning`."""

    def losses(
        self, network: nn.Module, batch: Batch, tasks: Sequence[Task], generator: torch.Generator
    ) -> dict[str, torch.Tensor]:
        """The sum of the network's own, weighted losses for each task."""
        sums = {}
        for task in region_tasks(tasks):
            own = _distorted(task, batch, generator)
            # torchvision draws the regions that it learns from with torch's own generator.
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            with autocast(own.images.device):
                parts = network(own.images, task.instances(own))
            sums[task.name] = torch.stack([part.float() for part in parts.values()]).sum()
        return sums

    def answers(
        self, network: nn.Module, batch: Batch, tasks: Sequence[Task], generator: torch.Generator
    ) -> dict[str, Answer]:
        """What is found, put together, and the targets."""
        answered = {}
        for task in region_tasks(tasks):
            own, found = _found(network, task, batch, generator)
            answered[task.name] = task.of_regions(found, own), task.target(own)
        return answered

    def scores(
        self, network: nn.Module, batch: Batch, tasks: Sequence[Task], generator: torch.Generator
    ) -> dict[str, dict[str, float]]:
        """Each task's own figures, and how well its regions are found and named."""
        figures = {}
        for task in region_tasks(tasks):
            own, found = _found(network, task, batch, generator)
            pixels = task.score(task.of_regions(found, own), task.target(own), own.spacing_mm)
            # A curve of precision over recall needs the doubtful regions too.
            with all_regions(network), autocast(own.images.device):
                figures[task.name] = {**pixels, **found_again(network(own.images), task.instances(own))}
        return figures


@contextlib.contextmanager
def all_regions(network: nn.Module) -> Iterator[None]:
    """Lets a network of regions also give those that it is not sure of, down to :data:`DOUBTFUL`."""
    detector = cast(MaskRCNN, network)
    before, detector.score_threshold = detector.score_threshold, DOUBTFUL
    try:
        yield
    finally:
        detector.score_threshold = before


def _distorted(task: Task, batch: Batch, generator: torch.Generator) -> Batch:
    own = replace(batch)
    task.distort(own, generator)
    return own


def _found(network: nn.Module, task: Task, batch: Batch, generator: torch.Generator) -> tuple[Batch, list[Instances]]:
    own = _distorted(task, batch, generator)
    with autocast(own.images.device):
        return own, network(own.images)


# ---------------------------------------------------------------------------------------------
# Anchors


def with_anchors(
    network: Network,
    task: Task,
    slices: SliceSet,
    indices: torch.Tensor,
    patch: int,
    augmentation: Augmentation,
    seed: int,
) -> Network:
    """A network whose anchors are known: those it has, or the sizes of the regions that it is about to be taught.

    Args:
        network: A U-Net is given back as it is.
        task: What marks the regions.
        slices: The stored slices.
        indices: ``(n,)`` those that are learned from.
        patch: Side of a patch in pixels.
        augmentation: Changes that the regions go through.
        seed: The run's; the same one gives the same anchors.

    Raises:
        SettingsError: There is no region on the slices.
    """
    if network.kind != "mask-rcnn" or network.mask_rcnn.anchors_mm:
        return network
    chosen = indices[torch.linspace(0, len(indices) - 1, min(MEASURED_SLICES, len(indices))).long()]
    [marking] = region_tasks([task])
    generator = step_generator(seed, 0, 0)
    sides = [torch.zeros(0)]
    for part in chosen.split(AT_ONCE):
        batch = _distorted(task, make_batch(slices, part, patch, augmentation, generator), generator)
        boxes = torch.cat([found["boxes"] for found in marking.instances(batch)]).cpu()
        sides.append((boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt() * slices.spacing_mm)
    if not len(torch.cat(sides)):
        msg = (
            f"On {len(chosen)} slices there is no region to learn from; "
            "label structures of more than a few pixels, or give network.mask_rcnn.anchors_mm."
        )
        raise SettingsError(msg)
    parts = structs.replace(network.mask_rcnn, anchors_mm=anchor_sides(torch.cat(sides)))
    return structs.replace(network, mask_rcnn=parts)


def anchor_sides(sides: torch.Tensor) -> tuple[float, ...]:
    """Sides of the anchors of all levels, increasing by one ratio, from the sides ``(n,)`` of regions in mm."""
    low, high = sides.double().log().quantile(torch.tensor(ANCHOR_QUANTILES, dtype=torch.float64)).tolist()
    middle, half = (low + high) / 2, max(high - low, math.log(MIN_SPAN)) / 2
    exponents = torch.linspace(middle - half, middle + half, PYRAMID_LEVELS, dtype=torch.float64)
    return tuple(round(side, 2) for side in exponents.exp().tolist())
