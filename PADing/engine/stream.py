"""A stream of training samples by position, so that a resumed run continues the data order where it stopped.

Position p determines the image and the seed of its augmentation. So a checkpoint stores only the positions that are
not used yet, and augmentations do not depend on the number of workers.
"""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetFromList, build_detection_train_loader, get_detection_dataset_dicts
from detectron2.utils import comm
from torch.utils.data import Dataset, Sampler

from PADing.data.packed_masks import packed, unpacked
from PADing.data.worker_memory import ready_to_send
from PADing.engine.rng import seeded_rng
from PADing.engine.shares import Shares
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
                    return ready_to_send(packed(sample))
                index = int(torch.randint(len(self.dataset), ()))
        problem = f"{MOST_REPLACEMENTS} training images in a row could not be used; the messages above name them."
        raise UserError(f"{problem} Check the image folder of DATASETS.TRAIN.")


class PositionSampler(Sampler):
    """The positions of one share: first those that a stopped run left unused, then every ``world_size``-th one.

    ``rank`` is the share's number and ``world_size`` the number of shares. As long as each process has one share, these
    are the processes.
    """

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
        last = max(positions, default=-1)
        if last >= self.next:
            beyond = last + self.world_size
            self.pending += [p for p in range(self.next, beyond, self.world_size) if p not in positions]
            self.next = beyond

    def state_dict(self) -> dict[str, Any]:
        """The position as plain values."""
        return {"world_size": self.world_size, "next": self.next, "pending": list(self.pending)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue at a position of ``state_dict``."""
        self.next, self.pending = state["next"], list(state["pending"])


def dealt_anew(states: Sequence[Mapping[str, Any]], number: int) -> list[dict[str, Any]]:
    """The states of all samplers of a run, as the states of another number of samplers.

    Unused positions keep their order and are dealt out one by one, so each of them is still used exactly once.
    """
    beyond = max(state["next"] for state in states)  # from here on no position is used
    unused: list[int] = []
    for state in states:
        unused += [*state["pending"], *range(state["next"], beyond, state["world_size"])]
    unused.sort()
    first = [(share - len(unused)) % number for share in range(number)]
    return [
        {"world_size": number, "next": beyond + first[share], "pending": unused[share::number]}
        for share in range(number)
    ]


class StreamLoader:
    """Endless batches of a ``TrainingStream``, and the position in it; call ``split`` before iterating.

    Iterating gives a batch; after ``split`` into other shares than one for each process, a list with the batch of each
    own share.

    Args:
        batches: makes the endless batches of the positions of a sampler, for a process with so many shares.
        stream: the samples.
    """

    def __init__(self, batches: Callable[[PositionSampler, Shares], Iterable[list[dict]]], stream: TrainingStream):
        self.batches, self.stream = batches, stream
        self.split(Shares())

    def split(self, shares: Shares) -> None:
        """Start at the beginning, with the positions of the own shares."""
        self.shares = shares
        self.samplers = [PositionSampler(share, shares.number) for share in shares.own]

    def __iter__(self) -> Iterator[Any]:
        if self.shares.one_each:
            return map(unpacked, self.batches(self.samplers[0], self.shares))
        parts = [map(unpacked, self.batches(sampler, self.shares)) for sampler in self.samplers]
        return map(list, zip(*parts, strict=True))

    def used(self, batch: Sequence[Any]) -> None:
        """Record that what iterating has given has been trained on."""
        for sampler, samples in zip(self.samplers, [batch] if self.shares.one_each else batch, strict=True):
            sampler.used(sample[POSITION] for sample in samples)

    def state_dicts(self) -> list[dict[str, Any]]:
        """The position of each own share as plain values."""
        return [{**sampler.state_dict(), "seed": self.stream.seed} for sampler in self.samplers]

    def load_state_dicts(self, states: Sequence[Mapping[str, Any]]) -> None:
        """Continue at the positions of all shares of a run, which may have had another number of shares."""
        self.stream.reseed(states[0]["seed"])
        if len(states) != self.shares.number:
            states = dealt_anew(states, self.shares.number)
        for sampler, share in zip(self.samplers, self.shares.own, strict=True):
            sampler.load_state_dict(states[share])

    def skip(self, positions: int) -> None:
        """Continue after so many positions, a multiple of the number of shares, of a run that left no state."""
        for sampler in self.samplers:
            sampler.next += positions


def build_stream_loader(cfg: CfgNode, mapper: Callable[[dict], dict | None]) -> StreamLoader:
    """Detectron2's training loader over a ``TrainingStream``. If ``SEED`` is negative, processes share a random one.

    Raises:
        UserError: no training image, or another sampler than ``TrainingSampler``; when it is iterated, a batch that the
            shares do not split evenly.
    """
    if (name := cfg.DATALOADER.SAMPLER_TRAIN) != "TrainingSampler":
        raise UserError(f"DATALOADER.SAMPLER_TRAIN is {name!r}. Set TrainingSampler, the only one supported.")
    dicts: Any = get_detection_dataset_dicts(cfg.DATASETS.TRAIN, filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    if not dicts:
        raise UserError(f"The data sets of DATASETS.TRAIN, {list(cfg.DATASETS.TRAIN)}, have no annotated image.")
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    stream = TrainingStream(dicts, mapper, seed)
    images, loading = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER
    grouping, workers = loading.ASPECT_RATIO_GROUPING, loading.NUM_WORKERS

    def batches(sampler: PositionSampler, shares: Shares) -> Iterable[list[dict]]:
        if images % shares.number:
            cure = f"Set a multiple of {shares.number}, the number of processes."
            raise UserError(f"SOLVER.IMS_PER_BATCH is {images}. {cure}")
        # Detectron2 divides by the number of processes.
        total = images // shares.number * shares.world
        # The order of grouped images depends on the number of workers, so each share has its own then.
        count = workers if grouping else math.ceil(workers / len(shares.own))
        options = {"aspect_ratio_grouping": grouping, "num_workers": count}
        # No mapper here: the stream maps its samples itself, because it knows their positions.
        return build_detection_train_loader(stream, mapper=None, sampler=sampler, total_batch_size=total, **options)

    return StreamLoader(batches, stream)
