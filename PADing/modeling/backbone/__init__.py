"""Backbones that Detectron2 does not have. Importing this registers them."""

from .swin import D2SwinTransformer
from .timm_backbone import TimmBackbone
