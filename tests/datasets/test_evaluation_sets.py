"""The preparation of miniature official downloads; the truth is that of the drawing, not of the prepared files."""

import json
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from PADing.commands.evaluation_set import main
from PADing.data import verify
from PADing.data.preparation import worker_pool
from PADing.data.splits import evaluation_split_files, load_split
from tests.fake_downloads import DOWNLOADS, HEIGHT, WIDTH, context

FOLDERS = {
    "ade20k": "ADEChallengeData2016/prepared",
    "voc": "VOCdevkit/VOC2012/prepared",
    "context": "VOCdevkit/VOC2010/prepared_context",
    "cityscapes": "cityscapes/prepared",
}
SPLITS = dict(zip(("ade20k", "cityscapes", "context", "voc"), map(load_split, evaluation_split_files()), strict=True))


def prepare(name: str, *flags: str) -> int:
    return main([name, "--workers", "1", *flags])


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """All four downloads, prepared: the data root and the truth by set."""
    root = tmp_path_factory.mktemp("downloads")
    truth = {name: download(root) for name, download in DOWNLOADS.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root))
        for name in DOWNLOADS:
            assert prepare(name, "--subset") == 0
    return root, truth


@pytest.fixture
def one(tmp_path, monkeypatch):
    """``one(name)``: a fresh download of one set in ``tmp_path``, which is the data root."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    return lambda name: DOWNLOADS[name](tmp_path)


# ---- what is prepared


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "semantic") for name in DOWNLOADS), ("ade20k", "panoptic"), ("cityscapes", "panoptic")]
)
def test_semantic_labels(downloads, name, kind):
    root, truth = downloads
    data_set = next(d for d in SPLITS[name].data_sets if d.kind == kind)
    names = [category.name for category in SPLITS[name].classes(data_set)]
    for image, wanted in truth[name].items():
        labels = np.asarray(Image.open((root / data_set.sem_seg_root / image).with_suffix(".png")))
        found = np.vectorize(lambda label: names[label] if label != 255 else "")(labels)
        assert (found == wanted.classes).all()


@pytest.mark.parametrize("name", ["ade20k", "voc", "cityscapes"])
def test_instances(downloads, name):
    root, truth = downloads
    content = json.loads((root / FOLDERS[name] / "instances.json").read_text())
    classes = {category["id"]: category["name"] for category in content["categories"]}
    assert list(classes.values()) == [c.name for c in SPLITS[name].categories if c.isthing]
    assert [image["id"] for image in content["images"]] == [1, 2, 3]
    for image in content["images"]:
        wanted = truth[name][image["file_name"]].objects
        found = [a for a in content["annotations"] if a["image_id"] == image["id"]]
        assert len(found) == len(wanted)
        for label, mask, crowd in wanted:
            same = [a for a in found if (mask_util.decode(a["segmentation"]) == mask).all()]
            (one,) = [a for a in same if classes[a["category_id"]] == label]
            assert one["iscrowd"] == crowd and one["area"] == mask.sum()
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert one["bbox"] == box


@pytest.mark.parametrize("name", ["ade20k", "cityscapes"])
def test_panoptic(downloads, name):
    root, truth = downloads
    content = json.loads((root / FOLDERS[name] / "panoptic.json").read_text())
    classes = {category["id"]: category for category in content["categories"]}
    files = {image["id"]: image["file_name"] for image in content["images"]}
    for annotation in content["annotations"]:
        wanted = truth[name][files[annotation["image_id"]]]
        rgb = np.asarray(Image.open(root / FOLDERS[name] / "panoptic" / annotation["file_name"])).astype(int)
        ids = rgb[:, :, 0] + 256 * rgb[:, :, 1] + 65536 * rgb[:, :, 2]
        found = np.full((HEIGHT, WIDTH), "", dtype=object)
        for segment in annotation["segments_info"]:
            mask, category = ids == segment["id"], classes[segment["category_id"]]
            assert mask.sum() == segment["area"] > 0
            found[mask] = category["name"]
            same = [o for o in wanted.objects if o[0] == category["name"] and (o[1] == mask).all()]
            assert len(same) == (1 if category["isthing"] else 0)
            assert segment["iscrowd"] == (same[0][2] if same else 0)
        assert (found == wanted.classes).all()
        assert set(np.unique(ids)) - {0} == {segment["id"] for segment in annotation["segments_info"]}


def test_context_from_pngs_is_context_from_mat_files(one, tmp_path):
    """The official PNGs count the classes in another order."""
    truth = one("context")
    assert prepare("context", "--subset") == 0
    folder = tmp_path / FOLDERS["context"] / "semantic"
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(first) == len(truth)
    context(tmp_path, names=True)
    flags = ["--labels", str(tmp_path / "59_context_labels"), "--names", str(tmp_path / "59_labels.txt"), "--subset"]
    assert prepare("context", *flags) == 2  # it would mix two sources
    assert prepare("context", *flags, "--overwrite") == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first


# ---- running it again


def test_an_interrupted_run_goes_on(one, tmp_path, capsys):
    one("ade20k")
    folder = tmp_path / FOLDERS["ade20k"]
    torn = tmp_path / "ADEChallengeData2016/annotations/validation/ADE_val_00000003.png"
    whole = torn.read_bytes()
    torn.write_bytes(whole[: len(whole) // 2])
    assert prepare("ade20k", "--subset") == 2
    said = capsys.readouterr().err
    assert str(torn) in said and "Unpack ADEChallengeData2016.zip" in said and "Traceback" not in said
    assert not (folder / "panoptic.json").exists()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*00000001*")}
    assert len(before) == 4
    torn.write_bytes(whole)
    assert prepare("ade20k", "--subset") == 0
    kept = {path: path.stat().st_mtime_ns for path in before if ".parts" not in path.parts}
    assert kept and all(before[path] == time for path, time in kept.items())
    assert len(json.loads((folder / "panoptic.json").read_text())["images"]) == 3
    assert not (folder / ".parts").exists()
    # Complete: nothing is written.
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert prepare("ade20k", "--subset") == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    # Other files: nothing is mixed.
    shutil.copy(tmp_path / "ADEChallengeData2016/images/validation/ADE_val_00000001.jpg",
                tmp_path / "ADEChallengeData2016/images/validation/ADE_val_00000004.jpg")  # fmt: skip
    for part in ("annotations", "annotations_instance"):
        place = tmp_path / "ADEChallengeData2016" / part / "validation"
        shutil.copy(place / "ADE_val_00000001.png", place / "ADE_val_00000004.png")
    assert prepare("ade20k", "--subset") == 2 and "--overwrite" in capsys.readouterr().err
    assert prepare("ade20k", "--subset", "--overwrite") == 0
    assert len(json.loads((folder / "instances.json").read_text())["images"]) == 4


def test_ctrl_c_is_left_to_the_main_process():
    with worker_pool(1) as pool:
        assert pool.apply(signal.getsignal, (signal.SIGINT,)) == signal.SIG_IGN


def test_files_of_others_stay(one, tmp_path, capsys):
    one("voc")
    own = tmp_path / FOLDERS["voc"] / "mine.txt"
    own.parent.mkdir()
    own.write_text("mine")
    for flags in ([], ["--overwrite"]):
        assert prepare("voc", "--subset", *flags) == 2 and "has not made" in capsys.readouterr().err
    assert own.read_text() == "mine" and len(list(own.parent.iterdir())) == 1


# ---- bad downloads


def _resize(path: Path) -> None:
    Image.open(path).resize((20, 10), Image.Resampling.NEAREST).save(path)


def _value(path: Path, value) -> None:
    pixels = np.asarray(Image.open(path)).copy()
    pixels[16, 20] = value
    Image.fromarray(pixels).save(path)


ADE, CITY, VOC = "ADEChallengeData2016", "cityscapes/gtFine/val/lindau/lindau_000001_000019_gtFine", "VOCdevkit/VOC2012"
FIRST = "validation/ADE_val_00000001"
BAD = [
    ("ade20k", None, lambda root: shutil.rmtree(root / ADE), "does not exist. Unpack ADEChallengeData2016.zip"),
    ("ade20k", f"{ADE}/annotations_instance", shutil.rmtree, "Unpack annotations_instance.tar there"),
    ("ade20k", f"{ADE}/annotations/{FIRST}.png", Path.unlink, f"A file is missing: .*{FIRST}.png"),
    ("ade20k", f"{ADE}/images/{FIRST}.jpg", lambda path: path.write_bytes(b""), "it is empty"),
    ("ade20k", f"{ADE}/images/{FIRST}.jpg", _resize, r"ADE_val_00000001.png has the size 48 x 32, but .* 20 x 10"),
    ("ade20k", f"{ADE}/annotations_instance/{FIRST}.png", _resize, "has the size 20 x 10"),
    ("ade20k", f"{ADE}/annotations/{FIRST}.png", lambda path: _value(path, 151), "values 151, which ADE20K does not"),
    ("ade20k", f"{ADE}/annotations_instance/{FIRST}.png", lambda path: _value(path, (101, 9, 0)), "class 101"),
    ("ade20k", f"{ADE}/annotations_instance/{FIRST}.png", lambda path: _value(path, (7, 1, 0)), "of several classes"),
    ("voc", f"{VOC}/ImageSets/Segmentation/val.txt", lambda path: path.write_text(""), "is empty"),
    ("voc", f"{VOC}/ImageSets/Segmentation/val.txt", lambda path: path.write_text("a\na\n"), "1 images twice"),
    ("voc", f"{VOC}/ImageSets/Segmentation/val.txt", lambda path: path.write_text("../a\n"), "'../a'"),
    ("voc", f"{VOC}/JPEGImages/2007_000034.jpg", Path.unlink, "A file is missing"),
    ("voc", f"{VOC}/SegmentationClass/2007_000034.png", lambda path: _value(path, 21), "values 21"),
    ("voc", f"{VOC}/SegmentationObject/2007_000034.png", _resize, "has the size"),
    ("voc", f"{VOC}/SegmentationObject/2007_000034.png", lambda path: path.write_bytes(b"\x89PNG"), "cannot be read"),
    ("context", "VOCdevkit/VOC2010/trainval/2008_000002.mat", lambda path: path.write_bytes(b"MAT"), "cannot be read"),
    ("context", "VOCdevkit/VOC2010/trainval/2008_000002.mat", Path.unlink, "A file is missing"),
    ("context", "VOCdevkit/VOC2010/trainval", lambda path: [f.unlink() for f in path.iterdir()], "neither .mat files"),
    ("cityscapes", f"{CITY}_labelIds.png", lambda path: _value(path, 34), "values 34"),
    ("cityscapes", f"{CITY}_instanceIds.png", lambda path: _value(path, 34001), "value 34001"),
    ("cityscapes", f"{CITY}_instanceIds.png", _resize, "has the size"),
    ("cityscapes", "cityscapes/gtFine/val", shutil.rmtree, "Unpack gtFine_trainvaltest.zip there"),
    ("cityscapes", "cityscapes/leftImg8bit/val", shutil.rmtree, "Unpack leftImg8bit_trainvaltest.zip"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "spoil", "said"), BAD)
def test_a_bad_download_is_one_message(one, tmp_path, capsys, name, file, spoil, said):
    one(name)
    spoil(tmp_path / file if file else tmp_path)
    assert prepare(name, "--subset") == 2
    message = capsys.readouterr().err
    assert re.search(said, message), message
    lines = [line for line in message.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and "Traceback" not in message
    assert not (tmp_path / FOLDERS[name] / "instances.json").exists()


def test_an_incomplete_release_needs_a_flag(one, tmp_path, capsys):
    for name, number in (("ade20k", "2,000"), ("voc", "1,449"), ("cityscapes", "500"), ("context", "5,105 or 5,104")):
        one(name)
        assert prepare(name) == 2
        assert f"3 images are there, but the release has {number}" in capsys.readouterr().err
        assert not (tmp_path / FOLDERS[name]).exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["ade20k", "--names", "x"], "--names is a flag for context"),
        (["cityscapes", "--images-list", "x"], "--images-list is a flag for voc"),
        (["context", "--names", "lost.txt"], "Leave out --names"),
        (["voc", "--images-list", "lost.txt"], "lost.txt"),
    ],
)
def test_wrong_flags(one, capsys, flags, said):
    one(flags[0])
    assert main(flags) == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace("1: aeroplane\n", ""), "no value for aeroplane"),
        (lambda text: text + "60: submarine\n", "60: submarine"),
        (lambda text: text + "3: aeroplane\n", "each value once"),
        (lambda text: "pictures of planes", "is expected"),
    ],
)
def test_wrong_names_of_values(tmp_path, monkeypatch, capsys, change, said):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    context(tmp_path, names=True)
    names = tmp_path / "59_labels.txt"
    names.write_text(change(names.read_text()))
    labels = str(tmp_path / "59_context_labels")
    assert prepare("context", "--subset", "--labels", labels, "--names", str(names)) == 2
    assert said in capsys.readouterr().err
    assert prepare("context", "--subset", "--labels", labels) == 2
    assert "--names 59_labels.txt" in capsys.readouterr().err


# ---- verify


def test_verify_knows_the_releases(downloads, monkeypatch, capsys):
    root, _ = downloads
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    assert verify.main(["--split-file", *evaluation_split_files(), "--deep", "--workers", "1"]) == 1
    report = capsys.readouterr().out
    assert report.count("3 images, but the release has 2,000") == 3
    assert report.count("3 images, but the release has 500") == 3
    assert report.count("the release has 1,449") == 2 and report.count("the release has 5,105 or 5,104") == 1
    assert report.count("all images read with their annotation") == 9 and "MISSING" not in report


def test_verify_accepts_a_complete_set_and_sees_what_is_lost(downloads, tmp_path, monkeypatch, capsys):
    root, _ = downloads
    shutil.copytree(root / "cityscapes", tmp_path / "cityscapes")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    file = next(path for path in evaluation_split_files() if "cityscapes" in path)
    own = tmp_path / "own.yaml"
    own.write_text(Path(file).read_text().replace("images: 500", "images: 3"))
    assert verify.main(["--split-file", str(own), "--deep", "--workers", "1"]) == 0
    assert capsys.readouterr().out.count("  ok  ") == 3
    lost = next((tmp_path / FOLDERS["cityscapes"] / "semantic").rglob("*.png"))
    _resize(lost)
    assert verify.main(["--split-file", str(own), "--deep", "--workers", "1"]) == 1
    assert lost.name in capsys.readouterr().out
    lost.unlink()
    assert verify.main(["--split-file", str(own), "--workers", "1"]) == 1
    assert "2 images, but the release has 3" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "cityscapes" / "prepared")
    assert verify.main(["--split-file", str(own)]) == 1
    report = capsys.readouterr().out
    assert "python datasets/prepare_evaluation_set.py cityscapes; downloads: docs/other_datasets.md" in report


def test_the_catalogs_have_the_sets():
    for split in SPLITS.values():
        for data_set in split.data_sets:
            assert data_set.name in DatasetCatalog and MetadataCatalog.get(data_set.name).evaluation_only
