"""Training must see the masks that the mapper made, whatever the way they travelled."""

import pickle

import pytest
import torch
from detectron2.structures import BitMasks, Instances

from PADing.data import packed_masks
from PADing.data.packed_masks import PackedMasks, packed, unpacked


@pytest.fixture
def in_worker(monkeypatch):
    monkeypatch.setattr(packed_masks, "get_worker_info", lambda: object())


def _sample(masks):
    instances = Instances((4, 5), gt_classes=torch.arange(len(masks)), gt_masks=masks)
    return {"image": torch.zeros(3, 4, 5), "instances": instances}


@pytest.mark.parametrize("shape", [(3, 5, 8), (2, 7, 13), (0, 4, 5), (1, 1, 1), (2, 3, 0), (9, 64, 63)])
def test_masks_return_as_they_were(in_worker, shape):
    generator = torch.Generator().manual_seed(0)
    sample = _sample(torch.rand(shape, generator=generator) > 0.5)
    sent = pickle.loads(pickle.dumps(packed(sample)))
    bits = sent["instances"].gt_masks
    assert isinstance(bits, PackedMasks) and bits.tensor.numel() == shape[0] * shape[1] * -(-shape[2] // 8)
    (got,) = unpacked([sent])
    assert got["instances"].gt_masks.dtype == torch.bool and got["instances"].gt_masks.shape == shape
    assert got["instances"].gt_masks.equal(sample["instances"].gt_masks)
    assert got["instances"].gt_classes.equal(sample["instances"].gt_classes) and got["image"].equal(sample["image"])
    assert got["instances"].image_size == (4, 5)


def test_a_mapper_may_keep_its_sample(in_worker):
    """A plug-in that stores samples gives the same one again."""
    sample = _sample(torch.ones(2, 4, 5, dtype=torch.bool))
    assert packed(sample) is not sample and isinstance(sample["instances"].gt_masks, torch.Tensor)


def test_other_samples_pass_through(in_worker):
    masks = torch.ones(1, 4, 5)
    for sample in (3, {"image": 1}, {"instances": 5}, _sample(BitMasks(masks)), _sample(masks)):
        assert packed(sample) is sample and unpacked([sample]) == [sample]


def test_without_workers_nothing_is_packed():
    sample = _sample(torch.ones(1, 4, 5, dtype=torch.bool))
    assert packed(sample) is sample
