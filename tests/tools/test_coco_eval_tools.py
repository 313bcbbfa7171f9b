"""The two COCO evaluation tools; wrong here means that the published commands do not work on a result file."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def _run(tool, *args):
    command = [sys.executable, str(TOOLS / tool), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/")


@pytest.fixture
def files(tmp_path):
    """A wolf (found) and a bear (missed) in one image."""
    polygon = [[0, 0, 4, 0, 4, 4, 0, 4]]
    objects = [
        {"id": i, "image_id": 1, "category_id": c, "bbox": [0, 0, 4, 4], "segmentation": polygon}
        for i, c in ((1, 30), (2, 7))
    ]
    truth = {
        "images": [{"id": 1, "height": 8, "width": 8, "file_name": "1.jpg"}],
        "categories": [{"id": 30, "name": "grey wolf"}, {"id": 7, "name": "bear"}],
        "annotations": objects,
    }
    detection = {"image_id": 1, "category_id": 30, "score": 0.5, "bbox": [0, 0, 4, 4]}
    detection["segmentation"] = {"size": [8, 8], "counts": [0, 4, 4, 4, 4, 4, 4, 4, 36]}
    split = {
        "name": "x",
        "categories": [{"id": 30, "name": "grey wolf"}, {"id": 7, "name": "bear"}],
        "unseen": ["grey wolf"],
        "data_sets": [],
    }
    paths = []
    for name, content in (("ann.json", truth), ("result.json", [detection]), ("split.yaml", split)):
        paths.append(tmp_path / name)
        paths[-1].write_text(json.dumps(content))
    return paths


@pytest.mark.parametrize("unseen", [["grey wolf"], "split"])
def test_generalized_metrics(files, unseen):
    ann, result, split = files
    unseen = [split] if unseen == "split" else unseen
    done = _run("gzsi_coco_eval.py", result, "--ann", ann, "--gzsi", "--unseen", *unseen, "--types", "segm", "bbox")
    assert done.returncode == 0, done.stderr
    for kind in ("segm", "bbox"):
        assert f"{kind}: AP50_seen 0.0000, AP50_unseen 100.0000, AR50_seen 0.0000, AR50_unseen 100.0000" in done.stdout


def test_seen_classes_by_number_and_boxes_by_default(files):
    ann, result, _ = files
    done = _run("gzsi_coco_eval.py", result, "--ann", ann, "--gzsi", "--num-seen-classes", 1, "--classwise")
    assert done.returncode == 0, done.stderr
    assert "bbox: AP50_seen 100.0000, AP50_unseen 0.0000" in done.stdout and "segm" not in done.stdout
    assert "grey wolf" in done.stdout


def test_zero_shot_metrics(files):
    ann, result, _ = files
    done = _run("zsi_coco_eval.py", result, "--ann", ann)
    assert done.returncode == 0, done.stderr
    for threshold in ("0.40", "0.50", "0.60"):
        assert f"(AR) @[ IoU={threshold} | area=all | maxDets=100 ] = 0.500" in done.stdout


def test_classes_that_are_not_listed_are_said(files):
    """A model's own class numbers, from 0 on, would score 0 without a word."""
    annotation, result, _ = files
    (detection,) = json.loads(result.read_text())
    result.write_text(json.dumps([{**detection, "category_id": 0}]))
    run = _run("zsi_coco_eval.py", result, "--ann", annotation)
    assert run.returncode == 2 and "1 of 1 detections are of categories" in run.stderr and "(ids 0)" in run.stderr
    result.write_text(json.dumps([detection, {**detection, "category_id": 0}]))
    run = _run("zsi_coco_eval.py", result, "--ann", annotation)
    assert run.returncode == 0 and "1 of 2 detections are of categories" in run.stdout + run.stderr
    truth = json.loads(annotation.read_text())
    truth["annotations"][0]["category_id"] = 31
    annotation.write_text(json.dumps(truth))
    run = _run("zsi_coco_eval.py", result, "--ann", annotation)
    assert run.returncode == 0 and "1 of 2 annotations are of categories" in run.stdout + run.stderr


def test_a_mistake_is_one_line_without_traceback(files):
    ann, result, _ = files
    done = _run("gzsi_coco_eval.py", result, "--ann", ann, "--unseen", "dragon")
    assert done.returncode == 2 and "dragon" in done.stderr
    assert "Traceback" not in done.stderr
    assert _run("zsi_coco_eval.py", result, "--ann", ann, "--types", "keypoint").returncode == 2
    assert _run("zsi_coco_eval.py", result, "--ann", ann, "--max-dets", "0").returncode == 2
    result.write_text("[1]")
    done = _run("zsi_coco_eval.py", result, "--ann", ann)
    assert done.returncode == 2 and "result.json" in done.stderr and "Traceback" not in done.stderr
