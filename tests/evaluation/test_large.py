"""Evaluation of many detections; wrong here means that a day of inference ends without memory, before any metric."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def _evaluate(images: int, folder: Path) -> dict:
    script = Path(__file__).with_name("large.py")
    out = subprocess.run([sys.executable, str(script), str(images), str(folder)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout.splitlines()[-1])


def test_results_are_written_as_one_list(tmp_path):
    """Every detection is in the file, and those made equal to the truth are found."""
    report = _evaluate(40, tmp_path)
    written = json.loads((tmp_path / "out1" / "coco_instances_results.json").read_text())
    assert len(written) == report["detections"] == 4000 and report["AR50"] == pytest.approx(100)
    assert {"image_id", "category_id", "score", "bbox", "segmentation"} == set(written[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read as Linux counts it")
def test_four_million_detections(tmp_path):
    """The size of COCO's val2014. As Python objects they would take 6 GB, copied and as one JSON text 25 GB."""
    report = _evaluate(40504, tmp_path)
    assert report["detections"] == 4_050_400
    assert report["MB_with_predictions"] < 2700 and report["MB_peak"] < 4000
