"""Builds the optimizer and the learning rate schedule from a config's ``SOLVER``."""

import logging
from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from fvcore.common import param_scheduler as fvcore
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from d2lite.omitted import omitted_names

from .lr_scheduler import LRMultiplier, WarmupParamScheduler

__getattr__ = omitted_names(__name__, "GradientClipType reduce_param_groups")

# The last one is the base of batch and instance norms.
NORM_LAYERS = (nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.modules.batchnorm._NormBase)


def maybe_add_gradient_clipping(cfg: CfgNode, optimizer: Any) -> Any:
    """Make an optimizer, or a new subclass of its class, clip each parameter's gradient in ``step`` if configured."""
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not clip.ENABLED:
        return optimizer
    if clip.CLIP_TYPE not in ("value", "norm"):
        raise ValueError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {clip.CLIP_TYPE!r}; parameters are clipped by 'value' or 'norm'."
        )

    def clip_all(stepping: Optimizer, args: tuple, kwargs: dict) -> None:
        for parameter in (parameter for group in stepping.param_groups for parameter in group["params"]):
            if clip.CLIP_TYPE == "norm":  # both do nothing without a gradient
                clip_grad_norm_(parameter, clip.CLIP_VALUE, clip.NORM_TYPE)
            else:
                clip_grad_value_(parameter, clip.CLIP_VALUE)

    if isinstance(optimizer, Optimizer):
        optimizer.register_step_pre_hook(clip_all)
        return optimizer

    def __init__(self, *args, **kwargs):
        optimizer.__init__(self, *args, **kwargs)
        self.register_step_pre_hook(clip_all)

    return type(f"{optimizer.__name__}WithGradientClip", (optimizer,), {"__init__": __init__})


def build_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """SGD over :func:`get_default_optimizer_params`, with clipping where ``SOLVER.CLIP_GRADIENTS`` turns it on."""
    s = cfg.SOLVER
    special = {"weight_decay_norm": s.WEIGHT_DECAY_NORM, "weight_decay_bias": s.WEIGHT_DECAY_BIAS}
    groups = get_default_optimizer_params(model, s.BASE_LR, bias_lr_factor=s.BIAS_LR_FACTOR, **special)
    sgd = SGD(groups, s.BASE_LR, momentum=s.MOMENTUM, weight_decay=s.WEIGHT_DECAY, nesterov=s.NESTEROV, foreach=True)
    return maybe_add_gradient_clipping(cfg, sgd)


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: dict[str, dict[str, float]] | None = None,
) -> list[dict]:
    """The trainable parameters of a model as groups for an optimizer, one group for each combination of settings.

    Groups, and parameters in them, are in the model's order. A parameter of several modules belongs to the
    first. The optimizer decides what is None. ``bias_lr_factor`` and ``weight_decay_bias`` are for parameters called
    "bias", ``lr_factor_func`` takes a full name, and ``overrides`` (by the last part of a name) win over all others.
    """
    factors, special = bias_lr_factor not in (None, 1.0) or lr_factor_func, dict(overrides or {})
    if base_lr is None and factors:
        raise ValueError("bias_lr_factor and lr_factor_func are factors on base_lr, which is not given.")
    bias_lr = base_lr * bias_lr_factor if base_lr is not None and bias_lr_factor not in (None, 1.0) else None
    for_biases = _given(lr=bias_lr, weight_decay=weight_decay_bias)
    if for_biases and special.setdefault("bias", for_biases) is not for_biases:
        raise ValueError("overrides['bias'] contradicts bias_lr_factor and weight_decay_bias; give one or the other.")

    groups: dict[tuple, list[nn.Parameter]] = {}
    for path, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        owner, _, name = path.rpartition(".")
        settings = _given(lr=base_lr, weight_decay=weight_decay)
        if isinstance(model.get_submodule(owner), NORM_LAYERS):
            settings |= _given(weight_decay=weight_decay_norm)
        if lr_factor_func:
            settings["lr"] *= lr_factor_func(path)
        settings |= special.get(name, {})
        groups.setdefault(tuple(settings.items()), []).append(parameter)
    return [dict(settings, params=parameters) for settings, parameters in groups.items()]


def _given(**settings: float | None) -> dict[str, float]:
    return {name: value for name, value in settings.items() if value is not None}


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """The schedule called ``SOLVER.LR_SCHEDULER_NAME``, over ``MAX_ITER`` iterations, after a warmup."""
    s = cfg.SOLVER
    warmup = min(1.0, s.WARMUP_ITERS / s.MAX_ITER)
    factor = WarmupParamScheduler(_decay(s), s.WARMUP_FACTOR, warmup, s.WARMUP_METHOD, s.RESCALE_INTERVAL)
    return LRMultiplier(optimizer, factor, s.MAX_ITER)


def _decay(s: CfgNode) -> fvcore.ParamScheduler:
    """The schedule without its warmup."""
    if s.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        reached = [step for step in s.STEPS if step <= s.MAX_ITER]
        if len(reached) < len(s.STEPS):
            logging.getLogger(__name__).warning(
                "SOLVER.STEPS %s: steps after SOLVER.MAX_ITER (%d) are never reached.", s.STEPS, s.MAX_ITER
            )
        factors = [s.GAMMA**number for number in range(len(reached) + 1)]
        return fvcore.MultiStepParamScheduler(factors, num_updates=s.MAX_ITER, milestones=reached)
    if s.LR_SCHEDULER_NAME == "WarmupCosineLR":
        if not 0 <= s.BASE_LR_END <= s.BASE_LR:
            limits = f"from 0 to SOLVER.BASE_LR ({s.BASE_LR})"
            raise ValueError(f"SOLVER.BASE_LR_END is {s.BASE_LR_END}, but must be {limits}.")
        return fvcore.CosineParamScheduler(1.0, s.BASE_LR_END / s.BASE_LR)
    if s.LR_SCHEDULER_NAME == "WarmupStepWithFixedGammaLR":
        return fvcore.StepWithFixedGammaParamScheduler(1.0, s.NUM_DECAYS, s.GAMMA, s.MAX_ITER)
    known = "WarmupMultiStepLR, WarmupCosineLR and WarmupStepWithFixedGammaLR"
    raise ValueError(f"SOLVER.LR_SCHEDULER_NAME is {s.LR_SCHEDULER_NAME!r}; known are {known}.")
