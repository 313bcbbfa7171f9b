#!/usr/bin/env python3
"""The smallest run of the mini benchmark, from drawn data to a table; the same as `python -m minibench quickstart`."""

import sys
from pathlib import Path

# The package is at the root of the repository. It replaces this folder, where minibench.py would hide it.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from minibench.__main__ import cli  # noqa: E402

if __name__ == "__main__":
    sys.exit(cli(["quickstart", *sys.argv[1:]]))
