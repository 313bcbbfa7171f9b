"""What is known about the objects of one image: boxes, masks, and fields that belong together."""

from d2lite.omitted import omitted_names

from .boxes import Boxes, BoxMode, pairwise_iou
from .image_list import ImageList
from .instances import Instances
from .masks import BitMasks, PolygonMasks, polygons_to_bitmask

__all__ = [
    "BitMasks",
    "BoxMode",
    "Boxes",
    "ImageList",
    "Instances",
    "PolygonMasks",
    "pairwise_iou",
    "polygons_to_bitmask",
]

__getattr__ = omitted_names(
    __name__,
    [
        "Keypoints",
        "ROIMasks",
        "RotatedBoxes",
        "heatmaps_to_keypoints",
        "pairwise_ioa",
        "pairwise_iou_rotated",
        "pairwise_point_box_distance",
        "rasterize_polygons_within_box",
    ],
)
