"""What mappers are made of: reading images, moving annotations along with them, and ``Instances``."""

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

__all__ = [
    "SizeMismatchError",
    "annotations_to_instances",
    "build_augmentation",
    "check_image_size",
    "check_metadata_consistency",
    "convert_PIL_to_numpy",
    "convert_image_to_rgb",
    "filter_empty_instances",
    "read_image",
    "transform_instance_annotations",
]

logger = logging.getLogger(__name__)


# ---- Images ----


class SizeMismatchError(ValueError):
    """An image does not have the size that its data set states."""


def read_image(file_name: str | os.PathLike, format: str | None = None) -> np.ndarray:
    """Read an image file, and turn it as its EXIF data say.

    Args:
        file_name: path or URL.
        format: "BGR", a mode of Pillow such as "RGB" or "L", or None for the file's own mode, in which palette indices
            and 16-bit numbers stay what they are.

    Returns:
        (h, w, 3) uint8 for "BGR" and "RGB", (h, w, 1) uint8 for "L".

    Raises:
        OSError and what else Pillow raises on a damaged file.
    """
    with PathManager.open(os.fspath(file_name), "rb") as file:
        image = Image.open(file)
        with suppress(Exception):  # broken EXIF data are no reason to refuse the image
            ImageOps.exif_transpose(image, in_place=True)
        return convert_PIL_to_numpy(image, format)


def convert_PIL_to_numpy(image: Image.Image, format: str | None) -> np.ndarray:
    """The pixels of a Pillow image, in a format of ``read_image``."""
    if format is None:
        return np.asarray(image)
    pixels = np.asarray(image.convert(format if format != "BGR" else "RGB"))
    if format == "BGR":
        return np.flip(pixels, 2)
    return np.expand_dims(pixels, 2) if format == "L" else pixels


def convert_image_to_rgb(image: np.ndarray | torch.Tensor, format: str) -> np.ndarray:
    """Pixels to draw on, (h, w, 3) uint8 RGB.

    Args:
        image: (h, w, c) in 0..255, with c = 1 for "L".
        format: "BGR", "L" or "RGB".
    """
    pixels = np.asarray(image.cpu() if isinstance(image, torch.Tensor) else image)
    channels = {"BGR": [2, 1, 0], "L": [0, 0, 0], "RGB": [0, 1, 2]}[format]
    return pixels[:, :, channels].astype(np.uint8)


def check_image_size(dataset_dict: dict, image: np.ndarray) -> None:
    """Note the size of an image in its dict, as ``width`` and ``height``, or compare it with what is there."""
    height, width = image.shape[:2]
    stated = dataset_dict.setdefault("width", width), dataset_dict.setdefault("height", height)
    if stated != (width, height):
        raise SizeMismatchError(
            f"{dataset_dict.get('file_name', 'an image')} is {width} wide and {height} high, but its data set says "
            f"{stated[0]} and {stated[1]}. Either the file is another one, or it was annotated before EXIF turned it."
        )


# ---- Annotations ----


def transform_instance_annotations(
    annotation: dict,
    transforms: T.Transform | Sequence[T.Transform],
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: np.ndarray | None = None,
) -> dict:
    """Do to an annotation what was done to its image.

    Args:
        annotation: changed in place: ``bbox`` becomes corners inside the image, ``segmentation`` a list of flat
            polygons, or a mask (h, w) if it was an RLE.
        transforms: in the order of use.
        image_size: (h, w) after them.
        keypoint_hflip_indices: d2lite has no keypoints; leave it.

    Returns:
        The annotation.

    Raises:
        ValueError: a segmentation that is neither polygons nor an RLE.
        NotImplementedError: keypoints.
    """
    if keypoint_hflip_indices is not None or "keypoints" in annotation:
        raise NotImplementedError("d2lite has no keypoints; remove them from the annotation, or use Detectron2 itself.")
    chain = transforms if isinstance(transforms, T.Transform) else T.TransformList(list(transforms))
    corners = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    height, width = image_size
    moved = chain.apply_box(np.array([corners]))[0]
    annotation |= {"bbox": moved.clip(0, [width, height, width, height]), "bbox_mode": BoxMode.XYXY_ABS}
    if "segmentation" in annotation:
        annotation["segmentation"] = _move_segmentation(annotation["segmentation"], chain, image_size)
    return annotation


def _move_segmentation(segmentation: list | dict, chain: T.Transform, image_size: tuple[int, int]):
    match segmentation:
        case list():
            return [moved.ravel() for moved in chain.apply_polygons([np.reshape(p, (-1, 2)) for p in segmentation])]
        case {"counts": _, "size": _}:
            mask = chain.apply_segmentation(coco_mask.decode(segmentation))
            assert mask.shape == tuple(image_size), f"a mask became {mask.shape} beside an image of {image_size}"
            return mask
    raise ValueError(f"a {type(segmentation).__name__} cannot be a segmentation; it is a list of polygons or an RLE")


def annotations_to_instances(annos: list[dict], image_size: tuple[int, int], mask_format: str = "polygon") -> Instances:
    """The annotations of one image as training targets.

    Args:
        annos: after ``transform_instance_annotations``.
        image_size: (h, w).
        mask_format: "polygon" keeps polygons; "bitmask" paints masks from polygons, RLEs and masks.

    Returns:
        ``gt_boxes``, ``gt_classes`` (int64) and, if the first annotation has a segmentation, ``gt_masks``.

    Raises:
        ValueError: segmentations that the format does not take.
    """
    corners = [BoxMode.convert(anno["bbox"], anno["bbox_mode"], BoxMode.XYXY_ABS) for anno in annos]
    fields = {
        "gt_boxes": Boxes(np.reshape(corners, (-1, 4))),
        "gt_classes": torch.tensor([int(anno["category_id"]) for anno in annos], dtype=torch.int64),
    }
    if annos and "segmentation" in annos[0]:
        make_masks = {"polygon": _polygon_masks, "bitmask": _bit_masks}[mask_format]
        fields["gt_masks"] = make_masks([anno["segmentation"] for anno in annos], image_size)
    return Instances(image_size, **fields)


def _polygon_masks(segmentations: list, image_size: tuple[int, int]) -> PolygonMasks:
    try:
        return PolygonMasks(segmentations)
    except ValueError as error:
        raise ValueError(f"not all are polygons: {error}. INPUT.MASK_FORMAT bitmask takes RLEs and masks.") from error


def _bit_masks(segmentations: list, image_size: tuple[int, int]) -> BitMasks:
    masks = np.stack([_painted(segmentation, image_size) for segmentation in segmentations])
    return BitMasks(torch.from_numpy(masks.astype(bool)))


def _painted(segmentation: list | dict | np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    match segmentation:
        case list():
            return polygons_to_bitmask(segmentation, *image_size)
        case dict():
            return coco_mask.decode(segmentation)
        case np.ndarray(ndim=2):
            return segmentation
    raise ValueError(f"a {type(segmentation).__name__} cannot become a mask; polygons, an RLE and an (h, w) array can")


def filter_empty_instances(
    instances: Instances,
    by_box: bool = True,
    by_mask: bool = True,
    box_threshold: float = 1e-5,
    return_mask: bool = False,
) -> Instances | tuple[Instances, torch.Tensor]:
    """The instances of which something is left in the image.

    Args:
        by_box: the sides of ``gt_boxes`` must exceed ``box_threshold`` pixels.
        by_mask: ``gt_masks``, if there are any, must not be empty.
        return_mask: give the choice as well, bool (n,).
    """
    assert by_mask or by_box, "choose what to judge by: by_box, by_mask or both"
    chosen = torch.ones(len(instances), dtype=torch.bool)
    if by_box:
        chosen &= instances.gt_boxes.nonempty(box_threshold)
    if by_mask and instances.has("gt_masks"):
        chosen &= instances.gt_masks.nonempty()
    return (instances[chosen], chosen) if return_mask else instances[chosen]


# ---- Configuration ----


def check_metadata_consistency(key: str, dataset_names: Sequence[str]) -> None:
    """ValueError unless data sets that are used together agree on some metadata; the log then has both values."""
    values = {name: getattr(MetadataCatalog.get(name), key) for name in dataset_names}
    for name in values:
        first = dataset_names[0]
        if values[name] != values[first]:
            logger.error("%s of %s: %s\n%s of %s: %s", key, first, values[first], key, name, values[name])
            raise ValueError(f"Datasets have different metadata '{key}'!")


def build_augmentation(cfg, is_train: bool) -> list[T.Augmentation]:
    """What ``INPUT`` says by default: a size for the shortest edge and, in training, flips."""
    settings, stage = cfg.INPUT, "TRAIN" if is_train else "TEST"
    style = settings.MIN_SIZE_TRAIN_SAMPLING if is_train else "choice"
    steps: list[T.Augmentation] = [
        T.ResizeShortestEdge(settings[f"MIN_SIZE_{stage}"], settings[f"MAX_SIZE_{stage}"], style)
    ]
    if is_train and settings.RANDOM_FLIP != "none":
        direction = {name: name == settings.RANDOM_FLIP for name in ("horizontal", "vertical")}
        steps.append(T.RandomFlip(**direction))
    return steps
