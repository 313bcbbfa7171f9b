#!/usr/bin/env python3
"""The mini benchmark: compare all methods on the mini data set; the same as `python -m minibench`."""

import sys
from pathlib import Path

# The package is at the root of the repository. It replaces this folder, where minibench.py would hide it.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from minibench.__main__ import cli  # noqa: E402

if __name__ == "__main__":
    sys.exit(cli())
