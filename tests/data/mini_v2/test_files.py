"""If these fail, metrics on the mini data, version 2, do not compare: files disagree, or are not the frozen ones."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from PADing.data import verify as verify_command
from PADing.data.embeddings import load_class_embeddings
from PADing.data.loaders import load_data_set
from PADing.data.mini_v2 import files, verify
from PADing.data.mini_v2.folds import unseen
from PADing.data.mini_v2.hashes import FIRST, committed, of_set
from PADing.data.mini_v2.picture import LEAST_PIXELS, SUBSETS, draw
from PADing.data.mini_v2.vectors import TRACKS, determinacy, file_of, hash_of, read
from PADing.data.mini_v2.worlds import WORLDS
from PADing.data.splits import load_split, mini2_split_files
from PADing.errors import UserError

TEST = WORLDS[0]
FOLD = 2
WORLD = pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    files.make_world("test", root / "mini2" / "test", train=40, val=FIRST, folds=(FOLD,))
    return root


@pytest.fixture
def folder(data_root):
    return data_root / "mini2" / "test"


@pytest.fixture(scope="module")
def split():
    return load_split(next(path for path in mini2_split_files() if path.endswith(f"test_fold{FOLD}.yaml")))


def _json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def _ids(path: Path) -> np.ndarray:
    rgb = np.asarray(Image.open(path)).astype(np.int64)
    return rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]


@WORLD
@pytest.mark.parametrize("subset", SUBSETS)
def test_the_first_images_are_the_frozen_ones(world, subset):
    hashes = [verify.drawn_hash(world.name, subset, index) for index in range(FIRST)]
    assert of_set(hashes) == committed(world)[subset]["first"]


@pytest.mark.slow
def test_all_images_are_the_frozen_ones(capsys):
    assert verify.main([]) == 0
    assert "All is as frozen." in capsys.readouterr().out


@WORLD
@pytest.mark.parametrize("track", TRACKS)
def test_vectors_are_the_frozen_ones_with_the_determinacy_of_their_track(world, track):
    vectors = read(world, track)
    assert hash_of(vectors) == committed(world)["vectors"][track]
    assert vectors.dtype == np.float32 and vectors.shape[0] == 60 and vectors.shape[1] >= 64
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)
    for centred in (True, False):
        assert abs(np.mean(determinacy(world, vectors, centred)) - TRACKS[track]) < 0.03
    names = [category.name for category in world.categories()]
    loaded = load_class_embeddings(str(file_of(world, track)), names[::-1])
    np.testing.assert_array_equal(np.asarray(loaded), vectors[::-1])


def test_determinacy_is_the_energy_that_least_squares_explains():
    vectors = read(TEST, "clip").astype(np.float64)
    names = [category.name for category in TEST.categories()]
    hidden = np.isin(names, unseen(TEST, 3))
    explained = vectors[~hidden].T @ np.linalg.lstsq(vectors[~hidden].T, vectors[hidden].T, rcond=None)[0]
    share = (explained**2).sum() / (vectors[hidden] ** 2).sum()
    assert abs(share - determinacy(TEST, vectors, centred=False)[2]) < 1e-6
    # What all vectors have in common is no help: it changes the share as they are, but not the centred one.
    moved = vectors + 5 * vectors[0]
    assert determinacy(TEST, moved, centred=False)[2] > 0.95
    np.testing.assert_allclose(determinacy(TEST, moved), determinacy(TEST, vectors))


def test_vectors_of_classes_with_a_part_in_common_are_nearer():
    """Otherwise no method could find an unseen class by its vector."""
    classes = TEST.categories()
    for track in TRACKS:
        similar = read(TEST, track) @ read(TEST, track).T
        pairs = [(i, j) for i in range(48) for j in range(i)]
        common = [similar[i, j] for i, j in pairs if set(classes[i].parts) & set(classes[j].parts)]
        apart = [similar[i, j] for i, j in pairs if not set(classes[i].parts) & set(classes[j].parts)]
        assert np.mean(common) > np.mean(apart) + 2 * np.std(apart) / 3


@pytest.mark.parametrize("subset", SUBSETS)
def test_all_annotation_says_the_same(folder, subset):
    panoptic = _json(folder / "annotations" / f"panoptic_{subset}.json")
    instances = _json(folder / "annotations" / f"instances_{subset}.json")["annotations"]
    things = {c["id"] for c in panoptic["categories"] if c["isthing"]}
    position = {category.id: label for label, category in enumerate(TEST.categories())}
    ignored = 0
    for index, entry in enumerate(panoptic["annotations"]):
        picture = draw(TEST, subset, index)
        ids = _ids(folder / f"panoptic_{subset}" / entry["file_name"])
        semantic = np.asarray(Image.open(folder / f"panoptic_semseg_{subset}" / entry["file_name"]))
        assert (np.asarray(Image.open(folder / subset / entry["file_name"])) == picture.image).all()
        listed = {segment["id"]: segment for segment in entry["segments_info"]}
        assert set(listed) == set(np.unique(ids).tolist()) - {0}
        assert ((ids == 0) == (semantic == 255)).all()
        ignored += (ids == 0).sum()
        own = [annotation for annotation in instances if annotation["image_id"] == entry["image_id"]]
        assert sorted(a["category_id"] for a in own) == sorted(
            s["category_id"] for s in listed.values() if s["category_id"] in things
        )
        for identity, segment in listed.items():
            mask = ids == identity
            assert segment["area"] == mask.sum() >= LEAST_PIXELS
            assert (semantic[mask] == position[segment["category_id"]]).all()
            ys, xs = np.nonzero(mask)
            box = [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert segment["bbox"] == box
            if segment["category_id"] in things:
                same = [coco_mask.decode(a["segmentation"]) for a in own if a["bbox"] == box]
                assert any((drawn.astype(bool) == mask).all() for drawn in same)
    assert ignored > 0, "no distractor is in the way"


def test_training_sees_no_unseen_class(data_root, folder, split):
    names = {category.id: category.name for category in split.categories}
    hidden = set(unseen(TEST, FOLD))
    loaded = {d.name.removeprefix(f"{split.name}_"): load_data_set(split, d, str(data_root)) for d in split.data_sets}
    panoptic = {record["image_id"] for record in loaded["train_panoptic"]}
    full = _json(folder / "annotations" / "panoptic_train.json")["annotations"]
    shown = {a["image_id"]: {names[s["category_id"]] for s in a["segments_info"]} for a in full}
    assert panoptic == {image for image, classes in shown.items() if not classes & hidden}
    assert 0 < len(panoptic) < len(loaded["train_instance"]) < len(loaded["train_semantic"]) == 40
    assert len(loaded["train_panoptic_unlabelled"]) > len(panoptic)
    assert len(loaded["val_panoptic"]) == len(loaded["val_instance"]) == len(loaded["val_semantic"]) == FIRST
    assert 0 < len(loaded["val_instance_unseen_only"]) < FIRST
    for record in loaded["train_panoptic_unlabelled"]:
        kept = {names[s["id"] % 1000] for s in record["segments_info"]}
        assert kept == shown[record["image_id"]] - hidden


def test_semantic_maps_of_a_fold_put_seen_classes_first(folder, split):
    order = [*split.seen, *split.unseen]
    for subset, name in (("train", "sem_seg_train_seen"), ("val", "sem_seg_val_all")):
        for path in sorted((folder / f"fold{FOLD}" / name).iterdir()):
            labels = np.asarray(Image.open(path))
            listed = np.asarray(Image.open(folder / f"panoptic_semseg_{subset}" / path.name))
            for label in np.unique(listed[listed != 255]):
                name_of = TEST.categories()[label].name
                (found,) = set(labels[listed == label].tolist())
                hides = subset == "train" and name_of in split.unseen
                assert found == (255 if hides else order.index(name_of))
            assert (labels[listed == 255] == 255).all()


def test_a_training_accepts_the_data(data_root, split, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(data_root))
    assert verify_command.main(["--split-file", split.file, "--deep", "--workers", "1"]) == 0, capsys.readouterr().out


def test_the_report_lists_only_folds_that_are_drawn(data_root, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(data_root))
    verify_command.main([])
    listed = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("mini2_")}
    assert listed == {f"mini2_test_fold{FOLD}", "mini2_test_all"}  # the latter needs no files of a fold


def test_verify_finds_every_change(folder, tmp_path, capsys):
    assert verify.main([str(folder)]) == 0
    copy = tmp_path / "copy"

    def problems(change) -> str:
        shutil.copytree(folder, copy)
        change()
        status = verify.main([str(copy)])
        shutil.rmtree(copy)
        streams = capsys.readouterr()
        assert status, streams.out
        return streams.out + streams.err

    def edit(path: Path, value: int) -> None:
        pixels = np.array(Image.open(path))
        pixels[5, 5] = value
        Image.fromarray(pixels).save(path)

    first = sorted((folder / "val").iterdir())[0].name
    assert "val: the first 20 images have other pixels" in problems(lambda: edit(copy / "val" / first, 9))
    assert "the JSON are not those of the PNG" in problems(lambda: edit(copy / "panoptic_val" / first, 77))
    assert "does not exist" in problems(lambda: os.remove(copy / "val" / first))
    assert "cannot be read" in problems(lambda: (copy / "val" / first).write_bytes(b"no image"))
    vectors = copy / "class_vectors_clip.npz"
    assert "has other vectors" in problems(lambda: shutil.copyfile(copy / "class_vectors_word.npz", vectors))
    assert "has other vectors" in problems(lambda: vectors.write_text("no vectors"))
    assert "does not exist" in problems(lambda: os.remove(vectors))
    other = {"settings": {"version": 1}}
    assert "not mini data of version 2" in problems(lambda: (copy / "mini.json").write_text(json.dumps(other)))


def test_several_processes_write_the_same_files(folder, tmp_path):
    out = files.make_world("test", tmp_path / "out", train=40, val=FIRST, folds=(FOLD,), workers=2)
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    assert paths == [path.relative_to(out) for path in sorted(out.rglob("*")) if path.is_file()]
    assert all((out / path).read_bytes() == (folder / path).read_bytes() for path in paths)


def test_another_fold_is_added_and_nothing_else_touched(folder, data_root):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    try:
        files.make_world("test", folder, train=40, val=FIRST, folds=(FOLD, 5))
        after = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
        new = {path.relative_to(folder).parts[0] for path in after.keys() - before.keys()}
        assert new == {"fold5"} and before.items() <= after.items()
    finally:
        shutil.rmtree(folder / "fold5", ignore_errors=True)


def test_no_fold_is_made_of_incomplete_data(folder, tmp_path):
    """A fold without some images would train and evaluate on fewer, without a word."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    sorted((copy / "panoptic_semseg_val").iterdir())[3].unlink()
    with pytest.raises(UserError, match="000001000004.png does not exist"):
        files.make_world("test", copy, train=40, val=FIRST, folds=(FOLD, 4))
    assert not (copy / "fold4").exists()


def test_wrong_sizes_and_other_folders_are_refused(folder, tmp_path):
    with pytest.raises(UserError, match="--train must be 1 to 2000"):
        files.make_world("test", tmp_path / "x", train=2001)
    with pytest.raises(UserError, match="holds another mini data set .*world test instead of tuning"):
        files.make_world("tuning", folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="is not a mini data set"):
        files.make_world("test", tmp_path / "mine", force=True)


def test_other_pixels_are_never_written(tmp_path, monkeypatch):
    """A machine that draws another data set must say so, and leave nothing that looks like the frozen one."""
    monkeypatch.setattr(files, "of_arrays", lambda image, ids: "0" * 64)
    with pytest.raises(UserError, match="other pixels or annotation than the frozen data"):
        files.make_world("test", tmp_path / "out", train=FIRST, val=FIRST)
    assert not list(tmp_path.iterdir())
