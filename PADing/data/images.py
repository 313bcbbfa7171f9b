"""Reads images and label maps of many pixel formats; the message for any other format says why it is refused.

An image is read as 8-bit RGB (or BGR), rotated by its EXIF orientation, without an alpha channel; of an animation only
the first frame. Label maps are read as stored, because their values are class numbers, not brightness.
"""

import os
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from detectron2.utils.file_io import PathManager
from PIL import Image, ImageOps, UnidentifiedImageError

from PADing.errors import UserError

PIXEL_LIMIT = "PADING_MAX_IMAGE_PIXELS"
DEFAULT_MAX_PIXELS = 178_956_970  # Pillow's own limit
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
_EXIF_ORIENTATION = 274


class CorruptFile(UserError):
    """An image or annotation that cannot be used; the message names the file and the reason."""


def max_pixels() -> int:
    """The largest number of pixels that an image may have: ``$PADING_MAX_IMAGE_PIXELS``, by default 178,956,970."""
    text = os.environ.get(PIXEL_LIMIT)
    if text is None:
        return DEFAULT_MAX_PIXELS
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UserError(f"The environment variable {PIXEL_LIMIT} must be a number of pixels, but is {text!r}.")
    return int(text)


def read_image(path: str | os.PathLike, image_format: str = "RGB") -> np.ndarray:
    """Read an image as uint8 (H, W, 3).

    16-bit values are scaled to 8 bits. Pixels of unknown range (32-bit integers, floats) and LAB colors are refused.

    Args:
        path: a file, or a URL that Detectron2's ``PathManager`` supports.
        image_format: the order of the channels, "RGB" or "BGR".

    Raises:
        CorruptFile: no such file, not an image, damaged, an unsupported pixel format, or too many pixels.
    """
    if image_format not in ("RGB", "BGR"):
        raise UserError(f"INPUT.FORMAT must be RGB or BGR, but is {image_format!r}.")
    rgb = np.asarray(read_picture(path))
    return rgb[:, :, ::-1] if image_format == "BGR" else rgb


def read_picture(path: str | os.PathLike, least: tuple[int, int] | None = None) -> Image.Image:
    """As ``read_image``, but an RGB image of Pillow, whose pixels need not be copied before they are resized.

    Args:
        path: a file, or a URL.
        least: (H, W), rotated by the EXIF orientation: a JPEG may be decoded at a half, a quarter or an eighth of its
            size if this many pixels remain. It takes less time, and the pixels are not those of a resized image.
    """

    def decode(image: Image.Image) -> Image.Image:
        if least is not None:
            height, width = least if _orientation(image) < 5 else least[::-1]
            image.draft(None, (max(width, 1), max(height, 1)))
        return _eight_bit(_upright(image), image)

    return _decode(path, "Image", decode)


def read_size(path: str | os.PathLike) -> tuple[int, int, int]:
    """Height and width as stored, and EXIF orientation (1..8; 1 if there is none), of an image.

    CorruptFile as ``read_image``; most formats are not decoded for it.
    """
    return _decode(path, "Image", lambda image: (image.height, image.width, _orientation(image)))


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # broken EXIF data: the image is used as stored
        return 1
    return orientation if orientation in range(1, 9) else 1


def check_eight_bit(path: str | os.PathLike) -> None:
    """CorruptFile for pixel formats that Detectron2's reader would turn white or black; reads only the file's head."""

    def decode(image: Image.Image) -> None:
        if image.mode in ("F", "LAB") or image.mode.startswith("I"):
            raise _Unfit(
                f"Detectron2's mapper (INPUT.DATASET_MAPPER_NAME default) misreads its pixels (mode {image.mode}); "
                "save it with 8 bits, or choose another mapper"
            )

    _decode(path, "Image", decode)


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """Read a map of class labels as stored: (H, W) of an integer type, grey values or palette indices.

    Raises:
        CorruptFile: as ``read_image``; several channels; floating-point values; a JPEG, whose compression changes
            values.
    """

    def decode(image: Image.Image) -> np.ndarray:
        _refuse_jpeg(image)
        if image.mode == "1":
            return np.asarray(_upright(image)).astype(np.uint8)  # 0 and 1; Pillow's conversion would give 0 and 255
        if len(image.getbands()) > 1:
            raise _Unfit(f"it has {len(image.getbands())} channels; class labels need a single one")
        if image.mode == "F":
            raise _Unfit("its values are floating-point numbers; class labels are whole numbers")
        return np.asarray(_upright(image))

    return _decode(path, "Label file", decode)


def check_class_labels(labels: np.ndarray, path: str, count: int, ignore_label: int) -> None:
    """CorruptFile if labels (H, W), read from ``path``, have other values than 0..count - 1 and ``ignore_label``."""
    wrong = labels[((labels >= count) | (labels < 0)) & (labels != ignore_label)]
    if wrong.size:
        values = ", ".join(str(int(value)) for value in np.unique(wrong)[:5])
        raise CorruptFile(
            f"Label file {path} has the values {values}, but there are {count} classes: labels must be contiguous ids "
            f"0..{count - 1}, or {ignore_label} for pixels without a label. datasets/prepare_coco_stuff_sem_seg.py "
            "converts them (with --ignore 0 if 0 is background; see docs/your_data.md)."
        )


def read_panoptic_ids(path: str | os.PathLike) -> np.ndarray:
    """Read a PNG in COCO's panoptic format as segment ids R + 256 G + 65536 B, (H, W) int32.

    Raises:
        CorruptFile: as ``read_image``; not a PNG with 8 bits per channel.
    """

    def decode(image: Image.Image) -> np.ndarray:
        rgb = _panoptic(image)
        # Pillow keeps a pixel as four bytes, lowest first those of the id. The last byte has no meaning.
        pixels = np.frombuffer(rgb.tobytes("raw", "RGBX"), dtype="<i4").reshape(rgb.height, rgb.width)
        return (pixels & 0xFFFFFF).astype(np.int32, copy=False)

    return _decode(path, "Panoptic PNG", decode)


def _panoptic(image: Image.Image) -> Image.Image:
    """A panoptic PNG as 8-bit RGB."""
    _refuse_jpeg(image)
    tile = getattr(image, "tile", None)
    raw_mode = str(tile[0][3]) if tile else ""
    if image.format != "PNG" or image.mode not in ("RGB", "RGBA", "P", "L") or "16" in raw_mode:
        depth = "16 bits per channel" if "16" in raw_mode else f"mode {image.mode}"
        raise _Unfit(
            f"it is a {image.format} file with {depth}, but panoptic annotation is an RGB PNG with 8 bits per "
            "channel, whose colors are segment ids"
        )
    upright = _upright(image)
    return upright if upright.mode == "RGB" else upright.convert("RGB")


def empty_segments(ids: np.ndarray, segments: Sequence[dict], path: str | os.PathLike) -> set[int]:
    """The ids of listed segments without a pixel; correct data may have a few. Unlisted ids are void.

    Args:
        ids: (H, W) segment ids, the content of ``path``.
        segments: ``segments_info`` of its JSON.
        path: the PNG, for messages.

    Raises:
        CorruptFile: fewer than half of the segments whose ``area`` is not 0 have a pixel, so the PNG is of another
            image.
    """
    painted = present_ids(ids)
    expected = {segment["id"] for segment in segments if segment.get("area", 1) > 0}
    missing = sorted(expected - painted)
    if 2 * len(missing) > len(expected):
        shown = ", ".join(map(str, missing[:5])) + (" ..." if len(missing) > 5 else "")
        raise CorruptFile(
            f"Panoptic PNG {path} has no pixel of {len(missing)} of the {len(expected)} segments that its annotation "
            f"lists (ids {shown}), so the two do not belong together."
        )
    return {segment["id"] for segment in segments} - painted


def present_ids(ids: np.ndarray) -> set[int]:
    """The values in a map (H, W) of integers."""
    flat = ids.ravel()
    # Look only at pixels that differ from the one before: ten times faster than sorting all pixels.
    return {*flat[:1].tolist(), *np.unique(flat[1:][flat[1:] != flat[:-1]]).tolist()}


class _Unfit(Exception):
    """The reason to refuse a readable file; ``_decode`` turns it into a CorruptFile."""


def _decode(path: str | os.PathLike, what: str, convert: Callable[[Image.Image], Any]) -> Any:
    limit = max_pixels()
    Image.MAX_IMAGE_PIXELS = limit / 2  # type: ignore[assignment]  # Pillow refuses more than twice this number
    try:
        file_name = PathManager.get_local_path(os.fspath(path))
        if not os.path.exists(file_name):
            raise CorruptFile(f"{what} {path} does not exist.")
        if not os.path.isfile(file_name):
            raise CorruptFile(f"{what} {path} is a folder or a device, not a file.")
        if os.path.getsize(file_name) == 0:
            raise _Unfit("it is empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and large sizes; real problems are raised
            with open(file_name, "rb") as file, Image.open(file) as image:
                if image.format == "EPS":
                    raise _Unfit("it is PostScript, which is a program; convert it to PNG or JPEG")
                return convert(image)
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise many types for damaged data, even SyntaxError
        raise CorruptFile(f"{what} {path} cannot be read: {_reason(error, limit)}.") from error


def _reason(error: Exception, limit: int) -> str:
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        pixels = "".join(f"{int(number):,}, but " for number in re.findall(r"\d+", text)[:1])
        return (
            f"it has too many pixels: {pixels}the limit is {limit:,}, because a small file could fill the memory; "
            f"if you trust it, set the environment variable {PIXEL_LIMIT} to a higher number"
        )
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image, or its first bytes are damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (
        text if isinstance(error, (_Unfit, MemoryError)) else f"{text}; it is damaged or incomplete, so fetch it again"
    )


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    if _orientation(image) == 1:
        return image
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF data: use the image as stored
        return image


def _eight_bit(image: Image.Image, stored: Image.Image) -> Image.Image:
    """An image as 8-bit RGB; ``stored`` is the image before rotation, with the file's metadata."""
    # 16-bit grey PNG and PGM files have this mode in some versions of Pillow.
    if image.mode in _SIXTEEN_BIT or image.mode == "I" and stored.format in ("PNG", "PPM"):
        tags = getattr(stored, "tag_v2", {})
        top = 2 ** tags.get(_TIFF_BITS, (16,))[0] - 1
        values = np.asarray(image).astype(np.int64)
        if tags.get(_TIFF_PHOTOMETRIC) == 0:
            values = top - values  # 0 is white
        grey = ((255 * values + top // 2) // top).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    if image.mode in ("I", "F"):
        kind = f"32-bit numbers (mode {image.mode}), whose range is not known"
        raise _Unfit(f"its pixels are {kind}; save it with 8 or 16 bits")
    if image.mode == "LAB":
        raise _Unfit("its colors are in LAB; save it as RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _refuse_jpeg(image: Image.Image) -> None:
    if image.format in ("JPEG", "MPO"):
        raise _Unfit("it is a JPEG, whose compression changes values; save labels as PNG")
