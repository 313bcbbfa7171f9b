"""If these fail, the leaderboard holds results that nobody can verify or compare."""

import json

import pytest

from minibench.__main__ import cli
from minibench.folds.leaderboard import FILE, LEAST_FOLDS, add, check, table
from PADing.errors import UserError
from tests.minibench.folds.test_submission import _row, made


@pytest.fixture
def whole() -> dict:
    """Results of six folds with all that an entry needs."""
    return made([_row(fold, 1) for fold in range(1, LEAST_FOLDS + 1)])


def test_the_committed_leaderboard_is_verified():
    assert check(json.loads(FILE.read_text(encoding="utf-8"))) == []


def test_an_entry_is_added_replaced_and_shown(whole, tmp_path, capsys):
    file, results = tmp_path / "leaderboard.json", tmp_path / "results.json"
    results.write_text(json.dumps(whole))
    for tried in (4, 6):
        assert cli(["leaderboard", str(results), "--method", "mine", "--tried", str(tried), "--file", str(file)]) == 0
    content = json.loads(file.read_text())
    assert [entry["tried"] for entry in content["entries"]] == [6] and check(content) == []
    assert "Mine" in table(content) and "| 6 | 6 |" in table(content)
    capsys.readouterr()
    assert cli(["leaderboard", "--file", str(file)]) == 0
    assert "| Mine | clip | PQ AUSUC |" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda content: content["rows"].pop(), "at least 6 are needed"),
        (lambda content: content.update(budget="quick"), "its budget is quick"),
        (lambda content: content.update(world="tuning"), "not tuning"),
        (lambda content: content["rows"][0].update(commit="abc+"), "in no commit"),
        (lambda content: content["rows"][0].update(commit="0" * 40 + "+ "), "in no commit"),
        (lambda content: content["rows"][0].update(commit=""), "no full Git hash"),
        (lambda content: content["rows"][0].update(commit="main"), "no full Git hash"),
        (lambda content: content["rows"][0].update(commit=None), "must be a line of text, but is None"),
        (lambda content: content["rows"][0].update(code=""), "lack their code"),
        (lambda content: content["rows"][0]["results"]["panoptic_seg"].update(PQ_AUSUC=99.0), "PQ_AUSUC is 99"),
        (lambda content: content["rows"][0]["results"].pop("panoptic_seg"), "curve are missing"),
        (lambda content: content["rows"].append(content["rows"][0]), "there twice"),
        (lambda content: content["rows"].append({**content["rows"][0], "fold": 7}), "hash is not that"),
        (lambda content: content["rows"].append(3), "must be an object, but is 3"),
        (lambda content: content["rows"][0].pop("processor_seconds"), "lacks `processor_seconds`"),
        (lambda content: content["methods"][0].update(limit=True), "it is a limit"),
        (lambda content: content["methods"][0].update(kind="simple"), "its kind is 'simple'"),
        (lambda content: content["methods"].clear(), "no method 'mine'"),
        (lambda content: content.update(methods={"mine": {}}), "must be a list"),
    ],
)
def test_what_cannot_be_compared_does_not_enter(whole, tmp_path, change, message):
    change(whole)
    with pytest.raises(UserError, match=message):
        add(whole, "mine", 3, tmp_path / "leaderboard.json")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_leaderboard_is_not_replaced(whole, tmp_path):
    file = tmp_path / "leaderboard.json"
    for content in (whole, {"version": 1}, {"version": 1, "entries": [3]}, {"version": 1, "entries": {}}):
        file.write_text(json.dumps(content))
        with pytest.raises(UserError, match="no verified leaderboard"):
            add(whole, "mine", 3, file)
        assert json.loads(file.read_text()) == content
    with pytest.raises(UserError, match="Is a directory"):
        add(whole, "mine", 3, tmp_path)


def test_an_entry_is_there_once_and_a_bar_in_its_title_ends_no_cell(whole, tmp_path):
    whole["methods"][0]["title"] = "Mine | yours"
    add(whole, "mine", 3, tmp_path / "l.json")
    content = json.loads((tmp_path / "l.json").read_text())
    assert "| Mine \\| yours |" in table(content)
    content["entries"] *= 2
    assert any("two entries" in problem for problem in check(content))


def test_the_number_of_tries_is_needed(whole, tmp_path):
    with pytest.raises(UserError, match="tried must be a whole number of at least 1, but is 0"):
        add(whole, "mine", 0, tmp_path / "leaderboard.json")
    results = tmp_path / "results.json"
    results.write_text(json.dumps(whole))
    assert cli(["leaderboard", str(results), "--method", "mine", "--file", str(tmp_path / "l.json")]) == 2
    assert cli(["leaderboard", "--method", "mine", "--tried", "3"]) == 2
