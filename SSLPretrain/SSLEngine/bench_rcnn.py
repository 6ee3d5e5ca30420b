"""Time and memory of one training step of the Mask R-CNN, beside torchvision's own as it comes.

Each runs in a process of its own, because the peak of resident memory belongs to a process, and the steps are taken in
turn, because a machine whose speed drifts then slows all of them alike.
"""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from typing import Any

import torch

from .jobs import peak_memory_bytes
from .timing import interleaved

SIDE = 256
BATCH = 2
CLASSES = 7
INSTANCES = 3


def measure(device: torch.device, repeats: int) -> dict[str, Any]:
    """Seconds and peak bytes of a step of each kind, and ratios; a reason instead where torchvision is missing.

    ``ours`` is this package's network at its default sizes, ``own_operators`` the same with torchvision's own
    ``roi_align`` (where that loads), ``torchvision`` its Mask R-CNN with a ResNet-50 and its default sizes.
    """
    from .networks.torchvision_ops import load_torchvision

    try:
        own = load_torchvision().extension._has_ops()
    except ModuleNotFoundError as error:
        return {"skipped": str(error)}
    kinds = ["ours", "torchvision", *(["own_operators"] if own else [])]
    with ExitStack() as stack:
        context = multiprocessing.get_context("spawn")
        pools = {k: stack.enter_context(ProcessPoolExecutor(1, context, _prepare, (k, str(device)))) for k in kinds}
        seconds = interleaved({k: functools.partial(_wait, pool) for k, pool in pools.items()}, repeats, device)
        peaks = {k: pool.submit(peak_memory_bytes).result() for k, pool in pools.items()}
    return {
        "batch": BATCH,
        "side": SIDE,
        "milliseconds": {k: 1000 * v for k, v in seconds.items()},
        "peak_memory_bytes": peaks,
        "ratios": {f"step_to_{k}": seconds["ours"] / seconds[k] for k in kinds[1:]},
    }


def rows(figures: dict[str, Any]) -> list[str]:
    """The figures for the terminal."""
    if "skipped" in figures:
        return [f"Mask R-CNN: {figures['skipped']}"]
    lines = [f"Mask R-CNN, one training step of {figures['batch']} images of {figures['side']} px"]
    for kind, time in figures["milliseconds"].items():
        lines.append(f"  {kind:<14}{time:>9.0f} ms {figures['peak_memory_bytes'][kind] / 1e9:>6.2f} GB at the peak")
    return lines + [f"  {name:<22}{ratio:.2f}" for name, ratio in figures["ratios"].items()]


def _wait(pool: ProcessPoolExecutor) -> None:
    pool.submit(_step).result()


_work: list[Callable[[], dict[str, torch.Tensor]]] = []
_optimiser: list[torch.optim.Optimizer] = []


def _prepare(kind: str, device_name: str) -> None:
    """Makes the network and a batch in this process."""
    from .training import choose_device

    device = choose_device(device_name)
    torch.manual_seed(0)
    network, losses = (_torchvision if kind == "torchvision" else _ours)(device, kind == "own_operators")
    _work.append(losses)
    _optimiser.append(torch.optim.AdamW(network.parameters(), 1e-4))


def _step() -> None:
    loss = torch.stack(list(_work[0]().values())).sum()
    _optimiser[0].zero_grad(set_to_none=True)
    loss.backward()
    _optimiser[0].step()


def _ours(device: torch.device, own: bool) -> tuple[torch.nn.Module, Callable[[], dict[str, torch.Tensor]]]:
    from .networks import mask_head
    from .networks.mask_rcnn import MaskRCNN
    from .settings import MaskRcnn
    from .training import autocast

    if own:
        mask_head.roi_align = torch.ops.torchvision.roi_align
    network = MaskRCNN(MaskRcnn(anchors_mm=(16, 32, 48, 64, 128)), 1.0, CLASSES, pretext=True).to(device)
    images, targets = _batch(device)

    def losses() -> dict[str, torch.Tensor]:
        with autocast(device):
            found: dict[str, torch.Tensor] = network(images, targets)
        return found

    return network, losses


def _torchvision(device: torch.device, _: bool) -> tuple[torch.nn.Module, Callable[[], dict[str, torch.Tensor]]]:
    from .networks.torchvision_ops import load_torchvision
    from .training import autocast

    load_torchvision()
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    sizes = {"num_classes": CLASSES + 1, "min_size": SIDE, "max_size": SIDE}
    network = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, **sizes).to(device)
    images, targets = _batch(device)
    coloured = list(images.expand(-1, 3, -1, -1))

    def losses() -> dict[str, torch.Tensor]:
        with autocast(device):
            found: dict[str, torch.Tensor] = network(coloured, targets)
        return found

    return network, losses


def _batch(device: torch.device) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
    """Noise with bright ellipses."""
    from .instances import boxes_of

    axis = torch.arange(SIDE) + 0.5
    images, targets = [], []
    for _ in range(BATCH):
        places = SIDE * (0.15 + 0.7 * torch.rand(INSTANCES, 2, 1, 1))
        radii = SIDE * (0.03 + 0.07 * torch.rand(INSTANCES, 2, 1, 1))
        reach = ((axis[:, None] - places[:, 0]) / radii[:, 0]) ** 2 + ((axis - places[:, 1]) / radii[:, 1]) ** 2
        masks = reach < 1
        clean = torch.randn(1, SIDE, SIDE)
        images.append(clean + 2 * masks.any(0))
        target = {
            "boxes": boxes_of(masks),
            "labels": torch.randint(1, CLASSES + 1, (INSTANCES,)),
            "masks": masks.to(torch.uint8),
            "clean": clean,
        }
        targets.append({name: value.to(device) for name, value in target.items()})
    return torch.stack(images).to(device), targets
