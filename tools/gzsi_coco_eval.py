#!/usr/bin/env python3
"""Generalized zero-shot metrics of a COCO result file: AP50 and recall@100 over seen and unseen classes, harmonic mean.

    python tools/gzsi_coco_eval.py output/inference/coco_instances_results.json --gzsi --num-seen-classes 48 \\
        --ann datasets/coco/annotations/ZSIS/instances_val2014_gzsi_48_17.json
"""

import sys

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()
    from PADing.commands.coco_eval import main

    sys.exit(main(__doc__, generalized=True))
