"""Every protocol of the paper from the downloads to the metrics, by the commands of the documentation, in small."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from PADing.data.embeddings import save_class_embeddings
from PADing.data.splits import load_split
from tests.end_to_end.command_line import REPOSITORY, results, run, train_net


@dataclass
class Protocol:
    """Configs of both stages, the task of the conversion, and a second set for ``--eval-only``."""

    pretrain: str
    pading: str
    task: str
    split: str
    val: str
    more: tuple[str, ...]
    metrics: tuple[tuple[str, str], ...]  # by which seen, unseen and harmonic mean are reported


PROTOCOLS = {
    "panoptic": Protocol(
        "panoptic-segmentation/pretrain.yaml",
        "panoptic-segmentation/PADing.yaml",
        "panoptic",
        "coco_panoptic_119_14",
        "coco_2017_val_panoptic_with_sem_seg",
        ("coco_2017_train_panoptic_zsi",),
        (("panoptic_seg", "PQ_hm"), ("segm", "AP50_hm"), ("sem_seg", "hIoU")),
    ),
    "instance_48_17": Protocol(
        "instance-segmentation/pretrain.yaml",
        "instance-segmentation/PADing.yaml",
        "instance",
        "coco_zsi_48_17",
        "coco_zsi_48_17_val",
        ("coco_zsi_48_17_val_unseen_only",),
        (("segm", "AP50_hm"), ("bbox", "AR50_hm")),
    ),
    "instance_65_15": Protocol(
        "instance-segmentation/pretrain_65_15.yaml",
        "instance-segmentation/PADing_65_15.yaml",
        "instance",
        "coco_zsi_65_15",
        "coco_zsi_65_15_val",
        ("coco_zsi_65_15_val_unseen_only",),
        (("segm", "AP50_hm"), ("bbox", "AR50_hm")),
    ),
    "semantic": Protocol(
        "semantic-segmentation/pretrain.yaml",
        "semantic-segmentation/PADing.yaml",
        "semantic",
        "coco_stuff_156_15",
        "coco_2017_val_all_stuff_sem_seg",
        ("coco_2017_test_stuff_seen_sem_seg", "coco_2017_val_unseen_stuff_seen_sem_seg"),
        (("sem_seg", "hIoU"),),
    ),
}


def both_stages(protocol: Protocol, data: Path, out: Path) -> Path:
    """Train stage 1, convert, train stage 2; returns its folder."""
    weights = out / f"pretrained_weight_{protocol.task}.pth"
    train_net("train_net_pretrain.py", protocol.pretrain, "MODEL.WEIGHTS", "", "OUTPUT_DIR", out / "1", data=data)
    convert = ["python", REPOSITORY / "tools" / "preprocess_pretrained_weight.py", "--task_name", protocol.task]
    run(convert, "--input_file", out / "1" / "model_final.pth", cwd=out)
    opts = ["MODEL.WEIGHTS", weights, "OUTPUT_DIR", out / "2"]
    train_net("train_net.py", protocol.pading, *opts, *vectors(protocol, out), data=data)
    return out / "2"


def vectors(protocol: Protocol, out: Path) -> list:
    """What stands in for the vectors of the published prompts: no test should fetch CLIP."""
    if protocol.task == "instance":
        return []  # word vectors, shipped
    if protocol.task == "semantic":
        return ["MODEL.CLASS_EMBEDDINGS", "embeddings/coco/coco_stuff_171_clip_vitb16.npz"]
    names = [category.name for category in load_split(split_file(protocol)).categories]
    path = out / "vectors.npz"
    save_class_embeddings(path, names, np.random.default_rng(0).normal(size=(len(names), 16)), "random numbers")
    return ["MODEL.CLASS_EMBEDDINGS", path]


def split_file(protocol: Protocol) -> Path:
    return REPOSITORY / "datasets" / "splits" / f"{protocol.split}.yaml"


def check_training(protocol: Protocol, out: Path) -> None:
    """Both losses of stage 2 were there; the segmenter stayed as it was, and the classifier did not."""
    lines = [json.loads(line) for line in (out / "2" / "metrics.json").read_text().splitlines()]
    assert {"gan_loss_total_loss", "id_loss_total_loss"} <= set(lines[-1] if len(lines) == 1 else lines[-2] | lines[-1])
    before = torch.load(out / f"pretrained_weight_{protocol.task}.pth", weights_only=True)["model"]
    checkpoint = torch.load(out / "2" / "model_final.pth", weights_only=True)
    after = checkpoint["model"]
    kept = [key for key in before if key.startswith(("backbone.", "sem_seg_head."))]
    assert kept and all(torch.equal(before[key], after[key]) for key in kept)
    split = load_split(split_file(protocol))
    classes = len(split.vocabulary(protocol.task, split.data_set(protocol.val).class_order))
    assert after["new_fc.weight"].shape == before["new_fc.weight"].shape == (classes + 1, 32)
    assert not torch.equal(before["new_fc.weight"], after["new_fc.weight"])
    assert {"optimizer", "optimizer_2", "scaler"} <= set(checkpoint)


def evaluate(protocol: Protocol, data: Path, out: Path, folder: str, *opts, **options) -> bytes:
    """``--eval-only`` of stage 2; returns the results file."""
    weights = ["MODEL.WEIGHTS", out / "2" / "model_final.pth", "OUTPUT_DIR", out / folder]
    train_net("train_net.py", protocol.pading, "--eval-only", *weights, *opts, data=data, **options)
    return (out / folder / "results.json").read_bytes()


def check_evaluation(protocol: Protocol, data: Path, out: Path) -> None:
    """One process, two processes and training's own last evaluation agree; several sets in one run are all there."""
    own = results(out / "2")
    assert list(own) == [protocol.val]
    for task, key in protocol.metrics:
        assert key in own[protocol.val][task]
    # No class embeddings are given here: evaluation needs none.
    one = evaluate(protocol, data, out, "one", "TEST.WRITE_PNG", "True")
    assert json.loads(one) == own
    assert evaluate(protocol, data, out, "two", processes=2) == one
    names = (protocol.val, *protocol.more)
    evaluate(protocol, data, out, "several", "DATASETS.TEST", str(names))
    several = results(out / "several")
    assert list(several) == list(names) and several[protocol.val] == own[protocol.val]
    assert all(several[name] for name in names)


def test_panoptic_from_downloads_to_metrics(drawn_coco, tmp_path):
    """The longest path that exists; if it breaks, the paper cannot be reproduced."""
    both_stages(PROTOCOLS["panoptic"], drawn_coco, tmp_path)
    check_training(PROTOCOLS["panoptic"], tmp_path)
    own = results(tmp_path / "2")["coco_2017_val_panoptic_with_sem_seg"]
    for task, key in PROTOCOLS["panoptic"].metrics:
        assert key in own[task]
    assert json.loads(evaluate(PROTOCOLS["panoptic"], drawn_coco, tmp_path, "one")) == results(tmp_path / "2")


@pytest.mark.slow
@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("tree", ["drawn_coco", "real_coco"])
def test_every_protocol(tree, name, request, tmp_path):
    """All configs run from the downloads to the metrics, in one process and in two."""
    data = request.getfixturevalue(tree)
    both_stages(PROTOCOLS[name], data, tmp_path)
    check_training(PROTOCOLS[name], tmp_path)
    check_evaluation(PROTOCOLS[name], data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("torchrun", [False, True], ids=["num-gpus", "torchrun"])
def test_second_stage_in_two_processes(drawn_coco, tmp_path, torchrun):
    """The published second stage works in one process only."""
    protocol = PROTOCOLS["instance_48_17"]
    weights = tmp_path / "pretrained_weight_instance.pth"
    train_net("train_net_pretrain.py", protocol.pretrain, "MODEL.WEIGHTS", "", "OUTPUT_DIR", tmp_path / "1",
              data=drawn_coco)  # fmt: skip
    convert = ["python", REPOSITORY / "tools" / "preprocess_pretrained_weight.py", "--task_name", "instance"]
    run(convert, "--input_file", tmp_path / "1" / "model_final.pth", cwd=tmp_path)
    opts = ["MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path / "2"]
    train_net("train_net.py", protocol.pading, *opts, data=drawn_coco, processes=2, torchrun=torchrun)
    check_training(protocol, tmp_path)
    ranks = torch.load(tmp_path / "2" / "model_final.pth", weights_only=True)["ranks"]["ranks"]
    assert len(ranks) == 2
    one = evaluate(protocol, drawn_coco, tmp_path, "one")
    assert json.loads(one) == results(tmp_path / "2")
    assert evaluate(protocol, drawn_coco, tmp_path, "two", processes=2, torchrun=torchrun) == one
