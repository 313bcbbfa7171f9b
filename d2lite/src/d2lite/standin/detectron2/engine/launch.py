"""Starts the processes of a job on one machine."""

import gc
import socket
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import torch
from detectron2.utils import comm
from torch import distributed

DEFAULT_TIMEOUT = timedelta(minutes=30)


def launch(
    main_func: Callable,
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Run ``main_func(*args)`` in each process of a job; each machine of the job must call this.

    A job of one process (also of 0 GPUs) runs in the calling one. Otherwise there is a new process for each GPU, which
    imports ``main_func``, and NCCL connects them; without any GPU, gloo connects processes on the CPU. They meet at
    ``dist_url``, tcp://HOST:PORT of machine 0, or "auto" on one machine, and wait at most ``timeout`` for each other.
    """
    if num_machines * num_gpus_per_machine < 2:
        main_func(*args)
        return
    if dist_url == "auto" and num_machines == 1:
        with socket.create_server(("127.0.0.1", 0)) as free:
            dist_url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    if dist_url in (None, "", "auto"):
        raise ValueError(f"dist_url is {dist_url!r}, but must be tcp://HOST:PORT; on one machine, 'auto' will do.")
    gpus = torch.cuda.device_count()
    if 0 < gpus < num_gpus_per_machine:
        raise ValueError(f"This machine has {gpus} GPUs, too few for {num_gpus_per_machine} processes.")
    process = partial(_process, main_func, args, num_gpus_per_machine, num_machines, machine_rank, dist_url, timeout)
    torch.multiprocessing.spawn(process, nprocs=num_gpus_per_machine)


def _process(function, args, processes: int, machines: int, machine: int, url, timeout, local_rank: int) -> None:
    """The work of each process."""
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(local_rank)
    rank, size = machine * processes + local_rank, machines * processes
    distributed.init_process_group("nccl" if on_gpus else "gloo", url, timeout, world_size=size, rank=rank)
    comm.create_local_process_group(processes)
    comm.synchronize()  # here a late process is waited for; in the training's first exchange it would be a puzzle
    function(*args)
    # Leave together: if a process leaves while others communicate with it, the runtime aborts them.
    comm.synchronize()
    gc.collect()  # trainers are in cycles, and hold the group; one of gloo that outlives this may abort the process
    distributed.destroy_process_group()
