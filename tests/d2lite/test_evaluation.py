"""detectron2.evaluation; wrong here means stock metrics, or a loop around the model, unlike the genuine package's."""

import json
import logging
import math

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import (
    COCOEvaluator,
    COCOPanopticEvaluator,
    DatasetEvaluator,
    DatasetEvaluators,
    SemSegEvaluator,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image


class _Recorder(DatasetEvaluator):
    def __init__(self, result):
        self.result, self.seen = result, ["never reset"]

    def reset(self):
        self.seen = []

    def process(self, inputs, outputs):
        self.seen.append((inputs, outputs))

    def evaluate(self):
        return self.result


class _Doubler(torch.nn.Module):
    def forward(self, inputs):
        assert not self.training and not torch.is_grad_enabled()
        return [2 * x for x in inputs]


@pytest.fixture
def register():
    names = []

    def function(records=(), **metadata):
        name = f"d2lite_evaluation_{len(names)}"
        names.append(name)
        DatasetCatalog.register(name, lambda: list(records))
        MetadataCatalog.get(name).set(**metadata)
        return name

    yield function
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_inference_visits_every_batch_in_eval_mode_and_restores_the_mode():
    model = _Doubler().train()
    first, second = _Recorder({"a": {"x": 1.0}}), _Recorder({"b": {"y": 2.0}})
    results = inference_on_dataset(model, [[1, 2], [3]], [first, second])
    assert results == {"a": {"x": 1.0}, "b": {"y": 2.0}}
    assert first.seen == second.seen == [([1, 2], [2, 4]), ([3], [6])]
    assert model.training and torch.is_grad_enabled()


def test_no_evaluator_and_no_result_give_an_empty_dict():
    assert inference_on_dataset(_Doubler(), [[1]], None) == {}
    assert inference_on_dataset(_Doubler(), [[1]], _Recorder(None)) == {}


def test_a_model_that_fails_gets_its_mode_back():
    class Failing(torch.nn.Module):
        def forward(self, inputs):
            raise RuntimeError("broken")

    model = Failing().train()
    with pytest.raises(RuntimeError, match="broken"):
        inference_on_dataset(model, [[1]], None)


def test_progress_is_logged(run_standin):
    text = run_standin(
        """
import logging
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
from detectron2.evaluation import inference_on_dataset
inference_on_dataset(lambda batch: batch, [[i] for i in range(12)], None)
"""
    )
    assert "Start inference on 12 batches" in text and "Inference done 11/12." in text
    assert "Dataloading:" in text and "ETA=0:00:00" in text
    assert "Total inference time: 0:00:00" in text and "s / iter per device, on 1 devices" in text


def test_two_evaluators_may_not_give_the_same_task():
    with pytest.raises(AssertionError, match="same key a"):
        DatasetEvaluators([_Recorder({"a": 1}), _Recorder({"a": 2})]).evaluate()


def test_results_are_printed_for_pasting(caplog):
    with caplog.at_level(logging.INFO):
        print_csv_format({"segm": {"AP": 12.34567, "AP-cat": 1.0, "AP50": float("nan")}, "speed": 3})
    assert [r.message for r in caplog.records] == [
        "copypaste: Task: segm",
        "copypaste: AP,AP50",
        "copypaste: 12.3457,nan",
        "copypaste: speed=3",
    ]


def test_expected_results_are_verified():
    cfg = CfgNode({"TEST": {"EXPECTED_RESULTS": [["segm", "AP", 30.0, 0.5]]}})
    assert verify_results(cfg, {"segm": {"AP": 30.4}})
    for wrong in ({"AP": 31.0}, {"AP": math.nan}, {"AP": math.inf}, {"AP": None}, {}):
        with pytest.raises(SystemExit) as error:
            verify_results(cfg, {"segm": wrong})
        assert error.value.code == 1
    assert verify_results(CfgNode({"TEST": {"EXPECTED_RESULTS": []}}), {})


def test_nested_results_are_flattened():
    assert flatten_results_dict({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a/b": 1, "a/c/d": 2, "e": 3}


# ---- evaluators


@pytest.fixture
def coco(tmp_path, register):
    """One image with a cat (id 30, found) and a dog (id 7, missed); the classes' order is not that of the ids."""
    mask = np.zeros((8, 8), dtype=np.uint8, order="F")
    mask[:4, :4] = 1
    rle = mask_util.encode(mask)
    rle = {"size": [8, 8], "counts": rle["counts"].decode()}
    objects = [
        {"id": i, "image_id": 5, "category_id": c, "iscrowd": 0, "area": 16, "bbox": [0, 0, 4, 4], "segmentation": rle}
        for i, c in ((1, 30), (2, 7))
    ]
    content = {
        "info": {},
        "images": [{"id": 5, "height": 8, "width": 8}],
        "categories": [{"id": 30, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": objects,
    }
    (tmp_path / "gt.json").write_text(json.dumps(content))
    name = register(
        json_file=str(tmp_path / "gt.json"),
        thing_classes=["dog", "cat"],
        thing_dataset_id_to_contiguous_id={7: 0, 30: 1},
    )
    instances = Instances((8, 8))
    instances.pred_boxes = Boxes(torch.tensor([[0.0, 0.0, 4.0, 4.0]]))
    instances.scores = torch.tensor([0.5])
    instances.pred_classes = torch.tensor([1])
    instances.pred_masks = torch.from_numpy(np.ascontiguousarray(mask)).bool()[None]
    return name, instances


@pytest.mark.parametrize("fast", [True, False])
def test_coco_metrics(coco, tmp_path, fast):
    name, instances = coco
    evaluator = COCOEvaluator(name, output_dir=str(tmp_path / "out"), use_fast_impl=fast)
    evaluator.reset()
    evaluator.process([{"image_id": 5}], [{"instances": instances}])
    results = evaluator.evaluate()
    assert list(results) == ["bbox", "segm"]
    for metrics in results.values():
        assert list(metrics) == ["AP", "AP50", "AP75", "APs", "APm", "APl", "AP-dog", "AP-cat"]
        assert metrics["AP"] == pytest.approx(50) and metrics["APs"] == pytest.approx(50) and math.isnan(metrics["APl"])
        assert metrics["AP-cat"] == pytest.approx(100) and metrics["AP-dog"] == pytest.approx(0)
    detection = json.loads((tmp_path / "out" / "coco_instances_results.json").read_text())[0]
    assert detection["category_id"] == 30 and detection["bbox"] == [0, 0, 4, 4]
    assert (tmp_path / "out" / "instances_predictions.pth").is_file()


def test_coco_without_predictions_is_undefined(coco):
    name, instances = coco
    evaluator = COCOEvaluator(name, tasks=("bbox",))
    evaluator.reset()
    evaluator.process([{"image_id": 5}], [{"instances": instances[:0]}])
    assert all(math.isnan(value) for value in evaluator.evaluate()["bbox"].values())


def test_coco_refuses_an_unknown_class(coco):
    name, instances = coco
    instances.pred_classes = torch.tensor([2])
    evaluator = COCOEvaluator(name)
    evaluator.reset()
    evaluator.process([{"image_id": 5}], [{"instances": instances}])
    with pytest.raises(AssertionError, match="class=2"):
        evaluator.evaluate()


def test_coco_file_is_written_for_a_data_set_without_one(coco, tmp_path, register):
    image = {"file_name": "a.jpg", "image_id": 5, "height": 8, "width": 8}
    cat = {"bbox": [0, 0, 4, 4], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1, "iscrowd": 0}
    name = register([{**image, "annotations": [cat]}], thing_classes=["dog", "cat"])
    with pytest.raises(ValueError, match="output_dir"):
        COCOEvaluator(name)
    evaluator = COCOEvaluator(name, tasks=("bbox",), output_dir=str(tmp_path / "out"))
    evaluator.reset()
    evaluator.process([{"image_id": 5}], [{"instances": coco[1]}])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100)
    assert (tmp_path / "out" / f"{name}_coco_format.json").is_file()


def test_semantic_metrics(tmp_path, register):
    Image.fromarray(np.array([[0, 0, 1, 255]], dtype=np.uint8)).save(tmp_path / "a.png")
    record = {"file_name": "a.jpg", "sem_seg_file_name": str(tmp_path / "a.png")}
    classes = ["wall", "cat", "sky"]
    ids = {9: 0, 5: 1, 6: 2}
    name = register([record], stuff_classes=classes, ignore_label=255, stuff_dataset_id_to_contiguous_id=ids)
    evaluator = SemSegEvaluator(name, output_dir=str(tmp_path / "out"))
    evaluator.reset()
    scores = torch.nn.functional.one_hot(torch.tensor([[0, 2, 1, 1]]), 3).permute(2, 0, 1)
    evaluator.process([record], [{"sem_seg": scores}])
    metrics = evaluator.evaluate()["sem_seg"]
    # wall 1 of 2, cat 1 of 1; sky is predicted but not in the truth, so mIoU leaves it out.
    assert metrics["mIoU"] == pytest.approx(75) and metrics["pACC"] == pytest.approx(200 / 3)
    assert metrics["fwIoU"] == pytest.approx((2 * 50 + 100) / 3) and math.isnan(metrics["IoU-sky"])
    entries = json.loads((tmp_path / "out" / "sem_seg_predictions.json").read_text())
    assert [entry["category_id"] for entry in entries] == [9, 5, 6]


def test_panoptic_metrics(tmp_path, register):
    (tmp_path / "gt").mkdir()
    true = np.array([[70001, 70001, 4, 4]])
    channels = np.stack([true % 256, true // 256 % 256, true // 65536], axis=-1)
    Image.fromarray(channels.astype(np.uint8)).save(tmp_path / "gt" / "a.png")
    segments = [{"id": i, "category_id": c, "iscrowd": 0, "area": 2} for i, c in ((70001, 30), (4, 7))]
    content = {
        "images": [{"id": 1}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 30, "name": "cat", "isthing": 1}, {"id": 7, "name": "sky", "isthing": 0}],
    }
    (tmp_path / "gt.json").write_text(json.dumps(content))
    name = register(
        panoptic_json=str(tmp_path / "gt.json"),
        panoptic_root=str(tmp_path / "gt"),
        thing_dataset_id_to_contiguous_id={30: 0},
        stuff_dataset_id_to_contiguous_id={30: 0, 7: 1},
        label_divisor=1000,
    )
    record = {"image_id": 1, "file_name": "images/a.jpg"}
    listed = [{"id": 1, "category_id": 0, "isthing": True}, {"id": 2, "category_id": 1, "isthing": False}]
    for prediction in ((torch.tensor([[1, 1, 2, 0]]), listed), (torch.tensor([[0, 0, 1000, -1]]), None)):
        evaluator = COCOPanopticEvaluator(name, str(tmp_path / "out"))
        evaluator.reset()
        evaluator.process([record], [{"panoptic_seg": prediction}])
        metrics = evaluator.evaluate()["panoptic_seg"]
        # The sky has IoU 1/2, which is no match.
        assert metrics["PQ_th"] == pytest.approx(100) and metrics["PQ_st"] == 0 and metrics["PQ"] == pytest.approx(50)
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())["annotations"]
    assert written[0]["file_name"] == "a.png" and [s["category_id"] for s in written[0]["segments_info"]] == [30, 7]


# ---- the stand-in alone


def test_what_is_left_out_is_said(run_standin):
    out = run_standin(
        """
try:
    from detectron2.evaluation import LVISEvaluator
except ImportError as error:
    print(error)
"""
    )
    assert "LVISEvaluator" in out and "d2lite" in out


def test_fast_coco_evaluation_has_a_fallback(run_standin):
    out = run_standin(
        """
from detectron2.evaluation.fast_eval_api import COCOeval_opt
print(COCOeval_opt.__name__)
import sys
del sys.modules["detectron2.evaluation.fast_eval_api"]
sys.modules["faster_coco_eval"] = None
import importlib
print(importlib.import_module("detectron2.evaluation.fast_eval_api").COCOeval_opt.__module__)
"""
    ).splitlines()
    assert out[0] in ("COCOeval_faster", "COCOeval") and out[1] == "pycocotools.cocoeval"
