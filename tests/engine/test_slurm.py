"""Tasks of srun: wrong numbers make processes wait for each other, train the same images twice, or share a GPU."""

import itertools
import os
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch

from PADing.engine import slurm
from PADing.engine.distributed import launched_by_torchrun
from PADing.engine.slurm import adopt_srun, check_own_gpu, gpu_index, local_sizes, slurm_task
from PADing.errors import UserError

# What srun of SLURM 22.05 gives to the third of `srun -N2 -n4`, on nodes of which the first has three tasks.
THIRD = {
    "SLURM_JOB_ID": "1234", "SLURM_STEP_ID": "0", "SLURM_PROCID": "2", "SLURM_LOCALID": "2", "SLURM_NODEID": "0",
    "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "3,1",
    "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_JOB_NODELIST": "node[1-2]",
}  # fmt: skip
# The script of `sbatch -N2 --ntasks-per-node=2`, the shell of `salloc -n 3`, one of `salloc` on the node itself (a step
# of its own), and `srun -n 1`.
SCRIPT = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "4",
          "SLURM_TASKS_PER_NODE": "2(x2)", "SLURM_JOB_NODELIST": "node[1-2]"}  # fmt: skip
ALLOCATION = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "3", "SLURM_TASKS_PER_NODE": "3"}
INTERACTIVE = {**SCRIPT, "SLURM_STEP_ID": "4294967290", "SLURM_STEP_NUM_TASKS": "1"}
ALONE = {**THIRD, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"}


def test_a_task_knows_its_place():
    task = slurm_task(THIRD)
    assert (task.rank, task.world_size, task.local_rank, task.local_size, task.node) == (2, 4, 2, 3, 0)
    assert task.hosts == "node[1-2]" and task.port in range(12_000, 32_000)
    last = slurm_task({**THIRD, "SLURM_PROCID": "3", "SLURM_LOCALID": "0", "SLURM_NODEID": "1"})
    assert (last.rank, last.local_rank, last.local_size, last.port) == (3, 0, 1, task.port)


def test_processes_of_a_node_have_neighbouring_ranks_in_a_cyclic_distribution():
    """Detectron2 takes ranks 0 and 1 for one machine, and the first process must be on the first host."""
    found = []
    for procid, (local, node) in enumerate(itertools.product(range(2), range(2))):
        place = {"SLURM_PROCID": str(procid), "SLURM_LOCALID": str(local), "SLURM_NODEID": str(node)}
        found.append((slurm_task({**THIRD, **place, "SLURM_STEP_TASKS_PER_NODE": "2(x2)"}).rank, node))
    assert sorted(found) == [(0, 0), (1, 0), (2, 1), (3, 1)]


@pytest.mark.parametrize("environment", [{}, SCRIPT, ALLOCATION, INTERACTIVE, ALONE])
def test_only_several_tasks_of_srun_are_processes_of_a_job(environment):
    """A process that believes to be one of four waits for the others forever."""
    assert slurm_task(environment) is None


def test_jobs_and_steps_that_may_run_at_the_same_time_have_ports_of_their_own():
    steps = itertools.product(range(1000, 1200), range(40))
    ports = {slurm_task({**THIRD, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)}).port for job, step in steps}
    assert len(ports) == 200 * 40 and max(ports) < 32768 and min(ports) > 1024


@pytest.mark.parametrize(("text", "wanted"), [("4", [4]), ("2(x3),1", [2, 2, 2, 1]), ("3,1", [3, 1])])
def test_tasks_per_node(text, wanted):
    assert list(local_sizes(text)) == wanted


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x2)"}, "contradict each other: tasks 4, tasks per node 2,2, node 0, task 2"),
        ({"SLURM_NODEID": "2"}, "contradict"),
        ({"SLURM_STEP_TASKS_PER_NODE": "two"}, "SLURM_STEP_TASKS_PER_NODE is 'two'"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x999999999)"}, "not a list"),
        ({"SLURM_LOCALID": ""}, "SLURM_LOCALID is '', not a number"),
        ({"SLURM_STEP_NUM_TASKS": "four"}, "SLURM_STEP_NUM_TASKS is 'four'"),
        ({"SLURM_JOB_ID": "-1"}, "SLURM_JOB_ID is '-1'"),
    ],
)
def test_wrong_variables_are_named(change, said):
    with pytest.raises(UserError, match=rf"(?s){said}.*unset SLURM_STEP_ID"):
        slurm_task({**THIRD, **change})


# ---- torchrun's variables


@pytest.fixture
def step(monkeypatch):
    """Become the first task of a step of two on this machine; returns a function that adopts it with given flags."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    for name in (*slurm.TORCHRUN, "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.setenv(name, "")  # restored at the end
        monkeypatch.delenv(name)
    own = {**THIRD, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "2"}
    for name, value in {**own, "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NODELIST": "node1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm, "_ADOPTED", None)
    return lambda num_gpus=1, num_machines=1: adopt_srun(SimpleNamespace(num_gpus=num_gpus, num_machines=num_machines))


def test_a_step_looks_like_a_job_of_torchrun(step):
    step()
    assert launched_by_torchrun()
    found = [os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")]
    assert found == ["0", "0", "2", "2", "127.0.0.1"] and os.environ["MASTER_PORT"].isdigit()


def test_nothing_changes_outside_of_a_step(step, monkeypatch):
    monkeypatch.delenv("SLURM_STEP_ID")
    step(num_gpus=8)
    assert not launched_by_torchrun()


def test_torchrun_wins(step, monkeypatch):
    """`srun torchrun ...` starts processes of its own in each task."""
    for name, value in {"RANK": "5", "WORLD_SIZE": "16", "LOCAL_RANK": "5", "MASTER_ADDR": "first"}.items():
        monkeypatch.setenv(name, value)
    step()
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"], os.environ["MASTER_ADDR"]) == ("5", "16", "first")
    assert slurm._ADOPTED is None


def test_address_and_port_can_be_set(step, monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", "23456")
    step()
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("localhost", "23456")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MASTER_PORT", "many", "MASTER_PORT is 'many'. Set a number from 1 to 65535"),
        ("MASTER_PORT", "70000", "MASTER_PORT is '70000'"),
        ("MASTER_ADDR", "no such host", "MASTER_ADDR is 'no such host', which .* cannot resolve"),
        ("MASTER_ADDR", "192.0.2.1", "MASTER_ADDR is '192.0.2.1', but the first process runs on .*which has others"),
    ],
)
def test_a_wrong_address_is_said_at_once(step, monkeypatch, name, value, said):
    """Otherwise all wait for 15 minutes. 192.0.2.1 is reserved for examples."""
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=said):
        step()


def test_an_address_of_another_node_is_said_there_too(step, monkeypatch):
    """Where the first process would be waited for."""
    changed = {"SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NODEID": "1"}
    for name, value in {**changed, "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm, "first_host", lambda hosts: "192.0.2.1")
    with pytest.raises(UserError, match=r"'127.0.0.1', which is .*the first process runs on the first of node\[1-2\]"):
        step()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((8, 1), "srun has started 2 tasks, each of which is one process, but --num-gpus is 8.*--ntasks-per-node=8"),
        ((8, 3), "srun has started 2 tasks, but --num-machines is 3.*Leave --num-machines and --num-gpus out"),
    ],
)
def test_flags_that_ask_for_other_processes_are_refused(step, flags, said):
    with pytest.raises(UserError, match=said):
        step(*flags)


def test_flags_that_say_the_same_are_fine(step):
    step(num_gpus=2)
    assert os.environ["WORLD_SIZE"] == "2"


def test_flags_of_a_job_that_each_task_starts_on_its_machine_count(step):
    step(num_gpus=8, num_machines=2)
    assert not launched_by_torchrun()


def test_uneven_tasks_have_no_common_group_size(step, monkeypatch):
    """Detectron2's groups of one machine must have the same size everywhere, or processes wait for each other."""
    changed = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "3,1", "SLURM_STEP_NODELIST": "node[1-2]"}
    for name, value in changed.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm, "first_host", lambda hosts: {"node[1-2]": "127.0.0.1"}[hosts])
    step()
    assert os.environ["LOCAL_WORLD_SIZE"] == "1" and os.environ["WORLD_SIZE"] == "4"


# ---- GPUs


def test_which_gpu_a_task_takes(step):
    assert gpu_index(3, 8, {}) == 3
    with pytest.raises(UserError, match=r"torchrun started more processes .* GPUs \(1\). Lower --nproc-per-node"):
        gpu_index(1, 1, {})
    step()
    assert gpu_index(1, 2, {}) == 1  # all GPUs of the node are visible
    assert gpu_index(1, 1, {}) == 0  # its own alone
    assert gpu_index(3, 2, {"SLURM_GPUS_PER_TASK": "2"}) == 0
    with pytest.raises(UserError, match=r"srun started more processes .* GPUs \(2\). Start fewer tasks on each node"):
        gpu_index(3, 2, {})


@pytest.mark.parametrize(("gpus", "wrong"), [(["GPU-a", "GPU-b"], 0), (["GPU-a", "GPU-a"], 2), (["", ""], 0)])
def test_two_tasks_with_one_gpu_are_told(step, monkeypatch, gpus, wrong):
    step()
    task = slurm._ADOPTED
    store = torch.distributed.HashStore()
    store.set_timeout(timedelta(seconds=20))
    problems = []

    def check(rank):
        mine = SimpleNamespace(rank=rank, local_rank=rank, local_size=2)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(slurm, "_ADOPTED", mine)
            check_own_gpu(store, lambda: gpus[rank])

    store.set("gpu/1", gpus[1])
    for rank in (0, 1):
        try:
            check(rank)
        except UserError as error:
            problems.append(str(error))
    assert len(problems) == wrong and task is not None
    assert all("The processes 0, 1 on" in problem and "--gpus-per-task=1" in problem for problem in problems)
