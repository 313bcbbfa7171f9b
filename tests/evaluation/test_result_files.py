"""The function behind the scoring tools; wrong here means a published number that a results file does not have."""

import argparse
import json
import logging
import math
import re

import pytest

from PADing.errors import UserError
from PADing.evaluation import coco_eval_revise
from PADing.evaluation.result_files import evaluate_file
from tests.evaluation.hand_worked import LEFT, RIGHT, make_detection, make_truth


def test_the_split_is_given_by_number_or_by_name(caplog):
    detections = [make_detection(1, 30, 0.9, LEFT), make_detection(2, 30, 0.9, LEFT), make_detection(1, 7, 0.9, LEFT)]
    by_number = coco_eval_revise(detections, ["segm", "bbox"], make_truth(), gzsd=True, num_seen_classes=1)
    by_name = coco_eval_revise(detections, ["segm", "bbox"], make_truth(), gzsd=True, unseen=["Bär", "elk"])
    assert by_number == by_name and len(by_number) == 2
    assert by_number[0] == pytest.approx((100, 0, 100, 0, 0, 0))
    assert coco_eval_revise(detections, ["segm"], make_truth()) == []


@pytest.mark.parametrize("unseen", [["Bär"], ["elk", "Bär"], "split.yaml"])
def test_a_command_takes_unseen_classes_by_name_or_from_a_split_file(tmp_path, caplog, unseen):
    """Of a split file, stuff classes are left out, because an annotation of instances does not have them."""
    for name, content in (("ann.json", make_truth()), ("result.json", [make_detection(1, 30, 0.9, LEFT)])):
        (tmp_path / name).write_text(json.dumps(content))
    categories = [*make_truth()["categories"], {"id": 9, "name": "snow", "isthing": 0}]
    split = {"name": "x", "categories": categories, "unseen": ["snow", "Bär"], "data_sets": []}
    (tmp_path / "split.yaml").write_text(json.dumps(split))
    args = argparse.Namespace(
        result=tmp_path / "result.json", ann=tmp_path / "ann.json", types=["segm"], max_dets=[100], classwise=False,
        gzsi=False, num_seen_classes=None, unseen=[str(tmp_path / unseen)] if isinstance(unseen, str) else unseen,
    )  # fmt: skip
    with caplog.at_level(logging.INFO):
        evaluate_file(args)
    wanted = "['Bär', 'elk']" if "elk" in unseen else "['Bär']"
    assert f"unseen: {wanted}" in caplog.text and "AR50_seen 50.0000, AR50_unseen 0.0000" in caplog.text


def test_per_class_tables_carry_the_right_names(caplog):
    detections = [make_detection(1, 7, 0.9, RIGHT)]  # the first by id, the second of the list
    with caplog.at_level(logging.INFO):
        coco_eval_revise(detections, ["segm"], make_truth(), classwise=True, gzsd=True, unseen=["Bär"])
    table = next(r.message for r in caplog.records if "per class" in r.message)
    assert re.search(r"\|\s*Bär\*\s*\|\s*100\.000\s*\|\s*100\.000\s*\|", table)
    assert re.search(r"\|\s*wolf\s*\|\s*0\.000\s*\|\s*0\.000\s*\|", table)


def test_proposal_types(caplog):
    detections = [make_detection(1, 7, 0.9, LEFT), make_detection(1, 7, 0.8, RIGHT), make_detection(2, 30, 0.7, LEFT)]
    with caplog.at_level(logging.INFO):
        assert coco_eval_revise(detections, ["proposal_fast"], make_truth(), max_dets=(1, 2)) is None
    lines = [r.message for r in caplog.records if r.message.startswith("AR@")]
    assert lines == ["AR@1 = 0.6667", "AR@2 = 1.0000"]


def test_proposals_are_limited_as_published(caplog):
    """100, 300 and 1000 boxes for each image, without classes: 400 wrong boxes before the right one."""
    wrong = {"image_id": 1, "category_id": 7, "bbox": [0, 0, 0.5, 0.5]}
    detections = [{**wrong, "score": 1 - i / 1000} for i in range(400)]
    detections.append({"image_id": 1, "category_id": 7, "score": 0.1, "bbox": [0, 0, 2, 2]})  # of another class
    with caplog.at_level(logging.INFO):
        assert coco_eval_revise(detections, ["proposal"], make_truth()) == []
    found = re.findall(r"\(AR\) @\[ IoU=0.50 \| area=all \| maxDets=(\d+) \] = ([\d.]+)", caplog.text)
    assert found == [("100", "0.000"), ("300", "0.000"), ("1000", "0.333")]  # one of three objects


DAMAGED = {
    "unknown image": ({"image_id": 44}, "image 44"),
    "no object": (None, "must be an object"),
    "no score": ({"score": None}, "score"),
    "score that is no number": ({"score": math.nan}, "score"),
    "text as a score": ({"score": "high"}, "score"),
    "three numbers as a box": ({"bbox": [0, 0, 1]}, "bbox"),
    "box without end": ({"bbox": [0, 0, math.inf, 1]}, "bbox"),
    "mask of another size": ({"segmentation": {"size": [9, 9], "counts": [81]}}, "size"),
    "runs beyond the image": ({"segmentation": {"size": [2, 4], "counts": [0, 900]}}, "counts"),
    "damaged string": ({"segmentation": {"size": [2, 4], "counts": "00~~~"}}, "counts"),
    "polygon of text": ({"segmentation": [["a", "b", "c", "d", "e", "f"]]}, "polygon"),
    "polygon far away": ({"segmentation": [[0, 0, 1e9, 0, 1e9, 1e9]]}, "polygon"),
    "list as a category": ({"category_id": [7]}, "category_id"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_results_are_one_message(tmp_path, case):
    changes, said = DAMAGED[case]
    good = {**make_detection(1, 30, 0.9, LEFT), "bbox": [0, 0, 2, 2]}
    bad = None if changes is None else {**good, **changes}
    path = tmp_path / "results.json"
    path.write_text(json.dumps([good, bad]))
    for kind in ("segm", "bbox"):
        with pytest.raises(UserError, match=f"results.json.*{said}"):
            coco_eval_revise(path, [kind], make_truth())


@pytest.mark.parametrize("content", ["", "{", "{}", "null", "7", '"text"', "[" * 100_000])
def test_files_that_are_no_results_are_named(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(UserError, match="results.json"):
        coco_eval_revise(path, ["bbox"], make_truth())


def test_split_mistakes_are_named():
    for arguments, message in (
        ({}, "names of the unseen"),
        ({"num_seen_classes": 3}, "1..2"),
        ({"unseen": ["Baer"]}, "Baer"),
    ):
        with pytest.raises(UserError, match=message):
            coco_eval_revise([], ["segm"], make_truth(), gzsd=True, **arguments)
    with pytest.raises(UserError, match="keypoint"):
        coco_eval_revise([], ["keypoint"], make_truth())
