import random

import numpy as np
import pytest
import torch

from PADing.engine.rng import derived_rng_state, preserved_rng, rng_state, seeded_rng, set_rng_state


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


def test_each_generator_has_a_seed_of_its_own():
    """Checkpoints count on these draws: in another version, a resumed training would get other augmentations."""
    python, numpy, pytorch = map(int, np.random.SeedSequence((3, 7)).generate_state(3))
    with seeded_rng(3, 7):
        found = draws()
    drawn = torch.rand((), generator=torch.Generator().manual_seed(pytorch)).item()
    assert found == (random.Random(python).random(), np.random.RandomState(numpy).rand(), drawn)


def test_state_of_a_machine_with_a_gpu_can_be_used_without_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: pytest.fail("there is no GPU"))
    state = {**rng_state(), "cuda": torch.zeros(16, dtype=torch.uint8)}
    expected = draws()
    set_rng_state(state)
    assert draws() == expected and "cuda" not in rng_state()


def test_generator_of_the_gpu_is_restored_and_derived_as_the_others(monkeypatch):
    """On a machine without a GPU, where its functions are replaced."""
    restored, seeds = [], []

    class Generator:
        def __init__(self, device):
            assert device == "cuda"

        def manual_seed(self, seed):
            seeds.append(seed)
            return self

        def get_state(self):
            return torch.tensor([seeds[-1] % 251], dtype=torch.uint8)

    plain = rng_state()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.tensor([7], dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: restored.append(state.tolist()))
    plain.pop("cuda", None)
    set_rng_state(plain)  # of a machine without a GPU
    assert restored == [] and rng_state()["cuda"].tolist() == [7]
    set_rng_state(rng_state())
    assert restored == [[7]]
    monkeypatch.setattr(torch, "Generator", Generator)
    states = [derived_rng_state(3, share)["cuda"].tolist() for share in (0, 1, 0)]
    words = [np.random.SeedSequence((3, share)).generate_state(4).tolist() for share in (0, 1, 0)]
    assert seeds == [own[3] for own in words] and states[0] == states[2] == [seeds[0] % 251]
