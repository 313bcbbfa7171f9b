"""Mappers: one dict of a data set -> one training example. ``INPUT.DATASET_MAPPER_NAME`` chooses among them."""

from difflib import get_close_matches

from detectron2.data import DatasetMapper

from PADing.data.dataset_mappers.base import CorruptFile, TrainingMapper
from PADing.data.dataset_mappers.coco_instance_lsj import COCOInstanceNewBaselineDatasetMapper
from PADing.data.dataset_mappers.coco_panoptic_lsj import COCOPanopticNewBaselineDatasetMapper
from PADing.data.dataset_mappers.evaluation import EvaluationLoader, EvaluationMapper
from PADing.data.dataset_mappers.mask_former_instance import MaskFormerInstanceDatasetMapper
from PADing.data.dataset_mappers.mask_former_panoptic import MaskFormerPanopticDatasetMapper
from PADing.data.dataset_mappers.mask_former_semantic import MaskFormerSemanticDatasetMapper
from PADing.data.images import check_eight_bit
from PADing.errors import UserError

__all__ = [
    "COCOInstanceNewBaselineDatasetMapper",
    "COCOPanopticNewBaselineDatasetMapper",
    "CorruptFile",
    "EvaluationLoader",
    "EvaluationMapper",
    "MaskFormerInstanceDatasetMapper",
    "MaskFormerPanopticDatasetMapper",
    "MaskFormerSemanticDatasetMapper",
    "TrainingMapper",
    "build_mapper",
]

MAPPERS = {
    "coco_instance_lsj": COCOInstanceNewBaselineDatasetMapper,
    "coco_panoptic_lsj": COCOPanopticNewBaselineDatasetMapper,
    "mask_former_instance": MaskFormerInstanceDatasetMapper,
    "mask_former_panoptic": MaskFormerPanopticDatasetMapper,
    "mask_former_semantic": MaskFormerSemanticDatasetMapper,
}


class DefaultMapper:
    """Detectron2's own mapper in training, without the images whose pixels it would misread."""

    def __init__(self, cfg):
        self.mapper = DatasetMapper(cfg, is_train=True)

    def __call__(self, dataset_dict: dict) -> dict:
        check_eight_bit(dataset_dict["file_name"])
        return self.mapper(dataset_dict)


def build_mapper(cfg, is_train: bool = True):
    """The mapper of a config: ``INPUT.DATASET_MAPPER_NAME`` in training, ``EvaluationMapper`` in evaluation.

    The name "default" gives Detectron2's own in training too.

    Raises:
        UserError: an unknown name.
    """
    if not is_train:
        return EvaluationMapper(cfg)
    name = cfg.INPUT.DATASET_MAPPER_NAME
    if name == "default":
        return DefaultMapper(cfg)
    if name not in MAPPERS:
        near = get_close_matches(name, MAPPERS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(MAPPERS)} and default."
        raise UserError(f"INPUT.DATASET_MAPPER_NAME is {name!r}, which is no mapper; {hint}")
    return MAPPERS[name](cfg, is_train=True)
