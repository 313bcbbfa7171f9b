"""Pixel decoders: backbone maps become mask features and feature levels. Importing this registers all of them."""

from PADing.modeling.registry import build_pixel_decoder

from .fpn import BasePixelDecoder, TransformerEncoderPixelDecoder
from .msdeformattn import MSDeformAttnPixelDecoder
