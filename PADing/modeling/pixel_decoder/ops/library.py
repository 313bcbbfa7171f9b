"""The operators ``pading::ms_deform_attn``, its fused form and their backward, for autograd, compile and export.

The fused operator takes projections of the queries instead of locations and weights. Levels are flat ints (height,
width, first pixel per level), or an int64 tensor (L, 3) if the numbers are on a device. An operator chooses the backend
when it runs, so a traced graph works with all of them.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch

from . import backends
from .fused import projection_gradients, reference_gradient, samples_of, sizes_xy
from .pytorch import ms_deform_attn_pytorch, ms_deform_attn_pytorch_backward

NO_FORWARD_MODE = (
    "ms_deform_attn has no forward-mode derivatives (torch.func.jvp, jacfwd, dual numbers); "
    "use reverse mode: backward(), torch.func.grad, vjp or jacrev"
)

_inputs = "Tensor value, Tensor locations, Tensor weights, SymInt[] levels, Tensor? table"
_projections = "Tensor value, Tensor offsets, Tensor scores, Tensor reference, SymInt[] levels, Tensor? table"
SCHEMAS = {
    "ms_deform_attn": f"({_inputs}) -> Tensor",
    "ms_deform_attn_backward": f"(Tensor grad, {_inputs}) -> (Tensor, Tensor, Tensor)",
    "ms_deform_attn_fused": f"({_projections}) -> Tensor",
    "ms_deform_attn_fused_backward": f"(Tensor grad, {_projections}) -> (Tensor, Tensor, Tensor)",
}


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


def _fused_forward(value, offsets, scores, reference, levels, table):
    if backends.select(value.device.type) == "cuda":
        return torch.ops.pading_msda.cuda_fused_forward(value, levels, table, offsets, scores, reference)
    samples = samples_of(offsets, scores, reference, sizes_xy(levels, table, value))
    return _forward(value, *samples, levels, table)


def _fused_backward(grad, value, offsets, scores, reference, levels, table):
    if backends.select(value.device.type) == "cuda":
        return torch.ops.pading_msda.cuda_fused_backward(grad, value, levels, table, offsets, scores, reference)
    sizes = sizes_xy(levels, table, value)
    locations, weights = samples_of(offsets, scores, reference, sizes)
    of_value, of_locations, of_weights = _backward(grad, value, locations, weights, levels, table)
    of_offsets, of_scores = projection_gradients(of_locations, of_weights, weights, sizes)
    return of_value, of_offsets.to(offsets.dtype), of_scores.to(scores.dtype)


def split_levels(levels: Sequence[int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Flat (height, width, first pixel) per level -> [(height, width)], [first pixel]."""
    return list(zip(levels[0::3], levels[1::3], strict=True)), list(levels[2::3])


def _fake_forward(value, locations, weights, levels, table):
    return value.new_empty(value.shape[0], locations.shape[1], value.shape[2] * value.shape[3])


def _fake_backward(grad, value, locations, weights, levels, table):
    return tuple(t.new_empty(t.shape) for t in (value, locations, weights))


def _fake_fused_forward(value, offsets, scores, reference, levels, table):
    return value.new_empty(value.shape[0], scores.shape[1], value.shape[2] * value.shape[3])


def _fake_fused_backward(grad, value, offsets, scores, reference, levels, table):
    return tuple(t.new_empty(t.shape) for t in (value, offsets, scores))


def _remember(ctx, inputs, output):
    value, locations, weights, levels, table = inputs
    ctx.save_for_backward(value, locations, weights, table)
    ctx.levels = levels


def _differentiate(ctx, grad, compute=None):
    compute = compute or torch.ops.pading.ms_deform_attn_backward
    value, locations, weights, table = ctx.saved_tensors
    grads = compute(grad, value, locations, weights, ctx.levels, table)
    return *grads, None, None


def _remember_fused(ctx, inputs, output):
    *tensors, levels, table = inputs
    ctx.save_for_backward(*tensors, table)
    ctx.levels = levels


def _differentiate_fused(ctx, grad):
    *tensors, table = ctx.saved_tensors
    reference = tensors[3]
    of_value, of_offsets, of_scores = torch.ops.pading.ms_deform_attn_fused_backward(grad, *tensors, ctx.levels, table)
    of_reference = None
    if ctx.needs_input_grad[3]:
        of_reference = reference_gradient(of_offsets, reference, sizes_xy(ctx.levels, table, reference))
    return of_value, of_offsets, of_scores, of_reference, None, None


def _forget(ctx, inputs, output):
    pass


def _refuse(ctx, *grads):
    raise RuntimeError(
        "ms_deform_attn: second derivatives are not implemented by the compiled backends; "
        f"set {backends.ENVIRONMENT}=pytorch for the differentiable path"
    )


def _register() -> None:
    """Register the operators, once in a process: a reloaded module or a second copy of the package uses the first's."""
    library = torch.library.Library("pading", "FRAGMENT")
    for name, compute, fake, setup, derivative in (
        ("ms_deform_attn", _forward, _fake_forward, _remember, _differentiate),
        ("ms_deform_attn_backward", _backward, _fake_backward, _forget, _refuse),
        ("ms_deform_attn_fused", _fused_forward, _fake_fused_forward, _remember_fused, _differentiate_fused),
        ("ms_deform_attn_fused_backward", _fused_backward, _fake_fused_backward, _forget, _refuse),
    ):
        library.define(name + SCHEMAS[name])
        torch.library.impl(library, name, "CompositeExplicitAutograd")(compute)
        torch.library.register_fake(f"pading::{name}", fake, lib=library)
        torch.library.register_autograd(f"pading::{name}", derivative, setup_context=setup, lib=library)
    vars(torch.ops.pading)["library"] = library  # keeps the operators alive if this module goes away


def _registered(name: str) -> bool:
    """Whether another copy of this module has registered the operator.

    Raises:
        ImportError: it has done so with other arguments.
    """
    if not hasattr(torch.ops.pading, name):
        return False
    theirs = str(getattr(torch.ops.pading, name).default._schema)
    if theirs != f"pading::{name}{SCHEMAS[name]}":
        raise ImportError(
            f"Another version of this package has registered pading::{name} with other arguments ({theirs}). "
            "Two versions cannot be used in one process."
        )
    return True


if not all([_registered(name) for name in SCHEMAS]):
    _register()


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
