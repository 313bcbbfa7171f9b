"""Samplers: if these fail, images are repeated, lost, or come in another order than with the genuine package."""

import itertools
from collections import Counter

import pytest
import torch
from detectron2.data.samplers import InferenceSampler, RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm


@pytest.fixture
def as_rank(monkeypatch):
    """Pretend to be one process of several."""

    def pretend(rank, world_size):
        monkeypatch.setattr(comm, "get_rank", lambda: rank)
        monkeypatch.setattr(comm, "get_world_size", lambda: world_size)

    return pretend


def take(sampler, n):
    return list(itertools.islice(iter(sampler), n))


def epochs(size, seed, n):
    """The order of ``n`` passes, as the definition says: permutations from one seeded generator."""
    generator = torch.Generator()
    generator.manual_seed(seed)
    return [torch.randperm(size, generator=generator).tolist() for _ in range(n)]


@pytest.mark.parametrize("seed", [0, 7, -1])
def test_training_order(seed):
    sampler = TrainingSampler(11, seed=seed)
    expected = sum(epochs(11, seed, 3), [])
    assert take(sampler, 33) == expected
    assert take(sampler, 33) == expected  # a second iteration starts anew


def test_training_order_over_processes(as_rank):
    expected = sum(epochs(7, 3, 4), [])
    seen = []
    for rank in range(4):
        as_rank(rank, 4)
        mine = take(TrainingSampler(7, seed=3), 7)
        assert mine == expected[rank::4]
        seen += mine
    assert Counter(seen) == Counter({i: 4 for i in range(7)})


def test_without_shuffling():
    assert take(TrainingSampler(3, shuffle=False, seed=0), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_seed_of_none_is_drawn_once_for_all_processes(monkeypatch):
    monkeypatch.setattr(comm, "shared_random_seed", lambda: 1234)
    assert take(TrainingSampler(5), 5) == epochs(5, 1234, 1)[0]


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError)])
def test_bad_size(size, error):
    with pytest.raises(error, match=str(size) if error is ValueError else "float"):
        TrainingSampler(size)


def image(*categories):
    return {"annotations": [{"category_id": c} for c in categories]}


def test_repeat_factors():
    # Of 4 images category 0 is in 4, category 1 in 1 (twice there, which counts once), category 2 in 2.
    images = [image(0, 1, 1), image(0, 2), image(0, 2), image(0)]
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(images, 1.0)
    assert torch.allclose(factors, torch.tensor([2.0, 2**0.5, 2**0.5, 1.0]))
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(images, 1.0, sqrt=False)
    assert factors.tolist() == [4.0, 2.0, 2.0, 1.0]
    assert RepeatFactorTrainingSampler.repeat_factors_from_category_frequency([image()], 1.0).tolist() == [1.0]


def test_repeat_sampler():
    factors = torch.tensor([1.0, 2.5, 3.0])
    generator = torch.Generator()
    generator.manual_seed(2)
    expected = []
    for _ in range(3):
        third = bool(torch.rand(3, generator=generator)[1] < 0.5)
        indices = [0] + [1] * (2 + third) + [2] * 3
        order = torch.randperm(len(indices), generator=generator).tolist()
        expected += [indices[i] for i in order]
    assert take(RepeatFactorTrainingSampler(factors, seed=2), len(expected)) == expected

    counts = Counter(take(RepeatFactorTrainingSampler(factors, shuffle=False, seed=2), 6500))
    assert counts[1] / counts[0] == pytest.approx(2.5, abs=0.1) and abs(counts[2] - 3 * counts[0]) <= 3


@pytest.mark.parametrize(("size", "world_size"), [(10, 1), (10, 3), (2, 4), (8, 4)])
def test_inference_covers_everything_once(as_rank, size, world_size):
    shards = []
    for rank in range(world_size):
        as_rank(rank, world_size)
        sampler = InferenceSampler(size)
        assert len(sampler) == len(list(sampler))
        shards.append(list(sampler))
    assert sum(shards, []) == list(range(size))
    # Other people's evaluation code asks for a part by itself.
    assert [list(InferenceSampler._get_local_indices(size, world_size, rank)) for rank in range(world_size)] == shards
    lengths = [len(s) for s in shards]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] - lengths[-1] <= 1
