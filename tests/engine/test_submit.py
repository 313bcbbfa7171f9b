"""tools/submit.py: a job that waits for hours in a queue must not fail by a mistake that could be seen before."""

import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from PADing.commands import submit
from PADing.commands.submit import Training, main, resumed
from tests.engine.test_interruption import ITERATIONS, REPOSITORY, assert_equal, final_weights, uninterrupted
from tests.engine.tiny import config

TRAIN = ["--", "train_net.py", "--config-file", "configs/mini/panoptic-pretrain.yaml"]


@pytest.fixture
def submitted(monkeypatch):
    """What has been given to submitit."""
    found = {}

    class Executor:
        def __init__(self, **options):
            found.update(options)

        def update_parameters(self, **parameters):
            found.update(parameters)

        def submit(self, training):
            found["words"] = training.words
            return SimpleNamespace(job_id="7", paths=SimpleNamespace(stdout=found["folder"] / "7_log.out"))

    submitit = pytest.importorskip("submitit")
    monkeypatch.setattr(submitit, "AutoExecutor", Executor)
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    return found


def test_what_is_asked_of_the_cluster(submitted, capsys):
    flags = ["--nodes", "2", "--gpus-per-node", "8", "--time", "240", "--partition", "gpu", "--cpus-per-task", "6"]
    flags += ["--sbatch", "account=me", "--sbatch", "mail-type=END", "--sbatch", "exclusive", "--signal-seconds", "90"]
    assert main([*flags, *TRAIN, "SOLVER.MAX_ITER", "5"]) == 0
    wanted = dict(
        nodes=2, gpus_per_node=8, tasks_per_node=8, timeout_min=240, cpus_per_task=6, slurm_partition="gpu",
        slurm_signal_delay_s=90,
        slurm_additional_parameters={"account": "me", "mail_type": "END", "exclusive": True},
        cluster="slurm",
        words=[*TRAIN[1:], "SOLVER.MAX_ITER", "5"],
    )  # fmt: skip
    assert {key: submitted[key] for key in wanted} == wanted
    assert f"export PYTHONPATH={REPOSITORY}" in submitted["slurm_setup"][0]
    assert "Submitted job 7. " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--", "torchrun", "--nproc-per-node", "8", "train_net.py"],
            "torchrun does not go with submitit. Leave it out",
        ),
        (["--", "trian_net.py"], "There is no script trian_net.py"),
        (["--", "train_net.py", "--config-file", "absent.yaml"], "--config-file: absent.yaml does not exist"),
        (
            ["--gpus-per-node", "4", *TRAIN, "--num-gpus", "8"],
            "4 task(s) on each node, but the training asks for other",
        ),
        (["--nodes", "2", *TRAIN, "--num-machines", "2"], "asks for other processes"),
        (["--cluster", "local", "--nodes", "2", *TRAIN], "--cluster local is this machine alone"),
        (["--sbatch", "--account=me", *TRAIN], "expected one argument"),
        (["--sbatch=--account=me", *TRAIN], "'--account=me' is no KEY=VALUE"),
        ([*TRAIN, "--nosuch"], "unrecognized arguments: --nosuch"),
        (["--time", "0", *TRAIN], "--time: must be a whole number of at least 1"),
        ([], "the following arguments are required"),
    ],
)
def test_mistakes_are_told_before_the_job_waits(submitted, words, said, capsys):
    try:
        status = main(words)
    except SystemExit as end:
        status = end.code
    assert status == 2 and said in capsys.readouterr().err and "words" not in submitted


def test_without_a_cluster_or_the_package(monkeypatch, capsys):
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PYTHONPATH", "")
    assert main(TRAIN) == 2
    assert "error: The job cannot be submitted: " in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main(TRAIN) == 2
    assert 'submitit is not installed. Install it: pip install "pading[slurm]"' in capsys.readouterr().err


def test_what_runs_when_a_job_starts_again():
    assert resumed(["train_net.py", "--overwrite", "A", "1"]) == ["train_net.py", "--resume", "A", "1"]
    assert resumed(["train_net.py", "--resume"]) == ["train_net.py", "--resume"]
    pytest.importorskip("submitit")
    assert Training(["t.py", "--overwrite"]).checkpoint().function.words == ["t.py", "--resume"]


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A script that writes its flags to a file and ends with the status of its first one."""
    pytest.importorskip("submitit")
    path = tmp_path / "script.py"
    flags = str(tmp_path / "flags")
    path.write_text(f"import sys\nopen({flags!r}, 'w').write(' '.join(sys.argv[1:]))\nsys.exit(int(sys.argv[-1]))\n")
    monkeypatch.setattr(submit, "_join_local_tasks", lambda: None)
    monkeypatch.setattr("submitit.JobEnvironment", lambda: SimpleNamespace(_usr_sig=lambda: signal.SIGUSR2))
    return path


@pytest.mark.parametrize(("status", "asked"), [(0, False), (1, False), (2, False), (143, False), (75, True)])
def test_only_a_notice_asks_submitit_for_another_start(script, status, asked):
    """A failed training would be started again and again."""
    calls = []
    before = signal.signal(signal.SIGUSR2, lambda *_: calls.append(1))
    try:
        training = Training([str(script), str(status)])
        if status:
            with pytest.raises(SystemExit) as end:
                training()
            assert end.value.code == status
        else:
            training()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert bool(calls) == asked


def test_a_job_that_slurm_starts_again_continues(script, tmp_path, monkeypatch):
    """After a preemption by SIGTERM or the failure of a node, submitit does not know of it."""
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    Training([str(script), "--overwrite", "0"])()
    assert (tmp_path / "flags").read_text() == "--resume 0"


@pytest.mark.slow
def test_a_job_on_this_machine_is_stopped_and_continues(tmp_path):
    """Two tasks get the notice, and the weights are those of an undisturbed run of two processes."""
    pytest.importorskip("submitit")
    for name in ("stopped", "whole"):
        (tmp_path / name).mkdir()
        cfg = config(tmp_path / name / "out", "SOLVER.MAX_ITER", ITERATIONS, "SOLVER.CHECKPOINT_PERIOD", 1000,
                     "TEST.EVAL_PERIOD", 0, "DATALOADER.NUM_WORKERS", 0).clone()  # fmt: skip
        cfg.defrost()
        cfg.PLUGINS = ("tests.engine.stoppable",)
        (tmp_path / name / "config.yaml").write_text(cfg.dump())
    assert _run_locally(tmp_path / "whole", notice=False) == 1
    assert _run_locally(tmp_path / "stopped", notice=True) == 2
    assert_equal(final_weights(tmp_path / "stopped"), final_weights(tmp_path / "whole"))
    assert final_weights(tmp_path / "whole").keys() == uninterrupted(tmp_path).keys()


def _run_locally(folder, notice):
    """Submit, and wait for the end; returns how often the training was started."""
    command = [sys.executable, "tools/submit.py", "--cluster", "local", "--tasks-per-node", "2", "--time", "20"]
    command += ["--logs", folder / "logs", "--", "train_net.py", "--config-file", folder / "config.yaml"]
    process = subprocess.Popen([*map(str, command), "--num-gpus", "0"], cwd=REPOSITORY, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
    try:
        if notice:
            while not (logs := list(folder.glob("logs/*/*_0_log.out"))) or logs[0].read_text().count("<step>") < 3:
                assert process.poll() is None
                time.sleep(0.1)
            tasks = subprocess.run(["pgrep", "-f", f"_submit {folder}"], capture_output=True, text=True).stdout
            for task in tasks.split():
                os.kill(int(task), signal.SIGUSR2)
        output = process.communicate(timeout=300)[0]
    finally:
        process.kill()
    assert process.returncode == 0, output
    (log,) = folder.glob("logs/*/*_0_log.out")
    return log.read_text().count("Starting with JobEnvironment")
