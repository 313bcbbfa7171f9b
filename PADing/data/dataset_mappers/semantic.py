"""Mapper of semantic segmentation: PNGs of class labels become one mask per class."""

from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable

from PADing.class_space import ClassSpace
from PADing.data.dataset_mappers.base import (
    MAPPER_REGISTRY,
    TrainingMapper,
    read_class_labels,
    resize_and_crop_labels,
)
from PADing.data.images import check_class_labels, present_ids


@MAPPER_REGISTRY.register("mask_former_semantic")
class MaskFormerSemanticDatasetMapper(TrainingMapper):
    """One mask per label that is present, with shortest-edge resizing; ``sem_seg`` (int64 (H, W)) is the label map.

    Args:
        ignore_label: of the pixels without a class.
        num_labels: CorruptFile for a label that is not below it; None: labels are not checked.
        hidden_labels: labels of unseen classes, which become ``ignore_label`` in a training set of seen classes.
    """

    needs = ("file_name", "sem_seg_file_name")
    augmentation = staticmethod(resize_and_crop_labels)

    @configurable
    def __init__(
        self,
        is_train: bool = True,
        *,
        ignore_label: int,
        num_labels: int | None = None,
        hidden_labels: tuple[int, ...] = (),
        **kwargs: Any,
    ):
        super().__init__(is_train, **kwargs)
        self.ignore_label = ignore_label
        self.num_labels = num_labels
        self.hidden_labels = np.asarray(hidden_labels, dtype=np.int64)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        """The constructor's arguments from a config; labels are those of the whole split."""
        space = ClassSpace.of_config(cfg)
        hidden = space.unseen_outputs if space.subset == "seen" else ()
        return {**super().from_config(cfg, is_train), "num_labels": len(space.vocabulary), "hidden_labels": hidden}

    def map(self, dataset_dict: dict) -> dict:
        """See the base class."""
        view = self.read_view(dataset_dict)
        label_file = dataset_dict.pop("sem_seg_file_name")
        labels = read_class_labels(label_file, view.source)
        if self.num_labels is not None:
            check_class_labels(labels, label_file, self.num_labels, self.ignore_label)
        image, _ = view.augmented(labels)
        # Stay small: bytes are compared several times faster than large integers.
        kind = np.result_type(view.labels.dtype, np.min_scalar_type(self.ignore_label))
        labels = self.pad(view.labels.astype(kind, copy=False), self.ignore_label)
        labels[np.isin(labels, self.hidden_labels)] = self.ignore_label
        dataset_dict["sem_seg"] = torch.from_numpy(labels.astype(np.int64))
        classes = sorted(present_ids(labels) - {self.ignore_label})
        masks = labels == np.asarray(classes, dtype=labels.dtype)[:, None, None]
        return self.example(dataset_dict, image, classes, masks)
