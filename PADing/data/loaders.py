"""Loads annotation files as lists of dicts in Detectron2's standard format. Images are not read here.

Categories are matched by id, so the order of a JSON's ``categories`` list does not matter. An instance or panoptic
training set of seen classes leaves out every image that shows an unseen class, as the zero-shot protocols require.
Files from the preparation scripts have no such image.
"""

import logging
import os
from collections import defaultdict
from collections.abc import Callable

import pycocotools.mask as mask_util

from PADing.data.coco_schema import check_instances, check_panoptic, usable
from PADing.data.splits import NEEDED_PATHS, DataSet, Split
from PADing.errors import UserError
from PADing.files import read_json

logger = logging.getLogger(__name__)

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


# Pages that describe the folders of data.
OWN_PAGES = "docs/coco.md and docs/your_data.md"


def load_data_set(split: Split, data_set: DataSet, root: str | None = None) -> list[dict]:
    """Load one data set of a split, sorted by image id (semantic: by path); UserError for missing or wrong files."""
    if problem := missing_data(split, data_set):
        raise UserError(problem)
    load = {"instance": _load_instances, "panoptic": _load_panoptic, "semantic": _load_semantic}[data_set.kind]
    records = load(split, data_set, split.metadata(data_set, root))
    if not records:
        raise UserError(f"Data set {data_set.name} has no image. Its paths are {data_set.paths()}.")
    if data_set.images and len(records) not in data_set.images:
        release = " or ".join(f"{number:,}" for number in data_set.images)
        text = "Data set %s has %d images, but the release has %s, so metrics are not comparable with published ones."
        logger.warning(text, data_set.name, len(records), release)
    return records


def missing_data(split: Split, data_set: DataSet) -> str:
    """The message for a data set that has classes alone, because it came with a shared model; "" for others."""
    if data_set.paths():
        return ""
    cure = "Name data of the same classes, such as those that the model's README.md names: DATASETS.TEST NAME"
    return (
        f"Data set {data_set.name} has no images: it is the list of classes of a shared model ({split.file}). {cure} "
        "(of your own: with DATASETS.SPLIT_FILES)."
    )


def _load_instances(split: Split, data_set: DataSet, metadata: dict) -> list[dict]:
    """COCO instances: dicts with ``file_name, height, width, image_id, annotations``.

    An annotation has ``iscrowd``, ``bbox`` and ``bbox_mode`` (XYWH_ABS), a contiguous ``category_id``, and a
    ``segmentation``: polygons or compressed RLE. Polygons with fewer than three points or an odd length are dropped; an
    annotation without a valid polygon is left out.
    """
    content, where = _read_annotation(split, data_set, metadata, "json_file", check_instances)
    contiguous, hidden = split.class_space(data_set).contiguous_ids, _hidden_ids(split, data_set)
    annotations = defaultdict(list)
    dropped_images, out_of_lists = set(), 0
    for annotation in content["annotations"]:
        category_id = annotation["category_id"]
        if category_id in contiguous:
            annotations[annotation["image_id"]].append(annotation)
        elif category_id in hidden:
            dropped_images.add(annotation["image_id"])
        else:
            out_of_lists += 1
    unlisted = annotations.keys() - {image["id"] for image in content["images"]}
    if unlisted:
        images = f"{len(unlisted)} images that `images` does not list, e.g. {min(unlisted, key=str)}"
        raise UserError(f"{where}: annotations belong to {images}.")
    from detectron2.structures import BoxMode  # imports PyTorch

    box_mode = BoxMode.XYWH_ABS
    records, bad_polygons = [], 0
    for image in sorted(content["images"], key=lambda image: image["id"]):
        if image["id"] in dropped_images:
            continue
        entries = [_instance(annotation, contiguous, box_mode) for annotation in annotations.get(image["id"], ())]
        objects = [entry for entry in entries if entry is not None]
        bad_polygons += len(entries) - len(objects)
        path = os.path.join(metadata["image_root"], image["file_name"])
        size = {"height": image["height"], "width": image["width"]}
        records.append({"file_name": path, **size, "image_id": image["id"], "annotations": objects})
    _log_dropped(data_set, dropped_images, out_of_lists)
    if bad_polygons:
        logger.warning("%s: %d annotations without a valid polygon are left out.", where, bad_polygons)
    return records


def _instance(annotation: dict, contiguous: dict[int, int], box_mode: int) -> dict | None:
    entry = {
        "iscrowd": int(annotation.get("iscrowd", 0)),
        "bbox": annotation["bbox"],
        "bbox_mode": box_mode,
        "category_id": contiguous[annotation["category_id"]],
    }
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict) and isinstance(segmentation["counts"], list):
        segmentation = mask_util.frPyObjects(segmentation, *segmentation["size"])
    elif isinstance(segmentation, list):
        segmentation = list(filter(usable, segmentation))
        if not segmentation:
            return None
    if segmentation is not None:
        entry["segmentation"] = segmentation
    return entry


def _load_panoptic(split: Split, data_set: DataSet, metadata: dict) -> list[dict]:
    """COCO panoptic: dicts with ``file_name, image_id, pan_seg_file_name, segments_info`` (and ``sem_seg_file_name``).

    An entry of ``segments_info`` has the file's fields, with a contiguous ``category_id`` and ``isthing``. Segments of
    classes that the split does not use are left out; ``other_segment_ids`` has their ids.
    """
    content, _ = _read_annotation(split, data_set, metadata, "panoptic_json", check_panoptic)
    space, hidden = split.class_space(data_set), _hidden_ids(split, data_set)
    contiguous = space.contiguous_ids
    images = {image["id"]: image for image in content.get("images", ())}
    records, dropped_images, out_of_lists = [], set(), 0
    for annotation in sorted(content["annotations"], key=lambda annotation: annotation["image_id"]):
        image_id, stem = annotation["image_id"], os.path.splitext(annotation["file_name"])[0]
        segments, others = [], []
        for segment in annotation["segments_info"]:
            category_id = segment["category_id"]
            if category_id in hidden:
                dropped_images.add(image_id)
            elif category_id in contiguous:
                label = contiguous[category_id]
                segments.append({**segment, "category_id": label, "isthing": label in space.things})
            else:
                others.append(segment["id"])
        out_of_lists += len(others)
        if image_id in dropped_images:
            continue
        image = images.get(image_id, {"file_name": f"{stem}.jpg"})
        entry = {
            "file_name": os.path.join(metadata["image_root"], image["file_name"]),
            "image_id": image_id,
            "pan_seg_file_name": os.path.join(metadata["panoptic_root"], annotation["file_name"]),
            "segments_info": segments,
            **{key: image[key] for key in ("height", "width") if key in image},
        }
        if others:
            entry["other_segment_ids"] = others
        if "sem_seg_root" in metadata:
            entry["sem_seg_file_name"] = os.path.join(metadata["sem_seg_root"], f"{stem}.png")
        records.append(entry)
    _log_dropped(data_set, dropped_images, out_of_lists)
    for key in ("file_name", "pan_seg_file_name", "sem_seg_file_name"):
        if records and key in records[0] and not os.path.isfile(records[0][key]):
            raise _missing(data_set, records[0][key])
    return records


def _load_semantic(split: Split, data_set: DataSet, metadata: dict) -> list[dict]:
    """Images and label PNGs with the same path below their roots: dicts with ``file_name, sem_seg_file_name``.

    Pixel values are contiguous ids; 255 is ignored. Files without a partner are left out, with a message in the log.
    """
    image_root, label_root = metadata["image_root"], metadata["sem_seg_root"]
    _check_folders(data_set, metadata)
    labels = _files_by_stem(label_root, (".png",))
    together = os.path.realpath(image_root) == os.path.realpath(label_root)
    images = _files_by_stem(image_root, tuple(e for e in IMAGE_EXTENSIONS if not (together and e == ".png")))
    if not labels:
        raise _missing(data_set, os.path.join(label_root, "*.png"))
    both = sorted(images.keys() & labels.keys())
    if not both:
        roots = f"no label file in {label_root} has the name of an image in {image_root}"
        raise UserError(f"Data set {data_set.name}: {roots} (e.g. {min(labels)}.png).")
    if len(both) < len(labels):
        text = "Data set %s: %d label files in %s have no image in %s and are left out."
        logger.warning(text, data_set.name, len(labels) - len(both), label_root, image_root)
    if len(both) < len(images):
        logger.info("Data set %s: %d of %d images have a label file.", data_set.name, len(both), len(images))
    return [{"file_name": images[stem], "sem_seg_file_name": labels[stem]} for stem in both]


def _files_by_stem(root: str, extensions: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for folder, _, names in os.walk(root, followlinks=True):
        below = os.path.relpath(folder, root)
        for name in names:
            stem, extension = os.path.splitext(name)
            # Hidden files are unfinished, or macOS metadata.
            if extension.lower() in extensions and not name.startswith("."):
                found[stem if below == "." else os.path.join(below, stem)] = os.path.join(folder, name)
    return found


def _read_annotation(
    split: Split, data_set: DataSet, metadata: dict, key: str, check: Callable[[dict, str], None]
) -> tuple[dict, str]:
    """The checked content of the JSON that the metadata name under ``key``, and the file's name for messages."""
    path = metadata[key]
    if not os.path.isfile(path):
        raise _missing(data_set, path)
    content, where = read_json(path, f"Data set {data_set.name}"), f"Data set {data_set.name}, file {path}"
    check(content, where)
    _check_folders(data_set, metadata)
    _check_categories(split, content, where)
    return content, where


def _hidden_ids(split: Split, data_set: DataSet) -> set[int]:
    """Annotation ids of unseen classes, whose images are left out of a training set of seen classes."""
    if data_set.role != "train" or data_set.subset != "seen":
        return set()
    return {category.id for category in split.categories if category.name in split.unseen}


def missing_message(name: str, made_by: str, *paths: str, pages: str = OWN_PAGES) -> str:
    """The message for ``paths`` of a data set that do not exist; ``made_by``: the command that makes them, or ""."""
    maker = f"Make the annotation with: {made_by}. " if made_by else ""
    return (
        f"Data set {name}: {', '.join(paths)} {'do' if len(paths) > 1 else 'does'} not exist. {maker}Paths are "
        f"relative to $DETECTRON2_DATASETS (default `datasets`). {pages} describe{'s' if ' and ' not in pages else ''} "
        "the folders, and `python -m PADing.data.verify` checks them."
    )


def _missing(data_set: DataSet, path: str) -> UserError:
    return UserError(missing_message(data_set.name, data_set.made_by, path))


def _check_folders(data_set: DataSet, metadata: dict) -> None:
    optional = ("sem_seg_root",) if data_set.kind == "panoptic" else ()
    for key in (*NEEDED_PATHS[data_set.kind], *optional):
        if key.endswith("_root") and key in metadata and not os.path.isdir(metadata[key]):
            raise _missing(data_set, metadata[key])


def _check_categories(split: Split, content: dict, where: str) -> None:
    """UserError unless all categories of the file and of its annotations are the split's, by id and name."""
    names = {category.id: category.name for category in split.categories}
    for category in content["categories"]:
        number, name = category["id"], category["name"]
        if number not in names:
            raise UserError(f"{where}: category {number} ({name!r}) is not among those of {split.file}.")
        if name != names[number]:
            raise UserError(f"{where}: category {number} is called {name!r}, but {names[number]!r} in {split.file}.")
    for annotation in content["annotations"]:
        for part in annotation.get("segments_info", (annotation,)):
            if part["category_id"] not in names:
                found = f"{annotation.get('id', annotation.get('image_id'))} has category {part['category_id']}"
                raise UserError(f"{where}: annotation {found}, which is not among the categories of {split.file}.")


def _log_dropped(data_set: DataSet, images: set, annotations: int) -> None:
    if images:
        logger.info("Data set %s: %d images that show unseen classes are left out.", data_set.name, len(images))
    if annotations:
        logger.info("Data set %s: %d annotations of classes it does not use are left out.", data_set.name, annotations)
