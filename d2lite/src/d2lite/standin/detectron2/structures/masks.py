"""Regions of an image, as pixels or as polygons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from .boxes import Boxes


class BitMasks:
    """N regions as pixels: ``tensor`` is bool (N, H, W), True where the given one is not zero."""

    def __init__(self, tensor: Tensor | np.ndarray):
        pixels = torch.as_tensor(tensor)
        assert pixels.ndim == 3, f"Bitmaps have the shape (N, H, W), these {tuple(pixels.shape)}."
        self.tensor = pixels.to(torch.bool)

    @staticmethod
    def from_polygon_masks(polygon_masks: PolygonMasks | list[list[np.ndarray]], height: int, width: int) -> BitMasks:
        """Fill the polygons of each object in an image of this size."""
        pixels = np.zeros((len(polygon_masks), height, width), dtype=bool)
        for region, outlines in zip(pixels, polygon_masks, strict=True):
            region[:] = polygons_to_bitmask(outlines, height, width)
        return BitMasks(pixels)

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.tensor.shape[1], self.tensor.shape[2]

    @property
    def device(self) -> torch.device:
        """Where the tensor is."""
        return self.tensor.device

    def to(self, *args, **kwargs) -> BitMasks:
        """On another device, by the arguments of ``Tensor.to``."""
        return BitMasks(self.tensor.to(*args, **kwargs))

    def nonempty(self) -> Tensor:
        """bool (N,): which regions have a pixel."""
        return self.tensor.any(dim=2).any(dim=1)

    def get_bounding_boxes(self) -> Boxes:
        """The smallest boxes that hold the pixels, which reach from i to i + 1, on the CPU; zeros without any pixel."""
        sides = [_reach(self.tensor.any(dim=across).cpu()) for across in (1, 2)]
        return Boxes(torch.stack(sides, dim=2).flatten(1))

    def __len__(self) -> int:
        return len(self.tensor)

    def __iter__(self) -> Iterator[Tensor]:
        """The bitmaps, each (H, W)."""
        return iter(self.tensor)

    def __getitem__(self, item: int | slice | Tensor) -> BitMasks:
        """Regions at an index, a slice, or where an index or bool tensor says; a single one is still (1, H, W)."""
        pixels = self.tensor[item]
        return BitMasks(pixels[None] if isinstance(item, int) else pixels)

    @staticmethod
    def cat(bitmasks_list: Sequence[BitMasks]) -> BitMasks:
        """The regions of all members of a list, which are of images of one size."""
        assert isinstance(bitmasks_list, (list, tuple)) and bitmasks_list, "BitMasks.cat needs a list, not empty."
        return BitMasks(torch.cat([member.tensor for member in bitmasks_list]))

    def __repr__(self) -> str:
        return "BitMasks({} of {} x {})".format(*self.tensor.shape)


def _reach(occupied: Tensor) -> Tensor:
    """(N, 2): for each row of a bool (N, L) the first True and one past the last; zeros without any."""
    first = occupied.byte().argmax(dim=1)
    behind = occupied.shape[1] - occupied.flip(1).byte().argmax(dim=1)
    return torch.stack([first, behind], dim=1) * occupied.any(dim=1, keepdim=True)


class PolygonMasks:
    """N regions, each by a list of polygons around its parts: flat float64 arrays x0 y0 x1 y1 ... in pixels."""

    def __init__(self, polygons: list[list[Tensor | np.ndarray | Sequence[float]]]):
        if not isinstance(polygons, list) or not all(isinstance(outlines, list) for outlines in polygons):
            raise ValueError("PolygonMasks need a list, with a list of polygons for each object.")
        self.polygons = [[_outline(polygon) for polygon in outlines] for outlines in polygons]

    @property
    def device(self) -> torch.device:
        """Polygons are always on the CPU."""
        return torch.device("cpu")

    def to(self, *args, **kwargs) -> PolygonMasks:
        """Does nothing."""
        return self

    def nonempty(self) -> Tensor:
        """bool (N,): which regions have a polygon."""
        return torch.tensor(list(map(bool, self.polygons)), dtype=torch.bool)

    def area(self) -> Tensor:
        """float32 (N,), in pixels; where polygons of one object overlap, each counts."""
        return torch.tensor([sum(map(_area, outlines)) for outlines in self.polygons], dtype=torch.float32)

    def get_bounding_boxes(self) -> Boxes:
        """The smallest boxes that hold the regions' corners; zeros for a region without polygons."""
        boxes = np.zeros((len(self), 4))
        for box, outlines in zip(boxes, self.polygons, strict=True):
            if outlines:
                corners = np.concatenate(outlines).reshape(-1, 2)
                box[:2], box[2:] = corners.min(axis=0), corners.max(axis=0)
        return Boxes(boxes)

    def __len__(self) -> int:
        return len(self.polygons)

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        """The polygons of each object."""
        yield from self.polygons

    def __getitem__(self, item: int | slice | list[int] | Tensor | np.ndarray) -> PolygonMasks:
        """Regions by whatever can index an array of one dimension."""
        numbers = np.arange(len(self))[item.cpu().numpy() if isinstance(item, Tensor) else item]
        assert numbers.ndim < 2, f"Regions cannot be indexed by something of {numbers.ndim} dimensions."
        return PolygonMasks([self.polygons[number] for number in np.atleast_1d(numbers)])

    @classmethod
    def cat(cls, polymasks_list: Sequence[PolygonMasks]) -> PolygonMasks:
        """The regions of all members of a list."""
        assert isinstance(polymasks_list, (list, tuple)) and polymasks_list, "PolygonMasks.cat needs a list, not empty."
        return cls(sum((member.polygons for member in polymasks_list), []))

    def __repr__(self) -> str:
        return f"PolygonMasks({len(self)} regions)"


def _outline(polygon: Tensor | np.ndarray | Sequence[float]) -> np.ndarray:
    numbers = np.asarray(polygon.cpu() if isinstance(polygon, Tensor) else polygon)
    if numbers.ndim != 1 or numbers.size < 6 or numbers.size % 2:
        raise ValueError(f"A polygon is a flat x0 y0 x1 y1 ... of 3 or more corners, not of shape {numbers.shape}.")
    return numbers.astype(np.float64)


def _area(outline: np.ndarray) -> float:
    """Half the sum over the corners of x times the difference of the neighbours' y."""
    x, y = outline.reshape(-1, 2).T
    return abs(float(x @ (np.roll(y, -1) - np.roll(y, 1)))) / 2


def polygons_to_bitmask(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """The pixels inside any of some flat polygons, as COCO's tools fill them: bool (height, width)."""
    flat = [np.ravel(polygon).astype(np.float64).tolist() for polygon in polygons]
    if not flat:
        return np.zeros((height, width), dtype=bool)
    region = coco_mask.merge(coco_mask.frPyObjects(flat, height, width))
    return coco_mask.decode(region) > 0
