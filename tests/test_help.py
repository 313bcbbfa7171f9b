"""If these fail, somebody who only asks for `--help`, or mistypes a flag, waits for PyTorch."""

import json
import subprocess
import sys

import pytest

import pading_cli
from PADing.commands import benchmark, completion
from PADing.commands.train import training_parser
from PADing.files import REPOSITORY
from PADing.generation import convert
from PADing.modeling.pixel_decoder.ops import build
from tests.small_models import load_tool

pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")

# One process runs all: every line of its last output is [command, status for --help, status for a wrong flag].
RUN = """
import contextlib, io, json, runpy, sys
sys.modules["torch"] = None  # importing it is an ImportError
import pading_cli

def status(run):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as error:
        try:
            code = run()
        except SystemExit as end:
            code = end.code
        except BaseException as wrong:
            return f"{type(wrong).__name__}: {wrong}"
    return code if "usage:" in (out if code == 0 else error).getvalue() else "no usage"

def script(path, *flags):
    sys.argv = [path, *flags]
    runpy.run_path(path, run_name="__main__")

for words in json.loads(sys.argv[1]):
    run = (lambda *flags: script(words[0], *flags)) if words[0].endswith(".py") else (
        lambda *flags: pading_cli.main([*words, *flags]))
    print(json.dumps([words, status(lambda: run("--help")), status(lambda: run("--no-such-flag"))]))
"""


def test_no_help_and_no_wrong_flag_imports_pytorch():
    commands = [list(words.path) for words in completion.all_words() if words.path not in ((), ("data",))]
    assert len(commands) > len(pading_cli.COMMANDS)
    scripts = [str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "tools").glob("*.py")]
    given = json.dumps(commands + [[script] for script in scripts])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, given], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(commands) + len(scripts)
    assert not [row for row in rows if row[1:] != [0, 2]]


def test_importing_the_package_imports_neither_pytorch_nor_detectron2():
    code = "import sys, PADing, PADing.command_line, PADing.data.splits; print('torch' in sys.modules, end=' ')"
    code += "; print('detectron2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_help_of_the_mini_benchmark_imports_nothing_that_draws():
    code = "import sys, minibench.__main__; print({'cv2', 'matplotlib', 'torch'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


def test_choices_that_are_written_twice_agree():
    """The parsers have their own copy, because the other one comes with PyTorch."""
    tool = load_tool("tools/preprocess_pretrained_weight.py")
    assert (tool.TASKS, tool.LAYOUTS, tool.KINDS) == (convert.TASKS, convert.LAYOUTS, convert.KINDS)
    assert benchmark.KINDS == build.KINDS


def test_the_training_parser_reads_what_detectron2s_does():
    """Code and habits from Detectron2 rely on these names and defaults."""
    from detectron2.engine import default_argument_parser

    lines = ["", "--config-file a.yaml --resume SOLVER.MAX_ITER 5 --num-gpus 2", "--eval-only --num-machines 2"]
    lines += ["--num-gpus 8 --machine-rank 1 --dist-url tcp://a:1 A.B c"]
    for line in lines:
        ours, theirs = (vars(make().parse_args(line.split())) for make in (training_parser, default_argument_parser))
        assert {name: ours[name] for name in theirs} == theirs
        own = {"overwrite", "fast_dev_run", "deterministic", "find_batch_size", "memory_limit", "more_opts"}
        own |= {"no_progress_bar"}
        assert ours.keys() - theirs.keys() == own
