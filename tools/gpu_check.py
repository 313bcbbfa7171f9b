#!/usr/bin/env python3
"""Tries in minutes all that needs a GPU; ``--help`` explains. It runs from a bare checkout, without an installation."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))  # behind an installed package
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()

from PADing.commands.gpu_check import main

if __name__ == "__main__":
    sys.exit(main())
