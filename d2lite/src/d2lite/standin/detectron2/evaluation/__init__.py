"""Running a model over a data set, and the stock evaluators."""

from d2lite.omitted import omitted_names

from .coco_evaluation import COCOEvaluator
from .evaluator import DatasetEvaluator, DatasetEvaluators, inference_context, inference_on_dataset
from .panoptic_evaluation import COCOPanopticEvaluator
from .sem_seg_evaluation import SemSegEvaluator
from .testing import print_csv_format, verify_results

__getattr__ = omitted_names(__name__)
