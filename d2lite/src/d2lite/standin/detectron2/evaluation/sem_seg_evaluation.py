"""Intersection over union, and accuracy, of semantic segmentation."""

import logging
from collections.abc import Callable

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from PIL import Image
from pycocotools import mask as coco_mask

from .evaluator import DatasetEvaluator, save_results


def load_image_into_numpy_array(filename: str, dtype: np.dtype | type | None = None) -> np.ndarray:
    """An image file as an array of this type."""
    with PathManager.open(filename, "rb") as stream, Image.open(stream) as image:
        return np.array(image, dtype)


class SemSegEvaluator(DatasetEvaluator):
    """Counts pixels by true and predicted class; ``distributed``: over the images of all processes.

    The metrics are percentages under the key ``sem_seg``: ``mIoU`` and ``mACC``, means over the classes that the truth
    shows; ``fwIoU``, weighted by their pixels; ``pACC``, the share of right pixels; and ``IoU-{class}``,
    ``ACC-{class}``, which are NaN where the truth never shows the class. Dataset dicts have ``sem_seg_file_name``, the
    metadata ``stuff_classes`` and ``ignore_label``. ``output_dir`` gets predictions (.json) and metrics (.pth).
    """

    def __init__(
        self,
        dataset_name: str,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        sem_seg_loading_fn: Callable[..., np.ndarray] = load_image_into_numpy_array,
    ):
        metadata = MetadataCatalog.get(dataset_name)
        self._names, self._void = list(metadata.stuff_classes), metadata.ignore_label
        self._read_labels = sem_seg_loading_fn
        self._labels_of = {image["file_name"]: image["sem_seg_file_name"] for image in DatasetCatalog.get(dataset_name)}
        original = metadata.get("stuff_dataset_id_to_contiguous_id")
        self._category_of = None if original is None else {index: category for category, index in original.items()}
        self._everywhere, self._folder = distributed, output_dir

    def reset(self):
        """Forget all counts."""
        # Rows: numbers of correct, true and predicted pixels of each class.
        self._pixels = np.zeros((3, len(self._names)), dtype=np.int64)
        self._regions: list[dict] = []

    def process(self, inputs, outputs):
        """Count the pixels of images (by ``file_name``) and scores ``sem_seg`` (C, H, W)."""
        for image, answer in zip(inputs, outputs, strict=True):
            predicted = answer["sem_seg"].argmax(0).cpu().numpy()
            true = self._read_labels(self._labels_of[image["file_name"]], dtype=np.int64)
            self._regions += self.encode_json_sem_seg(predicted, image["file_name"])
            counted = (true != self._void) & (predicted < len(self._names))
            true, predicted = true[counted], predicted[counted]
            for row, labels in enumerate((true[true == predicted], true, predicted)):
                self._pixels[row] += np.bincount(labels, minlength=len(self._names))

    def encode_json_sem_seg(self, sem_seg: np.ndarray, input_file_name: str) -> list[dict]:
        """COCO's entry for each class of a label map (H, W), with the category id of the data set."""
        entries = []
        for index in map(int, np.unique(sem_seg)):
            assert self._category_of is None or index in self._category_of, f"No category has the class index {index}."
            category = index if self._category_of is None else self._category_of[index]
            region = coco_mask.encode(np.asfortranarray(sem_seg == index).view(np.uint8))
            region |= {"counts": region["counts"].decode()}
            entries.append({"file_name": input_file_name, "category_id": category, "segmentation": region})
        return entries

    def evaluate(self):
        """The metrics, on the main process; None on the others."""
        pixels, regions = self._pixels, self._regions
        if self._everywhere:
            comm.synchronize()
            gathered = comm.gather((pixels, regions))
            if not comm.is_main_process():
                return None
            pixels = sum(part for part, _ in gathered)
            regions = [region for _, part in gathered for region in part]
        metrics = self._metrics(*pixels.astype(np.float64))
        save_results(self._folder, {"sem_seg_predictions.json": regions, "sem_seg_evaluation.pth": metrics})
        logging.getLogger(__name__).info("Semantic segmentation, in percent: %s", metrics)
        return {"sem_seg": metrics}

    def _metrics(self, right: np.ndarray, true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        with np.errstate(invalid="ignore", divide="ignore"):  # classes without ground truth become NaN
            accuracy = np.where(true > 0, 100 * right / true, np.nan)
            iou = np.where(true > 0, 100 * right / (true + predicted - right), np.nan)
            weighted, overall = iou * true / true.sum(), 100 * right.sum() / true.sum()
        metrics = {"mIoU": _mean(iou), "fwIoU": float(np.nansum(weighted))}
        metrics |= {f"IoU-{name}": value for name, value in zip(self._names, iou.tolist(), strict=True)}
        metrics |= {"mACC": _mean(accuracy), "pACC": float(overall)}
        return metrics | {f"ACC-{name}": value for name, value in zip(self._names, accuracy.tolist(), strict=True)}


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
