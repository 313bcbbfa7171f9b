"""Transformer decoders: queries become classes and masks. Importing this registers all of them."""

from .mask2former_transformer_decoder import MultiScaleMaskedTransformerDecoder
from .maskformer_transformer_decoder import StandardTransformerDecoder
from .registry import TRANSFORMER_DECODER_REGISTRY, build_transformer_decoder
from .transformer import TransformerDecoder, TransformerDecoderLayer

__all__ = [
    "TRANSFORMER_DECODER_REGISTRY",
    "MultiScaleMaskedTransformerDecoder",
    "StandardTransformerDecoder",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "build_transformer_decoder",
]
