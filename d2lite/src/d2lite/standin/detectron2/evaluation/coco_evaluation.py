"""COCO's box and mask figures."""

import contextlib
import io
import itertools
import json
import logging
import os
from collections import OrderedDict

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, BoxMode
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager
from detectron2.utils.logger import create_small_table
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tabulate import tabulate

from .evaluator import DatasetEvaluator
from .fast_eval_api import COCOeval_opt

__all__ = ["COCOEvaluator", "instances_to_coco_json"]

AREAS = {"APs": 1, "APm": 2, "APl": 3}


class COCOEvaluator(DatasetEvaluator):
    """Average precision of boxes and masks, in percent, NaN where undefined: ``{"bbox": {...}, "segm": {...}}``.

    Predictions need the fields ``pred_boxes``, ``scores``, ``pred_classes`` and, for masks, ``pred_masks``.

    Args:
        dataset_name: a data set whose metadata has ``json_file`` and ``thing_classes``.
        tasks: "bbox" and "segm"; by default "bbox", and "segm" when there are predicted masks.
        distributed: gather from all processes.
        output_dir: folder for ``instances_predictions.pth`` and ``coco_instances_results.json``.
        max_dets_per_image: by default 100.
        use_fast_impl: use compiled code where it is installed.
    """

    def __init__(
        self,
        dataset_name,
        tasks=None,
        distributed=True,
        output_dir=None,
        *,
        max_dets_per_image=None,
        use_fast_impl=True,
        kpt_oks_sigmas=(),
        allow_cached_coco=True,
    ):
        self._logger = logging.getLogger(__name__)
        if kpt_oks_sigmas or "keypoints" in (tasks or ()):
            raise NotImplementedError("d2lite's COCOEvaluator leaves keypoints out; install the genuine Detectron2.")
        self._tasks = tuple(tasks) if tasks is not None else None
        self._distributed = distributed
        self._output_dir = output_dir
        self._use_fast_impl = use_fast_impl
        self._max_dets_per_image = [1, 10, max_dets_per_image or 100]
        self._cpu_device = torch.device("cpu")
        self._metadata = MetadataCatalog.get(dataset_name)
        if not self._metadata.get("json_file"):
            raise NotImplementedError(
                f"Metadata of {dataset_name!r} has no `json_file`. d2lite's COCOEvaluator leaves out the conversion of "
                "data sets to COCO's format; install the genuine Detectron2."
            )
        with contextlib.redirect_stdout(io.StringIO()):
            self._coco_api = COCO(PathManager.get_local_path(self._metadata.json_file))
        # Test sets come without annotations; then predictions are only written.
        self._do_evaluation = "annotations" in self._coco_api.dataset
        self.reset()

    def reset(self):
        self._predictions = []

    def process(self, inputs, outputs):
        """Keep the predictions of a batch.

        Args:
            inputs: dataset dicts with ``image_id``.
            outputs: dicts with ``instances``.
        """
        for record, output in zip(inputs, outputs, strict=True):
            if "instances" in output:
                instances = output["instances"].to(self._cpu_device)
                detections = instances_to_coco_json(instances, record["image_id"])
                self._predictions.append({"image_id": record["image_id"], "instances": detections})

    def evaluate(self, img_ids=None):
        """Return the figures on the main process, an empty dict elsewhere.

        Args:
            img_ids: evaluate on these images only.
        """
        predictions = self._predictions
        if self._distributed:
            comm.synchronize()
            predictions = list(itertools.chain(*comm.gather(predictions, dst=0)))
            if not comm.is_main_process():
                return {}
        if len(predictions) == 0:
            self._logger.warning("[COCOEvaluator] Did not receive valid predictions.")
            return {}
        if self._output_dir:
            PathManager.mkdirs(self._output_dir)
            with PathManager.open(os.path.join(self._output_dir, "instances_predictions.pth"), "wb") as file:
                torch.save(predictions, file)

        results = [detection for prediction in predictions for detection in prediction["instances"]]
        tasks = self._tasks or ("bbox", *(["segm"] if any("segmentation" in r for r in results) else []))
        self._to_dataset_ids(results)
        if self._output_dir:
            with PathManager.open(os.path.join(self._output_dir, "coco_instances_results.json"), "w") as file:
                file.write(json.dumps(results))
        if not self._do_evaluation:
            self._logger.info("Annotations are not available for evaluation.")
            return OrderedDict()
        return OrderedDict((task, self._figures(results, task, img_ids)) for task in sorted(tasks))

    def _to_dataset_ids(self, results):
        contiguous = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if contiguous is None:
            return
        count = len(contiguous)
        assert sorted(contiguous.values()) == list(range(count)), "contiguous ids must be 0..N-1"
        to_dataset = {contiguous_id: dataset_id for dataset_id, contiguous_id in contiguous.items()}
        for result in results:
            category = result["category_id"]
            assert category < count, (
                f"A prediction has class={category}, but the dataset only has {count} classes and predicted class id "
                f"should be in [0, {count - 1}]."
            )
            result["category_id"] = to_dataset[category]

    def _figures(self, results, task, img_ids):
        names = ["AP", "AP50", "AP75", *AREAS]
        if not results:
            self._logger.warning("No predictions from the model!")
            return dict.fromkeys(names, float("nan"))
        if task == "segm":
            # With a box in the result, the box's area would decide whether the object is small or large.
            results = [{key: value for key, value in r.items() if key != "bbox"} for r in results]
        else:
            results = [dict(r) for r in results]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator = (COCOeval_opt if self._use_fast_impl else COCOeval)(
                self._coco_api, self._coco_api.loadRes(results), task
            )
            evaluator.params.maxDets = self._max_dets_per_image
            if img_ids is not None:
                evaluator.params.imgIds = img_ids
            evaluator.evaluate()
            evaluator.accumulate()
        precision = evaluator.eval["precision"]  # (10 thresholds, 101 recall points, classes, 4 areas, 3 limits)
        figures = {
            "AP": _mean_percent(precision[:, :, :, 0, -1]),
            "AP50": _mean_percent(precision[0, :, :, 0, -1]),
            "AP75": _mean_percent(precision[5, :, :, 0, -1]),
        }
        figures.update((name, _mean_percent(precision[:, :, :, area, -1])) for name, area in AREAS.items())
        self._logger.info(f"Evaluation results for {task}: \n" + create_small_table(figures))
        if not all(np.isfinite(list(figures.values()))):
            self._logger.info("Some metrics cannot be computed and is shown as NaN.")
        figures.update(self._per_category(precision, evaluator.params.catIds, task))
        return figures

    def _per_category(self, precision, category_ids, task):
        class_names = self._metadata.get("thing_classes")
        if class_names is None or len(class_names) <= 1:
            return {}
        # The axis of COCOeval is in ascending order of dataset ids, whatever the order of the class names.
        contiguous = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if contiguous is None:
            contiguous = {category: index for index, category in enumerate(sorted(category_ids))}
        figures = {
            class_names[contiguous[category]]: _mean_percent(precision[:, :, position, 0, -1])
            for position, category in enumerate(category_ids)
            if category in contiguous
        }
        cells = [cell for name in class_names if name in figures for cell in (name, figures[name])]
        width = min(6, len(cells))
        rows = [cells[i : i + width] for i in range(0, len(cells), width)]
        headers = ["category", "AP"] * (width // 2)
        table = tabulate(rows, headers=headers, tablefmt="pipe", floatfmt=".3f", numalign="left")
        self._logger.info(f"Per-category {task} AP: \n" + table)
        return {f"AP-{name}": figures[name] for name in class_names if name in figures}


def _mean_percent(values):
    values = values[values > -1]
    return float(np.mean(values) * 100) if values.size else float("nan")


def instances_to_coco_json(instances, img_id):
    """Predictions of one image in COCO's result format, with contiguous class ids.

    Args:
        instances: ``Instances`` on the CPU with ``pred_boxes``, ``scores``, ``pred_classes``, perhaps ``pred_masks``.
        img_id: the image id.
    """
    if len(instances) == 0:
        return []
    boxes = instances.pred_boxes
    boxes = boxes.tensor if isinstance(boxes, Boxes) else boxes
    boxes = BoxMode.convert(boxes.numpy(), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist()
    results = [
        {"image_id": img_id, "category_id": category, "bbox": box, "score": score}
        for category, box, score in zip(
            instances.pred_classes.tolist(), boxes, instances.scores.tolist(), strict=True
        )
    ]
    if instances.has("pred_masks"):
        for result, mask in zip(results, instances.pred_masks, strict=True):
            rle = mask_util.encode(np.asfortranarray(np.asarray(mask), dtype=np.uint8))
            rle["counts"] = rle["counts"].decode("utf-8")
            result["segmentation"] = rle
    return results
