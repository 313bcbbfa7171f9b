"""Evaluate synthetic instance predictions for N images, 100 each. Prints JSON. Not a test.

``large.py N folder [PROCESSES]``. With several processes, each has neighbouring images; memory is that of the first and
the largest of the others.

With N = 40504 it is the size of COCO's val2014: four million detections with masks.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import torch
import torch.multiprocessing as mp
from detectron2.data import MetadataCatalog

from PADing.evaluation import InsSegzeroEvaluator
from PADing.evaluation.detections import ImageDetections
from PADing.peak_memory import peak_memory

HEIGHT, WIDTH, CLASSES, OBJECTS, DETECTIONS, SHAPES = 480, 640, 65, 7, 100, 60


def shapes(rng) -> tuple[list[bytes], np.ndarray]:
    """RLE strings and boxes (XYWH) of random ellipses with a wavy outline, of the length that real masks have."""
    strings, boxes = [], []
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    for _ in range(SHAPES):
        w, h = rng.integers(20, 300, 2)
        cx, cy = rng.integers(w // 2, WIDTH - w // 2), rng.integers(h // 2, HEIGHT - h // 2)
        wave = 1 + 0.2 * np.sin(6 * np.arctan2(y - cy, x - cx))
        mask = ((x - cx) / (w / 2)) ** 2 + ((y - cy) / (h / 2)) ** 2 < wave
        rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
        strings.append(rle["counts"])
        boxes.append(mask_util.toBbox(rle))
    return strings, np.array(boxes)


def make_truth(images: int, path: Path) -> None:
    strings, boxes = shapes(np.random.default_rng(0))
    areas = [float(mask_util.area({"size": [HEIGHT, WIDTH], "counts": s})) for s in strings]
    with open(path, "w") as file:
        json.dump({"images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(images)]}, file)
        file.seek(file.tell() - 1)
        file.write(', "categories": ' + json.dumps([{"id": k, "name": f"c{k}"} for k in range(CLASSES)]))
        file.write(', "annotations": [')
        for i in range(images):
            chosen, labels = objects(np.random.default_rng([1, i]))
            for j, (shape, label) in enumerate(zip(chosen, labels, strict=True)):
                rle = {"size": [HEIGHT, WIDTH], "counts": strings[shape].decode()}
                item = {"id": i * OBJECTS + j + 1, "image_id": i, "category_id": label, "iscrowd": 0}
                item |= {"segmentation": rle, "area": areas[shape], "bbox": boxes[shape].tolist()}
                file.write(("," if i + j else "") + json.dumps(item))
        file.write("]}")


def objects(rng) -> tuple[list[int], list[int]]:
    """Shapes and classes of the objects of an image."""
    return rng.integers(0, SHAPES, OBJECTS).tolist(), rng.integers(0, CLASSES, OBJECTS).tolist()


def work(rank: int, images: int, folder: Path, processes: int) -> None:
    torch.set_num_threads(1)
    if processes > 1:
        store = f"file://{folder / 'store'}"
        torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=processes)
    MetadataCatalog.get("large").set(
        json_file=str(folder / "truth.json"),
        thing_classes=[f"c{k}" for k in range(CLASSES)],
        thing_dataset_id_to_contiguous_id={k: k for k in range(CLASSES)},
        evaluation_set=[f"c{k}" for k in range(48, CLASSES)],
    )
    evaluator = InsSegzeroEvaluator("large", output_dir=str(folder / f"out{processes}"))
    strings, boxes = shapes(np.random.default_rng(0))
    peak = [_peak()]
    for i in range(rank * images // processes, (rank + 1) * images // processes):
        rng = np.random.default_rng([1, i])
        chosen, labels = objects(rng)  # some are right, as those of a trained model
        shape = np.concatenate([chosen, rng.integers(0, SHAPES, DETECTIONS - OBJECTS)])
        label = np.concatenate([labels, rng.integers(0, CLASSES, DETECTIONS - OBJECTS)])
        masks = [bytes(bytearray(strings[k])) for k in shape]  # not shared, as nothing of real predictions is
        found = ImageDetections(i, label, rng.random(DETECTIONS), boxes[shape], masks, (HEIGHT, WIDTH))
        evaluator.items.append(found)
    peak.append(_peak())
    if processes > 1:
        torch.distributed.barrier()
    start, used = time.perf_counter(), time.process_time()
    results = evaluator.evaluate()
    seconds, used = time.perf_counter() - start, time.process_time() - used
    (folder / f"peak{rank}").write_text(f"{_peak()} {used:.2f}")
    if processes > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    if rank == 0:
        others = [(folder / f"peak{r}").read_text().split() for r in range(1, processes)]
        report(images, folder / f"out{processes}", peak, seconds, used, others, results)


def report(
    images: int, folder: Path, peak: list[int], seconds: float, used: float, others: list, results: dict
) -> None:
    written = (folder / "coco_instances_results.json").stat().st_size
    print(
        json.dumps({
            "detections": images * DETECTIONS,
            "MB_before": peak[0],
            "MB_with_predictions": peak[1],
            "MB_peak": _peak(),
            "MB_peak_of_others": max((int(mb) for mb, _ in others), default=0),
            "MB_results_file": round(written / 1e6),
            "seconds": round(seconds, 1),
            "processor_seconds": [round(used, 1), *(float(own) for _, own in others)],
            "AP50": results["segm"]["AP50"],
            "AR50": results["segm"]["AR50_seen"],
        })
    )  # fmt: skip


def _peak() -> int:
    return round(peak_memory() / 1e6)


if __name__ == "__main__":
    number, where, count = int(sys.argv[1]), Path(sys.argv[2]), int((*sys.argv[3:], 1)[0])
    make_truth(number, where / "truth.json")
    if count == 1:
        work(0, number, where, 1)
    else:
        mp.spawn(work, args=(number, where, count), nprocs=count)
