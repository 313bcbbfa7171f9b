"""Losses, gradients and matched labels are the recorded ones, with objects in all, some and none of the images."""

import re

import numpy as np
import pytest

from PADing.modeling import HungarianMatcher, SetCriterion, SetCriterion_Generator
from tests.golden.util import Draws, assert_close, cases, check_losses, load, normal, requires_golden, target_list

pytestmark = requires_golden


def _build(recorded: dict, kind: type):
    matcher = HungarianMatcher(*recorded["matcher_weights"], num_points=recorded["num_points"])
    names = ("loss_ce", "loss_mask", "loss_dice")
    weights = dict(zip(names, recorded["loss_weights_ce_mask_dice"], strict=True))
    weights |= {f"{name}_{i}": w for i in range(recorded["aux"]) for name, w in weights.items()}
    return kind(
        recorded["classes"],
        matcher,
        weights,
        recorded["eos_coef"],
        ["labels", "masks"],
        recorded["num_points"],
        recorded["oversample_ratio"],
        recorded["importance_sample_ratio"],
    )


def _head(recorded: dict, k) -> dict:
    """Predictions of head ``k`` ("main" or a number), leaves that collect gradients."""
    path, logit_factor, mask_factor = re.fullmatch(
        r"(\S+)<k>/pred_logits \(times (\S+)\), \.\.\./pred_masks \(times (\S+)\)", recorded["head_arrays"]
    ).groups()
    shape = (recorded["batch"], recorded["queries"])
    logits = float(logit_factor) * normal(f"{path}{k}/pred_logits", (*shape, recorded["classes"] + 1))
    masks = float(mask_factor) * normal(f"{path}{k}/pred_masks", (*shape, *recorded["mask_size"]))
    return {"pred_logits": logits.requires_grad_(), "pred_masks": masks.requires_grad_()}


@pytest.mark.parametrize("case", cases("criterion"))
def test_losses_and_gradients(case):
    arrays, info = load("criterion")
    recorded = info["cases"][case]
    heads = {k: _head(recorded, k) for k in recorded["heads"]}
    main, *auxiliary = heads.values()
    outputs = {**main, "aux_outputs": auxiliary}
    targets = target_list(recorded["targets"])
    criterion = _build(recorded, SetCriterion)
    match, matched = criterion.matcher.match, []
    criterion.matcher.match = lambda *inputs: matched.extend(match(*inputs)) or matched
    with Draws(recorded["draws"]):
        losses = criterion(outputs, targets)
    assert [[[q.tolist(), t.tolist()] for q, t in images] for images in matched] == recorded["matcher_indices"]
    check_losses(losses, recorded["loss_names"], arrays[f"{case}.losses"])
    total = sum(losses[name] * weight for name, weight in criterion.weight_dict.items())
    check_losses({"total": total}, ["total"], arrays[f"{case}.total_losses"])
    total.backward()
    for k, head in heads.items():
        for name, value in head.items():
            assert_close(value.grad, arrays[f"{case}.grad.{k}.{name}"], rel=1e-5, what=f"gradient of {name}, head {k}")


@pytest.mark.parametrize("case", cases("criterion"))
def test_matched_labels(case):
    arrays, info = load("criterion")
    recorded = info["cases"][case]
    with Draws(recorded["generator_draws"]):
        classes, labels, (batch_index, query_index) = _build(recorded, SetCriterion_Generator)(
            _head(recorded, recorded["heads"][0]), target_list(recorded["targets"])
        )
    got = {
        "target_classes": classes,
        "matched_labels": labels,
        "batch_idx": batch_index,
        "query_idx": query_index,
    }
    for name, value in got.items():
        assert np.array_equal(value, arrays[f"{case}.generator.{name}"]), name
