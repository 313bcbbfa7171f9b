"""PADing (He et al., CVPR 2023): a classifier that is finetuned on generated features of unseen classes.

The files: config keys (``config``); the model (``meta_arch``) on a frozen segmenter (``frozen_segmenter``,
``segmenter_cache``); tables of its classes (``class_tables``); the interface of generators (``feature_generator``) and
PADing's generator (``primitives``) with its losses (``structured``, ``losses``, ``networks``); the training recipe
(``recipe``); self-training (``self_training``); weights of stage 1 (``convert``, ``starting_weights``).
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
