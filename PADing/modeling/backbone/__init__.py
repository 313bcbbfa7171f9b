"""Backbones beside Detectron2's. Importing this registers all of them."""

from .swin import D2SwinTransformer
