"""The ten folds of each world: which classes are unseen. ``folds.json`` has them; here is how they were drawn.

Of each fold, 12 of 48 things and 4 of 12 grounds are unseen. No part has more than two unseen things, so each part of
an unseen thing occurs in at least four seen ones; each part of an unseen ground occurs in at least two. Over the ten
folds, each thing is unseen two or three times and each ground three or four times.
"""

import functools
from collections import Counter
from pathlib import Path

from PADing.data.mini_v2.draws import Draws
from PADing.data.mini_v2.worlds import FOLDS, Category, World
from PADing.files import read_json

__all__ = ["FILE", "UNSEEN_STUFF", "UNSEEN_THINGS", "draw_folds", "problems", "unseen"]

FILE = Path(__file__).with_name("folds.json")
UNSEEN_THINGS, UNSEEN_STUFF = 12, 4
_KEY = 4  # of the random draws; images use 1 to 3


@functools.cache
def _read() -> dict[str, list[list[str]]]:
    return read_json(FILE, "Folds of the mini data")


def unseen(world: World, fold: int) -> tuple[str, ...]:
    """The names of the unseen classes of ``fold`` (from 1), in the order of the world's classes."""
    return tuple(_read()[world.name][fold - 1])


def draw_folds(world: World) -> list[list[str]]:
    """Draw the folds of a world: the least used classes first, in random order, as long as they fit."""
    draws = Draws(_KEY, world.number)
    while True:
        used: Counter[str] = Counter()
        folds = []
        for _ in range(FOLDS):
            chosen = _draw_one(world, used, draws)
            used.update(chosen)
            folds.append([category.name for category in world.categories() if category.name in chosen])
        if not problems(world, folds):
            return folds


def _draw_one(world: World, used: Counter, draws: Draws) -> set[str]:
    chosen: set[str] = set()
    for isthing, number in ((True, UNSEEN_THINGS), (False, UNSEEN_STUFF)):
        classes = [category for category in world.categories() if category.isthing == isthing]
        order = sorted(draws.sample(classes, len(classes)), key=lambda category: used[category.name])
        of_parts: Counter[str] = Counter()
        all_of_parts = Counter(part for category in classes for part in category.parts)
        taken: list[Category] = []
        for category in order:
            fits = all(of_parts[p] < 2 and all_of_parts[p] - of_parts[p] > 2 for p in category.parts)
            if fits and len(taken) < number:
                taken.append(category)
                of_parts.update(category.parts)
        chosen.update(category.name for category in taken)
    return chosen


def problems(world: World, folds: list[list[str]]) -> list[str]:
    """What is wrong with the folds of a world, in words; empty if they keep the rules of this module."""
    found = [] if len(folds) == FOLDS else [f"there are {len(folds)} folds instead of {FOLDS}"]
    classes = {category.name: category for category in world.categories()}
    used: Counter[str] = Counter(name for fold in folds for name in fold)
    for number, fold in enumerate(folds, start=1):
        where = f"fold {number}"
        if unknown := set(fold) - set(classes) or [name for name in fold if fold.count(name) > 1]:
            found.append(f"{where}: {unknown} are no classes, or twice there")
            continue
        for isthing, wanted in ((True, UNSEEN_THINGS), (False, UNSEEN_STUFF)):
            hidden = [classes[name] for name in fold if classes[name].isthing == isthing]
            seen = [c for name, c in classes.items() if name not in fold and c.isthing == isthing]
            of_parts = Counter(part for category in hidden for part in category.parts)
            of_seen = Counter(part for category in seen for part in category.parts)
            if len(hidden) != wanted:
                found.append(f"{where}: {len(hidden)} unseen classes instead of {wanted}")
            found += [f"{where}: {part} is in {of_seen[part]} seen classes" for part in of_parts if of_seen[part] < 2]
            if max(of_parts.values(), default=0) < 2:
                found.append(f"{where}: no two unseen classes share a part")
    for isthing, allowed in ((True, (2, 3)), (False, (3, 4))):
        names = [name for name, category in classes.items() if category.isthing == isthing]
        found += [f"{name} is unseen in {used[name]} folds" for name in names if used[name] not in allowed]
    return found
