"""Pools a feature map over masks: the mean of a region, or CLIP's attention pooling restricted to it."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

TINY = 1e-8  # added to sums of weights, so that empty regions give zeros


@torch.no_grad()
def region_weights(
    mask_logits: Tensor,
    size: tuple[int, int],
    padded: tuple[int, int],
    image_sizes: list[tuple[int, int]] | None = None,
) -> Tensor:
    """The share of each cell of a map that lies in a binary mask: (B, Q, rows, columns) float32, 0 to 1.

    A mask has finer pixels than the map, so a small object has weights though it fills no cell.

    Args:
        mask_logits: (B, Q, h, w); positive inside.
        size: rows and columns of the map.
        padded: of the batch, in pixels.
        image_sizes: of the images in it, in pixels; what lies outside is in no region. None: all of it.
    """
    inside = (mask_logits > 0).float()
    for i, image in enumerate(image_sizes or ()):
        rows, columns = (-(-own * n // whole) for own, n, whole in zip(image, inside.shape[-2:], padded, strict=True))
        inside[i, :, rows:] = 0
        inside[i, :, :, columns:] = 0
    return F.adaptive_avg_pool2d(inside, size)


def mean_pool(features: Tensor, weights: Tensor) -> Tensor:
    """Weighted means over positions: (B, C, h, w), (B, Q, h, w) -> (B, Q, C); zeros where all weights are 0."""
    sums = torch.einsum("bchw,bqhw->bqc", features, weights)
    return sums / (weights.sum((-2, -1)) + TINY).unsqueeze(-1)


def attention_pool(pool: Any, features: Tensor, weights: Tensor) -> Tensor:
    """The attention pooling of CLIP's ResNets, over the positions of each region: (B, Q, e).

    As in the whole image, the query is the mean of the region, which also is a key beside its positions. A position's
    weight w multiplies its attention, so positions outside have none. Position embeddings are resized to the map.

    Args:
        pool: open_clip's ``AttentionPool2d``.
        features: (B, C, h, w).
        weights: (B, Q, h, w), 0 to 1.
    """
    batch, width, height, columns = features.shape
    heads = pool.num_heads
    table = pool.positional_embedding.float()
    first, rest = table[0], _resized(table[1:], (height, columns))  # (C,), (h * w, C)
    places = features.flatten(2).transpose(1, 2) + rest  # (B, h * w, C)
    mean = mean_pool(features, weights) + first  # (B, Q, C)

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, width // heads)).transpose(1, 2)  # (B, heads, n, C / heads)

    query = split(pool.q_proj(mean)) * (width // heads) ** -0.5
    of_places = query @ split(pool.k_proj(places)).transpose(2, 3)  # (B, heads, Q, h * w)
    of_mean = (query * split(pool.k_proj(mean))).sum(-1, keepdim=True)
    scores = torch.cat([of_mean, of_places + weights.flatten(2).log().unsqueeze(1)], dim=-1)
    attention = scores.softmax(-1)
    found = attention[..., 1:] @ split(pool.v_proj(places)) + attention[..., :1] * split(pool.v_proj(mean))
    return pool.c_proj(found.transpose(1, 2).flatten(2))


def _resized(table: Tensor, size: tuple[int, int]) -> Tensor:
    """A table of positions (s * s, C) for a map of another size: (h * w, C)."""
    side = round(len(table) ** 0.5)
    if (side, side) == size:
        return table
    grid = table.T.view(1, -1, side, side)
    return F.interpolate(grid, size, mode="bicubic", align_corners=False)[0].flatten(1).T
