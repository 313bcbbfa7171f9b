"""Converted backbones compute what their owners' networks do, and files of other networks are refused."""

import re

import pytest
import torch
from detectron2.modeling import build_backbone, build_model

from PADing.config import load_config
from PADing.conversion.run import as_overrides, convert_to_ours
from PADing.engine.checkpointer import TrainingCheckpointer
from PADing.errors import UserError
from PADing.modeling.backbone.timm_models import timm_library
from PADing.torchvision_users import import_with_torchvision
from tests.meta_arch.small import small_config

EVERY_MAP = ["MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"], "MODEL.RESNETS.STEM_TYPE", "basic"]
EVERY_MAP += ["MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "FrozenBN"]


def shaken(model):
    """Statistics and norms that are no zeros or ones, so that a swap shows."""
    torch.manual_seed(1)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and value.dim() == 1:
            value.copy_(1 + 0.2 * torch.rand(value.shape) if "var" in name or "weight" in name else value + 0.1)
    return model.eval()


def loaded(sizes, file):
    """The backbone that the converter describes, with the weights of its file, and nothing else in it."""
    model = torch.nn.Module()
    model.backbone = build_backbone(load_config("", [*EVERY_MAP, *(x for pair in sizes.items() for x in pair)])).eval()
    TrainingCheckpointer(model).load(str(file))
    return model.backbone


@pytest.mark.parametrize("name, source", [("resnet18", "timm-resnet"), ("resnet50", "timm-resnet")])
def test_a_resnet_gives_the_same_maps(name, source, tmp_path):
    model = shaken(timm_library().create_model(name))
    torch.save(model.state_dict(), tmp_path / "in.pth")
    sizes = convert_to_ours(source, tmp_path / "in.pth", tmp_path / "out.pth")
    assert sizes["MODEL.RESNETS.DEPTH"] == int(name.removeprefix("resnet")) and sizes["INPUT.FORMAT"] == "RGB"
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        want = model.forward_intermediates(x, indices=[1, 2, 3, 4], intermediates_only=True)
        got = loaded(sizes, tmp_path / "out.pth")(x)
    for a, b in zip(got.values(), want, strict=True):
        # Ours has the norms inside its convolutions, so numbers are rounded in another order.
        torch.testing.assert_close(a, b, atol=1e-5 * float(b.abs().max()), rtol=1e-4)


def test_torchvisions_resnet_has_the_same_names(tmp_path):
    models = pytest.importorskip("torchvision.models") if import_with_torchvision("torchvision") else None
    torch.save(models.resnet18().state_dict(), tmp_path / "in.pth")
    sizes = convert_to_ours("torchvision-resnet", tmp_path / "in.pth", tmp_path / "out.safetensors")
    text = as_overrides(sizes)
    assert "MODEL.RESNETS.DEPTH 18" in text and "MODEL.PIXEL_MEAN [123.675,116.28,103.53]" in text
    small = build_model(small_config())
    TrainingCheckpointer(small).load(str(tmp_path / "out.safetensors"))
    assert torch.equal(small.backbone.stem.conv1.weight, torch.load(tmp_path / "in.pth")["conv1.weight"])


@pytest.fixture(scope="module")
def swin():
    small = {"embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8)}
    return shaken(timm_library().create_model("swin_tiny_patch4_window7_224", always_partition=True, **small))


def published(model) -> dict:
    """The names of Swin's releases: steps between stages counted from 0, constants in the file, wrapped."""
    weights = {
        re.sub(r"layers\.(\d)\.downsample", lambda match: f"layers.{int(match[1]) - 1}.downsample", name): value
        for name, value in model.state_dict().items()
    }
    weights = {name.replace("head.fc.", "head."): value for name, value in weights.items()}
    weights["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    return {"model": weights, "epoch": 3}


@pytest.mark.parametrize("layout", ["release", "timm"])
def test_a_swin_gives_the_same_maps(layout, swin, tmp_path):
    torch.save(published(swin) if layout == "release" else swin.state_dict(), tmp_path / "in.pth")
    sizes = convert_to_ours("swin", tmp_path / "in.pth", tmp_path / "out.pth")
    assert sizes["MODEL.SWIN.NUM_HEADS"] == [1, 2, 4, 8] and sizes["MODEL.SWIN.WINDOW_SIZE"] == 7
    x = torch.randn(1, 3, 224, 224)  # timm agrees with the release where windows need no padding
    ours = loaded(sizes, tmp_path / "out.pth")
    with torch.no_grad():
        want, got = swin.forward_intermediates(x, intermediates_only=True), ours(x)
        for i, (a, b) in enumerate(zip(got.values(), want, strict=True)):
            normalised = getattr(ours, f"norm{i}")(b.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            torch.testing.assert_close(a, normalised, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "source, model, message",
    [
        ("timm-resnet", "resnet18d", "Its stem has several convolutions"),
        ("timm-resnet", "seresnet18", "without a place here: layer1.0.se"),
        ("timm-resnet", "test_vit", "it has no conv1.weight"),
        ("swin", "resnet18", "is no Swin"),
        ("mask2former", "resnet18", "is no segmenter of Mask2Former: it has conv1.weight"),
        ("transformers", "resnet18", "it has no queries"),
    ],
)
def test_other_networks_are_refused(source, model, message, tmp_path):
    torch.save(timm_library().create_model(model).state_dict(), tmp_path / "in.pth")
    with pytest.raises(UserError, match=message):
        convert_to_ours(source, tmp_path / "in.pth", tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()


def test_a_torn_file_of_weights_is_refused(tmp_path):
    weights = timm_library().create_model("resnet18").state_dict()
    del weights["layer3.1.bn2.running_mean"]
    torch.save(weights, tmp_path / "in.pth")
    with pytest.raises(UserError, match="lacks what becomes backbone.res4.1.conv2.norm.running_mean"):
        convert_to_ours("timm-resnet", tmp_path / "in.pth", tmp_path / "out.pth")
    weights["layer3.1.bn2.running_mean"] = torch.zeros(7)
    torch.save(weights, tmp_path / "in.pth")
    with pytest.raises(UserError, match=r"would be \(7,\), but must be \(256,\)"):
        convert_to_ours("timm-resnet", tmp_path / "in.pth", tmp_path / "out.pth")
