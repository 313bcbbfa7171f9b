"""Predictions of distractors; wrong here means that a model looks better or worse than it is with other names."""

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from PADing.evaluation.distractors import DistractorsAreWrong
from PADing.evaluation.semantic import semantic_metrics


class Recorder:
    """An evaluator that keeps what it gets."""

    def process(self, inputs, outputs):
        self.seen = outputs

    def leave_out(self, records):
        self.left = records


@pytest.fixture
def handed():
    """Hands an output to an evaluator for three classes; returns what arrives."""
    recorder = Recorder()

    def function(**output):
        DistractorsAreWrong(recorder, 3).process([{}], [output])
        return recorder.seen[0]

    return function


def test_instances_of_distractors_are_left_out(handed):
    instances = Instances((4, 4), pred_boxes=Boxes(torch.rand(4, 4)), scores=torch.tensor([0.9, 0.8, 0.7, 0.6]))
    instances.pred_classes = torch.tensor([3, 0, 1002, 2])
    found = handed(instances=instances)["instances"]
    assert found.scores.tolist() == pytest.approx([0.8, 0.6]) and found.pred_classes.tolist() == [0, 2]


def test_panoptic_segments_of_distractors_become_void(handed):
    ids = torch.tensor([[1, 2], [3, 0]], dtype=torch.int32)
    segments = [{"id": i, "category_id": label, "isthing": True} for i, label in ((1, 2), (2, 3), (3, 40))]
    found, kept = handed(panoptic_seg=(ids, segments))["panoptic_seg"]
    assert found.tolist() == [[1, 0], [0, 0]] and kept == segments[:1]


def test_pixels_of_distractors_are_of_no_class(handed):
    scores = torch.zeros(5, 1, 3)
    scores[1, 0, 0] = scores[3, 0, 1] = scores[4, 0, 2] = 1
    found = handed(sem_seg=scores)["sem_seg"]
    assert len(found) == 3 and found.argmax(dim=0).tolist() == [[1, 3, 3]]


def test_pixels_of_no_class_lower_iou_and_accuracy():
    """Four pixels of each class; of class 0, two are right and two are called a distractor."""
    confusion = np.array([[2, 0, 0], [0, 4, 0], [2, 0, 0]])
    metrics = semantic_metrics(confusion, ["a", "b"])
    assert metrics["IoU-a"] == metrics["ACC-a"] == 50 and metrics["IoU-b"] == 100 and metrics["pACC"] == 75


def test_images_are_left_out_only_where_the_evaluator_can():
    recorder = Recorder()
    DistractorsAreWrong(recorder, 3).leave_out([{}])
    assert recorder.left == [{}]
    assert not hasattr(DistractorsAreWrong(object(), 3), "leave_out")
