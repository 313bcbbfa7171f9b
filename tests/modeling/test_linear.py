"""PADing.modeling.linear: oneDNN's product and its gradients, and when it is used."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from PADing.modeling import linear as module
from PADing.modeling.linear import LEAST_ROWS, Linear


@pytest.fixture
def onednn(monkeypatch) -> None:
    """Use oneDNN on every processor whose PyTorch has it."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(module, "onednn_is_faster", lambda: True)


@pytest.fixture
def calls(monkeypatch) -> list[tuple]:
    """The shape of the rows of each product of oneDNN."""
    made, inner = [], module._onednn

    def watched(x, *rest, **named):
        made.append(tuple(x.shape))
        return inner(x, *rest, **named)

    monkeypatch.setattr(module, "_onednn", watched)
    return made


def gradients(function, *leaves):
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    result = function(*leaves)
    generator = torch.Generator().manual_seed(1)
    result.backward(torch.randn(result.shape, generator=generator).to(result.dtype))
    return [result.detach(), *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("shape", [(LEAST_ROWS, 24), (2, LEAST_ROWS, 24), (3, 7, LEAST_ROWS // 8, 24)])
def test_product_and_gradients_are_those_in_double_precision(onednn, calls, relu, shape):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(shape), torch.randn(20, 24), torch.randn(20)

    def expected(x, weight, bias):
        result = (x.unsqueeze(-2) * weight).sum(-1) + bias
        return result.clamp(min=0) if relu else result

    found = gradients(lambda *leaves: module.linear(*leaves, relu), x, weight, bias)
    # ReLU's gradient jumps at 0, where rounding could decide: the seed gives no value so near to it.
    for a, b in zip(found, gradients(expected, x.double(), weight.double(), bias.double()), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))
    rows = x.numel() // 24
    assert calls == [(rows, 24), (rows, 20)]


def test_only_needed_gradients_are_computed(onednn, calls):
    layer, x = Linear(8, 4), torch.randn(LEAST_ROWS, 8)
    layer(x).sum().backward()
    assert len(calls) == 1 and layer.weight.grad is not None
    layer.requires_grad_(False)
    layer(x.requires_grad_()).sum().backward()
    assert len(calls) == 3 and torch.allclose(x.grad, layer.weight.sum(0).expand_as(x), atol=1e-6)


def test_a_transposed_view_is_read_as_it_is(onednn, calls):
    layer, x = Linear(8, 4, relu=True), torch.randn(2, 8, LEAST_ROWS).transpose(1, 2)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias).relu())
    assert calls


def test_small_double_and_recorded_inputs_take_the_ordinary_way(onednn, calls):
    layer = Linear(8, 4, relu=True)
    large = torch.randn(LEAST_ROWS, 8)

    def expected(layer, x):
        return F.linear(x, layer.weight, layer.bias).relu()

    for x in (large[:-1], large[0], large[:0]):
        torch.testing.assert_close(layer(x), expected(layer, x))
    double = copy.deepcopy(layer).double()
    torch.testing.assert_close(double(large.double()), expected(double, large.double()))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(large).dtype == torch.bfloat16
    traced = torch.jit.trace(layer, large, check_trace=False)  # the check runs the layer itself
    torch.testing.assert_close(traced(large[:9]), expected(layer, large[:9]))
    torch.testing.assert_close(torch.func.vmap(layer)(large.view(2, -1, 8)), expected(layer, large).view(2, -1, 4))
    tangent = torch.func.jvp(layer, (large,), (large,))[1]
    torch.testing.assert_close(tangent, (large @ layer.weight.T) * (expected(layer, large) > 0))
    with FlopCounterMode(display=False) as counted:
        layer(large)
    assert counted.get_total_flops() == 2 * LEAST_ROWS * 8 * 4
    assert not calls


def test_initial_weights_and_keys_are_those_of_pytorch():
    torch.manual_seed(3)
    ours = Linear(8, 4, relu=True)
    torch.manual_seed(3)
    torch.testing.assert_close(ours.state_dict(), nn.Linear(8, 4).state_dict(), rtol=0, atol=0)


def test_a_pytorch_without_the_operator_takes_the_ordinary_way(monkeypatch):
    def absent(*args, **kwargs):
        raise AttributeError("no such operator")

    monkeypatch.setattr(module, "_onednn", absent)
    module.onednn_is_faster.cache_clear()
    try:
        layer, x = Linear(8, 4), torch.randn(LEAST_ROWS, 8)
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
        assert not module.onednn_is_faster()
    finally:
        module.onednn_is_faster.cache_clear()


@pytest.mark.parametrize(
    ("capability", "maker", "product", "faster"),
    [
        ("AVX512", "AuthenticAMD", 0.0, True),
        ("AVX512", "GenuineIntel", 0.0, False),
        ("AVX2", "AuthenticAMD", 0.0, False),
        ("AVX512", "AuthenticAMD", 1e-3, False),
    ],
)
def test_onednn_is_for_amd_with_avx512_where_its_results_are_right(monkeypatch, capability, maker, product, faster):
    def pretended(x, weight, bias, relu=False):
        return F.linear(x, weight, bias).relu() + product

    monkeypatch.setattr(module, "_onednn", pretended)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(module.Path, "read_text", lambda *_, **__: f"vendor_id : {maker}")
    module.onednn_is_faster.cache_clear()
    try:
        assert module.onednn_is_faster() is faster
    finally:
        module.onednn_is_faster.cache_clear()
