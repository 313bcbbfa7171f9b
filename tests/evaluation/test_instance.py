"""The instance evaluators; wrong here means AP or recall of the wrong classes."""

import json
import logging
import math

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances

from PADing.errors import UserError
from PADing.evaluation import InsSegzeroEvaluator, InsSegzsiEvaluator

# The annotation lists wolf (30), bear (7), elk (11); the model's order is bear, elk, wolf.
CATEGORIES = [{"id": 30, "name": "wolf"}, {"id": 7, "name": "Bär"}, {"id": 11, "name": "elk"}]
TO_CONTIGUOUS = {7: 0, 11: 1, 30: 2}
BEAR, ELK, WOLF = 0, 1, 2


def _mask(x0, x1):
    mask = torch.zeros(6, 8, dtype=torch.bool)
    mask[1:5, x0:x1] = True
    return mask


def _instances(*items) -> Instances:
    """Items: (class, score, x0, x1)."""
    result = Instances((6, 8))
    result.pred_boxes = Boxes(torch.tensor([[x0, 1.0, x1, 5.0] for _, _, x0, x1 in items]).reshape(-1, 4))
    result.scores = torch.tensor([score for _, score, _, _ in items])
    result.pred_classes = torch.tensor([label for label, *_ in items], dtype=torch.int64)
    masks = [_mask(x0, x1).float() for *_, x0, x1 in items]
    result.pred_masks = torch.stack(masks) if masks else torch.zeros(0, 6, 8)
    return result


@pytest.fixture
def data(tmp_path, register, save_json):
    """Image 1: a bear and a wolf. Image 2: a wolf. Image 3: nothing. No elk anywhere."""

    def annotation(number, image_id, category_id, x0, x1):
        polygon = [x0, 1, x1, 1, x1, 5, x0, 5]
        return {
            "id": number, "image_id": image_id, "category_id": category_id, "iscrowd": 0, "area": 4 * (x1 - x0),
            "bbox": [x0, 1, x1 - x0, 4], "segmentation": [polygon],
        }  # fmt: skip

    content = {
        "images": [{"id": i, "height": 6, "width": 8, "file_name": f"{i}.jpg"} for i in (1, 2, 3)],
        "categories": CATEGORIES,
        "annotations": [annotation(1, 1, 7, 0, 3), annotation(2, 1, 30, 4, 8), annotation(3, 2, 30, 2, 6)],
    }
    return register(
        json_file=save_json(tmp_path / "instances.json", content),
        thing_classes=["Bär", "elk", "wolf"],
        thing_dataset_id_to_contiguous_id=TO_CONTIGUOUS,
        evaluation_set=["wolf", "elk"],
    )


def _run(evaluator, *images):
    for image_id, instances in images:
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    return evaluator.evaluate()


RIGHT = ((1, _instances((BEAR, 0.9, 0, 3))), (2, _instances((WOLF, 0.8, 2, 6))), (3, _instances()))


@pytest.mark.parametrize("evaluator", [InsSegzeroEvaluator, InsSegzsiEvaluator])
def test_seen_and_unseen_are_told_apart_by_category_id(data, evaluator, tmp_path):
    result = _run(evaluator(data, output_dir=str(tmp_path / "out")), *RIGHT)
    assert list(result) == ["bbox", "segm"]
    for task in ("bbox", "segm"):
        metrics = result[task]
        # One of two wolves is found, at precision 1: 51 of 101 recall points.
        wolf = 100 * 51 / 101
        assert metrics["AP50_seen"] == pytest.approx(100) and metrics["AP50_unseen"] == pytest.approx(wolf)
        assert metrics["AP50_hm"] == pytest.approx(2 * 100 * wolf / (100 + wolf))
        assert metrics["AR50_seen"] == pytest.approx(100) and metrics["AR50_unseen"] == pytest.approx(50)
        assert metrics["AP-Bär"] == pytest.approx(100) and metrics["AP-wolf"] == pytest.approx(wolf)
        assert math.isnan(metrics["AP-elk"]) and math.isnan(metrics["APl"])
        assert metrics["AP"] == pytest.approx((100 + wolf) / 2) and metrics["AP_unseen"] == pytest.approx(wolf)
    stored = json.loads((tmp_path / "out" / "instance_results.json").read_text())
    assert stored["segm"]["AP50_hm"] == result["segm"]["AP50_hm"] and stored["segm"]["AP-elk"] is None
    for task in ("bbox", "segm"):
        per_class = {entry["name"]: entry for entry in stored["per_class"][task]}
        assert {name: entry["AP50"] for name, entry in per_class.items()} == {
            "Bär": pytest.approx(100),
            "wolf": pytest.approx(result[task]["AP50_unseen"]),
            "elk": None,
        }
        assert [name for name, entry in per_class.items() if entry["unseen"]] == ["elk", "wolf"]
    detections = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())
    assert [d["category_id"] for d in detections] == [7, 30]
    assert detections[1]["bbox"] == [2, 1, 4, 4]


def test_without_any_prediction_metrics_are_zero(data, tmp_path):
    result = _run(InsSegzsiEvaluator(data, output_dir=str(tmp_path)), (1, _instances()), (2, _instances()))
    for task in ("bbox", "segm"):
        assert result[task]["AP"] == 0 and result[task]["AP50_hm"] == 0 and result[task]["AR50_unseen"] == 0


def test_an_image_that_is_predicted_twice_is_refused(data):
    """Its objects would be found twice, which gives a recall above one."""
    evaluator = InsSegzsiEvaluator(data)
    with pytest.raises(UserError, match="Image 1 was predicted twice"):
        _run(evaluator, RIGHT[0], RIGHT[0])
    evaluator.reset()
    assert _run(evaluator, *RIGHT)["segm"]["AR50_seen"] == pytest.approx(100)


def test_an_evaluator_that_saw_no_image_reports_zeros(data):
    assert InsSegzsiEvaluator(data).evaluate()["segm"]["AP50_seen"] == 0


def _with(data, register, **changes):
    metadata = {k: v for k, v in MetadataCatalog.get(data).as_dict().items() if k != "name"}
    return register(**{**metadata, **changes})


def test_a_set_of_unseen_classes_alone_has_the_zsi_metrics(data, register):
    # As registered for the two published splits: unseen_index keeps the positions in the whole split.
    name = _with(data, register, evaluation_set=["Bär", "elk", "wolf"], unseen_index=[40, 41, 42])
    result = _run(InsSegzsiEvaluator(name), *RIGHT)
    assert list(result) == ["bbox", "bbox_zsi", "segm", "segm_zsi"]
    assert result["segm_zsi"]["R100@50"] == pytest.approx(75)
    assert result["segm_zsi"]["AP@40"] == pytest.approx((100 + 100 * 51 / 101) / 2)
    assert "AP50_seen" not in result["segm"]
    with pytest.raises(UserError, match="unseen classes only"):
        InsSegzsiEvaluator(name).process([{"image_id": 1}], [{"instances": _instances((63, 0.9, 0, 3))}])


def test_a_plain_coco_set_has_the_stock_keys(data, register):
    result = _run(InsSegzsiEvaluator(_with(data, register, evaluation_set=[])), *RIGHT)
    want = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AP-Bär", "AP-elk", "AP-wolf"]
    assert list(result) == ["bbox", "segm"] and list(result["segm"]) == want


def test_unseen_classes_may_be_given_by_index_alone(data, register):
    name = _with(data, register, evaluation_set=None, unseen_index=[1, 2])
    assert _run(InsSegzsiEvaluator(name), *RIGHT)["segm"]["AR50_unseen"] == pytest.approx(50)


def test_boxes_alone_give_box_metrics_alone(data):
    instances = _instances((BEAR, 0.9, 0, 3))
    instances.remove("pred_masks")
    assert list(_run(InsSegzsiEvaluator(data), (1, instances))) == ["bbox"]


def test_classes_outside_the_split_do_not_count(data, register, tmp_path, save_json):
    content = json.loads((tmp_path / "instances.json").read_text())
    content["categories"].append({"id": 5, "name": "stray"})
    content["annotations"].append({**content["annotations"][0], "id": 50, "category_id": 5})
    name = _with(data, register, json_file=save_json(tmp_path / "more.json", content))
    metrics = _run(InsSegzsiEvaluator(name), *RIGHT)["segm"]
    assert metrics["AP50_seen"] == pytest.approx(100) and "AP-stray" not in metrics


def test_instances_are_read_from_the_panoptic_annotation(data, register, tmp_path, save_ids, save_json, caplog):
    ids = np.zeros((6, 8), dtype=int)
    ids[_mask(0, 3).numpy()], ids[_mask(4, 8).numpy()], ids[0] = 70001, 4, 9
    second = np.zeros((6, 8), dtype=int)
    second[_mask(2, 6).numpy()] = 3
    for number, image in ((1, ids), (2, second), (3, np.full((6, 8), 5))):
        save_ids(tmp_path / "pan" / f"{number}.png", image)
    # Image 3 has snow alone; no pixel of image 1 has the id 8.
    segments = {3: [(5, 200)], 1: [(8, 7), (70001, 7), (4, 30), (9, 200)], 2: [(3, 30)]}
    content = {
        "images": [{"id": i, "height": 6, "width": 8, "file_name": f"{i}.jpg"} for i in (1, 2, 3)],
        "categories": [*CATEGORIES, {"id": 200, "name": "snow", "isthing": 0}],
        "annotations": [
            {"image_id": i, "file_name": f"{i}.png", "segments_info": [{"id": s, "category_id": c} for s, c in items]}
            for i, items in segments.items()
        ],
    }
    changes = {
        "json_file": None,
        "panoptic_json": save_json(tmp_path / "panoptic.json", content),
        "panoptic_root": str(tmp_path / "pan"),
    }
    want = _run(InsSegzeroEvaluator(data), *RIGHT)
    with caplog.at_level(logging.INFO):
        got = _run(InsSegzeroEvaluator(_with(data, register, **changes)), *RIGHT)
    assert sum("thing segments" in r.message for r in caplog.records) == 1
    for task in ("bbox", "segm"):
        assert got[task] == pytest.approx(want[task], nan_ok=True)


def test_mistakes_are_named(data, register):
    with pytest.raises(UserError, match="INSTANCE_ON"):
        InsSegzsiEvaluator(data).process([{"image_id": 1}], [{"sem_seg": None}])
    with pytest.raises(UserError, match="class 3.*0..2"):
        InsSegzsiEvaluator(data).process([{"image_id": 1}], [{"instances": _instances((3, 0.9, 0, 3))}])
    with pytest.raises(UserError, match="keypoints"):
        InsSegzsiEvaluator(data, tasks=("keypoints",))
    with pytest.raises(UserError, match="gone.json"):
        InsSegzsiEvaluator(_with(data, register, json_file="gone.json")).evaluate()
    with pytest.raises(UserError, match="3 thing_classes but 2"):
        InsSegzsiEvaluator(_with(data, register, thing_dataset_id_to_contiguous_id={7: 0, 11: 1}))
