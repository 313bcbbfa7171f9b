"""paint and panel; wrong here means that images show a class where there is none, or hide that it is unseen."""

import numpy as np
import pytest

from PADing.visualization import Segmentation, labels, paint, panel
from PADing.visualization.panoptic import UNSEEN_RGB, class_colour

GREY = np.full((120, 180, 3), 100, dtype=np.uint8)
NAMES = ["sky", "cat"]


def _two_halves():
    """Segment 7 (sky) on the left third, segment 9 (cat) on the right third, nothing between."""
    ids = np.zeros((120, 180), dtype=np.int64)
    ids[:, :60], ids[:, 120:] = 7, 9
    return Segmentation(ids, {7: 0, 9: 1})


def _mixed(label):
    """45 % image, 55 % colour of the class, as bytes."""
    return (0.45 * 100 + 0.55 * np.array(class_colour(label), dtype=np.float32)).astype(np.uint8)


def test_areas_have_the_colour_of_their_class_and_the_rest_is_the_image():
    out = paint(GREY, _two_halves(), NAMES, unseen=())
    assert out.dtype == np.uint8 and out.shape == GREY.shape
    assert (out[5, 5] == _mixed(0)).all() and (out[5, 170] == _mixed(1)).all()
    assert (out[:, 64:116] == 100).all()


def test_only_unseen_classes_have_the_marked_outline():
    out = paint(GREY, _two_halves(), NAMES, unseen={1}).astype(int)
    marked = np.abs(out - UNSEEN_RGB).max(axis=2) < 10
    assert marked[:, 120].all() and not marked[:, :117].any()
    assert (out[10, 59] == 255).all() and (out[10, 57] < 220).any()  # a seen class: a thin white line
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
    assert out[110, 137:140].all() and not out[30:90, 30:90].any()
    assert not out[:, 140:].any() and not out[110, 3:130].any()
    assert out[50, :3].all() and out[:3, 50].all(), "a ground may fill the image, and is marked then, too"
    # An unseen thing is outlined wherever it ends.
    both = _marked(paint(GREY, Segmentation(ids, {7: 0, 9: 1}, stuff={7}), NAMES, unseen={0, 1}))
    assert both[40, 42:78].all() and not both[37, 42:78].any()
    assert _marked(paint(GREY, Segmentation(ids, {7: 0, 9: 1}), NAMES, unseen={0}))[37, 42:78].all()


def test_crowded_names_do_not_overlap(monkeypatch):
    """24 objects of 30 x 30, each with a name that is wider: a pixel has the colours of one box only."""
    ids = np.kron(np.arange(1, 25).reshape(4, 6), np.ones((30, 30), dtype=int))
    seg = Segmentation(ids, {i: 0 if i % 5 else 1 for i in range(1, 25)})
    placed, written = [], labels._written

    def record(text, box, size):
        patch = written(text, box, size).copy()
        patch[:] = len(placed) + 1  # a colour for each name
        placed.append(patch.shape[:2])
        return patch

    monkeypatch.setattr(labels, "_written", record)
    out = paint(GREY, seg, ["a long name", "an unseen one"], unseen={1})
    sizes = [int((out == number).all(axis=2).sum()) for number in range(1, len(placed) + 1)]
    full = [h * w for h, w in placed]
    assert all(size in (0, whole) for size, whole in zip(sizes, full, strict=True))  # whole, or left out
    assert sum(size > 0 for size in sizes) >= 6 and all(sizes[:4]), "unseen classes come first"


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 1), (3, 40)])
def test_images_that_are_too_small_for_names(size):
    seg = Segmentation(np.ones(size, dtype=np.int32), {1: 1})
    out = paint(np.full((*size, 3), 100, dtype=np.uint8), seg, NAMES, unseen={1})
    assert out.shape == (*size, 3)


def test_lines_and_letters_grow_with_the_image():
    """On a photograph of 24 megapixels a line of 3 pixels would not be seen."""
    ids = np.zeros((400, 4000), dtype=np.int32)
    ids[100:300, 1000:3000] = 1
    image = np.full((400, 4000, 3), 100, dtype=np.uint8)
    assert _marked(paint(image, Segmentation(ids, {1: 1}), NAMES, {1}))[100:150, 1100].sum() == 3 * 4


def test_names_beyond_ascii_are_written():
    """ "ä" and "ö" look different; a font without them would draw the same box for both."""
    one, other = (labels._written(text, (0, 0, 0), 12) for text in ("Bär", "Bör"))
    assert one.shape[0] == other.shape[0] and (one[:, :20] != other[:, :20]).any() and one.max() > 200


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
