"""Jobs of several processes: joining one of ``torchrun``, starting one on CPUs (for GPUs: Detectron2's)."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from detectron2.utils import comm
from torch.distributed.rendezvous import rendezvous

from PADing.errors import UserError

# How long processes wait for each other before they take the others for dead. While the first one scores an evaluation,
# the others wait: 4 million detections on COCO's val2014 take longer than PyTorch's 10 (NCCL) to 30 minutes. A process
# that fails is noticed at once all the same, by the process that started it.
TIMEOUT = timedelta(hours=6)
# How long they wait for all to be there at the start.
MEETING = timedelta(minutes=15)


def launched_by_torchrun() -> bool:
    """Whether the environment describes a job of this process and others."""
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys()


@contextmanager
def torchrun_process_group(cpu: bool, timeout: timedelta = TIMEOUT) -> Iterator[None]:
    """Make the process group that the environment describes: NCCL with one GPU per process, or gloo on CPUs."""
    local_rank, world_size = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    if not cpu:
        if local_rank >= (present := torch.cuda.device_count()):
            cure = "Lower --nproc-per-node, or add --num-gpus 0 to run on CPUs."
            raise UserError(f"torchrun started more processes on this machine than it has GPUs ({present}). {cure}")
        torch.cuda.set_device(local_rank)
    # A wrong address or a process that never came is to be noticed earlier than a process that computes for long.
    store, rank, world_size = next(rendezvous("env://", timeout=MEETING))
    store = torch.distributed.PrefixStore("PADing", store)
    backend = "gloo" if cpu else "nccl"
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    try:
        comm.create_local_process_group(int(os.environ.get("LOCAL_WORLD_SIZE", world_size)))
        comm.synchronize()
        yield
        comm.synchronize()  # leave together: others may still be talking to this process
    finally:
        torch.distributed.destroy_process_group()


def launch_on_cpus(
    function: Callable, processes: int, num_machines: int = 1, machine_rank: int = 0, dist_url: str = "auto",
    args: tuple = (), timeout: timedelta = TIMEOUT,
) -> None:  # fmt: skip
    """Call the importable ``function(*args)`` in ``processes`` new processes of this machine, connected by gloo.

    They meet at ``dist_url``, ``tcp://HOST:PORT``; "auto" finds a free port of this machine. UserError for another
    form, and for "auto" with several machines.
    """
    if dist_url == "auto" and num_machines == 1:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            dist_url = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    host, _, port = dist_url.removeprefix("tcp://").rpartition(":")
    if not dist_url.startswith("tcp://") or not host or not port.isdigit():
        raise UserError(f"--dist-url must be tcp://HOST:PORT of the first machine, but is {dist_url!r}.")
    sizes = {"WORLD_SIZE": str(processes * num_machines), "LOCAL_WORLD_SIZE": str(processes)}
    environment = {"MASTER_ADDR": host, "MASTER_PORT": port, **sizes}
    torch.multiprocessing.start_processes(
        _in_process, (function, environment, machine_rank * processes, args, timeout), processes, start_method="spawn"
    )


def _in_process(
    local_rank: int, function: Callable, environment: dict, first_rank: int, args: tuple, timeout: timedelta
) -> None:
    os.environ.update(environment, LOCAL_RANK=str(local_rank), RANK=str(first_rank + local_rank))
    with torchrun_process_group(cpu=True, timeout=timeout):
        function(*args)
