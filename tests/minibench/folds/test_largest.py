"""If these fail, scoring gives pixels to other queries or classes than the evaluators."""

import pytest
import torch

from minibench.folds.largest import largest_row


@pytest.mark.parametrize(("rows", "levels"), [(1, 5), (2, 2), (60, 3), (60, 10**6), (255, 4), (300, 4)])
def test_it_is_the_first_of_the_largest(rows, levels):
    values = torch.randint(0, levels, (rows, 3000), generator=torch.Generator().manual_seed(rows)).float() - 1
    best = values.max(0).values
    expected = torch.stack([torch.nonzero(values[:, i] == best[i])[0, 0] for i in range(values.shape[1])])
    found = largest_row(values)
    assert found.dtype == torch.int64 and torch.equal(found, expected)
