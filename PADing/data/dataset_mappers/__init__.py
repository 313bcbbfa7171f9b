"""Mappers: one dict of a data set -> one training example. ``INPUT.DATASET_MAPPER_NAME`` chooses among them.

A plug-in adds one that is called with the config: ``@MAPPER_REGISTRY.register("my_mapper")``.
"""

from collections.abc import Callable

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper

from PADing.data.dataset_mappers.base import MAPPER_REGISTRY, CorruptFile, TrainingMapper
from PADing.data.dataset_mappers.evaluation import EvaluationLoader, EvaluationMapper
from PADing.data.dataset_mappers.instance import COCOInstanceNewBaselineDatasetMapper, MaskFormerInstanceDatasetMapper
from PADing.data.dataset_mappers.panoptic import COCOPanopticNewBaselineDatasetMapper, MaskFormerPanopticDatasetMapper
from PADing.data.dataset_mappers.semantic import MaskFormerSemanticDatasetMapper
from PADing.data.images import check_eight_bit
from PADing.errors import UserError, did_you_mean


@MAPPER_REGISTRY.register("default")
class DefaultMapper:
    """Detectron2's own mapper in training, without the images whose pixels it would misread."""

    def __init__(self, cfg: CfgNode):
        self.mapper = DatasetMapper(cfg, is_train=True)

    def __call__(self, dataset_dict: dict) -> dict | None:
        """A training example."""
        check_eight_bit(dataset_dict["file_name"])
        return self.mapper(dataset_dict)


def build_mapper(cfg: CfgNode, is_train: bool = True) -> Callable[[dict], dict | None]:
    """In evaluation ``EvaluationMapper``, else ``INPUT.DATASET_MAPPER_NAME``; UserError for an unknown name."""
    if not is_train:
        return EvaluationMapper(cfg)
    name = cfg.INPUT.DATASET_MAPPER_NAME
    if name not in MAPPER_REGISTRY:
        hint, known = did_you_mean(name, MAPPER_REGISTRY), ", ".join(MAPPER_REGISTRY)
        raise UserError(f"INPUT.DATASET_MAPPER_NAME is {name!r}, which is no mapper{hint}. Known: {known}.")
    return MAPPER_REGISTRY[name](cfg)
