"""COCO metrics; wrong here means box and mask AP that COCO's own tools would not give."""

import contextlib
import copy
import io
import json
import logging
import math
import os
import re
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from PADing.errors import UserError
from PADing.evaluation import coco_eval_revise
from PADing.evaluation.coco_metrics import (
    evaluate_detections,
    load_ground_truth,
    split_metrics,
    zsi_metrics,
)

SHARED = Path(os.environ.get("SHARED_DATA_DIR", Path(__file__).resolve().parents[3] / "shared" / "data"))
ORACLE = SHARED / "coco_eval_oracle"
requires_oracle = pytest.mark.skipif(not ORACLE.is_dir(), reason=f"no COCO evaluation samples in {ORACLE}")


def _published() -> dict[str, list[float]]:
    """The twelve metrics per type that COCO's authors publish, in the order of their file."""
    metrics: dict[str, list[float]] = {}
    for line in (ORACLE / "val2014_fake_eval_res.txt").read_text().splitlines():
        if line.startswith("type="):
            current = metrics.setdefault(line.removeprefix("type=").strip(), [])
        elif match := re.search(r"\] = (-?[\d.]+)", line):
            current.append(float(match.group(1)))
    return metrics


def _digits() -> dict[str, list[float]]:
    """The same metrics with six digits, from the folder's README."""
    text = (SHARED / "README.md").read_text()
    return {
        kind: [float(v) for v in re.search(rf"- {kind} ((?:0\.\d{{6}} ?){{12}})", text).group(1).split()]
        for kind in ("bbox", "segm")
    }


def _twelve(metrics) -> list[float]:
    aps = [metrics.ap(), metrics.ap(0.5), metrics.ap(0.75), *(metrics.ap(area=a) for a in ("small", "medium", "large"))]
    ars = [metrics.ar(max_dets=m) for m in range(3)]
    return aps + ars + [metrics.ar(area=a) for a in ("small", "medium", "large")]


@pytest.fixture(scope="module")
def oracle():
    truth = json.loads((ORACLE / "instances_val2014_100.json").read_text())
    results = {
        kind: json.loads((ORACLE / f"instances_val2014_fake{kind}100_results.json").read_text())
        for kind in ("bbox", "segm")
    }
    return truth, results


@requires_oracle
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_metrics_that_coco_publishes(oracle, kind):
    truth, results = oracle
    got = _twelve(evaluate_detections(load_ground_truth(truth), results[kind], kind))
    assert [round(value, 3) for value in got] == _published()[kind]
    assert got == pytest.approx(_digits()[kind], abs=6e-7)


@requires_oracle
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_order_of_categories_plays_no_part(oracle, kind):
    truth, results = oracle
    shuffled = {**truth, "categories": np.random.default_rng(0).permutation(truth["categories"]).tolist()}
    want = evaluate_detections(load_ground_truth(truth), results[kind], kind)
    got = evaluate_detections(load_ground_truth(shuffled), results[kind], kind)
    assert got.category_ids == want.category_ids
    np.testing.assert_array_equal(got.precision, want.precision)
    np.testing.assert_array_equal(got.recall, want.recall)


@requires_oracle
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_without_predictions_every_metric_is_zero(oracle, kind):
    truth, _ = oracle
    metrics = evaluate_detections(load_ground_truth(truth), [], kind)
    assert _twelve(metrics) == [0.0] * 12
    with_truth = {a["category_id"] for a in truth["annotations"] if not a["iscrowd"]}
    absent = [math.isnan(metrics.ap(categories=(c,))) for c in metrics.category_ids]
    assert absent == [c not in with_truth for c in metrics.category_ids]


def _by_pycocotools(truth, detections, kind, iou, max_dets, class_agnostic=False):
    """Precision (T, K, A) and recall (T, K, A, M) by COCO's own code."""
    with contextlib.redirect_stdout(io.StringIO()):
        found = COCO()
        found.dataset = {**truth.dataset, "annotations": []}
        for number, detection in enumerate(detections, start=1):
            if kind == "segm":
                area, box = mask_util.area(detection["segmentation"]), mask_util.toBbox(detection["segmentation"])
            else:
                area, box = math.prod(detection["bbox"][2:]), detection["bbox"]
            annotation = {**detection, "id": number, "iscrowd": 0, "area": float(area), "bbox": list(box)}
            found.dataset["annotations"].append(annotation)
        found.createIndex()
        evaluator = COCOeval(truth, found, kind)
        evaluator.params.iouThrs, evaluator.params.maxDets = np.array(iou), list(max_dets)
        evaluator.params.useCats = int(not class_agnostic)
        evaluator.evaluate()
        evaluator.accumulate()
    precision, recall = evaluator.eval["precision"][..., -1], evaluator.eval["recall"]
    precision = np.where(precision[:, 0] < 0, np.nan, precision.mean(axis=1))
    return precision, np.where(recall < 0, np.nan, recall)


@requires_oracle
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_every_class_as_pycocotools_on_coco(oracle, kind):
    truth, results = oracle
    truth = load_ground_truth(truth)
    got = evaluate_detections(truth, results[kind], kind)
    want = _by_pycocotools(truth, results[kind], kind, got.iou, got.max_dets)
    np.testing.assert_allclose(got.precision, want[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(got.recall, want[1], rtol=0, atol=1e-12)


def _scene(seed):
    """A small set with everything that matching has rules for: crowds, all sizes, equal scores, equal overlaps."""
    rng = np.random.default_rng(seed)
    side, images, categories = 160, int(rng.integers(1, 5)), (9, 4, 7)
    truth, detections, shapes = [], [], {}
    for image in range(images):
        for _ in range(rng.integers(0, 9)):
            w, h = rng.choice([8, 30, 60, 140], 2)
            x, y = rng.integers(0, side - w + 1), rng.integers(0, side - h + 1)
            mask = np.zeros((side, side), dtype=np.uint8, order="F")
            mask[y : y + h, x : x + w] = rng.random() < 0.8 or rng.random((h, w)) < 0.7
            shapes.setdefault(image, []).append(mask)
            rle, crowd = mask_util.encode(mask), int(rng.random() < 0.2)
            truth.append({
                "id": len(truth) + 1, "image_id": image, "category_id": int(rng.choice(categories)), "iscrowd": crowd,
                "segmentation": rle, "area": float(mask_util.area(rle)), "bbox": mask_util.toBbox(rle).tolist(),
            })  # fmt: skip
            if rng.random() < 0.2:
                truth.append({**truth[-1], "id": len(truth) + 1, "iscrowd": 0})  # two objects at one place
    for image in range(images):
        for _ in range(rng.integers(0, 40)):
            base = shapes[image][rng.integers(len(shapes[image]))] if image in shapes else np.eye(side, dtype=np.uint8)
            mask = np.asfortranarray(np.roll(base, rng.integers(-3, 4, 2), axis=(0, 1)))
            rle = mask_util.encode(mask)
            rle["counts"] = rle["counts"].decode()
            detections.append({
                "image_id": image, "category_id": int(rng.choice([*categories, 4])), "segmentation": rle,
                "score": float(np.round(rng.random(), 1)), "bbox": mask_util.toBbox(rle).tolist(),
            })  # fmt: skip
    content = {"images": [{"id": i, "height": side, "width": side} for i in range(images)], "annotations": truth}
    return {**content, "categories": [{"id": c, "name": str(c)} for c in (4, 7, 9)]}, detections


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_every_class_as_pycocotools_on_random_scenes(kind, class_agnostic):
    iou, max_dets, found = (0.3, 0.5, 0.75, 1.0), (1, 4, 10), 0
    for seed in range(40):
        content, detections = _scene(seed)
        truth = load_ground_truth(content)
        got = evaluate_detections(truth, detections, kind, iou=iou, max_dets=max_dets, class_agnostic=class_agnostic)
        want = _by_pycocotools(truth, detections, kind, iou, max_dets, class_agnostic)
        np.testing.assert_allclose(got.precision, want[0], rtol=0, atol=1e-12, err_msg=f"scene {seed}")
        np.testing.assert_allclose(got.recall, want[1], rtol=0, atol=1e-12, err_msg=f"scene {seed}")
        found += np.nansum(got.recall > 0)
    assert found > 500


# ---- a set small enough to work by hand


def _rle(rows: list[str]) -> dict:
    rle = mask_util.encode(np.asfortranarray([[c == "#" for c in row] for row in rows], dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


LEFT, RIGHT, TOP = _rle(["##..", "##.."]), _rle(["..##", "..##"]), _rle(["####", "...."])


def _truth():
    """Class 30: an object in each of images 1 and 2. Class 7: one in image 1, a crowd in image 2. Class 11: none."""
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 30, "segmentation": LEFT},
        {"id": 2, "image_id": 2, "category_id": 30, "segmentation": LEFT},
        {"id": 3, "image_id": 1, "category_id": 7, "segmentation": RIGHT},
        {"id": 4, "image_id": 2, "category_id": 7, "segmentation": RIGHT, "iscrowd": 1},
    ]
    return {
        "images": [{"id": i, "height": 2, "width": 4, "file_name": f"{i}.jpg"} for i in (1, 2, 3)],
        "categories": [{"id": i, "name": n} for i, n in ((30, "wolf"), (7, "Bär"), (11, "elk"))],
        "annotations": annotations,
    }


def _detection(image_id, category_id, score, segmentation):
    return {"image_id": image_id, "category_id": category_id, "score": score, "segmentation": segmentation}


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_average_precision_worked_by_hand(kind):
    # Class 30 by score: right, wrong (image 3 shows nothing), right. So precision is 1 up to recall 0.5, which
    # are 51 of COCO's 101 points, and 2/3 at the other 50.
    detections = [
        _detection(1, 30, 0.9, LEFT),
        _detection(3, 30, 0.8, LEFT),
        _detection(2, 30, 0.7, LEFT),
        _detection(2, 7, 0.9, RIGHT),  # on the crowd: neither right nor wrong
        _detection(1, 7, 0.5, RIGHT),
        _detection(1, 11, 0.9, TOP),  # a class without ground truth counts nowhere
    ]
    metrics = evaluate_detections(load_ground_truth(_truth()), detections, kind)
    assert metrics.ap(0.5, categories=[30]) == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert metrics.ap(0.5, categories=[7]) == pytest.approx(1)
    assert math.isnan(metrics.ap(0.5, categories=[11]))
    assert metrics.ar(0.5) == pytest.approx(1)
    assert math.isnan(metrics.ap(area="large"))
    parts = split_metrics(metrics, seen=[30, 11], unseen=[7])
    seen = 100 * (51 + 50 * 2 / 3) / 101
    assert parts["AP50_seen"] == pytest.approx(seen) and parts["AP50_unseen"] == pytest.approx(100)
    assert parts["AP50_hm"] == pytest.approx(2 * seen * 100 / (seen + 100))
    assert parts["AR50_hm"] == pytest.approx(100)


def test_thresholds_of_zero_shot_segmentation():
    # A mask of 4 pixels against one of 4 with 2 in common has IoU 1/3; 3 of 5 has 0.6, 3 of 6 has 0.5.
    half = _rle(["##..", "#.#."])  # 3 in common with LEFT, union 5: IoU 0.6
    metrics = evaluate_detections(
        load_ground_truth(_truth()), [_detection(1, 30, 0.9, half), _detection(2, 30, 0.9, TOP)], "segm"
    )
    values = zsi_metrics(metrics)
    assert list(values) == ["AP@40", "AP@50", "AP@60", "R100@40", "R100@50", "R100@60"]
    # Class 7 has an object and no prediction: 0. Class 30: one of two found.
    assert [values[f"R100@{t}"] for t in (40, 50, 60)] == pytest.approx([25, 25, 25])


def test_a_proposal_ignores_classes():
    detections = [_detection(1, 7, 0.9, LEFT), _detection(2, 7, 0.9, LEFT), _detection(1, 30, 0.8, RIGHT)]
    metrics = evaluate_detections(load_ground_truth(_truth()), detections, "segm", class_agnostic=True)
    assert metrics.category_ids == (-1,) and metrics.ar(0.5) == pytest.approx(1)


def test_own_annotations_may_lack_fields():
    truth = _truth()
    polygon = {"id": 9, "image_id": 3, "category_id": 11, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]}
    truth["annotations"].append(polygon)
    before = copy.deepcopy(truth)
    annotation = load_ground_truth(truth).anns[9]
    assert annotation["area"] == 4 and annotation["bbox"] == [0, 0, 2, 2] and annotation["iscrowd"] == 0
    assert truth == before  # the caller's content is left alone


def test_mistakes_are_named(tmp_path):
    truth = load_ground_truth(_truth())
    with pytest.raises(UserError, match="image 44"):
        evaluate_detections(truth, [_detection(44, 30, 0.9, LEFT)], "segm")
    with pytest.raises(UserError, match="segmentation"):
        evaluate_detections(truth, [{"image_id": 1, "category_id": 30, "score": 1.0, "bbox": [0, 0, 1, 1]}], "segm")
    with pytest.raises(UserError, match="keypoints"):
        evaluate_detections(truth, [], "keypoints")
    with pytest.raises(UserError, match="does not exist"):
        load_ground_truth(tmp_path / "missing.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="broken.json"):
        load_ground_truth(tmp_path / "broken.json")
    with pytest.raises(UserError, match="images, categories and annotations"):
        load_ground_truth({"images": []})


# ---- the function behind the command-line tools


def test_the_split_is_given_by_number_or_by_name(caplog):
    detections = [_detection(1, 30, 0.9, LEFT), _detection(2, 30, 0.9, LEFT), _detection(1, 7, 0.9, LEFT)]
    by_number = coco_eval_revise(detections, ["segm", "bbox"], _truth(), gzsd=True, num_seen_classes=1)
    by_name = coco_eval_revise(detections, ["segm", "bbox"], _truth(), gzsd=True, unseen=["Bär", "elk"])
    assert by_number == by_name and len(by_number) == 2
    assert by_number[0] == pytest.approx((100, 0, 100, 0, 0, 0))
    assert coco_eval_revise(detections, ["segm"], _truth()) == []


def test_per_class_tables_carry_the_right_names(caplog):
    detections = [_detection(1, 7, 0.9, RIGHT)]  # the first by id, the second of the list
    with caplog.at_level(logging.INFO):
        coco_eval_revise(detections, ["segm"], _truth(), classwise=True, gzsd=True, unseen=["Bär"])
    table = next(r.message for r in caplog.records if "per class" in r.message)
    assert re.search(r"\|\s*Bär\*\s*\|\s*100\.000\s*\|\s*100\.000\s*\|", table)
    assert re.search(r"\|\s*wolf\s*\|\s*0\.000\s*\|\s*0\.000\s*\|", table)


def test_proposal_types(caplog):
    detections = [_detection(1, 7, 0.9, LEFT), _detection(1, 7, 0.8, RIGHT), _detection(2, 30, 0.7, LEFT)]
    with caplog.at_level(logging.INFO):
        assert coco_eval_revise(detections, ["proposal_fast"], _truth(), max_dets=(1, 2)) is None
    lines = [r.message for r in caplog.records if r.message.startswith("AR@")]
    assert lines == ["AR@1 = 0.6667", "AR@2 = 1.0000"]


def test_proposals_are_limited_as_published(caplog):
    """100, 300 and 1000 boxes for each image, without classes: 400 wrong boxes before the right one."""
    wrong = {"image_id": 1, "category_id": 7, "bbox": [0, 0, 0.5, 0.5]}
    detections = [{**wrong, "score": 1 - i / 1000} for i in range(400)]
    detections.append({"image_id": 1, "category_id": 7, "score": 0.1, "bbox": [0, 0, 2, 2]})  # of another class
    with caplog.at_level(logging.INFO):
        assert coco_eval_revise(detections, ["proposal"], _truth()) == []
    found = re.findall(r"\(AR\) @\[ IoU=0.50 \| area=all \| maxDets=(\d+) \] = ([\d.]+)", caplog.text)
    assert found == [("100", "0.000"), ("300", "0.000"), ("1000", "0.333")]  # one of three objects


DAMAGED = {
    "unknown image": ({"image_id": 44}, "image 44"),
    "no object": (None, "must be an object"),
    "no score": ({"score": None}, "score"),
    "score that is no number": ({"score": math.nan}, "score"),
    "text as a score": ({"score": "high"}, "score"),
    "three numbers as a box": ({"bbox": [0, 0, 1]}, "bbox"),
    "box without end": ({"bbox": [0, 0, math.inf, 1]}, "bbox"),
    "mask of another size": ({"segmentation": {"size": [9, 9], "counts": [81]}}, "size"),
    "runs beyond the image": ({"segmentation": {"size": [2, 4], "counts": [0, 900]}}, "counts"),
    "damaged string": ({"segmentation": {"size": [2, 4], "counts": "00~~~"}}, "counts"),
    "polygon of text": ({"segmentation": [["a", "b", "c", "d", "e", "f"]]}, "polygon"),
    "polygon far away": ({"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}, "polygon"),
    "list as a category": ({"category_id": [7]}, "category_id"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_results_are_one_message(tmp_path, case):
    changes, said = DAMAGED[case]
    good = {**_detection(1, 30, 0.9, LEFT), "bbox": [0, 0, 2, 2]}
    bad = None if changes is None else {**good, **changes}
    path = tmp_path / "results.json"
    path.write_text(json.dumps([good, bad]))
    for kind in ("segm", "bbox"):
        with pytest.raises(UserError, match=f"results.json.*{said}"):
            coco_eval_revise(path, [kind], _truth())


@pytest.mark.parametrize("content", ["", "{", "{}", "null", "7", '"text"', "[" * 100_000])
def test_files_that_are_no_results_are_named(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(UserError, match="results.json"):
        coco_eval_revise(path, ["bbox"], _truth())


def test_split_mistakes_are_named():
    for arguments, message in (
        ({}, "names of the unseen"),
        ({"num_seen_classes": 3}, "1..2"),
        ({"unseen": ["Baer"]}, "Baer"),
    ):
        with pytest.raises(UserError, match=message):
            coco_eval_revise([], ["segm"], _truth(), gzsd=True, **arguments)
    with pytest.raises(UserError, match="keypoint"):
        coco_eval_revise([], ["keypoint"], _truth())


def test_boxes_of_negative_size_are_refused():
    """Two negative sides have a positive area, as if the box were a real one."""
    detection = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [5, 5, -3, -3]}
    truth = load_ground_truth(
        {"images": [{"id": 1, "height": 8, "width": 8}], "categories": [{"id": 1, "name": "a"}], "annotations": []}
    )
    with pytest.raises(UserError, match="width and height >= 0.*-3"):
        evaluate_detections(truth, [detection], "bbox")
