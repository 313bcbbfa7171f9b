"""The evaluator that belongs to a data set."""

import os

from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from PADing.errors import UserError
from PADing.evaluation.instance import InsSegzeroEvaluator, InsSegzsiEvaluator
from PADing.evaluation.panoptic import PanopticzeroEvaluator
from PADing.evaluation.semantic import SemSegGzeroEvaluator

__all__ = ["build_evaluator"]

SEMANTIC_TYPES = ("sem_seg", "sem_seg_gzero")
INSTANCE_TYPES = ("coco", "coco_instance_gzero")
PANOPTIC_TYPES = ("coco_panoptic_seg",)


def build_evaluator(cfg, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
    """Build the evaluator that ``evaluator_type`` in the data set's metadata asks for.

    ``sem_seg`` and ``sem_seg_gzero``: semantic. ``coco`` and ``coco_instance_gzero``: instance. ``coco_panoptic_seg``:
    panoptic, instance and semantic, those of them that ``MODEL.MASK_FORMER.TEST.{PANOPTIC,INSTANCE,SEMANTIC}_ON``
    switches on.

    Args:
        cfg: the config.
        dataset_name: registered name.
        output_folder: where results are written; by default ``<OUTPUT_DIR>/inference``, with a folder per data set
            below it when ``DATASETS.TEST`` names several.

    Raises:
        UserError: an unknown type, or a task that the config switches off.
    """
    if output_folder is None:
        output_folder = os.path.join(cfg.OUTPUT_DIR, "inference")
        if len(cfg.DATASETS.TEST) > 1:
            output_folder = os.path.join(output_folder, dataset_name)
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    test = cfg.MODEL.MASK_FORMER.TEST

    def semantic():
        return SemSegGzeroEvaluator(
            dataset_name,
            output_dir=output_folder,
            nan_aware=cfg.TEST.SEM_SEG_NAN_AWARE,
            write_png=cfg.TEST.WRITE_PNG,
        )

    def panoptic():
        return PanopticzeroEvaluator(
            dataset_name,
            output_folder,
            write_png=cfg.TEST.WRITE_PNG,
            exclude_absent=cfg.TEST.PANOPTIC_EXCLUDE_ABSENT,
        )

    def instance(evaluator):
        return lambda: evaluator(dataset_name, output_dir=output_folder)

    parts = {
        **dict.fromkeys(SEMANTIC_TYPES, [("SEMANTIC_ON", semantic)]),
        **dict.fromkeys(INSTANCE_TYPES, [("INSTANCE_ON", instance(InsSegzsiEvaluator))]),
        **dict.fromkeys(
            PANOPTIC_TYPES,
            [("PANOPTIC_ON", panoptic), ("INSTANCE_ON", instance(InsSegzeroEvaluator)), ("SEMANTIC_ON", semantic)],
        ),
    }
    if kind not in parts:
        raise UserError(
            f"Data set {dataset_name!r} has the evaluator_type {kind!r}, for which there is no evaluator. "
            f"Known types: {', '.join(parts)}."
        )
    evaluators = [make() for key, make in parts[kind] if getattr(test, key)]
    if not evaluators:
        keys = " or ".join(f"MODEL.MASK_FORMER.TEST.{key}" for key, _ in parts[kind])
        raise UserError(f"Data set {dataset_name!r} ({kind}) cannot be evaluated: set {keys} True.")
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)
