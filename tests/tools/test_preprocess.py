"""The conversion tool as a command: its flags, its answers, its files."""

import importlib.util
import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from PADing.data.splits import load_split, shipped_split_files

HEAD = "sem_seg_head.predictor.class_embed"


@pytest.fixture
def tool():
    path = Path(__file__).resolve().parents[2] / "tools" / "preprocess_pretrained_weight.py"
    spec = importlib.util.spec_from_file_location("preprocess_tool", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stage_1(path, classes):
    model = OrderedDict({f"{HEAD}.weight": torch.randn(classes + 1, 4), f"{HEAD}.bias": torch.randn(classes + 1)})
    torch.save({"model": model, "trainer": {"iteration": 1}, "iteration": 1}, path)
    return path


def sizes(kind):
    """(training classes, all classes) of every shipped split with data of a kind."""
    for split in map(load_split, shipped_split_files()):
        for data_set in split.data_sets:
            if (data_set.kind, data_set.role) == (kind, "train"):
                yield split.name, len(split.classes(data_set)), len(split.vocabulary(kind, data_set.class_order))


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic"])
def test_every_shipped_split_is_recognised_by_its_class_count(tool, task, tmp_path, monkeypatch):
    """Nobody should have to know class counts by heart; the file has them."""
    monkeypatch.chdir(tmp_path)
    cases = list(sizes(task))
    assert cases
    for _, seen, total in cases:
        stage_1(tmp_path / "in.pth", seen)
        assert tool.main(["--task_name", task, "--input_file", "in.pth", "--overwrite"]) == 0
        model = torch.load(tmp_path / f"pretrained_weight_{task}.pth", weights_only=True)["model"]
        assert len(model["new_fc.weight"]) == total + 1


def test_split_by_file_and_by_name(tool, tmp_path):
    name, seen, total = next(case for case in sizes("instance"))
    path = next(p for p in shipped_split_files() if load_split(p).name == name)
    stage_1(tmp_path / "in.pth", seen)
    base = ["--task_name", "instance", "--input_file", str(tmp_path / "in.pth")]
    for split in (path, load_split(path).name):
        output = tmp_path / "deeper" / f"{Path(split).stem}-{len(split)}.pth"
        assert tool.main([*base, "--split", split, "--output_file", str(output)]) == 0
        assert len(torch.load(output, weights_only=True)["model"]["new_fc.bias"]) == total + 1


def test_converting_twice_is_refused(tool, tmp_path, capsys):
    """A grown head has as many rows as another split's before growing; growing it again would be silent nonsense."""
    _, seen, _ = next(sizes("instance"))
    stage_1(tmp_path / "in.pth", seen)
    once, twice = tmp_path / "once.pth", tmp_path / "twice.pth"
    base = ["--task_name", "instance", "--input_file"]
    assert tool.main([*base, str(tmp_path / "in.pth"), "--output_file", str(once)]) == 0
    assert tool.main([*base, str(once), "--output_file", str(twice)]) == 2
    assert "converted" in capsys.readouterr().err
    assert not twice.exists()


def test_wrong_split_and_unknown_split_are_named(tool, tmp_path, capsys):
    stage_1(tmp_path / "in.pth", 3)
    base = ["--task_name", "instance", "--input_file", str(tmp_path / "in.pth")]
    assert tool.main([*base, "--split", "48_17"]) == 2
    assert "trained on 3 classes" in capsys.readouterr().err
    assert tool.main([*base, "--split", "1_2"]) == 2
    assert "'1_2' is neither a split file" in capsys.readouterr().err
    assert tool.main(["--input_file", str(tmp_path / "absent.pth")]) == 2
    assert "absent.pth does not exist" in capsys.readouterr().err


def test_stage_1_weights_are_never_replaced(tool, tmp_path, capsys):
    """Hours of training are in the input file, also when the output names it through a link."""
    source = stage_1(tmp_path / "in.pth", next(sizes("instance"))[1])
    before = source.read_bytes()
    (tmp_path / "symbolic.pth").symlink_to(source)
    os.link(source, tmp_path / "hard.pth")
    for name in ("in.pth", "symbolic.pth", "hard.pth", "deeper/../in.pth"):
        (tmp_path / "deeper").mkdir(exist_ok=True)
        files = ["--input_file", str(source), "--output_file", str(tmp_path / name)]
        for flags in ([], ["--overwrite"]):
            assert tool.main(["--task_name", "instance", *files, *flags]) == 2
            assert "are the same file" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_existing_output_needs_a_flag(tool, tmp_path, capsys):
    source = stage_1(tmp_path / "in.pth", next(sizes("instance"))[1])
    output = tmp_path / "out.pth"
    output.write_text("other weights")
    command = ["--task_name", "instance", "--input_file", str(source), "--output_file", str(output)]
    assert tool.main(command) == 2
    assert "add --overwrite" in capsys.readouterr().err
    assert output.read_text() == "other weights"
    assert tool.main([*command, "--overwrite"]) == 0
    assert "new_fc.weight" in torch.load(output, weights_only=True)["model"]
    assert {path.name for path in tmp_path.iterdir()} == {"in.pth", "out.pth"}


def test_damaged_input_is_refused(tool, tmp_path, capsys):
    source = stage_1(tmp_path / "in.pth", next(sizes("instance"))[1])
    content = bytearray(source.read_bytes())
    start = content.index(b"data/0") + 80
    content[start : start + 40] = bytes(40)
    source.write_bytes(content)
    assert tool.main(["--task_name", "instance", "--input_file", str(source)]) == 2
    assert "in.pth cannot be read: it is damaged" in capsys.readouterr().err


def with_average(path, classes, change=lambda average: None):
    stage_1(path, classes)
    content = torch.load(path, weights_only=True)
    average = {name: value + 1 for name, value in content["model"].items()}
    change(average)
    torch.save({**content, "ema": {"updates": 3, "weights": average}}, path)
    return path


def test_averaged_weights_are_converted_on_request(tool, tmp_path, capsys):
    seen = next(sizes("instance"))[1]
    source = with_average(tmp_path / "in.pth", seen)
    held = torch.load(source, weights_only=True)
    for flags, weights, said in (
        ([], held["model"], "ordinary"),
        (["--weights_from", "model"], held["model"], "ordinary"),
        (["--weights_from", "ema"], held["ema"]["weights"], "averaged"),
    ):
        command = ["--task_name", "instance", "--input_file", str(source), "--output_file", str(tmp_path / "out.pth")]
        assert tool.main([*command, "--overwrite", *flags]) == 0
        assert f"from the {said} weights" in capsys.readouterr().out
        got = torch.load(tmp_path / "out.pth", weights_only=True)
        assert torch.equal(got["model"]["new_fc.weight"][: seen + 1], weights[f"{HEAD}.weight"]) and "ema" not in got


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda average: average.clear(), "has no averaged weights. Leave out --weights_from ema"),
        (lambda average: average.pop(f"{HEAD}.bias"), f"are not of one model: {HEAD}.bias"),
        (lambda average: average.update({f"{HEAD}.bias": 3}), "is a int, not a named tensor"),
        (lambda average: average[f"{HEAD}.bias"].fill_(float("nan")), "holds NaN"),
        (lambda average: average.update({f"{HEAD}.bias": torch.ones(2)}), "has shapes"),
    ],
)
def test_a_wrong_average_is_refused(tool, tmp_path, capsys, change, expected):
    source = with_average(tmp_path / "in.pth", next(sizes("instance"))[1], change)
    command = ["--task_name", "instance", "--input_file", str(source), "--output_file", str(tmp_path / "out.pth")]
    assert tool.main([*command, "--weights_from", "ema"]) == 2
    assert expected in capsys.readouterr().err and not (tmp_path / "out.pth").exists()
