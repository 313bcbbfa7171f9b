"""The contenders of the operator's benchmark: this project's backends, and the peers that are installed."""

import functools
import importlib
import pkgutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import backends
from .pytorch import ms_deform_attn_pytorch

# (inputs, value, locations, weights) -> output; ``inputs`` has shapes and starts, also as tensors, and the flat table.
Contender = Callable[[Any, Tensor, Tensor, Tensor], Tensor]


class Contenders(NamedTuple):
    """Implementations by name, and why the others cannot be measured."""

    found: dict[str, Contender]
    problems: dict[str, str]


@functools.cache
def contenders(device: str) -> Contenders:
    """All implementations for ``"cpu"`` or ``"cuda"`` that can be loaded; the others with the first line of an error.

    A peer may fail in any way while it is loaded or compiled; that is a line of the table and no end of the benchmark.
    """
    found: dict[str, Contender] = {"pytorch": lambda i, v, *rest: ms_deform_attn_pytorch(v, i.shapes, i.starts, *rest)}
    problems: dict[str, str] = {}
    reason = backends.load(device)
    if reason is None:
        found[device] = _compiled
        if device == "cuda":
            found["cuda deterministic"] = _deterministic(_compiled)
    else:
        problems[device] = reason.splitlines()[0]
    for name, make in _peers(device).items():
        try:
            found[name] = make()
        except Exception as error:
            problems[name] = first_line(error)
    return Contenders(found, problems)


def first_line(error: BaseException) -> str:
    """The kind of the error, and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _compiled(inputs: Any, *tensors: Tensor) -> Tensor:
    return torch.ops.pading.ms_deform_attn(*tensors, inputs.table, None)


def _deterministic(function: Contender) -> Contender:
    """``function`` and its backward pass while only deterministic algorithms are allowed."""

    class Deterministic(torch.autograd.Function):
        @staticmethod
        def forward(ctx, inputs, *tensors):
            ctx.inputs = inputs
            ctx.save_for_backward(*tensors)
            return function(inputs, *tensors)

        @staticmethod
        def backward(ctx, grad):
            value, *rest = ctx.saved_tensors
            before = torch.are_deterministic_algorithms_enabled()
            torch.use_deterministic_algorithms(True)
            try:
                levels = ctx.inputs.table, None
                return None, *torch.ops.pading.ms_deform_attn_backward(grad, value, *rest, *levels)
            finally:
                torch.use_deterministic_algorithms(before)

    return Deterministic.apply


def _peers(device: str) -> dict[str, Callable[[], Contender]]:
    tensors, mmcv = ("shapes_tensor", "starts_tensor"), "mmcv.ops.multi_scale_deform_attn:"
    mmcv_cuda = mmcv + "MultiScaleDeformableAttnFunction.apply"
    transformers = "transformers.models.mask2former.modeling_mask2former:multi_scale_deformable_attention"
    peers: dict[str, dict[str, Callable[[], Contender]]] = {
        "cuda": {
            "im2col": _im2col,
            "deformops cuda": lambda: _deformops("CUDA"),
            "deformops triton": lambda: _deformops("TRITON"),
            "mmcv": lambda: _in_one_dtype(_peer(mmcv_cuda, *tensors, last=(64,))),
        },
        "cpu": {"mmcv": lambda: _in_one_dtype(_peer(mmcv + "multi_scale_deformable_attn_pytorch", tensors[0]))},
    }
    return {**peers[device], "transformers": lambda: _in_one_dtype(_peer(transformers, "shapes"))}


def _in_one_dtype(function: Contender) -> Contender:
    """Call ``function`` with locations and weights in the dtype of the value."""
    return lambda i, value, locations, weights: function(i, value, locations.to(value.dtype), weights.to(value.dtype))


def _peer(path: str, *levels: str, last: tuple = ()) -> Contender:
    """The function at ``path``, called with the value, the inputs' attributes ``levels``, the others, and ``last``."""
    function = pkgutil.resolve_name(path)
    return lambda i, value, *rest: function(value, *(getattr(i, name) for name in levels), *rest, *last)


def _deformops(name: str) -> Contender:
    """One backend of deformops 3, which takes locations in float32 and weights in the dtype of the value."""
    registry = importlib.import_module("deformops.registry")
    backend = registry.Backend[name]
    registry.msda.load(backend)

    def compute(inputs: Any, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
        levels = inputs.shapes_tensor, inputs.starts_tensor
        return registry.msda(value, *levels, locations, weights.to(value.dtype), backend=backend)

    return compute


def _im2col() -> Contender:
    from torch.utils.cpp_extension import load

    source, flags = Path(__file__).with_name("benchmark_im2col.cu"), ["-O3"]
    with tempfile.TemporaryDirectory() as folder:
        name = "pading_benchmark"
        load(name, [str(source)], build_directory=folder, is_python_module=False, extra_cuda_cflags=flags)

    class Im2col(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            ctx.save_for_backward(*inputs)
            return torch.ops.pading_benchmark.im2col_forward(*inputs)

        @staticmethod
        def backward(ctx, grad):
            grads = torch.ops.pading_benchmark.im2col_backward(grad.contiguous(), *ctx.saved_tensors)
            return grads[0], None, None, *grads[1:]

    return _in_one_dtype(lambda i, value, *rest: Im2col.apply(value, i.shapes_tensor, i.starts_tensor, *rest))
