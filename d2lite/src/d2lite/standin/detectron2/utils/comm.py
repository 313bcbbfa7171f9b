"""The processes of a job, and communication between them. A single process is a job of one.

``group`` is one of ``torch.distributed``, by default all processes. Objects travel through host memory, pickled.
"""

import weakref
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist

_LOCAL_PROCESS_GROUP = None
"""The processes of this machine. Code that starts processes without ``launch`` may set it directly."""

# Weak, so that gloo's threads end with the job's other groups, and do not abort Python's end.
_GLOO_GROUPS: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _in_a_job() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """How many processes the job has."""
    return dist.get_world_size() if _in_a_job() else 1


def get_rank() -> int:
    """This process's number in the job, from 0."""
    return dist.get_rank() if _in_a_job() else 0


def is_main_process() -> bool:
    """Whether this is process 0, which writes files and messages for all."""
    return not get_rank()


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Let each ``num_workers_per_machine`` neighbors in rank share a machine; called once by all processes."""
    global _LOCAL_PROCESS_GROUP
    if _LOCAL_PROCESS_GROUP is None:
        _LOCAL_PROCESS_GROUP, _ = dist.new_subgroups(num_workers_per_machine, timeout=_timeout())


def get_local_process_group():
    """The group of this machine's processes; AssertionError if it has not been created."""
    assert _LOCAL_PROCESS_GROUP is not None, (
        "It is not known which processes share this machine: start them by detectron2.engine.launch, "
        "or call comm.create_local_process_group in each."
    )
    return _LOCAL_PROCESS_GROUP


def get_local_rank() -> int:
    """This process's number on its machine, from 0."""
    return dist.get_rank(get_local_process_group()) if _in_a_job() else 0


def get_local_size() -> int:
    """How many processes of the job run on this machine."""
    return dist.get_world_size(get_local_process_group()) if _in_a_job() else 1


def synchronize() -> None:
    """Return when all processes have called this."""
    if get_world_size() > 1:
        # NCCL would guess the device otherwise, and say so in a warning.
        dist.barrier(device_ids=[torch.cuda.current_device()] if dist.get_backend() == "nccl" else None)


def all_gather(data, group=None) -> list:
    """The ``data`` of all processes, by rank, in all processes."""
    group, size = _members(group)
    everywhere = [data] * size
    if size > 1:
        dist.all_gather_object(everywhere, data, group)
    return everywhere


def gather(data, dst: int = 0, group=None) -> list:
    """The ``data`` of all processes, by rank, in process ``dst``; an empty list in the others."""
    group, size = _members(group)
    if size == 1:
        return [data]
    collected = [None] * size if dist.get_rank(group) == dst else []
    dist.gather_object(data, collected or None, dst, group)
    return collected


def shared_random_seed() -> int:
    """A random number below 2**31 for all processes. Each draws one from NumPy's generator, and process 0's counts."""
    return all_gather(np.random.randint(2**31))[0]


def reduce_dict(input_dict: dict[str, torch.Tensor], average: bool = True) -> dict[str, torch.Tensor]:
    """For process 0: means (or sums) over all processes of tensors of one number, with the same names each."""
    size = get_world_size()
    if size == 1:
        return input_dict
    names = sorted(input_dict)  # the processes may have filled theirs in another order
    totals = torch.stack([input_dict[name].detach() for name in names])
    dist.reduce(totals, 0)
    return dict(zip(names, totals / size if average else totals, strict=True))


def _members(group) -> tuple:
    """A group in which objects can be exchanged, and its size. Groups of one need no communication."""
    if get_world_size() == 1:
        return None, 1
    # NCCL moves what is on GPUs only.
    group = group or (_gloo_group() if dist.get_backend() == "nccl" else dist.group.WORLD)
    return group, dist.get_world_size(group)


def _gloo_group():
    made = _GLOO_GROUPS.get(dist.group.WORLD)
    group = made() if made else None
    if group is None:
        group = dist.new_group(backend="gloo", timeout=_timeout())
        _GLOO_GROUPS[dist.group.WORLD] = weakref.ref(group)
    return group


def _timeout() -> timedelta | None:
    """How long the job's own group waits. Without this, other groups would wait for torch's default time."""
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    try:
        return dist.group.WORLD._get_backend(device).options._timeout  # type: ignore[union-attr]  # None: AttributeError
    except (AttributeError, RuntimeError):  # torch has no public name for it
        return None
