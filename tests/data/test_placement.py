"""Augmentations in one step against one after the other: pixels, maps, masks and random numbers are equal."""

import json
import random
from typing import NamedTuple

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.projects.point_rend import ColorAugSSDTransform
from panopticapi.utils import id2rgb, rgb2id
from PIL import Image

from PADing.data.dataset_mappers.instance import annotation_masks
from PADing.data.dataset_mappers.placement import Drawn, Placement, draw
from PADing.data.dataset_mappers.segments import SegmentMap

SEEDS = range(120)
IGNORED = 4  # of the labels 0..5


class Case(NamedTuple):
    """Random augmentations of a random image in the order ``order`` of colors, one after the other and drawn."""

    rng: np.random.Generator
    order: str
    picture: Image.Image
    labels: np.ndarray
    augmented: T.AugInput
    transforms: T.TransformList
    drawn: Drawn


def _flips(rng):
    flips = [[], [T.RandomFlip()], [T.RandomFlip(horizontal=False, vertical=True)], [T.RandomFlip(), T.RandomFlip(0.9)]]
    return flips[rng.integers(4)]


def _jitter(rng, label_padding):
    """Augmentations with random settings: smaller and larger than the image, wide and high crops."""
    height, width = (int(side) for side in rng.integers(1, 80, 2))
    low, high = np.sort(rng.uniform(0.2, 3, 2))
    resize = T.ResizeScale(low, high, target_height=height, target_width=width)
    return [*_flips(rng), resize, T.FixedSizeCrop((height, width), pad_value=128, seg_pad_value=label_padding)]


def _resize_and_crop(rng, order):
    """As the ``mask_former_*`` mappers: a crop of any kind or none, with or without change of colors."""
    size = tuple(int(side) for side in rng.integers(1, 60, 2))
    limit = float(rng.choice([1.0, 0.4, 0.22]))
    crops = [
        [],
        [T.RandomCrop("absolute", size)],
        [T.RandomCrop("relative_range", (0.3, 0.4))],
        [T.RandomCrop_CategoryAreaConstraint("absolute", size, limit, IGNORED)],
        [T.RandomCrop_CategoryAreaConstraint("relative", (0.6, 0.5), limit, IGNORED)],
    ]
    colors = [ColorAugSSDTransform(img_format=order)] if rng.random() < 0.5 else []
    lengths = tuple(int(length) for length in np.sort(rng.integers(5, 90, 2)))
    return [*_flips(rng), T.ResizeShortestEdge(lengths, 120), *crops[rng.integers(5)], *colors, *_flips(rng)]


def _case(seed, colors=True, label_padding=0):
    """None if a side vanishes."""
    rng = np.random.default_rng(seed)
    order = ("RGB", "BGR")[seed // 2 % 2]
    augmentations = _resize_and_crop(rng, order) if seed % 2 else _jitter(rng, label_padding)
    if not colors:
        augmentations = [step for step in augmentations if not isinstance(step, ColorAugSSDTransform)]
    augmentations = T.AugmentationList(augmentations)
    pixels = rng.integers(0, 256, (*rng.integers(1, 90, 2), 3), dtype=np.uint8)
    labels = rng.integers(0, 6, pixels.shape[:2], dtype=np.uint8)
    whole = T.AugInput(pixels, sem_seg=labels.astype(np.float64))
    np.random.seed(seed), random.seed(seed)
    try:
        transforms = augmentations(whole)
    except ValueError:
        return None
    if 0 in whole.image.shape:
        with pytest.raises(ValueError, match="> 0"):
            np.random.seed(seed), draw(augmentations.augs, pixels.shape[:2], labels)
        return None
    state = np.random.random()
    np.random.seed(seed), random.seed(seed)
    drawn = draw(augmentations.augs, pixels.shape[:2], labels)
    assert np.random.random() == state
    picture = Image.fromarray(pixels if order == "RGB" else np.ascontiguousarray(pixels[:, :, ::-1]))
    return Case(rng, order, picture, labels, whole, transforms, drawn)


@pytest.mark.parametrize("seed", SEEDS)
def test_image_and_labels(seed):
    case = _case(seed, label_padding=7)
    if case is None:
        pytest.skip("a side of 0 pixels")
    placement, transforms = case.drawn.placement, case.transforms
    image = placement.image(case.picture, case.order, recolor=case.drawn.recolor)
    assert image.is_contiguous() and np.array_equal(image.numpy().transpose(1, 2, 0), case.augmented.image)
    found = placement.labels(case.labels, placement.label_padding, by_torch=True)
    assert np.array_equal(found, case.augmented.sem_seg)
    zero = placement.labels(case.labels, placement.label_padding)
    assert np.array_equal(zero, transforms.apply_segmentation(case.labels))
    points = case.rng.uniform(-9, 99, (7, 2))
    assert np.array_equal(case.drawn.transforms.apply_coords(points.copy()), transforms.apply_coords(points.copy()))
    assert placement.output == case.augmented.image.shape[:2]


@pytest.mark.parametrize("threads", [1, 2])
def test_labels_are_resized_as_by_pytorch(threads):
    """PyTorch rounds in two ways, of which 105 to 125 pixels, among others, have different results."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for source, resized in (
            ((105, 171), (125, 126)),
            ((105, 9), (125, 2)),
            ((195, 9), (125, 3)),
            ((9, 183), (4, 126)),
        ):
            labels = np.random.default_rng(0).integers(0, 256, source, dtype=np.uint8)
            placement = Placement(source, (False, False), resized, (0, 0), resized, resized)
            want = T.ResizeTransform(*source, *resized).apply_segmentation(labels.astype(np.float64))
            assert np.array_equal(placement.labels(labels, by_torch=True), want)
    finally:
        torch.set_num_threads(before)


def test_padding_that_does_not_fit_in_the_type_of_the_labels():
    np.random.seed(0)
    _, placement, _ = draw([T.ResizeScale(1, 1, 4, 4), T.FixedSizeCrop((4, 6))], (2, 2))
    labels = np.full((2, 2), 200, dtype=np.uint8)
    assert placement.labels(labels, -1).tolist() == [[200] * 4 + [-1] * 2] * 4


@pytest.mark.parametrize("seed", SEEDS)
def test_pytorch_resizes_to_almost_the_same_pixels(seed):
    """It rounds the weights to fewer bits: at most one level after each of the two passes."""
    case = _case(seed, colors=False)
    if case is None:
        pytest.skip("a side of 0 pixels")
    found = case.drawn.placement.image(case.picture, case.order, resize_by="torch").numpy().transpose(1, 2, 0)
    distance = np.abs(found.astype(int) - case.augmented.image)
    assert distance.max(initial=0) <= 2 and (distance > 0).mean() < 0.3


@pytest.mark.parametrize("seed", SEEDS)
def test_masks_of_instances(seed):
    """Polygons of several parts, inside and outside of image and crop, beside masks of every kind of RLE."""
    case = _case(seed)
    if case is None:
        pytest.skip("a side of 0 pixels")
    rng, transforms, drawn = case.rng, case.transforms, case.drawn
    height, width = case.labels.shape
    size = drawn.placement.output
    annotations, want = [], []
    for number in range(8):
        if number % 4 == 3:
            mask = np.asfortranarray(rng.random((height, width)) < rng.choice([0.01, 0.5]), dtype=np.uint8)
            segmentation = mask_util.encode(mask)
            expected = transforms.apply_segmentation(mask)
        else:
            low, side = -0.5 * max(height, width), 2.0 * max(height, width)
            spread = rng.choice([2, 0.2 * side, side])
            corner = rng.uniform(low, side, 2)
            points = [corner + rng.uniform(0, spread, (rng.integers(3, 9), 2)) for _ in range(rng.integers(1, 4))]
            segmentation = [part.round(2).ravel().tolist() for part in points]
            expected = _whole_raster(segmentation, transforms, *size)
        annotations.append({"category_id": number, "segmentation": segmentation, "iscrowd": int(number == 6)})
        if expected.any() and number != 6:
            want.append((number, expected.astype(bool)))
    before = json.dumps([a["segmentation"] for a in annotations if isinstance(a["segmentation"], list)])
    for chosen in (drawn.placement, None):
        classes, masks = annotation_masks(annotations, drawn.transforms, size, chosen)
        assert classes == [number for number, _ in want] and masks.shape == (len(want), *size)
        assert masks.dtype == bool and all(np.array_equal(a, b) for a, (_, b) in zip(masks, want, strict=True))
    assert before == json.dumps([a["segmentation"] for a in annotations if isinstance(a["segmentation"], list)])


def _whole_raster(segmentation, transforms, height, width):
    """pycocotools on the whole image, of the polygons that touch it."""
    moved = []
    for polygon in segmentation:
        points = transforms.apply_coords(np.array(polygon).reshape(-1, 2))
        if (points.min(axis=0) < (width, height)).all() and (points.max(axis=0) > 0).all():
            moved.append(points.ravel().tolist())
    if not moved:
        return np.zeros((height, width), dtype=np.uint8)
    return mask_util.decode(mask_util.merge(mask_util.frPyObjects(moved, height, width)))


@pytest.mark.parametrize("count", [0, 1, 9, 300])
@pytest.mark.parametrize("seed", range(16))
def test_masks_of_segments(seed, count):
    """Also with more segments than a byte has values, with one that is black as padding is, and with crowds."""
    case = _case(seed)
    if case is None:
        pytest.skip("a side of 0 pixels")
    rng, transforms = case.rng, case.transforms
    listed = rng.choice(2**24, count + 2, replace=False)
    listed[0] = rng.choice([0, listed[0]])
    ids = rng.choice(listed, case.labels.shape).astype(np.int32)
    segments = [{"id": int(i), "category_id": int(rng.integers(200)), "iscrowd": int(i % 5 == 1)} for i in listed[:-2]]
    segments += segments[:1]  # listed twice
    moved = rgb2id(transforms.apply_segmentation(id2rgb(ids)))
    targets = [segment for segment in segments if not segment["iscrowd"]]
    found = SegmentMap(ids, segments)
    for placement in (case.drawn.placement, None):
        classes, masks = found.masks(found.moved(transforms, placement))
        assert classes == [segment["category_id"] for segment in targets]
        assert all(np.array_equal(mask, moved == s["id"]) for mask, s in zip(masks, targets, strict=True))
    want = np.full(ids.shape, 255)
    for segment in segments:
        want[ids == segment["id"]] = segment["category_id"]
    assert np.array_equal(found.classes(255), want)


def test_augmentations_that_need_pixels_are_left_alone():
    """Then nothing is drawn, so that the augmentations draw the numbers of before."""

    class Own(T.RandomFlip):
        pass

    resize, pad, crop = T.ResizeScale(0.5, 2, 9, 9), T.FixedSizeCrop((9, 9)), T.RandomCrop("relative", (1, 1))
    by_nearest = T.ResizeScale(0.5, 2, 9, 9, interp=Image.Resampling.NEAREST)
    flip, colors, other = T.RandomFlip(), ColorAugSSDTransform("RGB"), T.NoOpTransform()
    np.random.seed(0)
    state = np.random.get_state()[1].tolist()
    unknown = [
        [],
        [pad],
        [crop],
        [Own(), resize, pad],
        [resize, pad, flip],
        [resize, crop, Own()],
        [resize, pad, colors],
    ]
    unknown += [[by_nearest, pad], [resize, crop, crop], [resize, other], [colors, resize], [resize, colors, crop]]
    for augmentations in unknown:
        assert draw(T.AugmentationList(augmentations).augs, (20, 30)) is None
    assert np.random.get_state()[1].tolist() == state
    for augmentations in ([resize], [flip, resize, pad], [flip, resize, crop, colors, flip]):
        assert draw(T.AugmentationList(augmentations).augs, (20, 30)) is not None
