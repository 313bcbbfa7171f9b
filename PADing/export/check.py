"""Compares an exported program with PyTorch's own computation, and measures the time of both."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from PADing.errors import UserError

TOLERANCE = 1e-4
# Of whole numbers and flags (labels, masks, maps, boxes) this share may differ, but always one element: a value close
# to a threshold falls to either side of it.
SHARE = 1e-3
Function = Callable[[Tensor], dict[str, Tensor]]


@dataclass
class Difference:
    """How far one output is from the expected one.

    Attributes:
        error: the largest absolute error, of numbers.
        differing, total: how many elements differ, of labels and flags.
    """

    error: float = 0.0
    differing: int = 0
    total: int = 0

    def passes(self, tolerance: float) -> bool:
        """Whether it is within ``tolerance``, or the share of differing elements is small."""
        return self.error <= tolerance and self.differing <= max(1, SHARE * self.total)

    def merge(self, other: "Difference") -> "Difference":
        """Of both comparisons together."""
        return Difference(max(self.error, other.error), self.differing + other.differing, self.total + other.total)

    def __str__(self) -> str:
        if self.total:
            return f"{self.differing} of {self.total} elements differ"
        return f"max absolute error {self.error:.1e}"


def differences(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], tolerance: float = TOLERANCE
) -> dict[str, Difference]:
    """The difference of each output; UserError for other names, shapes or types.

    Instances are in the order of their scores, and almost equal scores may come in either order. So the other tensors
    are compared only where the scores beside differ by more than twice the ``tolerance``.
    """
    result = {}
    for name, wanted in expected.items():
        value = found.get(name)
        if value is None or value.shape != wanted.shape or value.dtype != wanted.dtype:
            got = "missing" if value is None else f"{tuple(value.shape)} {value.dtype}"
            raise UserError(f"Output {name} is {got}, but should be {tuple(wanted.shape)} {wanted.dtype}.")
        if name in ("instance_labels", "instance_boxes", "instance_masks"):
            settled = _settled(expected["instance_scores"], tolerance)
            wanted, value = wanted[settled], value[settled]
        if wanted.is_floating_point() and name != "instance_boxes":
            result[name] = Difference(error=_largest_error(wanted, value))
        else:
            result[name] = Difference(differing=int((wanted != value).sum()), total=wanted.numel())
    return result


def _largest_error(wanted: Tensor, value: Tensor) -> float:
    equal = wanted == value  # also infinities
    error = torch.where(equal, 0.0, (wanted - value).abs()).nan_to_num(nan=float("inf"))
    return float(error.max()) if error.numel() else 0.0


def _settled(scores: Tensor, tolerance: float) -> Tensor:
    """Which of the falling scores (B, n) differ from both neighbours: (B, n) bool. The last one has a rival outside."""
    gap = scores[:, :-1] - scores[:, 1:] > 2 * tolerance
    first = torch.ones_like(gap[:, :1])
    return torch.cat([first, gap], 1) & torch.cat([gap, ~first], 1)


def latencies(functions: Mapping[str, Function], images: Tensor, rounds: int) -> dict[str, float]:
    """Seconds of each function: the median of ``rounds`` runs, in turns, after one more run of each."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function(images)
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}
