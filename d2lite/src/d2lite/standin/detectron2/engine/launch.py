"""Starting one process per device."""

import logging
import socket
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.utils import comm

__all__ = ["DEFAULT_TIMEOUT", "launch"]

DEFAULT_TIMEOUT = timedelta(minutes=30)


def _find_free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("", 0))  # the system picks one; there is a small chance that another program takes it meanwhile
        return sock.getsockname()[1]


def launch(
    main_func: Callable,
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Call ``main_func(*args)`` in every process of a job; must be called once on each machine.

    One process (or none asked for): a plain call in this process. More: one new process per GPU, connected by NCCL; on
    a machine without GPUs, as many processes as asked for, connected by gloo.

    Args:
        main_func: must be importable by name from the new processes.
        num_gpus_per_machine: processes on each machine.
        num_machines: number of machines.
        machine_rank: index of this machine.
        dist_url: where the processes meet, such as ``tcp://127.0.0.1:8686``; "auto" finds a free port on one machine.
        args: arguments of ``main_func``.
        timeout: how long processes wait for each other.

    Raises:
        ValueError: "auto" with several machines, or no ``dist_url`` with several processes.
    """
    world_size = num_machines * num_gpus_per_machine
    if world_size <= 1:
        main_func(*args)
        return
    if dist_url is None:
        raise ValueError("launch() with several processes needs dist_url, for example 'auto' on a single machine.")
    if dist_url == "auto":
        if num_machines != 1:
            raise ValueError("dist_url='auto' works on a single machine only; give tcp://HOST:PORT of machine 0.")
        dist_url = f"tcp://127.0.0.1:{_find_free_port()}"
    if num_machines > 1 and dist_url.startswith("file://"):
        logging.getLogger(__name__).warning(
            "file:// is not a reliable init_method with several machines. Prefer tcp://"
        )
    mp.start_processes(
        _distributed_worker,
        nprocs=num_gpus_per_machine,
        args=(main_func, world_size, num_gpus_per_machine, machine_rank, dist_url, args, timeout),
        daemon=False,
        start_method="spawn",
    )


def _distributed_worker(
    local_rank: int,
    main_func: Callable,
    world_size: int,
    num_gpus_per_machine: int,
    machine_rank: int,
    dist_url: str,
    args: tuple,
    timeout: timedelta,
) -> None:
    has_gpu = torch.cuda.is_available()
    if has_gpu and num_gpus_per_machine > torch.cuda.device_count():
        raise ValueError(
            f"{num_gpus_per_machine} processes were asked for, but this machine has {torch.cuda.device_count()} GPUs."
        )
    try:
        dist.init_process_group(
            backend="nccl" if has_gpu else "gloo",
            init_method=dist_url,
            world_size=world_size,
            rank=machine_rank * num_gpus_per_machine + local_rank,
            timeout=timeout,
        )
    except Exception:
        logging.getLogger(__name__).error("The processes could not meet at %s", dist_url)
        raise
    comm.create_local_process_group(num_gpus_per_machine)
    if has_gpu:
        torch.cuda.set_device(local_rank)
    comm.synchronize()  # a late start of one process must not look like a failure in the first collective call
    main_func(*args)
    # Leave together: a process that ends while others still talk to it, or with the communication's threads running,
    # may be aborted by the C++ runtime after all its work is done.
    comm.synchronize()
    dist.destroy_process_group()
