"""Segmentations painted over images, with unseen classes marked; input, ground truth and prediction side by side."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from scipy.ndimage import find_objects

from PADing.visualization.labels import Label, draw_labels
from PADing.visualization.lettering import RGB, UNSEEN_SIGN, shorten_to, write

UNSEEN_RGB, SEEN_RGB = (255, 0, 200), (255, 255, 255)
OPACITY = 0.38  # of the colour of a class over the image
LINE, UNSEEN_LINE = 2, 4  # widths of outlines: white beside the colour of the class; magenta
READABLE_SIDE = 400  # longer side in pixels; names are hard to read on smaller images, so these are enlarged
USUAL_SIDE, LETTERS = 850, 12  # lines and letters are for images of this side if square, and grow with larger ones
STRIP = 1 << 20  # pixels that are painted at a time
HATCH, HATCH_LIGHT, HATCH_DARK = 9, 205, 150  # distance of the lines where there is no answer, and their greys
HEAD, FOOT = 22, 20  # rows of a title above a column, and of the key
KEY = f"{UNSEEN_SIGN} and magenta: unseen class"
KEY_HATCHED = "grey hatching: no answer, or not annotated"


@dataclass(frozen=True)
class Segmentation:
    """A panoptic segmentation: ``ids`` (H, W) is an integer map of segment ids, 0 where there is none.

    ``classes`` is segment id -> contiguous class id, ``scores`` segment id -> score in 0..1, where it has one (written
    behind the name). ``stuff`` are ids of the segments that are known to be stuff, on which things stand.
    ``complete``: each pixel should belong to a segment, so pixels of none are hatched.
    """

    ids: np.ndarray
    classes: dict[int, int]
    scores: Mapping[int, float] = field(default_factory=dict)
    stuff: Collection[int] = ()
    complete: bool = False


def display_scale(height: int, width: int) -> int:
    """The factor that enlarges an image enough for names to be readable on it."""
    return max(1, READABLE_SIDE // max(height, width))


def class_colour(index: int) -> RGB:
    """A fixed RGB colour for a class index; neighbours differ clearly, and none is near the magenta of unseen ones."""
    hue = index * 91.47 % 148  # golden-angle steps through all hues but the 32 (of 180) around magenta
    hsv = [[[int(hue if hue < 140 else hue + 32), 150 + 50 * (index % 3), 235 - 45 * (index % 2)]]]
    red, green, blue = cv2.cvtColor(np.array(hsv, dtype=np.uint8), cv2.COLOR_HSV2RGB)[0, 0].tolist()
    return red, green, blue


def paint(
    image: np.ndarray, seg: Segmentation, names: Sequence[str], unseen: Collection[int], scale: int = 1
) -> np.ndarray:
    """Draw a segmentation over an image (H, W, 3) or (H, W) uint8, RGB or grey: (H * scale, W * scale, 3).

    Seen segments get an outline in white and the colour of the class, unseen ones a thicker one in magenta, inside the
    segment. Unseen stuff has no outline along the things that stand on it, which would look as if these were unseen.
    ``names`` are those of classes by contiguous id, ``unseen`` the contiguous ids of unseen classes.

    Beside its result, it takes about 6 bytes for each pixel of the result.
    """
    out = _as_rgb(image, scale)
    segments = sorted(seg.classes)
    numbers = _numbered(seg.ids, segments)
    if scale > 1:
        numbers = _enlarge_numbers(numbers, scale, len(segments))
    labels = [seg.classes[segment] for segment in segments]
    brush = _Brush(seg, segments, labels, unseen, _growth(out))
    rows = max(2 * brush.halo, STRIP // max(1, out.shape[1]))
    for start in range(0, len(out), rows):
        brush.stroke(out, numbers, start, min(len(out), start + rows))
    written = [
        Label(number, names[label], class_colour(label), label in unseen, seg.scores.get(segment))
        for number, (segment, label) in enumerate(zip(segments, labels, strict=True), start=1)
    ]
    draw_labels(out, numbers, written, _letters(out), _growth(out))
    return out


class _Brush:
    """Paints areas, hatching and outlines; its tables are indexed by the number of a segment, 0 for none."""

    def __init__(self, seg: Segmentation, segments: list[int], labels: list[int], unseen: Collection[int], thick: int):
        self.thick, self.hatched, self.halo = thick, seg.complete, UNSEEN_LINE * thick
        self.colours = np.array([(0, 0, 0), *map(class_colour, labels)], dtype=np.uint8)
        self.marked = np.array([False, *(label in unseen for label in labels)])
        self.ground = np.array([False, *(segment in seg.stuff for segment in segments)]) & self.marked
        self.stands = np.array([False, *(segment not in seg.stuff for segment in segments)])

    def stroke(self, out: np.ndarray, numbers: np.ndarray, start: int, stop: int) -> None:
        """Paint the rows ``start`` to ``stop``."""
        part, which = out[start:stop], numbers[start:stop]
        colours = self.colours[which]
        filled = cv2.addWeighted(part, 1 - OPACITY, colours, OPACITY, 0)
        np.copyto(part, filled, where=(which > 0)[..., None])
        if self.hatched:
            self._hatch(part, which, start)
        low = max(0, start - self.halo)
        block, at = numbers[low : stop + self.halo], slice(start - low, stop - low)
        edges = (start == 0, stop == len(numbers))
        marked = self.marked[which]
        line = self._ends(block, LINE * self.thick, None)[at] & (which > 0) & ~marked
        np.copyto(part, colours, where=line[..., None])
        line &= self._ends(block, self.thick, None)[at]
        part[line] = SEEN_RGB
        if marked.any():
            line = self._ends(block, UNSEEN_LINE * self.thick, edges)[at] & marked
            ground = self.ground[which]
            if ground.any():
                line &= ~ground
                line |= self._ends(block, UNSEEN_LINE * self.thick, edges, through_things=True)[at] & ground
            part[line] = UNSEEN_RGB

    def _ends(
        self, numbers: np.ndarray, width: int, edges: tuple[bool, bool] | None, through_things: bool = False
    ) -> np.ndarray:
        """Pixels at most ``width`` from another segment.

        ``edges``: the image's edge is an end, too: of the sides, and of top and bottom where it says so. With
        ``through_things``, things count as part of each segment.
        """
        window = np.ones((2 * width + 1, 2 * width + 1), dtype=np.uint8)
        lowest = highest = numbers
        if through_things:
            things = self.stands[numbers]
            highest, lowest = np.where(things, 0, numbers), np.where(things, np.uint16(65535), numbers)
        if edges is not None:  # none of the segments has the number 0
            pads = [(width * edges[0], width * edges[1]), (width, width)]
            lowest = np.pad(lowest, pads)
        found = cv2.dilate(highest, window) != numbers
        lowest = cv2.erode(lowest, window)
        if edges is not None:
            lowest = lowest[pads[0][0] : lowest.shape[0] - pads[0][1], width:-width]
        return found | (lowest != numbers)

    def _hatch(self, part: np.ndarray, numbers: np.ndarray, start: int) -> None:
        """Grey diagonal lines over a pale grey image."""
        empty = numbers == 0
        if not empty.any():
            return
        grey = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY)
        grey = cv2.addWeighted(grey, 0.35, np.full_like(grey, HATCH_LIGHT), 0.65, 0)
        step = HATCH * self.thick
        y, x = np.arange(start, start + len(part)), np.arange(part.shape[1])
        line = (y[:, None].astype(np.int32) + x[None].astype(np.int32)) % step < max(1, step // 4)
        grey[line] = cv2.addWeighted(grey, 0.3, np.full_like(grey, 80), 0.7, 0)[line]
        np.copyto(part, grey[..., None], where=empty[..., None])


def panel(
    image: np.ndarray,
    columns: Sequence[tuple[str, Segmentation]],
    names: Sequence[str],
    unseen: Collection[int],
    scale: int = 1,
) -> np.ndarray:
    """``input | column 1 | column 2 ...`` with a title above each; arguments as :func:`paint`'s."""
    tiles = [("input", _as_rgb(image, scale))]
    tiles += [(title, paint(image, seg, names, unseen, scale)) for title, seg in columns]
    grow, framed = _growth(tiles[0][1]), []
    for title, tile in tiles:
        head = np.full((HEAD * grow, tile.shape[1], 3), 255, dtype=np.uint8)
        _write_line(head, title, LETTERS * grow, 2 * grow)
        framed.append(np.pad(np.vstack([head, tile]), ((0, 4), (2, 2), (0, 0)), constant_values=255))
    return np.hstack(framed)


def with_key(drawing: np.ndarray, hatched: bool) -> np.ndarray:
    """A drawing with a line below it that says what magenta and, if ``hatched``, hatching mean."""
    grow = _growth(drawing[:, : drawing.shape[1] // 3])
    foot = np.full((FOOT * grow, drawing.shape[1], 3), 255, dtype=np.uint8)
    _write_line(foot, f"{KEY}     {KEY_HATCHED}" if hatched else KEY, LETTERS * grow, 4 * grow)
    return np.vstack([drawing, foot])


def _write_line(strip: np.ndarray, text: str, size: int, left: int) -> None:
    text = shorten_to(text, strip.shape[1] - left, size)
    if text and len(strip) >= size:
        write(strip, text, left, len(strip) // 2, size, (0, 0, 0))


def _growth(image: np.ndarray) -> int:
    return max(1, round(math.sqrt(image.shape[0] * image.shape[1]) / USUAL_SIDE))


def _letters(image: np.ndarray) -> int:
    return max(LETTERS, round(LETTERS * math.sqrt(image.shape[0] * image.shape[1]) / USUAL_SIDE))


def _as_rgb(image: np.ndarray, scale: int) -> np.ndarray:
    """A copy, enlarged, (H, W, 3)."""
    if image.ndim == 2 or image.shape[2] == 1:
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    if scale == 1:
        return np.array(image, order="C")
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def _enlarge_numbers(numbers: np.ndarray, scale: int, count: int) -> np.ndarray:
    """Enlarge a map of segments; where segments meet, the one with the greater interpolated share has the pixel."""
    height, width = numbers.shape
    out = np.zeros((height * scale, width * scale), dtype=np.uint16)
    best = np.zeros(out.shape, dtype=np.uint8)
    empty = numbers.max(initial=0) + 1
    filled = np.where(numbers == 0, empty, numbers)  # what is empty competes like a segment
    for number, box in enumerate(find_objects(filled, max_label=int(empty)), start=1):
        if box is None:
            continue
        rows, columns = (slice(max(0, part.start - 1), part.stop + 1) for part in box)
        mask = (filled[rows, columns] == number).astype(np.uint8) * 255
        share = cv2.resize(mask, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        part = tuple(slice(s.start * scale, s.stop * scale) for s in (rows, columns))
        wins = share > best[part]
        best[part][wins] = share[wins]
        out[part][wins] = 0 if number == empty else number
    return out


def _numbered(ids: np.ndarray, segments: Sequence[int]) -> np.ndarray:
    """Positions 1, 2, ... in ``segments`` (ascending ids) instead of ids, 0 for all others: (H, W) uint16."""
    numbers = np.zeros(ids.shape, dtype=np.uint16)
    if segments:
        known, rows = np.asarray(segments), max(1, STRIP // max(1, ids.shape[1]))
        for start in range(0, len(ids), rows):
            part = ids[start : start + rows]
            place = np.searchsorted(known, part).clip(max=len(known) - 1)
            numbers[start : start + rows] = np.where((known[place] == part) & (part != 0), place + 1, 0)
    return numbers
