"""The optimizer and the learning rate schedule that a config's ``SOLVER`` asks for."""

import logging
from collections.abc import Callable
from functools import partial

from detectron2.config import CfgNode
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
    StepWithFixedGammaParamScheduler,
)
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from d2lite.omitted import omitted_names

from .lr_scheduler import LRMultiplier, WarmupParamScheduler

__all__ = ["build_lr_scheduler", "build_optimizer", "get_default_optimizer_params", "maybe_add_gradient_clipping"]

__getattr__ = omitted_names(__name__)

NORM_LAYERS = (
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
)


# Gradient clipping ----------------------------------------------------------------------------------------------------


def maybe_add_gradient_clipping(cfg: CfgNode, optimizer: Optimizer | type[Optimizer]) -> Optimizer | type[Optimizer]:
    """Make an optimizer clip each parameter's gradient, by itself, at the beginning of every ``step``.

    Args:
        cfg: ``SOLVER.CLIP_GRADIENTS`` says whether, how ("value" or "norm") and at which limit.
        optimizer: an optimizer, which is changed in place, or a class of optimizers, which is not.

    Returns:
        the given object; for a class, with clipping on, a subclass of it.

    Raises:
        ValueError: another ``CLIP_TYPE``. One norm over all parameters ("full_model") is the trainer's business.
    """
    settings = cfg.SOLVER.CLIP_GRADIENTS
    if not settings.ENABLED:
        return optimizer
    limiters = {
        "norm": partial(nn.utils.clip_grad_norm_, max_norm=settings.CLIP_VALUE, norm_type=settings.NORM_TYPE),
        "value": partial(nn.utils.clip_grad_value_, clip_value=settings.CLIP_VALUE),
    }
    if settings.CLIP_TYPE not in limiters:
        raise ValueError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {settings.CLIP_TYPE!r}; parameters are clipped by 'value' or 'norm'."
        )
    limit = limiters[settings.CLIP_TYPE]

    def clip_all(stepping: Optimizer, args: tuple, kwargs: dict) -> None:
        for group in stepping.param_groups:
            for parameter in group["params"]:
                limit(parameter)  # does nothing without a gradient

    if isinstance(optimizer, Optimizer):
        optimizer.register_step_pre_hook(clip_all)
        return optimizer

    def __init__(self, *args, **kwargs):
        optimizer.__init__(self, *args, **kwargs)
        self.register_step_pre_hook(clip_all)

    return type(f"{optimizer.__name__}WithGradientClip", (optimizer,), {"__init__": __init__})


# Optimizer ------------------------------------------------------------------------------------------------------------


def build_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """SGD over :func:`get_default_optimizer_params`, with clipping where ``SOLVER.CLIP_GRADIENTS`` turns it on."""
    s = cfg.SOLVER
    special = {"weight_decay_norm": s.WEIGHT_DECAY_NORM, "weight_decay_bias": s.WEIGHT_DECAY_BIAS}
    groups = get_default_optimizer_params(model, s.BASE_LR, bias_lr_factor=s.BIAS_LR_FACTOR, **special)
    sgd = SGD(groups, s.BASE_LR, momentum=s.MOMENTUM, weight_decay=s.WEIGHT_DECAY, nesterov=s.NESTEROV, foreach=True)
    return maybe_add_gradient_clipping(cfg, sgd)


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float | None = None, weight_decay: float | None = None, weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0, weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: dict[str, dict[str, float]] | None = None,
) -> list[dict]:  # fmt: skip
    """The trainable parameters of a model as groups for an optimizer, one group for each combination of settings.

    Groups, and parameters in them, are in the model's order. A parameter that several modules share counts for the
    first. What is not given is left to the optimizer.

    Args:
        model: only parameters that require gradients are taken.
        base_lr: learning rate.
        weight_decay: of all but the parameters that follow.
        weight_decay_norm: weight decay in normalisation layers.
        bias_lr_factor: on the learning rate of parameters called "bias".
        weight_decay_bias: weight decay of those.
        lr_factor_func: full name of a parameter -> factor on its learning rate.
        overrides: last part of a parameter's name -> settings that win over all others.

    Raises:
        ValueError: a factor on a learning rate that is not given; biases both here and in ``overrides``.
    """
    own_bias_rate = bias_lr_factor not in (None, 1.0)
    if base_lr is None and (own_bias_rate or lr_factor_func):
        raise ValueError("bias_lr_factor and lr_factor_func are factors on base_lr, which is not given.")
    for_biases = _given(lr=base_lr * bias_lr_factor if own_bias_rate else None, weight_decay=weight_decay_bias)
    overrides = dict(overrides or {})
    if for_biases and overrides.setdefault("bias", for_biases) is not for_biases:
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
        settings |= overrides.get(name, {})
        groups.setdefault(tuple(settings.items()), []).append(parameter)
    return [dict(settings, params=parameters) for settings, parameters in groups.items()]


def _given(**settings: float | None) -> dict[str, float]:
    return {name: value for name, value in settings.items() if value is not None}


# Schedule -------------------------------------------------------------------------------------------------------------


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """The schedule called ``SOLVER.LR_SCHEDULER_NAME``, over ``MAX_ITER`` iterations, after a warmup.

    Raises:
        ValueError: an unknown name, or values that the schedule cannot have.
    """
    s = cfg.SOLVER
    if s.LR_SCHEDULER_NAME not in SCHEDULES:
        raise ValueError(f"SOLVER.LR_SCHEDULER_NAME is {s.LR_SCHEDULER_NAME!r}; known are {', '.join(SCHEDULES)}.")
    decay = SCHEDULES[s.LR_SCHEDULER_NAME](s)
    warmup = min(1.0, s.WARMUP_ITERS / s.MAX_ITER)
    factor = WarmupParamScheduler(decay, s.WARMUP_FACTOR, warmup, s.WARMUP_METHOD, s.RESCALE_INTERVAL)
    return LRMultiplier(optimizer, factor, s.MAX_ITER)


def _steps(s: CfgNode) -> ParamScheduler:
    reached = [step for step in s.STEPS if step <= s.MAX_ITER]
    if len(reached) < len(s.STEPS):
        logging.getLogger(__name__).warning(
            "SOLVER.STEPS %s: steps after SOLVER.MAX_ITER (%d) are never reached.", s.STEPS, s.MAX_ITER
        )
    factors = [s.GAMMA**number for number in range(len(reached) + 1)]
    return MultiStepParamScheduler(factors, num_updates=s.MAX_ITER, milestones=reached)


def _cosine(s: CfgNode) -> ParamScheduler:
    if not 0 <= s.BASE_LR_END <= s.BASE_LR:
        raise ValueError(f"SOLVER.BASE_LR_END is {s.BASE_LR_END}, but must be from 0 to SOLVER.BASE_LR ({s.BASE_LR}).")
    return CosineParamScheduler(1.0, s.BASE_LR_END / s.BASE_LR)


def _even_steps(s: CfgNode) -> ParamScheduler:
    return StepWithFixedGammaParamScheduler(1.0, s.NUM_DECAYS, s.GAMMA, s.MAX_ITER)


SCHEDULES: dict[str, Callable[[CfgNode], ParamScheduler]] = {
    "WarmupMultiStepLR": _steps,
    "WarmupCosineLR": _cosine,
    "WarmupStepWithFixedGammaLR": _even_steps,
}
