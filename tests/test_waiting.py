"""Threads must sleep when they wait for long: beside another program a step then may take ten times as long."""

import json
import os
import subprocess
import sys

import pytest

from PADing.waiting import BRIEFLY

NAMES = ("OMP_WAIT_POLICY", *BRIEFLY)
SHOW = f"import json, os; print(json.dumps({{name: os.environ[name] for name in {NAMES} if name in os.environ}}))"


def variables(before="import PADing", **given):
    environment = {key: value for key, value in os.environ.items() if key not in NAMES}
    words = [sys.executable, "-c", f"{before}; {SHOW}"]
    done = subprocess.run(words, env={**environment, **given}, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_threads_wait_briefly_by_default():
    assert variables() == BRIEFLY


@pytest.mark.parametrize("name", NAMES)
def test_the_users_choice_stays(name):
    value = "ACTIVE" if name == "OMP_WAIT_POLICY" else "100"
    assert variables(**{name: value}) == {name: value}


def test_nothing_changes_when_it_is_too_late():
    """PyTorch has read its environment: another value would only mislead who looks at it."""
    assert variables(before="import torch, PADing") == {}


def test_pytorch_reads_the_choice():
    shown = "import PADing, torch; torch.set_num_threads(2); (torch.ones(512, 512) @ torch.ones(512, 512)).sum()"
    environment = {key: value for key, value in os.environ.items() if key not in NAMES}
    words = [sys.executable, "-c", shown]
    environment["OMP_DISPLAY_ENV"] = "VERBOSE"
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this PyTorch has another OpenMP than GNU's")
    assert f"GOMP_SPINCOUNT = '{BRIEFLY['GOMP_SPINCOUNT']}'" in done.stderr
