"""Reads masks at points instead of everywhere (PointRend; Mask2Former, Sec. 3.3.1)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from PADing.errors import UserError


def point_sample(images: Tensor, points: Tensor) -> Tensor:
    """Read float images (N, C, H, W) bilinearly, zero outside: (N, C, P).

    ``points`` are (N, P, 2) float, (x, y) in [0, 1] from edge to edge.
    """
    grid = (2 * points).sub_(1).unsqueeze(2)
    if images.device.type != "cpu" or images.shape[1] == 1 or not len(images):
        return _read(images, grid)
    # PyTorch reads all channels at one point before the next point. Reading map by map stays in the cache.
    return torch.stack(
        [
            _read(maps.unsqueeze(1), at.expand(len(maps), -1, -1, -1)).squeeze(1)
            for maps, at in zip(images, grid, strict=True)
        ]
    )


def _read(images: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False).squeeze(3)


def importance_counts(num_points: int, oversample_ratio: float, importance_sample_ratio: float) -> tuple[int, int]:
    """(number of candidates, number of random points) per mask; the other points are the most uncertain candidates.

    UserError for ratios out of range.
    """
    if not (oversample_ratio >= 1 and 0 <= importance_sample_ratio <= 1):
        raise UserError(
            f"OVERSAMPLE_RATIO ({oversample_ratio}) must be at least 1, IMPORTANCE_SAMPLE_RATIO "
            f"({importance_sample_ratio}) between 0 and 1"
        )
    return int(num_points * oversample_ratio), num_points - int(importance_sample_ratio * num_points)


@torch.no_grad()
def most_uncertain(masks: Tensor, candidates: Tensor, count: int) -> Tensor:
    """The ``count`` = K candidates (N, R, 2) where mask logits (N, 1, H, W) are closest to zero: (N, K, 2)."""
    uncertainty = point_sample(masks, candidates).squeeze(1).abs_().neg_()
    best = uncertainty.topk(count, dim=1, sorted=False).indices
    return candidates.gather(1, best.unsqueeze(2).expand(-1, -1, 2))
