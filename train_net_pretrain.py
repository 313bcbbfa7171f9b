#!/usr/bin/env python3
"""Train or evaluate stage 1 of PADing: Mask2Former on seen classes.

    python train_net_pretrain.py --config-file configs/panoptic-segmentation/pretrain.yaml --num-gpus 8

Then convert its checkpoint for stage 2 with tools/preprocess_pretrained_weight.py. The flags are those of train_net.py.
"""

import sys

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()
    from PADing.commands.train import main

    sys.exit(main(recipes=["OneOptimizer"], description=__doc__))
