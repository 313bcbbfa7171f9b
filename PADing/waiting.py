"""How the threads of PyTorch wait for each other on a CPU."""

import os
import sys

# How often a waiting thread of GNU's OpenMP looks again before it sleeps, 300,000 times if nobody chooses; and the
# milliseconds after which one of LLVM's or Intel's sleeps, which other builds of PyTorch have, 200 if nobody chooses.
BRIEFLY = {"GOMP_SPINCOUNT": "10000", "KMP_BLOCKTIME": "1"}
# What this process has set. Programs that it starts inherit it.
chosen: dict[str, str] = {}


def wait_briefly() -> None:
    """Let OpenMP's threads sleep if they wait for long, unless the user has chosen or PyTorch is already imported.

    OpenMP reads these variables once, when PyTorch is imported. Without them, a thread that has done its part runs idly
    until the others have done theirs. If another program holds one of the cores, that takes the core from the very
    thread that all wait for: a step of a small model then may take ten times as long. Threads that sleep at once take
    half as long again on a quiet machine (docs/benchmarks.md).
    """
    known = any(name in os.environ for name in ("OMP_WAIT_POLICY", *BRIEFLY))
    if not known and "torch" not in sys.modules:
        chosen.update(BRIEFLY)
        os.environ.update(BRIEFLY)
