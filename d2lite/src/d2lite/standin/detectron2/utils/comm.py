"""Communication between the processes of one job. Everything also works, as a no-op, with a single process."""

import functools

import numpy as np
import torch
import torch.distributed as dist

_LOCAL_PROCESS_GROUP = None
"""The group of the processes on this machine. Set by :func:`create_local_process_group`, which ``launch`` calls."""

_MISSING_LOCAL_PROCESS_GROUP = (
    "Local process group is not created! Start the processes with detectron2.engine.launch(), "
    "or call comm.create_local_process_group() in each of them."
)


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes of the job."""
    return dist.get_world_size() if _is_distributed() else 1


def get_rank() -> int:
    """Index of this process in the job."""
    return dist.get_rank() if _is_distributed() else 0


@functools.lru_cache
def create_local_process_group(num_workers_per_machine: int) -> None:
    """Create one group per machine; every process of the job must call it, with the same number of local processes."""
    global _LOCAL_PROCESS_GROUP
    assert _LOCAL_PROCESS_GROUP is None
    assert get_world_size() % num_workers_per_machine == 0
    machine = get_rank() // num_workers_per_machine
    for i in range(get_world_size() // num_workers_per_machine):
        group = dist.new_group(list(range(i * num_workers_per_machine, (i + 1) * num_workers_per_machine)))
        if i == machine:
            _LOCAL_PROCESS_GROUP = group


def get_local_process_group():
    """The torch process group of this machine's processes."""
    assert _LOCAL_PROCESS_GROUP is not None, _MISSING_LOCAL_PROCESS_GROUP
    return _LOCAL_PROCESS_GROUP


def get_local_rank() -> int:
    """Index of this process on its machine."""
    if not _is_distributed():
        return 0
    assert _LOCAL_PROCESS_GROUP is not None, _MISSING_LOCAL_PROCESS_GROUP
    return dist.get_rank(group=_LOCAL_PROCESS_GROUP)


def get_local_size() -> int:
    """Number of processes on this machine."""
    if not _is_distributed():
        return 1
    assert _LOCAL_PROCESS_GROUP is not None, _MISSING_LOCAL_PROCESS_GROUP
    return dist.get_world_size(group=_LOCAL_PROCESS_GROUP)


def is_main_process() -> bool:
    """Whether this is the process of rank 0."""
    return get_rank() == 0


def synchronize() -> None:
    """Wait until every process is here."""
    if get_world_size() == 1:
        return
    if dist.get_backend() == dist.Backend.NCCL:
        # Names the device, which keeps NCCL from guessing it (and from warning about that).
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


def _get_global_gloo_group():
    # Pickled objects live in host memory; NCCL moves device memory only.
    return _new_gloo_group() if dist.get_backend() == "nccl" else dist.group.WORLD


@functools.lru_cache
def _new_gloo_group():
    return dist.new_group(backend="gloo")


def all_gather(data, group=None) -> list:
    """Collect any picklable object from every process.

    Args:
        data: this process's object.
        group: a process group; by default all processes, over gloo.

    Returns:
        The objects by rank, on every process.
    """
    if get_world_size() == 1:
        return [data]
    group = _get_global_gloo_group() if group is None else group
    world_size = dist.get_world_size(group)
    if world_size == 1:
        return [data]
    output = [None] * world_size
    dist.all_gather_object(output, data, group=group)
    return output


def gather(data, dst: int = 0, group=None) -> list:
    """Collect any picklable object from every process at rank ``dst``; the list is empty everywhere else."""
    if get_world_size() == 1:
        return [data]
    group = _get_global_gloo_group() if group is None else group
    world_size = dist.get_world_size(group)
    if world_size == 1:
        return [data]
    if dist.get_rank(group) == dst:
        output = [None] * world_size
        dist.gather_object(data, output, dst=dst, group=group)
        return output
    dist.gather_object(data, None, dst=dst, group=group)
    return []


def shared_random_seed() -> int:
    """A random number below 2**31 that all processes agree on: the one that rank 0 draws from numpy's generator.

    Every process must call it, and every process draws, so that their generators stay in step.
    """
    return all_gather(np.random.randint(2**31))[0]


def reduce_dict(input_dict: dict, average: bool = True) -> dict:
    """Sum or average scalar tensors over all processes.

    Args:
        input_dict: name to scalar tensor, with the same names in every process.
        average: divide by the number of processes.

    Returns:
        A dict with the same names. Only the values on rank 0 are meaningful.
    """
    world_size = get_world_size()
    if world_size < 2:
        return input_dict
    with torch.no_grad():
        names = sorted(input_dict)
        values = torch.stack([input_dict[name] for name in names], dim=0)
        dist.reduce(values, dst=0)
        if average and dist.get_rank() == 0:
            values /= world_size
        return dict(zip(names, values, strict=True))
