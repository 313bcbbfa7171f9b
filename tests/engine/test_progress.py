"""The progress bar: on a terminal it moves below whole lines of the log and leaves nothing; elsewhere there is none."""

import fcntl
import logging
import os
import pty
import re
import signal
import struct
import sys
import termios
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest

from PADing.progress import fits_terminal, on_terminal, show_bar, shown_bar
from tests.engine.test_interruption import COMMAND, REPOSITORY
from tests.engine.tiny import config

LINE = re.compile(r"\[\d\d/\d\d \d\d:\d\d:\d\d.*")


def screen(written: str, columns: int) -> list[str]:
    """The lines that a terminal shows for what was written to it."""
    lines, row, column = [""], 0, 0
    written = re.sub(r"\x1b\[[0-9;]*m", "", written)  # colours
    for piece in re.findall(r"\x1b\[2K|\x1b|[^\x1b]", written):
        assert piece != "\x1b", "an escape sequence that the test does not know"
        if piece == "\x1b[2K":
            lines[row] = ""
        elif piece == "\r":
            column = 0
        elif piece == "\n":
            row += 1
            lines += [""] * (row >= len(lines))
        else:
            if column >= columns:
                row, column = row + 1, 0
                lines += [""] * (row >= len(lines))
            lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


class Terminal:
    """The training command in a terminal."""

    def __init__(self, folder, *flags, columns=400, slow="", opts=()):
        cfg = config(folder / "out", "SOLVER.MAX_ITER", 12, "TEST.EVAL_PERIOD", 5, *opts).clone()
        cfg.defrost()
        cfg.PLUGINS = ("tests.engine.stoppable",)
        (folder / "config.yaml").write_text(cfg.dump())
        own = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "TERM": "xterm", "STOPPABLE": slow}
        own = {name: value for name, value in os.environ.items() if name not in ("CI", "TQDM_DISABLE")} | own
        self.process, self.terminal = pty.fork()
        if not self.process:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execve(COMMAND[0], [*COMMAND, "--config-file", str(folder / "config.yaml"), *flags], own)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 0, columns, 0, 0))
        self.raw, self.columns = b"", columns or 80

    def wait_for(self, text: bytes):
        while text not in self.raw:
            self.raw += os.read(self.terminal, 65536)
        return self

    def end(self) -> int:
        with suppress(OSError):  # at the end of what the command writes
            while piece := os.read(self.terminal, 65536):
                self.raw += piece
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    @property
    def lines(self):
        return screen(self.raw.decode(), self.columns)


def test_a_training_on_a_terminal(tmp_path):
    job = Terminal(tmp_path)
    assert job.end() == 0, job.raw.decode()
    written, log = job.raw.decode(), (tmp_path / "out" / "log.txt").read_text()
    drawn = re.findall(r"\x1b\[2K(training .*?|evaluation .*?)(?=[\r\n])", written)
    assert any(re.match(r"training 1?\d/12 loss \d\S*, eta 00:0\d, \S+ images/s \|", bar) for bar in drawn), drawn
    assert any(bar.startswith("evaluation 11/11 eta 00:00") for bar in drawn)
    # The numbers go on after an evaluation.
    counted = [int(bar.split()[1].split("/")[0]) for bar in drawn if bar.startswith("training")]
    assert counted == sorted(counted) and counted[0] < 3 and {5, 10} <= {*counted} and counted[-1] > 10
    assert not any("images/s" in line for line in [*job.lines, *log.splitlines()])
    # Every line of the log is a line of the terminal, with nothing before it or behind it.
    shown = [line.partition("]: ")[2] for line in job.lines if LINE.match(line)]
    said = [line.partition(": ")[2] for line in log.splitlines() if "Saving checkpoint" in line or "iter:" in line]
    assert len(said) > 3 and all(any(text.strip() in line for line in shown) for text in said)
    assert job.lines[-1] == ""


def test_ctrl_c_leaves_a_clean_terminal_and_a_resumed_bar_goes_on(tmp_path):
    job = Terminal(tmp_path, slow="long").wait_for(b"training 2/12")
    os.write(job.terminal, b"\x03")
    assert job.end() == 130
    assert job.lines[-1] == "" and "To continue, run the same command with --resume." in job.lines[-2]
    done = int(re.search(r"Stopped by Ctrl-C. (\d+) of 12", job.raw.decode())[1])
    assert not any("images/s" in line for line in job.lines)
    job = Terminal(tmp_path, "--resume")
    assert job.end() == 0, job.lines
    counted = [int(n) for n in re.findall(r"training (\d+)/12", job.raw.decode())]
    assert counted[0] == done and counted[-1] > 10


def test_it_can_be_switched_off(tmp_path):
    job = Terminal(tmp_path, "--eval-only", "--no-progress-bar")
    assert job.end() == 0, job.raw.decode()
    assert b"\x1b[2K" not in job.raw and any("Total inference time" in line for line in job.lines)


@contextmanager
def terminal_of(columns, monkeypatch):
    """Standard error is a terminal; yields a function that returns what was written to it since the last call."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 0, columns, 0, 0))
    with ExitStack() as files, open(slave, "w") as stream, monkeypatch.context() as patch:
        files.callback(os.close, master)
        patch.setattr(sys, "stderr", stream)
        os.set_blocking(master, False)

        def written() -> str:
            time.sleep(0.01)
            with suppress(BlockingIOError):
                return os.read(master, 1 << 16).decode().replace("\r\n", "\n\r")
            return ""

        yield written


@pytest.mark.parametrize("columns", [1, 5, 17, 40, 80, 300])
def test_a_bar_stays_in_its_line(columns, monkeypatch):
    with terminal_of(columns, monkeypatch) as written, on_terminal(True):
        bar = show_bar("training", 10**9, words=lambda: "gan_loss 1.234, id_loss 2.345, ")
        for _ in range(3):
            bar.step(2)
            bar.refresh()
        lines = screen(written(), columns)
        assert len(lines) == 1 and (columns < 20 or lines[0].startswith("training 3/1000"))


def test_a_terminal_of_unknown_width_gets_80_columns(monkeypatch):
    with terminal_of(0, monkeypatch) as written, on_terminal(True):
        show_bar("training", 10)
        (line,) = screen(written(), 10**6)
        assert 60 < len(line) < 80


def test_prints_and_lines_of_plug_ins_appear_above_the_bar(monkeypatch):
    """Loggers of plug-ins have their own handlers."""
    with terminal_of(60, monkeypatch) as written:
        monkeypatch.setattr(sys, "stdout", sys.stderr)
        before, other, handler = sys.stdout, logging.getLogger("a_plug_in"), logging.StreamHandler(sys.stderr)
        other.addHandler(handler)
        with on_terminal(True):
            bar = show_bar("training", 10)
            other.warning("first line\nsecond line")
            print("one", "two", end=" ")
            bar.refresh()
            print("three")
            print("four", file=sys.stderr)
            kept = sys.stdout
            bar.step(1)
            lines = screen(written(), 60)
            assert lines[:4] == ["first line", "second line", "one two three", "four"]
            assert lines[-1].startswith("training ") and sum("training" in line for line in lines) == 1
        other.warning("fifth")
        print("sixth", file=kept)  # as after contextlib.redirect_stdout
        assert screen(written(), 60)[-3:] == ["fifth", "sixth", ""]
        assert handler.stream is before is sys.stdout is sys.stderr
        other.removeHandler(handler)


def test_an_error_leaves_a_clean_terminal(monkeypatch):
    with terminal_of(60, monkeypatch) as written:
        with pytest.raises(RuntimeError), on_terminal(True):
            show_bar("training", 10)
            raise RuntimeError
        print("error: message", file=sys.stderr, flush=True)
        assert screen(written(), 60) == ["error: message", ""]
        assert show_bar("training", 10) is None and shown_bar() is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [({}, True), ({"TERM": "dumb"}, False), ({"CI": "true"}, False), ({"CI": ""}, True), ({"NO_COLOR": "1"}, True),
     ({"TQDM_DISABLE": "1"}, False), ({"TQDM_DISABLE": "0"}, True)],
)  # fmt: skip
def test_where_it_is_shown(change, expected, monkeypatch):
    for name, value in ({"TERM": "xterm", "CI": "", "TQDM_DISABLE": ""} | change).items():
        monkeypatch.setenv(name, value)
    reader, writer = os.pipe()
    with terminal_of(80, monkeypatch), open(reader), open(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", sys.stderr)
        assert fits_terminal() is expected
        monkeypatch.setattr(sys, "stdout", pipe)  # command | tee log
        assert not fits_terminal()
        monkeypatch.setattr(sys, "stdout", open(os.devnull, "w"))
        assert fits_terminal() is expected
        monkeypatch.setattr(sys, "stderr", None)
        assert not fits_terminal()
