"""The command that makes the model of the package; tests/sharing/test_packaged.py looks at the model itself."""

import json
import subprocess
import sys

import pytest
import torch

from minibench import packaged
from minibench.__main__ import _parser
from PADing.errors import UserError
from PADing.files import REPOSITORY
from PADing.safetensors_files import read_safetensors


def test_weights_are_rounded_and_counters_are_not(tmp_path):
    weights = {"weight": torch.tensor([0.1, -3.0]), "batches": torch.tensor(100_000)}
    torch.save({"model": weights, "iteration": 7}, tmp_path / "model.pth")
    packaged._round(tmp_path / "model.pth", tmp_path / "rounded.safetensors")
    content = read_safetensors(tmp_path / "rounded.safetensors")
    assert content["iteration"] == 7 and content["model"]["batches"] == 100_000
    assert torch.equal(content["model"]["weight"], torch.tensor([0.1, -3.0], dtype=torch.float16))


def test_a_weight_that_16_bits_cannot_hold_is_refused(tmp_path):
    torch.save({"model": {"fine": torch.ones(2), "wide": torch.tensor([1.0, 7e4])}}, tmp_path / "model.pth")
    with pytest.raises(UserError, match="wide cannot be rounded"):
        packaged._round(tmp_path / "model.pth", tmp_path / "rounded.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]


def test_its_flags_are_those_of_the_quickstart_with_a_folder_of_its_own():
    args = _parser().parse_args(["packaged-model", "--seed", "3", "--smoke", "--note", "busy"])
    assert (args.function, args.seed, args.smoke, args.note) == (packaged.main, 3, True, "busy")
    assert args.out != _parser().parse_args(["quickstart"]).out


@pytest.mark.slow
def test_it_makes_a_model_from_nothing(tmp_path):
    out = tmp_path / "out"
    flags = ["--smoke", "--output", str(out), "--note", "A test."]
    command = [sys.executable, "-m", "minibench", "packaged-model", *flags]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((out / "mini" / "report.json").read_text())
    assert report["iterations"][0] == 6 and report["images"]["train"] == 24 and report["note"] == "A test."
    assert set(report["checked"]["metrics"]) == {"panoptic_seg", "sem_seg", "segm"}
    assert "A test." in (out / "mini" / "README.md").read_text()
