"""Axis-aligned boxes, given by their top left and bottom right corner in pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor


class BoxMode(IntEnum):
    """The meaning of a box's numbers, in pixels (ABS) or shares of the image (REL). Saved data sets contain the values.

    ``XYXY``: two corners. ``XYWH``: a corner and the size. ``XYWHA``: center, size, and a turn in degrees.
    """

    XYXY_ABS, XYWH_ABS, XYXY_REL, XYWH_REL, XYWHA_ABS = range(5)

    @staticmethod
    def convert(box, from_mode: BoxMode, to_mode: BoxMode):
        """One box (list or tuple) or many (array or tensor, N x 4) in another mode, as a new object of the same type.

        Only ``XYXY_ABS`` and ``XYWH_ABS`` are converted into each other; numbers of a list go through float32 unless
        they are integers. ``box`` itself comes back when the modes are equal.
        """
        if from_mode == to_mode:
            return box
        if {from_mode, to_mode} != {BoxMode.XYXY_ABS, BoxMode.XYWH_ABS}:
            raise NotImplementedError(f"No conversion of boxes from {from_mode!r} to {to_mode!r}.")
        if isinstance(box, (list, tuple)):
            assert len(box) in (4, 5), f"One box is a list of 4 or 5 numbers, this one has {len(box)}: {box}"
            rows = BoxMode.convert(torch.tensor(box)[None], from_mode, to_mode)
            return type(box)(rows[0].tolist())
        moved: Any = box.clone() if isinstance(box, Tensor) else np.array(box)
        moved[:, 2:4] += moved[:, :2] if to_mode == BoxMode.XYXY_ABS else -moved[:, :2]
        return moved


class Boxes:
    """The boxes of one image: ``tensor`` is float32 (N, 4) and holds x0, y0, x1, y1 in pixels."""

    def __init__(self, tensor: Tensor | np.ndarray | Sequence):
        rows = torch.as_tensor(tensor).to(torch.float32)
        if not rows.numel():
            rows = rows.new_empty(0, 4)
        assert rows.ndim == 2 and rows.shape[1] == 4, f"Boxes need 4 numbers a row, got the shape {tuple(rows.shape)}."
        self.tensor = rows

    def _sides(self) -> Tensor:
        """(N, 2), width and height."""
        return self.tensor[:, 2:] - self.tensor[:, :2]

    def area(self) -> Tensor:
        """float32 (N,), in pixels; negative where just one side is turned around."""
        return self._sides().prod(dim=1)

    def get_centers(self) -> Tensor:
        """float32 (N, 2), x and y."""
        return self.tensor.view(-1, 2, 2).mean(dim=1)

    def nonempty(self, threshold: float = 0.0) -> Tensor:
        """bool (N,): where width and height exceed the threshold."""
        return self._sides().amin(dim=1) > threshold

    def inside_box(self, box_size: tuple[int, int], boundary_threshold: int = 0) -> Tensor:
        """bool (N,): which boxes stay within ``boundary_threshold`` pixels around an image of (height, width)."""
        end = self.tensor.new_tensor(box_size[::-1]) + boundary_threshold
        return torch.cat([self.tensor[:, :2] >= -boundary_threshold, self.tensor[:, 2:] < end], dim=1).all(dim=1)

    def clip(self, box_size: tuple[int, int]) -> None:
        """Clip the boxes to an image of (height, width), in place; AssertionError for NaN and infinite coordinates."""
        assert self.tensor.isfinite().all(), "Boxes with NaN or infinite coordinates cannot be clipped to an image."
        end = self.tensor.new_tensor(box_size[::-1]).repeat(2)
        self.tensor = self.tensor.clamp(min=torch.zeros_like(end), max=end)

    def scale(self, scale_x: float, scale_y: float) -> None:
        """Stretch the coordinates away from the image's top left corner."""
        self.tensor *= self.tensor.new_tensor([scale_x, scale_y]).repeat(2)

    def __len__(self) -> int:
        return len(self.tensor)

    def __iter__(self) -> Iterator[Tensor]:
        """The rows, each of shape (4,)."""
        return iter(self.tensor)

    def __getitem__(self, item: int | slice | Tensor) -> Boxes:
        """Boxes at an index, a slice, or where an index or bool tensor says; a single one is still (1, 4)."""
        rows = self.tensor[item]
        if isinstance(item, int):
            rows = rows[None]
        assert rows.ndim == 2, f"Boxes cannot be indexed by {item}: it takes boxes apart."
        return Boxes(rows)

    @classmethod
    def cat(cls, boxes_list: Sequence[Boxes]) -> Boxes:
        """The boxes of all members of a list, in its order."""
        assert isinstance(boxes_list, (list, tuple)), f"Boxes.cat needs a list, got a {type(boxes_list).__name__}."
        return cls(torch.cat([member.tensor for member in boxes_list])) if boxes_list else cls([])

    def clone(self) -> Boxes:
        """A copy that shares no memory."""
        return Boxes(self.tensor.clone())

    @property
    def device(self) -> torch.device:
        """Where the tensor is."""
        return self.tensor.device

    def to(self, device: torch.device | str) -> Boxes:
        """The boxes on another device."""
        return Boxes(self.tensor.to(device))

    def __repr__(self) -> str:
        return f"Boxes({self.tensor!r})"


def pairwise_iou(boxes1: Boxes, boxes2: Boxes) -> Tensor:
    """IoU of each box of the first (N) with each of the second (M): float32 (N, M), 0 for boxes that are apart."""
    near = torch.maximum(boxes1.tensor[:, None, :2], boxes2.tensor[:, :2])
    far = torch.minimum(boxes1.tensor[:, None, 2:], boxes2.tensor[:, 2:])
    shared = (far - near).relu().prod(dim=2)
    # Boxes without an area would give 0 / 0.
    return torch.where(shared > 0, shared / (boxes1.area()[:, None] + boxes2.area() - shared), 0.0)
