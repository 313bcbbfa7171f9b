"""The segmenter of stage 1, frozen: it segments, remembers what it has segmented, and matches queries with targets."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.structures import ImageList
from torch import Tensor

from PADing.generation.segmenter_cache import SegmenterCache
from PADing.generation.starting_weights import explain_name, explain_unfit_weights, explain_wrong_class_count
from PADing.meta_arch import SegmenterBase


class FrozenSegmenter(SegmenterBase):
    """Base of methods that train something else on the outputs of a trained segmenter.

    Args:
        segmenter_cache: folder for the frozen segmenter's outputs, see ``SegmenterCache``; empty: they are not kept.
        random_segmenter: train also without weights of stage 1.
        common: see ``SegmenterBase``.
    """

    def __init__(self, *, segmenter_cache: str = "", random_segmenter: bool = False, **common) -> None:
        super().__init__(**common)
        self.segmenter_frozen, self.random_segmenter = False, random_segmenter
        self.cache = SegmenterCache(segmenter_cache, (self.backbone, self.sem_seg_head)) if segmenter_cache else None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """The base's arguments and those of the freezing."""
        node = cfg.MODEL.MASK_FORMER
        return {
            **super().from_config(cfg),
            "segmenter_cache": node.SEGMENTER_CACHE,
            "random_segmenter": node.RANDOM_SEGMENTER,
        }

    def freeze_segmenter(self) -> None:
        """Train nothing of backbone and head from now on."""
        for part in (self.backbone, self.sem_seg_head):
            part.requires_grad_(False)
        self.segmenter_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> "FrozenSegmenter":
        """As every module's; but a frozen segmenter stays in evaluation mode, so that no running statistics change."""
        super().train(mode)
        if self.segmenter_frozen:
            self.backbone.eval()
            self.sem_seg_head.eval()
        return self

    def segment(self, images: ImageList) -> dict:
        """Run backbone and head, or take their outputs from the cache."""
        if self.cache is None or not self.segmenter_frozen:
            return super().segment(images)
        return self.cache(images.tensor, lambda: super(FrozenSegmenter, self).segment(images))

    @torch.no_grad()
    def match(self, batched_inputs: list[dict]) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Run the segmenter and match its queries with the targets.

        Returns:
            query features (B, Q, d); classes (B, Q), C for unmatched queries; labels (M,) of the matched queries; their
            (image, query) indices.
        """
        images = self.preprocess(batched_inputs)
        outputs = self.segment(images)
        targets = self.prepare_targets(self.instances_of(batched_inputs), images)
        classes, labels, matched = self.criterion.match(outputs, targets)
        return outputs["pred_embed"], self.label_unmatched(classes, outputs, targets), labels, matched

    def label_unmatched(self, classes: Tensor, outputs: dict[str, Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
        """``classes`` (B, Q), where a method may give labels of its own to unmatched queries."""
        return classes

    # ---- weights of other stages

    @classmethod
    def explain_named_weights(cls, cfg: CfgNode) -> str:
        """A training needs the weights of a segmenter."""
        return "" if cfg.MODEL.MASK_FORMER.RANDOM_SEGMENTER else explain_name(cfg.MODEL.WEIGHTS)

    def explain_missing_weights(self, missing: list[str], found: list[str]) -> str:
        """A frozen segmenter would stay random where the file has no weights."""
        if self.random_segmenter:
            return ""
        learned = {name for name, _ in self.named_parameters()}
        return explain_unfit_weights(learned.intersection(missing), found, training=self.segmenter_frozen)

    def explain_wrong_shapes(self, keys: Sequence[str]) -> str:
        """Stage 2 has more classes than stage 1."""
        return explain_wrong_class_count(keys)
