"""The first command of the README: if this fails, a newcomer's first minute does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# The metrics that results.json promises, by task.
METRICS = {
    "panoptic_seg": [f"{m}{part}" for m in ("PQ", "SQ", "RQ") for part in ("", "_th", "_st", "_se", "_un")] + ["PQ_hm"],
    "sem_seg": ["mIoU", "seen_IoU", "unseen_IoU", "hIoU"],
    "segm": ["AP", "AP50", "AP50_seen", "AP50_unseen", "AP50_hm"],
}


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quickstart")
    (folder / "users" / "mini").mkdir(parents=True)
    (folder / "users" / "mini" / "mini.json").write_text("the user's own 2,000 images")

    def run(*arguments):
        environment = {**os.environ, "DETECTRON2_DATASETS": str(folder / "users"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "tools/quickstart.py", "--smoke", "--out", str(folder / "out"), *arguments]
        return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900)

    return folder / "out", run


def test_the_main_job_runs_from_nothing_to_the_table(quickstart):
    out, run = quickstart
    result = run()
    assert result.returncode == 0, result.stdout + result.stderr
    results = json.loads((out / "results.json").read_text())
    assert results["seed"] == 1 and results["seconds"] > 0
    for model in ("baseline", "pading"):
        for task, names in METRICS.items():
            assert not set(names) - set(results[model][task]), (model, task)
    assert results["baseline"]["panoptic_seg"]["PQ_un"] == 0, "a seen-class model cannot name an unseen class"
    for image in ("losses.png", "pictures/overview.png"):
        assert (out / image).read_bytes().startswith(b"\x89PNG")
    table = result.stdout[result.stdout.index("Mini data set") :]
    assert "Mask2Former, seen classes only" in table and "PQ_un" in table
    # The data lie in the run's folder; those of the user are as they were.
    users = out.parent / "users"
    assert [p.name for p in users.rglob("*")] == ["mini", "mini.json"]
    assert (users / "mini" / "mini.json").read_text() == "the user's own 2,000 images"
    assert json.loads((out / "data" / "mini" / "mini.json").read_text())["settings"]["train"] == 24
    assert f"$ DETECTRON2_DATASETS={out / 'data'} python train_net_pretrain.py" in result.stdout


def test_a_second_run_repeats_nothing_and_another_seed_is_refused(quickstart):
    out, run = quickstart
    if not (out / "results.json").exists():
        pytest.skip("the first run did not finish")
    weights = (out / "pading" / "model_final.pth").stat().st_mtime_ns
    again = run()
    assert again.returncode == 0 and again.stdout.count("done before") == 4
    assert (out / "pading" / "model_final.pth").stat().st_mtime_ns == weights
    other = run("--seed", "2")
    assert other.returncode == 2 and "--fresh" in other.stderr
