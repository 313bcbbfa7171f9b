"""How tools end: one message and status 2 for what a person can mend, 130 after Ctrl-C, a traceback for a defect."""

import argparse
import errno
import io
import os
import signal
import subprocess
import sys

import pytest

from PADing import command_line
from PADing.command_line import CommandParser, count, fraction, positive, run_command
from PADing.errors import UserError, refuse
from PADing.files import REPOSITORY, replacing


def raising(error):
    def function():
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (UserError("wrong path"), "wrong path"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/data/a.json"), "not found: /data/a.json"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/data"), "/data cannot be read or written: Is a directory"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), "/root/x cannot be read or written"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), "File name too long"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/out.json"), "Disk full: /tmp/out.json"),
        (OSError(errno.ENOSPC, "No space left on device"), "Disk full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk full"),
    ],
)
def test_what_a_person_can_mend_is_one_message_and_status_2(error, words, capsys):
    assert run_command(raising(error)) == 2
    message = capsys.readouterr().err
    assert words in message and message.count("error:") == 1 and "Traceback" not in message


def test_a_defect_keeps_its_traceback():
    """A message would hide where our own code went wrong."""
    for defect in (KeyError("x"), OSError("no file is named"), FileNotFoundError()):
        with pytest.raises(type(defect)):
            run_command(raising(defect))


def test_ctrl_c_ends_with_130(capsys):
    assert run_command(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err.strip() == "Interrupted."


# Arguments with which each kind of command begins to import PyTorch.
STARTED = [
    ["train_net.py", "--config-file", "configs/mini/d2zero.yaml"],
    ["demo/demo.py", "--config-file", "configs/mini/d2zero.yaml", "--input", "a.jpg"],
    ["tools/analyze_model.py", "--config-file", "configs/mini/d2zero.yaml", "--tasks", "flop"],
    ["tools/benchmark.py", "msda"],
    ["tools/class_embeddings.py", "matrix", "--file", "a.npy", "--names", "b.json", "--output", "c.npz"],
    ["tools/make_split.py", "--name", "a", "--unseen", "b", "--output", "c.yaml"],
    ["tools/preprocess_pretrained_weight.py"],
    ["tools/visualize_data.py", "--config-file", "configs/mini/d2zero.yaml", "--source", "annotation"],
    ["tools/visualize_json_results.py", "--input", "a", "--output", "b", "--dataset", "c"],
    ["tools/visualize_predictions.py", "--config-file", "configs/mini/d2zero.yaml", "--output", "b"],
    ["tools/gzsi_coco_eval.py", "a.json", "--ann", "b.json"],
    ["-m", "PADing.data.verify"],
    ["-m", "PADing.installation"],
    ["-m", "minibench", "run", "--output", "{}"],
]


@pytest.mark.parametrize("words", [*STARTED, ["-c", "own"]], ids=" ".join)
def test_ctrl_c_while_python_imports_is_no_traceback(words, tmp_path):
    """PyTorch takes seconds; somebody who notices a wrong value does not wait for it."""
    module, words = "torch", [word.format(tmp_path / "out") for word in words]
    if words[-1] == "own":  # a module that comes later than torch
        module, words = "own", ["-c", "from PADing.command_line import quiet_ctrl_c\nquiet_ctrl_c()\nimport own"]
    (tmp_path / f"{module}.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}
    job = subprocess.run(
        [sys.executable, *words], capture_output=True, cwd=REPOSITORY, env=environment, timeout=60,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell may have switched Ctrl-C off
    )  # fmt: skip
    assert job.returncode in (130, -signal.SIGINT) and job.stderr.decode().strip() in ("", "Interrupted.")


def test_help_shows_the_docstring_as_it_is_written_and_defaults():
    parser = CommandParser("First line.\n\n    an example --flag")
    parser.add_argument("--size", default=0, help="in pixels")
    parser.add_argument("--name", help="of the file")
    parser.add_argument("--fast", action="store_true", help="do less")
    sub = parser.add_subparsers().add_parser("sub", description="One.\n  Two.")
    text = parser.format_help()
    assert "\n\n    an example --flag\n" in text and "in pixels (default: 0)" in text and text.count("default") == 1
    assert "One.\n  Two." in sub.format_help()


def test_a_reader_that_goes_away_is_no_traceback():
    """As in `tool | head -1`: python would say "Exception ignored ... BrokenPipeError"."""
    code = (
        "import sys\nfrom PADing.command_line import run_command\n"
        "def main():\n    print('first', flush=True)\n    sys.stdin.read()\n    print('x' * 100000)\n"
        "sys.exit(run_command(main))"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as child:
        assert child.stdout.readline() == b"first\n"
        child.stdout.close()
        child.stdin.close()
        assert child.wait(60) == 2 and b"Broken" not in child.stderr.read()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to_is_named(tmp_path, capsys):
    tmp_path.chmod(0o500)

    def write():
        with replacing(tmp_path / "sub" / "a.json"):
            pass

    assert run_command(write) == 2 and str(tmp_path) in capsys.readouterr().err


def test_types_of_arguments():
    assert (positive("3"), count("0"), fraction("0.25")) == (3, 0, 0.25)
    for kind, text in ((positive, "0"), (positive, "1.5"), (count, "-3"), (count, "x"), (fraction, "1.01")):
        with pytest.raises(argparse.ArgumentTypeError, match="must be"):
            kind(text)
    with pytest.raises(argparse.ArgumentTypeError):
        fraction("nan")


def test_an_installed_package_names_commands_that_it_has(monkeypatch, capsys):
    """The wheel has no folder `tools` where its user works."""
    text = "Make it with: python tools/make_split.py --name x, then `python -m PADing.data.verify`, python mine.py."
    assert command_line.as_typed(text) == text
    monkeypatch.setattr(command_line, "REPOSITORY", command_line.PACKAGES / "PADing" / "shipped")
    wanted = "Make it with: pading data split --name x, then `pading data verify`, python mine.py."
    assert command_line.as_typed(text) == wanted
    assert run_command(raising(UserError(text))) == 2 and wanted in capsys.readouterr().err
    assert "pading data split" in CommandParser(text).format_help()


def test_a_traceback_on_request_shows_the_cause(monkeypatch):
    def fail():
        try:
            raise ValueError("the root of it")
        except ValueError as error:
            raise UserError("wrong") from error

    monkeypatch.setenv("PADING_TRACEBACK", "1")
    with pytest.raises(UserError) as caught:
        run_command(fail)
    assert str(caught.value.__cause__) == "the root of it"


def test_letters_that_the_terminal_does_not_know_are_escaped(monkeypatch):
    """In the locale C, the name of a class such as Straße ended a command with a traceback."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="surrogateescape")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert run_command(lambda: print("Straße")) == 0
    assert terminal.buffer.getvalue() == b"Stra\\xdfe\n"


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_a_command_without_standard_streams_does_its_work(tmp_path, closed):
    """And writes to no file what was meant for the terminal."""
    code = "import sys; from PADing.command_line import run_command\n"
    code += "def work():\n    print('for the terminal'); print('and this', file=sys.stderr)\n"
    code += "    open(sys.argv[1], 'w').write('result')\nsys.exit(run_command(work))\n"
    close = "".join(f" {number}>&-" for number in closed)
    command = f'exec "$0" -c "$1" "$2"{close}'
    run = subprocess.run(["sh", "-c", command, sys.executable, code, tmp_path / "file"], cwd=REPOSITORY)
    assert run.returncode == 0
    assert (tmp_path / "file").read_text() == "result"


def test_a_message_lists_a_dozen_mistakes():
    with pytest.raises(UserError) as raised:
        refuse([f"mistake {i}" for i in range(30)])
    lines = str(raised.value).splitlines()
    assert lines[0] == "30 mistakes:" and lines[12:] == ["  - mistake 11", "  ... and 18 more"]
    with pytest.raises(UserError) as raised:
        refuse(["a", "b"])
    assert str(raised.value).splitlines() == ["2 mistakes:", "  - a", "  - b"]
    with pytest.raises(UserError, match="^a$"):
        refuse(["a"])
    refuse([])
