"""The yardstick of the GPU benchmark computes the definition: a wrong one would be no yardstick."""

import ctypes
import subprocess
from pathlib import Path

import pytest
import torch

from PADing.modeling.pixel_decoder.ops import build
from PADing.modeling.pixel_decoder.ops.pytorch import ms_deform_attn_pytorch

from .conftest import random_problem

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def im2col(compiler, tmp_path_factory):
    target = tmp_path_factory.mktemp("im2col") / "kernels.so"
    command = [compiler, "-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-shared", "-fPIC"]
    command += ["-I", build.HERE, HERE / "im2col_emulation.cpp", "-o", target]
    subprocess.run([str(word) for word in command], check=True)
    return ctypes.CDLL(str(target)).run_im2col


@pytest.mark.parametrize("channels", [1, 8, 30])
def test_the_yardstick_agrees_with_pytorch(im2col, channels):
    problem = random_problem(queries=7, heads=2, channels=channels, points=3)
    problem.locations[0, 0, 0, 0, 0] = torch.nan
    batch, queries, heads, levels, points = problem.weights.shape
    sizes = torch.tensor([batch, problem.value.shape[1], heads, channels, queries, levels, points])
    output, of_value = torch.full_like(problem.grad, torch.nan), torch.zeros_like(problem.value)
    of_locations, of_weights = (torch.full_like(t, torch.nan) for t in (problem.locations, problem.weights))
    tensors = [sizes, torch.tensor(problem.levels), torch.tensor(problem.starts), problem.value, problem.locations]
    tensors += [problem.weights, output, problem.grad, of_value, of_locations, of_weights]
    im2col(*(ctypes.c_void_p(t.data_ptr()) for t in tensors))
    inputs = [t.requires_grad_() for t in (problem.value, problem.locations, problem.weights)]
    wanted = ms_deform_attn_pytorch(inputs[0], problem.levels, problem.starts, *inputs[1:])
    exact = [wanted, *torch.autograd.grad(wanted, inputs, problem.grad)]
    for found, right in zip((output, of_value, of_locations, of_weights), exact, strict=True):
        torch.testing.assert_close(found, right.detach(), rtol=0, atol=1e-12 * right.abs().max().item())
