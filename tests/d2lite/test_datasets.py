"""Loaders of data sets: if these fail, annotations go to wrong images or classes, or get lost, before any training."""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import (
    convert_to_coco_json,
    load_coco_json,
    load_sem_seg,
    register_coco_instances,
    register_coco_panoptic,
    register_coco_panoptic_separated,
)
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.data.datasets.coco_panoptic import load_coco_panoptic_json
from detectron2.structures import BoxMode, polygons_to_bitmask
from PIL import Image
from pycocotools.coco import COCO

SHARED = Path(__file__).resolve().parents[2].parent / "shared/data"
REAL = SHARED / "real_coco"
PANOPTIC = SHARED / "panoptic_sample"
needs_real = pytest.mark.skipif(not REAL.exists(), reason="shared data (../shared/data/real_coco) are absent")
needs_panoptic = pytest.mark.skipif(
    not PANOPTIC.exists(), reason="shared data (../shared/data/panoptic_sample) are absent"
)

SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]


@pytest.fixture
def name(request):
    """A fresh data set name; whatever is registered under it is forgotten afterwards."""
    name = request.node.name
    yield name
    for catalog in (DatasetCatalog, MetadataCatalog):
        for key in [k for k in catalog if k.startswith(name)]:
            catalog.pop(key)


def annotation(id, image_id=4, category_id=20, segmentation=None, **more):
    segmentation = [SQUARE] if segmentation is None else segmentation
    fields = {"id": id, "image_id": image_id, "category_id": category_id, "iscrowd": 0}
    return {**fields, "bbox": [1, 1, 4, 4], "area": 16, "segmentation": segmentation, **more}


@pytest.fixture
def write(tmp_path):
    """Write a COCO file with two images (unsorted) and two categories (unsorted); returns its path."""

    def write(annotations, file="instances.json"):
        content = {
            "images": [
                {"id": 9, "file_name": "b.jpg", "height": 8, "width": 10},
                {"id": 4, "file_name": "a.jpg", "height": 6, "width": 7},
            ],
            "categories": [{"id": 30, "name": "cat"}, {"id": 20, "name": "dog"}],
            "annotations": annotations,
        }
        path = tmp_path / file
        path.write_text(json.dumps(content))
        return str(path)

    return write


# ---- COCO instances


def test_images_and_categories_are_sorted_by_id(write, name):
    path = write([annotation(1, 9, 30), annotation(2, 4, 20), annotation(3, 9, 20)])
    dicts = load_coco_json(path, "/images", name)
    assert [(d["image_id"], d["file_name"], d["height"], d["width"]) for d in dicts] == [
        (4, "/images/a.jpg", 6, 7),
        (9, "/images/b.jpg", 8, 10),
    ]
    assert [[a["category_id"] for a in d["annotations"]] for d in dicts] == [[0], [1, 0]]
    assert MetadataCatalog.get(name).thing_classes == ["dog", "cat"]
    assert MetadataCatalog.get(name).thing_dataset_id_to_contiguous_id == {20: 0, 30: 1}
    assert dicts[0]["annotations"] == [
        {
            "iscrowd": 0,
            "bbox": [1, 1, 4, 4],
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": 0,
            "segmentation": [SQUARE],
        }
    ]


def test_without_a_name_the_files_own_category_ids_stay(write):
    before = MetadataCatalog.list()
    dicts = load_coco_json(write([annotation(1)]), "")
    assert dicts[0]["annotations"][0]["category_id"] == 20
    assert MetadataCatalog.list() == before


def test_extra_fields_and_keypoints(write):
    path = write([annotation(1, note="x", keypoints=[3, 4, 2, 0, 0, 0])])
    plain = load_coco_json(path, "")[0]["annotations"][0]
    assert "note" not in plain
    # Coordinates move from pixel indices to pixel centres; visibility stays.
    assert plain["keypoints"] == [3.5, 4.5, 2, 0.5, 0.5, 0]
    assert load_coco_json(path, "", None, ["note"])[0]["annotations"][0]["note"] == "x"


def test_invalid_polygons_are_left_out(write):
    path = write(
        [
            annotation(1, segmentation=[[1, 1, 2, 2], SQUARE, SQUARE[:-1]]),
            annotation(2, segmentation=[[1, 1, 2, 2]]),
            annotation(3, segmentation=[]),
        ]
    )
    annotations = load_coco_json(path, "")[0]["annotations"]
    assert len(annotations) == 2
    assert annotations[0]["segmentation"] == [SQUARE]
    assert "segmentation" not in annotations[1]  # a box alone is fine


def test_uncompressed_rle_is_compressed(write):
    mask = np.zeros((6, 7), np.uint8)
    mask[1:3, 2:5] = 1
    runs, value, counts = mask.T.reshape(-1), 0, [0]
    for x in runs:
        if x != value:
            value, counts = x, [*counts, 0]
        counts[-1] += 1
    path = write([annotation(1, segmentation={"counts": counts, "size": [6, 7]}, iscrowd=1)])
    loaded = load_coco_json(path, "")[0]["annotations"][0]
    assert loaded["iscrowd"] == 1
    assert np.array_equal(mask_util.decode(loaded["segmentation"]), mask)


def test_bad_files_are_refused(write):
    with pytest.raises(AssertionError, match="not unique"):
        load_coco_json(write([annotation(1), annotation(1, 9)]), "")
    assert load_coco_json(write([annotation(1), annotation(1, 9)], "minival.json"), "")
    with pytest.raises(KeyError, match="category_id=77"):
        load_coco_json(write([annotation(1, category_id=77)]), "", "bad_categories")
    MetadataCatalog.pop("bad_categories")
    with pytest.raises(ValueError, match="bbox"):
        load_coco_json(write([annotation(1, bbox=[])]), "")
    with pytest.raises(AssertionError):
        load_coco_json(write([annotation(1, ignore=1)]), "")
    with pytest.raises(FileNotFoundError):
        load_coco_json("/no/such/file.json", "")


def test_registering_instances(write, name):
    path = write([annotation(1)])
    register_coco_instances(name, {"thing_classes": ["dog", "cat"]}, path, "/images")
    meta = MetadataCatalog.get(name)
    assert (meta.json_file, meta.image_root, meta.evaluator_type) == (path, "/images", "coco")
    assert len(DatasetCatalog.get(name)) == 2
    register_coco_instances(name, {}, path, "/images")  # again: nothing happens
    with pytest.raises(AssertionError):
        register_coco_instances(3, {}, path, "/images")


@needs_real
@pytest.mark.parametrize(("split", "images", "annotations", "crowds"), [("train", 75, 642, 7), ("val", 50, 501, 7)])
def test_real_instances(name, split, images, annotations, crowds):
    """All annotations of real images arrive, and their masks are those of COCO's own library."""
    path = str(REAL / f"annotations/instances_{split}2017.json")
    root = REAL / f"{split}2017"
    dicts = load_coco_json(path, str(root), name)
    assert len(dicts) == images and all(Path(d["file_name"]).exists() for d in dicts)
    loaded = [a for d in dicts for a in d["annotations"]]
    assert (len(loaded), sum(a["iscrowd"] for a in loaded)) == (annotations, crowds)
    assert MetadataCatalog.get(name).thing_classes == [c["name"] for c in COCO_CATEGORIES if c["isthing"]]

    coco = COCO(path)
    names = MetadataCatalog.get(name).thing_classes
    for d in dicts:
        theirs = coco.imgToAnns[d["image_id"]]
        assert len(theirs) == len(d["annotations"])
        for a, b in zip(d["annotations"], theirs, strict=True):
            assert names[a["category_id"]] == coco.cats[b["category_id"]]["name"] and a["bbox"] == b["bbox"]
            if isinstance(a["segmentation"], dict):
                mask = mask_util.decode(a["segmentation"])
            else:
                mask = polygons_to_bitmask(a["segmentation"], d["height"], d["width"])
            assert np.array_equal(mask, coco.annToMask(b).astype(mask.dtype))


# ---- semantic


@pytest.fixture
def folders(tmp_path):
    """Make a folder of images and one of labels with empty files; returns a function for the pairs found in them."""

    def pairs(image_names, label_names, **extensions):
        images, labels = tmp_path / "images", tmp_path / "labels"
        for folder, names in ((images, image_names), (labels, label_names)):
            folder.mkdir(exist_ok=True)
            for file in names:
                (folder / file).touch()
        found = load_sem_seg(str(labels), str(images), **extensions)
        assert all(Path(d["file_name"]).parent == images for d in found)
        assert all(Path(d["sem_seg_file_name"]).parent == labels for d in found)
        return [(Path(d["file_name"]).name, Path(d["sem_seg_file_name"]).name) for d in found]

    return pairs


def test_semantic_pairs_are_the_intersection(folders, caplog):
    names = [("c.jpg", "a.jpg", "b.jpg", "a.txt"), ("b.png", "a.png", "d.png", "e.png")]
    assert folders(*names) == [("a.jpg", "a.png"), ("b.jpg", "b.png")]
    assert "3" in caplog.text and "4" in caplog.text
    with pytest.raises(AssertionError, match="labels"):
        folders(*names, gt_ext="tif")


def test_semantic_pairs_of_folders_of_one_length_go_by_order(folders):
    assert folders(["b.jpg", "a.jpg"], ["y.png", "x.png"]) == [("a.jpg", "x.png"), ("b.jpg", "y.png")]


# ---- panoptic


@needs_panoptic
def test_real_panoptic(name):
    """Segment ids are those in the pixels, and contiguous ids lead back to the right names."""
    things = {c["id"]: i for i, c in enumerate(c for c in COCO_CATEGORIES if c["isthing"])}
    stuff = {c["id"]: 80 + i for i, c in enumerate(c for c in COCO_CATEGORIES if not c["isthing"])}
    meta = {"thing_dataset_id_to_contiguous_id": things, "stuff_dataset_id_to_contiguous_id": stuff}
    path = PANOPTIC / "annotations/panoptic_val2017.json"
    register_coco_panoptic(name, meta, str(PANOPTIC / "val2017"), str(PANOPTIC / "panoptic_val2017"), str(path))
    dicts = DatasetCatalog.get(name)
    published = json.loads(path.read_text())
    names = {c["id"]: c["name"] for c in published["categories"]}
    assert [d["image_id"] for d in dicts] == [a["image_id"] for a in published["annotations"]]
    for d, a in zip(dicts, published["annotations"], strict=True):
        assert Path(d["file_name"]).exists() and d["file_name"].endswith(".jpg")
        pixels = np.asarray(Image.open(d["pan_seg_file_name"]).convert("RGB")).astype(np.int64)
        ids = np.unique(pixels @ [1, 256, 65536])
        assert set(ids) - {0} == {s["id"] for s in d["segments_info"]}
        for ours, theirs in zip(d["segments_info"], a["segments_info"], strict=True):
            assert COCO_CATEGORIES[ours["category_id"]]["name"] == names[theirs["category_id"]]
            assert ours["isthing"] is (theirs["category_id"] <= 90)
            assert all(ours[k] == theirs[k] for k in ("id", "area", "bbox", "iscrowd"))
    fields = MetadataCatalog.get(name)
    assert (fields.evaluator_type, fields.ignore_label, fields.label_divisor) == ("coco_panoptic_seg", 255, 1000)
    assert (fields.panoptic_json, fields.json_file) == (str(path), None)


def panoptic_file(tmp_path, category):
    segments = [{"id": 1, "category_id": category, "iscrowd": 0, "area": 3, "bbox": [0, 0, 1, 3]}]
    path = tmp_path / "panoptic.json"
    path.write_text(json.dumps({"annotations": [{"image_id": 4, "file_name": "a.png", "segments_info": segments}]}))
    return str(path)


def test_panoptic_files_must_exist(tmp_path):
    meta = {"thing_dataset_id_to_contiguous_id": {20: 0}, "stuff_dataset_id_to_contiguous_id": {90: 1}}
    path = panoptic_file(tmp_path, 90)
    with pytest.raises(AssertionError, match="a.jpg"):
        load_coco_panoptic_json(path, str(tmp_path), str(tmp_path), meta)
    (tmp_path / "a.jpg").touch()
    with pytest.raises(AssertionError, match="a.png"):
        load_coco_panoptic_json(path, str(tmp_path), str(tmp_path), meta)
    (tmp_path / "a.png").touch()
    segment = load_coco_panoptic_json(path, str(tmp_path), str(tmp_path), meta)[0]["segments_info"][0]
    assert (segment["category_id"], segment["isthing"]) == (1, False)
    with pytest.raises(KeyError):
        load_coco_panoptic_json(panoptic_file(tmp_path, 91), str(tmp_path), str(tmp_path), meta)


def test_separated_joins_instances_and_semantic_labels(tmp_path, write, name):
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder, extension in ((images, "jpg"), (labels, "png")):
        folder.mkdir()
        for stem in ("a", "b"):
            (folder / f"{stem}.{extension}").touch()
    register_coco_panoptic_separated(
        name, {"stuff_classes": ["things", "sky"]}, str(images), "", "p.json", str(labels), write([annotation(1)])
    )
    dicts = DatasetCatalog.get(f"{name}_separated")
    assert [Path(d["sem_seg_file_name"]).name for d in dicts] == ["a.png", "b.png"]
    assert len(dicts[0]["annotations"]) == 1
    assert len(DatasetCatalog.get(f"{name}_stuffonly")) == 2
    assert MetadataCatalog.get(f"{name}_separated").evaluator_type == "coco_panoptic_seg"
    (labels / "b.png").unlink()
    with pytest.raises((KeyError, AssertionError)):
        DatasetCatalog.get(f"{name}_separated")


# ---- conversion


@needs_real
def test_conversion_gives_back_the_file(tmp_path, name):
    path = str(REAL / "annotations/instances_val2017.json")
    register_coco_instances(name, {}, path, "")
    out = tmp_path / "sub" / "converted.json"
    convert_to_coco_json(name, str(out))
    theirs, ours = COCO(path), COCO(str(out))
    assert {i: (x["width"], x["height"]) for i, x in theirs.imgs.items()} == {
        i: (x["width"], x["height"]) for i, x in ours.imgs.items()
    }
    assert {i: c["name"] for i, c in theirs.cats.items()} == {i: c["name"] for i, c in ours.cats.items()}
    assert min(ours.anns) == 1 and len(ours.anns) == len(theirs.anns)
    for image_id in theirs.imgs:
        for a, b in zip(theirs.imgToAnns[image_id], ours.imgToAnns[image_id], strict=True):
            assert (a["category_id"], a["iscrowd"]) == (b["category_id"], b["iscrowd"])
            assert np.allclose(a["bbox"], b["bbox"], atol=1e-3)
            mask = theirs.annToMask(a)
            assert np.array_equal(mask, ours.annToMask(b))
            if isinstance(b["segmentation"], dict):
                assert b["area"] == mask.sum()
            else:
                assert b["area"] == pytest.approx(a["area"], rel=0.15)


def test_conversion_is_cached_when_allowed(tmp_path, name, caplog):
    images = [{"file_name": "a.jpg", "image_id": 7, "height": 6, "width": 7, "annotations": []}]
    DatasetCatalog.register(name, lambda: images)
    MetadataCatalog.get(name).set(thing_classes=["dog"])
    out = tmp_path / "c.json"
    convert_to_coco_json(name, str(out))
    images[0]["annotations"].append({"bbox": np.array([1, 1, 5, 4]), "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0})
    caplog.clear()
    convert_to_coco_json(name, str(out))
    assert [r.levelname for r in caplog.records] == ["WARNING"] and str(out) in caplog.text
    assert json.loads(out.read_text())["annotations"] == []
    convert_to_coco_json(name, str(out), allow_cached=False)
    (converted,) = json.loads(out.read_text())["annotations"]
    assert (converted["bbox"], converted["area"], converted["image_id"]) == ([1, 1, 4, 3], 12, 7)
