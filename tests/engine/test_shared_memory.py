"""Workers without room in shared memory end the run with a message; PyTorch alone would wait forever."""

import errno
import gc
import multiprocessing
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from PADing.data import worker_memory
from PADing.engine import shared_memory
from PADing.engine.main import main
from PADing.engine.memory import explaining_memory
from PADing.errors import UserError
from tests.engine.tiny import TinyTrainer, config

FULL = "unable to allocate shared memory(shm) for file </torch_1_2_3>: No space left on device (28)"


def refuse(self):
    raise RuntimeError(FULL)


def disk(monkeypatch, free):
    usage = SimpleNamespace(free=free, total=2**26)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)


def test_a_worker_without_room_ends_the_training(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.Tensor, "share_memory_", refuse)  # workers are forks of this process
    trainer = TinyTrainer(config(tmp_path, "DATALOADER.NUM_WORKERS", 1))
    with pytest.raises(
        UserError, match="1 data-loading workers send images through .*--shm-size .*NUM_WORKERS; 0 needs"
    ):
        trainer.train()


def test_all_tensors_of_a_sample_are_shared(monkeypatch):
    """One that is left out would be sent by the background thread again."""
    monkeypatch.setattr(worker_memory, "get_worker_info", lambda: object())
    instances = Instances((4, 4))
    instances.gt_masks = BitMasks(torch.zeros(2, 4, 4, dtype=torch.bool))
    instances.gt_boxes = Boxes(torch.zeros(2, 4))
    instances.gt_classes = torch.zeros(2, dtype=torch.int64)
    image, label, other = torch.zeros(3, 4, 4), torch.zeros(4, 4), torch.zeros(3)
    sample = {"image": image, "parts": [{"label": label}, (other,)], "instances": instances, "name": "a", "n": 1}
    assert worker_memory.ready_to_send(sample) is sample
    tensors = [image, label, other, instances.gt_masks.tensor, instances.gt_boxes.tensor, instances.gt_classes]
    assert all(tensor.is_shared() for tensor in tensors)


def test_nothing_is_shared_without_workers():
    image = torch.zeros(3)
    worker_memory.ready_to_send({"image": image})
    assert not image.is_shared()


@pytest.mark.parametrize(
    ("error", "free"),
    [
        (RuntimeError(FULL), 2**25),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible ..."), 2**25),
        (OSError(errno.ENOSPC, "No space left on device"), 0),  # of a lock
    ],
)
def test_which_errors_are_for_want_of_shared_memory(monkeypatch, tmp_path, error, free):
    """The usual message for little memory names sizes of images and batches, which would not help."""
    disk(monkeypatch, free)
    cfg = config(tmp_path, "DATALOADER.NUM_WORKERS", 3)
    with (
        pytest.raises(UserError, match="Shared memory is full: the 3 data-loading workers"),
        explaining_memory(cfg, True),
    ):
        raise error


@pytest.mark.parametrize("room", [0, 1, 2])
def test_a_loader_that_cannot_be_made_ends_without_a_traceback(monkeypatch, tmp_path, room):
    """``room`` is for so many queues: of the results, then of each of the workers."""
    left, unraisable = [None] * room, []
    context = multiprocessing.get_context("fork")
    make = context.Queue

    def queue(*args):
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        left.pop()
        return make(*args)

    monkeypatch.setattr(context, "Queue", queue, raising=False)
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    disk(monkeypatch, 0)
    loader = torch.utils.data.DataLoader([1, 2, 3], num_workers=2, multiprocessing_context=context)
    before = set(multiprocessing.active_children())
    with pytest.raises(UserError) as raised, explaining_memory(config(tmp_path), True):
        iter(loader)
    assert "Shared memory is full" in str(raised.value)
    del raised
    gc.collect()
    assert not unraisable, [str(problem.exc_value) for problem in unraisable]
    assert set(multiprocessing.active_children()) <= before


def test_a_full_disk_is_not_taken_for_it(monkeypatch, tmp_path):
    disk(monkeypatch, 2**25)
    assert not shared_memory.is_shared_memory_full(OSError(errno.ENOSPC, "No space left on device"))
    disk(monkeypatch, 0)
    assert not shared_memory.is_shared_memory_full(OSError(errno.ENOSPC, "No space", str(tmp_path / "log.txt")))


def test_it_is_said_before_the_start(monkeypatch, tmp_path, capsys):
    disk(monkeypatch, 2**13)
    words = ["--config-file", "configs/mini/d2zero.yaml", "OUTPUT_DIR", str(tmp_path), "DATALOADER.NUM_WORKERS"]
    assert main([*words, "2"]) == 2
    assert "Shared memory is full: the 2 data-loading workers" in capsys.readouterr().err
    assert main([*words, "0"]) == 2  # there are no data
    assert "Shared memory" not in capsys.readouterr().err
