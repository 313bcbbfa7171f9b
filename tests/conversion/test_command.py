"""``pading convert-weights``: starting with other classes, and one message for each mistake."""

import pickle
import re

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from PADing.conversion.reading import read_foreign_weights
from PADing.engine.checkpointer import TrainingCheckpointer
from PADing.errors import UserError
from tests.meta_arch.small import small_batch, small_config
from tests.small_models import load_tool


@pytest.fixture(scope="module")
def convert():
    return load_tool("tools/convert_weights.py").main


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A file as the model zoo has them: arrays in a pickle, the queries under their older name."""
    weights = {
        name.replace("predictor.query_feat.", "predictor.static_query."): value.numpy()
        for name, value in build_model(small_config()).state_dict().items()
    }
    file = tmp_path_factory.mktemp("zoo") / "model_final.pkl"
    file.write_bytes(pickle.dumps({"model": weights, "__author__": "third_party"}))
    return file


def test_a_training_starts_with_another_number_of_classes(zoo, convert, tmp_path, capsys):
    """All but the class head is loaded; with it, the file is refused, and the message names the cure."""
    other = small_config("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 7)
    whole, start = tmp_path / "whole.pth", tmp_path / "start.pth"
    assert convert(["--from", "mask2former", "--input", str(zoo), "--output", str(whole)]) == 0
    with pytest.raises(UserError, match="convert_weights.py .*--drop-class-head"):
        TrainingCheckpointer(build_model(other)).load(str(whole))
    assert convert(["--from", "mask2former", "--input", str(zoo), "--output", str(start), "--drop-class-head"]) == 0
    assert "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES 8" in capsys.readouterr().out
    model = build_model(other)
    TrainingCheckpointer(model).load(str(start))
    first = torch.load(whole)["model"]
    predictor = model.sem_seg_head.predictor
    assert torch.equal(predictor.query_feat.weight, first["sem_seg_head.predictor.query_feat.weight"])
    assert predictor.class_embed.weight.shape[0] == 8
    assert all(loss.isfinite() for loss in model.train()(small_batch()).values())


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "empty file"),
        (b"<html></html>", "web page"),
        (b"\x80\x04junk", "cannot be read"),
        (pickle.dumps({"model": {"a": np.zeros(2)}}), "is no segmenter of Mask2Former: it has a"),
        (pickle.dumps({"model": {}}), "holds no weights"),
        (pickle.dumps([1, 2]), "in place of named weights"),
        (pickle.dumps({"model": {"a": re.compile("x")}}), "cannot be read"),
    ],
)
def test_wrong_files_are_refused(content, message, convert, tmp_path, capsys):
    (tmp_path / "in.pkl").write_bytes(content)
    flags = ["--from", "mask2former", "--input", str(tmp_path / "in.pkl"), "--output", str(tmp_path / "out.pth")]
    assert convert(flags) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out.pth").exists()


def test_mistakes_in_the_command_are_named(zoo, convert, tmp_path, capsys):
    out = tmp_path / "out.pth"
    base = ["--from", "mask2former", "--input", str(zoo), "--output"]
    assert convert([*base, str(out)]) == 0
    for flags, message in {
        (*base, str(out)): "exists. Choose another --output",
        (*base, str(zoo), "--overwrite"): "write a .pth or a .safetensors file",
        (*base, str(tmp_path / "weights")): "write a .pth or a .safetensors file",
        ("--from", "mask2former", "--input", str(tmp_path / "no.pth"), "--output", str(out)): "exists. Choose another",
        ("--from", "swin", "--input", str(tmp_path / "no.pth"), "--output", str(tmp_path / "x.pth")): "do not exist",
        ("--to", "transformers", "--input", str(out), "--output", str(tmp_path / "hf")): "Swin backbones only",
        ("--to", "transformers", "--input", str(out), "--output", str(tmp_path), "--drop-class-head"): "belongs to",
        (*base[:2], "--input", str(out), "--output", str(out), "--overwrite"): "are the same file",
    }.items():
        assert convert(list(flags)) == 2 and message in capsys.readouterr().err, flags


def test_wrapped_weights_are_found(tmp_path):
    """Training scripts of others store a state dict under many names, some with the prefix of several GPUs."""
    for content in (
        {"state_dict": {"module.a": torch.ones(2)}, "epoch": 3},
        {"model": {"a": torch.ones(2)}, "optimizer": {"state": {}}},
        {"model": {"state_dict": {"a": torch.ones(2)}}},
        {"a": torch.ones(2)},
    ):
        torch.save(content, tmp_path / "in.pth")
        assert torch.equal(read_foreign_weights(tmp_path / "in.pth")["a"], torch.ones(2))
