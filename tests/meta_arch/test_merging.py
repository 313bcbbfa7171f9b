"""Queries of several views as one set; wrong here means that objects are doubled, mixed up or lost by augmentation."""

import pytest
import torch

from PADing.meta_arch.merging import MergedQueries, mask_iou

SIZE = 8


def mask(rows: slice, columns: slice, inside: float = 0.9, outside: float = 0.1) -> torch.Tensor:
    result = torch.full((SIZE, SIZE), outside)
    result[rows, columns] = inside
    return result


LEFT, RIGHT = (slice(None), slice(0, 4)), (slice(None), slice(4, 8))


def test_iou_of_pairs():
    a = torch.stack([mask(*LEFT), mask(slice(0, 4), slice(None)), torch.zeros(SIZE, SIZE)]) > 0.5
    assert mask_iou(a, a) == pytest.approx(torch.tensor([[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]]))


def test_the_same_objects_in_another_order_are_averaged():
    """Two views, whose queries have other numbers: means of classes and masks, and no further object."""
    merged = MergedQueries(views=2, most=10)
    merged.add(torch.tensor([[0.8, 0.0, 0.2], [0.0, 0.6, 0.4]]), torch.stack([mask(*LEFT), mask(*RIGHT)]))
    merged.add(torch.tensor([[0.0, 1.0, 0.0], [0.4, 0.2, 0.4]]), torch.stack([mask(*RIGHT), mask(*LEFT, 0.7)]))
    classes, masks = merged.result()
    assert classes == pytest.approx(torch.tensor([[0.6, 0.1, 0.3], [0.0, 0.8, 0.2]]))
    assert masks.sigmoid() == pytest.approx(torch.stack([mask(*LEFT, 0.8), mask(*RIGHT)]), abs=1e-5)


def test_an_object_of_one_view_alone_gets_a_lower_score():
    merged = MergedQueries(views=4, most=10)
    merged.add(torch.tensor([[0.8, 0.0, 0.2]]), mask(*LEFT)[None])
    for _ in range(3):
        merged.add(torch.tensor([[0.0, 0.8, 0.2]]), mask(*RIGHT)[None])
    classes, masks = merged.result()
    assert classes == pytest.approx(torch.tensor([[0.2, 0.0, 0.8], [0.0, 0.6, 0.4]]))
    assert torch.equal(masks > 0, torch.stack([mask(*LEFT), mask(*RIGHT)]) > 0.5)


def test_of_two_queries_on_one_mask_those_of_the_same_class_are_joined():
    both, shown = torch.stack([mask(*LEFT), mask(*LEFT)]), torch.tensor([[0.9, 0.0, 0.1], [0.0, 0.9, 0.1]])
    merged = MergedQueries(views=2, most=10)
    merged.add(shown, both)
    merged.add(shown.flip(0), both)
    assert merged.result()[0] == pytest.approx(shown)


def test_what_is_surely_no_object_is_dropped_first():
    """Otherwise the number of masks would grow with the number of views."""
    merged = MergedQueries(views=3, most=2)
    for place, score in enumerate((0.5, 0.1, 0.9)):
        row = slice(2 * place, 2 * place + 2)
        merged.add(torch.tensor([[score, 1 - score]]), mask(row, slice(None))[None])
    classes, masks = merged.result()
    assert classes[:, 0] * 3 == pytest.approx(torch.tensor([0.5, 0.9])) and (masks[1, 4:6] > 0).all()


def test_empty_and_certain_masks_have_finite_logits():
    merged = MergedQueries(views=2, most=5)
    for _ in range(2):
        merged.add(torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.stack([torch.zeros(4, 4), torch.ones(4, 4)]))
    classes, masks = merged.result()
    assert masks.isfinite().all() and classes.sum(1) == pytest.approx(torch.ones(len(classes)))
