"""Ctrl-C and SIGTERM: nothing that was computed is lost, and the exit status says what happened."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from detectron2.utils.env import seed_all_rng
from torch.multiprocessing import ProcessExitedException

from PADing.engine import interruption
from PADing.engine.interruption import STOP
from PADing.engine.relay import relayed_stop_signals
from PADing.errors import Interrupted
from PADing.requeue import NOTICES
from tests.engine.tiny import TinyTrainer, config

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "import sys; from PADing.engine.main import main; sys.exit(main())"]
ITERATIONS = 60


class Job:
    """The command in a session of its own, as a shell or a scheduler starts it.

    Ctrl-C is switched on: a shell that runs the tests in the background has switched it off, and the command would
    respect that.
    """

    def __init__(self, folder, *flags, slow="", opts=(), before=COMMAND, grace=15.0, environment=()):
        cfg = config(folder / "out", "SOLVER.MAX_ITER", ITERATIONS, "SOLVER.CHECKPOINT_PERIOD", 1000,
                     "TEST.EVAL_PERIOD", 0, "DATALOADER.NUM_WORKERS", 0, *opts).clone()  # fmt: skip
        cfg.defrost()
        cfg.PLUGINS = ("tests.engine.stoppable",)  # not imported here, because it replaces the trainer
        (folder / "config.yaml").write_text(cfg.dump())
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **dict(environment)}
        environment |= {"STOPPABLE": slow, "GRACE": str(grace)}
        self.process = subprocess.Popen(
            [*before, "--config-file", str(folder / "config.yaml"), *flags],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        self.output = ""

    def wait_for(self, text, times=1):
        while times:
            line = self.process.stdout.readline()
            assert line, self.output
            self.output += line
            times -= text in line
        return self

    def send(self, number, group=True):
        (os.killpg if group else os.kill)(self.process.pid, number)
        return self

    def end(self, timeout=60):
        """Exit status; the output is then complete."""
        try:
            self.output += self.process.communicate(timeout=timeout)[0]
        finally:
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.communicate()
        return self.process.returncode


def torchrun(folder, *flags):
    """The beginning of a command that runs ``Job`` in two processes."""
    script = folder / "train.py"
    script.write_text("import sys\nfrom PADing.engine.main import main\nsys.exit(main())\n")
    nodes = ["--nproc-per-node", "2", "--standalone"]
    return [sys.executable, "-m", "torch.distributed.run", *nodes, *flags, str(script)]


def told(job):
    """The one line about the stop."""
    assert "Traceback" not in job.output, job.output
    (line,) = [line for line in job.output.splitlines() if "Stopped" in line]
    return line


def final_weights(folder):
    return torch.load(folder / "out" / "model_final.pth", weights_only=True)["model"]


def uninterrupted(folder, *opts, iterations=ITERATIONS, architecture="TinyOneOptimizer"):
    opts = ["SOLVER.MAX_ITER", iterations, "TEST.EVAL_PERIOD", 0, *opts]
    cfg = config(folder / "whole", *opts, architecture=architecture)
    seed_all_rng(cfg.SEED)
    trainer = TinyTrainer(cfg)
    trainer.train()
    return trainer.model.state_dict()


def assert_equal(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("number", "name"),
    [(signal.SIGINT, "Ctrl-C"), pytest.param(signal.SIGTERM, "SIGTERM", marks=pytest.mark.slow)],
)
def test_stopped_training_is_saved_and_continues_as_if_nothing_had_been(tmp_path, number, name):
    """Also with data-loading workers, which get the signal, too."""
    opts = ["DATALOADER.NUM_WORKERS", 2, "DATALOADER.ASPECT_RATIO_GROUPING", False]
    job = Job(tmp_path, opts=opts).wait_for("<step>", times=5).send(number)
    assert job.end() == 128 + number
    line = told(job)
    done = int(line.split(f"Stopped by {name}. ")[1].split()[0])
    assert 5 <= done < ITERATIONS
    file = tmp_path / "out" / f"model_{done - 1:07d}.pth"
    assert f"{done} of {ITERATIONS} iterations are saved in {file}" in line and "--resume" in line
    assert file.is_file() and not (tmp_path / "out" / "training.lock").exists()
    resumed = Job(tmp_path, "--resume", opts=opts)
    assert resumed.end() == 0
    assert resumed.output.count("<step>") == ITERATIONS - done
    assert_equal(final_weights(tmp_path), uninterrupted(tmp_path, *opts))


class SelfStopping(TinyTrainer):
    """Gets SIGTERM from itself in iteration ``at``, after it (``behind``), or in the evaluation behind it."""

    at, behind, evaluating, told = None, None, False, ()

    def run_step(self):
        if self.iter == self.at and not self.evaluating:
            os.kill(os.getpid(), signal.SIGTERM)
        super().run_step()

    def after_step(self):
        super().after_step()
        if self.iter == self.behind:
            os.kill(os.getpid(), signal.SIGTERM)

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        if cls.evaluating:
            torch.rand(5)
            os.kill(os.getpid(), signal.SIGTERM)
        return super().test(cfg, model, evaluators)


def stopped(cfg, monkeypatch, caplog, **how):
    """Train and be stopped; what was said, in one line."""
    seed_all_rng(cfg.SEED)
    trainer = SelfStopping(cfg)
    trainer.at, trainer.behind = how.get("at"), how.get("behind")
    monkeypatch.setattr(SelfStopping, "evaluating", how.get("evaluating", False))
    trainer.resume_or_load(resume=True)
    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(logging.getLogger("PADing.engine.trainer"), "handlers", [caplog.handler])
    caplog.clear()
    with pytest.raises(Interrupted) as stop, STOP.watch():
        trainer.train()
    assert stop.value.status == 143 and stop.value.told
    assert signal.getsignal(signal.SIGTERM) == handler
    (line,) = {record.getMessage() for record in caplog.records if "Stopped" in record.getMessage()}
    return line


@pytest.mark.parametrize("architecture", ["TinyOneOptimizer", "TinyTwoSteps"])
def test_iteration_is_finished_and_saved(tmp_path, monkeypatch, caplog, architecture):
    """With the checkpoint period far away; and a checkpoint that the period has just written is not written again."""
    cfg = config(tmp_path / "run", "SOLVER.CHECKPOINT_PERIOD", 5, architecture=architecture)
    line = stopped(cfg, monkeypatch, caplog, at=2)
    assert line.startswith("Stopped by SIGTERM. 3 of 8 iterations are saved in ") and "model_0000002.pth" in line
    line = stopped(cfg, monkeypatch, caplog, at=4)
    assert "5 of 8 iterations are saved" in line
    assert sorted(path.name for path in (tmp_path / "run").glob("*.pth")) == ["model_0000002.pth", "model_0000004.pth"]
    resumed = SelfStopping(cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 5
    with STOP.watch():
        monkeypatch.setattr(SelfStopping, "evaluating", False)
        resumed.train()
    assert_equal(resumed.model.state_dict(), uninterrupted(tmp_path, iterations=8, architecture=architecture))


def test_stop_in_an_evaluation_saves_what_was_trained(tmp_path, monkeypatch, caplog):
    """An evaluation may take hours, and the checkpoint before it may be old."""
    cfg = config(tmp_path / "run", "SOLVER.CHECKPOINT_PERIOD", 1000, "TEST.EVAL_PERIOD", 4)
    assert "4 of 8 iterations are saved" in stopped(cfg, monkeypatch, caplog, evaluating=True)
    line = stopped(cfg, monkeypatch, caplog, evaluating=True)
    assert "All 8 iterations are done and saved, but not evaluated" in line
    final = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)["model"]
    assert_equal(final, uninterrupted(tmp_path, iterations=8))


@pytest.mark.parametrize("iteration", [2, 3])
def test_stop_between_two_iterations_saves_what_was_trained(tmp_path, monkeypatch, caplog, iteration):
    """While a line of the log is written, say. Iteration 3 is followed by an evaluation."""
    cfg = config(tmp_path / "run", "SOLVER.CHECKPOINT_PERIOD", 1000, "TEST.EVAL_PERIOD", 4)
    assert "4 of 8 iterations are saved" in stopped(cfg, monkeypatch, caplog, behind=iteration)
    stopped(cfg, monkeypatch, caplog, evaluating=True)
    final = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)["model"]
    assert_equal(final, uninterrupted(tmp_path, iterations=8))


def test_stop_in_the_last_iteration_leaves_the_evaluation_out(tmp_path, monkeypatch, caplog):
    cfg = config(tmp_path / "run", "TEST.EVAL_PERIOD", 0)
    assert "All 8 iterations are done and saved, but not evaluated" in stopped(cfg, monkeypatch, caplog, at=7)
    assert not (tmp_path / "run" / "results.json").exists()


def test_resuming_a_finished_training_says_so_and_evaluates(tmp_path, monkeypatch, caplog):
    cfg = config(tmp_path, "SOLVER.CHECKPOINT_PERIOD", 4)
    TinyTrainer(cfg).train()
    (tmp_path / "results.json").unlink()
    final = torch.load(tmp_path / "model_final.pth", weights_only=True)
    (tmp_path / "model_final.pth").unlink()  # lost; model_0000007.pth is as good
    trainer = TinyTrainer(cfg)
    monkeypatch.setattr(logging.getLogger("PADing.engine.trainer"), "handlers", [caplog.handler])
    with caplog.at_level(logging.INFO, logger="PADing.engine.trainer"):
        trainer.resume_or_load(resume=True)
        trainer.train()
    assert "is finished: 8 iterations are done" in caplog.text
    assert (tmp_path / "results.json").is_file() and not trainer.model.seen
    again = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert_equal(again["model"], final["model"])
    assert again["iteration"] == 7 and len(again["ranks"]["ranks"]) == 1


@pytest.mark.slow
def test_stopped_while_loading(tmp_path):
    job = Job(tmp_path, slow="loading").wait_for("<loading>").send(signal.SIGTERM)
    assert job.end(timeout=30) == 143
    assert "Stopped while loading, before the first iteration" in told(job)
    assert not list((tmp_path / "out").glob("*.pth"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, *NOTICES])
def test_a_stop_that_comes_where_python_drops_exceptions_is_not_lost(number, capfd, monkeypatch):
    """Such as in a callback at the fork of a data-loading worker, or in ``__del__``."""

    class Doomed:
        def __del__(self):
            signal.raise_signal(number)
            raise AssertionError("the signal was not noticed")

    monkeypatch.setattr(interruption, "AGAIN", 0.001)  # what is sent again must not count as a second signal
    with STOP.watch():
        with pytest.raises(Interrupted) as raised:
            Doomed()
            time.sleep(10)
        time.sleep(0.1)
        assert raised.value.number == STOP.number == number
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_second_signal_ends_at_once(tmp_path):
    """The iteration that the first one waits for may never end."""
    job = Job(tmp_path, slow="step").wait_for("<step>").send(signal.SIGINT)
    time.sleep(0.5)
    start = time.monotonic()
    assert job.process.poll() is None
    assert job.send(signal.SIGINT).end(timeout=30) == 130
    assert time.monotonic() - start < 10
    assert "Traceback" not in job.output and "Ended at once" in job.output


@pytest.mark.slow
@pytest.mark.parametrize("group", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_job_of_two_processes_stops_behind_one_iteration(tmp_path, number, group):
    """Whether the terminal tells all processes, or a scheduler only the first."""
    opts = ["DATALOADER.NUM_WORKERS", 1, "DATALOADER.ASPECT_RATIO_GROUPING", False]
    job = Job(tmp_path, "--num-gpus", "2", opts=opts).wait_for("<step>", times=5).send(number, group)
    assert job.end() == 128 + number
    line = told(job)
    assert f"Stopped by {'Ctrl-C' if number == signal.SIGINT else 'SIGTERM'}. " in line
    done = int(line.split(f" of {ITERATIONS} iterations are saved")[0].split()[-1])
    content = torch.load(tmp_path / "out" / f"model_{done - 1:07d}.pth", weights_only=True)
    assert content["iteration"] == done - 1 and len(content["ranks"]["ranks"]) == 2


@pytest.mark.slow
def test_job_of_torchrun_stops_behind_one_iteration(tmp_path):
    """torchrun has an exit status of its own; the checkpoint and the line are ours."""
    job = Job(tmp_path, before=torchrun(tmp_path)).wait_for("<step>", times=5).send(signal.SIGTERM, group=False)
    assert job.end() != 0
    (line,) = [line for line in job.output.splitlines() if "Stopped" in line]
    done = int(line.split(f" of {ITERATIONS} iterations are saved")[0].split()[-1])
    assert (tmp_path / "out" / f"model_{done - 1:07d}.pth").is_file()


@pytest.mark.slow
def test_process_that_fails_ends_the_others(tmp_path):
    """Although they take signals themselves, and wait for each other for hours."""
    start = time.monotonic()
    job = Job(tmp_path, "--num-gpus", "2", slow="raise")
    assert job.end(timeout=120) != 0
    assert "one process fails" in job.output
    assert time.monotonic() - start < 100


@pytest.mark.slow
def test_process_that_is_killed_ends_the_others(tmp_path):
    """As when the machine has no memory left; the others would wait for it for hours."""
    job = Job(tmp_path, "--num-gpus", "2", slow="die").wait_for("<step>", times=3)
    start = time.monotonic()
    assert job.end(timeout=60) == 137
    assert time.monotonic() - start < 30
    assert "error: A process of the job was killed by SIGKILL" in job.output and "--resume" in job.output
    assert 'File "' not in job.output.partition("error: A process")[2]


@pytest.mark.parametrize(("status", "ending"), [(2, ProcessExitedException), (143, Interrupted)])
def test_a_job_that_cannot_save_when_it_is_stopped_has_not_stopped_well(status, ending):
    """Status 143 would tell a scheduler that the job can go on from its last checkpoint, which is not there."""
    with pytest.raises((ProcessExitedException, Interrupted)) as raised, relayed_stop_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        raise ProcessExitedException("one of the others", error_index=0, error_pid=1, exit_code=status)
    assert raised.type is ending


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_job_that_waits_for_a_stuck_process_ends_after_the_grace_period(tmp_path, number):
    """One process never comes to the end of the iteration, so the others wait for it for hours."""
    opts = ["SOLVER.CHECKPOINT_PERIOD", 2]
    job = Job(tmp_path, "--num-gpus", "2", slow="hang", grace=3, opts=opts).wait_for("<step>", times=3)
    start = time.monotonic()
    assert job.send(number, group=False).end(timeout=30) == 128 + number
    assert 2.5 < time.monotonic() - start < 15
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert f"The job has not stopped 3 seconds after {name}, so it is ended now." in job.output
    assert f"The last checkpoint, {tmp_path}/out/model_0000001.pth, is saved: --resume" in job.output
    assert "Traceback" not in job.output


@pytest.mark.slow
def test_second_signal_ends_a_stuck_job_at_once(tmp_path):
    job = Job(tmp_path, "--num-gpus", "2", slow="hang", grace=300).wait_for("<step>", times=3)
    job.send(signal.SIGTERM, group=False)
    time.sleep(2.5)
    assert job.process.poll() is None
    start = time.monotonic()
    assert job.send(signal.SIGTERM, group=False).end(timeout=30) == 143
    assert time.monotonic() - start < 10
    assert "Ended at once by a second signal. No checkpoint is saved in " in job.output


@pytest.mark.slow
def test_a_job_of_long_iterations_has_the_time_to_finish_one(tmp_path):
    """The grace period is for jobs that do not go on; one that does must not lose what it has computed."""
    job = Job(tmp_path, "--num-gpus", "2", slow="long", grace=0.5).wait_for("<step>", times=3)
    assert job.send(signal.SIGTERM, group=False).end() == 143
    assert f"3 of {ITERATIONS} iterations are saved" in told(job)


def commands_of_children(process):
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    commands = (Path(f"/proc/{child}/cmdline") for child in children)
    return " ".join(path.read_text() for path in commands if path.exists())


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc")
def test_stop_while_the_job_waits_for_a_machine_that_never_comes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    flags = ["--num-gpus", "1", "--num-machines", "2", "--machine-rank", "0", "--dist-url", url]
    job = Job(tmp_path, *flags, grace=1)
    while "spawn_main" not in commands_of_children(job.process.pid):
        assert job.process.poll() is None
        time.sleep(0.1)
    assert job.send(signal.SIGTERM, group=False).end(timeout=20) == 143
    assert "has not stopped" in job.output and "Traceback" not in job.output
