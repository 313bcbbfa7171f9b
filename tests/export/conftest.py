"""A small segmenter whose export takes seconds, and the small models of the tools' tests."""

import pytest
import torch
from torch import nn

from PADing.meta_arch.common import SegmenterBase
from PADing.meta_arch.instance_rule import InstanceRule
from tests.small_models import load_tool

THINGS = frozenset({0, 2, 3})


class Tiny(nn.Module):
    """What an export asks of a model, with a convolution for the networks; results are the host's own."""

    semantic_on = panoptic_on = instance_on = sem_seg_postprocess_before_inference = True
    size_divisibility, boxes_from_masks, test_topk_per_image = 32, True, 12
    object_mask_threshold, overlap_threshold, things = 0.2, 0.3, THINGS
    instance_rule, semantic_inference = SegmenterBase.instance_rule, SegmenterBase.semantic_inference
    panoptic_inference, instance_inference = SegmenterBase.panoptic_inference, SegmenterBase.instance_inference
    segment_results, collected, second_classifier = SegmenterBase.segment_results, None, None
    preprocess, infer, image_results = SegmenterBase.preprocess, SegmenterBase.infer, SegmenterBase.image_results

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.register_buffer("pixel_mean", torch.tensor([120.0, 110.0, 100.0]).view(3, 1, 1))
        self.register_buffer("pixel_std", torch.full((3, 1, 1), 60.0))
        self.masks, self.classes = nn.Conv2d(3, 9, 8, 4, 2), nn.Linear(9, 9 * 6)

    device = SegmenterBase.device

    def predict(self, images):
        masks = 4 * self.masks(images.tensor)
        return 9 * self.classes(masks.mean((2, 3))).view(-1, 9, 6), masks

    def forward(self, batched_inputs):
        images = self.preprocess(batched_inputs)
        return self.infer(*self.predict(images), batched_inputs, images)


@pytest.fixture
def tiny():
    return Tiny().eval()


@pytest.fixture(scope="session")
def logits():
    """``logits(seed)``: class logits (B, Q, K + 1) and mask logits (B, Q, H, W) of blobs that overlap."""

    def function(seed: int, batch: int = 2, size: tuple[int, int] = (24, 30)):
        generator = torch.Generator().manual_seed(seed)
        classes = 3 * torch.randn(batch, 8, 6, generator=generator)
        coarse = torch.randn(batch, 8, 5, 6, generator=generator)
        return classes, 6 * nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=False)

    return function


@pytest.fixture
def command(capsys):
    """Run tools/export_model.py: its status and what it said."""
    tool = load_tool("tools/export_model.py")

    def run(*words):
        status = tool.main([str(word) for word in words])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


@pytest.fixture(scope="session")
def runner():
    pytest.importorskip("onnxruntime", reason="the optional extra export")
    return load_tool("examples/onnx_runner.py")


def rule(*groups, **values) -> InstanceRule:
    return InstanceRule(groups=groups or ((12, None),), **values)
