"""Input preparation and inference shared by all models, against slow definitions."""

from types import SimpleNamespace

import pytest
import torch
from detectron2.structures import BitMasks, ImageList, Instances
from torch import nn
from torch.nn import functional as F

from PADing.meta_arch import common
from PADing.meta_arch.common import SegmenterBase
from PADing.meta_arch.results import best_pairs, make_instances

CLASSES, QUERIES = 5, 8


METADATA = {"thing_classes": list("abd"), "stuff_classes": list("abcd")}
METADATA["thing_dataset_id_to_contiguous_id"] = {11: 0, 12: 1, 14: 3}


def _model(**changes):
    arguments = {
        "backbone": SimpleNamespace(size_divisibility=16),
        "sem_seg_head": nn.Identity(),
        "criterion": nn.Identity(),
        "num_queries": QUERIES,
        "object_mask_threshold": 0.3,
        "overlap_threshold": 0.4,
        "metadata": METADATA,
        "size_divisibility": 32,
        "sem_seg_postprocess_before_inference": True,
        "pixel_mean": [1.0, 2.0, 3.0],
        "pixel_std": [2.0, 4.0, 8.0],
        "semantic_on": True,
        "panoptic_on": True,
        "instance_on": True,
        "test_topk_per_image": 12,
    }
    return SegmenterBase(**{**arguments, **changes}).eval()


def _predictions(seed=0, height=10, width=14):
    g = torch.Generator().manual_seed(seed)
    classes = 3 * torch.randn(QUERIES, CLASSES + 1, generator=g)
    coarse = 3 * torch.randn(1, QUERIES, 4, 5, generator=g)
    return classes, F.interpolate(coarse, (height, width), mode="bilinear")[0]


# ---- input


def test_memory_is_trimmed_before_each_batch_in_evaluation(monkeypatch):
    """Images of training have one size, and leave no gaps."""
    trimmed = []
    monkeypatch.setattr(common, "trim_memory", lambda: trimmed.append(True))
    model, batch = _model(), [{"image": torch.zeros(3, 20, 40)}]
    model.preprocess(batch)
    assert trimmed == [True]
    model.train().preprocess(batch)
    assert trimmed == [True]


def test_images_are_normalised_then_padded():
    model = _model()
    images = [torch.randint(0, 256, (3, 20, 40), dtype=torch.uint8), torch.rand(3, 33, 10) * 255]
    batch = model.preprocess([{"image": image} for image in images])
    assert batch.tensor.shape == (2, 3, 64, 64) and batch.image_sizes == [(20, 40), (33, 10)]
    for k, image in enumerate(images):
        h, w = image.shape[1:]
        for c in range(3):
            torch.testing.assert_close(batch.tensor[k, c, :h, :w], (image[c].float() - (c + 1)) / 2 ** (c + 1))
        assert batch.tensor[k, :, h:].abs().max() == 0 and batch.tensor[k, :, :, w:].abs().max() == 0
    assert _model(size_divisibility=-1).preprocess([{"image": images[0]}]).tensor.shape == (1, 3, 32, 48)


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, BitMasks])
def test_targets_are_padded_like_their_images(kind):
    images = ImageList(torch.zeros(2, 3, 32, 64), [(20, 40), (32, 64)])
    instances = []
    for n, (h, w) in zip((2, 0), images.image_sizes, strict=True):
        masks = torch.ones(n, h, w, dtype=torch.bool)
        item = Instances((h, w), gt_classes=torch.arange(n))
        item.gt_masks = BitMasks(masks) if kind is BitMasks else masks.to(kind)
        instances.append(item)
    first, second = _model().prepare_targets(instances, images)
    assert first["masks"].shape == (2, 32, 64) and first["masks"].sum() == 2 * 20 * 40
    assert first["masks"][:, :20, :40].all() and first["labels"].tolist() == [0, 1]
    assert second["masks"].shape == (0, 32, 64) and len(second["labels"]) == 0


# ---- inference functions


def test_semantic():
    classes, masks = _predictions()
    scores = _model().semantic_inference(classes, masks)
    for c in range(CLASSES):
        want = sum(classes[q].softmax(0)[c] * masks[q].sigmoid() for q in range(QUERIES))
        torch.testing.assert_close(scores[c], want)


def _slow_panoptic(classes, masks, object_threshold, overlap_threshold, things):
    """The rule, segment by segment."""
    prob = classes.softmax(-1)
    kept = [q for q in range(QUERIES) if prob[q].argmax() != CLASSES and prob[q].max() > object_threshold]
    result, segments, stuff = torch.zeros(masks.shape[1:], dtype=torch.int32), [], {}
    if not kept:
        return result, segments
    owner = torch.stack([prob[q].max() * masks[q].sigmoid() for q in kept]).argmax(0)
    for k, q in enumerate(kept):
        label, inside = int(prob[q].argmax()), masks[q].sigmoid() >= 0.5
        final = (owner == k) & inside
        owned, original = int((owner == k).sum()), int(inside.sum())
        if not (owned and original and final.any()) or owned / original < overlap_threshold:
            continue
        if label not in things and label in stuff:
            result[final] = stuff[label]
            continue
        segments.append({"id": len(segments) + 1, "isthing": label in things, "category_id": label})
        result[final] = len(segments)
        if label not in things:
            stuff[label] = len(segments)
    return result, segments


@pytest.mark.parametrize("thresholds", [(0.0, 0.0), (0.3, 0.4), (0.5, 0.8), (1.0, 0.0)])
def test_panoptic(thresholds):
    model = _model(object_mask_threshold=thresholds[0], overlap_threshold=thresholds[1])
    found = 0
    for seed in range(20):
        classes, masks = _predictions(seed)
        got_map, got_segments = model.panoptic_inference(classes, masks)
        want_map, want_segments = _slow_panoptic(classes, masks, *thresholds, things={0, 1, 3})
        assert got_segments == want_segments and got_map.dtype == torch.int32
        assert torch.equal(got_map, want_map)
        found += len(want_segments)
    assert (found > 0) == (thresholds[0] < 1)


def test_instances():
    classes, masks = _predictions()
    prob = classes.softmax(-1)[:, :-1]
    got = make_instances(*best_pairs(prob, 12), masks)
    ranked = sorted(((float(prob[q, c]), q, c) for q in range(QUERIES) for c in range(CLASSES)), reverse=True)[:12]
    want = []
    for p, q, c in ranked:
        inside = masks[q] > 0
        score = p * float((masks[q].sigmoid() * inside).sum() / (inside.sum() + 1e-6))
        want.append((score, c, inside))
    order = got.scores.argsort(descending=True)
    for i, (score, label, inside) in zip(order.tolist(), sorted(want, key=lambda x: -x[0]), strict=True):
        assert got.scores[i].item() == pytest.approx(score, rel=1e-5) and got.pred_classes[i] == label
        assert torch.equal(got.pred_masks[i] > 0.5, inside)
    assert set(got.pred_masks.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(got.pred_boxes.tensor, BitMasks(got.pred_masks > 0).get_bounding_boxes().tensor)
    assert len(make_instances(*best_pairs(prob, 1000), masks)) == QUERIES * CLASSES, "k larger than what there is"


def test_a_model_that_knows_stuff_keeps_it_out_of_the_instances():
    classes, masks = _predictions()
    got = _model().instance_inference(classes, masks)
    assert 0 < len(got) < 12 and set(got.pred_classes.tolist()) <= {0, 1, 3}
    assert len(_model(panoptic_on=False).instance_inference(classes, masks)) == 12


# ---- from predictions to results


def _crop_and_resize(maps, image_size, height, width):
    maps = maps[None, :, : image_size[0], : image_size[1]]
    return F.interpolate(maps, (height, width), mode="bilinear", align_corners=False)[0]


def test_results_have_the_size_that_was_asked_for():
    g = torch.Generator().manual_seed(0)
    images = ImageList(torch.zeros(2, 3, 64, 64), [(40, 64), (64, 48)])
    classes, masks = torch.randn(2, QUERIES, CLASSES + 1, generator=g), torch.randn(2, QUERIES, 16, 16, generator=g)
    for before in (True, False):
        model = _model(sem_seg_postprocess_before_inference=before, panoptic_on=before, instance_on=before)
        first, second = model.infer(classes, masks, [{"height": 21, "width": 33}, {}], images)
        assert first["sem_seg"].shape == (CLASSES, 21, 33) and second["sem_seg"].shape == (CLASSES, 64, 48)
        full = F.interpolate(masks[:1], (64, 64), mode="bilinear")[0]
        if before:
            want = model.semantic_inference(classes[0], _crop_and_resize(full, (40, 64), 21, 33))
            assert first["panoptic_seg"][0].shape == (21, 33) and first["instances"].image_size == (21, 33)
        else:
            want = _crop_and_resize(model.semantic_inference(classes[0], full), (40, 64), 21, 33)
            assert set(first) == {"sem_seg"}
        torch.testing.assert_close(first["sem_seg"], want)


def test_masks_for_panoptic_results_must_be_resized_first():
    with pytest.raises(ValueError, match="postprocess"):
        _model(semantic_on=False, sem_seg_postprocess_before_inference=False)
