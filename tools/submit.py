#!/usr/bin/env python3
"""Submits a training to SLURM, which starts it again until it is done; ``--help`` explains."""

import sys

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()

from PADing.commands.submit import main

if __name__ == "__main__":
    sys.exit(main())
