"""Jobs of several processes one after another, each with another number of them, as torchrun starts them again."""

import os

import torch

from PADing.engine.distributed import torchrun_process_group
from tests.engine.test_distributed import free_port


def in_phases(check, folder, worlds):
    """Call ``check(folder, phase)`` in ``worlds[phase]`` new processes; those of one phase are a job."""
    ports = [free_port() for _ in range(len(worlds) + 1)]
    torch.multiprocessing.spawn(_process, args=(check, str(folder), list(worlds), ports), nprocs=max(worlds))


def _process(rank, check, folder, worlds, ports):
    torch.set_num_threads(1)
    # First all of them meet: PyTorch counts groups, and those of one that has had fewer get other names.
    for phase, (world, port) in enumerate(zip([max(worlds), *worlds], ports, strict=True), start=-1):
        if rank < world:
            sizes = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
            os.environ.update({key: str(value) for key, value in sizes.items()})
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            with torchrun_process_group(cpu=True):
                if phase >= 0:
                    check(folder, phase)
