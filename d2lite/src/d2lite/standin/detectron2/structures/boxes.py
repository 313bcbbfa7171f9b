"""Axis-aligned boxes in pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum, unique

import numpy as np
import torch
from torch import Tensor


@unique
class BoxMode(IntEnum):
    """What the numbers of a box mean. The stand-in converts between the two absolute axis-aligned modes."""

    XYXY_ABS = 0
    """(x0, y0, x1, y1) in pixels."""
    XYWH_ABS = 1
    """(x0, y0, width, height) in pixels."""
    XYXY_REL = 2
    """(x0, y0, x1, y1) as fractions of the image size."""
    XYWH_REL = 3
    """(x0, y0, width, height) as fractions of the image size."""
    XYWHA_ABS = 4
    """(center x, center y, width, height, angle in degrees), counterclockwise."""

    @staticmethod
    def convert(box, from_mode: BoxMode, to_mode: BoxMode):
        """Express boxes in another mode.

        Args:
            box: one box as a list or tuple of 4 numbers, or an array or tensor of shape (4,) or (N, 4).
            from_mode, to_mode: ``XYXY_ABS`` or ``XYWH_ABS``.

        Returns:
            A new object of the type, dtype and shape of ``box``; ``box`` itself when the modes are equal.

        Raises:
            NotImplementedError: for relative and rotated modes.
            ValueError: for boxes that do not have 4 numbers.
        """
        from_mode, to_mode = BoxMode(from_mode), BoxMode(to_mode)
        if from_mode == to_mode:
            return box
        sign = {
            (BoxMode.XYWH_ABS, BoxMode.XYXY_ABS): 1,
            (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS): -1,
        }.get((from_mode, to_mode))
        if sign is None:
            raise NotImplementedError(f"boxes cannot be converted from {from_mode.name} to {to_mode.name}")
        length = len(box) if isinstance(box, (list, tuple)) else box.shape[-1]
        if length != 4:
            raise ValueError(f"a box in mode {from_mode.name} has 4 numbers, got {length}")
        if isinstance(box, (list, tuple)):
            x, y, right, bottom = box
            return type(box)([x, y, right + sign * x, bottom + sign * y])
        converted = box.clone() if isinstance(box, Tensor) else np.array(box)
        converted[..., 2:] += sign * converted[..., :2]
        return converted


class Boxes:
    """N boxes (x0, y0, x1, y1) in pixels, as the float32 tensor ``tensor`` of shape (N, 4)."""

    def __init__(self, tensor: Tensor | np.ndarray | Sequence):
        device = tensor.device if isinstance(tensor, Tensor) else torch.device("cpu")
        tensor = torch.as_tensor(tensor, dtype=torch.float32, device=device)
        if tensor.numel() == 0:
            tensor = tensor.reshape(-1, 4)
        assert tensor.dim() == 2 and tensor.shape[-1] == 4, f"boxes have shape (N, 4), got {tuple(tensor.shape)}"
        self.tensor = tensor

    def clone(self) -> Boxes:
        return Boxes(self.tensor.clone())

    def to(self, device: torch.device | str) -> Boxes:
        return Boxes(self.tensor.to(device=device))

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def area(self) -> Tensor:
        """Width times height, float32 (N,), in square pixels."""
        sides = self.tensor[:, 2:] - self.tensor[:, :2]
        return sides[:, 0] * sides[:, 1]

    def clip(self, box_size: tuple[int, int]) -> None:
        """Move, in place, everything that lies outside an image of ``(height, width)`` to its border."""
        assert torch.isfinite(self.tensor).all(), "boxes to be clipped contain infinite or NaN coordinates"
        height, width = box_size
        corner = self.tensor.new_tensor([width, height, width, height])
        self.tensor = torch.minimum(self.tensor.clamp(min=0), corner)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """bool (N,): both sides are longer than ``threshold`` pixels."""
        return ((self.tensor[:, 2:] - self.tensor[:, :2]) > threshold).all(dim=1)

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> Tensor:
        """bool (N,): the box reaches at most ``boundary_threshold`` pixels out of an image of ``(height, width)``."""
        height, width = box_size
        low = self.tensor[:, :2] >= -boundary_threshold
        high = self.tensor[:, 2:] < self.tensor.new_tensor([width, height]) + boundary_threshold
        return low.all(dim=1) & high.all(dim=1)

    def get_centers(self) -> Tensor:
        """float32 (N, 2): (x, y) of the centers."""
        return (self.tensor[:, :2] + self.tensor[:, 2:]) / 2

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Multiply, in place, the x and y coordinates."""
        self.tensor[:, 0::2] *= scale_x
        self.tensor[:, 1::2] *= scale_y

    @classmethod
    def cat(cls, boxes_list: Sequence[Boxes]) -> Boxes:
        """All boxes in one object, on the device of the first."""
        assert isinstance(boxes_list, (list, tuple)), "Boxes.cat takes a list of Boxes"
        if not boxes_list:
            return cls(torch.empty(0))
        assert all(isinstance(boxes, Boxes) for boxes in boxes_list), "Boxes.cat takes a list of Boxes"
        return cls(torch.cat([boxes.tensor for boxes in boxes_list], dim=0))

    def __getitem__(self, item: int | slice | Tensor) -> Boxes:
        """The chosen boxes; an integer gives one box, still of shape (1, 4)."""
        if isinstance(item, int):
            return Boxes(self.tensor[item].view(1, 4))
        chosen = self.tensor[item]
        assert chosen.dim() == 2, f"the index {item} does not choose whole boxes"
        return Boxes(chosen)

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        """One tensor of shape (4,) after the other."""
        yield from self.tensor

    def __repr__(self) -> str:
        return f"Boxes({self.tensor})"


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """Intersection over union of all pairs, float32 (N, M); 0 where two boxes do not overlap."""
    a, b = boxes1.tensor[:, None], boxes2.tensor[None]
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    intersection = sides[..., 0] * sides[..., 1]
    union = boxes1.area()[:, None] + boxes2.area()[None] - intersection
    return torch.where(intersection > 0, intersection / union, torch.zeros_like(intersection))
