"""The lists of the val2017 protocol: a total rule, the same for every user; and refusals of what is not val2017."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from PADing.commands.val2017 import _rows, main, steps
from PADing.config import load_config
from PADing.data.splits import load_split
from PADing.data.val2017 import LEAST, choose, lists_hash, make_lists
from PADing.errors import UserError
from PADing.files import REPOSITORY

FOLDER = REPOSITORY / "datasets" / "splits" / "val2017"


def test_the_rule_of_version_1_never_changes():
    """The expected values were computed with sha256sum and sort."""
    train, val = choose(range(1, 51), [range(1, 51, 7)])
    assert val == [1, 8, 15, 22, 27, 29, 34, 36, 43, 50] and len(train) == 40
    assert lists_hash([1, 2], [3]) == "192f318fa669022934c49c8954f9fcf6f2d80170934c284b75752bcb92c08fc2"


def test_each_image_is_in_one_list_and_rare_classes_are_in_validation():
    draws = np.random.default_rng(0)
    images = draws.permutation(10**6)[:5000].tolist()
    shown = [draws.choice(images, number, replace=False).tolist() for number in (0, 3, 8, 40, 400, 2000)]
    train, val = choose(images, shown)
    assert len(train) == 4000 and len(val) == 1000
    assert sorted(train + val) == sorted(images)
    assert choose(images[::-1], [members[::-1] for members in shown]) == (train, val), "no order matters"
    for members in shown:
        assert len(set(members) & set(val)) >= min(LEAST, len(members))
    assert len(set(shown[1] + shown[2]) & set(train)) == 0, "all images of a rare class"
    share = len(set(shown[5]) & set(val)) / 1000
    assert 0.36 < share < 0.44, "a frequent class is as frequent as in all images"


@pytest.mark.parametrize("number", range(12))
def test_the_rule_has_an_answer_for_few_images(number):
    train, val = choose(range(number), [range(number)] * 30)
    assert len(val) == number // 5 and len(train) + len(val) == number


def test_the_classes_are_those_of_the_published_splits():
    for name, published in (("48_17", "coco_zsi_48_17"), ("119_14", "coco_panoptic_119_14")):
        own = load_split(FOLDER / f"val2017_{name}.yaml")
        other = load_split(REPOSITORY / "datasets" / "splits" / f"{published}.yaml")
        assert (own.seen, own.unseen, own.categories) == (other.seen, other.unseen, other.categories)


@pytest.fixture
def source(tmp_path):
    """``source(change) -> folder``: COCO's layout with 20 empty image files; ``change`` edits the annotation."""
    table = load_split(FOLDER / "val2017_48_17.yaml").categories
    content = {
        "info": {"year": 2017},
        "images": [{"id": i, "file_name": f"{i:012d}.jpg", "height": 4, "width": 4} for i in range(20)],
        "categories": [{"id": c.id, "name": c.name} for c in table if c.isthing],
        "annotations": [{"id": 1, "image_id": 3, "category_id": 6, "bbox": [0, 0, 2, 2], "iscrowd": 0}],
    }
    for folder in ("val2017", "annotations"):
        (tmp_path / "coco" / folder).mkdir(parents=True)
    for image in content["images"]:
        (tmp_path / "coco" / "val2017" / image["file_name"]).touch()

    def write(change=lambda content: None):
        change(content)
        (tmp_path / "coco" / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
        return tmp_path / "coco"

    return write


def splits():
    return [load_split(FOLDER / f"val2017_{name}.yaml") for name in ("48_17", "119_14")]


def test_a_bus_that_one_image_shows_is_validated(source):
    lists, _ = make_lists(source(), splits(), subset=True)
    assert 3 in lists["val"] and len(lists["val"]) == 4 and not lists["complete"]


def year_2014(content):
    content["info"]["year"] = 2014


def names_of_2014(content):
    content["images"][0]["file_name"] = "COCO_val2014_000000000000.jpg"


def other_classes(content):
    content["categories"] = content["categories"][:3]


def negative_size(content):
    content["images"][1]["height"] = -4


def twins(content):
    content["images"][1]["id"] = 0


def no_image(content):
    content["images"] = []


@pytest.mark.parametrize(
    "change, message",
    [
        (year_2014, "is of the year 2014, but val2017 is needed"),
        (names_of_2014, "is of the year 2017, but val2017|other years have other files"),
        (other_classes, "has no category called .*: it is not COCO's"),
        (negative_size, "must be numbers of pixels >= 1"),
        (twins, "have the same `id`"),
        (no_image, "lists no image. Is the download complete"),
    ],
)
def test_another_annotation_is_refused(source, change, message):
    with pytest.raises(UserError, match=message):
        make_lists(source(change), splits(), subset=True)


def test_missing_images_and_files_are_named_with_their_download(source, tmp_path):
    coco = source()
    with pytest.raises(UserError, match="lists 20 images, but COCO's val2017 has 5,000"):
        make_lists(coco, splits())
    for path in (coco / "val2017").iterdir():
        path.unlink()
    with pytest.raises(
        UserError, match="20 of 20 images are missing in .*, such as 000000000000.jpg. Unpack val2017.zip"
    ):
        make_lists(coco, splits(), subset=True)
    (coco / "val2017").rmdir()
    with pytest.raises(UserError, match="The image folder .* cannot be read"):
        make_lists(coco, splits(), subset=True)
    path = coco / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(UserError, match="is not valid JSON .* Is the download complete"):
        make_lists(coco, splits(), subset=True)
    path.unlink()
    with pytest.raises(UserError, match="does not exist. It is in annotations_trainval2017.zip"):
        make_lists(coco, splits(), subset=True)


def test_few_images_are_too_few(source):
    def three(content):
        content["images"] = content["images"][:4]

    with pytest.raises(UserError, match="too few for two lists"):
        make_lists(source(three), splits(), subset=True)


def test_lists_of_other_images_are_not_replaced_without_force(source, monkeypatch, capfd):
    coco = source()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(coco.parent))
    (coco / "val2017_zero_shot").mkdir()
    (coco / "val2017_zero_shot" / "lists.json").write_text('{"sha256": "other"}')
    assert main(["prepare", "--subset", "--tasks", "instance"]) == 2
    assert "was made from other images. Add --force" in capfd.readouterr().err
    assert main(["prepare", "--subset"]) == 2
    assert "panoptic_val2017.json does not exist. It is in panoptic_annotations" in capfd.readouterr().err


@pytest.mark.parametrize("task", ["instance", "panoptic"])
def test_every_step_has_a_config_that_can_be_read(task, tmp_path):
    found = steps(task, tmp_path, 0, ["SEED", "1"], "R-50.pkl")
    assert len({made for made, _ in found}) == len(found) == {"instance": 4, "panoptic": 3}[task]
    for _, (script, *words) in found:
        assert (REPOSITORY / script).is_file()
        if "--config-file" in words:
            place = words.index("OUTPUT_DIR")
            cfg = load_config(words[words.index("--config-file") + 1], words[place:])
            assert cfg.SEED == 1 and cfg.DATASETS.TRAIN[0].startswith("val2017_")


def test_the_report_has_a_row_for_each_metric(tmp_path, capsys):
    assert main(["report", "--output", str(tmp_path)]) == 1
    assert "holds no results yet" in capsys.readouterr().out
    folder = tmp_path / "d2zero"
    folder.mkdir()
    results = {"a_val": {"segm": {"AP50_seen": 12.345, "AP50_unseen": None, "AP50_hm": 1}}, "weights": "ema"}
    results["b_val"] = {"segm": {"AP50_seen": 10**400, "AP50_unseen": True, "AP50_hm": float("nan")}}
    (folder / "results.json").write_text(json.dumps(results))
    odd = ["d2zero", "b_val", "AP50", "", "", ""]
    assert _rows(folder / "results.json") == [["d2zero", "a_val", "AP50", "12.35", "", "1.00"], odd]
    assert main(["report", "--output", str(tmp_path)]) == 0
    assert "| d2zero | a_val | AP50 | 12.35 |  | 1.00 |" in capsys.readouterr().out


SAVES = """
import pathlib, time
pathlib.Path("begun").touch()
try:
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(1)
    pathlib.Path("saved").touch()
"""


def test_ctrl_c_lets_a_training_save_its_checkpoint(tmp_path):
    """Ctrl-C reaches both processes; the step needs a moment, which it has."""
    # A shell's background jobs ignore Ctrl-C, and so would these.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from PADing.commands.val2017 import _call; _call([sys.executable, '-c', sys.argv[1]])"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, SAVES], cwd=tmp_path, env=environment, start_new_session=True, stderr=-3
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) != 0 and (tmp_path / "saved").exists()
