"""The stand-in for panopticapi; wrong here means wrong segment ids or a wrong PQ wherever the stand-in is used."""

import json

import numpy as np
import pytest

# What a user of the genuine package would write; run in an interpreter in which the stand-in is in use.
QUALITY = """
import json, os, sys, tempfile
import numpy as np
from PIL import Image
from panopticapi.evaluation import PQStat, pq_compute, OFFSET, VOID
from panopticapi.utils import id2rgb

assert (VOID, OFFSET) == (0, 256 ** 3)
folder = tempfile.mkdtemp()

def write(kind, maps, segments, with_area):
    os.makedirs(f"{folder}/{kind}", exist_ok=True)
    annotations = []
    for i, (ids, infos) in enumerate(zip(maps, segments)):
        ids = np.array(ids)
        Image.fromarray(id2rgb(ids)).save(f"{folder}/{kind}/{i}.png")
        infos = [{"id": k, "category_id": c, "iscrowd": crowd, "area": int((ids == k).sum())} for k, c, crowd in infos]
        annotations.append({"image_id": i, "file_name": f"{i}.png", "segments_info": infos})
    categories = [{"id": c, "name": n, "isthing": t} for c, n, t in
                  ((30, "cat", 1), (7, "sky", 0), (8, "dog", 1), (9, "sea", 0))]
    json.dump({"annotations": annotations, "categories": categories}, open(f"{folder}/{kind}.json", "w"))
    return f"{folder}/{kind}.json"

# Image 0: cat 70001 of 6 pixels, found but for one; sky found with one pixel too many.
# Image 1: a crowd of dogs, under which a dog and a cat are claimed; void below a second cat that is no mistake.
gt = write("gt", [[[70001] * 3 + [2] * 3, [70001] * 3 + [2] * 3], [[5, 5, 5, 5, 0, 0], [2] * 6]],
           [[(70001, 30, 0), (2, 7, 0)], [(5, 8, 1), (2, 7, 0)]], True)
pred = write("pred", [[[1, 1, 3, 3, 3, 3], [1, 1, 1, 3, 3, 3]], [[6, 6, 8, 8, 9, 9], [4] * 6]],
             [[(1, 30, 0), (3, 7, 0)], [(6, 8, 0), (8, 30, 0), (9, 30, 0), (4, 7, 0)]], False)
"""


def test_panoptic_quality_worked_by_hand(run_standin):
    out = run_standin(
        QUALITY
        + """
result = pq_compute(gt, pred)
print(json.dumps([result[g] for g in ("All", "Things", "Stuff")] + [result["per_class"][c] for c in (30, 7, 8, 9)]))
"""
    )
    every, things, stuff, cat, sky, dog, sea = json.loads(out)
    # cat: IoU 5/6; one false alarm, the cat on the crowd of dogs. sky: IoU 6/7 and 1.
    assert cat == pytest.approx({"pq": 5 / 6 / 1.5, "sq": 5 / 6, "rq": 1 / 1.5})
    assert sky == pytest.approx({"pq": (6 / 7 + 1) / 2, "sq": (6 / 7 + 1) / 2, "rq": 1})
    assert dog == sea == {"pq": 0, "sq": 0, "rq": 0}
    assert things["n"] == 1 and things["pq"] == pytest.approx(cat["pq"])  # dogs: nothing counts, so no category
    assert stuff["n"] == 1 and stuff["pq"] == pytest.approx(sky["pq"])
    assert every["n"] == 2 and every["pq"] == pytest.approx((cat["pq"] + sky["pq"]) / 2)


def test_of_several_crowds_of_a_category_the_last_one_excuses(run_standin):
    """A dog lies on the first of two crowds of dogs, another one on the second."""
    out = run_standin(
        QUALITY
        + """
gt = write("gt", [[[1, 1, 2, 2, 2]]], [[(1, 8, 1), (2, 8, 1)]], True)
for ids, dog in (([5, 5, 0, 0, 0], 5), ([0, 0, 6, 6, 6], 6)):
    dog_quality = pq_compute(gt, write("pred", [[ids]], [[(dog, 8, 0)]], False))
    print(dog_quality["All"]["n"])
"""
    )
    assert out.split() == ["1", "0"]  # counted as a false alarm, and not counted


def test_contradictions_between_png_and_json_are_refused(run_standin):
    out = run_standin(
        QUALITY
        + """
def attempt(change):
    content = json.load(open(pred))
    change(content["annotations"])
    json.dump(content, open(f"{folder}/changed.json", "w"))
    try:
        pq_compute(gt, f"{folder}/changed.json", f"{folder}/gt", f"{folder}/pred")
        print("accepted")
    except Exception as error:
        print(type(error).__name__, error)

attempt(lambda a: a[0]["segments_info"].pop())
attempt(lambda a: a[0]["segments_info"].append({"id": 77, "category_id": 30}))
attempt(lambda a: a[0]["segments_info"][0].update(category_id=1234))
attempt(lambda a: a.pop())
"""
    )
    lines = out.splitlines()
    assert len(lines) == 4
    for line, word in zip(lines, ("[3]", "[77]", "1234", "image with id: 1"), strict=True):
        assert word in line
    assert all(line.startswith("KeyError") for line in lines[:3])


def test_counts_of_parts_add_up(run_standin):
    out = run_standin(
        """
from panopticapi.evaluation import PQStat
a, b = PQStat(), PQStat()
a[3].tp += 1; a[3].iou += 0.8; b[3].fn += 2; b[4].fp += 1
a += b
average, per_class = a.pq_average({3: {"isthing": 1}, 4: {"isthing": 0}, 5: {"isthing": 0}}, isthing=None)
print(average["n"], average["pq"], per_class[5]["pq"])
nothing, _ = PQStat().pq_average({3: {"isthing": 1}}, isthing=None)
print(nothing)
"""
    ).splitlines()
    n, pq, absent = map(float, out[0].split())
    assert (n, absent) == (2, 0) and pq == pytest.approx((0.8 / 2 + 0) / 2)
    assert "'n': 0" in out[1]  # no division by zero where nothing occurs


def test_ids_and_colors():
    from panopticapi.utils import id2rgb, rgb2id

    ids = np.array([[0, 255, 256], [65536, 16777215, 70001]])
    rgb = id2rgb(ids)
    assert rgb.dtype == np.uint8 and rgb[1, 0].tolist() == [0, 0, 1]
    np.testing.assert_array_equal(rgb2id(rgb), ids)
    assert rgb2id([1, 2, 3]) == 1 + 2 * 256 + 3 * 65536 and list(id2rgb(70001)) == [113, 17, 1]


def test_a_pixel_of_uint8_does_not_overflow(run_standin):
    out = run_standin(
        """
import numpy as np
from panopticapi.utils import rgb2id
print(rgb2id(np.array([255, 255, 255], dtype=np.uint8)))
"""
    )
    assert int(out) == 16777215


def test_generated_ids_are_distinct_and_stuff_keeps_its_color():
    from panopticapi.utils import IdGenerator, rgb2id

    categories = {1: {"color": [200, 10, 10], "isthing": 1}, 2: {"color": [0, 0, 9], "isthing": 0}}
    generator = IdGenerator(categories)
    things = [generator.get_id_and_color(1) for _ in range(300)]
    ids = [i for i, _ in things]
    assert len(set(ids)) == 300 and not {0, rgb2id([0, 0, 9])} & set(ids)
    assert all(rgb2id(color) == i for i, color in things)
    assert generator.get_id(2) == generator.get_id(2) == 9 * 65536


def test_json_is_saved(tmp_path):
    from panopticapi.utils import save_json

    save_json({"a": [1]}, str(tmp_path / "a.json"))
    assert (tmp_path / "a.json").read_text() == '{"a": [1]}'
