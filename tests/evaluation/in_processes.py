"""Run all evaluators on random data in several processes: ``in_processes.py NAME N SPLIT folder [FAULT]``. Not a test.

SPLIT says which images each process predicts: "blocks" of neighbours, as in an evaluation, "strided", or "uneven": one
process has none. Results and files are written under NAME. FAULT: "full", the disk of the first process is full while
predictions are written; "foreign", the last process predicts an image that does not exist.
"""

import errno
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

from PADing import files
from PADing.errors import UserError
from PADing.evaluation import InsSegzeroEvaluator, PanopticzeroEvaluator, SemSegGzeroEvaluator
from PADing.evaluation import processes as exchange

ORDER = (3, 0, 5, 1, 6, 4, 2)  # of the ids in all files
HEIGHT, WIDTH, CLASSES = 12, 16, 4
SPLITS = {
    "blocks": lambda rank, size: slice(rank * len(ORDER) // size, (rank + 1) * len(ORDER) // size),
    "strided": lambda rank, size: slice(rank, None, size),
    "uneven": lambda rank, size: (slice(5), slice(0, 0), slice(5, None))[rank],
}


def make(folder: Path) -> None:
    rng = np.random.default_rng(5)
    records, annotations = [], []
    for image_id in ORDER:
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
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in ORDER],
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


def fill_disk() -> None:
    """Let every write fail after some bytes."""

    class Full:
        def __init__(self, *arguments, **options):
            self.file, self.left = open(*arguments, **options), 500

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, data):
            self.left -= len(data)
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.file.write(data)

    files.open = lambda path, mode="r", **options: (Full if "w" in mode else open)(path, mode, **options)


def work(rank: int, name: str, processes: int, split: str, folder: str, fault: str) -> None:
    folder = Path(folder)
    # So that seven images take several messages.
    exchange.ITEMS, exchange.PART, exchange.AHEAD = 2, 300, 2
    if processes > 1:
        store = f"file://{folder / name}.store"
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
    if fault == "full" and rank == 0:
        fill_disk()
    results, problems = {}, []
    for make_evaluator in (PanopticzeroEvaluator, InsSegzeroEvaluator, SemSegGzeroEvaluator):
        evaluator = make_evaluator("in_processes", output_dir=str(folder / name))
        for record in records[SPLITS[split](rank, processes)]:
            evaluator.process([record], [predict(record)])
            if fault == "foreign" and rank == processes - 1 and make_evaluator is InsSegzeroEvaluator:
                evaluator.process([{**record, "image_id": 77}], [predict(record)])
        try:
            results.update(evaluator.evaluate() or {})
        except UserError as error:
            problems.append(str(error))
    (folder / f"{name}.problems{rank}.json").write_text(json.dumps(problems))
    if rank == 0:
        (folder / f"{name}.json").write_text(json.dumps(results))
    else:
        assert not results
    if processes > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    title, count, how, where, *mishap = sys.argv[1:]
    torch.set_num_threads(1)
    if not (Path(where) / "records.json").exists():
        make(Path(where))
    arguments = (title, int(count), how, where, *(mishap or [""]))
    if count == "1":
        work(0, *arguments)
    else:
        mp.spawn(work, args=arguments, nprocs=int(count))
