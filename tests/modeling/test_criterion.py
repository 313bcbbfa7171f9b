"""Losses computed together equal losses computed pair by pair from their definitions."""

import weakref
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional as F

from PADing.errors import UserError
from PADing.modeling import HungarianMatcher, SetCriterion
from PADing.modeling.point_sampling import importance_counts, most_uncertain, point_sample

CLASSES, QUERIES, POINTS = 4, 5, 24
WEIGHTS = {"loss_ce": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}


def _criterion(importance=0.75, losses=("labels", "masks")):
    matcher = HungarianMatcher(2, 5, 5, num_points=POINTS)
    return SetCriterion(CLASSES, matcher, WEIGHTS, 0.1, losses, POINTS, 3.0, importance)


def _prediction(batch, seed):
    g = torch.Generator().manual_seed(seed)
    return {
        "pred_logits": torch.randn(batch, QUERIES, CLASSES + 1, generator=g).requires_grad_(),
        "pred_masks": (3 * torch.randn(batch, QUERIES, 6, 8, generator=g)).requires_grad_(),
    }


def _targets(counts, dtype=torch.bool):
    g = torch.Generator().manual_seed(9)
    return [
        {
            "labels": torch.randint(0, CLASSES, (n,), generator=g),
            "masks": (torch.rand(n, 24, 32, generator=g) > 0.5).to(dtype),
        }
        for n in counts
    ]


def _slow_losses(prediction, targets, indices, candidates, random_points, importance):
    """One prediction, pair after pair."""
    batch = len(targets)
    classes = torch.full((batch, QUERIES), CLASSES)
    ce = dice = 0.0
    k = 0
    for i, (query, to) in enumerate(indices):
        for q, t in zip(query.tolist(), to.tolist(), strict=True):
            classes[i, q] = targets[i]["labels"][t]
            mask = prediction["pred_masks"][i, q][None, None]
            sampled = point_sample(mask, candidates[k][None])[0, 0]
            best = sampled.abs().argsort()[: int(importance * POINTS)]
            points = torch.cat([candidates[k][best], random_points[k]])[None]
            x = point_sample(mask, points)[0, 0]
            y = point_sample(targets[i]["masks"][t][None, None].float(), points)[0, 0]
            ce = ce + F.binary_cross_entropy_with_logits(x, y)
            dice = dice + 1 - (2 * (x.sigmoid() * y).sum() + 1) / (x.sigmoid().sum() + y.sum() + 1)
            k += 1
    weight = torch.tensor([1.0] * CLASSES + [0.1])
    count = max(sum(len(t["labels"]) for t in targets), 1)
    return {
        "loss_ce": F.cross_entropy(prediction["pred_logits"].transpose(1, 2), classes, weight),
        "loss_mask": ce / count,
        "loss_dice": dice / count,
    }


@pytest.mark.parametrize("counts", [(3, 1), (0, 2), (QUERIES + 2, 1)], ids=["usual", "one empty", "more than queries"])
@pytest.mark.parametrize("importance", [0.75, 0.0, 1.0])
def test_losses_of_all_predictions(counts, importance):
    criterion, targets = _criterion(importance=importance), _targets(counts)
    predictions = [_prediction(2, seed) for seed in range(3)]
    torch.manual_seed(3)
    losses = criterion({**predictions[0], "aux_outputs": predictions[1:]}, targets)

    torch.manual_seed(3)  # the same numbers again, drawn prediction by prediction
    matched = sum(min(QUERIES, n) for n in counts)
    candidates, random_count = importance_counts(POINTS, 3.0, importance)
    for ending, prediction in zip(("", "_0", "_1"), predictions, strict=True):
        indices = criterion.matcher(prediction, targets)
        drawn = torch.rand(matched, candidates, 2)
        random_points = torch.rand(matched, random_count, 2) if random_count else torch.empty(matched, 0, 2)
        want = _slow_losses(prediction, targets, indices, drawn, random_points, importance)
        for name, value in want.items():
            torch.testing.assert_close(losses[name + ending], value, rtol=1e-5, atol=1e-6)
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    assert all(value.grad is not None for prediction in predictions for value in prediction.values())


def test_candidates_are_freed_one_prediction_after_another(monkeypatch):
    """They are the largest part of the losses: with ten predictions, hundreds of megabytes."""
    from PADing.modeling import criterion as module

    criterion, targets, drawn, alive = _criterion(), _targets((3, 1)), [], []
    draw_points = criterion._draw_points

    def draw(*args):
        of_matcher, of_masks = draw_points(*args)
        drawn.extend(weakref.ref(candidates.untyped_storage()) for candidates, _ in of_masks)
        return of_matcher, of_masks

    def choose(masks, candidates, count):
        alive.append(sum(storage() is not None for storage in drawn))
        return most_uncertain(masks, candidates, count)

    monkeypatch.setattr(criterion, "_draw_points", draw)
    monkeypatch.setattr(module, "most_uncertain", choose)
    criterion({**_prediction(2, 0), "aux_outputs": [_prediction(2, seed) for seed in (1, 2, 3)]}, targets)
    assert alive == [4, 3, 2, 1] and all(storage() is None for storage in drawn)


def test_a_batch_without_objects_has_losses_and_gradients():
    criterion, prediction = _criterion(), _prediction(2, 0)
    losses = criterion(prediction, _targets((0, 0)))
    assert losses["loss_mask"] == 0 and losses["loss_dice"] == 0 and losses["loss_ce"] > 0
    sum(losses.values()).backward()
    assert prediction["pred_masks"].grad.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_masks_may_come_in_any_type(dtype):
    criterion, prediction = _criterion(), _prediction(2, 0)
    got = []
    for kind in (torch.bool, dtype):
        torch.manual_seed(1)
        got.append(criterion(prediction, _targets((2, 3), kind)))
    assert all(torch.equal(got[0][name], got[1][name]) for name in got[0])


def test_autocast_does_not_change_the_losses():
    criterion, prediction, got = _criterion(), _prediction(2, 0), []
    for enabled in (False, True):
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            got.append(criterion(prediction, _targets((2, 3))))
    assert all(torch.equal(got[0][name], got[1][name]) for name in got[0])


def test_only_the_losses_asked_for():
    assert set(_criterion(losses=["labels"])(_prediction(2, 0), _targets((1, 1)))) == {"loss_ce"}
    assert set(_criterion(losses=["masks"])(_prediction(2, 0), _targets((1, 1)))) == {"loss_mask", "loss_dice"}
    with pytest.raises(ValueError, match="boxes"):
        _criterion(losses=["boxes"])


@pytest.mark.parametrize(("counts", "others", "mean"), [((1, 2), 9, 6), ((1, 0), 1, 1), ((1, 0), 0, 1)])
def test_mask_losses_are_averaged_over_the_targets_of_all_processes(counts, others, mean):
    """Else a process whose images hold few objects would pull with more weight than the others."""
    criterion, prediction, targets = _criterion(), _prediction(2, 0), _targets(counts)
    torch.manual_seed(1)
    alone = criterion(prediction, targets)["loss_dice"]
    torch.manual_seed(1)
    with (
        mock.patch.object(dist, "is_initialized", return_value=True),
        mock.patch.object(dist, "get_world_size", return_value=2),
        mock.patch.object(dist, "all_reduce", side_effect=lambda total: total.add_(others)),
    ):
        together = criterion(prediction, targets)["loss_dice"]
    torch.testing.assert_close(together, alone * sum(counts) / mean)


def test_matching_without_losses():
    criterion, prediction, targets = _criterion(), _prediction(2, 0), _targets((2, 3))
    torch.manual_seed(2)
    classes, labels, (image, query) = criterion.match({**prediction, "aux_outputs": [_prediction(2, 1)]}, targets)
    torch.manual_seed(2)
    indices = criterion.matcher(prediction, targets)
    want = torch.cat([t["labels"][to] for t, (_, to) in zip(targets, indices, strict=True)])
    assert torch.equal(labels, want) and torch.equal(classes[image, query], labels)
    assert image.tolist() == [0, 0, 1, 1, 1] and query.tolist() == torch.cat([q for q, _ in indices]).tolist()
    assert (classes == CLASSES).sum() == 2 * QUERIES - 5


def test_uncertain_points_are_those_near_zero():
    ramp = torch.linspace(-1, 1, 21).expand(1, 1, 5, 21)
    points = torch.stack([torch.linspace(0.05, 0.95, 19), torch.full((19,), 0.5)], dim=1)[None]
    chosen = most_uncertain(ramp, points, 3)[0, :, 0]
    torch.testing.assert_close(chosen.sort().values, torch.tensor([0.45, 0.5, 0.55]))
    with pytest.raises(UserError, match="OVERSAMPLE_RATIO"):
        importance_counts(10, 0.5, 0.5)


@pytest.mark.parametrize("counts", [(3, 1), (0, 2), (QUERIES + 2, 1), (0, 0)])
def test_gradients_through_the_factors_of_matched_masks(counts):
    """With kernels and features, unmatched masks take no part in the backward pass: they would have added zeros."""
    g = torch.Generator().manual_seed(3)
    features = torch.randn(2, 7, 6, 8, generator=g)
    kernels = [torch.randn(2, QUERIES, 7, generator=g) for _ in range(3)]
    logits = [torch.randn(2, QUERIES, CLASSES + 1, generator=g) for _ in range(3)]
    found = []
    for with_factors in (False, True):
        inputs = [x.clone().requires_grad_() for x in (features, *kernels)]
        maps, *own = inputs
        predictions = []
        for kernel, scores in zip(own, logits, strict=True):
            predictions.append({"pred_logits": scores, "pred_masks": torch.einsum("bqc,bchw->bqhw", kernel, maps)})
            if with_factors:
                predictions[-1]["mask_kernels"] = kernel
        first, *auxiliary = predictions
        outputs = {**first, "mask_features": maps, "aux_outputs": auxiliary}
        torch.manual_seed(5)
        losses = _criterion()(outputs, _targets(counts))
        gradients = torch.autograd.grad(sum(losses.values()), inputs, allow_unused=True)
        found.append((losses, [torch.zeros(()) if x is None else x for x in gradients]))
    (plain, want), (quick, got) = found
    torch.testing.assert_close(quick, plain, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got, [w.expand_as(x) for w, x in zip(want, got, strict=True)], rtol=1e-4, atol=1e-5)
    assert sum(counts) == 0 or all(x.abs().sum() > 0 for x in got)
