"""If these fail, training shows unseen classes, metrics do not compare, or a failed command leaves things behind."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from PADing.data.emoji import files
from PADing.data.emoji.classes import sequences
from PADing.data.emoji.picture import draw
from PADing.data.loaders import load_data_set
from PADing.data.splits import load_split
from PADing.errors import UserError
from tests.data.emoji.tiny_font import write_font
from tests.small_models import load_tool


@pytest.fixture(scope="module")
def font(tmp_path_factory):
    path = tmp_path_factory.mktemp("font") / "NotoColorEmoji.ttf"
    write_font(path, sequences())
    return path


@pytest.fixture(scope="module")
def root(tmp_path_factory, font):
    root = tmp_path_factory.mktemp("data")
    files.make_emoji(root / "emoji", train=24, val=16, font=font, other_font=True)
    return root


@pytest.fixture(scope="module")
def main():
    return load_tool("datasets/make_emoji_coco.py").main


def _json(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_files_hold_the_scenes(root, font):
    split = load_split(files.SPLIT)
    glyphs = files._glyphs(str(font))
    names = {category.id: category.name for category in split.categories}
    for subset, number, shown in (("train", 24, split.seen), ("val", 16, (*split.seen, *split.unseen))):
        content = _json(root / "emoji" / "annotations" / f"instances_{subset}.json")
        assert len(content["images"]) == number
        assert {category["name"] for category in content["categories"]} == set(shown)
        for index, image in enumerate(content["images"]):
            scene = draw(glyphs, 0, subset, index, shown)
            pixels = np.asarray(Image.open(root / "emoji" / subset / image["file_name"]))
            np.testing.assert_array_equal(pixels, scene.image)
            own = [one for one in content["annotations"] if one["image_id"] == image["id"]]
            wanted = [(k, name) for k, name in enumerate(scene.names, start=1) if name]
            assert [names[one["category_id"]] for one in own] == [name for _, name in wanted]
            for one, (k, _) in zip(own, wanted, strict=True):
                np.testing.assert_array_equal(coco_mask.decode(one["segmentation"]), scene.layers == k)
                rows, columns = (np.flatnonzero((scene.layers == k).any(axis=axis)) for axis in (1, 0))
                assert one["bbox"] == [columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1]
                assert one["area"] == (scene.layers == k).sum()


def test_registered_data_sets_load_and_training_shows_no_unseen_class(root):
    split = load_split(files.SPLIT)
    loaded = {one.name: load_data_set(split, one, str(root)) for one in split.data_sets}
    assert len(loaded["emoji_train_instance"]) == 24 and len(loaded["emoji_val_instance"]) == 16
    labels = {k: {one["category_id"] for image in v for one in image["annotations"]} for k, v in loaded.items()}
    assert max(labels["emoji_train_instance"]) < 39 <= max(labels["emoji_val_instance"]) < 53
    assert labels["emoji_val_instance_unseen_only"] <= set(range(14))


def test_vectors_are_those_of_the_repository(root):
    """Each column of the text file belongs to a class by its place alone: one shift and all names are wrong."""
    split, coco = load_split(files.SPLIT), load_split("datasets/splits/coco_zsi_48_17.yaml")
    names = [*split.seen, *split.unseen]
    word, clip = (np.load(root / "emoji" / f"class_vectors_{track}.npz") for track in ("word", "clip"))
    table = np.loadtxt("embeddings/coco/word_w2v_withbg_48_17.txt", delimiter=",")
    columns = {"background": 0} | {name: i for i, name in enumerate([*coco.seen, *coco.unseen], start=1)}
    assert word["names"].tolist() == clip["names"].tolist() == names
    np.testing.assert_allclose(word["vectors"], table[:, [columns[name] for name in names]].T, rtol=1e-6)
    for vectors in (word["vectors"], clip["vectors"]):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        near = unit @ unit.T
        cow, horse, scissors = (names.index(name) for name in ("cow", "horse", "scissors"))
        assert near[cow, horse] > near[cow, scissors]
    assert len(clip["templates"]) == 15


def test_workers_and_a_second_command_change_nothing(root, font, tmp_path):
    first = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    files.make_emoji(root / "emoji", train=24, val=16, font=font, other_font=True)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == first
    files.make_emoji(tmp_path / "emoji", train=24, val=16, font=font, other_font=True, workers=2)
    for path in (path for path in (tmp_path / "emoji").rglob("*") if path.suffix in (".png", ".json")):
        assert path.read_bytes() == (root / path.relative_to(tmp_path)).read_bytes()


def test_another_font_is_refused_unless_it_is_wanted(font, tmp_path, main, capsys):
    command = ["--font", str(font), "--train", "2", "--val", "1", "--output", str(tmp_path / "emoji")]
    assert main(command) == 2
    assert "has other pictures than version 2.042" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert main([*command, "--other-font"]) == 0
    assert main([*command, "--other-font", "--seed", "3"]) == 2
    assert "seed 0 instead of 3" in capsys.readouterr().err
    assert main([*command, "--other-font", "--seed", "3", "--force"]) == 0


def test_other_pixels_than_the_frozen_ones_are_not_written(font, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PINNED", files.hash_of(files._glyphs(str(font))))
    with pytest.raises(UserError, match="first 20 scenes of train come out with other pixels"):
        files.make_emoji(tmp_path / "emoji", train=20, val=1, font=font)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key, value", [("train", 0), ("val", -3), ("seed", -1), ("train", 10**6 + 1)])
def test_numbers_out_of_range_are_refused(font, tmp_path, key, value):
    with pytest.raises(UserError, match=f"--{key} must be .* but is {value}"):
        files.make_emoji(tmp_path / "emoji", font=font, other_font=True, **{key: value})
    assert not list(tmp_path.iterdir())


def test_what_else_is_in_the_folder_stays(font, tmp_path, main, capsys):
    (tmp_path / "emoji").mkdir()
    (tmp_path / "emoji" / "thesis.txt").write_text("years of work")
    command = ["--font", str(font), "--other-font", "--train", "2", "--val", "1", "--force"]
    assert main([*command, "--output", str(tmp_path / "emoji")]) == 2
    assert "is not a mini data set" in capsys.readouterr().err
    assert (tmp_path / "emoji" / "thesis.txt").read_text() == "years of work"
    for words in (["--workers", "0"], ["--train", "-3"], ["--seed", "-1"]):
        with pytest.raises(SystemExit):
            main([*command, "--output", str(tmp_path / "other"), *words])
    assert not (tmp_path / "other").exists()


def test_a_full_disk_leaves_nothing(font, tmp_path, monkeypatch, main, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    command = ["--font", str(font), "--other-font", "--train", "2", "--val", "1", "--output", str(tmp_path / "emoji")]
    assert main(command) == 2
    assert "Disk full" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_list_of_classes_is_printed_without_a_font(main, capsys):
    assert main(["--classes"]) == 0
    out = capsys.readouterr().out
    assert "39 seen classes" in out and "14 unseen classes" in out and "12 classes left out" in out
