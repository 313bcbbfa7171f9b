#!/usr/bin/env python3
"""Writes feature folders, and trains and evaluates second stages on them; ``--help`` explains."""

import sys

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()

from PADing.commands.features import main

if __name__ == "__main__":
    sys.exit(main())
