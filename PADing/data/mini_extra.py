"""Further parts that the mini generator can draw: shapes, surfaces, patterns and colours that no class of it has.

With them there are pictures of a known shape with another surface, and the other way round. Encoders that learn from
pictures and captions need such variety (``minibench.toy_clip``). The mini data set shows none of them.
"""

from collections.abc import Callable

import numpy as np

__all__ = ["GROUND_RGB", "PATTERNS", "SHAPES", "SURFACES"]

Array = np.ndarray

# The signed distance (approximate) to the outline of the unit shape at (u, v), positive inside. No shape has a hole.
SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "square": lambda u, v: 0.75 - np.maximum(abs(u), abs(v)),
    "cross": lambda u, v: np.maximum(
        np.minimum(0.95 - abs(u), 0.33 - abs(v)), np.minimum(0.95 - abs(v), 0.33 - abs(u))
    ),
    "crescent": lambda u, v: np.minimum(0.95 - np.hypot(u, v), np.hypot(u - 0.5, v) - 0.7),
    "arch": lambda u, v: np.minimum(np.minimum(0.95 - np.hypot(u, v), np.hypot(u, v) - 0.42), 0.35 - v),
}

# The share of the second colour at object coordinates (u, v), in 0..1. Both colours are random.
SURFACES: dict[str, Callable[[Array, Array], Array]] = {
    "ringed": lambda u, v: (np.floor(np.hypot(u, v) * 4) % 2).astype(float),
    "shaded": lambda u, v: np.clip(0.5 + 0.5 * v, 0, 1),
    "marbled": lambda u, v: 0.5 + 0.5 * np.sin(5 * u + 3 * np.sin(4 * v)),
    "crossed": lambda u, v: (((u * 3) % 1 < 0.25) | ((v * 3) % 1 < 0.25)).astype(float),
}
# The share of the second ground colour at pixels (x, y), in 0..1; ``phase``: two random angles.
PATTERNS: dict[str, Callable[[Array, Array, Array], Array]] = {
    "tiles": lambda x, y, phase: ((x / 12 + phase[0]) % 1 < 0.15) | ((y / 12 + phase[1]) % 1 < 0.15),
    "ripples": lambda x, y, phase: 0.5 + 0.5 * np.sin(0.6 * np.hypot(x - 20 * phase[0], y - 20 * phase[1])),
}
GROUND_RGB = {"grey": ((142, 141, 146), (105, 105, 112)), "olive": ((132, 136, 72), (98, 103, 46))}
