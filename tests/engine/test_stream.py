import random

import numpy as np
import pytest
import torch
from detectron2.data.samplers import TrainingSampler

from PADing.engine.shares import Shares
from PADing.engine.stream import POSITION, PositionSampler, StreamLoader, TrainingStream, build_stream_loader
from PADing.errors import UserError
from tests.engine.tiny import config, mapper


def augmenting(record):
    return {"id": record["id"], "draws": (random.random(), np.random.rand(), torch.rand(()).item())}


def records(n):
    return [{"id": i} for i in range(n)]


def test_images_come_in_the_order_of_detectron2s_sampler():
    """The same SEED gives the same data order as Detectron2's own training."""
    stream = TrainingStream(records(7), augmenting, seed=5)
    sampler = iter(TrainingSampler(7, seed=5))
    assert [stream[p]["id"] for p in range(20)] == [next(sampler) for _ in range(20)]


def test_sample_depends_on_its_position_only():
    """However a run came to a position (resumed, other workers), image and augmentation are the same."""
    straight = TrainingStream(records(5), augmenting, seed=1)
    expected = [straight[p] for p in range(12)]
    jumping = TrainingStream(records(5), augmenting, seed=1)
    for p in (11, 0, 7, 3, 11):
        random.random()
        torch.rand(2)
        assert jumping[p] == expected[p]
    # Another pass over the data augments anew.
    assert len({sample["draws"] for sample in expected}) == 12
    assert all(sample[POSITION] == p for p, sample in enumerate(expected))


def test_unusable_image_is_replaced_by_another():
    """INPUT.ON_CORRUPT skip: the mapper answers None, and training goes on with a full batch."""
    stream = TrainingStream(records(4), lambda r: None if r["id"] == 2 else augmenting(r), seed=0)
    assert {stream[p]["id"] for p in range(40)} == {0, 1, 3}


def test_position_sampler_splits_positions_among_processes():
    a, b = PositionSampler(0, 2), PositionSampler(1, 2)
    assert [p for p, _ in zip(a, range(3), strict=False)] == [0, 2, 4]
    assert [p for p, _ in zip(b, range(3), strict=False)] == [1, 3, 5]


def test_resumed_sampler_gives_what_was_left_unused_first():
    """Aspect-ratio grouping holds images back; a resumed run must not lose them."""
    sampler = PositionSampler(1, 2)
    sampler.used([1, 7])
    sampler.used([3])
    state = sampler.state_dict()
    resumed = PositionSampler(1, 2)
    resumed.load_state_dict(state)
    assert [p for p, _ in zip(resumed, range(3), strict=False)] == [5, 9, 11]
    resumed.used([5])
    assert resumed.state_dict() == {"world_size": 2, "next": 9, "pending": []}


def test_loader_goes_on_with_the_positions_of_each_share():
    """With as many shares as before, each has its own unused images again, so the batches are those of one run."""
    stream = TrainingStream(records(9), augmenting, seed=5)
    states = [
        {"world_size": 2, "next": 8, "pending": [0, 2], "seed": 4},
        {"world_size": 2, "next": 5, "pending": [1], "seed": 4},
    ]
    loader = StreamLoader(lambda sampler, shares: sampler, stream)
    loader.split(Shares(2, 0, 1))
    loader.load_state_dicts(states)
    assert loader.state_dicts() == states and stream.seed == 4
    for number, pending in ((1, [[0, 1, 2, 5, 7]]), (3, [[0, 5], [1, 7], [2]])):
        loader.split(Shares(number, 0, 1))
        loader.load_state_dicts(states)
        found = loader.state_dicts()
        assert [state["pending"] for state in found] == pending
        assert sorted(state["next"] for state in found) == list(range(8, 8 + number))


def test_each_share_has_its_part_of_every_batch(tmp_path):
    opts = ["SOLVER.IMS_PER_BATCH", 6, "DATALOADER.ASPECT_RATIO_GROUPING", False]
    loader = build_stream_loader(config(tmp_path, *opts), mapper)
    whole = next(iter(loader))
    loader.split(Shares(3, 0, 1))
    parts = next(iter(loader))
    assert [len(part) for part in parts] == [2, 2, 2]
    ids = [[sample[POSITION] for sample in part] for part in [whole, *parts]]
    assert ids == [[0, 1, 2, 3, 4, 5], [0, 3], [1, 4], [2, 5]]


def test_batches_do_not_depend_on_the_number_of_workers(tmp_path):
    """A run moved to a machine with other cores trains on the same numbers."""
    batches = []
    for workers in (0, 2):
        opts = ["DATALOADER.NUM_WORKERS", workers, "DATALOADER.ASPECT_RATIO_GROUPING", False]
        loader = iter(build_stream_loader(config(tmp_path, *opts), mapper))
        batches.append([next(loader) for _ in range(5)])
    for alone, shared in zip(*batches, strict=True):
        assert [sample["image_id"] for sample in alone] == [sample["image_id"] for sample in shared]
        assert all(torch.equal(a["x"], b["x"]) for a, b in zip(alone, shared, strict=True))


def test_sampler_that_would_be_ignored_is_refused(tmp_path):
    with pytest.raises(UserError, match="RepeatFactorTrainingSampler"):
        build_stream_loader(config(tmp_path, "DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"), mapper)


def test_workers_that_are_started_anew_give_the_same_samples():
    """Processes of a job start their workers so, and PyTorch fails when it has to hand a random generator to them."""
    stream = TrainingStream(records(7), augmenting, seed=5)
    expected = [stream[p] for p in range(10)]
    loader = torch.utils.data.DataLoader(
        stream, sampler=range(10), batch_size=None, num_workers=1, multiprocessing_context="spawn", collate_fn=dict
    )
    assert list(loader) == expected
