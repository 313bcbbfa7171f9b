"""paint and panel; wrong here means that images show a class where there is none, or hide that it is unseen."""

import numpy as np
import pytest

from PADing.visualization import Segmentation, paint, panel
from PADing.visualization.panoptic import OPACITY, UNSEEN_RGB, class_colour, with_key

GREY = np.full((120, 180, 3), 100, dtype=np.uint8)
NAMES = ["sky", "cat"]


def _two_halves():
    """Segment 7 (sky) on the left third, segment 9 (cat) on the right third, nothing between."""
    ids = np.zeros((120, 180), dtype=np.int64)
    ids[:, :60], ids[:, 120:] = 7, 9
    return Segmentation(ids, {7: 0, 9: 1})


def _mixed(label):
    """The image, through the colour of the class, as bytes."""
    mixed = (1 - OPACITY) * 100 + OPACITY * np.array(class_colour(label), dtype=np.float64)
    return np.rint(mixed).astype(np.uint8)


def test_areas_have_the_colour_of_their_class_and_the_rest_is_the_image():
    out = paint(GREY, _two_halves(), NAMES, unseen=())
    assert out.dtype == np.uint8 and out.shape == GREY.shape
    assert (out[5, 5] == _mixed(0)).all() and (out[5, 170] == _mixed(1)).all()
    assert (out[:, 64:116] == 100).all()


def test_only_unseen_classes_have_the_marked_outline():
    out = paint(GREY, _two_halves(), NAMES, unseen={1}).astype(int)
    marked = np.abs(out - UNSEEN_RGB).max(axis=2) < 10
    assert marked[:, 120].all() and not marked[:, :117].any()
    assert (out[10, 59] == 255).all() and (out[10, 58] == class_colour(0)).all()  # a seen class: white, then its colour
    assert (out[10, 57] == _mixed(0)).all()
    assert not (np.abs(paint(GREY, _two_halves(), NAMES, unseen=()).astype(int) - UNSEEN_RGB).max(axis=2) < 10).any()


def _marked(image):
    return (image == UNSEEN_RGB).all(axis=2)


def test_unseen_ground_does_not_outline_what_stands_on_it():
    """Sky is unseen stuff around a seen cat: the line goes along the end of the sky, not along the cat."""
    ids = np.full((120, 180), 7)
    ids[:, 140:] = 0
    ids[40:80, 40:80] = 9
    seg = Segmentation(ids, {7: 0, 9: 1}, stuff={7})
    out = _marked(paint(GREY, seg, NAMES, unseen={0}))
    assert out[110, 136:140].all() and not out[30:90, 30:90].any()
    assert not out[:, 140:].any() and not out[110, 4:130].any()
    assert out[50, :4].all() and out[:4, 50].all(), "a ground may fill the image, and is marked then, too"
    # An unseen thing is outlined wherever it ends.
    both = _marked(paint(GREY, Segmentation(ids, {7: 0, 9: 1}, stuff={7}), NAMES, unseen={0, 1}))
    assert both[40, 42:78].all() and not both[37, 42:78].any()
    assert _marked(paint(GREY, Segmentation(ids, {7: 0, 9: 1}), NAMES, unseen={0}))[37, 42:78].all()


def test_what_has_no_answer_is_hatched_where_an_answer_is_due():
    """Grey lines, so that it looks neither like the image nor like a class; detections leave it as it is."""
    red = np.full((120, 180, 3), (200, 0, 0), dtype=np.uint8)
    seg = _two_halves()
    out = paint(red, Segmentation(seg.ids, seg.classes, complete=True), NAMES, unseen=())
    between = out[:, 64:116].astype(int)
    assert (np.ptp(between, axis=2) == 0).all() and np.ptp(between) > 50
    assert (paint(red, seg, NAMES, unseen=())[:, 64:116] == (200, 0, 0)).all()


def test_strips_leave_no_seam(monkeypatch):
    """Large images are painted in strips; each knows its neighbours."""
    ids = np.repeat(np.arange(90), 20).reshape(90, 20).T.repeat(6, axis=0).copy()
    seg = Segmentation(ids, {i: i % 2 for i in range(1, 90)}, stuff={3, 4}, complete=True)
    image = np.zeros((*ids.shape, 3), dtype=np.uint8)
    whole = paint(image, seg, NAMES, {1})
    monkeypatch.setattr("PADing.visualization.panoptic.STRIP", 1)
    assert np.array_equal(paint(image, seg, NAMES, {1}), whole)


@pytest.mark.parametrize("shape", [(120, 180), (120, 180, 1)])
def test_grey_images(shape):
    grey = np.full(shape, 100, dtype=np.uint8)
    assert np.array_equal(paint(grey, _two_halves(), NAMES, {1}), paint(GREY, _two_halves(), NAMES, {1}))


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (3, 40)])
def test_images_that_are_too_small_for_names(size):
    seg = Segmentation(np.ones(size, dtype=np.int32), {1: 1})
    out = paint(np.full((*size, 3), 100, dtype=np.uint8), seg, NAMES, unseen={1})
    assert out.shape == (*size, 3)


def test_lines_and_letters_grow_with_the_image():
    """On a photograph of several megapixels a line of 4 pixels would not be seen."""
    ids = np.zeros((1700, 1700), dtype=np.int32)
    ids[100:1300, 500:1500] = 1
    image = np.full((1700, 1700, 3), 100, dtype=np.uint8)
    assert _marked(paint(image, Segmentation(ids, {1: 1}), NAMES, {1}))[100:150, 600].sum() == 4 * 2


def test_a_segment_without_pixels_and_an_empty_segmentation_change_nothing():
    empty = Segmentation(np.zeros((120, 180), dtype=np.int32), {3: 1})
    assert np.array_equal(paint(GREY, empty, NAMES, unseen={1}), GREY)


def test_enlarged_areas_stay_sharp():
    out = paint(GREY, _two_halves(), NAMES, unseen=(), scale=3)
    assert out.shape == (360, 540, 3)
    assert (out[15, 20] == _mixed(0)).all() and (out[:, 184:356] == 100).all()


def test_neighbouring_classes_differ_in_colour():
    colours = np.array([class_colour(index) for index in range(30)])
    assert (np.abs(np.diff(colours, axis=0)).max(axis=1) > 60).all()


def test_panel_has_the_input_first_and_a_title_above_each_column():
    seg = _two_halves()
    out = panel(GREY, [("ground truth", seg), ("prediction", seg)], NAMES, unseen={1})
    assert out.shape == (22 + 120 + 4, 3 * (180 + 4), 3)
    tiles = [out[22:142, i * 184 + 2 : i * 184 + 182] for i in range(3)]
    assert np.array_equal(tiles[0], GREY)
    assert np.array_equal(tiles[1], paint(GREY, seg, NAMES, {1})) and np.array_equal(tiles[1], tiles[2])
    assert all((out[:20, i * 184 : (i + 1) * 184] < 128).any() for i in range(3))


def test_the_key_says_what_the_signs_mean():
    drawing = np.zeros((100, 600, 3), dtype=np.uint8)
    short, long = with_key(drawing, False), with_key(drawing, True)
    assert short.shape == long.shape == (120, 600, 3)
    assert (long[100:] < 128).sum() > (short[100:] < 128).sum() > 0
