"""Samplers: training processes take turns in one endless sequence from a shared seed."""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice

import torch
from detectron2.utils import comm
from torch.utils.data import Sampler


class _SharedSequence(Sampler):
    """This process's part of endless epochs. Without ``seed``, the processes agree on a random one."""

    def __init__(self, shuffle: bool, seed: int | None):
        self._shuffle, self._seed = shuffle, int(comm.shared_random_seed() if seed is None else seed)
        self._turn, self._turns = comm.get_rank(), comm.get_world_size()

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        """The elements of one epoch, int64 (n,)."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        return islice(self._endless(), self._turn, None, self._turns)

    def _endless(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed)
        while True:
            elements = self._epoch(generator)
            if self._shuffle:
                elements = elements[torch.randperm(len(elements), generator=generator)]
            yield from elements.tolist()


class TrainingSampler(_SharedSequence):
    """All of ``size`` elements, again and again; TypeError or ValueError if it is no positive int."""

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None):
        if not isinstance(size, int):
            raise TypeError(f"the number of elements must be an int, not a {type(size).__name__}")
        if size < 1:
            raise ValueError(f"a sequence needs elements to sample, not {size}")
        self._size = size
        super().__init__(shuffle, seed)

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        return torch.arange(self._size)


class RepeatFactorTrainingSampler(_SharedSequence):
    """Some elements several times an epoch: 2.3 is two times, and with probability 0.3 a third time."""

    def __init__(self, repeat_factors: torch.Tensor, *, shuffle: bool = True, seed: int | None = None):
        self._factors = repeat_factors
        super().__init__(shuffle, seed)

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        certain = self._factors.trunc()
        once_more = torch.rand(len(certain), generator=generator) < self._factors - certain
        return torch.arange(len(certain)).repeat_interleave(certain.long() + once_more)

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: list[dict], repeat_thresh: float, sqrt: bool = True
    ) -> torch.Tensor:
        """The factors of LVIS (arXiv:1908.03195, appendix B.2), float32 (n,), of n images with ``annotations``.

        A category in the share f of all images has max(1, sqrt(t / f)), or max(1, t / f) without ``sqrt``; t is
        ``repeat_thresh``. An image has the largest factor of its categories, or 1 without any.
        """
        present = [{annotation["category_id"] for annotation in image["annotations"]} for image in dataset_dicts]
        images_with = Counter(chain.from_iterable(present))
        ratio = {c: repeat_thresh / (count / len(present)) for c, count in images_with.items()}
        factor = {c: math.sqrt(r) for c, r in ratio.items()} if sqrt else ratio
        return torch.tensor([max([1.0, *(factor[c] for c in categories)]) for categories in present])


class InferenceSampler(Sampler):
    """Every one of ``size`` elements once, in neighbouring parts: one for each process, the longer ones first."""

    def __init__(self, size: int):
        assert size > 0, "there is nothing to sample"
        self._own = self._get_local_indices(size, comm.get_world_size(), comm.get_rank())

    @staticmethod
    def _get_local_indices(total_size: int, world_size: int, rank: int) -> range:
        """The part of process ``rank``. Published evaluation code calls this."""
        length, longer_ones = divmod(total_size, world_size)
        start = rank * length + min(rank, longer_ones)
        return range(start, start + length + (rank < longer_ones))

    def __len__(self) -> int:
        return len(self._own)

    def __iter__(self) -> Iterator[int]:
        return iter(self._own)
