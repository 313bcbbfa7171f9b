"""Instance segmentation and detection figures, over all, seen and unseen classes."""

import logging
import os
from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.file_io import PathManager

from PADing.errors import UserError
from PADing.evaluation.classes import thing_classes
from PADing.evaluation.coco_metrics import (
    CocoFigures,
    evaluate_detections,
    load_ground_truth,
    log_per_class,
    split_figures,
    zsi_figures,
)
from PADing.evaluation.detections import ImageDetections
from PADing.evaluation.gathering import gather_items
from PADing.evaluation.panoptic import read_panoptic_json, read_panoptic_png
from PADing.evaluation.results import log_table
from PADing.files import replacing, write_json, write_json_list

__all__ = ["InsSegzeroEvaluator", "InsSegzsiEvaluator", "instances_from_panoptic"]

logger = logging.getLogger(__name__)
# COCO's val2017 has half a million detections, 100 for each image.
MOST_OBJECTS = 1_000_000


class InsSegzeroEvaluator(DatasetEvaluator):
    """COCO's instance figures, with means over seen and unseen classes.

    ``evaluate`` returns ``{"bbox": {...}, "segm": {...}}``, in percent, NaN where nothing is defined: COCO's ``AP AP50
    AP75 APs APm APl``, then, when the data set has both kinds of classes, ``AP_*``, ``AP50_*`` and ``AR50_*`` (recall
    at IoU 0.5 with 100 detections) over seen classes (``seen``), unseen ones (``unseen``) and their harmonic mean
    (``hm``), then ``AP-<class>``. Classes are told apart by category id, so the order of the annotation's list doesn't
    matter. Classes without ground truth count nowhere; a class without predictions counts as 0.

    Ground truth is metadata's ``json_file``. A panoptic data set without one is evaluated on the thing segments of its
    panoptic annotation.

    Args:
        dataset_name: registered name; its metadata needs ``thing_classes`` and ``thing_dataset_id_to_contiguous_id``.
        tasks: ("bbox", "segm") or one of them; by default "bbox", and "segm" when there are predicted masks.
        distributed: gather from all processes.
        output_dir: folder for ``instance_results.json`` (figures, also per class), ``coco_instances_results.json``
            (predictions in COCO's format) and, of up to a million detections, ``instances_predictions.pth`` (the same
            as Python objects); None: nothing is written.
        max_dets_per_image: detections per image that count; by default 100.
        use_fast_impl, kpt_oks_sigmas: accepted because Detectron2's evaluator has them. There is one implementation,
            and keypoints are not evaluated.
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
        unknown = set(tasks or ()) - {"bbox", "segm"}
        if unknown:
            raise UserError(f"Instance evaluation knows the tasks bbox and segm, not {', '.join(sorted(unknown))}.")
        self._metadata = MetadataCatalog.get(dataset_name)
        self.classes = thing_classes(dataset_name)
        self._tasks = tuple(tasks) if tasks is not None else None
        self._distributed = distributed
        self._output_dir = output_dir
        self._max_dets = (1, 10, max_dets_per_image or 100)
        self._truth = None
        self.reset()

    def leave_out(self, records: Iterable[dict]) -> None:
        """Forget the annotation of images that cannot be read, until the next ``reset``."""
        self._left_out.update(record["image_id"] for record in records)

    def reset(self) -> None:
        self._left_out = set()
        self._predictions: list[ImageDetections] = []
        self._per_class: dict[str, list[dict]] = {}

    def process(self, inputs: list[dict], outputs: list[dict]) -> None:
        """Keep the predictions of a batch, masks as RLE.

        Args:
            inputs: dataset dicts with ``image_id``.
            outputs: dicts whose ``instances`` have ``pred_boxes`` (XYXY, pixels), ``scores``, ``pred_classes``
                (contiguous ids) and, for "segm", ``pred_masks``: N masks (H, W), a tensor or any sequence of them.
        """
        for record, output in zip(inputs, outputs, strict=True):
            if "instances" not in output:
                raise UserError("The model gives no `instances`: set MODEL.MASK_FORMER.TEST.INSTANCE_ON True.")
            self._predictions.append(self._detections(record["image_id"], output["instances"]))

    def _detections(self, image_id, instances) -> ImageDetections:
        labels = [self.classes.dataset_id(label) for label in instances.pred_classes.tolist()]
        boxes = masks = None
        if instances.has("pred_boxes"):
            boxes = instances.pred_boxes
            boxes = np.array((boxes.tensor if hasattr(boxes, "tensor") else boxes).tolist(), dtype=float).reshape(-1, 4)
            boxes[:, 2:] -= boxes[:, :2]
        if instances.has("pred_masks"):
            # One at a time: a hundred masks of a large image may not fit into memory together.
            masks = [
                mask_util.encode(np.asfortranarray((mask > 0.5).cpu().numpy(), dtype=np.uint8))["counts"]
                for mask in instances.pred_masks
            ]
        scores = np.array(instances.scores.tolist(), dtype=float)
        return ImageDetections(
            image_id, np.array(labels, dtype=np.int64), scores, boxes, masks, tuple(instances.image_size)
        )

    def evaluate(self) -> dict | None:
        """Gather from all processes and return the figures on the main one; None elsewhere."""
        if self._distributed:
            comm.synchronize()
        predictions = gather_items(self._predictions, self._distributed)
        if predictions is None:
            return None
        count = sum(map(len, predictions))
        if not count:
            logger.warning("No instance was predicted for any image of %s.", self.classes.data_set)
        if self._output_dir:
            path = os.path.join(self._output_dir, "coco_instances_results.json")
            write_json_list(path, (result for item in predictions for result in item.results()))
            self._write_objects(predictions, count)
        # Without any prediction nothing says whether masks were meant; then both tasks are reported, as zeros.
        has_masks = any(item.masks is not None for item in predictions)
        tasks = self._tasks or (("bbox", "segm") if has_masks or not count else ("bbox",))
        results = self.figures(predictions, tasks)
        if self._output_dir:
            content = {"data_set": self.classes.data_set, "detections": count, **results}
            content["per_class"] = self._per_class
            write_json(os.path.join(self._output_dir, "instance_results.json"), content, indent=2)
        return results

    def _write_objects(self, predictions: list[ImageDetections], count: int) -> None:
        if count > MOST_OBJECTS:
            logger.info(
                "instances_predictions.pth is not written, because %d detections as Python objects would take %.0f GB "
                "of memory. coco_instances_results.json holds the same.",
                count,
                count * 1.5e-6,
            )
            return
        objects = [{"image_id": item.image_id, "instances": list(item.results())} for item in predictions]
        with replacing(os.path.join(self._output_dir, "instances_predictions.pth")) as temporary:
            torch.save(objects, temporary)

    def figures(
        self, detections: Iterable[ImageDetections] | Iterable[dict], tasks: tuple[str, ...] = ("bbox", "segm")
    ) -> OrderedDict:
        """The result of :meth:`evaluate` for detections, as objects or in COCO's result format."""
        truth = self._ground_truth()
        results, self._per_class = OrderedDict(), {}
        for task in tasks:
            if task == "segm" and truth.anns and not any(a.get("segmentation") for a in truth.anns.values()):
                logger.info("The annotation of %s has no masks, so masks are not evaluated.", self.classes.data_set)
                continue
            figures = evaluate_detections(
                truth,
                detections,
                task,
                category_ids=self.classes.dataset_ids.values(),
                max_dets=self._max_dets,
            )
            results[task] = self._standard(figures)
            results.update(self._zero_shot(task, figures))
            self._per_class[task] = self._classwise(figures)
            self._log(task, figures, results)
        return results

    def _zero_shot(self, task: str, figures: CocoFigures) -> dict:
        """More result entries; for subclasses."""
        return {}

    def _standard(self, figures: CocoFigures) -> OrderedDict:
        ids, classes = self.classes.dataset_ids, self.classes
        result = OrderedDict(AP=figures.ap(), AP50=figures.ap(0.5), AP75=figures.ap(0.75))
        result.update((f"AP{size[0]}", figures.ap(area=size)) for size in ("small", "medium", "large"))
        result = OrderedDict((key, 100 * value) for key, value in result.items())
        if classes.is_split:
            result.update(split_figures(figures, [ids[i] for i in classes.seen], [ids[i] for i in classes.unseen]))
        for contiguous, name in classes.names.items():
            result[f"AP-{name}"] = 100 * figures.ap(categories=(ids[contiguous],))
        return result

    def _classwise(self, figures: CocoFigures) -> list[dict]:
        return [
            {
                "id": self.classes.dataset_ids[i],
                "name": name,
                "unseen": i in self.classes.unseen,
                "AP": 100 * figures.ap(categories=(self.classes.dataset_ids[i],)),
                "AP50": 100 * figures.ap(0.5, categories=(self.classes.dataset_ids[i],)),
            }
            for i, name in self.classes.names.items()
        ]

    def _log(self, task: str, figures: CocoFigures, results: dict) -> None:
        names = {self.classes.dataset_ids[i]: name for i, name in self.classes.names.items()}
        log_per_class(figures, names, {self.classes.dataset_ids[i] for i in self.classes.unseen}, task)
        main = {key: value for key, value in results[task].items() if "-" not in key and "_" not in key}
        title = f"{task} on {self.classes.data_set}"
        log_table(title, [list(main.values())], list(main))
        if self.classes.is_split:
            rows = [
                [title, *(results[task][f"{metric}_{group}"] for metric in ("AP", "AP50", "AR50"))]
                for title, group in (("Seen", "seen"), ("Unseen", "unseen"), ("Harmonic mean", "hm"))
            ]
            log_table(f"Generalized zero-shot {title}", rows, ["", "AP", "AP50", "AR50"])

    def _ground_truth(self):
        if self._truth is None:
            path = self._metadata.get("json_file")
            if path and PathManager.isfile(path):
                self._truth = load_ground_truth(PathManager.get_local_path(path))
            elif self._metadata.get("panoptic_json"):
                logger.info(
                    "%s has no instance annotation; its instances are the thing segments of the panoptic annotation.",
                    self.classes.data_set,
                )
                self._truth = load_ground_truth(instances_from_panoptic(self._metadata))
            else:
                raise UserError(f"Instance annotation {path!r} of data set {self.classes.data_set!r} does not exist.")
        if not self._left_out:
            return self._truth
        content = dict(self._truth.dataset)
        content["images"] = [image for image in content["images"] if image["id"] not in self._left_out]
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] not in self._left_out]
        return load_ground_truth(content)


class InsSegzsiEvaluator(InsSegzeroEvaluator):
    """Zero-shot instance segmentation, pure (ZSIS) and generalized (GZSIS); see :class:`InsSegzeroEvaluator`.

    Which of the two follows from metadata. Where every class of the data set is unseen, the result has, besides
    ``bbox`` and ``segm``, the entries ``bbox_zsi`` and ``segm_zsi`` with ``AP@40 AP@50 AP@60 R100@40 R100@50 R100@60``:
    AP, and recall with 100 detections, at IoU 0.4, 0.5 and 0.6. The generalized setting's published "mAP" and "Recall"
    are ``AP50_*`` and ``AR50_*`` under ``segm``.
    """

    def _zero_shot(self, task: str, figures: CocoFigures) -> dict:
        if not self.classes.only_unseen:
            return {}
        values = zsi_figures(figures)
        log_table(f"Zero-shot {task} on {self.classes.data_set}", [list(values.values())], list(values))
        return {f"{task}_zsi": values}


def instances_from_panoptic(metadata) -> dict:
    """COCO's instance format, made of the thing segments of the panoptic annotation that ``metadata`` names."""
    panoptic = read_panoptic_json(metadata)
    things = set(metadata.thing_dataset_id_to_contiguous_id)
    annotations = []
    for item in panoptic["annotations"]:
        segments = [s for s in item["segments_info"] if s["category_id"] in things]
        if not segments:
            continue
        segment_map = read_panoptic_png(metadata.panoptic_root, item["file_name"], item["segments_info"])
        for segment in segments:
            rle = mask_util.encode(np.asfortranarray(segment_map == segment["id"], dtype=np.uint8))
            area = float(mask_util.area(rle))
            if area == 0:
                continue
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": item["image_id"],
                    "category_id": segment["category_id"],
                    "iscrowd": int(segment.get("iscrowd", 0)),
                    "area": area,
                    "bbox": mask_util.toBbox(rle).tolist(),
                    "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")},
                }
            )
    categories = [c for c in panoptic["categories"] if c["id"] in things]
    # Images without any annotation at all stay in: predictions on them are false positives.
    images = panoptic.get("images") or [
        {"id": item["image_id"], "file_name": item["file_name"]} for item in panoptic["annotations"]
    ]
    return {"images": images, "categories": categories, "annotations": annotations}
