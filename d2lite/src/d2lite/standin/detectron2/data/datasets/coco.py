"""Data sets in COCO's instance format, and folders of semantic PNGs."""

import contextlib
import io
import json
import logging
import os

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data.catalog import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode, PolygonMasks
from detectron2.utils.file_io import PathManager
from fvcore.common.timer import Timer
from iopath.common.file_io import file_lock

__all__ = ["load_coco_json", "load_sem_seg", "convert_to_coco_json", "register_coco_instances"]

logger = logging.getLogger(__name__)


def load_coco_json(
    json_file: str,
    image_root: str,
    dataset_name: str | None = None,
    extra_annotation_keys: list[str] | None = None,
) -> list[dict]:
    """Read a json file in COCO's instance format. No picture is read.

    Args:
        json_file: path of the file.
        image_root: folder that the file's ``file_name`` fields are relative to.
        dataset_name: when given, the categories become contiguous ids 0..n-1 by ascending id, and ``thing_classes`` and
            ``thing_dataset_id_to_contiguous_id`` of this data set's metadata are set. Otherwise ids stay as they are.
        extra_annotation_keys: further annotation fields to keep.

    Returns:
        Per image, by ascending image id: ``file_name``, ``height``, ``width``, ``image_id`` and ``annotations``. Each
        annotation has ``iscrowd``, ``bbox`` (x, y, w, h in pixels), ``bbox_mode``, ``category_id``, ``segmentation``
        (list of polygons with at least three points each, or a compressed RLE) and, when the file has them,
        ``keypoints``.

    Raises:
        AssertionError: annotation ids occur twice, or an annotation is marked ``ignore``.
        ValueError: an empty box.
        KeyError: an annotation of a category that the file does not list.
    """
    from pycocotools.coco import COCO

    timer = Timer()
    local_file = PathManager.get_local_path(json_file)
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco = COCO(local_file)
    if timer.seconds() > 1:
        logger.info("Loading %s takes %.2f seconds.", json_file, timer.seconds())

    id_map = None
    if dataset_name is not None:
        categories = coco.loadCats(sorted(coco.getCatIds()))
        id_map = {c["id"]: i for i, c in enumerate(categories)}
        if list(id_map) != list(range(1, len(id_map) + 1)) and "coco" not in dataset_name:
            logger.warning("Category ids of %s are not 1..%d; they are mapped to 0..n-1.", json_file, len(id_map))
        MetadataCatalog.get(dataset_name).set(
            thing_classes=[c["name"] for c in categories], thing_dataset_id_to_contiguous_id=id_map
        )

    if "minival" not in json_file:  # the two minival files are known to repeat ids
        ids = [annotation["id"] for annotations in coco.imgToAnns.values() for annotation in annotations]
        assert len(set(ids)) == len(ids), f"Annotation ids in '{json_file}' are not unique!"

    keep = ["iscrowd", "bbox", "keypoints", "category_id", *(extra_annotation_keys or [])]
    dicts, skipped = [], 0
    for image_id in sorted(coco.imgs):
        image = coco.imgs[image_id]
        records = []
        for annotation in coco.imgToAnns[image_id]:
            record = _load_annotation(annotation, keep, json_file)
            if record is None:
                skipped += 1
                continue
            if id_map is not None:
                category = record["category_id"]
                if category not in id_map:
                    raise KeyError(
                        f"Annotation {annotation['id']} of image {image_id} has category_id={category}, "
                        f"which is not among the categories of '{json_file}'."
                    )
                record["category_id"] = id_map[category]
            records.append(record)
        dicts.append(
            {
                "file_name": os.path.join(image_root, image["file_name"]),
                "height": image["height"],
                "width": image["width"],
                "image_id": image_id,
                "annotations": records,
            }
        )
    logger.info("Loaded %d images in COCO format from %s", len(dicts), json_file)
    if skipped:
        logger.warning(
            "%s: %d instances are left out, because none of their polygons has three points (at least 6 numbers, "
            "an even count).",
            json_file,
            skipped,
        )
    return dicts


def _load_annotation(annotation: dict, keep: list[str], json_file: str) -> dict | None:
    """The kept fields of one annotation of a COCO file; None when its segmentation has no valid polygon."""
    where = f"Annotation {annotation.get('id')} of image {annotation['image_id']} in '{json_file}'"
    assert annotation.get("ignore", 0) == 0, f"{where} has a field 'ignore', which COCO's format does not have."

    record = {key: annotation[key] for key in keep if key in annotation}
    if "bbox" in record and len(record["bbox"]) == 0:
        raise ValueError(f"{where} has an empty 'bbox'! A box has four numbers: x, y, width, height.")
    record["bbox_mode"] = BoxMode.XYWH_ABS

    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            segmentation = mask_util.frPyObjects(segmentation, *segmentation["size"])
        record["segmentation"] = segmentation
    elif segmentation:
        polygons = [p for p in segmentation if len(p) % 2 == 0 and len(p) >= 6]
        if not polygons:
            return None
        record["segmentation"] = polygons

    if record.get("keypoints"):
        # COCO's keypoints are pixel indices, all other coordinates are continuous: a pixel's centre is at + 0.5.
        # The third number of each point is its visibility.
        record["keypoints"] = [v if i % 3 == 2 else v + 0.5 for i, v in enumerate(record["keypoints"])]
    return record


def load_sem_seg(gt_root: str, image_root: str, gt_ext: str = "png", image_ext: str = "jpg") -> list[dict]:
    """Pair images and semantic label files by their names without extension. No file is opened.

    Args:
        gt_root: folder of the label files.
        image_root: folder of the images.
        gt_ext: extension of the label files.
        image_ext: extension of the images.

    Returns:
        Per pair, by ascending name: ``file_name`` and ``sem_seg_file_name``. Files without a partner are left out.

    Raises:
        AssertionError: there is no label file, or not one image for them.
    """

    def by_stem(root: str, extension: str) -> dict[str, str]:
        names = [name for name in PathManager.ls(root) if name.endswith(extension)]
        return {os.path.splitext(name)[0]: os.path.join(root, name) for name in names}

    images, labels = by_stem(image_root, image_ext), by_stem(gt_root, gt_ext)
    assert labels, f"No annotations (*.{gt_ext}) found in {gt_root}."
    both = sorted(images.keys() & labels.keys())
    assert both, f"No image (*.{image_ext}) in {image_root} has the name of an annotation (*.{gt_ext}) in {gt_root}."
    if len(both) != len(images) or len(both) != len(labels):
        logger.warning(
            "%s has %d images and %s has %d annotations; the %d with the same name are used.",
            image_root,
            len(images),
            gt_root,
            len(labels),
            len(both),
        )
    logger.info("Loaded %d images with semantic segmentation from %s", len(both), image_root)
    return [{"file_name": images[stem], "sem_seg_file_name": labels[stem]} for stem in both]


def register_coco_instances(name: str, metadata: dict, json_file: str, image_root: str) -> None:
    """Register a data set in COCO's instance format; a name that is registered already keeps its loader.

    Args:
        name: for example ``"coco_2014_train"``.
        metadata: fields for its metadata; may be empty.
        json_file: the annotation file.
        image_root: folder of the images.

    Raises:
        AssertionError: an argument of another type, or metadata that differ from those of the same name.
    """
    assert isinstance(name, str), name
    assert isinstance(json_file, str | os.PathLike), json_file
    assert isinstance(image_root, str | os.PathLike), image_root
    if name not in DatasetCatalog:
        DatasetCatalog.register(name, lambda: load_coco_json(json_file, image_root, name))
    MetadataCatalog.get(name).set(json_file=json_file, image_root=image_root, evaluator_type="coco", **metadata)


def convert_to_coco_json(dataset_name: str, output_file: str, allow_cached: bool = True) -> None:
    """Write a registered data set as a json file in COCO's instance format, for evaluation.

    Args:
        dataset_name: a data set whose dicts have ``annotations``.
        output_file: path of the file.
        allow_cached: do nothing when the file exists already.
    """
    folder = os.path.dirname(output_file)
    if folder:
        PathManager.mkdirs(folder)
    with file_lock(output_file):  # several processes may ask for the same file
        if PathManager.exists(output_file) and allow_cached:
            logger.warning("Using the existing %s. Remove it if the data set has changed.", output_file)
            return
        logger.info("Converting dataset '%s' to COCO's format: %s", dataset_name, output_file)
        content = convert_to_coco_dict(dataset_name)
        temporary = output_file + ".tmp"
        with PathManager.open(temporary, "w") as f:
            json.dump(content, f)
        os.replace(temporary, output_file)


def convert_to_coco_dict(dataset_name: str) -> dict:
    """A registered data set as the content of a COCO json file: ``info images categories annotations licenses``.

    Boxes become (x, y, w, h); contiguous category ids become the original ones where the metadata has their map. Areas
    are those of the segmentation, or of the box where there is none.
    """
    dataset_dicts = DatasetCatalog.get(dataset_name)  # first, because loading may fill in the metadata
    metadata = MetadataCatalog.get(dataset_name)
    to_contiguous = metadata.get("thing_dataset_id_to_contiguous_id")
    if to_contiguous is None:
        original = {i: i for i in range(len(metadata.thing_classes))}
    else:
        original = {contiguous: category for category, contiguous in to_contiguous.items()}

    images, annotations = [], []
    for index, image in enumerate(dataset_dicts):
        image_id = image.get("image_id", index)
        images.append(
            {
                "id": image_id,
                "width": int(image["width"]),
                "height": int(image["height"]),
                "file_name": str(image["file_name"]),
            }
        )
        for record in image.get("annotations", []):
            annotation = _to_coco_annotation(record)
            annotation["id"] = len(annotations) + 1  # COCO's ids start with 1: its evaluation reads 0 as "no match"
            annotation["image_id"] = image_id
            annotation["category_id"] = int(original[record["category_id"]])
            annotations.append(annotation)
    return {
        "info": {"description": f"{dataset_name}, converted to COCO's format"},
        "images": images,
        "categories": [{"id": original[i], "name": name} for i, name in enumerate(metadata.thing_classes)],
        "annotations": annotations,
        "licenses": None,
    }


def _to_coco_annotation(record: dict) -> dict:
    bbox = np.asarray(record["bbox"], dtype=np.float64).tolist()
    bbox = BoxMode.convert(bbox, record["bbox_mode"], BoxMode.XYWH_ABS)
    annotation = {"bbox": [round(float(x), 3) for x in bbox], "iscrowd": int(record.get("iscrowd", 0))}

    segmentation = record.get("segmentation")
    if not segmentation:
        annotation["area"] = float(bbox[2] * bbox[3])
    elif isinstance(segmentation, dict):
        annotation["area"] = float(mask_util.area(segmentation))
        counts = segmentation["counts"]
        annotation["segmentation"] = {
            "size": [int(x) for x in segmentation["size"]],
            "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts,
        }
    else:
        annotation["area"] = float(PolygonMasks([segmentation]).area()[0])
        annotation["segmentation"] = [np.asarray(p, dtype=np.float64).tolist() for p in segmentation]

    if "keypoints" in record:
        keypoints = [v if i % 3 == 2 else v - 0.5 for i, v in enumerate(record["keypoints"])]
        annotation["keypoints"] = keypoints
        annotation["num_keypoints"] = sum(1 for v in keypoints[2::3] if v > 0)
    return annotation
