"""Config keys of DeepLab. Configs in the style of Mask2Former set some of them, and so need all."""

import copy

from detectron2.config import CfgNode

__all__ = ["add_deeplab_config"]

DEFAULTS = {
    "INPUT.CROP": {"SINGLE_CATEGORY_MAX_AREA": 1.0},  # largest share of a random crop that may be of one class
    "SOLVER": {"POLY_LR_POWER": 0.9, "POLY_LR_CONSTANT_ENDING": 0.0},  # see WarmupPolyLR
    # The networks that read these are not part of d2lite.
    "MODEL.RESNETS": {"STEM_TYPE": "deeplab", "RES4_DILATION": 1, "RES5_MULTI_GRID": [1, 2, 4]},
    "MODEL.SEM_SEG_HEAD": {
        "LOSS_TYPE": "hard_pixel_mining",
        "USE_DEPTHWISE_SEPARABLE_CONV": False,
        "PROJECT_FEATURES": ["res2"],
        "PROJECT_CHANNELS": [48],
        "ASPP_CHANNELS": 256,
        "ASPP_DILATIONS": [6, 12, 18],
        "ASPP_DROPOUT": 0.1,
    },
}


def add_deeplab_config(cfg: CfgNode) -> None:
    """Add DeepLab's keys to ``cfg``, each with its default."""
    for path, defaults in DEFAULTS.items():
        node = cfg
        for name in path.split("."):
            node = node[name]
        for name, value in copy.deepcopy(defaults).items():
            setattr(node, name, value)
