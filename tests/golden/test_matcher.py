"""Matching costs and assignments are the recorded ones: a wrong match trains a query on another object."""

import re

import numpy as np
import pytest
import torch

from PADing.modeling import HungarianMatcher
from tests.golden.util import Draws, assert_close, cases, load, normal, requires_golden, target_list

pytestmark = requires_golden


def _scaled_normal(text: str, shape):
    """ "2*normal(name)" -> tensor."""
    factor, name = re.fullmatch(r"([\d.]+)\*normal\((\S+)\)", text).groups()
    return float(factor) * normal(name, shape)


@pytest.mark.parametrize("case", cases("matcher"))
def test_costs_and_assignments(case):
    arrays, info = load("matcher")
    recorded = info["cases"][case]
    batch, queries = recorded["batch"], recorded["queries"]
    outputs = {
        "pred_logits": _scaled_normal(recorded["pred_logits"], (batch, queries, recorded["classes"] + 1)),
        "pred_masks": _scaled_normal(recorded["pred_masks"], (batch, queries, *recorded["mask_size"])),
    }
    targets = target_list(recorded["targets"])
    matcher = HungarianMatcher(*recorded["weights_class_mask_dice"], num_points=recorded["num_points"])
    with Draws(recorded["draws"]):
        points = matcher.draw_points(batch, torch.device("cpu"))
    costs = matcher.costs([outputs], targets, points[None])[0]
    for i, count in enumerate(recorded["counts"]):
        assert_close(costs[i, :, :count], arrays[f"{case}.cost{i}"], rel=1e-5, what=f"costs of image {i}")
    with Draws(recorded["draws"]):
        indices = matcher(outputs, targets)
    for i, (query, target) in enumerate(indices):
        assert np.array_equal(query, arrays[f"{case}.query{i}"])
        assert np.array_equal(target, arrays[f"{case}.target{i}"])
