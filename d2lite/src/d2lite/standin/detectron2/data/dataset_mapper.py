"""The default mapper: from a dict of the data set to the model's input."""

import copy
import logging

import numpy as np
import torch
from detectron2.config import configurable

from . import detection_utils as utils
from . import transforms as T

__all__ = ["DatasetMapper"]


class DatasetMapper:
    """Reads the image that a dict of a data set names, augments it, and makes tensors of it and its annotations."""

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: list[T.Augmentation | T.Transform],
        image_format: str,
        use_instance_mask: bool = False,
        use_keypoint: bool = False,
        instance_mask_format: str = "polygon",
        keypoint_hflip_indices: np.ndarray | None = None,
        precomputed_proposal_topk: int | None = None,
        recompute_boxes: bool = False,
    ):
        """Build it from a config, ``DatasetMapper(cfg, is_train)``, or with these arguments.

        Args:
            is_train: whether annotations are wanted.
            augmentations: applied in sequence.
            image_format: see ``detection_utils.read_image``.
            use_instance_mask: keep segmentations.
            use_keypoint, keypoint_hflip_indices, precomputed_proposal_topk: must stay at their defaults, as d2lite has
                neither keypoints nor precomputed proposals.
            instance_mask_format: "polygon" or "bitmask".
            recompute_boxes: make boxes from the transformed masks. A cropped object's own box is smaller than its
                cropped box.
        """
        if use_keypoint or keypoint_hflip_indices is not None or precomputed_proposal_topk is not None:
            raise NotImplementedError(
                "d2lite, the stand-in for Detectron2, has neither keypoints nor precomputed proposals: set "
                "MODEL.KEYPOINT_ON and MODEL.LOAD_PROPOSALS to False, or install the genuine Detectron2."
            )
        assert use_instance_mask or not recompute_boxes, "recompute_boxes requires instance masks."
        self.is_train = is_train
        self.augmentations = T.AugmentationList(augmentations)
        self.image_format = image_format
        self.use_instance_mask = use_instance_mask
        self.use_keypoint = use_keypoint
        self.instance_mask_format = instance_mask_format
        self.keypoint_hflip_indices = keypoint_hflip_indices
        self.proposal_topk = precomputed_proposal_topk
        self.recompute_boxes = recompute_boxes
        logging.getLogger(__name__).info(
            "[DatasetMapper] Augmentations used in %s: %s", "training" if is_train else "inference", augmentations
        )

    @classmethod
    def from_config(cls, cfg, is_train: bool = True) -> dict:
        augmentations = utils.build_augmentation(cfg, is_train)
        proposals = cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None
        crop = is_train and cfg.INPUT.CROP.ENABLED
        if crop:
            augmentations.insert(0, T.RandomCrop(cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE))
        return {
            "is_train": is_train,
            "augmentations": augmentations,
            "image_format": cfg.INPUT.FORMAT,
            "use_instance_mask": cfg.MODEL.MASK_ON,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            "use_keypoint": cfg.MODEL.KEYPOINT_ON,
            "precomputed_proposal_topk": proposals,
            "recompute_boxes": crop and cfg.MODEL.MASK_ON,
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """
        Args:
            dataset_dict: one image of a data set; it stays as it is.

        Returns:
            The dict's other fields and ``image``, uint8 (c, h, w); ``sem_seg``, int64 (h, w), when the dict has
            ``sem_seg_file_name``; in training ``instances``, without crowds, when it has ``annotations``.

        Raises:
            OSError: a file cannot be read.
            SizeMismatchError: the image is not of the size that the dict says.
        """
        dataset_dict = copy.deepcopy(dataset_dict)
        image = utils.read_image(dataset_dict["file_name"], format=self.image_format)
        utils.check_image_size(dataset_dict, image)
        sem_seg = None
        if "sem_seg_file_name" in dataset_dict:
            sem_seg = utils.read_image(dataset_dict.pop("sem_seg_file_name"), "L").squeeze(2)

        aug_input = T.AugInput(image, sem_seg=sem_seg)
        transforms = self.augmentations(aug_input)
        image_shape = aug_input.image.shape[:2]
        # Tensors share memory with these arrays; workers hand tensors over without a copy, arrays with one.
        dataset_dict["image"] = torch.from_numpy(np.ascontiguousarray(aug_input.image.transpose(2, 0, 1)))
        if aug_input.sem_seg is not None:
            dataset_dict["sem_seg"] = torch.from_numpy(aug_input.sem_seg.astype(np.int64))

        annotations = dataset_dict.pop("annotations", None)
        if self.is_train and annotations is not None:
            dataset_dict["instances"] = self._make_instances(annotations, transforms, image_shape)
        return dataset_dict

    def _make_instances(self, annotations: list[dict], transforms: T.Transform, image_shape: tuple[int, int]):
        for annotation in annotations:
            annotation.pop("keypoints", None)
            if not self.use_instance_mask:
                annotation.pop("segmentation", None)
        annotations = [
            utils.transform_instance_annotations(a, transforms, image_shape)
            for a in annotations
            if a.get("iscrowd", 0) == 0
        ]
        instances = utils.annotations_to_instances(annotations, image_shape, mask_format=self.instance_mask_format)
        if self.recompute_boxes and instances.has("gt_masks"):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        return utils.filter_empty_instances(instances)
