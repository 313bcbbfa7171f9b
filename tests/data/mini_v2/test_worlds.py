"""If these fail, the mini data, version 2, lets a method see test classes, or gives them away."""

from collections import Counter
from itertools import combinations
from math import log2

import numpy as np
import pytest

from PADing.data.mini_v2 import split_files
from PADing.data.mini_v2.folds import draw_folds, problems, unseen
from PADing.data.mini_v2.grounds import PATTERNS, TONES
from PADing.data.mini_v2.picture import LEAST_CONTRAST, LEAST_PIXELS, PALETTE, draw
from PADing.data.mini_v2.shapes import SHAPES
from PADing.data.mini_v2.textures import TEXTURES
from PADing.data.mini_v2.worlds import FOLDS, WORLDS
from PADing.data.splits import load_split
from PADing.files import REPOSITORY

WORLD = pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
TEST = WORLDS[0]


@pytest.fixture(scope="module")
def pictures():
    return [draw(TEST, "train", index) for index in range(150)]


def _parts(world) -> set[str]:
    return {*world.shapes, *world.textures, *world.patterns, *world.tones, *world.other_shapes, *world.other_textures}


def test_no_two_worlds_share_a_part():
    assert not any(_parts(one) & _parts(other) for one, other in combinations(WORLDS, 2))
    assert set().union(*map(_parts, WORLDS)) == {*SHAPES, *TEXTURES, *PATTERNS, *TONES}


@WORLD
def test_classes_are_pairs_of_parts(world):
    classes = world.categories()
    things, stuff = [c for c in classes if c.isthing], [c for c in classes if not c.isthing]
    assert (len(things), len(stuff)) == (48, 12)
    assert set(Counter(part for c in things for part in c.parts).values()) == {6}
    assert len({c.id for c in classes}) == len({c.name for c in classes}) == 60
    assert len(world.families) == len(world.shapes)


@WORLD
def test_folds_hide_every_class_equally_often_and_keep_each_part_in_two_seen_classes(world):
    """Counted here in another way than by ``problems``, which made the folds."""
    classes = {c.name: c for c in world.categories()}
    folds = [unseen(world, fold) for fold in range(1, FOLDS + 1)]
    times = Counter(name for fold in folds for name in fold)
    assert {times[c.name] for c in classes.values() if c.isthing} == {2, 3}
    assert {times[c.name] for c in classes.values() if not c.isthing} == {3, 4}
    assert len(set(folds)) == FOLDS
    for fold in folds:
        hidden = [classes[name] for name in fold]
        assert Counter(c.isthing for c in hidden) == {True: 12, False: 4}
        for c in hidden:
            for part in c.parts:
                assert sum(part in other.parts for other in classes.values() if other.name not in fold) >= 2
        assert any(set(a.parts) & set(b.parts) for a, b in combinations([c for c in hidden if c.isthing], 2))


@WORLD
def test_the_folds_are_those_that_the_rule_draws(world):
    drawn = draw_folds(world)
    assert [tuple(fold) for fold in drawn] == [unseen(world, fold) for fold in range(1, FOLDS + 1)]
    assert not problems(world, drawn)
    assert problems(world, [drawn[0]] * FOLDS)


def test_split_files_are_those_that_the_command_writes():
    root = REPOSITORY / "datasets" / "splits"
    wanted = split_files.contents()
    assert {path: (root / path).read_text(encoding="utf-8") for path in wanted} == wanted
    there = {f"mini2/{path.name}" for path in (root / "mini2").iterdir()}
    assert there == {path for path in wanted if path.startswith("mini2/")} and len(there) == 3 * (FOLDS + 1)


@WORLD
def test_splits_name_the_fold(world):
    for fold in (1, FOLDS):
        split = load_split(REPOSITORY / "datasets" / "splits" / "mini2" / f"{world.name}_fold{fold}.yaml")
        assert split.unseen == unseen(world, fold)
        assert [(c.id, c.name, c.isthing) for c in split.categories] == [
            (c.id, c.name, c.isthing) for c in world.categories()
        ]
        assert [data_set.name for data_set in split.data_sets] == split_files.data_set_names(world, fold)


def _information(pairs: list[tuple]) -> float:
    """Mutual information in bits, less its expected bias (Miller and Madow) for this number of pairs."""
    total, joint = len(pairs), Counter(pairs)
    first, second = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    bits = sum(n / total * log2(n * total / (first[a] * second[b])) for (a, b), n in joint.items())
    return bits - (len(first) - 1) * (len(second) - 1) / (2 * total * np.log(2))


def test_colour_says_nothing_about_the_texture(pictures):
    objects = [thing for picture in pictures for thing in picture.objects]
    assert len(objects) > 400
    for place in (0, 1):
        assert abs(_information([(thing.colours[place], thing.texture) for thing in objects])) < 0.1
        assert abs(_information([(thing.colours[place], thing.shape) for thing in objects])) < 0.1
    # The estimate finds it when there is some: with the colour for the texture, it is the entropy.
    assert _information([(thing.texture, thing.texture) for thing in objects]) > 2


def test_two_colours_of_an_object_differ(pictures):
    luma = [(77 * r + 150 * g + 29 * b) / 256 for r, g, b in PALETTE]
    for thing in (thing for picture in pictures for thing in picture.objects):
        first, second = (luma[i] for i in thing.colours)
        assert abs(first - second) > LEAST_CONTRAST - 1


def test_distractors_are_no_class_and_have_no_annotation(pictures):
    shown = 0
    for picture in pictures:
        for layer, thing in enumerate(picture.objects, start=1):
            mask = picture.layers == layer
            if thing.category is None:
                shown += 1
                assert thing.shape in TEST.other_shapes or thing.texture in TEST.other_textures
                assert not picture.numbers[mask].any()
            else:
                assert (thing.texture, thing.shape) == thing.category.parts
                (number,) = set(picture.numbers[mask].tolist())
                assert picture.categories[number - 1] == thing.category
    assert shown > 60


def test_what_is_annotated_can_be_seen(pictures):
    for picture in pictures:
        pixels = np.bincount(picture.numbers.ravel(), minlength=len(picture.categories) + 1)[1:]
        assert len(pixels) == len(picture.categories) and pixels.min() >= LEAST_PIXELS


def test_an_image_does_not_depend_on_the_others(pictures):
    again = draw(TEST, "train", 7)
    assert (again.image == pictures[7].image).all() and (again.numbers == pictures[7].numbers).all()
    assert (draw(TEST, "val", 7).image != again.image).any()
