"""The CUDA kernels, run thread by thread on the CPU: with an index or a barrier wrong, GPUs would train on rubbish.

This says nothing about speed, and nothing about what the GPU's compiler makes of the code.
"""

import ctypes
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from PADing.modeling.pixel_decoder.ops import build
from PADing.modeling.pixel_decoder.ops.pytorch import ms_deform_attn_pytorch

from .conftest import Problem, random_problem, slow_reference

HERE = Path(__file__).parent
HALVES = {torch.float16: 2**-11, torch.bfloat16: 2**-8}


class Arguments(ctypes.Structure):
    """Of the C functions in ``cuda_emulation.cpp``."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("sizes", "table")),
        *((name, ctypes.c_int64) for name in ("table_on_device", "threads")),
        *((name, ctypes.c_void_p) for name in ("value", "a", "b", "reference", "reference_strides", "output")),
        *((name, ctypes.c_void_p) for name in ("grad_output", "atomic_value", "collected_value", "grad_a", "grad_b")),
    ]


@dataclass
class Result:
    """What the kernels wrote; ``vec``: channels that they moved at once."""

    vec: int
    output: Tensor
    atomic_value: Tensor
    collected_value: Tensor
    grad_a: Tensor
    grad_b: Tensor

    def named(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if name != "vec"}


@pytest.fixture(scope="module")
def kernels(compiler, tmp_path_factory):
    """The kernels as a library that ends the program at a misaligned address, which a GPU does, too."""
    target = tmp_path_factory.mktemp("emulation") / "kernels.so"
    command = [compiler, "-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-shared", "-fPIC"]
    command += ["-fno-strict-aliasing", "-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"]
    command += ["-I", build.SOURCES / "cuda", HERE / "cuda_emulation.cpp", "-o", target]
    subprocess.run([str(word) for word in command], check=True)
    return ctypes.CDLL(str(target))


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype is torch.float64 else torch.float32


def _shifted(tensor: Tensor, elements: int) -> Tensor:
    """The same numbers, ``elements`` behind an aligned address."""
    memory = torch.empty(tensor.numel() + elements + 64, dtype=tensor.dtype)
    aligned = -(memory.data_ptr() // tensor.element_size()) % (64 // tensor.element_size())
    copy = memory[aligned + elements :][: tensor.numel()].view(tensor.shape)
    assert copy.is_contiguous()
    return copy.copy_(tensor)


def emulate(
    kernels, problem: Problem, dtype: torch.dtype, threads=32, on_device=False, shift=0, scores=None, offsets=None,
    reference=None, starts=None,
) -> Result:  # fmt: skip
    """Forward and both backward passes; with ``scores``, of the fused operator."""
    fused = scores is not None
    wide = _wide(dtype)
    value, grad = (_shifted(t.to(dtype), shift) for t in (problem.value, problem.grad))
    of_samples = dtype if fused else wide
    a, b = (offsets, scores) if fused else (problem.locations, problem.weights)
    a, b = _shifted(a.to(of_samples), shift), _shifted(b.to(of_samples), shift)
    batch, queries, heads, levels, points = problem.weights.shape
    sizes = [batch, value.shape[1], heads, value.shape[3], queries, levels, points]
    table = [n for (h, w), start in zip(problem.levels, starts or problem.starts, strict=True) for n in (h, w, start)]
    output = torch.full((batch, queries, heads * value.shape[3]), torch.nan, dtype=dtype)
    atomic, collected = torch.zeros(value.shape, dtype=wide), torch.full(value.shape, torch.nan, dtype=dtype)
    grad_a, grad_b = torch.full_like(a, torch.nan), torch.full_like(b, torch.nan)
    reference = torch.zeros(1, dtype=wide) if reference is None else reference
    assert reference.dtype is wide
    numbers = [(ctypes.c_int64 * len(x))(*x) for x in (sizes, table or [0], [*reference.stride()[:3], 0, 0, 0])]
    address = ctypes.addressof
    tensors = (value, a, b, reference, output, grad, atomic, collected, grad_a, grad_b)
    v, pa, pb, r, *rest = (t.data_ptr() for t in tensors)
    arguments = Arguments(
        address(numbers[0]), address(numbers[1]), int(on_device), threads, v, pa, pb, r, address(numbers[2]), *rest
    )
    name = str(dtype).removeprefix("torch.")
    vec = getattr(kernels, name)(ctypes.byref(arguments), int(fused))
    return Result(vec, output, atomic, collected, grad_a, grad_b)


def _expected(problem: Problem):
    inputs = [t.double().requires_grad_() for t in (problem.value, problem.locations, problem.weights)]
    output = ms_deform_attn_pytorch(inputs[0], problem.levels, problem.starts, *inputs[1:])
    value, locations, weights = torch.autograd.grad(output, inputs, problem.grad.double())
    return [output.detach(), value, value, locations, weights]


def _rounded(problem: Problem, dtype: torch.dtype) -> Problem:
    """What is rounded to the storage type on the way in is rounded on both sides."""
    problem.value, problem.grad = problem.value.to(dtype).double(), problem.grad.to(dtype).double()
    wide = _wide(dtype)
    problem.locations, problem.weights = problem.locations.to(wide).double(), problem.weights.to(wide).double()
    return problem


def _compare(result: Result, expected: list[Tensor], dtype: torch.dtype) -> None:
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-6}.get(dtype, 1e-5)
    for (name, found), wanted in zip(result.named().items(), expected, strict=True):
        accept = tolerance + (HALVES.get(dtype, 0.0) if found.dtype is dtype else 0.0)
        difference = (found.double() - wanted).abs().max().item()
        assert difference <= accept * wanted.abs().max().item(), name


CASES = [
    (torch.float32, 4, 32, 64, 2),  # Mask2Former's head: 8 threads per query
    (torch.float32, 4, 4, 32, 3),  # three of four threads idle
    (torch.float32, 2, 30, 64, 2),  # 15 threads of 16 at work
    (torch.float32, 1, 33, 32, 1),  # more channels than one pass of a warp
    (torch.float64, 2, 32, 64, 2),
    (torch.float64, 1, 71, 32, 1),  # three passes, the last one partial
    (torch.float64, 1, 3, 32, 19),  # many rounds
    (torch.float16, 8, 32, 32, 2),
    (torch.float16, 1, 5, 32, 2),
    (torch.bfloat16, 8, 16, 32, 2),
    (torch.bfloat16, 2, 6, 32, 2),
]


@pytest.mark.parametrize("dtype, vec, channels, threads, points", CASES)
@pytest.mark.parametrize("on_device", [False, True])
def test_kernels_agree_with_pytorch(kernels, dtype, vec, channels, threads, points, on_device):
    problem = _rounded(random_problem(queries=11, heads=2, channels=channels, points=points), dtype)
    result = emulate(kernels, problem, dtype, threads, on_device)
    assert result.vec == vec
    _compare(result, _expected(problem), dtype)


def _fused(problem: Problem, dtype: torch.dtype, shared_reference: bool):
    """Offsets, scores and reference points instead of the problem's locations and weights; and what is expected."""
    generator = torch.Generator().manual_seed(7)
    batch, queries, heads, levels, points = problem.weights.shape
    sizes = torch.tensor(problem.levels, dtype=torch.float64).flip(-1).clamp(min=1)
    shape = (1, queries, 1, 2) if shared_reference else (batch, queries, levels, 2)
    reference = torch.rand(shape, generator=generator).to(_wide(dtype)).expand(batch, -1, levels, -1)
    offsets = (torch.randn(*problem.weights.shape, 2, generator=generator, dtype=torch.float64) * 2).to(dtype)
    scores = (torch.randn(*problem.weights.shape, generator=generator, dtype=torch.float64) * 3).to(dtype)
    inputs = [t.detach().clone().double().requires_grad_() for t in (problem.value, offsets, scores)]
    locations = reference.double()[:, :, None, :, None] + inputs[1] / sizes[:, None]
    weights = inputs[2].flatten(3).softmax(-1).view_as(scores)
    output = ms_deform_attn_pytorch(inputs[0], problem.levels, problem.starts, locations, weights)
    value, *of_samples = torch.autograd.grad(output, inputs, problem.grad.double())
    arguments = {"offsets": offsets, "scores": scores, "reference": reference}
    return arguments, [output.detach(), value, value, *of_samples]


@pytest.mark.parametrize("dtype, vec, channels, threads, points", CASES)
@pytest.mark.parametrize("shared_reference", [False, True])
def test_fused_kernels_agree_with_the_definition(kernels, dtype, vec, channels, threads, points, shared_reference):
    problem = _rounded(random_problem(queries=11, heads=2, channels=channels, points=points), dtype)
    arguments, expected = _fused(problem, dtype, shared_reference)
    result = emulate(kernels, problem, dtype, threads, **arguments)
    assert result.vec == vec
    _compare(result, expected, dtype)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("shift", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_views_at_odd_addresses(kernels, dtype, shift, fused):
    """A slice of a larger tensor may start anywhere. A GPU ends the process at a misaligned address."""
    problem = _rounded(random_problem(queries=5, heads=2, channels=32), dtype)
    arguments, expected = _fused(problem, dtype, False) if fused else ({}, _expected(problem))
    if fused:
        arguments["reference"] = _shifted(arguments["reference"].contiguous(), shift)
    result = emulate(kernels, problem, dtype, shift=shift, **arguments)
    assert result.vec == (2 if shift == 2 else 1)
    _compare(result, expected, dtype)


def test_the_collected_gradient_does_not_depend_on_the_order_of_blocks(kernels):
    """It is what a deterministic training gets: the same bits for any division of the work."""
    problem = random_problem(queries=40, heads=2, channels=16, points=4)
    found = [emulate(kernels, problem, torch.float32, threads).collected_value for threads in (32, 64, 256)]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert found[0].abs().max() > 0


def test_levels_beyond_the_value_are_not_read(kernels):
    """A table that only the GPU sees cannot be refused, but it must not read or write somebody else's memory."""
    problem = random_problem(levels=[(5, 7), (3, 2)], batch=1, queries=8, heads=1, channels=4)
    inside = problem.value[:, :35].clone()
    problem.value = inside  # the second level lies behind the end
    result = emulate(kernels, problem, torch.float64, on_device=True)
    problem.weights[:, :, :, 1] = 0
    problem.value = torch.cat([inside, torch.zeros(1, 6, 1, 4, dtype=torch.float64)], 1)
    wanted = _expected(problem)
    torch.testing.assert_close(result.output, wanted[0], rtol=0, atol=1e-12)
    for grad_value in (result.atomic_value, result.collected_value):
        torch.testing.assert_close(grad_value, wanted[1][:, :35], rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype, accept", [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_locations_that_are_no_numbers_read_nothing(kernels, dtype, accept):
    problem = random_problem(queries=4, heads=1, channels=4)
    bad = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e38, -1e38], dtype=torch.float64)
    flat = problem.locations.view(-1)
    flat[: len(bad)] = bad
    flat[-len(bad) :] = bad
    result = emulate(kernels, problem, dtype)
    for found, wanted in zip(result.named().values(), _expected(problem), strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=accept * wanted.abs().max().item())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1e38])
def test_offsets_that_are_no_numbers_read_nothing(kernels, bad):
    problem = random_problem(queries=4, heads=1, channels=4)
    arguments, _ = _fused(problem, torch.float64, False)
    arguments["offsets"][0, 1, 0, 1, 0, 1] = bad
    result = emulate(kernels, problem, torch.float64, **arguments)
    arguments["offsets"][0, 1, 0, 1, 0, 1] = -1e3
    for found, wanted in zip(
        result.named().values(), emulate(kernels, problem, torch.float64, **arguments).named().values(), strict=True
    ):
        assert torch.equal(found, wanted)


def test_infinity_stays_infinity_and_untouched_pixels_do_not_matter(kernels):
    problem = random_problem(levels=[(1, 1)], batch=1, queries=1, heads=1, channels=8, points=1)
    problem.locations[...] = 0.5
    problem.weights[...] = 1.0
    problem.value[0, 0, 0] = torch.tensor([torch.inf, -torch.inf, torch.nan, 1.0, 0.0, 6e4, -1.0, 2.0])
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        output = emulate(kernels, problem, dtype).output
        torch.testing.assert_close(output.flatten(), problem.value.to(dtype).flatten(), equal_nan=True)
    problem.locations[...] = 9.0
    problem.weights[...] = torch.nan
    assert (emulate(kernels, problem, torch.float32).output == 0).all()


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize("place", [0.5, torch.nan, torch.inf])
def test_an_empty_level_is_skipped(kernels, place, on_device):
    """Like the CPU kernel and PyTorch: the other levels count, and nothing is read for this one."""
    problem = random_problem(levels=[(5, 7), (0, 4), (3, 2)], queries=5, heads=1, channels=4)
    problem.locations[:, :, :, 1] = place
    result = emulate(kernels, problem, torch.float64, on_device=on_device)
    torch.testing.assert_close(result.output, slow_reference(problem), rtol=0, atol=1e-12)
    for found, wanted in zip(result.named().values(), _expected(problem), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_levels_in_another_order_with_gaps(kernels):
    problem = random_problem(levels=[(2, 3), (3, 4)], queries=9, heads=2, channels=4)
    wanted = _expected(problem)
    places = [*range(15, 21), *range(1, 13)]
    padded = torch.full((2, 25, 2, 4), 7.0, dtype=torch.float64)
    padded[:, places] = problem.value
    moved = Problem(problem.levels, padded, problem.locations, problem.weights, problem.grad)
    result = emulate(kernels, moved, torch.float64, starts=[15, 1])
    torch.testing.assert_close(result.output, wanted[0], rtol=0, atol=1e-12)
    for grad in (result.atomic_value, result.collected_value):
        torch.testing.assert_close(grad[:, places], wanted[1], rtol=0, atol=1e-12)
        assert (grad[:, [0, 13, 14, 21, 22, 23, 24]] == 0).all()
