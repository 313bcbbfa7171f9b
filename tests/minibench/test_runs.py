"""A run's folder survives being cut off anywhere, and keeps what later steps need."""

import json

import pytest
import torch

from minibench.methods import Method, discover
from minibench.plan import Plan
from minibench.runs import Run, finish_training, read_record
from minibench.settings import make_settings
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


def test_the_record_says_how_far_a_run_is_and_what_its_command_was(tmp_path):
    run = Run(Method("m", "M", "panoptic"), 3, tmp_path / "run", "abc")
    assert not run.done and run.record() == {}
    run.note("running", 5.04, ["a b.py", "--x"])
    assert not run.done
    run.note("done", 8.0, ["a b.py", "--x"])
    assert run.done and read_record(tmp_path / "run" / "minibench.json") == {
        "method": "m",
        "seed": 3,
        "hash": "abc",
        "command": "python 'a b.py' --x",
        "seconds": 8.0,
        "state": "done",
    }


def test_the_time_of_all_attempts_is_added_up(tmp_path):
    def step():
        plan = Plan(discover(), ["baseline"], make_settings(budget="smoke"), tmp_path)
        return plan.runs[0], plan.steps()[1]

    run, first = step()
    first.note("running", 42.0)  # and killed
    run, second = step()
    second.note("running", 0.0)
    assert run.record()["seconds"] == 42.0 and not second.done()
    (run.folder / "results.json").write_text("{}")
    second.note("done", 3.0)
    assert second.done() and second.measured() == pytest.approx(45.0)
