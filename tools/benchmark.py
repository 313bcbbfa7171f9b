#!/usr/bin/env python3
"""Runs the benchmarks of the MSDeformAttn operator and of the whole model: ``PADing.commands.benchmark``."""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import sys

from PADing.commands.benchmark import main

if __name__ == "__main__":
    sys.exit(main())
