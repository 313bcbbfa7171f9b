"""Multi-scale deformable attention as elementary operators, for exported models: other programs lack the compiled one.

Inside ``with decomposed(sampling)``, the public function uses one of ``SAMPLINGS``:

- ``"grid_sample"``: :func:`ms_deform_attn_pytorch`, which ONNX has an operator for (GridSample, since opset 16);
- ``"gather"``: :func:`ms_deform_attn_gather`, for runtimes that lack GridSample or compute it wrongly.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from .pytorch import Shapes, ms_deform_attn_pytorch

_chosen: list[str] = []  # a list, because torch.compile cannot read a ContextVar


@contextmanager
def decomposed(sampling: str) -> Iterator[None]:
    """Inside this context, ``ms_deform_attn`` uses ``SAMPLINGS[sampling]`` and no backend."""
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling is {sampling!r}, but must be one of {', '.join(SAMPLINGS)}")
    _chosen.append(sampling)
    try:
        yield
    finally:
        _chosen.pop()


def decomposition() -> Callable[..., Tensor] | None:
    """The function for the present context; None outside ``decomposed``."""
    return SAMPLINGS[_chosen[-1]] if _chosen else None


def ms_deform_attn_gather(
    value: Tensor, shapes: Shapes, starts: Sequence[int], locations: Tensor, weights: Tensor
) -> Tensor:
    """:func:`ms_deform_attn_pytorch` with the four neighbours of each location read by their row numbers.

    Bilinear interpolation with ``align_corners=False`` and zeros outside: location (x, y) is at column ``x * w - 0.5``
    and row ``y * h - 0.5``; each neighbour inside the map counts with the product of its two distances from 1.
    """
    batch, pixels, heads, channels = value.shape
    rows = value.reshape(batch * pixels * heads, channels)  # row (n * S + s) * M + m
    image = torch.arange(batch, device=value.device).view(-1, 1, 1, 1) * pixels
    head = torch.arange(heads, device=value.device).view(1, 1, -1, 1)
    # NaN and infinity as in the other path: just outside the map.
    locations = locations.nan_to_num(nan=-1.0).clamp(-1.0, 2.0)
    output = value.new_zeros(batch, locations.shape[1], heads, channels)
    for level, ((height, width), start) in enumerate(zip(shapes, starts, strict=True)):
        x = locations[:, :, :, level, :, 0] * width - 0.5  # (N, Lq, M, P)
        y = locations[:, :, :, level, :, 1] * height - 0.5
        left, top = x.floor(), y.floor()
        for column, share_x in ((left, 1 - (x - left)), (left + 1, x - left)):
            for row, share_y in ((top, 1 - (y - top)), (top + 1, y - top)):
                inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
                place = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
                index = (image + start + place) * heads + head
                share = share_x * share_y * inside.to(value.dtype) * weights[:, :, :, level]
                found = rows.index_select(0, index.flatten()).view(*index.shape, channels)
                output = output + (found * share.unsqueeze(-1)).sum(3)
    return output.flatten(2)


SAMPLINGS: dict[str, Callable[..., Tensor]] = {
    "grid_sample": ms_deform_attn_pytorch,
    "gather": ms_deform_attn_gather,
}
