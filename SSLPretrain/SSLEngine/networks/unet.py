"""A two-dimensional U-Net of MONAI's DynUNet blocks with a head for each task."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

import torch
from torch import nn

from .attention import FeatureNetwork

#: Levels that describe an image. Of a network pretrained on crossings, a linear probe of the coarsest alone told
#: hypertrophy in synthetic hearts with an AUC of 0.83, one of the third coarsest with 1.00.
FEATURE_LEVELS = 3


class UNet(nn.Module):
    """Encoder and decoder.

    The blocks are DynUNet's; encoder and decoder are named apart so that a transfer can name them, and every level is
    within reach. Input sides must be multiples of :attr:`factor`.

    Args:
        widths: Channels of each level, finest first.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        # Here, since it imports torchvision, which has to be prepared first where a Mask R-CNN is made.
        from monai.networks.nets import DynUNet

        super().__init__()
        levels = len(widths)
        body = DynUNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=1,
            kernel_size=[3] * levels,
            strides=[1] + [2] * (levels - 1),
            upsample_kernel_size=[2] * (levels - 1),
            filters=list(widths),
            norm_name=("instance", {"affine": True}),
        )
        self.encoder = nn.ModuleList([body.input_block, *body.downsamples, body.bottleneck])
        self.decoder = body.upsamples
        self.factor = 2 ** (levels - 1)

    def encode(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Images ``(B, 1, H, W)`` to the encoder's levels of stride 1, 2, 4, ..."""
        levels = [images]
        for block in self.encoder:
            levels.append(block(levels[-1]))
        return levels[1:]

    def decode(self, skips: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The encoder's levels to the decoder's, finest first; the coarsest, which they share, comes last."""
        levels = [skips[-1]]
        for block, skip in zip(self.decoder, reversed(skips[:-1]), strict=True):
            levels.append(block(levels[-1], skip))
        return levels[::-1]


class TaskUNet(UNet, FeatureNetwork):
    """A U-Net with heads by name, on every pixel or, from the bottleneck, for the whole image.

    Args:
        widths: Channels of each level, finest first.
        pixel_heads: Task name to channels on every pixel.
        image_heads: Task name to outputs for the whole image.
    """

    def __init__(
        self, widths: Sequence[int], pixel_heads: Mapping[str, int], image_heads: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(widths)
        self.feature_channels = 2 * sum(widths[-FEATURE_LEVELS:])
        self.pixel_heads = nn.ModuleDict({n: nn.Conv2d(widths[0], c, 1) for n, c in pixel_heads.items()})
        self.image_heads = nn.ModuleDict(
            {
                # Normalised, and without units that can die: beside a pixel task, a plain ReLU head went dead for good.
                n: nn.Sequential(nn.LayerNorm(widths[-1]), nn.Linear(widths[-1], 128), nn.GELU(), nn.Linear(128, c))
                for n, c in (image_heads or {}).items()
            }
        )

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Largest value and mean of every channel of the coarsest levels, ``(B, feature_channels)`` float32."""
        levels = self.encode(images)[-FEATURE_LEVELS:]
        return torch.cat([pooled for x in levels for pooled in (x.amax((-2, -1)), x.mean((-2, -1)))], dim=1).float()

    def forward(self, images: torch.Tensor, tasks: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
        """Images ``(B, 1, H, W)`` to outputs by task: ``(B, C, H, W)`` or ``(B, C)``.

        Args:
            images: The batch; H and W are multiples of :attr:`factor`.
            tasks: Names of the heads to run; all by default.
        """
        wanted = [*self.pixel_heads, *self.image_heads] if tasks is None else list(tasks)
        skips = self.encode(images)
        outputs = {}
        for name in wanted:
            if name in self.image_heads:
                outputs[name] = self.image_heads[name](skips[-1].amax((-2, -1)))
        if any(name in self.pixel_heads for name in wanted):
            x = self.decode(skips)[0]
            for name in wanted:
                if name in self.pixel_heads:
                    outputs[name] = self.pixel_heads[name](x)
        return outputs
