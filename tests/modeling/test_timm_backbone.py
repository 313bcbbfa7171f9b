"""A model of timm as a backbone: maps of the right strides from any image, frozen parts, rates of layers, weights."""

import pytest
import torch
from detectron2.modeling import build_backbone, build_model
from torch.nn import functional as F

from PADing.config import load_config
from PADing.engine.backbone_weights import load_backbone_weights
from PADing.engine.optimizers import parameter_groups
from PADing.errors import UserError
from PADing.files import REPOSITORY
from PADing.modeling.backbone.timm_models import timm_library
from tests.meta_arch.small import small_batch, small_config

CONFIGS = sorted((REPOSITORY / "configs" / "panoptic-segmentation").glob("pretrain_*.yaml"))
BACKBONE = ["MODEL.BACKBONE.NAME", "TimmBackbone", "MODEL.DEVICE", "cpu", "MODEL.TIMM.NAME"]


def backbone(name, *opts):
    skip_if_too_new(name)
    torch.manual_seed(0)
    return build_backbone(load_config("", [*BACKBONE, name, *opts]))


def skip_if_too_new(name):
    """The first two are not in older versions of timm, and the others have no feature maps there."""
    version = tuple(map(int, timm_library().__version__.split(".")[:3]))
    if name in ("test_maxvit", "test_coatnet", "dla46x_c", "hrnet_w18_small") and version < (1, 0, 31):
        pytest.skip(f"not with timm {timm_library().__version__}")


# A convolutional net, a plain ViT, windows that divide the image, positions for one image size, patches of 14 pixels,
# stages that are parallel.
@pytest.mark.parametrize(
    "name",
    ["test_resnet", "test_vit", "test_maxvit", "test_coatnet", "vit_tiny_patch14_reg4_dinov2.x", "hrnet_w18_small"],
)
def test_maps_of_four_strides_from_any_image(name, monkeypatch):
    if name.endswith(".x"):
        name = "vit_little_patch16_reg4_gap_256"  # registers; its patches become 14 pixels
        create = timm_library().create_model
        monkeypatch.setattr(timm_library(), "create_model", lambda n, **k: create(n, **{"patch_size": 14, **k}))
    model = backbone(name)
    outputs = model(torch.randn(2, 3, 50, 75))
    for level, spec in model.output_shape().items():
        assert outputs[level].shape == (2, spec.channels, -(-50 // spec.stride), -(-75 // spec.stride)), level
    assert [spec.stride for spec in model.output_shape().values()] == [4, 8, 16, 32]
    sum(x.square().mean() for x in outputs.values()).backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None], "unused parameters stop several GPUs"


def test_numbers_are_those_of_timm():
    """Padding, pruning and cropping change nothing: the same maps as timm's own extraction of features."""
    model = backbone("test_convnext").eval()
    own = timm_library().create_model("test_convnext", features_only=True, feature_cls="getter").eval()
    own.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 96)
    for got, want in zip(model(x).values(), own(x), strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_coatnet"])
def test_maps_of_any_size_lie_where_the_image_lies(name):
    """Of a padded image the padding is cut off; those of an image that was resized to a fixed size are resized back."""
    model, x = backbone(name).eval(), torch.randn(1, 3, 50, 75)
    fixed = model.plan.fixed
    assert bool(fixed) == (name == "test_coatnet")
    whole = _resized(x, (fixed, fixed), antialias=True) if fixed else F.pad(x, (0, 96 - 75, 0, 64 - 50))
    for level, want in model(whole).items():
        got = model(x)[level]
        want = _resized(want, got.shape[-2:]) if fixed else want[..., : got.shape[-2], : got.shape[-1]]
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def _resized(x, size, **more):
    return F.interpolate(x, size, mode="bilinear", align_corners=False, **more)


def test_each_level_of_a_vit_may_have_its_own_block():
    model = backbone("test_vit", "MODEL.TIMM.OUT_INDICES", [1, 2, 3, 5])
    assert list(model(torch.randn(1, 3, 32, 64))) == ["res2", "res3", "res4", "res5"]
    with pytest.raises(UserError, match="one index, or four that ascend"):
        backbone("test_vit", "MODEL.TIMM.OUT_INDICES", [1, 2])


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "dla46x_c"])
def test_frozen_parts_grow_and_stay_in_evaluation_mode(name):
    """FROZEN 1 to 5 freezes more and more; batch norms there keep their statistics; the last stage trains until 5."""
    frozen = []
    for level in range(6):
        model = backbone(name, "MODEL.TIMM.FROZEN", level).train()
        frozen.append({key for key, p in model.model.named_parameters() if not p.requires_grad})
        before = {key: value.clone() for key, value in model.state_dict().items() if "running" in key}
        model(torch.randn(2, 3, 64, 64))
        changed = {key for key, value in before.items() if not torch.equal(value, model.state_dict()[key])}
        still = {f"model.{key.rpartition('.')[0]}" for key in frozen[-1]}
        assert not {key.rpartition(".")[0] for key in changed} & still
        assert bool(changed) == (name != "test_vit" and level < 5)
    assert all(a <= b for a, b in zip(frozen, frozen[1:], strict=False)) and frozen[1] < frozen[3] < frozen[5]
    assert frozen[5] == {key for key, _ in model.model.named_parameters()} and not frozen[0]
    if model.pyramid is not None:
        assert all(p.requires_grad for p in model.pyramid.parameters())


def test_a_model_that_does_not_tell_its_stages_is_frozen_whole_or_not_at_all():
    with pytest.raises(UserError, match=r"FROZEN is 2, .* stages of hrnet_w18_small: .* Set it to 0, or to 5"):
        backbone("hrnet_w18_small", "MODEL.TIMM.FROZEN", 2)
    assert not any(p.requires_grad for p in backbone("hrnet_w18_small", "MODEL.TIMM.FROZEN", 5).parameters())


def test_batch_norms_alone_can_be_frozen():
    model = backbone("test_resnet", "MODEL.TIMM.FREEZE_BATCH_NORM", True).train()
    before = {key: value.clone() for key, value in model.state_dict().items() if "running" in key}
    model(torch.randn(2, 3, 64, 64))
    assert before and all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    assert model.model.layer1[0].conv1.weight.requires_grad and not model.model.bn1.weight.requires_grad


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_checkpointing_computes_again_with_the_same_gradient(name):
    x, gradients, calls = torch.randn(1, 3, 32, 32), [], []
    for wanted in (False, True):
        model = backbone(name, "MODEL.TIMM.USE_CHECKPOINT", wanted)
        block = next(module for module in model.modules() if type(module).__name__ in ("Block", "ConvNeXtBlock"))
        calls.append([])
        next(block.children()).register_forward_pre_hook(lambda *_, seen=calls[-1]: seen.append(1))
        sum(y.square().mean() for y in model(x).values()).backward()
        gradients.append([p.grad for p in model.parameters()])
    assert len(calls[1]) > len(calls[0]), "blocks are computed again in the backward pass"
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_layers_have_rates_by_depth_and_the_pyramid_that_of_the_head():
    """By hand: test_vit has a stem, six blocks and a last norm, so the stem is six steps below the last block."""
    opts = [*BACKBONE, "test_vit", "SOLVER.BACKBONE_LAYER_DECAY", 0.5, "SOLVER.BACKBONE_MULTIPLIER", 0.1]
    cfg = small_config(*opts, "SOLVER.BASE_LR", 1.0, "SOLVER.WEIGHT_DECAY", 0.05)
    model = build_model(cfg)
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {names[id(g["params"][0])]: g for g in parameter_groups(cfg, model)}
    rate = {name: group["lr"] for name, group in groups.items()}
    assert rate["backbone.model.norm.weight"] == pytest.approx(0.1)
    assert rate["backbone.model.blocks.5.attn.qkv.weight"] == pytest.approx(0.1)
    assert rate["backbone.model.blocks.4.attn.qkv.weight"] == pytest.approx(0.05)
    assert rate["backbone.model.patch_embed.proj.weight"] == pytest.approx(0.1 * 0.5**6)
    assert rate["backbone.pyramid.res2.0.weight"] == rate["sem_seg_head.predictor.class_embed.weight"] == 1.0
    assert groups["backbone.model.pos_embed"]["weight_decay"] == 0
    assert groups["backbone.model.blocks.0.attn.qkv.weight"]["weight_decay"] == 0.05


def test_layer_decay_needs_a_backbone_that_knows_its_layers():
    cfg = small_config("SOLVER.BACKBONE_LAYER_DECAY", 0.5)
    with pytest.raises(UserError, match="build_resnet_backbone does not tell its layers"):
        parameter_groups(cfg, build_model(cfg))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_coatnet"])
def test_mask_former_learns_with_it(name):
    """Ten iterations on one batch lower the loss, whatever the backbone is."""
    skip_if_too_new(name)
    torch.manual_seed(0)
    model = build_model(small_config(*BACKBONE, name)).train()
    optimizer, batch, losses = torch.optim.Adam(model.parameters(), 1e-3), small_batch(), []
    for _ in range(10):
        loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


# ---- what the config says of pixels


def test_pixels_are_as_the_model_expects_unless_the_user_says_so():
    opts = [*BACKBONE, "test_vit"]  # trained on values from -1 to 1
    base = REPOSITORY / "configs" / "mini" / "Base.yaml"
    cfg = load_config(base, opts)
    assert cfg.MODEL.PIXEL_MEAN == cfg.MODEL.PIXEL_STD == [127.5] * 3 and cfg.INPUT.FORMAT == "RGB"
    with pytest.raises(UserError, match=r"PIXEL_MEAN is \[1.0, 2.0, 3.0\].* made for \[127.5.*NORMALIZATION config"):
        load_config(base, [*opts, "MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0]])
    with pytest.raises(UserError, match="INPUT.FORMAT is BGR"):
        load_config(base, [*opts, "INPUT.FORMAT", "BGR"])
    cfg = load_config(base, [*opts, "MODEL.PIXEL_MEAN", [1.0, 2.0, 3.0], "MODEL.TIMM.NORMALIZATION", "config"])
    assert cfg.MODEL.PIXEL_MEAN == [1.0, 2.0, 3.0] and cfg.MODEL.PIXEL_STD == [58.395, 57.12, 57.375]


@pytest.mark.parametrize(
    "opts, message",
    [
        (["MODEL.TIMM.NAME", "convnxt_tiny"], "'convnxt_tiny', which .* .did you mean convnext_tiny"),
        (["MODEL.TIMM.NAME", ""], "such as resnet50"),
        (["MODEL.TIMM.NAME", "../vit"], "does not have"),
        (["MODEL.TIMM.NAME", "convnext_tiny.mine"], "no tag 'mine'. There are: .*fb_in1k"),
        (["MODEL.TIMM.NAME", "test_vit", "MODEL.TIMM.OUT_INDICES", [99]], "features 0 to 5, all of stride 16"),
        (["MODEL.TIMM.NAME", "test_resnet", "MODEL.TIMM.OUT_INDICES", [4, 3]], "different strides"),
        (["MODEL.TIMM.NAME", "vgg11", "MODEL.TIMM.DROP_PATH", 0.1], "no stochastic depth"),
        # Older versions of timm have no feature maps of VGG.
        (["MODEL.TIMM.NAME", "vgg11", "MODEL.TIMM.USE_CHECKPOINT", True], "cannot recompute|gives no feature maps"),
    ],
)
def test_mistakes_are_named(opts, message):
    skip_if_too_new(opts[1])
    with pytest.raises(UserError, match=message):
        build_backbone(load_config("", ["MODEL.BACKBONE.NAME", "TimmBackbone", "MODEL.DEVICE", "cpu", *opts]))


# ---- weights


def test_weights_come_from_a_file_without_network(tmp_path):
    """A file of timm has a classifier, which is left out; ours has a prefix; another model's is refused."""
    torch.manual_seed(3)
    whole = timm_library().create_model("test_vit")
    torch.save(whole.state_dict(), tmp_path / "vit.pth")
    opts = [*BACKBONE, "test_vit", "MODEL.TIMM.WEIGHTS"]
    cfg = small_config(*opts, tmp_path / "vit.pth")
    model = build_model(cfg)
    load_backbone_weights(cfg, model)
    for key, value in model.backbone.model.state_dict().items():
        torch.testing.assert_close(value, whole.state_dict()[key])

    torch.save({"model": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "segmenter.pth")
    other = build_model(cfg)
    load_backbone_weights(small_config(*opts, tmp_path / "segmenter.pth"), other)
    torch.testing.assert_close(other.backbone.model.norm.weight, model.backbone.model.norm.weight)

    torch.save(timm_library().create_model("test_resnet").state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(UserError, match=r"resnet.pth'.* are not those of timm's test_vit"):
        load_backbone_weights(small_config(*opts, tmp_path / "resnet.pth"), other)
    torch.save(timm_library().create_model("test_vit2").state_dict(), tmp_path / "vit2.pth")
    with pytest.raises(UserError, match="test_vit"):
        load_backbone_weights(small_config(*opts, tmp_path / "vit2.pth"), other)
    with pytest.raises(UserError, match="do not exist"):
        load_backbone_weights(small_config(*opts, tmp_path / "none.pth"), other)


def test_no_network_is_told_with_the_way_out(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cfg = small_config(*BACKBONE, "test_vit", "MODEL.TIMM.PRETRAINED", True)
    with pytest.raises(UserError, match="cannot be downloaded.*huggingface.co/timm/test_vit.*MODEL.TIMM.WEIGHTS"):
        load_backbone_weights(cfg, build_model(cfg))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_build(config):
    """Also that of stage 2 loads. The weights are those of the model's size, so shapes are enough."""
    cfg = load_config(config, ["MODEL.DEVICE", "meta", "MODEL.TIMM.DROP_PATH", 0.0])
    with torch.device("meta"):
        model = build_backbone(cfg)
    assert [spec.stride for spec in model.output_shape().values()] == [4, 8, 16, 32]
    second = load_config(config.with_name(config.name.replace("pretrain", "PADing")))
    assert second.MODEL.TIMM.NAME == cfg.MODEL.TIMM.NAME and second.MODEL.META_ARCHITECTURE == "PADing"
