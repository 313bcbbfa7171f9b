"""The shapes of all worlds: polygons without holes, as whole numbers. ``UNIT`` is the radius; x is right, y is down."""

import numpy as np

from PADing.data.mini_v2.turns import ONE, TURN, cosine, sine

__all__ = ["SHAPES", "UNIT"]

UNIT = 1024
Points = list[tuple[int, int]]


def _arc(x: int, y: int, radius: int, start: int, stop: int, flat: int = 100) -> Points:
    """Points on a circle around (x, y), from one angle to another; ``flat``: height in percent of the width."""
    steps = max(2, abs(stop - start) // 24)
    angles = [start + (stop - start) * i // steps for i in range(steps + 1)]
    return [(x + radius * int(cosine(a)) // ONE, y + radius * flat * int(sine(a)) // (100 * ONE)) for a in angles]


def _star(points: int, outer: int, inner: int) -> Points:
    """A star with one point up; a regular polygon if both radii are the same."""
    corners = []
    for i in range(2 * points):
        angle = -TURN // 4 + TURN * i // (2 * points)
        corners += _arc(0, 0, inner if i % 2 else outer, angle, angle)[:1]
    return corners


def _clover() -> Points:
    angles = range(0, TURN, 20)
    return [_arc(0, 0, 72 + 28 * int(cosine(4 * a)) // ONE, a, a)[0] for a in angles]


# Corners in percent of the radius.
_POLYGONS: dict[str, Points] = {
    # the test world
    "disc": _arc(0, 0, 95, 0, TURN - 24),
    "bar": [(-105, -42), (105, -42), (105, 42), (-105, 42)],
    "triangle": _star(3, 110, 110)[::2],
    "star": _star(5, 108, 46),
    "cross": [
        *[(-33, -95), (33, -95), (33, -33), (95, -33), (95, 33), (33, 33)],
        *[(33, 95), (-33, 95), (-33, 33), (-95, 33), (-95, -33), (-33, -33)],
    ],
    "crescent": [*_arc(0, 0, 95, 130, 894), *_arc(50, 0, 70, 806, 218)],
    "arch": [*_arc(0, 0, 95, 512, 1024), (95, 70), (45, 70), *_arc(0, 0, 45, 1024, 512), (-45, 70), (-95, 70)],
    "arrow": [(-95, -28), (5, -28), (5, -75), (100, 0), (5, 75), (5, 28), (-95, 28)],
    "comb": [
        *[(-80, -90), (80, -90), (80, -50), (-30, -50), (-30, -20), (80, -20)],
        *[(80, 20), (-30, 20), (-30, 50), (80, 50), (80, 90), (-80, 90)],
    ],
    "leaf": [*_arc(0, 60, 110, 606, 930), *_arc(0, -60, 110, 94, 418)],
    # the tuning world
    "square": [(-78, -78), (78, -78), (78, 78), (-78, 78)],
    "heart": [*_arc(47, -38, 50, 455, 1124), (0, 98), *_arc(-47, -38, 50, 412, 1081)],
    "hourglass": [(-80, -90), (80, -90), (25, 0), (80, 90), (-80, 90), (-25, 0)],
    "elbow": [(-75, -95), (-15, -95), (-15, 35), (85, 35), (85, 95), (-75, 95)],
    "tee": [(-90, -90), (90, -90), (90, -35), (30, -35), (30, 95), (-30, 95), (-30, -35), (-90, -35)],
    "drop": [(0, -105), *_arc(0, 30, 62, -74, 586)],
    "kite": [(0, -100), (60, -25), (0, 105), (-60, -25)],
    "zed": [(-90, -80), (30, -80), (30, 0), (90, 0), (90, 80), (-30, 80), (-30, 0), (-90, 0)],
    "mushroom": [*_arc(0, -5, 95, 512, 1024), (95, 12), (32, 12), (32, 95), (-32, 95), (-32, 12), (-95, 12)],
    "stairs": [(-90, 90), (-90, 30), (-30, 30), (-30, -30), (30, -30), (30, -90), (90, -90), (90, 90)],
    # the warm-start world
    "hexagon": _star(6, 95, 95)[::2],
    "oval": _arc(0, 0, 105, 0, TURN - 24, flat=57),
    "trapezium": [(-45, -70), (45, -70), (100, 70), (-100, 70)],
    "bolt": [(-10, -105), (60, -105), (20, -25), (75, -25), (-35, 105), (0, 10), (-60, 10)],
    "house": [(0, -100), (95, -15), (70, -15), (70, 90), (-70, 90), (-70, -15), (-95, -15)],
    "burst": _star(10, 105, 65),
    "clover": _clover(),
    "wedge": [(0, 0), *_arc(0, 0, 95, 100, 924)],
    "dumbbell": [
        *[(-100, -60), (-45, -60), (-45, -22), (45, -22), (45, -60), (100, -60)],
        *[(100, 60), (45, 60), (45, 22), (-45, 22), (-45, 60), (-100, 60)],
    ],
    "funnel": [(-95, -80), (95, -80), (30, 10), (30, 95), (-30, 95), (-30, 10)],
}

# Corners (N, 2) int64 in units of 1 / UNIT of the radius.
SHAPES: dict[str, np.ndarray] = {name: np.array(points) * UNIT // 100 for name, points in _POLYGONS.items()}
