"""If these fail, metrics of version 2 are not those of the evaluators, which users know and papers publish."""

import math

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.structures import Instances

from minibench.folds.curve import area, with_bias
from minibench.folds.regions import found_segments
from minibench.folds.scores import REGION, Rules, Scorer, score
from minibench.methods import INSTANCE, PANOPTIC, SEMANTIC, TASKS
from PADing.evaluation.coco_metrics import evaluate_detections, load_ground_truth
from PADing.evaluation.panoptic_quality import match_segments, quality_per_class
from PADing.evaluation.semantic import semantic_metrics
from PADing.meta_arch.results import best_pairs, make_instances, panoptic_map, semantic_scores
from tests.minibench.folds.drawn import NAMES, SIZE, THINGS, UNSEEN, drawn

CONFIDENT, OVERLAP, MOST = 0.3, 0.6, 8
KINDS = len(NAMES)
RULES = Rules(CONFIDENT, OVERLAP, MOST, TASKS, points=5, step=1)


@pytest.fixture(scope="module", params=[0, 1, 2])
def predicted(request):
    return drawn(request.param)


def _scorer(predicted, rules=RULES, order=None) -> Scorer:
    truth, logits, masks = predicted
    names = NAMES if order is None else [NAMES[i] for i in order]
    if order is not None:
        logits = logits[..., [*order, KINDS]]
    scorer = Scorer(truth, logits, names, found_segments(truth, masks), rules)
    score(truth, masks, [scorer])
    return scorer


def _full_size(masks: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.interpolate(torch.from_numpy(masks)[None], size=(SIZE, SIZE), mode="bilinear")[0]


def _evaluated(predicted, bias: float) -> dict[str, np.ndarray]:
    """Metrics by class of the repository's inference and evaluators, from logits with a bias."""
    truth, logits, masks = predicted
    matches, confusion, detections, annotations = [], np.zeros((KINDS + 1, KINDS + 1), dtype=np.int64), [], []
    for number, image in enumerate(truth.images):
        classes, full = torch.from_numpy(with_bias(logits[number], UNSEEN, bias)), _full_size(masks[number])
        labels = dict(enumerate(truth.labels[number].tolist(), start=1))
        found, segments = panoptic_map(classes, full, set(np.flatnonzero(THINGS)), CONFIDENT, OVERLAP)
        named = {s["id"]: s["category_id"] for s in segments}
        matches.append(match_segments(truth.maps[number].astype(int), labels, [], found.numpy(), named))
        best = semantic_scores(classes, full).argmax(0).numpy()
        table = np.array([KINDS, *truth.labels[number]])
        np.add.at(confusion, (best, table[truth.maps[number]]), 1)
        pairs = best_pairs(classes.softmax(-1)[:, :-1], MOST)
        kept = torch.from_numpy(THINGS)[pairs[2]]
        made = make_instances(*(part[kept] for part in pairs), full)
        detections += _coco(made, image)
        for segment, label in labels.items():
            if THINGS[label]:
                rle = mask_util.encode(np.asfortranarray(truth.maps[number] == segment, dtype=np.uint8))
                shape = {"area": float(mask_util.area(rle)), "bbox": mask_util.toBbox(rle).tolist(), "iscrowd": 0}
                ids = {"id": len(annotations) + 1, "image_id": image, "category_id": label + 1}
                annotations.append({**ids, **shape, "segmentation": rle})
    quality = quality_per_class(matches, range(KINDS))
    content = {
        "images": [{"id": image, "height": SIZE, "width": SIZE} for image in truth.images],
        "categories": [{"id": i + 1, "name": NAMES[i]} for i in np.flatnonzero(THINGS).tolist()],
        "annotations": annotations,
    }
    coco = evaluate_detections(load_ground_truth(content), detections, "segm", iou=[0.5])
    iou = semantic_metrics(confusion, NAMES, set())
    return {
        "PQ": np.array([100 * quality[i].pq for i in range(KINDS)]),
        "IoU": np.array([iou[f"IoU-{name}"] for name in NAMES]),
        "AP50": np.array([100 * coco.ap(0.5, categories=[i + 1]) if THINGS[i] else math.nan for i in range(KINDS)]),
    }


def _coco(made: Instances, image: int) -> list[dict]:
    found = []
    for mask, value, label in zip(made.pred_masks, made.scores.tolist(), made.pred_classes.tolist(), strict=True):
        rle = mask_util.encode(np.asfortranarray(mask.numpy(), dtype=np.uint8))
        rle["counts"] = rle["counts"].decode()
        found.append({"image_id": image, "category_id": label + 1, "score": value, "segmentation": rle})
    return found


def test_every_point_of_every_curve_is_what_the_evaluators_say(predicted):
    scorer = _scorer(predicted)
    tables = {"PQ": scorer.panoptic.by_class(), "IoU": scorer.semantic.by_class(), "AP50": scorer.instance.by_class()}
    assert len(scorer.biases) == 5 + 3
    for number, bias in enumerate(scorer.biases):
        expected = _evaluated(predicted, float(bias))
        for name, table in tables.items():
            np.testing.assert_allclose(table[number], expected[name], atol=1e-3, err_msg=f"{name} at {bias}")
    spread = tables["PQ"].std(0)
    assert (spread > 1).sum() > 3, "the biases change nothing, so this test shows nothing"


def test_reported_metrics_are_those_without_a_bias(predicted):
    scorer, expected = (
        _scorer(predicted, Rules(CONFIDENT, OVERLAP, MOST, TASKS, points=3, step=4)),
        _evaluated(predicted, 0),
    )
    found = scorer.results()
    for task, name in ((PANOPTIC, "PQ"), (SEMANTIC, "IoU"), (INSTANCE, "AP50")):
        values = found["results"][task.key]
        seen, unseen = (np.nanmean(expected[name][side]) for side in (~UNSEEN, UNSEEN))
        assert abs(values[task.seen] - seen) < 1e-3 and abs(values[task.unseen] - unseen) < 1e-3, name
        assert abs(values[task.harmonic] - 2 * seen * unseen / (seen + unseen)) < 1e-3
        for label, value in found["classes"][task.key].items():
            assert abs(value - expected[name][NAMES.index(label)]) < 2e-3


def test_ausuc_is_the_area_of_a_brute_force_sweep():
    """With as many biases as one likes, the area converges to that of evaluations one by one."""
    predicted = drawn(5, images=8)
    scorer = _scorer(predicted, Rules(CONFIDENT, OVERLAP, MOST, TASKS, points=12, step=1))
    found = scorer.results()
    for task, name in ((PANOPTIC, "PQ"), (SEMANTIC, "IoU"), (INSTANCE, "AP50")):
        points = []
        for bias in (-math.inf, *np.linspace(-8, 8, 25), math.inf):
            table = _evaluated(predicted, float(bias))[name]
            points.append((np.nanmean(table[~UNSEEN]), np.nanmean(table[UNSEEN])))
        brute, ours = area(points), found["results"][task.key][f"{task.metric}_AUSUC"]
        assert brute > 1 and abs(ours - brute) < 0.06 * brute + 0.3, (name, ours, brute)


def test_the_order_of_the_logits_is_that_of_their_names(predicted):
    """D2Zero's classes have another order than the annotation's, and no grounds."""
    own, other = _scorer(predicted).results(), _scorer(predicted, order=[6, 2, 0, 5, 3, 1, 4]).results()
    for task in TASKS:
        for key, value in own["results"][task.key].items():
            assert abs(value - other["results"][task.key][key]) < 1e-6, (task.key, key)
    truth, logits, masks = predicted
    things = Scorer(
        truth, logits[..., [3, 1, 0, 2, KINDS]], [NAMES[i] for i in (3, 1, 0, 2)], found_segments(truth, masks),
        Rules(CONFIDENT, OVERLAP, MOST, (INSTANCE,)),
    )  # fmt: skip
    score(truth, masks, {"d2zero": things})
    assert set(things.results()["results"]) == {"segm", REGION}


def test_no_class_of_the_other_side_is_left_at_an_infinite_bias(predicted):
    scorer = _scorer(predicted)
    for table in (scorer.panoptic.by_class(), scorer.instance.by_class()):
        assert scorer.biases[0] == -math.inf and scorer.biases[-1] == math.inf
        assert np.nan_to_num(table[0])[UNSEEN].max() == 0 and np.nan_to_num(table[-1])[~UNSEEN].max() == 0
        assert np.nan_to_num(table[0])[~UNSEEN].max() > 0 and np.nan_to_num(table[-1])[UNSEEN].max() > 0
