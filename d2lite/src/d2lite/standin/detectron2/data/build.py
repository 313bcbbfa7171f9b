"""Builds loaders from the names of data sets."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from operator import itemgetter

import torch
from detectron2.config import configurable
from detectron2.utils.comm import get_world_size
from detectron2.utils.env import seed_all_rng
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Sampler

from d2lite.omitted import ADVICE

from .catalog import DatasetCatalog, MetadataCatalog
from .common import AspectRatioGroupedDataset, DatasetFromList, MapDataset, ToIterableDataset
from .dataset_mapper import DatasetMapper
from .detection_utils import check_metadata_consistency
from .samplers import InferenceSampler, RepeatFactorTrainingSampler, TrainingSampler

logger = logging.getLogger(__name__)


def _objects(image: dict) -> list[dict]:
    """Annotations of an image without crowds."""
    return [annotation for annotation in image["annotations"] if not annotation.get("iscrowd", 0)]


def _log_classes(images: list[dict], names: Sequence[str]) -> None:
    """Log the number of objects of each class; AssertionError for a ``category_id`` that is no index of the names."""
    from tabulate import tabulate  # its width tables take a tenth of a second to import

    counts = Counter(annotation["category_id"] for image in images for annotation in _objects(image))
    stray = sorted(set(counts).difference(range(len(names))))
    assert not stray, f"category_id={stray[0]} is annotated, but the data set has {len(names)} classes"
    rows = [(name, counts[index]) for index, name in enumerate(names)]
    logger.info("Annotated objects:\n%s", tabulate([*rows, ("all classes", counts.total())], ("class", "objects")))


def get_detection_dataset_dicts(
    names: str | Sequence[str],
    filter_empty: bool = True,
    min_keypoints: int = 0,
    proposal_files: Sequence[str] | None = None,
    check_consistency: bool = True,
) -> list[dict] | Dataset:
    """The images of one or several registered data sets, one after the other.

    ``filter_empty`` leaves out images without annotated object, if the first one has ``annotations`` at all.
    ``check_consistency``: ValueError unless ``thing_classes`` are the same. d2lite has no keypoints and proposals.
    """
    if min_keypoints or proposal_files is not None:
        raise NotImplementedError(f"Keypoints and precomputed proposals: {ADVICE}")
    names = [names] if isinstance(names, str) else names
    assert names, "no data set is named; set DATASETS.TRAIN and DATASETS.TEST"
    parts = [DatasetCatalog.get(name) for name in names]
    if isinstance(parts[0], Dataset):
        return parts[0] if len(parts) == 1 else ConcatDataset(parts)
    empty = [name for name, images in zip(names, parts, strict=True) if not images]
    assert not empty, f"data sets without any image: {', '.join(empty)}"
    images = list(chain(*parts))
    if "annotations" in images[0]:
        if filter_empty:
            total, images = len(images), list(filter(_objects, images))
            logger.info("%d of %d images have annotated objects; the others are left out.", len(images), total)
        classes = MetadataCatalog.get(names[0]).get("thing_classes")
        if check_consistency and classes is not None:
            check_metadata_consistency("thing_classes", names)
            _log_classes(images, classes)
    assert images, f"no image of {', '.join(names)} can be used"
    return images


def _seed_worker(worker_id: int) -> None:
    """Seed each worker differently, also Python's and NumPy's generators."""
    seed_all_rng(torch.initial_seed() % 2**31 + worker_id)


def _mapped(dataset, mapper, sampler, make_sampler) -> tuple[Dataset, Sampler | None]:
    """A data set that gives model inputs, and its sampler: by default a new one, none for an iterable data set."""
    if isinstance(dataset, list):
        dataset = DatasetFromList(dataset, copy=False)
    if isinstance(dataset, IterableDataset):
        assert sampler is None, "an iterable data set has its own order, so it takes no sampler"
    elif sampler is None:
        sampler = make_sampler(len(dataset))
    return (MapDataset(dataset, mapper) if mapper else dataset), sampler


def _from_train_config(cfg, mapper=None, *, sampler=None, dataset=None) -> dict:
    if dataset is None:
        dataset = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN,
            cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
            cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0,
            cfg.DATASETS.PROPOSAL_FILES_TRAIN if cfg.MODEL.LOAD_PROPOSALS else None,
        )
    if sampler is None and not isinstance(dataset, IterableDataset):
        sampler = _train_sampler(cfg, dataset)
    return {
        "total_batch_size": cfg.SOLVER.IMS_PER_BATCH,
        "num_workers": cfg.DATALOADER.NUM_WORKERS,
        "aspect_ratio_grouping": cfg.DATALOADER.ASPECT_RATIO_GROUPING,
        "mapper": mapper or DatasetMapper(cfg, True),
        "sampler": sampler,
        "dataset": dataset,
    }


def _train_sampler(cfg, dataset: list[dict]) -> Sampler:
    loading = cfg.DATALOADER
    if loading.SAMPLER_TRAIN == "TrainingSampler":
        return TrainingSampler(len(dataset), seed=cfg.SEED)
    if loading.SAMPLER_TRAIN == "RepeatFactorTrainingSampler":
        factors_of = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency
        factors = factors_of(dataset, loading.REPEAT_THRESHOLD, loading.REPEAT_SQRT)
        return RepeatFactorTrainingSampler(factors, seed=cfg.SEED)
    raise ValueError(f"DATALOADER.SAMPLER_TRAIN {loading.SAMPLER_TRAIN!r} is unknown or left out of d2lite")


@configurable(from_config=_from_train_config)
def build_detection_train_loader(
    dataset: list | Dataset,
    *,
    total_batch_size: int,
    mapper: Callable[[dict], dict] | None,
    sampler: Sampler | None = None,
    num_workers: int = 0,
    aspect_ratio_grouping: bool = True,
    collate_fn: Callable[[list], object] | None = None,
    **kwargs,
):
    """Endless full batches for training, from these arguments or from a config, as ``(cfg, mapper=...)``.

    ``total_batch_size`` is that of all processes together. ``mapper`` turns a dict into a model input, in workers; by
    default, with a config, a ``DatasetMapper``. ``sampler``: an endless one, by default ``TrainingSampler``; none for
    an iterable data set. ``collate_fn`` makes a batch of a list; by default the list is the batch.
    """
    size, rest = divmod(total_batch_size, get_world_size())
    shared_by = f"{get_world_size()} processes"
    assert size > 0 and rest == 0, f"a batch of {total_batch_size} cannot be shared evenly by {shared_by}"
    dataset, sampler = _mapped(dataset, mapper, sampler, TrainingSampler)
    if not isinstance(dataset, IterableDataset):
        dataset = ToIterableDataset(dataset, sampler, shard_chunk_size=size)
    if num_workers == 0:  # torch refuses them then
        kwargs = {key: kwargs[key] for key in kwargs.keys() - {"prefetch_factor", "persistent_workers"}}
    kwargs |= {"num_workers": num_workers, "worker_init_fn": _seed_worker}
    if aspect_ratio_grouping:
        batches = AspectRatioGroupedDataset(DataLoader(dataset, collate_fn=itemgetter(0), **kwargs), size)
        return MapDataset(batches, collate_fn) if collate_fn else batches
    return DataLoader(dataset, size, drop_last=True, collate_fn=collate_fn or list, **kwargs)


def _from_test_config(cfg, dataset_name: str | Sequence[str], mapper=None) -> dict:
    proposals = cfg.DATASETS.PROPOSAL_FILES_TEST if cfg.MODEL.LOAD_PROPOSALS else None
    dataset = get_detection_dataset_dicts(dataset_name, filter_empty=False, proposal_files=proposals)
    mapper = mapper or DatasetMapper(cfg, False)
    return {"dataset": dataset, "mapper": mapper, "num_workers": cfg.DATALOADER.NUM_WORKERS}


@configurable(from_config=_from_test_config)
def build_detection_test_loader(
    dataset: list | Dataset,
    *,
    mapper: Callable[[dict], dict] | None,
    batch_size: int = 1,
    sampler: Sampler | None = None,
    collate_fn: Callable[[list], object] | None = None,
    num_workers: int = 0,
) -> DataLoader:
    """Every element once, from these arguments or from a config, as ``(cfg, dataset_name, mapper=...)``.

    The default sampler, ``InferenceSampler``, gives each process its part; ``batch_size`` is that of one process.
    """
    dataset, sampler = _mapped(dataset, mapper, sampler, InferenceSampler)
    return DataLoader(dataset, batch_size, sampler=sampler, num_workers=num_workers, collate_fn=collate_fn or list)
