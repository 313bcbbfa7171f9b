"""A job of several processes ends soon after one of them fails; wrong here means hours of waiting, and no reason."""

import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from PADing.engine.failure_reports import may_follow, mistake_of
from PADing.engine.peers import ALIVE, GONE, STOPPED, UNKNOWN, Peer, this_process
from PADing.errors import UserError
from tests.engine.test_distributed import free_port
from tests.engine.test_interruption import Job, torchrun

HOST = socket.gethostname()
LAST = rf"[Pp]rocess 1 \(pid \d+, host {re.escape(HOST)}\)"


def job(folder, way, slow, **options):
    if way == "torchrun":
        return Job(folder, slow=slow, before=torchrun(folder), **options)
    return Job(folder, "--num-gpus", "2", slow=slow, **options)


def ending(job, times=3):
    """Status, and seconds from the last step to the end."""
    job.wait_for("<step>", times=times)
    start = time.monotonic()
    return job.end(timeout=90), time.monotonic() - start


def first_report(job, failure=r"Traceback|[Ee]rror:|has failed|has ended|has been stopped"):
    """The line of the output that first speaks of a failure."""
    return next(line for line in job.output.splitlines() if re.search(failure, line))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["spawned", "torchrun"])
@pytest.mark.parametrize(
    ("slow", "status", "report"),
    [
        ("raise", 1, rf"{LAST} has failed:"),
        ("mistake", 2, rf"error: \({LAST}\) one process finds a mistake|{LAST} cannot go on:"),
        ("nan", 2, rf"Loss became infinite or NaN at iteration 2: .*, in process 1 \(host {re.escape(HOST)}\)\. Lower"),
        ("die", 137, rf"killed by SIGKILL: process 1, host {re.escape(HOST)}|{LAST} has ended without a report"),
        ("freeze", 1, rf"{LAST} has been stopped \(SIGSTOP\) for 3 seconds:"),
        ("freeze first", 1, r"Process 0 \(pid .*\) has been stopped \(SIGSTOP\) for 3 seconds:"),
    ],
)
def test_a_failure_ends_the_job_and_is_reported_first(tmp_path, way, slow, status, report):
    failed = job(tmp_path, way, slow, environment={"FROZEN": "3"})
    got, seconds = ending(failed)
    assert got == (status if way == "spawned" else 1), failed.output
    assert seconds < 30
    assert re.search(report, first_report(failed)), failed.output
    text = {"raise": "RuntimeError: one process fails", "mistake": "one process finds a mistake"}.get(slow, "")
    assert text in failed.output


@pytest.mark.slow
@pytest.mark.parametrize("way", ["spawned", "torchrun"])
def test_a_process_that_is_killed_in_an_evaluation(tmp_path, way):
    failed = job(tmp_path, way, "die scoring", opts=["TEST.EVAL_PERIOD", 2, "SOLVER.MAX_ITER", 4])
    got, seconds = ending(failed, times=2)
    assert got == (137 if way == "spawned" else 1) and seconds < 30
    first = first_report(failed, "[Pp]rocess 1|Traceback|Stopped")
    assert re.search(rf"rocess 1(, | \(pid \d+, )host {re.escape(HOST)}", first)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["spawned", "torchrun"])
def test_one_process_may_score_for_as_long_as_it_needs(tmp_path, way):
    """Here ten times as long as a process may be stopped; of COCO's val2014 it is hours against 20 seconds."""
    opts = ["TEST.EVAL_PERIOD", 2, "SOLVER.MAX_ITER", 2]
    scoring = job(tmp_path, way, "", opts=opts, environment={"SCORING": "20", "FROZEN": "2"})
    assert scoring.end(timeout=120) == 0, scoring.output
    assert "has been" not in scoring.output and "no heartbeat" not in scoring.output


@pytest.mark.slow
def test_torchrun_can_start_a_failed_job_again(tmp_path):
    """The report of the first start, in a store that outlives it, must not end the second one."""
    failed = Job(tmp_path, "--resume", slow="raise", before=torchrun(tmp_path, "--max-restarts", "1"))
    assert failed.end(timeout=180) == 1
    pids = re.findall(r"Process 1 \(pid (\d+), host .*\) has failed:", failed.output)
    assert len(set(pids)) == 2, failed.output


@pytest.mark.slow
def test_a_process_on_another_machine_is_reported_there_too(tmp_path):
    flags, jobs = ["--num-machines", "2", "--dist-url", f"tcp://127.0.0.1:{free_port()}"], []
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
        jobs.append(Job(tmp_path / str(rank), *flags, "--machine-rank", str(rank), slow="mistake"))
    assert [job.end(timeout=90) for job in jobs] == [2, 2]
    assert all("one process finds a mistake" in job.output for job in jobs)


# ---- parts


def test_state_of_a_process():
    own = this_process(0)
    child = subprocess.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"], stdout=-1)
    try:
        child.stdout.readline()
        state = open(f"/proc/{child.pid}/stat").read().rpartition(")")[2].split()
        peer = Peer(1, own.host, child.pid, own.machine, state[19])
        assert own.state(own) == peer.state(own) == ALIVE
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
        assert peer.state(own) == STOPPED
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert peer.state(own) == GONE  # a zombie
    finally:
        child.kill()
        child.wait()
    assert peer.state(own) == GONE
    assert Peer(1, own.host, own.pid, own.machine, "0").state(own) == GONE  # another process has this id now
    assert Peer(1, own.host, own.pid, "elsewhere", own.started).state(own) == UNKNOWN


def test_which_errors_may_follow_from_another_process():
    gloo = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.1.1]:18535"
    assert may_follow(RuntimeError(gloo)) and may_follow(RuntimeError("NCCL communicator was aborted on rank 0."))
    assert not may_follow(ValueError("too many values to unpack"))
    assert mistake_of(UserError("a")) == "a" and not mistake_of(ValueError("a"))
    assert "x.png" in mistake_of(FileNotFoundError(2, "No such file", "x.png"))
