"""A ground truth of three images of 2 x 4 pixels, small enough to work metrics by hand. Not a test."""

import numpy as np
import pycocotools.mask as mask_util


def make_rle(rows: list[str]) -> dict:
    rle = mask_util.encode(np.asfortranarray([[c == "#" for c in row] for row in rows], dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


LEFT, RIGHT, TOP = make_rle(["##..", "##.."]), make_rle(["..##", "..##"]), make_rle(["####", "...."])


def make_truth():
    """Class 30: an object in each of images 1 and 2. Class 7: one in image 1, a crowd in image 2. Class 11: none."""
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 30, "segmentation": LEFT},
        {"id": 2, "image_id": 2, "category_id": 30, "segmentation": LEFT},
        {"id": 3, "image_id": 1, "category_id": 7, "segmentation": RIGHT},
        {"id": 4, "image_id": 2, "category_id": 7, "segmentation": RIGHT, "iscrowd": 1},
    ]
    return {
        "images": [{"id": i, "height": 2, "width": 4, "file_name": f"{i}.jpg"} for i in (1, 2, 3)],
        "categories": [{"id": i, "name": n} for i, n in ((30, "wolf"), (7, "Bär"), (11, "elk"))],
        "annotations": annotations,
    }


def make_detection(image_id, category_id, score, segmentation):
    return {"image_id": image_id, "category_id": category_id, "score": score, "segmentation": segmentation}
