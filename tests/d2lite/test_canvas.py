"""The stand-in's own drawing: fills, outlines, labels, and what mistakes are answered with."""

import random

import numpy as np
import pytest
import torch
from detectron2.utils.visualizer import ColorMode, Visualizer

from tests.d2lite.drawing import (
    GREY,
    LEFT,
    META,
    RIGHT,
    H,
    W,
    away_from,
    mean_color,
    panoptic,
    predictions,
    rectangle,
    unchanged,
)


@pytest.fixture
def canvas():
    return pytest.importorskip("detectron2.utils.canvas", reason="this Detectron2 draws with matplotlib")


def test_fills_are_translucent_and_outlines_opaque(canvas):
    picture = canvas.VisImage(GREY)
    picture.fill_mask(LEFT, (1, 0, 0), (0, 1, 0), alpha=0.25)
    image = picture.get_image()
    assert (image[25:95, 15:65] == np.round([120 * 0.75 + 255 * 0.25, 90, 90])).all()
    for edge in (image[20, 12:68], image[22:98, 10]):
        assert (edge[:, 1] > 220).all() and (edge[:, [0, 2]] < 50).all(), "green, but for the smoothing"
    assert (image[away_from(LEFT)] == 120).all()


def test_holes_are_holes(canvas):
    ring = LEFT & ~rectangle(30, 40, 50, 80)
    picture = canvas.VisImage(GREY)
    picture.fill_mask(ring, (1, 0, 0), (0, 1, 0), alpha=0.5)
    image = picture.get_image()
    assert (image[45:75, 35:45] == 120).all()
    assert (image[42:78, 28:31, 1].max(axis=1) > 200).all(), "the hole has an outline too"


def test_boxes_have_their_corners_where_they_belong(canvas):
    picture = canvas.VisImage(GREY, scale=3)
    picture.box((20, 30, 60, 90), (1, 1, 1), alpha=1)
    drawn = np.argwhere((picture.get_image() != 120).any(axis=2))
    (top, left), (bottom, right) = drawn.min(axis=0), drawn.max(axis=0)
    assert max(abs(top - 90), abs(left - 60), abs(bottom - 270), abs(right - 180)) <= 2


def test_labels_do_not_cover_each_other_or_leave_the_picture(canvas):
    picture = canvas.VisImage(GREY, scale=3)
    for i, position in enumerate([(80, 50), (80, 50), (82, 52), (159, 119), (-20, -20)]):
        picture.text(f"label {i}", position, (1, 0, 0), avoid_overlap=True)
    plates = picture._plates
    for i, (x, y, w, h) in enumerate(plates):
        assert x >= 0 and y >= 0 and x + w <= 3 * W and y + h <= 3 * H
        assert all(x + w <= a or a + c <= x or y + h <= b or b + d <= y for a, b, c, d in plates[:i])


@pytest.mark.parametrize("text", ["café", "猫", "стул", "", "a" * 300])
def test_any_class_name_can_be_written(canvas, text):
    """People bring their own vocabularies."""
    picture = canvas.VisImage(GREY)
    picture.text(text, (80, 60), (0, 0, 1))
    assert picture.get_image().shape == GREY.shape and (picture.get_image() != 120).any()


def test_letters_of_a_label_are_light_on_dark(canvas):
    for color in [(0, 0, 0.3), (0.2, 0, 0), (1, 1, 1), (0.1, 0.5, 0.1)]:
        picture = canvas.VisImage(np.full((H, W, 3), 255, np.uint8), scale=4)
        picture.text("HHH", (80, 60), color)
        (x, y, w, h) = picture._plates[0]
        luminance = picture.get_image()[y : y + h, x : x + w] @ np.array([0.299, 0.587, 0.114])
        assert np.quantile(luminance, 0.02) < 90 and np.quantile(luminance, 0.98) > 170


def test_drawing_leaves_the_random_generators_alone(canvas):
    """A picture made during training must not change the training."""
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    draw = Visualizer(GREY, META).draw_instance_predictions
    first = draw(predictions(LEFT, RIGHT, boxes=True, classes=[0, 1])).get_image()
    assert random.getstate() == states[0] and (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    second = Visualizer(GREY, META).draw_instance_predictions(predictions(LEFT, RIGHT, boxes=True, classes=[0, 1]))
    assert np.array_equal(first, second.get_image())


def test_small_objects_are_drawn_over_large_ones(canvas):
    small = rectangle(30, 40, 50, 60)
    for masks, colors in [((LEFT, small), ["r", "b"]), ((small, LEFT), ["b", "r"])]:
        out = Visualizer(GREY).overlay_instances(masks=np.stack(masks), assigned_colors=colors, alpha=1.0).get_image()
        assert (out[42:58, 32:48] == [0, 0, 255]).all()


def test_panoptic_ids_that_encode_their_class(canvas):
    ids = np.full((H, W), -1)
    ids[LEFT], ids[RIGHT] = 2 * 1000, 1 * 1000 + 3
    picture = Visualizer(GREY, META).draw_panoptic_seg(ids, None).get_image()
    assert mean_color(picture, LEFT).argmax() == 1 and unchanged(picture, away_from(LEFT, RIGHT))
    with pytest.raises(AttributeError, match="label_divisor"):
        Visualizer(GREY).draw_panoptic_seg(ids, None)


def test_stuff_needs_the_names_of_its_classes():
    ids, segments = panoptic()
    with pytest.raises(AttributeError, match="stuff_classes"):
        Visualizer(GREY).draw_panoptic_seg(torch.from_numpy(ids), segments)
    with pytest.raises(AttributeError, match="stuff_classes"):
        Visualizer(GREY).draw_sem_seg(torch.from_numpy(ids))


def test_without_metadata_classes_of_objects_are_numbers():
    instances = predictions(LEFT, classes=[17])
    for mode in ColorMode:
        assert (Visualizer(GREY, None, 1.0, mode).draw_instance_predictions(instances).get_image()[LEFT] != 120).any()


def test_mistakes_are_explained(canvas):
    visualizer = Visualizer(GREY, META)
    with pytest.raises(ValueError, match="number"):
        visualizer.overlay_instances(masks=LEFT[None], labels=["a", "b"])
    with pytest.raises(ValueError, match="does not fit"):
        visualizer.overlay_instances(masks=np.zeros((1, 3, 3), dtype=bool))
    with pytest.raises(ValueError, match="colour"):
        visualizer.draw_text("a", (0, 0), color="no such colour")
    with pytest.raises(ValueError, match="shape"):
        Visualizer(np.zeros((4, 4, 7), np.uint8))
    with pytest.raises(NotImplementedError, match="keypoints"):
        visualizer.overlay_instances(keypoints=np.zeros((1, 17, 3)))
    with pytest.raises(AttributeError, match="draw_line is not available: d2lite"):
        visualizer.draw_line([0, 1], [0, 1], "r")


def test_colours_can_be_written_in_several_ways(canvas):
    assert canvas.to_color("#ff8000") == (1, 128 / 255, 0)
    assert canvas.to_color([0.1, 0.2, 0.3]) == (0.1, 0.2, 0.3) and canvas.to_color("w") == (1, 1, 1)
    colors = np.array([canvas.distinct_color(i) for i in range(12)])
    distance = np.abs(colors[:, None] - colors[None]).max(axis=2) + np.eye(12)
    assert distance.min() > 0.1 and colors.min() >= 0 and colors.max() <= 1
