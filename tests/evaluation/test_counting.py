"""Shortcuts of the evaluators give exactly what the plain way gives; wrong here means other metrics than before."""

import numpy as np
import pytest
import torch

from PADing.evaluation.instance import _binary
from PADing.evaluation.panoptic_quality import match_segments
from PADing.evaluation.semantic import _best, count_pairs


@pytest.mark.parametrize("seed", range(12))
def test_the_best_class_is_that_of_argmax(seed):
    """Also with equal scores, where the first class wins, with infinities, and with NaN, which PyTorch prefers."""
    rng = np.random.default_rng(seed)
    count, height, width = int(rng.choice([1, 2, 133, 256])), *rng.integers(1, 150, 2)
    scores = rng.choice(np.array([-np.inf, -1, 0, 0.5, np.inf]), (count, height, width)).astype(np.float32)
    if seed % 2:
        scores = rng.standard_normal(scores.shape, dtype=np.float32)
    if seed % 3 == 0:
        scores.ravel()[rng.integers(scores.size, size=3)] = np.nan
    scores = torch.from_numpy(scores)
    for view in (scores, scores[:, ::2, 1:], scores.transpose(1, 2)):
        assert np.array_equal(_best(view), view.argmax(dim=0).numpy())


@pytest.mark.parametrize("number", [1, 2, 134, 256, 257, 400])
def test_pairs_of_labels(number):
    rng = np.random.default_rng(number)
    for block in (1, 3, 40):  # noise, and areas of one class
        shape = rng.integers(0, 9, 2)
        first, second = (np.kron(rng.integers(0, number, shape), np.ones((block, block))).astype(int) for _ in range(2))
        want = np.zeros((number, number), dtype=np.int64)
        np.add.at(want, (first.ravel(), second.ravel()), 1)
        for kind in (np.int64, np.min_scalar_type(number)):
            got = count_pairs(first.astype(kind), second.astype(np.min_scalar_type(number)), number)
            assert got.dtype == np.int64 and np.array_equal(got, want)


@pytest.mark.parametrize("block", [1, 5])
def test_segments_match_as_in_a_loop_over_pairs(block):
    """Maps of noise, and of areas; ids below zero, above three bytes, and some that no list has."""
    rng = np.random.default_rng(block)
    for _ in range(20):
        ids = [-5, 0, 1, 7, 2**24 + 3, 2**40]
        one, other = (np.kron(rng.choice(ids, (6, 6)), np.ones((block, block), int)) for _ in "ab")
        true, predicted = ({i: int(rng.integers(3)) for i in rng.choice(ids, 4) if i} for _ in "ab")
        found = match_segments(one, true, [], other, predicted)
        void = ~np.isin(one, list(true))
        want = []
        for i, label in sorted(true.items()):
            for j, guess in sorted(predicted.items()):
                both = ((one == i) & (other == j)).sum()
                union = ((one == i) | (other == j)).sum() - (void & (other == j)).sum()
                if label == guess and both and both / union > 0.5:
                    want.append((label, both / union))
        assert list(zip(found.matched.tolist(), found.iou.tolist(), strict=True)) == want


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float32, torch.float16])
def test_masks_are_above_one_half(kind):
    mask = torch.tensor([[0, 1], [0.5, 0.51]]).to(kind)
    assert _binary(mask).dtype == bool and np.array_equal(_binary(mask), (mask > 0.5).numpy())
