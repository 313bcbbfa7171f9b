"""The runner itself: it draws the same mistakes again, judges them rightly, and changes no file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cosmic_ray", reason="cosmic-ray is not installed")
from tests.mutation import __main__ as command
from tests.mutation.mutants import _places, sample

ROOT = Path(__file__).resolve().parents[2]
TOY = '''
def larger(a: int | None, b: int) -> int:
    """The larger one."""
    return a if a > b else b


def unused(a):
    return a + 1
'''
CHECK = "from toy import larger\n\n\ndef test_larger():\n    assert larger(1, 2) == 2 and larger(4, 3) == 4\n"
JUDGE = """
import json, sys
from pathlib import Path
from tests.mutation import trial
from tests.mutation.trial import normal_time, notices

trial.IDLE = 2
root, log = Path(sys.argv[1]), Path(sys.argv[1], "log")
seconds = normal_time(root, ["test_toy.py"], log)
print(json.dumps([notices(root, ["test_toy.py"], log, "toy.py", source, seconds) for source in json.load(sys.stdin)]))
"""


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "test_toy.py").write_text(CHECK)
    return tmp_path


def judged(root: Path, sources: list[str]) -> list[str]:
    words = [sys.executable, "-c", JUDGE, str(root)]
    run = subprocess.run(words, cwd=ROOT, input=json.dumps(sources), capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])


def test_mistakes_are_judged_by_the_tests_and_change_no_file(root):
    wrong, untested = TOY.replace("a > b", "a < b"), TOY.replace("a + 1", "a - 1")
    broken = "import nothing_of_that_name"
    dead = TOY.replace("    return a if", "    import os; os.abort()\n    return a if")
    waiting = TOY.replace("    return a if", "    import time; time.sleep(900)\n    return a if")
    sources = [TOY, untested, wrong, broken, dead, waiting]
    assert judged(root, sources) == ["", "", "test", "import", "crash", "time"]
    assert (root / "toy.py").read_text() == TOY


def test_mistakes_are_spread_over_places_and_drawn_again(root):
    every = sample(root, "toy.py", 100, seed=0)
    assert {mutant.line for mutant in every} == {4, 8}, "not in types or docstrings"
    assert every == sample(root, "toy.py", 100, seed=0)
    before, after = every[0].change(root)
    assert before == "return a if a > b else b" != after
    assert len(sample(root, "toy.py", 1, seed=0)) == 1


def test_what_is_no_code_is_not_drawn(root):
    code = "def f(a, *b):\n    try:\n        return {1: b, **a}\n    except (a.Error, OSError):\n        pass\n"
    (root / "toy.py").write_text(code)
    every = [mutant for mutants in _places(root, "toy.py").values() for mutant in mutants]
    for mutant in every:
        if mutant.can_be_made(root):
            compile(mutant.source(root), "toy.py", "exec")
    assert {mutant.line for mutant in every if not mutant.can_be_made(root)} == {3, 4}
    assert {mutant.line for mutant in sample(root, "toy.py", 100, seed=0)} >= {3}


def test_tests_that_fail_as_they_are_end_the_run(root):
    (root / "test_toy.py").write_text(CHECK.replace("== 2", "== 5"))
    with pytest.raises(subprocess.CalledProcessError) as raised:
        judged(root, [])
    assert "pytest ended with 1 without a mutant" in raised.value.stderr


def test_report_counts_by_package_and_fails_below_its_aim(capsys):
    row = {"before": "a", "after": "b", "noticed": "test"}
    rows = [{**row, "mutant": {"module": "PADing/data/x.py", "line": 3}}] * 4
    missed = {**row, "mutant": {"module": "PADing/data/x.py", "line": 7}, "noticed": ""}
    assert command.report([*rows, missed], set()) == 0
    assert command.report([*rows[1:], missed], set()) == 1
    assert "PADing/data/x.py:7\n  - a\n  + b" in capsys.readouterr().out
    assert command.report([*rows[1:], missed], {("PADing/data/x.py", "a", "b")}) == 0
    assert "| PADing/data | 4 | 3 | 0 | 0 | 1 | 100% |" in capsys.readouterr().out
    assert command.report([*rows, {**rows[0], "again": True}, {**missed, "again": True}], set()) == 0
    assert "| PADing/data | 6 | 5 | 1 | 1 | 0 | 83% |" in capsys.readouterr().out


def test_every_reason_is_about_code_that_exists():
    lines = {name: (ROOT / name).read_text(encoding="utf-8") for name, *_ in command.load_reasons()}
    stale = [(name, before) for name, before, _ in command.load_reasons() if before not in lines[name]]
    assert not stale, "remove what has changed from reasons.yaml"
