"""Evaluation in several processes; wrong here means metrics that depend on the number of GPUs."""

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from detectron2.utils import comm

from PADing.evaluation.coco_matching import in_order_of_images, match_images, precision_recall
from PADing.evaluation.coco_metrics import evaluate_detections, image_sizes, load_ground_truth
from PADing.evaluation.detections import by_image
from PADing.evaluation.processes import Processes, _gloo_group, packed
from tests.evaluation.test_coco_metrics import _scene

METRICS = ("panoptic_results.json", "instance_results.json", "sem_seg_results.json", "predictions.json")
LISTS = ("coco_instances_results.json", "sem_seg_predictions.json")
OBJECTS = ("instances_predictions.pth", "sem_seg_evaluation.pth")


def _run(folder: Path, *arguments) -> Path:
    """The folder of the results of ``in_processes.py``."""
    script = Path(__file__).with_name("in_processes.py")
    name, count, split, *fault = arguments
    command = [sys.executable, str(script), name, str(count), split, str(folder), *fault]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / name


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Results of one process."""
    folder = _run(tmp_path_factory.mktemp("processes"), "one", 1, "blocks")
    results = json.loads(folder.with_name("one.json").read_text())
    assert results["panoptic_seg"]["PQ_hm"] > 0 and results["segm"]["AP50_hm"] > 0 and results["sem_seg"]["hIoU"] > 0
    return folder


@pytest.mark.parametrize(
    ("count", "split"),
    [
        (2, "blocks"),
        pytest.param(2, "strided", marks=pytest.mark.slow),
        pytest.param(3, "uneven", marks=pytest.mark.slow),
    ],
)
def test_several_processes_give_the_metrics_of_one(one, count, split):
    """Byte by byte, and so are the predictions if each process has neighbouring images, even if one has none."""
    several = _run(one.parent, split, count, split)
    # Compared as text, because NaN is not equal to itself.
    assert one.with_name("one.json").read_text() == several.with_name(f"{split}.json").read_text()
    names = METRICS if split == "strided" else (*METRICS, *LISTS)
    assert {path.name for path in several.iterdir()} == {*METRICS, *LISTS, *OBJECTS}
    for name in names:
        assert (several / name).read_bytes() == (one / name).read_bytes(), name
    for name in OBJECTS if split != "strided" else ():
        contents = [torch.load(folder / name, weights_only=True) for folder in (one, several)]
        assert repr(contents[0]) == repr(contents[1]) and contents[0]  # as text, because of NaN
    for name in LISTS:
        lines = [sorted((folder / name).read_text().replace(",\n", "\n").splitlines()) for folder in (one, several)]
        assert lines[0] == lines[1] and len(lines[0]) > 9


def _problems(several: Path) -> list[list[str]]:
    return [json.loads(several.with_name(f"{several.name}.problems{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
def test_a_full_disk_is_one_message_of_all_processes(one):
    """The others must not wait for a process that can write no more; nor may half a file stay."""
    several = _run(one.parent, "full", 2, "blocks", "full")
    problems = _problems(several)
    assert problems[0] == problems[1] and len(problems[0]) == 3
    assert all(text.startswith("Disk full: ") for text in problems[0])
    assert any("coco_instances_results.json" in text for text in problems[0])
    for path in several.glob("*.json"):
        assert path.read_bytes() == (one / path.name).read_bytes()


@pytest.mark.slow
def test_a_mistake_that_one_process_finds_is_told_by_all(one):
    problems = _problems(_run(one.parent, "foreign", 2, "blocks", "foreign"))
    assert problems[0] == problems[1] == ["There is a detection for image 77, which the annotation does not have."]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_parts_of_the_images_matched_apart_are_as_all_together(kind):
    """Bit by bit; the scenes have equal scores in several images, whose order then decides."""
    iou, max_dets = (0.3, 0.5, 0.75), (1, 4, 10)
    for seed in range(40):
        content, detections = _scene(seed)
        want = evaluate_detections(load_ground_truth(content), detections, kind, iou=iou, max_dets=max_dets)
        outcomes, totals, lengths = [], 0, []
        for images in ({3, 0}, {2}, set(), {1}):
            truth = load_ground_truth(content, lambda ids, images=images: images & set(ids))
            found = by_image([d for d in detections if d["image_id"] in images], image_sizes(truth), "")
            outcome, own, own_lengths = match_images(truth, found, kind, iou, want.category_ids, 10, False)
            outcomes.append(outcome)
            totals, lengths = totals + own, lengths + own_lengths
        columns = [np.concatenate([getattr(o, name) for o in outcomes]) for name in vars(outcomes[0])]
        joined = in_order_of_images(type(outcomes[0])(*columns), lengths)
        precision, recall = precision_recall(joined, totals, len(iou), max_dets)
        np.testing.assert_array_equal(precision, want.precision)
        np.testing.assert_array_equal(recall, want.recall)


def test_a_single_process_needs_no_exchange():
    alone = Processes(distributed=False)
    assert alone.all(3) == [3] and alone.on_main(lambda: 4) == 4 and alone.items(iter("ab")) == ["a", "b"]
    assert alone.in_order([b"x", b"y"], list) == [b"x", b"y"]
    assert b",".join(packed([b"a"] * 9, b",")) == b",".join([b"a"] * 9) and not list(packed([], b","))


def test_groups_of_gloo_end_with_the_job(tmp_path, monkeypatch):
    """A group that is still there when Python ends may abort the process, after all results are written."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        world, true_name = dist.group.WORLD, dist.get_backend
        monkeypatch.setattr(dist, "get_backend", lambda g=None: "nccl" if g in (None, world) else true_name(g))
        makers = [lambda: _gloo_group(world)]
        if hasattr(comm, "_gloo_group"):  # d2lite's
            monkeypatch.setattr(comm, "_timeout", lambda: None)  # it asks NCCL
            makers.append(comm._gloo_group)
        groups = []
        for make in makers:
            group = make()
            assert group is make() and group is not world
            groups.append(weakref.ref(group))
        del group
    finally:
        monkeypatch.undo()
        dist.destroy_process_group()
    assert all(group() is None for group in groups)
