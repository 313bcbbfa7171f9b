"""COCO metrics; wrong here means box and mask AP that COCO's own tools would not give."""

import contextlib
import copy
import io
import json
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
from PADing.evaluation.coco_metrics import (
    evaluate_detections,
    load_ground_truth,
    split_metrics,
    zsi_metrics,
)
from tests.evaluation.hand_worked import LEFT, RIGHT, TOP, make_detection, make_rle, make_truth

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


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_average_precision_worked_by_hand(kind):
    # Class 30 by score: right, wrong (image 3 shows nothing), right. So precision is 1 up to recall 0.5, which
    # are 51 of COCO's 101 points, and 2/3 at the other 50.
    detections = [
        make_detection(1, 30, 0.9, LEFT),
        make_detection(3, 30, 0.8, LEFT),
        make_detection(2, 30, 0.7, LEFT),
        make_detection(2, 7, 0.9, RIGHT),  # on the crowd: neither right nor wrong
        make_detection(1, 7, 0.5, RIGHT),
        make_detection(1, 11, 0.9, TOP),  # a class without ground truth counts nowhere
    ]
    metrics = evaluate_detections(load_ground_truth(make_truth()), detections, kind)
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
    half = make_rle(["##..", "#.#."])  # 3 in common with LEFT, union 5: IoU 0.6
    metrics = evaluate_detections(
        load_ground_truth(make_truth()), [make_detection(1, 30, 0.9, half), make_detection(2, 30, 0.9, TOP)], "segm"
    )
    values = zsi_metrics(metrics)
    assert list(values) == ["AP@40", "AP@50", "AP@60", "R100@40", "R100@50", "R100@60"]
    # Class 7 has an object and no prediction: 0. Class 30: one of two found.
    assert [values[f"R100@{t}"] for t in (40, 50, 60)] == pytest.approx([25, 25, 25])


def test_a_proposal_ignores_classes():
    detections = [make_detection(1, 7, 0.9, LEFT), make_detection(2, 7, 0.9, LEFT), make_detection(1, 30, 0.8, RIGHT)]
    metrics = evaluate_detections(load_ground_truth(make_truth()), detections, "segm", class_agnostic=True)
    assert metrics.category_ids == (-1,) and metrics.ar(0.5) == pytest.approx(1)


def test_a_threshold_of_one_is_met_by_the_object_itself():
    found = [make_detection(1, 30, 0.9, LEFT), make_detection(2, 30, 0.9, LEFT)]
    want = evaluate_detections(load_ground_truth(make_truth()), found, "segm", iou=[0.9], category_ids=[30]).ar(0.9)
    exact = evaluate_detections(load_ground_truth(make_truth()), found, "segm", iou=[1.0], category_ids=[30])
    assert exact.ar(1.0) == want > 0


def test_a_threshold_of_one_is_met_by_boxes_whose_sums_are_rounded():
    """0.7 + 0.6 - 0.7 is not 0.6, so a box of such numbers has an IoU with itself that is a little below one."""
    box = [0.7, 0.7, 0.6, 0.6]
    overlap = mask_util.iou([box], [box], [0])
    assert 1 - 1e-10 < overlap.item() < 1
    truth = load_ground_truth({
        "images": [{"id": 1, "height": 2, "width": 2}], "categories": [{"id": 5, "name": "elk"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": box}],
    })  # fmt: skip
    found = [{"image_id": 1, "category_id": 5, "score": 0.5, "bbox": box}]
    assert evaluate_detections(truth, found, "bbox", iou=[1.0]).ar(1.0) == 1


def test_an_object_without_a_mask_counts_for_boxes_alone():
    """Files of detection data sets have such objects; no model could find their masks."""
    truth = make_truth()
    truth["annotations"].append({"id": 9, "image_id": 3, "category_id": 30, "bbox": [0, 0, 2, 2]})
    found = [make_detection(1, 30, 0.9, LEFT), make_detection(2, 30, 0.9, LEFT)]
    for kind, recall in (("segm", 1), ("bbox", 2 / 3)):
        assert evaluate_detections(load_ground_truth(truth), found, kind, category_ids=[30]).ar(0.5) == recall


def test_polygons_that_enclose_nothing_are_left_out_with_a_warning(tmp_path, caplog):
    truth, file = make_truth(), tmp_path / "own.json"
    for annotation in truth["annotations"]:
        annotation.update(segmentation=[[0, 0, 2, 0, 2, 2, 0, 2]], bbox=[0, 0, 2, 2], area=4, iscrowd=0)
    file.write_text(json.dumps(truth))
    load_ground_truth(file)
    assert "polygon" not in caplog.text
    truth["annotations"][0]["segmentation"] = [[0, 0, 1, 1]]
    truth["annotations"][1]["segmentation"].append([0, 0, 1, 1])
    file.write_text(json.dumps(truth))
    read = load_ground_truth(file)
    assert sorted(read.anns) == [2, 3, 4] and len(read.anns[2]["segmentation"]) == 1
    assert "1 annotations without a valid polygon" in caplog.text


def test_own_annotations_may_lack_fields(tmp_path):
    truth = make_truth()
    polygon = {"id": 9, "image_id": 3, "category_id": 11, "segmentation": [[0, 0, 2, 0, 2, 2, 0, 2]]}
    truth["annotations"].append(polygon)
    before = copy.deepcopy(truth)
    annotation = load_ground_truth(truth).anns[9]
    assert annotation["area"] == 4 and annotation["bbox"] == [0, 0, 2, 2] and annotation["iscrowd"] == 0
    assert truth == before  # the caller's content is left alone
    file = tmp_path / "own.json"
    file.write_text(json.dumps(truth))
    read = load_ground_truth(file)
    assert read.anns[9] == annotation and read.anns.keys() == load_ground_truth(truth).anns.keys()


def test_mistakes_are_named(tmp_path):
    truth = load_ground_truth(make_truth())
    with pytest.raises(UserError, match="image 44"):
        evaluate_detections(truth, [make_detection(44, 30, 0.9, LEFT)], "segm")
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


def test_boxes_of_negative_size_are_refused():
    """Two negative sides have a positive area, as if the box were a real one."""
    detection = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [5, 5, -3, -3]}
    truth = load_ground_truth(
        {"images": [{"id": 1, "height": 8, "width": 8}], "categories": [{"id": 1, "name": "a"}], "annotations": []}
    )
    with pytest.raises(UserError, match="width and height >= 0.*-3"):
        evaluate_detections(truth, [detection], "bbox")
