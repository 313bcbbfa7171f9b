"""Functions for mappers: read images, transform annotations, and make ``Instances``."""

import logging
import os
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.data.catalog import MetadataCatalog
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks, polygons_to_bitmask
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

from d2lite.omitted import ADVICE

logger = logging.getLogger(__name__)


class SizeMismatchError(ValueError):
    """An image does not have the size that its data set states."""


def read_image(file_name: str | os.PathLike, format: str | None = None) -> np.ndarray:
    """Read an image file, from a path or URL, and rotate it by its EXIF orientation.

    ``format``: "BGR" or "RGB", (h, w, 3) uint8; "L", (h, w, 1) uint8; another mode of Pillow; or None for the file's
    own mode, in which palette indices and 16-bit numbers stay what they are.
    """
    with PathManager.open(os.fspath(file_name), "rb") as file:
        image: Image.Image = Image.open(file)
        with suppress(Exception):  # broken EXIF data: use the image as stored
            ImageOps.exif_transpose(image, in_place=True)
        if format is None:
            return np.asarray(image)
        if format == "BGR":
            return np.asarray(image.convert("RGB"))[:, :, ::-1]
        pixels = np.asarray(image.convert(format))
        return pixels[:, :, None] if format == "L" else pixels


def convert_image_to_rgb(image: np.ndarray | torch.Tensor, format: str) -> np.ndarray:
    """Pixels to draw on, (h, w, 3) uint8 RGB, of (h, w, c) from 0 to 255 in "BGR", "RGB" or, with c = 1, "L"."""
    pixels = np.asarray(image.cpu() if isinstance(image, torch.Tensor) else image)
    channels = {"BGR": [2, 1, 0], "L": [0, 0, 0], "RGB": [0, 1, 2]}[format]
    return pixels[:, :, channels].astype(np.uint8)


def check_image_size(dataset_dict: dict, image: np.ndarray) -> None:
    """Store the size of an image in its dict as ``width`` and ``height``, or compare it with the stored size."""
    height, width = image.shape[:2]
    stated = dataset_dict.setdefault("width", width), dataset_dict.setdefault("height", height)
    if stated != (width, height):
        raise SizeMismatchError(
            f"{dataset_dict.get('file_name', 'an image')} is {width} wide and {height} high, but its data set says "
            f"{stated[0]} and {stated[1]}. Either the file is another one, or it was annotated before EXIF turned it."
        )


def transform_instance_annotations(
    annotation: dict, transforms: T.Transform | Sequence[T.Transform], image_size: tuple[int, int]
) -> dict:
    """Apply the transforms of an image, now of ``image_size`` (h, w), to an annotation in place, and return it.

    Its ``bbox`` becomes corners in the image, its ``segmentation`` flat polygons, or a mask (h, w) if it was an RLE.
    """
    if "keypoints" in annotation:
        raise NotImplementedError(f"This annotation has keypoints: {ADVICE}")
    chain = transforms if isinstance(transforms, T.Transform) else T.TransformList(list(transforms))
    corners = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    height, width = image_size
    moved = chain.apply_box(np.array([corners]))[0]
    annotation |= {"bbox": moved.clip(0, [width, height, width, height]), "bbox_mode": BoxMode.XYXY_ABS}
    match annotation.get("segmentation", []):
        case []:
            pass
        case list() as polygons:
            moved = chain.apply_polygons([np.reshape(polygon, (-1, 2)) for polygon in polygons])
            annotation["segmentation"] = [polygon.ravel() for polygon in moved]
        case {"counts": _, "size": _} as rle:
            mask = chain.apply_segmentation(coco_mask.decode(rle))
            assert mask.shape == tuple(image_size), f"a mask became {mask.shape} beside an image of {image_size}"
            annotation["segmentation"] = mask
        case other:
            raise ValueError(f"a segmentation is a list of polygons or an RLE, not a {type(other).__name__}")
    return annotation


def annotations_to_instances(annos: list[dict], image_size: tuple[int, int], mask_format: str = "polygon") -> Instances:
    """The transformed annotations of one image of ``image_size`` (h, w) as training targets.

    ``gt_boxes``, ``gt_classes`` (int64) and, if the first annotation has a segmentation, ``gt_masks``: polygons, or
    with "bitmask" masks painted from polygons, RLEs and masks.
    """
    corners = [BoxMode.convert(anno["bbox"], anno["bbox_mode"], BoxMode.XYXY_ABS) for anno in annos]
    targets = Instances(image_size, gt_boxes=Boxes(np.reshape(corners, (-1, 4))))
    targets.gt_classes = torch.tensor([int(anno["category_id"]) for anno in annos], dtype=torch.int64)
    if annos and "segmentation" in annos[0]:
        make_masks = {"polygon": _polygon_masks, "bitmask": _bit_masks}[mask_format]
        targets.gt_masks = make_masks([anno["segmentation"] for anno in annos], image_size)
    return targets


def _polygon_masks(segmentations: list, image_size: tuple[int, int]) -> PolygonMasks:
    try:
        return PolygonMasks(segmentations)
    except ValueError as error:
        raise ValueError(f"not all are polygons: {error}. INPUT.MASK_FORMAT bitmask takes RLEs and masks.") from error


def _bit_masks(segmentations: list, image_size: tuple[int, int]) -> BitMasks:
    masks = np.zeros((len(segmentations), *image_size), dtype=bool)
    for mask, segmentation in zip(masks, segmentations, strict=True):
        match segmentation:
            case list():
                mask[:] = polygons_to_bitmask(segmentation, *image_size)
            case dict():
                mask[:] = coco_mask.decode(segmentation)
            case np.ndarray(ndim=2):
                mask[:] = segmentation
            case _:
                raise ValueError(
                    f"polygons, an RLE or an (h, w) array become masks, not a {type(segmentation).__name__}"
                )
    return BitMasks(masks)


def filter_empty_instances(
    instances: Instances, by_box: bool = True, by_mask: bool = True, box_threshold: float = 1e-5
) -> Instances:
    """Instances with box sides over ``box_threshold`` pixels (by_box) and with a mask that is not empty (by_mask)."""
    assert by_mask or by_box, "choose what to judge by: by_box, by_mask or both"
    chosen = torch.ones(len(instances), dtype=torch.bool)
    if by_box:
        chosen &= instances.gt_boxes.nonempty(box_threshold)
    if by_mask and instances.has("gt_masks"):
        chosen &= instances.gt_masks.nonempty()
    return instances[chosen]


def check_metadata_consistency(key: str, dataset_names: Sequence[str]) -> None:
    """ValueError unless data sets that are used together agree on some metadata; the log then has both values."""
    values = {name: getattr(MetadataCatalog.get(name), key) for name in dataset_names}
    for name in values:
        first = dataset_names[0]
        if values[name] != values[first]:
            logger.error("%s of %s: %s\n%s of %s: %s", key, first, values[first], key, name, values[name])
            raise ValueError(f"Datasets have different metadata '{key}'!")


def build_augmentation(cfg, is_train: bool) -> list[T.Augmentation]:
    """The augmentations of ``INPUT``: resizing of the shortest edge and, in training, flips."""
    sizes, flip = cfg.INPUT, cfg.INPUT.RANDOM_FLIP
    if not is_train:
        return [T.ResizeShortestEdge(sizes.MIN_SIZE_TEST, sizes.MAX_SIZE_TEST, "choice")]
    resize = T.ResizeShortestEdge(sizes.MIN_SIZE_TRAIN, sizes.MAX_SIZE_TRAIN, sizes.MIN_SIZE_TRAIN_SAMPLING)
    if flip == "none":
        return [resize]
    return [resize, T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical")]
