"""The quickstart keeps to its own folder, and stops without losing anything; the whole run is in tests/end_to_end."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from PADing.errors import UserError

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "quickstart.py"
SETTINGS = {"seed": 1, "smoke": True}


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("quickstart", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["quickstart"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["quickstart"]


def test_every_path_of_a_run_is_below_its_folder(tool, tmp_path):
    """A smoke run once drew 24 images over the 2,000 that other commands were reading."""
    for step in tool.plan_steps(tmp_path / "mine", seed=1, smoke=True):
        assert step.done.is_relative_to(tmp_path / "mine")
        for word in step.command[1:]:
            path = Path(word)
            assert not path.is_absolute() or path.is_relative_to(tmp_path / "mine"), step.command
        assert "datasets/mini" not in " ".join(step.command)


def test_a_folder_with_other_files_is_neither_used_nor_removed(tool, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for fresh in (False, True):
        with pytest.raises(UserError, match="other files"):
            tool.open_folder(tmp_path, SETTINGS, fresh)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    with pytest.raises(UserError, match="is a file"):
        tool.open_folder(tmp_path / "thesis.tex", SETTINGS, False)


def test_a_run_goes_on_with_equal_settings_only(tool, tmp_path):
    out = tmp_path / "out"
    assert tool.open_folder(out, SETTINGS, False) == {"settings": SETTINGS, "seconds": 0.0}
    (out / "results.json").write_text("{}")
    tool.open_folder(out, SETTINGS, False)
    with pytest.raises(UserError, match="--fresh"):
        tool.open_folder(out, {"seed": 2, "smoke": True}, False)
    assert (out / "results.json").exists()
    tool.open_folder(out, {"seed": 2, "smoke": True}, True)
    assert [p.name for p in out.iterdir()] == [tool.RECORD]
    (out / tool.RECORD).write_text("{dam")
    with pytest.raises(UserError, match="not valid JSON"):
        tool.open_folder(out, SETTINGS, False)


@pytest.mark.parametrize("arguments", [["--seed", "-1"], ["--seed", "x"], ["--seed", "4294967296"], ["--smoke=3"]])
def test_impossible_arguments_are_refused(tool, arguments, capsys):
    with pytest.raises(SystemExit) as end:
        tool._parser().parse_args(arguments)
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
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("quickstart", {str(SCRIPT)!r})
tool = sys.modules["quickstart"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
out = Path({str(tmp_path)!r})
tool.run_steps([tool.Step("sleep", [sys.executable, {str(child)!r}], 1.0, out / "never")], out)
"""
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)
    for _ in range(600):
        if (tmp_path / "ready").exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number, errors
    assert (tmp_path / "saved").read_text() == "once" and "same line once more" in errors and "Traceback" not in errors


def test_mistakes_of_a_step_keep_their_status(tool, tmp_path, capsys):
    """2 for what the user can mend, so that a script can tell; the end of the output says what."""
    for status, kind in ((2, UserError), (1, SystemExit)):
        code = f"import sys; print('the reason'); sys.exit({status})"
        with pytest.raises(kind, match=f"exit status {status}"):
            tool.run_steps([tool.Step("fail", [sys.executable, "-c", code], 1.0, tmp_path / "never")], tmp_path)
        assert "the reason" in capsys.readouterr().err
    assert (tmp_path / "log.txt").read_text().count("the reason") == 2
