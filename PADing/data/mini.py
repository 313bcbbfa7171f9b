"""The classes, class embeddings and images of the mini data set; ``PADing.data.mini_files`` writes them to files.

Everything is drawn from one seed, image by image, so image k does not depend on the number of images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from PADing.data import mini_extra
from PADing.errors import UserError

__all__ = [
    "UNSEEN", "VERSION", "Category", "categories", "class_embeddings", "distractor_embeddings",
    "draw_image", "extra_categories", "polygons",
]  # fmt: skip

VERSION = 1

SHAPES = ("disc", "bar", "triangle", "star")
SURFACES = ("plain", "striped", "dotted", "checkered")
PATTERNS = ("waves", "sand", "bricks")
COLOURS = ("brown", "teal")
PARTS = (*SHAPES, *SURFACES, *PATTERNS, *COLOURS, "thing", "stuff")

# compositional: every part of an unseen class occurs in at least two seen classes.
# hard: the only seen star is plain, so no other example tells "star" from "plain".
# tuning: like compositional, with other unseen classes; for choosing hyperparameters, never for reports.
UNSEEN = {
    "compositional": ("striped disc", "dotted bar", "checkered triangle", "plain star", "teal waves", "brown sand"),
    "hard": ("striped star", "dotted star", "checkered star", "plain disc", "teal waves", "brown sand"),
    "tuning": ("checkered disc", "plain bar", "striped triangle", "dotted star", "brown waves", "teal sand"),
}

# Two colours per surface and ground (RGB), jittered per object.
SURFACE_RGB = {
    "plain": ((205, 50, 45), (205, 50, 45)),
    "striped": ((50, 80, 205), (225, 228, 235)),
    "dotted": ((232, 190, 40), (60, 45, 30)),
    "checkered": ((40, 150, 70), (20, 30, 25)),
}
GROUND_RGB = {"brown": ((150, 115, 85), (118, 86, 60)), "teal": ((95, 150, 155), (66, 112, 122))}
_GROUND_RGB = {**GROUND_RGB, **mini_extra.GROUND_RGB}

MOST_DISTRACTORS = 1500  # of the 1830 pairs of parts
MAX_ROTATION = np.pi / 5


@dataclass(frozen=True)
class Category:
    """One class; ``id`` is the data set's id (with gaps, as COCO's have)."""

    id: int
    name: str
    isthing: bool
    parts: tuple[str, str]


def categories() -> list[Category]:
    """All classes, things first, ids ascending."""
    things = [(surface, shape) for shape in SHAPES for surface in SURFACES]
    stuff = [(colour, pattern) for pattern in PATTERNS for colour in COLOURS]
    kinds = ((things, 1, True), (stuff, 10 * (1 + len(things) // 10) + 1, False))
    return [Category(i, " ".join(p), isthing, p) for parts, n, isthing in kinds for i, p in enumerate(parts, start=n)]


def extra_categories() -> list[Category]:
    """Compositions with a part of ``PADing.data.mini_extra``, which no data set shows. Their ids begin at 101."""
    pairs = []
    for firsts, seconds, isthing in (
        ((*SURFACES, *mini_extra.SURFACES), (*SHAPES, *mini_extra.SHAPES), True),
        ((*COLOURS, *mini_extra.GROUND_RGB), (*PATTERNS, *mini_extra.PATTERNS), False),
    ):
        pairs += [((first, second), isthing) for second in seconds for first in firsts]
    known = {category.parts for category in categories()}
    new = [(parts, isthing) for parts, isthing in pairs if parts not in known]
    return [Category(i, " ".join(parts), isthing, parts) for i, (parts, isthing) in enumerate(new, start=101)]


def class_embeddings(dim: int, noise: float, seed: int) -> np.ndarray:
    """Class embeddings (C, dim) float32 of unit length: two part vectors, a thing/stuff vector and noise, rotated.

    Args:
        dim: width, at least the number of parts + 2.
        noise: length of a class's random vector relative to the sum of its other vectors.
        seed: of the random vectors and the rotation.

    Raises:
        UserError: ``dim`` is too small.
    """
    rng = np.random.default_rng([seed, 1])
    code = np.stack([sum(_part_vector(part, dim) for part in _all_parts(category)) for category in categories()])
    code = _with_noise(code, noise, rng)
    return _turned(code, rng.standard_normal((dim, dim)))


def distractor_embeddings(count: int, dim: int, noise: float, seed: int) -> tuple[list[Category], np.ndarray]:
    """Classes that no image shows, with embeddings (count, dim) as :func:`class_embeddings` makes them.

    Each is a random pair of parts that is no class. Beside the parts of the classes there are 50 others, "word 1" to
    "word 50", with random directions, because no more directions are free.

    Raises:
        UserError: ``dim`` is too small, or ``count`` is not from 1 to ``MOST_DISTRACTORS``.
    """
    if not 1 <= count <= MOST_DISTRACTORS:
        raise UserError(f"The number of distractors must be 1 to {MOST_DISTRACTORS}, but is {count}.")
    rng = np.random.default_rng([seed, 4])
    _part_vector("thing", dim)  # refuses a dim that is too small
    words = [f"word {i + 1}" for i in range(50)]
    directions = rng.standard_normal((len(words), dim))
    vectors = dict(zip(words, directions / np.linalg.norm(directions, axis=1, keepdims=True), strict=True))
    vectors |= {part: _part_vector(part, dim) for part in PARTS}
    taken = {frozenset(category.parts) for category in categories()}
    names = [name for name in vectors if name not in ("thing", "stuff")]
    share = np.mean([category.isthing for category in categories()])
    found: list[Category] = []
    while len(found) < count:
        first, second = (names[i] for i in rng.choice(len(names), size=2, replace=False))
        if frozenset((first, second)) not in taken:
            taken.add(frozenset((first, second)))
            found.append(Category(1000 + len(found), f"{first} {second}", bool(rng.random() < share), (first, second)))
    code = np.stack([sum(vectors[part] for part in _all_parts(c)) for c in found])
    code = _with_noise(code, noise, rng)
    own = np.random.default_rng([seed, 1])  # the classes' rotation
    own.standard_normal((len(categories()), dim))
    return found, _turned(code, own.standard_normal((dim, dim)))


def _all_parts(category: Category) -> tuple[str, str, str]:
    return (*category.parts, "thing" if category.isthing else "stuff")


def _part_vector(part: str, dim: int) -> np.ndarray:
    if dim < len(PARTS):
        raise UserError(f"--dim {dim} is too small: {len(PARTS)} parts need at least {len(PARTS)} dimensions.")
    return np.eye(dim)[PARTS.index(part)]


def _with_noise(code: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    direction = rng.standard_normal(code.shape)
    return code + noise * np.sqrt(3.0) * direction / np.linalg.norm(direction, axis=1, keepdims=True)


def _turned(code: np.ndarray, random: np.ndarray) -> np.ndarray:
    """``code`` rotated by an orthogonal matrix made of ``random`` (dim, dim), at unit length."""
    rotation, _ = np.linalg.qr(random)
    code = code @ rotation
    return (code / np.linalg.norm(code, axis=1, keepdims=True)).astype(np.float32)


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Signed distance (approximate) to the outline of the unit shape at (u, v), positive inside."""
    if shape == "disc":
        return 0.95 - np.hypot(u, v)
    if shape == "bar":
        return np.minimum(1.05 - abs(u), 0.42 - abs(v))
    if shape == "triangle":
        edges = [u * np.cos(a) + v * np.sin(a) for a in (np.pi / 2, np.pi * 7 / 6, np.pi * 11 / 6)]
        return 0.55 - np.maximum.reduce(edges)
    if shape == "star":
        # Five arms: fold the angle into one half arm, then test against the straight edge from tip to notch.
        radius, angle = np.hypot(u, v), np.arctan2(v, u)
        half = abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
        tip, notch = np.array([1.05, 0.0]), 0.45 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
        normal = np.array([notch[1] - tip[1], tip[0] - notch[0]])
        normal /= np.linalg.norm(normal)
        return tip @ normal - radius * (np.cos(half) * normal[0] + np.sin(half) * normal[1])
    return mini_extra.SHAPES[shape](u, v)


def _surface(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Share of the second colour at object coordinates (u, v), in 0..1."""
    if kind == "plain":
        return np.zeros_like(u)
    if kind == "striped":
        return (np.floor(u * 3.2) % 2).astype(float)
    if kind == "dotted":
        return (np.hypot((u * 2.4) % 1 - 0.5, (v * 2.4) % 1 - 0.5) < 0.30).astype(float)
    if kind == "checkered":
        return ((np.floor(u * 2.8) + np.floor(v * 2.8)) % 2).astype(float)
    return mini_extra.SURFACES[kind](u, v)


def _ground(pattern: str, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Share of the second ground colour at pixels (x, y), in 0..1."""
    phase = rng.uniform(0, 2 * np.pi, 2)
    if pattern == "waves":
        return 0.5 + 0.5 * np.sin(y * 0.75 + 2.0 * np.sin(x * 0.15 + phase[0]) + phase[1])
    if pattern == "sand":
        return (rng.random(x.shape) < 0.35).astype(float)
    if pattern in mini_extra.PATTERNS:
        return mini_extra.PATTERNS[pattern](x, y, phase)
    row = np.floor(y / 8 + phase[0])
    along = x / 16 + 0.5 * (row % 2) + phase[1]
    return ((y / 8 + phase[0]) % 1 < 0.22) | (along % 1 < 0.13)


def _mix(colours: Sequence | np.ndarray, share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    first, second = (np.clip(np.array(c) + rng.uniform(-18, 18, 3), 0, 255) for c in colours)
    return first + (second - first) * np.asarray(share, dtype=float)[..., None]


def draw_image(
    rng: np.random.Generator, size: int, things: list[Category], stuff: list[Category]
) -> tuple[np.ndarray, list[tuple[Category, np.ndarray]]]:
    """Draw one image.

    Returns:
        the image (size, size, 3) uint8 RGB, and a list of (Category, (size, size) bool mask). Masks do not overlap and
        cover the whole image. Thing masks have no holes, so polygons can describe them.
    """
    y, x = np.mgrid[0:size, 0:size].astype(float)
    grounds = [stuff[i] for i in rng.choice(len(stuff), size=min(len(stuff), int(rng.integers(1, 3))), replace=False)]
    owner = np.zeros((size, size), dtype=int)
    if len(grounds) == 2:
        angle = rng.uniform(0, 2 * np.pi)
        across = (x - size / 2) * np.cos(angle) + (y - size / 2) * np.sin(angle)
        along = (y - size / 2) * np.cos(angle) - (x - size / 2) * np.sin(angle)
        bend = 0.06 * size * np.sin(along * 2 * np.pi / size + rng.uniform(0, 2 * np.pi))
        owner = (across + bend > rng.uniform(-0.2, 0.2) * size).astype(int)
    image = np.zeros((size, size, 3))
    for i, category in enumerate(grounds):
        colour, pattern = category.parts
        region = owner == i
        image[region] = _mix(_GROUND_RGB[colour], _ground(pattern, x, y, rng), rng)[region]

    objects: list[tuple[Category, np.ndarray]] = []
    for _ in range(rng.integers(2, 5)):
        category = things[rng.integers(len(things))]
        surface, shape = category.parts
        for _attempt in range(8):
            radius = size * rng.uniform(0.13, 0.25)
            cx, cy = rng.uniform(0.5 * radius, size - 0.5 * radius, 2)
            angle = rng.uniform(-MAX_ROTATION, MAX_ROTATION)
            u = ((x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)) / radius
            v = ((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) / radius
            measure = _inside(shape, u, v) * radius
            mask = measure > 0
            if _fits(mask, objects):
                objects = [(c, m & ~mask) for c, m in objects] + [(category, mask)]
                colours: Any = SURFACE_RGB.get(surface) or rng.uniform(20, 240, (2, 3))
                paint = _mix(colours, _surface(surface, u, v), rng) * rng.uniform(0.85, 1.1)
                alpha = np.clip(measure + 0.5, 0, 1)[..., None]
                image = image * (1 - alpha) + np.clip(paint, 0, 255) * alpha
                break
    image += rng.normal(0, 5, image.shape)
    covered = np.logical_or.reduce([m for _, m in objects]) if objects else np.zeros((size, size), dtype=bool)
    segments = [(c, (owner == i) & ~covered) for i, c in enumerate(grounds)] + objects
    return np.clip(image + 0.5, 0, 255).astype(np.uint8), [(c, m) for c, m in segments if m.any()]


def _fits(mask: np.ndarray, objects: list[tuple[Category, np.ndarray]]) -> bool:
    """Whether a new object in front leaves each earlier one at least two thirds visible and without a hole."""
    left = [(other, other & ~mask) for _, other in objects]
    enough = mask.sum() >= 40 and all(rest.sum() >= max(40, 0.67 * other.sum()) for other, rest in left)
    return enough and not any(_has_hole(rest) for _, rest in left)


def _has_hole(mask: np.ndarray) -> bool:
    import cv2  # late, because commands need this module for the names alone

    _, hierarchy = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    return bool((hierarchy[0, :, 3] >= 0).any())


def polygons(mask: np.ndarray) -> list[list[float]]:
    """COCO polygons whose rasterisation is ``mask``: outlines are traced four times finer than the pixels."""
    import cv2

    fine = mask.repeat(4, axis=0).repeat(4, axis=1).astype(np.uint8)
    contours, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [[float(p) for p in ((c[:, 0] + 0.5) / 4).ravel()] for c in contours if len(c) >= 3]
