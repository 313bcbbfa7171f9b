"""The recorded numbers hold whoever computes the pixel decoder's attention: users get what their machine has."""

import os
import subprocess
import sys

import pytest

from PADing.modeling.pixel_decoder.ops import backends
from tests.golden.util import REPOSITORY, requires_golden

pytestmark = [requires_golden, pytest.mark.slow]


@pytest.mark.parametrize("backend", ["cpu", "pytorch"])
@pytest.mark.parametrize("model", ["pixel_decoder", "mask2former", "pading", "d2zero"])
def test_golden_numbers_with_each_backend(backend, model):
    """In a process of its own, chosen as a user would."""
    reason = backends.load(backend) if backend == "cpu" else None
    if reason is not None:
        pytest.skip(f"the CPU kernel cannot be had here: {reason}")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"tests/golden/test_{model}.py"],
        cwd=REPOSITORY,
        env={**os.environ, backends.ENVIRONMENT: backend},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    assert " passed" in result.stdout
