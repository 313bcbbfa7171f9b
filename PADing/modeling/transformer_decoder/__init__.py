"""Transformer decoders, which compute classes and masks of queries. Importing this registers all of them."""

from PADing.modeling.registry import build_transformer_decoder

from .mask2former_transformer_decoder import MultiScaleMaskedTransformerDecoder
from .maskformer_transformer_decoder import StandardTransformerDecoder
