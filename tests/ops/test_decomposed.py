"""If these fail, an exported model attends to other places than the trained one."""

import pytest
import torch

from PADing.modeling.pixel_decoder.ops import ms_deform_attn
from PADing.modeling.pixel_decoder.ops.decomposed import SAMPLINGS, decomposed, decomposition


def _inputs(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes, heads, points = [(5, 7), (3, 4), (1, 1)], 2, 4
    pixels = sum(h * w for h, w in shapes)
    value = torch.randn(2, pixels, heads, 3, generator=generator, dtype=dtype)
    # Also far outside, on the edges, and at the corners of pixels.
    locations = 1.6 * torch.rand(2, 11, heads, 3, points, 2, generator=generator, dtype=dtype) - 0.3
    locations[0, 0, 0, :, 0], locations[0, 0, 0, :, 1] = 0.0, 1.0
    locations[0, 1, 0, :, 0], locations[0, 1, 0, :, 1] = 0.5 / 7, 1e9
    locations[1, 2, 1, :, 0], locations[1, 2, 1, :, 1] = float("nan"), float("-inf")
    weights = torch.rand(2, 11, heads, 3, points, generator=generator, dtype=dtype)
    return value, shapes, None, locations, weights


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_it_equals_the_compiled_operator(sampling, dtype, tolerance):
    wanted = ms_deform_attn(*_inputs(dtype))
    with decomposed(sampling):
        assert decomposition() is SAMPLINGS[sampling]
        found = ms_deform_attn(*_inputs(dtype))
    assert decomposition() is None
    assert found.shape == wanted.shape and torch.allclose(found, wanted, atol=tolerance, rtol=0)


def test_contexts_nest_and_end_with_errors():
    with pytest.raises(ValueError, match="must be one of grid_sample, gather"), decomposed("nearest"):
        pass
    with pytest.raises(KeyError), decomposed("gather"):
        with decomposed("grid_sample"):
            assert decomposition() is SAMPLINGS["grid_sample"]
        assert decomposition() is SAMPLINGS["gather"]
        raise KeyError
    assert decomposition() is None
