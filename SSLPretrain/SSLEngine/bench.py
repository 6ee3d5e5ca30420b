"""Own speed as ratios in one run: a training step against its floor, and augmentation against a named peer.

The floor is the same step on a batch that is already in place: what lies above it is the cost of drawing, cutting and
changing slices. The peer is MONAI's dictionary transforms, sample by sample, as its tutorials use them.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import __version__
from . import bench_rcnn
from .jobs import peak_memory_bytes
from .networks.unet import TaskUNet
from .phantom import make_study
from .settings import Augmentation
from .settings import Grid
from .settings import Network
from .slices import SliceSet
from .slices import make_batch
from .slices import study_records
from .targets import Segmentation
from .timing import interleaved
from .training import autocast
from .training import choose_device
from .training import step_generator

BATCH = 8


def run_bench(device_name: str = "auto", repeats: int = 7) -> dict[str, Any]:
    """Measures; returns medians in ms, ratios, and the machine."""
    device = choose_device(device_name)
    grid = Grid()
    began = time.perf_counter()
    study = make_study("heart", 0)
    made = time.perf_counter() - began
    slices = SliceSet(list(study_records(study, [], grid, [1, 2, 3])), grid.spacing_mm, device)
    task = Segmentation(3)
    network = TaskUNet(Network().widths, {task.name: task.pixel_outputs}).to(device)
    optimiser = torch.optim.AdamW(network.parameters())
    indices = torch.arange(BATCH) % len(slices)
    count = iter(range(10**6))

    def cut() -> Any:
        return make_batch(slices, indices, grid.patch, Augmentation(), step_generator(0, next(count), 0))

    ready = cut()

    def learn(batch: Any) -> None:
        with autocast(device):
            output = network(batch.images)[task.name]
        loss = task.loss(output, task.target(batch))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    # In turn, not one after the other: a machine whose speed drifts then slows all of them alike.
    times = interleaved(
        {
            "step": lambda: learn(cut()),
            "floor": lambda: learn(ready),
            "augmentation": cut,
            "monai": _monai(slices, grid),
        },
        repeats,
        device,
    )
    headers = _header_times(repeats)
    return {
        "version": __version__,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "bfloat16": autocast(device)._enabled,
        },
        "batch": BATCH,
        "patch": grid.patch,
        "milliseconds": {name: 1000 * seconds for name, seconds in times.items()},
        "ratios": {
            "step_to_floor": times["step"] / times["floor"],
            "augmentation_to_monai": times["augmentation"] / times["monai"],
            "dicom_index_to_pydicom": headers["index"] / headers["pydicom"],
        },
        "slices_per_second": BATCH / times["step"],
        "synthetic_study_seconds": made,
        "peak_memory_bytes": peak_memory_bytes(),
        "mask_rcnn": bench_rcnn.measure(device, max(1, repeats // 2)),
    }


def _header_times(repeats: int) -> dict[str, float]:
    """Indexing DICOM files (what reading an exam starts with) and pydicom reading the same headers."""
    import pydicom

    from .phantom import write_study
    from .studies.dicom import find_dicom

    with tempfile.TemporaryDirectory() as folder:
        exam = write_study(make_study("heart", 0, phases=4), Path(folder) / "exam", "dicom")
        paths = sorted(exam.rglob("*.dcm")) * 10
        return interleaved(
            {
                "index": lambda: find_dicom(paths),
                "pydicom": lambda: [pydicom.dcmread(path, stop_before_pixels=True) for path in paths],
            },
            repeats,
            torch.device("cpu"),
        )


def _monai(slices: SliceSet, grid: Grid) -> Callable[[], Any]:
    """The peer: affine, gamma, noise and blur on the same slices with MONAI's dictionary transforms."""
    from monai.transforms import Compose
    from monai.transforms import RandAdjustContrastd
    from monai.transforms import RandAffined
    from monai.transforms import RandGaussianNoised
    from monai.transforms import RandGaussianSmoothd

    keys, image = ["image", "label"], ["image"]
    size = (grid.patch, grid.patch)
    transform = Compose(
        [
            RandAffined(
                keys,
                prob=1,
                rotate_range=0.35,
                scale_range=0.2,
                shear_range=0.08,
                translate_range=14,
                spatial_size=size,
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            RandAdjustContrastd(image, prob=1),
            RandGaussianNoised(image, prob=0.5, std=0.15),
            RandGaussianSmoothd(image, prob=0.5),
        ]
    )
    pictures = slices.images[:BATCH].float().cpu().numpy()[:, None]
    labels = np.zeros_like(pictures)
    return lambda: [transform({"image": i, "label": m}) for i, m in zip(pictures, labels, strict=True)]


def table(document: dict[str, Any]) -> str:
    """The figures for the terminal."""
    machine, ratios = document["machine"], document["ratios"]
    rows = [f"{machine['processor']}, {machine['device']}, {machine['threads']} threads, torch {machine['torch']}"]
    rows += [f"{name:<14}{value:>9.1f} ms" for name, value in document["milliseconds"].items()]
    rows.append(f"step / floor            {ratios['step_to_floor']:.2f}")
    rows.append(f"augmentation / MONAI's  {ratios['augmentation_to_monai']:.2f}")
    rows.append(f"DICOM index / pydicom   {ratios['dicom_index_to_pydicom']:.2f}")
    rows.append(
        f"{document['slices_per_second']:.1f} slices a second, {document['synthetic_study_seconds']:.1f} s a study"
    )
    return "\n".join(rows + bench_rcnn.rows(document["mask_rcnn"]))
