"""Transformer decoders: queries become classes and masks. Importing this registers all of them."""

from PADing.modeling.layers import TransformerDecoder, TransformerDecoderLayer
from PADing.modeling.registry import TRANSFORMER_DECODER_REGISTRY, build_transformer_decoder

from .mask2former_transformer_decoder import MultiScaleMaskedTransformerDecoder
from .maskformer_transformer_decoder import StandardTransformerDecoder

__all__ = [
    "TRANSFORMER_DECODER_REGISTRY",
    "MultiScaleMaskedTransformerDecoder",
    "StandardTransformerDecoder",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "build_transformer_decoder",
]
