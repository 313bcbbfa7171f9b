"""Average precision of boxes and masks, by pycocotools or a faster library with its interface."""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout

import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import convert_to_coco_json
from detectron2.structures import BoxMode, Instances
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

from d2lite.omitted import ADVICE

from .evaluator import DatasetEvaluator
from .fast_eval_api import COCOeval_opt

__all__ = ["COCOEvaluator", "instances_to_coco_json"]

logger = logging.getLogger(__name__)

# Where COCOeval's precision (IoU threshold, recall, class, size of object, number of detections) has what is reported.
EVERY, AT_50, AT_75 = slice(None), 0, 5
REPORTED = {
    "AP": (EVERY, 0),
    "AP50": (AT_50, 0),
    "AP75": (AT_75, 0),
    "APs": (EVERY, 1),
    "APm": (EVERY, 2),
    "APl": (EVERY, 3),
}


class COCOEvaluator(DatasetEvaluator):
    """COCO's figures for instances, in percent.

    They stand under ``bbox`` and ``segm``: ``AP AP50 AP75 APs APm APl``, and ``AP-{class}`` where there are several
    classes. A figure without any ground truth to measure it is NaN.

    Args:
        dataset_name: its metadata have ``thing_classes`` and ``json_file``. Without it, a file is written into
            ``output_dir``.
        tasks: some of "bbox" and "segm". None: "bbox", and "segm" if masks were predicted.
        distributed: evaluate what all processes predicted.
        output_dir: gets ``instances_predictions.pth`` and ``coco_instances_results.json``.
        max_dets_per_image: how many of the best detections of an image and class count; 100.
        use_fast_impl: use the faster library if it is there.
        kpt_oks_sigmas: must be empty, since keypoints are left out.
        allow_cached_coco: use the file that was written for a data set without one earlier.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: Sequence[str] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
        use_fast_impl: bool = True,
        kpt_oks_sigmas: Sequence[float] = (),
        allow_cached_coco: bool = True,
    ):
        if len(kpt_oks_sigmas) or "keypoints" in (tasks or ()):
            raise NotImplementedError(f"Evaluation of keypoints: {ADVICE}")
        self._tasks, self._everywhere, self._folder = tasks, distributed, output_dir
        self._limits = [1, 10, max_dets_per_image or 100]
        self._backend = COCOeval_opt if use_fast_impl else COCOeval
        metadata = self._metadata = MetadataCatalog.get(dataset_name)
        if not metadata.get("json_file"):
            if not output_dir:
                raise ValueError(f"{dataset_name} has no json_file: COCOEvaluator needs an output_dir to write one.")
            metadata.json_file = os.path.join(output_dir, f"{dataset_name}_coco_format.json")
            convert_to_coco_json(dataset_name, metadata.json_file, allow_cached=allow_cached_coco)
        with _silence():
            self._truth = COCO(PathManager.get_local_path(metadata.json_file))

    def reset(self):
        self._answers: list[dict] = []

    def process(self, inputs, outputs):
        """Collect the detections in images.

        Args:
            inputs: dicts with ``image_id``.
            outputs: dicts with ``instances``, see :func:`instances_to_coco_json`; those without are skipped.
        """
        for image, answer in zip(inputs, outputs, strict=True):
            if "instances" not in answer:
                continue
            image_id = image["image_id"]
            detections = instances_to_coco_json(answer["instances"].to("cpu"), image_id)
            self._answers.append({"image_id": image_id, "instances": detections})

    def evaluate(self, img_ids: Sequence[int] | None = None):
        """The figures, on the main process; an empty dict on the others, without predictions and without a truth.

        Args:
            img_ids: count these images only.
        """
        answers = self._answers
        if self._everywhere:
            comm.synchronize()
            answers = [answer for part in comm.gather(answers) for answer in part]
            if not comm.is_main_process():
                return {}
        if not answers:
            logger.warning("COCOEvaluator got no predictions, not even empty ones, so there are no figures.")
            return {}
        detections = self._with_categories(detection for answer in answers for detection in answer["instances"])
        self._write(answers, detections)
        if "annotations" not in self._truth.dataset:  # as in COCO's test sets
            logger.info("%s has no annotations, so there are no figures.", self._metadata.json_file)
            return {}
        tasks = self._tasks
        if tasks is None:
            tasks = ["bbox", "segm"] if any("segmentation" in detection for detection in detections) else ["bbox"]
        return {task: self._figures(task, detections, img_ids) for task in sorted(tasks)}

    def _with_categories(self, detections: Iterable[dict]) -> list[dict]:
        """The detections with the data set's category ids instead of contiguous ones."""
        index_of = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if index_of is None:
            return list(detections)
        original = {index: category for category, index in index_of.items()}
        assert set(original) == set(range(len(index_of))), f"Class indices must be 0, 1, 2, ...: {sorted(original)}"
        renamed = []
        for detection in detections:
            index = detection["category_id"]
            assert index in original, f"A detection has class={index}, but there are {len(original)} classes."
            renamed.append(detection | {"category_id": original[index]})
        return renamed

    def _write(self, answers: list[dict], detections: list[dict]) -> None:
        if not self._folder:
            return
        PathManager.mkdirs(self._folder)
        with PathManager.open(os.path.join(self._folder, "instances_predictions.pth"), "wb") as file:
            torch.save(answers, file)
        with PathManager.open(os.path.join(self._folder, "coco_instances_results.json"), "w") as file:
            json.dump(detections, file)

    def _figures(self, task: str, detections: list[dict], img_ids: Sequence[int] | None) -> dict[str, float]:
        if not detections:
            logger.warning("Nothing was detected, so the %s figures are NaN.", task)
            return dict.fromkeys(REPORTED, float("nan"))
        # COCO takes the size of an object from the box if there is one; that of a mask is its own area. The copies are
        # for loadRes, which writes into them.
        unused = {"bbox"} if task == "segm" else set()
        copies = [{key: value for key, value in detection.items() if key not in unused} for detection in detections]
        with _silence():
            backend = self._backend(self._truth, self._truth.loadRes(copies), task)
            backend.params.maxDets = self._limits
            backend.params.imgIds = backend.params.imgIds if img_ids is None else list(img_ids)
            backend.evaluate()
            backend.accumulate()
        precision = backend.eval["precision"][..., -1]
        figures = {name: _mean(precision[iou, ..., size]) for name, (iou, size) in REPORTED.items()}
        logger.info("%s, in percent (NaN: no such object in the truth):\n%s", task, create_small_table(figures))
        return figures | self._figures_of_classes(task, precision[..., 0], backend.params.catIds)

    def _figures_of_classes(self, task: str, precision: np.ndarray, categories: Sequence[int]) -> dict[str, float]:
        names = self._metadata.get("thing_classes") or []
        if len(names) < 2:
            return {}
        index_of = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if index_of is None:
            index_of = {category: index for index, category in enumerate(categories)}
        # COCOeval sorts the categories by id, which need not be the order of the names.
        column = {index_of[category]: column for column, category in enumerate(categories) if category in index_of}
        figures = {name: _mean(precision[..., column[i]]) for i, name in enumerate(names) if i in column}
        table = tabulate(figures.items(), headers=["class", "AP"], tablefmt="pipe", floatfmt=".3f")
        logger.info("%s by class:\n%s", task, table)
        return {f"AP-{name}": figure for name, figure in figures.items()}


def _mean(precision: np.ndarray) -> float:
    """In percent, of the entries that are defined; COCOeval marks the others by -1."""
    defined = precision[precision >= 0]
    return 100 * float(defined.mean()) if defined.size else float("nan")


def _silence() -> redirect_stdout:
    """pycocotools prints what it does."""
    return redirect_stdout(io.StringIO())


def instances_to_coco_json(instances: Instances, img_id: int) -> list[dict]:
    """Detections in one image as COCO's results, whose ``category_id`` is still the class index.

    Args:
        instances: on the CPU, with ``pred_boxes``, ``scores``, ``pred_classes``, and ``pred_masks`` if there are masks.
    """
    corners = instances.pred_boxes.tensor
    columns = {
        "category_id": instances.pred_classes.tolist(),
        "bbox": BoxMode.convert(corners, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist(),
        "score": instances.scores.tolist(),
    }
    if instances.has("pred_masks"):
        columns["segmentation"] = [_encode(mask) for mask in instances.pred_masks]
    return [{"image_id": img_id, **dict(zip(columns, row, strict=True))} for row in zip(*columns.values(), strict=True)]


def _encode(mask) -> dict:
    rle = coco_mask.encode(np.asarray(mask, dtype=np.uint8, order="F"))
    return {"size": rle["size"], "counts": rle["counts"].decode()}
