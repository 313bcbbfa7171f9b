"""Data loaders for training and testing."""

import itertools
import logging
import operator
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.utils.data as torchdata
from detectron2.config import configurable
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from tabulate import tabulate

from .catalog import DatasetCatalog, MetadataCatalog
from .common import AspectRatioGroupedDataset, DatasetFromList, MapDataset, ToIterableDataset
from .dataset_mapper import DatasetMapper
from .detection_utils import check_metadata_consistency
from .samplers import (
    InferenceSampler,
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)

__all__ = [
    "build_batch_data_loader",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "get_detection_dataset_dicts",
    "print_instances_class_histogram",
]

logger = logging.getLogger(__name__)


def filter_images_with_only_crowd_annotations(dataset_dicts: list[dict]) -> list[dict]:
    """The images that have at least one annotation which is no crowd."""
    kept = [d for d in dataset_dicts if any(a.get("iscrowd", 0) == 0 for a in d["annotations"])]
    logger.info(
        "Removed %d images with no usable annotations. %d images left.", len(dataset_dicts) - len(kept), len(kept)
    )
    return kept


def print_instances_class_histogram(dataset_dicts: list[dict], class_names: Sequence[str]) -> None:
    """Log how many instances (without crowds) each class has.

    Raises:
        AssertionError: a ``category_id`` outside of 0..n-1.
    """
    number = len(class_names)
    ids = [a["category_id"] for d in dataset_dicts for a in d["annotations"] if not a.get("iscrowd", 0)]
    ids = np.asarray(ids, dtype=np.int64)
    if len(ids):
        assert ids.min() >= 0, f"Got an invalid category_id={ids.min()}"
        assert ids.max() < number, f"Got an invalid category_id={ids.max()} for a dataset of {number} classes"
    counts = np.bincount(ids, minlength=number).tolist()
    cells = [*zip(class_names, counts, strict=True), ("", ""), ("total", len(ids))]
    columns = 3
    rows = [list(itertools.chain(*cells[i : i + columns])) for i in range(0, len(cells), columns)]
    table = tabulate(rows, headers=["category", "#instances"] * columns, tablefmt="pipe", numalign="left")
    logger.info("Distribution of instances among all %d categories:\n%s", number, table)


def get_detection_dataset_dicts(
    names: str | Sequence[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: Sequence[str] | None = None,
    check_consistency: bool = True,
) -> list[dict] | torchdata.Dataset:
    """Load registered data sets and concatenate them.

    Args:
        names: one or several.
        filter_empty: leave out images without annotations or with crowds only, if the first dict has ``annotations``.
        min_keypoints, proposal_files: must stay at their defaults, as d2lite has neither.
        check_consistency: check that the data sets have the same classes.

    Raises:
        KeyError: a name that is not registered.
        AssertionError: nothing (left) to load.
        ValueError: the data sets have different classes.
    """
    if min_keypoints > 0 or proposal_files is not None:
        raise NotImplementedError(
            "d2lite, the stand-in for Detectron2, has neither keypoints nor precomputed proposals; install the genuine "
            "Detectron2 to use them."
        )
    names = [names] if isinstance(names, str) else list(names)
    assert names, "No dataset is named: are DATASETS.TRAIN and DATASETS.TEST set?"
    loaded = [DatasetCatalog.get(name) for name in names]

    if isinstance(loaded[0], torchdata.Dataset):
        return torchdata.ConcatDataset(loaded) if len(loaded) > 1 else loaded[0]
    for name, dicts in zip(names, loaded, strict=True):
        assert len(dicts), f"Dataset '{name}' is empty!"
    dataset_dicts = list(itertools.chain.from_iterable(loaded))

    has_instances = "annotations" in dataset_dicts[0]
    if filter_empty and has_instances:
        dataset_dicts = filter_images_with_only_crowd_annotations(dataset_dicts)
    if check_consistency and has_instances and hasattr(MetadataCatalog.get(names[0]), "thing_classes"):
        check_metadata_consistency("thing_classes", names)
        print_instances_class_histogram(dataset_dicts, MetadataCatalog.get(names[0]).thing_classes)
    assert dataset_dicts, f"No valid data found in {', '.join(names)}."
    return dataset_dicts


def trivial_batch_collator(batch: list) -> list:
    """A batch stays a list of dicts, because images differ in size."""
    return batch


def worker_init_reset_seed(worker_id: int) -> None:
    """Seed all generators of a loader's worker, each worker differently."""
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)


def build_batch_data_loader(
    dataset: torchdata.Dataset,
    sampler: torchdata.Sampler | None,
    total_batch_size: int,
    *,
    aspect_ratio_grouping: bool = False,
    num_workers: int = 0,
    collate_fn: Callable[[list], object] | None = None,
    drop_last: bool = True,
    single_gpu_batch_size: int | None = None,
    seed: int | None = None,
    **kwargs,
):
    """Batches of mapped elements.

    Args:
        dataset: indexed, or iterable.
        sampler: gives indices; must be None for an iterable data set.
        total_batch_size: of all processes together.
        aspect_ratio_grouping: only batch images with each other that are wider than high, or that are not. The
            elements must then be dicts with ``width`` and ``height``.
        num_workers: worker processes of each process.
        collate_fn: list of elements -> batch; by default the list itself.
        drop_last: drop an incomplete last batch.
        single_gpu_batch_size: per process; then ``total_batch_size`` must be None.
        seed: of the workers; None derives it from torch's global generator.
        **kwargs: for torch's ``DataLoader`` (``prefetch_factor``, ``persistent_workers``, ``pin_memory``, ...).

    Returns:
        An iterable over batches; endless if the sampler is.
    """
    if single_gpu_batch_size:
        assert not total_batch_size, "Give total_batch_size or single_gpu_batch_size, not both."
        batch_size = single_gpu_batch_size
    else:
        world_size = comm.get_world_size()
        assert total_batch_size > 0 and total_batch_size % world_size == 0, (
            f"Total batch size ({total_batch_size}) must be divisible by the number of processes ({world_size})."
        )
        batch_size = total_batch_size // world_size

    if isinstance(dataset, torchdata.IterableDataset):
        assert sampler is None, "sampler must be None if dataset is IterableDataset"
    else:
        dataset = ToIterableDataset(dataset, sampler, shard_chunk_size=batch_size)
    if seed is not None:
        kwargs["generator"] = torch.Generator().manual_seed(seed)
    if num_workers == 0:  # torch refuses options that have no meaning then
        kwargs = {k: v for k, v in kwargs.items() if k not in ("prefetch_factor", "persistent_workers")}
    kwargs.update(num_workers=num_workers, worker_init_fn=worker_init_reset_seed)

    if not aspect_ratio_grouping:
        return torchdata.DataLoader(
            dataset,
            batch_size=batch_size,
            drop_last=drop_last,
            collate_fn=collate_fn or trivial_batch_collator,
            **kwargs,
        )
    assert drop_last, "Aspect ratio grouping always drops incomplete batches."
    elements = torchdata.DataLoader(dataset, collate_fn=operator.itemgetter(0), **kwargs)  # "batches" of one
    batches = AspectRatioGroupedDataset(elements, batch_size)
    return batches if collate_fn is None else MapDataset(batches, collate_fn)


def _train_loader_from_config(cfg, mapper=None, *, dataset=None, sampler=None) -> dict:
    if dataset is None:
        dataset = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN,
            filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            min_keypoints=cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0,
            proposal_files=cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        )
    if sampler is None and not isinstance(dataset, torchdata.IterableDataset):
        sampler = _training_sampler(cfg, dataset)
    return {
        "dataset": dataset,
        "sampler": sampler,
        "mapper": DatasetMapper(cfg, True) if mapper is None else mapper,
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
    }


def _training_sampler(cfg, dataset: Sequence) -> torchdata.Sampler:
    name = cfg.DATALOADER.SAMPLER_TRAIN
    logger.info("Using training sampler %s", name)
    if name == "TrainingSampler":
        return TrainingSampler(len(dataset), seed=cfg.SEED)
    if name == "RepeatFactorTrainingSampler":
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            dataset, cfg.DATALOADER.REPEAT_THRESHOLD, sqrt=cfg.DATALOADER.get("REPEAT_SQRT", True)
        )
        return RepeatFactorTrainingSampler(factors, seed=cfg.SEED)
    if name == "RandomSubsetTrainingSampler":
        ratio = cfg.DATALOADER.get("RANDOM_SUBSET_RATIO")
        if ratio is None:
            raise ValueError("RandomSubsetTrainingSampler needs the config key DATALOADER.RANDOM_SUBSET_RATIO.")
        return RandomSubsetTrainingSampler(len(dataset), ratio)
    raise ValueError(
        f"Unknown training sampler: DATALOADER.SAMPLER_TRAIN is {name!r}, and TrainingSampler, "
        "RepeatFactorTrainingSampler and RandomSubsetTrainingSampler exist."
    )


@configurable(from_config=_train_loader_from_config)
def build_detection_train_loader(
    dataset: list | torchdata.Dataset,
    *,
    mapper: Callable[[dict], dict] | None,
    sampler: torchdata.Sampler | None = None,
    total_batch_size: int,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable[[list], object] | None = None,
    **kwargs,
):
    """The training loader, from a config (``build_detection_train_loader(cfg, mapper=...)``) or by these arguments.

    With a config, the data set comes from ``DATASETS.TRAIN``, the sampler from ``DATALOADER.SAMPLER_TRAIN`` and
    ``SEED``, and the mapper is :class:`DatasetMapper`; each can be given instead.

    Args:
        dataset: list of dicts, or a torch data set.
        mapper: dict -> model input, called in the workers; None leaves the dicts as they are.
        sampler: an endless one; by default :class:`TrainingSampler`. None for an iterable data set.
        total_batch_size, aspect_ratio_grouping, num_workers, collate_fn, **kwargs: see :func:`build_batch_data_loader`.

    Returns:
        An endless iterable over batches; a batch is a list of mapped dicts, of the length total batch size / number of
        processes.
    """
    if isinstance(dataset, list):
        dataset = DatasetFromList(dataset, copy=False)
    if mapper is not None:
        dataset = MapDataset(dataset, mapper)
    if isinstance(dataset, torchdata.IterableDataset):
        assert sampler is None, "sampler must be None if dataset is IterableDataset"
    else:
        sampler = TrainingSampler(len(dataset)) if sampler is None else sampler
        assert isinstance(sampler, torchdata.Sampler), f"Expect a Sampler but got {type(sampler)}"
    return build_batch_data_loader(
        dataset,
        sampler,
        total_batch_size,
        aspect_ratio_grouping=aspect_ratio_grouping,
        num_workers=num_workers,
        collate_fn=collate_fn,
        **kwargs,
    )


def _test_loader_from_config(cfg, dataset_name, mapper=None) -> dict:
    dataset = get_detection_dataset_dicts(
        dataset_name,
        filter_empty=False,
        proposal_files=cfg.DATASETS.PROPOSAL_FILES_TEST if cfg.MODEL.LOAD_PROPOSALS else None,
    )
    iterable = isinstance(dataset, torchdata.IterableDataset)
    return {
        "dataset": dataset,
        "mapper": DatasetMapper(cfg, False) if mapper is None else mapper,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
        "sampler": None if iterable else InferenceSampler(len(dataset)),
    }


@configurable(from_config=_test_loader_from_config)
def build_detection_test_loader(
    dataset: list | torchdata.Dataset,
    *,
    mapper: Callable[[dict], dict] | None,
    sampler: torchdata.Sampler | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    collate_fn: Callable[[list], object] | None = None,
) -> torchdata.DataLoader:
    """The test loader, from a config, ``build_detection_test_loader(cfg, dataset_name, mapper=...)``, or by these
    arguments.

    Args:
        dataset: list of dicts, or a torch data set. All of it is used: nothing is filtered.
        mapper: dict -> model input; None leaves the dicts as they are.
        sampler: by default :class:`InferenceSampler`, each process its share. None if the data set is iterable.
        batch_size: per process.
        num_workers: worker processes.
        collate_fn: list of elements -> batch; by default the list itself.

    Returns:
        A loader with a length, over each element once.
    """
    if isinstance(dataset, list):
        dataset = DatasetFromList(dataset, copy=False)
    if mapper is not None:
        dataset = MapDataset(dataset, mapper)
    if isinstance(dataset, torchdata.IterableDataset):
        assert sampler is None, "sampler must be None if dataset is IterableDataset"
    elif sampler is None:
        sampler = InferenceSampler(len(dataset))
    return torchdata.DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=False,
        num_workers=num_workers,
        collate_fn=collate_fn or trivial_batch_collator,
    )
