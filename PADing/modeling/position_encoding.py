"""Fixed two-dimensional position encodings."""

import math

import torch
from torch import Tensor, nn

from PADing.modeling.cached_table import cached_table

EPS = 1e-6


class PositionEmbeddingSine(nn.Module):
    """Sines and cosines of the row, then of the column (Vaswani et al., Sec. 3.5, in two dimensions).

    Channel ``2i`` of either half is ``sin(p / T^(2i/F))`` and channel ``2i + 1`` the cosine, for the position ``p``
    = 1, 2, ... of a row or column; with ``normalize``, ``p`` is first divided by the last position and multiplied by
    ``scale`` (default 2 pi). F, the channels of each axis, is ``num_pos_feats``; even. T is ``temperature``.
    """

    def __init__(
        self, num_pos_feats: int = 64, temperature: float = 10000, normalize: bool = False, scale: float | None = None
    ) -> None:
        super().__init__()
        if scale is not None and not normalize:
            raise ValueError("PositionEmbeddingSine: scale needs normalize=True")
        if num_pos_feats % 2:
            raise ValueError(f"PositionEmbeddingSine: num_pos_feats must be even, not {num_pos_feats}")
        self.num_pos_feats, self.temperature, self.normalize = num_pos_feats, temperature, normalize
        self.scale = 2 * math.pi if scale is None else scale

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encodings (B, 2F, h, w) for a map x (B, C, h, w); without a mask (1, 2F, h, w), the same for all images.

        ``mask`` (B, h, w) bool is True on padding, which is not counted as a position.
        """
        if mask is None:
            table = self.tokens(x.shape[-2], x.shape[-1], x)
            return table.t().unflatten(1, (x.shape[-2], x.shape[-1])).unsqueeze(0)
        inside = ~mask
        rows, columns = inside.cumsum(1, dtype=x.dtype), inside.cumsum(2, dtype=x.dtype)
        if self.normalize:
            rows = rows / (rows[:, -1:] + EPS) * self.scale
            columns = columns / (columns[:, :, -1:] + EPS) * self.scale
        halves = [_waves(p, self.num_pos_feats, self.temperature) for p in (rows, columns)]
        return torch.cat(halves, dim=-1).permute(0, 3, 1, 2)

    def tokens(self, height: int, width: int, like: Tensor) -> Tensor:
        """The encodings of a map without padding, row by row: (h * w, 2F), in ``like``'s dtype and on its device."""
        scale = self.scale if self.normalize else None
        return _table(height, width, self.num_pos_feats, self.temperature, scale, like.dtype, like.device)


def _waves(position: Tensor, features: int, temperature: float) -> Tensor:
    """(...) -> (..., F), sine and cosine interleaved."""
    exponent = torch.arange(0, features, 2, dtype=position.dtype, device=position.device) / features
    angle = position.unsqueeze(-1) / temperature**exponent
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


@cached_table
def _table(
    height: int, width: int, features: int, base: float, scale: float | None, dtype: torch.dtype, device: torch.device
) -> Tensor:
    # At least float32, because half precision cannot distinguish the columns of a large map.
    exact = torch.promote_types(dtype, torch.float32)
    rows = torch.arange(1, height + 1, dtype=exact, device=device)
    columns = torch.arange(1, width + 1, dtype=exact, device=device)
    if scale is not None:
        rows, columns = rows / (height + EPS) * scale, columns / (width + EPS) * scale
    rows, columns = (_waves(p, features, base) for p in (rows, columns))
    grid = torch.cat([rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)], dim=-1)
    return grid.flatten(0, 1).to(dtype)
