"""What the tests of ms_deform_attn share: a slow independent reference, random problems, and the compiled kernel."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from PADing.modeling.pixel_decoder.ops import backends, build


@dataclass
class Problem:
    """Inputs of one call; levels are (h, w)."""

    levels: list[tuple[int, int]]
    value: Tensor
    locations: Tensor
    weights: Tensor
    grad: Tensor

    @property
    def starts(self) -> list[int]:
        return [sum(h * w for h, w in self.levels[:i]) for i in range(len(self.levels))]

    def to(self, dtype: torch.dtype) -> "Problem":
        return Problem(self.levels, *(t.to(dtype) for t in (self.value, self.locations, self.weights, self.grad)))


def random_problem(
    levels=((5, 7), (3, 2)), batch=2, queries=6, heads=3, channels=8, points=2, margin=0.3, dtype=torch.float64, seed=0
) -> Problem:
    """Locations spread evenly over the maps and ``margin`` beyond each border."""
    generator = torch.Generator().manual_seed(seed)
    levels = [tuple(level) for level in levels]
    pixels = sum(h * w for h, w in levels)
    shape = (batch, queries, heads, len(levels), points)
    locations = torch.rand(*shape, 2, generator=generator, dtype=dtype) * (1 + 2 * margin) - margin
    return Problem(
        levels,
        torch.randn(batch, pixels, heads, channels, generator=generator, dtype=dtype),
        locations,
        torch.rand(shape, generator=generator, dtype=dtype),
        torch.randn(batch, queries, heads * channels, generator=generator, dtype=dtype),
    )


def slow_reference(problem: Problem) -> Tensor:
    """The definition, sample by sample, in Python floats: bilinear reading with zeros outside."""
    value, locations, weights = (t.detach().tolist() for t in (problem.value, problem.locations, problem.weights))
    batch, queries, heads, levels, points = problem.weights.shape
    channels = problem.value.shape[3]
    output = torch.zeros(batch, queries, heads, channels, dtype=torch.float64)
    for n in range(batch):
        for q in range(queries):
            for m in range(heads):
                total = [0.0] * channels
                for level in range(levels):
                    (height, width), start = problem.levels[level], problem.starts[level]
                    for p in range(points):
                        x, y = locations[n][q][m][level][p]
                        if not (math.isfinite(x) and math.isfinite(y)):
                            continue
                        x, y = x * width - 0.5, y * height - 0.5
                        for row in (math.floor(y), math.floor(y) + 1):
                            for column in (math.floor(x), math.floor(x) + 1):
                                if 0 <= row < height and 0 <= column < width:
                                    share = (1 - abs(x - column)) * (1 - abs(y - row)) * weights[n][q][m][level][p]
                                    pixel = value[n][start + row * width + column][m]
                                    total = [t + share * v for t, v in zip(total, pixel, strict=True)]
                output[n, q, m] = torch.tensor(total, dtype=torch.float64)
    return output.flatten(2)


@pytest.fixture(scope="session")
def compiled_cpu() -> None:
    """The compiled CPU kernel, built once and cached."""
    reason = backends.load("cpu")
    if reason is not None:
        pytest.skip(f"the CPU kernel cannot be had here: {reason}")


@pytest.fixture(scope="session")
def compiler() -> str:
    """The C++ compiler."""
    import os
    import shutil

    reason = build.missing("cpu")
    if reason is not None:
        pytest.skip(reason)
    return shutil.which(os.environ.get("CXX", "c++").split()[0])


@pytest.fixture(params=["cpu", "pytorch", "operator"])
def backend(request, monkeypatch) -> str:
    """Every way to compute on the CPU: the kernel, autograd in PyTorch, and the operator's PyTorch formulas."""
    if request.param == "cpu":
        request.getfixturevalue("compiled_cpu")
    monkeypatch.setenv(backends.ENVIRONMENT, "cpu" if request.param == "cpu" else "pytorch")
    if request.param == "operator":
        from PADing.modeling.pixel_decoder.ops import functional

        # Take the road of a traced graph, which calls the operator whatever computes in it.
        monkeypatch.setattr(functional.torch.compiler, "is_compiling", lambda: True)
    return request.param
