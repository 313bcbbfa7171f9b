"""How many classes a model needs for the data sets of its config: what ``NUM_CLASSES -1`` stands for."""

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import META_ARCH_REGISTRY

from PADing.errors import UserError

__all__ = ["check_split_count", "count_classes", "split_classes", "training_classes"]


def count_classes(cfg: CfgNode) -> int:
    """What the meta-architecture's ``count_classes(cfg)`` says, or else the number of classes of the training set.

    Returns:
        -1 when the meta-architecture or the first training set is not registered.
    """
    architecture, train = cfg.MODEL.META_ARCHITECTURE, cfg.DATASETS.TRAIN
    if architecture not in META_ARCH_REGISTRY or not train or train[0] not in DatasetCatalog.list():
        return -1
    method = getattr(META_ARCH_REGISTRY.get(architecture), "count_classes", None)
    return method(cfg) if method else len(training_classes(cfg))


def training_classes(cfg: CfgNode) -> list[str]:
    """Names of the classes that the first training set annotates, in the order of its labels."""
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    return list(metadata.get("stuff_classes") or metadata.get("thing_classes") or ())


def split_classes(cfg: CfgNode) -> list[str]:
    """Names of all classes of the training set's split, seen and unseen; of a data set without a split, its own."""
    return list(MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).get("vocabulary") or training_classes(cfg))


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
