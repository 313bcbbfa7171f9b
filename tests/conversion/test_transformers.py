"""Mask2Former of transformers and ours: the same outputs with the same weights, which convert in both directions."""

import json

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import ImageList
from safetensors.torch import load_file

from PADing.conversion.run import convert_to_ours, convert_to_transformers
from PADing.engine.checkpointer import TrainingCheckpointer
from PADing.errors import UserError
from PADing.torchvision_users import import_with_torchvision
from tests.meta_arch.small import small_config

transformers = pytest.importorskip("transformers")
CLASSES = 5


@pytest.fixture(scope="module")
def theirs():
    """A small random model of transformers, in evaluation mode."""
    import_with_torchvision("torchvision")  # transformers imports it, which fails beside another build
    swin = transformers.SwinConfig(
        embed_dim=24, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8], window_size=4, image_size=64,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.Mask2FormerConfig(
        backbone_config=swin, num_labels=CLASSES, decoder_layers=4, encoder_layers=2, feature_size=32,
        mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=64, dim_feedforward=48, num_attention_heads=4,
        num_queries=6,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.Mask2FormerForUniversalSegmentation(config).eval()
    with torch.no_grad():  # biases and tables that begin as zeros would hide a swap
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def converted(theirs, tmp_path_factory):
    """Their file, ours, and the config keys of ours."""
    folder = tmp_path_factory.mktemp("transformers")
    theirs.save_pretrained(folder / "theirs")
    sizes = convert_to_ours("transformers", folder / "theirs" / "model.safetensors", folder / "ours.safetensors")
    return folder, sizes


def test_both_give_the_same_predictions(theirs, converted):
    folder, sizes = converted
    assert sizes["MODEL.SWIN.WINDOW_SIZE"] == 4 and sizes["MODEL.MASK_FORMER.NHEADS"] == 4
    ours = build_model(small_config(*(item for pair in sizes.items() for item in pair))).eval()
    TrainingCheckpointer(ours).load(str(folder / "ours.safetensors"))
    image = torch.randn(1, 3, 160, 224)  # no side of a map is a multiple of the window, and all are longer
    with torch.no_grad():
        want = theirs(pixel_values=image)
        got = ours.segment(ImageList(image, [(160, 224)]))
    torch.testing.assert_close(got["pred_logits"], want.class_queries_logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(got["pred_masks"], want.masks_queries_logits, atol=1e-4, rtol=1e-4)
    assert want.masks_queries_logits.std() > 0.1, "random, but not constant"


def test_there_and_back_is_equal_bit_by_bit(theirs, converted):
    folder, _ = converted
    convert_to_transformers(folder / "ours.safetensors", folder / "again")
    back = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(folder / "again")
    want = theirs.state_dict()
    unused = [name for name in want if "swin.layernorm" in name]  # no output sees it
    for name, value in back.state_dict().items():
        assert name in unused or torch.equal(value, want[name]), name
    assert back.config.num_labels == CLASSES and back.config.num_attention_heads == 4

    convert_to_ours("transformers", folder / "again" / "model.safetensors", folder / "ours_again.safetensors")
    first, second = (load_file(folder / f"{name}.safetensors") for name in ("ours", "ours_again"))
    assert first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


def test_other_models_are_refused(converted, tmp_path):
    folder, _ = converted
    weights = load_file(folder / "ours.safetensors")
    convnet = {name: value for name, value in weights.items() if name.startswith("sem_seg_head.")}
    cases = {
        "belongs to a method": {**weights, "new_fc.weight": torch.zeros(3, 3)},
        "is no Swin": convnet,
        "Swin backbones only": {**convnet, "backbone.stem.conv1.weight": torch.zeros(3)},
        "without a place here: sem_seg_head.more": {**weights, "sem_seg_head.more": torch.zeros(3)},
        "lacks what becomes sem_seg_head.predictor.decoder_norm.bias": {
            key: value for key, value in weights.items() if key != "sem_seg_head.predictor.decoder_norm.bias"
        },
        "has no class head": {key: value for key, value in weights.items() if "class_embed" not in key},
    }
    for message, content in cases.items():
        torch.save({"model": content}, tmp_path / "wrong.pth")
        with pytest.raises(UserError, match=message):
            convert_to_transformers(tmp_path / "wrong.pth", tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
    config = json.loads((folder / "theirs" / "config.json").read_text())
    assert config["model_type"] == "mask2former"
    theirs = load_file(folder / "theirs" / "model.safetensors")
    torn = {key: value for key, value in theirs.items() if "layers.0.blocks.0.attention.self.key.bias" not in key}
    torch.save(torn, tmp_path / "torn.bin")
    with pytest.raises(UserError, match="a part only of what becomes backbone.layers.0.blocks.0.attn.qkv.bias"):
        convert_to_ours("transformers", tmp_path / "torn.bin", tmp_path / "out.pth")
    with pytest.raises(UserError, match="exists. Choose another --output"):
        convert_to_transformers(folder / "ours.safetensors", folder / "theirs")
