"""Evaluation of zero-shot segmentation. The metadata of a data set say which classes are unseen."""

from PADing.evaluation.base import ZeroShotEvaluator
from PADing.evaluation.build import EVALUATOR_REGISTRY, build_evaluator
from PADing.evaluation.instance import InsSegzeroEvaluator, InsSegzsiEvaluator
from PADing.evaluation.panoptic import PanopticzeroEvaluator
from PADing.evaluation.result_files import coco_eval_revise
from PADing.evaluation.semantic import SemSegGzeroEvaluator
