"""Training samples as a function of their position, so that a resumed run continues the data order where it stopped.

Position p of the stream determines both the image and the seed of its augmentation. So a checkpoint needs no more than
the positions that have not been used yet, and augmentations do not depend on the number of workers.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, build_detection_train_loader, get_detection_dataset_dicts
from detectron2.utils import comm
from torch.utils.data import Dataset, Sampler

from PADing.engine.rng import seeded_rng
from PADing.errors import UserError

logger = logging.getLogger(__name__)

POSITION = "stream_position"
# Unreadable images in a row after which something else than an image must be wrong.
MOST_REPLACEMENTS = 100


class TrainingStream(Dataset):
    """``stream[p]`` is the p-th training sample, augmented.

    Images come in epochs, each a permutation as Detectron2's ``TrainingSampler`` makes it of the same seed. ``mapper``
    makes a model input of a dataset dict; where it returns None (an unreadable image), another image takes the place.
    """

    def __init__(self, dataset_dicts: Sequence[dict], mapper: Callable[[dict], dict | None], seed: int):
        self.dataset = DatasetFromList(list(dataset_dicts), copy=False)
        self.mapper = mapper
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Begin the order anew, or that of another run."""
        self.seed, self._generator = seed, torch.Generator().manual_seed(seed)
        self._epoch, self._order = -1, torch.empty(0)

    def __getstate__(self) -> dict[str, Any]:
        # For workers that are started anew, as in jobs of several processes: PyTorch cannot hand them a generator.
        return {**self.__dict__, "_generator": None, "_order": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.reseed(self.seed)

    def __len__(self) -> int:
        return len(self.dataset)

    def index(self, position: int) -> int:
        """The image at a position."""
        epoch, offset = divmod(position, len(self.dataset))
        if epoch < self._epoch:
            self.reseed(self.seed)
        while self._epoch < epoch:
            self._order = torch.randperm(len(self.dataset), generator=self._generator)
            self._epoch += 1
        return int(self._order[offset])

    def __getitem__(self, position: int) -> dict[str, Any]:
        position = int(position)
        index = self.index(position)
        with seeded_rng(self.seed, position):
            for _ in range(MOST_REPLACEMENTS):
                sample = self.mapper(self.dataset[index])
                if sample is not None:
                    sample[POSITION] = position
                    return sample
                index = int(torch.randint(len(self.dataset), ()))
        problem = f"{MOST_REPLACEMENTS} training images in a row could not be used; the messages above name them."
        raise UserError(f"{problem} Check the image folder of DATASETS.TRAIN.")


class PositionSampler(Sampler):
    """Positions of this process: every ``world_size``-th one, beginning with those that a stopped run left unused."""

    def __init__(self, rank: int, world_size: int):
        self.world_size = world_size
        self.next = rank
        self.pending: list[int] = []

    def __iter__(self) -> Iterator[int]:
        # Both are read before anything is yielded: `used` changes them while this runs.
        position, pending = self.next, list(self.pending)
        yield from pending
        while True:
            yield position
            position += self.world_size

    def used(self, positions: Iterable[int]) -> None:
        """Note that the samples at these positions have been trained on."""
        positions = set(positions)
        self.pending = [p for p in self.pending if p not in positions]
        beyond = max(positions, default=-1) + self.world_size
        if beyond > self.next:
            self.pending += [p for p in range(self.next, beyond, self.world_size) if p not in positions]
            self.next = beyond

    def state_dict(self) -> dict[str, Any]:
        """The place as plain values."""
        return {"world_size": self.world_size, "next": self.next, "pending": list(self.pending)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a place."""
        self.next, self.pending = state["next"], list(state["pending"])


class StreamLoader:
    """Batches of a ``TrainingStream`` without an end, and the place in it; set its state before iterating."""

    def __init__(self, batches: Iterable[list[dict]], stream: TrainingStream, sampler: PositionSampler):
        self.batches, self.stream, self.sampler = batches, stream, sampler

    def __iter__(self) -> Iterator[list[dict]]:
        return iter(self.batches)

    def used(self, batch: Iterable[dict]) -> None:
        """Note that a batch has been trained on."""
        self.sampler.used(sample[POSITION] for sample in batch)

    def state_dict(self) -> dict[str, Any]:
        """The place as plain values."""
        return {**self.sampler.state_dict(), "seed": self.stream.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a place."""
        self.stream.reseed(state["seed"])
        self.sampler.load_state_dict(state)


def build_stream_loader(cfg: CfgNode, mapper: Callable[[dict], dict | None]) -> StreamLoader:
    """Detectron2's training loader over a ``TrainingStream``. Without a ``SEED``, processes agree on a random one.

    UserError: no training image, a batch that processes cannot share evenly, or a sampler but ``TrainingSampler``.
    """
    if (name := cfg.DATALOADER.SAMPLER_TRAIN) != "TrainingSampler":
        raise UserError(f"DATALOADER.SAMPLER_TRAIN is {name!r}, but only TrainingSampler is supported.")
    world_size, images = comm.get_world_size(), cfg.SOLVER.IMS_PER_BATCH
    if images % world_size:
        raise UserError(f"SOLVER.IMS_PER_BATCH is {images}, which {world_size} processes cannot share evenly.")
    dicts: Any = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    if not dicts:
        raise UserError(f"The training data {list(cfg.DATASETS.TRAIN)} contain no image with an annotation.")
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    stream = TrainingStream(dicts, mapper, seed)
    sampler = PositionSampler(comm.get_rank(), world_size)
    # Without a mapper: the stream has mapped its samples already, because only there is the position known.
    options = {"aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING, "num_workers": cfg.DATALOADER.NUM_WORKERS}
    batches = build_detection_train_loader(stream, mapper=None, sampler=sampler, total_batch_size=images, **options)
    return StreamLoader(batches, stream, sampler)
