"""The registry through which a config names its transformer decoder."""

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry
from torch import nn

from PADing.errors import UserError

TRANSFORMER_DECODER_REGISTRY = Registry("TRANSFORMER_MODULE")
TRANSFORMER_DECODER_REGISTRY.__doc__ = """
Registry of transformer decoders: called with (cfg, in_channels, mask_classification), they map multi-scale features
and mask features to classes and masks of queries.
"""


def build_transformer_decoder(cfg: CfgNode, in_channels: int, mask_classification: bool = True) -> nn.Module:
    """Build the decoder that ``MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME`` names.

    Args:
        in_channels: channels of the features it attends to.
        mask_classification: also predict a class for each query (False: only masks, one query for each class).

    Raises:
        UserError: nothing of that name is registered.
    """
    name = cfg.MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME
    if name not in TRANSFORMER_DECODER_REGISTRY:
        known = ", ".join(sorted(key for key, _ in TRANSFORMER_DECODER_REGISTRY))
        raise UserError(
            f"MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME {name!r} is not registered. There are: {known}. A "
            "decoder of your own is registered by a module that PLUGINS names."
        )
    return TRANSFORMER_DECODER_REGISTRY.get(name)(cfg, in_channels, mask_classification)
