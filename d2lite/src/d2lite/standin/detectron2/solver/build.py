"""From a config to an optimizer and its learning rate schedule."""

import copy
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

import torch
from detectron2.config import CfgNode
from fvcore.common.param_scheduler import (
    CosineParamScheduler,
    MultiStepParamScheduler,
    StepWithFixedGammaParamScheduler,
)

from .lr_scheduler import LRMultiplier, LRScheduler, WarmupParamScheduler

__all__ = [
    "GradientClipType",
    "build_lr_scheduler",
    "build_optimizer",
    "get_default_optimizer_params",
    "maybe_add_gradient_clipping",
    "reduce_param_groups",
]

NORM_MODULE_TYPES = (
    torch.nn.BatchNorm1d,
    torch.nn.BatchNorm2d,
    torch.nn.BatchNorm3d,
    torch.nn.SyncBatchNorm,
    torch.nn.GroupNorm,
    torch.nn.InstanceNorm1d,
    torch.nn.InstanceNorm2d,
    torch.nn.InstanceNorm3d,
    torch.nn.LayerNorm,
    torch.nn.LocalResponseNorm,
)


class GradientClipType(Enum):
    """Values of ``SOLVER.CLIP_GRADIENTS.CLIP_TYPE``; both clip each parameter by itself."""

    VALUE = "value"
    NORM = "norm"


def _gradient_clipper(cfg: CfgNode) -> Callable[[torch.Tensor], Any]:
    kind = GradientClipType(cfg.CLIP_TYPE)
    limit, norm_type = cfg.CLIP_VALUE, cfg.NORM_TYPE
    if kind is GradientClipType.NORM:
        return lambda parameter: torch.nn.utils.clip_grad_norm_(parameter, limit, norm_type)
    return lambda parameter: torch.nn.utils.clip_grad_value_(parameter, limit)


def maybe_add_gradient_clipping(cfg: CfgNode, optimizer: torch.optim.Optimizer | type[torch.optim.Optimizer]):
    """Let the optimizer clip gradients before each step, as ``SOLVER.CLIP_GRADIENTS`` says.

    Args:
        cfg: the whole config.
        optimizer: an optimizer, whose class is replaced in place, or an optimizer class, of which a subclass is made.

    Returns:
        What was given when clipping is off, else the same instance or the subclass.

    Raises:
        ValueError: a clip type other than "value" and "norm".
    """
    if not cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        return optimizer
    clip = _gradient_clipper(cfg.SOLVER.CLIP_GRADIENTS.clone())
    base = optimizer if isinstance(optimizer, type) else type(optimizer)
    assert issubclass(base, torch.optim.Optimizer), base

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    clip(parameter)
        return super(clipping, self).step(closure)

    clipping = type(base.__name__ + "WithGradientClip", (base,), {"step": step})
    if isinstance(optimizer, type):
        return clipping
    optimizer.__class__ = clipping
    return optimizer


def build_optimizer(cfg: CfgNode, model: torch.nn.Module) -> torch.optim.Optimizer:
    """SGD with the momentum, weight decay and overrides for biases and normalisation layers of ``cfg.SOLVER``."""
    solver = cfg.SOLVER
    params = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )
    optimizer = torch.optim.SGD(
        params,
        lr=solver.BASE_LR,
        momentum=solver.MOMENTUM,
        nesterov=solver.NESTEROV,
        weight_decay=solver.WEIGHT_DECAY,
        foreach=True,
    )
    return maybe_add_gradient_clipping(cfg, optimizer)


def get_default_optimizer_params(
    model: torch.nn.Module,
    base_lr: float | None = None,
    weight_decay: float | None = None,
    weight_decay_norm: float | None = None,
    bias_lr_factor: float | None = 1.0,
    weight_decay_bias: float | None = None,
    lr_factor_func: Callable[[str], float] | None = None,
    overrides: dict[str, dict[str, float]] | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer; parameters with equal settings share a group.

    Args:
        model: frozen parameters are left out, shared ones come once.
        base_lr, weight_decay: written into the groups when given; otherwise the optimizer's own apply.
        weight_decay_norm: weight decay of normalisation layers.
        bias_lr_factor, weight_decay_bias: learning rate factor and weight decay of parameters called "bias".
        lr_factor_func: parameter name -> factor on the learning rate.
        overrides: parameter name without its module -> settings, e.g. ``{"embedding": {"lr": 0.01}}``.

    Raises:
        ValueError: a learning rate factor without ``base_lr``, or two settings for biases.
    """
    defaults = {}
    if base_lr is not None:
        defaults["lr"] = base_lr
    if weight_decay is not None:
        defaults["weight_decay"] = weight_decay

    bias = {}
    if bias_lr_factor is not None and bias_lr_factor != 1.0:
        if base_lr is None:
            raise ValueError("bias_lr_factor requires base_lr")
        bias["lr"] = base_lr * bias_lr_factor
    if weight_decay_bias is not None:
        bias["weight_decay"] = weight_decay_bias
    overrides = dict(overrides or {})
    if bias:
        if "bias" in overrides:
            raise ValueError("overrides has an entry 'bias' beside bias_lr_factor or weight_decay_bias")
        overrides["bias"] = bias
    if lr_factor_func is not None and base_lr is None:
        raise ValueError("lr_factor_func requires base_lr")

    params: list[dict[str, Any]] = []
    seen: set[torch.nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, value in module.named_parameters(recurse=False):
            if not value.requires_grad or value in seen:
                continue
            seen.add(value)
            settings = copy.copy(defaults)
            if isinstance(module, NORM_MODULE_TYPES) and weight_decay_norm is not None:
                settings["weight_decay"] = weight_decay_norm
            if lr_factor_func is not None:
                settings["lr"] *= lr_factor_func(f"{module_name}.{name}")
            settings.update(overrides.get(name, {}))
            params.append({"params": [value], **settings})
    return reduce_param_groups(params)


def reduce_param_groups(params: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Merge the groups that have equal settings, keeping the order of first appearance."""
    groups: dict[tuple, list] = defaultdict(list)
    for group in params:
        settings = {name: value for name, value in group.items() if name != "params"}
        parameters = group["params"]
        groups[tuple(settings.items())].extend(
            [parameters] if isinstance(parameters, torch.nn.Parameter) else parameters
        )
    return [{**dict(settings), "params": parameters} for settings, parameters in groups.items()]


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """The schedule called ``SOLVER.LR_SCHEDULER_NAME``, with the warmup of ``cfg.SOLVER``.

    Raises:
        ValueError: unknown name.
    """
    solver = cfg.SOLVER
    name = solver.LR_SCHEDULER_NAME
    if name == "WarmupMultiStepLR":
        steps = [step for step in solver.STEPS if step <= solver.MAX_ITER]
        if len(steps) != len(solver.STEPS):
            logging.getLogger(__name__).warning(
                "SOLVER.STEPS contains values larger than SOLVER.MAX_ITER. These values will be ignored."
            )
        schedule = MultiStepParamScheduler(
            values=[solver.GAMMA**k for k in range(len(steps) + 1)], milestones=steps, num_updates=solver.MAX_ITER
        )
    elif name == "WarmupCosineLR":
        end_value = solver.BASE_LR_END / solver.BASE_LR
        assert 0.0 <= end_value <= 1.0, "SOLVER.BASE_LR_END must lie between 0 and SOLVER.BASE_LR"
        schedule = CosineParamScheduler(1, end_value)
    elif name == "WarmupStepWithFixedGammaLR":
        schedule = StepWithFixedGammaParamScheduler(
            base_value=1.0, gamma=solver.GAMMA, num_decays=solver.NUM_DECAYS, num_updates=solver.MAX_ITER
        )
    else:
        raise ValueError(f"Unknown LR scheduler: {name}")
    multiplier = WarmupParamScheduler(
        schedule,
        solver.WARMUP_FACTOR,
        min(solver.WARMUP_ITERS / solver.MAX_ITER, 1.0),
        solver.WARMUP_METHOD,
        solver.RESCALE_INTERVAL,
    )
    return LRMultiplier(optimizer, multiplier=multiplier, max_iter=solver.MAX_ITER)
