"""Loaders: if these fail, batches repeat or lose images, depend on the number of workers, or can't be reproduced."""

import itertools
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import (
    DatasetCatalog,
    DatasetFromList,
    MapDataset,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.data import build as build_module
from detectron2.data.common import AspectRatioGroupedDataset, ToIterableDataset
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.utils import comm
from PIL import Image
from torch.utils.data import IterableDataset, SequentialSampler


def identity(x):
    return x


def drop_odd(x):
    return None if x % 2 else x


def random_numbers(x):
    return int(np.random.randint(2**31)), int(torch.randint(2**31, ()))


class Stream(IterableDataset):
    def __iter__(self):
        yield from range(10)


def dicts(n):
    """Images of which every third is upright."""
    return [{"image_id": i, "width": 4, "height": 8 if i % 3 == 0 else 2} for i in range(n)]


def take(iterable, n):
    return list(itertools.islice(iter(iterable), n))


def ids(batches):
    return [[x["image_id"] for x in batch] for batch in batches]


def order(n, seed, passes):
    generator = torch.Generator()
    generator.manual_seed(seed)
    return sum((torch.randperm(n, generator=generator).tolist() for _ in range(passes)), [])


def chunks(sequence, size):
    return [sequence[i : i + size] for i in range(0, len(sequence) - size + 1, size)]


# ---- data set wrappers


def test_a_list_is_kept_in_one_buffer():
    elements = [{"a": np.arange(3)}, "text", None, {"b": [1, (2, 3)]}]
    data = DatasetFromList(elements)
    assert len(data) == 4
    assert data[1] == "text" and data[2] is None and data[3] == {"b": [1, (2, 3)]}
    assert np.array_equal(data[0]["a"], np.arange(3))
    data[3]["b"].append(4)
    assert data[3] == {"b": [1, (2, 3)]} and elements[3] == {"b": [1, (2, 3)]}
    with pytest.raises(IndexError):
        data[4]


def test_a_list_that_is_not_serialised():
    elements = [[1], [2]]
    assert DatasetFromList(elements, copy=False, serialize=False)[0] is elements[0]
    copied = DatasetFromList(elements, serialize=False)[0]
    assert copied == [1] and copied is not elements[0]


def test_mapping():
    assert [MapDataset(list(range(4)), str)[i] for i in range(4)] == ["0", "1", "2", "3"]
    assert len(MapDataset(list(range(4)), str)) == 4
    assert list(MapDataset(Stream(), drop_odd)) == [0, 2, 4, 6, 8]


def test_an_element_mapped_to_none_is_replaced():
    data = MapDataset(list(range(10)), drop_odd)
    assert all(data[i] % 2 == 0 for i in range(10)) and data[4] == 4


def test_nothing_but_none_ends_with_an_error():
    with pytest.raises(ValueError):
        MapDataset([1, 3, 5], drop_odd)[0]


def test_data_sets_travel_to_spawned_workers():
    data = pickle.loads(pickle.dumps(MapDataset(DatasetFromList(dicts(3)), identity)))
    assert [data[i]["image_id"] for i in range(3)] == [0, 1, 2]


def test_aspect_ratio_groups():
    source = [{"n": n, "width": w, "height": h} for n, (w, h) in enumerate([(2, 1), (1, 2), (1, 1), (3, 1), (5, 5)])]
    batches = list(AspectRatioGroupedDataset(source, 2))
    assert [[x["n"] for x in b] for b in batches] == [[1, 2], [0, 3]]  # the fifth has no partner; a square is not wide


# ---- training loader


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_follow_the_sampler_whatever_the_number_of_workers(workers):
    """Four passes: every image four times, in the order of the seeded permutations, batch by batch."""
    loader = build_detection_train_loader(
        dicts(9),
        mapper=identity,
        sampler=TrainingSampler(9, seed=4),
        total_batch_size=3,
        aspect_ratio_grouping=False,
        num_workers=workers,
    )
    batches = ids(take(loader, 12))
    assert batches == chunks(order(9, 4, 4), 3)
    assert Counter(sum(batches, [])) == Counter({i: 4 for i in range(9)})


@pytest.mark.parametrize("workers", [0, 2])
def test_aspect_grouping_loses_nothing(workers):
    loader = build_detection_train_loader(
        dicts(12),
        mapper=identity,
        sampler=TrainingSampler(12, seed=1),
        total_batch_size=2,
        num_workers=workers,
    )
    batches = take(loader, 60)
    for batch in batches:
        assert len(batch) == 2 and len({x["width"] > x["height"] for x in batch}) == 1
    counts = Counter(sum(ids(batches), []))
    # 120 images are ten passes; what is in flight may shift a few of them.
    assert set(counts) == set(range(12)) and all(9 <= c <= 11 for c in counts.values())


def test_two_workers_deal_batch_sized_chunks():
    data = ToIterableDataset(list(range(100)), SequentialSampler(range(100)), shard_chunk_size=5)
    loader = torch.utils.data.DataLoader(data, batch_size=5, num_workers=2, collate_fn=identity)
    assert list(loader) == chunks(list(range(100)), 5)
    with pytest.raises(AssertionError):
        ToIterableDataset(list(range(100)), range(100))  # not a sampler


def test_processes_share_the_images(monkeypatch):
    expected = order(8, 2, 2)
    for module in (comm, build_module):  # samplers ask the one, the batch size is divided by what the other imported
        monkeypatch.setattr(module, "get_world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        loader = build_detection_train_loader(
            dicts(8),
            mapper=None,
            sampler=TrainingSampler(8, seed=2),
            total_batch_size=4,
            aspect_ratio_grouping=False,
        )
        assert ids(take(loader, 4)) == chunks(expected[rank::2], 2)
        with pytest.raises(AssertionError, match="5.*2"):
            build_detection_train_loader(dicts(8), mapper=None, total_batch_size=5)


def test_workers_draw_different_numbers_that_the_seed_fixes():
    def run(seed):
        torch.manual_seed(seed)
        loader = build_detection_train_loader(
            list(range(8)),
            mapper=random_numbers,
            sampler=TrainingSampler(8, seed=0),
            total_batch_size=2,
            aspect_ratio_grouping=False,
            num_workers=2,
        )
        return take(loader, 4)

    first, second, other = run(1), run(1), run(2)
    assert first == second != other
    assert len({x for batch in first for x in batch}) == 8


def test_collate_and_iterable_data_sets():
    loader = build_detection_train_loader(
        dicts(6),
        mapper=identity,
        sampler=TrainingSampler(6, shuffle=False, seed=0),
        total_batch_size=2,
        collate_fn=len,
    )
    assert take(loader, 3) == [2, 2, 2]
    loader = build_detection_train_loader(
        Stream(), mapper=drop_odd, total_batch_size=2, aspect_ratio_grouping=False, prefetch_factor=2
    )
    assert list(loader) == [[0, 2], [4, 6]]
    with pytest.raises(AssertionError):
        build_detection_train_loader(Stream(), mapper=None, sampler=TrainingSampler(3, seed=0), total_batch_size=2)


# ---- data sets from the catalog


@pytest.fixture
def registered(tmp_path):
    """Data sets "loader_a", "loader_b" of tiny images, with crowds and empty images, and "loader_other"."""
    paths = []
    for i in range(4):
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(np.full((6, 8, 3), 10 * i, np.uint8)).save(paths[-1])

    def image(i, *crowds):
        annotations = [{"iscrowd": c, "bbox": [1, 1, 4, 4], "bbox_mode": 1, "category_id": 0} for c in crowds]
        return {"file_name": paths[i], "image_id": i, "height": 6, "width": 8, "annotations": annotations}

    a = [image(0, 0), image(1, 1), image(2), image(3, 1, 0)]
    names = {"loader_a": a, "loader_b": [image(1, 0)], "loader_other": [image(1, 0)], "loader_empty": []}
    names["loader_plain"] = [{k: v for k, v in image(i).items() if k != "annotations"} for i in range(4)]
    for name, data in names.items():
        DatasetCatalog.register(name, lambda data=data: data)
        MetadataCatalog.get(name).thing_classes = ["x"] if name != "loader_other" else ["y"]
    yield names
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_images_without_objects_are_left_out_of_training(registered):
    def load(*args, **kwargs):
        return [d["image_id"] for d in get_detection_dataset_dicts(*args, **kwargs)]

    assert load("loader_a") == [0, 3]
    assert load(["loader_a", "loader_b"]) == [0, 3, 1]
    assert load("loader_a", filter_empty=False) == [0, 1, 2, 3]
    assert load("loader_plain") == [0, 1, 2, 3]  # nothing to judge by


def test_data_sets_must_fit_together(registered, caplog):
    with pytest.raises(ValueError, match="^Datasets have different metadata 'thing_classes'!$"):
        get_detection_dataset_dicts(["loader_a", "loader_other"])
    assert "loader_other" in caplog.text and "['x']" in caplog.text and "['y']" in caplog.text
    get_detection_dataset_dicts(["loader_a", "loader_other"], check_consistency=False)
    with pytest.raises(AssertionError, match="loader_empty"):
        get_detection_dataset_dicts(["loader_empty"])
    with pytest.raises(AssertionError):
        get_detection_dataset_dicts([])
    MetadataCatalog.get("loader_a").thing_dataset_id_to_contiguous_id = {1: 0}
    registered["loader_b"][0]["annotations"][0]["category_id"] = 5
    with pytest.raises(AssertionError, match="category_id=5"):
        get_detection_dataset_dicts("loader_b")


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = ("loader_a",)
    cfg.DATASETS.TEST = ("loader_a",)
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.SEED = 3
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = (6,), 6
    return cfg


def test_training_loader_from_a_config(registered, cfg):
    batches = take(build_detection_train_loader(cfg), 3)
    assert [len(b) for b in batches] == [2, 2, 2]
    assert ids(batches) == chunks([[0, 3][i] for i in order(2, 3, 3)], 2)
    sample = batches[0][0]
    assert sample["image"].shape == (3, 6, 8) and len(sample["instances"]) == 1

    cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    batches = ids(take(build_detection_train_loader(cfg, mapper=identity), 4))
    assert batches == chunks(order(4, 3, 2), 2)


def test_arguments_beside_the_config_win(registered, cfg):
    loader = build_detection_train_loader(
        cfg,
        mapper=identity,
        dataset=dicts(6),
        sampler=TrainingSampler(6, seed=8),
        total_batch_size=3,
        aspect_ratio_grouping=False,
    )
    assert ids(take(loader, 4)) == chunks(order(6, 8, 2), 3)


def test_other_samplers_from_a_config(registered, cfg):
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    cfg.DATALOADER.REPEAT_THRESHOLD = 4.0  # category 0 is in both images: each comes sqrt(4 / 1) = 2 times
    batches = ids(take(build_detection_train_loader(cfg, mapper=identity), 2))
    assert Counter(sum(batches, [])) == {0: 2, 3: 2}
    expected = take(RepeatFactorTrainingSampler(torch.tensor([2.0, 2.0]), seed=3), 4)
    assert sum(batches, []) == [[0, 3][i] for i in expected]
    cfg.DATALOADER.SAMPLER_TRAIN = "NoSampler"
    with pytest.raises(ValueError, match="(?s)NoSampler|Unknown training sampler"):
        build_detection_train_loader(cfg, mapper=identity)


@pytest.mark.parametrize("workers", [0, 2])
def test_test_loader(registered, cfg, workers):
    cfg.DATALOADER.NUM_WORKERS = workers
    loader = build_detection_test_loader(cfg, "loader_a")
    assert len(loader) == 4
    batches = list(loader)
    assert ids(batches) == [[0], [1], [2], [3]]  # nothing is filtered
    assert "annotations" not in batches[0][0] and "instances" not in batches[0][0]
    assert torch.equal(batches[2][0]["image"], torch.full((3, 6, 8), 20, dtype=torch.uint8))
    assert ids(build_detection_test_loader(cfg, "loader_a", batch_size=3)) == [[0, 1, 2], [3]]
    assert ids(build_detection_test_loader(cfg, "loader_a", mapper=identity))[3] == [3]
    assert ids(build_detection_test_loader(dicts(3), mapper=identity, num_workers=workers)) == [[0], [1], [2]]
