"""Data set wrappers: a list in one buffer, mapping, sharding among workers, grouping by aspect ratio."""

import logging
import pickle
import random
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch.utils.data as torchdata
from torch.utils.data import IterableDataset

__all__ = ["MapDataset", "DatasetFromList", "AspectRatioGroupedDataset", "ToIterableDataset"]

logger = logging.getLogger(__name__)


class DatasetFromList(torchdata.Dataset):
    """A list as a data set."""

    def __init__(self, lst: list, copy: bool = True, serialize: bool = True):
        """
        Args:
            lst: the elements.
            copy: return a deep copy of an element each time, so that it may be changed. Only matters when ``serialize``
                is off, because a serialised element is made anew anyway.
            serialize: keep all elements pickled in one buffer. Forked workers then share its memory: Python objects
                would be copied into each worker bit by bit, as reading them changes their reference counts.
        """
        self._copy = copy
        self._serialize = serialize
        if not serialize:
            self._elements = lst
            return
        logger.info("Serializing %d elements to byte tensors and concatenating them all ...", len(lst))
        pickled = [np.frombuffer(pickle.dumps(x, protocol=pickle.HIGHEST_PROTOCOL), dtype=np.uint8) for x in lst]
        self._ends = np.cumsum([len(x) for x in pickled], dtype=np.int64)
        self._buffer = np.concatenate(pickled) if pickled else np.empty(0, dtype=np.uint8)
        logger.info("Serialized dataset takes %.2f MiB", self._buffer.nbytes / 1024**2)

    def __len__(self) -> int:
        return len(self._ends) if self._serialize else len(self._elements)

    def __getitem__(self, idx: int):
        if not self._serialize:
            element = self._elements[idx]
            return pickle.loads(pickle.dumps(element)) if self._copy else element
        idx = range(len(self))[idx]  # checks it, and counts negative ones from the end
        start = self._ends[idx - 1] if idx else 0
        return pickle.loads(memoryview(self._buffer[start : self._ends[idx]]))


class MapDataset(torchdata.Dataset):
    """Applies a function to the elements of a data set. A result of None means: take another element instead."""

    def __new__(cls, dataset, map_func):
        if isinstance(dataset, IterableDataset):
            return _MapIterableDataset(dataset, map_func)
        return super().__new__(cls)

    def __getnewargs__(self):
        return self._dataset, self._map_func

    def __init__(self, dataset: torchdata.Dataset, map_func: Callable):
        """
        Args:
            dataset: with ``len`` and indices, or iterable; the result is of the same kind.
            map_func: element -> element or None. In an iterable data set, elements that give None are left out; in an
                indexed one, another index is drawn among those that are not known to give None.
        """
        self._dataset = dataset
        self._map_func = map_func
        self._rng = random.Random(42)
        self._fallback_candidates = set(range(len(dataset)))

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, idx: int):
        current, failures = int(idx), 0
        while True:
            data = self._map_func(self._dataset[current])
            if data is not None:
                self._fallback_candidates.add(current)
                return data
            failures += 1
            self._fallback_candidates.discard(current)
            if not self._fallback_candidates:
                raise RuntimeError(f"The mapper {self._map_func} returned None for all {len(self)} elements.")
            if failures >= 3:
                logger.warning("The mapper returned None %d times in a row, starting at index %d.", failures, idx)
            current = self._rng.sample(sorted(self._fallback_candidates), k=1)[0]


class _MapIterableDataset(IterableDataset):
    def __init__(self, dataset: Iterable, map_func: Callable):
        self._dataset = dataset
        self._map_func = map_func

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator:
        for element in self._dataset:
            data = self._map_func(element)
            if data is not None:
                yield data


class ToIterableDataset(IterableDataset):
    """An indexed data set in the order of a sampler, whose indices are dealt to the loader's workers in chunks.

    With chunks of the batch size each worker makes whole batches, and the batches come out in the sampler's order: the
    same batches for any number of workers.
    """

    def __init__(
        self,
        dataset: torchdata.Dataset,
        sampler: Iterable[int],
        shard_sampler: bool = True,
        shard_chunk_size: int = 1,
    ):
        """
        Args:
            dataset: with indices.
            sampler: gives the indices, the same ones in every worker.
            shard_sampler: deal them to the workers; False when the sampler does so by itself.
            shard_chunk_size: how many successive indices a worker gets at a time.
        """
        assert not isinstance(dataset, IterableDataset), "The data set is iterable already."
        assert isinstance(sampler, Iterable), f"A sampler must be iterable, and {sampler!r} is not."
        self.dataset = dataset
        self.sampler = sampler
        self.shard_sampler = shard_sampler
        self.shard_chunk_size = shard_chunk_size

    def __iter__(self) -> Iterator:
        worker = torchdata.get_worker_info() if self.shard_sampler else None
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        for position, idx in enumerate(self.sampler):
            if position // self.shard_chunk_size % count == number:
                yield self.dataset[idx]


class AspectRatioGroupedDataset(IterableDataset):
    """Batches of images that are all wider than high, or all not, so that padding them wastes little.

    A batch is yielded as soon as one of the two groups is full. Groups that never get full are dropped.
    """

    def __init__(self, dataset: Iterable[dict], batch_size: int):
        """
        Args:
            dataset: iterable over dicts with ``width`` and ``height``.
            batch_size: number of dicts per batch.
        """
        self.dataset = dataset
        self.batch_size = batch_size
        self._buckets: tuple[list, list] = ([], [])

    def __iter__(self) -> Iterator[list[dict]]:
        for element in self.dataset:
            bucket = self._buckets[0 if element["width"] > element["height"] else 1]
            bucket.append(element)
            if len(bucket) == self.batch_size:
                batch = list(bucket)
                bucket.clear()  # before the yield, after which nobody may come back
                yield batch
