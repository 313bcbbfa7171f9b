"""Mask2Former: stage 1 of PADing, and the baseline without a zero-shot method."""

from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY

from PADing.meta_arch.common import SegmenterBase


@META_ARCH_REGISTRY.register()
class MaskFormer(SegmenterBase):
    """Mask classification with masked attention (Cheng et al., 2022): semantic, instance, panoptic segmentation."""

    @configurable
    def __init__(self, **common) -> None:
        super().__init__(**common)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        """The base's arguments, with ``TEST.BOXES_FROM_MASKS``."""
        return {**super().from_config(cfg), "boxes_from_masks": cfg.MODEL.MASK_FORMER.TEST.BOXES_FROM_MASKS}

    def forward(self, batched_inputs: list[dict]) -> list[dict] | dict:
        """Weighted losses by name in training; results in evaluation, see :meth:`SegmenterBase.infer`.

        Args:
            batched_inputs: a dict per image with ``image`` (3, H, W), uint8 or float on the scale 0..255, channels as
                in ``INPUT.FORMAT``; in training ``instances`` with ``gt_classes`` (n) and ``gt_masks`` (n, H, W);
                in evaluation optionally ``height`` and ``width`` of the result.
        """
        images = self.preprocess(batched_inputs)
        if self.training:
            outputs = self.segment(images)
            targets = self.prepare_targets(self.instances_of(batched_inputs), images)
            return self.weighted_losses(self.criterion(outputs, targets))
        return self.infer(*self.predict(images), batched_inputs, images)
