"""ms_deform_attn computes its definition, on every backend: everything the pixel decoder sees passes through it."""

import pytest
import torch

from PADing.modeling.pixel_decoder.ops import ms_deform_attn
from PADing.modeling.pixel_decoder.ops.pytorch import ms_deform_attn_pytorch

from .conftest import Problem, random_problem, slow_reference

HALVES = (torch.float16, torch.bfloat16)


def _run(problem: Problem, levels="ints", **changes):
    shapes = problem.levels if levels == "ints" else torch.tensor(problem.levels)
    starts = problem.starts if levels == "ints" else torch.tensor(problem.starts)
    tensors = {"value": problem.value, "locations": problem.locations, "weights": problem.weights} | changes
    return ms_deform_attn(tensors["value"], shapes, starts, tensors["locations"], tensors["weights"])


def _with_gradients(problem: Problem, function=_run):
    inputs = [t.detach().clone().requires_grad_() for t in (problem.value, problem.locations, problem.weights)]
    output = function(Problem(problem.levels, *inputs, problem.grad))
    return [output.detach(), *torch.autograd.grad(output, inputs, problem.grad)]


def _pytorch(problem: Problem):
    return ms_deform_attn_pytorch(problem.value, problem.levels, problem.starts, problem.locations, problem.weights)


def _assert_close(results, wanted, relative):
    names = ("output", "value", "locations", "weights")[-len(results) :]
    for name, a, b in zip(names, results, wanted, strict=True):
        scale = max(b.abs().max().item(), 1e-30)
        torch.testing.assert_close(a.to(b), b, rtol=0, atol=relative * scale, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("levels", ["ints", "tensors"])
@pytest.mark.parametrize("margin", [0.0, 0.3, 3.0], ids=["inside", "across borders", "far outside"])
def test_output_is_the_definition(backend, margin, levels):
    problem = random_problem(margin=margin)
    torch.testing.assert_close(_run(problem, levels), slow_reference(problem), rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels", [1, 4, 30, 32, 33, 64, 71])
@pytest.mark.parametrize("levels", [[(4, 5)], [(1, 1), (6, 1), (1, 7), (3, 3), (2, 5)]], ids=["one", "five"])
def test_gradients_are_the_numerical_ones(backend, channels, levels):
    # Away from pixel centres, where the derivative by the location jumps.
    problem = random_problem(levels=levels, batch=1, queries=2, heads=2, channels=channels, points=1)
    shapes = torch.tensor(problem.levels, dtype=torch.float64).flip(-1)[:, None]
    cell = problem.locations * shapes - 0.5
    problem.locations = ((cell.floor() + 0.1 + 0.8 * (cell - cell.floor())) + 0.5) / shapes
    inputs = [t.requires_grad_() for t in (problem.value, problem.locations, problem.weights)]
    assert torch.autograd.gradcheck(
        lambda *t: _run(Problem(problem.levels, *t, None)), inputs, fast_mode=True, eps=1e-6, atol=1e-5
    )


@pytest.mark.parametrize("points", [1, 3, 4, 8, 17])
@pytest.mark.parametrize("heads", [1, 5])
def test_any_number_of_points_and_heads(backend, points, heads):
    problem = random_problem(queries=5, heads=heads, points=points, channels=12)
    _assert_close(_with_gradients(problem), _with_gradients(problem, _pytorch), 1e-13)


def test_float32(backend):
    problem = random_problem(levels=[(25, 34), (50, 67)], queries=50, channels=32, points=4)
    _assert_close(_with_gradients(problem.to(torch.float32)), _with_gradients(problem, _pytorch), 1e-5)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_values_are_summed_in_float32(backend, dtype):
    problem = random_problem(queries=40, channels=40, points=4)
    problem.value, problem.grad = problem.value.to(dtype).double(), problem.grad.to(dtype).double()
    problem.locations, problem.weights = problem.locations.float().double(), problem.weights.float().double()
    wanted = _with_gradients(problem, _pytorch)
    half = problem.to(torch.float32)
    half.value, half.grad = half.value.to(dtype), half.grad.to(dtype)
    results = _with_gradients(half)
    assert [t.dtype for t in results] == [dtype, dtype, torch.float32, torch.float32]
    # One rounding at the end: half a unit in the last place, far below what half-precision sums of 8 terms would lose.
    unit = torch.finfo(dtype).eps
    for result, exact in zip(results[:2], wanted[:2], strict=True):
        assert ((result.double() - exact).abs() <= 0.51 * unit * exact.abs() + 1e-5 * exact.abs().max()).all()
    _assert_close(results[2:], wanted[2:], 1e-5)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_everything(backend, dtype):
    problem = random_problem().to(dtype)
    results = _with_gradients(problem)
    assert all(t.dtype is dtype for t in results)
    _assert_close(results, _with_gradients(problem.to(torch.float64), _pytorch), 4 * torch.finfo(dtype).eps)


def test_infinite_half_precision_numbers_survive(compiled_cpu, monkeypatch):
    monkeypatch.setenv("PADING_MSDA_BACKEND", "cpu")
    for dtype in HALVES:
        value = torch.tensor([torch.inf, -torch.inf, torch.nan, 6e-8, 65504.0, 1.0] * 6, dtype=dtype).view(1, 1, 1, 36)
        one = torch.ones(1, 1, 1, 1, 1)
        output = ms_deform_attn(value, [(1, 1)], None, 0.5 * torch.ones(1, 1, 1, 1, 1, 2), one)
        torch.testing.assert_close(output.view(-1), value.view(-1), rtol=0, atol=0, equal_nan=True)


def test_inputs_need_not_be_contiguous(backend):
    problem = random_problem(channels=16)
    wanted = _with_gradients(problem)
    value = problem.value.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    locations = problem.locations.transpose(0, 3).contiguous().transpose(0, 3)
    weights = torch.stack([problem.weights, problem.weights], -1)[..., 1]
    grad = problem.grad.transpose(1, 2).contiguous().transpose(1, 2)
    odd = Problem(problem.levels, value, locations, weights, grad)
    assert not any(t.is_contiguous() for t in (value, locations, weights, grad))
    inputs = [t.requires_grad_() for t in (value, locations, weights)]
    output = _run(odd)
    _assert_close([output.detach(), *torch.autograd.grad(output, inputs, grad)], wanted, 1e-13)


@pytest.mark.parametrize("size", [{"queries": 0}, {"batch": 0}, {"points": 0}, {"channels": 0}, {"levels": []}])
def test_nothing_to_sum_gives_zeros(backend, size):
    problem = random_problem(**size)
    output, *gradients = _with_gradients(problem)
    assert output.shape == problem.grad.shape and (output == 0).all()
    assert [g.shape for g in gradients] == [problem.value.shape, problem.locations.shape, problem.weights.shape]
    assert all((g == 0).all() for g in gradients)


@pytest.mark.parametrize("place", ["finite", float("nan"), float("inf")])
@pytest.mark.parametrize(
    "levels", [[(5, 7), (0, 4), (3, 2)], [(3, 3), (2, 0)], [(0, 0), (2, 3)], [(0, 0), (0, 5)]], ids=str
)
def test_an_empty_level_adds_nothing_and_spoils_nothing(backend, levels, place):
    """Locations on a level without pixels come from a division by its size, so they may be NaN or infinite."""
    problem = random_problem(levels=levels)
    empty = [level for level, (h, w) in enumerate(levels) if h * w == 0]
    if place != "finite":
        problem.locations[:, :, :, empty] = place
    output, grad_value, grad_locations, grad_weights = _with_gradients(problem)
    torch.testing.assert_close(output, slow_reference(problem), rtol=0, atol=1e-12)
    assert (grad_locations[:, :, :, empty] == 0).all() and (grad_weights[:, :, :, empty] == 0).all()
    # The same problem without these levels has the same gradients for the others.
    full = [level for level in range(len(levels)) if level not in empty]
    locations, weights = problem.locations[:, :, :, full], problem.weights[:, :, :, full]
    rest = Problem([levels[level] for level in full], problem.value, locations, weights, problem.grad)
    wanted = _with_gradients(rest, _pytorch) if full else [output, grad_value]
    got = [output, grad_value, grad_locations[:, :, :, full], grad_weights[:, :, :, full]][: len(wanted)]
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert full or (grad_value.numel() == 0 and (output == 0).all())


@pytest.mark.parametrize("size", [{"queries": 0}, {"batch": 0}, {}])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nothing_to_sum_is_zero_whatever_the_locations(backend, size, bad):
    """Zero, not NaN, although every location and weight is connected with the output."""
    problem = random_problem(levels=[(0, 3)] if not size else [(4, 5), (2, 2)], **size)
    problem.locations[...] = bad
    results = _with_gradients(problem)
    assert [r.shape for r in results[1:]] == [problem.value.shape, problem.locations.shape, problem.weights.shape]
    assert all((r == 0).all() for r in results)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30, -1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_nowhere_count_nothing(backend, bad, dtype):
    """A diverging training run must show in its loss, not as a crash or in somebody else's pixels."""
    problem = random_problem(dtype=torch.float64).to(dtype)
    problem.locations[0, 1, 2, 0, 1, 0] = bad
    problem.locations[1, 3, 0, 1, 0] = bad
    results = _with_gradients(problem)
    problem.weights[0, 1, 2, 0, 1] = 0
    problem.weights[1, 3, 0, 1, 0] = 0
    problem.locations.nan_to_num_(nan=-9, posinf=-9, neginf=-9).clamp_(-9, 9)
    _assert_close(results, _with_gradients(problem, _pytorch), 1e-6 if dtype is torch.float32 else 1e-13)


def test_pixels_that_no_sample_touches_do_not_matter(backend):
    """Not even if they are NaN, as uninitialised padding may be."""
    problem = random_problem(levels=[(6, 6)], margin=0.0)
    problem.locations = problem.locations * 0.3 + 0.5  # the lower right part
    wanted = _with_gradients(problem)
    problem.value.view(2, 6, 6, 3, -1)[:, :2, :2] = torch.nan
    problem.locations[0, 0, 0, 0, 0] = -5.0
    problem.weights[0, 0, 0, 0, 0] = 0.0
    output, grad_value, *_ = _with_gradients(problem)
    assert output.isfinite().all() and grad_value.isfinite().all()
    torch.testing.assert_close(output[1], wanted[0][1], rtol=0, atol=1e-13)


def test_samples_on_pixel_centres_and_borders(backend):
    problem = random_problem(levels=[(3, 4)], batch=1, queries=6, heads=1, points=5)
    grid = torch.cartesian_prod(torch.arange(-1, 5) / 4 + 0.125, torch.arange(-1, 4) / 3 + 1 / 6)
    problem.locations = grid.view(1, 6, 1, 1, 5, 2).double()
    torch.testing.assert_close(_run(problem), slow_reference(problem), rtol=0, atol=1e-12)


def test_levels_may_lie_anywhere(backend):
    """Gaps between the levels, and levels in another order, are what level_start_index is for."""
    problem = random_problem(levels=[(2, 3), (3, 4)])
    padded = torch.full((2, 25, 3, 8), 7.0, dtype=torch.float64)
    padded[:, 15:21], padded[:, 1:13] = problem.value[:, :6], problem.value[:, 6:]
    padded.requires_grad_()
    output = ms_deform_attn(padded, problem.levels, [15, 1], problem.locations, problem.weights)
    wanted = _with_gradients(problem)
    torch.testing.assert_close(output, wanted[0], rtol=0, atol=1e-13)
    (grad,) = torch.autograd.grad(output, padded, problem.grad)
    torch.testing.assert_close(torch.cat([grad[:, 15:21], grad[:, 1:13]], 1), wanted[1], rtol=0, atol=1e-13)
    assert (grad[:, [0, 13, 14, 21, 22, 23, 24]] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_for_any_number_of_threads(compiled_cpu, monkeypatch, dtype):
    """Else two runs of one experiment differ, and nobody can tell a change from noise."""
    monkeypatch.setenv("PADING_MSDA_BACKEND", "cpu")
    problem = random_problem(levels=[(16, 20), (8, 10), (4, 5)], queries=420, heads=3, channels=32, points=4).to(dtype)
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            results.append(_with_gradients(problem))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("use_table", [False, True])
@pytest.mark.parametrize("kernel", ["cpu", "pytorch"])
def test_the_operators_keep_their_contracts(request, monkeypatch, kernel, use_table):
    """Schema, fake implementation and autograd registration; torch.compile trusts them blindly."""
    if kernel == "cpu":
        request.getfixturevalue("compiled_cpu")
    monkeypatch.setenv("PADING_MSDA_BACKEND", kernel)
    problem = random_problem(batch=1, queries=3)
    levels = [n for (h, w), start in zip(problem.levels, problem.starts, strict=True) for n in (h, w, start)]
    table = torch.tensor(levels).view(-1, 3) if use_table else None
    tensors = [t.requires_grad_() for t in (problem.value, problem.locations, problem.weights)]
    arguments = (*tensors, [] if use_table else levels, table)
    torch.library.opcheck(torch.ops.pading.ms_deform_attn.default, arguments)
    detached = [t.detach() for t in tensors]
    torch.library.opcheck(torch.ops.pading.ms_deform_attn_backward.default, (problem.grad, *detached, *arguments[3:]))


def test_second_derivatives_are_refused(compiled_cpu, monkeypatch):
    monkeypatch.setenv("PADING_MSDA_BACKEND", "cpu")
    problem = random_problem()
    value = problem.value.requires_grad_()
    output = _run(problem, value=value, weights=problem.weights.requires_grad_())
    (grad,) = torch.autograd.grad(output.sum(), problem.weights, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives"):
        grad.sum().backward()


@pytest.mark.parametrize("kernel", ["cpu", "pytorch"])
def test_function_transforms_agree_with_backward(request, monkeypatch, kernel):
    """``torch.func`` users (per-sample gradients, influence functions) get the gradients of ``backward()``."""
    if kernel == "cpu":
        request.getfixturevalue("compiled_cpu")
    monkeypatch.setenv("PADING_MSDA_BACKEND", kernel)
    problem = random_problem()
    tensors = (problem.value, problem.locations, problem.weights)

    def compute(*inputs):
        return _run(Problem(problem.levels, *inputs, None))

    output, *wanted = _with_gradients(problem)
    grads = torch.func.grad(lambda *inputs: (compute(*inputs) * problem.grad).sum(), argnums=(0, 1, 2))(*tensors)
    _assert_close(grads, wanted, 1e-13)
    _assert_close(torch.func.vjp(compute, *tensors)[1](problem.grad), wanted, 1e-13)
    stacked = [torch.stack([t, t.flip(1)]) for t in tensors[1:]]
    mapped = torch.func.vmap(lambda *inputs: compute(problem.value, *inputs))(*stacked)
    _assert_close([mapped[0], mapped[1]], [output, output.flip(1)], 1e-13)
    per_sample = torch.func.vmap(torch.func.grad(lambda *inputs: (compute(*(t[None] for t in inputs))).sum()))(*tensors)
    problem.grad = torch.ones_like(problem.grad)
    _assert_close([per_sample], [_with_gradients(problem)[1]], 1e-13)


@pytest.mark.parametrize("kernel", ["cpu", "pytorch"])
def test_forward_mode_derivatives_are_refused(request, monkeypatch, kernel):
    """A tangent of zeros without a word would be taken for a result."""
    if kernel == "cpu":
        request.getfixturevalue("compiled_cpu")
    monkeypatch.setenv("PADING_MSDA_BACKEND", kernel)
    problem = random_problem()

    def compute(locations):
        return _run(problem, locations=locations)

    tangent = torch.ones_like(problem.locations)
    for attempt in (
        lambda: torch.func.jvp(compute, (problem.locations,), (tangent,)),
        lambda: torch.func.jacfwd(compute)(problem.locations),
        lambda: torch.func.jvp(torch.func.grad(lambda x: compute(x).sum()), (problem.locations,), (tangent,)),
        torch.compile(lambda: torch.func.jvp(compute, (problem.locations,), (tangent,)), backend="eager"),
    ):
        with pytest.raises(NotImplementedError, match="forward"):
            attempt()


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"value": torch.zeros(2, 41, 24)}, ValueError, "expects value"),
        ({"weights": torch.zeros(2, 6, 3, 2, 5)}, ValueError, "disagree"),
        ({"value": torch.zeros(2, 41, 4, 8)}, ValueError, "disagree"),
        ({"value": torch.zeros(2, 41, 3, 8, dtype=torch.int64)}, TypeError, "floating point"),
    ],
)
def test_wrong_arguments_are_named(backend, change, error, message):
    with pytest.raises(error, match=message):
        _run(random_problem(dtype=torch.float64), **change)


def test_levels_beyond_the_value_are_refused(backend):
    """Reading past the end of memory would be the alternative."""
    problem = random_problem()
    for shapes, starts in (([(5, 7), (3, 3)], None), ([(5, 7), (3, 2)], [0, 36]), ([(5, 7), (3, 2)], [-1, 35])):
        with pytest.raises((ValueError, RuntimeError)):
            ms_deform_attn(problem.value, shapes, starts, problem.locations, problem.weights)


def test_overlapping_levels_are_refused_by_the_kernel(compiled_cpu, monkeypatch):
    monkeypatch.setenv("PADING_MSDA_BACKEND", "cpu")
    problem = random_problem()
    with pytest.raises(ValueError, match="overlap"):
        ms_deform_attn(problem.value, problem.levels, [0, 20], problem.locations, problem.weights)
