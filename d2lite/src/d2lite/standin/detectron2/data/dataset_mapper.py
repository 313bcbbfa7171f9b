"""The default mapper: turns a dict of a data set into the input of a model."""

import copy
import logging

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.structures import Instances

from d2lite.omitted import ADVICE

from . import detection_utils as utils
from . import transforms as T

logger = logging.getLogger(__name__)


class DatasetMapper:
    """Reads an image and its labels, augments them, returns tensors. With a config: ``DatasetMapper(cfg, is_train)``.

    ``is_train`` makes ``instances`` of annotations, with ``use_instance_mask`` also masks in the format "polygon" or
    "bitmask". ``recompute_boxes`` takes boxes from the masks: a cropped object's box is smaller than its cropped box.
    """

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        image_format: str,
        augmentations: list[T.Augmentation | T.Transform],
        instance_mask_format: str = "polygon",
        use_instance_mask: bool = False,
        recompute_boxes: bool = False,
    ):
        assert use_instance_mask >= recompute_boxes, "boxes can be made of masks only with use_instance_mask"
        self.is_train, self.image_format = is_train, image_format
        self.augmentations = T.AugmentationList(augmentations)
        self.use_instance_mask, self.instance_mask_format = use_instance_mask, instance_mask_format
        self.recompute_boxes = recompute_boxes
        logger.info("Augmentations of the %s images: %s", "training" if is_train else "test", augmentations)

    @classmethod
    def from_config(cls, cfg, is_train: bool = True) -> dict:
        """The arguments out of ``INPUT`` and ``MODEL``."""
        crop, masks = cfg.INPUT.CROP, cfg.MODEL.MASK_ON
        crops: list[T.Augmentation] = [T.RandomCrop(crop.TYPE, crop.SIZE)] if is_train and crop.ENABLED else []
        if cfg.MODEL.KEYPOINT_ON or cfg.MODEL.LOAD_PROPOSALS:
            raise NotImplementedError(f"Keypoints (MODEL.KEYPOINT_ON) and MODEL.LOAD_PROPOSALS: {ADVICE}")
        return {
            "is_train": is_train,
            "image_format": cfg.INPUT.FORMAT,
            "augmentations": crops + utils.build_augmentation(cfg, is_train),
            "use_instance_mask": masks,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            "recompute_boxes": masks and bool(crops),
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """The input of a model for one image of a data set, whose dict is not changed.

        A copy with ``image``, uint8 (c, h, w); with ``sem_seg``, int64 (h, w), in place of ``sem_seg_file_name``; and
        in training with ``instances`` in place of ``annotations``, without crowds and what became empty.
        """
        result = copy.deepcopy(dataset_dict)
        annotations, label_file = (result.pop(key, None) for key in ("annotations", "sem_seg_file_name"))
        image = utils.read_image(result["file_name"], self.image_format)
        utils.check_image_size(result, image)
        labels = None if label_file is None else utils.read_image(label_file, "L")[:, :, 0]

        seen = T.AugInput(image, sem_seg=labels)
        done = self.augmentations(seen)
        # Workers send tensors through shared memory, but arrays through a pipe.
        result["image"] = torch.from_numpy(seen.image.transpose(2, 0, 1).copy())
        if seen.sem_seg is not None:
            result["sem_seg"] = torch.from_numpy(seen.sem_seg.astype(np.int64))
        if self.is_train and annotations is not None:
            result["instances"] = self._instances(annotations, done, seen.image.shape[:2])
        return result

    def _instances(self, annotations: list[dict], done: T.TransformList, size: tuple[int, int]) -> Instances:
        unused = {"keypoints"} if self.use_instance_mask else {"keypoints", "segmentation"}
        objects = [
            utils.transform_instance_annotations({key: anno[key] for key in anno.keys() - unused}, done, size)
            for anno in annotations
            if not anno.get("iscrowd", 0)
        ]
        instances = utils.annotations_to_instances(objects, size, self.instance_mask_format)
        if self.recompute_boxes and instances.has("gt_masks"):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return utils.filter_empty_instances(instances)
