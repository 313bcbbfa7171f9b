"""Evaluation: the image alone, resized; and what becomes of images that cannot be read."""

import logging
from collections.abc import Iterator

from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.data import transforms as T
from detectron2.data.detection_utils import build_augmentation

from PADing.data.dataset_mappers.base import augment, check_on_corrupt, image_tensor, read_record_image
from PADing.data.images import CorruptFile

logger = logging.getLogger(__name__)

UNREADABLE = "unreadable"


class EvaluationMapper:
    """Shortest-edge resize by ``INPUT.MIN_SIZE_TEST`` and ``MAX_SIZE_TEST``; evaluators read annotation themselves.

    An unreadable image raises ``CorruptFile``; with ``INPUT.ON_CORRUPT skip`` the record comes back without ``image``
    and with the reason under ``unreadable`` (see ``EvaluationLoader``).
    """

    def __init__(self, cfg: CfgNode):
        self.augmentations = T.AugmentationList(build_augmentation(cfg, is_train=False))
        self.image_format = cfg.INPUT.FORMAT
        self.on_corrupt = cfg.INPUT.ON_CORRUPT
        check_on_corrupt(self.on_corrupt)

    def __call__(self, dataset_dict: dict) -> dict:
        """The record with ``image``, without ``annotations``."""
        record = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        try:
            image = read_record_image(record, self.image_format)
            image, _, _ = augment(self.augmentations, record["file_name"], image)
        except CorruptFile as error:
            if self.on_corrupt == "fatal":
                raise CorruptFile(f"{error} INPUT.ON_CORRUPT skip evaluates without such images.") from error
            return {**record, UNREADABLE: str(error)}
        record["image"] = image_tensor(image)
        return record


class EvaluationLoader:
    """Detectron2's test loader without the images that cannot be read.

    Attributes:
        unreadable: their records, after a pass; of this process.
    """

    def __init__(self, cfg: CfgNode, dataset_name: str):
        self._loader = build_detection_test_loader(cfg, dataset_name, mapper=EvaluationMapper(cfg))
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
