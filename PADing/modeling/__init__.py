"""Networks, matching and losses. Importing this registers every part that a config can name."""

from .backbone import D2SwinTransformer, TimmBackbone
from .criterion import SetCriterion, SetCriterion_Generator
from .heads import MaskFormerHead, PerPixelBaselineHead, PerPixelBaselinePlusHead
from .layers import TransformerDecoder, TransformerDecoderLayer
from .matcher import HungarianMatcher
from .pixel_decoder import BasePixelDecoder, MSDeformAttnPixelDecoder, TransformerEncoderPixelDecoder
from .registry import TRANSFORMER_DECODER_REGISTRY
from .transformer_decoder import MultiScaleMaskedTransformerDecoder, StandardTransformerDecoder
from .whole_batch import WholeBatch, mean_of_shares
