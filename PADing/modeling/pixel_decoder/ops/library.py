"""The operators ``pading::ms_deform_attn`` and its backward, for autograd, torch.compile and torch.export.

Levels are flat ints (height, width, first pixel per level), or an int64 tensor (L, 3) if the numbers are on a device.
The operator chooses the backend when it runs, so a traced graph works with all of them.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from . import backends
from .pytorch import ms_deform_attn_pytorch, ms_deform_attn_pytorch_backward

NO_FORWARD_MODE = (
    "ms_deform_attn has no forward-mode derivatives (torch.func.jvp, jacfwd, dual numbers); "
    "use reverse mode: backward(), torch.func.grad, vjp or jacrev"
)

_library = torch.library.Library("pading", "DEF")
_inputs = "Tensor value, Tensor locations, Tensor weights, SymInt[] levels, Tensor? table"
_library.define(f"ms_deform_attn({_inputs}) -> Tensor")
_library.define(f"ms_deform_attn_backward(Tensor grad, {_inputs}) -> (Tensor, Tensor, Tensor)")


def _dispatch(direction: str, in_pytorch: Callable, *inputs):
    """Compute with the device's backend; ``inputs``: the gradient (backward only), then the operator's inputs."""
    *tensors, locations, weights, levels, table = inputs
    backend = backends.select(tensors[-1].device.type)
    if backend == "cuda":
        compiled = getattr(torch.ops.pading_msda, f"cuda_{direction}")
        return compiled(*tensors, levels, table, locations, weights)
    levels = list(levels) if table is None else table.flatten().tolist()
    if backend == "cpu":
        return getattr(torch.ops.pading_msda, f"cpu_{direction}")(*tensors, levels, locations, weights)
    return in_pytorch(*tensors, *split_levels(levels), locations, weights)


_forward = partial(_dispatch, "forward", ms_deform_attn_pytorch)
_backward = partial(_dispatch, "backward", ms_deform_attn_pytorch_backward)


def split_levels(levels: Sequence[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Flat (height, width, first pixel) per level -> [(height, width)], [first pixel]."""
    return list(zip(levels[0::3], levels[1::3], strict=True)), list(levels[2::3])


def _fake_forward(value, locations, weights, levels, table):
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


def _fake_backward(grad, value, locations, weights, levels, table):
    return tuple(t.new_empty(t.shape) for t in (value, locations, weights))


def _remember(ctx, inputs, output):
    value, locations, weights, levels, table = inputs
    ctx.save_for_backward(value, locations, weights, table)
    ctx.levels = levels


def _differentiate(ctx, grad, compute=torch.ops.pading.ms_deform_attn_backward):
    value, locations, weights, table = ctx.saved_tensors
    grads = compute(grad, value, locations, weights, ctx.levels, table)
    return *grads, None, None


def _forget(ctx, inputs, output):
    pass


def _refuse(ctx, *grads):
    raise RuntimeError(
        "ms_deform_attn: second derivatives are not implemented by the compiled backends; "
        f"set {backends.ENVIRONMENT}=pytorch for the differentiable path"
    )


for _name, _compute, _fake, _setup, _derivative in (
    ("ms_deform_attn", _forward, _fake_forward, _remember, _differentiate),
    ("ms_deform_attn_backward", _backward, _fake_backward, _forget, _refuse),
):
    torch.library.impl(_library, _name, "CompositeExplicitAutograd")(_compute)
    torch.library.register_fake(f"pading::{_name}", _fake, lib=_library)
    torch.library.register_autograd(f"pading::{_name}", _derivative, setup_context=_setup, lib=_library)


# The same operators for ``torch.func``, which does not support the formulas registered above: ``grad`` fails, and
# forward-mode derivatives are silently zero.
class _EagerFunction(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def jvp(ctx, *tangents):
        raise NotImplementedError(NO_FORWARD_MODE)


class _EagerBackward(_EagerFunction):
    setup_context = staticmethod(_forget)
    backward = staticmethod(_refuse)

    @staticmethod
    def forward(grad, value, locations, weights, levels, table):
        return torch.ops.pading.ms_deform_attn_backward(grad, value, locations, weights, levels, table)


class EagerMSDeformAttn(_EagerFunction):
    """``torch.ops.pading.ms_deform_attn`` under ``torch.func.grad``, ``vjp`` and ``vmap``; forward mode is refused."""

    setup_context = staticmethod(_remember)

    @staticmethod
    def forward(value, locations, weights, levels, table):
        """Arguments of the operator."""
        return torch.ops.pading.ms_deform_attn(value, locations, weights, levels, table)

    @staticmethod
    def backward(ctx, grad):
        """The gradients of value, locations and weights."""
        return _differentiate(ctx, grad, _EagerBackward.apply)
