"""Boxes and masks, against hand-worked examples, pycocotools and shapely."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.structures import (
    BitMasks,
    Boxes,
    BoxMode,
    PolygonMasks,
    pairwise_iou,
    polygons_to_bitmask,
)
from shapely.geometry import Polygon

from tests.d2lite.random_regions import random_boxes, random_masks

SQUARE = [2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0]  # 4 wide, 3 high
TRIANGLE = [0.0, 0.0, 8.0, 0.0, 0.0, 6.0]  # area 24


# BoxMode -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [list, tuple, lambda box: np.array([box]), lambda box: torch.tensor([box])])
def test_box_modes_convert_both_ways_and_keep_the_type(make):
    xywh, xyxy = make([10.0, 20.0, 30.0, 40.0]), make([10.0, 20.0, 40.0, 60.0])
    there = BoxMode.convert(xywh, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    back = BoxMode.convert(there, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    assert type(there) is type(xywh)
    assert np.array_equal(np.asarray(there), np.asarray(xyxy)) and np.array_equal(np.asarray(back), np.asarray(xywh))
    assert np.array_equal(np.ravel(xywh), [10, 20, 30, 40]), "the caller's box was changed"


@pytest.mark.parametrize("make", [np.array, torch.tensor])
def test_an_array_is_many_boxes(make):
    """One box is a list or a tuple: code that passes one as an array would fail beside the genuine package."""
    with pytest.raises(IndexError):
        BoxMode.convert(make([10.0, 20.0, 30.0, 40.0]), BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)


def test_a_box_of_another_length_is_refused():
    for box in ([1, 2, 3], (1, 2, 3, 4, 5, 6)):
        with pytest.raises(AssertionError):
            BoxMode.convert(box, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)


def test_box_modes_convert_many_boxes_at_once():
    boxes = np.array([[0, 0, 5, 6], [1, 2, 3, 4]], dtype=np.float64)
    converted = BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert converted.dtype == np.float64 and converted.tolist() == [[0, 0, 5, 6], [1, 2, 4, 6]]
    assert BoxMode.convert(np.zeros((0, 4)), BoxMode.XYXY_ABS, BoxMode.XYWH_ABS).shape == (0, 4)


def test_box_modes_that_need_the_image_size_are_refused():
    for mode in (BoxMode.XYXY_REL, BoxMode.XYWH_REL):
        with pytest.raises((NotImplementedError, AssertionError)):
            BoxMode.convert([0.1, 0.1, 0.5, 0.5], mode, BoxMode.XYXY_ABS)


def test_box_modes_are_the_numbers_in_saved_data_sets():
    assert [int(m) for m in (BoxMode.XYXY_ABS, BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS)] == [0, 1, 4]


# Boxes ---------------------------------------------------------------------------------------------------------------


def test_boxes_geometry_by_hand():
    boxes = Boxes([[0, 0, 4, 3], [5, 5, 5, 9], [-2, 1, 12, 30]])
    assert boxes.tensor.dtype == torch.float32 and len(boxes) == 3
    assert boxes.area().tolist() == [12, 0, 14 * 29]
    assert boxes.nonempty().tolist() == [True, False, True]
    assert boxes.nonempty(threshold=3).tolist() == [False, False, True], "a side equal to the threshold is too short"
    assert boxes.get_centers().tolist() == [[2, 1.5], [5, 7], [5, 15.5]]
    assert boxes.inside_box((10, 10)).tolist() == [True, True, False]
    assert boxes.inside_box((30, 10), boundary_threshold=3).tolist() == [True, True, True]
    boxes.clip((20, 10))
    assert boxes.tensor.tolist() == [[0, 0, 4, 3], [5, 5, 5, 9], [0, 1, 10, 20]]
    boxes.scale(2, 0.5)
    assert boxes.tensor[0].tolist() == [0, 0, 8, 1.5]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_boxes_that_are_not_finite_cannot_be_clipped(bad):
    """A diverged model would otherwise turn into boxes at the image border, unnoticed."""
    with pytest.raises(AssertionError):
        Boxes([[0, 0, bad, 3]]).clip((10, 10))


def test_boxes_indexing_keeps_two_dimensions():
    boxes = Boxes(random_boxes(5, 0))
    for index, rows in [(1, [1]), (-1, [4]), (slice(1, 3), [1, 2]), (torch.tensor([3, 0]), [3, 0])]:
        assert torch.equal(boxes[index].tensor, boxes.tensor[rows])
    assert torch.equal(boxes[boxes.tensor[:, 0] > 1e9].tensor, torch.zeros(0, 4))
    assert [tuple(b.shape) for b in boxes] == [(4,)] * 5


@pytest.mark.parametrize("empty", [[], torch.empty(0), np.zeros((0, 4)), torch.empty(0, 4)])
def test_no_boxes_are_still_boxes(empty):
    boxes = Boxes(empty)
    assert boxes.tensor.shape == (0, 4) and len(boxes) == 0 and boxes.area().shape == (0,)
    assert pairwise_iou(boxes, Boxes(random_boxes(3, 1))).shape == (0, 3)
    boxes.clip((4, 4))


def test_boxes_of_another_shape_are_refused():
    with pytest.raises(AssertionError):
        Boxes(torch.zeros(2, 5))


def test_boxes_cat_and_clone():
    a, b = Boxes(random_boxes(2, 2)), Boxes(random_boxes(3, 3))
    assert torch.equal(Boxes.cat([a, b]).tensor, torch.cat([a.tensor, b.tensor]))
    assert len(Boxes.cat([])) == 0
    kept = a.tensor.clone()
    a.clone().scale(0, 0)
    assert torch.equal(a.tensor, kept)


def test_pairwise_iou_agrees_with_pycocotools():
    a, b = random_boxes(20, 4), random_boxes(30, 5)
    b[:5] = a[:5]  # identical pairs

    def xywh(boxes):
        return torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).double().numpy()

    expected = mask_util.iou(xywh(a), xywh(b), [False] * 30)
    iou = pairwise_iou(Boxes(a), Boxes(b))
    assert np.abs(iou.numpy() - expected).max() < 1e-5 and (expected == 0).any()
    assert (iou.numpy()[expected == 0] == 0).all()


# BitMasks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_bitmask_boxes_agree_with_pycocotools(seed):
    masks = random_masks(6, 23, 17, seed)
    boxes = BitMasks(masks).get_bounding_boxes().tensor
    for mask, box in zip(masks.numpy(), boxes.tolist(), strict=True):
        x, y, w, h = mask_util.toBbox(mask_util.encode(np.asfortranarray(mask.astype(np.uint8))))
        assert box == [x, y, x + w, y + h]
    assert boxes[0].tolist() == [0, 0, 0, 0], "the box of an empty mask"


def test_bitmask_single_pixel_box_has_area_one():
    mask = torch.zeros(1, 5, 7)
    mask[0, 4, 6] = 1
    assert BitMasks(mask).get_bounding_boxes().tensor.tolist() == [[6, 4, 7, 5]]


@pytest.mark.parametrize("dtype", [np.uint8, np.bool_, np.float32, np.int64])
def test_bitmasks_are_bool_whatever_they_are_made_of(dtype):
    masks = BitMasks(np.array([[[0, 1], [1, 0]]], dtype=dtype))
    assert masks.tensor.dtype == torch.bool and masks.tensor.tolist() == [[[False, True], [True, False]]]
    assert masks.image_size == (2, 2)


def test_bitmasks_indexing_iteration_and_cat():
    tensor = random_masks(4, 6, 5, 0)
    tensor[1:, 0, 0] = True
    masks = BitMasks(tensor)
    assert masks.nonempty().tolist() == [False, True, True, True]
    assert masks[2].tensor.shape == (1, 6, 5) and torch.equal(masks[2].tensor[0], tensor[2])
    assert torch.equal(masks[masks.nonempty()].tensor, tensor[1:])
    assert all(torch.equal(a, b) for a, b in zip(masks, tensor, strict=True))
    assert torch.equal(BitMasks.cat([masks[:1], masks[1:]]).tensor, tensor)
    with pytest.raises(AssertionError):
        BitMasks(torch.zeros(3, 3))


def test_no_bitmasks():
    masks = BitMasks(torch.zeros(0, 6, 5))
    assert len(masks) == 0 and masks.get_bounding_boxes().tensor.shape == (0, 4) and masks.nonempty().shape == (0,)


# Polygons ------------------------------------------------------------------------------------------------------------


def test_polygons_are_drawn_over_the_pixels_inside():
    mask = polygons_to_bitmask([np.array(SQUARE)], 8, 9)
    expected = np.zeros((8, 9), dtype=bool)
    expected[1:4, 2:6] = True
    assert mask.dtype == bool and np.array_equal(mask, expected)
    both = polygons_to_bitmask([np.array(SQUARE), np.array([0.0, 6, 3, 6, 3, 8, 0, 8])], 8, 9)
    expected[6:8, 0:3] = True
    assert np.array_equal(both, expected), "an object of two parts is their union"


def test_no_polygons_draw_nothing():
    assert polygons_to_bitmask([], 4, 5).shape == (4, 5) and not polygons_to_bitmask([], 4, 5).any()


@pytest.mark.parametrize("wrap", [list, PolygonMasks])
def test_bitmasks_from_polygons(wrap):
    masks = BitMasks.from_polygon_masks(wrap([[np.array(SQUARE)], [np.array(TRIANGLE)]]), 8, 9)
    assert masks.tensor.shape == (2, 8, 9) and masks.tensor[0].sum() == 12
    assert BitMasks.from_polygon_masks(wrap([]), 8, 9).tensor.shape == (0, 8, 9)


def test_polygon_areas_and_boxes_agree_with_shapely():
    rng = np.random.RandomState(0)
    angles = np.sort(rng.rand(10, 12) * 2 * np.pi, axis=1)  # sorted angles: simple, star-shaped polygons
    radii = 5 + 10 * rng.rand(10, 12)
    points = np.stack([30 + radii * np.cos(angles), 20 + radii * np.sin(angles)], axis=2)
    masks = PolygonMasks([[p.ravel()] for p in points] + [[points[0].ravel(), points[1].ravel() + 40]])
    shapes = [Polygon(p) for p in points]
    areas = [s.area for s in shapes] + [shapes[0].area + shapes[1].area]
    assert np.allclose(masks.area().numpy(), areas, rtol=1e-5)
    assert np.allclose(masks.get_bounding_boxes().tensor[:10].numpy(), [s.bounds for s in shapes], rtol=1e-6)


def test_polygon_masks_are_float64():
    masks = PolygonMasks([[np.array(SQUARE, dtype=np.float32)], [torch.tensor(TRIANGLE)]])
    assert all(p.dtype == np.float64 for polygons in masks.polygons for p in polygons)
    assert masks.area().tolist() == [12, 24]
    assert masks.to("cpu") is masks


@pytest.mark.parametrize("bad", [[0, 0, 1, 1], [0, 0, 1, 1, 2], [], [[0, 0], [1, 1], [2, 0]]])
def test_bad_polygons_are_refused(bad):
    with pytest.raises(ValueError):
        PolygonMasks([[np.array(bad, dtype=np.float64)]])


def test_polygon_masks_need_a_list_for_each_object():
    with pytest.raises(ValueError):
        PolygonMasks([np.array(SQUARE)])
    with pytest.raises(ValueError):
        PolygonMasks(np.array([[SQUARE]]))


def test_polygon_masks_indexing():
    masks = PolygonMasks([[np.array(SQUARE)], [], [np.array(TRIANGLE)]])
    assert masks.nonempty().tolist() == [True, False, True]
    assert not masks.get_bounding_boxes().nonempty()[1]
    areas = {
        "int": masks[2],
        "negative": masks[-1],
        "slice": masks[2:],
        "list": masks[[2]],
        "bool": masks[torch.tensor([False, False, True])],
        "index": masks[torch.tensor([2])],
    }
    assert {k: v.area().tolist() for k, v in areas.items()} == {k: [24.0] for k in areas}
    assert masks[masks.nonempty()].area().tolist() == [12, 24]
    assert len(masks[torch.zeros(3, dtype=torch.bool)]) == 0
    assert [len(polygons) for polygons in masks] == [1, 0, 1]
    assert len(PolygonMasks.cat([masks, masks])) == 6
