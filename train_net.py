#!/usr/bin/env python3
"""Train or evaluate any model of this repository: PADing, D2Zero, MaskFormer.

python train_net.py --config-file configs/panoptic-segmentation/PADing.yaml --num-gpus 1 MODEL.WEIGHTS WEIGHTS
python train_net.py --config-file ... --eval-only MODEL.WEIGHTS WEIGHTS     evaluate
python train_net.py --config-file ... --resume                                continue a stopped run
python train_net.py --config-file ... --num-gpus 0                            on the CPU
"""

import sys

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()
    from PADing.commands.train import main

    sys.exit(main(description=__doc__))
