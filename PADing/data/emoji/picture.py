"""Draws one scene of emoji with the mask of each. Scene k does not depend on any other.

Grounds, noise and the rules of occlusion are those of the mini data, version 2 (``PADing.data.mini_v2.picture``); here
grounds have no class. Objects are emoji, turned by up to 15 degrees, mirrored or not, and lighter or darker.
Distractors are emoji of no class; they have no annotation. All arithmetic is on whole numbers, so every machine draws
the same pixels from the same glyphs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from PADing.data.emoji.classes import DISTRACTORS, EMOJI
from PADing.data.mini_v2.draws import Draws
from PADing.data.mini_v2.grounds import PATTERNS, TONES
from PADing.data.mini_v2.picture import RADII, SIZE, SUBSETS, border, fits, ground, noise
from PADing.data.mini_v2.raster import PIXEL, Pose, coordinates
from PADing.data.mini_v2.shapes import UNIT
from PADing.data.mini_v2.turns import TURN

__all__ = ["SIZE", "Scene", "draw"]

_STREAM = 101  # the first key of the random draws; worlds of version 2 have smaller ones
_MOST_ROTATION = TURN // 24
_FULL = 4 * 255  # alpha of a pixel that an object covers: the sum over its four samples
_COARSE = 24 * PIXEL  # objects with a smaller radius are drawn from glyphs of half the size


@dataclass(frozen=True)
class Scene:
    """An image and its objects.

    Attributes:
        image: (SIZE, SIZE, 3) uint8 RGB.
        layers: (SIZE, SIZE) uint8, the object of each pixel from 1; 0 for the ground.
        names: the class of each object, from back to front; None for a distractor.
    """

    image: np.ndarray
    layers: np.ndarray
    names: tuple[str | None, ...]


def draw(glyphs: Mapping[str, np.ndarray], seed: int, subset: str, index: int, names: Sequence[str]) -> Scene:
    """Scene ``index`` (from 0) of ``subset`` ("train" or "val").

    Args:
        glyphs: pictures of all emoji, (H, W, 4) uint8 RGBA.
        seed: of all random choices.
        subset: which stream of scenes.
        index: which scene.
        names: the classes that may occur.
    """
    draws = Draws(_STREAM, seed, SUBSETS.index(subset), index)
    canvas = _grounds(draws)
    layers = np.zeros((SIZE, SIZE), dtype=np.uint8)
    areas: list[int] = []
    drawn: list[str | None] = []
    for name in _objects(names, draws):
        picture = glyphs[draws.pick(EMOJI[name] if name else DISTRACTORS)]
        mirrored = draws.below(2) == 1
        light = draws.between(205, 290)
        gains = np.array([light + draws.between(-14, 14) for _ in range(3)])
        for _attempt in range(8):
            pose = _pose(draws)
            box = pose.box(SIZE)
            colour, alpha = _turned(picture, pose, box, mirrored)
            left, top, right, bottom = box
            mask = np.zeros((SIZE, SIZE), dtype=bool)
            mask[top:bottom, left:right] = 2 * alpha >= _FULL
            if fits(mask, layers, areas):
                drawn.append(name)
                areas.append(int(mask.sum()))
                layers[mask] = len(drawn)
                alpha = alpha[..., None]
                painted = np.minimum(colour * gains // 256, 255 * alpha)
                region = canvas[top:bottom, left:right]
                region[:] = (region * (_FULL - alpha) + painted + _FULL // 2) // _FULL
                break
    canvas += noise(draws)
    return Scene(np.clip(canvas, 0, 255).astype(np.uint8), layers, tuple(drawn))


def _grounds(draws: Draws) -> np.ndarray:
    """One or two grounds of any tone and pattern, (SIZE, SIZE, 3) int64."""
    number = 1 if draws.below(10) < 7 else 2
    owner = border(draws) if number == 2 else np.zeros((SIZE, SIZE), dtype=np.int64)
    canvas = np.zeros((SIZE, SIZE, 3), dtype=np.int64)
    for place in range(number):
        parts = draws.pick(list(TONES)), draws.pick(list(PATTERNS))
        canvas[owner == place] = ground(parts, draws)[owner == place]
    return canvas


def _objects(names: Sequence[str], draws: Draws) -> list[str | None]:
    """Classes of the objects to draw, from back to front; None: a distractor."""
    pool = draws.sample(names, min(len(names), draws.pick((1, 2, 2, 3))))
    chosen: list[str | None] = [draws.pick(pool) for _ in range(draws.between(2, 4))]
    chosen += [None] * draws.pick((0, 0, 1, 1, 1, 2))
    return draws.sample(chosen, len(chosen))


def _pose(draws: Draws) -> Pose:
    radius = draws.between(*RADII)
    margin = radius * 5 // 8  # so that little of it lies outside of the image
    x, y = (draws.between(margin, SIZE * PIXEL - margin) for _ in range(2))
    return Pose(x, y, radius, draws.between(-_MOST_ROTATION, _MOST_ROTATION))


def _turned(picture: np.ndarray, pose: Pose, box: tuple, mirrored: bool) -> tuple[np.ndarray, np.ndarray]:
    """A glyph in its pose over the pixels of ``box``: colours times alpha (h, w, 3) and alpha (h, w), 0.. ``_FULL``.

    The radius is half the longer side of what the glyph shows. Pixels sum the glyph's pixels nearest to 2 x 2 samples.
    """
    solid = picture[..., 3] >= 128
    rows, columns = (np.flatnonzero(solid.any(axis=axis)) for axis in (1, 0))
    whole = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.int64)
    alpha = whole[..., 3:]
    texels = np.concatenate([whole[..., :3] * alpha, alpha], axis=-1)
    shrink = 1
    if pose.radius < _COARSE:
        shrink = 2
        texels = np.pad(texels, ((0, texels.shape[0] % 2), (0, texels.shape[1] % 2), (0, 0)))
        texels = (texels[::2, ::2] + texels[1::2, ::2] + texels[::2, 1::2] + texels[1::2, 1::2] + 2) // 4
    height, width = whole.shape[:2]
    side = max(height, width)
    u, v = (values.astype(np.int64) for values in coordinates(pose, box))
    if mirrored:
        u = -u
    column, row = ((size * UNIT + at * side) // (2 * shrink * UNIT) for size, at in ((width, u), (height, v)))
    inside = (row >= 0) & (row < texels.shape[0]) & (column >= 0) & (column < texels.shape[1])
    samples = np.where(inside[..., None], texels[np.where(inside, row, 0), np.where(inside, column, 0)], 0)
    summed = samples[::2, ::2] + samples[1::2, ::2] + samples[::2, 1::2] + samples[1::2, 1::2]
    return summed[..., :3], summed[..., 3]
