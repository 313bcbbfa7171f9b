"""Pictures for the toy CLIP: scenes of the mini generator, and windows of them around objects and on grounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from PADing.data.mini import Category, categories, draw_image

__all__ = ["SCENE", "Scene", "draw_scenes", "object_window", "resized", "sample_windows"]

SCENE = 128  # side in pixels, that of the mini data set
_ATTEMPTS = 20  # to find a window on the ground
_THINGS = 0.7  # share of the windows; the others show a ground
_COVERED = 0.85  # share of a ground's window that the ground has


@dataclass(frozen=True)
class Scene:
    """A drawn picture (SCENE, SCENE, 3) uint8 RGB, and the classes with their masks (SCENE, SCENE) bool."""

    image: np.ndarray
    segments: list[tuple[Category, np.ndarray]]

    @property
    def objects(self) -> list[tuple[Category, np.ndarray]]:
        """The segments that are things."""
        return [(category, mask) for category, mask in self.segments if category.isthing]

    def flipped(self) -> "Scene":
        """Left and right exchanged."""
        return Scene(self.image[:, ::-1], [(category, mask[:, ::-1]) for category, mask in self.segments])


def draw_scenes(
    rng: np.random.Generator, count: int, classes: Sequence[Category], step: Callable[[], object] = lambda: None
) -> list[Scene]:
    """Draw scenes of the given classes only; ``step`` is called after each.

    Things of the mini data set are drawn as often as others together, or more.
    """
    things, stuff = ([c for c in classes if c.isthing == isthing] for isthing in (True, False))
    own = [c for c in things if c in categories()]
    things += own * (len(things) // max(len(own), 1) - 1)
    scenes: list[Scene] = []
    while len(scenes) < count:
        scene = Scene(*draw_image(rng, SCENE, things, stuff))
        if scene.objects:
            scenes.append(scene)
            step()
    return scenes


def object_window(mask: np.ndarray, scale: float, shift: tuple[float, float] = (0.0, 0.0)) -> tuple[int, int, int]:
    """A square window (x, y, side) around a mask, inside the picture.

    Args:
        mask: (SCENE, SCENE) bool, not empty.
        scale: the window's side as a multiple of the longer side of the mask's box.
        shift: of the window's centre, as shares of its side.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    side = int(np.clip(round(scale * max(box[2] - box[0], box[3] - box[1])), 8, len(mask)))
    centre = (box[:2] + box[2:]) / 2 + side * np.array(shift)
    x, y = np.clip(np.round(centre - side / 2), 0, len(mask) - side).astype(int)
    return int(x), int(y), side


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """A square picture at another size (size, size, 3) uint8."""
    how = cv2.INTER_AREA if len(image) > size else cv2.INTER_CUBIC
    return image if len(image) == size else cv2.resize(image, (size, size), interpolation=how)


def sample_windows(
    rng: np.random.Generator, scenes: Sequence[Scene], count: int, size: int
) -> tuple[np.ndarray, list[Category]]:
    """Random windows of scenes, each with one object in it or on one ground.

    Returns:
        pictures (n, size, size, 3) uint8, n <= ``count``, and their n classes.
    """
    images, classes = [], []
    for _ in range(count):
        scene = scenes[int(rng.integers(len(scenes)))]
        found = _around_object(rng, scene) if rng.random() < _THINGS else _on_ground(rng, scene)
        if found is not None:
            (x, y, side), category = found
            image = resized(scene.image[y : y + side, x : x + side], size)
            images.append(image[:, ::-1] if rng.random() < 0.5 else image)
            classes.append(category)
    return np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8), classes


def _around_object(rng: np.random.Generator, scene: Scene) -> tuple[tuple[int, int, int], Category]:
    category, mask = scene.objects[int(rng.integers(len(scene.objects)))]
    shift = rng.uniform(-0.12, 0.12, 2)
    return object_window(mask, rng.uniform(0.95, 1.7), (shift[0], shift[1])), category


def _on_ground(rng: np.random.Generator, scene: Scene) -> tuple[tuple[int, int, int], Category] | None:
    """A window that shows almost only one ground; None if it was not found."""
    grounds = [(category, mask) for category, mask in scene.segments if not category.isthing]
    for _ in range(_ATTEMPTS):
        side = int(rng.integers(SCENE // 5, SCENE // 2))
        x, y = (int(place) for place in rng.integers(SCENE - side + 1, size=2))
        for category, mask in grounds:
            if mask[y : y + side, x : x + side].mean() > _COVERED:
                return (x, y, side), category
    return None
