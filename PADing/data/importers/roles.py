"""Which images validate: by a list, by a fraction of folders, or as the source says."""

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from PADing.data.importers.report import Report
from PADing.errors import UserError


def by_list(images: Sequence[str], path: str, report: Report) -> set[str]:
    """The images that a list names, a line each: relative path or name, with or without the extension.

    Raises:
        UserError: unreadable, or none or all of the images are in it.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"--val-list {path} is not UTF-8 text. Save it as UTF-8.") from None
    names = {line.strip().replace("\\", "/").removeprefix("./") for line in lines} - {""}
    chosen, used = set(), set()
    for image in images:
        keys = {image, PurePosixPath(image).name, str(PurePosixPath(image).with_suffix("")), PurePosixPath(image).stem}
        if keys & names:
            chosen.add(image)
            used |= keys & names
    for name in sorted(names - used):
        report.leave_out("name in --val-list that no imported image has", name)
    if not chosen or len(chosen) == len(images):
        part = "none" if not chosen else "all"
        raise UserError(f"--val-list {path} names {part} of the {len(images)} imported images. Each role needs one.")
    return chosen


def by_fraction(images: Sequence[str], fraction: float, seed: int, report: Report) -> set[str]:
    """About ``fraction`` of the images, whole folders at a time, so that frames of one sequence stay together.

    The folders are shuffled by ``seed``. With all images in one folder, single images are chosen.

    Raises:
        UserError: there are fewer than two images.
    """
    if len(images) < 2:
        raise UserError(f"--val-fraction needs at least two images, but {len(images)} can be imported.")
    group = {image: str(PurePosixPath(image).parent) for image in images}
    if len(set(group.values())) == 1:
        report.change("all images are in one folder, so --val-fraction took single images: similar ones may be in both "
                      "parts", group[images[0]])  # fmt: skip
        group = {image: image for image in images}
    sizes = Counter(group.values())
    order = sorted(sizes)
    random.Random(seed).shuffle(order)
    wanted, taken = fraction * len(images), 0
    chosen: set[str] = set()
    for name in order:
        better = abs(taken + sizes[name] - wanted) < abs(taken - wanted)
        if better and len(chosen) < len(order) - 1:
            chosen.add(name)
            taken += sizes[name]
    if not chosen:
        chosen.add(min(order, key=lambda name: sizes[name]))
    return {image for image in images if group[image] in chosen}
