"""Class names on images: never one over another, and on or beside what they name."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from PADing.visualization.lettering import RGB, UNSEEN_SIGN, WHITE, one_line, shorten, text_width, write

GRID = 512  # places are looked for on a grid of at most so many cells a side
SHORT = 6  # letters that are left of a name for which there is no room
LEADER = 6  # longest leader line, in heights of a label
MOST_OTHERS = 0.6  # share of a label that may hide other segments
UNSEEN_BOX, SEEN_BOX = (190, 0, 150), (25, 25, 25)  # white letters on them have a contrast above 5
OPAQUE = 0.8  # of the box behind a seen class's name


@dataclass(frozen=True)
class Label:
    """The name of a segment: ``number`` in the map of segments. ``score`` is written behind the name.

    ``colour`` is that of the class, ``unseen`` names have a sign, bold letters and a magenta box.
    """

    number: int
    name: str
    colour: RGB
    unseen: bool = False
    score: float | None = None

    def texts(self) -> list[str]:
        """What can be written, the longest text first."""
        name = one_line(self.name) or "?"
        full = name if self.score is None else f"{name} {self.score:.0%}"
        return list(dict.fromkeys((full, name, shorten(name, 2 * SHORT), shorten(name, SHORT))))


@dataclass(frozen=True)
class Place:
    """Where a label is written: the text's box, in pixels, and where its leader line ends (None without a line)."""

    label: Label
    text: str
    top: int
    left: int
    height: int
    width: int
    target: tuple[int, int] | None = None


def draw_labels(image: np.ndarray, numbers: np.ndarray, labels: Sequence[Label], size: int, thick: int = 1) -> None:
    """Write names into (H, W, 3) uint8 RGB, with letters of ``size`` pixels; ``numbers`` (H, W) is the segment map."""
    placed = place_labels(numbers, labels, size)
    for place in placed:
        if place.target:
            _draw_leader(image, place, thick)
    for place in placed:
        _draw_box(image, place, size)


def place_labels(numbers: np.ndarray, labels: Sequence[Label], size: int) -> list[Place]:
    """Find a place for each label: unseen classes first, then large segments.

    Tried in this order: the name on or beside its segment, without its score, shortened; the same at the end of a
    leader line; the shortened name over other segments. A label without any free place is left out.
    """
    height, width = numbers.shape
    cell = -(-max(height, width) // GRID)
    grid = _Grid(np.ascontiguousarray(numbers[cell // 2 :: cell, cell // 2 :: cell]), cell)
    count = max((label.number for label in labels), default=0) + 1
    areas = np.bincount(grid.numbers.ravel(), minlength=count)
    placed = []
    for label in sorted(labels, key=lambda item: (not item.unseen, -areas[item.number])):
        if areas[label.number] == 0:
            continue  # it has no pixel, or falls between the grid's cells
        region = _Region(grid, label.number)
        place = next(_offers(grid, region, label, size, (height, width)), None)
        if place is not None:
            placed.append(place)
            grid.take(place)
    return placed


class _Grid:
    """Segment numbers by cell, and which cells hold a label already."""

    def __init__(self, numbers: np.ndarray, cell: int):
        self.numbers, self.cell = numbers, cell
        self.taken = np.zeros(numbers.shape, dtype=bool)

    def take(self, place: Place) -> None:
        """Mark the cells below a label, and those that its leader line crosses."""
        rows = slice(place.top // self.cell, -(-(place.top + place.height) // self.cell))
        self.taken[rows, place.left // self.cell : -(-(place.left + place.width) // self.cell)] = True
        if place.target:
            taken = self.taken.astype(np.uint8)
            start, end = ((x // self.cell, y // self.cell) for y, x in (_centre(place), place.target))
            self.taken = cv2.line(taken, start, end, 1, 1).astype(bool)


class _Region:
    """A segment's cells: its box (rows, columns), and the cell that is farthest from its end."""

    def __init__(self, grid: _Grid, number: int):
        found = grid.numbers == number
        rows, columns = (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
        self.number, self.area = number, int(np.count_nonzero(found))
        self.rows, self.columns = (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1)
        part = np.pad(found[slice(*self.rows), slice(*self.columns)], 1).astype(np.uint8)
        depth = cv2.distanceTransform(part, cv2.DIST_L2, 3)
        y, x = np.unravel_index(int(depth.argmax()), depth.shape)
        self.centre = (self.rows[0] + int(y) - 1, self.columns[0] + int(x) - 1)
        self.depth = float(depth.max())


def _offers(grid: _Grid, region: _Region, label: Label, size: int, shape: tuple[int, int]) -> Iterator[Place]:
    """Places for a label, the best first."""
    tall = size + 2 * _margin(size)
    texts = [(text, _width(label, text, size)) for text in label.texts()]
    texts = [(text, wide) for text, wide in texts if wide <= shape[1] and tall <= shape[0]]
    for text, wide in texts:
        if found := _on_segment(grid, region, tall, wide, shape):
            yield Place(label, text, *found, tall, wide)
    y, x = (at * grid.cell + grid.cell // 2 for at in region.centre)
    target = min(y, shape[0] - 1), min(x, shape[1] - 1)
    for text, wide in texts:
        if found := _beside(grid, region, tall, wide, shape):
            yield Place(label, text, *found, tall, wide, target)
    for text, wide in texts[-1:]:
        if found := _on_segment(grid, region, tall, wide, shape, most_others=1.0):
            yield Place(label, text, *found, tall, wide)


def _on_segment(
    grid: _Grid, region: _Region, tall: int, wide: int, shape: tuple[int, int], most_others: float = MOST_OTHERS
) -> tuple[int, int] | None:
    """The best top left pixel of a box that touches the segment."""
    window = _Window(grid, region, tall, wide, shape, reach=1)
    if window.empty:
        return None
    own = (window.numbers == region.number).astype(np.uint8)
    shown = window.sums(own)
    near = window.sums(cv2.dilate(own, np.ones((3, 3), np.uint8)))
    box = window.rows * window.columns
    inside = shown / box
    others = window.sums((window.numbers != 0) & (own == 0)) / box
    hidden = shown / region.area
    depth = window.at_centres(cv2.distanceTransform(np.pad(own, 1), cv2.DIST_L2, 3)[1:-1, 1:-1])
    beyond = window.at_centres(cv2.distanceTransform(1 - own, cv2.DIST_L2, 3)) if own.min() == 0 else 0.0
    score = inside - others - 1.5 * np.maximum(0, hidden - 0.25)
    score = score + 0.4 * depth / region.depth - 0.5 * beyond / window.rows
    score[(near == 0) | (others > most_others) | window.blocked] = -np.inf
    return window.best(score)


def _beside(grid: _Grid, region: _Region, tall: int, wide: int, shape: tuple[int, int]) -> tuple[int, int] | None:
    """The nearest free top left pixel, where the box hides as little of other segments as possible."""
    window = _Window(grid, region, tall, wide, shape, reach=LEADER)
    if window.empty:
        return None
    others = window.sums(window.numbers != 0) / (window.rows * window.columns)
    y, x = window.centres(region.centre)
    distance = np.hypot(y, np.maximum(0, np.abs(x) - window.columns / 2)) / window.rows
    score = -distance - 2.0 * others
    score[(distance > LEADER) | (others > MOST_OTHERS) | window.blocked] = -np.inf
    return window.best(score)


class _Window:
    """The places of a box around a segment: arrays over the top left cells, on a part of the grid."""

    def __init__(self, grid: _Grid, region: _Region, tall: int, wide: int, shape: tuple[int, int], reach: int):
        self.cell, self.shape, self.tall, self.wide = grid.cell, shape, tall, wide
        self.rows, self.columns = -(-tall // grid.cell), -(-wide // grid.cell)
        up, aside = reach * self.rows + 1, self.columns + (reach - 1) * self.rows + 1
        self.top, self.left = max(0, region.rows[0] - up), max(0, region.columns[0] - aside)
        part = np.s_[self.top : region.rows[1] + up, self.left : region.columns[1] + aside]
        self.numbers, taken = grid.numbers[part], grid.taken[part]
        high, wide_ = self.numbers.shape
        self.empty = high < self.rows or wide_ < self.columns
        if not self.empty:
            self.blocked = self.sums(taken) > 0

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum over the box, for each place of its top left cell."""
        table = cv2.integral(values.astype(np.uint8))
        r, c = self.rows, self.columns
        return (table[r:, c:] - table[:-r, c:] - table[r:, :-c] + table[:-r, :-c]).astype(np.float32)

    def at_centres(self, values: np.ndarray) -> np.ndarray:
        """The value at the centre of the box, for each place."""
        y, x = self.rows // 2, self.columns // 2
        return values[y : y + values.shape[0] - self.rows + 1, x : x + values.shape[1] - self.columns + 1]

    def centres(self, origin: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Rows (a column) and columns (a row) of the boxes' centres, counted from ``origin``."""
        high, wide = self.numbers.shape
        y = np.arange(high - self.rows + 1) + self.top + self.rows // 2 - origin[0]
        x = np.arange(wide - self.columns + 1) + self.left + self.columns // 2 - origin[1]
        return y[:, None], x[None]

    def best(self, score: np.ndarray) -> tuple[int, int] | None:
        """The top left pixel of the best place, inside the image; None where no place is left."""
        y, x = np.unravel_index(int(score.argmax()), score.shape)
        if not np.isfinite(score[y, x]):
            return None
        top, left = (self.top + int(y)) * self.cell, (self.left + int(x)) * self.cell
        return min(top, self.shape[0] - self.tall), min(left, self.shape[1] - self.wide)


def _margin(size: int) -> int:
    return max(2, size // 6)


def _sign_width(label: Label, size: int) -> int:
    return text_width(UNSEEN_SIGN, size, bold=True) + _margin(size) if label.unseen else 0


def _width(label: Label, text: str, size: int) -> int:
    """Of a label's box: a strip in the colour of the class, the sign, and the text."""
    return 4 * _margin(size) + _sign_width(label, size) + text_width(text, size, label.unseen) + 1


def _centre(place: Place) -> tuple[int, int]:
    return place.top + place.height // 2, place.left + place.width // 2


def _draw_box(image: np.ndarray, place: Place, size: int) -> None:
    label, margin = place.label, _margin(size)
    box = image[place.top : place.top + place.height, place.left : place.left + place.width]
    share = 1.0 if label.unseen else OPAQUE
    box[:] = (1 - share) * box + share * np.array(UNSEEN_BOX if label.unseen else SEEN_BOX, dtype=np.float32)
    box[:, : 2 * margin - 1] = label.colour
    left, middle = 3 * margin, place.height // 2
    if label.unseen:
        write(box, UNSEEN_SIGN, left, middle, size, WHITE, bold=True)
    write(box, place.text, left + _sign_width(label, size), middle, size, WHITE, bold=label.unseen)


def _draw_leader(image: np.ndarray, place: Place, thick: int) -> None:
    """A line from the box to the segment, with a dot at its end: dark, with a white edge that any image shows."""
    assert place.target is not None  # only boxes with one have a leader
    start, end = ((x, y) for y, x in (_centre(place), place.target))
    for colour, wider in ((WHITE, 2 * thick), (SEEN_BOX, 0)):
        cv2.line(image, start, end, colour, thick + wider, cv2.LINE_AA)
        cv2.circle(image, end, 2 * thick + wider // 2, colour, cv2.FILLED, cv2.LINE_AA)
