"""The command line of a training, its set-up, and its processes."""

import argparse
import json
import os

import pytest
import torch
from detectron2.engine import (
    create_ddp_model,
    default_argument_parser,
    default_setup,
    launch,
)
from torch import nn

from tests.d2lite.standin import standin_only
from tests.d2lite.tiny_training import make_cfg


def test_command_line_options():
    args = default_argument_parser().parse_args([])
    assert (args.config_file, args.resume, args.eval_only) == ("", False, False)
    assert (args.num_gpus, args.num_machines, args.machine_rank, args.opts) == (1, 1, 0, [])
    port = 2**15 + 2**14 + hash(os.getuid()) % 2**14
    assert args.dist_url == f"tcp://127.0.0.1:{port}"
    args = default_argument_parser().parse_args("--config-file a.yaml --resume SOLVER.MAX_ITER 5 --num-gpus 2".split())
    # Everything after the first key belongs to the overrides.
    assert args.config_file == "a.yaml" and args.opts == ["SOLVER.MAX_ITER", "5", "--num-gpus", "2"]


def test_help_page():
    help_page = default_argument_parser().format_help()
    for option in ("--config-file", "--resume", "--eval-only", "--num-gpus", "--machine-rank", "--dist-url", "opts"):
        assert option in help_page
    assert "%" not in help_page
    assert default_argument_parser(epilog="100 % our own").format_help().endswith("100 % our own\n")


@standin_only  # the genuine package has other errors, some in new processes
@pytest.mark.parametrize(("machines", "url"), [(1, None), (2, "auto"), (2, None)])
def test_processes_that_cannot_find_each_other_are_not_started(machines, url):
    with pytest.raises(ValueError, match="tcp://"):
        launch(print, 2, num_machines=machines, dist_url=url)


@pytest.mark.parametrize("num_gpus", [0, 1])
def test_one_process_is_a_plain_call(num_gpus):
    seen = []
    launch(seen.append, num_gpus, args=("x",))
    assert seen == ["x"]
    model = nn.Linear(1, 1)
    assert create_ddp_model(model, broadcast_buffers=False) is model


def test_setup_seeds_and_logs(tmp_path, caplog):
    cfg = make_cfg(tmp_path, "CUDNN_BENCHMARK", True)
    before = torch.backends.cudnn.benchmark
    try:
        default_setup(cfg, argparse.Namespace(config_file="", eval_only=False))
        first = torch.rand(1)
        assert torch.backends.cudnn.benchmark
        default_setup(cfg, argparse.Namespace(config_file="", eval_only=True))
        assert torch.equal(torch.rand(1), first)
    finally:
        torch.backends.cudnn.benchmark = before
    log = (tmp_path / "log.txt").read_text()
    assert "Environment info:" in log and "Command line arguments:" in log


TWO_PROCESS_TRAINING = """
import itertools, json, sys
import torch
from torch import nn
from detectron2.engine import SimpleTrainer, launch
from detectron2.utils import comm

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.layer.weight, 1.0)

    def forward(self, x):
        return {"loss": self.layer(x).mean()}

def main(folder):
    rank = comm.get_rank()
    model = nn.parallel.DistributedDataParallel(Model())
    data = itertools.repeat(torch.tensor([[1.0 + 2.0 * rank]]))
    trainer = SimpleTrainer(model, data, torch.optim.SGD(model.parameters(), lr=0.5))
    trainer.train(0, 1)
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump([model.module.layer.weight.item(), trainer.storage.latest().get("total_loss")], file)

if __name__ == "__main__":
    launch(main, 2, dist_url="auto", args=(sys.argv[1],))
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="launch would use GPUs; this is about CPU processes")
def test_two_processes_train_on_the_mean_of_their_losses(run_script, tmp_path):
    run_script(TWO_PROCESS_TRAINING, str(tmp_path))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    # Gradients 1 and 3, mean 2, rate 0.5; losses 1 and 3, mean 2, written by the main process only.
    assert first == [0.0, [2.0, 0]] and second == [0.0, None]
