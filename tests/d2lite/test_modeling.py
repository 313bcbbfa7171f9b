"""Registries, ResNets (against a plain function of their weights), freezing, and what happens around the model."""

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec
from detectron2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    Backbone,
    DatasetMapperTTA,
    build_backbone,
    build_model,
    build_resnet_backbone,
    build_sem_seg_head,
)
from detectron2.modeling.backbone import BasicBlock, BasicStem, ResNet
from detectron2.modeling.postprocessing import sem_seg_postprocess
from torch import nn

from tests.d2lite.standin import standin_only

FEATURES = ["res2", "res3", "res4", "res5"]
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def resnet_cfg(depth: int = 18, freeze_at: int = 0, **resnets):
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.FREEZE_AT = freeze_at
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.OUT_FEATURES = FEATURES
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    if depth < 50:
        cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    for key, value in resnets.items():
        cfg.MODEL.RESNETS[key] = value
    return cfg


def trainable(module: nn.Module) -> set[str]:
    return {name for name, p in module.named_parameters() if p.requires_grad}


# Against the paper ---------------------------------------------------------------------------------------------------


def reference_resnet(state: dict, depth: int, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """A ResNet with the stride in its 3x3 convolutions, written as one function of the checkpoint's entries."""

    def conv(x, name, stride=1):
        weight = state[name + ".weight"]
        mean, var, gamma, beta = (
            state[f"{name}.norm.{e}"].double() for e in ("running_mean", "running_var", "weight", "bias")
        )
        y = nn.functional.conv2d(x, weight.double(), stride=stride, padding=weight.shape[-1] // 2)
        y = (y - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        return y * gamma[:, None, None] + beta[:, None, None]

    x = nn.functional.max_pool2d(conv(x.double(), "stem.conv1", 2).relu(), 3, stride=2, padding=1)
    outputs = {}
    for stage, count in zip(FEATURES, BLOCKS[depth], strict=True):
        for i in range(count):
            name = f"{stage}.{i}"
            stride = 2 if i == 0 and stage != "res2" else 1
            shortcut = conv(x, name + ".shortcut", stride) if name + ".shortcut.weight" in state else x
            if depth < 50:
                y = conv(conv(x, name + ".conv1", stride).relu(), name + ".conv2")
            else:
                y = conv(conv(conv(x, name + ".conv1").relu(), name + ".conv2", stride).relu(), name + ".conv3")
            x = (y + shortcut).relu()
        outputs[stage] = x
    return outputs


@pytest.mark.parametrize("depth, norm", [(18, "FrozenBN"), (34, "BN"), (50, "FrozenBN"), (101, "SyncBN")])
def test_resnet_is_the_network_of_the_paper(depth, norm):
    """A wrong stride, padding, order or name would make ImageNet weights worthless without any error."""
    torch.manual_seed(0)
    model = build_backbone(resnet_cfg(depth, NORM=norm)).eval()
    state = model.state_dict()
    for key, value in state.items():
        if "norm" in key and not key.endswith("num_batches_tracked"):
            value.uniform_(0.5, 1) if key.endswith(("weight", "running_var")) else value.normal_(std=0.1)
    x = torch.randn(2, 3, 70, 101)
    with torch.no_grad():
        got, expected = model(x), reference_resnet(state, depth, x)
    for name in FEATURES:
        assert (got[name] - expected[name]).abs().max() < 1e-5 * expected[name].abs().max(), name


# Structure -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth, blocks", BLOCKS.items())
def test_blocks_channels_and_strides(depth, blocks):
    with torch.device("meta"):
        model = build_backbone(resnet_cfg(depth))
    assert tuple(len(getattr(model, name)) for name in FEATURES) == blocks
    first = 64 if depth < 50 else 256
    assert model.output_shape() == {
        name: ShapeSpec(channels=first * 2**i, stride=4 * 2**i) for i, name in enumerate(FEATURES)
    }
    assert model.size_divisibility == 0 and isinstance(model, Backbone)


def test_r50_has_the_entries_of_public_checkpoints():
    state = build_backbone(resnet_cfg(50)).state_dict()
    assert len(state) == 265 and sum(k.endswith("weight") and "norm" not in k for k in state) == 53
    assert not any(k.endswith(".bias") and "norm" not in k for k in state)
    assert {"stem.conv1.weight", "res2.0.shortcut.norm.running_var", "res5.2.conv3.norm.bias"} <= set(state)
    assert state["res3.0.shortcut.weight"].shape == (512, 256, 1, 1)


def test_outputs_are_only_those_asked_for():
    model = build_backbone(resnet_cfg(18, OUT_FEATURES=["res4", "stem"]))
    assert not hasattr(model, "res5"), "a stage that nobody reads takes time and memory"
    out = model(torch.zeros(1, 3, 64, 96))
    assert {k: tuple(v.shape) for k, v in out.items()} == {"stem": (1, 64, 16, 24), "res4": (1, 256, 4, 6)}
    assert set(model.output_shape()) == {"stem", "res4"}


@pytest.mark.parametrize("height, width", [(1, 1), (31, 33), (64, 65)])
def test_any_size_is_rounded_up(height, width):
    out = build_backbone(resnet_cfg(18)).eval()(torch.zeros(1, 3, height, width))
    for i, name in enumerate(FEATURES):
        stride = 4 * 2**i
        assert out[name].shape[2:] == (-(-height // stride), -(-width // stride))


def test_stride_is_in_the_layer_that_the_config_says():
    for in_1x1 in (True, False):
        block = build_backbone(resnet_cfg(50, STRIDE_IN_1X1=in_1x1)).res3[0]
        assert (block.conv1.stride, block.conv2.stride) == (((2, 2), (1, 1)) if in_1x1 else ((1, 1), (2, 2)))
        assert block.shortcut.stride == (2, 2)


def test_dilated_res5_keeps_the_size_of_res4():
    model = build_backbone(resnet_cfg(50, RES5_DILATION=2)).eval()
    out = model(torch.zeros(1, 3, 64, 64))
    assert out["res5"].shape == (1, 2048, 4, 4) and model.output_shape()["res5"].stride == 16
    assert all(block.conv2.dilation == (2, 2) for block in model.res5)


def test_resnext():
    model = build_backbone(resnet_cfg(50, NUM_GROUPS=32, WIDTH_PER_GROUP=8))
    assert model.res2[0].conv2.weight.shape == (256, 8, 3, 3) and model.res2[0].conv2.groups == 32


@pytest.mark.parametrize(
    "depth, key, value",
    [(18, "RES2_OUT_CHANNELS", 256), (34, "NUM_GROUPS", 32), (18, "RES5_DILATION", 2), (50, "RES5_DILATION", 3)],
)
def test_settings_that_do_not_fit_are_refused(depth, key, value):
    with pytest.raises((ValueError, AssertionError)):
        build_backbone(resnet_cfg(depth, **{key: value}))


def test_unknown_depth_and_feature_are_refused():
    with pytest.raises((ValueError, KeyError)):
        build_backbone(resnet_cfg(50, DEPTH=51))
    with pytest.raises((ValueError, AssertionError)):
        build_backbone(resnet_cfg(18, OUT_FEATURES=["res5", "p6"]))


def test_convolutions_begin_with_the_scale_of_he_et_al():
    """Standard deviation sqrt(2 / (output channels x kernel area)): signals keep their size through 50 layers."""
    torch.manual_seed(0)
    model = build_backbone(resnet_cfg(50))
    for name, conv in model.named_modules():
        if isinstance(conv, nn.Conv2d):
            expected = (2 / (conv.out_channels * conv.kernel_size[0] * conv.kernel_size[1])) ** 0.5
            assert abs(float(conv.weight.detach().std()) / expected - 1) < 0.05, name


@pytest.mark.parametrize("norm", ["FrozenBN", "BN", "SyncBN", "GN", "LN"])
def test_every_norm_trains_on_the_cpu(norm):
    model = build_backbone(resnet_cfg(18, NORM=norm)).train()
    loss = sum(v.mean() for v in model(torch.randn(2, 3, 64, 64)).values())
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


# Freezing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("freeze_at", range(6))
def test_freezing_stops_at_the_named_stage(freeze_at):
    model = build_backbone(resnet_cfg(18, freeze_at, NORM="BN"))
    for level, name in enumerate(["stem", *FEATURES], start=1):
        frozen = freeze_at >= level
        part = getattr(model, name)
        assert (not trainable(part)) == frozen, name
        norms = [m for m in part.modules() if isinstance(m, (FrozenBatchNorm2d, nn.BatchNorm2d))]
        assert norms and all(isinstance(m, FrozenBatchNorm2d) == frozen for m in norms), name


@pytest.mark.parametrize("freeze_at, count", [(0, 53), (1, 52), (2, 42)])
def test_trainable_parameters_of_r50(freeze_at, count):
    assert len(trainable(build_backbone(resnet_cfg(50, freeze_at)))) == count


def counts_of_frozen_norms(model: nn.Module) -> list[str]:
    keys = [f"{name}.num_batches_tracked" for name, m in model.named_modules() if isinstance(m, FrozenBatchNorm2d)]
    return [key for key in keys if key in model.state_dict()]


@pytest.mark.parametrize(
    "depth, norm, freeze_at, count", [(18, "BN", 1, 1), (50, "SyncBN", 2, 11), (50, "FrozenBN", 2, 0)]
)
def test_frozen_stages_keep_the_keys_of_their_norms(depth, norm, freeze_at, count):
    """The genuine package has these keys, so checkpoints from there have them too."""
    assert len(counts_of_frozen_norms(build_backbone(resnet_cfg(depth, freeze_at, NORM=norm)))) == count


@standin_only  # the genuine package warns of the missing key, which plays no part
def test_a_checkpoint_from_before_these_keys_were_kept_loads_quietly(tmp_path, caplog):
    model = build_backbone(resnet_cfg(18, 2, NORM="BN"))
    keys = counts_of_frozen_norms(model)
    older = {name: value for name, value in model.state_dict().items() if name not in keys}
    torch.save({"model": older}, tmp_path / "older.pth")
    with caplog.at_level("WARNING"):
        result = DetectionCheckpointer(model).load(str(tmp_path / "older.pth"))
    assert keys and result == {} and not caplog.records


# Registries ----------------------------------------------------------------------------------------------------------


def test_resnet_takes_its_channels_from_the_pixel_mean():
    cfg = resnet_cfg(18)
    cfg.MODEL.PIXEL_MEAN = [0.0]
    assert build_backbone(cfg).stem.conv1.in_channels == 1
    assert build_resnet_backbone(cfg, ShapeSpec(channels=6)).stem.conv1.in_channels == 6
    assert "build_resnet_backbone" in BACKBONE_REGISTRY


@pytest.fixture
def registered():
    """Register something under a name for one test."""
    added = []

    def register(registry, thing):
        registry.register(thing)
        added.append((registry, thing.__name__))

    yield register
    for registry, name in added:
        registry._obj_map.pop(name)


def test_a_backbone_must_be_a_backbone(registered):
    def not_a_backbone(cfg, input_shape):
        return nn.Identity()

    registered(BACKBONE_REGISTRY, not_a_backbone)
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = "not_a_backbone"
    with pytest.raises(AssertionError):
        build_backbone(cfg)
    with pytest.raises(TypeError):
        Backbone()


def test_models_are_built_by_name_on_the_device(registered):
    class TinyModel(nn.Module):
        def __init__(self, cfg):
            super().__init__()
            self.layer = nn.Linear(2, 2)

    registered(META_ARCH_REGISTRY, TinyModel)
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "TinyModel"
    cfg.MODEL.DEVICE = "cpu"
    assert type(build_model(cfg)) is TinyModel
    cfg.MODEL.DEVICE = "meta"
    assert build_model(cfg).layer.weight.device.type == "meta"
    cfg.MODEL.META_ARCHITECTURE = "NoSuchModel"
    with pytest.raises(KeyError, match="NoSuchModel"):
        build_model(cfg)


def test_heads_get_the_config_and_the_shapes(registered):
    class RecordingHead(nn.Module):
        def __init__(self, cfg, input_shape):
            super().__init__()
            self.seen = cfg, input_shape

    registered(SEM_SEG_HEADS_REGISTRY, RecordingHead)
    cfg, shape = get_cfg(), {"res2": ShapeSpec(channels=4, stride=4)}
    cfg.MODEL.SEM_SEG_HEAD.NAME = "RecordingHead"
    assert build_sem_seg_head(cfg, shape).seen == (cfg, shape)


# After and before the model ------------------------------------------------------------------------------------------


def test_scores_are_cropped_before_they_are_resized():
    """Padding that bled into the result would shift every prediction of a non-square image."""
    scores = torch.full((2, 8, 8), 100.0)
    scores[:, :4, :6] = torch.arange(6.0)
    out = sem_seg_postprocess(scores, (4, 6), 8, 12)
    assert out.shape == (2, 8, 12)
    # Twice as wide, half-pixel centers: 0, 1/4, 3/4, 5/4, ...
    expected = [max(0.0, min(5.0, i / 2 - 0.25)) for i in range(12)]
    assert np.allclose(out[0, 3].numpy(), expected, atol=1e-6)
    assert torch.allclose(sem_seg_postprocess(scores, (4, 6), 4, 6), scores[:, :4, :6])


def tta_cfg(min_sizes, flip):
    cfg = get_cfg()
    cfg.TEST.AUG.MIN_SIZES, cfg.TEST.AUG.MAX_SIZE, cfg.TEST.AUG.FLIP = min_sizes, 60, flip
    return cfg


@pytest.mark.parametrize("flip", [False, True])
def test_views_of_an_image(flip):
    image = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    dataset_dict = {"image": image, "height": 20, "width": 30, "file_name": "a.jpg"}
    views = DatasetMapperTTA(tta_cfg((20, 10, 100), flip))(dataset_dict)
    sizes = [(20, 30), (10, 15), (40, 60)]  # the last one is limited by the longer side
    sizes = [s for s in sizes for _ in range(1 + flip)]
    assert [tuple(v["image"].shape[1:]) for v in views] == sizes
    assert all(v["image"].dtype == torch.uint8 and v["file_name"] == "a.jpg" for v in views)
    assert torch.equal(views[0]["image"], image)
    if flip:
        assert torch.equal(views[1]["image"], image.flip(2))
    assert torch.equal(dataset_dict["image"], image) and "transforms" not in dataset_dict


def test_views_know_the_way_from_the_original_size():
    """Boxes and scores of a view are mapped back with its transforms."""
    dataset_dict = {"image": torch.zeros(3, 20, 30, dtype=torch.uint8), "height": 40, "width": 60}
    plain, flipped = DatasetMapperTTA(tta_cfg((10,), True))(dataset_dict)
    corners = np.array([[0.0, 0.0], [60.0, 40.0]])
    assert plain["transforms"].apply_coords(corners.copy()).tolist() == [[0, 0], [15, 10]]
    assert flipped["transforms"].apply_coords(corners.copy()).tolist() == [[15, 0], [0, 10]]
    assert np.allclose(flipped["transforms"].inverse().apply_coords(np.array([[15.0, 0.0]])), [[0, 0]])


def test_resnet_takes_its_options_by_place_as_the_genuine_one():
    """Code that builds a ResNet by hand gives them so."""
    stages = [[BasicBlock(64, 64)], [BasicBlock(64, 128, stride=2)]]
    net = ResNet(BasicStem(), stages, None, ["res2"], 1)
    assert list(net.output_shape()) == ["res2"]
    assert trainable(net) and not trainable(net.stem)
