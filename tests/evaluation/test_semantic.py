"""The semantic evaluator; wrong here means wrong mIoU or hIoU."""

import json
import logging
import math

import numpy as np
import pytest
import torch
from PIL import Image

from PADing.errors import UserError
from PADing.evaluation import SemSegGzeroEvaluator
from PADing.evaluation.semantic import semantic_metrics

NAMES = ["wall", "cat", "sky"]


def _scores(labels, classes=3):
    return torch.nn.functional.one_hot(torch.as_tensor(np.array(labels)), classes).permute(2, 0, 1).float()


@pytest.fixture
def labelled(tmp_path, register):
    """``labelled(truth, **metadata) -> (name, record)``: a data set of one image."""

    def function(truth, **metadata):
        path = tmp_path / "labels" / "a.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.array(truth, dtype=np.uint8)).save(path)
        record = {"file_name": "/images/a.jpg", "sem_seg_file_name": str(path)}
        metadata = {"stuff_classes": NAMES, "ignore_label": 255, "evaluation_set": ["sky"], **metadata}
        return register([record], **metadata), record

    return function


def test_a_hand_worked_image(labelled, tmp_path):
    # wall: 3 of 4 right, 1 more claimed: IoU 3/5. cat: 1 of 1, a wall pixel claimed: 1/2. sky: 1 of 2: IoU 1/2.
    truth = [[0, 0, 0, 0], [1, 2, 2, 255]]
    predicted = [[0, 0, 0, 1], [1, 2, 0, 2]]
    name, record = labelled(truth)
    evaluator = SemSegGzeroEvaluator(name, output_dir=str(tmp_path / "out"), write_png=True)
    evaluator.process([record], [{"sem_seg": _scores(predicted)}])
    result = evaluator.evaluate()["sem_seg"]
    assert result["IoU-wall"] == pytest.approx(60) and result["IoU-cat"] == pytest.approx(50)
    assert result["IoU-sky"] == pytest.approx(50) and result["ACC-sky"] == pytest.approx(50)
    assert result["mIoU"] == pytest.approx(160 / 3)
    assert result["mACC"] == pytest.approx((75 + 100 + 50) / 3) and result["pACC"] == pytest.approx(500 / 7)
    assert result["fwIoU"] == pytest.approx((4 * 60 + 1 * 50 + 2 * 50) / 7)
    assert result["seen_IoU"] == pytest.approx(55) and result["unseen_IoU"] == pytest.approx(50)
    assert result["seen_acc"] == pytest.approx(87.5) and result["unseen_acc"] == pytest.approx(50)
    assert result["hIoU"] == pytest.approx(2 * 55 * 50 / 105)
    assert json.loads((tmp_path / "out" / "sem_seg_results.json").read_text())["sem_seg"] == dict(result)
    assert np.asarray(Image.open(tmp_path / "out" / "sem_seg_png" / "a.png")).tolist() == predicted
    entries = json.loads((tmp_path / "out" / "sem_seg_predictions.json").read_text())
    assert [entry["category_id"] for entry in entries] == [0, 1, 2]


@pytest.mark.parametrize(("number", "kind"), [(3, np.uint8), (256, np.uint8), (257, np.uint16)])
def test_label_maps_of_many_classes_have_two_bytes_a_pixel(register, tmp_path, number, kind):
    """In one byte, class 256 would become class 0; in two, many programs cannot show the image."""
    Image.fromarray(np.zeros((1, 2), dtype=np.uint16)).save(tmp_path / "a.png")
    record = {"file_name": "/images/a.jpg", "sem_seg_file_name": str(tmp_path / "a.png")}
    name = register([record], stuff_classes=[f"class {i}" for i in range(number)], ignore_label=65535)
    evaluator = SemSegGzeroEvaluator(name, output_dir=str(tmp_path / "out"), write_png=True)
    evaluator.process([record], [{"sem_seg": _scores([[number - 1, 0]], number)}])
    written = np.asarray(Image.open(tmp_path / "out" / "sem_seg_png" / "a.png"))
    assert written.tolist() == [[number - 1, 0]] and (written.dtype == np.uint8) == (kind == np.uint8)


def test_images_of_one_name_have_predictions_of_their_own(labelled, register, tmp_path):
    """Names of the annotation may be equal but for the folder, and may try to leave the folder of the results."""
    maps = {"/d/a/1.jpg": [[0]], "/d/b/1.jpg": [[1]], "/d/../../../x.jpg": [[2]], "/d/nul\x00.jpg": [[0]]}
    name, record = labelled([[0]])
    records = [{**record, "file_name": file} for file in maps]
    evaluator = SemSegGzeroEvaluator(
        register(records, stuff_classes=NAMES, ignore_label=255),
        output_dir=str(tmp_path / "deep" / "out"),
        write_png=True,
    )
    for item in records:
        evaluator.process([item], [{"sem_seg": _scores(maps[item["file_name"]])}])
    evaluator.evaluate()
    written = {str(p.relative_to(tmp_path)): np.asarray(Image.open(p)).tolist() for p in tmp_path.rglob("*.png")}
    folder = "deep/out/sem_seg_png"
    assert written.pop("labels/a.png") and sorted(written) == [
        f"{folder}/{file}.png" for file in ("a/1", "b/1", "nul_", "x")
    ]
    assert written[f"{folder}/a/1.png"] == [[0]] and written[f"{folder}/b/1.png"] == [[1]]
    entries = json.loads((tmp_path / "deep" / "out" / "sem_seg_predictions.json").read_text())
    assert [entry["file_name"] for entry in entries] == list(maps)


def test_absent_classes_make_nan_unless_asked_otherwise():
    confusion = np.zeros((4, 4), dtype=np.int64)
    confusion[0, 0], confusion[1, 0] = 3, 1  # a wall of 4 pixels; nothing else exists
    plain = semantic_metrics(confusion, NAMES, frozenset([2]))
    assert plain["mIoU"] == pytest.approx(75 / 2)  # cat was predicted, so it counts; sky does not
    assert math.isnan(plain["IoU-cat"]) and math.isnan(plain["seen_IoU"]) and math.isnan(plain["hIoU"])
    aware = semantic_metrics(confusion, NAMES, frozenset([2]), nan_aware=True)
    assert aware["seen_IoU"] == pytest.approx(75) and math.isnan(aware["unseen_IoU"])


def test_nan_is_written_as_null(labelled, tmp_path):
    name, record = labelled([[0, 0]])
    evaluator = SemSegGzeroEvaluator(name, output_dir=str(tmp_path / "out"))
    evaluator.process([record], [{"sem_seg": _scores([[0, 0]])}])
    evaluator.evaluate()
    text = (tmp_path / "out" / "sem_seg_results.json").read_text()
    assert "NaN" not in text and json.loads(text)["sem_seg"]["hIoU"] is None


def test_counts_of_pixels_are_those_of_a_loop(labelled):
    names, generator = [*NAMES, "sea", "sand"], np.random.default_rng(0)
    truth, predicted = generator.integers(0, 5, (2, 9, 13))
    name, record = labelled(truth, stuff_classes=names)
    evaluator = SemSegGzeroEvaluator(name)
    evaluator.process([record], [{"sem_seg": _scores(predicted, 5)}])
    result = evaluator.evaluate()["sem_seg"]
    for i, own in enumerate(names):
        both, either = ((truth == i) & (predicted == i)).sum(), ((truth == i) | (predicted == i)).sum()
        assert result[f"IoU-{own}"] == pytest.approx(100 * both / either)


def test_a_set_of_fewer_classes_takes_only_their_scores(labelled):
    # The model also scores "sea", which this set does not show: its highest score must not count.
    name, record = labelled([[0, 1, 2]], vocabulary=["sea", "wall", "cat", "sky"])
    scores = torch.cat([torch.full((1, 1, 3), 9.0), _scores([[0, 1, 2]])])
    evaluator = SemSegGzeroEvaluator(name)
    evaluator.process([record], [{"sem_seg": scores}])
    assert evaluator.evaluate()["sem_seg"]["mIoU"] == pytest.approx(100)
    with pytest.raises(UserError, match="5 classes"):
        evaluator.process([record], [{"sem_seg": torch.zeros(5, 1, 3)}])


def test_labels_come_from_the_panoptic_annotation_when_there_are_no_others(tmp_path, register, save_ids, caplog):
    save_ids(tmp_path / "pan" / "a.png", [[70001, 70001, 4, 0]])
    segments = [{"id": 70001, "category_id": 2}, {"id": 4, "category_id": 0}]
    record = {
        "file_name": "/images/a.jpg",
        "pan_seg_file_name": str(tmp_path / "pan" / "a.png"),
        "segments_info": segments,
    }
    name = register([record], stuff_classes=NAMES, ignore_label=255, evaluation_set=["sky"])
    evaluator = SemSegGzeroEvaluator(name)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            evaluator.process([record], [{"sem_seg": _scores([[2, 1, 0, 1]])}])
    assert sum("panoptic annotation" in r.message for r in caplog.records) == 1
    result = evaluator.evaluate()["sem_seg"]
    assert result["IoU-sky"] == pytest.approx(50) and result["IoU-wall"] == pytest.approx(100)


def test_a_data_set_without_unseen_classes_has_no_split_metrics(labelled):
    name, record = labelled([[0, 1, 2]], evaluation_set=[])
    evaluator = SemSegGzeroEvaluator(name)
    evaluator.process([record], [{"sem_seg": _scores([[0, 1, 2]])}])
    result = evaluator.evaluate()["sem_seg"]
    assert result["mIoU"] == pytest.approx(100) and "hIoU" not in result and "unseen_IoU" not in result


def test_mistakes_are_named(labelled):
    name, record = labelled([[0, 7, 2]])
    evaluator = SemSegGzeroEvaluator(name)
    with pytest.raises(UserError, match=r"a\.png has the values 7, but there are 3 classes"):
        evaluator.process([record], [{"sem_seg": _scores([[0, 1, 2]])}])
    with pytest.raises(UserError, match="SEMANTIC_ON"):
        evaluator.process([record], [{"instances": None}])
    with pytest.raises(UserError, match="num_classes"):
        SemSegGzeroEvaluator(name, num_classes=4)


def test_a_prediction_of_another_size_is_refused(labelled):
    name, record = labelled([[0, 1, 2]])
    with pytest.raises(UserError, match=r"\(1, 2\)"):
        SemSegGzeroEvaluator(name).process([record], [{"sem_seg": _scores([[0, 1]])}])


def test_a_model_of_the_first_stage_is_scored_on_all_classes(labelled):
    """Stage 1 knows the seen classes only; 120000 iterations of it must not end in a refusal of its last evaluation."""
    name, record = labelled([[0, 1, 2]], vocabulary=NAMES)
    evaluator = SemSegGzeroEvaluator(name)
    evaluator.process([record], [{"sem_seg": _scores([[0, 1, 1]], classes=2)}])
    result = evaluator.evaluate()["sem_seg"]
    assert result["IoU-wall"] == 100 and result["IoU-cat"] == 50 and result["IoU-sky"] == 0


def test_nan_means_are_explained(labelled, caplog):
    """Otherwise someone whose data lack a class learns nothing from the metrics, nor why."""
    name, record = labelled([[0, 2]])
    evaluator = SemSegGzeroEvaluator(name)
    evaluator.process([record], [{"sem_seg": _scores([[0, 2]])}])
    assert math.isnan(evaluator.evaluate()["sem_seg"]["hIoU"])
    assert "(cat)" in caplog.text and "TEST.SEM_SEG_NAN_AWARE True" in caplog.text
