"""Four maps of different strides from the single stride of a plain ViT (the idea of ViTDet, Li et al., 2022)."""

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each position: (B, C, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class SimplePyramid(nn.ModuleDict):
    """One branch for each level: doubles or halves the resolution step by step, then normalises.

    Doubling halves the width, as in ViTDet. The pixel decoder projects all levels to one width anyway, so there are no
    further convolutions here. Keys: ``res2.0.weight``, ...

    Args:
        widths: channels of the input of each level.
        stride: of all inputs, a power of 2.
        strides: of the levels, by name.
    """

    def __init__(self, widths: Sequence[int], stride: int, strides: dict[str, int]) -> None:
        super().__init__()
        self.channels: dict[str, int] = {}
        for (name, wanted), width in zip(strides.items(), widths, strict=True):
            layers: list[nn.Module] = []
            steps = round(math.log2(stride / wanted))
            for _ in range(steps):
                layers += [ChannelNorm(width), nn.GELU()] if layers else []
                layers.append(nn.ConvTranspose2d(width, max(width // 2, 1), kernel_size=2, stride=2))
                width = max(width // 2, 1)
            layers += [nn.Conv2d(width, width, kernel_size=2, stride=2) for _ in range(-steps)]
            self[name] = nn.Sequential(*layers, ChannelNorm(width))
            self.channels[name] = width

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """The levels by name, from an input for each; a single input serves all."""
        inputs = [maps[0]] * len(self) if len(maps) == 1 else maps
        return {name: branch(x) for (name, branch), x in zip(self.items(), inputs, strict=True)}
