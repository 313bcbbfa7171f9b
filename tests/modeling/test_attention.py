"""Attention and the transformer stacks compute what torch.nn's own modules compute, from the same weights."""

import pytest
import torch
from torch import nn

from PADing.modeling import TransformerDecoder, TransformerDecoderLayer
from PADing.modeling.layers import MLP, Attention, TransformerEncoder, TransformerEncoderLayer

WIDTH, HEADS = 24, 4


def _pair(reference: nn.Module, ours: nn.Module) -> None:
    """Random weights for both; their names must be the same."""
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.normal_(std=0.3)
    assert not ours.load_state_dict(reference.state_dict(), strict=True).missing_keys


@pytest.mark.parametrize("same", ["query is key is value", "query is key", "key is value", "nothing"])
def test_attention_equals_torch(same):
    torch.manual_seed(0)
    reference, ours = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), Attention(WIDTH, HEADS)
    _pair(reference, ours)
    query, key, value = torch.randn(3, 2, 7, WIDTH).unbind()
    if "query is key" in same:
        key = query
    if "key is value" in same:
        value = key
    allowed = torch.rand(2, 1, 7, 7) > 0.4
    allowed[..., 0] = True
    for mask in (None, allowed):
        masked = None if mask is None else ~mask.expand(-1, HEADS, -1, -1).flatten(0, 1)
        want = reference(query, key, value, attn_mask=masked, need_weights=False)[0]
        torch.testing.assert_close(ours(query, key, value, mask), want, rtol=1e-5, atol=1e-5)


def test_a_memory_for_all_images_is_the_same_as_a_copy_for_each():
    """PADing's primitives are one memory for every class; projecting them once must not change an embedding."""
    torch.manual_seed(0)
    attention = Attention(WIDTH, HEADS)
    query, memory = torch.randn(5, 3, WIDTH), torch.randn(1, 11, WIDTH)
    copies = memory.repeat(5, 1, 1)
    torch.testing.assert_close(attention(query, memory, memory), attention(query, copies, copies))


def _torch_decoder(layers: int) -> nn.TransformerDecoder:
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 40, dropout=0.0)
    return nn.TransformerDecoder(layer, layers, nn.LayerNorm(WIDTH))


def test_decoder_equals_torch():
    torch.manual_seed(0)
    reference = _torch_decoder(2)
    ours = TransformerDecoder(TransformerDecoderLayer(WIDTH, HEADS, 40, dropout=0.0), 2)
    _pair(reference, ours)
    target, memory = torch.randn(3, 2, WIDTH), torch.randn(6, 2, WIDTH)
    torch.testing.assert_close(ours(target, memory)[0], reference(target, memory), rtol=1e-5, atol=1e-5)
    shared = memory[:, :1]
    want = reference(target, shared.repeat(1, 2, 1))
    for form in (shared, shared.expand(-1, 2, -1)):
        torch.testing.assert_close(ours(target, form)[0], want, rtol=1e-5, atol=1e-5)


def test_decoder_returns_every_layer_when_asked():
    torch.manual_seed(0)
    layer = TransformerDecoderLayer(WIDTH, HEADS, 40, dropout=0.0)
    stack = TransformerDecoder(layer, 3, return_intermediate=True)
    target, memory = torch.randn(4, 2, WIDTH), torch.randn(5, 2, WIDTH)
    outputs = stack(target, memory)
    assert outputs.shape == (3, 4, 2, WIDTH)
    for n in range(1, 4):
        part = TransformerDecoder(layer, n)
        part.norm.load_state_dict(stack.norm.state_dict())
        torch.testing.assert_close(part(target, memory)[0], outputs[n - 1])


def test_encoder_and_pre_norm_equal_torch():
    torch.manual_seed(0)
    for pre_norm in (False, True):
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 40, dropout=0.0, norm_first=pre_norm, batch_first=True)
        last = nn.LayerNorm(WIDTH) if pre_norm else None
        reference = nn.TransformerEncoder(layer, 2, last, enable_nested_tensor=False)
        ours = TransformerEncoder(TransformerEncoderLayer(WIDTH, HEADS, 40, dropout=0.0, pre_norm=pre_norm), 2)
        _pair(reference, ours)
        x = torch.randn(2, 9, WIDTH)
        torch.testing.assert_close(ours(x, torch.zeros(9, WIDTH)), reference(x), rtol=1e-5, atol=1e-5)


def test_noise_enters_between_cross_attention_and_its_norm():
    """Without it, the generator would make one embedding for each class, and the classifier would learn a point."""
    torch.manual_seed(0)
    plain = TransformerDecoderLayer(WIDTH, HEADS, 40, dropout=0.0)
    noisy = TransformerDecoderLayer(WIDTH, HEADS, 40, dropout=0.0, noise=True)
    noisy.load_state_dict(plain.state_dict())
    x, memory = torch.randn(3, 1, WIDTH), torch.randn(1, 6, WIDTH)
    torch.manual_seed(5)
    got = noisy.eval()(x, memory)
    torch.manual_seed(5)
    noise = torch.randn(1, 3, WIDTH).transpose(0, 1)
    y = plain.norm1(x + plain.self_attn(x, x, x))
    y = plain.norm2(y + plain.multihead_attn(y, memory.repeat(3, 1, 1), memory.repeat(3, 1, 1)) + noise)
    want = plain.norm3(y + plain.linear2(plain.linear1(y).relu()))
    torch.testing.assert_close(got, want)
    assert (got - plain(x, memory)).abs().max() > 0.1
    with pytest.raises(ValueError, match="post-norm"):
        TransformerDecoderLayer(WIDTH, HEADS, pre_norm=True, noise=True)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    layer = TransformerDecoderLayer(WIDTH, HEADS, 40, dropout=0.5)
    x, memory = torch.randn(2, 3, WIDTH), torch.randn(2, 6, WIDTH)
    layer.train()
    assert not torch.equal(layer(x, memory), layer(x, memory))
    layer.eval()
    assert torch.equal(layer(x, memory), layer(x, memory))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_mlp_has_so_many_linear_layers_with_relus_between_them(depth):
    torch.manual_seed(0)
    ours, x = MLP(WIDTH, 7, 5, depth), torch.randn(2, 3, WIDTH)
    widths = [WIDTH, *[7] * (depth - 1), 5]
    shapes = {f"layers.{i}.weight": (b, a) for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False))}
    assert {key: tuple(w.shape) for key, w in ours.state_dict().items() if "weight" in key} == shapes
    want = x
    for i, layer in enumerate(ours.layers):
        want = want @ layer.weight.T + layer.bias
        want = want.clamp(min=0) if i < depth - 1 else want
    torch.testing.assert_close(ours(x), want)
    assert (want < 0).any(), "no ReLU at the end"
