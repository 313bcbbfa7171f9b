"""The settings of a benchmark: the data of each seed, and the length of the trainings."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from minibench.methods import Method
from PADing.data.mini import VERSION
from PADing.errors import UserError

BUDGETS = ("quick", "full", "smoke")
# Default number of seeds.
SEEDS = {"quick": 1, "full": 3, "smoke": 1}
# Training images, validation images, side in pixels. Smoke is for tests: it runs every step and learns nothing.
SIZES = {"quick": (2000, 300, 128), "full": (2000, 300, 128), "smoke": (24, 8, 64)}
SMOKE_ITERATIONS, SMOKE_BATCH = 4, 2
# The seed of the tuning split: no reported metric uses its images.
TUNING_SEED = 0


@dataclass(frozen=True)
class Settings:
    """One benchmark. ``size``: side of an image in pixels; ``noise``: of the class embeddings, ``PADing.data.mini``."""

    split: str
    budget: str
    seeds: tuple[int, ...]
    train: int
    val: int
    size: int
    noise: float

    @property
    def split_name(self) -> str:
        """Name of the split file; data set names and the data's folder begin with it."""
        return "mini" if self.split == "compositional" else f"mini_{self.split}"

    def data_folder(self, seed: int) -> str:
        """``DETECTRON2_DATASETS`` of a seed, relative to the output folder."""
        sizes = f"{self.train}-{self.val}-{self.size}px"
        return f"data/v{VERSION}-{self.split}-seed{seed}-{sizes}-noise{self.noise:g}"

    def iterations(self, method: Method) -> int:
        """Number of training iterations of a method."""
        smoke = self.budget == "smoke"
        return min(SMOKE_ITERATIONS, method.iterations["quick"]) if smoke else method.iterations[self.budget]


def make_settings(
    split: str = "compositional",
    budget: str = "full",
    seeds: Sequence[int] | None = None,
    train: int | None = None,
    val: int | None = None,
    size: int | None = None,
    noise: float = 0.15,
) -> Settings:
    """Settings, with the budget's defaults for arguments that are None; UserError for a size or seed out of range."""
    if seeds is None:
        seeds = (TUNING_SEED,) if split == "tuning" else range(1, SEEDS[budget] + 1)
    sizes = zip((train, val, size), SIZES[budget], strict=True)
    train, val, size = (default if value is None else value for value, default in sizes)
    if not seeds or min(seeds) < 0:
        raise UserError(f"There must be at least one seed, and no seed below 0, but the seeds are {list(seeds)}.")
    if TUNING_SEED in seeds and split != "tuning":
        use = f"draws the images on which hyperparameters are chosen. Use other seeds for the {split} split."
        raise UserError(f"Seed {TUNING_SEED} {use}")
    if min(train, val) < 1 or size < 32 or size % 32:
        given = f"--train {train} --val {val} --size {size}"
        raise UserError(
            f"There must be at least one image of each kind, and the side must be a multiple of 32, but got {given}."
        )
    if noise < 0:
        raise UserError(f"--noise must not be negative, but is {noise}.")
    return Settings(split, budget, tuple(dict.fromkeys(seeds)), train, val, size, noise)


def annotation_checksum(root: Path) -> str:
    """SHA-256 of all annotation of one drawn data set (``root``: its folder); the same on every machine."""
    digest = hashlib.sha256()
    for path in sorted((root / "annotations").glob("*.json")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
