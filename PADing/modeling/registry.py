"""Builds the pixel decoder and the transformer decoder that a config names."""

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from detectron2.utils.registry import Registry
from torch import nn

from PADing.errors import UserError, did_you_mean

# Transformer decoders, called with (cfg, in_channels, mask_classification): they map multi-scale features and mask
# features to classes and masks of queries.
TRANSFORMER_DECODER_REGISTRY = Registry("TRANSFORMER_MODULE")


def build_pixel_decoder(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """Build the pixel decoder of ``MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME``; UserError if it is not a pixel decoder."""
    key, name = "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME
    model = _registered(SEM_SEG_HEADS_REGISTRY, key, name)(cfg, input_shape)
    if not callable(getattr(model, "forward_features", None)):
        raise UserError(f"{key} is {name!r}, which is not a pixel decoder: it has no forward_features method.")
    return model


def build_transformer_decoder(cfg: CfgNode, in_channels: int, mask_classification: bool = True) -> nn.Module:
    """Build the decoder of ``MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME``; UserError if it is not registered.

    It attends to features of ``in_channels`` channels. ``mask_classification`` False: one query per class.
    """
    key, name = "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME", cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME
    return _registered(TRANSFORMER_DECODER_REGISTRY, key, name)(cfg, in_channels, mask_classification)


def _registered(registry: Registry, key: str, name: str):
    known = sorted(name for name, _ in registry)
    if name not in known:
        raise UserError(
            f"{key} {name!r} is not registered{did_you_mean(name, known)}. There are: {', '.join(known)}. To use your "
            "own decoder, name the module that registers it under PLUGINS."
        )
    return registry.get(name)
