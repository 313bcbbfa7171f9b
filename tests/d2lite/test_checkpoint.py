"""If these fail, published weights load wrongly, or not at all, or a damaged or hostile file is taken for good."""

import pickle

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer, PeriodicCheckpointer
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 2, 1, bias=False)
        self.conv1.norm = nn.BatchNorm2d(2)


class Net(nn.Module):
    """Entries like those of a backbone inside a model."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Module()
        self.backbone.stem = Block()
        self.backbone.res2 = nn.ModuleList([Block()])
        self.backbone.res2[0].shortcut = nn.Conv2d(2, 2, 1, bias=False)
        self.head = nn.Linear(2, 3)
        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1))


@pytest.fixture
def logs(caplog):
    caplog.set_level("INFO")
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


def value(shape, number):
    return np.full(shape, number, dtype=np.float32)


def write_pkl(path, content):
    path.write_bytes(pickle.dumps(content))
    return str(path)


def test_what_is_saved_is_loaded_with_all_that_belongs_to_it(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpointer = DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer)
    checkpointer.save("model_0000004", iteration=4)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000004.pth"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_0000004.pth"]

    other = nn.Linear(2, 2)
    other_optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9)
    resumed = DetectionCheckpointer(other, str(tmp_path), optimizer=other_optimizer)
    rest = resumed.resume_or_load("ignored.pth", resume=True)
    assert rest["iteration"] == 4
    assert torch.equal(other.weight, model.weight)
    assert other_optimizer.param_groups[0]["lr"] == 0.5 and len(other_optimizer.state) == 2


def test_without_resume_only_the_weights_are_taken(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer).save("weights", iteration=9)
    other = nn.Linear(2, 2)
    other_optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    checkpointer = DetectionCheckpointer(other, str(tmp_path), optimizer=other_optimizer)
    checkpointer.resume_or_load(str(tmp_path / "weights.pth"), resume=False)
    assert torch.equal(other.weight, model.weight) and other_optimizer.param_groups[0]["lr"] == 0.1
    assert checkpointer.resume_or_load("", resume=False) == {}  # no weights: from scratch


def test_plain_state_dicts_and_those_of_wrapped_models_load(tmp_path):
    model = nn.Linear(2, 2)
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    torch.save({"model": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "wrapped.pth")
    for name in ("plain.pth", "wrapped.pth"):
        other = nn.Linear(2, 2)
        DetectionCheckpointer(other).load(str(tmp_path / name))
        assert torch.equal(other.weight, model.weight), name


def test_entries_of_another_shape_are_skipped_and_reported(tmp_path, logs):
    content = {"weight": torch.zeros(5, 2), "bias": torch.ones(2), "extra": torch.ones(1)}
    torch.save({"model": content}, tmp_path / "m.pth")
    model = nn.Linear(2, 2)
    before = model.weight.clone()
    DetectionCheckpointer(model).load(str(tmp_path / "m.pth"))
    assert torch.equal(model.weight, before) and torch.equal(model.bias, torch.ones(2))
    assert "incompatible shapes: (5, 2) in the checkpoint but (2, 2) in the model" in logs()
    assert "extra" in logs()


def test_names_of_a_backbone_file_are_matched_by_their_ends(tmp_path, logs):
    weights = {
        "res2.0.conv1.weight": value((2, 2, 1, 1), 1),
        "stem.conv1.weight": value((2, 2, 1, 1), 2),
        "conv1.weight": value((2, 2, 1, 1), 3),  # a longer name wins, so this one is left over
        "stem.conv1.norm.running_mean": value((2,), 4),
        "linear.bias": value((3,), 5),
        "head.weight": value((7, 2), 6),
    }
    path = write_pkl(tmp_path / "R.pkl", {"model": weights, "__author__": "someone", "matching_heuristics": True})
    model = Net()
    head = model.head.weight.clone()
    DetectionCheckpointer(model).load(path)
    state = model.state_dict()
    assert (state["backbone.res2.0.conv1.weight"] == 1).all()
    assert (state["backbone.stem.conv1.weight"] == 2).all()
    assert (state["backbone.stem.conv1.norm.running_mean"] == 4).all()
    assert torch.equal(model.head.weight, head)
    text = logs()
    assert "linear" in text and "conv1.weight" in text  # reported as unexpected
    assert "pixel_mean" not in text  # a constant of the model: not reported as missing


def test_without_the_mark_names_must_be_equal(tmp_path):
    weights = {"stem.conv1.weight": value((2, 2, 1, 1), 2)}
    path = write_pkl(tmp_path / "R.pkl", {"model": weights, "__author__": "someone"})
    model = Net()
    DetectionCheckpointer(model).load(path)
    assert not (model.backbone.stem.conv1.weight == 2).any()


def test_one_entry_for_two_places_is_an_error(tmp_path):
    path = write_pkl(
        tmp_path / "R.pkl",
        {"model": {"conv1.weight": value((2, 2, 1, 1), 3)}, "__author__": "x", "matching_heuristics": True},
    )
    with pytest.raises(ValueError, match="multiple keys"):
        DetectionCheckpointer(Net()).load(path)


@pytest.mark.parametrize("wrap", [lambda blobs: blobs, lambda blobs: {"blobs": blobs}])
def test_caffe2_names_are_translated(tmp_path, wrap):
    blobs = {
        "conv1_w": value((2, 2, 1, 1), 1),
        "res_conv1_bn_s": value((2,), 2),
        "res_conv1_bn_b": value((2,), 3),
        "res2_0_branch2a_w": value((2, 2, 1, 1), 4),
        "res2_0_branch2a_bn_s": value((2,), 5),
        "res2_0_branch2a_bn_b": value((2,), 6),
        "res2_0_branch2a_bn_rm": value((2,), 7),
        "res2_0_branch2a_bn_riv": value((2,), 8),
        "res2_0_branch1_w": value((2, 2, 1, 1), 9),
        "conv1_w_momentum": value((2, 2, 1, 1), 99),
    }
    # Python 2 wrote these files; protocol 2 is theirs.
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(wrap(blobs), protocol=2))
    model = Net()
    DetectionCheckpointer(model).load(str(tmp_path / "R-50.pkl"))
    found = {name: entry.flatten()[0].item() for name, entry in model.backbone.state_dict().items()}
    expected = {
        "stem.conv1.weight": 1,
        "stem.conv1.norm.weight": 2,
        "stem.conv1.norm.bias": 3,
        "res2.0.conv1.weight": 4,
        "res2.0.conv1.norm.weight": 5,
        "res2.0.conv1.norm.bias": 6,
        "res2.0.conv1.norm.running_mean": 7,
        "res2.0.conv1.norm.running_var": 8,
        "res2.0.shortcut.weight": 9,
    }
    assert {name: found[name] for name in expected} == expected


HOSTILE = """
import pickle, sys, torch
from torch import nn
from detectron2.checkpoint import DetectionCheckpointer

class Attack:
    def __reduce__(self):
        return print, ("CODE FROM THE FILE",)

folder = sys.argv[1]
content = {"model": {"weight": torch.zeros(2, 2), "bias": Attack()}, "__author__": "x"}
pickle.dump(content, open(f"{folder}/a.pkl", "wb"))
torch.save(content, f"{folder}/a.pth")
for name in ("a.pkl", "a.pth"):
    try:
        DetectionCheckpointer(nn.Linear(2, 2)).load(f"{folder}/{name}")
    except (ValueError, pickle.UnpicklingError) as error:
        print("refused:", error)
"""


def test_files_cannot_run_code(tmp_path, run_standin):
    output = run_standin(f"import sys; sys.argv[1:] = [{str(tmp_path)!r}]\n" + HOSTILE)
    assert output.count("refused:") == 2 and "print" in output and "a.pkl" in output
    assert "CODE FROM THE FILE" not in output


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AssertionError, match="nothing.pth"):
        DetectionCheckpointer(nn.Linear(1, 1)).load(str(tmp_path / "nothing.pth"))


@pytest.mark.parametrize("content", [[1, 2], {"model": 3, "__author__": "x"}, {"blobs": {1: value(2, 2)}}, 5])
def test_a_pickle_of_something_else_is_refused(tmp_path, run_standin, content):
    """Stand-in alone: the genuine package fails on it in several ways."""
    path = write_pkl(tmp_path / "R.pkl", content)
    code = f"""
from torch import nn
from detectron2.checkpoint import DetectionCheckpointer
try:
    DetectionCheckpointer(nn.Linear(1, 1)).load({path!r})
except ValueError as error:
    print(error)
"""
    assert "R.pkl does not hold named weights" in run_standin(code)


def test_periodic_checkpoints_keep_their_names_and_number(tmp_path):
    checkpointer = DetectionCheckpointer(nn.Linear(1, 1), str(tmp_path))
    periodic = PeriodicCheckpointer(checkpointer, 2, max_iter=7, max_to_keep=2)
    for iteration in range(7):
        periodic.step(iteration)
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == [
        "model_0000003.pth",
        "model_0000005.pth",
        "model_final.pth",
    ]
