"""Files of a small segmenter, with all results: if these fail, no exported file can be trusted."""

import json

import numpy as np
import pytest
import torch

from PADing.export import files
from PADing.export.check import differences
from PADing.export.program import OUTPUTS, Program

SIZES = [(1, 40, 64), (3, 50, 33)]  # none is the recorded one
VERSION = tuple(int(number) for number in torch.__version__.split(".")[:2])
RAW_LAST = ["semantic", "semantic-scores", "instance", "panoptic", "raw"]


@pytest.fixture(scope="module")
def traced():
    if VERSION < (2, 9):
        pytest.skip("exports are tried with newer versions of PyTorch")
    from tests.export.conftest import Tiny

    model = Tiny().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    program = Program(model, RAW_LAST).eval()
    exported = files.trace(program, "grid_sample", 256)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    return program, exported


def _check(program, function):
    found = 0
    for size in SIZES:
        images = 255 * torch.rand(size[0], 3, *size[1:], generator=torch.Generator().manual_seed(7))
        wanted = program.eager(images)
        assert all(difference.passes(1e-4) for difference in differences(wanted, function(images)).values())
        found += int((wanted["panoptic_map"] > 0).any()) + int((wanted["instance_labels"] >= 0).any())
    assert found == 4, "the comparison is of empty results"


def test_a_program_of_torch_export_is_equal_and_brings_its_description(traced, tmp_path):
    program, exported = traced
    path = tmp_path / "model.pt2"
    files.write_torch(path, exported, {"format": 1})
    extra = {"pading.json": ""}
    torch.export.load(path, extra_files=extra)
    assert json.loads(extra["pading.json"]) == {"format": 1}
    function = files.load_torch(path, program.names)
    _check(program, function)
    assert b"/PADing/" not in path.read_bytes(), "paths of this machine"
    with pytest.raises(Exception, match="32|33|size"):
        function(torch.zeros(1, 3, 20, 64))


def test_an_onnx_file_is_equal_and_brings_its_description(traced, tmp_path):
    onnx = pytest.importorskip("onnx", reason="the optional extra export")
    program, exported = traced
    path = tmp_path / "model.onnx"
    files.write_onnx(path, exported, program.names, {"format": 1, "name": "ä"}, 18)
    _check(program, files.load_onnx(path, 1))
    model = onnx.load(path)
    assert {entry.key: json.loads(entry.value) for entry in model.metadata_props} == {
        "pading": {"format": 1, "name": "ä"}
    }
    assert [output.name for output in model.graph.output] == [name for key in RAW_LAST for name in OUTPUTS[key]]
    assert [entry.version for entry in model.opset_import if not entry.domain] == [18]
    assert b"/PADing/" not in path.read_bytes() and [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_the_runner_computes_the_models_own_results(runner, tiny):
    """From logits, at another size than that of the network's input."""
    model = object.__new__(runner.Model)
    model.input = {"padded_to_multiple_of": 32}
    rule = tiny.instance_rule()
    model.results = {
        "semantic": True, "instance": True, "panoptic": True, "object_mask_threshold": 0.2, "overlap_threshold": 0.3,
        "boxes_from_masks": True, "things": sorted(tiny.things),
        "instance_rule": {"scale": 1.0, "columns": None, "kept": rule.kept, "groups": [{"number": 12, "labels": None}]},
    }  # fmt: skip
    compared = 0
    for seed in range(4):
        images = 255 * torch.rand(1, 3, 50, 70, generator=torch.Generator().manual_seed(seed))
        record = {"image": images[0], "height": 81, "width": 120}
        with torch.no_grad():
            (own,) = tiny([record])
            classes, masks = tiny.predict(tiny.preprocess([record]))
        found = model.from_logits(classes[0].numpy(), masks[0].numpy(), (50, 70), (81, 120))
        assert (found["semantic"] == own["sem_seg"].argmax(0).numpy()).mean() > 0.999
        ids, segments = found["panoptic"]
        assert (ids == own["panoptic_seg"][0].numpy()).mean() > 0.999
        assert [one["label"] for one in segments] == [one["category_id"] for one in own["panoptic_seg"][1]]
        instances = own["instances"][own["instances"].scores.argsort(descending=True)]
        assert [one["label"] for one in found["instance"]] == instances.pred_classes.tolist()
        for one, score, box, mask in zip(
            found["instance"], instances.scores, instances.pred_boxes.tensor, instances.pred_masks, strict=True
        ):
            assert one["score"] == pytest.approx(float(score), abs=1e-4) and one["box"] == box.tolist()
            assert ((mask.numpy() > 0) == one["mask"]).mean() > 0.999
            compared += 1
    assert compared > 8


def test_the_runners_strips_give_the_same_rows(runner, monkeypatch):
    logits = np.random.default_rng(0).normal(size=(3, 9, 12)).astype(np.float32)
    whole = np.concatenate([rows for _, rows in runner.Strips(logits, (36, 48), (33, 40), (70, 61))], axis=1)
    monkeypatch.setattr(runner, "PIXELS_AT_ONCE", 600)
    parts = [rows for _, rows in runner.Strips(logits, (36, 48), (33, 40), (70, 61))]
    assert len(parts) > 10 and np.allclose(np.concatenate(parts, axis=1), whole, atol=1e-6)
    full = torch.nn.functional.interpolate(torch.from_numpy(logits)[None], (36, 48), mode="bilinear")
    wanted = torch.nn.functional.interpolate(full[:, :, :33, :40], (70, 61), mode="bilinear")[0].numpy()
    assert np.allclose(whole, wanted, atol=1e-5)


def test_run_lengths_are_cocos(runner):
    mask_util = pytest.importorskip("pycocotools.mask")
    for seed in range(4):
        mask = np.random.default_rng(seed).random((7, 5)) > 0.4
        rle = runner.rle_of(mask)
        assert (mask_util.decode(mask_util.frPyObjects(rle, 7, 5)) > 0).tolist() == mask.tolist()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "gone.onnx"], "Model gone.onnx does not exist"),
        (["--model", "."], "is no file"),
        (["--model", "text.onnx"], "cannot be read as ONNX"),
        (["--model", "text.onnx", "--score-threshold", "2"], "must be a number from 0 to 1"),
        (["--model", "text.onnx", "--input", "folder"], "has no images"),
        (["--model", "text.onnx", "--output", "."], "which might be replaced"),
        (["--model", "text.onnx", "--input", "image.png", "folder/image.png"], "have the same name"),
    ],
)
def test_mistakes_of_the_runners_user(runner, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "image.png").write_bytes(b"")
    given = {"--input": ["image.png"], "--output": ["out"]}
    line = [*words, *(word for flag, values in given.items() if flag not in words for word in (flag, *values))]
    assert runner.main(line) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
