"""A resumed job: either all processes continue from the same checkpoint, or all end with one message.

Without the comparison, one process would continue and the others start again, and they would wait for each other.
"""

import shutil
import signal
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm

from PADing.engine.same_checkpoint import same_checkpoint
from PADing.errors import UserError
from tests.engine.test_distributed import free_port, in_two_processes, train
from tests.engine.test_interruption import Job
from tests.engine.tiny import TinyTrainer, config


def make_checkpoints(folder):
    """``0`` and ``1``: the folders of two machines, with the same checkpoint after 3 iterations."""
    trainer = TinyTrainer(config(folder / "0", "TEST.EVAL_PERIOD", 0))
    trainer.stop_before = 4
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    shutil.copytree(folder / "0", folder / "1")
    return folder / "1"


def remove(folder):
    shutil.rmtree(folder)


def another_training(folder):
    content = torch.load(folder / "model_0000002.pth", weights_only=True)
    content["model"]["head.bias"] += 1
    torch.save(content, folder / "model_0000002.pth")


def behind(folder):
    content = torch.load(folder / "model_0000002.pth", weights_only=True)
    (folder / "model_0000002.pth").unlink()
    torch.save({**content, "iteration": 1}, folder / "model_0000001.pth")
    (folder / "last_checkpoint").write_text("model_0000001.pth")


def damage(folder):
    with open(folder / "model_0000002.pth", "r+b") as file:
        file.truncate(1000)


def own_folder(case):
    return f"{case}/{comm.get_rank()}"


def differ(case):
    trainer = TinyTrainer(config(own_folder(case), "TEST.EVAL_PERIOD", 0))
    with pytest.raises(UserError) as error:
        trainer.resume_or_load(resume=True)
    Path(case, f"message {comm.get_rank()}").write_text(str(error.value))


def go_on(case):
    assert train(own_folder(case), "TinyOneOptimizer", resume=True).start_iter == 3


def begin(case):
    assert train(own_folder(case), "TinyOneOptimizer", resume=True).start_iter == 0


def find_the_same_damage(case):
    with pytest.raises(UserError) as error:
        TinyTrainer(config(f"{case}/1")).resume_or_load(resume=True)
    assert "which is damaged" in str(error.value) and "processes" not in str(error.value)


def wait_for_nobody(case):
    """The first process alone compares."""
    if comm.get_rank() == 0:
        with pytest.raises(UserError, match="one does not answer"):
            same_checkpoint(lambda: "", case, timeout=timedelta(seconds=2))
        Path(case, "said").touch()
    for _ in range(600):
        if Path(case, "said").exists():
            return
        time.sleep(0.1)
    raise AssertionError("the first process waits")


# Case -> what happens to the second folder, what both processes do, what the message says about the second folder.
CASES = {
    "none": (remove, differ, "no checkpoint in {0}/1"),
    "behind": (behind, differ, "model_0000001.pth (iteration 1, content "),
    "another": (another_training, differ, "model_0000002.pth (iteration 2, content "),
    "damaged": (damage, differ, "{0}/1/last_checkpoint names 'model_0000002.pth', which is damaged"),
    "damaged for all": (damage, find_the_same_damage, ""),
    "copies": (lambda folder: None, go_on, ""),
    "nothing": (lambda folder: shutil.rmtree(folder.parent), begin, ""),
    "no answer": (remove, wait_for_nobody, ""),  # the last, because the processes have lost count of their groups
}


def check_all_cases(folder):
    for name, (_, check, _) in CASES.items():
        start = time.monotonic()
        check(f"{folder}/{name}")
        assert time.monotonic() - start < 60, name


def test_all_continue_from_one_checkpoint_or_end_with_one_message(tmp_path):
    make_checkpoints(tmp_path / "original")
    for name, (change, _, _) in CASES.items():
        shutil.copytree(tmp_path / "original", tmp_path / name)
        change(tmp_path / name / "1")
    in_two_processes(check_all_cases, tmp_path)
    for name, (_, check, found) in CASES.items():
        if check is differ:
            check_the_message(tmp_path / name, found)


def check_the_message(case, found):
    first, second = ((case / f"message {rank}").read_text() for rank in (0, 1))
    assert first == second
    head, line_0, line_1, cure = first.splitlines()
    assert "--resume" in head and "process 0 on " in line_0 and "model_0000002.pth (iteration 2, " in line_0
    assert "process 1 on " in line_1 and found.format(case) in line_1
    assert "folder that all machines share" in cure and "copy" in cure


@pytest.mark.slow
def test_two_machines_with_separate_folders_end_with_a_message(tmp_path):
    """The commands of the documentation, on one machine."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    first = Job(folders[0], "--num-gpus", "2").wait_for("<step>", times=4).send(signal.SIGTERM)
    assert first.end() == 143
    flags = ["--resume", "--num-machines", "2", "--dist-url", f"tcp://127.0.0.1:{free_port()}"]
    jobs = [Job(folder, *flags, "--machine-rank", str(rank)) for rank, folder in enumerate(folders)]
    for job in jobs:
        assert job.end(timeout=90) == 2, job.output
        assert "have not found the same checkpoint" in job.output and "Traceback" not in job.output
        assert f"no checkpoint in {folders[1]}/out" in job.output and "<step>" not in job.output


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_job_on_the_other_machine(tmp_path):
    """It cannot tell a machine that is gone from one that computes, except by the closed connection."""
    flags, jobs = ["--num-machines", "2", "--dist-url", f"tcp://127.0.0.1:{free_port()}"], []
    for rank in (0, 1):
        (tmp_path / str(rank)).mkdir()
        jobs.append(Job(tmp_path / str(rank), *flags, "--machine-rank", str(rank), slow="die"))
    jobs[0].wait_for("<step>", times=3)
    start = time.monotonic()
    assert [job.end(timeout=60) for job in jobs] == [1, 137]
    assert time.monotonic() - start < 30
    assert "has ended without a report" in jobs[0].output, jobs[0].output
    assert "was killed by SIGKILL" in jobs[1].output
