"""Test-time augmentation: results from resized and mirrored views of an image, for all three kinds of segmentation.

Semantic scores are the mean of those of all views. For panoptic and instance results, the queries of all views are
merged first (:mod:`PADing.meta_arch.merging`); then results are computed from them as from the queries of one view.
Views are processed one after another, so memory holds one view's networks and the merged masks.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils.memory import retry_if_cuda_oom
from torch import Tensor, nn
from torch.nn import functional as F

from PADing.data.resizing import resized
from PADing.errors import UserError
from PADing.meta_arch.common import QueryPredictions, SegmenterBase
from PADing.meta_arch.maps import Maps, MeanMaps, Mirrored, Resized, Stored, as_maps, computed, held
from PADing.meta_arch.merging import MergedQueries

MASK_STRIDE = 4  # the model predicts masks at a quarter of its input's side; merging uses that of the largest view


def check_augmentable(model: Any) -> None:
    """UserError if a model or meta-architecture cannot be evaluated with ``TEST.AUG.ENABLED``."""
    kind = model if isinstance(model, type) else type(model)
    if not issubclass(kind, SegmenterBase):
        raise UserError(
            f"TEST.AUG.ENABLED is True, but {kind.__name__} is not built on SegmenterBase, whose predictions can be "
            "merged. Set TEST.AUG.ENABLED False."
        )


def augmented(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """``model`` with the test-time augmentation of ``TEST.AUG``; the model itself if that is off."""
    if not cfg.TEST.AUG.ENABLED:
        return model
    check_augmentable(model)
    assert isinstance(model, SegmenterBase)
    return TestTimeAugmentation(model, cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE, cfg.TEST.AUG.FLIP)


class TestTimeAugmentation(nn.Module):
    """A model in evaluation whose results are those of several views.

    With one view that has the size of the image, the results are those of the model, bit by bit.

    Args:
        model: the model.
        min_sizes: shorter sides of the views in pixels.
        max_size: largest longer side.
        flip: mirror each view, too.
    """

    __test__ = False  # pytest would take it for a test

    def __init__(self, model: SegmenterBase, min_sizes: Sequence[int], max_size: int, flip: bool):
        super().__init__()
        self.model = model
        self.sizes, self.max_size = tuple(dict.fromkeys(min_sizes)), max_size
        self.mirrored = (False, True) if flip else (False,)

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """Results as of the model in evaluation, at ``height`` and ``width`` of each input."""
        return [self._image(sample) for sample in batched_inputs]

    @torch.no_grad()
    def _image(self, sample: dict) -> dict:
        height, width = sample["image"].shape[-2:]
        size = sample.get("height", height), sample.get("width", width)
        record = {"height": size[0], "width": size[1]}
        pixels = sample["image"].permute(1, 2, 0).cpu().numpy()
        views = [_tensor(resized(pixels, side, self.max_size)) for side in self.sizes]
        if len(views) == len(self.mirrored) == 1:
            return self.model([{"image": views[0], **record}])[0]
        scores = _MeanScores()
        largest = max(views, key=torch.numel)
        grid = (-(-largest.shape[1] // MASK_STRIDE), -(-largest.shape[2] // MASK_STRIDE))
        merged = MergedQueries(len(views) * len(self.mirrored), 2 * self.model.num_queries)
        for view, mirrored in itertools.product(views, self.mirrored):
            found = self._predictions({"image": view.flip(-1) if mirrored else view, **record})
            if self.model.semantic_on:
                scores.add(self._semantic(found, size), mirrored)
            if self.model.panoptic_on or self.model.instance_on:
                merged.add(*self._on_grid(found, grid, mirrored))
        result: dict[str, Any] = {"sem_seg": scores.mean()} if self.model.semantic_on else {}
        if self.model.panoptic_on or self.model.instance_on:
            result |= retry_if_cuda_oom(self._segments)(merged, size)
        return result

    def _predictions(self, view: dict) -> QueryPredictions:
        self.model.collected = []
        try:
            self.model([view])
            return self.model.collected[0]
        finally:
            self.model.collected = None

    def _semantic(self, found: QueryPredictions, size: tuple[int, int]) -> Tensor | Maps:
        model = self.model
        maps = Resized(Stored(found.mask_logits), found.padded)
        if model.sem_seg_postprocess_before_inference:
            return model.semantic_inference(found.class_logits, computed(Resized(maps, size, crop=found.image_size)))
        scores = model.semantic_inference(found.class_logits, computed(maps))
        return held(Resized(as_maps(scores), size, crop=found.image_size))

    def _on_grid(self, found: QueryPredictions, grid: tuple[int, int], mirrored: bool) -> tuple[Tensor, Tensor]:
        """Class and mask probabilities of a view's queries, masks as of the image itself."""
        logits = found.mask_logits.float()
        # The part of the padded image that is the image, as an affine map of -1..1; in one step, so that a view on its
        # own grid is not blurred.
        tall, wide = (own / whole for own, whole in zip(found.image_size, found.padded, strict=True))
        across = [-wide if mirrored else wide, 0, wide - 1]
        theta = logits.new_tensor([[across, [0, tall, tall - 1]]])
        places = F.affine_grid(theta, [1, 1, *grid], align_corners=False)
        soft = F.grid_sample(logits[None], places, padding_mode="border", align_corners=False)[0].sigmoid_()
        return (self.model.inverse_temperature * found.class_logits.float()).softmax(-1), soft

    def _segments(self, merged: MergedQueries, size: tuple[int, int]) -> dict:
        classes, masks = merged.result()
        logits = classes.log() / self.model.inverse_temperature
        return self.model.segment_results(logits, computed(Resized(Stored(masks), size)))


class _MeanScores:
    """The mean of semantic scores (K, H, W) over views: a running sum, or a list of maps that are too large for one."""

    def __init__(self) -> None:
        self.sum: Tensor | None = None
        self.maps: list[Maps] = []
        self.count = 0

    def add(self, scores: Tensor | Maps, mirrored: bool) -> None:
        self.count += 1
        if isinstance(scores, Maps):
            self.maps.append(Mirrored(scores) if mirrored else scores)
            return
        scores = scores.flip(-1) if mirrored else scores
        self.sum = scores if self.sum is None else self.sum.add_(scores)

    def mean(self) -> Tensor | Maps:
        if self.maps:
            return MeanMaps(self.maps)
        assert self.sum is not None
        return self.sum.div_(self.count)


def _tensor(pixels: np.ndarray) -> Tensor:
    """An image (H, W, C) as (C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
