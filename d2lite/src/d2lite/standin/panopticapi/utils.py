"""Segment ids and the colours that store them in PNG files: id = R + 256 G + 65536 B."""

import json

import numpy as np

__all__ = ["IdGenerator", "id2rgb", "rgb2id", "save_json"]


def rgb2id(color):
    """Ids (H, W) int32 of a (H, W, 3) image, or the int id of a sequence of three numbers."""
    if isinstance(color, np.ndarray) and color.ndim == 3:
        color = color.astype(np.int32)
        return color[..., 0] + 256 * color[..., 1] + 256 * 256 * color[..., 2]
    red, green, blue = (int(channel) for channel in color)
    return red + 256 * green + 256 * 256 * blue


def id2rgb(id_map):
    """The inverse of :func:`rgb2id`: (H, W, 3) uint8 for an array, a list of three ints for a number."""
    if isinstance(id_map, np.ndarray):
        channels = [(id_map // 256**power) % 256 for power in range(3)]
        return np.stack(channels, axis=-1).astype(np.uint8)
    return [int(id_map) // 256**power % 256 for power in range(3)]


class IdGenerator:
    """Distinct colours, thus distinct ids, for the segments of one image.

    Stuff always gets the colour of its category. So does the first thing of a category; others get a colour near it.

    Args:
        categories: category dicts (``color``, ``isthing``) by category id.
    """

    MAX_STEP = 30

    def __init__(self, categories: dict):
        self.categories = categories
        self.taken_colors = {(0, 0, 0)}
        self.taken_colors.update(tuple(c["color"]) for c in categories.values() if not c["isthing"])
        self._random = np.random.RandomState(0)

    def get_color(self, cat_id):
        """A new colour (R, G, B) for a segment of category ``cat_id``."""
        category = self.categories[cat_id]
        base = tuple(category["color"])
        if not category["isthing"]:
            return category["color"]
        color, step = base, self.MAX_STEP
        while color in self.taken_colors:
            offset = self._random.randint(-step, step + 1, size=3)
            color = tuple(int(c) for c in np.clip(np.asarray(base) + offset, 0, 255))
            step = min(step + 1, 255)  # so that a crowded neighbourhood cannot hold it up forever
        self.taken_colors.add(color)
        return color

    def get_id(self, cat_id) -> int:
        """A new segment id for category ``cat_id``."""
        return rgb2id(self.get_color(cat_id))

    def get_id_and_color(self, cat_id):
        """A new segment id and its colour for category ``cat_id``."""
        color = self.get_color(cat_id)
        return rgb2id(color), color


def save_json(d, file) -> None:
    """Write ``d`` as JSON to the path ``file``."""
    with open(file, "w") as stream:
        json.dump(d, stream)
