"""Results files in memory; wrong here means detections of another image, or damaged masks that reach pycocotools."""

import copy

import numpy as np
import pycocotools.mask as mask_util
import pytest

from PADing.data.coco_schema import rle_pixels
from PADing.errors import UserError
from PADing.evaluation.detections import ImageDetections, by_image
from PADing.files import json_text

SIZES = {3: (20, 30), 1: (40, 50), "x": (20, 30)}


def _results(count: int) -> list[dict]:
    rng = np.random.default_rng(0)
    results = []
    for i in range(count):
        image_id = [3, 1, "x"][rng.integers(3)]
        mask = np.asfortranarray(rng.random(SIZES[image_id]) < 0.3, dtype=np.uint8)
        rle = mask_util.encode(mask)
        entry = {"image_id": image_id, "category_id": int(rng.integers(9)), "score": float(rng.random())}
        if i % 3:
            entry["bbox"] = [float(i), 1, 2.5, 3]
        if i % 2:
            entry["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
        results.append(entry)
    return results


def test_entries_checked_together_are_read_as_those_checked_one_by_one():
    """A field that the quick check does not know sends its part of the entries to the other one."""
    results = _results(60)
    quick = by_image(results, SIZES, "Results")
    results[0]["iscrowd"] = 0
    slow = by_image(results, SIZES, "Results")
    assert [item.image_id for item in quick] == list(dict.fromkeys(entry["image_id"] for entry in results))
    for item, other in zip(quick, slow, strict=True):
        own = [entry for entry in results if entry["image_id"] == item.image_id]
        assert item.scores.tolist() == [entry["score"] for entry in own] == other.scores.tolist()
        assert item.category_ids.tolist() == [entry["category_id"] for entry in own] == other.category_ids.tolist()
        assert item.masks == other.masks and item.size == other.size == SIZES[item.image_id]
        np.testing.assert_array_equal(item.boxes, other.boxes)
        written = [{key: value for key, value in entry.items() if key != "iscrowd"} for entry in own]
        assert list(item.results()) == written


def test_lines_of_a_file_are_the_texts_of_the_results():
    """Lines are put together from parts, which is faster; a reader must not see that."""
    several = by_image(_results(60), SIZES, "Results")
    for item in several:
        assert any("bbox" not in entry for entry in item.results()) and any(mask is None for mask in item.masks)
    one = several[0]
    several += [
        ImageDetections(one.image_id, one.category_ids, one.scores, boxes, masks, size)
        for boxes in (None, one.boxes)
        for masks, size in ((None, None), (None, one.size), (one.masks, None))
    ]
    several.append(ImageDetections('"ä\\', one.category_ids, one.scores, one.boxes, one.masks, one.size))
    for item in several:
        assert list(item.lines()) == [json_text(entry) for entry in item.results()]


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"image_id": 8}, "entry 7 is for image 8"),
        ({"image_id": True}, r"detections\[7\].*`image_id`"),
        ({"image_id": [1]}, r"detections\[7\].*`image_id`"),
        ({"category_id": 2.0}, r"detections\[7\].*`category_id`"),
        ({"category_id": -1}, r"detections\[7\].*`category_id`"),
        ({"score": "0.5"}, r"detections\[7\].*`score`"),
        ({"score": float("nan")}, r"detections\[7\].*`score`"),
        ({"bbox": [1, 2, 3]}, r"detections\[7\].*`bbox`"),
        ({"bbox": [1, 2, -3, 4]}, r"detections\[7\].*width and height >= 0"),
        ({"bbox": [1, 2, 3, -0.5]}, r"detections\[7\].*width and height >= 0"),
        ({"bbox": [1, 2, 3, float("inf")]}, r"detections\[7\].*`bbox`"),
        ({"bbox": None}, r"detections\[7\].*`bbox`"),
        ({"area": -1}, r"detections\[7\].*`area`"),
        ({"segmentation": {}}, r"detections\[7\].*`size`"),
        ({"segmentation": {"size": [20.0, 30.0], "counts": "d0"}}, r"detections\[7\].*`size`"),
        ({"segmentation": {"size": [30, 20], "counts": "hb0"}}, r"entry 7 .*mask has size"),
        ({"segmentation": {"size": [20, 30], "counts": "ä"}}, r"entry 7 .*`counts`"),
        ({"segmentation": {"size": [20, 30], "counts": ""}}, r"entry 7 .*`counts`"),
        ({"segmentation": {"size": [20, 30], "counts": "d0"}}, r"entry 7 .*`counts` are for 20 pixels"),
        ({"segmentation": "20 30"}, r"entry 7 .*`segmentation`"),
    ],
)
def test_one_wrong_entry_among_many_is_named(change, reason):
    results = copy.deepcopy(_results(30))
    results[7].update({"image_id": 3, **change})
    if "segmentation" not in change:
        results[7].pop("segmentation", None)
    with pytest.raises(UserError, match=f"^Results.*{reason}"):
        by_image(results, SIZES, "Results")


def test_masks_measured_together_are_measured_as_one_by_one():
    rng = np.random.default_rng(1)
    masks = [rng.random(rng.integers(1, 90, 2)) < rng.choice([0, 0.02, 0.5, 1]) for _ in range(300)]
    masks += [np.kron(mask, np.ones((30, 40), dtype=bool)) for mask in masks[:50]]  # long runs: several characters
    strings = [mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"] for mask in masks]
    assert rle_pixels(strings).tolist() == [mask.size for mask in masks]
    for damaged in (b"", b"\xff", b"0" * 3 + b"o", b"0" * 4 + b"K"):
        assert rle_pixels([*strings[:9], damaged, *strings[9:]]) is None
