"""MSDeformAttn gives the recorded numbers: if not, no published checkpoint means anything here."""

import numpy as np
import pytest
import torch

from PADing.errors import UserError
from PADing.modeling.pixel_decoder.ops import backends, ms_deform_attn
from tests.golden.util import cases, load, requires_golden

pytestmark = requires_golden

# Largest difference, relative to the largest recorded value.
ACCEPT = {torch.float64: 1e-11, torch.float32: 1e-5}


@pytest.mark.parametrize("dtype", ACCEPT, ids=str)
@pytest.mark.parametrize("backend", ["cpu", "pytorch"])
@pytest.mark.parametrize("case", cases("msda"))
def test_output_and_gradients(case, backend, dtype, monkeypatch):
    monkeypatch.setenv(backends.ENVIRONMENT, backend)
    try:
        backends.select("cpu")
    except UserError as error:
        pytest.skip(str(error))
    arrays, _ = load("msda")
    arrays = {name.removeprefix(f"{case}."): a for name, a in arrays.items() if name.startswith(f"{case}.")}
    names = ("value", "sampling_locations", "attention_weights")
    value, locations, weights = (torch.from_numpy(arrays[name]).to(dtype).requires_grad_() for name in names)
    shapes = torch.from_numpy(arrays["spatial_shapes"])
    output = ms_deform_attn(value, shapes, None, locations, weights)
    output.backward(torch.from_numpy(arrays["grad_output"]).to(dtype))
    results = {"output": output.detach()} | {
        f"grad_{name}": t.grad for name, t in zip(names, (value, locations, weights), strict=True)
    }
    for name, result in results.items():
        wanted = arrays[name]
        difference = np.abs(result.double().numpy() - wanted)
        if name == "grad_sampling_locations":
            difference[arrays["location_on_grid_line"]] = 0  # one-sided there
        assert difference.max() <= ACCEPT[dtype] * np.abs(wanted).max(), name
