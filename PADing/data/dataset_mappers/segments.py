"""A panoptic map as small numbers, which are resized, cropped and compared in less time than ids."""

from collections.abc import Sequence

import numpy as np
from detectron2.data import transforms as T
from panopticapi.utils import id2rgb, rgb2id

from PADing.data.dataset_mappers.placement import Placement

MOST_IDS = 2**24  # of three bytes


class SegmentMap:
    """Which of the listed segments each pixel of a panoptic map belongs to.

    Args:
        ids: (H, W) segment ids of a PNG, int32.
        segments: ``segments_info``.

    Attributes:
        numbers: (H, W), the number of each pixel's segment; 0 for ids that are not listed.
    """

    def __init__(self, ids: np.ndarray, segments: Sequence[dict]):
        self.number = {id_: number for number, id_ in enumerate(dict.fromkeys(s["id"] for s in segments), 1)}
        self._ids, self._segments = ids, segments
        # Only the few pages of the table that are used take memory.
        table = np.zeros(MOST_IDS, dtype=np.min_scalar_type(len(self.number)))
        for id_, number in self.number.items():
            table[id_] = number
        self.numbers = table[ids]

    def moved(self, transforms: T.TransformList, placement: Placement | None = None) -> np.ndarray:
        """``numbers`` of the augmented image. ``placement``: the same as ``transforms``, in one step."""
        if placement is not None:
            return placement.labels(self.numbers, self.number.get(0, 0))
        # Pillow's nearest neighbour, by which Detectron2 resizes bytes alone.
        if self.numbers.dtype == np.uint8 and 0 not in self.number:
            return transforms.apply_segmentation(self.numbers)
        return SegmentMap(rgb2id(transforms.apply_segmentation(id2rgb(self._ids))), self._segments).numbers

    def classes(self, ignore_label: int) -> np.ndarray:
        """The contiguous class of each pixel, int32 (H, W); ``ignore_label`` without a segment."""
        table = np.full(len(self.number) + 1, ignore_label, dtype=np.int32)
        for segment in self._segments:
            table[self.number[segment["id"]]] = segment["category_id"]
        return table[self.numbers]

    def masks(self, numbers: np.ndarray) -> tuple[list[int], np.ndarray]:
        """Contiguous classes and bool masks (n, H, W) of all segments but crowds, from transformed ``numbers``."""
        targets = [segment for segment in self._segments if not segment.get("iscrowd", 0)]
        masks = np.empty((len(targets), *numbers.shape), dtype=bool)
        for mask, segment in zip(masks, targets, strict=True):
            np.equal(numbers, self.number[segment["id"]], out=mask)
        return [segment["category_id"] for segment in targets], masks
