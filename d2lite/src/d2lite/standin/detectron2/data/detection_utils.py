"""Parts that data set mappers are made of: reading images, transforming annotations, making ``Instances``."""

import logging
import os
from collections.abc import Sequence

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.data import transforms as T
from detectron2.data.catalog import MetadataCatalog
from detectron2.structures import BitMasks, Boxes, BoxMode, Instances, PolygonMasks, polygons_to_bitmask
from detectron2.utils.file_io import PathManager
from PIL import Image

__all__ = [
    "SizeMismatchError",
    "annotations_to_instances",
    "build_augmentation",
    "build_transform_gens",
    "check_image_size",
    "check_metadata_consistency",
    "convert_PIL_to_numpy",
    "convert_image_to_rgb",
    "filter_empty_instances",
    "read_image",
    "transform_instance_annotations",
]

logger = logging.getLogger(__name__)

# How to undo each orientation that the EXIF standard defines; 1 means upright.
_EXIF_ORIENTATION = 0x0112
_UNDO_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class SizeMismatchError(ValueError):
    """An image's size is not what its data set says."""


def read_image(file_name: str | os.PathLike, format: str | None = None) -> np.ndarray:
    """Read an image file, turned upright if its EXIF data say so.

    Args:
        file_name: path or URL.
        format: "BGR", or one of PIL's modes ("RGB", "L"). None keeps the file's own mode, so palette indices and 16 bit
            values stay as they are.

    Returns:
        (h, w, 3) uint8 for "BGR" and "RGB"; (h, w, 1) for "L"; for None as PIL gives it.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file is not an image, or broken; the message names it.
    """
    local_file = PathManager.get_local_path(os.fspath(file_name))
    try:
        with open(local_file, "rb") as f, Image.open(f) as image:
            return convert_PIL_to_numpy(_upright(image), format)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no image file '{file_name}'. Is the data set's root right?") from error
    except _UnknownFormat:
        raise
    except Exception as error:  # PIL's decoders raise many types, also SyntaxError
        raise OSError(
            f"Cannot read image file '{file_name}': {error or type(error).__name__}. It is truncated, broken or of an "
            "unknown format; fetch it again."
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:  # broken EXIF data are no reason to refuse the picture
        return image
    method = _UNDO_ORIENTATION.get(orientation)
    return image if method is None else image.transpose(method)


class _UnknownFormat(ValueError):
    pass


def convert_PIL_to_numpy(image: Image.Image, format: str | None) -> np.ndarray:
    """A PIL image as an array, in the format that :func:`read_image` describes."""
    if format is not None:
        mode = "RGB" if format == "BGR" else format
        if mode not in Image.MODES and mode != "RGB":
            raise _UnknownFormat(f"Image format {format!r} is neither 'BGR' nor one of PIL's modes.")
        image = image.convert(mode)
    array = np.asarray(image)
    if format == "L":
        return array[:, :, None]
    return array[:, :, ::-1] if format == "BGR" else array


def convert_image_to_rgb(image: np.ndarray | torch.Tensor, format: str) -> np.ndarray:
    """An image as (h, w, 3) uint8 RGB, to draw on.

    Args:
        image: (h, w, c), in 0..255.
        format: "RGB", "BGR" or "L".
    """
    if isinstance(image, torch.Tensor):
        image = image.cpu().numpy()
    image = np.asarray(image)
    if format == "L":
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    elif format == "BGR":
        image = image[:, :, ::-1]
    elif format != "RGB":
        raise ValueError(f"Image format {format!r} is not RGB, BGR or L.")
    return np.ascontiguousarray(image.astype(np.uint8))


def check_image_size(dataset_dict: dict, image: np.ndarray) -> None:
    """Compare an image's size with its dict's ``width`` and ``height``, which are filled in when absent.

    Raises:
        SizeMismatchError: they differ.
    """
    height, width = image.shape[:2]
    expected = (dataset_dict.get("width", width), dataset_dict.get("height", height))
    if (width, height) != expected:
        raise SizeMismatchError(
            f"Mismatched image shape for image {dataset_dict.get('file_name', '')}: it is {width} x {height} (width x "
            f"height), but its data set says {expected[0]} x {expected[1]}. Is it the right file, and is EXIF "
            "orientation the reason?"
        )
    dataset_dict.setdefault("width", width)
    dataset_dict.setdefault("height", height)


def transform_instance_annotations(
    annotation: dict,
    transforms: T.Transform | Sequence[T.Transform],
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: np.ndarray | None = None,
) -> dict:
    """Apply transforms to the box and the segmentation of one annotation, in place.

    Args:
        annotation: with ``bbox``, ``bbox_mode`` and perhaps ``segmentation`` (list of polygons, or RLE).
        transforms: what was applied to the image.
        image_size: (height, width) after it.
        keypoint_hflip_indices: must be None, as d2lite has no keypoints.

    Returns:
        The same dict, with ``bbox`` as x0, y0, x1, y1, clipped to the image, and ``segmentation`` as a list of flat
        polygons, or as an (h, w) array for an RLE.

    Raises:
        ValueError: a segmentation of another kind.
        NotImplementedError: the annotation has ``keypoints``.
    """
    if "keypoints" in annotation or keypoint_hflip_indices is not None:
        raise NotImplementedError(
            "d2lite, the stand-in for Detectron2, has no keypoints: remove them from the annotation "
            "(annotation.pop('keypoints')), or install the genuine Detectron2."
        )
    if isinstance(transforms, list | tuple):
        transforms = T.TransformList(transforms)
    height, width = image_size

    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    # In floating point: transforms work in place, so whole numbers would stay whole.
    box = transforms.apply_box(np.array([box], dtype=np.float64))[0].clip(min=0)
    annotation["bbox"] = np.minimum(box, [width, height, width, height])
    annotation["bbox_mode"] = BoxMode.XYXY_ABS

    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list):
        polygons = [np.array(p, dtype=np.float64).reshape(-1, 2) for p in segmentation]
        annotation["segmentation"] = [p.reshape(-1) for p in transforms.apply_polygons(polygons)]
    elif isinstance(segmentation, dict):
        mask = transforms.apply_segmentation(mask_util.decode(segmentation))
        assert mask.shape[:2] == (height, width), f"The mask became {mask.shape[:2]}, the image {(height, width)}."
        annotation["segmentation"] = mask
    elif segmentation is not None:
        raise ValueError(
            f"Cannot transform segmentation of type '{type(segmentation)}'! Supported types are: "
            "polygons as list[list[float] or ndarray], COCO-style RLE as a dict."
        )
    return annotation


def annotations_to_instances(annos: list[dict], image_size: tuple[int, int], mask_format: str = "polygon") -> Instances:
    """Ground truth ``Instances`` from transformed annotations.

    Args:
        annos: those of one image.
        image_size: (height, width).
        mask_format: "polygon" makes ``PolygonMasks``; "bitmask" makes ``BitMasks`` from polygons, RLEs or arrays.

    Returns:
        Fields ``gt_boxes`` (``Boxes``), ``gt_classes`` (int64) and, when the first annotation has a segmentation,
        ``gt_masks``.

    Raises:
        ValueError: a segmentation that does not fit the format.
    """
    target = Instances(image_size)
    boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annos]
    target.gt_boxes = Boxes(np.stack(boxes) if boxes else np.zeros((0, 4)))
    target.gt_classes = torch.tensor([int(a["category_id"]) for a in annos], dtype=torch.int64)
    if not annos or "segmentation" not in annos[0]:
        return target

    segmentations = [a["segmentation"] for a in annos]
    if mask_format == "polygon":
        try:
            target.gt_masks = PolygonMasks(segmentations)
        except ValueError as error:
            raise ValueError(
                "Failed to use mask_format=='polygon' from the given annotations: "
                f"{error} Set INPUT.MASK_FORMAT to 'bitmask' when some of them are RLEs."
            ) from error
    elif mask_format == "bitmask":
        masks = [torch.from_numpy(np.ascontiguousarray(_to_bitmask(s, image_size))).bool() for s in segmentations]
        target.gt_masks = BitMasks(torch.stack(masks))
    else:
        raise ValueError(f"mask_format is 'polygon' or 'bitmask', not {mask_format!r}.")
    return target


def _to_bitmask(segmentation: list | dict | np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    if isinstance(segmentation, list):
        return polygons_to_bitmask(segmentation, *image_size)
    if isinstance(segmentation, dict):
        return mask_util.decode(segmentation)
    if isinstance(segmentation, np.ndarray):
        if segmentation.ndim != 2:
            raise ValueError(f"Expect segmentation of 2 dimensions, got {segmentation.ndim}.")
        return segmentation
    raise ValueError(
        f"Cannot convert segmentation of type '{type(segmentation)}' to BitMasks! Supported types are: "
        "polygons as list[list[float] or ndarray], COCO-style RLE as a dict, or a binary mask as a 2D array."
    )


def filter_empty_instances(
    instances: Instances,
    by_box: bool = True,
    by_mask: bool = True,
    box_threshold: float = 1e-5,
    return_mask: bool = False,
) -> Instances | tuple[Instances, torch.Tensor]:
    """Leave out instances with an empty box or mask.

    Args:
        instances: with ``gt_boxes`` and perhaps ``gt_masks``.
        by_box: leave out boxes with a side of at most ``box_threshold`` pixels.
        by_mask: leave out empty masks.
        box_threshold: in pixels.
        return_mask: also return which ones were kept, as a bool tensor.
    """
    assert by_box or by_mask, "Nothing to filter by: set by_box or by_mask."
    keep = torch.ones(len(instances), dtype=torch.bool)
    if by_box:
        keep = keep & instances.gt_boxes.nonempty(threshold=box_threshold).to(keep.device)
    if by_mask and instances.has("gt_masks"):
        keep = keep & instances.gt_masks.nonempty().to(keep.device)
    return (instances[keep], keep) if return_mask else instances[keep]


def check_metadata_consistency(key: str, dataset_names: Sequence[str]) -> None:
    """Check that data sets that are used together have the same metadata under ``key``.

    Raises:
        AttributeError: one of them has no such metadata.
        ValueError: they differ.
    """
    values = [getattr(MetadataCatalog.get(name), key) for name in dataset_names]
    for name, value in zip(dataset_names, values, strict=True):
        if value != values[0]:
            raise ValueError(
                f"Datasets '{dataset_names[0]}' and '{name}' have different metadata '{key}': {values[0]} and {value}"
            )


def build_augmentation(cfg, is_train: bool) -> list[T.Augmentation]:
    """The default augmentations of a config: resize the shortest edge and, in training, flip.

    Reads ``INPUT.{MIN,MAX}_SIZE_{TRAIN,TEST}``, ``INPUT.MIN_SIZE_TRAIN_SAMPLING`` and ``INPUT.RANDOM_FLIP``.
    """
    if not is_train:
        return [T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, "choice")]
    augmentations: list[T.Augmentation] = [
        T.ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING)
    ]
    flip = cfg.INPUT.RANDOM_FLIP
    if flip != "none":
        augmentations.append(T.RandomFlip(horizontal=flip == "horizontal", vertical=flip == "vertical"))
    return augmentations


build_transform_gens = build_augmentation  # its name in older code
