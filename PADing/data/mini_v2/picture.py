"""Draws one image of the mini data, version 2, with its annotation. Image k does not depend on any other.

An image has one or two grounds, two to four things of one to three classes, and often distractors: objects with a shape
or a texture that no class of the world has. Distractors have no annotation. Two colours of each object come from one
palette, whatever its texture is.
"""

from dataclasses import dataclass

import numpy as np

from PADing.data.mini_v2.draws import Draws
from PADing.data.mini_v2.grounds import PATTERNS, TONES
from PADing.data.mini_v2.raster import PIXEL, Pose, coordinates, inside
from PADing.data.mini_v2.textures import CENTRED, TEXTURES
from PADing.data.mini_v2.turns import ONE, TURN, cosine, sine
from PADing.data.mini_v2.worlds import Category, World

__all__ = [
    "LEAST_PIXELS", "PALETTE", "RADII", "SIZE", "SUBSETS", "Picture", "Thing", "border", "draw", "fits", "ground",
    "noise",
]  # fmt: skip

SIZE = 128
SUBSETS = ("train", "val")
LEAST_PIXELS = 60  # visible pixels of an annotated segment
LEAST_SHARE = (2, 3)  # of an object is visible, when others lie in front
LEAST_CONTRAST = 70  # of the luma (0..255) of an object's two colours
MOST_ROTATION = TURN // 10
RADII = (17 * PIXEL, 33 * PIXEL)

PALETTE = (
    (205, 50, 45), (240, 140, 40), (236, 204, 56), (150, 200, 60), (40, 140, 70), (90, 210, 200),
    (60, 130, 220), (40, 50, 150), (120, 60, 160), (230, 130, 190), (240, 240, 240), (30, 28, 34),
)  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """An object: its parts, and its two colours (places in ``PALETTE``); ``category`` is None for a distractor."""

    category: Category | None
    texture: str
    shape: str
    colours: tuple[int, int]


@dataclass(frozen=True)
class Picture:
    """An image and its annotation.

    Attributes:
        image: (SIZE, SIZE, 3) uint8 RGB.
        numbers: (SIZE, SIZE) uint8, the segment of each pixel from 1; 0 where no segment is (distractors).
        categories: of the segments.
        objects: all that were drawn, from back to front.
        layers: (SIZE, SIZE) uint8, the object of each pixel from 1; 0 for the grounds.
    """

    image: np.ndarray
    numbers: np.ndarray
    categories: tuple[Category, ...]
    objects: tuple[Thing, ...]
    layers: np.ndarray


def draw(world: World, subset: str, index: int) -> Picture:
    """Image ``index`` (from 0) of a world's ``subset`` ("train" or "val")."""
    draws = Draws(world.number, SUBSETS.index(subset), index)
    stuff = [category for category in world.categories() if not category.isthing]
    grounds = draws.sample(stuff, 1 if draws.below(10) < 7 else 2)
    owner = border(draws) if len(grounds) == 2 else np.zeros((SIZE, SIZE), dtype=np.int64)
    canvas = np.zeros((SIZE, SIZE, 3), dtype=np.int64)
    for place, category in enumerate(grounds):
        region = owner == place
        canvas[region] = ground(category.parts, draws)[region]
    layers = np.zeros((SIZE, SIZE), dtype=np.uint8)
    areas: list[int] = []
    objects: list[Thing] = []
    for thing in _things(world, draws):
        for _attempt in range(8):
            pose = _pose(draws)
            box = pose.box(SIZE)
            samples = inside(thing.shape, pose, box)
            cover = samples[::2, ::2] + samples[1::2, ::2].astype(int) + samples[::2, 1::2] + samples[1::2, 1::2]
            left, top, right, bottom = box
            mask = np.zeros((SIZE, SIZE), dtype=bool)
            mask[top:bottom, left:right] = cover >= 2
            if fits(mask, layers, areas):
                objects.append(thing)
                areas.append(int(mask.sum()))
                layers[mask] = len(objects)
                _paint(canvas[top:bottom, left:right], thing, pose, box, samples, draws)
                break
    canvas += noise(draws)
    segments = [(category, (owner == place) & (layers == 0)) for place, category in enumerate(grounds)]
    segments += [(thing.category, layers == i) for i, thing in enumerate(objects, start=1) if thing.category]
    segments = [(category, mask) for category, mask in segments if mask.sum() >= LEAST_PIXELS]
    numbers = np.zeros((SIZE, SIZE), dtype=np.uint8)
    for number, (_, mask) in enumerate(segments, start=1):
        numbers[mask] = number
    categories = tuple(category for category, _ in segments)
    return Picture(np.clip(canvas, 0, 255).astype(np.uint8), numbers, categories, tuple(objects), layers)


def _things(world: World, draws: Draws) -> list[Thing]:
    """The objects to draw, from back to front."""
    classes = [category for category in world.categories() if category.isthing]
    pool = draws.sample(classes, draws.pick((1, 2, 2, 3)))
    things = []
    for _ in range(draws.between(2, 4)):
        category = draws.pick(pool)
        things.append(Thing(category, *category.parts, colours=_colours(draws)))
    for _ in range(draws.pick((0, 0, 1, 1, 1, 2))):
        # One of its parts, or both, belong to no class.
        kind = draws.below(3)
        texture = draws.pick(world.textures if kind == 0 else world.other_textures)
        shape = draws.pick(world.shapes if kind == 1 else world.other_shapes)
        things.append(Thing(None, texture, shape, _colours(draws)))
    return draws.sample(things, len(things))


def _pose(draws: Draws) -> Pose:
    radius = draws.between(*RADII)
    margin = radius * 5 // 8  # so that little of it lies outside of the image
    x, y = (draws.between(margin, SIZE * PIXEL - margin) for _ in range(2))
    return Pose(x, y, radius, draws.between(-MOST_ROTATION, MOST_ROTATION))


def _luma(colour: tuple[int, int, int]) -> int:
    return (77 * colour[0] + 150 * colour[1] + 29 * colour[2]) // 256


def _colours(draws: Draws) -> tuple[int, int]:
    first = draws.below(len(PALETTE))
    light = _luma(PALETTE[first])
    others = [i for i, colour in enumerate(PALETTE) if abs(_luma(colour) - light) >= LEAST_CONTRAST]
    return first, draws.pick(others)


def border(draws: Draws) -> np.ndarray:
    """Which of two grounds each pixel belongs to: a bent line between them."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.int64) - SIZE // 2
    angle, phase = draws.below(TURN), draws.below(TURN)
    across, along = x * cosine(angle) + y * sine(angle), y * cosine(angle) - x * sine(angle)
    bend = SIZE * 6 // 100 * sine(along // ONE * TURN // SIZE + phase)
    return (across + bend > draws.between(-SIZE // 5, SIZE // 5) * ONE).astype(np.int64)


def ground(parts: tuple[str, str], draws: Draws) -> np.ndarray:
    """A ground of a tone and a pattern for a whole image, (SIZE, SIZE, 3) int64 of about 0..255."""
    tone, pattern = parts
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.int64)
    scale = draws.between(230, 282)
    at, key = [draws.below(TURN) for _ in range(4)], draws.bits()
    share = PATTERNS[pattern](x * scale // 256, y * scale // 256, at, key)[..., None]
    jitter = np.array([draws.between(-12, 12) for _ in range(3)])
    first, second = (np.array(shade) + jitter for shade in TONES[tone])
    return first + (second - first) * share // 256


def _paint(canvas: np.ndarray, thing: Thing, pose: Pose, box: tuple, samples: np.ndarray, draws: Draws) -> None:
    """Paint one object over ``canvas``, the pixels of ``box``; a pixel mixes the colours of its four samples."""
    u, v = coordinates(pose, box)
    scale, moved, key = draws.between(900, 1150), (draws.below(1024), draws.below(1024)), draws.bits()
    if thing.texture not in CENTRED:
        u, v = u + np.int32(moved[0]), v + np.int32(moved[1])
    second = TEXTURES[thing.texture](u * scale // 1024, v * scale // 1024, key) & samples
    parts = []
    for taken in (samples & ~second, second):
        number = taken[::2, ::2] + taken[1::2, ::2].astype(np.int64) + taken[::2, 1::2] + taken[1::2, 1::2]
        parts.append(number[..., None])
    colours = [np.array(PALETTE[i]) + [draws.between(-14, 14) for _ in range(3)] for i in thing.colours]
    canvas[:] = (canvas * (4 - parts[0] - parts[1]) + colours[0] * parts[0] + colours[1] * parts[1] + 2) // 4


def noise(draws: Draws) -> np.ndarray:
    """Noise of each pixel and channel: four dice of 256 sides in sum, scaled to a standard deviation of 5."""
    dice = draws.bytes(4 * SIZE * SIZE * 3).reshape(4, SIZE, SIZE, 3).astype(np.int64)
    return ((dice[0] + dice[1] + dice[2] + dice[3] - 510) * 35 + 512) // 1024


def fits(mask: np.ndarray, layers: np.ndarray, areas: list[int]) -> bool:
    """Whether a new object in front is large enough and leaves enough of each earlier one."""
    if mask.sum() < LEAST_PIXELS:
        return False
    left = np.bincount(layers[~mask], minlength=len(areas) + 1)
    for number, area in enumerate(areas, start=1):
        rest = int(left[number])
        if rest < LEAST_PIXELS or rest * LEAST_SHARE[1] < area * LEAST_SHARE[0]:
            return False
    return True
