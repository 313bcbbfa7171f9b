"""Segments of drawn images, cut out as small squares: what the backbone of the warm start learns to classify."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from PADing.data.images import read_image, read_panoptic_ids

__all__ = ["SIDE", "Crops", "cut", "varied"]

SIDE, STORED = 48, 64  # pixels of a training example, and of a crop before it is turned and scaled
_AROUND = 1.25  # side of a crop per longest side of its segment
_GROUND = 48.0  # side of a crop of ground, in pixels of the image


@dataclass(frozen=True)
class Crops:
    """N crops.

    Attributes:
        images: (N, 3, 64, 64) uint8.
        labels: (N,) int64, positions in the data set's classes.
    """

    images: Tensor
    labels: Tensor


def cut(records: Sequence[dict], image_format: str, things: Sequence[bool], seed: int = 0) -> Crops:
    """One crop of each segment: of a thing with a margin around it, of ground around one of its pixels at random.

    Args:
        records: of a panoptic data set. image_format: as ``INPUT.FORMAT``.
        things: for each class whether it is a thing.
        seed: of the places in grounds.
    """
    draws = np.random.default_rng([22, seed])
    images, labels = [], []
    for record in records:
        image = torch.from_numpy(read_image(record["file_name"], image_format).copy()).permute(2, 0, 1)[None].float()
        ids = read_panoptic_ids(record["pan_seg_file_name"])
        for segment in record["segments_info"]:
            rows, columns = np.nonzero(ids == segment["id"])
            if not len(rows):
                continue
            label = segment["category_id"]
            if things[label]:
                low, high = (rows.min(), columns.min()), (rows.max() + 1, columns.max() + 1)
                middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
                side = _AROUND * max(b - a for a, b in zip(low, high, strict=True))
            else:
                place = int(draws.integers(len(rows)))
                middle, side = [rows[place] + 0.5, columns[place] + 0.5], _GROUND
            images.append(_square(image, middle, float(side)))
            labels.append(label)
    return Crops(torch.cat(images), torch.tensor(labels, dtype=torch.int64))


def _square(image: Tensor, middle: Sequence[float], side: float) -> Tensor:
    """A square around ``middle`` (row, column) of (1, 3, H, W), mirrored at the edges: (1, 3, 64, 64) uint8."""
    steps = (torch.arange(STORED) + 0.5) / STORED - 0.5
    rows, columns = (
        2 * (float(center) + side * steps) / size - 1 for center, size in zip(middle, image.shape[2:], strict=True)
    )
    grid = torch.stack(torch.broadcast_tensors(columns[None, :], rows[:, None]), dim=-1)[None]
    return F.grid_sample(image, grid.float(), padding_mode="reflection", align_corners=False).round().byte()


def varied(images: Tensor, colored: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, mirror, scale and shift crops at random; exchange the color channels of some, and invert half of those.

    Args:
        images: (B, 3, 64, 64) uint8.
        colored: (B,) bool: the class does not depend on colors, so they may change.
        generator: of all random numbers.

    Returns:
        (B, 3, 48, 48) float32, 0 to 255.
    """
    number = len(images)

    def between(low: float, high: float) -> Tensor:
        return torch.rand(number, generator=generator) * (high - low) + low

    angle = between(-0.3, 0.3) + torch.randint(4, (number,), generator=generator) * math.pi / 2
    scale, mirror = between(-0.35, 0.35).exp() * 1.05, between(-1, 1).sign()
    across, down = between(-0.1, 0.1), between(-0.1, 0.1)
    first = torch.stack([scale * angle.cos() * mirror, -scale * angle.sin(), across], dim=1)
    second = torch.stack([scale * angle.sin() * mirror, scale * angle.cos(), down], dim=1)
    grid = F.affine_grid(torch.stack([first, second], dim=1), [number, 3, SIDE, SIDE], align_corners=False)
    result = F.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)
    orders = torch.rand(number, 3, generator=generator).argsort(dim=1)
    orders = torch.where(colored[:, None], orders, torch.arange(3))
    result = result.gather(1, orders[:, :, None, None].expand_as(result))
    inverted = colored & (between(0, 1) < 0.5)
    return torch.where(inverted[:, None, None, None], 255 - result, result)
