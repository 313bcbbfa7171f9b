"""The fused operator in elementary ones: samples from projections of the queries, and the gradients of these.

A compiled kernel computes all of it at once (``src/cuda``); this is what it computes, for every other backend.
"""

import torch
from torch import Tensor

# Samples (levels times points) of a query and head that the fused kernel has shared memory for.
MOST_SAMPLES = 256


def samples_of(offsets: Tensor, scores: Tensor, reference: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Locations (N, Lq, M, L, P, 2) and attention weights (N, Lq, M, L, P), in float32, or float64 for float64 scores.

    Args:
        offsets: (N, Lq, M, L, P, 2), in pixels.
        scores: (N, Lq, M, L, P), logits of the attention weights over levels and points.
        reference: (N, Lq, L, 2), points (x, y) in [0, 1].
        sizes: (L, 2), width and height of each level, at least 1.
    """
    dtype = torch.promote_types(scores.dtype, torch.float32)
    weights = scores.to(dtype).flatten(3).softmax(-1).view_as(scores)
    locations = reference.to(dtype)[:, :, None, :, None] + offsets.to(dtype) / sizes.to(dtype)[:, None]
    return locations, weights


def projection_gradients(
    grad_locations: Tensor, grad_weights: Tensor, weights: Tensor, sizes: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of offsets and scores from those of :func:`samples_of`'s results."""
    terms = weights * grad_weights
    total = terms.flatten(3).sum(-1)[..., None, None]
    return grad_locations / sizes.to(grad_locations)[:, None], terms - weights * total


def reference_gradient(grad_offsets: Tensor, reference: Tensor, sizes: Tensor) -> Tensor:
    """The gradient of ``reference`` from that of ``offsets``: a step of one map is a step of its size in pixels."""
    dtype = torch.promote_types(grad_offsets.dtype, reference.dtype)
    return (grad_offsets.to(dtype).sum((2, 4)) * sizes.to(dtype)).to(reference.dtype)


def sizes_xy(levels: list[int], table: Tensor | None, like: Tensor) -> Tensor:
    """(L, 2) width and height of each level, at least 1, on the device of ``like``; see ``library`` for the arguments.

    At least 1, because offsets divided by the size 0 of an empty level would be no numbers.
    """
    if table is None:
        numbers = [n for h, w in zip(levels[0::3], levels[1::3], strict=True) for n in (max(w, 1), max(h, 1))]
        return torch.tensor(numbers, dtype=torch.int64, device=like.device).view(-1, 2)
    return table[:, :2].flip(-1).to(like.device).clamp(min=1)
