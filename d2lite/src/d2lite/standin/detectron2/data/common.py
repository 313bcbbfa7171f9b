"""Wrappers of data sets: packed into one buffer, mapped, shared among workers, grouped by shape."""

import copy
import logging
import pickle
import random
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any

from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

logger = logging.getLogger(__name__)


class DatasetFromList(Dataset):
    """The elements of a list, as copies; with ``serialize``, in one block of bytes, which forked workers share."""

    def __init__(self, lst: list, copy: bool = True, serialize: bool = True):
        self._length, self._copies, self._serialized = len(lst), copy, serialize
        if not serialize:
            self._elements = lst
            return
        parts = [pickle.dumps(element, pickle.HIGHEST_PROTOCOL) for element in lst]
        self._block, self._bounds = b"".join(parts), array("q", accumulate(map(len, parts), initial=0))
        logger.info("Packed %d elements into %.1f MiB.", len(lst), len(self._block) / 2**20)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, idx: int) -> Any:
        position = range(self._length)[idx]  # checks it, and counts negative ones from the end
        if self._serialized:
            # Safe: this object packed the bytes itself, in this process or the one it was forked from.
            return pickle.loads(memoryview(self._block)[self._bounds[position] : self._bounds[position + 1]])
        element = self._elements[position]
        return copy.deepcopy(element) if self._copies else element


class MapDataset(Dataset):
    """A data set with a function applied to each element; the function returns None to skip an element.

    An iterable data set gives an iterable result without skipped elements. In an indexed one, a random other element
    replaces a skipped one, drawn by a separate generator among those that have not failed.
    """

    def __new__(cls, dataset, map_func):
        """A stream is not a MapDataset itself, so Python does not run ``__init__`` on it."""
        return _MappedStream(dataset, map_func) if isinstance(dataset, IterableDataset) else super().__new__(cls)

    def __init__(self, dataset, map_func: Callable):
        self._dataset, self._map_func = dataset, map_func
        self._substitutes = random.Random(42)
        self._failed: set[int] = set()

    def __getnewargs__(self) -> tuple:
        return self._dataset, self._map_func  # for pickle, which calls __new__

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, idx: int) -> Any:
        index, tries = int(idx), 1
        while (mapped := self._map_func(self._dataset[index])) is None:
            self._failed.add(index)
            usable = [i for i in range(len(self)) if i not in self._failed]
            if not usable:
                raise ValueError(f"{self._map_func} gave None for all {len(self)} elements.")
            if tries >= 3:
                logger.warning("%d elements in a row, the first at %d, cannot be used.", tries, idx)
            index, tries = self._substitutes.sample(usable, 1)[0], tries + 1
        self._failed.discard(index)
        return mapped


class _MappedStream(IterableDataset):
    def __init__(self, dataset, map_func: Callable):
        self._dataset, self._map_func = dataset, map_func

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator:
        return (mapped for mapped in map(self._map_func, self._dataset) if mapped is not None)


class ToIterableDataset(IterableDataset):
    """The elements of an indexed data set in a sampler's order, shared among the workers of a loader.

    Each worker runs through the sampler and takes its chunks of ``shard_chunk_size`` indices. With the batch size,
    batches are in the sampler's order. ``shard_sampler`` False: the sampler itself distributes indices to workers.
    """

    def __init__(
        self, dataset: Dataset, sampler: Sampler | None, shard_sampler: bool = True, shard_chunk_size: int = 1
    ):
        assert not isinstance(dataset, IterableDataset), "an iterable data set has no indices"
        assert isinstance(sampler, Sampler), f"a {type(sampler).__name__} is not a torch Sampler"
        self.dataset, self.sampler = dataset, sampler
        self.shard_sampler, self.shard_chunk_size = shard_sampler, shard_chunk_size

    def __iter__(self) -> Iterator:
        worker, mine = get_worker_info(), iter(self.sampler)
        if worker is not None and self.shard_sampler:
            deals = enumerate(self.sampler)
            mine = (i for n, i in deals if n // self.shard_chunk_size % worker.num_workers == worker.id)
        return map(self.dataset.__getitem__, mine)


class AspectRatioGroupedDataset(IterableDataset):
    """Full batches of either wide images or of all others, by ``width`` and ``height`` of their dicts."""

    def __init__(self, dataset: Iterable[dict], batch_size: int):
        self.dataset, self.batch_size = dataset, batch_size
        self._waiting: dict[bool, list[dict]] = {True: [], False: []}

    def __iter__(self) -> Iterator[list[dict]]:
        for image in self.dataset:
            wide = image["width"] > image["height"]
            self._waiting[wide].append(image)
            if len(self._waiting[wide]) == self.batch_size:
                batch, self._waiting[wide] = self._waiting[wide], []
                yield batch
