"""Pixel decoders, which compute mask features and feature levels from backbone maps. Importing this registers them."""

from PADing.modeling.registry import build_pixel_decoder

from .fpn import BasePixelDecoder, TransformerEncoderPixelDecoder
from .msdeformattn import MSDeformAttnPixelDecoder
