"""Jobs of SLURM: when ``srun`` has started several tasks, they are the processes of the job.

``adopt_srun`` turns SLURM's variables into those of torchrun, and all else is the same. Only a step that ``srun`` has
started with several tasks counts: the script of ``sbatch`` and the shell of ``salloc`` know the number of tasks, too,
but are one process.
"""

import argparse
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from PADing.engine.hosts import addresses_of, first_host
from PADing.errors import UserError

# Steps of SLURM itself, such as the shell of salloc (SLURM_INTERACTIVE_STEP), have numbers from here on.
OWN_STEPS = 0xFFFFFF00
# Below the ports that Linux gives to outgoing connections (32768 and more). The factor keeps steps of one job and of
# the next jobs apart.
PORTS, STEPS = range(12_000, 32_000), 61
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR")


@dataclass(frozen=True)
class Task:
    """One task of a step of ``srun``.

    Attributes:
        rank: its number in the job. Tasks of a node have neighbouring numbers, however SLURM distributes tasks.
        world_size: number of tasks.
        local_rank: its number on its node.
        local_sizes: number of tasks on each node.
        node: the node's number in the step.
        hosts: SLURM's list of the step's nodes, such as ``gpu[01-03]``.
        port: where the tasks meet, if ``MASTER_PORT`` does not say it.
    """

    rank: int
    world_size: int
    local_rank: int
    local_sizes: tuple[int, ...]
    node: int
    hosts: str
    port: int

    @property
    def local_size(self) -> int:
        """The number of tasks on this node."""
        return self.local_sizes[self.node]


def slurm_task(environment: Mapping[str, str] = os.environ) -> Task | None:
    """The task of ``srun`` that this process is; None if it is none, or the only one of its step.

    UserError if variables of SLURM are missing or contradict each other.
    """
    step = environment.get("SLURM_STEP_ID", "")
    if "SLURM_PROCID" not in environment or not step.isdigit() or int(step) >= OWN_STEPS:
        return None
    tasks = _number(environment, "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS")
    if tasks <= 1:
        return None
    local_rank, node = _number(environment, "SLURM_LOCALID"), _number(environment, "SLURM_NODEID")
    sizes = local_sizes(environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get("SLURM_TASKS_PER_NODE", ""))
    if sum(sizes) != tasks or node >= len(sizes) or local_rank >= sizes[node]:
        given = f"tasks {tasks}, tasks per node {','.join(map(str, sizes))}, node {node}, task {local_rank} of the node"
        raise UserError(f"SLURM's variables contradict each other: {given}. {_UNSET}")
    hosts = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    job = _number(environment, "SLURM_JOB_ID")
    port = PORTS[(job * STEPS + int(step)) % len(PORTS)]
    return Task(sum(sizes[:node]) + local_rank, tasks, local_rank, sizes, node, hosts, port)


_UNSET = "If this process is no task of srun, unset SLURM_STEP_ID."


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not (text.isascii() and text.isdigit()):
        raise UserError(f"{name} is {text!r}, not a number, although srun has started this process. {_UNSET}")
    return int(text)


def local_sizes(text: str) -> tuple[int, ...]:
    """``SLURM_STEP_TASKS_PER_NODE``, such as ``2(x3),1``, as one number for each node; UserError for another form."""
    sizes: list[int] = []
    for part in text.split(","):
        number, _, times = part.removesuffix(")").partition("(x")
        if not number.isdigit() or times and not times.isdigit() or int(times or 1) > 100_000:
            raise UserError(f"SLURM_STEP_TASKS_PER_NODE is {text!r}, not a list such as 2(x3),1. {_UNSET}")
        sizes += [int(number)] * int(times or 1)
    return tuple(sizes)


def adopt_srun(args: argparse.Namespace) -> None:
    """If this process is one of several tasks of ``srun``, set torchrun's variables, unless torchrun has set them.

    Args:
        args: ``num_gpus`` and ``num_machines`` of ``train_net.py``. With several machines, the flags count: each task
            starts the processes of its machine.

    Raises:
        UserError: the flags ask for other processes than those that ``srun`` has started; a variable is wrong.
    """
    if os.environ.keys() >= set(TORCHRUN) or (task := slurm_task()) is None:
        return
    tasks = f"srun has started {task.world_size} tasks"
    if args.num_machines > 1:
        if task.world_size != args.num_machines:
            cure = "Leave --num-machines and --num-gpus out, and each task is a process with one GPU. Or start one task"
            raise UserError(f"{tasks}, but --num-machines is {args.num_machines}. {cure} on each machine.")
        return
    address = os.environ.get("MASTER_ADDR") or ("127.0.0.1" if len(task.local_sizes) == 1 else first_host(task.hosts))
    port = os.environ.get("MASTER_PORT") or str(task.port)
    # Groups of one machine need the same size everywhere, so with uneven tasks each process is a group of its own.
    even = len(set(task.local_sizes)) == 1
    os.environ.update(
        RANK=str(task.rank), WORLD_SIZE=str(task.world_size), LOCAL_RANK=str(task.local_rank), MASTER_ADDR=address,
        LOCAL_WORLD_SIZE=str(task.local_size if even else 1), MASTER_PORT=port,
    )  # fmt: skip
    global _ADOPTED
    _ADOPTED = task
    if args.num_gpus is not None and args.num_gpus > 1 and {args.num_gpus} != set(task.local_sizes):
        cure = f"Leave --num-gpus out, and start one task for each GPU (srun --ntasks-per-node={args.num_gpus})."
        raise UserError(f"{tasks}, each of which is one process, but --num-gpus is {args.num_gpus}. {cure}")
    if not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f"MASTER_PORT is {port!r}. Set a number from 1 to 65535, or unset it.")
    _check_address(address, task)


_ADOPTED: Task | None = None


def _check_address(address: str, task: Task) -> None:
    """UserError for a ``MASTER_ADDR`` that is unknown here, or not that of the machine of the first process."""
    found = addresses_of(address)
    if not found:
        cure = "Unset it for the first node of the step, or set an address that all nodes know."
        raise UserError(f"MASTER_ADDR is {address!r}, which {socket.gethostname()} cannot resolve. {cure}")
    own, cure = any(_is_own(*each) for each in found), "Unset it, or set an address of that machine."
    if task.rank == 0 and not own:
        host = socket.gethostname()
        raise UserError(f"MASTER_ADDR is {address!r}, but the first process runs on {host}, which has others. {cure}")
    # Where nodes share a machine, as in tests of a cluster, they may share its addresses, too.
    if task.node > 0 and own and not any(_is_own(*each) for each in addresses_of(first_host(task.hosts))):
        problem = (
            f"MASTER_ADDR is {address!r}, which is {socket.gethostname()}, but the first process runs on the first"
        )
        raise UserError(f"{problem} of {task.hosts}. {cure}")


def _is_own(family: int, address: str) -> bool:
    try:
        with socket.socket(family) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def gpu_index(local_rank: int, present: int, environment: Mapping[str, str] = os.environ) -> int:
    """The number of the GPU of a process, among the ``present`` ones that it sees.

    ``srun --gpus-per-task`` shows each task its own, as number 0; otherwise each task sees all GPUs of the node.

    Raises:
        UserError: more processes on this machine than GPUs.
    """
    own = _ADOPTED is not None and (present == 1 or "SLURM_GPUS_PER_TASK" in environment)
    index = 0 if own else local_rank
    if index < present:
        return index
    what = "srun" if _ADOPTED is not None else "torchrun"
    cure = "Start fewer tasks on each node" if _ADOPTED is not None else "Lower --nproc-per-node"
    problem = f"{what} started more processes on this machine than it has GPUs ({present})."
    raise UserError(f"{problem} {cure}, or add --num-gpus 0 to run on CPUs.")


def check_own_gpu(store: torch.distributed.Store, identity: Callable[[], str] | None = None) -> None:
    """UserError if another task of this node has the same GPU, which NCCL refuses with a message of its own.

    Args:
        store: where the tasks meet.
        identity: names the GPU of this process among all of a machine; default: its UUID.
    """
    task = _ADOPTED
    if task is None or task.local_size == 1:
        return
    own = (identity or _uuid)()
    store.set(f"gpu/{task.rank}", own)
    first = task.rank - task.local_rank
    others = [first + i for i in range(task.local_size) if i != task.local_rank]
    same = [rank for rank in others if own and store.get(f"gpu/{rank}").decode() == own]
    if same:
        cure = "Start as many tasks on each node as it has GPUs, and give each its own: srun --gpus-per-task=1."
        ranks = ", ".join(map(str, sorted([task.rank, *same])))
        raise UserError(f"The processes {ranks} on {socket.gethostname()} have the same GPU ({own}). {cure}")


def _uuid() -> str:
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return str(getattr(properties, "uuid", ""))  # not in old versions of torch
