"""An image, its objects and their metadata, for the tests of drawing."""

from types import SimpleNamespace

import numpy as np
import torch
from detectron2.structures import BitMasks, Instances

H, W = 120, 160
GREY = np.full((H, W, 3), 120, np.uint8)


class Meta(SimpleNamespace):
    """As detectron2's Metadata: attributes, and get with a default."""

    def get(self, key, default=None):
        return getattr(self, key, default)


META = Meta(
    thing_classes=["cat", "dog"],
    thing_colors=[(255, 0, 0), (0, 0, 255)],
    stuff_classes=["cat", "dog", "grass"],
    stuff_colors=[(255, 0, 0), (0, 0, 255), (0, 255, 0)],
    ignore_label=255,
    label_divisor=1000,
    thing_dataset_id_to_contiguous_id={7: 0, 9: 1},
)


def rectangle(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros((H, W), dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


LEFT, RIGHT = rectangle(10, 20, 70, 100), rectangle(90, 20, 150, 100)


def away_from(*masks: np.ndarray, margin: int = 6) -> np.ndarray:
    """Where nothing near a mask is."""
    near = np.zeros((H, W), dtype=bool)
    for y, x in np.argwhere(np.any(masks, axis=0))[::7]:
        near[max(0, y - margin) : y + margin + 1, max(0, x - margin) : x + margin + 1] = True
    return ~near


def unchanged(drawing: np.ndarray, where: np.ndarray, image: np.ndarray = GREY) -> bool:
    return np.abs(drawing.astype(int) - image)[where].mean() < 3


def predictions(*masks: np.ndarray, boxes: bool = False, classes=None, scores=True) -> Instances:
    instances = Instances((H, W))
    n = len(masks)
    instances.pred_masks = torch.from_numpy(np.array(masks).reshape(n, H, W))
    if boxes:
        instances.pred_boxes = BitMasks(instances.pred_masks).get_bounding_boxes()
    if scores:
        instances.scores = torch.linspace(0.9, 0.5, n)
    if classes is not None:
        instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
    return instances


def mean_color(drawing: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return drawing[mask].mean(axis=0)


def panoptic() -> tuple[np.ndarray, list[dict]]:
    ids = np.zeros((H, W), dtype=np.int32)
    ids[LEFT], ids[RIGHT] = 1, 5
    return ids, [
        {"id": 1, "category_id": 2, "isthing": False, "area": int(LEFT.sum())},
        {"id": 5, "category_id": 1, "isthing": True, "score": 0.8},
    ]
