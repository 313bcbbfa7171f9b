"""The head of MaskFormer and its descendants: a pixel decoder, then a transformer decoder."""

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor, nn

from PADing.modeling.heads.pixel_decoder_head import PixelDecoderHead


@SEM_SEG_HEADS_REGISTRY.register()
class MaskFormerHead(PixelDecoderHead):
    """Pixel decoder and transformer decoder.

    Args:
        transformer_predictor: the transformer decoder.
        loss_weight, ignore_value: kept for callers that ask the head for them.
        shared: see :class:`PixelDecoderHead`.
    """

    @configurable
    def __init__(self, input_shape: dict[str, ShapeSpec], *, transformer_predictor: nn.Module, **shared) -> None:
        super().__init__(input_shape, predictor=transformer_predictor, **shared)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict:
        """Arguments from ``MODEL.SEM_SEG_HEAD`` and ``MODEL.MASK_FORMER``."""
        shared = super().from_config(cfg, input_shape)
        return {**shared, **cls.transformer_arguments(cfg, input_shape, classify=True)}

    def forward(self, features: dict[str, Tensor], mask: Tensor | None = None) -> dict:
        """Backbone maps -> the transformer decoder's predictions."""
        return self.transformer_outputs(features, mask)
