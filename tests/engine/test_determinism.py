"""``--deterministic``: two runs are bit-equal, and what contradicts it is refused."""

import os
import subprocess
import sys

import pytest
import torch

from PADing.config import load_config
from PADing.data.mini_files import make_mini_coco
from PADing.engine.determinism import deterministic
from PADing.engine.start_check import BUILDING, start_problems
from PADing.errors import UserError
from tests.golden.util import REPOSITORY

CONFIG = str(REPOSITORY / "configs" / "mini" / "panoptic-pretrain.yaml")


@pytest.mark.parametrize("threads", [1, 2])
def test_two_runs_are_bit_equal(threads, tmp_path):
    """Otherwise the flag would promise what it does not keep."""
    make_mini_coco(tmp_path / "mini", train=6, val=1, size=64)
    environment = {**os.environ, "DETECTRON2_DATASETS": str(tmp_path), "OMP_NUM_THREADS": str(threads)}
    weights = []
    for name in ("a", "b"):
        command = [sys.executable, str(REPOSITORY / "train_net_pretrain.py"), "--config-file", CONFIG]
        command += ["--num-gpus", "0", "--deterministic", "SOLVER.MAX_ITER", "3", "SOLVER.IMS_PER_BATCH", "4"]
        command += ["INPUT.IMAGE_SIZE", "64", "TEST.MAX_IMAGES", "1", "OUTPUT_DIR", str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        weights.append(torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert "DETERMINISTIC: true" in (tmp_path / "a" / "config.yaml").read_text()


@pytest.mark.parametrize(("opts", "message"), [(["SEED", -1], "needs a seed"), (["CUDNN_BENCHMARK", True], "exclude")])
def test_settings_that_contradict(opts, message):
    cfg = load_config(CONFIG, ["DETERMINISTIC", True, *opts])
    assert any(message in problem for problem in start_problems(cfg, BUILDING | {"train"}))
    cfg = load_config(CONFIG, opts)
    assert not any(message in problem for problem in start_problems(cfg, BUILDING | {"train"}))


def test_operation_without_a_deterministic_form_is_named_and_all_is_as_before():
    message = "grid_sampler_2d_backward_cuda does not have a deterministic implementation, but you set ..."
    with pytest.raises(UserError, match="operation grid_sampler_2d_backward_cuda has no"):
        with deterministic(load_config(CONFIG, ["DETERMINISTIC", True])):
            assert torch.are_deterministic_algorithms_enabled()
            raise RuntimeError(message)
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic(load_config(CONFIG)):
        assert not torch.are_deterministic_algorithms_enabled()
