#!/usr/bin/env python3
"""Generalized zero-shot figures of a COCO result file: AP50 and recall@100 over seen and unseen classes, harmonic mean.

    python tools/gzsi_coco_eval.py output/inference/coco_instances_results.json --gzsi --num-seen-classes 48 \\
        --ann datasets/coco/annotations/ZSIS/instances_val2014_gzsi_48_17.json
"""

import sys

from PADing.evaluation.command_line import main

if __name__ == "__main__":
    sys.exit(main(__doc__.splitlines()[0], generalized=True, num_seen_classes=48))
