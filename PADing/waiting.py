"""How the threads of PyTorch wait for each other on a CPU."""

import os
import sys

POLICY = "OMP_WAIT_POLICY"


def sleep_while_waiting() -> None:
    """Let OpenMP's threads sleep when they wait, unless the user has chosen or PyTorch is already imported.

    OpenMP reads ``OMP_WAIT_POLICY`` once, when PyTorch is imported. Without it, a thread that has done its part runs
    idly until the others have done theirs. If another program holds one of the cores, that takes the core from the very
    thread that all wait for: small models then take ten times as long (docs/benchmarks.md).
    """
    chosen = any(name in os.environ for name in (POLICY, "GOMP_SPINCOUNT", "KMP_BLOCKTIME"))
    if not chosen and "torch" not in sys.modules:
        os.environ[POLICY] = "PASSIVE"
