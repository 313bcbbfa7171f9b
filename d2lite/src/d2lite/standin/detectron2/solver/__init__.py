"""Optimizers and learning rate schedules."""

from d2lite.omitted import omitted_names

from .build import (
    GradientClipType,
    build_lr_scheduler,
    build_optimizer,
    get_default_optimizer_params,
    maybe_add_gradient_clipping,
    reduce_param_groups,
)
from .lr_scheduler import LRMultiplier, LRScheduler, WarmupParamScheduler

__all__ = [
    "GradientClipType",
    "build_lr_scheduler",
    "build_optimizer",
    "get_default_optimizer_params",
    "maybe_add_gradient_clipping",
    "reduce_param_groups",
    "LRMultiplier",
    "LRScheduler",
    "WarmupParamScheduler",
]

# The deprecated schedules as classes; the config names of the same spelling work.
__getattr__ = omitted_names(__name__, ["WarmupMultiStepLR", "WarmupCosineLR"])
