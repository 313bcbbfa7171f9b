"""Saving and loading of models and training state."""

from fvcore.common.checkpoint import Checkpointer, PeriodicCheckpointer

from d2lite.omitted import omitted_names

from .detection_checkpoint import DetectionCheckpointer

__getattr__ = omitted_names(__name__)
