"""Meta-architectures: whole models as a config names them. Importing this registers all of them."""

from .class_count import count_classes
from .common import SegmenterBase
from .mask_former import MaskFormer
from .pading import PADing

__all__ = ["MaskFormer", "PADing", "SegmenterBase", "count_classes"]
