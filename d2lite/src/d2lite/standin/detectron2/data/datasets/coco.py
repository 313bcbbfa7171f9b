"""Data sets in COCO's instance format, and folders of semantic label images."""

import functools
import json
import logging
import os
from collections import defaultdict
from itertools import count

import numpy as np
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode, PolygonMasks
from detectron2.utils.file_io import PathManager
from iopath.common.file_io import file_lock
from pycocotools import mask as coco_mask

logger = logging.getLogger(__name__)


def load_coco_json(
    json_file: str, image_root: str, dataset_name: str | None = None, extra_annotation_keys: list[str] | None = None
) -> list[dict]:
    """The ``file_name height width image_id annotations`` of an annotation file's images, by ascending id.

    With ``dataset_name``, category ids become 0..n-1 in ascending order, and its metadata get ``thing_classes`` and
    ``thing_dataset_id_to_contiguous_id``. Annotations have ``iscrowd``, ``bbox`` (x, y, w, h), ``bbox_mode``,
    ``category_id``, the extra keys and, where the file has them, ``segmentation`` (polygons of three points and more,
    or a compressed RLE) and ``keypoints`` (at pixel centres).
    """
    with PathManager.open(json_file) as file:
        content = json.load(file)
    annotations = content.get("annotations", [])
    # COCO's own "minival" files are known for it.
    repeated = len(annotations) - len({annotation["id"] for annotation in annotations})
    assert not repeated or "minival" in json_file, f"ids of annotations in {json_file} are not unique ({repeated})"

    of_image: dict[int, list[dict]] = defaultdict(list)
    for annotation in annotations:
        of_image[annotation["image_id"]].append(_read_annotation(annotation, extra_annotation_keys or (), json_file))
    records = {image_id: [record for record in of_image[image_id] if record] for image_id in list(of_image)}
    used = sum(map(len, records.values()))
    if used < len(annotations):
        logger.warning("%s: %d objects without a valid polygon are left out.", json_file, len(annotations) - used)
    if dataset_name is not None:
        names = {category["id"]: category["name"] for category in content["categories"]}
        number = {category: index for index, category in enumerate(sorted(names))}
        MetadataCatalog.get(dataset_name).set(
            thing_classes=[names[category] for category in number], thing_dataset_id_to_contiguous_id=number
        )
        for record in (record for listed in records.values() for record in listed):
            category = record["category_id"]
            if category not in number:
                raise KeyError(f"{json_file} has annotations with category_id={category}, but no such category")
            record["category_id"] = number[category]
    images = sorted(content["images"], key=lambda image: image["id"])
    logger.info("%s: %d images with %d objects.", json_file, len(images), used)
    return [
        {
            "image_id": image["id"],
            "file_name": os.path.join(image_root, image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "annotations": records.get(image["id"], []),
        }
        for image in images
    ]


def _read_annotation(annotation: dict, extra_keys, json_file: str) -> dict:
    """An annotation in Detectron2's format; {} if it has polygons, but no valid one."""
    assert not annotation.get("ignore"), f'{json_file}: COCO has no "ignore", as annotation {annotation["id"]} has'
    record = {key: annotation[key] for key in ("iscrowd", "bbox", "category_id", *extra_keys) if key in annotation}
    record["bbox_mode"] = BoxMode.XYWH_ABS
    if record.get("bbox") == []:
        raise ValueError(f"{json_file}: the bbox of annotation {annotation['id']} is empty")
    match annotation.get("segmentation"):
        case {"counts": list(), "size": size} as runs:
            record["segmentation"] = coco_mask.frPyObjects(runs, *size)
        case {"counts": _} as rle:
            record["segmentation"] = rle
        case [_, *_] as polygons:
            record["segmentation"] = [p for p in polygons if len(p) >= 6 and len(p) % 2 == 0]
            if not record["segmentation"]:
                return {}
    if annotation.get("keypoints"):
        record["keypoints"] = _shift_keypoints(annotation["keypoints"], 0.5)
    return record


def _shift_keypoints(keypoints: list, shift: float) -> list:
    """COCO's keypoints (x, y, visibility) count pixels, while all other coordinates measure from the image's corner."""
    return [value + shift * (position % 3 < 2) for position, value in enumerate(keypoints)]


def load_sem_seg(gt_root: str, image_root: str, gt_ext: str = "png", image_ext: str = "jpg") -> list[dict]:
    """Pairs of images and label images in two folders: by order if equally many, else by equal stems."""
    images, labels = (
        {os.path.splitext(name)[0]: os.path.join(root, name) for name in PathManager.ls(root) if name.endswith(ext)}
        for root, ext in ((image_root, image_ext), (gt_root, gt_ext))
    )
    assert labels, f"{gt_root} has no *.{gt_ext} files"
    if len(images) == len(labels):
        pairs = list(zip(sorted(images), sorted(labels), strict=True))
    else:
        pairs = [(stem, stem) for stem in sorted(images.keys() & labels.keys())]
        counts = f"{image_root} has {len(images)} images, {gt_root} has {len(labels)} label images"
        logger.warning("%s; %d of them are pairs.", counts, len(pairs))
    return [{"file_name": images[image], "sem_seg_file_name": labels[label]} for image, label in pairs]


def register_coco_instances(name: str, metadata: dict, json_file: str, image_root: str) -> None:
    """Register the data set of an annotation file and its metadata; a name that is taken keeps its loader."""
    paths = {"json_file": json_file, "image_root": image_root}
    assert isinstance(name, str), f"the name of a data set is text, not {name!r}"
    assert all(isinstance(path, str | os.PathLike) for path in paths.values()), f"not paths: {paths}"
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, functools.partial(load_coco_json, json_file, image_root, name))
    MetadataCatalog.get(name).set(evaluator_type="coco", **paths, **metadata)


def convert_to_coco_json(dataset_name: str, output_file: str, allow_cached: bool = True) -> None:
    """Write a registered data set, whose images have ``annotations``, as an annotation file for evaluation.

    Categories have the data set's ids if known; annotations count from 1, as 0 means "none" in COCO's evaluation. With
    ``allow_cached``, a file that exists is left alone, with a warning.
    """
    folder, name = os.path.split(output_file)
    PathManager.mkdirs(folder or ".")
    with file_lock(output_file):  # all processes come here
        if allow_cached and PathManager.exists(output_file):
            logger.warning("%s is reused. Delete it if data set %s has changed since.", output_file, dataset_name)
            return
        content = _as_coco(dataset_name)
        temporary = os.path.join(folder, f".{name}.{os.getpid()}")
        with PathManager.open(temporary, "w") as file:
            json.dump(content, file)
        os.replace(temporary, output_file)
        logger.info("Data set %s is written in COCO's format: %s", dataset_name, output_file)


def _as_coco(dataset_name: str) -> dict:
    images = DatasetCatalog.get(dataset_name)  # may enter the classes into the metadata
    metadata = MetadataCatalog.get(dataset_name)
    numbers = metadata.get("thing_dataset_id_to_contiguous_id") or {i: i for i in range(len(metadata.thing_classes))}
    category = {number: own for own, number in numbers.items()}
    listed, annotations, ids = [], [], count(1)
    for position, image in enumerate(images):
        image_id = image.get("image_id", position)
        size = {side: int(image[side]) for side in ("height", "width")}
        listed.append({"id": image_id, "file_name": str(image["file_name"]), **size})
        for record in image.get("annotations", ()):
            identity = {"id": next(ids), "image_id": image_id, "category_id": int(category[record["category_id"]])}
            annotations.append(identity | _write_annotation(record))
    return {
        "info": {"description": f"{dataset_name} in COCO's format"},
        "licenses": None,
        "categories": [{"id": category[i], "name": name} for i, name in enumerate(metadata.thing_classes)],
        "images": listed,
        "annotations": annotations,
    }


def _write_annotation(record: dict) -> dict:
    """An annotation as JSON values, with its area in pixels."""
    bbox = BoxMode.convert([float(x) for x in record["bbox"]], record["bbox_mode"], BoxMode.XYWH_ABS)
    annotation = {"bbox": [round(value, 3) for value in bbox], "iscrowd": int(record.get("iscrowd", 0))}
    segmentation = record.get("segmentation")
    if not segmentation:
        annotation["area"] = bbox[2] * bbox[3]
    elif isinstance(segmentation, dict):
        counts = segmentation["counts"]
        text = counts.decode("ascii") if isinstance(counts, bytes) else counts
        annotation["segmentation"] = {"counts": text, "size": list(map(int, segmentation["size"]))}
        annotation["area"] = float(coco_mask.area(segmentation))
    else:
        polygons = [np.asarray(polygon, dtype=np.float64).tolist() for polygon in segmentation]
        annotation |= {"segmentation": polygons, "area": float(PolygonMasks([polygons]).area()[0])}
    if "keypoints" in record:
        annotation["keypoints"] = _shift_keypoints(record["keypoints"], -0.5)
        annotation["num_keypoints"] = sum(visibility > 0 for visibility in record["keypoints"][2::3])
    return annotation
