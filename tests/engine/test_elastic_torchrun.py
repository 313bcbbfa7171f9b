"""torchrun starts processes again: after a killed process, a killed torchrun, and when a machine joins.

``python -m pytest -m slow tests/engine/test_elastic_torchrun.py`` runs all; several machines need root and ``ip``, see
``machines.py``.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from detectron2.utils.env import seed_all_rng

from tests.engine.machines import Machines, NoDelayError, missing
from tests.engine.test_interruption import assert_equal
from tests.engine.tiny import TinyTrainer, config

pytestmark = pytest.mark.slow
REPOSITORY = Path(__file__).resolve().parents[2]
ITERATIONS = 24
PERIOD = 5  # iterations between checkpoints
OPTS = ["SOLVER.IMS_PER_BATCH", 4, "TEST.EVAL_PERIOD", 0, "SOLVER.MAX_ITER", ITERATIONS]
OPTS += ["SOLVER.CHECKPOINT_PERIOD", PERIOD, "SOLVER.SHARES", 2]


class Job:
    """A training of torchrun on one machine or several, which share the folder."""

    def __init__(self, folder, *opts, architecture="TinyOneOptimizer"):
        self.folder, self.out, self.trace = folder, folder / "out", folder / "trace"
        self.trace.mkdir(parents=True)
        cfg = config(self.out, *OPTS, *opts, architecture=architecture).clone()
        cfg.defrost()
        cfg.PLUGINS = ("tests.engine.faulty",)  # not imported here, because it replaces the trainer
        (folder / "config.yaml").write_text(cfg.dump())
        (folder / "train.py").write_text("import sys\nfrom PADing.engine.main import main\nsys.exit(main())\n")
        self.logs, self.processes = [], []

    def start(self, *flags, launch=("--standalone",), fault="", slow=0.05, popen=subprocess.Popen, processes=1):
        """Start torchrun; ``flags`` are those of the training."""
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "TRACE": str(self.trace)}
        environment |= {
            "FAULT": fault,
            "SLOW": str(slow),
            "GLOO_SOCKET_IFNAME": "eth0" if popen != subprocess.Popen else "lo",
        }
        # Without this a machine that joins waits for an address that PyTorch 2.13 publishes in the first round alone.
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), *launch]
        command += [str(self.folder / "train.py"), "--config-file", str(self.folder / "config.yaml"), *flags]
        self.logs.append(self.folder / f"log{len(self.logs)}.txt")
        with open(self.logs[-1], "w") as log:
            self.processes.append(popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment))
        return self.processes[-1]

    def output(self):
        return "".join(log.read_text() for log in self.logs)

    def iterations(self):
        """(iteration, rank, processes) of everything that was computed, by process."""
        files = sorted(self.trace.glob("*.txt"), key=lambda path: path.stat().st_mtime)
        return [[tuple(map(int, line.split())) for line in file.read_text().splitlines()] for file in files]

    def wait_for(self, iteration, processes, timeout=400):
        end = time.monotonic() + timeout
        while not any(i >= iteration and n == processes for run in self.iterations() for i, _, n in run):
            assert time.monotonic() < end and any(p.poll() is None for p in self.processes), self.output()
            time.sleep(0.05)

    def weights(self):
        return torch.load(self.out / "model_final.pth", weights_only=True)["model"]


def ends(job, *processes, timeout=600):
    """The exit statuses."""
    try:
        return [process.wait(timeout) for process in processes]
    except subprocess.TimeoutExpired:
        pytest.fail(job.output())


def undisturbed(folder, *opts, architecture="TinyOneOptimizer"):
    """The weights of a training in this process, in two shares."""
    cfg = config(folder / "whole", *OPTS, *opts, architecture=architecture)
    seed_all_rng(cfg.SEED)
    trainer = TinyTrainer(cfg)
    trainer.train()
    return trainer.model.state_dict()


# ---- one machine


@pytest.mark.parametrize("fault", ["kill:12:1", "kill:12:0", "kill:2:1", "saving:9:0"])
def test_killed_process(tmp_path, fault):
    """With kill -9: also before the first checkpoint, and while a checkpoint is written."""
    job = Job(tmp_path)
    process = job.start("--overwrite", fault=fault, processes=2, launch=["--standalone", "--max-restarts", "2"])
    assert ends(job, process) == [0], job.output()
    assert_equal(job.weights(), undisturbed(tmp_path))
    what, when, rank = fault.split(":")
    assert f"Process {rank} (pid " in job.output() and "Traceback" not in job.output(), job.output()
    again = [run[0][0] for run in job.iterations() if run]
    saved = (int(when) - (what == "saving")) // PERIOD * PERIOD
    assert sorted(again) == sorted([0, 0, saved, saved])


def test_killed_process_of_two_steps(tmp_path):
    """PADing's recipe has two optimizers."""
    job = Job(tmp_path, architecture="TinyTwoSteps")
    process = job.start(fault="kill:12:1", processes=2, launch=["--standalone", "--max-restarts", "1"])
    assert ends(job, process) == [0], job.output()
    assert_equal(job.weights(), undisturbed(tmp_path, architecture="TinyTwoSteps"))


@pytest.mark.parametrize("fault", ["kill:12:1", "saving:9:0"])
@pytest.mark.parametrize("opts", [("SOLVER.CHECKPOINT_ASYNC", True), ("SOLVER.SHARDING", "optimizer")])
def test_killed_process_with_other_ways_to_keep_state(tmp_path, opts, fault):
    """A checkpoint is written in the background, or each process holds a part of the optimizer's state."""
    job = Job(tmp_path, *opts)
    process = job.start(fault=fault, processes=2, launch=["--standalone", "--max-restarts", "1"])
    assert ends(job, process) == [0], job.output()
    assert_equal(job.weights(), undisturbed(tmp_path))
    assert len(job.iterations()) == 4  # each process twice


def test_without_restarts_a_killed_process_ends_the_job(tmp_path):
    """And the next job must say that it continues."""
    job = Job(tmp_path)
    launch = ["--standalone", "--max-restarts", "0"]
    assert ends(job, job.start(fault="kill:12:1", processes=2, launch=launch)) == [1]
    assert ends(job, job.start(processes=2, launch=launch)) == [1]
    assert "add --resume to continue that training" in job.logs[1].read_text()
    assert ends(job, job.start("--resume", processes=2, launch=launch)) == [0]
    assert_equal(job.weights(), undisturbed(tmp_path))


def test_two_jobs_in_one_folder(tmp_path):
    """The second one ends with a message, however often torchrun starts it, and does not disturb the first."""
    job = Job(tmp_path)
    (job.trace / "slow").touch()
    first = job.start(processes=2)
    job.wait_for(1, 2)
    second = job.start(processes=2, launch=["--standalone", "--max-restarts", "1"])
    assert ends(job, second) == [1]
    (job.trace / "slow").unlink()
    assert job.logs[1].read_text().count("is in use: a training is running there") == 2
    assert ends(job, first) == [0]
    assert_equal(job.weights(), undisturbed(tmp_path))


def test_config_changed_while_the_job_runs(tmp_path):
    job = Job(tmp_path)
    process = job.start(fault="kill:12:1", processes=2, launch=["--standalone", "--max-restarts", "1"], slow=0.3)
    job.wait_for(1, 2)
    file = tmp_path / "config.yaml"
    file.write_text(file.read_text().replace("BASE_LR: 0.01", "BASE_LR: 0.5"))
    assert ends(job, process) == [1]
    assert (
        "The config has changed since torchrun started this training: SOLVER.BASE_LR was 0.01 and is 0.5"
        in job.output()
    )


# ---- several machines

several = pytest.mark.skipif(bool(missing()), reason=missing())


class Cluster(Machines):
    """Machines with one process each; the first one has the rendezvous."""

    def __enter__(self):
        try:
            return super().__enter__()
        except NoDelayError as error:
            pytest.skip(str(error))

    conf = "last_call_timeout=2,keep_alive_interval=2,keep_alive_max_attempt=5"

    def launch(self, job, number, *flags, nnodes="1:2", restarts=3, **options):
        port, own = 29500, self.addresses[number]
        words = [
            "--nnodes",
            nnodes,
            "--max-restarts",
            str(restarts),
            "--rdzv-backend",
            "c10d",
            "--rdzv-conf",
            self.conf,
        ]
        words += ["--rdzv-endpoint", f"{self.addresses[0]}:{port}", "--rdzv-id", "none", "--local-addr", own]

        def popen(command, **rest):
            return self.start(number, command, **rest)

        return job.start(*flags, launch=words, popen=popen, **options)


@several
def test_killed_torchrun(tmp_path):
    """A machine is lost. Its processes end, too, and the others go on with its share of each batch."""
    job = Job(tmp_path)
    with Cluster(2) as machines:
        first, second = (machines.launch(job, i, fault="agent:12:1", slow=0.2) for i in range(2))
        job.wait_for(ITERATIONS - 1, 1)
        assert ends(job, first) == [0], job.output()
        assert ends(job, second) == [-9]
        assert not machines.running(1)
    assert_equal(job.weights(), undisturbed(tmp_path))
    counts = {n for run in job.iterations() for _, _, n in run}
    assert counts == {1, 2}


@several
@pytest.mark.parametrize("delay", ["", "20ms"])
def test_machine_that_joins(tmp_path, delay):
    """Nothing is computed twice: the processes save before they are started again, although no restarts are left."""
    job = Job(tmp_path)
    with Cluster(2, delay) as machines:
        (job.trace / "slow").touch()
        first = machines.launch(job, 0, restarts=0)
        job.wait_for(3, 1)
        second = machines.launch(job, 1, restarts=0)
        job.wait_for(4, 2)
        (job.trace / "slow").unlink()
        assert ends(job, first, second) == [0, 0], job.output()
    assert_equal(job.weights(), undisturbed(tmp_path))
    done = [i for run in job.iterations() for i, rank, _ in run if rank == 0]
    assert sorted(done) == list(range(ITERATIONS))
    assert {n for run in job.iterations() for _, _, n in run} == {1, 2}


@several
def test_machines_come_and_go(tmp_path):
    """One, three, two machines, three shares of each batch; sums are rounded in another way, nothing else differs."""
    opts = ["SOLVER.IMS_PER_BATCH", 6, "SOLVER.SHARES", 3]
    job = Job(tmp_path, *opts)
    with Cluster(3) as machines:
        (job.trace / "slow").touch()
        first = machines.launch(job, 0, nnodes="1:3")
        job.wait_for(3, 1)
        second, third = (machines.launch(job, i, nnodes="1:3") for i in (1, 2))
        job.wait_for(4, 3)
        for pid in machines.running(2):
            os.kill(pid, 9)
        third.wait()
        (job.trace / "slow").unlink()
        assert ends(job, first, second) == [0, 0], job.output()
    for key, value in undisturbed(tmp_path, *opts).items():
        torch.testing.assert_close(job.weights()[key], value, rtol=1e-5, atol=1e-6)
    assert {n for run in job.iterations() for _, _, n in run} >= {1, 2, 3}


@several
def test_folder_that_is_not_shared(tmp_path):
    """The machine that goes on has no checkpoint: it must not start from the beginning as if nothing had been."""
    job = Job(tmp_path)
    with Cluster(2) as machines:
        own = [f"{tmp_path}/out{i}" for i in range(2)]
        first, second = (
            machines.launch(job, i, "OUTPUT_DIR", own[i], fault="kill:12:1", restarts=1, slow=0.2) for i in range(2)
        )
        assert 1 in ends(job, first, second)
    assert re.search(r"have not found the same checkpoint", job.output()), job.output()
    assert not Path(own[0], "model_final.pth").exists() and not Path(own[1], "model_final.pth").exists()
