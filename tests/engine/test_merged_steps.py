"""Merged steps must give the numbers of separate ones, and checkpoints of the published layout: a group a parameter."""

import copy

import pytest
import torch
from torch import nn

from PADing.engine.merged_steps import SGD, Adam, AdamW, merged

PAIRS = [
    (torch.optim.AdamW, AdamW, {}),
    (torch.optim.Adam, Adam, {}),
    (torch.optim.SGD, SGD, {"momentum": 0.9, "nesterov": True}),
]


def parameters(number=7):
    return [nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(i))) for i in range(number)]


def groups(of):
    return [{"params": [p], "lr": 0.1 if i % 3 else 0.01, "weight_decay": 0.05 * (i % 2)} for i, p in enumerate(of)]


def give_gradients(step, *sets, without=()):
    for i in range(len(sets[0])):
        gradient = torch.randn(3, 4, generator=torch.Generator().manual_seed(100 * step + i))
        for of in sets:
            of[i].grad = None if i in without else gradient.clone()


def largest_difference(a, b):
    return max((p - q).abs().max().item() for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize(("plain", "own", "options"), PAIRS)
def test_numbers_are_those_of_separate_groups(plain, own, options):
    a, b = parameters(), parameters()
    separate, together = plain(groups(a), 0.1, **options), own(groups(b), 0.1, **options)
    schedules = [torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.3) for optimizer in (separate, together)]
    for step in range(6):
        give_gradients(step, a, b, without=(2,) if step in (0, 4) else ())
        for optimizer, schedule in zip((separate, together), schedules, strict=True):
            optimizer.step()
            schedule.step()
    assert largest_difference(a, b) < 1e-6
    assert largest_difference(a, parameters()) > 0.1, "the parameters have moved"
    assert [g["lr"] for g in together.param_groups] == [g["lr"] for g in separate.param_groups]


@pytest.mark.parametrize(("plain", "own", "options"), PAIRS)
def test_checkpoints_go_both_ways(plain, own, options):
    """A checkpoint of the published code continues here, and one from here there, as if nothing had happened."""
    a, b = parameters(), parameters()
    first, second = plain(groups(a), 0.1, **options), own(groups(b), 0.1, **options)
    give_gradients(0, a, b)
    first.step()
    second.step()
    there, here = copy.deepcopy(first.state_dict()), copy.deepcopy(second.state_dict())
    assert [g["params"] for g in here["param_groups"]] == [g["params"] for g in there["param_groups"]]
    assert here["param_groups"][0].keys() == there["param_groups"][0].keys()
    second.load_state_dict(there)
    first.load_state_dict(here)
    give_gradients(1, a, b)
    first.step()
    second.step()
    assert largest_difference(a, b) < 1e-6


def test_only_equal_settings_are_merged():
    of = parameters(4)
    rows = groups(of)
    rows[3]["lr"] = 0.2
    optimizer = AdamW(rows, 0.1)
    give_gradients(0, of)
    assert [len(g["params"]) for g in merged(optimizer.param_groups, {})] == [1, 1, 1, 1]
    rows = [{"params": [p], "lr": 0.1} for p in of]
    found = merged(AdamW(rows, 0.1).param_groups, {})
    assert len(found) == 1 and [id(p) for p in found[0]["params"]] == [id(p) for p in of] and found[0]["fused"]


def test_the_groups_are_back_after_a_failed_step():
    of = parameters(2)
    optimizer = SGD(groups(of), 0.1)
    before = optimizer.param_groups
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    assert optimizer.param_groups is before


def test_fused_steps_are_for_real_numbers_on_a_cpu():
    """PyTorch refuses them for complex numbers; on a GPU they need counters that other checkpoints do not have."""
    for parameter in (nn.Parameter(torch.ones(2, dtype=torch.complex64)), nn.Parameter(torch.ones(2, device="meta"))):
        parameter.grad = torch.ones_like(parameter)
        (found,) = merged([{"params": [parameter], "lr": 0.1}], {})
        assert found["fused"] is None and found["params"] == [parameter]
