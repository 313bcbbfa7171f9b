"""What is run: world, track of class vectors, folds, second-stage seeds, lengths."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from PADing.data.mini_v2.vectors import TRACKS
from PADing.data.mini_v2.worlds import FOLDS, WORLDS
from PADing.errors import UserError, short
from PADing.files import read_json, write_json

__all__ = ["BUDGETS", "SETTINGS", "Lengths", "Settings", "make_settings", "read_settings"]

SETTINGS = "settings.json"
MOST_NUMBERS, MOST_SEED = 1000, 2**31 - 1
WARM_START = "warm-start"  # the world of the warm start


@dataclass(frozen=True)
class Lengths:
    """Training iterations. Images: None means all.

    Attributes:
        backbone: of the warm start's backbone, on cut-out segments. warm: of the whole warm start.
        segmenter: of a fold's segmenter, and of the supervised oracle.
        second: of second stages. whole: of methods that train the whole network after the segmenter.
        batch: images of a batch.
        train, val: first images of each set; None: all.
    """

    backbone: int
    warm: int
    segmenter: int
    second: int
    whole: int
    batch: int = 8
    train: int | None = None
    val: int | None = None


# Budget: folds, second-stage seeds, lengths. ``smoke`` is for tests: it runs every step and learns nothing.
BUDGETS: dict[str, tuple[int, int, Lengths]] = {
    "standard": (6, 2, Lengths(3000, 2500, 1000, 500, 300)),
    "full": (FOLDS, 2, Lengths(3000, 2500, 1000, 500, 300)),
    "quick": (2, 1, Lengths(600, 500, 300, 500, 300)),
    "smoke": (1, 1, Lengths(2, 2, 2, 3, 2, batch=2, train=40, val=20)),
}


@dataclass(frozen=True)
class Settings:
    """One benchmark in one folder.

    Attributes:
        world: "test", or "tuning" to choose hyperparameters. track: of class vectors, see ``TRACKS``.
        budget: see ``BUDGETS``. folds: from 1. seeds: of second stages.
        lengths: of the budget.
        warm_start: absolute path of a checkpoint to start from; "": it is trained first.
    """

    world: str
    track: str
    budget: str
    folds: tuple[int, ...]
    seeds: tuple[int, ...]
    lengths: Lengths
    warm_start: str = ""


def make_settings(
    world: str = "test",
    track: str = "clip",
    budget: str = "standard",
    folds: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    warm_start: str | Path = "",
) -> Settings:
    """Settings, with the budget's defaults for None; UserError for values that do not exist."""
    for name, value, known in (
        ("world", world, [one.name for one in WORLDS if one.name != WARM_START]),
        ("track", track, list(TRACKS)),
        ("budget", budget, list(BUDGETS)),
    ):
        if value not in known:
            raise UserError(f"--{name} is {value!r}, but must be one of {', '.join(known)}.")
    number, repeats, lengths = BUDGETS[budget]
    folds = range(1, number + 1) if folds is None else folds
    seeds = range(1, repeats + 1) if seeds is None else seeds
    check_numbers("Folds", folds, FOLDS)
    check_numbers("Seeds", seeds, MOST_SEED)
    start = str(Path(warm_start).absolute()) if warm_start else ""
    if start and not Path(start).is_file():
        raise UserError(f"--warm-start {warm_start} does not exist. Leave it out, and the warm start is trained first.")
    return Settings(world, track, budget, tuple(dict.fromkeys(folds)), tuple(dict.fromkeys(seeds)), lengths, start)


def check_numbers(what: str, numbers: Sequence[int], most: int) -> None:
    """UserError if there is none, one is not from 1 to ``most``, or they are too many to be meant.

    Seed 0 is that of rows without randomness.
    """
    if not 1 <= len(numbers) <= MOST_NUMBERS:
        raise UserError(f"{what} must be 1 to {MOST_NUMBERS} numbers, but {len(numbers):,} were named.")
    if (wrong := next((number for number in numbers if not 1 <= number <= most), None)) is not None:
        raise UserError(f"{what} are numbers from 1 to {most}, but {short(wrong)} was named.")


def write_settings(out: Path, settings: Settings, **more: Any) -> None:
    """Write ``<out>/settings.json`` for the steps' processes; ``more``: further entries."""
    write_json(out / SETTINGS, {**asdict(settings), **more}, indent=1)


def read_settings(out: Path) -> tuple[Settings, dict[str, Any]]:
    """The settings of a folder, and its further entries."""
    content = read_json(out / SETTINGS, "Settings of the benchmark")
    try:
        own = {field.name: content.pop(field.name) for field in fields(Settings)}
        lengths = Lengths(**own.pop("lengths"))
        names = [content.get(key, []) for key in ("plugins", "methods")]
        if not all(isinstance(texts, list) and all(isinstance(t, str) for t in texts) for texts in names):
            raise TypeError("plugins and methods must be lists of text")
        if not isinstance(own["warm_start"], str):
            raise TypeError("warm_start must be text")
        for key in ("folds", "seeds"):
            if not all(type(number) is int for number in own[key]):
                raise TypeError(f"{key} must be whole numbers")
        known = make_settings(**{**own, "warm_start": ""})
        if lengths != known.lengths:
            raise TypeError("its lengths are not those of its budget")
        return replace(known, warm_start=own["warm_start"]), content
    except (KeyError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"{out / SETTINGS} is not what this program writes ({error!r}). Delete it.") from error
