"""Results beside the ground truth: ``input | ground truth | results``, one drawing for each image of a data set."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from tqdm import tqdm

from PADing.class_space import ClassSpace
from PADing.data.coco_schema import check_detections, mask_problem
from PADing.data.images import max_pixels
from PADing.errors import UserError
from PADing.files import read_json
from PADing.output_names import output_names
from PADing.visualization.drawer import ImageDrawer
from PADing.visualization.image_files import keep_originals, read_rgb, write_overview, write_rgb
from PADing.visualization.panoptic import Segmentation, with_key
from PADing.visualization.sources import classes_in_record, from_detections, from_record

OVERVIEW, OVERVIEW_ROWS = "overview.png", 6
Predict = Callable[[np.ndarray], Mapping]
# A record and its image -> the columns beside the ground truth: titles and segmentations.
Columns = Callable[[dict, np.ndarray], Iterable[tuple[str, Segmentation]]]


def draw_predictions(
    name: str, models: Mapping[str, Predict], output: Path, number: int, threshold: float | None = None, scale: int = 0
) -> list[Path]:
    """Draw what models predict for images of the data set ``name``, those with unseen classes first.

    ``models`` is title of a column -> :class:`PADing.inference.Predictor`. Instances below ``threshold`` are not shown
    (None: below half of the image's best score). ``scale`` 0 enlarges small images to a side of about 400 pixels.
    Returns the files written to the folder ``output``; the last one is an overview of the first drawings.
    """
    drawer = ImageDrawer(MetadataCatalog.get(name), threshold)

    def columns(record: dict, image: np.ndarray) -> Iterator[tuple[str, Segmentation]]:
        return ((title, drawer.read(predict(image))) for title, predict in models.items())

    drawn = _compare(drawer, most_unseen_first(name), number, output, columns, scale)
    first = list(islice(drawn, OVERVIEW_ROWS))
    written = [path for path, _ in chain(first, drawn)] + [output / OVERVIEW]
    write_overview(written[-1], [drawing for _, drawing in first])
    return written


def most_unseen_first(name: str) -> list[dict]:
    """The records of a data set, those with the most unseen classes first; equal ones keep their order."""
    metadata = MetadataCatalog.get(name)
    unseen, ignore_label = ClassSpace.of(metadata).unseen, metadata.get("ignore_label", 255)
    records = tqdm(DatasetCatalog.get(name), desc="looking for unseen classes", mininterval=1)
    shown = [(len(unseen & classes_in_record(record, ignore_label)), record) for record in records]
    return [record for _, record in sorted(shown, key=lambda item: -item[0])]


def draw_detections(
    results: Path, name: str, output: Path, threshold: float | None = None, number: int = 0
) -> list[Path]:
    """Draw a file of detections in COCO's result format beside the annotation of the data set ``name``.

    ``threshold`` is the least score that is shown, ``number`` 0 draws all images, else as :func:`draw_predictions`.
    UserError: the file is missing, holds no detections with masks, or belongs to another data set.
    """
    detections = read_detections(results)
    metadata = MetadataCatalog.get(name)
    space = ClassSpace.of(metadata)
    contiguous = {space.dataset_ids[i]: i for i in space.things}
    if not contiguous:
        raise UserError(
            f"Data set {name!r} has no thing classes, so it has no instance results. Name an instance data set."
        )
    records = DatasetCatalog.get(name)
    strangers = {d["category_id"] for found in detections.values() for d in found} - set(contiguous)
    if strangers or not detections.keys() <= {record["image_id"] for record in records}:
        what = f"categories {sorted(strangers)[:5]}" if strangers else "images"
        raise UserError(f"Results {results} have {what} that data set {name!r} does not have. Is --dataset right?")

    def columns(record: dict, image: np.ndarray) -> Iterator[tuple[str, Segmentation]]:
        size, found = image.shape[:2], detections.get(record["image_id"], [])
        problem = next(filter(None, (mask_problem(d["segmentation"], *size) for d in found)), None)
        if problem:
            raise UserError(f"Results {results}, image {record['image_id']}: {problem}. Is --dataset right?")
        yield "detections", from_detections(found, contiguous, size, threshold)

    return [path for path, _ in _compare(ImageDrawer(metadata), records, number or None, output, columns)]


def read_detections(path: Path) -> dict[int, list[dict]]:
    """Image id -> detections with masks, from a file in COCO's result format; UserError if masks are missing."""
    content = read_json(path, "Results", list)
    check_detections(content, f"Results {path}")
    detections = defaultdict(list)
    for detection in content:
        if "segmentation" not in detection:
            raise UserError(
                f"Results {path} have entries without `segmentation`. Instance evaluation writes such a file: "
                "OUTPUT_DIR/inference/coco_instances_results.json."
            )
        detections[detection["image_id"]].append(detection)
    return dict(detections)


def _compare(
    drawer: ImageDrawer, records: Sequence[dict], number: int | None, output: Path, columns: Columns, scale: int = 0
) -> Iterator[tuple[Path, np.ndarray]]:
    """Write drawings of the first ``number`` records; yields each file and its drawing, (h, w, 3) uint8 RGB."""
    files = output_names((record["file_name"] for record in records), taken=[OVERVIEW])
    keep_originals(output, [output / name for name in (OVERVIEW, *files.values())], files)
    for record in tqdm(records[:number], desc="drawing", mininterval=1):
        image = read_rgb(record["file_name"])
        if scale**2 * image.shape[0] * image.shape[1] > max_pixels():
            raise UserError(
                f"--scale {scale} makes {record['file_name']} larger than the limit for images. Use a smaller factor."
            )
        shown = [("ground truth", from_record(record, drawer.ignore_label)), *columns(record, image)]
        drawing = with_key(drawer.draw_columns(image, shown, scale), any(seg.complete for _, seg in shown))
        path = output / files[record["file_name"]]
        write_rgb(path, drawing)
        yield path, drawing
