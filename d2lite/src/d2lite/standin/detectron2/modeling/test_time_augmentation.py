"""Test-time augmentation: resized and mirrored views of an image."""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import transforms as T

from d2lite.omitted import omitted_names

__getattr__ = omitted_names(__name__, "GeneralizedRCNNWithTTA")


class DatasetMapperTTA:
    """Views of a model's input by shorter side (pixels, the longer up to ``max_size``), mirrored ones if ``flip``."""

    @configurable
    def __init__(self, min_sizes: Sequence[int], max_size: int, flip: bool):
        self.min_sizes, self.max_size, self.flip = min_sizes, max_size, flip

    @classmethod
    def from_config(cls, cfg) -> dict:
        """The arguments out of ``TEST.AUG``."""
        return {name: cfg.TEST.AUG[name.upper()] for name in ("min_sizes", "max_size", "flip")}

    def __call__(self, dataset_dict: dict) -> list[dict]:
        """The views of one image (C, H, W), by size, each followed by its mirror image.

        They are copies of the dict with another ``image`` and with ``transforms``, the way from the file's size to it.
        """
        pixels = dataset_dict["image"].numpy().transpose(1, 2, 0)
        height, width = pixels.shape[:2]
        stored = dataset_dict.get("height", height), dataset_dict.get("width", width)
        so_far = T.TransformList([] if stored == (height, width) else [T.ResizeTransform(*stored, height, width)])
        rest = {key: value for key, value in dataset_dict.items() if key != "image"}
        views = []
        for size in self.min_sizes:
            for mirror in ([], [T.RandomFlip(1.0)]) if self.flip else ([],):
                seen = T.AugInput(pixels.copy())
                way = T.AugmentationList([T.ResizeShortestEdge(size, self.max_size), *mirror])(seen)
                image = torch.from_numpy(np.moveaxis(seen.image, -1, 0).copy())
                views.append(deepcopy(rest) | {"image": image, "transforms": so_far + way})
        return views
