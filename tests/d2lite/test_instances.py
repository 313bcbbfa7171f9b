"""Instances and image lists, against hand-worked examples: fields must stay together, and images in place."""

import copy
import pickle

import pytest
import torch
from detectron2.structures import (
    BitMasks,
    Boxes,
    ImageList,
    Instances,
)

from tests.d2lite.random_regions import random_boxes, random_masks

# Instances -----------------------------------------------------------------------------------------------------------


def make_instances(n: int, seed: int = 0) -> Instances:
    return Instances(
        (20, 30),
        gt_boxes=Boxes(random_boxes(n, seed)),
        gt_masks=BitMasks(random_masks(n, 20, 30, seed)),
        scores=torch.rand(n, generator=torch.Generator().manual_seed(seed)),
        names=[f"object {i}" for i in range(n)],
    )


def test_instances_fields_by_attribute_and_by_name():
    instances = Instances((4, 5))
    instances.scores = torch.ones(3)
    instances.set("labels", [7, 8, 9])
    assert instances.has("scores") and not instances.has("boxes") and len(instances) == 3
    assert instances.labels == [7, 8, 9] and instances.get("labels") == [7, 8, 9]
    assert instances.image_size == (4, 5) and list(instances.get_fields()) == ["scores", "labels"]
    instances.remove("labels")
    assert not instances.has("labels")
    with pytest.raises(AttributeError):
        _ = instances.labels
    instances._note = "anything"
    assert "_note" not in instances.get_fields() and instances._note == "anything"


def test_instances_refuse_a_field_of_another_length():
    instances = Instances((4, 5), scores=torch.ones(3))
    with pytest.raises(AssertionError):
        instances.boxes = torch.zeros(2, 4)
    assert not instances.has("boxes")


def test_instances_without_fields_have_no_length():
    with pytest.raises(NotImplementedError):
        len(Instances((4, 5)))


def test_instances_cannot_be_iterated():
    with pytest.raises(NotImplementedError):
        iter(make_instances(2))


@pytest.mark.parametrize("index, rows", [(0, [0]), (-1, [3]), (slice(1, 3), [1, 2]), (slice(None, None, 2), [0, 2])])
def test_instances_indexing_applies_to_every_field(index, rows):
    whole = make_instances(4)
    part = whole[index]
    assert torch.equal(part.scores, whole.scores[rows])
    assert torch.equal(part.gt_boxes.tensor, whole.gt_boxes.tensor[rows])
    assert torch.equal(part.gt_masks.tensor, whole.gt_masks.tensor[rows])
    assert part.names == [whole.names[r] for r in rows] and part.image_size == whole.image_size


@pytest.mark.parametrize("index", [torch.tensor([2, 0, 2]), torch.tensor([True, False, True, False])])
def test_instances_indexing_by_tensor(index):
    whole = make_instances(4)
    whole.remove("names")
    part = whole[index]
    assert torch.equal(part.scores, whole.scores[index])
    assert torch.equal(part.gt_masks.tensor, whole.gt_masks.tensor[index])


@pytest.mark.parametrize("index", [torch.tensor([2, 0]), torch.tensor([True, False, True, False])])
def test_lists_of_instances_take_no_tensor(index):
    """As in the genuine package, where a program that indexes Instances with a list in them would fail."""
    with pytest.raises(TypeError):
        make_instances(4)[index]


def test_instances_index_out_of_range():
    for index in (4, -5):
        with pytest.raises(IndexError):
            make_instances(4)[index]


def test_empty_instances():
    """An image in which nothing was found goes through the same code as any other."""
    empty = make_instances(3)[:0]
    assert len(empty) == 0 and empty.gt_masks.tensor.shape == (0, 20, 30) and empty.names == []
    joined = Instances.cat([empty, make_instances(2)])
    assert len(joined) == 2 and joined.names == ["object 0", "object 1"]
    assert "0" in repr(empty)


def test_instances_cat():
    a, b = make_instances(2, 0), make_instances(3, 1)
    both = Instances.cat([a, b])
    assert len(both) == 5 and torch.equal(both.scores, torch.cat([a.scores, b.scores]))
    assert torch.equal(both.gt_boxes.tensor, torch.cat([a.gt_boxes.tensor, b.gt_boxes.tensor]))
    assert both.names == a.names + b.names
    other = make_instances(1)
    other._image_size = (1, 1)
    with pytest.raises(AssertionError):
        Instances.cat([a, other])


def test_instances_move_with_their_fields():
    instances = make_instances(2).to("cpu")
    assert instances.scores.device.type == "cpu" and instances.names == ["object 0", "object 1"]
    meta = Instances((2, 2), scores=torch.ones(2)).to("meta")
    assert meta.scores.device.type == "meta"


def test_instances_survive_copying_and_pickling():
    """Predictions travel between processes."""
    instances = make_instances(3)
    for other in (copy.deepcopy(instances), pickle.loads(pickle.dumps(instances))):
        assert other.image_size == instances.image_size and other.names == instances.names
        assert torch.equal(other.gt_boxes.tensor, instances.gt_boxes.tensor)
        assert torch.equal(other.gt_masks.tensor, instances.gt_masks.tensor)


# ImageList -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "divisibility, expected", [(0, (7, 9)), (1, (7, 9)), (4, (8, 12)), (32, (32, 32)), (7, (7, 14))]
)
def test_image_list_pads_to_a_multiple_at_the_right_and_bottom(divisibility, expected):
    images = [torch.rand(3, 7, 5), torch.rand(3, 4, 9)]
    batch = ImageList.from_tensors(images, divisibility, pad_value=0.5)
    assert batch.tensor.shape == (2, 3, *expected) and len(batch) == 2
    assert batch.image_sizes == [(7, 5), (4, 9)]
    for i, image in enumerate(images):
        assert torch.equal(batch[i], image)
        h, w = image.shape[-2:]
        assert (batch.tensor[i, :, h:] == 0.5).all() and (batch.tensor[i, :, :, w:] == 0.5).all()


def test_image_list_of_label_maps():
    batch = ImageList.from_tensors([torch.ones(3, 4, dtype=torch.int64)], 8, pad_value=255)
    assert batch.tensor.dtype == torch.int64 and batch.tensor.shape == (1, 8, 8) and batch.tensor[0, 7, 7] == 255
    assert batch[0].shape == (3, 4)


def test_image_list_moves():
    batch = ImageList.from_tensors([torch.ones(1, 2, 2)]).to(torch.float64)
    assert batch.tensor.dtype == torch.float64 and batch.device.type == "cpu" and batch.image_sizes == [(2, 2)]


def test_image_list_of_nothing_is_refused():
    with pytest.raises(AssertionError):
        ImageList.from_tensors([])
