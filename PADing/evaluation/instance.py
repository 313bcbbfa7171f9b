"""Metrics of instance segmentation and detection, over all, seen and unseen classes."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.structures import Instances
from detectron2.utils.file_io import PathManager
from pycocotools.coco import COCO

from PADing.errors import UserError
from PADing.evaluation.base import ZeroShotEvaluator
from PADing.evaluation.coco_metrics import (
    CocoMetrics,
    evaluate_together,
    load_ground_truth,
    log_per_class,
    split_metrics,
    zsi_metrics,
)
from PADing.evaluation.detections import ImageDetections, ImageId
from PADing.evaluation.objects_file import item_bytes, write_objects
from PADing.evaluation.panoptic import read_panoptic_json, read_panoptic_png
from PADing.evaluation.processes import Processes, packed
from PADing.evaluation.results import log_table
from PADing.evaluation.rle import encode_labels, encode_masks
from PADing.files import write_json_texts

logger = logging.getLogger(__name__)
# COCO's val2017 has half a million detections, 100 for each image.
MOST_OBJECTS = 1_000_000
TASKS = ("bbox", "segm")


class InsSegzeroEvaluator(ZeroShotEvaluator):
    """COCO's instance metrics, with means over seen and unseen classes.

    ``evaluate`` returns ``{"bbox": {...}, "segm": {...}}`` in percent, NaN for undefined metrics: COCO's ``AP AP50 AP75
    APs APm APl``; if the data set has seen and unseen classes, ``AP_*``, ``AP50_*`` and ``AR50_*`` (recall at IoU 0.5
    with 100 detections) over seen classes (``seen``), unseen ones (``unseen``) and their harmonic mean (``hm``); and
    ``AP-<class>``. Classes are matched by category id, so the order of the annotation's list does not matter. Classes
    without ground truth are left out; a class without predictions has 0.

    The metadata's ``json_file`` is the ground truth. A panoptic data set without it is evaluated on the thing segments
    of its panoptic annotation.

    Args:
        dataset_name: registered name; its metadata needs ``thing_classes`` and ``thing_dataset_id_to_contiguous_id``.
        tasks: ("bbox", "segm") or one of them; by default "bbox", and "segm" if there are predicted masks.
        distributed: gather from all processes.
        output_dir: folder for ``instance_results.json`` (metrics, also per class), ``coco_instances_results.json``
            (predictions in COCO's format) and, for up to a million detections, ``instances_predictions.pth`` (the same
            as Python objects); None: write nothing.
        max_dets_per_image: maximal number of detections per image; by default 100.
        use_fast_impl, kpt_oks_sigmas: arguments of Detectron2's evaluator, without effect here.
    """

    def __init__(
        self,
        dataset_name: str,
        tasks: tuple[str, ...] | None = None,
        distributed: bool = True,
        output_dir: str | None = None,
        *,
        max_dets_per_image: int | None = None,
        use_fast_impl: bool = True,
        kpt_oks_sigmas: tuple = (),
    ):
        unknown = set(tasks or ()) - set(TASKS)
        if unknown:
            raise UserError(f"Instance evaluation has the tasks bbox and segm, not {', '.join(sorted(unknown))}.")
        super().__init__(dataset_name, "instance", distributed, output_dir)
        self._tasks = tuple(tasks) if tasks is not None else None
        self._max_dets = (1, 10, max_dets_per_image or 100)
        self._truth: tuple[tuple, COCO] | None = None

    def process_image(self, record: dict, prediction: Instances) -> None:
        """Store the predictions for an image, masks as RLE.

        Args:
            record: dataset dict with ``image_id``.
            prediction: has ``pred_boxes`` (XYXY, pixels), ``scores``, ``pred_classes`` (contiguous ids) and, for
                "segm", ``pred_masks``: N masks (H, W), a tensor or any sequence of them.
        """
        labels = [self.classes.dataset_id(label) for label in prediction.pred_classes.tolist()]
        boxes = masks = None
        if prediction.has("pred_boxes"):
            boxes = prediction.pred_boxes
            boxes = np.array((boxes.tensor if hasattr(boxes, "tensor") else boxes).tolist(), dtype=float).reshape(-1, 4)
            boxes[:, 2:] -= boxes[:, :2]
        if prediction.has("pred_masks"):
            # One at a time, because a hundred masks of a large image may not fit into memory.
            masks = encode_masks(map(_binary, prediction.pred_masks))
        ids, scores = np.array(labels, dtype=np.int64), np.array(prediction.scores.tolist(), dtype=float)
        self.items.append(ImageDetections(record["image_id"], ids, scores, boxes, masks, prediction.image_size))

    def score(self, processes: Processes) -> dict | None:
        """The metrics by task, in the main process; see the class."""
        everywhere = processes.all((
            [item.image_id for item in self.items],
            sum(map(len, self.items)),
            any(item.masks is not None for item in self.items),
        ))  # fmt: skip
        count = sum(number for _, number, _ in everywhere)
        if not count and processes.is_main:
            logger.warning("No instance was predicted for any image of %s.", self.classes.data_set)
        if self.output_dir:
            self._write_predictions(count, processes)
        # Without any prediction it is unknown whether the model has masks, so report both tasks, as zeros.
        has_masks = any(masks for *_, masks in everywhere)
        tasks = self._tasks or (TASKS if has_masks or not count else ("bbox",))
        truth = processes.agreed(self._ground_truth, [ids for ids, *_ in everywhere], processes)
        shown = processes.all((bool(truth.anns), any(a.get("segmentation") for a in truth.anns.values())))
        if "segm" in tasks and any(some for some, _ in shown) and not any(masks for _, masks in shown):
            logger.info("The annotation of %s has no masks, so masks are not evaluated.", self.classes.data_set)
            tasks = tuple(task for task in tasks if task != "segm")
        ids, most = self.classes.dataset_ids.values(), self._max_dets
        metrics = {
            task: evaluate_together(
                processes, truth, self.items, task, category_ids=ids, max_dets=most, where=self._annotation_name()
            )
            for task in tasks
        }
        return processes.on_main(self._results, metrics, count)

    def _write_predictions(self, count: int, processes: Processes) -> None:
        texts = (line for item in self.items for line in item.lines())
        path = self.path("coco_instances_results.json")
        processes.in_order(packed(texts, b",\n"), lambda messages: write_json_texts(path, messages))
        if count > MOST_OBJECTS:
            logger.info(
                f"instances_predictions.pth is not written, because {count} detections as Python objects would "
                f"take {count * 1.5e-6:.0f} GB of memory. coco_instances_results.json has the same detections."
            )
            return
        objects = (item_bytes({"image_id": item.image_id, "instances": list(item.results())}) for item in self.items)
        path_of_objects = self.path("instances_predictions.pth")
        processes.in_order(packed(objects, b""), lambda messages: write_objects(path_of_objects, messages))

    def _results(self, metrics: Mapping[str, CocoMetrics | None], count: int) -> dict:
        """The results of all tasks; written, with AP and AP50 of every class, if there is an output folder."""
        ids = self.classes.dataset_ids
        results: OrderedDict[str, dict[str, float]] = OrderedDict()
        per_class: dict[str, list] = {}
        for task, own in metrics.items():
            assert own is not None
            per_class[task] = self.per_class(
                {"AP": 100 * own.ap(categories=(ids[i],)), "AP50": 100 * own.ap(0.5, categories=(ids[i],))}
                for i in self.classes.names
            )
            results[task] = self._standard(own)
            results[task].update((f"AP-{row['name']}", row["AP"]) for row in per_class[task])
            results.update(self._zero_shot(task, own))
            self._log(task, own, results[task])
            measured = [i for i, row in zip(self.classes.names, per_class[task], strict=True) if row["AP"] == row["AP"]]
            results.update(self.by_training(task, self._of_classes(own), measured))
        if self.output_dir:
            self.write_results("instance_results.json", {"detections": count, **results, "per_class": per_class})
        return results

    def _zero_shot(self, task: str, metrics: CocoMetrics) -> dict:
        """More result entries; for subclasses."""
        return {}

    def _of_classes(self, metrics: CocoMetrics) -> dict[str, Callable[[Collection[int]], float]]:
        """AP, AP50 and AR50 in percent as functions of contiguous ids."""
        ids = self.classes.dataset_ids
        return {
            "AP": lambda classes: 100 * metrics.ap(categories=[ids[i] for i in classes]),
            "AP50": lambda classes: 100 * metrics.ap(0.5, categories=[ids[i] for i in classes]),
            "AR50": lambda classes: 100 * metrics.ar(0.5, categories=[ids[i] for i in classes]),
        }

    def _standard(self, metrics: CocoMetrics) -> OrderedDict:
        ids, classes = self.classes.dataset_ids, self.classes
        result = OrderedDict(AP=metrics.ap(), AP50=metrics.ap(0.5), AP75=metrics.ap(0.75))
        result.update((f"AP{size[0]}", metrics.ap(area=size)) for size in ("small", "medium", "large"))
        result = OrderedDict((key, 100 * value) for key, value in result.items())
        if classes.is_generalized:
            result.update(split_metrics(metrics, [ids[i] for i in classes.seen], [ids[i] for i in classes.unseen]))
        return result

    def _log(self, task: str, metrics: CocoMetrics, result: dict) -> None:
        log_per_class(metrics, {self.classes.dataset_ids[i]: self.starred(i) for i in self.classes.names}, task)
        main = {key: value for key, value in result.items() if "-" not in key and "_" not in key}
        title = f"{task} on {self.classes.data_set}"
        log_table(title, [list(main.values())], list(main))
        if self.classes.is_generalized:
            rows = [
                [group_title, *(result[f"{metric}_{group}"] for metric in ("AP", "AP50", "AR50"))]
                for group_title, group in (("Seen", "seen"), ("Unseen", "unseen"), ("Harmonic mean", "hm"))
            ]
            log_table(f"Generalized zero-shot {title}", rows, ["", "AP", "AP50", "AR50"])

    def _ground_truth(self, predicted: Sequence[list[ImageId]], processes: Processes) -> COCO:
        """The annotation of this process's images, and of its share of those that no process has predicted.

        ``predicted``: ids of the images of each process.
        """
        own, met = set(predicted[processes.rank]), {image_id for ids in predicted for image_id in ids}

        def chosen(images: Sequence[ImageId]) -> list[ImageId]:
            images = [i for i in images if str(i) not in self.left_out]
            rest = [i for i in images if i not in met]
            return [i for i in images if i in own] + rest[processes.rank :: processes.size]

        key = own, frozenset(self.left_out), processes.size
        if self._truth is None or self._truth[0] != key:
            self._truth = key, self._load_truth(chosen)
        return self._truth[1]

    def _annotation_name(self) -> str:
        path = self.metadata.get("json_file") or self.metadata.get("panoptic_json")
        return f"the annotation ({path}; was it replaced after the evaluation had begun?)"

    def _load_truth(self, chosen: Callable[[Sequence[ImageId]], Collection[ImageId]]) -> COCO:
        path = self.metadata.get("json_file")
        if path and PathManager.isfile(path):
            return load_ground_truth(PathManager.get_local_path(path), chosen)
        if self.metadata.get("panoptic_json"):
            text = "%s has no instance annotation; its instances are the thing segments of the panoptic annotation."
            logger.info(text, self.classes.data_set)
            return load_ground_truth(
                _instances_from_panoptic(self.metadata, set(self.classes.dataset_ids.values()), chosen)
            )
        raise UserError(f"Instance annotation {path!r} of data set {self.classes.data_set!r} does not exist.")


class InsSegzsiEvaluator(InsSegzeroEvaluator):
    """Zero-shot instance segmentation (ZSIS) or generalized (GZSIS); see :class:`InsSegzeroEvaluator`.

    The metadata say which of the two. If all classes of the data set are unseen (ZSIS), the results also have
    ``bbox_zsi`` and ``segm_zsi`` with ``AP@40 AP@50 AP@60 R100@40 R100@50 R100@60``: AP, and recall with 100
    detections, at IoU 0.4, 0.5 and 0.6. The published "mAP" and "Recall" of GZSIS are ``AP50_*`` and ``AR50_*`` under
    ``segm``.
    """

    def _zero_shot(self, task: str, metrics: CocoMetrics) -> dict:
        if not self.classes.only_unseen:
            return {}
        values = zsi_metrics(metrics)
        log_table(f"Zero-shot {task} on {self.classes.data_set}", [list(values.values())], list(values))
        return {f"{task}_zsi": values}


def _binary(mask: torch.Tensor) -> np.ndarray:
    mask = mask.detach()
    if mask.dtype == torch.bool:
        return mask.cpu().numpy()
    # On a CPU, NumPy compares in half the time.
    on_cpu = mask.device.type == "cpu" and mask.dtype in (torch.uint8, torch.float32, torch.float64)
    return mask.numpy() > 0.5 if on_cpu else (mask > 0.5).cpu().numpy()


def _instances_from_panoptic(
    metadata: Any, things: Collection[int], chosen: Callable[[Sequence[ImageId]], Collection[ImageId]]
) -> dict:
    """Segments of ``things`` (dataset ids) in the chosen images of a panoptic annotation, in COCO's instance format."""
    panoptic = read_panoptic_json(metadata)
    # Keep images without annotation: predictions on them are false positives.
    listed = [{"id": item["image_id"], "file_name": item["file_name"]} for item in panoptic["annotations"]]
    images = panoptic.get("images") or listed
    kept = set(chosen([image["id"] for image in images]))
    left = {image["id"] for image in images} - kept
    annotations: list[dict] = []
    for item in panoptic["annotations"]:
        if item["image_id"] in left:
            continue
        segments = [s for s in item["segments_info"] if s["category_id"] in things]
        if not segments:
            continue
        segment_map = read_panoptic_png(metadata.panoptic_root, item["file_name"], item["segments_info"])
        masks = dict(encode_labels(segment_map))
        for segment in segments:
            if segment["id"] not in masks:
                continue
            rle = {"size": list(segment_map.shape), "counts": masks[segment["id"]]}
            area = float(mask_util.area(rle))
            ids = {"id": len(annotations) + 1, "image_id": item["image_id"], "category_id": segment["category_id"]}
            shape = {"area": area, "bbox": mask_util.toBbox(rle).tolist()}
            mask = {**rle, "counts": masks[segment["id"]].decode("ascii")}
            annotations.append({**ids, "iscrowd": int(segment.get("iscrowd", 0)), **shape, "segmentation": mask})
    categories = [c for c in panoptic["categories"] if c["id"] in things]
    return {"images": [i for i in images if i["id"] in kept], "categories": categories, "annotations": annotations}
