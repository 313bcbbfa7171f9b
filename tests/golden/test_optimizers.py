"""Parameter groups of stage 1 (and D2Zero): which rate and decay every parameter gets."""

import json
from collections import defaultdict

import pytest
from detectron2.modeling import build_model

import PADing.meta_arch  # noqa: F401  registers the architectures
from PADing.engine.optimizers import build_optimizer, clips_full_model
from tests.golden.class_vectors import embedding_overrides
from tests.golden.util import GOLDEN, golden_cfg, requires_golden

pytestmark = requires_golden


def recorded() -> dict:
    path = GOLDEN / "lr_schedules.json"
    owners = json.loads(path.read_text()).values() if path.is_file() else []
    return {name: group for part in owners if "schedules" in part for name, group in part["optimizer_groups"].items()}


@pytest.mark.parametrize("name", recorded())
def test_parameter_groups(name, tmp_path):
    want = recorded()[name]
    config = json.loads((GOLDEN / "keys" / f"{name}.json").read_text())["config"]
    cfg = golden_cfg(config, embedding_overrides(golden_cfg(config), tmp_path))
    model = build_model(cfg)
    optimizer = build_optimizer(cfg, model)
    # The recorded class clips in its step; here the recipe does. What it derives from is the same.
    assert type(optimizer).__name__ == want["mro"][1]
    assert {key: optimizer.defaults[key] for key in ("lr", "eps", "weight_decay", "amsgrad")} == {
        key: want["defaults"][key] for key in ("lr", "eps", "weight_decay", "amsgrad")
    }
    assert list(optimizer.defaults["betas"]) == want["defaults"]["betas"]
    assert len(optimizer.param_groups) == want["n_param_groups"]
    assert clips_full_model(cfg) == (want["clip"]["ENABLED"] and want["clip"]["CLIP_TYPE"] == "full_model")
    assert {key: cfg.SOLVER.CLIP_GRADIENTS[key] for key in want["clip"]} == want["clip"]

    names = {id(p): key for key, p in model.named_parameters()}
    order, by_kind = [], defaultdict(list)
    for group in optimizer.param_groups:
        (parameter,) = group["params"]
        order.append(names[id(parameter)])
        by_kind[round(group["lr"], 12), round(group["weight_decay"], 12)].append(names[id(parameter)])
    assert order[: len(want["order"])] == want["order"]
    recorded_kinds = {_kind(key): value for key, value in want["names_by_lr_weight_decay"].items()}
    assert by_kind == recorded_kinds
    counts = {_kind(key): value for key, value in want["count_by_lr_weight_decay"].items()}
    assert {key: len(value) for key, value in by_kind.items()} == counts


def _kind(key: str) -> tuple[float, float]:
    lr, decay = (part.split("=")[1] for part in key.split(","))
    return round(float(lr), 12), round(float(decay), 12)
