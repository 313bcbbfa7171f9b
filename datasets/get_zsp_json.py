#!/usr/bin/env python3
"""Zero-shot panoptic annotation: split COCO's panoptic JSONs by whether an image shows unseen classes.

    python datasets/get_zsp_json.py

From ``annotations/panoptic_{train,val}2017.json`` it writes to ``annotations/ZSP/``, for both:

    panoptic_*_seen.json     images without any segment of an unseen class (crowd segments count)
    panoptic_*_unseen.json   images with at least one such segment; all their segments are kept
    panoptic_*_all.json      all images; each category has `"split": "seen"` or `"unseen"`

All three have the complete list of categories. The split file names the unseen classes.
"""

if __name__ == "__main__":
    from PADing.command_line import quiet_ctrl_c

    quiet_ctrl_c()  # before the imports that take seconds

import logging
import os
import sys
from pathlib import Path

from tqdm import tqdm

from PADing.command_line import CommandParser, run_command
from PADing.data.images import empty_segments, present_ids, read_panoptic_ids
from PADing.data.preparation import read_annotation
from PADing.data.splits import Split, dataset_root, load_split
from PADing.errors import UserError
from PADing.files import write_json

logger = logging.getLogger("get_zsp_json")

SPLIT_FILE = str(Path(__file__).resolve().parent / "splits" / "coco_panoptic_119_14.yaml")
PARTS = ("train2017", "val2017")


def split_panoptic(content: dict, split: Split) -> dict[str, dict]:
    """The `seen`, `unseen` and `all` contents of one panoptic JSON, see the module.

    UserError: an unseen class or the image of an annotation is missing in the JSON.
    """
    ids = {category["name"]: category["id"] for category in content["categories"]}
    missing = [name for name in split.unseen if name not in ids]
    if missing:
        raise UserError(f"The annotation has no category called {', '.join(missing)}, unseen in {split.file}.")
    unseen_ids = {ids[name] for name in split.unseen}
    images = {image["id"]: image for image in content.get("images", ())}
    annotations: dict[str, list] = {"seen": [], "unseen": []}
    for annotation in content["annotations"]:
        if annotation["image_id"] not in images:
            raise UserError(f"Annotation of image {annotation['image_id']} has no entry in `images`.")
        shows_unseen = any(segment["category_id"] in unseen_ids for segment in annotation["segments_info"])
        annotations["unseen" if shows_unseen else "seen"].append(annotation)

    result = {
        part: {**content, "images": [images[a["image_id"]] for a in chosen], "annotations": chosen}
        for part, chosen in annotations.items()
    }
    marked = [{**c, "split": "unseen" if c["id"] in unseen_ids else "seen"} for c in content["categories"]]
    return {**result, "all": {**content, "categories": marked}}


def prepare(annotation_dir: str, save_dir: str, split: Split, parts=PARTS, force: bool = False) -> None:
    """Write the three files of every part; existing ones are kept.

    UserError: a missing or broken input, or an output that does not pass the check at the end.
    """
    for part in tqdm(parts, desc="panoptic annotation", unit="file"):
        outputs = {kind: os.path.join(save_dir, f"panoptic_{part}_{kind}.json") for kind in ("seen", "unseen", "all")}
        if force or not all(map(os.path.exists, outputs.values())):
            source = os.path.join(annotation_dir, f"panoptic_{part}.json")
            for kind, content in split_panoptic(read_annotation(source, "Panoptic annotation"), split).items():
                write_json(outputs[kind], content)
        written = {kind: read_annotation(path, "Written annotation") for kind, path in outputs.items()}
        again = split_panoptic(written["all"], split)
        wrong = [path for kind, path in outputs.items() if _images(again[kind]) != _images(written[kind])]
        if wrong or again["all"]["categories"] != written["all"]["categories"]:
            path = (wrong or [outputs["all"]])[0]
            raise UserError(
                f"{path} was made for other unseen classes or from other annotation. Make it again with --force."
            )
        folder = os.path.join(os.path.dirname(os.path.abspath(annotation_dir)), f"panoptic_{part}")
        _check_first_png(outputs["all"], written["all"]["annotations"], folder)
        for kind, content in written.items():
            logger.info("%s: %d images", os.path.basename(outputs[kind]), len(content["annotations"]))


def _images(content: dict) -> set:
    return {annotation["image_id"] for annotation in content["annotations"]}


def _check_first_png(annotation: str, annotations: list[dict], folder: str) -> None:
    """Check that the first PNG has exactly the segments of its annotation."""
    if not os.path.isdir(folder):
        logger.warning("%s does not exist yet. Unpack the panoptic PNGs there.", folder)
        return
    if not annotations:
        raise UserError(f"{annotation} has no annotation. Is its source complete?")
    first = annotations[0]
    path = os.path.join(folder, first["file_name"])
    ids = read_panoptic_ids(path)
    if not present_ids(ids) <= {0, *(segment["id"] for segment in first["segments_info"])}:
        raise UserError(f"{path} has other segment ids than its annotation in {annotation}. Download both again.")
    empty_segments(ids, first["segments_info"], path)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    annotations = os.path.join(dataset_root(), "coco", "annotations")
    parser = CommandParser(__doc__)
    parser.add_argument("--save_dir", default=os.path.join(annotations, "ZSP"), help="folder to write to")
    parser.add_argument("--annotation_dir", default=annotations, help="folder of COCO's panoptic JSONs")
    parser.add_argument("--split-file", default=SPLIT_FILE, help="split file that names the unseen classes")
    parser.add_argument("--parts", nargs="+", default=PARTS, help="parts of COCO (default: train2017 val2017)")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return run_command(
        lambda: prepare(args.annotation_dir, args.save_dir, load_split(args.split_file), args.parts, args.force)
    )


if __name__ == "__main__":
    sys.exit(main())
