"""If these fail, the Tab key offers nothing, or words that `pading` does not know."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time

import pytest

import pading_cli
from PADing.commands import completion
from PADing.files import REPOSITORY

pytestmark = [
    pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here"),
    pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning"),
]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "pading.bash"
    path.write_text(completion.script("bash"))
    return path


def complete(file, *words: str) -> list[str]:
    """What bash is offered for the last word."""
    code = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _pading; printf "%s\\n" "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", code, "bash", file, "pading", *words], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["tr"], ["train"]),
        (["da"], ["data"]),
        (["data", "s"], ["split", "show", "semantic"]),
        (["train", "--conf"], ["--config-file"]),
        (["train", "--config-file", "a.yaml", "--ev"], ["--eval-only"]),
        (["train", "--resume", "--num-g"], ["--num-gpus"]),
        (["eval", "--num-m"], ["--num-machines"]),
        (["embeddings", "c"], ["clip"]),
        (["embeddings", "clip", "--precision", ""], ["fp32", "fp16"]),
        (["minibench", "run", "--budget", "q"], ["quick"]),
        (["quickstart", "--sm"], ["--smoke"]),
        (["analyze", "--tasks", "flop", "par"], ["parameter"]),  # a list of values
        (["completion", ""], ["bash", "zsh", "-h", "--help"]),
        (["train", "--config-file", ""], []),  # file names: the shell's own completion
        (["train", "--num-gpus", ""], []),
        (["no-such-command", "--conf"], []),
        (["train", "--config-file", "$(touch bad)", "--ev"], ["--eval-only"]),
    ],
    ids=" ".join,
)  # fmt: skip
def test_bash_offers(file, words, offered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert complete(file, *words) == offered
    assert not list(tmp_path.iterdir())


def test_every_command_is_offered_with_all_its_flags(file):
    assert set(complete(file, "")) >= {name.split()[0] for name in pading_cli.COMMANDS}
    found = {words.path: words for words in completion.all_words()}
    assert {tuple(name.split()) for name in pading_cli.COMMANDS} <= found.keys()
    for words in found.values():
        assert complete(file, *words.path, "") == list(words.words)
    assert found[("data", "verify")].lists == ("--split-file", "--config")


def test_a_tab_in_a_terminal_completes_file_names(file, tmp_path):
    """Names with spaces, too: these go through the shell's own completion."""
    (tmp_path / "my config.yaml").touch()
    (tmp_path / "pading").write_text('#!/bin/bash\nprintf "<%s>" "$@" > said\n')
    (tmp_path / "pading").chmod(0o755)
    environment = {**os.environ, "TERM": "dumb", "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PS1": "$ "}
    main, sub = pty.openpty()
    shell = ["bash", "--norc", "--noprofile", "-i"]
    with subprocess.Popen(shell, stdin=sub, stdout=sub, stderr=sub, cwd=tmp_path, env=environment) as job:
        try:
            os.write(main, f"source {file}\npading train --config-f\tmy\t --res\t\n".encode())
            end = time.monotonic() + 60
            while not (tmp_path / "said").is_file() or not (tmp_path / "said").read_text():
                assert time.monotonic() < end, "nothing was completed"
                if select.select([main], [], [], 0.05)[0]:
                    os.read(main, 4096)
        finally:
            job.kill()
            os.close(sub), os.close(main)
    assert (tmp_path / "said").read_text() == "<train><--config-file><my config.yaml><--resume>"


def test_the_command_prints_a_script_that_its_shell_reads(file):
    for shell in completion.SHELLS:
        command = [sys.executable, "pading_cli.py", "completion", shell]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr and f"completion {shell}" in done.stdout
        assert ("bashcompinit" in done.stdout) == (shell == "zsh")
        if shutil.which(shell):
            assert subprocess.run([shell, "-n"], input=done.stdout, text=True, capture_output=True).stderr == ""
    wrong = [sys.executable, "pading_cli.py", "completion", "fish"]
    assert subprocess.run(wrong, cwd=REPOSITORY, capture_output=True).returncode == 2
