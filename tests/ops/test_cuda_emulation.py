"""The CUDA kernels, run thread by thread on the CPU: with an index or a barrier wrong, GPUs would train on rubbish.

This says nothing about speed, and nothing about what the GPU's compiler makes of the code.
"""

import ctypes
import subprocess
from pathlib import Path

import pytest
import torch

from PADing.modeling.pixel_decoder.ops import build
from PADing.modeling.pixel_decoder.ops.pytorch import ms_deform_attn_pytorch

from .conftest import Problem, random_problem, slow_reference

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def kernels(compiler, tmp_path_factory):
    target = tmp_path_factory.mktemp("emulation") / "kernels.so"
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-shared", "-fPIC"]
    command += ["-I", build.SOURCES / "cuda", HERE / "cuda_emulation.cpp", "-o", target]
    subprocess.run([str(word) for word in command], check=True)
    return ctypes.CDLL(str(target))


def _emulate(kernels, problem: Problem, dtype: torch.dtype, vec: int, threads: int, on_device: bool):
    sums = torch.float64 if dtype is torch.float64 else torch.float32
    value, grad = problem.value.to(dtype), problem.grad.to(dtype)
    locations, weights = problem.locations.to(sums), problem.weights.to(sums)
    batch, queries, heads, levels, points = weights.shape
    sizes = [batch, value.shape[1], heads, value.shape[3], queries, levels, points]
    table = [n for (h, w), start in zip(problem.levels, problem.starts, strict=True) for n in (h, w, start)]
    output = torch.full((batch, queries, heads * value.shape[3]), torch.nan, dtype=dtype)
    grad_value = torch.zeros(value.shape, dtype=sums)
    grad_locations, grad_weights = torch.full_like(locations, torch.nan), torch.full_like(weights, torch.nan)
    tensors = (value, locations, weights, output, grad, grad_value, grad_locations, grad_weights)
    getattr(kernels, f"{str(dtype).removeprefix('torch.')}_{vec}")(
        (ctypes.c_int64 * len(sizes))(*sizes),
        (ctypes.c_int64 * len(table))(*table),
        int(on_device),
        threads,
        *(ctypes.c_void_p(t.data_ptr()) for t in tensors),
    )
    return output, grad_value, grad_locations, grad_weights


def _expected(problem: Problem):
    inputs = [t.double().requires_grad_() for t in (problem.value, problem.locations, problem.weights)]
    output = ms_deform_attn_pytorch(inputs[0], problem.levels, problem.starts, *inputs[1:])
    return output.detach(), *torch.autograd.grad(output, inputs, problem.grad.double())


@pytest.mark.parametrize(
    "dtype, vec, channels, threads, points",
    [
        (torch.float32, 4, 32, 64, 2),  # Mask2Former's head: 8 threads per query
        (torch.float32, 4, 4, 32, 3),  # one thread per query
        (torch.float32, 2, 30, 64, 2),  # 15 threads of 16 at work
        (torch.float32, 1, 33, 32, 1),  # more channels than one pass of a warp
        (torch.float64, 2, 32, 64, 2),
        (torch.float64, 1, 71, 32, 1),  # three passes, the last one partial
        (torch.float64, 1, 3, 32, 19),  # more samples than are planned at a time
        (torch.float16, 8, 32, 32, 2),
        (torch.float16, 1, 5, 32, 2),
        (torch.bfloat16, 8, 16, 32, 2),
        (torch.bfloat16, 2, 6, 32, 2),
    ],
)
@pytest.mark.parametrize("on_device", [False, True])
def test_kernels_agree_with_pytorch(kernels, dtype, vec, channels, threads, points, on_device):
    problem = random_problem(queries=11, heads=2, channels=channels, points=points)
    # What is rounded to the storage type on the way in is rounded on both sides.
    problem.value, problem.grad = problem.value.to(dtype).double(), problem.grad.to(dtype).double()
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    problem.locations, problem.weights = problem.locations.to(wide).double(), problem.weights.to(wide).double()
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-6}.get(dtype, 1e-5)
    rounding = {torch.float16: 2**-11, torch.bfloat16: 2**-8}.get(dtype, 0.0)
    results = _emulate(kernels, problem, dtype, vec, threads, on_device)
    names = ("output", "value", "locations", "weights")
    for name, result, wanted in zip(names, results, _expected(problem), strict=True):
        scale = wanted.abs().max().item()
        accept = tolerance + (rounding if name == "output" else 0.0)
        difference = (result.double() - wanted).abs().max().item()
        assert difference <= accept * scale, name


def test_levels_beyond_the_value_are_not_read(kernels):
    """A table that only the GPU sees cannot be refused, but it must not read or write somebody else's memory."""
    problem = random_problem(levels=[(5, 7), (3, 2)], batch=1, queries=8, heads=1, channels=4)
    inside = problem.value[:, :35].clone()
    problem.value = inside  # the second level lies behind the end
    output, grad_value, *_ = _emulate(kernels, problem, torch.float64, 2, 32, True)
    problem.weights[:, :, :, 1] = 0
    problem.value = torch.cat([inside, torch.zeros(1, 6, 1, 4, dtype=torch.float64)], 1)
    wanted = _expected(problem)
    torch.testing.assert_close(output, wanted[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(grad_value, wanted[1][:, :35], rtol=0, atol=1e-12)


def test_locations_that_are_no_numbers_read_nothing(kernels):
    problem = random_problem(queries=4, heads=1, channels=4)
    bad = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e38, -1e38], dtype=torch.float64)
    flat = problem.locations.view(-1)
    flat[: len(bad)] = bad
    flat[-len(bad) :] = bad
    results = _emulate(kernels, problem, torch.float32, 4, 32, False)
    for result, wanted in zip(results, _expected(problem), strict=True):
        torch.testing.assert_close(result.double(), wanted, rtol=0, atol=2e-6 * wanted.abs().max().item())


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("place", [0.5, torch.nan, torch.inf])
def test_an_empty_level_is_skipped(kernels, place, on_device):
    """Like the CPU kernel and PyTorch: the other levels count, and nothing is read for this one."""
    problem = random_problem(levels=[(5, 7), (0, 4), (3, 2)], queries=5, heads=1, channels=4)
    problem.locations[:, :, :, 1] = place
    results = _emulate(kernels, problem, torch.float64, 2, 32, on_device)
    torch.testing.assert_close(results[0], slow_reference(problem), rtol=0, atol=1e-12)
    for result, wanted in zip(results, _expected(problem), strict=True):
        torch.testing.assert_close(result, wanted, rtol=0, atol=1e-12)
