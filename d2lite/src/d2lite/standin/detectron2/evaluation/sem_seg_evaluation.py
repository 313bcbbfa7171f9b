"""Intersection over union of semantic label maps."""

import itertools
import json
import logging
import os
from collections import OrderedDict

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.comm import all_gather, is_main_process, synchronize
from detectron2.utils.file_io import PathManager
from PIL import Image

from .evaluator import DatasetEvaluator

__all__ = ["SemSegEvaluator", "load_image_into_numpy_array"]


def load_image_into_numpy_array(filename, dtype=None):
    """The pixels of an image file."""
    with PathManager.open(filename, "rb") as file:
        return np.array(Image.open(file), dtype=dtype)


class SemSegEvaluator(DatasetEvaluator):
    """mIoU, frequency-weighted IoU and accuracies, in percent: ``{"sem_seg": {...}}``.

    mIoU is the mean over the classes that occur in the ground truth. Boundary IoU is left out.

    Args:
        dataset_name: a data set with ``stuff_classes`` and ``ignore_label`` in its metadata and
            ``sem_seg_file_name`` in its dicts.
        distributed: gather from all processes.
        output_dir: folder for ``sem_seg_predictions.json`` and ``sem_seg_evaluation.pth``.
        sem_seg_loading_fn: reads a label image, called with its file name and the dtype.
        num_classes, ignore_label: deprecated; they come from metadata.
    """

    def __init__(
        self,
        dataset_name,
        distributed=True,
        output_dir=None,
        *,
        sem_seg_loading_fn=load_image_into_numpy_array,
        num_classes=None,
        ignore_label=None,
    ):
        self._logger = logging.getLogger(__name__)
        self._dataset_name = dataset_name
        self._distributed = distributed
        self._output_dir = output_dir
        self._load = sem_seg_loading_fn
        self._truth_file = {r["file_name"]: r["sem_seg_file_name"] for r in DatasetCatalog.get(dataset_name)}
        meta = MetadataCatalog.get(dataset_name)
        contiguous = meta.get("stuff_dataset_id_to_contiguous_id")
        self._to_dataset_id = {c: d for d, c in contiguous.items()} if contiguous is not None else None
        self._class_names = meta.stuff_classes
        self._num_classes = len(meta.stuff_classes)
        if num_classes is not None:
            assert self._num_classes == num_classes, f"{self._num_classes} != {num_classes}"
        self._ignore_label = ignore_label if ignore_label is not None else meta.ignore_label
        self.reset()

    def reset(self):
        # [predicted, true]; the last row and column stand for the ignore label
        self._conf_matrix = np.zeros((self._num_classes + 1, self._num_classes + 1), dtype=np.int64)
        self._predictions = []

    def process(self, inputs, outputs):
        """Count a batch.

        Args:
            inputs: dataset dicts with ``file_name``.
            outputs: dicts with ``sem_seg``, scores (C, H, W).
        """
        for record, output in zip(inputs, outputs, strict=True):
            prediction = output["sem_seg"].argmax(dim=0).to("cpu").numpy().astype(np.int64)
            truth = self._load(self._truth_file[record["file_name"]], dtype=np.int64)
            truth[truth == self._ignore_label] = self._num_classes
            self._conf_matrix += np.bincount(
                (self._num_classes + 1) * prediction.reshape(-1) + truth.reshape(-1),
                minlength=self._conf_matrix.size,
            ).reshape(self._conf_matrix.shape)
            self._predictions.extend(self.encode_json_sem_seg(prediction, record["file_name"]))

    def evaluate(self):
        """Return the figures on the main process, None elsewhere."""
        matrix, predictions = self._conf_matrix, self._predictions
        if self._distributed:
            synchronize()
            matrices = all_gather(matrix)
            predictions = list(itertools.chain(*all_gather(predictions)))
            if not is_main_process():
                return None
            matrix = sum(matrices)
        if self._output_dir:
            PathManager.mkdirs(self._output_dir)
            with PathManager.open(os.path.join(self._output_dir, "sem_seg_predictions.json"), "w") as file:
                file.write(json.dumps(predictions))

        tp = matrix.diagonal()[:-1].astype(float)
        gt = matrix[:-1, :-1].sum(axis=0).astype(float)
        predicted = matrix[:-1, :-1].sum(axis=1).astype(float)
        known = gt > 0
        acc = np.full(self._num_classes, np.nan)
        iou = np.full(self._num_classes, np.nan)
        acc[known] = tp[known] / gt[known]
        iou[known] = tp[known] / (gt + predicted - tp)[known]
        figures = {}
        figures["mIoU"] = 100 * np.sum(iou[known]) / np.sum(known)
        figures["fwIoU"] = 100 * np.sum(iou[known] * gt[known]) / np.sum(gt)
        figures.update((f"IoU-{name}", 100 * value) for name, value in zip(self._class_names, iou, strict=True))
        figures["mACC"] = 100 * np.sum(acc[known]) / np.sum(known)
        figures["pACC"] = 100 * np.sum(tp) / np.sum(gt)
        figures.update((f"ACC-{name}", 100 * value) for name, value in zip(self._class_names, acc, strict=True))
        if self._output_dir:
            with PathManager.open(os.path.join(self._output_dir, "sem_seg_evaluation.pth"), "wb") as file:
                torch.save(figures, file)
        results = OrderedDict({"sem_seg": figures})
        self._logger.info(results)
        return results

    def encode_json_sem_seg(self, sem_seg, input_file_name):
        """One entry per predicted class in COCO's stuff format; category ids are those of the annotation."""
        entries = []
        for label in np.unique(sem_seg).tolist():
            category = label
            if self._to_dataset_id is not None:
                assert label in self._to_dataset_id, f"Label {label} is not in the metadata of {self._dataset_name}"
                category = self._to_dataset_id[label]
            rle = mask_util.encode(np.asfortranarray(sem_seg == label, dtype=np.uint8))
            rle["counts"] = rle["counts"].decode("utf-8")
            entries.append({"file_name": input_file_name, "category_id": category, "segmentation": rle})
        return entries
