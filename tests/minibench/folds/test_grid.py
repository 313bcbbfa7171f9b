"""If these fail, hyperparameters are chosen by another rule than the one that is written down, or unfairly."""

import json

import pytest

from minibench.folds.chosen import CHOSEN, chosen_for
from minibench.folds.configs import job
from minibench.folds.grid import best, read_grid, trials_of
from minibench.folds.settings import make_settings
from minibench.folds.tune import options_of, table
from minibench.methods import discover
from PADing.errors import UserError
from PADing.files import REPOSITORY
from PADing.yaml_files import read_yaml

TUNED = REPOSITORY / "docs" / "minibench" / "tuning_v2.json"


def _row(trial, ausuc, harmonic, fold=1, **more):
    keys = ("PQ_se", "PQ_un", "acc_AUSUC", "acc_un_only")
    metrics = {"PQ_AUSUC": ausuc, "PQ_hm": harmonic, **dict.fromkeys(keys, 1.0)}
    return {"trial": trial, "method": trial.partition(".")[0], "fold": fold, "seed": 1, "metrics": metrics, **more}


def _diverged(trial, fold=1):
    return {"trial": trial, "method": trial.partition(".")[0], "fold": fold, "seed": 1, "diverged": "NaN"}


def test_equal_curves_are_told_apart_by_the_harmonic_mean():
    """The published bias of PADing: the best curve by a hair, but everything is named after an unseen class."""
    assert best([_row("a.1", 10.0, 0.0), _row("a.2", 9.6, 4.0), _row("a.3", 9.4, 9.0)], "a") == "a.2"
    assert best([_row("a.1", 10.0, 0.0), _row("a.2", 9.6, 0.0)], "a") == "a.1"
    assert best([_row("b.1", 50.0, 9.0), _row("a.1", 1.0, 1.0)], "a") == "a.1"
    assert best([], "a") is None


def test_means_over_folds_decide_and_a_divergence_anywhere_excludes():
    rows = [_row("a.1", 30.0, 5.0, 1), _row("a.1", 10.0, 5.0, 2), _row("a.2", 24.0, 5.0, 1), _row("a.2", 14.0, 5.0, 2)]
    assert best(rows, "a") == "a.1"
    assert best([*rows[:1], _diverged("a.1", 2), *rows[2:]], "a") == "a.2"
    # After a kill, a setting has fewer folds than the others: its mean is of something else.
    assert best(rows[1:], "a") == "a.2"
    assert best([_diverged("a.1")], "a") is None


def test_every_method_tries_as_many_settings_and_all_can_be_read():
    """A key that a config does not have would stop the command after hours of segmenters."""
    grid, methods, settings = read_grid(), discover(), make_settings("tuning")
    assert len({len(found) for _, found in grid.values()}) == 1 and {"pading", "projection", "gmmn"} <= set(grid)
    for trial in trials_of(grid):
        made = job(methods[trial.method], settings, 1, "second", options=trial.options)
        assert made.hash and trial.name.partition(".")[0] == trial.method
    hashes = {
        job(methods["gmmn"], settings, 1, "second", options=t.options).hash for t in trials_of(read_grid(["gmmn"]))
    }
    assert len(hashes) == len(grid["gmmn"][1])


def test_a_shorter_budget_shortens_trials_as_much():
    method = discover()["projection"]
    for budget, length in (("standard", 1000), ("smoke", 6)):
        made = job(method, make_settings("tuning", budget=budget), 1, "second", options={"SOLVER.MAX_ITER": 1000})
        assert made.load().SOLVER.MAX_ITER == length


def test_mistakes_in_a_grid_are_named(tmp_path):
    for text, words in (
        ("methods: {a: {keys: [X], settings: [[1, 2]]}}", "a value for each key"),
        ("methods: {a: {keys: [X], settings: [[1], [1]]}}", "a setting twice"),
        ("methods: {a: {keys: [X], settings: [[1]]}, b: {keys: [X], settings: [[1], [2]]}}", "the same number"),
        ("methods: []", "needs `methods`"),
        ("[1", "grid.yaml"),
    ):
        (tmp_path / "grid.yaml").write_text(text)
        with pytest.raises(UserError, match=words):
            read_grid(file=tmp_path / "grid.yaml")
    with pytest.raises(UserError, match=r"no settings to try for 'padng'.*pading"):
        read_grid(["padng"])


def test_a_variant_takes_what_was_chosen_for_the_whole_method(tmp_path):
    (tmp_path / "chosen.yaml").write_text(
        "pading: {SOLVER.BASE_LR: 0.5, MODEL.MASK_FORMER.GENERATOR_CLS_WEIGHT: 0.7}\n"
    )
    methods = discover()
    found = {name: chosen_for(methods[name], tmp_path / "chosen.yaml") for name in methods}
    both = {"SOLVER.BASE_LR": 0.5, "MODEL.MASK_FORMER.GENERATOR_CLS_WEIGHT": 0.7}
    assert found["pading"] == found["pading_no_alignment"] == both
    assert found["pading_no_noise"] == {"SOLVER.BASE_LR": 0.5}, "its own classification weight stays"
    assert found["projection"] == {} == found["d2zero"]
    (tmp_path / "broken.yaml").write_text("pading: 3\n")
    with pytest.raises(UserError, match="must map names of methods"):
        chosen_for(methods["pading"], tmp_path / "broken.yaml")


def test_chosen_values_win_and_are_part_of_the_hash(monkeypatch):
    method, settings = discover()["pading"], make_settings()
    plain = job(method, settings, 1, "second")
    monkeypatch.setattr("minibench.folds.configs.chosen_for", lambda method: {"SOLVER.BASE_LR": 0.77})
    changed = job(method, settings, 1, "second")
    assert changed.load().SOLVER.BASE_LR == 0.77 and changed.hash != plain.hash
    assert job(method, settings, 1, "second", options={}).load().SOLVER.BASE_LR != 0.77


def test_the_table_marks_the_choice_and_names_what_failed():
    settings = [[0.1, 1], [0.2, 2], [0.3, 3]]
    rows = [_row("a.1", 10.0, 0.0), _row("a.2", 9.6, 4.0), _diverged("a.3")]
    entry = {"keys": ["SOLVER.BASE_LR", "SOLVER.X"], "settings": settings, "rows": rows, "chosen": "a.2"}
    content = {"track": "clip", "folds": [1], "seeds": [1], "budget": "smoke", "images": 9, "tie": 0.05}
    content["methods"] = {"a": entry}
    text = table(content)
    assert "| 0.2 | 2 | 9.60 † | 4.00 |" in text and "| 0.3 | 3 | diverged |" in text and text.count("†") == 2
    assert options_of(content) == {"a": {"SOLVER.BASE_LR": 0.2, "SOLVER.X": 2}}
    assert "not finished" in table({**content, "methods": {"a": {**entry, "rows": rows[:1]}}})


def test_the_committed_choice_follows_from_the_committed_rows():
    if not TUNED.is_file():
        assert read_yaml(CHOSEN, "Chosen") == {}, "there is a choice, but no rows it follows from"
        pytest.skip("no tuning has been committed yet")
    content = json.loads(TUNED.read_text())
    assert read_yaml(CHOSEN, "Chosen") == options_of(content)
    assert content["world"] == "tuning" and content["budget"] in ("standard", "full")
    grid = read_grid()
    for name, entry in content["methods"].items():
        assert (entry["keys"], entry["settings"]) == tuple(map(list, grid[name]))
