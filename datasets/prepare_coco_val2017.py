#!/usr/bin/env python3
"""Prepares, trains and reports the val2017 protocol: COCO's 5,000 validation images alone; ``--help`` explains."""

import sys

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()

from PADing.commands.val2017 import main

if __name__ == "__main__":
    sys.exit(main())
