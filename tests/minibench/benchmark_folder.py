"""Benchmark folders made by hand: invented metrics, and runs whose predictions are the truth with known mistakes."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from minibench.methods import Method
from minibench.plan import Plan
from minibench.runs import RECORD
from minibench.settings import Settings
from PADing.data.mini import UNSEEN
from PADing.data.mini_files import make_mini_coco

METRICS_OF = {
    "panoptic_seg": ("PQ_se", "PQ_un", "PQ_hm"),
    "sem_seg": ("seen_IoU", "unseen_IoU", "hIoU"),
    "segm": ("AP50_seen", "AP50_unseen", "AP50_hm"),
}
DATA = "data/v1-compositional-seed1-2-6-64px-noise0.15"


def method(name: str, task: str = "panoptic", ablates: str = "", removes: str = "", title: str = "", **more) -> dict:
    """An entry of ``methods`` in results.json; roles that are not named are those of the repository's method."""
    title = title or name.capitalize()
    entry = {"name": name, "title": title, "task": task, "ablates": ablates, "removes": removes}
    return {**entry, "iterations": 500, **more}


def run(name: str, seed: int, metrics: dict[str, tuple]) -> dict:
    """An entry of ``runs``; ``metrics``: task -> (seen, unseen, harmonic mean)."""
    results = {task: dict(zip(METRICS_OF[task], values, strict=True)) for task, values in metrics.items()}
    data_set = "mini_val_panoptic" if "panoptic_seg" in metrics else "mini_val_instance"
    folder = f"runs/{name}-seed{seed}-0123456789"
    return {
        "method": name,
        "seed": seed,
        "hash": "0123456789",
        "folder": folder,
        "seconds": 60.0,
        "results": {data_set: results},
    }


def write_results(folder: Path, methods: list[dict], runs: list[dict], **more) -> Path:
    """Write results.json into ``folder``; returns the folder."""
    content = {
        "version": 1,
        "split": "compositional",
        "budget": "quick",
        "seeds": sorted({entry["seed"] for entry in runs}),
        "data": {"version": 1, "checksum": {"1": "ab" * 32}, "train": 2, "val": 6, "size": 64, "noise": 0.15}
        | {"folders": {"1": DATA}},
        "machine": {"cpu": "A processor", "cores": 2, "torch": "2.13.0", "python": "3.11.2"},
        "methods": methods,
        "runs": runs,
        **more,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(content))
    return folder


def draw_data(folder: Path) -> Path:
    """Draw a few images of the mini data set where a benchmark keeps those of seed 1; returns their folder."""
    root = folder / DATA
    root.mkdir(parents=True)
    return make_mini_coco(root / "mini", train=2, val=6, size=64, seed=1)


def write_run(folder: Path, data_set: str) -> None:
    """The files of a run besides its predictions."""
    (folder / "inference").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"DATASETS:\n  SPLIT_FILES: []\n  TEST: [{data_set}]\n")
    lines = [{"iteration": i, "total_loss": 10.0 / (i + 1), "gan_loss_total_loss": 2.0} for i in range(0, 60, 20)]
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))


def panoptic_run(folder: Path, data: Path, called: dict[str, str | None]) -> None:
    """A run that predicts the truth, but calls some classes by another name, and misses those called None."""
    write_run(folder, "mini_val_panoptic")
    truth = json.loads((data / "annotations" / "panoptic_val.json").read_text())
    ids = {c["name"]: c["id"] for c in truth["categories"]}
    names = {c["id"]: c["name"] for c in truth["categories"]}
    out = folder / "inference" / "panoptic_png"
    out.mkdir()
    predictions = []
    for item in truth["annotations"]:
        rgb = np.asarray(Image.open(data / "panoptic_val" / item["file_name"])).copy()
        segment_map = rgb.astype(int) @ (1, 256, 65536)
        segments = []
        for segment in item["segments_info"]:
            name = names[segment["category_id"]]
            name = called.get(name, name)
            if name is None:
                rgb[segment_map == segment["id"]] = 0
            else:
                segments.append({"id": segment["id"], "category_id": ids[name]})
        Image.fromarray(rgb).save(out / item["file_name"])
        predictions.append({"image_id": item["image_id"], "file_name": item["file_name"], "segments_info": segments})
    (folder / "inference" / "predictions.json").write_text(json.dumps({"annotations": predictions}))
    unseen = UNSEEN["compositional"]
    classes = [{"name": n, "unseen": n in unseen, "PQ": 10.0 * (n not in called)} for n in names.values()]
    (folder / "inference" / "panoptic_results.json").write_text(json.dumps({"per_class": classes}))


def instance_run(folder: Path, data: Path, called: dict[str, str], second: float = 0.1) -> None:
    """A run that finds every object, but calls some classes by another name.

    Each object's answer has a score of 0.6; another one, of score ``second``, has the right name.
    """
    write_run(folder, "mini_val_instance")
    truth = json.loads((data / "annotations" / "instances_val.json").read_text())
    ids = {c["name"]: c["id"] for c in truth["categories"]}
    names = {c["id"]: c["name"] for c in truth["categories"]}
    found = []
    for item in truth["annotations"]:
        name = names[item["category_id"]]
        common = {"image_id": item["image_id"], "segmentation": item["segmentation"]}
        found.append({**common, "category_id": item["category_id"], "score": second})
        found.append({**common, "category_id": ids[called.get(name, name)], "score": 0.6})
    (folder / "inference" / "coco_instances_results.json").write_text(json.dumps(found))
    unseen = UNSEEN["compositional"]
    classes = [{"name": n, "unseen": n in unseen, "AP50": 10.0 * (n not in called)} for n in ids]
    (folder / "inference" / "instance_results.json").write_text(json.dumps({"per_class": {"segm": classes}}))


def finished_run(out: Path, methods: Mapping[str, Method], name: str, settings: Settings, seed: int, value: float):
    """The files that tell of a finished panoptic run in a benchmark's folder; all its metrics are ``value``."""
    found = Plan(methods, [name], settings, out).run(name, seed)
    found.folder.mkdir(parents=True)
    results = {task: dict.fromkeys(metrics, value) for task, metrics in METRICS_OF.items()}
    (found.folder / "results.json").write_text(json.dumps({"mini_val_panoptic": results}))
    (found.folder / "inference").mkdir()
    classes = [{"name": "plain disc", "unseen": False, "PQ": value}]
    (found.folder / "inference" / "panoptic_results.json").write_text(json.dumps({"per_class": classes}))
    found.note("done", 60.0, ["train_net.py"])
    record = out / settings.data_folder(seed) / RECORD
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"seconds": 1.0, "checksum": f"{seed:02}" * 32}))
