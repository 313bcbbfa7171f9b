"""Boxes and masks for the tests of structures."""

import torch


def random_boxes(n: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    corner, side = torch.rand(n, 2, generator=g) * 50, torch.rand(n, 2, generator=g) * 40
    return torch.cat([corner, corner + side], dim=1)


def random_masks(n: int, h: int, w: int, seed: int) -> torch.Tensor:
    """Sparse masks, so that their boxes differ; the first one is empty."""
    masks = torch.rand(n, h, w, generator=torch.Generator().manual_seed(seed)) > 0.97
    masks[:1] = False
    return masks
