"""A pretext task of one's own: how far a slice is tilted out of the patient's axial plane, from its header alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from SSLEngine.geometry import Array
from SSLEngine.pretext import Batch
from SSLEngine.pretext import Geometry
from SSLEngine.pretext import Host


class Tilt:
    """The sine of the angle between the slice and the axial plane, one number an image."""

    name, pixel_outputs, image_outputs = "tilt", 0, 1

    def __init__(self, settings: Any) -> None: ...

    def geometry(self, host: Host) -> Geometry:
        return Geometry(values=np.array([np.hypot(*host.plane.normal[:2])]))

    def distort(self, batch: Batch, generator: torch.Generator) -> None: ...

    def target(self, batch: Batch) -> torch.Tensor:
        return batch.values[self.name]

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output.float() - target).square().mean()

    def score(self, output: torch.Tensor, target: torch.Tensor, spacing_mm: float) -> dict[str, float]:
        error = output.float().clamp(0, 1).asin() - target.clamp(0, 1).asin()
        return {"tilt_deg": float(error.abs().rad2deg().mean())}

    def draw(self, axes: Any, image: Array, values: Any) -> None:
        axes.imshow(image, cmap="gray")
        axes.set_title(f"{np.degrees(np.arcsin(np.clip(values[0], 0, 1))):.0f}°")
