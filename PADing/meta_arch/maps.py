"""Maps (C, H, W) of one image that are computed in horizontal strips, so that they need not fit into memory.

A model predicts masks at a quarter of its input's side, but results have the size of the user's image, and C maps of a
12-megapixel image take gigabytes. All that results need (sums, the largest value, binary masks) can be computed strip
by strip.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

# On a GPU, maps of up to AT_ONCE elements (100 masks of 640 x 480) are computed at once. Larger ones are computed in
# strips of STRIP elements; on a CPU all are, because a strip stays in its cache.
AT_ONCE, STRIP = 2**25, 2**21
# Strips are no thinner than this, because each also computes some rows of its neighbours.
LEAST_ROWS = 16
# Positions of rows are float32, whose error in a map of 16,000 rows is below this.
ROUNDING = 1e-3
# Elements of the largest result that is returned as a tensor (1 GiB of floats: 100 masks of 2.7 megapixels).
LARGEST_TENSOR = 2**28


class Maps:
    """C maps of H x W.

    Attributes:
        shape: (C, H, W).
        device: where rows are computed.
        breadth: the number of maps that are in memory while rows are computed.
    """

    def __init__(self, count: int, size: tuple[int, int], device: torch.device, breadth: int):
        self.shape, self.device, self.breadth = (count, *size), device, breadth

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows start .. stop - 1 of all maps: (C, stop - start, W)."""
        raise NotImplementedError

    def strips(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield all rows from top to bottom in strips of bounded size: (slice of rows, (C, rows, W))."""
        height, row = self.shape[1], max(1, self.breadth * self.shape[2])
        at_once = STRIP if self.device.type == "cpu" else AT_ONCE
        step = height if height * row <= at_once else max(LEAST_ROWS, STRIP // row)
        for start in range(0, height, step):
            stop = min(height, start + step)
            yield slice(start, stop), self.rows(start, stop)

    def tensor(self) -> Tensor:
        """All rows: (C, H, W)."""
        strips = self.strips()
        rows, strip = next(strips)
        if strip.shape[1] == self.shape[1]:
            return strip
        result = strip.new_empty(self.shape)
        result[:, rows] = strip
        for rows, strip in strips:
            result[:, rows] = strip
        return result

    def argmax(self, dim: int = 0) -> Tensor:
        """The map with the largest value at each pixel: (H, W) int32. Only ``dim=0`` is possible."""
        if dim != 0:
            raise NotImplementedError(f"argmax of maps is over dim 0, not {dim}")
        result = torch.empty(self.shape[1:], dtype=torch.int32, device=self.device)
        for rows, strip in self.strips():
            result[rows] = strip.max(0).indices  # faster than argmax
        return result

    def __getitem__(self, index) -> "Maps":
        """Some of the maps, by a list of indices, a tensor or a slice."""
        raise NotImplementedError

    def __len__(self) -> int:
        return self.shape[0]


class Stored(Maps):
    """A tensor (C, H, W)."""

    def __init__(self, maps: Tensor):
        count, height, width = maps.shape
        super().__init__(count, (height, width), maps.device, count)
        self.maps = maps

    def rows(self, start: int, stop: int) -> Tensor:
        """A view of the tensor."""
        return self.maps[:, start:stop]

    def __getitem__(self, index) -> "Stored":
        return Stored(self.maps[index])


class Resized(Maps):
    """Maps that are cropped at the right and bottom, then resized bilinearly (``align_corners=False``).

    Bilinear resizing treats rows and columns one after the other, and is linear. So columns are resized in the few rows
    of the source, and one matrix product makes the rows of the result, also for a ``Resized`` of a ``Resized``. Values
    are those of ``F.interpolate`` but for rounding.

    Args:
        source: the maps.
        size: (H, W) of the result.
        crop: (height, width) of the part to resize; None: all.
    """

    def __init__(self, source: Maps, size: tuple[int, int], crop: tuple[int, int] | None = None):
        super().__init__(len(source), size, source.device, source.breadth)
        self.source, self.size, self.crop = source, size, crop or source.shape[1:]

    def rows(self, start: int, stop: int) -> Tensor:
        """Compute these rows from the source's rows that they need."""
        with torch.autocast(self.device.type, enabled=False):  # which would round the positions of rows
            weights, first, last = self._row_weights(start, stop)
            maps = self._origin().rows(first, last)
            # An infinite value (half precision may overflow) times a weight of 0 would be NaN in other rows.
            limit = torch.finfo(maps.dtype).max / 4
            maps = self._resize_columns(maps.clamp(-limit, limit))
            if weights is None:
                return maps
            kind = torch.promote_types(maps.dtype, torch.float32)
            return torch.matmul(weights.to(kind), maps.to(kind)).to(maps.dtype)

    def _origin(self) -> Maps:
        """The maps that nothing has resized yet."""
        return self.source._origin() if isinstance(self.source, Resized) else self.source

    def _row_weights(self, start: int, stop: int) -> tuple[Tensor | None, int, int]:
        """The origin's rows ``first .. last - 1`` that make rows ``start .. stop - 1``, and their weights.

        Weights are (stop - start, last - first) float32; None: they are the rows.
        """
        weights, height = None, self.crop[0]
        if height != self.size[0]:
            # As F.interpolate: the centre of row r is at (r + 0.5) * in / out - 0.5 in the source.
            scale = height / self.size[0]
            centre = torch.arange(start, stop, dtype=torch.float32, device=self.device) + 0.5
            centre = (centre * scale - 0.5).clamp(0, height - 1)
            start = max(0, math.floor((start + 0.5) * scale - 0.5 - ROUNDING))
            stop = min(height, math.floor((stop - 0.5) * scale - 0.5 + ROUNDING) + 2)
            distance = centre[:, None] - torch.arange(start, stop, device=self.device)
            weights = F.relu(1 - distance.abs())
        if not isinstance(self.source, Resized):
            return weights, start, stop
        inner, first, last = self.source._row_weights(start, stop)
        if weights is not None:
            inner = weights if inner is None else weights @ inner
        return inner, first, last

    def _resize_columns(self, maps: Tensor) -> Tensor:
        """Rows of the origin (C, n, .) at the width of the result: (C, n, W)."""
        if isinstance(self.source, Resized):
            maps = self.source._resize_columns(maps)
        maps, width = maps[:, :, : self.crop[1]], self.size[1]
        if self.crop[1] == width:
            return maps
        if len(maps) == 0:  # which F.interpolate refuses
            return maps.new_empty(0, maps.shape[1], width)
        return F.interpolate(maps[None], size=(maps.shape[1], width), mode="bilinear", align_corners=False)[0]

    def __getitem__(self, index) -> "Resized":
        return Resized(self.source[index], self.size, self.crop)


class WeightedMasks(Maps):
    """One sum of soft masks per class: ``sum over q of weights[q, c] * sigmoid(masks[q])``.

    Args:
        weights: (Q, K).
        masks: Q maps of logits.
    """

    def __init__(self, weights: Tensor, masks: Maps):
        classes = weights.shape[1]
        super().__init__(classes, masks.shape[1:], masks.device, max(classes, masks.breadth))
        self.weights, self.masks = weights, masks

    def rows(self, start: int, stop: int) -> Tensor:
        """The sums in these rows."""
        soft = self.masks.rows(start, stop).sigmoid()
        return (self.weights.t() @ soft.flatten(1)).unflatten(1, soft.shape[1:])

    def __getitem__(self, index) -> "WeightedMasks":
        return WeightedMasks(self.weights[:, index], self.masks)


class Mirrored(Maps):
    """Maps with left and right exchanged."""

    def __init__(self, source: Maps):
        super().__init__(len(source), source.shape[1:], source.device, source.breadth)
        self.source = source

    def rows(self, start: int, stop: int) -> Tensor:
        """The source's rows, from right to left."""
        return self.source.rows(start, stop).flip(-1)

    def __getitem__(self, index) -> "Mirrored":
        return Mirrored(self.source[index])


class MeanMaps(Maps):
    """The mean of several maps of one shape."""

    def __init__(self, sources: Sequence[Maps]):
        first = sources[0]
        super().__init__(len(first), first.shape[1:], first.device, max(source.breadth for source in sources))
        self.sources = sources

    def rows(self, start: int, stop: int) -> Tensor:
        """The mean of these rows."""
        total = self.sources[0].rows(start, stop).clone()
        for source in self.sources[1:]:
            total += source.rows(start, stop)
        return total.div_(len(self.sources))

    def __getitem__(self, index) -> "MeanMaps":
        return MeanMaps([source[index] for source in self.sources])


class BinaryMasks:
    """``pred_masks`` of an image that is too large for a tensor: a sequence of (H, W) bool masks.

    Like a tensor (N, H, W) in ``Instances``, it has a length and can be indexed, iterated over and moved. A mask is
    computed on access.
    """

    def __init__(self, logits: Maps):
        self.logits = logits
        self.shape, self.device = logits.shape, logits.device

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, index):
        """For an integer one mask (H, W) bool; for indices, flags or a slice the chosen masks as BinaryMasks."""
        if isinstance(index, int):
            index = range(len(self))[index]
            return torch.cat([strip[0] > 0 for _, strip in self.logits[index : index + 1].strips()])
        return BinaryMasks(self.logits[index])

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def to(self, *args, **kwargs) -> "BinaryMasks":
        """The same masks, computed on another device."""
        return BinaryMasks(_moved(self.logits, *args, **kwargs))


def _moved(maps: Maps, *args, **kwargs) -> Maps:
    if isinstance(maps, Resized):
        return Resized(_moved(maps.source, *args, **kwargs), maps.size, maps.crop)
    return Stored(maps.tensor().to(*args, **kwargs))


def as_maps(maps: Maps | Tensor) -> Maps:
    """``maps`` itself, or a tensor (C, H, W) as :class:`Stored`."""
    return maps if isinstance(maps, Maps) else Stored(maps)


def fits(shape: Sequence[int]) -> bool:
    """Whether a result of this shape is small enough to be returned as a tensor."""
    return math.prod(shape) <= LARGEST_TENSOR


def held(maps: Maps) -> Tensor | Maps:
    """The maps as a tensor if it fits, else unchanged."""
    return maps.tensor() if fits(maps.shape) else maps


def computed(maps: Maps) -> Maps:
    """Small maps as :class:`Stored`, to compute them once; large ones unchanged."""
    return Stored(maps.tensor()) if math.prod(maps.shape) <= AT_ONCE else maps
