"""Annotation files -> lists of dicts in Detectron2's standard format. No image is read here.

Categories are matched by id, so the order of a JSON's ``categories`` list plays no part. A training set of seen classes
never shows an unseen one, even when its file does: whole images are left out (instance, panoptic), as the zero-shot
protocols ask. For files that were prepared accordingly this changes nothing.
"""

import logging
import os
from collections import defaultdict

import pycocotools.mask as mask_util
from detectron2.structures import BoxMode

from PADing.data.coco_schema import check_instances, check_panoptic, usable
from PADing.data.splits import DataSet, Split
from PADing.errors import UserError
from PADing.files import read_json

__all__ = ["IMAGE_EXTENSIONS", "load_data_set", "load_instances", "load_panoptic", "load_semantic", "missing_message"]

logger = logging.getLogger(__name__)

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def load_data_set(split: Split, data_set: DataSet, root: str | None = None) -> list[dict]:
    """Load one data set of a split; the list is sorted by image id (semantic: by file name).

    Raises:
        UserError: a missing file or folder, or an annotation of another structure or that contradicts the split file.
    """
    load = {"instance": load_instances, "panoptic": load_panoptic, "semantic": load_semantic}[data_set.kind]
    dicts = load(split, data_set, split.metadata(data_set, root))
    if not dicts:
        raise UserError(f"Data set {data_set.name} has no image. Its paths are {data_set.paths()}.")
    return dicts


def load_instances(split: Split, data_set: DataSet, metadata: dict) -> list[dict]:
    """COCO instances: dicts with ``file_name, height, width, image_id, annotations``.

    An annotation has ``iscrowd``, ``bbox`` and ``bbox_mode`` (XYWH_ABS), contiguous ``category_id``, and
    ``segmentation``: polygons (those with fewer than three points or an odd length are dropped, and the annotation with
    its last one) or compressed RLE.
    """
    where = f"Data set {data_set.name}, file {metadata['json_file']}"
    content = _read_annotation(data_set, metadata["json_file"])
    check_instances(content, where)
    _check_folder(data_set, metadata, "image_root")
    _check_categories(split, content, where)
    contiguous = metadata["thing_dataset_id_to_contiguous_id"]
    unseen_ids = _unseen_ids(split)
    drop_unseen_images = data_set.role == "train" and data_set.subset == "seen"

    annotations = defaultdict(list)
    dropped_images, out_of_lists = set(), 0
    for annotation in content["annotations"]:
        category_id = annotation["category_id"]
        if category_id in contiguous:
            annotations[annotation["image_id"]].append(annotation)
        elif drop_unseen_images and category_id in unseen_ids:
            dropped_images.add(annotation["image_id"])
        else:
            out_of_lists += 1

    unlisted = annotations.keys() - {image["id"] for image in content["images"]}
    if unlisted:
        raise UserError(
            f"{where}: annotations belong to {len(unlisted)} images that `images` does not list, e.g. "
            f"{min(unlisted, key=str)}."
        )
    dicts, bad_polygons = [], 0
    for image in sorted(content["images"], key=lambda image: image["id"]):
        if image["id"] in dropped_images:
            continue
        objects = []
        for annotation in annotations.get(image["id"], ()):
            entry = _instance(annotation, contiguous)
            if entry is None:
                bad_polygons += 1
            else:
                objects.append(entry)
        dicts.append(
            {
                "file_name": os.path.join(metadata["image_root"], image["file_name"]),
                "height": image["height"],
                "width": image["width"],
                "image_id": image["id"],
                "annotations": objects,
            }
        )
    _log_dropped(data_set, dropped_images, out_of_lists)
    if bad_polygons:
        logger.warning("%s: %d annotations without a valid polygon are left out.", where, bad_polygons)
    return dicts


def _instance(annotation: dict, contiguous: dict[int, int]) -> dict | None:
    entry = {
        "iscrowd": int(annotation.get("iscrowd", 0)),
        "bbox": annotation["bbox"],
        "bbox_mode": BoxMode.XYWH_ABS,
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


def load_panoptic(split: Split, data_set: DataSet, metadata: dict) -> list[dict]:
    """COCO panoptic: dicts with ``file_name, image_id, pan_seg_file_name, segments_info`` (and ``sem_seg_file_name``).

    ``segments_info`` entries have contiguous ``category_id`` and ``isthing`` beside the file's own fields. Segments of
    classes that the split does not use are left out; their ids are kept as ``other_segment_ids``.
    """
    where = f"Data set {data_set.name}, file {metadata['panoptic_json']}"
    content = _read_annotation(data_set, metadata["panoptic_json"])
    check_panoptic(content, where)
    for key in ("image_root", "panoptic_root", "sem_seg_root"):
        _check_folder(data_set, metadata, key)
    _check_categories(split, content, where)
    contiguous = metadata["stuff_dataset_id_to_contiguous_id"]
    things = metadata["thing_dataset_id_to_contiguous_id"]
    unseen_ids = _unseen_ids(split)
    drop_unseen_images = data_set.role == "train" and data_set.subset == "seen"

    images = {image["id"]: image for image in content.get("images", ())}
    dicts, dropped_images, out_of_lists = [], set(), 0
    for annotation in sorted(content["annotations"], key=lambda annotation: annotation["image_id"]):
        image_id = annotation["image_id"]
        segments, others = [], []
        for segment in annotation["segments_info"]:
            category_id = segment["category_id"]
            if drop_unseen_images and category_id in unseen_ids:
                dropped_images.add(image_id)
            elif category_id in contiguous:
                segments.append({**segment, "category_id": contiguous[category_id], "isthing": category_id in things})
            else:
                others.append(segment["id"])
        out_of_lists += len(others)
        if image_id in dropped_images:
            continue
        if image_id in images:
            image_file = images[image_id]["file_name"]
        else:
            image_file = os.path.splitext(annotation["file_name"])[0] + ".jpg"
        entry = {
            "file_name": os.path.join(metadata["image_root"], image_file),
            "image_id": image_id,
            "pan_seg_file_name": os.path.join(metadata["panoptic_root"], annotation["file_name"]),
            "segments_info": segments,
        }
        if others:
            entry["other_segment_ids"] = others
        for key in ("height", "width"):
            if key in images.get(image_id, ()):
                entry[key] = images[image_id][key]
        if "sem_seg_root" in metadata:
            label_file = os.path.splitext(annotation["file_name"])[0] + ".png"
            entry["sem_seg_file_name"] = os.path.join(metadata["sem_seg_root"], label_file)
        dicts.append(entry)
    _log_dropped(data_set, dropped_images, out_of_lists)
    for key in ("file_name", "pan_seg_file_name", "sem_seg_file_name"):
        if dicts and key in dicts[0] and not os.path.isfile(dicts[0][key]):
            raise _missing(data_set, dicts[0][key])
    return dicts


def load_semantic(split: Split, data_set: DataSet, metadata: dict) -> list[dict]:
    """Pairs of image and label PNG with the same path below their roots: dicts with ``file_name, sem_seg_file_name``.

    Pixel values are contiguous ids, 255 is ignored. Files without a partner are left out, with a warning.
    """
    image_root, label_root = metadata["image_root"], metadata["sem_seg_root"]
    for key in ("image_root", "sem_seg_root"):
        _check_folder(data_set, metadata, key)
    labels = _files_by_stem(label_root, (".png",))
    images = _files_by_stem(image_root, IMAGE_EXTENSIONS)
    if os.path.realpath(image_root) == os.path.realpath(label_root):
        images = _files_by_stem(image_root, tuple(e for e in IMAGE_EXTENSIONS if e != ".png"))
    if not labels:
        raise _missing(data_set, os.path.join(label_root, "*.png"))
    both = sorted(images.keys() & labels.keys())
    if not both:
        raise UserError(
            f"Data set {data_set.name}: no label in {label_root} has the name of an image in {image_root} "
            f"(e.g. {min(labels)}.png)."
        )
    if len(both) < len(labels):
        logger.warning(
            "Data set %s: %d label files in %s have no image in %s and are left out.",
            data_set.name,
            len(labels) - len(both),
            label_root,
            image_root,
        )
    if len(both) < len(images):
        logger.info("Data set %s: %d of %d images have a label file.", data_set.name, len(both), len(images))
    return [{"file_name": images[stem], "sem_seg_file_name": labels[stem]} for stem in both]


def _files_by_stem(root: str, extensions: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for folder, _, names in os.walk(root, followlinks=True):
        below = os.path.relpath(folder, root)
        for name in names:
            stem, extension = os.path.splitext(name)
            # Hidden files are unfinished ones, or what macOS leaves behind.
            if extension.lower() in extensions and not name.startswith("."):
                found[stem if below == "." else os.path.join(below, stem)] = os.path.join(folder, name)
    return found


def _read_annotation(data_set: DataSet, path: str) -> dict:
    if not os.path.isfile(path):
        raise _missing(data_set, path)
    return read_json(path, f"Data set {data_set.name}")


def missing_message(name: str, made_by: str, *paths: str) -> str:
    """What to say of paths of a data set that do not exist; ``made_by`` is of the split file, or empty."""
    maker = f"The annotation is made by: {made_by}. " if made_by else ""
    return (
        f"Data set {name}: {', '.join(paths)} {'do' if len(paths) > 1 else 'does'} not exist. {maker}Paths are "
        "relative to $DETECTRON2_DATASETS (default `datasets`); datasets/README.md describes the tree, `python -m "
        "PADing.data.verify` checks it."
    )


def _missing(data_set: DataSet, path: str) -> UserError:
    return UserError(missing_message(data_set.name, data_set.made_by, path))


def _check_folder(data_set: DataSet, metadata: dict, key: str) -> None:
    if key in metadata and not os.path.isdir(metadata[key]):
        raise _missing(data_set, metadata[key])


def _check_categories(split: Split, content: dict, where: str) -> None:
    """The file's categories must be the split's, by id and name, and every annotation's category must be among them."""
    names = {category.id: category.name for category in split.categories}
    for category in content["categories"]:
        if category["id"] not in names:
            raise UserError(
                f"{where}: category {category['id']} ({category['name']!r}) is not among those of {split.file}."
            )
        if category["name"] != names[category["id"]]:
            raise UserError(
                f"{where}: category {category['id']} is called {category['name']!r}, but {names[category['id']]!r} "
                f"in {split.file}."
            )
    for annotation in content["annotations"]:
        for part in annotation.get("segments_info", (annotation,)):
            if part["category_id"] not in names:
                raise UserError(
                    f"{where}: annotation {annotation.get('id', annotation.get('image_id'))} has category "
                    f"{part['category_id']}, which is not among the categories of {split.file}."
                )


def _unseen_ids(split: Split) -> set[int]:
    unseen = set(split.unseen)
    return {category.id for category in split.categories if category.name in unseen}


def _log_dropped(data_set: DataSet, images: set, annotations: int) -> None:
    if images:
        logger.info("Data set %s: %d images that show unseen classes are left out.", data_set.name, len(images))
    if annotations:
        logger.info("Data set %s: %d annotations of classes it does not use are left out.", data_set.name, annotations)
