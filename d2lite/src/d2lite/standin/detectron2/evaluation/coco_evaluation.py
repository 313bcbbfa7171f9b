"""Average precision of boxes and masks, by pycocotools or a faster library with its interface."""

import io
import logging
import os
from collections.abc import Sequence
from contextlib import redirect_stdout

import numpy as np
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

from .evaluator import DatasetEvaluator, save_results
from .fast_eval_api import COCOeval_opt

logger = logging.getLogger(__name__)

# Where COCOeval's precision (IoU threshold, recall, class, size of object, number of detections) has what is reported.
EVERY, AT_50, AT_75 = slice(None), 0, 5
REPORTED = dict(AP=(EVERY, 0), AP50=(AT_50, 0), AP75=(AT_75, 0), APs=(EVERY, 1), APm=(EVERY, 2), APl=(EVERY, 3))


class COCOEvaluator(DatasetEvaluator):
    """COCO's metrics in percent, under ``bbox`` and ``segm``: ``AP AP50 AP75 APs APm APl``, ``AP-{class}``.

    A metric without ground truth is NaN. The metadata need ``thing_classes`` and ``json_file``;
    without that, a file is written into ``output_dir``, or kept with ``allow_cached_coco``. ``output_dir`` also gets
    ``instances_predictions.pth`` and ``coco_instances_results.json``. ``tasks`` None: "bbox", and "segm" if masks were
    predicted. ``max_dets_per_image``: maximal number of detections of an image and class, 100.
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
        allow_cached_coco: bool = True,
    ):
        if "keypoints" in (tasks or ()):
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
        """Forget all detections."""
        self._answers: list[dict] = []

    def process(self, inputs, outputs):
        """Collect the ``instances`` of outputs that have them, with the ``image_id`` of the inputs."""
        for image, answer in zip(inputs, outputs, strict=True):
            if "instances" in answer:
                detections = instances_to_coco_json(answer["instances"].to("cpu"), image["image_id"])
                self._answers.append({"image_id": image["image_id"], "instances": detections})

    def evaluate(self, img_ids: Sequence[int] | None = None):
        """The metrics of all images or of ``img_ids``; {} in other processes, without predictions or ground truth."""
        answers = self._answers
        if self._everywhere:
            comm.synchronize()
            answers = [answer for part in comm.gather(answers) for answer in part]
            if not comm.is_main_process():
                return {}
        if not answers:
            logger.warning("COCOEvaluator got no predictions, not even empty ones, so there are no metrics.")
            return {}
        category_of = self._category_of()
        detections = []
        for detection in (detection for answer in answers for detection in answer["instances"]):
            index = detection["category_id"]
            assert category_of is None or index in category_of, f"A detection has class={index}, which is unknown."
            detections.append(detection | ({"category_id": category_of[index]} if category_of else {}))
        files = {"instances_predictions.pth": answers, "coco_instances_results.json": detections}
        save_results(self._folder, files)
        if "annotations" not in self._truth.dataset:  # as in COCO's test sets
            logger.info("%s has no annotations, so there are no metrics.", self._metadata.json_file)
            return {}
        tasks = self._tasks
        if tasks is None:
            tasks = ["bbox", "segm"] if any("segmentation" in detection for detection in detections) else ["bbox"]
        return {task: self._metrics(task, detections, img_ids) for task in sorted(tasks)}

    def _category_of(self) -> dict[int, int] | None:
        """Contiguous id -> category id of the data set; None if they are the same."""
        index_of = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if index_of is None:
            return None
        original = {index: category for category, index in index_of.items()}
        assert set(original) == set(range(len(index_of))), f"Class indices must be 0, 1, 2, ...: {sorted(original)}"
        return original

    def _metrics(self, task: str, detections: list[dict], img_ids: Sequence[int] | None) -> dict[str, float]:
        if not detections:
            logger.warning("Nothing was detected, so the %s metrics are NaN.", task)
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
        metrics = {name: _mean(precision[iou, ..., size]) for name, (iou, size) in REPORTED.items()}
        logger.info("%s, in percent (NaN: no such object in the truth):\n%s", task, create_small_table(metrics))
        names = self._metadata.get("thing_classes") or []
        if len(names) < 2:
            return metrics
        # COCOeval sorts the categories by id, which need not be the order of the names.
        categories = list(backend.params.catIds)
        category_of = self._category_of() or dict(enumerate(categories))
        of_class = {
            name: _mean(precision[..., categories.index(category_of[i]), 0])
            for i, name in enumerate(names)
            if category_of.get(i) in categories
        }
        table = tabulate(of_class.items(), headers=["class", "AP"], tablefmt="pipe", floatfmt=".3f")
        logger.info("%s by class:\n%s", task, table)
        return metrics | {f"AP-{name}": value for name, value in of_class.items()}


def _mean(precision: np.ndarray) -> float:
    """The mean of the defined entries, in percent; COCOeval marks undefined ones by -1."""
    defined = precision[precision >= 0]
    return 100 * float(defined.mean()) if defined.size else float("nan")


def _silence() -> redirect_stdout:
    """Suppress the printed messages of pycocotools."""
    return redirect_stdout(io.StringIO())


def instances_to_coco_json(instances: Instances, img_id: int) -> list[dict]:
    """Detections in one image, on the CPU, as COCO's results, whose ``category_id`` is still the class index."""
    columns = {
        "category_id": instances.pred_classes.tolist(),
        "bbox": BoxMode.convert(instances.pred_boxes.tensor, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).tolist(),
        "score": instances.scores.tolist(),
    }
    if instances.has("pred_masks"):
        masks = [np.asarray(mask, dtype=np.uint8, order="F") for mask in instances.pred_masks]
        columns["segmentation"] = [rle | {"counts": rle["counts"].decode()} for rle in map(coco_mask.encode, masks)]
    return [{"image_id": img_id, **dict(zip(columns, row, strict=True))} for row in zip(*columns.values(), strict=True)]
