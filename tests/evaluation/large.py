"""Evaluate synthetic instance predictions for N images, 100 each: ``large.py N folder``. Prints JSON. Not a test.

With N = 40504 it is the size of COCO's val2014: four million detections with masks.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
from detectron2.data import MetadataCatalog

from PADing.evaluation import InsSegzeroEvaluator
from PADing.evaluation.detections import ImageDetections

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


def main(images: int, folder: Path) -> None:
    rng = np.random.default_rng(0)
    strings, boxes = shapes(rng)
    areas = [float(mask_util.area({"size": [HEIGHT, WIDTH], "counts": s})) for s in strings]
    path = folder / "truth.json"
    with open(path, "w") as file:
        json.dump({"images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(images)]}, file)
        file.seek(file.tell() - 1)
        file.write(', "categories": ' + json.dumps([{"id": k, "name": f"c{k}"} for k in range(CLASSES)]))
        file.write(', "annotations": [')
        chosen, labels = rng.integers(0, SHAPES, (images, OBJECTS)), rng.integers(0, CLASSES, (images, OBJECTS))
        for i in range(images):
            for j in range(OBJECTS):
                shape = int(chosen[i, j])
                rle = {"size": [HEIGHT, WIDTH], "counts": strings[shape].decode()}
                item = {"id": i * OBJECTS + j + 1, "image_id": i, "category_id": int(labels[i, j]), "iscrowd": 0}
                item |= {"segmentation": rle, "area": areas[shape], "bbox": boxes[shape].tolist()}
                file.write(("," if i + j else "") + json.dumps(item))
        file.write("]}")
    MetadataCatalog.get("large").set(
        json_file=str(path),
        thing_classes=[f"c{k}" for k in range(CLASSES)],
        thing_dataset_id_to_contiguous_id={k: k for k in range(CLASSES)},
        evaluation_set=[f"c{k}" for k in range(48, CLASSES)],
    )
    evaluator = InsSegzeroEvaluator("large", output_dir=str(folder / "out"))
    peak = [_peak()]
    for i in range(images):
        shape, label = rng.integers(0, SHAPES, DETECTIONS), rng.integers(0, CLASSES, DETECTIONS)
        # Some are right, as those of a trained model.
        shape[:OBJECTS], label[:OBJECTS] = chosen[i], labels[i]
        masks = [bytes(bytearray(strings[k])) for k in shape]  # not shared, as nothing of real predictions is
        found = ImageDetections(i, label, rng.random(DETECTIONS), boxes[shape], masks, (HEIGHT, WIDTH))
        evaluator.items.append(found)
    peak.append(_peak())
    start = time.perf_counter()
    results = evaluator.evaluate()
    seconds = time.perf_counter() - start
    written = (folder / "out" / "coco_instances_results.json").stat().st_size
    print(
        json.dumps({
            "detections": images * DETECTIONS,
            "MB_before": peak[0],
            "MB_with_predictions": peak[1],
            "MB_peak": _peak(),
            "MB_results_file": round(written / 1e6),
            "seconds": round(seconds, 1),
            "AP50": results["segm"]["AP50"],
            "AR50": results["segm"]["AR50_seen"],
        })
    )  # fmt: skip


def _peak() -> int:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
