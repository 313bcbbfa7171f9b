"""Slow computations of metrics from what was drawn (``tests.fake_downloads``), image by image, class by class."""

import numpy as np
import pycocotools.mask as mask_util
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.fake_downloads import HEIGHT, WIDTH


def iou_by_hand(found, truth, names) -> dict[str, float]:
    """IoU of each class with annotation, and 0 for those that are predicted alone."""
    right, annotated, predicted = ({name: 0 for name in names} for _ in range(3))
    for image, output in found.items():
        labels = output["sem_seg"].argmax(0).numpy()
        for row in range(HEIGHT):
            for column in range(WIDTH):
                wanted, said = truth[image].classes[row, column], names[labels[row, column]]
                if wanted == "":
                    continue
                annotated[wanted] += 1
                predicted[said] += 1
                right[wanted] += wanted == said
    union = {name: annotated[name] + predicted[name] - right[name] for name in names}
    return {name: 100 * right[name] / union[name] for name in names if union[name]}


def average(values) -> float:
    values = list(values)
    return sum(values) / len(values) if values else float("nan")


def pq_by_hand(found, truth, names, things) -> dict[str, float]:
    """PQ of each class that occurs, by comparing every pair of segments."""
    tally = {name: [0.0, 0, 0, 0] for name in names}
    for image, output in found.items():
        wanted = [(label, mask & (truth[image].classes == label), crowd) for label, mask, crowd in truth[image].objects]
        for label in set(truth[image].classes.ravel()) - {""} - things:
            wanted.append((label, truth[image].classes == label, False))
        ids, listed = output["panoptic_seg"]
        said = [(names[s["category_id"]], ids.numpy() == s["id"]) for s in listed]
        void = truth[image].classes == ""
        free = list(range(len(said)))
        for label, mask, crowd in wanted:
            if crowd:
                continue
            for k in list(free):
                other = said[k][1]
                union = (mask | other).sum() - (other & void).sum()
                value = (mask & other).sum() / union if union else 0
                if said[k][0] == label and value > 0.5:
                    tally[label][0] += value
                    tally[label][1] += 1
                    free.remove(k)
                    break
            else:
                tally[label][3] += 1
        for k in free:
            label, other = said[k]
            excused = (other & void).sum() + sum(
                (other & m).sum() for name, m, crowd in wanted if crowd and name == label
            )
            if other.any() and 2 * excused <= other.sum():
                tally[label][2] += 1
    weight = {name: t[1] + 0.5 * t[2] + 0.5 * t[3] for name, t in tally.items()}
    return {name: 100 * tally[name][0] / weight[name] for name in names if weight[name]}


def ap_by_hand(found, truth, names) -> dict[str, float]:
    """AP of each class with objects, by pycocotools on objects and images that are listed anew."""
    objects, results = [], []
    numbers = {image: n for n, image in enumerate(truth, 1)}

    def rle(mask):
        return mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))

    for image, wanted in truth.items():
        for label, mask, crowd in wanted.objects:
            box = mask_util.toBbox(rle(mask)).tolist()
            own = {"iscrowd": int(crowd), "area": int(mask.sum()), "bbox": box, "segmentation": rle(mask)}
            ids = {"id": len(objects) + 1, "image_id": numbers[image], "category_id": names.index(label) + 1}
            objects.append({**ids, **own})
        got = found[image]["instances"]
        for k in range(len(got)):
            ids = {"image_id": numbers[image], "category_id": int(got.pred_classes[k]) + 1}
            own = {"score": float(got.scores[k]), "segmentation": rle(got.pred_masks[k].numpy() > 0.5)}
            results.append({**ids, **own})
    ground = COCO()
    categories = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    ground.dataset = {
        "info": {},
        "images": [{"id": n, "height": HEIGHT, "width": WIDTH} for n in numbers.values()],
        "annotations": objects,
        "categories": categories,
    }
    ground.createIndex()
    evaluation = COCOeval(ground, ground.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return {
        name: 100 * float(np.mean(precision[:, :, k]))
        for k, name in enumerate(names)
        if (precision[:, :, k] > -1).any()
    }
