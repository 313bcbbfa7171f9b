"""New images of the mini data set, segmented and shown beside their ground truth: what the demo does by itself."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import Metadata

from PADing.class_space import ClassSpace
from PADing.data.mini import categories, draw_image
from PADing.errors import UserError
from PADing.files import write_json
from PADing.visualization.comparison import OVERVIEW, OVERVIEW_ROWS
from PADing.visualization.drawer import ImageDrawer
from PADing.visualization.image_files import SUFFIXES, write_overview, write_rgb
from PADing.visualization.panoptic import Segmentation, with_key

RECORD = "demo.json"  # marks a folder of this module
SIZE = 128  # side of the images in pixels, that of the training
STREAM = 4  # of random numbers; those of training and validation images are 2 and 3, so no seed repeats such an image
MATCHED = 0.5  # intersection over union above which a segment is found


def draw_examples(
    predict: Callable[[np.ndarray], Mapping], metadata: Metadata, output: Path, number: int, seed: int,
    threshold: float | None = None, tell: Callable[[str], object] = print,
) -> dict[str, Any]:  # fmt: skip
    """Draw new images, segment them, and write all to ``output``, with an overview and ``demo.json``.

    Args:
        predict: a :class:`PADing.inference.Predictor` of a model for the mini data set. metadata: of its classes.
        output: a new or empty folder, or one of an earlier call, whose files are replaced.
        number: of images. seed: of the drawing; no seed gives an image of the data set.
        threshold: see :class:`ImageDrawer`. tell: gets a line for each image.

    Returns:
        the content of ``demo.json`` without what it says of each image: ``segments``, how many were found.

    Raises:
        UserError: the model has other classes, or ``output`` has other files.
    """
    drawer, space = ImageDrawer(metadata, threshold), ClassSpace.of(metadata)
    check_folder(output)
    record: dict[str, Any] = {"seed": seed, "number": number}
    write_json(output / RECORD, record, indent=2)
    present, found = Counter[bool](), Counter[bool]()  # segments, by whether their class is unseen
    overview: list[np.ndarray] = []
    images = []
    for index in range(number):
        image, truth = draw_new(metadata, seed, index)
        prediction = drawer.read(predict(image))
        columns = drawer.draw_columns(image, [("ground truth", truth), ("prediction", prediction)], 0)
        beside = with_key(columns, prediction.complete)
        name = f"{index + 1}.png"
        write_rgb(output / "images" / name, image)
        write_rgb(output / "predictions" / name, drawer.draw(image, prediction))
        write_rgb(output / "comparisons" / name, beside)
        present.update(label in space.unseen for label in truth.classes.values())
        found.update(truth.classes[segment] in space.unseen for segment in found_segments(truth, prediction))
        images.append({"ground truth": drawer.describe(truth), "prediction": drawer.describe(prediction)})
        tell(f"image {index + 1}: {images[-1]['prediction']}\n  ground truth: {images[-1]['ground truth']}")
        overview += [beside] if len(overview) < OVERVIEW_ROWS else []
    write_overview(output / OVERVIEW, overview)
    kinds = {"seen": False, "unseen": True}
    record["segments"] = {kind: {"found": found[u], "present": present[u]} for kind, u in kinds.items()}
    write_json(output / RECORD, {**record, "images": images}, indent=2)
    return record


def check_folder(output: Path) -> None:
    """UserError unless ``output`` is new, empty, or of an earlier call of :func:`draw_examples`."""
    if not output.is_dir() and (output.exists() or output.suffix.lower() in SUFFIXES):
        raise UserError(f"--output {output} is the name of a file. Name a folder for drawn images.")
    if output.is_dir() and any(output.iterdir()) and not (output / RECORD).is_file():
        raise UserError(f"--output {output} has other files, which are not replaced. Name another folder.")


def found_segments(truth: Segmentation, prediction: Segmentation) -> set[int]:
    """Ids of the true segments that a predicted segment of the same class matches: the true positives of PQ."""

    def matches(segment: int, other: int) -> bool:
        mask, answer = truth.ids == segment, prediction.ids == other
        return truth.classes[segment] == prediction.classes[other] and _iou(mask, answer) > MATCHED

    return {segment for segment in truth.classes if any(matches(segment, other) for other in prediction.classes)}


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / max(1, (one | other).sum())


def draw_new(metadata: Metadata, seed: int, index: int = 0) -> tuple[np.ndarray, Segmentation]:
    """Draw a new image of the mini data set, which neither training nor validation images repeat.

    Args:
        metadata: of a model for this data set. seed, index: other numbers give other images.

    Returns:
        the image (H, W, 3) uint8 RGB with any of the classes, and its ground truth.

    Raises:
        UserError: the model has other classes.
    """
    contiguous = {name: index for index, name in ClassSpace.of(metadata).names.items()}
    if lacking := [category.name for category in categories() if category.name not in contiguous]:
        raise UserError(f"The model has no class {lacking[0]!r}, so it does not fit drawn images. Name other images.")
    things, stuff = ([c for c in categories() if c.isthing == kind] for kind in (True, False))
    image, segments = draw_image(np.random.default_rng([seed, STREAM, index]), SIZE, things, stuff)
    ids = np.zeros(image.shape[:2], dtype=np.int32)
    for number, (_, mask) in enumerate(segments, start=1):
        ids[mask] = number
    classes = {number: contiguous[category.name] for number, (category, _) in enumerate(segments, start=1)}
    grounds = {number for number, (category, _) in enumerate(segments, start=1) if not category.isthing}
    return image, Segmentation(ids, classes, stuff=grounds, complete=True)
