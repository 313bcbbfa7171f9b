"""Evaluators against recorded results of the published ones; else our metrics cannot stand beside published metrics."""

import itertools
import json
import math
import re

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from panopticapi.evaluation import pq_compute
from PIL import Image

from PADing.evaluation import (
    InsSegzeroEvaluator,
    InsSegzsiEvaluator,
    PanopticzeroEvaluator,
    SemSegGzeroEvaluator,
    coco_eval_revise,
)
from PADing.evaluation.coco_metrics import ZSI_IOU, evaluate_detections, load_ground_truth
from tests.golden.util import GOLDEN, requires_golden

pytestmark = requires_golden

FOLDER = GOLDEN / "evaluators"
TOLERANCE = 1e-9
_COUNTER = itertools.count()


def _read(name: str):
    path = FOLDER / name
    return json.loads(path.read_text()) if path.is_file() else {}


INSTANCE = _read("instance_expected.json")
WHOLE = [case for case, expected in INSTANCE.items() if "evaluator_end_to_end" in expected]
SEMANTIC = _read("semantic_expected.json")


@pytest.fixture
def dataset():
    """``dataset(recorded name, records, **changed metadata) -> name``: the recorded metadata with the test's files."""
    names = []

    def register(recorded: str, records=(), **changes) -> str:
        fields = json.loads((GOLDEN / "datasets_metadata.json").read_text())["datasets"][recorded]
        fields = {key: value for key, value in fields.items() if key not in ("name", "files") and value is not None}
        for key in ("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id"):
            if key in fields:
                fields[key] = {int(dataset_id): contiguous for dataset_id, contiguous in fields[key].items()}
        name = f"golden_evaluation_{next(_COUNTER)}"
        names.append(name)
        DatasetCatalog.register(name, lambda: list(records))
        MetadataCatalog.get(name).set(**{**fields, **changes})
        return name

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def _assert_equal(got: float, want: float | None, label: str):
    if want is None:
        assert math.isnan(got), label
    else:
        assert got == pytest.approx(want, rel=TOLERANCE, abs=1e-12), label


# ---- instances


def _ground_truth(case: str) -> dict:
    expected = INSTANCE[case]
    content = _read(expected.get("ground_truth", f"instance_{case}_gt.json").split()[0])
    if "category_ids_in_order" in expected:
        by_id = {category["id"]: category for category in content["categories"]}
        content["categories"] = [by_id[i] for i in expected["category_ids_in_order"]]
    return content


def _results_file(case: str) -> str:
    return INSTANCE[case].get("results", f"instance_{case}_results.json")


@pytest.mark.parametrize("case", INSTANCE)
def test_rows_of_the_generalized_metrics(case):
    expected = INSTANCE[case]
    rows = coco_eval_revise(
        str(FOLDER / _results_file(case)),
        expected["types"],
        _ground_truth(case),
        gzsd=expected["generalized"],
        num_seen_classes=expected["num_seen_classes"],
    )
    assert len(rows) == len(expected["returned_rows"])
    for row, want in zip(rows, expected["returned_rows"], strict=True):
        assert row == pytest.approx(tuple(math.nan if w is None else w for w in want), rel=TOLERANCE, nan_ok=True)


@pytest.mark.parametrize("case", INSTANCE)
def test_precision_and_recall_of_every_class(case):
    truth, detections = load_ground_truth(_ground_truth(case)), _read(_results_file(case))
    for kind, want in INSTANCE[case]["modified_coco_eval"].items():
        metrics = evaluate_detections(truth, detections, kind, iou=want["iou"], max_dets=want["max_dets"])
        columns = [metrics.category_ids.index(i) for i in want["category_ids_in_axis_order"]]
        for got, recorded in (
            (metrics.precision[:, columns, 0], want["AP_per_iou_and_category"]),
            (metrics.recall[:, columns, 0, -1], want["recall_per_iou_and_category"]),
        ):
            np.testing.assert_allclose(got, np.array(recorded, dtype=float), rtol=TOLERANCE, atol=1e-12)
        stats = [f(t) for f in (metrics.ap, metrics.ar) for t in ZSI_IOU]
        assert stats == pytest.approx(want["stats"][:3] + want["stats"][6:9], rel=TOLERANCE)


def _instances(items: list[dict], height: int, width: int, contiguous: dict[int, int]) -> Instances:
    instances = Instances((height, width))
    boxes = torch.tensor([d["bbox"] for d in items]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    instances.pred_boxes = Boxes(boxes)
    instances.scores = torch.tensor([d["score"] for d in items])
    instances.pred_classes = torch.tensor([contiguous[d["category_id"]] for d in items], dtype=torch.int64)
    masks = [mask_util.decode(d["segmentation"]) for d in items]
    instances.pred_masks = torch.as_tensor(np.array(masks, dtype=np.float32).reshape(-1, height, width))
    return instances


def _whole_evaluator(evaluator_class, name: str, truth: dict, detections: list[dict], folder) -> dict:
    contiguous = MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id
    evaluator = evaluator_class(name, output_dir=str(folder))
    for image in truth["images"]:
        items = [d for d in detections if d["image_id"] == image["id"]]
        output = {"instances": _instances(items, image["height"], image["width"], contiguous)}
        evaluator.process([{"image_id": image["id"]}], [output])
    return evaluator.evaluate()


def _check_whole(result: dict, expected: dict, names_by_id: dict[int, str], folder) -> None:
    for task, want in expected["evaluator_end_to_end"]["returned"].items():
        stock = [key for key in want if not key.startswith("AP-")]
        for key in stock:
            _assert_equal(result[task][key], want[key], f"{task} {key}")
        # The recorded AP-<class> labels are permuted where ids are not sorted; these carry the category id.
        per_id = expected["pycocotools_unmodified"][task]["per_category_id_area_all_maxdets_100"]
        for category_id, name in names_by_id.items():
            values = per_id[str(category_id)]["AP_per_iou"]
            recorded = None if values[0] is None else 100 * sum(values) / len(values)
            _assert_equal(result[task][f"AP-{name}"], recorded, f"{task} AP-{name}")
        assert sorted(k for k in result[task] if k.startswith("AP-")) == sorted(k for k in want if k.startswith("AP-"))
    for file in expected["evaluator_end_to_end"]["files_written"]:
        assert (folder / file).is_file()


@pytest.mark.parametrize("case", WHOLE)
def test_the_whole_instance_evaluator(case, dataset, tmp_path):
    expected, truth = INSTANCE[case], _ground_truth(case)
    name = dataset(expected["dataset"], json_file=str(FOLDER / f"instance_{case}_gt.json"))
    result = _whole_evaluator(InsSegzsiEvaluator, name, truth, _read(_results_file(case)), tmp_path)
    meta = MetadataCatalog.get(name)
    names = {i: meta.thing_classes[c] for i, c in meta.thing_dataset_id_to_contiguous_id.items()}
    _check_whole(result, expected, names, tmp_path)
    if expected["generalized"]:
        for task, want in zip(expected["types"], expected["returned_rows"], strict=True):
            keys = ("AP50_seen", "AP50_unseen", "AR50_seen", "AR50_unseen", "AP50_hm", "AR50_hm")
            for key, value in zip(keys, want, strict=True):
                _assert_equal(result[task][key], value, f"{task} {key}")
    else:
        for task, want in expected["modified_coco_eval"].items():
            recorded = [100 * v for v in want["stats"][:3] + want["stats"][6:9]]
            assert list(result[f"{task}_zsi"].values()) == pytest.approx(recorded, rel=TOLERANCE)


def test_the_instance_evaluator_of_panoptic_sets(dataset, tmp_path):
    expected = _read("panoptic_instances_expected.json")
    truth = _read("panoptic_instances_gt.json")
    name = dataset(expected["dataset"], json_file=str(FOLDER / "panoptic_instances_gt.json"))
    detections = _read("panoptic_instances_results.json")
    result = _whole_evaluator(InsSegzeroEvaluator, name, truth, detections, tmp_path)
    meta = MetadataCatalog.get(name)
    names = {i: meta.thing_classes[c] for i, c in meta.thing_dataset_id_to_contiguous_id.items()}
    _check_whole(result, expected, names, tmp_path)
    # The published evaluator prints its seen and unseen means, boxes first, each twice.
    lines = expected["evaluator_end_to_end"]["lines"]
    for group, key in (("Seen", "AP_seen"), ("Unseen", "AP_unseen")):
        matches = [re.match(rf"{group}-classes AP: *([\d.]+)$", line) for line in lines]
        printed = [float(match.group(1)) for match in matches if match]
        assert len(printed) == 4
        for task, value in zip(("bbox", "segm"), printed[::2], strict=True):
            _assert_equal(result[task][key], value, f"{task} {key}")


# ---- panoptic


@pytest.fixture
def panoptic(dataset, tmp_path):
    """Evaluator, its result and the recorded one, with the recorded maps written as PNG."""
    expected, truth = _read("panoptic_expected.json"), _read("panoptic_gt.json")
    with np.load(FOLDER / "panoptic_maps.npz") as maps:
        true_maps, predicted_maps = maps["gt"], maps["pred"]
    (tmp_path / "gt").mkdir()
    for annotation, ids in zip(truth["annotations"], true_maps, strict=True):
        channels = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
        Image.fromarray(channels.astype(np.uint8)).save(tmp_path / "gt" / annotation["file_name"])
    name = dataset(
        expected["dataset"], panoptic_json=str(FOLDER / "panoptic_gt.json"), panoptic_root=str(tmp_path / "gt")
    )
    evaluator = PanopticzeroEvaluator(name, str(tmp_path / "out"), write_png=True)
    files = {image["id"]: image["file_name"] for image in truth["images"]}
    for prediction, ids in zip(_read("panoptic_predictions.json"), predicted_maps, strict=True):
        record = {"image_id": prediction["image_id"], "file_name": files[prediction["image_id"]]}
        evaluator.process([record], [{"panoptic_seg": (torch.as_tensor(ids), prediction["segments_info"])}])
    return evaluator, evaluator.evaluate()["panoptic_seg"], expected


def test_panoptic_quality(panoptic):
    _, result, expected = panoptic
    want = expected["returned"]["panoptic_seg"]
    assert [key for key in result if not key.endswith("_hm")] == list(want)
    for key, value in want.items():
        _assert_equal(result[key], value, key)
    for metric in ("PQ", "SQ", "RQ"):
        seen, unseen = result[f"{metric}_se"], result[f"{metric}_un"]
        assert result[f"{metric}_hm"] == pytest.approx(2 * seen * unseen / (seen + unseen))


def test_unseen_classes_and_metrics_of_every_class(panoptic, tmp_path):
    evaluator, _, expected = panoptic
    unseen = [evaluator.classes.dataset_ids[i] for i in evaluator.classes.unseen]
    assert sorted(unseen) == sorted(expected["unseen_dataset_ids"])
    per_class = json.loads((tmp_path / "out" / "panoptic_results.json").read_text())["per_class"]
    assert len(per_class) == len(expected["per_class_dataset_id"])
    for entry in per_class:
        want = expected["per_class_dataset_id"][str(entry["id"])]
        for metric, value in want.items():
            _assert_equal(entry[metric.upper()], 100 * value, f"{entry['name']} {metric}")


def test_predictions_on_disk_are_those_that_coco_tools_expect(panoptic, tmp_path):
    _, result, expected = panoptic
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())["annotations"]
    fields = ("id", "category_id")
    for entry in written:
        entry["segments_info"] = [{key: s[key] for key in fields} for s in entry["segments_info"]]
    assert written == [
        {**entry, "segments_info": [{key: s[key] for key in fields} for s in entry["segments_info"]]}
        for entry in expected["predictions_json_annotations"]
    ]
    out = tmp_path / "out"
    quality = pq_compute(
        str(FOLDER / "panoptic_gt.json"), str(out / "predictions.json"), str(tmp_path / "gt"), str(out / "panoptic_png")
    )
    for group, suffix in (("All", ""), ("Things", "_th"), ("Stuff", "_st")):
        for metric in ("pq", "sq", "rq", "n"):
            _assert_equal(quality[group][metric], expected["summary"][group][metric], f"{group} {metric}")
            if metric != "n":
                _assert_equal(result[metric.upper() + suffix], 100 * quality[group][metric], f"{group} {metric}")


# ---- semantic


@pytest.mark.parametrize("case", SEMANTIC)
def test_semantic_metrics(case, dataset, tmp_path):
    expected = SEMANTIC[case]
    with np.load(FOLDER / f"semantic_{case}.npz") as maps:
        true_maps, predicted_maps = maps["gt"], maps["pred"]
    records = []
    for number, labels in enumerate(true_maps):
        path = tmp_path / f"{number}.png"
        Image.fromarray(labels).save(path)
        records.append({"file_name": f"{number}.jpg", "sem_seg_file_name": str(path)})
    name = dataset(expected["dataset"], records)
    evaluator = SemSegGzeroEvaluator(name, True, str(tmp_path / "out"))
    classes = len(MetadataCatalog.get(name).stuff_classes)
    for record, labels in zip(records, predicted_maps, strict=True):
        scores = torch.nn.functional.one_hot(torch.as_tensor(labels).long(), classes).permute(2, 0, 1).float()
        evaluator.process([record], [{"sem_seg": scores}])
    result = evaluator.evaluate()["sem_seg"]
    assert list(result) == [*expected["keys_in_order"], "hIoU"]
    for key, value in expected["returned"].items():
        _assert_equal(result[key], value, key)
    for file in expected["files_written"]:
        assert (tmp_path / "out" / file).is_file()
