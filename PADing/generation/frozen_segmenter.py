"""The frozen segmenter of stage 1: runs or takes its outputs from a cache, and matches queries with targets."""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode
from detectron2.structures import ImageList
from torch import Tensor

from PADing.generation.segmenter_cache import SegmenterCache
from PADing.generation.starting_weights import StartingWeights
from PADing.meta_arch import SegmenterBase


class FrozenSegmenter(StartingWeights, SegmenterBase):
    """Base of methods that train other networks on the outputs of a trained segmenter.

    Args:
        segmenter_cache: folder for the frozen segmenter's outputs, see ``SegmenterCache``; "": no cache.
        random_segmenter: allow training without weights of stage 1.
        common: see ``SegmenterBase``.
    """

    def __init__(self, *, segmenter_cache: str = "", random_segmenter: bool = False, **common) -> None:
        super().__init__(**common)
        self.segmenter_frozen, self.random_segmenter = False, random_segmenter
        self.parts = 1  # micro-batches
        self.cache = SegmenterCache(segmenter_cache, (self.backbone, self.sem_seg_head)) if segmenter_cache else None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """The base's arguments and this class's."""
        node = cfg.MODEL.MASK_FORMER
        own = {"segmenter_cache": node.SEGMENTER_CACHE, "random_segmenter": node.RANDOM_SEGMENTER}
        return {**super().from_config(cfg), **own}

    def freeze_segmenter(self) -> None:
        """Stop training backbone and head, and keep them in evaluation mode."""
        for part in (self.backbone, self.sem_seg_head):
            part.requires_grad_(False)
        self.segmenter_frozen = True
        self.train(self.training)

    def train(self, mode: bool = True) -> "FrozenSegmenter":
        """As in ``nn.Module``, but a frozen segmenter stays in evaluation mode, so its running statistics are fixed."""
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
        """Run the segmenter and match its queries with the targets, one micro-batch after another.

        Returns:
            query features (B, Q, d); classes (B, Q), C for unmatched queries; labels (M,) and (image, query) indices of
            the matched queries.
        """
        size = len(batched_inputs) // self.parts
        starts = range(0, len(batched_inputs), size)
        found = [self._match_part(batched_inputs[start : start + size]) for start in starts]
        if len(found) == 1:
            return found[0]
        features, classes, labels, matched = zip(*found, strict=True)
        image = torch.cat([image + start for start, (image, _) in zip(starts, matched, strict=True)])
        query = torch.cat([query for _, query in matched])
        return torch.cat(features), torch.cat(classes), torch.cat(labels), (image, query)

    def _match_part(self, batched_inputs: list[dict]) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        images = self.preprocess(batched_inputs)
        outputs = self.segment(images)
        targets = self.prepare_targets(self.instances_of(batched_inputs), images)
        classes, labels, matched = self.criterion.match(outputs, targets)
        return outputs["pred_embed"], self.label_unmatched(classes, outputs, targets), labels, matched

    def begin_micro_batches(self, parts: Sequence[list[dict]]) -> None:
        """As in the base; :meth:`match` runs the segmenter on one of ``parts`` after another."""
        super().begin_micro_batches(parts)
        self.parts = max(len(parts), 1)

    def label_unmatched(self, classes: Tensor, outputs: dict[str, Tensor], targets: list[dict[str, Tensor]]) -> Tensor:
        """``classes`` (B, Q); a method may override this to give labels to unmatched queries."""
        return classes
