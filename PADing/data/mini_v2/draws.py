"""Random numbers that are the same on every machine and with every NumPy: SplitMix64, in 64-bit integers alone."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

__all__ = ["Draws", "hashed"]

_STEP = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_ALL = 2**64 - 1
T = TypeVar("T")


def _mixed(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_SECOND)
    return z ^ (z >> np.uint64(31))


def _mixed_one(z: int) -> int:
    z = ((z ^ (z >> 30)) * _FIRST) & _ALL
    z = ((z ^ (z >> 27)) * _SECOND) & _ALL
    return z ^ (z >> 31)


def hashed(x: np.ndarray, y: np.ndarray, key: int) -> np.ndarray:
    """A number 0..255 for each cell (x, y), as int64, which depends on the cell and ``key`` alone."""
    cells = x.astype(np.int64).astype(np.uint64) * np.uint64(_STEP) + y.astype(np.int64).astype(np.uint64)
    return (_mixed(cells * np.uint64(_FIRST) + np.uint64(key & _ALL)) >> np.uint64(56)).astype(np.int64)


class Draws:
    """A stream of random numbers; ``keys`` choose it, so image k has its own.

    Generator: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
    """

    def __init__(self, *keys: int):
        self._state = 0
        for key in keys:
            self._state = _mixed_one((self._state + key + 1) * _STEP & _ALL)

    def bits(self) -> int:
        """The next 64 bits."""
        self._state = (self._state + _STEP) & _ALL
        return _mixed_one(self._state)

    def below(self, limit: int) -> int:
        """A whole number from 0 to ``limit`` - 1. Its bias is below ``limit`` / 2**64."""
        return self.bits() * limit >> 64

    def between(self, low: int, high: int) -> int:
        """A whole number from ``low`` to ``high``, both included."""
        return low + self.below(high - low + 1)

    def pick(self, items: Sequence[T]) -> T:
        """One of ``items``."""
        return items[self.below(len(items))]

    def sample(self, items: Sequence[T], number: int) -> list[T]:
        """``number`` of ``items``, none twice, in random order."""
        left = list(items)
        return [left.pop(self.below(len(left))) for _ in range(number)]

    def bytes(self, number: int) -> np.ndarray:
        """``number`` random bytes, uint8, lowest byte of each 64 bits first."""
        steps = np.arange(1, -(-number // 8) + 1, dtype=np.uint64)
        words = _mixed(steps * np.uint64(_STEP) + np.uint64(self._state))
        self._state = (self._state + len(steps) * _STEP) & _ALL
        return words.astype("<u8").view(np.uint8)[:number]
