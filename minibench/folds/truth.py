"""The annotation of a validation set in memory, and the masks of one image beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from torch import Tensor
from torch.nn import functional as F

from PADing.class_space import ClassSpace
from PADing.data.images import read_panoptic_ids

__all__ = ["Picture", "Truth", "picture", "read_truth"]


@dataclass(frozen=True)
class Truth:
    """The segments of N images of H x W pixels, without crowd regions.

    Attributes:
        maps: (N, H, W) uint8: 0 for void, i for the i-th segment of the image, from 1.
        labels: for each image (n,) int64, the classes of its segments, as positions in ``names``.
        names: of all classes. things, unseen: (K,) bool.
        images: ids.
    """

    maps: np.ndarray
    labels: tuple[np.ndarray, ...]
    names: tuple[str, ...]
    things: np.ndarray
    unseen: np.ndarray
    images: tuple[int, ...]


def read_truth(data_set: str) -> Truth:
    """The annotation of a registered panoptic data set whose images have one size."""
    space = ClassSpace.of(MetadataCatalog.get(data_set))
    maps, labels, images = [], [], []
    for record in DatasetCatalog.get(data_set):
        ids = read_panoptic_ids(record["pan_seg_file_name"])
        own = np.zeros(ids.shape, dtype=np.uint8)
        for number, segment in enumerate(record["segments_info"], start=1):
            own[ids == segment["id"]] = number
        maps.append(own)
        labels.append(np.array([segment["category_id"] for segment in record["segments_info"]], dtype=np.int64))
        images.append(int(record["image_id"]))
    every = np.arange(len(space))
    return Truth(
        np.stack(maps),
        tuple(labels),
        space.class_names,
        np.isin(every, sorted(space.things)),
        np.isin(every, sorted(space.unseen)),
        tuple(images),
    )


@dataclass(frozen=True)
class Picture:
    """One image: Q predicted masks and G true segments, as far as no class is involved.

    Attributes:
        soft: (Q, P) float32, mask probabilities of all pixels. inside: (Q, P) bool, at least one half.
        truth: (P,) int64, the number of the true segment; 0 for void.
        labels: (G,) int64. areas: (G,) float64, pixels of the segments.
        overlap: (Q, G + 1) float64, pixels of each mask in void and in each segment.
        certainty: (Q,) float64, mean probability inside the mask.
    """

    soft: Tensor
    inside: Tensor
    truth: Tensor
    labels: np.ndarray
    areas: np.ndarray
    overlap: np.ndarray
    certainty: np.ndarray

    def iou(self) -> np.ndarray:
        """(Q, G) IoU of masks and segments, void pixels counted as others."""
        common = self.overlap[:, 1:]
        union = self.overlap.sum(1)[:, None] + self.areas - common
        return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def picture(masks: Tensor, truth_map: np.ndarray, labels: Sequence[int] | np.ndarray) -> Picture:
    """Resize mask logits (Q, h, w) to the map (H, W), as inference does, and count pixels."""
    resized = F.interpolate(masks[None].float(), size=truth_map.shape, mode="bilinear", align_corners=False)[0]
    soft = resized.flatten(1).sigmoid_()
    inside = soft >= 0.5
    truth = torch.from_numpy(truth_map.reshape(-1).astype(np.int64))
    flags = F.one_hot(truth, len(labels) + 1).float()
    overlap = (inside.float() @ flags).double().numpy()
    total = F.threshold(soft, 0.5, 0).sum(1)
    certainty = (total / (inside.float().sum(1) + 1e-6)).double().numpy()
    areas = flags.sum(0)[1:].double().numpy()
    return Picture(soft, inside, truth, np.asarray(labels, dtype=np.int64), areas, overlap, certainty)
