"""Reads feature maps at points, and chooses points where a prediction is uncertain."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from d2lite.omitted import omitted_names

__getattr__ = omitted_names(
    __name__,
    "generate_regular_grid_point_coords get_point_coords_wrt_image get_uncertain_point_coords_on_grid "
    "point_sample_fine_grained_features sample_point_labels",
)


def point_sample(input: Tensor, point_coords: Tensor, **kwargs) -> Tensor:
    """The values of maps (N, C, H, W) at points (N, ..., 2) of x and y from (0, 0), top left, to (1, 1): (N, C, ...).

    ``kwargs`` are of ``grid_sample``. By default values are interpolated bilinearly, and are 0 beyond the map.
    """
    # grid_sample needs a grid of points, here with one column, and the map's corners at -1 and 1.
    column = point_coords.flatten(1, -2).unsqueeze(2) * 2 - 1
    return grid_sample(input, column, **kwargs).reshape(*input.shape[:2], *point_coords.shape[1:-1])


def get_uncertain_point_coords_with_randomness(
    coarse_logits: Tensor,
    uncertainty_func: Callable[[Tensor], Tensor],
    num_points: int,
    oversample_ratio: float,
    importance_sample_ratio: float,
) -> Tensor:
    """Random points, many of them where a prediction is uncertain (PointRend, Sec. 3.1, "Training").

    Two calls of ``torch.rand``: for ``num_points * oversample_ratio`` candidates, and for the points that are taken as
    they come. ``uncertainty_func`` maps logits at points (N, C, P) to (N, 1, P), the larger the less certain. The share
    ``importance_sample_ratio`` of the points are the least certain candidates; both products are rounded down. Returns
    (N, ``num_points``, 2) as :func:`point_sample` takes them, the least certain first.
    """
    assert oversample_ratio >= 1, f"An oversample_ratio of {oversample_ratio} is less than 1."
    assert 0 <= importance_sample_ratio <= 1, f"importance_sample_ratio is a share, not {importance_sample_ratio}."

    def uniform(count: int) -> Tensor:
        return torch.rand(len(coarse_logits), count, 2, device=coarse_logits.device)

    candidates = uniform(int(num_points * oversample_ratio))
    # Sample logits first, then compute their uncertainty: sampled uncertainties would be wrong halfway between a sure
    # yes and a sure no.
    uncertainty = uncertainty_func(point_sample(coarse_logits, candidates, align_corners=False)).squeeze(1)
    best = torch.topk(uncertainty, int(num_points * importance_sample_ratio)).indices
    chosen = torch.take_along_dim(candidates, best.unsqueeze(-1), dim=1)
    missing = num_points - chosen.shape[1]
    return torch.cat([chosen, uniform(missing)], dim=1) if missing else chosen
