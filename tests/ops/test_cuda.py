"""The CUDA kernels: they compile without a warning wherever nvcc is, and compute the definition wherever a GPU is."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from PADing.modeling.pixel_decoder.ops import MSDeformAttn, backends, build, ms_deform_attn
from PADing.modeling.pixel_decoder.ops.pytorch import ms_deform_attn_pytorch

from .conftest import Problem, random_problem


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_70", "sm_75", "sm_80", "sm_90"])
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


def _on_gpu(problem: Problem) -> Problem:
    tensors = (problem.value, problem.locations, problem.weights, problem.grad)
    return Problem(problem.levels, *(t.cuda() for t in tensors))


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


def test_a_deterministic_backward_pass_repeats_its_bits(compiled_cuda, monkeypatch):
    """Many samples meet in few pixels, so that the order of atomic additions would show."""
    monkeypatch.setenv(backends.ENVIRONMENT, "cuda")
    problem = _on_gpu(random_problem(queries=3000, channels=32, points=4, dtype=torch.float32))
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        results = [_run(problem, lambda levels, *t: ms_deform_attn(t[0], levels, None, *t[1:])) for _ in range(3)]
    finally:
        torch.use_deterministic_algorithms(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    plain = _run(problem, lambda levels, *t: ms_deform_attn(t[0], levels, None, *t[1:]))
    for a, b in zip(results[0], plain, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * b.abs().max().item())


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_views_at_odd_addresses(compiled_cuda, monkeypatch, shift):
    """A misaligned load would end the process, and every tensor on the GPU with it."""
    monkeypatch.setenv(backends.ENVIRONMENT, "cuda")
    problem = _on_gpu(random_problem(channels=32, dtype=torch.float32))

    def moved(tensor):
        memory = torch.empty(tensor.numel() + shift, device="cuda", dtype=tensor.dtype)
        return memory[shift:].view(tensor.shape).copy_(tensor)

    inputs = (problem.value, problem.locations, problem.weights)
    wanted = ms_deform_attn(inputs[0], problem.levels, None, *inputs[1:])
    value, *rest = map(moved, inputs)
    torch.testing.assert_close(ms_deform_attn(value, problem.levels, None, *rest), wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_module_takes_the_fused_kernel(compiled_cuda, monkeypatch, dtype):
    """With the numbers of the CPU, whose module composes them."""
    monkeypatch.setenv(backends.ENVIRONMENT, "cuda")
    torch.manual_seed(0)
    module, shapes = MSDeformAttn(32, 2, 4, 4), [(6, 8), (3, 4)]
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    query, reference, source = torch.randn(2, 60, 32), torch.rand(2, 60, 2, 2), torch.randn(2, 60, 32)
    monkeypatch.delenv(backends.ENVIRONMENT)
    wanted = module(query, reference, source, shapes)
    module.to("cuda", dtype)
    with torch.profiler.profile() as profile:
        output = module(query.to("cuda", dtype), reference.cuda(), source.to("cuda", dtype), shapes)
    assert any("ms_deform_attn_fused" in event.key for event in profile.key_averages())
    accept = 1e-4 if dtype is torch.float32 else 0.1
    assert (output.float().cpu() - wanted).abs().max() <= accept * wanted.abs().max()
