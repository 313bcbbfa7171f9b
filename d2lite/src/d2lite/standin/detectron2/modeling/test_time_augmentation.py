"""Several views of one image."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data.transforms import (
    NoOpTransform,
    RandomFlip,
    ResizeShortestEdge,
    ResizeTransform,
    apply_augmentations,
)

from d2lite.omitted import omitted_names


class DatasetMapperTTA:
    """Make resized and flipped copies of the input of a model.

    Args:
        min_sizes: lengths of the shorter side, in pixels; one copy for each.
        max_size: the longer side does not exceed it.
        flip: make also a horizontally flipped copy of each.
    """

    @configurable
    def __init__(self, min_sizes: Sequence[int], max_size: int, flip: bool):
        self.min_sizes = min_sizes
        self.max_size = max_size
        self.flip = flip

    @classmethod
    def from_config(cls, cfg) -> dict:
        return {
            "min_sizes": cfg.TEST.AUG.MIN_SIZES,
            "max_size": cfg.TEST.AUG.MAX_SIZE,
            "flip": cfg.TEST.AUG.FLIP,
        }

    def __call__(self, dataset_dict: dict) -> list[dict]:
        """Make the copies of one image.

        Args:
            dataset_dict: ``image`` (C, H, W); ``height`` and ``width`` of the original when it was resized.

        Returns:
            One dict per copy, with ``image`` (C, h, w) of the same dtype, and ``transforms`` from the original size to
            that copy; everything else is copied. The order is: first size, first size flipped, second size, ...
        """
        image = dataset_dict["image"].permute(1, 2, 0).numpy()
        others = {key: value for key, value in dataset_dict.items() if key != "image"}
        size = image.shape[:2]
        original = dataset_dict.get("height", size[0]), dataset_dict.get("width", size[1])
        resized = NoOpTransform() if size == original else ResizeTransform(*original, *size)

        copies = []
        for min_size in self.min_sizes:
            resize = ResizeShortestEdge(min_size, self.max_size)
            for augmentations in [[resize], [resize, RandomFlip(prob=1.0)]] if self.flip else [[resize]]:
                view, transforms = apply_augmentations(augmentations, np.copy(image))
                copies.append(
                    {
                        **copy.deepcopy(others),
                        "image": torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1))),
                        "transforms": resized + transforms,
                    }
                )
        return copies


__getattr__ = omitted_names(__name__, ["GeneralizedRCNNWithTTA"])
