"""The matcher finds the cheapest assignment by costs computed pair by pair, and survives costs that are no numbers."""

import itertools
import logging

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from PADing.errors import UserError
from PADing.modeling import HungarianMatcher
from PADing.modeling.point_sampling import point_sample

WEIGHTS = {"cost_class": 2.0, "cost_mask": 5.0, "cost_dice": 3.0}


def _case(queries=4, counts=(2, 0, 3), classes=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    outputs = {
        "pred_logits": 2 * torch.randn(len(counts), queries, classes + 1, generator=g),
        "pred_masks": 3 * torch.randn(len(counts), queries, 8, 10, generator=g),
    }
    targets = [
        {
            "labels": torch.randint(0, classes, (n,), generator=g),
            "masks": torch.rand(n, 32, 40, generator=g) > 0.6,
        }
        for n in counts
    ]
    return outputs, targets


def _cost_of_pair(logits, mask, label, target, points):
    """One query, one target, straight from the definitions."""
    x = point_sample(mask[None, None], points[None])[0, 0]
    t = point_sample(target[None, None].float(), points[None])[0, 0]
    bce = F.binary_cross_entropy_with_logits(x, t)
    dice = 1 - (2 * (x.sigmoid() * t).sum() + 1) / (x.sigmoid().sum() + t.sum() + 1)
    return 2.0 * -logits.softmax(-1)[label] + 5.0 * bce + 3.0 * dice


@pytest.mark.parametrize("queries", [4, 2])
def test_costs_and_assignment_by_brute_force(queries):
    outputs, targets = _case(queries)
    matcher = HungarianMatcher(**WEIGHTS, num_points=50)
    points = torch.rand(3, 50, 2)
    costs = matcher.costs([outputs], targets, points[None])[0]
    assignments = matcher.match([outputs], targets, points[None])[0]
    for i, target in enumerate(targets):
        n = len(target["labels"])
        for q, t in itertools.product(range(queries), range(n)):
            logits, mask = outputs["pred_logits"][i, q], outputs["pred_masks"][i, q]
            want = _cost_of_pair(logits, mask, target["labels"][t], target["masks"][t], points[i])
            torch.testing.assert_close(costs[i, q, t], want, rtol=1e-5, atol=1e-5)
        query, to = assignments[i]
        size = min(queries, n)
        assert len(query) == len(to) == size and query.tolist() == sorted(query.tolist())
        best = min(
            sum(float(costs[i, q, t]) for q, t in zip(chosen, order, strict=True))
            for chosen in itertools.combinations(range(queries), size)
            for order in itertools.permutations(range(n), size)
        )
        assert sum(float(costs[i, q, t]) for q, t in zip(query, to, strict=True)) == pytest.approx(best, abs=1e-4)


def test_several_predictions_are_matched_as_each_would_be_alone():
    (first, targets), (second, _) = _case(seed=1), _case(seed=2)
    matcher, points = HungarianMatcher(**WEIGHTS, num_points=30), torch.rand(2, 3, 30, 2)
    together = matcher.match([first, second], targets, points)
    for prediction, at, got in zip((first, second), points, together, strict=True):
        alone = matcher.match([prediction], targets, at[None])[0]
        assert [[x.tolist() for x in pair] for pair in got] == [[x.tolist() for x in pair] for pair in alone]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_costs_that_are_no_numbers_cost_one_warning_not_the_run(bad, caplog):
    """float16 overflows now and then in mixed precision; one such iteration must not end a training of days."""
    outputs, targets = _case()
    outputs["pred_masks"][0, 1] = bad
    outputs["pred_logits"][2, 0] = bad
    with EventStorage(117), caplog.at_level(logging.WARNING):
        indices = HungarianMatcher(**WEIGHTS, num_points=20)(outputs, targets)
    assert [len(query) for query, _ in indices] == [2, 0, 3]
    assert 1 not in indices[0][0] and 0 not in indices[2][0], "a query without finite costs was preferred"
    (record,) = [r for r in caplog.records if r.name.startswith("PADing")]
    assert "iteration 117" in record.getMessage()
    caplog.clear()
    outputs["pred_masks"][:] = bad
    HungarianMatcher(**WEIGHTS, num_points=20)(outputs, targets)
    assert "iteration" not in caplog.text and "not finite" in caplog.text


def test_autocast_does_not_change_the_costs():
    outputs, targets = _case()
    matcher, points = HungarianMatcher(**WEIGHTS, num_points=40), torch.rand(1, 3, 40, 2)
    want = matcher.costs([outputs], targets, points)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = matcher.costs([outputs], targets, points)
    assert got.dtype == torch.float32 and torch.equal(got, want)


def test_nothing_to_match():
    outputs, targets = _case(counts=(0, 0))
    indices = HungarianMatcher(**WEIGHTS, num_points=20)(outputs, targets)
    assert [(len(q), len(t)) for q, t in indices] == [(0, 0), (0, 0)]


def test_a_class_that_the_model_does_not_know_is_named():
    outputs, targets = _case(classes=5)
    targets[2]["labels"][1] = 7
    with pytest.raises(UserError, match="class 7.*0 to 4.*NUM_CLASSES"):
        HungarianMatcher(**WEIGHTS, num_points=20)(outputs, targets)


def test_weights_of_zero_are_refused():
    with pytest.raises(UserError, match="zero"):
        HungarianMatcher(0, 0, 0)
