"""Segmentations from outputs, records and result files, by hand; wrong here means that the wrong thing is drawn."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

from PADing.visualization.sources import classes_in_record, from_detections, from_output, from_record


def _instances():
    """On 2 x 4 pixels: class 5 (0.9) on the left half, 6 (0.6) on the upper row, 7 (0.2) on the lower, 8 nowhere."""
    masks = torch.zeros(4, 2, 4)
    masks[0, :, :2] = masks[1, 0] = masks[2, 1] = 1
    result = Instances((2, 4))
    result.pred_masks, result.pred_boxes = masks, Boxes(torch.zeros(4, 4))
    result.scores, result.pred_classes = torch.tensor([0.9, 0.6, 0.2, 0.95]), torch.tensor([5, 6, 7, 8])
    return result


def test_better_instances_lie_on_top_and_uncertain_ones_are_left_out():
    seg = from_output({"instances": _instances()})
    classes = np.vectorize(lambda i: seg.classes.get(i, -1))(seg.ids)
    assert classes.tolist() == [[5, 5, 6, 6], [5, 5, -1, -1]]


def _shown(instances, threshold=None):
    return list(from_output({"instances": instances}, score_threshold=threshold).classes.values())


def test_a_flat_softmax_still_shows_its_best_answers():
    """Scores of 0.3 and 0.2 are what D2Zero gives for sure objects; without a threshold they must not vanish."""
    instances = _instances()
    assert _shown(instances, 0.2) == [7, 6, 5]
    instances.scores = torch.tensor([0.3, 0.2, 0.12, 0.9])  # the empty mask's score counts for nothing
    assert _shown(instances) == [6, 5]
    assert _shown(instances, 0.25) == [5]
    instances.scores = torch.tensor([0.09, 0.05, 0.01, 0.9])
    assert _shown(instances) == []
    instances.scores = torch.tensor([0.09, float("nan"), 0.3, 0.9])
    assert _shown(instances) == [7]


def test_one_object_with_two_names_is_shown_once():
    instances = Instances.cat([_instances(), _instances()])
    instances.scores[4:] -= 0.01
    instances.pred_classes[4:] += 10
    assert _shown(instances, 0.1) == [7, 6, 5]


def test_masks_may_be_any_sequence():
    """As of images so large that their masks are computed one by one."""

    class Masks(list):
        pass

    instances, want = _instances(), _instances()
    instances.remove("pred_masks")
    instances.pred_masks = Masks(mask > 0.5 for mask in want.pred_masks)
    got, expected = (from_output({"instances": item}, score_threshold=0.1) for item in (instances, want))
    assert np.array_equal(got.ids, expected.ids) and got.classes == expected.classes
    assert got.scores == pytest.approx({1: 0.2, 2: 0.6, 3: 0.9})


def test_stuff_is_told_from_things():
    ids = torch.tensor([[1, 2]], dtype=torch.int32)
    segments = [{"id": 1, "category_id": 4, "isthing": True}, {"id": 2, "category_id": 3, "isthing": False}]
    assert from_output({"panoptic_seg": (ids, segments)}).stuff == {2}


def test_nothing_confident_gives_an_empty_segmentation():
    seg = from_output({"instances": _instances()}, score_threshold=0.99)
    assert seg.classes == {} and seg.ids.shape == (2, 4) and not seg.ids.any()


def test_panoptic_comes_before_instances_before_semantic():
    ids = torch.tensor([[1, 2]], dtype=torch.int32)
    scores = torch.tensor([[[0.1, 0.9]], [[0.8, 0.2]]])
    output = {"sem_seg": scores}
    seg = from_output(output)
    assert np.vectorize(seg.classes.get)(seg.ids).tolist() == [[1, 0]]
    output["instances"] = _instances()
    assert set(from_output(output).classes.values()) == {5, 6}
    output["panoptic_seg"] = (ids, [{"id": 1, "category_id": 4}, {"id": 2, "category_id": 3}])
    assert from_output(output).classes == {1: 4, 2: 3}


@pytest.fixture
def records(tmp_path):
    """The same scene three times: class 0 everywhere on 4 x 6, class 2 on columns 1 and 2 of rows 1 and 2."""
    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, 1:3] = True
    ids = np.where(mask, 70_000, 3)
    rgb = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)
    Image.fromarray(rgb).save(tmp_path / "pan.png")
    labels = np.where(mask, 2, 0).astype(np.uint8)
    labels[0, 0] = 255
    Image.fromarray(labels).save(tmp_path / "sem.png")
    segments = [{"id": 3, "category_id": 0}, {"id": 70_000, "category_id": 2}]
    runs = [5, 2, 2, 2, 13]  # column by column: 5 pixels out, 2 in, ...
    objects = [
        {"category_id": 2, "segmentation": {"size": [4, 6], "counts": runs}},
        {"category_id": 0, "segmentation": [[0, 0, 6, 0, 6, 4, 0, 4]]},
        {"category_id": 1, "bbox": [0, 0, 1, 1]},
    ]
    return {
        "panoptic": {"pan_seg_file_name": str(tmp_path / "pan.png"), "segments_info": segments},
        "instance": {"annotations": objects, "height": 4, "width": 6},
        "semantic": {"sem_seg_file_name": str(tmp_path / "sem.png")},
    }


@pytest.mark.parametrize("kind", ["panoptic", "instance", "semantic"])
def test_annotation(records, kind):
    """Small objects lie over large ones, whatever their order; ignored pixels belong to nothing."""
    seg = from_record(records[kind])
    classes = np.vectorize(lambda i: seg.classes.get(i, -1))(seg.ids)
    want = np.zeros((4, 6), dtype=int)
    want[1:3, 1:3] = 2
    if kind == "semantic":
        want[0, 0] = -1
    assert classes.tolist() == want.tolist()
    assert classes_in_record(records[kind]) == ({0, 1, 2} if kind == "instance" else {0, 2})


def test_detections_of_a_result_file():
    """Ids of the data set become contiguous; low scores and categories of other sets are left out."""
    left, upper = [[0, 0, 2, 0, 2, 2, 0, 2]], [[0, 0, 4, 0, 4, 1, 0, 1]]
    detections = [
        {"category_id": 30, "score": 0.9, "segmentation": left},
        {"category_id": 20, "score": 0.7, "segmentation": upper},
        {"category_id": 20, "score": 0.4, "segmentation": [[0, 0, 4, 0, 4, 2, 0, 2]]},
        {"category_id": 99, "score": 1.0, "segmentation": upper},
    ]
    seg = from_detections(detections, {20: 0, 30: 1}, (2, 4))
    classes = np.vectorize(lambda i: seg.classes.get(i, -1))(seg.ids)
    assert classes.tolist() == [[1, 1, 0, 0], [1, 1, -1, -1]]
