"""PADing (He et al., CVPR 2023): a classifier of unseen classes, finetuned on generated features.

One file for each job: config keys (``config``), the model (``meta_arch``) on a frozen segmenter (``frozen_segmenter``,
``segmenter_cache``), tables of its classes (``class_tables``), the generator of features (``feature_generator`` says
what one is, ``primitives`` is PADing's) with its objective (``structured``, ``losses``, ``networks``), the training
recipe (``recipe``), a self-training round (``self_training``), and weights of stage 1 (``convert``,
``starting_weights``).
"""

from .config import CONFIG_RULES, add_config
from .feature_generator import FeatureGenerator
from .meta_arch import PADing
from .primitives import PrimitiveGenerator
from .recipe import GeneratorClassifier
from .structured import StructuredGenerator

__all__ = [
    "CONFIG_RULES",
    "FeatureGenerator",
    "GeneratorClassifier",
    "PADing",
    "PrimitiveGenerator",
    "StructuredGenerator",
    "add_config",
]
