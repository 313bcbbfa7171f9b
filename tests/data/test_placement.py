"""Jittering in one step against the transforms one after the other: pixels, maps, masks, random numbers are equal."""

import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import transforms as T
from panopticapi.utils import id2rgb, rgb2id
from PIL import Image

from PADing.data.dataset_mappers.instance import annotation_masks
from PADing.data.dataset_mappers.placement import draw
from PADing.data.dataset_mappers.segments import SegmentMap

SEEDS = range(60)


def _jitter(rng):
    """Augmentations with random settings: smaller and larger than the image, wide and high crops."""
    flips = [[], [T.RandomFlip()], [T.RandomFlip(horizontal=False, vertical=True)], [T.RandomFlip(), T.RandomFlip(0.9)]]
    height, width = (int(side) for side in rng.integers(1, 80, 2))
    low, high = np.sort(rng.uniform(0.2, 3, 2))
    resize = T.ResizeScale(low, high, target_height=height, target_width=width)
    if rng.random() < 0.2:
        return [*flips[rng.integers(4)], T.ResizeShortestEdge((5, 90), 120)]
    return [*flips[rng.integers(4)], resize, T.FixedSizeCrop((height, width), pad_value=128, seg_pad_value=0)]


def _case(seed):
    """Augmentations, an image, and what the transforms one after the other make of it; None if a side vanishes."""
    rng = np.random.default_rng(seed)
    augmentations = _jitter(rng)
    pixels = rng.integers(0, 256, (*rng.integers(1, 90, 2), 3), dtype=np.uint8)
    whole = T.AugInput(pixels)
    np.random.seed(seed)
    try:
        transforms = T.AugmentationList(augmentations)(whole)
    except ValueError:
        return None
    state = np.random.random()
    np.random.seed(seed)
    drawn, placement = draw(augmentations, pixels.shape[:2])
    assert np.random.random() == state
    return rng, pixels, whole.image, transforms, drawn, placement


@pytest.mark.parametrize("seed", SEEDS)
def test_image_and_labels(seed):
    case = _case(seed)
    if case is None:
        pytest.skip("a side of 0 pixels")
    rng, pixels, want, transforms, drawn, placement = case
    picture = Image.fromarray(pixels)
    assert np.array_equal(placement.image(picture).numpy().transpose(1, 2, 0), want)
    assert np.array_equal(placement.image(picture, "BGR").numpy().transpose(1, 2, 0), want[:, :, ::-1])
    labels = rng.integers(0, 256, pixels.shape[:2], dtype=np.uint8)
    assert np.array_equal(placement.labels(labels), transforms.apply_segmentation(labels))
    points = rng.uniform(-9, 99, (7, 2))
    assert np.array_equal(drawn.apply_coords(points.copy()), transforms.apply_coords(points.copy()))
    assert placement.output == want.shape[:2]


@pytest.mark.parametrize("seed", SEEDS)
def test_pytorch_resizes_to_almost_the_same_pixels(seed):
    """It rounds the weights to fewer bits: at most one level after each of the two passes."""
    case = _case(seed)
    if case is None:
        pytest.skip("a side of 0 pixels")
    _, pixels, want, _, _, placement = case
    for order, image in (("RGB", want), ("BGR", want[:, :, ::-1])):
        found = placement.image(Image.fromarray(pixels), order, resize_by="torch").numpy().transpose(1, 2, 0)
        distance = np.abs(found.astype(int) - image)
        assert distance.max(initial=0) <= 2 and (distance > 0).mean() < 0.3


@pytest.mark.parametrize("seed", SEEDS)
def test_masks_of_instances(seed):
    """Polygons of several parts, inside and outside of image and crop, beside masks of every kind of RLE."""
    case = _case(seed)
    if case is None:
        pytest.skip("a side of 0 pixels")
    rng, pixels, image, transforms, drawn, placement = case
    height, width = pixels.shape[:2]
    size = image.shape[:2]
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
    for chosen in (placement, None):
        classes, masks = annotation_masks(annotations, drawn, size, chosen)
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
@pytest.mark.parametrize("seed", range(8))
def test_masks_of_segments(seed, count):
    """Also with more segments than a byte has values, with one that is black as padding is, and with crowds."""
    case = _case(seed)
    if case is None:
        pytest.skip("a side of 0 pixels")
    rng, pixels, image, transforms, _, placement = case
    listed = rng.choice(2**24, count + 2, replace=False)
    listed[0] = rng.choice([0, listed[0]])
    ids = rng.choice(listed, pixels.shape[:2]).astype(np.int32)
    segments = [{"id": int(i), "category_id": int(rng.integers(200)), "iscrowd": int(i % 5 == 1)} for i in listed[:-2]]
    segments += segments[:1]  # listed twice
    moved = rgb2id(transforms.apply_segmentation(id2rgb(ids)))
    targets = [segment for segment in segments if not segment["iscrowd"]]
    found = SegmentMap(ids, segments)
    for numbers in (found.placed(placement), found.transformed(transforms)):
        classes, masks = found.masks(numbers)
        assert classes == [segment["category_id"] for segment in targets]
        assert all(np.array_equal(mask, moved == s["id"]) for mask, s in zip(masks, targets, strict=True))
    want = np.full(ids.shape, 255.0)
    for segment in segments:
        want[ids == segment["id"]] = segment["category_id"]
    assert np.array_equal(found.classes(255), want)


def test_augmentations_that_need_pixels_are_left_alone():
    """Then nothing is drawn, so that the augmentations draw the numbers of before."""

    class Own(T.RandomFlip):
        pass

    jitter = [T.ResizeScale(0.5, 2, 9, 9), T.FixedSizeCrop((9, 9))]
    np.random.seed(0)
    state = np.random.get_state()[1].tolist()
    crop = T.RandomCrop("relative", (1, 1))
    for augmentations in ([], jitter[1:], [Own(), *jitter], [*jitter, T.RandomFlip()], [jitter[0], crop]):
        assert draw(augmentations, (20, 30)) is None
    assert draw([T.ResizeScale(0.5, 2, 9, 9, interp=Image.Resampling.NEAREST), jitter[1]], (20, 30)) is None
    assert np.random.get_state()[1].tolist() == state
    assert draw(jitter, (20, 30)) is not None
