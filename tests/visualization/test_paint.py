"""paint and panel; wrong here means that pictures show a class where there is none, or hide that it is unseen."""

import numpy as np

from PADing.visualization import Segmentation, paint, panel
from PADing.visualization.panoptic import UNSEEN_RGB, class_colour

GREY = np.full((120, 180, 3), 100, dtype=np.uint8)
NAMES = ["sky", "cat"]


def _two_halves():
    """Segment 7 (sky) on the left third, segment 9 (cat) on the right third, nothing between."""
    ids = np.zeros((120, 180), dtype=np.int64)
    ids[:, :60], ids[:, 120:] = 7, 9
    return Segmentation(ids, {7: 0, 9: 1})


def _mixed(label):
    """45 % picture, 55 % colour of the class, as bytes."""
    return (0.45 * 100 + 0.55 * np.array(class_colour(label), dtype=np.float32)).astype(np.uint8)


def test_areas_have_the_colour_of_their_class_and_the_rest_is_the_picture():
    out = paint(GREY, _two_halves(), NAMES, unseen=())
    assert out.dtype == np.uint8 and out.shape == GREY.shape
    assert (out[5, 5] == _mixed(0)).all() and (out[5, 170] == _mixed(1)).all()
    assert (out[:, 64:116] == 100).all()


def test_only_unseen_classes_have_the_marked_outline():
    out = paint(GREY, _two_halves(), NAMES, unseen={1}).astype(int)
    marked = np.abs(out - UNSEEN_RGB).max(axis=2) < 10
    assert marked[:, 120].all() and not marked[:, :117].any()
    assert (out[10, 59] > 220).all() and (out[10, 57] < 220).any()  # a seen class: a thin white line
    assert not (np.abs(paint(GREY, _two_halves(), NAMES, unseen=()).astype(int) - UNSEEN_RGB).max(axis=2) < 10).any()


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
