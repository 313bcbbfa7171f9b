"""The attention module of the pixel decoder's encoder."""

import math

import torch
from torch import Tensor, nn

from PADing.modeling.cached_table import cached_table
from PADing.modeling.linear import Linear

from .functional import Shapes, Starts, fused_kernel_fits, ms_deform_attn, ms_deform_attn_fused


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention with its projections (Deformable DETR, Sec. 4.1).

    State-dict keys: ``sampling_offsets``, ``attention_weights``, ``value_proj``, ``output_proj``, each weight and bias.

    Args:
        d_model: width C, a multiple of ``n_heads`` (else ValueError).
        n_levels: number L of maps.
        n_heads: number M of heads.
        n_points: number P of points per head and map.
    """

    def __init__(self, d_model: int = 256, n_levels: int = 4, n_heads: int = 8, n_points: int = 4) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ValueError(f"MSDeformAttn: d_model ({d_model}) must be a multiple of n_heads ({n_heads})")
        self.d_model, self.n_levels, self.n_heads, self.n_points = d_model, n_levels, n_heads, n_points
        self.sampling_offsets = Linear(d_model, n_heads * n_levels * n_points * 2)
        self.attention_weights = Linear(d_model, n_heads * n_levels * n_points)
        self.value_proj = Linear(d_model, d_model)
        self.output_proj = Linear(d_model, d_model)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Each head starts with its own direction, with point p at distance p + 1 pixels and equal weights."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angle = torch.arange(self.n_heads, dtype=torch.float32) * (2.0 * math.pi / self.n_heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction /= direction.abs().amax(dim=-1, keepdim=True)  # onto the square ring of radius one
        distance = torch.arange(1, self.n_points + 1, dtype=torch.float32)
        ring = direction[:, None, None, :] * distance[:, None]  # (M, 1, P, 2)
        self.sampling_offsets.bias.copy_(ring.expand(-1, self.n_levels, -1, -1).reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for projection in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(
        self,
        query: Tensor,
        reference_points: Tensor,
        input_flatten: Tensor,
        input_spatial_shapes: Shapes,
        input_level_start_index: Starts = None,
        input_padding_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend from ``query`` (N, Lq, C) to the maps around their reference points: (N, Lq, C).

        Args:
            reference_points: (N, Lq, L, 2) points (x, y) in [0, 1], or (N, Lq, L, 4) boxes (cx, cy, w, h).
            input_flatten: (N, S, C), the maps one after another, each row by row.
            input_spatial_shapes, input_level_start_index: see :func:`ms_deform_attn`.
            input_padding_mask: (N, S) bool, True for padding, which is read as zero; None: no padding.
        """
        batch, queries, _ = query.shape
        value = self.value_proj(input_flatten)
        if input_padding_mask is not None:
            value = value.masked_fill(input_padding_mask.unsqueeze(-1), 0.0)
        value = value.view(batch, input_flatten.shape[1], self.n_heads, self.d_model // self.n_heads)
        samples = (batch, queries, self.n_heads, self.n_levels, self.n_points)
        offsets = self.sampling_offsets(query).view(*samples, 2)
        scores = self.attention_weights(query).view(samples)
        if fused_kernel_fits(value, offsets, scores, reference_points):
            levels = input_spatial_shapes, input_level_start_index
            return self.output_proj(ms_deform_attn_fused(value, *levels, offsets, scores, reference_points))
        # Keep offsets in rows of L * P * 2 numbers: broadcasting pairs takes ten times as long on a CPU.
        offsets, scores = offsets.flatten(3), scores.view(-1, self.n_levels * self.n_points)
        # On a CPU, a softmax over columns takes a quarter of the time, because short rows do not fill its registers.
        weights = scores.t().softmax(0).t() if scores.device.type == "cpu" else scores.softmax(1)
        points = reference_points[:, :, :, None].expand(-1, -1, self.n_levels, self.n_points, -1)
        if reference_points.shape[-1] == 2:
            size = _size_xy(input_spatial_shapes, reference_points)[:, None].expand(-1, self.n_points, -1)
            locations = points.flatten(2).unsqueeze(2) + offsets / size.flatten()
        elif reference_points.shape[-1] == 4:
            scale = points[..., 2:].flatten(2).unsqueeze(2) * (0.5 / self.n_points)
            locations = points[..., :2].flatten(2).unsqueeze(2) + offsets * scale
        else:
            raise ValueError(f"MSDeformAttn: reference points have 2 or 4 numbers, not {reference_points.shape[-1]}")
        locations = locations.view(*samples, 2)
        output = ms_deform_attn(value, input_spatial_shapes, input_level_start_index, locations, weights.view(samples))
        return self.output_proj(output)


def _size_xy(spatial_shapes: Shapes, like: Tensor) -> Tensor:
    """(L, 2) width and height of each level, in the dtype and on the device of ``like``.

    At least 1, because offsets divided by the size 0 of an empty level would have NaN gradients.
    """
    if isinstance(spatial_shapes, Tensor):
        return spatial_shapes.flip(-1).to(like).clamp(min=1)
    sizes = tuple((max(w, 1), max(h, 1)) for h, w in spatial_shapes)
    if type(like) is not Tensor:  # do not cache tensors that are being traced
        return torch.tensor(sizes, dtype=like.dtype, device=like.device)
    return _table(sizes, like.dtype, like.device)


@cached_table
def _table(rows: tuple[tuple[int, int], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(rows, dtype=dtype, device=device)
