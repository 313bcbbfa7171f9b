"""Compares class names of different data sets: the only rule by which two names are names of one class.

Two names are equal if they agree after these changes: lower case; spaces, hyphens and underscores left out; and COCO's
marks "merged", "other" and "stuff" at the end left out, which say how its list was made, not what the class is. So
``diningtable`` is ``dining table`` and ``sky-other-merged`` is ``sky``. Nothing else is equal: not ``tree`` and
``vegetation``, not ``shelf`` and ``shelves``. Other spellings are synonyms in a split file.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

__all__ = ["distinct_names", "match_classes", "normalized"]

MARKS = ("merged", "other", "stuff")


def normalized(name: str) -> str:
    """The form in which names are compared; a mark alone, such as "other", stays."""
    words = [word for word in re.split(r"[\s_-]+", unicodedata.normalize("NFKC", name).casefold()) if word]
    while len(words) > 1 and words[-1] in MARKS:
        words.pop()
    return "".join(words)


def distinct_names(classes: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Each class's names, the first one first, without the synonyms that say nothing about it.

    A synonym is left out if several classes have it, or if it is the first name of another class: ADE20K calls both
    ``blind`` and ``screen door`` a ``screen``, which is a class of its own, too.
    """
    first = {normalized(names[0]) for names in classes}
    count = Counter(form for names in classes for form in {normalized(name) for name in names[1:]})
    result = []
    for names in classes:
        kept = {normalized(names[0]): names[0]}
        for name in names[1:]:
            form = normalized(name)
            if count[form] == 1 and form not in first:
                kept.setdefault(form, name)
        result.append(tuple(kept.values()))
    return result


def match_classes(classes: Sequence[Sequence[str]], known: Sequence[str]) -> list[int]:
    """For each class its position in ``known``, or -1 if no name of it is known.

    First names come before synonyms, and a known class stands for one class only: the first one that has its name as
    first name, or else as synonym.

    Args:
        classes: the names of each class, the first one first; only its :func:`distinct_names` count.
        known: names of a model's classes. A name may list synonyms: ``couch, sofa``.
    """
    position: dict[str, int] = {}
    for i, name in enumerate(known):
        for part in name.split(", "):
            position.setdefault(normalized(part), i)
    names = [[normalized(name) for name in own] for own in distinct_names(classes)]
    found, taken = [-1] * len(names), set[int]()
    for candidates in (lambda own: own[:1], lambda own: own[1:]):
        for i, own in enumerate(names):
            if found[i] >= 0:
                continue
            free = (position[form] for form in candidates(own) if form in position and position[form] not in taken)
            found[i] = next(free, -1)
            taken.add(found[i])
    return found
