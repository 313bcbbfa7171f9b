"""Videos: objects keep their colors from frame to frame."""

import numpy as np
import pytest
import torch
from detectron2.utils.video_visualizer import VideoVisualizer

from tests.d2lite.drawing import GREY, LEFT, META, RIGHT, mean_color, panoptic, predictions, rectangle, unchanged


def interior_color(drawing: np.ndarray, x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """Inside of the rectangle, below its label."""
    return np.median(drawing[(y0 + y1) // 2 + 15 : y1 - 8, x0 + 8 : x1 - 8].reshape(-1, 3), axis=0)


def test_objects_of_a_video_keep_their_colors():
    """Otherwise a video flickers. The objects move, change places in the list, and one is away for a frame."""
    video = VideoVisualizer(META)
    colors = []
    for frame in range(4):
        first, second = (10 + 4 * frame, 20, 70 + 4 * frame, 110), (90, 20 - frame, 150, 110 - frame)
        masks, classes = [rectangle(*first), rectangle(*second)], [0, 1]
        if frame == 1:
            masks, classes = masks[::-1], classes[::-1]
        if frame == 2:
            masks, classes = masks[:1], classes[:1]
        found = predictions(*masks, boxes=True, classes=classes, scores=False)
        drawing = video.draw_instance_predictions(GREY, found).get_image()
        colors.append((interior_color(drawing, *first), interior_color(drawing, *second)))
    for first_color, _ in colors[1:]:
        assert np.abs(first_color - colors[0][0]).max() < 12
    for i in (1, 3):
        assert np.abs(colors[i][1] - colors[0][1]).max() < 12
    assert np.abs(colors[0][0] - colors[0][1]).max() > 30


def test_video_of_panoptic_and_semantic_maps():
    ids, segments = panoptic()
    video = VideoVisualizer(META)
    draw = video.draw_panoptic_seg_predictions
    drawings = [draw(GREY, torch.from_numpy(ids), segments).get_image() for _ in range(2)]
    assert np.abs(mean_color(drawings[0], RIGHT) - mean_color(drawings[1], RIGHT)).max() < 12
    assert mean_color(drawings[0], LEFT).argmax() == 1
    sem_seg = np.where(LEFT, 2, 255)
    assert mean_color(video.draw_sem_seg(GREY, torch.from_numpy(sem_seg)).get_image(), LEFT).argmax() == 1


def test_video_frames_without_objects():
    video = VideoVisualizer(META)
    for masks in ([], [LEFT], []):
        found = predictions(*masks, boxes=True, classes=[0] * len(masks), scores=False)
        drawing = video.draw_instance_predictions(GREY, found).get_image()
        assert unchanged(drawing, rectangle(100, 0, 160, 120))


@pytest.mark.parametrize("missing", ["pred_masks", "pred_boxes", "pred_classes"])
def test_video_objects_need_masks_boxes_and_classes(missing):
    """The genuine class fails without; a program that leaves them out would only work beside the stand-in."""
    found = predictions(LEFT, boxes=True, classes=[0])
    found.remove(missing)
    with pytest.raises((AttributeError, TypeError)):
        VideoVisualizer(META).draw_instance_predictions(GREY, found)
