"""Captions of the toy CLIP's pictures. They never speak of a class that the split holds out."""

from collections.abc import Collection, Sequence

import numpy as np

from PADing.data.embeddings import CLIP_TEMPLATES
from PADing.data.mini import UNSEEN, Category, categories, extra_categories
from PADing.errors import UserError

__all__ = ["Captions", "learned_classes", "seen_and_unseen"]

_THING_PROMPTS = (*CLIP_TEMPLATES, "{}", "a {}", "a photo of a {}.", "a picture of one {}", "there is a {}")
_GROUND_PROMPTS = (*CLIP_TEMPLATES, "{}", "a photo of {}.", "a ground of {}", "{} everywhere", "there is {}")
# For a surface or a colour alone, and for a shape or a pattern alone. They teach what each word means.
_PART_PROMPTS = (
    ("{}", "something {}", "a photo of something {}.", "it is {}"),
    ("{}", "a {}", "a photo of a {}.", "some {}"),
)


def seen_and_unseen(split: str) -> tuple[list[Category], list[Category]]:
    """The seen and the unseen classes of a split of the mini data set.

    Raises:
        UserError: there is no such split, or a word of an unseen class occurs in no seen class.
    """
    if split not in UNSEEN:
        raise UserError(f"The mini data set has no split {split!r}. It has: {', '.join(sorted(UNSEEN))}.")
    seen = [category for category in categories() if category.name not in UNSEEN[split]]
    unseen = [category for category in categories() if category.name in UNSEEN[split]]
    words = {part for category in seen for part in category.parts}
    if unknown := sorted({part for category in unseen for part in category.parts} - words):
        raise UserError(f"Split {split}: no seen class has the words {', '.join(unknown)}, so no caption teaches them.")
    return seen, unseen


def learned_classes(split: str) -> list[Category]:
    """The classes that pictures to learn from show: the seen ones of the split, and compositions with further parts."""
    return [*seen_and_unseen(split)[0], *extra_categories()]


class Captions:
    """Makes captions of classes.

    Args:
        learned: the classes that may be named. Another class is a ValueError: the caller has drawn a wrong picture.
    """

    def __init__(self, learned: Collection[Category]):
        self.names = {category.name for category in learned}

    def of(self, rng: np.random.Generator, category: Category, telling: int, alone: float) -> str:
        """A caption with the class's name, or with one part of it.

        Args:
            telling: the part that may stand alone: 0 the surface or colour, 1 the shape or pattern.
            alone: probability that it does.
        """
        if category.name not in self.names:
            raise ValueError(f"a picture to learn from shows {category.name!r}, which is held out")
        if rng.random() < alone:
            return _pick(rng, _PART_PROMPTS[telling]).format(category.parts[telling])
        return _pick(rng, _THING_PROMPTS if category.isthing else _GROUND_PROMPTS).format(category.name)


def _pick(rng: np.random.Generator, templates: Sequence[str]) -> str:
    return templates[int(rng.integers(len(templates)))]
