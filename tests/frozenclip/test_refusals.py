"""One clear message for each mistake, before anything starts."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from safetensors.torch import load_file, save_file

from PADing.config import load_config
from PADing.data.clip_models import CONFIG_FILE, ClipModel, clip_source
from PADing.data.embeddings import save_class_embeddings
from PADing.engine.start_check import BUILDING, EVALUATION, start_problems
from PADing.errors import UserError
from tests.frozenclip.conftest import make_clip


def problems(options, *more, kind="convnext", task="panoptic", needs=BUILDING, **keys):
    file, opts = options(kind, task, **keys)
    return start_problems(load_config(file, [*opts, *more]), needs)


def test_the_config_of_the_tests_has_no_mistake(options):
    assert not problems(options)


def vectors(path, drawn, source, width=24):
    numbers = np.random.RandomState(0).randn(len(drawn.classes), width).astype(np.float32)
    save_class_embeddings(path, drawn.classes, numbers, source, ("a {}.",))
    return str(path)


def test_text_embeddings_of_another_source_are_refused_with_the_command_that_makes_them(options, drawn, text, tmp_path):
    word = vectors(tmp_path / "a.npz", drawn, "word vectors glove.txt")
    (found,) = problems(options, MODEL__FROZENCLIP__CLASS_EMBEDDINGS=word)
    assert "come from another source (word vectors glove.txt) than the image encoder (CLIP convnext, weights" in found
    assert "tools/class_embeddings.py clip --model" in found and "MODEL.FROZENCLIP.CLASS_EMBEDDINGS" in found
    (found,) = problems(options, MODEL__FROZENCLIP__CLASS_EMBEDDINGS=str(text.resnet))
    assert "than the image encoder" in found


def test_a_model_of_the_same_name_with_other_weights_is_another_source(options, clips, text, tmp_path):
    """Two trainings of a small CLIP write the same names; their embeddings do not belong together."""
    other = make_clip(tmp_path / "convnext", "convnext", seed=1)
    (found,) = problems(options, MODEL__FROZENCLIP__NAME=str(other))
    assert "than the image encoder" in found
    shutil.copytree(clips.convnext, tmp_path / "copy" / "convnext")
    assert not problems(options, MODEL__FROZENCLIP__NAME=str(tmp_path / "copy" / "convnext"))


def test_a_file_that_is_not_made_yet_comes_with_the_command_for_this_clip(options):
    """The usual command would make vectors of another CLIP, which are refused afterwards."""
    (problem,) = problems(options, "MODEL.FROZENCLIP.CLASS_EMBEDDINGS", "absent.npz")
    assert "Class embeddings absent.npz do not exist" in problem
    assert "class_embeddings.py clip --model " in problem and "--output absent.npz" in problem


def test_another_number_of_dimensions(options, clips, drawn, tmp_path):
    path = vectors(tmp_path / "a.npz", drawn, clip_source(str(clips.convnext), "", None, "fp32"), width=25)
    (found,) = problems(options, MODEL__FROZENCLIP__CLASS_EMBEDDINGS=path)
    assert "have 25 dimensions, but CLIP convnext has 24" in found


def test_missing_classes_are_named(options, clips, drawn, tmp_path):
    path, source = tmp_path / "a.npz", clip_source(str(clips.convnext), "", None, "fp32")
    save_class_embeddings(path, drawn.classes[2:], np.ones((len(drawn.classes) - 2, 24)), source)
    (found,) = problems(options, MODEL__FROZENCLIP__CLASS_EMBEDDINGS=str(path))
    assert all(name in found for name in drawn.classes[:2])


@pytest.mark.parametrize(
    "name, message",
    [
        ("", "MODEL.FROZENCLIP.NAME has no name"),
        ("convnext_basew", "did you mean convnext_base"),
        ("./no/such/folder", "is no folder of a CLIP model"),
        ("ViT-B-32", "gives no maps to pool: it is a plain ViT"),
    ],
)
def test_wrong_names(options, name, message):
    file, opts = options(MODEL__FROZENCLIP__NAME=name)
    with pytest.raises(UserError, match=message):
        build_model(load_config(file, [*opts, "MODEL.META_ARCHITECTURE", "MaskFormer"]))


@pytest.mark.parametrize("key, value", [("ALPHA", -0.1), ("ALPHA", 1.5), ("BETA", 2)])
def test_exponents_are_shares(options, key, value):
    (found,) = problems(options, **{f"MODEL__FROZENCLIP__{key}": value})
    assert f"MODEL.FROZENCLIP.{key} is" in found and "from 0 to 1" in found


def test_parts_that_do_not_belong_together(options):
    (found,) = problems(options, "MODEL.BACKBONE.NAME", "build_resnet_backbone")
    assert "Set MODEL.BACKBONE.NAME FrozenCLIPBackbone" in found
    found = problems(options, "MODEL.META_ARCHITECTURE", "MaskFormer")
    assert any("Set MODEL.META_ARCHITECTURE FrozenCLIP" in text for text in found)
    found = problems(options, "MODEL.SECOND_CLASSIFIER.NAME", "FrozenCLIPClassifier")
    assert any("has already" in text for text in found)
    found = problems(options, "MODEL.SECOND_CLASSIFIER.NAME", "FrozenCLIPClassifer")
    assert any("did you mean FrozenCLIPClassifier" in text for text in found)


def test_pixels_are_normalised_as_clip_expects(options):
    """The mini configs have ImageNet's values; with these, CLIP would see other colours than in its training."""
    file, opts = options()
    cfg = load_config(file, opts)
    assert cfg.MODEL.PIXEL_MEAN == [102.0, 127.5, 153.0] and cfg.MODEL.PIXEL_STD == [51.0, 63.75, 76.5]
    with pytest.raises(UserError, match=r"MODEL.PIXEL_MEAN is .* but CLIP convnext was trained with"):
        load_config(file, [*opts, "MODEL.PIXEL_MEAN", "[1.0, 2.0, 3.0]"])
    clip = ClipModel.of("RN50")
    assert clip.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))


def test_weights_of_another_model(options, clips, text, tmp_path):
    from frozenclip.backbone import load_encoder

    file, opts = options(MODEL__FROZENCLIP__PRETRAINED=str(clips.resnet / "open_clip_model.safetensors"))
    cfg = load_config(file, [*opts, "MODEL.META_ARCHITECTURE", "MaskFormer"])
    from frozenclip.encoder import ImageEncoder

    encoder = ImageEncoder(ClipModel.of(str(clips.convnext)))
    with pytest.raises(UserError, match=r"MODEL.FROZENCLIP.PRETRAINED: .* has not the image encoder of convnext: "):
        load_encoder(encoder, cfg)
    weights = load_file(clips.convnext / "open_clip_model.safetensors")
    weights["visual.head.mlp.fc2.weight"] = torch.zeros(3, 64)
    save_file(weights, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="fc2.weight is .3, 64. in the file"):
        encoder.load(str(tmp_path / "other.safetensors"), "test")
    assert not encoder.loaded


def test_a_tag_that_does_not_exist(options):
    clip = ClipModel.of("RN50")
    with pytest.raises(UserError, match=r"'openai2' is neither a file nor a name of weights of RN50; .*openai"):
        clip.weights_file("openai2", "MODEL.FROZENCLIP.PRETRAINED")


def test_folders_that_are_incomplete(clips, tmp_path):
    shutil.copy(clips.convnext / CONFIG_FILE, tmp_path)
    with pytest.raises(UserError, match="has no weights beside"):
        ClipModel.of(str(tmp_path)).weights_file("")
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"model_cfg": {"embed_dim": 4}}))
    with pytest.raises(UserError, match="is no config of open_clip"):
        ClipModel.of(str(tmp_path))
    (tmp_path / CONFIG_FILE).write_text("{")
    with pytest.raises(UserError, match=CONFIG_FILE):
        ClipModel.of(str(tmp_path))


def test_without_open_clip_the_message_names_the_command(options, monkeypatch):
    monkeypatch.setitem(sys.modules, "open_clip", None)
    file, opts = options()
    with pytest.raises(UserError, match=r'open_clip, which is not installed. .*pip install "pading\[text\]"'):
        load_config(file, opts)


def test_a_checkpoint_without_clip_is_refused_in_an_evaluation(options, tmp_path):
    """CLIP's weights would be random, and so would be half of each score."""
    from PADing.inference import Predictor

    file, opts = options()
    weights = build_model(load_config(file, opts)).state_dict()
    torch.save({"model": {key: x for key, x in weights.items() if "backbone." not in key}}, tmp_path / "bare.pth")
    predictor = Predictor(load_config(file, [*opts, "MODEL.WEIGHTS", str(tmp_path / "bare.pth")]))
    with pytest.raises(UserError, match="MODEL.WEIGHTS does not hold it"):
        predictor(np.zeros((64, 64, 3), dtype=np.uint8))


def test_a_training_does_not_start_with_another_source(options, drawn, tmp_path):
    path = vectors(tmp_path / "a.npz", drawn, "word vectors glove.txt")
    found = problems(options, needs=EVALUATION, MODEL__FROZENCLIP__CLASS_EMBEDDINGS=path)
    assert sum("than the image encoder" in text for text in found) == 1


def test_an_export_is_refused(options):
    """The exported model would pool over padding, too."""
    from PADing.export.program import Program

    file, opts = options()
    with pytest.raises(UserError, match="FrozenCLIP cannot be exported"):
        Program(build_model(load_config(file, opts)).eval(), ["raw"])(torch.zeros(1, 3, 64, 64))
