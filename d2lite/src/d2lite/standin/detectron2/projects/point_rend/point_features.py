"""Values of feature maps at points, and points where they are uncertain."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from d2lite.omitted import omitted_names


def point_sample(input: Tensor, point_coords: Tensor, **kwargs) -> Tensor:
    """Interpolate feature maps bilinearly at points.

    Args:
        input: (N, C, H, W).
        point_coords: (N, P, 2), or (N, P1, P2, 2) for a grid; (x, y) from (0, 0), the top left corner of the map, to
            (1, 1), its bottom right corner.
        kwargs: options of ``torch.nn.functional.grid_sample``, as ``align_corners=False``.

    Returns:
        (N, C, P), or (N, C, P1, P2) for a grid. Points outside read zeros unless ``padding_mode`` says otherwise.
    """
    is_list = point_coords.dim() == 3
    grid = 2.0 * (point_coords.unsqueeze(2) if is_list else point_coords) - 1.0
    output = F.grid_sample(input, grid, **kwargs)
    return output.squeeze(3) if is_list else output


def get_uncertain_point_coords_with_randomness(
    coarse_logits: Tensor,
    uncertainty_func: Callable[[Tensor], Tensor],
    num_points: int,
    oversample_ratio: float,
    importance_sample_ratio: float,
) -> Tensor:
    """Draw points, preferring those where a prediction is uncertain (PointRend, Sec. 3.1, "Training").

    ``int(num_points * oversample_ratio)`` uniform points are drawn; the ``int(importance_sample_ratio * num_points)``
    most uncertain of them are kept, and the rest is filled up with fresh uniform points. The two draws are
    ``torch.rand`` calls in this order.

    Args:
        coarse_logits: (N, C, H, W).
        uncertainty_func: from the logits at the points, (N, C, P), to (N, 1, P); more is more uncertain.
        num_points: number of points to return.
        oversample_ratio: at least 1.
        importance_sample_ratio: from 0 to 1.

    Returns:
        (N, num_points, 2) in the unit square, as (x, y): first the uncertain points, most uncertain first.
    """
    assert oversample_ratio >= 1, f"oversample_ratio must be at least 1, got {oversample_ratio}"
    assert 0 <= importance_sample_ratio <= 1, f"importance_sample_ratio is {importance_sample_ratio}, not in [0, 1]"
    batch, device = coarse_logits.shape[0], coarse_logits.device
    candidates = torch.rand(batch, int(num_points * oversample_ratio), 2, device=device)
    # The uncertainty is that of the interpolated logits: interpolating the uncertainty itself would call a point
    # between a confident yes and a confident no certain.
    uncertainty = uncertainty_func(point_sample(coarse_logits, candidates, align_corners=False))
    num_uncertain = int(importance_sample_ratio * num_points)
    chosen = uncertainty[:, 0].topk(num_uncertain, dim=1).indices
    points = candidates.gather(1, chosen.unsqueeze(2).expand(-1, -1, 2))
    num_random = num_points - num_uncertain
    if num_random > 0:
        points = torch.cat([points, torch.rand(batch, num_random, 2, device=device)], dim=1)
    return points


__getattr__ = omitted_names(
    __name__,
    [
        "generate_regular_grid_point_coords",
        "get_point_coords_wrt_image",
        "get_uncertain_point_coords_on_grid",
        "point_sample_fine_grained_features",
        "sample_point_labels",
    ],
)
