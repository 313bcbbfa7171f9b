import pytest
import torch
from torch import nn

from PADing.config import load_config
from PADing.engine.optimizers import build_optimizer, parameter_groups
from PADing.errors import UserError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
        self.head = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GroupNorm(2, 4))
        self.queries = nn.Embedding(5, 4)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(3))
        self.frozen = nn.Parameter(torch.zeros(3), requires_grad=False)
        self.head_again = self.head


def config(*opts):
    base = ["SOLVER.BASE_LR", 0.01, "SOLVER.WEIGHT_DECAY", 0.05, "SOLVER.WEIGHT_DECAY_EMBED", 0.003]
    return load_config("", [*base, "SOLVER.WEIGHT_DECAY_NORM", 0.002, *opts])


def test_each_parameter_gets_the_rate_and_decay_of_its_kind():
    """Mask2Former's protocol: slow backbone; no or own decay for norms, embeddings and position tables."""
    net = Net()
    groups = {id(g["params"][0]): (g["lr"], g["weight_decay"]) for g in parameter_groups(config(), net)}
    names = {id(p): name for name, p in net.named_parameters()}
    got = {names[key]: value for key, value in groups.items()}
    assert got == {
        "backbone.0.weight": (pytest.approx(0.001), 0.05),
        "backbone.0.bias": (pytest.approx(0.001), 0.05),
        "backbone.1.weight": (pytest.approx(0.001), 0.002),
        "backbone.1.bias": (pytest.approx(0.001), 0.002),
        "head.0.weight": (0.01, 0.05),
        "head.0.bias": (0.01, 0.05),
        "head.1.weight": (0.01, 0.002),
        "head.1.bias": (0.01, 0.002),
        "head.2.weight": (0.01, 0.002),
        "head.2.bias": (0.01, 0.002),
        "queries.weight": (0.01, 0.003),
        "relative_position_bias_table": (0.01, 0.0),
    }


def test_sgd_takes_momentum_from_the_config():
    optimizer = build_optimizer(config("SOLVER.OPTIMIZER", "SGD", "SOLVER.MOMENTUM", 0.7), Net())
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in optimizer.param_groups} == {0.7}


@pytest.mark.parametrize("name", ["ADAM", "adamw", "LAMB", "sgd"])
def test_unknown_optimizer_is_named(name):
    """It must not be taken for another one."""
    with pytest.raises(UserError, match=f"'{name}', but must be 'SGD' or 'ADAMW'"):
        build_optimizer(config("SOLVER.OPTIMIZER", name), Net())


def test_per_parameter_clipping_is_detectron2s():
    """CLIP_TYPE value clips each gradient before the step: a gradient of 9 moves the weight by lr * clip."""
    net = nn.Linear(1, 1, bias=False)
    opts = ["SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.5]
    cfg = config("SOLVER.OPTIMIZER", "SGD", "SOLVER.MOMENTUM", 0.0, "SOLVER.WEIGHT_DECAY", 0.0, *opts)
    optimizer = build_optimizer(cfg, net)
    before = net.weight.item()
    net.weight.grad = torch.full_like(net.weight, 9.0)
    optimizer.step()
    assert before - net.weight.item() == pytest.approx(0.01 * 0.5, rel=1e-3)
