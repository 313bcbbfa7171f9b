"""Segmentations painted over images, with unseen classes marked; input, ground truth and prediction side by side."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.ndimage import find_objects

from PADing.visualization.labels import Label, draw_labels

UNSEEN_RGB, SEEN_RGB = (255, 0, 200), (255, 255, 255)
DARK = (30, 30, 30)
OPACITY = 0.55
READABLE_SIDE = 400  # longer side in pixels; names are hard to read on smaller images, so these are enlarged
USUAL_SIDE, LETTERS = 1000, 12  # lines and letters are drawn for images of this side, and grow with larger ones
STRIP = 256  # rows that are painted at a time


@dataclass(frozen=True)
class Segmentation:
    """A panoptic segmentation: ``ids`` (H, W) is an integer map of segment ids, 0 where there is none.

    ``classes`` is segment id -> contiguous class id, ``scores`` segment id -> score in 0..1, where it has one (written
    behind the name); ``stuff`` are ids of the segments that are known to be stuff, on which things stand.
    """

    ids: np.ndarray
    classes: dict[int, int]
    scores: Mapping[int, float] = field(default_factory=dict)
    stuff: Collection[int] = ()


def display_scale(height: int, width: int) -> int:
    """By what to enlarge an image so that names on it can be read."""
    return max(1, READABLE_SIDE // max(height, width))


def class_colour(index: int) -> tuple[int, int, int]:
    """A fixed RGB colour for a class index; neighbours differ clearly (golden-angle steps in hue)."""
    hsv = [[[int(index * 111.246) % 180, 150 + 50 * (index % 3), 235 - 45 * (index % 2)]]]
    red, green, blue = cv2.cvtColor(np.array(hsv, dtype=np.uint8), cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def paint(
    image: np.ndarray, seg: Segmentation, names: Sequence[str], unseen: Collection[int], scale: int = 1
) -> np.ndarray:
    """Draw a segmentation over an image (H, W, 3) uint8 RGB: (H * scale, W * scale, 3).

    Seen segments get a thin white outline, unseen ones a thick magenta one, inside the segment. Unseen stuff has none
    along the things that stand on it, which would look as if these were unseen. ``names`` are those of classes by
    contiguous id, ``unseen`` the contiguous ids of unseen classes.
    """
    out = np.array(_enlarge(image, scale, cv2.INTER_CUBIC))
    segments = sorted(seg.classes)
    numbers = _enlarge(_numbered(seg.ids, segments), scale, cv2.INTER_NEAREST)
    colours = [class_colour(seg.classes[segment]) for segment in segments]
    tint = OPACITY * np.array([(0, 0, 0), *colours], dtype=np.float32)
    share = np.array([1, *[1 - OPACITY] * len(colours)], dtype=np.float32)
    for start in range(0, len(out), STRIP):
        part, which = out[start : start + STRIP], numbers[start : start + STRIP]
        part[:] = part * share[which][..., None] + tint[which]
    thick = _growth(out)
    is_thing = np.array([False, *(segment not in seg.stuff for segment in segments)])
    labels = []
    for number, box in enumerate(find_objects(numbers, max_label=len(segments)), start=1):
        if box is None:
            continue
        label = seg.classes[segments[number - 1]]
        marked = label in unseen
        width = (3 if marked else 1) * thick
        box = tuple(slice(max(0, part.start - width), part.stop + width) for part in box)
        part = numbers[box]
        region = part == number
        body = region if is_thing[number] or not marked else region | is_thing[part]
        kernel = np.ones((2 * width + 1, 2 * width + 1), dtype=np.uint8)
        # The edge of the image counts as an end of unseen segments only: one may fill the image.
        edge = cv2.BORDER_CONSTANT
        inner = cv2.erode(body.astype(np.uint8), kernel, borderType=edge, borderValue=0 if marked else 1)
        line = region & (inner == 0)
        out[box][line] = UNSEEN_RGB if marked else SEEN_RGB
        score = seg.scores.get(segments[number - 1])
        text = names[label] + ("" if score is None else f" {score:.0%}")
        labels.append(Label(text, UNSEEN_RGB if marked else DARK, region, box[0].start, box[1].start, marked))
    draw_labels(out, labels, LETTERS * thick)
    return out


def panel(
    image: np.ndarray,
    columns: Sequence[tuple[str, Segmentation]],
    names: Sequence[str],
    unseen: Collection[int],
    scale: int = 1,
) -> np.ndarray:
    """``input | column 1 | column 2 ...`` with a title above each; arguments as :func:`paint`'s."""
    tiles = [("input", _enlarge(image, scale, cv2.INTER_CUBIC))]
    tiles += [(title, paint(image, seg, names, unseen, scale)) for title, seg in columns]
    grow, framed = _growth(tiles[0][1]), []
    for title, tile in tiles:
        head = np.full((22 * grow, tile.shape[1], 3), 255, dtype=np.uint8)
        place, font = (4 * grow, 16 * grow), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(head, title, place, font, 0.45 * grow, (0, 0, 0), grow, cv2.LINE_AA)
        framed.append(np.pad(np.vstack([head, tile]), ((0, 4), (2, 2), (0, 0)), constant_values=255))
    return np.hstack(framed)


def _growth(image: np.ndarray) -> int:
    return max(1, round(max(image.shape[:2]) / USUAL_SIDE))


def _enlarge(array: np.ndarray, scale: int, interpolation: int) -> np.ndarray:
    if scale == 1:
        return array
    return cv2.resize(array, None, fx=scale, fy=scale, interpolation=interpolation)


def _numbered(ids: np.ndarray, segments: Sequence[int]) -> np.ndarray:
    """Positions 1, 2, ... in ``segments`` (ascending ids) instead of ids, 0 for all others: (H, W) uint16."""
    numbers = np.zeros(ids.shape, dtype=np.uint16)
    if segments:
        known = np.asarray(segments)
        for start in range(0, len(ids), STRIP):
            part = ids[start : start + STRIP]
            place = np.searchsorted(known, part).clip(max=len(known) - 1)
            numbers[start : start + STRIP] = np.where((known[place] == part) & (part != 0), place + 1, 0)
    return numbers
