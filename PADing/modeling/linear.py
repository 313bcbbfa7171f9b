"""Linear layers that use oneDNN on processors where PyTorch's own matrix product is slow.

On x86 PyTorch multiplies float32 matrices with Intel's MKL, which leaves AVX-512 unused on processors of other makers.
oneDNN, which PyTorch has for convolutions, uses it: one core of an AMD EPYC reaches 100 to 108 GFLOP/s where MKL
reaches 65 to 90. It also adds the bias and applies the ReLU before a result leaves the cache.
"""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# Fewer rows gain less than the way through Python costs.
LEAST_ROWS = 1024


class Linear(nn.Linear):
    """``torch.nn.Linear``, with a ReLU on its output if ``relu`` is True; same initial weights and state-dict keys."""

    def __init__(self, in_features: int, out_features: int, relu: bool = False) -> None:
        super().__init__(in_features, out_features)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return linear(x, self.weight, self.bias, self.relu)


def linear(x: Tensor, weight: Tensor, bias: Tensor, relu: bool = False) -> Tensor:
    """``x @ weight.T + bias``, then a ReLU if ``relu`` is True: (..., I), (O, I), (O,) -> (..., O)."""
    # In rows: with three dimensions PyTorch's result is a view, on which an in-place ReLU has a slow gradient.
    rows = x.reshape(-1, x.shape[-1])
    if _suits(rows, weight):
        result = _Product.apply(rows, weight, bias, relu)
    else:
        result = F.linear(rows, weight, bias)
        result = F.relu(result, inplace=True) if relu else result
    return result.view(*x.shape[:-1], weight.shape[0])


def product_into(result: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None, relu: bool = False) -> Tensor:
    """Write ``x @ weight.T + bias``, then a ReLU if ``relu`` is True, to ``result``, without a gradient; return it."""
    if onednn_is_faster():
        return result.copy_(_onednn(x, weight, bias, relu))
    if bias is None:
        torch.mm(x, weight.t(), out=result)
    else:
        torch.addmm(bias, x, weight.t(), out=result)
    return result.relu_() if relu else result


def _suits(rows: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is to be used."""
    return plain_float32(rows, weight) and onednn_is_faster()


def plain_float32(rows: Tensor, weight: Tensor) -> bool:
    """Whether they are large float32 matrices of plain tensors on the CPU, and nothing records operators."""
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and rows.shape[0] >= LEAST_ROWS
        and rows.device.type == "cpu"
        and rows.dtype == weight.dtype == torch.float32
        and type(rows) is Tensor
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._len_torch_dispatch_stack()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )


@cache
def onednn_is_faster() -> bool:
    """Whether this is an AMD processor with AVX-512, and this PyTorch has the operator (with equal results)."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return False
    try:
        if "AuthenticAMD" not in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"):
            return False
        x, weight, bias = torch.arange(12.0).view(3, 4), torch.arange(-4.0, 4.0).view(2, 4), torch.ones(2)
        return torch.equal(_onednn(x, weight, bias, relu=True), F.linear(x, weight, bias).relu())
    except (OSError, AttributeError, RuntimeError):  # the operator is not part of PyTorch's promises
        return False


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None, relu: bool = False) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "relu" if relu else "none", [], "")


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, relu: bool) -> Tensor:
        result = _onednn(x, weight, bias, relu)
        ctx.save_for_backward(x, weight, result if relu else None)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        x, weight, positive = ctx.saved_tensors
        if positive is not None:
            gradient = torch.ops.aten.threshold_backward(gradient, positive, 0)
        of_x, of_weight, of_bias, _ = ctx.needs_input_grad
        return (
            _onednn(gradient, weight.t(), None) if of_x else None,
            gradient.t() @ x if of_weight else None,  # a sum over rows, in which MKL is not slower
            gradient.sum(0) if of_bias else None,
            None,
        )
