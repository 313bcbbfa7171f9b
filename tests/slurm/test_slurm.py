"""The commands on a real SLURM of two nodes, which this file starts in namespaces of its own (``cluster.py``)."""

import re
import shutil
import subprocess
import time

import pytest
import torch

from tests.end_to_end.command_line import SMALL
from tests.engine.test_interruption import assert_equal
from tests.engine.tiny import config
from tests.slurm.cluster import REPOSITORY, Cluster, why_not

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]
TEMPLATE = "tools/slurm/{}.sbatch"


@pytest.fixture(scope="module")
def cluster():
    with Cluster() as started:
        yield started


@pytest.fixture
def training(tmp_path):
    """Makes a config of the tiny training, which prints <step> in each iteration."""

    def make(name, iterations=60, *opts):
        folder = tmp_path / name
        folder.mkdir()
        cfg = config(folder / "out", "SOLVER.MAX_ITER", iterations, "SOLVER.CHECKPOINT_PERIOD", 100_000,
                     "TEST.EVAL_PERIOD", 0, "DATALOADER.NUM_WORKERS", 0, *opts).clone()  # fmt: skip
        cfg.defrost()
        cfg.PLUGINS = ("tests.engine.stoppable",)
        (folder / "config.yaml").write_text(cfg.dump())
        return folder

    return make


def flags(folder):
    return ["--config-file", str(folder / "config.yaml"), "--num-gpus", "0"]


def final(folder):
    return torch.load(folder / "out" / "model_final.pth", weights_only=True)


def submit(cluster, folder, template="srun", *options, **variables):
    """Submit the committed script for two nodes with one process each; returns the number of the job."""
    options = ["--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=1", f"--output={folder}/log", *options]
    script = TEMPLATE.format(template)
    return cluster.run("sbatch", "--parsable", *options, script, *flags(folder), **variables).strip()


def steps(folder):
    log = folder / "log"
    return log.read_text().count("<step>") if log.exists() else 0


def wait_for_steps(cluster, folder, number):
    end = time.monotonic() + 400
    while steps(folder) < number:
        assert time.monotonic() < end, f"no step:\n{(folder / 'log').read_text()}\n{cluster.logs()}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory):
    """The weights of 60 iterations in two processes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    cfg = config(folder / "out", "SOLVER.MAX_ITER", 60, "TEST.EVAL_PERIOD", 0, "DATALOADER.NUM_WORKERS", 0).clone()
    cfg.defrost()
    cfg.PLUGINS = ("tests.engine.stoppable",)
    (folder / "config.yaml").write_text(cfg.dump())
    cluster.run("srun", "-N2", "-n2", "python", "train_net.py", *flags(folder), timeout=500)
    return final(folder)["model"]


# ---- starting


def test_pretraining_of_two_tasks_on_two_nodes(cluster, tmp_path):
    """The real network, with no option but the number of tasks."""
    out = tmp_path / "out"
    draw = ["python", "datasets/make_mini_coco.py", "--out", str(tmp_path / "mini")]
    cluster.run(*draw, "--train", "4", "--val", "1", "--size", "64")
    words = ["--config-file", "configs/mini/panoptic-pretrain.yaml", "--num-gpus", "0", *SMALL]
    words += ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "2", "OUTPUT_DIR", str(out)]
    output = cluster.run("srun", "-N2", "-n2", "-l", "python", "train_net_pretrain.py", *words, timeout=500,
                         DETECTRON2_DATASETS=str(tmp_path))  # fmt: skip
    assert (out / "model_final.pth").is_file(), output
    assert len(torch.load(out / "model_final.pth", weights_only=True)["ranks"]["ranks"]) == 2
    assert (out / "log.txt.rank1").is_file() and '"processes": 2' in (out / "environment.json").read_text()


@pytest.mark.parametrize(("placing", "sizes"), [(["-N2", "-n4"], "3,1"), (["-N2", "-n4", "-m", "cyclic"], None)])
def test_uneven_tasks_and_other_distributions(cluster, training, placing, sizes):
    """`srun -N2 -n4` puts three tasks on the first node here."""
    folder = training("run", 4, "SOLVER.IMS_PER_BATCH", 4)
    if sizes:
        said = cluster.run("srun", *placing, "sh", "-c", "echo $SLURM_STEP_TASKS_PER_NODE")
        assert set(said.split()) == {sizes}
    cluster.run("srun", *placing, "python", "train_net.py", *flags(folder), timeout=500)
    assert len(final(folder)["ranks"]["ranks"]) == 4


@pytest.mark.parametrize("how", ["script", "shell", "one task"])
def test_one_process_stays_one_process(cluster, training, how):
    """An allocation of four tasks, in which nobody has called srun, or only for one of them."""
    folder = training("run", 2)
    command = ["python", "train_net.py", *flags(folder)]
    if how == "script":
        cluster.run("sbatch", "--wait", "-n4", f"--output={folder}/log", "--wrap", " ".join(command), timeout=400)
    elif how == "shell":
        cluster.run("salloc", "-n4", *command, timeout=400)
    else:
        cluster.run("salloc", "-n4", "srun", "-n1", *command, timeout=400)
    assert len(final(folder)["ranks"]["ranks"]) == 1


def test_two_jobs_on_one_node_do_not_meet(cluster, training):
    folders = [training(f"run{i}", 20) for i in range(2)]
    jobs = [cluster.start("srun", "-w", "node1", "-n2", "python", "train_net.py", *flags(folder)) for folder in folders]
    for job, folder in zip(jobs, folders, strict=True):
        output = job.communicate(timeout=500)[0]
        assert job.returncode == 0, output
        assert len(final(folder)["ranks"]["ranks"]) == 2


def test_mistakes(cluster, training):
    """Each in one message, from the first process alone."""
    folder = training("run", 2)
    words = ["srun", "-N2", "-n2", "python", "train_net.py"]
    output = cluster.run(*words, "--config-file", str(folder / "config.yaml"), "--num-gpus", "8", status=2)
    assert output.count("srun has started 2 tasks, each of which is one process, but --num-gpus is 8.") >= 1
    output = cluster.run(*words, *flags(folder), status=2, MASTER_ADDR="198.18.0.2")
    assert "MASTER_ADDR is '198.18.0.2', but the first process runs on node1, which has others." in output
    assert "Traceback" not in output


# ---- stopping and going on


@pytest.mark.parametrize(
    ("template", "opts"),
    [
        ("srun", []),
        ("torchrun", []),
        ("srun", ["SOLVER.CHECKPOINT_ASYNC", True, "SOLVER.SHARDING", "optimizer"]),
    ],
)
def test_a_job_that_is_told_of_its_end_goes_on_and_ends_with_the_same_weights(
    cluster, training, undisturbed, template, opts
):  # fmt: skip
    """By the committed scripts; also with a checkpoint in the background and a shared optimizer."""
    folder = training("run", 60, *opts)
    variables = {"PROCESSES": "1"} if template == "torchrun" else {}
    job = submit(cluster, folder, template, **variables)
    wait_for_steps(cluster, folder, 5)
    batch = ["--batch"] if template == "torchrun" else []  # as --signal=B:USR1 and --signal=USR1 do
    cluster.run("scancel", *batch, "--signal=USR1", job)
    found = cluster.wait_for(job, "COMPLETED", "FAILED", "CANCELLED", seconds=500)
    log = (folder / "log").read_text()
    assert found["JobState"] == "COMPLETED" and found["Restarts"] == "1", log
    (saved,) = set(re.findall(r"Stopped by SIGUSR1. (\d+) of 60 iterations are saved", log))
    assert steps(folder) == 60 and 5 <= int(saved) < 60
    assert_equal(final(folder)["model"], undisturbed)


def test_the_time_limit_itself(cluster, training):
    """`--signal` and `--time` of a job that is longer; SLURM may send the signal up to a minute early."""
    folder = training("run", 10_000)
    job = submit(cluster, folder, "srun", "--time=3", "--signal=USR1@25")
    end = time.monotonic() + 300
    while cluster.show(job)["Restarts"] == "0":
        assert time.monotonic() < end, (folder / "log").read_text() + cluster.logs()
        time.sleep(1)
    cluster.run("scancel", job)
    assert "of 10000 iterations are saved in" in (folder / "log").read_text()
    assert (folder / "out" / "last_checkpoint").is_file()


@pytest.mark.parametrize("partition", ["low", "grace"])
def test_a_preempted_job_goes_on_and_ends_with_the_same_weights(cluster, training, undisturbed, partition):
    """By SIGTERM, at once or at the beginning of a grace period."""
    folder = training("run")
    job = submit(cluster, folder, "srun", f"--partition={partition}", "--exclusive")
    wait_for_steps(cluster, folder, 5)
    other = ["--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap", "sleep 2"]
    high = cluster.run("sbatch", "--parsable", *other).strip()
    cluster.wait_for(high, "COMPLETED", seconds=300)
    cluster.wait_for(job, "COMPLETED", "FAILED", "CANCELLED", seconds=500)
    log = (folder / "log").read_text()
    assert cluster.show(job)["Restarts"] == "1" and "Stopped by SIGTERM. " in log, log
    assert steps(folder) == 60
    assert_equal(final(folder)["model"], undisturbed)


def test_a_cancelled_job_saves_and_is_not_started_again(cluster, training):
    folder = training("run", 1500)
    job = submit(cluster, folder)
    wait_for_steps(cluster, folder, 5)
    cluster.run("scancel", job)
    assert cluster.wait_for(job, "CANCELLED", seconds=60)["Restarts"] == "0"
    end = time.monotonic() + 40
    while "iterations are saved" not in (folder / "log").read_text():
        assert time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.5)


def test_a_job_with_a_mistake_is_not_started_again(cluster, training):
    folder = training("run", 2, "SOLVER.IMS_PER_BATCH", 1)
    job = submit(cluster, folder)
    found = cluster.wait_for(job, "FAILED", "COMPLETED", seconds=300)
    assert found["JobState"] == "FAILED" and found["ExitCode"] == "2:0" and found["Restarts"] == "0"
    assert "but there are 2 processes" in (folder / "log").read_text()


def test_submitit(cluster, training, undisturbed):
    """A job that submitit queues again, and that SLURM does."""
    pytest.importorskip("submitit")
    folder = training("run")
    command = ["python", "tools/submit.py", "--nodes", "2", "--tasks-per-node", "1", "--time", "30"]
    output = cluster.run(*command, "--logs", str(folder / "logs"), "--", "train_net.py", *flags(folder))
    job = re.search(r"Submitted job (\d+)", output)[1]
    log = folder / "logs" / job / f"{job}_0_log.out"
    end = time.monotonic() + 400
    while not log.exists() or log.read_text().count("<step>") < 5:
        assert time.monotonic() < end, cluster.logs()
        time.sleep(0.2)
    cluster.run("scancel", "--signal=USR2", job)
    found = cluster.wait_for(job, "COMPLETED", "FAILED", "CANCELLED", seconds=500)
    assert (found["JobState"], found["Restarts"]) == ("COMPLETED", "1"), log.read_text()
    assert log.read_text().count("<step>") == 60
    assert_equal(final(folder)["model"], undisturbed)


def test_nothing_of_it_is_seen_outside(cluster):
    """Another SLURM of this machine is not disturbed, and its ports are free."""
    assert shutil.which("ip") and "198.18.0.1" in cluster.run("ip", "address")
    assert "198.18.0.1" not in subprocess.run(["ip", "address"], capture_output=True, text=True).stdout
    assert str(REPOSITORY) == cluster.run("pwd").strip()
