"""Optimizers and learning rate schedules. Gradient clipping is in ``detectron2.solver.build``."""

from .build import build_lr_scheduler, build_optimizer, get_default_optimizer_params
from .lr_scheduler import LRMultiplier, LRScheduler, WarmupParamScheduler
