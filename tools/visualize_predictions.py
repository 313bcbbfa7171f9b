#!/usr/bin/env python3
"""Look at results: input | ground truth | (baseline |) prediction, unseen classes outlined in magenta.

    python tools/visualize_predictions.py --config-file configs/mini/panoptic-PADing.yaml --num-gpus 0 \\
        --output output/pictures --number 12 MODEL.WEIGHTS output/mini_panoptic_PADing/model_final.pth

Works for every architecture and task: it draws what the model returns (panoptic, else instances, else semantic).
Images with unseen classes in the ground truth come first.
"""

import argparse
import sys
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils.logger import setup_logger
from tqdm import tqdm

from PADing.command_line import add_config_options, count, fraction, positive, run_command
from PADing.config import load_config
from PADing.config_values import as_one_message
from PADing.engine.main import prepare
from PADing.engine.start_check import PREDICTION, start_problems
from PADing.errors import UserError
from PADing.output_names import output_names
from PADing.visualization import class_names, from_output, from_record, panel, read_rgb, unseen_ids, write_rgb
from PADing.visualization.files import write_overview
from PADing.visualization.panoptic import display_scale
from PADing.visualization.sources import classes_in_record

OVERVIEW, OVERVIEW_ROWS = "overview.png", 6


def draw(
    cfg, output: Path, number: int, baseline=None, score_threshold: float | None = None, scale: int = 0
) -> list[Path]:
    """Draw ``number`` images of ``DATASETS.TEST[0]`` into ``output``, and ``overview.png`` with the first ones.

    Args:
        cfg: config of the model. baseline: config of a second model to show beside it.
        score_threshold: instances below it are not shown; None: below half of the image's best score.
        scale: enlargement; 0 chooses one that gives small images a side of about 400 pixels.

    Returns:
        the files written, overview last.
    """
    from PADing.inference import Predictor

    models = {"prediction": Predictor(cfg, one_result=True)}
    if baseline is not None:
        models = {"baseline": Predictor(baseline, one_result=True), **models}
    metadata = models["prediction"].metadata
    names, unseen, ignore = class_names(metadata), unseen_ids(metadata), metadata.get("ignore_label", 255)
    written, rows = [], []
    records = most_unseen_first(cfg.DATASETS.TEST[0])
    files = output_names((record["file_name"] for record in records), taken=[OVERVIEW])
    for record in tqdm(records[:number], desc="drawing", mininterval=1):
        image = read_rgb(record["file_name"])
        columns = [("ground truth", from_record(record, ignore))]
        for title, predictor in models.items():
            columns.append((title, from_output(predictor(image), ignore, score_threshold)))
        row = panel(image, columns, names, unseen, scale or display_scale(*image.shape[:2]))
        written.append(output / files[record["file_name"]])
        write_rgb(written[-1], row)
        rows += [row] if len(rows) < OVERVIEW_ROWS else []
    written.append(output / OVERVIEW)
    write_overview(written[-1], rows)
    return written


def most_unseen_first(name: str) -> list[dict]:
    """The records of a data set: those that show many unseen classes first, otherwise in its own order."""
    metadata = MetadataCatalog.get(name)
    unseen, ignore = unseen_ids(metadata), metadata.get("ignore_label", 255)
    records = tqdm(DatasetCatalog.get(name), desc="looking for unseen classes", mininterval=1)
    shown = [(len(unseen & classes_in_record(record, ignore)), record) for record in records]
    return [record for _, record in sorted(shown, key=lambda item: -item[0])]


def main(args: argparse.Namespace) -> None:
    cfg = prepare(args, PREDICTION | {"test data"})
    baseline = None
    if args.baseline:
        config_file, weights = args.baseline
        test, splits = str(tuple(cfg.DATASETS.TEST)), str(tuple(cfg.DATASETS.SPLIT_FILES))
        data = ["DATASETS.TEST", test, "DATASETS.SPLIT_FILES", splits, "MODEL.DEVICE", cfg.MODEL.DEVICE]
        baseline = load_config(config_file, ["MODEL.WEIGHTS", weights, *data])
        problems = start_problems(baseline, PREDICTION)
        if problems:
            raise UserError(f"--baseline {config_file}: {as_one_message(problems)}")
    written = draw(cfg, args.output, args.number, baseline, args.score_threshold, args.scale)
    print(f"{len(written) - 1} drawings and an overview: {written[-1]}")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_options(parser)
    parser.add_argument("--baseline", nargs=2, metavar=("CONFIG", "WEIGHTS"), help="a second model to show beside it")
    parser.add_argument("--output", type=Path, required=True, help="folder for the drawings")
    parser.add_argument("--number", type=positive, default=12, help="images to draw (%(default)s)")
    parser.add_argument(
        "--score-threshold",
        type=fraction,
        help="of instances that are shown, 0 to 1 (default: half of the image's best score)",
    )
    parser.add_argument("--scale", type=count, default=0, help="enlargement of the images (0: chosen by their size)")
    return parser


if __name__ == "__main__":
    arguments = make_parser().parse_args()
    setup_logger(name="fvcore")
    sys.exit(run_command(main, arguments))
