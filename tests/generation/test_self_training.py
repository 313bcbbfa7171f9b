import pytest
import torch
from torch import nn

from PADing.errors import UserError
from PADing.generation.self_training import Teacher, pseudo_labels

NOTHING, UNSEEN = 4, torch.tensor([1, 3])


def logits(label, probability=0.9):
    """Answers of a teacher: one class with the given probability, the rest shared among the others."""
    rest = (1 - probability) / NOTHING
    values = torch.full((NOTHING + 1,), rest)
    values[label] = probability
    return values.log()


def relabel(classes, answers, masks=None, annotated=None):
    """One image of 2 x 4 pixels; by default all masks lie on its left half, annotation on its right half."""
    left = torch.tensor([[1.0, 1, -1, -1]]).repeat(2, 1)
    masks = torch.stack([left] * len(classes)) if masks is None else masks
    annotated = left < 0 if annotated is None else annotated
    result = pseudo_labels(
        torch.tensor([classes]), torch.stack(answers)[None], masks[None], annotated[None], UNSEEN, 0.5, 0.25
    )
    return result[0].tolist()


def test_only_unmatched_queries_with_a_sure_unseen_answer_are_relabelled():
    """Annotation always wins, seen answers and doubtful ones teach nothing."""
    answers = [logits(3), logits(3), logits(0), logits(1, 0.45), logits(NOTHING), logits(1)]
    assert relabel([0, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING], answers) == [0, 3, NOTHING, NOTHING, NOTHING, 1]


def test_masks_on_annotated_pixels_are_not_relabelled():
    """What is annotated as a seen class is not an unseen one, whatever the teacher thinks."""
    everywhere, nowhere = torch.ones(2, 4), -torch.ones(2, 4)
    mostly_free = torch.tensor([[1.0, 1, 1, -1], [1, 1, -1, -1]])  # one of five pixels is annotated
    masks = torch.stack([everywhere, nowhere, mostly_free])
    assert relabel([NOTHING] * 3, [logits(3)] * 3, masks) == [NOTHING, NOTHING, 3]


def test_annotation_may_be_finer_than_the_masks():
    fine = torch.zeros(8, 16, dtype=torch.bool)
    fine[:, 8:] = True
    assert relabel([NOTHING], [logits(1)], annotated=fine) == [1]
    assert relabel([NOTHING], [logits(1)], annotated=~fine) == [NOTHING]


def test_a_teacher_answers_with_the_first_models_classifier():
    student = nn.Linear(2, NOTHING + 1)
    weight = torch.zeros(NOTHING + 1, 2)
    weight[3, 0] = 9.0  # class 3 for features along the first axis
    teacher = Teacher.of({"new_fc.weight": weight, "new_fc.bias": torch.zeros(NOTHING + 1)}, student, 0.5, 0.25)
    left = torch.tensor([[[[1.0, 1, -1, -1]], [[1.0, 1, -1, -1]]]])
    outputs = {"pred_embed": torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), "pred_masks": left}
    targets = [{"masks": torch.tensor([[[0, 0, 0, 1]], [[0, 0, 1, 0]]])}]
    classes = torch.full((1, 2), NOTHING)
    assert teacher.relabel(classes, outputs, targets, UNSEEN).tolist() == [[3, NOTHING]]
    targets = [{"masks": torch.tensor([[[1, 0, 0, 0]], [[0, 1, 0, 0]]])}]
    assert teacher.relabel(classes, outputs, targets, UNSEEN).tolist() == [[NOTHING, NOTHING]]


@pytest.mark.parametrize("lacking", ["weight", "bias", "classes"])
def test_a_teacher_of_another_model_is_refused(lacking):
    weights = {"new_fc.weight": torch.zeros(5, 2), "new_fc.bias": torch.zeros(5)}
    weights.pop(f"new_fc.{lacking}", None)
    with pytest.raises(UserError, match="must be a trained PADing of the same classes"):
        Teacher.of(weights, nn.Linear(2, 6 if lacking == "classes" else 5), 0.5, 0.25)
