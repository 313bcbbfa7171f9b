"""Mappers turn one dict of a data set into one training example. ``INPUT.DATASET_MAPPER_NAME`` chooses the mapper.

A plug-in adds a mapper with ``@MAPPER_REGISTRY.register("my_mapper")``; it is called with the config.
"""

import logging
from collections.abc import Callable, Iterator

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_test_loader, get_detection_dataset_dicts
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation

from PADing.data.dataset_mappers.base import (
    MAPPER_REGISTRY,
    CorruptFile,
    TrainingMapper,
    check_on_corrupt,
)
from PADing.data.dataset_mappers.instance import COCOInstanceNewBaselineDatasetMapper, MaskFormerInstanceDatasetMapper
from PADing.data.dataset_mappers.panoptic import COCOPanopticNewBaselineDatasetMapper, MaskFormerPanopticDatasetMapper
from PADing.data.dataset_mappers.semantic import MaskFormerSemanticDatasetMapper
from PADing.data.dataset_mappers.view import View, image_tensor
from PADing.data.images import check_eight_bit
from PADing.data.worker_memory import ready_to_send
from PADing.errors import UserError, did_you_mean

logger = logging.getLogger(__name__)
UNREADABLE = "unreadable"


@MAPPER_REGISTRY.register("default")
class DefaultMapper:
    """Detectron2's own training mapper; refuses images whose pixels it would misread."""

    def __init__(self, cfg: CfgNode):
        self.mapper = DatasetMapper(cfg, is_train=True)

    def __call__(self, dataset_dict: dict) -> dict | None:
        """A training example; CorruptFile for a pixel format that Detectron2 misreads."""
        check_eight_bit(dataset_dict["file_name"])
        return self.mapper(dataset_dict)


class EvaluationMapper:
    """Reads an image and resizes its shortest edge by ``INPUT.MIN_SIZE_TEST`` and ``MAX_SIZE_TEST``.

    Evaluators read the annotation themselves.

    An unreadable image raises ``CorruptFile``. With ``INPUT.ON_CORRUPT skip`` the record is returned without ``image``,
    with the reason under ``unreadable`` (see ``EvaluationLoader``).
    """

    def __init__(self, cfg: CfgNode):
        self.augmentations = T.AugmentationList(build_augmentation(cfg, is_train=False))
        self.image_format = cfg.INPUT.FORMAT
        self.on_corrupt = cfg.INPUT.ON_CORRUPT
        check_on_corrupt(self.on_corrupt)

    def __call__(self, dataset_dict: dict) -> dict:
        """The record with ``image`` (uint8 tensor (3, H, W)), without ``annotations``."""
        record = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        try:
            image, _ = View(record, self.augmentations, self.image_format).augmented()
        except CorruptFile as error:
            if self.on_corrupt == "fatal":
                raise CorruptFile(f"{error} To evaluate without such images, set INPUT.ON_CORRUPT skip.") from error
            return {**record, UNREADABLE: str(error)}
        record["image"] = image_tensor(image) if isinstance(image, np.ndarray) else image
        return ready_to_send(record)


class EvaluationLoader:
    """Detectron2's test loader without unreadable images, and with at most ``TEST.MAX_IMAGES`` images.

    Attributes:
        beyond: records of the images beyond ``TEST.MAX_IMAGES``, the same in all processes.
        unreadable: records of the unreadable images that this process met in the last pass.
    """

    def __init__(self, cfg: CfgNode, dataset_name: str):
        mapper, most = EvaluationMapper(cfg), cfg.TEST.MAX_IMAGES
        self.beyond: list[dict] = []
        if most:
            records = get_detection_dataset_dicts([dataset_name], filter_empty=False)
            self.beyond = records[most:]
            workers = cfg.DATALOADER.NUM_WORKERS
            self._loader = build_detection_test_loader(records[:most], mapper=mapper, num_workers=workers)
        else:
            self._loader = build_detection_test_loader(cfg, dataset_name, mapper=mapper)
        self.unreadable: list[dict] = []

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[dict]]:
        self.unreadable.clear()
        for batch in self._loader:
            for record in batch:
                if UNREADABLE in record:
                    logger.warning("Left out: %s", record[UNREADABLE])
                    self.unreadable.append(record)
            readable = [record for record in batch if UNREADABLE not in record]
            if readable:
                yield readable


def build_mapper(cfg: CfgNode, is_train: bool = True) -> Callable[[dict], dict | None]:
    """The mapper of ``INPUT.DATASET_MAPPER_NAME``, or ``EvaluationMapper``; UserError for an unknown name."""
    if not is_train:
        return EvaluationMapper(cfg)
    name = cfg.INPUT.DATASET_MAPPER_NAME
    if name not in MAPPER_REGISTRY:
        hint, known = did_you_mean(name, MAPPER_REGISTRY), ", ".join(MAPPER_REGISTRY)
        raise UserError(f"INPUT.DATASET_MAPPER_NAME is {name!r}, which is not a mapper{hint}. Known: {known}.")
    return MAPPER_REGISTRY[name](cfg)
