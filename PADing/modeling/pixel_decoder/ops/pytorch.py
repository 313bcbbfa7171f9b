"""Multi-scale deformable attention in plain PyTorch: no compiler, any device, autograd."""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Shapes = Sequence[tuple[int, int]]


def ms_deform_attn_pytorch(
    value: Tensor, shapes: Shapes, starts: Sequence[int], locations: Tensor, weights: Tensor
) -> Tensor:
    """:func:`..functional.ms_deform_attn` with ``grid_sample``, one call per level.

    The arguments are the same; ``shapes`` and ``starts`` are Python ints. Memory holds the samples of one level at a
    time.
    """
    batch, _, heads, channels = value.shape
    of_level = weights.permute(3, 0, 2, 1, 4).flatten(1, 2).unsqueeze(2)  # (L, N*M, 1, Lq, P)
    output: Tensor | None = None
    for level, image, grid in _images_and_grids(value, shapes, starts, locations):
        samples = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        part = (samples * of_level[level]).sum(-1)  # (N*M, D, Lq)
        output = part if output is None else output + part
    if output is None:
        # Zeros that autograd connects with every input: sums over no elements are 0 even for NaN inputs.
        inputs = (value, locations, weights)
        nothing = sum((tensor.flatten()[:0].sum().to(value.dtype) for tensor in inputs), start=value.new_zeros(()))
        return nothing.expand(batch, locations.shape[1], heads * channels).contiguous()
    return output.unflatten(0, (batch, heads)).permute(0, 3, 1, 2).flatten(2).to(value.dtype).contiguous()


def ms_deform_attn_pytorch_backward(
    grad_output: Tensor, value: Tensor, shapes: Shapes, starts: Sequence[int], locations: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of value, locations and weights, for use inside an operator, where autograd cannot record."""
    grad_value = torch.zeros_like(value, dtype=torch.promote_types(value.dtype, locations.dtype))
    grad_locations, grad_weights = torch.zeros_like(locations), torch.zeros_like(weights)
    batch, _, heads, channels = value.shape
    of_level = weights.permute(3, 0, 2, 1, 4).flatten(1, 2).unsqueeze(2)
    grad = grad_output.unflatten(2, (heads, channels)).permute(0, 2, 3, 1).flatten(0, 1)
    grad = grad.unsqueeze(-1)  # (N*M, D, Lq, 1)
    inside = (locations >= -1) & (locations <= 2)
    for level, image, grid in _images_and_grids(value, shapes, starts, locations):
        (height, width), start = shapes[level], starts[level]
        grad = grad.to(image.dtype)
        samples = F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        of_weight = (samples * grad).sum(1).unflatten(0, (batch, heads))  # (N, M, Lq, P)
        grad_weights[:, :, :, level] = of_weight.transpose(1, 2)
        of_image, of_grid = torch.ops.aten.grid_sampler_2d_backward(
            grad * of_level[level], image, grid, 0, 0, False, [True, True]
        )
        of_image = of_image.unflatten(0, (batch, heads)).flatten(3).permute(0, 3, 1, 2)
        grad_value[:, start : start + height * width] += of_image
        grad_locations[:, :, :, level] = 2 * of_grid.unflatten(0, (batch, heads)).transpose(1, 2)
    return grad_value.to(value.dtype), grad_locations.where(inside, 0), grad_weights


def _images_and_grids(
    value: Tensor, shapes: Shapes, starts: Sequence[int], locations: Tensor
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield level, image (N*M, D, h, w) and ``grid_sample``'s grid (N*M, Lq, P, 2) in [-1, 1] for each level to read.

    Levels without pixels are left out; so are all levels if value or locations are empty.
    """
    if value.numel() == 0 or locations.numel() == 0:
        return
    batch, _, heads, channels = value.shape
    # Locations keep their precision even with half-precision values.
    dtype = torch.promote_types(value.dtype, locations.dtype)
    # NaN locations and locations far outside contribute nothing. Move them to just outside the map: that keeps
    # infinity and NaN out of the interpolation and makes their gradients zero.
    grids = 2 * locations.nan_to_num(nan=-1.0).clamp(-1.0, 2.0) - 1
    grids = grids.to(dtype).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    for level, (grid, (height, width), start) in enumerate(zip(grids, shapes, starts, strict=True)):
        if height * width == 0:
            continue
        image = value[:, start : start + height * width].permute(0, 2, 3, 1)
        yield level, image.to(dtype).reshape(batch * heads, channels, height, width), grid
