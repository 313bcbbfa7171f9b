"""Input, ground truth and prediction side by side, with unseen classes marked."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

__all__ = ["Segmentation", "paint", "panel"]

UNSEEN_RGB = (255, 0, 200)
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Segmentation:
    """A panoptic segmentation.

    ids: (H, W) integer map of segment ids, 0 where there is none.
    classes: segment id -> contiguous class id.
    """

    ids: np.ndarray
    classes: dict[int, int]


def class_colour(index: int) -> tuple[int, int, int]:
    """A fixed RGB colour for a class index; neighbours differ clearly (golden-angle steps in hue)."""
    hsv = np.uint8([[[int(index * 111.246) % 180, 150 + 50 * (index % 3), 235 - 45 * (index % 2)]]])
    return tuple(int(v) for v in cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0])


def paint(
    image: np.ndarray, seg: Segmentation, names: Sequence[str], unseen: Sequence[int], scale: int = 1
) -> np.ndarray:
    """Draw a segmentation over an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        seg: what to draw; its map has the size of the image.
        names: class names by contiguous id.
        unseen: contiguous ids whose segments get a thick outline and a marked name.
        scale: enlargement of the result.

    Returns:
        (H * scale, W * scale, 3) uint8 RGB.
    """
    image = _enlarge(image, scale, cv2.INTER_CUBIC)
    ids = _enlarge(seg.ids.astype(np.int32), scale, cv2.INTER_NEAREST)
    out = image.astype(np.float32)
    for segment, label in seg.classes.items():
        mask = ids == segment
        out[mask] = 0.45 * out[mask] + 0.55 * np.array(class_colour(label), dtype=np.float32)
    out = np.ascontiguousarray(out.astype(np.uint8))
    # Seen outlines first, so that an unseen outline is never hidden by its neighbour's.
    order = sorted(seg.classes.items(), key=lambda item: item[1] in unseen)
    for segment, label in order:
        contours, _ = cv2.findContours((ids == segment).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        colour, width = (UNSEEN_RGB, 3) if label in unseen else ((255, 255, 255), 1)
        cv2.drawContours(out, contours, -1, colour, width, cv2.LINE_AA)
    for segment, label in order:
        _write_name(out, ids == segment, names[label], label in unseen)
    return out


def panel(
    image: np.ndarray,
    columns: Sequence[tuple[str, Segmentation]],
    names: Sequence[str],
    unseen: Sequence[int],
    scale: int = 1,
) -> np.ndarray:
    """``input | column 1 | column 2 ...`` with a title above each; arguments as :func:`paint`'s."""
    tiles = [("input", _enlarge(image, scale, cv2.INTER_CUBIC))]
    tiles += [(title, paint(image, seg, names, unseen, scale)) for title, seg in columns]
    framed = []
    for title, tile in tiles:
        head = np.full((22, tile.shape[1], 3), 255, dtype=np.uint8)
        cv2.putText(head, title, (4, 16), _FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        framed.append(np.pad(np.vstack([head, tile]), ((0, 4), (2, 2), (0, 0)), constant_values=255))
    return np.hstack(framed)


def _enlarge(array: np.ndarray, scale: int, interpolation: int) -> np.ndarray:
    if scale == 1:
        return array
    return cv2.resize(array, None, fx=scale, fy=scale, interpolation=interpolation)


def _write_name(out: np.ndarray, mask: np.ndarray, name: str, unseen: bool) -> None:
    """Write the class name at the innermost point of the mask, on a dark (seen) or marked (unseen) box."""
    if not mask.any():
        return
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    (width, height), base = cv2.getTextSize(name, _FONT, 0.38, 1)
    left = int(np.clip(x - width // 2, 1, max(1, out.shape[1] - width - 2)))
    bottom = int(np.clip(y + height // 2, height + 2, out.shape[0] - base - 1))
    box = UNSEEN_RGB if unseen else (30, 30, 30)
    cv2.rectangle(out, (left - 2, bottom - height - 2), (left + width + 1, bottom + base), box, -1)
    cv2.putText(out, name, (left, bottom), _FONT, 0.38, (255, 255, 255), 1, cv2.LINE_AA)
