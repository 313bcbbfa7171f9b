#!/usr/bin/env python3
"""Prepares ADE20K, PASCAL Context, PASCAL VOC or Cityscapes for an evaluation; ``--help`` explains."""

import sys

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()

from PADing.commands.evaluation_set import main

if __name__ == "__main__":
    sys.exit(main())
