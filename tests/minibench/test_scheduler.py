"""Steps run side by side in the right order, and neither a failure nor a kill costs more than it must."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minibench.display import Display, duration
from minibench.scheduler import run_steps
from minibench.steps import Progress, Step, TimeLeft, training_progress

REPOSITORY = Path(__file__).resolve().parents[2]


def _step(folder: Path, name: str, needs=(), code="", **more) -> Step:
    """A process that notes when it began and ended, and leaves the file that it is there for."""
    note = f"import time; open({str(folder / 'notes')!r}, 'a').write(f'{{time.monotonic()}} %s {name}\\n')"
    body = "\n".join([note % "+", code, note % "-", f"open({str(folder / name)!r}, 'w').close()"])
    log, done = folder / "logs" / f"{name}.txt", (folder / name).is_file
    return Step(name, [sys.executable, "-c", body], log, done, needs=tuple(needs), **more)


def _notes(folder: Path) -> list[str]:
    path = folder / "notes"
    return [line.split(" ", 1)[1] for line in sorted(path.read_text().splitlines())] if path.exists() else []


def _display() -> Display:
    return Display(io.StringIO(), period=0.0)


def _run(steps, jobs=2):
    return run_steps(steps, jobs, _display())


def test_a_step_begins_when_what_it_needs_has_ended(tmp_path):
    sleep = "time.sleep(0.4)"
    steps = [_step(tmp_path, "a", code=sleep), _step(tmp_path, "b", code=sleep), _step(tmp_path, "c", ["a", "b"])]
    assert _run(steps) == []
    notes = _notes(tmp_path)
    assert set(notes[:2]) == {"+ a", "+ b"}, "the two that need nothing run at the same time"
    assert notes[-2:] == ["+ c", "- c"]


def test_what_most_waits_for_comes_first(tmp_path):
    steps = [_step(tmp_path, "leaf", usual=5), _step(tmp_path, "root", usual=5), _step(tmp_path, "end", ["root"])]
    _run(steps, jobs=1)
    assert _notes(tmp_path)[0] == "+ root"


def test_finished_steps_are_never_repeated(tmp_path):
    steps = [_step(tmp_path, "a"), _step(tmp_path, "b", ["a"])]
    _run(steps)
    before = _notes(tmp_path)
    assert _run(steps) == [] and _notes(tmp_path) == before
    (tmp_path / "b").unlink()
    _run(steps)
    assert _notes(tmp_path) == [*before, "+ b", "- b"]


def test_a_failure_stops_only_what_waits_for_it(tmp_path):
    steps = [
        _step(tmp_path, "bad", code="import sys; print('fine so far'); sys.exit('error: no such file')"),
        _step(tmp_path, "after bad", ["bad"]),
        _step(tmp_path, "good"),
        _step(tmp_path, "after good", ["good"]),
    ]
    failures = _run(steps)
    assert [(f.step.name, f.status, f.error) for f in failures] == [("bad", 1, "error: no such file")]
    assert (tmp_path / "after good").exists() and "+ after bad" not in _notes(tmp_path)
    assert "fine so far" in failures[0].step.log.read_text()


def test_a_command_that_leaves_no_result_has_failed(tmp_path):
    step = _step(tmp_path, "a")
    step.command = [sys.executable, "-c", "pass"]
    assert "results are missing" in _run([step])[0].error


def _unfit(state, seconds):
    if state == "done":
        raise ValueError("no numbers in it")


def test_results_that_cannot_be_used_fail_their_own_step_alone(tmp_path):
    broken = _step(tmp_path, "a", note=_unfit)
    failures = _run([broken, _step(tmp_path, "b", ["a"]), _step(tmp_path, "c")], jobs=1)
    assert [failure.step.name for failure in failures] == ["a"]
    assert "ValueError: no numbers in it" in failures[0].error
    assert (tmp_path / "c").is_file() and not (tmp_path / "b").exists()


def test_each_process_gets_its_share_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr("minibench.scheduler.cores", lambda: 8)
    code = f"import os; open({str(tmp_path / 'threads')!r}, 'w').write(os.environ['OMP_NUM_THREADS'])"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    _run([_step(tmp_path, "a", code=code)], jobs=3)
    assert (tmp_path / "threads").read_text() == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _run([_step(tmp_path, "b", code=code)], jobs=3)
    assert (tmp_path / "threads").read_text() == "1", "a smaller wish is respected"


def test_an_interruption_ends_the_children_and_passes(tmp_path):
    pid = tmp_path / "pid"

    class Impatient(Display):
        def show(self, running, time_left):
            if pid.exists() and pid.read_text():
                raise KeyboardInterrupt

    code = f"import os; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        run_steps([_step(tmp_path, "a", code=code)], 1, Impatient(io.StringIO()))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


PARENT = """
import sys
from pathlib import Path
from minibench.display import Display
from minibench.scheduler import run_steps
from minibench.steps import Step
folder = Path({folder!r})
code = f"import os, time; open({folder!r} + '/pid', 'w').write(str(os.getpid())); time.sleep(60)"
run_steps([Step("a", [sys.executable, "-c", code], folder / "log", lambda: False)], 1, Display())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a child goes on, and its folder is locked")
def test_killed_outright_it_leaves_no_child_behind(tmp_path):
    """An orphan would go on writing checkpoints beside those of the next call."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT.format(folder=str(tmp_path))], cwd=REPOSITORY)
    deadline = time.monotonic() + 60
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int((tmp_path / "pid").read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the child is still running")


def test_time_left_learns_from_what_is_finished(tmp_path):
    """Twice as slow as usual in what is finished: twice as long for the rest, two at a time."""
    steps = [
        _step(tmp_path, "first", usual=50, kind="k", measured=lambda: 100.0),
        _step(tmp_path, "second", ["first"], usual=50, kind="k"),
        _step(tmp_path, "third", ["first"], usual=30, kind="l"),
        _step(tmp_path, "fourth", ["first"], usual=40, kind="m"),
    ]
    (tmp_path / "first").touch()
    left = TimeLeft(steps, jobs=2)
    assert left.seconds([]) == pytest.approx((100 + 60 + 80) / 2)
    for step in steps[2:]:
        left.learn(step)
    assert left.seconds([]) == pytest.approx(100), "one step cannot run on two cores"


def test_the_time_left_of_a_training_is_the_one_it_writes(tmp_path):
    """It comes from metrics.json, with what the evaluation usually takes; of lines cut off, the one before counts."""
    lines = [{"iteration": 19, "eta_seconds": 90.0, "gan_loss_total_loss": 1.5, "loss_ce": 9.0}]
    (tmp_path / "metrics.json").write_text(json.dumps(lines[0]) + '\n{"iteration": 39, "eta_s')
    progress = training_progress(tmp_path, 100)
    assert progress == Progress(20, 100, 90.0, {"gan_loss_total_loss": 1.5})
    assert training_progress(tmp_path / "not there", 100) is None
    step = _step(tmp_path, "a", progress=lambda: progress, usual=500, usual_end=30)
    assert TimeLeft([step], jobs=1).seconds([(step, 7.0)]) == pytest.approx(120)
    stream = io.StringIO()
    Display(stream, period=0.0).show([(step, 7.0)], TimeLeft([step], jobs=1))
    assert stream.getvalue() == "0/1 steps | a iteration 20/100, gan_loss_total_loss 1.5 | 2 min left\n"


def test_a_log_file_gets_plain_lines_and_times_are_readable():
    stream = io.StringIO()
    steps = [_step(Path("/nowhere"), name, usual=7500) for name in "a"]
    Display(stream, period=0.0).show([], TimeLeft(steps, jobs=1))
    assert stream.getvalue() == "0/1 steps | 2.1 h left\n"
    assert [duration(s) for s in (42, 300, 7500)] == ["42 s", "5 min", "2.1 h"]


def test_nohup_is_respected(tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert _run([_step(tmp_path, "a", code=f"import os; os.kill({os.getpid()}, {int(signal.SIGHUP)})")]) == []
    finally:
        signal.signal(signal.SIGHUP, before)
