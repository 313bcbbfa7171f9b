"""Panoptic quality per image and class; wrong here means a wrong PQ in every table."""

import math

import numpy as np
import pytest
from panopticapi.evaluation import pq_compute

from PADing.evaluation.panoptic_quality import match_segments, quality_per_class

CAT, DOG, GRASS = 3, 5, 8


def _match(true, true_class, predicted, predicted_class, crowd=()):
    return match_segments(np.array(true), true_class, crowd, np.array(predicted), predicted_class)


def test_a_hand_worked_image():
    # Truth: cat 1 (6 pixels), grass 2 (6). Prediction: cat 7 with 5 of the cat's pixels and 1 of grass; grass 9 with 5.
    true = [[1, 1, 1, 2], [1, 1, 1, 2], [2, 2, 2, 2]]
    predicted = [[7, 7, 7, 7], [7, 7, 0, 9], [9, 9, 9, 9]]
    image = _match(true, {1: CAT, 2: GRASS}, predicted, {7: CAT, 9: GRASS})
    assert dict(zip(image.matched.tolist(), image.iou.tolist(), strict=True)) == {
        CAT: pytest.approx(5 / 7),
        GRASS: pytest.approx(5 / 6),
    }
    assert image.false_positive.size == image.false_negative.size == 0


def test_an_overlap_of_exactly_one_half_is_no_match():
    image = _match([[1, 1, 1, 1]], {1: CAT}, [[7, 7, 0, 0]], {7: CAT})
    assert image.matched.size == 0
    assert image.false_positive.tolist() == [CAT] and image.false_negative.tolist() == [CAT]


def test_void_pixels_leave_the_union():
    # 2 of 4 predicted pixels lie on void; without them the IoU is 2 / 2.
    image = _match([[1, 1, 0, 0]], {1: CAT}, [[7, 7, 7, 7]], {7: CAT})
    assert image.iou.tolist() == [1.0]


@pytest.mark.parametrize(("on_void", "excused"), [(3, True), (2, False)])
def test_a_wrong_segment_is_excused_only_when_more_than_half_lies_on_void(on_void, excused):
    true = [[0] * on_void + [1] * (4 - on_void) + [1] * 8]
    predicted = [[7] * 4 + [8] * 8]
    image = _match(true, {1: CAT}, predicted, {7: DOG, 8: CAT})
    assert image.false_positive.tolist() == ([] if excused else [DOG])


def test_a_crowd_is_never_missed_and_excuses_only_its_own_class():
    true, predicted = [[1, 1, 1, 2]], [[7, 7, 8, 9]]
    same = _match(true, {1: CAT, 2: GRASS}, predicted, {7: CAT, 8: CAT, 9: GRASS}, crowd=[1])
    assert same.false_positive.size == 0 and same.false_negative.size == 0 and same.matched.tolist() == [GRASS]
    other = _match(true, {1: CAT, 2: GRASS}, predicted, {7: DOG, 8: CAT, 9: GRASS}, crowd=[1])
    assert other.false_positive.tolist() == [DOG]


@pytest.mark.parametrize(("crowds", "wrong"), [([1, 3], 7), ([3, 1], 8)])
def test_of_several_crowds_of_a_class_the_last_one_excuses(crowds, wrong):
    """panopticapi's rule, behind the published metrics. 7 lies on region 1, and 8 on region 3."""
    true, true_class = [[1, 1, 3, 3, 3, 2]], {1: CAT, 3: CAT, 2: GRASS}
    for segment, predicted in ((7, [[7, 7, 0, 0, 0, 2]]), (8, [[0, 0, 8, 8, 8, 2]])):
        image = _match(true, true_class, predicted, {segment: CAT, 2: GRASS}, crowd=crowds)
        assert image.false_positive.tolist() == ([CAT] if segment == wrong else [])
        assert image.false_negative.size == 0 and image.matched.tolist() == [GRASS]


def test_equal_shape_but_another_class_is_a_miss_and_a_false_alarm():
    image = _match([[1, 1]], {1: CAT}, [[7, 7]], {7: DOG})
    assert image.false_positive.tolist() == [DOG] and image.false_negative.tolist() == [CAT]


def test_maps_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="size"):
        _match([[1, 1]], {1: CAT}, [[7], [7]], {7: CAT})


def test_quality_follows_its_formula():
    one = _match([[1, 1, 1, 2]], {1: CAT, 2: DOG}, [[7, 7, 0, 8]], {7: CAT, 8: CAT})  # cat IoU 2/3, cat FP, dog FN
    quality = quality_per_class([one, one], [CAT, DOG, GRASS])
    assert quality[CAT].sq == pytest.approx(2 / 3)
    assert quality[CAT].rq == pytest.approx(2 / (2 + 0.5 * 2))
    assert quality[CAT].pq == pytest.approx(quality[CAT].sq * quality[CAT].rq)
    assert quality[DOG].present and quality[DOG].pq == 0
    assert not quality[GRASS].present and math.isfinite(quality[GRASS].pq)


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_panopticapi_on_random_maps(tmp_path, save_ids, save_json, seed):
    rng = np.random.default_rng(seed)
    categories = [{"id": i, "name": str(i), "isthing": int(i % 2)} for i in (3, 5, 8, 200)]
    truth, prediction, images = [], [], []
    for image_id in range(5):
        # Segments are coarse blocks; the prediction is the truth with some blocks exchanged and other classes.
        blocks = rng.integers(0, 9, (6, 8))
        changed = np.where(rng.random((6, 8)) < 0.25, rng.integers(0, 9, (6, 8)), blocks)
        true_map, predicted_map = (np.kron(b, np.ones((4, 5), int)) * 4001 for b in (blocks, changed))
        classes = {i: int(rng.choice([3, 5, 8, 200])) for i in range(9)}
        guess = {i: c if rng.random() < 0.7 else int(rng.choice([3, 5, 8, 200])) for i, c in classes.items()}
        crowd_class, crowds = int(rng.choice([3, 5])), []
        segments = []
        for i in sorted(set(blocks.ravel().tolist()) - {0}):
            crowd = classes[i] == crowd_class  # often several of one class
            crowds += [i * 4001] if crowd else []
            area = int((true_map == i * 4001).sum())
            segments.append({"id": i * 4001, "category_id": classes[i], "iscrowd": int(crowd), "area": area})
        predicted = [{"id": i * 4001, "category_id": guess[i]} for i in sorted(set(changed.ravel().tolist()) - {0})]
        for folder, ids in (("gt", true_map), ("pred", predicted_map)):
            save_ids(tmp_path / folder / f"{image_id}.png", ids)
        common = {"image_id": image_id, "file_name": f"{image_id}.png"}
        truth.append({**common, "segments_info": segments})
        prediction.append({**common, "segments_info": predicted})
        images.append(
            match_segments(
                true_map,
                {s["id"]: s["category_id"] for s in segments},
                crowds,
                predicted_map,
                {s["id"]: s["category_id"] for s in predicted},
            )
        )
    gt = save_json(tmp_path / "gt.json", {"images": [], "annotations": truth, "categories": categories})
    pred = save_json(tmp_path / "pred.json", {"annotations": prediction})
    want = pq_compute(gt, pred, str(tmp_path / "gt"), str(tmp_path / "pred"))["per_class"]
    got = quality_per_class(images, [3, 5, 8, 200])
    assert any(q.pq > 0 for q in got.values())
    for label, q in got.items():
        assert (q.pq, q.sq, q.rq) == pytest.approx((want[label]["pq"], want[label]["sq"], want[label]["rq"]), rel=1e-12)
