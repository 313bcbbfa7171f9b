"""PADing.modeling.feed_forward: blocks give the same result and gradients as the whole, and keep no hidden channels."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from PADing.modeling import feed_forward as module
from PADing.modeling import linear as products
from PADing.modeling.feed_forward import BLOCK, feed_forward
from PADing.modeling.layers import FFNLayer, TransformerEncoderLayer
from PADing.modeling.linear import LEAST_ROWS, Linear

ROWS = LEAST_ROWS + BLOCK + 7  # the last block is smaller
WIDTH, HIDDEN = 8, 24


@pytest.fixture(params=["MKL", "oneDNN"])
def product(request, monkeypatch) -> None:
    """Both products that a processor may prefer."""
    if request.param == "oneDNN":
        if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
            pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(products, "onednn_is_faster", lambda: request.param == "oneDNN")


@pytest.fixture
def calls(monkeypatch) -> list[tuple[int, ...]]:
    """The shapes of the rows that were computed in blocks."""
    made, inner = [], module._FeedForward.apply

    def watched(rows, *rest):
        made.append(tuple(rows.shape))
        return inner(rows, *rest)

    monkeypatch.setattr(module._FeedForward, "apply", watched)
    return made


def layers() -> tuple[Linear, Linear]:
    torch.manual_seed(0)
    return Linear(WIDTH, HIDDEN, relu=True), Linear(HIDDEN, WIDTH)


def results(function, x, gradient, parameters):
    leaf = x.detach().requires_grad_()
    result = function(leaf)
    return [result, *torch.autograd.grad(result, [leaf, *parameters], gradient)]


@pytest.mark.parametrize("shape", [(ROWS, WIDTH), (2, ROWS // 2, WIDTH)])
def test_results_and_gradients_are_those_in_double_precision(product, calls, shape):
    first, second = layers()
    x, gradient = torch.randn(2, *shape)
    found = results(lambda x: feed_forward(x, first, second), x, gradient, [*first.parameters(), *second.parameters()])
    double = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, WIDTH)).double()
    double[0].load_state_dict(first.state_dict())
    double[2].load_state_dict(second.state_dict())
    wanted = results(double, x.double(), gradient.double(), list(double.parameters()))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5 * b.abs().max().item())
    assert calls == [(x.numel() // WIDTH, WIDTH)]


def test_only_needed_gradients_are_computed(product, calls):
    first, second = layers()
    x = torch.randn(ROWS, WIDTH)
    first.requires_grad_(False)
    second.weight.requires_grad_(False)
    feed_forward(x, first, second).sum().backward()  # its gradient is expanded from one number
    assert torch.equal(second.bias.grad, torch.full((WIDTH,), float(ROWS)))
    assert first.weight.grad is None and first.bias.grad is None and second.weight.grad is None and x.grad is None
    assert calls


def test_views_are_read_as_they_are(product, calls):
    first, second = layers()
    x = torch.randn(2, WIDTH, ROWS).transpose(1, 2)
    gradient = torch.randn(2, WIDTH, ROWS).transpose(1, 2)
    found = results(lambda x: feed_forward(x, first, second), x, gradient, [first.weight, second.weight])
    wanted = results(lambda x: second(first(x)), x, gradient, [first.weight, second.weight])
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * b.abs().max().item())
    assert calls


def test_no_hidden_channels_are_kept_for_the_backward_pass(calls):
    first, second = layers()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        feed_forward(torch.randn(ROWS, WIDTH, requires_grad=True), first, second)
    assert calls and max(kept) == ROWS * WIDTH


def test_what_else_happens_in_a_layer_still_happens(calls):
    first, second = (layer.requires_grad_(False) for layer in layers())
    x, seen = torch.randn(ROWS, WIDTH), []
    wanted = feed_forward(x, first, second)
    assert len(calls) == 1
    hook = first.register_forward_hook(lambda *_: seen.append("hook"))
    torch.testing.assert_close(feed_forward(x, first, second), wanted)
    hook.remove()

    class Other(Linear):
        def forward(self, x):
            seen.append("class")
            return super().forward(x)

    other = Other(HIDDEN, WIDTH)
    other.load_state_dict(second.state_dict())
    torch.testing.assert_close(feed_forward(x, first, other), wanted)
    torch.testing.assert_close(torch.vmap(lambda x: feed_forward(x, first, second))(x.expand(2, -1, -1))[1], wanted)
    torch.testing.assert_close(feed_forward(x[:9], first, second), wanted[:9])
    traced = torch.jit.trace(lambda x: feed_forward(x, first, second), x, check_trace=False)
    torch.testing.assert_close(traced(x[:9]), wanted[:9])
    with FlopCounterMode(display=False) as counted:
        feed_forward(x, first, second)
    assert counted.get_total_flops() == 2 * ROWS * WIDTH * HIDDEN * 2
    with torch.autocast("cpu", torch.bfloat16):
        assert feed_forward(x, first, second).dtype == torch.bfloat16
    assert len(calls) == 1 and seen == ["hook", "class"]


def test_dropout_between_the_layers_needs_the_whole(calls):
    layer = TransformerEncoderLayer(WIDTH, 2, HIDDEN, dropout=0.5, pre_norm=False)
    x = torch.randn(1, ROWS, WIDTH)
    torch.manual_seed(1)
    found = layer.feed_forward(x)
    torch.manual_seed(1)
    torch.testing.assert_close(found, layer.linear2(layer.drop(layer.linear1(x))))
    assert not calls
    layer.eval().feed_forward(x)
    FFNLayer(WIDTH, HIDDEN, pre_norm=False).train()(x)
    assert len(calls) == 2
