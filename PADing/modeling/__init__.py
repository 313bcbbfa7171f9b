"""Networks, matching and losses: tensors in, tensors out. Importing this registers every building block by name."""

from .backbone import D2SwinTransformer
from .criterion import SetCriterion, SetCriterion_Generator
from .heads import MaskFormerHead, PerPixelBaselineHead, PerPixelBaselinePlusHead
from .matcher import HungarianMatcher
from .pixel_decoder import BasePixelDecoder, MSDeformAttnPixelDecoder, TransformerEncoderPixelDecoder
from .transformer_decoder import (
    TRANSFORMER_DECODER_REGISTRY,
    MultiScaleMaskedTransformerDecoder,
    StandardTransformerDecoder,
    TransformerDecoder,
    TransformerDecoderLayer,
)

__all__ = [
    "TRANSFORMER_DECODER_REGISTRY",
    "BasePixelDecoder",
    "D2SwinTransformer",
    "HungarianMatcher",
    "MSDeformAttnPixelDecoder",
    "MaskFormerHead",
    "MultiScaleMaskedTransformerDecoder",
    "PerPixelBaselineHead",
    "PerPixelBaselinePlusHead",
    "SetCriterion",
    "SetCriterion_Generator",
    "StandardTransformerDecoder",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoderPixelDecoder",
]
