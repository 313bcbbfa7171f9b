"""Processes take batch-norm statistics from their own images, but evaluate with those of the checkpoint."""

from pathlib import Path

import torch
from detectron2.utils import comm
from torch import nn

from PADing.engine.distributed import launch_on_cpus
from PADing.engine.running_statistics import share_running_statistics
from tests.engine.tiny import TinyTrainer, config

WORLD = 2


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4, track_running_stats=False))


def check_statistics(folder):
    torch.manual_seed(0)
    model = network()
    torch.manual_seed(comm.get_rank())
    for _ in range(3):
        model(torch.randn(2, 3, 4, 4))
    own = model[1].running_mean.clone()
    first, second = comm.all_gather(own)
    assert not torch.equal(first, second)  # they differ before
    share_running_statistics(model)
    torch.testing.assert_close(model[1].running_mean, first, rtol=0, atol=0)
    variances = comm.all_gather(model[1].running_var)
    assert torch.equal(*variances) and not torch.equal(variances[0], torch.ones(4))
    Path(folder, f"checked {comm.get_rank()}").touch()


def test_every_process_has_the_statistics_of_the_first(tmp_path):
    launch_on_cpus(check_statistics, WORLD, args=(str(tmp_path),))
    assert len(list(tmp_path.iterdir())) == WORLD


def check_evaluation(folder):
    cfg = config(folder)
    trainer = TinyTrainer(cfg)
    bare = trainer.model.module
    bare.norm = nn.BatchNorm1d(2)
    bare.norm.running_mean.fill_(comm.get_rank() + 1)
    trainer.test(cfg, trainer.model)
    assert bare.norm.running_mean.tolist() == [1.0, 1.0]
    Path(folder, f"checked {comm.get_rank()}").touch()


def test_the_trainer_shares_them_before_an_evaluation(tmp_path):
    launch_on_cpus(check_evaluation, WORLD, args=(str(tmp_path),))
    assert len(list(tmp_path.glob("checked *"))) == WORLD


def test_one_process_keeps_its_own():
    model = network()
    model[1].running_mean.fill_(3.0)
    share_running_statistics(model)
    assert model[1].running_mean.tolist() == [3.0] * 4


def write_threads(folder):
    Path(folder, str(comm.get_rank())).write_text(str(torch.get_num_threads()))


def threads(folder, processes):
    folder.mkdir()
    launch_on_cpus(write_threads, processes, args=(str(folder),))
    return [int(Path(folder, str(rank)).read_text()) for rank in range(processes)]


def test_processes_of_one_machine_share_its_cores(tmp_path, monkeypatch):
    """Else two processes on two cores have four threads that wait for each other."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    [alone] = threads(tmp_path / "alone", 1)
    assert threads(tmp_path / "two", WORLD) == [max(1, alone // WORLD)] * WORLD
    monkeypatch.setenv("OMP_NUM_THREADS", str(alone))
    assert threads(tmp_path / "wanted", WORLD) == [alone] * WORLD
