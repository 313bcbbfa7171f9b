"""If these fail, an exported file answers differently from the model it was made of."""

import pytest
import torch

from PADing.export import results
from PADing.meta_arch.results import make_instances, panoptic_map, semantic_scores
from tests.export.conftest import THINGS, rule


@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.3, 0.5), (0.5, 0.8), (0.9999, 0.8)])
def test_panoptic_maps_are_those_of_the_loop(logits, thresholds):
    merged, segments, dropped = 0, 0, 0
    for seed in range(12):
        classes, masks = logits(seed)
        maps, labels = results.panoptic(classes, masks, THINGS, *thresholds)
        for image in range(len(maps)):
            wanted, infos = panoptic_map(classes[image], masks[image], THINGS, *thresholds)
            assert maps.dtype == wanted.dtype and torch.equal(maps[image], wanted)
            assert labels[image].tolist() == [i["category_id"] for i in infos] + [-1] * (8 - len(infos))
            best = classes[image].argmax(-1)
            stuff = [label for label in best.tolist() if label not in THINGS and label < 5]
            merged += len(stuff) - len(set(stuff))
            segments += len(infos)
            dropped += 8 - len(infos)
    assert merged and dropped and bool(segments) == (thresholds[0] < 0.99)


@pytest.mark.parametrize(
    "chosen",
    [rule(), rule((500, None)), rule((5, None), kept=(0, 3)), rule((4, (0, 1)), (3, (2, 4)), scale=0.5),
     rule((6, None), columns=(4, 1))],
)  # fmt: skip
@pytest.mark.parametrize("boxes", [True, False])
def test_instances_are_those_of_each_image(logits, chosen, boxes):
    classes, masks = logits(3)
    scores, labels, rectangles, inside = results.instances(classes, masks, chosen, boxes)
    assert bool((scores[:, :-1] >= scores[:, 1:]).all())
    for image in range(2):
        wanted = make_instances(*chosen.pairs(classes[image]), masks[image], boxes)
        wanted = wanted[chosen.is_kept(wanted.pred_classes)]
        wanted = wanted[wanted.scores.argsort(descending=True)]
        n = len(wanted)
        assert torch.allclose(scores[image, :n], wanted.scores, rtol=1e-6)
        assert labels[image, :n].equal(wanted.pred_classes) and (labels[image, n:] == -1).all()
        assert rectangles[image, :n].equal(wanted.pred_boxes.tensor)
        assert inside[image, :n].equal(wanted.pred_masks > 0)


def test_semantic_scores_are_those_of_each_image(logits):
    classes, masks = logits(5)
    scores = results.semantic_scores(classes, masks)
    for image in range(2):
        assert torch.allclose(scores[image], semantic_scores(classes[image], masks[image]), atol=1e-6)


def test_the_share_is_compared_without_rounding():
    """Four of five pixels are exactly 0.8; in float32, 0.8 might be a little more."""
    classes = torch.tensor([[[9.0, 0, 0], [0, 9.5, 0]]])
    masks = torch.tensor([[[[9.0, 9, 9, 9, 9]], [[-9.0, -9, -9, -9, 20]]]])
    maps, labels = results.panoptic(classes, masks, {0, 1}, 0.1, 0.8)
    wanted, _ = panoptic_map(classes[0], masks[0], {0, 1}, 0.1, 0.8)
    assert maps[0].tolist() == wanted.tolist() == [[1, 1, 1, 1, 2]] and labels.tolist() == [[0, 1]]
