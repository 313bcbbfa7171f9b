"""A small MaskFormer and a batch that it can learn, for tests in several folders."""

from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances

from PADing.config import load_config

BASE = Path(__file__).resolve().parents[2] / "configs" / "Mask2Former.yaml"
HEAD, NODE = "MODEL.SEM_SEG_HEAD.", "MODEL.MASK_FORMER."
DATA = "test_mask_former"


def small_config(*opts) -> CfgNode:
    """A config of a MaskFormer with 3 classes, 8 queries and 3 predictions."""
    metadata = MetadataCatalog.get(DATA)
    metadata.set(thing_classes=["square", "disc"], stuff_classes=["square", "disc", "ground"])
    metadata.thing_dataset_id_to_contiguous_id = {1: 0, 2: 1}
    small = ["MODEL.DEVICE", "cpu", "MODEL.META_ARCHITECTURE", "MaskFormer", "DATASETS.TRAIN", (DATA,), "VERSION", 2]
    small += ["MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"], "MODEL.RESNETS.STRIDE_IN_1X1", False]
    small += ["MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64]
    small += ["MODEL.RESNETS.NORM", "BN", HEAD + "CONVS_DIM", 32, HEAD + "MASK_DIM", 32]
    small += [HEAD + "TRANSFORMER_ENC_LAYERS", 1, HEAD + "TRANSFORMER_ENC_DIM_FEEDFORWARD", 64]
    small += [HEAD + "NUM_CLASSES", 3, NODE + "HIDDEN_DIM", 32, NODE + "DIM_FEEDFORWARD", 64, NODE + "DEC_LAYERS", 3]
    small += [NODE + "NUM_OBJECT_QUERIES", 8, NODE + "TRAIN_NUM_POINTS", 128]
    small += [NODE + "TEST.PANOPTIC_ON", True, NODE + "TEST.INSTANCE_ON", True]
    return load_config(BASE, [*small, *opts])


def small_batch() -> list[dict]:
    """Two images, each with a bright square of class 0 or 1 on a ground of class 2."""
    batch = []
    for label, (y, x) in enumerate([(8, 8), (24, 32)]):
        square = torch.zeros(64, 64, dtype=torch.bool)
        square[y : y + 24, x : x + 24] = True
        image = torch.full((3, 64, 64), 60.0)
        image[label, square] = 250.0
        instances = Instances((64, 64), gt_classes=torch.tensor([label, 2]), gt_masks=torch.stack([square, ~square]))
        batch.append({"image": image, "height": 64, "width": 64, "instances": instances})
    return batch
