"""Config keys of DeepLab. Configs of Mask2Former set some of them, so all must exist."""

from detectron2.config import CfgNode


def add_deeplab_config(cfg: CfgNode) -> None:
    """Add DeepLab's keys to ``cfg``, each with its default."""
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0  # largest share of a random crop that may be of one class
    cfg.SOLVER.POLY_LR_POWER, cfg.SOLVER.POLY_LR_CONSTANT_ENDING = 0.9, 0.0  # see WarmupPolyLR
    # The networks that read these are not part of d2lite.
    cfg.MODEL.RESNETS.update({"STEM_TYPE": "deeplab", "RES4_DILATION": 1, "RES5_MULTI_GRID": [1, 2, 4]})
    cfg.MODEL.SEM_SEG_HEAD.update(
        {
            "LOSS_TYPE": "hard_pixel_mining",
            "USE_DEPTHWISE_SEPARABLE_CONV": False,
            "PROJECT_FEATURES": ["res2"],
            "PROJECT_CHANNELS": [48],
            "ASPP_CHANNELS": 256,
            "ASPP_DILATIONS": [6, 12, 18],
            "ASPP_DROPOUT": 0.1,
        }
    )
