#!/usr/bin/env python3
"""Look at a file of instance results: input | ground truth | detections, unseen classes outlined in magenta.

    python tools/visualize_json_results.py --input output/inference/coco_instances_results.json \\
        --dataset coco_zsi_48_17_val --output drawings --conf-threshold 0.5
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from tqdm import tqdm

import PADing  # noqa: F401  registers the shipped data sets
from PADing.command_line import count, fraction, run_command
from PADing.data.coco_schema import check_detections, mask_problem
from PADing.data.registration import register_split_files
from PADing.errors import UserError
from PADing.files import read_json
from PADing.output_names import output_names
from PADing.visualization import class_names, from_detections, from_record, panel, read_rgb, unseen_ids, write_rgb
from PADing.visualization.panoptic import display_scale


def read_detections(path: Path) -> dict[int, list[dict]]:
    """Image id -> detections, from a file in COCO's result format.

    Raises:
        UserError: the file does not exist, or is not a list of detections with masks.
    """
    content = read_json(path, "Results", list)
    check_detections(content, f"Results {path}")
    if not all("segmentation" in detection for detection in content):
        raise UserError(
            f"Results {path} have entries without `segmentation`. Instance evaluation writes such a file: "
            "OUTPUT_DIR/inference/coco_instances_results.json."
        )
    by_image = defaultdict(list)
    for detection in content:
        by_image[detection["image_id"]].append(detection)
    return dict(by_image)


def draw(results: Path, name: str, output: Path, threshold: float | None, number: int = 0) -> list[Path]:
    """Draw detections beside the annotations of the data set ``name``; returns the files written.

    Args:
        threshold: detections below this score are not shown; None: below half of the image's best score.
        number: images to draw; 0: all of the data set.

    Raises:
        UserError: the results are no results, or they belong to another data set.
    """
    detections, metadata = read_detections(results), MetadataCatalog.get(name)
    contiguous = metadata.get("thing_dataset_id_to_contiguous_id")
    if not contiguous:
        raise UserError(f"Data set {name!r} has no things, so it has no instance results. Name an instance data set.")
    records = DatasetCatalog.get(name)
    strangers = {d["category_id"] for found in detections.values() for d in found} - set(contiguous)
    if strangers or not detections.keys() <= {record["image_id"] for record in records}:
        what = f"categories {sorted(strangers)[:5]}" if strangers else "images"
        raise UserError(f"Results {results} have {what} that data set {name!r} has not. Is it the right --dataset?")
    names, unseen, written = class_names(metadata), unseen_ids(metadata), []
    files = output_names(record["file_name"] for record in records)
    for record in tqdm(records[: number or None], desc="drawing", mininterval=1):
        image = read_rgb(record["file_name"])
        size = image.shape[:2]
        own = detections.get(record["image_id"], ())
        problem = next(filter(None, (mask_problem(d["segmentation"], *size) for d in own)), None)
        if problem:
            raise UserError(f"Results {results}, image {record['image_id']}: {problem}. Is it the right --dataset?")
        found = from_detections(own, contiguous, size, threshold)
        columns = [("ground truth", from_record(record)), ("detections", found)]
        written.append(output / files[record["file_name"]])
        write_rgb(written[-1], panel(image, columns, names, unseen, display_scale(*size)))
    return written


def check_name(name: str, split_files: Sequence[str]) -> None:
    """Register split files and see that ``name`` is a data set; UserError with near matches when it is none."""
    register_split_files(split_files)
    if name not in DatasetCatalog.list():
        near = get_close_matches(name, DatasetCatalog.list(), n=3)
        hint = f" (did you mean {', '.join(near)}?)" if near else ""
        raise UserError(f"Data set {name!r} is not registered{hint}. Register your own with --split-file.")


def main(args: argparse.Namespace) -> None:
    check_name(args.dataset, args.split_file)
    written = draw(args.input, args.dataset, args.output, args.conf_threshold, args.number)
    print(f"{len(written)} drawings: {args.output}")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, metavar="JSON", help="file in COCO's result format")
    parser.add_argument("--output", type=Path, required=True, help="folder for the drawings")
    parser.add_argument("--dataset", required=True, help="name of the data set that was evaluated")
    parser.add_argument(
        "--conf-threshold", type=fraction, help="least score to show (default: half of the image's best score)"
    )
    parser.add_argument("--number", type=count, default=0, help="images to draw (0: all)")
    parser.add_argument("--split-file", nargs="+", default=[], metavar="FILE", help="split files of your own data")
    return parser


if __name__ == "__main__":
    sys.exit(run_command(main, make_parser().parse_args()))
