"""Arguments as a command's own parser reads them, without running the command."""

import argparse
import contextlib
import glob
import io
import itertools
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from unittest import mock

import pading_cli
from tests.documents.pages import REPOSITORY, Command

# Words that stand for something of the reader's, and what the tests put in their place.
PLACEHOLDERS = {
    "CONFIG": "configs/mini/panoptic-PADing.yaml",
    "WEIGHTS": "output/mini_panoptic_PADing/model_final.pth",
    "NAME": "mini_val_instance",
    "FOLDER": "examples",
    "EMBEDDINGS.npz": "datasets/mini/class_vectors.npz",
}
# Shell commands that are no business of ours, by their first words, and why no test runs them.
SHELL = {
    "git": "needs the network or changes the clone",
    "pip": "changes the environment",
    "python -m pip": "changes the environment",
    "python -m venv": "makes an environment",
    "python -m sphinx": "`make docs` is tested where the site is built",
    "apt-get": "changes the machine",
    "conda": "changes the machine",
    "docker": "needs a daemon",
    "curl": "needs the network",
    "wget": "needs the network",
    "unzip": "a tool of the system",
    "tar": "a tool of the system",
    "cd": "a tool of the shell",
    "ls": "a tool of the shell",
    "cp": "a tool of the shell",
    "mv": "a tool of the shell",
    "ln": "a tool of the shell",
    "rm": "a tool of the shell",
    "mkdir": "a tool of the shell",
    "cat": "a tool of the shell",
    "tail": "a tool of the shell",
    "source": "a tool of the shell",
    ".": "a tool of the shell",
    "echo": "a tool of the shell",
    "which": "a tool of the shell",
    "kill": "a tool of the shell",
    "ulimit": "a tool of the shell",
    "nvidia-smi": "needs a GPU",
    "nvcc": "needs CUDA",
    "tensorboard": "a server",
    "ssh": "needs another machine",
    "srun": "needs a cluster",
    "sbatch": "needs a cluster",
    "scontrol": "needs a cluster",
    "hostname": "a tool of the system",
    "ruff": "`make lint` runs it",
    "mypy": "`make lint` runs it",
}  # fmt: skip
# Commands of ours that read no arguments.
WITHOUT_ARGUMENTS = ("-m d2lite", "-m PADing.installation")
# A reader's own plug-in or shared model: its config keys and names are unknown here, so only the flags are parsed.
IMAGINED = re.compile(r"\b(shared/\w+|my_method|my_config|my_module|my_package|MyMethod)\b|\.\.\.")


class Rejected(AssertionError):
    """What is wrong with a command."""


@dataclass
class Parsed:
    """A command of ours: ``script`` (a path, or ``-m module``), its ``words``, and what its parser made of them.

    ``processes``: that torchrun starts; 0 without it.
    """

    command: Command
    script: str
    words: tuple[str, ...]
    args: argparse.Namespace
    processes: int = 0

    @property
    def opts(self) -> list[str]:
        """Config overrides."""
        return [*(getattr(self.args, "opts", None) or ()), *(getattr(self.args, "more_opts", None) or ())]


class _Stop(BaseException):
    def __init__(self, args: argparse.Namespace):
        self.args = (args,)


def parse(command: Command) -> list[Parsed]:
    """Read a command in the current folder; empty for one of the shell. ``Rejected`` with what is wrong."""
    words = list(itertools.chain.from_iterable(map(_expanded, map(_filled, command.words))))
    if words[0] == "make":
        return [parsed for made in _made_by(command, words) for parsed in parse(made)]
    if words[0] == "sh":
        places = [Path(words[1]), (REPOSITORY / command.page).parent / words[1]]
        _check(len(words) > 1 and any(map(Path.is_file, places)), f"there is no script {words[1]}")
        return []
    if Path(words[0]).name in ("python", "python3"):
        return _parse_python(command, words[1:])
    if words[0] == "torchrun":
        return _parse_torchrun(command, words[1:])
    if words[0] == "pading":
        name, rest = pading_cli._command(words[1:])
        _check(name is not None, f"`pading {words[1]}` is not a command")
        target, first, _ = pading_cli.COMMANDS[name]
        return _parse_python(command, [*target.split(), *first, *rest])
    if words[0] in ("pytest",):
        return _parse_python(command, ["-m", *words])
    known = words[0] in SHELL
    _check(known, f"`{words[0]}` is not a command that the tests know: add it to SHELL in tests/documents/parsing.py")
    if words[:2] == ["pip", "install"]:
        _check_requirements(words)
    return []


def _parse_python(command: Command, words: list[str]) -> list[Parsed]:
    if words[0] == "-c":
        compile(words[1], command.place, "exec")
        return [Parsed(command, "-c", (words[1],), argparse.Namespace())]
    script = f"-m {words[1]}" if words[0] == "-m" else words[0]
    rest = words[2:] if words[0] == "-m" else words[1:]
    if script == "-m torch.distributed.run":
        return _parse_torchrun(command, rest)
    if f"python {script}" in SHELL:
        _check_requirements(rest)
        return []
    if script == "-m pytest":
        for word in rest:
            path = word.split("::")[0]
            _check("/" not in path or Path(path).exists(), f"there is no {path} to test")
        return []
    if script in WITHOUT_ARGUMENTS:
        _check(not rest, f"`python {script}` takes no arguments")
        return [Parsed(command, script, (), argparse.Namespace())]
    if script in ("-m tests.golden.reduce", "setup.py"):
        return []
    _check(script[:2] == "-m" or Path(script).is_file(), f"there is no script {script}")
    if command.inline and not rest and _needs_arguments(script):
        return []  # a mention of the script
    return [Parsed(command, script, tuple(rest), _own_parser(script, *rest))]


def _parse_torchrun(command: Command, words: list[str]) -> list[Parsed]:
    from torch.distributed.run import get_args_parser

    args = _refusing(lambda: get_args_parser().parse_args(words))
    processes = int(args.nproc_per_node) if args.nproc_per_node.isdigit() else 1
    machines = int(args.nnodes) if args.nnodes.isdigit() else 1
    inner = ["-m", args.training_script] if args.module else [args.training_script]
    return [
        replace(parsed, processes=processes * machines)
        for parsed in _parse_python(command, [*inner, *args.training_script_args])
    ]


def _made_by(command: Command, words: list[str]) -> list[Command]:
    """The Python commands that make would run, with everything installed."""
    installed = ["-o", ".venv/.installed", "-o", ".venv/.installed-dev", "-o", ".venv/.installed-docs"]
    done = subprocess.run(["make", "-n", *installed, *words[1:]], cwd=REPOSITORY, capture_output=True, text=True)
    _check(done.returncode == 0, done.stderr.strip())
    if words[1] in ("setup", "lint", "test", "test-slow", "test-mutation", "docs", "help", "clean"):
        return []
    lines = [line for line in done.stdout.splitlines() if "python -m minibench" in line]
    import shlex

    return [replace(command, words=("python", *shlex.split(line)[1:])) for line in lines]


@cache
def _own_parser(script: str, *words: str) -> argparse.Namespace:
    """What a script's (or a module's) own parser makes of the words."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(parser, args=None, namespace=None):
        raise _Stop(parse_args(parser, args, namespace))

    def start() -> argparse.Namespace:
        hook, path = sys.excepthook, list(sys.path)
        name = script.removeprefix("-m ")
        try:
            if script.startswith("-m "):
                runpy.run_module(name, run_name="__main__", alter_sys=False)
            else:
                runpy.run_path(name, run_name="__main__")
        except _Stop as stopped:
            return stopped.args[0]
        finally:
            sys.excepthook, sys.path[:] = hook, path
        raise Rejected(f"{script} reads no arguments; add it to WITHOUT_ARGUMENTS in tests/documents/parsing.py")

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", stop),
        mock.patch.object(sys, "argv", [script, *words]),
    ):
        return _refusing(start)


def _needs_arguments(script: str) -> bool:
    try:
        _own_parser(script)
    except Rejected as error:
        return "are required" in str(error) or "is required" in str(error)
    return False


def _refusing(function):
    """What it returns; ``Rejected`` with what the parser says when it ends the program."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return function()
    except SystemExit:
        raise Rejected(f"its own parser says: {said.getvalue().strip().splitlines()[-1]}") from None
    except ImportError as error:
        raise Rejected(f"cannot be imported: {error}") from None


def _filled(word: str) -> str:
    for name, value in PLACEHOLDERS.items():
        word = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", value, word)
    return word.replace("$DETECTRON2_DATASETS", "datasets")


def _expanded(word: str) -> Iterator[str]:
    """As the shell expands braces and stars."""
    parts = re.split(r"\{([^{}]*,[^{}]*)\}", word) if word[:1] not in "([{'\"" else [word]
    choices = [part.split(",") if i % 2 else [part] for i, part in enumerate(parts)]
    for path in map("".join, itertools.product(*choices)):
        found = sorted(glob.glob(path)) if "*" in path and " " not in path else []
        yield from found or [path]


def _check_requirements(words: list[str]) -> None:
    for flag, file in itertools.pairwise(words):
        _check(flag not in ("-r", "-e") or Path(file).exists(), f"there is no {file}")


def _check(holds: bool, message: str) -> None:
    if not holds:
        raise Rejected(message)
