"""Building blocks of networks."""

from d2lite.omitted import omitted_names

from .batch_norm import FrozenBatchNorm2d, get_norm
from .blocks import CNNBlockBase
from .shape_spec import ShapeSpec
from .wrappers import Conv2d, cat, shapes_to_tensor

__all__ = ["CNNBlockBase", "Conv2d", "FrozenBatchNorm2d", "ShapeSpec", "cat", "get_norm", "shapes_to_tensor"]

__getattr__ = omitted_names(
    __name__,
    [
        "ASPP",
        "BatchNorm2d",
        "ConvTranspose2d",
        "CycleBatchNormList",
        "DeformConv",
        "DepthwiseSeparableConv2d",
        "Linear",
        "ModulatedDeformConv",
        "NaiveSyncBatchNorm",
        "ROIAlign",
        "ROIAlignRotated",
        "ROIPool",
        "batched_nms",
        "batched_nms_rotated",
        "ciou_loss",
        "cross_entropy",
        "diou_loss",
        "interpolate",
        "move_device_like",
        "nms",
        "nms_rotated",
        "nonzero_tuple",
        "paste_masks_in_image",
    ],
)
