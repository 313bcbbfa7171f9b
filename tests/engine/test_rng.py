import random

import numpy as np
import torch

from PADing.engine.rng import preserved_rng, rng_state, seeded_rng, set_rng_state


def draws():
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_state_brings_all_generators_back():
    """A resumed run must draw what the stopped one would have drawn, from each of the three generators."""
    state = rng_state()
    first = draws()
    draws()
    set_rng_state(state)
    assert draws() == first


def test_state_survives_a_checkpoint(tmp_path):
    """Checkpoints are read with weights_only=True, which admits no NumPy arrays."""
    state = rng_state()
    torch.save(state, tmp_path / "state.pth")
    first = draws()
    set_rng_state(torch.load(tmp_path / "state.pth", weights_only=True))
    assert draws() == first


def test_evaluation_leaves_no_trace_in_the_random_numbers_of_training():
    state = rng_state()
    expected = draws()
    set_rng_state(state)
    with preserved_rng():
        draws()
    assert draws() == expected


def test_seeded_draws_depend_on_the_given_numbers_only():
    with seeded_rng(3, 7):
        first = draws()
    draws()
    state = rng_state()
    with seeded_rng(3, 7):
        assert draws() == first
    with seeded_rng(3, 8):
        other = draws()
    assert all(a != b for a, b in zip(first, other, strict=True))
    after = draws()
    set_rng_state(state)
    assert draws() == after
