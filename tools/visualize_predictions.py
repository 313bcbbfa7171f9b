#!/usr/bin/env python3
"""Draw predictions: input | ground truth | (baseline |) prediction. Unseen classes have a magenta outline.

    python tools/visualize_predictions.py --config-file configs/mini/panoptic-PADing.yaml --num-gpus 0 \\
        --output output/drawings --number 12 MODEL.WEIGHTS output/mini_panoptic_PADing/model_final.pth

Works for every architecture and task: it draws what the model returns (panoptic, else instances, else semantic).
Images with unseen classes in the ground truth come first.
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import argparse
import sys
from pathlib import Path

from PADing.command_line import CommandParser, add_config_options, count, fraction, positive, run_command
from PADing.errors import refuse


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = CommandParser(__doc__)
    add_config_options(parser)
    parser.add_argument(
        "--baseline", nargs=2, metavar=("CONFIG", "WEIGHTS"), help="a second model, drawn in its own column"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the drawings")
    parser.add_argument("--number", type=positive, default=12, help="images to draw")
    least = "least score of shown instances, 0 to 1 (default: half of the image's best score)"
    parser.add_argument("--score-threshold", type=fraction, help=least)
    parser.add_argument(
        "--scale", type=count, default=0, help="factor that enlarges the images; 0: chosen by their size"
    )
    return run_command(_run, parser.parse_args(argv))


def _run(args: argparse.Namespace) -> None:
    # Imported here, because they import PyTorch.
    from detectron2.utils.logger import setup_logger

    from PADing.config import load_config
    from PADing.engine.start_check import PREDICTION, checked_config, start_problems
    from PADing.inference import Predictor
    from PADing.visualization.comparison import draw_predictions

    if __name__ == "__main__":
        setup_logger(name="fvcore")
    cfg = checked_config(args, PREDICTION | {"test data"})
    configs = {"prediction": cfg}
    if args.baseline:
        config_file, weights = args.baseline
        test, splits = str(tuple(cfg.DATASETS.TEST)), str(tuple(cfg.DATASETS.SPLIT_FILES))
        data = ["DATASETS.TEST", test, "DATASETS.SPLIT_FILES", splits, "MODEL.DEVICE", cfg.MODEL.DEVICE]
        baseline = load_config(config_file, ["MODEL.WEIGHTS", weights, *data])
        refuse([f"--baseline {config_file}: {problem}" for problem in start_problems(baseline, PREDICTION)])
        configs = {"baseline": baseline, **configs}
    models = {title: Predictor(config, one_result=True) for title, config in configs.items()}
    written = draw_predictions(cfg.DATASETS.TEST[0], models, args.output, args.number, args.score_threshold, args.scale)
    print(f"{len(written) - 1} drawings and an overview: {written[-1]}")


if __name__ == "__main__":
    sys.exit(main())
