"""Jobs of several processes: joins a job of ``torchrun``, or starts one on CPUs (Detectron2 starts those on GPUs)."""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from detectron2.utils import comm
from torch.distributed import TCPStore
from torch.distributed.rendezvous import rendezvous

from PADing.engine.slurm import check_own_gpu, gpu_index
from PADing.engine.torchrun import RUN_ID, fresh_store
from PADing.errors import UserError

# How long processes wait for each other before they give up. Scoring an evaluation may take one of them longer than
# PyTorch's 10 (NCCL) to 30 minutes. A process that fails is noticed by ``PADing.engine.job_watch``, long before.
TIMEOUT = timedelta(hours=6)
# How long processes wait at the start until all are there.
MEETING = timedelta(minutes=15)


def launched_by_torchrun() -> bool:
    """Whether the environment has torchrun's variables."""
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys()


@contextmanager
def torchrun_process_group(cpu: bool, timeout: timedelta = TIMEOUT) -> Iterator[None]:
    """Create the process group that the environment describes: NCCL with one GPU per process, or gloo on CPUs.

    UserError if torchrun or srun started more processes on this machine than it has GPUs.
    """
    local_rank, world_size = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    if not cpu:
        torch.cuda.set_device(gpu_index(local_rank, torch.cuda.device_count()))
    # A shorter timeout for the start, to notice a wrong address or a missing process early.
    store, rank, world_size = next(rendezvous("env://", timeout=MEETING))
    again = RUN_ID in os.environ  # torchrun may have started other processes before
    prefixed = torch.distributed.PrefixStore("PADing", store)
    store = fresh_store(store, rank, world_size, MEETING) if again else prefixed
    if not cpu:
        check_own_gpu(store)
    backend = "gloo" if cpu else "nccl"
    # With its device, NCCL connects here, not in the first exchange, and can be aborted.
    device = None if cpu else torch.device("cuda", torch.cuda.current_device())
    torch.distributed.init_process_group(
        backend, store=store, rank=rank, world_size=world_size, timeout=timeout, device_id=device
    )
    try:
        comm.create_local_process_group(int(os.environ.get("LOCAL_WORLD_SIZE", world_size)))
        comm.synchronize()
        yield
        comm.synchronize()  # leave together: other processes may still communicate with this one
    finally:
        # Models of this job hold the group, and trainers are in reference cycles. A group of gloo that is left at the
        # end of Python aborts the process ("terminate called without an active exception").
        gc.collect()
        torch.distributed.destroy_process_group()


def launch_on_cpus(
    function: Callable, processes: int, num_machines: int = 1, machine_rank: int = 0, dist_url: str = "auto",
    args: tuple = (), timeout: timedelta = TIMEOUT,
) -> None:  # fmt: skip
    """Call the importable ``function(*args)`` in ``processes`` new processes of this machine, connected by gloo.

    They share the cores: each has its part of PyTorch's threads, unless ``OMP_NUM_THREADS`` says how many.
    ``dist_url`` is ``tcp://HOST:PORT`` of the first machine, or "auto" for a free port of this machine. UserError for
    another form, and for "auto" with several machines.
    """
    own, store = {}, None
    if dist_url == "auto" and num_machines == 1:
        # As under torchrun, the store is in the process that waits for the others: it survives the first of them.
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        dist_url = f"tcp://127.0.0.1:{store.port}"
        own = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
    host, _, port = dist_url.removeprefix("tcp://").rpartition(":")
    if not dist_url.startswith("tcp://") or not host or not port.isdigit():
        raise UserError(f"--dist-url must be tcp://HOST:PORT of the first machine, but is {dist_url!r}.")
    sizes = {"WORLD_SIZE": str(processes * num_machines), "LOCAL_WORLD_SIZE": str(processes)}
    environment = {"MASTER_ADDR": host, "MASTER_PORT": port, **sizes, **own}
    torch.multiprocessing.start_processes(
        _in_process, (function, environment, machine_rank * processes, args, timeout), processes, start_method="spawn"
    )


def _in_process(
    local_rank: int, function: Callable, environment: dict, first_rank: int, args: tuple, timeout: timedelta
) -> None:
    os.environ.update(environment, LOCAL_RANK=str(local_rank), RANK=str(first_rank + local_rank))
    if not os.environ.get("OMP_NUM_THREADS"):  # else each process would have a thread for every core
        torch.set_num_threads(max(1, torch.get_num_threads() // int(environment["LOCAL_WORLD_SIZE"])))
    with torchrun_process_group(cpu=True, timeout=timeout):
        function(*args)
