"""The CUDA kernels: they compile without a warning wherever nvcc is, and compute the definition wherever a GPU is."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from PADing.modeling.pixel_decoder.ops import backends, build, ms_deform_attn
from PADing.modeling.pixel_decoder.ops.pytorch import ms_deform_attn_pytorch

from .conftest import Problem, random_problem


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90"])
def test_compiles_without_a_warning(architecture, tmp_path):
    """GPU machines are where the compiler meets this code for the first time otherwise."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc on the PATH")
    command = [nvcc, "-std=c++17", f"-arch={architecture}", "--Werror", "all-warnings"]
    command += ["-Xcompiler", "-Wall,-Wextra,-Werror", "-I", build.SOURCES / "cuda", "-c"]
    command += [Path(__file__).with_name("cuda_instances.cu"), "-o", tmp_path / "kernels.o"]
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if (
        "Unsupported gpu architecture" in result.stderr
        or "is not defined for option 'gpu-architecture'" in result.stderr
    ):
        pytest.skip(f"this nvcc does not know {architecture}")
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def compiled_cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    reason = backends.load("cuda")
    if reason is not None:
        pytest.skip(f"the CUDA kernel cannot be had here: {reason}")


def _run(problem: Problem, function):
    inputs = [t.detach().clone().requires_grad_() for t in (problem.value, problem.locations, problem.weights)]
    output = function(problem.levels, *inputs)
    return [output.detach(), *torch.autograd.grad(output, inputs, problem.grad)]


@pytest.mark.parametrize("levels_on_device", [False, True])
@pytest.mark.parametrize("channels", [1, 4, 30, 32, 33, 64, 71])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_agrees_with_pytorch(compiled_cuda, monkeypatch, dtype, channels, levels_on_device):
    monkeypatch.setenv(backends.ENVIRONMENT, "cuda")
    problem = random_problem(queries=50, channels=channels, points=4)
    problem.value, problem.grad = problem.value.to(dtype).double(), problem.grad.to(dtype).double()
    problem.locations, problem.weights = problem.locations.float().double(), problem.weights.float().double()
    wanted = _run(problem, lambda levels, v, x, w: ms_deform_attn_pytorch(v, levels, problem.starts, x, w))
    sums = torch.float64 if dtype is torch.float64 else torch.float32
    typed = Problem(
        problem.levels,
        problem.value.to("cuda", dtype),
        problem.locations.to("cuda", sums),
        problem.weights.to("cuda", sums),
        problem.grad.to("cuda", dtype),
    )

    def on_gpu(levels, value, locations, weights):
        shapes = torch.tensor(levels, device="cuda") if levels_on_device else levels
        return ms_deform_attn(value, shapes, None, locations, weights)

    tolerance = {torch.float64: 1e-11, torch.float32: 1e-5}.get(dtype, 1e-5)
    rounding = {torch.float16: 2**-11, torch.bfloat16: 2**-8}.get(dtype, 0.0)
    for i, (result, exact) in enumerate(zip(_run(typed, on_gpu), wanted, strict=True)):
        accept = tolerance + (rounding if i < 2 else 0.0)
        assert (result.cpu().double() - exact).abs().max() <= accept * exact.abs().max()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_samples_nowhere_read_nothing(compiled_cuda, monkeypatch, bad):
    monkeypatch.setenv(backends.ENVIRONMENT, "cuda")
    problem = random_problem(channels=32)
    problem.locations[0, 1] = bad
    typed = Problem(
        problem.levels, *(t.cuda() for t in (problem.value, problem.locations, problem.weights, problem.grad))
    )
    output, *gradients = _run(typed, lambda levels, v, x, w: ms_deform_attn(v, levels, None, x, w))
    assert (output[0, 1] == 0).all() and all(g.isfinite().all() for g in gradients)


def test_device_shapes_do_not_wait_for_the_device(compiled_cuda, monkeypatch):
    monkeypatch.setenv(backends.ENVIRONMENT, "cuda")
    problem = random_problem(channels=32)
    value, locations, weights = (t.cuda() for t in (problem.value, problem.locations, problem.weights))
    shapes, starts = torch.tensor(problem.levels, device="cuda"), torch.tensor(problem.starts, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        ms_deform_attn(value, shapes, starts, locations, weights)
        ms_deform_attn(value, problem.levels, problem.starts, locations, weights)
    finally:
        torch.cuda.set_sync_debug_mode("default")
