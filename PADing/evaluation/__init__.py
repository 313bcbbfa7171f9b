"""Evaluation of zero-shot segmentation. Which classes are unseen comes from the metadata of the data set, always."""

from PADing.evaluation.base import ZeroShotEvaluator
from PADing.evaluation.build import EVALUATOR_REGISTRY, build_evaluator
from PADing.evaluation.instance import InsSegzeroEvaluator, InsSegzsiEvaluator
from PADing.evaluation.panoptic import PanopticzeroEvaluator
from PADing.evaluation.result_files import coco_eval_revise
from PADing.evaluation.semantic import SemSegGzeroEvaluator
