"""The panoptic evaluator; wrong here means seen, unseen or harmonic-mean PQ that nobody else would get."""

import json
import math

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from panopticapi.evaluation import pq_compute
from PIL import Image

from PADing.errors import UserError
from PADing.evaluation import PanopticzeroEvaluator

# Ids with gaps, in an order that is neither sorted nor the contiguous one, a name that is not ASCII.
CATEGORIES = [
    {"id": 900, "name": "Gräser", "isthing": 0},
    {"id": 17, "name": "cat", "isthing": 1},
    {"id": 40, "name": "sky", "isthing": 0},
    {"id": 3, "name": "dog", "isthing": 1},
    {"id": 7, "name": "owl", "isthing": 1},
]
THINGS = {17: 0, 3: 1, 7: 2}
ALL = {**THINGS, 900: 3, 40: 4}
UNSEEN = ["dog", "owl", "sky"]


@pytest.fixture
def data(tmp_path, register, save_ids, save_json):
    """Two images. First: cat (id 5), dog (id 6), sky (id 70000). Second: cat and a category nobody asked for."""
    first = np.array([[5, 5, 6, 6], [5, 5, 6, 6], [70000] * 4, [70000] * 4])
    second = np.array([[9, 9, 4, 4]] * 4)
    annotations = [
        {
            "image_id": 11,
            "file_name": "b.png",
            "segments_info": [{"id": 9, "category_id": 17}, {"id": 4, "category_id": 555}],
        },
        {
            "image_id": 2,
            "file_name": "a.png",
            "segments_info": [
                {"id": 5, "category_id": 17, "iscrowd": 0},
                {"id": 6, "category_id": 3, "iscrowd": 0},
                {"id": 70000, "category_id": 40, "iscrowd": 0},
            ],
        },
    ]
    save_ids(tmp_path / "gt" / "a.png", first)
    save_ids(tmp_path / "gt" / "b.png", second)
    content = {
        "images": [{"id": i, "file_name": f"{n}.jpg", "height": 4, "width": 4} for i, n in ((2, "a"), (11, "b"))],
        "annotations": annotations,
        "categories": [*CATEGORIES, {"id": 555, "name": "not in the split", "isthing": 1}],
    }
    name = register(
        panoptic_json=save_json(tmp_path / "gt.json", content),
        panoptic_root=str(tmp_path / "gt"),
        thing_classes=["cat", "dog", "owl"],
        stuff_classes=["cat", "dog", "owl", "other in the annotation", "sky"],
        thing_dataset_id_to_contiguous_id=THINGS,
        stuff_dataset_id_to_contiguous_id=ALL,
        evaluation_set=UNSEEN,
        label_divisor=1000,
    )
    return name, {2: first, 11: second}


def _inputs(*pairs):
    return [{"image_id": i, "file_name": f"/x/{n}.jpg"} for i, n in pairs]


def _perfect(evaluator, maps):
    """Everything right, but the dog is called an owl."""
    ids = np.unique(maps[2], return_inverse=True)[1].reshape(4, 4) + 1  # 1 cat, 2 dog, 3 sky
    segments = [(1, 0, True), (2, 2, True), (3, 4, False)]
    first = (torch.tensor(ids, dtype=torch.int32), [{"id": i, "category_id": c, "isthing": t} for i, c, t in segments])
    second = (torch.tensor(maps[11] == 9).int(), [{"id": 1, "category_id": 0, "isthing": True}])
    evaluator.process(_inputs((2, "a")), [{"panoptic_seg": first}])
    evaluator.process(_inputs((11, "b")), [{"panoptic_seg": second}])


def test_groups_come_from_metadata_and_follow_their_rules(data, tmp_path):
    name, maps = data
    evaluator = PanopticzeroEvaluator(name, str(tmp_path / "out"))
    _perfect(evaluator, maps)
    result = evaluator.evaluate()["panoptic_seg"]
    # Present: cat 100, sky 100, dog 0 (missed), owl 0 (false alarm). Grass does not occur.
    assert result["PQ"] == pytest.approx(50)
    assert result["PQ_th"] == pytest.approx(100 / 3)
    assert result["PQ_st"] == pytest.approx(100)
    # Seen: cat 100 and grass, absent, counted as zero. Unseen: dog, owl, sky.
    assert result["PQ_se"] == pytest.approx(50)
    assert result["PQ_un"] == pytest.approx(100 / 3)
    assert result["PQ_hm"] == pytest.approx(2 * 50 * (100 / 3) / (50 + 100 / 3))
    assert list(result) == [m + s for s in ("", "_th", "_st", "_se", "_un", "_hm") for m in ("PQ", "SQ", "RQ")]


def test_absent_classes_can_be_left_out(data):
    name, maps = data
    evaluator = PanopticzeroEvaluator(name, exclude_absent=True)
    _perfect(evaluator, maps)
    result = evaluator.evaluate()["panoptic_seg"]
    assert result["PQ_se"] == pytest.approx(100) and result["PQ_un"] == pytest.approx(100 / 3)


def test_files_hold_the_result_and_pngs_only_on_request(data, tmp_path):
    name, maps = data
    evaluator = PanopticzeroEvaluator(name, str(tmp_path / "out"))
    _perfect(evaluator, maps)
    result = evaluator.evaluate()["panoptic_seg"]
    content = json.loads((tmp_path / "out" / "panoptic_results.json").read_text())
    assert content["panoptic_seg"] == result
    by_name = {entry["name"]: entry for entry in content["per_class"]}
    assert by_name["cat"]["PQ"] == 100 and by_name["dog"]["PQ"] == 0 and by_name["dog"]["unseen"]
    assert not by_name["Gräser"]["present"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["panoptic_results.json", "predictions.json"]


def test_written_predictions_give_panopticapi_the_same_metrics(data, tmp_path):
    name, maps = data
    evaluator = PanopticzeroEvaluator(name, str(tmp_path / "out"), write_png=True)
    _perfect(evaluator, maps)
    result = evaluator.evaluate()["panoptic_seg"]
    # COCO's own tool knows no category outside the split, so the test's stray one is taken out of the truth.
    truth = json.loads((tmp_path / "gt.json").read_text())
    for annotation in truth["annotations"]:
        kept = [s for s in annotation["segments_info"] if s["category_id"] != 555]
        annotation["segments_info"] = [
            {**s, "iscrowd": 0, "area": int((maps[annotation["image_id"]] == s["id"]).sum())} for s in kept
        ]
    (tmp_path / "clean.json").write_text(json.dumps(truth))
    out = tmp_path / "out"
    folders = str(tmp_path / "gt"), str(out / "panoptic_png")
    want = pq_compute(str(tmp_path / "clean.json"), str(out / "predictions.json"), *folders)
    for group, suffix in (("All", ""), ("Things", "_th"), ("Stuff", "_st")):
        for metric in ("pq", "sq", "rq"):
            assert result[metric.upper() + suffix] == pytest.approx(100 * want[group][metric])


def test_a_map_with_encoded_classes_is_understood(data):
    name, maps = data
    evaluator = PanopticzeroEvaluator(name)
    first = np.select([maps[2] == 5, maps[2] == 6], [0 * 1000 + 0, 1 * 1000 + 3], -1)
    evaluator.process(_inputs((2, "a")), [{"panoptic_seg": (torch.tensor(first), None)}])
    evaluator.process(_inputs((11, "b")), [{"panoptic_seg": (torch.full((4, 4), -1), None)}])
    result = evaluator.evaluate()["panoptic_seg"]
    assert result["RQ_th"] == pytest.approx(100 * (1 / 1.5 + 1) / 2)  # cat found once of twice, dog once of once


def test_a_data_set_without_unseen_classes_has_the_stock_keys(data, tmp_path, register, save_json):
    name, maps = data
    meta = MetadataCatalog.get(name).as_dict()
    plain = register(**{k: v for k, v in meta.items() if k not in ("name", "evaluation_set")})
    evaluator = PanopticzeroEvaluator(plain)
    _perfect(evaluator, maps)
    assert list(evaluator.evaluate()["panoptic_seg"]) == [m + s for s in ("", "_th", "_st") for m in ("PQ", "SQ", "RQ")]


def test_mistakes_are_named(data, tmp_path, register):
    name, maps = data
    evaluator = PanopticzeroEvaluator(name)
    with pytest.raises(UserError, match="PANOPTIC_ON"):
        evaluator.process(_inputs((2, "a")), [{"sem_seg": None}])
    empty = torch.zeros(4, 4, dtype=torch.int32)
    with pytest.raises(UserError, match="99"):
        evaluator.process(_inputs((99, "z")), [{"panoptic_seg": (empty, [])}])
    wrong = [{"id": 1, "category_id": 48, "isthing": True}]
    with pytest.raises(UserError, match="class 48"):
        evaluator.process(_inputs((2, "a")), [{"panoptic_seg": (empty + 1, wrong)}])
    with pytest.raises(UserError, match="not in its segment list"):
        evaluator.process(_inputs((2, "a")), [{"panoptic_seg": (empty + 1, [])}])
    with pytest.raises(UserError, match="size"):
        evaluator.process(_inputs((2, "a")), [{"panoptic_seg": (torch.zeros(2, 4), [])}])
    evaluator.process(_inputs((2, "a")), [{"panoptic_seg": (empty, [])}])
    # The second image was never seen; without a dataset dict for it, it is not part of the data set.
    assert math.isclose(evaluator.evaluate()["panoptic_seg"]["PQ"], 0)


def test_an_unprocessed_image_stops_the_evaluation(data, register):
    name, _ = data
    meta = {k: v for k, v in MetadataCatalog.get(name).as_dict().items() if k != "name"}
    name = register(_inputs((2, "a"), (11, "b")), **meta)
    evaluator = PanopticzeroEvaluator(name)
    evaluator.process(_inputs((2, "a")), [{"panoptic_seg": (torch.zeros(4, 4), [])}])
    with pytest.raises(UserError, match="1 of the 2 images.*11"):
        evaluator.evaluate()


def test_images_of_one_name_have_predictions_of_their_own(data, register, tmp_path, save_ids, save_json):
    name, maps = data
    content = json.loads((tmp_path / "gt.json").read_text())
    for item, file in zip(content["annotations"], ("a/1.png", "b/1.png"), strict=True):
        item["file_name"] = file
        save_ids(tmp_path / "gt" / file, maps[item["image_id"]])
    keys = {k: v for k, v in MetadataCatalog.get(name).as_dict().items() if k != "name"}
    own = register(**{**keys, "panoptic_json": save_json(tmp_path / "own.json", content)})
    evaluator = PanopticzeroEvaluator(own, str(tmp_path / "out"), write_png=True)
    for image_id, category in ((11, 0), (2, 1)):
        output = torch.full((4, 4), image_id), [{"id": image_id, "category_id": category, "isthing": True}]
        evaluator.process([{"image_id": image_id, "file_name": "/x/1.jpg"}], [{"panoptic_seg": output}])
    evaluator.evaluate()
    listed = json.loads((tmp_path / "out" / "predictions.json").read_text())["annotations"]
    assert {item["image_id"]: item["file_name"] for item in listed} == {11: "a/1.png", 2: "b/1.png"}
    for item in listed:
        png = np.asarray(Image.open(tmp_path / "out" / "panoptic_png" / item["file_name"]))
        assert (png[..., 0] == item["image_id"]).all()
