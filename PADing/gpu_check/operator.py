"""One process for the MSDeformAttn operator: ``python -m PADing.gpu_check.operator build|parity|nccl DEVICE RESULT``.

``build`` compiles the kernel, ``parity`` compares output and gradients with PyTorch in float64, ``nccl`` is not about
the operator: it starts a process group of one process with the GPU's backend.
"""

import os
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from PADing.files import write_json
from PADing.modeling.pixel_decoder.ops import backends
from PADing.modeling.pixel_decoder.ops.pytorch import ms_deform_attn_pytorch

# dtype -> the largest accepted error, relative to the largest value: sums are in float32 and rounded once.
DTYPES = {torch.float64: 1e-11, torch.float32: 1e-5, torch.float16: 2**-10, torch.bfloat16: 2**-7}
SHAPES, STARTS = [(23, 31), (12, 16), (6, 8)], [0, 713, 905]
NAMES = ("output", "grad of value", "grad of locations", "grad of weights")


def build(device: str) -> dict:
    """Compile and load the kernel."""
    start = time.perf_counter()
    reason = backends.load(device)
    return {"seconds": round(time.perf_counter() - start, 1), "problem": reason}


def parity(device: str) -> dict:
    """Relative errors by dtype and channels; ``problem`` names the first that is too large."""
    problem = backends.load(device)
    rows = []
    for dtype, accept in DTYPES.items() if problem is None else ():
        for channels in (32, 30, 71):
            errors = _errors(device, dtype, channels)
            rows.append({"dtype": str(dtype).removeprefix("torch."), "channels": channels, "accept": accept, **errors})
            if problem is None and not max(errors.values()) <= accept:
                problem = f"{rows[-1]['dtype']} with {channels} channels: the error is {max(errors.values()):.1e}"
    return {"rows": rows, "problem": problem}


def _errors(device: str, dtype: torch.dtype, channels: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(channels)
    wide = torch.promote_types(dtype, torch.float32)
    # Rounded to the dtype first, so that only the kernel's own arithmetic is compared.
    value = torch.randn(2, 953, 4, channels, generator=generator).to(dtype)
    locations = (torch.rand(2, 200, 4, 3, 4, 2, generator=generator) * 1.4 - 0.2).to(wide)
    weights = torch.rand(2, 200, 4, 3, 4, generator=generator).to(wide)
    grad = torch.randn(2, 200, 4 * channels, generator=generator).to(dtype)
    table = [number for (h, w), start in zip(SHAPES, STARTS, strict=True) for number in (h, w, start)]
    tensors = (value, locations, weights)
    found = _run(lambda *t: torch.ops.pading.ms_deform_attn(*t, table, None), [t.to(device) for t in tensors], grad)
    exact = _run(lambda v, *rest: ms_deform_attn_pytorch(v, SHAPES, STARTS, *rest), [t.double() for t in tensors], grad)
    differences = [float((a.double().cpu() - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True)]
    return dict(zip(NAMES, differences, strict=True))


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
