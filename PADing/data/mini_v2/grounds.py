"""The grounds (stuff) of all worlds: patterns and tones.

A pattern gets pixel coordinates (x, y), int64, four random numbers 0..1023 and a random key; it returns the share of
the second shade, 0..256. All arithmetic is on whole numbers.
"""

from collections.abc import Callable, Sequence

import numpy as np

from PADing.data.mini_v2.draws import hashed
from PADing.data.mini_v2.turns import ONE, sine

__all__ = ["PATTERNS", "TONES"]

Array = np.ndarray
Numbers = Sequence[int]


def _smooth(angle: Array) -> Array:
    return (sine(angle) + ONE) // 128


def _full(mask: Array) -> Array:
    return mask.astype(np.int64) * 256


def _waves(x: Array, y: Array, at: Numbers, _: int) -> Array:
    return _smooth(y * 122 + at[0] + 326 * sine(x * 24 + at[1]) // ONE)


def _sand(x: Array, y: Array, _at: Numbers, key: int) -> Array:
    return _full(hashed(x, y, key) < 90)


def _bricks(x: Array, y: Array, at: Numbers, _: int) -> Array:
    y = y + at[0]
    return _full((y % 9 < 2) | ((x + at[1] + y // 9 % 2 * 8) % 16 < 2))


def _tiles(x: Array, y: Array, at: Numbers, _: int) -> Array:
    return _full(((x + at[0]) // 8 + (y + at[1]) // 8) % 2 == 1)


def _ripples(x: Array, y: Array, at: Numbers, _: int) -> Array:
    limits = (np.arange(1, 80) * 4) ** 2
    left, top = x + 20 + at[0] // 16, y + 20 + at[1] // 16
    return _full(np.searchsorted(limits, left * left + top * top) % 2 == 1)


def _planks(x: Array, y: Array, at: Numbers, key: int) -> Array:
    y = y + at[0]
    row = y // 11
    joint = hashed(row, row, key)
    return np.where(y % 11 < 2, 256, np.where((x + joint) % 48 < 2, 256, hashed(x // 12, y, key) // 3))


def _pebbles(x: Array, y: Array, at: Numbers, key: int) -> Array:
    x, y = x + at[0], y + at[1]
    column, row = x // 9, y // 9
    a, b = x % 9 - 3 - hashed(column, row, key) % 3, y % 9 - 3 - hashed(row, column, key + 1) % 3
    return _full(a * a + b * b < 11)


def _wicker(x: Array, y: Array, at: Numbers, _: int) -> Array:
    x, y = x + at[0], y + at[1]
    return _full(np.where((x // 8 + y // 8) % 2 == 0, x % 4 < 2, y % 4 < 2))


def _dunes(x: Array, y: Array, at: Numbers, _: int) -> Array:
    return _smooth(x * 50 + y * 75 + at[0] + 200 * sine(x * 9 - y * 14 + at[1]) // ONE)


def _shingles(x: Array, y: Array, at: Numbers, _: int) -> Array:
    x, y = x + at[0], y + at[1]
    a, b = (x + y // 8 % 2 * 7) % 14 - 7, y % 8
    return np.minimum(256, (a * a + b * b) * 4)


def _flecks(x: Array, y: Array, at: Numbers, key: int) -> Array:
    x, y = x + at[0], y + at[1]
    a, b = x % 7, y % 7
    turned = np.where(hashed(x // 7, y // 7, key) < 128, a - b, a + b - 6)
    return _full((abs(turned) < 1) & (hashed(x // 7, y // 7, key + 1) < 190))


def _mesh(x: Array, y: Array, at: Numbers, _: int) -> Array:
    x, y = x + at[0], y + at[1]
    return _full(((x + y) % 12 < 2) | ((x - y) % 12 < 2))


PATTERNS: dict[str, Callable[[Array, Array, Numbers, int], Array]] = {
    "waves": _waves, "sand": _sand, "bricks": _bricks, "tiles": _tiles,  # the test world
    "ripples": _ripples, "planks": _planks, "pebbles": _pebbles, "wicker": _wicker,  # the tuning world
    "dunes": _dunes, "shingles": _shingles, "flecks": _flecks, "mesh": _mesh,  # the warm-start world
}  # fmt: skip

# Two shades of each tone (RGB).
TONES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "brown": ((156, 120, 88), (116, 84, 58)), "teal": ((98, 156, 160), (62, 110, 120)),
    "grey": ((164, 163, 168), (118, 118, 126)),
    "olive": ((142, 146, 78), (102, 106, 46)), "plum": ((156, 106, 150), (112, 68, 108)),
    "cream": ((222, 208, 168), (182, 166, 124)),
    "rust": ((182, 98, 66), (134, 66, 40)), "slate": ((104, 118, 148), (70, 82, 108)),
    "moss": ((92, 132, 84), (58, 94, 54)),
}  # fmt: skip
