"""Helpers of the tests of d2lite."""

import logging
import os
import subprocess
import sys

import pytest

# Makes a fresh interpreter use the stand-ins even where genuine packages are installed.
STANDIN_PRELUDE = """
import sys
import d2lite.provider
d2lite.provider.find_genuine = lambda name: None
sys.path.insert(0, str(d2lite.provider.STANDIN_FOLDER))
"""


def run_python(code: str, *args: str, cwd=None, **environment: str) -> subprocess.CompletedProcess:
    """Run code in a new interpreter; output as text, no check of the exit status."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, timeout=120, env=env, cwd=cwd
    )


@pytest.fixture(autouse=True)
def release_log_files():
    """Handlers of one test's log file must not write during the next."""
    yield
    for name in ("detectron2", "fvcore"):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)


@pytest.fixture
def run_standin():
    """Run code in a new interpreter in which the stand-ins are in use; returns its standard output."""

    def run(code: str, **kwargs) -> str:
        result = run_python(STANDIN_PRELUDE + code, **kwargs)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture
def run_script(tmp_path):
    """Run code as a script file, as spawned processes need it; returns its standard output."""

    def run(code: str, *args: str) -> str:
        path = tmp_path / "script.py"
        path.write_text(code)
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        result = subprocess.run(
            [sys.executable, str(path), *args], capture_output=True, text=True, timeout=180, env=env, cwd=tmp_path
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run
