"""If these fail, training runs with other learning rates, weight decays or clipping than the config says."""

import math

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.projects.deeplab import add_deeplab_config
from detectron2.projects.deeplab import build_lr_scheduler as build_deeplab_lr_scheduler
from detectron2.solver import LRMultiplier, build_lr_scheduler, build_optimizer, get_default_optimizer_params
from detectron2.solver.build import maybe_add_gradient_clipping
from fvcore.common.param_scheduler import CosineParamScheduler
from torch import nn

from tests.d2lite.standin import standin_only


def make_cfg(*opts):
    cfg = get_cfg()
    add_deeplab_config(cfg)
    cfg.merge_from_list(list(opts))
    return cfg


def rates(cfg, iterations, base_lr=2.0, build=build_deeplab_lr_scheduler):
    """The rate that each iteration would be run with."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=base_lr)
    scheduler = build(cfg, optimizer)
    found = []
    for _ in range(iterations):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_multistep_with_linear_warmup():
    cfg = make_cfg(
        "SOLVER.MAX_ITER", 20, "SOLVER.STEPS", (10, 15), "SOLVER.WARMUP_ITERS", 4, "SOLVER.WARMUP_FACTOR", 0.5
    )
    # Warmup goes from 0.5 to 1 over four iterations; then a factor of 0.1 at iterations 10 and 15.
    expected = [1.0, 1.25, 1.5, 1.75] + [2.0] * 6 + [0.2] * 5 + [0.02] * 5
    assert rates(cfg, 20) == pytest.approx(expected, rel=1e-12)
    assert rates(cfg, 20, build=build_lr_scheduler) == pytest.approx(expected, rel=1e-12)


def test_constant_warmup():
    cfg = make_cfg("SOLVER.MAX_ITER", 8, "SOLVER.STEPS", (6,), "SOLVER.WARMUP_ITERS", 3)
    cfg.merge_from_list(["SOLVER.WARMUP_METHOD", "constant", "SOLVER.WARMUP_FACTOR", 0.1])
    assert rates(cfg, 8) == pytest.approx([0.2] * 3 + [2.0] * 3 + [0.2] * 2, rel=1e-12)


def test_steps_beyond_the_end_are_dropped_with_a_warning(caplog):
    cfg = make_cfg("SOLVER.MAX_ITER", 5, "SOLVER.STEPS", (3, 100), "SOLVER.WARMUP_ITERS", 0)
    assert rates(cfg, 5) == pytest.approx([2.0] * 3 + [0.2] * 2, rel=1e-12)
    assert any("MAX_ITER" in record.getMessage() for record in caplog.records)


def test_cosine_ends_at_the_end_rate():
    cfg = make_cfg("SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.MAX_ITER", 10, "SOLVER.WARMUP_ITERS", 0)
    cfg.merge_from_list(["SOLVER.BASE_LR", 2.0, "SOLVER.BASE_LR_END", 0.5])
    expected = [0.5 + (2.0 - 0.5) * (1 + math.cos(math.pi * i / 10)) / 2 for i in range(11)]
    assert rates(cfg, 11) == pytest.approx(expected, rel=1e-9)


def test_polynomial_decay_with_warmup_and_floor():
    cfg = make_cfg("SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR", "SOLVER.MAX_ITER", 10, "SOLVER.WARMUP_ITERS", 2)
    cfg.merge_from_list(["SOLVER.WARMUP_FACTOR", 0.5, "SOLVER.POLY_LR_CONSTANT_ENDING", 0.3])
    warmup = [0.5, 0.75] + [1.0] * 8
    # The floor holds after warmup only.
    expected = [2.0 * w * max((1 - i / 10) ** 0.9, 0.3 if i >= 2 else 0.0) for i, w in enumerate(warmup)]
    assert rates(cfg, 10) == pytest.approx(expected, rel=1e-12)
    assert rates(cfg, 10)[-1] == pytest.approx(0.6)


@standin_only  # the genuine schedule fails beyond its end
@pytest.mark.parametrize("ending", [0.0, 0.3])
def test_polynomial_decay_beyond_the_end_stays_at_its_end(ending):
    """A power of a negative number is complex, and would be noticed in the weights only."""
    cfg = make_cfg("SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR", "SOLVER.MAX_ITER", 3, "SOLVER.WARMUP_ITERS", 0)
    cfg.merge_from_list(["SOLVER.POLY_LR_CONSTANT_ENDING", ending])
    assert rates(cfg, 6)[3:] == pytest.approx([2.0 * ending] * 3)


def test_a_rescaled_schedule_runs_as_a_whole_after_the_warmup():
    cfg = make_cfg("SOLVER.MAX_ITER", 8, "SOLVER.STEPS", (4,), "SOLVER.WARMUP_ITERS", 4, "SOLVER.WARMUP_FACTOR", 0.5)
    cfg.merge_from_list(["SOLVER.RESCALE_INTERVAL", True])
    # The step in the middle of the schedule comes in the middle of the four iterations that are left.
    assert rates(cfg, 8) == pytest.approx([1.0, 1.25, 1.5, 1.75, 2.0, 2.0, 0.2, 0.2], rel=1e-12)


@standin_only  # the genuine schedule divides by the time that is left
def test_a_warmup_that_fills_the_training_leaves_no_time_to_a_rescaled_schedule():
    cfg = make_cfg("SOLVER.MAX_ITER", 8, "SOLVER.STEPS", (4,), "SOLVER.WARMUP_ITERS", 100)
    cfg.merge_from_list(["SOLVER.RESCALE_INTERVAL", True])
    assert rates(cfg, 9)[-1] == pytest.approx(2.0)


def test_unknown_schedule():
    with pytest.raises(ValueError, match="NoSuchLR"):
        rates(make_cfg("SOLVER.LR_SCHEDULER_NAME", "NoSuchLR"), 1)


def test_a_resumed_schedule_continues():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = LRMultiplier(optimizer, CosineParamScheduler(1, 0), max_iter=10)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    assert set(scheduler.state_dict()) == {"base_lrs", "last_epoch"}
    again = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    resumed = LRMultiplier(again, CosineParamScheduler(1, 0), max_iter=10)
    resumed.load_state_dict(scheduler.state_dict())
    for s, o in ((scheduler, optimizer), (resumed, again)):
        o.step()
        s.step()
    assert again.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == pytest.approx(math.cos(math.pi / 4) ** 2)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.twice = self.conv
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def groups_by_name(model, groups):
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: {key: value for key, value in group.items() if key != "params"}
        for group in groups
        for p in group["params"]
    }


def test_parameter_groups_follow_norm_and_bias_settings():
    model = Model()
    groups = get_default_optimizer_params(
        model, base_lr=1.0, weight_decay=0.1, weight_decay_norm=0.0, bias_lr_factor=2.0, weight_decay_bias=0.5
    )
    assert groups_by_name(model, groups) == {
        "conv.weight": {"lr": 1.0, "weight_decay": 0.1},
        "conv.bias": {"lr": 2.0, "weight_decay": 0.5},
        "norm.weight": {"lr": 1.0, "weight_decay": 0.0},
        "norm.bias": {"lr": 2.0, "weight_decay": 0.5},
    }
    assert len(groups) == 3  # equal settings share a group
    halved = get_default_optimizer_params(model, base_lr=1.0, lr_factor_func=lambda n: 0.5 if "norm" in n else 1.0)
    assert groups_by_name(model, halved)["norm.weight"]["lr"] == 0.5
    special = get_default_optimizer_params(model, base_lr=1.0, overrides={"weight": {"lr": 0.25}})
    assert groups_by_name(model, special)["conv.weight"]["lr"] == 0.25
    with pytest.raises(ValueError):
        get_default_optimizer_params(model, bias_lr_factor=2.0)


def test_default_optimizer_is_sgd_with_the_config_s_values():
    optimizer = build_optimizer(make_cfg("SOLVER.NESTEROV", True), Model())
    assert isinstance(optimizer, torch.optim.SGD)
    keys = ("lr", "momentum", "nesterov", "weight_decay")
    found = [(*(group[key] for key in keys), len(group["params"])) for group in optimizer.param_groups]
    assert sorted(found) == [(0.001, 0.9, True, 0.0, 2), (0.001, 0.9, True, 0.0001, 2)]


def step_with_gradients(optimizer, *parameters):
    for parameter in parameters:
        parameter.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    return [parameter.detach().tolist() for parameter in parameters]


@pytest.mark.parametrize(("kind", "value", "moved"), [("value", 3.5, [-3.0, -3.5]), ("norm", 1.0, [-0.6, -0.8])])
@pytest.mark.parametrize("as_class", [False, True])
def test_each_parameter_is_clipped_by_itself(kind, value, moved, as_class):
    cfg = make_cfg("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", kind)
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = value
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(2)]
    if as_class:
        optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD)(parameters, lr=1.0)
    else:
        optimizer = torch.optim.SGD(parameters, lr=1.0)
        assert maybe_add_gradient_clipping(cfg, optimizer) is optimizer
    assert isinstance(optimizer, torch.optim.SGD)
    for after in step_with_gradients(optimizer, *parameters):
        assert after == pytest.approx(moved, rel=1e-5)


def test_a_resumed_optimizer_still_clips():
    """Loading a checkpoint replaces all of an optimizer but its class."""
    cfg = make_cfg("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 1.0)
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = maybe_add_gradient_clipping(cfg, torch.optim.SGD([parameter], lr=1.0))
    optimizer.load_state_dict(torch.optim.SGD([parameter], lr=0.5).state_dict())
    assert step_with_gradients(optimizer, parameter) == [[-0.5, -0.5]]


def test_clipping_is_found_where_the_genuine_package_has_it():
    """An import that works here only is an ImportError for those who have Detectron2."""
    import detectron2.solver

    assert not hasattr(detectron2.solver, "maybe_add_gradient_clipping")


def test_without_clipping_nothing_changes_and_full_model_is_refused():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))], lr=1.0)
    assert maybe_add_gradient_clipping(make_cfg(), optimizer) is optimizer and type(optimizer) is torch.optim.SGD
    cfg = make_cfg("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model")
    with pytest.raises(ValueError, match="full_model"):
        maybe_add_gradient_clipping(cfg, optimizer)
