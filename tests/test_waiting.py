"""Threads must not run idly while they wait: beside another program a step then takes ten times as long."""

import os
import subprocess
import sys

import pytest

SHOW = "import os; print(os.environ.get('OMP_WAIT_POLICY'))"


def policy(before="import PADing", **variables):
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    environment = {key: value for key, value in os.environ.items() if key not in names}
    words = [sys.executable, "-c", f"{before}; {SHOW}"]
    return subprocess.run(words, env={**environment, **variables}, capture_output=True, text=True).stdout.strip()


def test_threads_sleep_by_default():
    assert policy() == "PASSIVE"


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_the_users_choice_stays(name):
    value = "ACTIVE" if name == "OMP_WAIT_POLICY" else "100"
    assert policy(**{name: value}) == ("ACTIVE" if name == "OMP_WAIT_POLICY" else "None")


def test_nothing_changes_when_it_is_too_late():
    """PyTorch has read its environment: another value would only mislead who looks at it."""
    assert policy(before="import torch, PADing") == "None"
