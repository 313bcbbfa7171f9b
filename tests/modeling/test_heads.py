"""Heads: every way to wire them that a config can ask for, and names of old checkpoints."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_sem_seg_head

import PADing.modeling  # noqa: F401  registers
from PADing.config import load_config
from PADing.errors import UserError

SHAPES = {f"res{i}": ShapeSpec(channels=8 * i, stride=2**i) for i in (2, 3, 4, 5)}
HEAD, NODE = "MODEL.SEM_SEG_HEAD.", "MODEL.MASK_FORMER."
SMALL = [HEAD + "IN_FEATURES", list(SHAPES), HEAD + "CONVS_DIM", 32, HEAD + "MASK_DIM", 16, NODE + "HIDDEN_DIM", 32]
SMALL += [NODE + "DIM_FEEDFORWARD", 40, NODE + "DEC_LAYERS", 3, NODE + "NHEADS", 4, NODE + "DROPOUT", 0.0]
SMALL += [HEAD + "NUM_CLASSES", 6, NODE + "NUM_OBJECT_QUERIES", 6, HEAD + "TRANSFORMER_ENC_LAYERS", 1]


def _head(name, *opts):
    torch.manual_seed(0)
    return build_sem_seg_head(load_config("", [HEAD + "NAME", name, *SMALL, *opts]), SHAPES)


def _features(batch=2):
    g = torch.Generator().manual_seed(1)
    return {n: torch.randn(batch, s.channels, 64 // s.stride, 96 // s.stride, generator=g) for n, s in SHAPES.items()}


@pytest.mark.parametrize(
    ("decoder", "source", "pixel_decoder"),
    [
        ("MultiScaleMaskedTransformerDecoder", "multi_scale_pixel_decoder", "MSDeformAttnPixelDecoder"),
        ("MultiScaleMaskedTransformerDecoder", "multi_scale_pixel_decoder", "BasePixelDecoder"),
        ("StandardTransformerDecoder", "transformer_encoder", "TransformerEncoderPixelDecoder"),
        ("StandardTransformerDecoder", "pixel_embedding", "BasePixelDecoder"),
        ("StandardTransformerDecoder", "res5", "BasePixelDecoder"),
    ],
)
def test_wirings(decoder, source, pixel_decoder):
    opts = [NODE + "TRANSFORMER_DECODER_NAME", decoder, NODE + "TRANSFORMER_IN_FEATURE", source]
    head = _head("MaskFormerHead", *opts, HEAD + "PIXEL_DECODER_NAME", pixel_decoder)
    outputs = head(_features())
    assert outputs["pred_logits"].shape == (2, 6, 7) and outputs["pred_masks"].shape == (2, 6, 16, 24)
    assert {key.split(".")[0] for key in head.state_dict()} == {"pixel_decoder", "predictor"}


def test_wrong_wirings_are_explained():
    decoder = [NODE + "TRANSFORMER_DECODER_NAME", "StandardTransformerDecoder"]
    with pytest.raises(UserError, match="IN_FEATURES names res9"):
        _head("MaskFormerHead", HEAD + "IN_FEATURES", ["res2", "res9"])
    with pytest.raises(UserError, match="Standrad.*StandardTransformerDecoder"):
        _head("MaskFormerHead", NODE + "TRANSFORMER_DECODER_NAME", "StandradTransformerDecoder")
    with pytest.raises(UserError, match="BasePixl.*BasePixelDecoder"):
        _head("MaskFormerHead", HEAD + "PIXEL_DECODER_NAME", "BasePixlDecoder")
    with pytest.raises(UserError, match="TRANSFORMER_IN_FEATURE.*res5"):
        _head("MaskFormerHead", *decoder, NODE + "TRANSFORMER_IN_FEATURE", "res7")
    head = _head("MaskFormerHead", *decoder, NODE + "TRANSFORMER_IN_FEATURE", "transformer_encoder")
    with pytest.raises(UserError, match="no transformer encoder"):
        head(_features())


@pytest.mark.parametrize("name", ["PerPixelBaselineHead", "PerPixelBaselinePlusHead"])
def test_per_pixel_baselines(name):
    opts = [NODE + "TRANSFORMER_DECODER_NAME", "StandardTransformerDecoder", NODE + "TRANSFORMER_IN_FEATURE", "res5"]
    head = _head(name, *opts).train()
    targets = torch.randint(0, 6, (2, 64, 96))
    targets[:, :8] = 255
    nothing, losses = head(_features(), targets)
    names = {"loss_sem_seg"} | ({"loss_sem_seg_0", "loss_sem_seg_1"} if "Plus" in name else set())
    assert nothing is None and set(losses) == names
    sum(losses.values()).backward()
    assert [n for n, p in head.named_parameters() if p.grad is None] == []
    scores, losses = head.eval()(_features())
    assert scores.shape == (2, 6, 64, 96) and losses == {}
    targets[:] = scores.argmax(1)
    targets[:, :8] = 255
    ignored = targets.clone()
    ignored[:, :8] = 3
    right, wrong = (head.train()(_features(), t)[1]["loss_sem_seg"] for t in (targets, ignored))
    assert right != wrong, "pixels without annotation count"


def test_one_query_for_each_class():
    with pytest.raises(UserError, match="NUM_OBJECT_QUERIES"):
        _head("PerPixelBaselinePlusHead", NODE + "NUM_OBJECT_QUERIES", 7)


@pytest.mark.parametrize("name", ["MaskFormerHead", "PerPixelBaselineHead"])
def test_old_names(name):
    """Old MaskFormer files have the pixel decoder's weights directly under the head."""
    opts = [NODE + "TRANSFORMER_DECODER_NAME", "StandardTransformerDecoder", NODE + "TRANSFORMER_IN_FEATURE", "res5"]
    head = _head(name, *opts)
    state = {k.replace("pixel_decoder.", "", 1): torch.rand_like(v) for k, v in head.state_dict().items()}
    assert head.load_state_dict(state) is not None
    for key, value in head.state_dict().items():
        assert torch.equal(value, state[key.replace("pixel_decoder.", "", 1)])
