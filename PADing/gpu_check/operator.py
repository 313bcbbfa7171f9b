"""One process for the MSDeformAttn operator: ``python -m PADing.gpu_check.operator build|parity|nccl DEVICE RESULT``.

``build`` compiles the kernel. ``parity`` compares output and gradients with PyTorch in float64: of the operator, of its
backward pass with deterministic algorithms only, and of the fused operator. ``nccl`` is not about the operator: it
starts a process group of one process with the GPU's backend.
"""

import itertools
import os
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from PADing.files import write_json
from PADing.modeling.pixel_decoder.ops import backends
from PADing.modeling.pixel_decoder.ops.fused import samples_of
from PADing.modeling.pixel_decoder.ops.pytorch import ms_deform_attn_pytorch

# dtype -> the largest accepted error, relative to the largest value: sums are in float32 and rounded once.
DTYPES = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 2**-10, torch.bfloat16: 2**-7}
SHAPES, STARTS = [(23, 31), (12, 16), (6, 8)], [0, 713, 905]
WAYS = ("plain", "deterministic", "fused")
NAMES = ("output", "grad of value", "grad of locations", "grad of weights")  # fused: of offsets and scores


def build(device: str) -> dict:
    """Compile and load the kernel."""
    start = time.perf_counter()
    reason = backends.load(device)
    return {"seconds": round(time.perf_counter() - start, 1), "problem": reason}


def parity(device: str) -> dict:
    """Relative errors by way, dtype and channels; ``problem`` names the first that is too large."""
    problem = backends.load(device)
    rows = []
    cases = itertools.product(WAYS, DTYPES.items(), (32, 30, 71)) if problem is None else ()
    for way, (dtype, accept), channels in cases:
        errors = _errors(device, way, dtype, channels)
        name = str(dtype).removeprefix("torch.")
        rows.append({"way": way, "dtype": name, "channels": channels, "accept": accept, **errors})
        if problem is None and not max(errors.values()) <= accept:
            problem = f"{way}, {name} with {channels} channels: the error is {max(errors.values()):.1e}"
    return {"rows": rows, "problem": problem}


def _errors(device: str, way: str, dtype: torch.dtype, channels: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(channels)
    wide = torch.promote_types(dtype, torch.float32)
    # Rounded to the dtype first, so that only the kernel's own arithmetic is compared.
    value = torch.randn(2, 953, 4, channels, generator=generator).to(dtype)
    locations = (torch.rand(2, 200, 4, 3, 4, 2, generator=generator) * 1.4 - 0.2).to(wide)
    weights = torch.rand(2, 200, 4, 3, 4, generator=generator).to(wide)
    grad = torch.randn(2, 200, 4 * channels, generator=generator).to(dtype)
    table = [number for (h, w), start in zip(SHAPES, STARTS, strict=True) for number in (h, w, start)]
    operator: Callable[..., Tensor] = torch.ops.pading.ms_deform_attn
    definition, inputs = _definition, [value, locations, weights]
    if way == "fused":
        offsets, reference = 10 * (locations - 0.5), torch.rand(2, 200, 3, 2, generator=generator).to(wide)
        inputs = [value, offsets.to(dtype), weights.to(dtype)]
        sizes = torch.tensor(SHAPES).flip(-1)

        def fused(*tensors):
            return torch.ops.pading.ms_deform_attn_fused(*tensors[:-2], reference.to(device), *tensors[-2:])

        operator = fused

        def definition(value, offsets, scores):
            return _definition(value, *samples_of(offsets, scores, reference.double(), sizes))

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(way == "deterministic")
    try:
        found = _run(lambda *t: operator(*t, table, None), [t.to(device) for t in inputs], grad)
    finally:
        torch.use_deterministic_algorithms(before)
    exact = _run(definition, [t.double() for t in inputs], grad)
    differences = [float((a.double().cpu() - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True)]
    return dict(zip(NAMES, differences, strict=True))


def _definition(value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    return ms_deform_attn_pytorch(value, SHAPES, STARTS, locations, weights)


def _run(function: Callable[..., Tensor], inputs: list[Tensor], grad: Tensor) -> list[Tensor]:
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    output = function(*inputs)
    return [output.detach(), *torch.autograd.grad(output, inputs, grad.to(output))]


def nccl(device: str) -> dict:
    """Sum a tensor over a group of one process."""
    backend = "nccl" if device == "cuda" else "gloo"
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group(backend, store=store, rank=0, world_size=1)
    tensor = torch.ones(2**20, device=device)
    torch.distributed.all_reduce(tensor)
    torch.distributed.destroy_process_group()
    return {"backend": backend, "problem": None if float(tensor.sum()) == 2**20 else "the sum is wrong"}


def main(what: str, device: str, result: str) -> int:
    """Run one of the functions above; returns the exit status: 1 if it found a problem."""
    found = {"build": build, "parity": parity, "nccl": nccl}[what](device)
    write_json(result, found, indent=2)
    return int(found["problem"] is not None)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
