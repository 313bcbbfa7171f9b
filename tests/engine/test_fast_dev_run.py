"""``--fast-dev-run`` tries everything in a folder of its own, and never empties a folder that is not a trial's."""

import json
import os
import subprocess
import sys
from argparse import Namespace

import pytest

from PADing.config import load_config
from PADing.data.mini_files import make_mini_coco
from PADing.engine.fast_dev_run import MARKER, shorten
from PADing.errors import UserError
from tests.golden.util import REPOSITORY

CONFIG = str(REPOSITORY / "configs" / "mini" / "panoptic-pretrain.yaml")


def flags(folder, **others):
    own = dict(resume=False, overwrite=False, eval_only=False, machine_rank=0, more_opts=[], config_file=CONFIG)
    return Namespace(**{**own, "opts": ["OUTPUT_DIR", str(folder), "SOLVER.MAX_ITER", "900"], **others})


def test_trial_has_three_iterations_and_a_folder_of_its_own(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model_final.pth").write_text("a finished training")
    args = flags(tmp_path / "out")
    for _ in range(2):
        shorten(args)
        cfg = load_config(args.config_file, args.opts)
        assert cfg.SOLVER.MAX_ITER == 3
        assert cfg.OUTPUT_DIR == str(tmp_path / "out_fast_dev_run")
        (tmp_path / "out_fast_dev_run" / "old").touch()
        args = flags(f"{tmp_path / 'out'}/")
    assert (tmp_path / "out" / "model_final.pth").read_text() == "a finished training"
    shorten(args)
    assert [path.name for path in (tmp_path / "out_fast_dev_run").iterdir()] == [MARKER]


@pytest.mark.parametrize("flag", ["resume", "overwrite", "eval_only"])
def test_flags_that_do_not_go_with_a_trial(flag, tmp_path):
    with pytest.raises(UserError, match=f"Leave out --{flag.replace('_', '-')}"):
        shorten(flags(tmp_path / "out", **{flag: True}))


def test_folder_of_somebody_else_is_not_emptied(tmp_path):
    (tmp_path / "out_fast_dev_run").mkdir()
    (tmp_path / "out_fast_dev_run" / "precious").touch()
    with pytest.raises(UserError, match="no trial has made it"):
        shorten(flags(tmp_path / "out"))
    assert (tmp_path / "out_fast_dev_run" / "precious").exists()
    (tmp_path / "link_fast_dev_run").symlink_to(tmp_path / "out_fast_dev_run")
    (tmp_path / "out_fast_dev_run" / MARKER).touch()
    with pytest.raises(UserError, match="no trial has made it"):
        shorten(flags(tmp_path / "link"))


def test_whole_trial(tmp_path):
    """Training, checkpoint and evaluation of 4 of 6 images."""
    make_mini_coco(tmp_path / "mini", train=4, val=6, size=64)
    small = ["MODEL.MASK_FORMER.TRAIN_NUM_POINTS", "32", "SOLVER.IMS_PER_BATCH", "2", "INPUT.IMAGE_SIZE", "64"]
    command = [sys.executable, str(REPOSITORY / "train_net_pretrain.py"), "--config-file", CONFIG, "--num-gpus", "0"]
    command += ["--fast-dev-run", *small, "OUTPUT_DIR", str(tmp_path / "out")]
    environment = {**os.environ, "DETECTRON2_DATASETS": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "out_fast_dev_run").iterdir()}
    assert {"model_0000001.pth", "model_final.pth", "results.json", "config.yaml", "metrics.json"} <= names
    results = json.loads((tmp_path / "out_fast_dev_run" / "results.json").read_text())
    assert [found["left_out"] for found in results.values()] == [{"images": 2}] * len(results)
    assert not (tmp_path / "out").exists()
