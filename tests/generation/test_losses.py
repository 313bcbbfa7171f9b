import math

import pytest
import torch

from PADing.generation.losses import cosine_similarity, mmd, similarity_kl


def test_mmd_of_two_points_is_the_hand_worked_value():
    """One generated and one real point at distance d: every bandwidth v contributes 2 - 2 exp(-d^2 / 2v)."""
    expected = math.sqrt(sum(2 - 2 * math.exp(-25 / (2 * v)) for v in (2, 5, 10, 20, 40, 80)))
    assert mmd(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])).item() == pytest.approx(expected, rel=1e-6)


def test_mmd_weighs_sets_of_different_size_by_their_own_size():
    """Repeating the rows of one set leaves its distribution, hence the discrepancy, as it was."""
    torch.manual_seed(0)
    generated, real = torch.randn(3, 8), torch.randn(5, 8) + 1
    assert mmd(generated.repeat(4, 1), real).item() == pytest.approx(mmd(generated, real).item(), rel=1e-5)
    assert mmd(real, generated).item() == pytest.approx(mmd(generated, real).item(), rel=1e-6)


def test_mmd_of_equal_sets_is_zero_with_a_finite_gradient():
    """Where generated features match the query features exactly, training must not stop on a NaN."""
    rows = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))
    generated = rows.clone().requires_grad_()
    value = mmd(generated, rows)
    value.backward()
    assert value.item() < 2e-3
    assert torch.isfinite(generated.grad).all()


def test_mmd_inside_autocast_keeps_single_precision():
    """A half-precision Gram matrix would drown small discrepancies and can turn the square negative."""
    torch.manual_seed(2)
    generated, real = torch.randn(20, 64), torch.randn(20, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = mmd(generated, real)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, mmd(generated, real))


def test_similarity_kl_is_the_hand_worked_value():
    """Temperature 0.1 and division by the number of elements, not of rows."""
    prediction = torch.zeros(1, 2)
    target = torch.tensor([[0.1 * math.log(3.0), 0.0]])  # becomes (3/4, 1/4)
    expected = (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2
    assert similarity_kl(prediction, target).item() == pytest.approx(expected, rel=1e-5)
    assert similarity_kl(prediction.repeat(7, 1), target.repeat(7, 1)).item() == pytest.approx(expected, rel=1e-5)
    assert similarity_kl(target, target).item() == pytest.approx(0.0, abs=1e-7)


def test_similarity_kl_lets_gradients_into_the_target():
    """The targets are similarities of a learned projection, which trains through them as published."""
    target = torch.randn(3, 4, requires_grad=True)
    similarity_kl(torch.randn(3, 4), target).backward()
    assert target.grad.abs().sum() > 0


def test_cosine_similarity_is_the_hand_worked_value():
    a = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    b = torch.tensor([[1.0, 0.0]])
    torch.testing.assert_close(cosine_similarity(a, b), torch.tensor([[0.6], [0.0]]))
    c = torch.tensor([[8.0, 6.0], [0.0, 5.0], [0.0, -1.0]])
    torch.testing.assert_close(cosine_similarity(a, c), torch.tensor([[0.96, 0.8, -0.8], [0.6, 1.0, -1.0]]))
