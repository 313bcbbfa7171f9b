"""Sine encodings follow their formula; the cache gives the same tensors, also after inference."""

import math

import pytest
import torch

from PADing.modeling.position_encoding import PositionEmbeddingSine


@pytest.mark.parametrize("normalize", [True, False])
def test_formula(normalize):
    feats, temperature, height, width = 6, 100.0, 3, 5
    got = PositionEmbeddingSine(feats, temperature, normalize=normalize)(torch.zeros(2, 1, height, width))[0]
    assert got.shape == (2 * feats, height, width)
    for channel in range(2 * feats):
        for y in range(height):
            for x in range(width):
                position, last = ((y + 1, height), (x + 1, width))[channel // feats]
                if normalize:
                    position = position / last * 2 * math.pi
                i = channel % feats
                angle = position / temperature ** (2 * (i // 2) / feats)
                want = math.cos(angle) if i % 2 else math.sin(angle)
                assert got[channel, y, x].item() == pytest.approx(want, abs=2e-6)


def test_padding_is_no_position():
    """An image keeps its encoding when a larger one in the batch makes it be padded."""
    pe = PositionEmbeddingSine(8, normalize=True)
    mask = torch.ones(1, 6, 9, dtype=torch.bool)
    mask[:, :4, :7] = False
    padded = pe(torch.zeros(1, 1, 6, 9), mask)
    torch.testing.assert_close(padded[:, :, :4, :7], pe(torch.zeros(1, 1, 4, 7)), rtol=0, atol=2e-6)


def test_a_table_made_in_inference_serves_training():
    pe = PositionEmbeddingSine(4, normalize=True)
    with torch.inference_mode():
        pe(torch.zeros(1, 1, 17, 19))
    weight = torch.ones(8, 17, 19, requires_grad=True)
    (weight * pe(torch.zeros(1, 1, 17, 19))).sum().backward()
    assert weight.grad is not None


def test_table_keeps_the_dtype_but_not_the_precision_of_half():
    like = torch.zeros(1, dtype=torch.bfloat16)
    pe = PositionEmbeddingSine(4, normalize=False)
    exact = pe.tokens(1, 300, torch.zeros(1))
    half = pe.tokens(1, 300, like)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), exact, rtol=0, atol=4e-3)


def test_scale_without_normalize_is_refused():
    with pytest.raises(ValueError, match="normalize"):
        PositionEmbeddingSine(4, scale=1.0)
