"""Metrics of a COCO result file, for tools/gzsi_coco_eval.py and tools/zsi_coco_eval.py."""

import argparse
import logging
import os
from collections.abc import Collection, Sequence
from functools import partial

from pycocotools.coco import COCO

from PADing.commands.coco_eval import TYPES
from PADing.data.splits import load_split
from PADing.errors import UserError
from PADing.evaluation.coco_metrics import (
    ZSI_IOU,
    evaluate_detections,
    image_sizes,
    load_ground_truth,
    log_per_class,
    split_metrics,
)
from PADing.evaluation.detections import ImageDetections, by_image
from PADing.files import read_json_list

logger = logging.getLogger(__name__)

ROW_NAMES = ("AP50_seen", "AP50_unseen", "AR50_seen", "AR50_unseen", "AP50_hm", "AR50_hm")


def coco_eval_revise(
    result_files,
    result_types: Sequence[str],
    coco,
    max_dets: Sequence[int] = (100, 300, 1000),
    classwise: bool = False,
    gzsd: bool = False,
    num_seen_classes: int | None = None,
    *,
    unseen: Collection[str] | None = None,
) -> list[tuple[float, ...]] | None:
    """Evaluate result files of zero-shot instance segmentation or detection; log the metrics.

    Args:
        result_files: path of a COCO result file (or its content, a list), or a dict of these by result type.
        result_types: any of "segm", "bbox" (AP and recall at IoU 0.4, 0.5, 0.6 with 100 detections), "proposal" (the
            same for boxes without classes, for each of ``max_dets``) and "proposal_fast" (its recall at IoU 0.5 alone).
        coco: annotation file, its content, or a pycocotools ``COCO``.
        max_dets: numbers of proposals per image; the other types always use COCO's 1, 10, 100.
        classwise: also log tables per class.
        gzsd: the generalized setting: return seen and unseen metrics.
        num_seen_classes: with ``gzsd``: the number of seen classes, which come first in the file's categories.
        unseen: names of the unseen classes, instead of ``num_seen_classes``.

    Returns:
        With ``gzsd`` one tuple (seen AP50, unseen AP50, seen recall, unseen recall, harmonic mean of AP50, of recall)
        in percent for each "segm", "bbox" or "proposal" (NaN for "proposal", which ignores classes); otherwise an
        empty list; None with "proposal_fast".

    Raises:
        UserError: unknown type or class name, missing file, or ``gzsd`` without a split.
    """
    truth = load_ground_truth(coco.dataset if isinstance(coco, COCO) else coco)
    names = {category["id"]: category["name"] for category in truth.dataset["categories"]}
    seen_ids, unseen_ids = _split(names, num_seen_classes, unseen) if gzsd else ([], [])
    if gzsd:
        logger.info("%d seen classes; %d unseen: %s", len(seen_ids), len(unseen_ids), [names[i] for i in unseen_ids])
    proposal_limits, rows = sorted(max_dets), []
    loaded: tuple | None = None
    for kind in result_types:
        if kind not in TYPES:
            raise UserError(f"Result type {kind!r} is unknown; choose from {', '.join(TYPES)}.")
        source = result_files[kind] if isinstance(result_files, dict) else result_files
        if loaded is None or source is not loaded[0]:
            loaded = (source, _load(source, truth))
        shape, any_class = ("segm" if kind == "segm" else "bbox"), kind.startswith("proposal")
        evaluate = partial(evaluate_detections, truth, loaded[1], shape, class_agnostic=any_class)
        if kind == "proposal_fast":
            metrics = evaluate(iou=(0.5,), max_dets=proposal_limits)
            for position, limit in enumerate(proposal_limits):
                logger.info("AR@%d = %.4f", limit, metrics.ar(0.5, max_dets=position))
            continue
        for limits in [(limit,) for limit in proposal_limits] if any_class else [(1, 10, 100)]:
            metrics = evaluate(iou=ZSI_IOU, max_dets=limits)
            for title, value in (("Average Precision  (AP)", metrics.ap), ("Average Recall     (AR)", metrics.ar)):
                for t in ZSI_IOU:
                    text = "%s: %s @[ IoU=%.2f | area=all | maxDets=%d ] = %.3f"
                    logger.info(text, kind, title, t, limits[-1], value(t))
        if classwise and not any_class:
            log_per_class(metrics, {i: names[i] + "*" * (i in unseen_ids) for i in names}, kind)
        if gzsd:
            values = split_metrics(metrics, seen_ids, unseen_ids)
            rows.append(tuple(values[name] for name in ROW_NAMES))
            logger.info("%s: %s", kind, ", ".join(f"{name} {values[name]:.4f}" for name in ROW_NAMES))
    return None if "proposal_fast" in result_types else rows


def _split(names: dict[int, str], num_seen: int | None, unseen: Collection[str] | None) -> tuple[list[int], list[int]]:
    """Ids of the seen and of the unseen classes."""
    ids = list(names)
    if unseen is not None:
        unknown = sorted(set(unseen) - set(names.values()))
        if unknown:
            raise UserError(f"The annotation has no category called {', '.join(map(repr, unknown))}.")
        return [i for i in ids if names[i] not in unseen], [i for i in ids if names[i] in unseen]
    if num_seen is None:
        raise UserError("Seen and unseen metrics need the names of the unseen classes, or the number of seen ones.")
    if not 0 < num_seen < len(ids):
        raise UserError(f"Of {len(ids)} categories, 1..{len(ids) - 1} can be seen, not {num_seen}.")
    return ids[:num_seen], ids[num_seen:]


def _load(source, truth: COCO) -> list[ImageDetections]:
    """Detections of a file or a list; logs what plays no part because ``categories`` does not list its class."""
    where = "Results"
    if isinstance(source, (str, os.PathLike)):
        where = f"Results {os.fspath(source)}"
        source = read_json_list(source, "Results")
    detections = by_image(source, image_sizes(truth), where)
    for what, ids in (
        ("annotations", [annotation["category_id"] for annotation in truth.anns.values()]),
        ("detections", [i for item in detections for i in item.category_ids.tolist()]),
    ):
        unlisted = [i for i in ids if i not in truth.cats]
        if not unlisted:
            continue
        text = f"{len(unlisted)} of {len(ids)} {what} are of categories that the annotation's `categories` do not list"
        shown = ", ".join(map(str, sorted(set(unlisted))[:5]))
        if len(unlisted) == len(ids):
            raise UserError(f"{text} (ids {shown}). Both files must use the ids of `categories`, not those of a model.")
        logger.warning("%s (ids %s); they are ignored.", text, shown)
    return detections


def evaluate_file(args: argparse.Namespace) -> None:
    """Print the metrics of the result file of a command line; see ``PADing.commands.coco_eval``."""
    unseen = _unseen_names(args.unseen) if args.unseen else None
    gzsd, num_seen = args.gzsi or unseen is not None, args.num_seen_classes
    coco_eval_revise(args.result, args.types, args.ann, args.max_dets, args.classwise, gzsd, num_seen, unseen=unseen)


def _unseen_names(values: list[str]) -> list[str]:
    if len(values) == 1 and values[0].endswith((".yaml", ".yml")):
        split = load_split(values[0])
        things = {category.name for category in split.categories if category.isthing}
        return [name for name in split.unseen if name in things]
    return values
