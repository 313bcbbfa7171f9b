"""A loss or a backbone of one's own is one new file, named in the config: nothing else is edited."""

import math
import sys

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from PADing.engine.recipes import build_recipe
from tests.meta_arch.small import small_batch, small_config

LOSS = """
import torch
from detectron2.modeling import META_ARCH_REGISTRY
from PADing.meta_arch import MaskFormer
from PADing.modeling import SetCriterion


class BoundaryCriterion(SetCriterion):
    @classmethod
    def loss_weights(cls, cfg):
        return {**super().loss_weights(cfg), "loss_boundary": 3.0}

    def mask_losses(self, matched, logits, labels, num_masks):
        loss = (logits.sigmoid() - labels).abs().sum(2).sum(1) / num_masks
        losses = super().mask_losses(matched, logits, labels, num_masks)
        return {**losses, "loss_boundary": loss}


@META_ARCH_REGISTRY.register()
class OwnLossFormer(MaskFormer):
    criterion_type = BoundaryCriterion
"""

BACKBONE = """
from detectron2.layers import Conv2d
from detectron2.modeling import BACKBONE_REGISTRY, Backbone


@BACKBONE_REGISTRY.register()
class OwnBackbone(Backbone):
    def __init__(self, cfg, input_shape):
        super().__init__()
        self._out_features = ["res2", "res3", "res4", "res5"]
        self._out_feature_strides = {name: 4 * 2**i for i, name in enumerate(self._out_features)}
        self._out_feature_channels = {name: 6 + i for i, name in enumerate(self._out_features)}
        self.res2 = Conv2d(input_shape.channels, 6, 4, stride=4)
        self.res3, self.res4, self.res5 = (Conv2d(6 + i, 7 + i, 2, stride=2) for i in range(3))

    def forward(self, x):
        features = {}
        for name in self._out_features:
            features[name] = x = getattr(self, name)(x)
        return features
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Write a module beside nothing else and return the options that load it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        return ["PLUGINS", name]

    return write


def _step(cfg, model):
    """Train on one batch and return the losses as they are logged."""
    with EventStorage() as storage:
        build_recipe(cfg, model).step(model.train(), small_batch(), data_time=0.0)
        return {name: value for name, (value, _) in storage.latest().items()}


def test_a_mask_loss(plugin):
    """It is weighted, logged for every prediction, part of the total, and trained."""
    cfg = small_config(*plugin("own_loss", LOSS), "MODEL.META_ARCHITECTURE", "OwnLossFormer")
    torch.manual_seed(0)
    model = build_model(cfg)
    before = [p.detach().clone() for p in model.parameters()]
    logged = _step(cfg, model)
    own = [logged[name] for name in ("loss_boundary", "loss_boundary_0", "loss_boundary_1")]
    assert all(0 < value <= 3 * 128 for value in own) and max(own) > 3, "a sum over 128 points, times its weight"
    assert math.isclose(logged["total_loss"], sum(v for k, v in logged.items() if k.startswith("loss_")), rel_tol=1e-5)
    assert not all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_loss_without_weight_is_named(plugin):
    text = LOSS.replace('loss_boundary": 3.0', 'loss_edge": 3.0').replace("OwnLossFormer", "ForgetfulFormer")
    cfg = small_config(*plugin("own_loss_without_weight", text), "MODEL.META_ARCHITECTURE", "ForgetfulFormer")
    with pytest.raises(ValueError, match="BoundaryCriterion makes loss_boundary, loss_boundary_0, loss_boundary_1"):
        build_model(cfg).train()(small_batch())


def test_a_backbone(plugin):
    """The head asks it for channels and strides; the model trains and answers."""
    cfg = small_config(*plugin("own_backbone", BACKBONE), "MODEL.BACKBONE.NAME", "OwnBackbone")
    torch.manual_seed(0)
    model = build_model(cfg)
    assert type(model.backbone).__name__ == "OwnBackbone"
    assert math.isfinite(_step(cfg, model)["total_loss"])
    assert model.backbone.res2.weight.grad.abs().sum() > 0
    with torch.no_grad():
        result = model.eval()(small_batch())[0]
    assert result["sem_seg"].shape == (3, 64, 64)
