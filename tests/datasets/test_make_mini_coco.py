"""The command that draws the mini data set replaces nothing by accident. See also tests/data/test_mini_files.py."""

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "datasets" / "make_mini_coco.py"
main = runpy.run_path(str(SCRIPT))["main"]


def test_other_arguments_do_not_replace_the_data(tmp_path, capsys):
    """A run with other numbers once drew over the 2,000 images that another command was reading."""
    out = tmp_path / "data"
    command = ["--output", str(out), "--train", "2", "--val", "1", "--size", "32"]
    assert main(command) == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main([*command, "--seed", "4"]) == 2
    assert "seed 0 instead of 4" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main([*command, "--seed", "4", "--force"]) == 0
    assert (out / "annotations" / "instances_train.json").is_file()
    assert (out / "train" / "000000000001.jpg").read_bytes() not in before.values()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    "option, value",
    [("--train", "-3"), ("--val", "0"), ("--size", "8"), ("--seed", "-1"), ("--noise", "nan"), ("--dim", "3")],
)
def test_numbers_out_of_range_are_refused(tmp_path, capsys, option, value):
    """``--train -3`` drew an empty data set without a word."""
    try:
        status = main(["--out", str(tmp_path / "data"), "--train", "1", "--val", "1", option, value])
    except SystemExit as error:  # argparse
        status = error.code
    assert status == 2 and option in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_version_2_is_drawn_beside_version_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    command = ["--version", "2", "--world", "tuning", "--train", "3", "--val", "2", "--folds", "1,3"]
    assert main(command) == 0
    out = tmp_path / "mini2" / "tuning"
    assert f"{out}: train: {{'images': 3" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir() if path.name.startswith("fold")) == ["fold1", "fold3"]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main(command) == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main([*command[:-2], "--val", "3"]) == 2
    assert "val 2 instead of 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, said",
    [
        (["--seed", "0"], "Version 2 of the mini data has no --seed."),
        (["--size", "64", "--dim", "8"], "Version 2 of the mini data has no --size, --dim."),
        (["--version", "1", "--world", "test"], "Version 1 of the mini data has no --world."),
        (["--folds", "11"], "`all` or numbers from 1 to 10"),
        (["--folds", ""], "`all` or numbers from 1 to 10"),
        (["--train", "2001"], "--train must be 1 to 2000"),
        (["--world", "coco"], "invalid choice: 'coco'"),
    ],
)
def test_flags_of_the_other_version_and_wrong_ones_are_refused(tmp_path, capsys, words, said):
    try:
        status = main(["--version", "2", "--output", str(tmp_path / "data"), *words])
    except SystemExit as error:  # argparse
        status = error.code
    assert status == 2 and said in capsys.readouterr().err and not list(tmp_path.iterdir())
