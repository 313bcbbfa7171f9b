"""Validation images, class names, plug-ins, and mistakes at the command."""

import json
from pathlib import Path

import pytest

from PADing.data.importers.classes import read_given_names
from PADing.data.importers.report import Report
from PADing.data.importers.roles import by_fraction, by_list
from PADing.data.importers.run import ImportOptions, import_data
from PADing.errors import UserError
from tests.data.importers import samples

IMAGES = [f"sequence_{folder}/{frame}.jpg" for folder in range(10) for frame in range(folder + 5)]


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 0.99])
def test_frames_of_one_folder_stay_together(fraction):
    """Otherwise validation would see near-duplicates of training images."""
    chosen = by_fraction(IMAGES, fraction, 3, Report())
    folders = {Path(image).parent for image in chosen}
    assert chosen == {image for image in IMAGES if Path(image).parent in folders}
    assert 0 < len(chosen) < len(IMAGES) and abs(len(chosen) / len(IMAGES) - fraction) < 0.12
    assert chosen == by_fraction(IMAGES, fraction, 3, Report())
    assert fraction not in (0.2, 0.5) or chosen != by_fraction(IMAGES, fraction, 4, Report())


def test_images_of_one_folder_are_chosen_singly_and_the_report_says_so():
    report = Report()
    assert len(by_fraction([f"a/{i}.png" for i in range(100)], 0.2, 0, report)) == 20
    assert "similar ones may be in both" in next(iter(report.changed))
    with pytest.raises(UserError, match="at least two"):
        by_fraction(["a.png"], 0.5, 0, Report())


def test_a_list_names_images(tmp_path):
    report = Report()
    (tmp_path / "val.txt").write_text("./sequence_0/1.jpg\r\nsequence_1/2\n\nnone.jpg\n")
    assert by_list(IMAGES, str(tmp_path / "val.txt"), report) == {"sequence_0/1.jpg", "sequence_1/2.jpg"}
    assert next(iter(report.left_out.values())).names == ["none.jpg"]
    (tmp_path / "val.txt").write_text("none.jpg\n")
    with pytest.raises(UserError, match="names none of the"):
        by_list(IMAGES, str(tmp_path / "val.txt"), report)


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.txt", "1 person\n2  hot dog\n"), ("a.txt", "1: person\n2: hot dog"),
        ("a.txt", "\ufeff# x\n1=person\n2=hot dog"),
        ("a.json", '[{"id": 1, "name": "person"}, {"id": 2, "name": "hot dog"}]'),
        ("a.json", '{"1": "person", "2": "hot dog"}'),
    ],
)  # fmt: skip
def test_names_files(name, text, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_given_names(str(tmp_path / name)) == {"1": "person", "2": "hot dog"}


def test_names_alone_count_from_0(tmp_path):
    (tmp_path / "names.txt").write_text("person\nhot dog\n")
    assert read_given_names(str(tmp_path / "names.txt")) == {"0": "person", "1": "hot dog"}
    assert read_given_names("01=person, 2 = hot dog") == {"1": "person", "2": "hot dog"}


@pytest.mark.parametrize(
    "text", ["person,dog", "1=", "=a", "1=a,1=b", "{}/none.txt", "{}/bad.json", "{}/latin.txt", "{}/empty.txt"]
)
def test_names_that_are_mistakes(text, tmp_path):
    (tmp_path / "bad.json").write_text("[1")
    (tmp_path / "latin.txt").write_bytes(b"1=\xe9")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(UserError, match="--names"):
        read_given_names(text.format(tmp_path))


@pytest.mark.parametrize(
    "more, message",
    [
        (["--val-fraction", "1.5"], "less than 1"),
        (["--val-fraction", "nan"], "less than 1"),
        (["--val-list", "{}/none"], "is not a file"),
        (["--images-dir", "{}/none"], "is not a folder"),
        (["--format", "label_me"], "did you mean labelme?"),
        (["--output", "{}/source/out"], "overlap"),
        (["--output", "{}"], "overlap"),
        (["--output", "{}/file"], "is not a folder"),
        (["--output", "{}/full"], "is not empty"),
        (["--output", "{}/file/out"], "a folder of this path is a file"),
        (["--output", "{}/full", "--overwrite"], "is not the result of an import"),
        (["--ignore", "x"], "--ignore x"),
        (["--plugins", "no_such_module"], "no_such_module"),
        (["--names", "a"], "neither a file nor"),
    ],
)
def test_mistakes_write_nothing(more, message, tool, tmp_path, capsys):
    samples.labelme(tmp_path / "source")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    words = [str(tmp_path / "source"), "--format", "labelme", "--output", str(tmp_path / "out")]
    assert tool.main([*words, *(word.format(tmp_path) for word in more)]) == 2
    assert message in capsys.readouterr().err and sorted(tmp_path.rglob("*")) == before


def test_a_plug_in_adds_a_format(tool, tmp_path, monkeypatch):
    (tmp_path / "own_importer_of_a_test.py").write_text(
        "from PADing.data.importers import IMPORTERS, Item, Object\n"
        "@IMPORTERS.register('whole')\n"
        "def whole(source):\n"
        "    for path in source.images.files(('.png',)):\n"
        "        whole = Object('all', [[0, 0, 30, 0, 30, 20, 0, 20]])\n"
        "        yield Item(str(path), path.name, path.parent, objects=[whole])\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    samples.write_images(tmp_path / "source")
    words = ["source", "--format", "whole", "--output", "out", "--plugins", "own_importer_of_a_test"]
    assert tool.main(words) == 0
    annotations = json.loads((tmp_path / "out" / "instances_train.json").read_text())["annotations"]
    assert [entry["area"] for entry in annotations] == [600] * 3


def test_an_interrupted_import_leaves_nothing(tmp_path, monkeypatch):
    samples.labelme(tmp_path / "source")

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("PADing.data.importers.run.write_json", stop)
    with pytest.raises(KeyboardInterrupt):
        import_data(str(tmp_path / "source"), "labelme", str(tmp_path / "out"), ImportOptions())
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
