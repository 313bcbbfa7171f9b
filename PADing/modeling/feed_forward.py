"""The feed-forward network of a transformer layer, which on a CPU takes blocks of rows, one after another.

Between its two linear layers is the largest tensor of Mask2Former's encoder, 46 MB for an image of 640 x 853. The whole
fits into no cache, and the system has to provide its memory at each call. A block stays in the cache, and its memory is
used again. The backward pass computes each block once more in place of keeping it.
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from PADing.modeling.linear import Linear, plain_float32, product_into

BLOCK = 512  # rows; with 1,024 hidden channels in float32 2 MiB, the size of a processor's second-level cache


def feed_forward(x: Tensor, first: Linear, second: Linear) -> Tensor:
    """``second(first(x))``, two linear layers, of which the first one has a ReLU: (..., C) -> (..., C')."""
    rows = x.reshape(-1, x.shape[-1])
    if not (_plain(first, rows) and _plain(second, rows)):
        return second(first(x))
    result = _FeedForward.apply(rows, first.weight, first.bias, second.weight, second.bias)
    return result.view(*x.shape[:-1], second.out_features)


def _plain(layer: Linear, rows: Tensor) -> bool:
    """Whether nothing but its product happens in the layer, so that it need not be called."""
    hooks = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    return type(layer) is Linear and not hooks and plain_float32(rows, layer.weight)


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight1: Tensor, bias1: Tensor, weight2: Tensor, bias2: Tensor) -> Tensor:
        result = x.new_empty(len(x), len(weight2))
        buffer = x.new_empty(BLOCK, len(weight1))
        for block, of_result in zip(x.split(BLOCK), result.split(BLOCK), strict=True):
            hidden = product_into(buffer[: len(block)], block, weight1, bias1, relu=True)
            product_into(of_result, hidden, weight2, bias2)
        ctx.save_for_backward(x, weight1, bias1, weight2)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor):
        x, weight1, bias1, weight2 = ctx.saved_tensors
        of_x, of_weight1, of_bias1, of_weight2 = (
            torch.zeros_like(tensor) if needed else None
            for tensor, needed in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
        )
        buffers = x.new_empty(2, BLOCK, len(weight1))
        for start in range(0, len(x), BLOCK):
            rows = slice(start, start + BLOCK)
            own = gradient[rows]
            hidden, of_hidden = buffers[:, : len(own)]
            product_into(hidden, x[rows], weight1, bias1, relu=True)
            if of_weight2 is not None:
                of_weight2.addmm_(own.t(), hidden)
            product_into(of_hidden, own, weight2.t())
            torch.ops.aten.threshold_backward.grad_input(of_hidden, hidden, 0, grad_input=of_hidden)
            if of_bias1 is not None:
                of_bias1 += of_hidden.sum(0)
            if of_weight1 is not None:
                of_weight1.addmm_(of_hidden.t(), x[rows])
            if of_x is not None:
                product_into(of_x[rows], of_hidden, weight1.t())
        of_bias2 = gradient.sum(0) if ctx.needs_input_grad[4] else None
        return of_x, of_weight1, of_bias1, of_weight2, of_bias2
