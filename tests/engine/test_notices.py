"""A scheduler's notice (SIGUSR1, SIGUSR2, SIGXCPU): a checkpoint, and a status that asks for another start."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from PADing.command_line import run_command
from PADing.engine.interruption import STOP
from PADing.engine.relay import relayed_stop_signals
from PADing.errors import Interrupted
from PADing.requeue import NOTICES, VARIABLE, requeue_status, status_problem
from tests.engine.test_interruption import (
    ITERATIONS,
    REPOSITORY,
    Job,
    assert_equal,
    commands_of_children,
    final_weights,
    stopped,
    told,
    uninterrupted,
)
from tests.engine.tiny import config

pytestmark = pytest.mark.skipif(not NOTICES, reason="no real-time signals here")


@pytest.mark.parametrize(
    ("text", "status"),
    [("", 75), ("99", 99), ("3", 3), ("125", 125), *[(t, 75) for t in ("0", "1", "2", "130", "-9", "x", "٣٣", " 9")]],
)
def test_the_status_can_be_chosen(text, status):
    environment = {VARIABLE: text}
    assert requeue_status(environment) == status
    assert bool(status_problem(environment)) == (text not in ("", "99", "3", "125"))


def test_statuses_that_mean_something_else_are_refused_before_the_training():
    """With 2, a script would start a job with a wrong path again and again."""
    command = [sys.executable, "train_net.py", "--config-file", "absent.yaml"]
    environment = {**os.environ, VARIABLE: "2"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "error: PADING_REQUEUE_STATUS is '2'. Set a whole number from 3 to 125, or unset it for 75." in done.stderr


def test_the_launcher_hands_the_status_on():
    error = torch.multiprocessing.ProcessExitedException("one of them", error_index=0, error_pid=1, exit_code=75)

    def fail():
        raise error

    assert run_command(fail) == 75


@pytest.mark.parametrize("number", NOTICES)
def test_a_process_that_is_told_so_asks_for_another_start(number, capsys):
    with pytest.raises(Interrupted) as raised, STOP.watch():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert raised.value.status == 75


def test_notices_do_not_count_as_second_signals():
    """SIGXCPU comes once a second, and a scheduler may send SIGTERM behind SIGUSR1, while the checkpoint is written."""
    with STOP.watch():
        STOP.deferred = True
        for number in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGXCPU, signal.SIGXCPU, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
            time.sleep(0.05)
        assert STOP.number == signal.SIGUSR1


def test_notices_that_a_launcher_ignores_are_for_its_processes():
    """torchrun would be ended by SIGUSR1, so a script makes it ignore the signal, and children inherit that."""
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with pytest.raises(Interrupted), STOP.watch():
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(5)
        assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_launcher_of_a_job_gets_notices_too():
    with pytest.raises(Interrupted) as raised, relayed_stop_signals():
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.05)
    assert raised.value.number == signal.SIGUSR1 and raised.value.status == 75 and raised.value.told


def test_notice_in_a_training(tmp_path, monkeypatch, caplog):
    """SelfStopping sends SIGTERM; here the notice comes first, and its status counts."""
    cfg = config(tmp_path / "run", "SOLVER.CHECKPOINT_PERIOD", 1000)
    kill = os.kill

    def notice(process, number):
        kill(process, signal.SIGUSR1)
        time.sleep(0.05)

    monkeypatch.setattr(os, "kill", notice)
    with pytest.raises(AssertionError, match="75"):  # the helper expects 143
        stopped(cfg, monkeypatch, caplog, at=2)
    assert "Stopped by SIGUSR1. 3 of 8 iterations are saved" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGXCPU])
def test_a_preempted_training_continues_as_if_nothing_had_been(tmp_path, number):
    """Also if the notice comes three times, to the process and to its data-loading workers."""
    opts = ["DATALOADER.NUM_WORKERS", 2, "DATALOADER.ASPECT_RATIO_GROUPING", False]
    job = Job(tmp_path, opts=opts).wait_for("<step>", times=5)
    for _ in range(3):
        job.send(number)
    assert job.end() == 75
    done = int(told(job).split(f"Stopped by {signal.Signals(number).name}. ")[1].split()[0])
    resumed = Job(tmp_path, "--resume", opts=opts)
    assert resumed.end() == 0
    assert resumed.output.count("<step>") == ITERATIONS - done
    assert_equal(final_weights(tmp_path), uninterrupted(tmp_path, *opts))


@pytest.mark.slow
@pytest.mark.parametrize("group", [True, False])
def test_notice_to_a_job_of_two_processes(tmp_path, group):
    """SLURM tells all processes of a step; others only the one that they have started."""
    job = Job(tmp_path, "--num-gpus", "2").wait_for("<step>", times=5).send(signal.SIGUSR1, group)
    assert job.end() == 75
    assert f" of {ITERATIONS} iterations are saved in" in told(job)


@pytest.mark.slow
def test_notice_while_the_processes_of_a_job_start(tmp_path):
    """They import for seconds, and have no handler yet."""
    job = Job(tmp_path, "--num-gpus", "2", slow="loading")
    while "spawn_main" not in commands_of_children(job.process.pid):
        assert job.process.poll() is None
        time.sleep(0.1)
    assert job.send(signal.SIGUSR1).end() == 75
    assert "Traceback" not in job.output


@pytest.mark.slow
@pytest.mark.parametrize("slow", ["evaluation", "loading"])
def test_notice_in_another_part(tmp_path, slow):
    job = Job(tmp_path, slow=slow, opts=["TEST.EVAL_PERIOD", 5]).wait_for(f"<{slow}>").send(signal.SIGUSR2)
    assert job.end(timeout=30) == 75
    assert ("5 of 60 iterations are saved" if slow == "evaluation" else "Stopped while loading") in told(job)


@pytest.mark.slow
def test_notice_while_pytorch_is_imported(tmp_path):
    job = Job(tmp_path, before=[sys.executable, str(REPOSITORY / "train_net.py")])
    while not _caught(job.process.pid) >> (signal.SIGUSR1 - 1) & 1:
        time.sleep(0.02)
    assert job.send(signal.SIGUSR1).end() == 75
    assert "Traceback" not in job.output and not list((tmp_path / "out").glob("*.pth"))


def _caught(process):
    """The signals that a process handles, as bits."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt"))


@pytest.mark.slow
def test_workers_of_torchrun_that_ignores_notices(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("import sys\nfrom PADing.engine.main import main\nsys.exit(main())\n")
    torchrun = f"{sys.executable} -m torch.distributed.run --nproc-per-node 2 --standalone {script}"
    job = Job(tmp_path, before=["bash", "-c", f'trap "" USR1; exec {torchrun} "$@"', "bash"])
    job.wait_for("<step>", times=5).send(signal.SIGUSR1)
    pid = job.process.pid
    for worker in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():  # in sessions of their own
        os.kill(int(worker), signal.SIGUSR1)
    assert job.end() == 1  # torchrun's own
    lines = {line.partition("Stopped")[2] for line in job.output.splitlines() if "Stopped by SIGUSR1" in line}
    assert len(lines) == 1 and f" of {ITERATIONS} iterations are saved" in lines.pop()
