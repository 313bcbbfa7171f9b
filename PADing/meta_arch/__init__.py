"""Meta-architectures: whole models as a config names them. Importing this registers the host's."""

from .common import SegmenterBase
from .contract import ModelContract
from .mask_former import MaskFormer

__all__ = ["MaskFormer", "ModelContract", "SegmenterBase"]
