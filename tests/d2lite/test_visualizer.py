"""Drawings: what is drawn where, in which color, and what must stay as it was."""

import random

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.visualizer import ColorMode, Visualizer
from PIL import Image

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
from tests.d2lite.standin import standin_only


@pytest.mark.parametrize("mode", list(ColorMode))
@pytest.mark.parametrize("boxes", [False, True])
def test_instances_are_drawn_where_they_are(mode, boxes):
    visualizer = Visualizer(GREY.copy(), META, instance_mode=mode)
    drawing = visualizer.draw_instance_predictions(predictions(LEFT, RIGHT, boxes=boxes, classes=[0, 1])).get_image()
    assert drawing.shape == (H, W, 3) and drawing.dtype == np.uint8
    for mask in (LEFT, RIGHT):
        inside = drawing[mask].astype(int)
        assert (np.abs(inside - 120).max(axis=1) > 10).mean() > 0.9, "the mask is filled"
    assert unchanged(drawing, away_from(LEFT, RIGHT, margin=16))


def test_instances_have_different_colors():
    drawing = Visualizer(GREY, META).draw_instance_predictions(predictions(LEFT, RIGHT, scores=False)).get_image()
    assert np.abs(mean_color(drawing, LEFT) - mean_color(drawing, RIGHT)).max() > 30


def test_class_colors_come_from_the_metadata():
    visualizer = Visualizer(GREY, META, instance_mode=ColorMode.SEGMENTATION)
    drawing = visualizer.draw_instance_predictions(predictions(LEFT, RIGHT, classes=[0, 1], scores=False)).get_image()
    assert mean_color(drawing, LEFT).argmax() == 0 and mean_color(drawing, RIGHT).argmax() == 2


def test_grey_mode_takes_the_color_out_of_the_background():
    image = np.zeros((H, W, 3), np.uint8)
    image[..., 0] = 200
    visualizer = Visualizer(image, META, instance_mode=ColorMode.IMAGE_BW)
    drawing = visualizer.draw_instance_predictions(predictions(LEFT, scores=False)).get_image().astype(int)
    outside = drawing[away_from(LEFT)]
    assert np.ptp(outside, axis=1).max() <= 2, "red became grey"
    assert np.ptp(drawing[LEFT], axis=1).mean() > 30


@pytest.mark.parametrize("mode", list(ColorMode))
def test_nothing_found_draws_the_image(mode):
    visualizer = Visualizer(GREY, META, instance_mode=mode)
    empty = Instances((H, W), pred_masks=torch.zeros(0, H, W, dtype=torch.bool), scores=torch.zeros(0))
    empty.pred_boxes, empty.pred_classes = Boxes(torch.zeros(0, 4)), torch.zeros(0, dtype=torch.int64)
    assert unchanged(visualizer.draw_instance_predictions(empty).get_image(), np.ones((H, W), dtype=bool))


def test_boxes_alone_are_outlined_and_not_filled():
    instances = Instances((H, W), pred_boxes=Boxes([[40, 30, 120, 100]]))
    drawing = Visualizer(GREY, META).draw_instance_predictions(instances).get_image()
    for side in (drawing[29:32, 60:100], drawing[60:80, 119:122]):
        assert np.abs(side.astype(int) - 120).max() > 60
    assert unchanged(drawing, rectangle(60, 60, 100, 80)) and unchanged(drawing, rectangle(0, 0, 20, 120))


def test_semantic_map_is_drawn_in_the_colors_of_its_classes():
    sem_seg = np.full((H, W), 255)
    sem_seg[LEFT], sem_seg[RIGHT] = 2, 1
    drawing = Visualizer(GREY, META).draw_sem_seg(torch.from_numpy(sem_seg)).get_image()
    assert mean_color(drawing, LEFT).argmax() == 1 and mean_color(drawing, RIGHT).argmax() == 2
    assert unchanged(drawing, away_from(LEFT, RIGHT)), "the ignore label is not drawn"


@pytest.mark.parametrize("mode", list(ColorMode))
def test_panoptic_map(mode):
    ids, segments = panoptic()
    visualizer = Visualizer(GREY, META, instance_mode=mode)
    drawing = visualizer.draw_panoptic_seg(torch.from_numpy(ids), segments).get_image()
    assert mean_color(drawing, LEFT).argmax() == 1, "grass is green"
    assert (np.abs(drawing[RIGHT].astype(int) - 120).max(axis=1) > 10).mean() > 0.9
    assert unchanged(drawing, away_from(LEFT, RIGHT))
    again = Visualizer(GREY, META).draw_panoptic_seg_predictions
    assert again(torch.from_numpy(ids), segments).get_image().shape == drawing.shape


def test_binary_mask_leaves_out_specks():
    mask = LEFT.copy()
    mask[5:7, 150:152] = True
    visualizer = Visualizer(GREY, META)
    drawing = visualizer.draw_binary_mask(mask, color="g", text="leaf", area_threshold=10).get_image()
    assert unchanged(drawing, rectangle(140, 0, 160, 15))
    assert mean_color(drawing, LEFT).argmax() == 1
    nothing = Visualizer(GREY, META).draw_binary_mask(np.zeros((H, W), dtype=np.uint8)).get_image()
    assert unchanged(nothing, np.ones((H, W), dtype=bool))


def test_text_is_written_at_its_place():
    drawing = Visualizer(GREY, META).draw_text("zebra", (80, 40), color="w").get_image()
    assert (drawing[38:75, 40:120] != 120).any() and unchanged(drawing, rectangle(0, 90, 160, 120))


def test_drawings_are_scaled_and_saved(tmp_path):
    drawing = Visualizer(GREY, META, scale=2.0).draw_instance_predictions(predictions(LEFT, scores=False))
    image = drawing.get_image()
    assert image.shape == (2 * H, 2 * W, 3)
    inside, outside = rectangle(20, 30, 60, 90).repeat(2, 0).repeat(2, 1), rectangle(90, 0, 160, 120)
    assert (np.abs(image[inside].astype(int) - 120).max(axis=1) > 10).all()
    assert unchanged(image, outside.repeat(2, 0).repeat(2, 1), GREY.repeat(2, 0).repeat(2, 1))
    drawing.save(str(tmp_path / "drawing.png"))
    saved = np.array(Image.open(tmp_path / "drawing.png").convert("RGB")).astype(int)
    assert np.abs(saved - image).mean() < 1
    assert [p.name for p in tmp_path.iterdir()] == ["drawing.png"]


def test_the_callers_image_is_not_drawn_on():
    image = GREY.copy()
    Visualizer(image, META).draw_instance_predictions(predictions(LEFT, RIGHT))
    assert np.array_equal(image, GREY)


@pytest.mark.parametrize("text", ["café", "猫", "стул", "", "a" * 300])
def test_any_class_name_can_be_written(text):
    """People bring their own vocabularies."""
    visualizer = Visualizer(GREY)
    image = visualizer.draw_text(text, (80, 60), color="b").get_image()
    assert image.shape == GREY.shape and (image != 120).any()


def test_drawing_leaves_the_random_generators_alone():
    """An image drawn during training must not change the training."""
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    Visualizer(GREY, META).draw_sem_seg(np.where(LEFT, 2, 255))
    assert random.getstate() == states[0] and (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])


@standin_only
def test_holes_are_holes():
    ring = LEFT & ~rectangle(30, 40, 50, 80)
    image = Visualizer(GREY).draw_binary_mask(ring, (1, 0, 0), edge_color=(0, 1, 0), alpha=0.25).get_image()
    assert (image[25:35, 15:65] == np.round([120 * 0.75 + 255 * 0.25, 90, 90])).all()
    assert (image[45:75, 35:45] == 120).all() and (image[away_from(LEFT)] == 120).all()
    assert (image[42:78, 28:31, 1].max(axis=1) > 200).all(), "the hole has an outline too"


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


@standin_only
def test_mistakes_are_explained():
    visualizer = Visualizer(GREY, META)
    with pytest.raises(ValueError, match="does not fit"):
        visualizer.draw_binary_mask(np.zeros((3, 3), dtype=bool))
    with pytest.raises(ValueError, match="color"):
        visualizer.draw_text("a", (0, 0), color="no such color")
    with pytest.raises(ValueError, match="shape"):
        Visualizer(np.zeros((4, 4, 7), np.uint8))
    with pytest.raises(AttributeError, match="draw_line is not available: d2lite"):
        visualizer.draw_line([0, 1], [0, 1], "r")
