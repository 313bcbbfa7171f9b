"""Evaluation in several processes; wrong here means metrics that depend on the number of GPUs."""

import json
import os
import subprocess
import sys
from pathlib import Path


def test_two_processes_give_the_metrics_of_one(tmp_path):
    script = Path(__file__).with_name("in_processes.py")
    for count in (1, 2):
        command = [sys.executable, str(script), str(count), str(tmp_path)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((tmp_path / f"results{count}.json").read_text()) for count in (1, 2))
    assert one["panoptic_seg"]["PQ_hm"] > 0 and one["segm"]["AP50_hm"] > 0 and one["sem_seg"]["hIoU"] > 0
    # Compared as text, because NaN is not equal to itself.
    assert json.dumps(one) == json.dumps(two)
    for name in ("panoptic_results.json", "instance_results.json", "sem_seg_results.json", "predictions.json"):
        assert (tmp_path / "out1" / name).read_bytes() == (tmp_path / "out2" / name).read_bytes()
