"""A stream of training samples by position, so that a resumed run continues the data order where it stopped.

Position p determines the image and the seed of its augmentation. So a checkpoint stores only the positions that are
not used yet, and augmentations do not depend on the number of workers.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, build_detection_train_loader, get_detection_dataset_dicts
from detectron2.utils import comm
from torch.utils.data import Dataset, Sampler

from PADing.data.worker_memory import ready_to_send
from PADing.engine.rng import seeded_rng
from PADing.errors import UserError

logger = logging.getLogger(__name__)

POSITION = "stream_position"
# Stop after so many unreadable images in a row: then the cause is not a single image.
MOST_REPLACEMENTS = 100


class TrainingStream(Dataset):
    """``stream[p]`` is the p-th training sample, augmented.

    Each epoch is a permutation of the images, the same as by Detectron2's ``TrainingSampler`` with the same seed.
    ``mapper`` turns a dataset dict into a model input. If it returns None (an unreadable image), another image is used.
    """

    def __init__(self, dataset_dicts: Sequence[dict], mapper: Callable[[dict], dict | None], seed: int):
        self.dataset = DatasetFromList(list(dataset_dicts), copy=False)
        self.mapper = mapper
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        """Start the data order of ``seed`` from its beginning."""
        self.seed, self._generator = seed, torch.Generator().manual_seed(seed)
        self._epoch, self._order = -1, torch.empty(0)

    def __getstate__(self) -> dict[str, Any]:
        # PyTorch cannot pickle a generator for spawned workers, as in jobs of several processes.
        return {**self.__dict__, "_generator": None, "_order": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.reseed(self.seed)

    def __len__(self) -> int:
        return len(self.dataset)

    def index(self, position: int) -> int:
        """The index of the image at a position."""
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
                    return ready_to_send(sample)
                index = int(torch.randint(len(self.dataset), ()))
        problem = f"{MOST_REPLACEMENTS} training images in a row could not be used; the messages above name them."
        raise UserError(f"{problem} Check the image folder of DATASETS.TRAIN.")


class PositionSampler(Sampler):
    """The positions of this process: first those that a stopped run left unused, then every ``world_size``-th one."""

    def __init__(self, rank: int, world_size: int):
        self.world_size = world_size
        self.next = rank
        self.pending: list[int] = []

    def __iter__(self) -> Iterator[int]:
        # Read both before the first yield, because `used` changes them while this runs.
        position, pending = self.next, list(self.pending)
        yield from pending
        while True:
            yield position
            position += self.world_size

    def used(self, positions: Iterable[int]) -> None:
        """Record that the samples at these positions have been trained on."""
        positions = set(positions)
        self.pending = [p for p in self.pending if p not in positions]
        beyond = max(positions, default=-1) + self.world_size
        if beyond > self.next:
            self.pending += [p for p in range(self.next, beyond, self.world_size) if p not in positions]
            self.next = beyond

    def state_dict(self) -> dict[str, Any]:
        """The position as plain values."""
        return {"world_size": self.world_size, "next": self.next, "pending": list(self.pending)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position of ``state_dict``."""
        self.next, self.pending = state["next"], list(state["pending"])


class StreamLoader:
    """Endless batches of a ``TrainingStream``, and the position in it; load its state before iterating."""

    def __init__(self, batches: Iterable[list[dict]], stream: TrainingStream, sampler: PositionSampler):
        self.batches, self.stream, self.sampler = batches, stream, sampler

    def __iter__(self) -> Iterator[list[dict]]:
        return iter(self.batches)

    def used(self, batch: Iterable[dict]) -> None:
        """Record that a batch has been trained on."""
        self.sampler.used(sample[POSITION] for sample in batch)

    def state_dict(self) -> dict[str, Any]:
        """The position as plain values."""
        return {**self.sampler.state_dict(), "seed": self.stream.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue at a position of ``state_dict``."""
        self.stream.reseed(state["seed"])
        self.sampler.load_state_dict(state)


def build_stream_loader(cfg: CfgNode, mapper: Callable[[dict], dict | None]) -> StreamLoader:
    """Detectron2's training loader over a ``TrainingStream``. If ``SEED`` is negative, processes share a random one.

    Raises:
        UserError: no training image, a batch that processes cannot share evenly, or another sampler than
            ``TrainingSampler``.
    """
    if (name := cfg.DATALOADER.SAMPLER_TRAIN) != "TrainingSampler":
        raise UserError(f"DATALOADER.SAMPLER_TRAIN is {name!r}. Set TrainingSampler, the only one supported.")
    world_size, images = comm.get_world_size(), cfg.SOLVER.IMS_PER_BATCH
    if images % world_size:
        raise UserError(f"SOLVER.IMS_PER_BATCH is {images}. Set a multiple of {world_size}, the number of processes.")
    dicts: Any = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    if not dicts:
        raise UserError(f"The data sets of DATASETS.TRAIN, {list(cfg.DATASETS.TRAIN)}, have no annotated image.")
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    stream = TrainingStream(dicts, mapper, seed)
    sampler = PositionSampler(comm.get_rank(), world_size)
    # No mapper here: the stream maps its samples itself, because it knows their positions.
    options = {"aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING, "num_workers": cfg.DATALOADER.NUM_WORKERS}
    batches = build_detection_train_loader(stream, mapper=None, sampler=sampler, total_batch_size=images, **options)
    return StreamLoader(batches, stream, sampler)
