"""Samplers for any number of processes.

For training, all processes follow one endless stream of indices, drawn from one seeded generator, and each takes every
``world_size``-th of them. So nothing is repeated or lost within an epoch, whatever the number of processes.
"""

import itertools
import logging
import math
from collections import Counter
from collections.abc import Iterator

import torch
from detectron2.utils import comm
from torch.utils.data.sampler import Sampler

__all__ = ["TrainingSampler", "RandomSubsetTrainingSampler", "InferenceSampler", "RepeatFactorTrainingSampler"]

logger = logging.getLogger(__name__)


class _EndlessSampler(Sampler):
    """Every ``world_size``-th index, from ``rank`` on, of the epochs that subclasses define."""

    def __init__(self, shuffle: bool, seed: int | None):
        self._shuffle = shuffle
        # All processes must agree on it.
        self._seed = int(comm.shared_random_seed() if seed is None else seed)
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        yield from itertools.islice(self._infinite_indices(), self._rank, None, self._world_size)

    def _infinite_indices(self) -> Iterator[int]:
        generator = torch.Generator()
        generator.manual_seed(self._seed)
        while True:
            indices = self._epoch(generator)
            if self._shuffle:
                indices = indices[torch.randperm(len(indices), generator=generator)]
            yield from indices.tolist()

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        """The indices of one epoch, in order: int64, (n,)."""
        raise NotImplementedError


class TrainingSampler(_EndlessSampler):
    """Endless passes over all elements."""

    def __init__(self, size: int, shuffle: bool = True, seed: int | None = None):
        """
        Args:
            size: number of elements.
            shuffle: each pass in another order.
            seed: of the orders, the same on every process. None lets rank 0 draw one.

        Raises:
            TypeError, ValueError: ``size`` is not a positive int.
        """
        if not isinstance(size, int):
            raise TypeError(f"TrainingSampler(size=) expects an int. Got type {type(size)}.")
        if size <= 0:
            raise ValueError(f"TrainingSampler(size=) expects a positive int. Got {size}.")
        self._size = size
        super().__init__(shuffle, seed)
        logger.info("%s with shuffle=%s and seed=%d, for %d elements", type(self).__name__, shuffle, self._seed, size)

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        return torch.arange(self._size)


class RandomSubsetTrainingSampler(TrainingSampler):
    """Endless passes over a random part of the elements, chosen once."""

    def __init__(
        self,
        size: int,
        subset_ratio: float,
        shuffle: bool = True,
        seed_shuffle: int | None = None,
        seed_subset: int | None = None,
    ):
        """
        Args:
            size: number of elements.
            subset_ratio: share of them to use, in (0, 1]; the number is rounded down.
            shuffle: each pass in another order.
            seed_shuffle: of the orders; None lets rank 0 draw one.
            seed_subset: of the choice; None lets rank 0 draw one.
        """
        super().__init__(size=size, shuffle=shuffle, seed=seed_shuffle)
        assert 0.0 < subset_ratio <= 1.0, f"subset_ratio must be in (0, 1], not {subset_ratio}."
        self._size_subset = int(size * subset_ratio)
        assert self._size_subset > 0, f"{subset_ratio} of {size} elements is not a single one."
        generator = torch.Generator()
        generator.manual_seed(int(comm.shared_random_seed() if seed_subset is None else seed_subset))
        self._indexes_subset = torch.randperm(size, generator=generator)[: self._size_subset]

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        return self._indexes_subset


class RepeatFactorTrainingSampler(_EndlessSampler):
    """Endless passes in which an element occurs more often than once, for data sets with rare classes.

    A repeat factor of 2.3 means: twice, and with probability 0.3 a third time, drawn anew in each pass.
    """

    def __init__(self, repeat_factors: torch.Tensor, *, shuffle: bool = True, seed: int | None = None):
        """
        Args:
            repeat_factors: float, one per element.
            shuffle: each pass in another order.
            seed: of the orders and the repetitions; None lets rank 0 draw one.
        """
        super().__init__(shuffle, seed)
        self._int_part = torch.trunc(repeat_factors)
        self._frac_part = repeat_factors - self._int_part

    @staticmethod
    def repeat_factors_from_category_frequency(
        dataset_dicts: list[dict], repeat_thresh: float, sqrt: bool = True
    ) -> torch.Tensor:
        """Repeat factors after LVIS (arXiv:1908.03195): an image's is the largest of its categories'.

        With f(c) the share of images that contain category c, r(c) = max(1, sqrt(t / f(c))).

        Args:
            dataset_dicts: images with ``annotations``.
            repeat_thresh: t; categories in a larger share of the images are not repeated.
            sqrt: False leaves the square root out.

        Returns:
            float32, (number of images,); 1 for images without annotations.
        """
        categories = [{a["category_id"] for a in image["annotations"]} for image in dataset_dicts]
        counts = Counter(c for present in categories for c in present)

        def repeat(count: int) -> float:
            ratio = repeat_thresh / (count / len(dataset_dicts))
            return max(1.0, math.sqrt(ratio) if sqrt else ratio)

        factors = {c: repeat(count) for c, count in counts.items()}
        return torch.tensor(
            [max((factors[c] for c in present), default=1.0) for present in categories], dtype=torch.float32
        )

    def _epoch(self, generator: torch.Generator) -> torch.Tensor:
        extra = torch.rand(len(self._frac_part), generator=generator) < self._frac_part
        times = (self._int_part + extra.float()).long()
        return torch.repeat_interleave(torch.arange(len(times)), times)


class InferenceSampler(Sampler):
    """Each element once: one run of successive indices per process, the first processes get one more where needed."""

    def __init__(self, size: int):
        """
        Args:
            size: number of elements.
        """
        assert size > 0, "There is no element to sample from."
        self._size = size
        rank, world_size = comm.get_rank(), comm.get_world_size()
        share, left = divmod(size, world_size)
        begin = share * rank + min(rank, left)
        self._local_indices = range(begin, min(begin + share + (rank < left), size))

    def __iter__(self) -> Iterator[int]:
        yield from self._local_indices

    def __len__(self) -> int:
        return len(self._local_indices)
