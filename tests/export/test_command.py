"""tools/export_model.py: each mistake is one message before the long work, and real models export (slow)."""

import json

import numpy as np
import pytest
from PIL import Image

from PADing.config import load_config
from PADing.export import files, run
from PADing.inference import Predictor
from tests.small_models import load_tool


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "x.onxx"], "must end with .onnx or .pt2"),
        (["--output", "folder.onnx"], "is a folder or a device"),
        (["--output", "file/x.onnx"], "file is a file. Choose another folder"),
        (["--output", "old.onnx"], "exists. Choose another name, or add --overwrite"),
        (["--output", "x.onnx", "--opset", "11"], "--opset 11 is not one of 18 to 23"),
        (["--output", "x.pt2", "--latency-size", "10", "99"], "--latency-size 10 99 must be from 33 to 4096"),
        (["--output", "x.onnx", "--outputs", "panoptc"], "did you mean panoptic"),
        (["--output", "x.onnx", "--outputs", ","], "No outputs are named"),
        (["--output", "x.onnx", "MODEL.WEIGHTS", "gone.pth"], "gone.pth"),
        (["--output", "x.onnx", "MODEL.WEIGHTS", "old.onnx"], "old.onnx"),
        (["--output", "x.onnx", "MODEL.MASK_FORMER.HIDEN_DIM", "3"], "HIDEN_DIM"),
        (["--output", "x.onnx", "--outputs", "panoptic", "MODEL.MASK_FORMER.TEST.PANOPTIC_ON", "False"], "PANOPTIC_ON"),
    ],
)
def test_mistakes_end_before_the_long_work(command, model_options, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "trace", lambda *arguments: pytest.fail("the long work began"))
    (tmp_path / "folder.onnx").mkdir()
    for name in ("file", "old.onnx"):
        (tmp_path / name).write_text("mine")
    config, opts = model_options("MaskFormer")
    split = next((i for i, word in enumerate(words) if word.startswith("MODEL.")), len(words))
    status, said = command(*config, *words[:split], *opts, *words[split:])
    assert status == 2 and message in said and "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.onnx", "old.onnx"]
    assert (tmp_path / "old.onnx").read_text() == "mine"


def test_a_missing_package_is_named_before_the_long_work(command, model_options, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PACKAGES", ("onnx_that_nobody_has",))
    config, opts = model_options("MaskFormer")
    status, said = command(*config, "--output", tmp_path / "x.onnx", *opts)
    assert status == 2 and 'pip install "pading[export]"' in said and not list(tmp_path.iterdir())


def test_a_file_that_differs_is_not_kept(command, model_options, tmp_path, monkeypatch):
    """The comparison decides; here the file's numbers are falsified."""
    monkeypatch.setattr(files, "trace", lambda *arguments: None)
    monkeypatch.setattr(files, "write_torch", lambda path, *rest: path.write_text("program"))
    programs = []
    make = run.Program
    monkeypatch.setattr(run, "Program", lambda *arguments: programs.append(make(*arguments)) or programs[-1])

    def falsified(path, names):
        def function(images):
            found = programs[0].eager(images)
            return found | {"mask_logits": found["mask_logits"] + 2e-4}

        return function

    monkeypatch.setattr(files, "load_torch", falsified)
    config, opts = model_options("MaskFormer")
    path = tmp_path / "x.pt2"
    status, said = command(*config, "--output", path, "--rounds", "0", *opts)
    assert status == 2 and "mask_logits (max absolute error 2.0e-04)" in said and not list(tmp_path.iterdir())
    status, said = command(*config, "--output", path, "--rounds", "1", "--tolerance", "0.001", *opts)
    assert status == 0 and path.read_text() == "program"
    assert "class_logits: max absolute error 0.0e+00" in said and "ms for 64 x 85, " in said and "CPU threads" in said


# ---- real models: the whole way


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "name", "flags"),
    [
        ("PADing", "model.onnx", []),
        ("MaskFormer", "model.onnx", ["--without-grid-sample", "--outputs", "semantic,panoptic,instance"]),
        ("D2Zero", "model.onnx", ["--opset", "20"]),
        ("D2Zero", "model.pt2", ["--outputs", "raw,instance"]),
    ],
)
def test_models_export_and_the_runner_agrees_with_the_predictor(
    command, model_options, drawn, runner, tmp_path, architecture, name, flags
):
    config, opts = model_options(architecture)
    path = tmp_path / name
    status, said = command(*config, "--output", path, "--rounds", "1", *flags, *opts)
    assert status == 0 and "max absolute error" in said and path.is_file(), said
    if path.suffix == ".pt2":
        return
    onnx = pytest.importorskip("onnx")
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert ("GridSample" in kinds) == ("--without-grid-sample" not in flags)
    predictor = Predictor(load_config(config[1], [*opts, "MODEL.DEVICE", "cpu"]))
    image = np.array(Image.open(drawn.images[0]).convert("RGB"))  # 64 x 64, the size of the network's input
    if "--outputs" not in flags:
        image = np.array(Image.fromarray(image).resize((150, 97)))
    own, model = predictor(image), runner.Model(path)
    found = model(image)
    scores = sorted(own["instances"].scores.tolist(), reverse=True)
    assert [one["score"] for one in found["instance"]] == pytest.approx(scores, abs=2e-4)
    if "panoptic_seg" in own:
        assert own["panoptic_seg"][1], "there is nothing to compare"
        assert (found["panoptic"][0] == own["panoptic_seg"][0].numpy()).mean() > 0.999
        assert (found["semantic"] == own["sem_seg"].argmax(0).numpy()).mean() > 0.999
    assert runner.main(["--model", str(path), "--input", str(drawn.images[0]), "--output", str(tmp_path / "out")]) == 0
    content = json.loads((tmp_path / "out" / f"{drawn.images[0].stem}.json").read_text())
    named = [one["class"] for key in ("segments", "instances") for one in content.get(key, ())]
    assert set(named) <= set(drawn.classes)
    assert load_tool("examples/onnx_runner.py").read_image(tmp_path / "out" / f"{drawn.images[0].stem}.png").shape
