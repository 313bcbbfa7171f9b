"""The unseen-constrained loss is the paper's: right pseudo labels, only for foreground, and nothing else is changed."""

from math import exp, log
from unittest import mock

import pytest
import torch
from detectron2.structures import Instances

from d2zero.unseen_loss import UnseenConstrainedCriterion

# Cosines (1, 0.6) and (0, 0.8): seen class 0 resembles unseen 0, seen class 1 resembles unseen 1.
SEEN = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
UNSEEN = torch.tensor([[1.0, 0.0], [3.0, 4.0]])
TAU = 0.5


def criterion(gumbel=True):
    return UnseenConstrainedCriterion(
        2, matcher=None, weight_dict={}, eos_coef=0.1, losses=["labels"], num_points=4, oversample_ratio=3.0,
        importance_sample_ratio=0.75, seen=SEEN, unseen=UNSEEN, temperature=TAU, gumbel=gumbel,
    )  # fmt: skip


def prediction(unseen_logits):
    unseen_logits = torch.tensor(unseen_logits)[None].requires_grad_()
    return {"pred_logits": torch.zeros(1, unseen_logits.shape[1], 3), "unseen_logits": unseen_logits}


def test_worked_example():
    """Three queries: class 0, nothing, class 1.

    Rows of e: softmax(2, 1.2) = (0.69, 0.31) and softmax(0, 1.6) = (0.17, 0.83). With u = (0.1, 0.9) the Gumbel noise
    is (-0.83, 2.25), so class 0 draws unseen 1; with u = (0.95, 0.05) it is (2.97, -1.10), and class 1 draws unseen 0.
    Cross-entropies: ln(1 + e^-2) and ln 2.
    """
    one = prediction([[1.0, 3.0], [7.0, -7.0], [2.0, 2.0]])
    draws = torch.tensor([[0.1, 0.9], [0.95, 0.05]])
    with mock.patch.object(torch, "rand", lambda shape, device=None: draws.view(shape)):
        losses = criterion().label_losses([one], torch.tensor([[[0, 2, 1]]]))
    want = (log(1 + exp(-2)) + log(2)) / 2
    assert losses["loss_unseen"].tolist() == pytest.approx([want], rel=1e-6)
    losses["loss_unseen"].sum().backward()
    p = 1 / (1 + exp(2))  # share of the wrong class
    want = [[p / 2, -p / 2], [0, 0], [-0.25, 0.25]]
    assert torch.allclose(one["unseen_logits"].grad[0], torch.tensor(want), atol=1e-6)


def test_seen_classes_may_compete():
    """A query of class 0, pseudo label unseen 0, scores of unseen and seen classes 1, 3, 2 and 0."""
    one = UnseenConstrainedCriterion(
        2, matcher=None, weight_dict={}, eos_coef=0.1, losses=["labels"], num_points=4, oversample_ratio=3.0,
        importance_sample_ratio=0.75, seen=SEEN, unseen=UNSEEN, temperature=TAU, gumbel=False, among_all=True,
    )  # fmt: skip
    split = one._split({"pred_logits": torch.tensor([[[2.0, 0.0, 1.0, 3.0, 5.0]]])})
    assert split["pred_logits"].tolist() == [[[2.0, 0.0, 5.0]]]
    losses = one.label_losses([split], torch.tensor([[[0]]]))
    want = log(exp(1) + exp(3) + exp(2) + exp(0)) - 1
    assert losses["loss_unseen"].tolist() == pytest.approx([want], rel=1e-6)


def test_without_gumbel_the_most_similar_class_is_taken():
    assert criterion(gumbel=False).pseudo_labels(torch.tensor([0, 1, 1, 0])).tolist() == [0, 1, 1, 0]


def test_draws_follow_the_resemblance():
    torch.manual_seed(0)
    labels = criterion().pseudo_labels(torch.tensor([0, 1]).repeat_interleave(20000)).view(2, -1)
    want = [exp(1.2) / (exp(2) + exp(1.2)), exp(1.6) / (1 + exp(1.6))]
    assert labels.float().mean(1).tolist() == pytest.approx(want, abs=0.01)


def test_several_predictions_and_no_foreground():
    torch.manual_seed(0)
    predictions = [prediction([[1.0, 3.0]]), prediction([[0.0, 0.0]])]
    losses = criterion(gumbel=False).label_losses(predictions, torch.tensor([[[0]], [[2]]]))
    assert losses["loss_unseen"].tolist() == pytest.approx([log(1 + exp(2)), 0.0])


def samples(classes):
    generator = torch.Generator().manual_seed(5)
    result = []
    for labels in classes:
        instances = Instances((64, 64))
        instances.gt_classes = torch.tensor(labels, dtype=torch.int64)
        instances.gt_masks = torch.rand(len(labels), 64, 64, generator=generator) > 0.7
        result.append({"image": 255 * torch.rand(3, 64, 64, generator=generator), "instances": instances})
    return result


WEIGHT = ["MODEL.D2ZERO.UNSEEN_LOSS_WEIGHT", 0.5, "MODEL.MASK_FORMER.TRANS_DROP_OUT_RATE", 0.0]


def test_in_the_model(model):
    """Every prediction has the loss, and unseen texts learn from it although no image shows their classes."""
    network = model(*WEIGHT).train()
    metadata_classes = len(network.metadata.thing_classes)
    assert len(network.sem_seg_head.predictor.text_features) > metadata_classes == network.criterion.num_classes
    losses = network(samples([[0, 5], [7]]))
    names = {name for name in losses if name.startswith("loss_unseen")}
    assert names == {name.replace("ce", "unseen") for name in losses if name.startswith("loss_ce")} and len(names) == 3
    assert all(losses[name] > 0 for name in names)
    sum(losses[name] for name in names).backward()
    assert network.sem_seg_head.predictor.text_projection.weight.grad.abs().sum() > 0
    weights = network.criterion.weight_dict
    assert weights["loss_unseen"] == 0.5 * weights["loss_ce"]


def test_images_without_objects(model):
    losses = model(*WEIGHT).train()(samples([[], []]))
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["loss_unseen"] == 0


def test_matching_and_other_losses_do_not_see_unseen_scores(model):
    """The scores of unseen classes enter their own loss only."""
    network = model(*WEIGHT).train()
    images = samples([[0, 5], [7]])
    targets = [{"labels": s["instances"].gt_classes, "masks": s["instances"].gt_masks} for s in images]
    outputs = network.segment(network.preprocess(images))
    results = []
    for shift in (0.0, 50.0):
        shifted = [
            {"pred_masks": p["pred_masks"], "pred_logits": p["pred_logits"].detach().clone()}
            for p in (outputs, *outputs["aux_outputs"])
        ]
        for p in shifted:
            p["pred_logits"][..., network.criterion.num_classes] += shift  # the first unseen class
        torch.manual_seed(1)
        results.append(network.criterion({**shifted[0], "aux_outputs": shifted[1:]}, targets))
    same = {name for name in results[0] if torch.equal(results[0][name], results[1][name])}
    assert same == {name for name in results[0] if not name.startswith("loss_unseen")}


def test_off_by_default(model):
    assert not [name for name in model().train()(samples([[0]])) if "unseen" in name]
