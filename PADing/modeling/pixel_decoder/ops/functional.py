"""The public function: checks its arguments, converts dtypes, and calls a backend."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import backends
from .decomposed import decomposition
from .fused import MOST_SAMPLES, samples_of, sizes_xy
from .library import NO_FORWARD_MODE, EagerMSDeformAttn, split_levels
from .pytorch import ms_deform_attn_pytorch

Shapes = Tensor | Sequence[tuple[int, int]] | Sequence[Sequence[int]]
Starts = Tensor | Sequence[int] | None


def ms_deform_attn(
    value: Tensor,
    spatial_shapes: Shapes,
    level_start_index: Starts,
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Multi-scale deformable attention (Deformable DETR, eq. 3, between value and output projection).

    ``output[n, q, m] = sum over l, p of weights[n, q, m, l, p] * V[n, l, m](locations[n, q, m, l, p])``, where
    ``V[n, l, m]`` is level ``l`` of ``value`` read bilinearly: location (x, y) in [0, 1] x [0, 1] spans the map from
    edge to edge, pixel (i, j) has its centre at ``((j + 0.5) / w, (i + 0.5) / h)``, and outside the map there is 0.
    Locations that are NaN or infinite contribute nothing and get no gradient.

    Args:
        value: (N, S, M, D), float32, float64, float16 or bfloat16; S = sum of h * w over the levels.
        spatial_shapes: (h, w) of each level: an int64 tensor (L, 2) on any device, or Python ints. The PyTorch backend
            waits for the device if it gets a device tensor; the compiled backends never do.
        level_start_index: offset of each level in S: an int64 tensor (L), Python ints, or None for consecutive levels.
        sampling_locations: (N, Lq, M, L, P, 2), normalised (x, y). With half-precision values, use float32 locations,
            because half precision cannot distinguish the pixels of a large map.
        attention_weights: (N, Lq, M, L, P).

    Returns:
        (N, Lq, M * D) in value's dtype. Sums are accumulated in float32 (float64 for float64 values).

    Raises:
        ValueError: shapes that do not fit together. TypeError: dtypes other than the four.
    """
    _check(value, sampling_locations, attention_weights)
    dtype = value.dtype if value.dtype in (torch.float32, torch.float64) else torch.float32
    sampling_locations, attention_weights = sampling_locations.to(dtype), attention_weights.to(dtype)
    in_pytorch = decomposition()
    if in_pytorch is not None or torch.jit.is_tracing():
        backend = "pytorch"  # torch.jit.trace (exports, counting operations) cannot record lists of symbolic ints
    elif torch.compiler.is_compiling():
        backend = "operator"  # the operator in the graph chooses the backend when it runs
        if forward_ad._current_level >= 0:  # the operator in a graph would return a tangent of zeros
            raise NotImplementedError(NO_FORWARD_MODE)
    else:
        backend = backends.select(value.device.type)
    levels, table = _levels(spatial_shapes, level_start_index, ints=backend == "pytorch")
    if backend == "pytorch":
        in_pytorch = in_pytorch or ms_deform_attn_pytorch
        return in_pytorch(value, *split_levels(levels), sampling_locations, attention_weights)
    # The plain operator is faster, but fails inside torch.func and in forward mode. Not asked in a graph, because
    # torch 2.4 cannot compile the question.
    transformed = backend != "operator" and (
        torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
    )
    compute = EagerMSDeformAttn.apply if transformed else torch.ops.pading.ms_deform_attn
    return compute(value, sampling_locations, attention_weights, levels, table)


def fused_kernel_fits(value: Tensor, offsets: Tensor, scores: Tensor, reference_points: Tensor) -> bool:
    """Whether :func:`ms_deform_attn_fused` has a compiled kernel for these tensors; shapes as there."""
    if value.device.type != "cuda" or decomposition() is not None or torch.jit.is_tracing():
        return False
    points = (*scores.shape[:2], scores.shape[3], 2)
    if not value.dtype == offsets.dtype == scores.dtype or reference_points.shape != points:
        return False
    if scores.shape[3] * scores.shape[4] > MOST_SAMPLES or forward_ad._current_level >= 0:
        return False
    if torch.compiler.is_compiling():
        return True  # the operator in the graph chooses the backend when it runs
    return not torch._C._are_functorch_transforms_active() and backends.select("cuda") == "cuda"


def ms_deform_attn_fused(
    value: Tensor,
    spatial_shapes: Shapes,
    level_start_index: Starts,
    offsets: Tensor,
    scores: Tensor,
    reference_points: Tensor,
) -> Tensor:
    """:func:`ms_deform_attn` of projections: the softmax and the arithmetic of locations are in the same kernel.

    ``weights = softmax(scores)`` over levels and points, ``locations = reference_points + offsets / (width, height)``.
    It reads half-precision projections directly, and computes in float32 (float64 for float64 values).

    Args:
        value, spatial_shapes, level_start_index: as there.
        offsets: (N, Lq, M, L, P, 2), (x, y) in pixels, in value's dtype.
        scores: (N, Lq, M, L, P), in value's dtype.
        reference_points: (N, Lq, L, 2), (x, y) in [0, 1].

    Returns:
        (N, Lq, M * D) in value's dtype.

    Raises:
        ValueError, TypeError: as there.
    """
    if reference_points.shape != (*scores.shape[:2], scores.shape[3], 2) or offsets.shape != (*scores.shape, 2):
        raise ValueError(
            "ms_deform_attn_fused expects offsets (N, Lq, M, L, P, 2), scores (N, Lq, M, L, P) and reference_points "
            f"(N, Lq, L, 2); got {tuple(offsets.shape)}, {tuple(scores.shape)}, {tuple(reference_points.shape)}"
        )
    _check(value, offsets, scores)
    if not fused_kernel_fits(value, offsets, scores, reference_points):
        sizes = sizes_xy(*_levels(spatial_shapes, level_start_index, ints=False), value)
        samples = samples_of(offsets, scores, reference_points, sizes)
        return ms_deform_attn(value, spatial_shapes, level_start_index, *samples)
    levels, table = _levels(spatial_shapes, level_start_index, ints=False)
    return torch.ops.pading.ms_deform_attn_fused(value, offsets, scores, reference_points, levels, table)


def _check(value: Tensor, locations: Tensor, weights: Tensor) -> None:
    if value.dim() != 4 or locations.dim() != 6 or locations.shape[-1] != 2 or weights.dim() != 5:
        raise ValueError(
            "ms_deform_attn expects value (N, S, M, D), sampling_locations (N, Lq, M, L, P, 2) and attention_weights "
            f"(N, Lq, M, L, P); got {tuple(value.shape)}, {tuple(locations.shape)}, {tuple(weights.shape)}"
        )
    if locations.shape[:-1] != weights.shape or locations.shape[:3:2] != value.shape[:3:2]:
        raise ValueError(
            "ms_deform_attn: the arguments disagree in batch, queries, heads, levels or points: "
            f"value {tuple(value.shape)}, sampling_locations {tuple(locations.shape)}, "
            f"attention_weights {tuple(weights.shape)}"
        )
    for name, tensor in (("value", value), ("sampling_locations", locations), ("attention_weights", weights)):
        if tensor.dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
            raise TypeError(f"ms_deform_attn: {name} must be floating point (16, 32 or 64 bits), not {tensor.dtype}")


def _levels(spatial_shapes: Shapes, level_start_index: Starts, ints: bool) -> tuple[list[int], Tensor | None]:
    """(height, width, first pixel) of each level: flat ints, or a tensor (L, 3) if the numbers are on a device."""
    if isinstance(spatial_shapes, Tensor):
        if not ints and (torch.compiler.is_compiling() or spatial_shapes.device.type != "cpu"):
            shapes = spatial_shapes.to(torch.int64)
            sizes = shapes.prod(dim=1)
            starts = sizes.cumsum(0) - sizes if level_start_index is None else level_start_index
            starts = torch.as_tensor(starts, dtype=torch.int64, device=shapes.device)
            return [], torch.cat([shapes, starts.reshape(-1, 1)], dim=1)
        spatial_shapes = spatial_shapes.tolist()
    if isinstance(level_start_index, Tensor):
        level_start_index = level_start_index.tolist()
    levels, start = [], 0
    for level, (height, width) in enumerate(spatial_shapes):
        if level_start_index is not None:
            start = level_start_index[level]
        levels += [height, width, start]
        start = start + height * width
    return levels, None
