"""Swin has the published names and sizes, works for images of any size, and its shifted windows stay neighbours."""

import pytest
import torch
from detectron2.modeling import build_backbone

import PADing.modeling  # noqa: F401  registers
from PADing.config import load_config
from PADing.errors import UserError
from PADing.modeling.backbone.swin import DropPath, SwinTransformerBlock


def _swin(*opts):
    torch.manual_seed(0)
    opts = ["MODEL.BACKBONE.NAME", "D2SwinTransformer", "MODEL.DEVICE", "cpu", *opts]
    return build_backbone(load_config("", opts))


SMALL = ["MODEL.SWIN.EMBED_DIM", 12, "MODEL.SWIN.DEPTHS", [2, 2, 2, 2], "MODEL.SWIN.NUM_HEADS", [1, 2, 2, 3]]
SMALL += ["MODEL.SWIN.WINDOW_SIZE", 4]


def _sizes(window):
    return load_config("", ["MODEL.SWIN.WINDOW_SIZE", window, "MODEL.SWIN.MLP_RATIO", 2.0]).MODEL.SWIN


def test_names_and_size_of_swin_tiny():
    """Swin-T for ImageNet has 28 288 354 parameters, 769 000 of them the classifier and 1536 the last norm."""
    model = _swin()
    norms = 2 * (96 + 192 + 384 + 768)
    assert sum(p.numel() for p in model.parameters()) == 28_288_354 - 769_000 - 1536 + norms
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert shapes["patch_embed.proj.weight"] == (96, 3, 4, 4)
    assert shapes["layers.0.blocks.1.attn.relative_position_bias_table"] == (169, 3)
    assert shapes["layers.0.blocks.1.attn.relative_position_index"] == (49, 49)
    assert shapes["layers.2.blocks.5.attn.qkv.weight"] == (1152, 384)
    assert shapes["layers.2.downsample.reduction.weight"] == (768, 1536)
    assert shapes["layers.3.blocks.0.mlp.fc1.bias"] == (3072,)
    assert shapes["norm3.weight"] == (768,)
    assert not any("attn_mask" in key for key in shapes)


@pytest.mark.parametrize("size", [(64, 96), (70, 101), (33, 40)])
def test_outputs_of_any_image_size(size):
    model = _swin(*SMALL, "MODEL.SWIN.APE", True).eval()
    features = model(torch.randn(2, 3, *size))
    for name, spec in model.output_shape().items():
        want = tuple(-(-s // spec.stride) for s in size)
        assert features[name].shape == (2, spec.channels, *want)


def test_recomputing_activations_changes_no_gradient():
    x, grads = torch.randn(1, 3, 40, 48), []
    for on in (False, True):
        model = _swin(*SMALL, "MODEL.SWIN.USE_CHECKPOINT", on, "MODEL.SWIN.DROP_PATH_RATE", 0.0).train()
        sum(y.square().mean() for y in model(x).values()).backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_a_shifted_window_does_not_reach_around_the_image():
    """Rolling brings opposite borders together; without the mask a sky would attend to the ground."""
    torch.manual_seed(0)
    block = SwinTransformerBlock(_sizes(window=4), 8, 2, shifted=True, drop_path=0.0).eval()
    x = torch.randn(1, 8, 8, 8)
    changed = x.clone()
    changed[:, 0, 0] = 10 * torch.randn(8)
    difference = (block(x) - block(changed)).abs().sum(-1)[0] > 1e-5
    assert difference[:2, :2].all(), "the window of the changed place sees it"
    assert not difference[2:].any() and not difference[:, 2:].any()


def test_window_attention_by_hand():
    """One window covers the map: attention with a bias looked up by relative position."""
    torch.manual_seed(0)
    block = SwinTransformerBlock(_sizes(window=3), 6, 2, shifted=False, drop_path=0.0).eval()
    attention, x = block.attn, torch.randn(1, 9, 6)
    q, k, v = attention.qkv(x)[0].view(9, 3, 2, 3).permute(1, 2, 0, 3)
    bias = torch.empty(2, 9, 9)
    for i in range(9):
        for j in range(9):
            row, column = i // 3 - j // 3 + 2, i % 3 - j % 3 + 2
            bias[:, i, j] = attention.relative_position_bias_table[row * 5 + column]
    weights = (q @ k.transpose(1, 2) / 3**0.5 + bias).softmax(-1)
    want = attention.proj((weights @ v).transpose(0, 1).reshape(9, 6))
    torch.testing.assert_close(attention(x, None)[0], want)


def test_drop_path_keeps_the_mean():
    torch.manual_seed(0)
    drop, x = DropPath(0.25).train(), torch.ones(4000, 2)
    y = drop(x)
    assert y.unique().tolist() == [0.0, pytest.approx(4 / 3)] and y.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(x), x)


def test_unknown_output_is_refused():
    with pytest.raises(UserError, match="res9"):
        _swin("MODEL.SWIN.OUT_FEATURES", ["res2", "res9"])
