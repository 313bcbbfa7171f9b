"""The three worlds of the mini data, version 2: their parts and classes. No two worlds share a part.

A thing is a texture and a shape ("striped disc"), stuff is a tone and a pattern ("teal waves"). 48 of a world's 64
pairs of texture and shape are classes, six of each texture and of each shape; all 12 pairs of tone and pattern are
classes.
"""

import functools
from dataclasses import dataclass

from PADing.data.mini import Category

__all__ = ["FOLDS", "WORLDS", "Category", "World", "world"]

FOLDS = 10
# Pairs that are no class: the shape's place minus the texture's, modulo 8.
_LEFT_OUT = (2, 5)
_FIRST_STUFF = 71


@dataclass(frozen=True)
class World:
    """The parts of one world, and how many images it has.

    Attributes:
        name: as in commands and names of data sets.
        number: keys of its random draws begin with it.
        shapes, textures, patterns, tones: parts of its classes.
        other_shapes, other_textures: parts of its distractors, which belong to no class.
        families: the super-category of each shape, for the noise of class vectors.
        train, val: number of images.
    """

    name: str
    number: int
    shapes: tuple[str, ...]
    textures: tuple[str, ...]
    patterns: tuple[str, ...]
    tones: tuple[str, ...]
    other_shapes: tuple[str, ...]
    other_textures: tuple[str, ...]
    families: tuple[str, ...]
    train: int
    val: int

    def categories(self) -> tuple[Category, ...]:
        """All classes, things first, ids ascending."""
        return _categories(self)

    def super_category(self, category: Category) -> str:
        """The group of classes whose vectors have noise in common: a family of shapes, or the pattern."""
        second = category.parts[1]
        return self.families[self.shapes.index(second)] if category.isthing else second


@functools.cache
def _categories(of: World) -> tuple[Category, ...]:
    found = []
    for row, shape in enumerate(of.shapes):
        for column, texture in enumerate(of.textures):
            if (row - column) % len(of.textures) not in _LEFT_OUT:
                number = len(of.textures) * row + column + 1
                found.append(Category(number, f"{texture} {shape}", True, (texture, shape)))
    pairs = [(tone, pattern) for pattern in of.patterns for tone in of.tones]
    return (*found, *(Category(i, " ".join(pair), False, pair) for i, pair in enumerate(pairs, start=_FIRST_STUFF)))


WORLDS = (
    World(
        name="test",
        number=1,
        shapes=("disc", "bar", "triangle", "star", "cross", "crescent", "arch", "arrow"),
        textures=("plain", "striped", "dotted", "checkered", "ringed", "gridded", "zigzag", "speckled"),
        patterns=("waves", "sand", "bricks", "tiles"),
        tones=("brown", "teal", "grey"),
        other_shapes=("comb", "leaf"),
        other_textures=("woven", "squared"),
        families=("simple", "simple", "simple", "pointed", "pointed", "curved", "curved", "pointed"),
        train=2000,
        val=1000,
    ),
    World(
        name="tuning",
        number=2,
        shapes=("square", "heart", "hourglass", "elbow", "tee", "drop", "kite", "zed"),
        textures=("halved", "diagonal", "dashed", "waved", "rayed", "plussed", "bricked", "triangled"),
        patterns=("ripples", "planks", "pebbles", "wicker"),
        tones=("olive", "plum", "cream"),
        other_shapes=("mushroom", "stairs"),
        other_textures=("boxed", "uneven"),
        families=("simple", "curved", "simple", "letter", "letter", "curved", "simple", "letter"),
        train=2000,
        val=500,
    ),
    World(
        name="warm-start",
        number=3,
        shapes=("hexagon", "oval", "trapezium", "bolt", "house", "burst", "clover", "wedge"),
        textures=("quartered", "harlequin", "ticked", "scaled", "netted", "centred", "arced", "tufted"),
        patterns=("dunes", "shingles", "flecks", "mesh"),
        tones=("rust", "slate", "moss"),
        other_shapes=("dumbbell", "funnel"),
        other_textures=("stepped", "grained"),
        families=("simple", "round", "simple", "pointed", "simple", "pointed", "round", "round"),
        train=2000,
        val=500,
    ),
)


def world(name: str) -> World:
    """The world called ``name``; KeyError if there is none."""
    return {one.name: one for one in WORLDS}[name]
