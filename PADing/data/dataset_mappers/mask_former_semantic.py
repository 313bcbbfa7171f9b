"""``mask_former_semantic``: semantic segmentation with crops and color jitter."""

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data import MetadataCatalog
from detectron2.data import transforms as T

from PADing.data.dataset_mappers.base import (
    PAD_PIXEL,
    CorruptFile,
    TrainingMapper,
    augment,
    crop_resize_flip_augmentations,
    image_tensor,
    make_instances,
    pad_to_multiple,
    read_class_labels,
    read_record_image,
)

__all__ = ["MaskFormerSemanticDatasetMapper"]


class MaskFormerSemanticDatasetMapper(TrainingMapper):
    """Shortest-edge resize, crop, SSD color jitter, flip, padding to ``INPUT.SIZE_DIVISIBILITY``: as ``INPUT`` asks.

    One mask per label that is present; ``sem_seg`` (int64 (H, W)) is the label map itself.

    Args:
        ignore_label: pixels without a class.
        num_labels: labels must be below it, else the file is reported as corrupt; None: not checked.
        hidden_labels: labels of unseen classes, which become ``ignore_label`` in a training set of seen classes.
        size_divisibility: see ``pad_to_multiple``.
    """

    needs = ("file_name", "sem_seg_file_name")

    @configurable
    def __init__(
        self,
        is_train: bool = True,
        *,
        ignore_label: int,
        num_labels: int | None = None,
        hidden_labels: tuple[int, ...] = (),
        size_divisibility: int = -1,
        **kwargs,
    ):
        super().__init__(is_train, **kwargs)
        self.ignore_label = ignore_label
        self.num_labels = num_labels
        self.hidden_labels = np.asarray(hidden_labels, dtype=np.int64)
        self.size_divisibility = size_divisibility

    @classmethod
    def from_config(cls, cfg, is_train: bool = True) -> dict:
        metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
        vocabulary = metadata.get("vocabulary")
        return {
            "is_train": is_train,
            "augmentations": crop_resize_flip_augmentations(cfg, metadata.ignore_label),
            "image_format": cfg.INPUT.FORMAT,
            "on_corrupt": cfg.INPUT.ON_CORRUPT,
            "ignore_label": metadata.ignore_label,
            "num_labels": None if vocabulary is None else len(vocabulary),
            "hidden_labels": tuple(metadata.unseen_index) if metadata.get("subset") == "seen" else (),
            "size_divisibility": cfg.INPUT.SIZE_DIVISIBILITY,
        }

    def map(self, dataset_dict: dict) -> dict:
        image = read_record_image(dataset_dict, self.image_format)
        label_file = dataset_dict.pop("sem_seg_file_name")
        labels = read_class_labels(label_file, image.shape[:2])
        self.check_labels(labels, label_file)
        augmented = T.AugInput(image, sem_seg=labels)
        augment(self.augmentations, augmented, dataset_dict["file_name"])
        image = pad_to_multiple(augmented.image, self.size_divisibility, PAD_PIXEL)
        labels = pad_to_multiple(augmented.sem_seg, self.size_divisibility, self.ignore_label).astype(np.int64)
        if self.hidden_labels.size:
            labels[np.isin(labels, self.hidden_labels)] = self.ignore_label

        classes = np.unique(labels)
        classes = classes[classes != self.ignore_label]
        dataset_dict["image"] = image_tensor(image)
        dataset_dict["sem_seg"] = torch.from_numpy(labels)
        dataset_dict["instances"] = make_instances(classes.tolist(), labels == classes[:, None, None])
        return dataset_dict

    def check_labels(self, labels: np.ndarray, path: str) -> None:
        """CorruptFile when labels (H, W), read from ``path``, hold something else than classes and "ignore"."""
        if self.num_labels is None:
            return
        wrong = labels[((labels >= self.num_labels) | (labels < 0)) & (labels != self.ignore_label)]
        if wrong.size:
            values = ", ".join(str(int(value)) for value in np.unique(wrong)[:5])
            raise CorruptFile(
                f"Label file {path} has the values {values}, but there are {self.num_labels} classes: labels must be "
                f"contiguous ids 0..{self.num_labels - 1}, or {self.ignore_label} where nothing is labelled. "
                "datasets/prepare_coco_stuff_sem_seg.py converts them (with --ignore 0 where 0 is background; see "
                "datasets/README.md)."
            )
