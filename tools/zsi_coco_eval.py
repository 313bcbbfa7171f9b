#!/usr/bin/env python3
"""Zero-shot metrics of a COCO result file on unseen classes only: AP and recall@100 at IoU 0.4, 0.5 and 0.6.

    python tools/zsi_coco_eval.py output/inference/coco_instances_results.json \\
        --ann datasets/coco/annotations/ZSIS/instances_val2014_unseen_48_17.json
"""

import sys

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()
    from PADing.commands.coco_eval import main

    sys.exit(main(__doc__, generalized=False))
