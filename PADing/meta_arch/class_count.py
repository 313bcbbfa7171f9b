"""How many classes a model needs for the data sets of its config: what ``NUM_CLASSES -1`` stands for."""

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from PADing.class_space import ClassSpace
from PADing.errors import UserError
from PADing.meta_arch.contract import architecture_of, contract_of

__all__ = ["check_split_count", "count_classes", "split_classes"]


def count_classes(cfg: CfgNode) -> int:
    """What the meta-architecture's ``count_classes(cfg)`` says, or else the number of classes of the training set.

    Returns:
        -1 when the meta-architecture or the first training set is not registered.
    """
    architecture, train = architecture_of(cfg), cfg.DATASETS.TRAIN
    if architecture is None or not train or train[0] not in DatasetCatalog.list():
        return -1
    return contract_of(architecture).count_classes(cfg)


def split_classes(cfg: CfgNode) -> tuple[str, ...]:
    """Names of all classes of the training set's split, seen and unseen; of a data set without a split, its own."""
    return ClassSpace.of_config(cfg).vocabulary


def check_split_count(cfg: CfgNode) -> None:
    """For models that tell all classes of a split apart.

    Raises:
        UserError: ``NUM_CLASSES`` is another number.
    """
    metadata, count = MetadataCatalog.get(cfg.DATASETS.TRAIN[0]), cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    every, unseen = split_classes(cfg), metadata.get("unseen_index") or ()
    if count != len(every) and (metadata.get("vocabulary") or max(unseen, default=-1) >= count):
        raise UserError(
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {count}, but {cfg.MODEL.META_ARCHITECTURE} tells all {len(every)} "
            f"classes of the split of {cfg.DATASETS.TRAIN[0]} apart, {len(every) - len(unseen)} seen and {len(unseen)} "
            f"unseen. Set MODEL.SEM_SEG_HEAD.NUM_CLASSES {len(every)}, or -1 to have them counted."
        )
