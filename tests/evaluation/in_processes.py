"""Run all evaluators on random data in N processes and print the results: ``in_processes.py N folder``. Not a test."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image

from PADing.evaluation import InsSegzeroEvaluator, PanopticzeroEvaluator, SemSegGzeroEvaluator, base

IMAGES, HEIGHT, WIDTH, CLASSES = 7, 12, 16, 4


def make(folder: Path) -> None:
    rng = np.random.default_rng(5)
    records, annotations = [], []
    for image_id in range(IMAGES):
        ids = np.kron(rng.integers(0, 5, (3, 4)), np.ones((4, 4), int))
        segments = [{"id": i, "category_id": 10 * (i % CLASSES), "iscrowd": 0} for i in np.unique(ids).tolist() if i]
        name = f"{image_id}.png"
        channels = np.stack([ids, 0 * ids, 0 * ids], axis=-1).astype(np.uint8)
        (folder / "pan").mkdir(exist_ok=True)
        Image.fromarray(channels).save(folder / "pan" / name)
        annotations.append({"image_id": image_id, "file_name": name, "segments_info": segments})
        contiguous = [{**s, "category_id": s["category_id"] // 10} for s in segments]
        path = str(folder / "pan" / name)
        record = {"image_id": image_id, "file_name": f"{image_id}.jpg", "pan_seg_file_name": path}
        records.append({**record, "segments_info": contiguous})
    content = {
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(IMAGES)],
        "annotations": annotations,
        "categories": [{"id": 10 * i, "name": f"c{i}", "isthing": int(i < 3)} for i in range(CLASSES)],
    }
    (folder / "panoptic.json").write_text(json.dumps(content))
    (folder / "records.json").write_text(json.dumps(records))


def predict(record: dict) -> dict:
    """The truth with random changes, the same in every process."""
    rng = np.random.default_rng(record["image_id"])
    ids = np.asarray(Image.open(record["pan_seg_file_name"]))[..., 0].astype(np.int64)
    ids = np.where(np.kron(rng.random((6, 8)) < 0.2, np.ones((2, 2), bool)), 0, ids)
    present = [i for i in np.unique(ids).tolist() if i]
    labels = {i: int(rng.integers(CLASSES)) if rng.random() < 0.3 else i % CLASSES for i in present}
    segments = [{"id": i, "category_id": c, "isthing": c < 3} for i, c in labels.items()]
    things = [(i, c) for i, c in labels.items() if c < 3]
    instances = Instances((HEIGHT, WIDTH))
    instances.pred_masks = torch.as_tensor(np.array([ids == i for i, _ in things]).reshape(-1, HEIGHT, WIDTH)).float()
    instances.pred_classes = torch.tensor([c for _, c in things], dtype=torch.int64)
    instances.scores = torch.as_tensor(np.round(rng.random(len(things)), 1))  # rounded, so that scores tie
    instances.pred_boxes = Boxes(torch.tensor([[0.0, 0.0, 4.0 + i, 8.0] for i, _ in things]).reshape(-1, 4))
    scores = torch.as_tensor(rng.random((CLASSES, HEIGHT, WIDTH)))
    return {"panoptic_seg": (torch.as_tensor(ids), segments), "instances": instances, "sem_seg": scores}


def work(rank: int, processes: int, folder: str) -> None:
    folder = Path(folder)
    base.CHUNK = 2  # so that seven images take several rounds, and not all processes have items in the last
    if processes > 1:
        store = f"file://{folder / 'store'}"
        dist.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)
    records = json.loads((folder / "records.json").read_text())
    DatasetCatalog.register("in_processes", lambda: records)
    MetadataCatalog.get("in_processes").set(
        panoptic_json=str(folder / "panoptic.json"),
        panoptic_root=str(folder / "pan"),
        thing_classes=[f"c{i}" for i in range(3)],
        stuff_classes=[f"c{i}" for i in range(CLASSES)],
        thing_dataset_id_to_contiguous_id={10 * i: i for i in range(3)},
        stuff_dataset_id_to_contiguous_id={10 * i: i for i in range(CLASSES)},
        evaluation_set=["c1", "c3"],
    )
    results = {}
    for make_evaluator in (PanopticzeroEvaluator, InsSegzeroEvaluator, SemSegGzeroEvaluator):
        evaluator = make_evaluator("in_processes", output_dir=str(folder / f"out{processes}"))
        for record in records[rank::processes]:  # not contiguous, so that the order of gathering differs
            evaluator.process([record], [predict(record)])
        results.update(evaluator.evaluate() or {})
    if rank == 0:
        (folder / f"results{processes}.json").write_text(json.dumps(results))
    else:
        assert not results
    if processes > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    count, where = int(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(1)
    if not (Path(where) / "records.json").exists():
        make(Path(where))
    if count == 1:
        work(0, 1, where)
    else:
        mp.spawn(work, args=(count, where), nprocs=count)
