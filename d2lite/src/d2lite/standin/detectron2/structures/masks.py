"""Masks of objects, as bitmaps or as polygons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pycocotools.mask as mask_util
import torch
from torch import Tensor

from .boxes import Boxes


def polygons_to_bitmask(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Draw the union of polygons, by COCO's rules.

    Args:
        polygons: each a flat array x0 y0 x1 y1 ..., in pixels.

    Returns:
        bool (height, width); all False for an empty list.
    """
    if len(polygons) == 0:
        return np.zeros((height, width), dtype=bool)
    rles = mask_util.frPyObjects([np.asarray(p, dtype=np.float64).ravel().tolist() for p in polygons], height, width)
    return mask_util.decode(mask_util.merge(rles)).astype(bool)


class BitMasks:
    """N masks of one image as the bool tensor ``tensor`` of shape (N, H, W)."""

    def __init__(self, tensor: Tensor | np.ndarray):
        tensor = torch.as_tensor(tensor).to(torch.bool)
        assert tensor.dim() == 3, f"masks have shape (N, H, W), got {tuple(tensor.shape)}"
        self.tensor = tensor

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.tensor.shape[1], self.tensor.shape[2]

    @property
    def device(self) -> torch.device:
        return self.tensor.device

    def to(self, *args, **kwargs) -> BitMasks:
        return BitMasks(self.tensor.to(*args, **kwargs))

    def nonempty(self) -> Tensor:
        """bool (N,): the mask has at least one pixel."""
        return self.tensor.flatten(1).any(dim=1)

    @staticmethod
    def from_polygon_masks(polygon_masks: PolygonMasks | list[list[np.ndarray]], height: int, width: int) -> BitMasks:
        """Draw the polygons of each object into a bitmap of the given size."""
        polygons = polygon_masks.polygons if isinstance(polygon_masks, PolygonMasks) else polygon_masks
        if len(polygons) == 0:
            return BitMasks(torch.empty(0, height, width, dtype=torch.bool))
        return BitMasks(torch.from_numpy(np.stack([polygons_to_bitmask(p, height, width) for p in polygons])))

    def get_bounding_boxes(self) -> Boxes:
        """The tightest boxes (x0, y0, x1, y1), of which x1 and y1 are one past the last pixel; on the CPU.

        The box of an empty mask is all zeros.
        """
        columns, rows = self.tensor.any(dim=1).cpu(), self.tensor.any(dim=2).cpu()
        x, y = _first_and_end(columns), _first_and_end(rows)
        return Boxes(torch.stack([x[0], y[0], x[1], y[1]], dim=1))

    @staticmethod
    def cat(bitmasks_list: Sequence[BitMasks]) -> BitMasks:
        """All masks in one object; they must be of one size."""
        assert isinstance(bitmasks_list, (list, tuple)) and len(bitmasks_list) > 0, "BitMasks.cat takes a list"
        assert all(isinstance(masks, BitMasks) for masks in bitmasks_list), "BitMasks.cat takes a list of BitMasks"
        return BitMasks(torch.cat([masks.tensor for masks in bitmasks_list], dim=0))

    def __getitem__(self, item: int | slice | Tensor) -> BitMasks:
        """The chosen masks; an integer gives one mask, still of shape (1, H, W)."""
        if isinstance(item, int):
            return BitMasks(self.tensor[item][None])
        chosen = self.tensor[item]
        assert chosen.dim() == 3, f"the index {item} does not choose whole masks"
        return BitMasks(chosen)

    def __iter__(self) -> Iterator[Tensor]:
        """One bool tensor (H, W) after the other."""
        yield from self.tensor

    def __len__(self) -> int:
        return self.tensor.shape[0]

    def __repr__(self) -> str:
        return f"BitMasks(num_instances={len(self)}, image_size={self.image_size})"


def _first_and_end(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """First True and one past the last True of each row of a bool (N, L); 0 and 0 for a row without any."""
    position = torch.arange(occupied.shape[1])
    end = torch.where(occupied, position + 1, 0).amax(dim=1)
    first = torch.where(occupied, position, occupied.shape[1]).amin(dim=1)
    return torch.minimum(first, end).float(), end.float()


class PolygonMasks:
    """N masks, each a list of polygons; each polygon a flat float64 array x0 y0 x1 y1 ... in pixels.

    Raises:
        ValueError: when the nesting is wrong, or a polygon has fewer than 3 points or an odd number of numbers.
    """

    def __init__(self, polygons: list[list[Tensor | np.ndarray | Sequence[float]]]):
        if not isinstance(polygons, list):
            raise ValueError(f"PolygonMasks take a list with one list of polygons per object, got {type(polygons)}")
        self.polygons: list[list[np.ndarray]] = [_check_polygons(p, i) for i, p in enumerate(polygons)]

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    def to(self, *args, **kwargs) -> PolygonMasks:
        """The object itself: polygons stay in the main memory."""
        return self

    def get_bounding_boxes(self) -> Boxes:
        """The tightest boxes around the points, all zeros for an object without polygons."""
        boxes = torch.zeros(len(self), 4)
        for i, polygons in enumerate(self.polygons):
            if polygons:
                points = np.concatenate(polygons).reshape(-1, 2)
                boxes[i] = torch.from_numpy(np.concatenate([points.min(axis=0), points.max(axis=0)]))
        return Boxes(boxes)

    def area(self) -> Tensor:
        """float32 (N,): the sum of the areas inside the polygons of each object (overlaps count twice)."""
        return torch.tensor([sum(map(_polygon_area, polygons)) for polygons in self.polygons], dtype=torch.float32)

    def nonempty(self) -> Tensor:
        """bool (N,): the object has at least one polygon."""
        return torch.tensor([len(polygons) > 0 for polygons in self.polygons], dtype=torch.bool)

    @classmethod
    def cat(cls, polymasks_list: Sequence[PolygonMasks]) -> PolygonMasks:
        """All objects in one."""
        assert isinstance(polymasks_list, (list, tuple)) and len(polymasks_list) > 0, "PolygonMasks.cat takes a list"
        assert all(isinstance(m, PolygonMasks) for m in polymasks_list), "PolygonMasks.cat takes a list of PolygonMasks"
        return cls([polygons for masks in polymasks_list for polygons in masks.polygons])

    def __getitem__(self, item: int | slice | list[int] | Tensor | np.ndarray) -> PolygonMasks:
        if isinstance(item, int):
            chosen = [self.polygons[item]]
        elif isinstance(item, slice):
            chosen = self.polygons[item]
        else:
            index = torch.as_tensor(item)
            assert index.dim() == 1, f"polygon masks are indexed by one dimension, got {tuple(index.shape)}"
            if index.dtype == torch.bool:
                assert len(index) == len(self), f"a mask of length {len(index)} cannot index {len(self)} objects"
                index = index.nonzero()[:, 0]
            chosen = [self.polygons[i] for i in index.tolist()]
        return PolygonMasks(chosen)

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """The list of polygons of one object after the other."""
        return iter(self.polygons)

    def __len__(self) -> int:
        return len(self.polygons)

    def __repr__(self) -> str:
        return f"PolygonMasks(num_instances={len(self)})"


def _check_polygons(polygons, object_index: int) -> list[np.ndarray]:
    if not isinstance(polygons, list):
        raise ValueError(f"object {object_index} of PolygonMasks must be a list of polygons, got {type(polygons)}")
    checked = []
    for polygon in polygons:
        polygon = polygon.cpu().numpy() if isinstance(polygon, Tensor) else np.asarray(polygon)
        if polygon.ndim != 1 or len(polygon) % 2 != 0 or len(polygon) < 6:
            raise ValueError(
                f"a polygon of object {object_index} has shape {polygon.shape}; "
                "it must be a flat array x0 y0 x1 y1 ... of at least 3 points"
            )
        checked.append(polygon.astype(np.float64))
    return checked


def _polygon_area(polygon: np.ndarray) -> float:
    """The shoelace formula."""
    x, y = polygon[0::2], polygon[1::2]
    return 0.5 * abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))))
