"""The three commands of D2Zero work as they are written: train, evaluate generalized, evaluate unseen classes only."""

import json
import os
import subprocess
import sys

import pytest

from .conftest import CONFIG, REPOSITORY, ZSIS

TINY = ["SOLVER.MAX_ITER", 2, "SOLVER.IMS_PER_BATCH", 2, "MODEL.MASK_FORMER.DEC_LAYERS", 3]
TINY += ["MODEL.MASK_FORMER.TRAIN_NUM_POINTS", 64, "INPUT.IMAGE_SIZE", 64, "MODEL.D2ZERO.UNSEEN_LOSS_WEIGHT", 0.5]


def run(root, script, *args, expect=0):
    environment = {**os.environ, "DETECTRON2_DATASETS": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / script), *map(str, args)],
        env=environment, cwd=root, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == expect, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("d2zero")
    run(root, "datasets/make_mini_coco.py", "--out", root / "mini", "--train", 8, "--val", 4)
    train(root, "out", *TINY)
    return root


def train(root, output, *opts, expect=0):
    vectors = ["MODEL.CLASS_EMBEDDINGS", root / "mini" / "class_vectors.npz", "OUTPUT_DIR", root / output]
    return run(root, "train_net.py", "--config-file", CONFIG, "--num-gpus", 0, *opts, *vectors, expect=expect)


def test_training_logs_every_loss_and_evaluates(trained):
    metrics = [json.loads(line) for line in (trained / "out" / "metrics.json").read_text().splitlines()]
    assert {"loss_ce", "loss_mask", "loss_dice", "loss_unseen", "loss_unseen_1"} <= set(metrics[0])
    assert {"AP50_seen", "AP50_unseen", "AP50_hm"} <= set(results(trained / "out")["segm"])


def test_unseen_classes_only(trained):
    opts = ["--eval-only", "MODEL.WEIGHTS", trained / "out" / "model_final.pth", *TINY, *ZSIS]
    train(trained, "zsis", *opts)
    found = results(trained / "zsis")
    assert {"AP@50", "R100@40", "R100@50", "R100@60"} <= set(found["segm_zsi"])


def test_a_set_of_the_other_setting_is_refused_in_one_sentence(trained):
    opts = ["--eval-only", "MODEL.WEIGHTS", trained / "out" / "model_final.pth", *TINY]
    errors = train(trained, "refused", *opts, "MODEL.MASK_FORMER.TEST.GENERALIZED", "False", expect=2)
    assert "GENERALIZED is False" in errors and "Traceback" not in errors


def results(folder):
    content = json.loads((folder / "results.json").read_text())
    return next(iter(content.values()))
