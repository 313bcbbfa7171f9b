"""The quickstart keeps to its own folder, and stops without losing anything; the whole run is in tests/end_to_end."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minibench import quickstart
from minibench.__main__ import _parser
from minibench.steps import Step
from PADing.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = {"seed": 1, "smoke": True}


def test_every_path_of_a_run_is_below_its_folder(tmp_path):
    """A smoke run once drew 24 images over the 2,000 that other commands were reading."""
    for step in quickstart.plan_steps(tmp_path / "mine", seed=1, smoke=True):
        assert step.log.is_relative_to(tmp_path / "mine") and not step.done()
        assert step.env == {"DETECTRON2_DATASETS": str(tmp_path / "mine" / "data")}
        for word in step.command[1:]:
            path = Path(word)
            assert not path.is_absolute() or path.is_relative_to(tmp_path / "mine"), step.command
        assert "datasets/mini" not in " ".join(step.command)


@pytest.mark.parametrize(
    ("options", "numbers", "device"),
    [({}, [quickstart.PROCESSES, 0], "cpu"), ({"processes": 0}, [0, 0], "cpu"), ({"gpus": 2}, [2, 1], "cuda")],
)
def test_processes_and_device_of_both_trainings(tmp_path, options, numbers, device):
    """Stage 1 is published with two processes; stage 2 would be another training, whose metrics were worse."""
    commands = [step.command for step in quickstart.plan_steps(tmp_path, 1, smoke=False, **options)]
    trainings = [words for words in commands if words[1].startswith("train_net")]
    assert [words[words.index("--num-gpus") + 1] for words in trainings] == list(map(str, numbers))
    assert all(words[words.index("MODEL.DEVICE") + 1] == device for words in trainings)


def test_a_folder_with_other_files_is_neither_used_nor_removed(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(UserError, match="other files"):
            quickstart.open_folder(tmp_path, SETTINGS, fresh)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    with pytest.raises(UserError, match="is a file"):
        quickstart.open_folder(tmp_path / "thesis.tex", SETTINGS, False)


def test_a_run_goes_on_with_equal_settings_only(tmp_path):
    out = tmp_path / "out"
    assert quickstart.open_folder(out, SETTINGS, False) == {"settings": SETTINGS, "seconds": 0.0}
    (out / "results.json").write_text("{}")
    quickstart.open_folder(out, SETTINGS, False)
    with pytest.raises(UserError, match="--fresh"):
        quickstart.open_folder(out, {"seed": 2, "smoke": True}, False)
    assert (out / "results.json").exists()
    quickstart.open_folder(out, {"seed": 2, "smoke": True}, True)
    assert [p.name for p in out.iterdir()] == [quickstart.RECORD]
    (out / quickstart.RECORD).write_text("{dam")
    with pytest.raises(UserError, match="not valid JSON"):
        quickstart.open_folder(out, SETTINGS, False)


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--seed", "x"], ["--seed", "4294967296"], ["--smoke=3"]])
def test_impossible_arguments_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        _parser().parse_args(["quickstart", *arguments])
    assert end.value.code == 2 and arguments[0].split("=")[0] in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_awaited(tmp_path, number):
    """The command that runs gets it once and ends in its own time; no process is left behind."""
    child = tmp_path / "child.py"
    child.write_text(
        "import pathlib, signal, sys, time\n"
        "def stop(number, frame):\n"
        "    time.sleep(0.3)\n"
        f"    with open({str(tmp_path / 'saved')!r}, 'a') as file: file.write('once')\n"
        "    sys.exit(128 + number)\n"
        "signal.signal(signal.SIGINT, stop); signal.signal(signal.SIGTERM, stop)\n"
        f"pathlib.Path({str(tmp_path / 'ready')!r}).touch()\n"
        "time.sleep(60)\n"
    )
    code = f"""
import sys
from pathlib import Path
from minibench import quickstart
from minibench.steps import Step
from PADing.command_line import run_command
out = Path({str(tmp_path)!r})
step = Step("sleep", [sys.executable, {str(child)!r}], out / "log.txt", (out / "never").exists)
sys.exit(run_command(quickstart.run_plan, [step], out))
"""
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may have switched Ctrl-C off
    )
    for _ in range(600):
        if (tmp_path / "ready").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number, errors
    assert (tmp_path / "saved").read_text() == "once" and "same command again" in errors and "Traceback" not in errors


def test_mistakes_of_a_step_keep_their_status(tmp_path, capsys):
    """2 for what the user can mend, so that a script can tell; the end of the output says what."""
    for status, kind in ((2, UserError), (1, SystemExit)):
        command = [sys.executable, "-c", f"import sys; print('the reason'); sys.exit({status})"]
        with pytest.raises(kind, match=f"exit status {status}"):
            quickstart.run_plan([Step("fail", command, tmp_path / "log.txt", lambda: False)], tmp_path)
        assert "the reason" in capsys.readouterr().err
    assert (tmp_path / "log.txt").read_text().count("the reason") == 2


def test_steps_are_shown_as_commands_to_repeat_and_finished_ones_are_not_run(tmp_path, capsys):
    (tmp_path / "old").touch()
    log, command = tmp_path / "log.txt", [sys.executable, "-c", "print('drawn')"]
    first = Step("first", command, log, (tmp_path / "old").exists, always=True, env={"WHERE": "a b"})
    quickstart.run_plan([first, Step("second", command, log, (tmp_path / "old").exists, needs=("first",))], tmp_path)
    out = capsys.readouterr().out
    assert "$ 'WHERE=a b' python -c 'print('" in out and out.count("start") == 1 and "done before  second" in out
    assert log.read_text() == "drawn\n"


def test_the_table_has_a_row_for_each_model_and_nan_for_what_is_not_defined():
    results = {task.key: dict.fromkeys(keys, 12.34) for task, keys in quickstart.COLUMNS.items()}
    results["segm"]["AP50_hm"] = None
    lines = quickstart.table({"PADing": results}).splitlines()
    assert lines[0].split() == [
        *("PQ_se", "PQ_un", "PQ_hm", "SQ", "RQ", "seen_IoU", "unseen_IoU", "hIoU"),
        *("AP50_seen", "AP50_unseen", "AP50_hm"),
    ]
    assert lines[1] == "-" * len(lines[0]) and lines[2].split() == ["PADing", *["12.3"] * 10, "nan"]


@pytest.mark.parametrize("script", ["tools/quickstart.py", "tools/minibench.py"])
def test_the_commands_of_before_are_valid(script):
    result = subprocess.run([sys.executable, script, "--help"], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0 and "minibench quickstart" in result.stdout
