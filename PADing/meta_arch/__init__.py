"""Meta-architectures: whole models that a config chooses by name. Importing this registers ``MaskFormer``."""

from .common import SegmenterBase
from .contract import ModelContract
from .mask_former import MaskFormer

__all__ = ["MaskFormer", "ModelContract", "SegmenterBase"]
