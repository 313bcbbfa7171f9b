"""The textures of all worlds: which of an object's two colours a place has.

A texture gets object coordinates (u, v), whole numbers of 1 / ``UNIT`` of the radius, and a random number of the
object. It returns True where the second colour is. All arithmetic is on whole numbers.
"""

from collections.abc import Callable

import numpy as np

from PADing.data.mini_v2.draws import hashed
from PADing.data.mini_v2.turns import cosine, sine

__all__ = ["CENTRED", "TEXTURES"]

Array = np.ndarray


def _rings(u: Array, v: Array, width: int) -> Array:
    """Rings around (0, 0), by comparing squares, so that no square root is needed."""
    limits = (np.arange(1, 24) * width) ** 2
    return np.searchsorted(limits, u.astype(np.int64) ** 2 + v.astype(np.int64) ** 2) % 2 == 1


def _rayed(u: Array, v: Array, _: int) -> Array:
    share = np.zeros(np.broadcast(u, v).shape, dtype=bool)
    for line in range(5):  # each line through the centre swaps the colours
        angle = 30 + line * 512 // 5
        share ^= u * int(sine(angle)) > v * int(cosine(angle))
    return share


def _marks(u: Array, v: Array, cell: int) -> tuple[Array, Array]:
    """Coordinates in square cells, from their middles."""
    return u % cell - cell // 2, v % cell - cell // 2


def _dots(u: Array, v: Array, _: int) -> Array:
    a, b = _marks(u, v, 430)
    return a * a + b * b < 135**2


def _zigzag(u: Array, v: Array, _: int) -> Array:
    return (v + abs(u % 640 - 320)) // 270 % 2 == 1


def _dashed(u: Array, v: Array, _: int) -> Array:
    column = u // 190
    return (column % 2 == 0) & ((v + column % 4 * 170) // 340 % 2 == 0)


def _waved(u: Array, v: Array, _: int) -> Array:
    return (v * 16384 + 130 * sine(u * 3 // 2)) // (270 * 16384) % 2 == 1


def _plussed(u: Array, v: Array, _: int) -> Array:
    a, b = (abs(x) for x in _marks(u, v, 520))
    return (np.minimum(a, b) < 70) & (np.maximum(a, b) < 200)


def _bricked(u: Array, v: Array, _: int) -> Array:
    return (v % 320 < 85) | ((u + v // 320 % 2 * 290) % 580 < 85)


def _ticked(u: Array, v: Array, _: int) -> Array:
    a, b = _marks(u, v, 400)
    return (abs(a - b) < 90) & (abs(a + b) < 290)


def _scaled(u: Array, v: Array, _: int) -> Array:
    row = v // 260
    a, b = (u + row % 2 * 260) % 520 - 260, v % 260
    distance = a * a + b * b
    return (distance > 190**2) & (distance < 275**2)


def _tufted(u: Array, v: Array, _: int) -> Array:
    a, b = abs(u % 560 - 280), v % 480
    return (abs(b - 120 - a) < 85) & (a < 220)


def _woven(u: Array, v: Array, _: int) -> Array:
    along = (u // 400 + v // 400) % 2 == 0
    return np.where(along, u % 400 // 80 % 2 == 1, v % 400 // 80 % 2 == 1)


def _boxed(u: Array, v: Array, _: int) -> Array:
    a, b = _marks(u, v, 500)
    edge = np.maximum(abs(a), abs(b))
    return (edge > 110) & (edge < 190)


TEXTURES: dict[str, Callable[[Array, Array, int], Array]] = {
    # the test world
    "plain": lambda u, v, _: np.zeros(np.broadcast(u, v).shape, dtype=bool),
    "striped": lambda u, v, _: u // 310 % 2 == 1,
    "dotted": _dots,
    "checkered": lambda u, v, _: (u // 350 + v // 350) % 2 == 1,
    "ringed": lambda u, v, _: _rings(u, v, 230),
    "gridded": lambda u, v, _: (u % 400 < 110) | (v % 400 < 110),
    "zigzag": _zigzag,
    "speckled": lambda u, v, key: hashed(u // 140, v // 140, key) < 90,
    "woven": _woven,
    "squared": lambda u, v, _: np.maximum(abs(u), abs(v)) // 210 % 2 == 1,
    # the tuning world
    "halved": lambda u, v, _: np.broadcast_to(v > 0, np.broadcast(u, v).shape),
    "diagonal": lambda u, v, _: (u + v) // 440 % 2 == 1,
    "dashed": _dashed,
    "waved": _waved,
    "rayed": _rayed,
    "plussed": _plussed,
    "bricked": _bricked,
    "triangled": lambda u, v, _: u % 440 + v % 440 > 440,
    "boxed": _boxed,
    "uneven": lambda u, v, _: (u % 700 < 120) | ((u % 700 > 250) & (u % 700 < 500)),
    # the warm-start world
    "quartered": lambda u, v, _: (u > 0) ^ (v > 0),
    "harlequin": lambda u, v, _: ((2 * u + v) // 640 + (2 * u - v) // 640) % 2 == 1,
    "ticked": _ticked,
    "scaled": _scaled,
    "netted": lambda u, v, _: ((u + v) % 520 < 130) | ((u - v) % 520 < 130),
    "centred": lambda u, v, _: u * u + v * v < 440**2,
    "arced": lambda u, v, _: _rings(u + 1100, v + 1100, 230),
    "tufted": _tufted,
    "stepped": lambda u, v, _: (v + u // 300 * 150) // 300 % 2 == 1,
    "grained": lambda u, v, key: hashed(u // 70, v // 420, key) < 110,
}
# Textures with a place on the object; the others are moved at random.
CENTRED = frozenset(("ringed", "squared", "halved", "rayed", "quartered", "centred", "arced"))
