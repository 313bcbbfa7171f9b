"""Pixel decoders: backbone maps become mask features and feature levels. Importing this registers all of them."""

from .fpn import BasePixelDecoder, TransformerEncoderPixelDecoder, build_pixel_decoder, select_features
from .msdeformattn import MSDeformAttnPixelDecoder

__all__ = [
    "BasePixelDecoder",
    "MSDeformAttnPixelDecoder",
    "TransformerEncoderPixelDecoder",
    "build_pixel_decoder",
    "select_features",
]
