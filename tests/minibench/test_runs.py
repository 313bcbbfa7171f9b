"""A run's folder survives being cut off anywhere, and keeps what later steps need."""

import json

import pytest
import torch

from minibench.runs import RunFolder, finish_training, read_record, repair_checkpoints
from PADing.errors import UserError


def _checkpoint(path, **more):
    torch.save(
        {
            "model": {"w": torch.arange(4.0)},
            "iteration": 7,
            "trainer": {"iteration": 7},
            "optimizer": {"state": torch.zeros(99)},
            **more,
        },
        path,
    )


def test_a_checkpoint_cut_off_while_written_is_passed_over(tmp_path):
    _checkpoint(tmp_path / "model_0000099.pth")
    _checkpoint(tmp_path / "model_0000199.pth")
    whole = (tmp_path / "model_0000199.pth").read_bytes()
    (tmp_path / "model_0000199.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "last_checkpoint").write_text("")
    repair_checkpoints(tmp_path)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000099.pth"
    assert not (tmp_path / "model_0000199.pth").exists()


def test_without_a_whole_checkpoint_a_run_begins_anew(tmp_path):
    (tmp_path / "model_final.pth").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    repair_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []
    repair_checkpoints(tmp_path / "not there")


def test_a_finished_run_keeps_weights_and_one_line_per_iteration(tmp_path):
    _checkpoint(tmp_path / "model_0000099.pth")
    _checkpoint(tmp_path / "model_final.pth")
    lines = [{"iteration": 19, "a": 1}, {"iteration": 39, "a": 2}, {"iteration": 39, "a": 3}, {"iteration": 59, "a": 4}]
    (tmp_path / "metrics.json").write_text("".join(json.dumps(x) + "\n" for x in lines) + '{"iteration": 79, "a')
    (tmp_path / "last_checkpoint").write_text("model_final.pth")
    finish_training(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.json", "model_final.pth"]
    content = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert set(content) == {"model", "trainer", "iteration"} and content["model"]["w"].tolist() == [0, 1, 2, 3]
    kept = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert [(x["iteration"], x["a"]) for x in kept] == [(19, 1), (39, 3), (59, 4)]


def test_damaged_weights_are_not_written_again(tmp_path):
    """They would get checksums that fit, and nobody could notice the damage any more."""
    final = tmp_path / "model_final.pth"
    torch.save({"model": {"w": torch.ones(10_000)}, "optimizer": {}, "iteration": 99}, final)
    damaged = bytearray(final.read_bytes())
    damaged[20_000:24_096] = bytes(4096)
    final.write_bytes(damaged)
    with pytest.raises(UserError, match="model_final.pth cannot be read: it is damaged"):
        finish_training(tmp_path)
    assert final.read_bytes() == damaged


def test_the_record_adds_up_the_time_of_all_attempts(tmp_path):
    record = RunFolder(tmp_path / "run", {"method": "m", "command": ["a b.py", "--x"]})
    assert not record.is_done() and record.measured() is None
    record.start()
    record.tick(5.0)
    again = RunFolder(tmp_path / "run", record.about | {"command": ["a b.py", "--x"]})  # killed, and started again
    again.start()
    again.end("done", 3.0)
    assert again.is_done() and again.measured() == pytest.approx(8.0)
    assert read_record(tmp_path / "run" / "minibench.json")["command"] == "python 'a b.py' --x"


def test_a_run_that_was_killed_behind_its_last_result_keeps_its_time(tmp_path):
    """It isn't started again: only its end is noted."""
    about = {"method": "m", "command": ["a"]}
    record = RunFolder(tmp_path, about)
    record.start()
    record.tick(42.0)
    RunFolder(tmp_path, about).end("done", 0.0)
    assert RunFolder(tmp_path, about).measured() == 42.0
