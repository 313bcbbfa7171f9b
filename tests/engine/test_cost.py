"""Counting of operations; wrong here means that papers would report a wrong cost."""

from functools import partial

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.structures import Boxes, Instances
from torch import nn
from torch.nn import functional as F

from PADing.engine import cost


class Tiny(nn.Module):
    """A convolution and an attention whose costs can be worked out by hand."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1, bias=False)

    def forward(self, batched_inputs):
        images = torch.stack([x["image"].float() for x in batched_inputs])
        tokens = self.conv(images).flatten(2).transpose(1, 2)[:, None]  # (1, 1, H W, 8)
        return [{"sem_seg": y} for y in F.scaled_dot_product_attention(tokens[:, :, :5], tokens, tokens[..., :6])]


def test_flops_by_hand():
    inputs = cost.inputs_of(None, 1, size=(10, 12))
    text = cost.count_flops(Tiny().eval(), inputs)
    conv = 10 * 12 * 8 * 3 * 9
    attention = 5 * 120 * (8 + 6)
    assert f"conv {conv / 1e9:.4g}" in text
    assert f"scaled_dot_product_attention {attention / 1e9:.4g}" in text
    assert "an image of 10 x 12" in text


def test_mean_over_images():
    """Two images of 100 and 300 pixels: the mean is that of 200, the deviation that of 100."""
    per_pixel = 8 * 3 * 9

    class Conv(Tiny):
        def forward(self, batched_inputs):
            return [{"sem_seg": self.conv(x["image"].float()[None])} for x in batched_inputs]

    inputs = [[{"image": torch.zeros(3, 10, width)}] for width in (10, 30)]
    text = cost.count_flops(Conv().eval(), inputs)
    assert f"{200 * per_pixel / 1e9:.3f} +/- {100 * per_pixel / 1e9:.3f} (2 images)" in text
    text = cost.count_activations(Conv().eval(), inputs)
    assert f"conv {200 * 8 / 1e6:.4g}" in text and "(2 images)" in text


class AllResults(Tiny):
    """Returns what panoptic models do: tensors, and among them numbers, booleans and Instances."""

    def forward(self, batched_inputs):
        features = self.conv(batched_inputs[0]["image"].float()[None])[0]
        found = Instances((10, 12), scores=features[0, 0, :2], pred_boxes=Boxes(features[0, :2, :4]))
        segments = [{"id": 1, "category_id": 3, "isthing": True}]
        return [{"sem_seg": features, "panoptic_seg": (features[0], segments), "instances": found}]


@pytest.mark.parametrize("count", ["count_flops", "count_activations"])
def test_models_are_counted_by_their_tensors(monkeypatch, count):
    """Detectron2 cannot trace a model that returns numbers. The model itself is as before, afterwards."""
    model, seen = AllResults().eval(), []

    def counted(genuine, traced, batch):
        seen.append(traced(batch))
        return genuine(traced, batch)

    for name in ("FlopCountAnalysis", "activation_count_operators"):
        monkeypatch.setattr(cost, name, partial(counted, getattr(cost, name)))
    inputs = cost.inputs_of(None, 1, size=(10, 12))
    text = getattr(cost, count)(model, inputs)
    assert f"conv {10 * 12 * 8 * (27e-9 if count == 'count_flops' else 1e-6):.4g}" in text
    assert [[type(part) for part in result] for result in seen] == [[torch.Tensor] * 4]
    assert isinstance(model(inputs[0])[0]["instances"], Instances)


def test_images_are_those_of_the_first_evaluation_set(monkeypatch):
    cfg = CfgNode({"DATASETS": {"TEST": ("first", "second")}})
    loaders = {"first": [[{"image": 1, "height": 5}], [{"image": 2}], [{"image": 3}]], "second": [[{"image": 9}]]}
    monkeypatch.setattr(cost.Trainer, "build_test_loader", lambda cfg, name: loaders[name])
    assert cost.inputs_of(cfg, 2) == [[{"image": 1}], [{"image": 2}]]
