"""Pixel decoders: precision under autocast, one graph for compilers, and the maps they promise."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn
from torch.nn import functional as F

from PADing.config import load_config
from PADing.errors import UserError
from PADing.modeling.pixel_decoder import (
    BasePixelDecoder,
    MSDeformAttnPixelDecoder,
    TransformerEncoderPixelDecoder,
    build_pixel_decoder,
)

SHAPES = {f"res{i}": ShapeSpec(channels=8 * i, stride=2**i) for i in (2, 3, 4, 5)}


def _features(batch=2, height=64, width=96):
    g = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(batch, s.channels, height // s.stride, width // s.stride, generator=g)
        for name, s in SHAPES.items()
    }


def _deformable(**changes):
    torch.manual_seed(0)
    arguments = {
        "transformer_dropout": 0.0,
        "transformer_nheads": 4,
        "transformer_dim_feedforward": 48,
        "transformer_enc_layers": 2,
        "conv_dim": 32,
        "mask_dim": 16,
        "norm": "GN",
        "transformer_in_features": ["res3", "res4", "res5"],
        "common_stride": 4,
    }
    return MSDeformAttnPixelDecoder(SHAPES, **{**arguments, **changes})


class _AsModule(nn.Module):
    """``forward_features`` as ``forward``, for compilers."""

    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, features):
        return self.decoder.forward_features(features)


def test_maps():
    mask_features, encoded, levels = _deformable().forward_features(_features())
    assert mask_features.shape == (2, 16, 16, 24)
    assert [tuple(level.shape[1:]) for level in levels] == [(32, 2, 3), (32, 4, 6), (32, 8, 12)]
    assert torch.equal(encoded, levels[0])


def test_other_levels_and_strides():
    """The encoder may see more or fewer maps; then fewer or more FPN steps follow."""
    everything = _deformable(transformer_in_features=["res2", "res3", "res4", "res5"])
    assert not any(name.startswith("adapter") for name, _ in everything.named_modules())
    assert everything.forward_features(_features())[0].shape == (2, 16, 16, 24)
    two = _deformable(transformer_in_features=["res4", "res5"])
    assert {"adapter_1", "layer_1", "adapter_2", "layer_2"} < {name for name, _ in two.named_children()}
    mask_features, _, levels = two.forward_features(_features())
    assert mask_features.shape == (2, 16, 16, 24) and levels[2].shape == (2, 32, 8, 12)


def test_autocast_changes_nothing():
    """Deformable attention in half precision cannot name a pixel of a large map."""
    model, features = _deformable().eval(), _features()
    want = model.forward_features(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = model.forward_features(features)
        half = model.forward_features({k: v.bfloat16() for k, v in features.items()})
    assert torch.equal(got[0], want[0]) and half[0].dtype == torch.float32
    double = _deformable().double().forward_features({k: v.double() for k, v in features.items()})
    torch.testing.assert_close(double[0].float(), want[0], rtol=1e-4, atol=1e-4)


def test_autocast_on_demand_uses_half_precision_but_not_for_the_tokens():
    features = _features()
    exact, mixed = _deformable().eval(), _deformable(autocast=True).eval()
    want = exact.forward_features(features)
    alone = mixed.forward_features(features)
    assert all(torch.equal(a, b) for a, b in zip(alone[2], want[2], strict=True)), "without autocast: as it is"
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = mixed.forward_features({k: v.bfloat16() for k, v in features.items()})
    assert got[0].dtype == torch.bfloat16 and got[1].dtype == torch.float32
    error = (got[0].float() - want[0]).abs().mean() / want[0].abs().mean()
    assert 1e-4 < error < 0.03, "bfloat16 has 8 bits"
    got[0].float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in mixed.mask_features.parameters())


def test_it_is_one_graph():
    """A graph break or a data-dependent shape would take exporting and compiling away from users."""
    model, features = _AsModule(_deformable()), _features()
    want = model(features)[0]
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(features)[0], want)
    compiled(features)[0].sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.dim() > 1 and p.shape[0] == 16)
    if torch.__version__ < "2.5":
        return  # its torch.export fails on regions without autocast
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(model, (features,), dynamic_shapes={"features": {k: {0: batch} for k in features}})
    more = _features(batch=3)
    torch.testing.assert_close(program.module()(more)[0], model(more)[0])


def test_an_image_is_decoded_alone_as_in_a_batch():
    model, features = _deformable().eval(), _features()
    want = model.forward_features(features)
    alone = model.forward_features({k: v[1:] for k, v in features.items()})
    torch.testing.assert_close(alone[0], want[0][1:])


def test_feature_pyramid_by_hand():
    torch.manual_seed(0)
    model, features = BasePixelDecoder(SHAPES, conv_dim=32, mask_dim=16, norm="GN").eval(), _features()
    mask_features, encoded, levels = model.forward_features(features)
    y = model.layer_4(features["res5"])
    want = [y]
    for i, name in ((3, "res4"), (2, "res3"), (1, "res2")):
        lateral = getattr(model, f"adapter_{i}")(features[name])
        y = getattr(model, f"layer_{i}")(lateral + F.interpolate(y, size=lateral.shape[2:], mode="nearest"))
        want.append(y)
    assert encoded is None and all(torch.equal(a, b) for a, b in zip(levels, want[:3], strict=True))
    assert torch.equal(mask_features, model.mask_features(want[3]))


def test_transformer_pyramid_sees_the_whole_coarsest_map():
    torch.manual_seed(0)
    model = TransformerEncoderPixelDecoder(
        SHAPES,
        transformer_dropout=0.0,
        transformer_nheads=4,
        transformer_dim_feedforward=48,
        transformer_enc_layers=1,
        transformer_pre_norm=False,
        conv_dim=32,
        mask_dim=16,
        norm="GN",
    ).eval()
    features = _features(batch=1)
    _, encoded, _ = model.forward_features(features)
    features["res5"] = features["res5"].clone()
    features["res5"][:, :, 0, 0] += torch.randn(SHAPES["res5"].channels)
    assert (model.forward_features(features)[1] - encoded).abs().amax((0, 1)).min() > 0


@pytest.mark.parametrize("name", ["BasePixelDecoder", "TransformerEncoderPixelDecoder", "MSDeformAttnPixelDecoder"])
def test_each_is_built_from_a_config(name):
    head = "MODEL.SEM_SEG_HEAD."
    opts = [head + "PIXEL_DECODER_NAME", name, head + "IN_FEATURES", list(SHAPES), head + "CONVS_DIM", 32]
    opts += [head + "MASK_DIM", 16, head + "TRANSFORMER_ENC_LAYERS", 1]
    model = build_pixel_decoder(load_config("", opts), SHAPES)
    assert model.forward_features(_features())[0].shape == (2, 16, 16, 24)
    assert model.mask_dim == 16
    with pytest.raises(RuntimeError, match="forward_features"):
        model(_features())


def test_a_head_is_no_pixel_decoder():
    class NoDecoder:
        def __init__(self, cfg, shape):
            pass

    from detectron2.modeling import SEM_SEG_HEADS_REGISTRY

    if "NoDecoder" not in SEM_SEG_HEADS_REGISTRY:
        SEM_SEG_HEADS_REGISTRY.register(NoDecoder)
    with pytest.raises(UserError, match="forward_features"):
        build_pixel_decoder(load_config("", ["MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "NoDecoder"]), SHAPES)
