"""The registry of evaluators, and the choice of a data set's evaluator.

A plug-in adds an evaluator type as follows; a split file names it as ``evaluator``::

    EVALUATOR_REGISTRY.register("my_type")({"INSTANCE_ON": lambda cfg, data_set, folder: MyEvaluator(data_set, folder)})
"""

import os
from collections.abc import Callable, Mapping

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from PADing.errors import UserError, did_you_mean
from PADing.evaluation.instance import InsSegzeroEvaluator, InsSegzsiEvaluator
from PADing.evaluation.panoptic import PanopticzeroEvaluator
from PADing.evaluation.semantic import SemSegGzeroEvaluator
from PADing.registry import NamedRegistry

# Called with the config, the registered name of the data set and the folder for results.
Builder = Callable[[CfgNode, str, str], DatasetEvaluator]

# evaluator_type of a data set -> key of MODEL.MASK_FORMER.TEST that switches on a result -> builder of its evaluator.
EVALUATOR_REGISTRY: NamedRegistry[Mapping[str, Builder]] = NamedRegistry("an evaluator")


def _semantic(cfg: CfgNode, dataset_name: str, folder: str) -> DatasetEvaluator:
    nan_aware, write_png = cfg.TEST.SEM_SEG_NAN_AWARE, cfg.TEST.WRITE_PNG
    return SemSegGzeroEvaluator(dataset_name, output_dir=folder, nan_aware=nan_aware, write_png=write_png)


def _panoptic(cfg: CfgNode, dataset_name: str, folder: str) -> DatasetEvaluator:
    write_png, exclude_absent = cfg.TEST.WRITE_PNG, cfg.TEST.PANOPTIC_EXCLUDE_ABSENT
    return PanopticzeroEvaluator(dataset_name, folder, write_png=write_png, exclude_absent=exclude_absent)


def _instance(cfg: CfgNode, dataset_name: str, folder: str) -> DatasetEvaluator:
    return InsSegzsiEvaluator(dataset_name, output_dir=folder)


def _things(cfg: CfgNode, dataset_name: str, folder: str) -> DatasetEvaluator:
    return InsSegzeroEvaluator(dataset_name, output_dir=folder)


EVALUATOR_REGISTRY.register("sem_seg", "sem_seg_gzero")({"SEMANTIC_ON": _semantic})
EVALUATOR_REGISTRY.register("coco", "coco_instance_gzero")({"INSTANCE_ON": _instance})
EVALUATOR_REGISTRY.register("coco_panoptic_seg")(
    {"PANOPTIC_ON": _panoptic, "INSTANCE_ON": _things, "SEMANTIC_ON": _semantic}
)


def build_evaluator(cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> DatasetEvaluator:
    """The evaluator for a data set's ``evaluator_type``, with the parts that the config switches on.

    Args:
        cfg: the config.
        dataset_name: registered name.
        output_folder: where to write results; by default ``<OUTPUT_DIR>/inference``, with a subfolder for each data set
            if ``DATASETS.TEST`` names several.

    Raises:
        UserError: unknown ``evaluator_type``, or the config switches on no result that it evaluates.
    """
    if output_folder is None:
        several = len(cfg.DATASETS.TEST) > 1
        output_folder = os.path.join(cfg.OUTPUT_DIR, "inference", *([dataset_name] if several else []))
    kind = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if kind not in EVALUATOR_REGISTRY:
        raise UserError(
            f"Data set {dataset_name!r} has the evaluator_type {kind!r}, for which there is no evaluator"
            f"{did_you_mean(kind, EVALUATOR_REGISTRY)}. Known types: {', '.join(EVALUATOR_REGISTRY)}."
        )
    parts = EVALUATOR_REGISTRY[kind]
    chosen = [build for switch, build in parts.items() if cfg.MODEL.MASK_FORMER.TEST[switch]]
    if not chosen:
        keys = " or ".join(f"MODEL.MASK_FORMER.TEST.{switch}" for switch in parts)
        raise UserError(f"Data set {dataset_name!r} ({kind}) cannot be evaluated: set {keys} True.")
    evaluators = [build(cfg, dataset_name, output_folder) for build in chosen]
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)
