"""``verify``: missing, wrong and right are told apart, by the same code that training runs."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from PADing.data import verify
from PADing.data.check import check_data_set
from PADing.data.splits import load_split


def _report(own, name, **options):
    split = load_split(own.split_file)
    return check_data_set(split, split.data_set(name), deep=True, **options)


def test_good_data_pass(own):
    for kind in ("instance", "panoptic", "semantic"):
        for role in ("train", "val"):
            report = _report(own, f"own_{role}_{kind}")
            assert report.state == "ok" and report.ok, report.problems
            assert any("all images read" in fact for fact in report.facts)
            absent = [fact for fact in report.facts if fact.startswith("no annotation of")]
            assert bool(absent) == (kind != "semantic")
    facts = _report(own, "own_val_instance").facts
    assert "no annotation of 1 classes: leer" in facts
    own.instances["annotations"][0]["category_id"] = 101
    assert not any("no annotation" in fact for fact in _report(own.write(), "own_val_instance").facts)
    own.instances["annotations"][0]["category_id"] = 7
    own.write()
    assert any("2 of 5 images read" in fact for fact in _report(own, "own_val_semantic", images=2).facts)


def test_box_without_mask_can_be_evaluated_but_not_trained_on(own):
    del own.instances["annotations"][0]["segmentation"]
    own.write()
    report = _report(own, "own_train_instance")
    assert report.state == "WRONG" and "no mask" in report.problems[0] and "pic_900" in report.problems[0]
    assert _report(own, "own_val_instance").ok


def _twice(own):
    own.instances["images"].append(dict(own.instances["images"][0]))


def _text(own):
    own.instances["annotations"][0]["segmentation"] = "M 10 10 L 20 20"


def _far(own):
    own.instances["annotations"][0]["segmentation"][0][3] = 2**31


def _bomb(own):
    own.instances["images"][0].update(height=2**20, width=2**20)


def _huge(own):
    own.instances["images"][0].update(height=10**4000, width=10**4000)


@pytest.mark.parametrize(
    "change, reason",
    [
        (_twice, r"images\[5\] and images\[0\] have the same `id`"),
        (_text, "annotations.0. .id 1.: `segmentation` must be polygons"),
        (_far, "annotations.0. .id 1.: a polygon .* 2147483648"),
        (_bomb, "images.0. .id 900.: `height` x `width` = 1099511627776 pixels"),
        (_huge, "images.0. .id 900.: `height` and `width` must be"),
    ],
)
def test_wrong_annotation_is_wrong_not_missing(own, change, reason):
    change(own)
    own.write()
    report = _report(own, "own_train_instance")
    assert report.state == "WRONG"
    assert re.search(reason, report.problems[0])


def test_training_data_without_an_object_are_wrong(own):
    """Training would filter out every image and find nothing left."""
    for annotation in own.instances["annotations"]:
        annotation["iscrowd"] = 1
    own.write()
    assert "no image has an annotation" in _report(own, "own_train_instance").problems[0]
    assert _report(own, "own_val_instance").ok


def test_many_processes_read_what_one_reads(own):
    """On all of COCO one process would take an hour; a problem found by another one must come back."""
    entries = own.panoptic["images"], own.panoptic["annotations"]
    for number in range(120):
        for entry in entries:
            new = dict(entry[0])
            new["id" if "id" in new else "image_id"] = 2000 + number
            entry.append(new)
    own.write()
    assert _report(own, "own_val_panoptic", workers=2).ok
    (own.folder / "images" / "pic_12.png").write_bytes(b"broken")
    (problem,) = _report(own, "own_val_panoptic", workers=2).problems
    assert "pic_12.png cannot be read" in problem


def test_segments_without_a_pixel_are_counted(own):
    """What training leaves out is a fact; a PNG of another image is a mistake."""
    first = own.panoptic["annotations"][0]
    first["segments_info"].append({**first["segments_info"][0], "id": 4_000_000, "area": 0})
    first["segments_info"].append({**first["segments_info"][0], "id": 4_000_001})
    own.write()
    report = _report(own, "own_val_panoptic")
    assert report.ok and "2 segments of 1 images have no pixel in their PNG and are left out" in report.facts
    for segment in first["segments_info"]:
        segment["id"] += 70_000
    own.write()
    (problem,) = _report(own, "own_val_panoptic").problems
    assert "pic_900.png has no pixel of 4 of the 4 segments" in problem


def test_one_bad_image_among_many_is_found(own):
    """Reading the first one only, or a hundred of 118,000, would let it stop the training hours later."""
    path = own.folder / "images" / "pic_77.png"
    path.write_bytes(path.read_bytes()[:200])
    report = _report(own, "own_val_panoptic")
    assert report.state == "WRONG" and str(path) in report.problems[0]
    path.unlink()
    report = _report(own, "own_val_panoptic")
    assert report.state == "MISSING" and "1 of 5 files are missing" in report.problems[0]


def test_labels_with_background_name_the_cure(own):
    """The most common own format: 0 is background, classes count from 1."""
    path = own.folder / "labels" / "pic_5.png"
    Image.fromarray(np.full((40, 60), 5, dtype=np.uint8)).save(path)
    (problem,) = _report(own, "own_train_semantic").problems
    assert "has the values 5" in problem and "--ignore 0" in problem


def test_status_and_words_of_the_command(own, tmp_path, capsys):
    out = io.StringIO()
    assert verify.main(["--split-file", str(own.split_file), "--deep"], out) == 0
    _far(own)
    own.write()
    assert verify.main(["--split-file", str(own.split_file), "--deep"], out) == 1
    assert "WRONG    own_train_instance" in out.getvalue() and "ok       own_val_semantic" in out.getvalue()
    (tmp_path / "no.yaml").write_text("[")
    assert verify.main(["--split-file", str(tmp_path / "no.yaml")], out) == 2
    assert "no.yaml is not valid YAML" in capsys.readouterr().err
