"""From the official downloads to data sets that load: every preparation script, on a small tree of real images."""

import importlib.util
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from PADing.data import verify
from PADing.data.check import check_data_set
from PADing.data.embeddings import save_class_embeddings
from PADing.data.loaders import load_data_set
from PADing.data.splits import load_split
from PADing.errors import UserError
from tests.tiny_coco import make_tiny_coco

REPOSITORY = Path(__file__).resolve().parents[2]


def _script(name: str):
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "datasets" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


zsp, zsi = _script("get_zsp_json"), _script("prepare_coco_zsi")
semantic, stuff = _script("prepare_coco_semantic_annos_from_panoptic_annos"), _script("prepare_coco_stuff_sem_seg")


def _split(name):
    return load_split(REPOSITORY / "datasets" / "splits" / f"{name}.yaml")


@pytest.fixture(scope="module")
def downloads(tmp_path_factory, shared_data):
    """The tree before any preparation."""
    return make_tiny_coco(tmp_path_factory.mktemp("tiny"), shared_data)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, downloads):
    """The tree after all four scripts, run as the README says."""
    root = tmp_path_factory.mktemp("prepared") / "root"
    shutil.copytree(downloads, root, symlinks=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root))
        for script, args in ((zsp, []), (zsi, []), (semantic, ["--workers", "1"]), (stuff, ["--workers", "1"])):
            assert script.main(args) == 0
    return root


def test_every_shipped_coco_data_set_loads(prepared):
    for name in ("coco_panoptic_119_14", "coco_zsi_48_17", "coco_zsi_65_15", "coco_stuff_156_15"):
        split = _split(name)
        for data_set in split.data_sets:
            dicts = load_data_set(split, data_set, str(prepared))
            assert dicts and all(Path(entry["file_name"]).is_file() for entry in dicts), data_set.name


def test_panoptic_parts(prepared, downloads):
    """An independent count: no unseen segment in one part, at least one in the other, nothing lost."""
    split = _split("coco_panoptic_119_14")
    for part in ("train2017", "val2017"):
        original = json.loads((downloads / "coco" / "annotations" / f"panoptic_{part}.json").read_text())
        unseen = {c["id"] for c in original["categories"] if c["name"] in split.unseen}
        files = {
            kind: json.loads((prepared / "coco/annotations/ZSP" / f"panoptic_{part}_{kind}.json").read_text())
            for kind in ("seen", "unseen", "all")
        }
        for annotation in original["annotations"]:
            shows = bool({s["category_id"] for s in annotation["segments_info"]} & unseen)
            assert (annotation in files["unseen"]["annotations"]) == shows
            assert (annotation in files["seen"]["annotations"]) == (not shows)
        assert files["seen"]["annotations"] and files["unseen"]["annotations"]
        assert files["all"]["annotations"] == original["annotations"]
        assert {c["id"] for c in files["all"]["categories"] if c["split"] == "unseen"} == unseen
        for kind in ("seen", "unseen"):
            shown = {a["image_id"] for a in files[kind]["annotations"]}
            assert {image["id"] for image in files[kind]["images"]} == shown
            assert len(files[kind]["categories"]) == len(original["categories"])


def test_panoptic_pngs_of_another_release_are_noticed(prepared, downloads, tmp_path):
    """JSON and PNGs come in zips of their own; together they must make sense."""
    coco = tmp_path / "coco"
    shutil.copytree(downloads / "coco" / "annotations", coco / "annotations")
    first = json.loads((coco / "annotations" / "panoptic_val2017.json").read_text())["annotations"][0]["file_name"]
    (coco / "panoptic_val2017").mkdir()
    Image.fromarray(np.full((8, 8, 3), 9, dtype=np.uint8)).save(coco / "panoptic_val2017" / first)
    args = (str(coco / "annotations"), str(coco / "annotations" / "ZSP"), _split("coco_panoptic_119_14"), ["val2017"])
    with pytest.raises(UserError, match=f"{first} has other segment ids"):
        zsp.prepare(*args)


@pytest.mark.parametrize("stale", ["seen", "all"])
def test_panoptic_parts_of_another_split_are_noticed(prepared, tmp_path, stale):
    """Such files would train on unseen classes."""
    split = _split("coco_panoptic_119_14")
    annotations = prepared / "coco" / "annotations"
    shutil.copytree(annotations / "ZSP", tmp_path / "ZSP")
    path = tmp_path / "ZSP" / f"panoptic_val2017_{stale}.json"
    content = json.loads(path.read_text())
    if stale == "seen":
        content["annotations"] = json.loads((annotations / "panoptic_val2017.json").read_text())["annotations"]
    else:
        next(c for c in content["categories"] if c["split"] == "unseen")["split"] = "seen"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"panoptic_val2017_{stale}.json was made for other unseen classes.*--force"):
        zsp.prepare(str(annotations), str(tmp_path / "ZSP"), split, ["val2017"])


def test_crowds_of_unseen_classes_count_as_shown():
    """A crowd of cows is still cows."""
    split = _split("coco_panoptic_119_14")
    content = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [
            {"image_id": 1, "segments_info": [{"category_id": 21, "iscrowd": 1}, {"category_id": 1}]},
            {"image_id": 2, "segments_info": [{"category_id": 1}]},
        ],
        "categories": [{"id": c.id, "name": c.name} for c in split.categories],
    }
    parts = zsp.split_panoptic(content, split)
    assert [a["image_id"] for a in parts["seen"]["annotations"]] == [2]
    assert [a["image_id"] for a in parts["unseen"]["annotations"]] == [1]


def test_semantic_labels_from_panoptic(prepared, downloads):
    """Pixel by pixel: the position of the segment's category in COCO's order, 255 where there is none."""
    content = json.loads((downloads / "coco/annotations/panoptic_val2017.json").read_text())
    position = {category["id"]: i for i, category in enumerate(content["categories"])}
    for annotation in content["annotations"][:4]:
        rgb = np.asarray(Image.open(downloads / "coco/panoptic_val2017" / annotation["file_name"])).astype(int)
        labels = np.asarray(Image.open(prepared / "coco/panoptic_semseg_val2017" / annotation["file_name"]))
        category = {s["id"]: s["category_id"] for s in annotation["segments_info"]}
        ids = rgb @ [1, 256, 65536]
        expected = np.vectorize(lambda i, c=category: position[c[i]] if i in c else 255)(ids)
        assert labels.dtype == np.uint8 and np.array_equal(labels, expected)


def test_stuff_labels(prepared, downloads):
    """Contiguous ids of each part's classes; unseen pixels are ignored in training, whose images are all kept."""
    split = _split("coco_stuff_156_15")
    seen_ids = [c.id for c in split.categories if c.name not in split.unseen]
    unseen_ids = [next(c.id for c in split.categories if c.name == name) for name in split.unseen]
    tables = {
        ("train2017", "train2017"): seen_ids,
        ("val2017", "val2017_seen"): seen_ids,
        ("val2017", "val2017_unseen"): unseen_ids,
        ("val2017", "val2017_all"): seen_ids + unseen_ids,
    }
    for (raw_part, part), ids in tables.items():
        raw_folder = downloads / "coco/coco_stuff/annotations" / raw_part
        folder = prepared / "coco/coco_stuff/annotations_detectron2" / part
        assert {f.name for f in raw_folder.iterdir()} == {f.name for f in folder.iterdir()}
        values = set()
        for file in sorted(folder.iterdir())[:6]:
            raw, labels = np.asarray(Image.open(raw_folder / file.name)), np.asarray(Image.open(file))
            for value in np.unique(raw):
                want = ids.index(value) if value in ids else 255
                assert (labels[raw == value] == want).all()
            values |= set(np.unique(labels).tolist())
        assert values - {255}


@pytest.mark.parametrize("name", ["48_17", "65_15"])
def test_zsi_rules(prepared, downloads, name):
    split = _split(f"coco_zsi_{name}")
    folder = prepared / "coco/annotations/ZSIS"
    raw = {
        p: json.loads((downloads / f"coco/annotations/instances_{p}2014.json").read_text()) for p in ("train", "val")
    }
    ids = {c["name"]: c["id"] for c in raw["val"]["categories"]}
    seen, unseen = ({ids[n] for n in names} for names in (split.seen, split.unseen))
    train = json.loads((folder / f"instances_train2014_seen_{name}.json").read_text())
    kept = {image["id"] for image in train["images"]}
    for image in raw["train"]["images"]:
        objects = [a for a in raw["train"]["annotations"] if a["image_id"] == image["id"]]
        shows_unseen = any(a["category_id"] in unseen for a in objects)
        has_seen = any(a["category_id"] in seen and not a["iscrowd"] for a in objects)
        assert (image["id"] in kept) == (has_seen and not shows_unseen)
    assert {a["category_id"] for a in train["annotations"]} <= seen
    assert [c["name"] for c in train["categories"]] == list(split.seen)
    for part, classes, names in (
        ("gzsi", seen | unseen, [*split.seen, *split.unseen]),
        ("unseen", unseen, list(split.unseen)),
    ):
        val = json.loads((folder / f"instances_val2014_{part}_{name}.json").read_text())
        assert val["annotations"] == [a for a in raw["val"]["annotations"] if a["category_id"] in classes]
        assert {i["id"] for i in val["images"]} == {a["image_id"] for a in val["annotations"]}
        assert [c["name"] for c in val["categories"]] == names


def test_zsi_counts_on_all_samples(shared_data, tmp_path):
    """The samples' description gives these counts, made independently of this code."""
    annotations = shared_data / "real_coco" / "annotations"
    for name, images in (("48_17", 29), ("65_15", 49)):
        counts = zsi.prepare(
            _split(f"coco_zsi_{name}"),
            str(annotations / "instances_train2017.json"),
            str(annotations / "instances_val2017.json"),
            str(tmp_path),
        )
        assert counts[f"coco_zsi_{name}_train"]["images"] == images
    assert counts["coco_zsi_65_15_train"]["annotations"] == 417


def test_interrupted_work_goes_on(prepared, tmp_path):
    """Files that are there are kept, missing ones are made, and no unfinished file is left."""
    split = _split("coco_stuff_156_15")
    data_set = split.data_set("coco_2017_val_all_stuff_sem_seg")
    source = prepared / "coco/coco_stuff/annotations/val2017"
    stuff.prepare(split, data_set, str(source), str(tmp_path / "out"))
    files = sorted((tmp_path / "out").iterdir())
    before = files[0].stat().st_mtime_ns
    files[1].unlink()
    stuff.prepare(split, data_set, str(source), str(tmp_path / "out"), workers=2)
    assert sorted((tmp_path / "out").iterdir()) == files and files[0].stat().st_mtime_ns == before


def test_mistakes_are_named(prepared, tmp_path, capsys, monkeypatch):
    """No half-written result and no traceback, but what is missing."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for script in (zsp, zsi, semantic, stuff):
        assert script.main([]) == 2
        assert str(tmp_path) in capsys.readouterr().err
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    split = _split("coco_stuff_156_15")
    Image.fromarray(np.full((4, 4), 11, dtype=np.uint8)).save(tmp_path / "odd.png")  # 11: a COCO id that was never used
    with pytest.raises(UserError, match=r"odd.png has the values \[11\]"):
        stuff.prepare(split, split.data_sets[0], str(tmp_path), str(tmp_path / "out"))


def test_background_in_raw_labels_names_the_cure(prepared, tmp_path):
    split = _split("coco_zsi_48_17")
    Image.fromarray(np.array([[0, 1], [2, 3]], dtype=np.uint8)).save(tmp_path / "raw.png")
    own = split.data_sets[0]
    with pytest.raises(UserError, match="raw.png has the values .0., .*--ignore 0"):
        stuff.prepare(split, own, str(tmp_path), str(tmp_path / "out"))
    stuff.prepare(split, own, str(tmp_path), str(tmp_path / "out"), ignore=0)
    written = np.asarray(Image.open(tmp_path / "out" / "raw.png"))
    names = [category.name for category in split.classes(own)]
    wanted = [255, *(names.index(name) if name in names else 255 for name in ("person", "bicycle", "car"))]
    assert written.ravel().tolist() == wanted


def test_sources_are_never_replaced(prepared, tmp_path):
    """Of the data sets, the second one is the source itself; the first one is not written before that is noticed."""
    split = _split("coco_zsi_48_17")
    folder = tmp_path / "coco" / "annotations" / "ZSIS"
    shutil.copytree(prepared / "coco" / "annotations" / "ZSIS", folder)
    (folder / "instances_train2014_seen_48_17.json").unlink()
    before = {path: path.read_bytes() for path in folder.iterdir()}
    own = str(folder / "instances_val2014_gzsi_48_17.json")
    raw = str(prepared / "coco/annotations/instances_train2014.json")
    with pytest.raises(UserError, match="names the source .*, which would be replaced"):
        zsi.prepare(split, raw, own, str(tmp_path), force=True)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(UserError, match="is the folder of the panoptic PNGs"):
        json_file, root = (
            str(prepared / "coco" / name) for name in ("annotations/panoptic_val2017.json", "panoptic_val2017")
        )
        semantic.prepare(json_file, root, root, _split("coco_panoptic_119_14"))


def test_labels_are_not_written_outside_of_the_output(tmp_path):
    """The name of a PNG comes from the JSON, which may be a stranger's."""
    content = {
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [{"image_id": 1, "file_name": "../../escaped.png", "segments_info": []}],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    Image.new("RGB", (4, 4)).save(tmp_path / "escaped.png")
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(UserError, match="points outside its folder"):
        paths = (tmp_path / name for name in ("panoptic.json", "a/b", "c"))
        semantic.prepare(*map(str, paths), _split("coco_panoptic_119_14"))


def test_counts_are_printed_for_comparison_with_the_original_files(prepared, capsys, monkeypatch):
    """Metrics on the substitute are comparable only if the counts agree with the ZSI project's files."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(prepared))
    assert zsi.main(["--split", "48_17"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:]}
    split = _split("coco_zsi_48_17")
    for name, row in rows.items():
        path = split.metadata(split.data_set(name), str(prepared))["json_file"]
        content = json.loads(Path(path).read_text())
        assert row[:2] == [str(len(content["images"])), str(len(content["annotations"]))]
    assert list(rows) == ["coco_zsi_48_17_train", "coco_zsi_48_17_val", "coco_zsi_48_17_val_unseen_only"]
    assert "drive.google.com/drive/folders/1TLbmDoRiKcMGq1zyVahXtGVTdkvI9Dus" in zsi.__doc__


def test_output_of_another_split_is_noticed(prepared):
    """Files of an earlier split would be kept as done."""
    content = _split("coco_zsi_48_17")
    other = _split("coco_zsi_65_15")
    fields = {**content.__dict__, "data_sets": other.data_sets}
    raw = str(prepared / "coco/annotations/instances_val2014.json")
    with pytest.raises(UserError, match="made for another split.*--force"):
        zsi.prepare(type(content)(**fields), raw, raw, str(prepared))


def test_verify_before_and_after(prepared, downloads, monkeypatch):
    """It says what is missing and what makes it, and which configs can run."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(downloads))
    out = io.StringIO()
    configs = sorted(str(f) for f in (REPOSITORY / "configs" / "instance-segmentation").glob("P*.yaml"))
    assert verify.main(["--config", *configs], out) == 1
    text = out.getvalue()
    assert "MISSING  coco_zsi_48_17_train" in text and "prepare_coco_zsi.py --split 48_17" in text
    assert "train no   evaluate no" in text
    monkeypatch.setenv("DETECTRON2_DATASETS", str(prepared))
    out = io.StringIO()
    assert verify.main(["--deep", "--config", *configs], out) == 0
    text = out.getvalue()
    assert "ok       coco_zsi_48_17_train: " in text and "train yes  evaluate yes" in text
    for name in ("coco_2017_train_panoptic_zsi", "coco_2017_val_all_stuff_sem_seg"):
        assert f"ok       {name}" in text


def test_verify_looks_into_files(prepared, tmp_path):
    """A folder full of unconverted labels, or of half-downloaded images, is not a data set."""
    split = _split("coco_stuff_156_15")
    data_set = split.data_set("coco_2017_train_stuff_seen_sem_seg")
    metadata = split.metadata(data_set, str(tmp_path))
    Path(metadata["sem_seg_root"]).mkdir(parents=True)
    Path(metadata["image_root"]).mkdir(parents=True)
    Image.fromarray(np.full((4, 4), 171, dtype=np.uint8)).save(Path(metadata["sem_seg_root"]) / "a.png")
    (Path(metadata["image_root"]) / "a.jpg").write_bytes(b"half")
    problems = " ".join(check_data_set(split, data_set, str(tmp_path)).problems)
    assert "values 171" in problems and "a.jpg cannot be read" in problems


def _verify(*args):
    out = io.StringIO()
    return verify.main(list(args), out), out.getvalue()


def test_verify_names_wrong_ids_in_label_files(prepared, tmp_path, monkeypatch):
    """A PNG that does not belong to its annotation trains on wrong classes without a word."""
    root = tmp_path / "root"
    shutil.copytree(prepared, root, symlinks=True)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    panoptic = sorted((root / "coco" / "panoptic_val2017").iterdir())[3]
    ids = np.asarray(Image.open(panoptic)).copy()
    ids[:4, :4] = (7, 7, 7)
    Image.fromarray(ids).save(panoptic)
    semantic = sorted((root / "coco" / "panoptic_semseg_train2017").iterdir())[0]
    Image.open(semantic).resize((8, 8), Image.NEAREST).save(semantic)
    labels = sorted((root / "coco/coco_stuff/annotations_detectron2/val2017_seen").iterdir())[2]
    values = np.asarray(Image.open(labels)).copy()
    values[0, 0] = 200
    Image.fromarray(values).save(labels)
    _, text = _verify("--deep", "--config", str(REPOSITORY / "configs/semantic-segmentation/pretrain.yaml"))
    assert f"{panoptic}: the segment ids [460551] are in the PNG only" in text
    assert f"{labels} has the values 200" in text
    assert "WRONG    coco_2017_val_panoptic_with_sem_seg" in text and "ok       coco_zsi_48_17_val:" in text


def test_verify_knows_who_needs_class_vectors(prepared, tmp_path, monkeypatch):
    """PADing needs them to train; D2Zero also to evaluate. A file of other classes is no better than none."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(prepared))
    d2zero, pading = tmp_path / "d2zero.yaml", tmp_path / "pading.yaml"
    other = tmp_path / "other.npz"
    save_class_embeddings(other, ["bus"], np.ones((1, 4)), "test")
    instance = "DATASETS: {TRAIN: [coco_zsi_48_17_train], TEST: [coco_zsi_48_17_val]}\n"
    for vectors, message in ((tmp_path / "absent.npz", "absent.npz are missing; make them with"), (other, "lack 64")):
        for path, architecture in ((d2zero, "D2Zero"), (pading, "PADing")):
            path.write_text(f"{instance}MODEL: {{META_ARCHITECTURE: {architecture}, CLASS_EMBEDDINGS: {vectors}}}\n")
        status, text = _verify("--config", str(d2zero), str(pading))
        assert status == 1 and message in text
        assert f"train no   evaluate no   {os.path.relpath(d2zero)}" in text
        assert f"train no   evaluate yes  {os.path.relpath(pading)}" in text
