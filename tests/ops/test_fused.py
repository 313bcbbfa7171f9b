"""The operator with softmax and locations inside computes what the function computes of them."""

import pytest
import torch

from PADing.modeling.pixel_decoder.ops import MSDeformAttn, backends, functional, module, ms_deform_attn_fused

from .conftest import random_problem
from .test_module import PIXELS, SHAPES, STARTS, _inputs, _trained


def _projections(problem, dtype=torch.float64):
    """Offsets, scores and reference points of the problem's size."""
    generator = torch.Generator().manual_seed(3)
    batch, queries, _, levels, _ = problem.weights.shape
    offsets = torch.randn(*problem.weights.shape, 2, generator=generator, dtype=torch.float64) * 2
    scores = torch.randn(problem.weights.shape, generator=generator, dtype=torch.float64) * 3
    reference = torch.rand(batch, queries, levels, 2, generator=generator, dtype=torch.float64)
    return offsets.to(dtype), scores.to(dtype), reference.to(torch.promote_types(dtype, torch.float32))


def _table(problem) -> list[int]:
    return [n for (h, w), start in zip(problem.levels, problem.starts, strict=True) for n in (h, w, start)]


@pytest.fixture
def operator(monkeypatch):
    """The operator in every place that would take it with a compiled kernel."""
    monkeypatch.setattr(functional, "fused_kernel_fits", lambda *tensors: True)
    monkeypatch.setattr(module, "fused_kernel_fits", lambda *tensors: True)


def _call(problem, value, *projections):
    return ms_deform_attn_fused(value, problem.levels, problem.starts, *projections)


@pytest.mark.parametrize("levels", [((5, 7), (3, 2)), ((4, 4), (0, 3), (2, 6))], ids=["two", "one empty"])
@pytest.mark.parametrize("kernel", ["cpu", "pytorch"])
def test_the_operator_is_the_composition(request, monkeypatch, kernel, levels):
    """Output and all gradients, that of the reference points as well."""
    if kernel == "cpu":
        request.getfixturevalue("compiled_cpu")
    monkeypatch.setenv(backends.ENVIRONMENT, kernel)
    problem = random_problem(levels=levels)
    results = []
    for fits in (False, True):
        monkeypatch.setattr(functional, "fused_kernel_fits", lambda *tensors, fits=fits: fits)
        inputs = [t.detach().clone().requires_grad_() for t in (problem.value, *_projections(problem))]
        output = _call(problem, *inputs)
        results.append([output, *torch.autograd.grad(output, inputs, problem.grad)])
    for composed, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, composed, rtol=0, atol=1e-12 * composed.abs().max().item())


def test_gradients_are_the_numerical_ones(operator, compiled_cpu, monkeypatch):
    monkeypatch.setenv(backends.ENVIRONMENT, "cpu")
    problem = random_problem(batch=1, queries=2, heads=2, channels=3, points=2)
    inputs = [t.requires_grad_() for t in (problem.value, *_projections(problem))]
    assert torch.autograd.gradcheck(lambda *t: _call(problem, *t), inputs, fast_mode=True, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_projections_are_computed_in_float32(operator, compiled_cpu, dtype):
    problem = random_problem(queries=30, channels=16, points=4)
    problem.value, problem.grad = problem.value.to(dtype), problem.grad.to(dtype)
    projections = _projections(problem, dtype)
    results = []
    for wide in (False, True):
        inputs = [t.double() if wide else t for t in (problem.value, *projections)]
        inputs = [t.detach().requires_grad_() for t in inputs]
        output = _call(problem, *inputs)
        grad = problem.grad.to(output.dtype)
        results.append([output.detach(), *torch.autograd.grad(output, inputs[:3], grad)])
    for half, exact in zip(*results, strict=True):
        assert half.dtype is dtype
        assert (half.double() - exact).abs().max() <= (torch.finfo(dtype).eps + 1e-5) * exact.abs().max()


@pytest.mark.parametrize("use_table", [False, True])
def test_the_operators_keep_their_contracts(compiled_cpu, monkeypatch, use_table):
    """Schema, fake implementation and autograd registration; torch.compile trusts them blindly."""
    monkeypatch.setenv(backends.ENVIRONMENT, "cpu")
    problem = random_problem(batch=1, queries=3)
    levels = _table(problem)
    table = torch.tensor(levels).view(-1, 3) if use_table else None
    tensors = [t.requires_grad_() for t in (problem.value, *_projections(problem))]
    arguments = (*tensors, [] if use_table else levels, table)
    torch.library.opcheck(torch.ops.pading.ms_deform_attn_fused.default, arguments)
    detached = [t.detach() for t in tensors]
    backward = torch.ops.pading.ms_deform_attn_fused_backward.default
    torch.library.opcheck(backward, (problem.grad, *detached, *arguments[4:]))


@pytest.mark.parametrize("size", [{"queries": 0}, {"batch": 0}, {"points": 0}, {"channels": 0}, {"levels": []}])
def test_nothing_to_sum_gives_zeros(operator, compiled_cpu, size):
    problem = random_problem(**size)
    inputs = [t.requires_grad_() for t in (problem.value, *_projections(problem))]
    output = _call(problem, *inputs)
    gradients = torch.autograd.grad(output, inputs, problem.grad)
    assert output.shape == problem.grad.shape and (output == 0).all()
    assert all(g.shape == t.shape and (g == 0).all() for g, t in zip(gradients, inputs, strict=True))


def test_the_module_has_the_same_numbers_either_way(compiled_cpu, monkeypatch):
    """Else a training on a GPU, which takes the operator, would be another one than on a CPU."""
    results = []
    for fits in (False, True):
        for place in (functional, module):
            monkeypatch.setattr(place, "fused_kernel_fits", lambda *tensors, fits=fits: fits)
        attention, inputs = _trained(), [t.requires_grad_() for t in _inputs()]
        output = attention(*inputs, SHAPES, STARTS)
        loss = output.square().mean()
        results.append([loss, *torch.autograd.grad(loss, [*inputs, *attention.parameters()])])
    for composed, fused in zip(*results, strict=True):
        torch.testing.assert_close(fused, composed, rtol=1e-5, atol=1e-5 * composed.abs().max().item())


def test_the_module_compiles_to_the_operator(operator, compiled_cpu):
    torch.compiler.reset()
    attention, inputs = _trained(), _inputs()
    graphs = []

    def keep(graph, example_inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(attention, fullgraph=True, backend=keep)
    torch.testing.assert_close(compiled(*inputs, SHAPES), attention(*inputs, SHAPES))
    assert any("ms_deform_attn_fused" in str(node.target) for node in graphs[0].graph.nodes)


def test_when_the_kernel_fits():
    """On a CPU never: its path is faster. Boxes, mixed dtypes and very long lists take the other road."""
    problem = random_problem()
    assert not functional.fused_kernel_fits(problem.value, *_projections(problem))
    meta = [t.to("meta") for t in (problem.value, *_projections(problem))]
    assert not functional.fused_kernel_fits(*meta)


def test_wrong_shapes_are_named():
    problem = random_problem()
    offsets, scores, reference = _projections(problem)
    with pytest.raises(ValueError, match="expects offsets"):
        _call(problem, problem.value, offsets[:, 1:], scores, reference)
    with pytest.raises(ValueError, match="reference_points"):
        _call(problem, problem.value, offsets, scores, reference[:, :, :1])
    with pytest.raises(ValueError, match="disagree"):
        _call(problem, problem.value[:, :, 1:], offsets, scores, reference)
    with pytest.raises(TypeError, match="floating point"):
        _call(problem, problem.value.long(), offsets, scores, reference)


def test_boxes_take_the_other_road(operator, monkeypatch):
    monkeypatch.undo()
    attention = MSDeformAttn(32, 3, 4, 3)
    query, boxes, source = _inputs(coordinates=4)
    assert attention(query, boxes, source, SHAPES).shape == (2, PIXELS, 32)
