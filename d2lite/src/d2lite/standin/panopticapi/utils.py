"""Ids of segments as colors of a PNG: red counts once, green 256 times, blue 65536 times."""

import json
import random
from pathlib import Path

import numpy as np

_WORTH = np.array([1, 256, 256**2], dtype=np.int32)


def rgb2id(color):
    """The ids, int32 (H, W), of an image (H, W, 3); or the id, an int, of one color."""
    if isinstance(color, np.ndarray) and color.ndim == 3:
        return color[..., :3].astype(np.int32) @ _WORTH
    return sum(int(channel) * worth for channel, worth in zip(color, _WORTH.tolist(), strict=False))


def id2rgb(id_map):
    """The colors, uint8 (H, W, 3), of ids (H, W); or the color, a list of three ints, of one id."""
    if not isinstance(id_map, np.ndarray):
        return list(int(id_map).to_bytes(4, "little")[:3])
    # The bytes of a number are what it has of 1, 256, 256 ** 2 and 256 ** 3.
    return id_map.astype("<u4", order="C")[..., None].view(np.uint8)[..., :3].copy()


class IdGenerator:
    """Gives every segment of an image a unique color, and thus a unique id.

    Stuff and the first thing of a category have its color, further things similar colors; the same calls give the same.
    ``categories``: entries of a panoptic JSON, with ``color`` and ``isthing``, by id.
    """

    def __init__(self, categories: dict[int, dict]):
        self.categories = categories
        stuff = [entry["color"] for entry in categories.values() if not entry["isthing"]]
        self.taken_colors = {(0, 0, 0), *map(tuple, stuff)}  # black is void
        self._draw = random.Random(0)

    def get_color(self, cat_id: int):
        """The color [R, G, B] for the next segment of a category."""
        category = self.categories[cat_id]
        color = tuple(category["color"])
        if not category["isthing"]:
            return category["color"]
        reach = 20.0
        while color in self.taken_colors:
            near = (self._draw.gauss(channel, reach) for channel in category["color"])
            color = tuple(min(max(round(channel), 0), 255) for channel in near)
            reach *= 1.02  # search farther away if near colors are taken
        self.taken_colors.add(color)
        return color

    def get_id(self, cat_id: int) -> int:
        """The id for the next segment of a category."""
        return self.get_id_and_color(cat_id)[0]

    def get_id_and_color(self, cat_id: int):
        """Both for the next segment of a category."""
        color = self.get_color(cat_id)
        return rgb2id(color), color


def save_json(d, file: str) -> None:
    """Write something as JSON into a file."""
    Path(file).write_text(json.dumps(d))
