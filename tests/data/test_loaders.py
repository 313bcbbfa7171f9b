"""Annotation files to dicts: by category id, without unseen classes in training, with messages that name the file."""

import json
import random
import shutil

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from PADing.data.coco_schema import mask_problem
from PADing.data.loaders import load_data_set
from PADing.data.registration import register_split_files
from PADing.data.splits import load_split, shipped_split_files
from PADing.errors import UserError


def _load(own, name):
    split = load_split(own.split_file)
    return load_data_set(split, split.data_set(name))


def _ids(dicts):
    return [entry["image_id"] for entry in dicts]


def test_instances(own):
    dicts = _load(own, "own_val_instance")
    assert _ids(dicts) == [5, 12, 77, 300, 900]
    by_id = {entry["image_id"]: entry for entry in dicts}
    assert [a["category_id"] for a in by_id[77]["annotations"]] == [0, 2]  # κύκλος 0, leer 1, 四角 2
    assert [a["iscrowd"] for a in by_id[77]["annotations"]] == [0, 1]
    assert by_id[900]["annotations"][0]["bbox_mode"] == BoxMode.XYWH_ABS
    assert by_id[5]["file_name"] == str(own.folder / "images" / "pic_5.png")
    # The three-number polygon is dropped, the other polygon of that annotation stays.
    assert len(by_id[900]["annotations"][1]["segmentation"]) == 1
    # Uncompressed RLE becomes compressed with the same pixels; the two-point polygon's annotation is dropped.
    (blob,) = by_id[300]["annotations"]
    assert mask_util.decode(blob["segmentation"]).sum() == 10 * 25 and isinstance(blob["segmentation"]["counts"], bytes)


def test_order_of_categories_plays_no_part(own):
    """The public zero-shot files list their categories in an order of their own."""
    before = _load(own, "own_val_instance"), _load(own, "own_val_panoptic")
    random.Random(3).shuffle(own.instances["categories"])
    own.panoptic["categories"] = own.panoptic["categories"][::-1]
    own.write()
    assert before == (_load(own, "own_val_instance"), _load(own, "own_val_panoptic"))


def test_training_sets_of_seen_classes_never_show_unseen_ones(own):
    """A leaked unseen object would make every zero-shot metric worthless; a crowd region is one, too."""
    assert _ids(_load(own, "own_train_instance")) == [12, 300, 900]
    assert _ids(_load(own, "own_train_panoptic")) == [12, 300, 900]


def test_panoptic(own):
    dicts = {entry["image_id"]: entry for entry in _load(own, "own_val_panoptic")}
    # Listed order, things first: κύκλος 0, leer 1, 四角 2, Straße 3, Gras 4.
    assert [(s["category_id"], s["isthing"]) for s in dicts[77]["segments_info"]] == [(3, False), (0, True), (2, True)]
    assert dicts[5]["pan_seg_file_name"] == str(own.folder / "panoptic" / "pic_5.png")
    assert dicts[5]["file_name"].endswith("images/pic_5.png")


def test_semantic_pairs(own, caplog):
    (own.folder / "labels" / "no_picture.png").write_bytes((own.folder / "labels" / "pic_5.png").read_bytes())
    (own.folder / "labels" / ".unfinished.png").write_bytes(b"")
    dicts = _load(own, "own_val_semantic")
    assert len(dicts) == 5 and "1 label files" in caplog.text
    for entry in dicts:
        assert entry["file_name"].replace("/images/", "/labels/") == entry["sem_seg_file_name"]


def test_pairs_in_subfolders_and_with_other_extensions(own):
    (own.folder / "images" / "sub").mkdir()
    (own.folder / "labels" / "sub").mkdir()
    (own.folder / "images" / "pic_5.png").rename(own.folder / "images" / "sub" / "pic_5.JPEG")
    (own.folder / "labels" / "pic_5.png").rename(own.folder / "labels" / "sub" / "pic_5.png")
    dicts = _load(own, "own_val_semantic")
    pairs = {tuple(entry[key].split("/", -1)[-1] for key in ("file_name", "sem_seg_file_name")) for entry in dicts}
    assert any(entry["file_name"].endswith("sub/pic_5.JPEG") for entry in dicts)
    assert ("pic_5.JPEG", "pic_5.png") in pairs and len(pairs) == len(dicts)


def test_images_of_one_name_in_several_folders_keep_their_own_labels(own):
    for kind in ("images", "labels"):
        for folder in ("sub", "other", "other/sub"):
            (own.folder / kind / folder).mkdir()
            (own.folder / kind / folder / "pic_5.png").write_bytes((own.folder / kind / "pic_5.png").read_bytes())
    dicts = _load(own, "own_val_semantic")
    same = [entry for entry in dicts if entry["file_name"].endswith("pic_5.png")]
    assert len(same) == 4
    for entry in same:
        assert entry["file_name"].replace("/images/", "/labels/") == entry["sem_seg_file_name"]


def test_one_class_without_annotation_is_fine(own):
    dicts = _load(own, "own_val_instance")
    assert not any(a["category_id"] == 1 for entry in dicts for a in entry["annotations"])


def _remove(path):
    def change(own):
        target = own.folder / path
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return change


def _annotation(**changes):
    def change(own):
        own.instances["annotations"][0].update(changes)
        own.write()

    return change


def _rename_category(own):
    own.instances["categories"][0]["name"] = "Kreis"
    own.write()


@pytest.mark.parametrize(
    "kind, change, parts",
    [
        ("instance", _remove("instances.json"), ["instances.json does not exist", "docs/your_data.md"]),
        ("instance", _remove("images"), ["images does not exist"]),
        ("panoptic", _remove("panoptic.json"), ["panoptic.json does not exist"]),
        ("panoptic", _remove("panoptic"), ["panoptic does not exist"]),
        ("panoptic", _remove("panoptic/pic_5.png"), ["pic_5.png does not exist"]),
        ("semantic", _remove("labels"), ["labels does not exist"]),
        ("instance", _annotation(category_id=55), ["annotation 1", "category 55"]),
        ("instance", _annotation(id=2), ["annotations[1] and annotations[0] have the same `id`, 2"]),
        ("instance", _rename_category, ["category 7", "'Kreis'", "'κύκλος'"]),
        (
            "instance",
            _annotation(segmentation={"size": [4, 4], "counts": [8, 8]}),
            ["annotations[0] (id 1)", "[4, 4]", "40 x 60"],
        ),
    ],
)
def test_what_is_wrong_is_named(own, kind, change, parts):
    """Data set, file and entry: with these three one can mend it."""
    change(own)
    with pytest.raises(UserError) as error:
        _load(own, f"own_val_{kind}")
    for part in [f"own_val_{kind}", *parts]:
        assert part in str(error.value)


def test_half_a_download_is_recognised(own):
    path = own.folder / "instances.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(UserError, match="not valid JSON.*download complete"):
        _load(own, "own_val_instance")


@pytest.mark.parametrize("split_name, images, images_unfiltered", [("48_17", 29, 32), ("65_15", 49, 50)])
def test_real_coco_training_images(shared_data, tmp_path, split_name, images, images_unfiltered):
    """The counts in the samples' description were made independently of this code."""
    split_path = tmp_path / "split.yaml"
    content = load_split(next(f for f in shipped_split_files() if f.endswith(f"coco_zsi_{split_name}.yaml")))
    folder = shared_data / "real_coco"
    split_path.write_text(
        json.dumps(
            {
                "name": f"real_{split_name}",
                "categories": [{"id": c.id, "name": c.name, "isthing": int(c.isthing)} for c in content.categories],
                "seen": content.seen,
                "unseen": content.unseen,
                "data_sets": [
                    {
                        "name": f"real_{split_name}_train",
                        "role": "train",
                        "kind": "instance",
                        "image_root": str(folder / "train2017"),
                        "json": str(folder / "annotations" / "instances_train2017.json"),
                    }
                ],
            }
        )
    )
    register_split_files([split_path])
    dicts = DatasetCatalog.get(f"real_{split_name}_train")
    assert len(dicts) == images_unfiltered
    classes = MetadataCatalog.get(f"real_{split_name}_train").thing_classes
    with_object = [d for d in dicts if any(not a["iscrowd"] for a in d["annotations"])]
    assert len(with_object) == images
    labels = np.array([a["category_id"] for d in dicts for a in d["annotations"]])
    assert labels.min() >= 0 and labels.max() < len(classes)


def test_entries_that_lack_a_field_are_named_with_their_file(own):
    """A traceback with KeyError: 'height' tells a newcomer nothing."""
    del own.instances["images"][1]["height"]
    own.write()
    with pytest.raises(UserError, match=r"own_val_instance, .*instances.json: images\[1\] \(id 5\): .* 'height'"):
        _load(own, "own_val_instance")


def test_annotations_of_unlisted_images(own):
    """They would silently not be trained on."""
    own.instances["images"] = own.instances["images"][1:]
    own.write()
    with pytest.raises(UserError, match="1 images that `images` does not list, e.g. 900"):
        _load(own, "own_val_instance")


def test_compressed_masks_are_measured_as_pycocotools_writes_them():
    """pycocotools reads beyond the end of counts that do not fill their mask; good ones must not be refused."""
    rng = np.random.default_rng(2)
    for _ in range(200):
        height, width = rng.integers(1, 90, 2).tolist()
        mask = rng.random((height, width)) < rng.choice([0, 0.02, 0.5, 0.98, 1])
        if rng.random() < 0.5:
            mask = np.repeat(np.repeat(mask, 40, axis=0), 37, axis=1)  # long runs, which take several characters
        rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
        height, width = mask.shape
        assert mask_problem(rle, height, width) is None
        assert mask_problem({**rle, "counts": rle["counts"].decode()}, height, width) is None
        other = {"size": [height + 1, width], "counts": rle["counts"]}
        assert f"for {height * width} pixels" in mask_problem(other, height + 1, width)
        assert mask_problem({**rle, "counts": rle["counts"] + b"1"}, height, width) is not None
