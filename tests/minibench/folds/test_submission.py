"""If these fail, a leaderboard takes numbers that nobody has measured on the frozen data."""

import copy
import json
import math

import numpy as np
import pytest

from minibench.__main__ import cli
from minibench.folds.configs import VERSION
from minibench.folds.curve import area
from minibench.folds.rows import RESULTS_VERSION
from minibench.folds.submission import problems
from minibench.methods import INSTANCE, PANOPTIC, SEMANTIC
from PADing.data.mini_v2.folds import unseen
from PADing.data.mini_v2.hashes import committed
from PADing.data.mini_v2.worlds import world

TEST = world("test")


def _row(fold: int, seed: int) -> dict:
    draws = np.random.default_rng([fold, seed])
    row = {"method": "mine", "fold": fold, "seed": seed, "world": "test", "track": "clip", "version": VERSION}
    row |= {"data": committed(TEST)["world"], "vectors": committed(TEST)["vectors"]["clip"]}
    row |= {"results": {}, "classes": {}, "curves": {}}
    row |= {"commit": "0123456789abcdef", "code": "ab", "config": "cd", "processor_seconds": 1800.0}
    for task in (PANOPTIC, SEMANTIC, INSTANCE):
        listed = [c for c in TEST.categories() if c.isthing or task != INSTANCE]
        classes = {c.name: round(100 * float(draws.random()), 3) for c in listed}
        hidden = unseen(TEST, fold)
        seen, new = (np.mean([v for n, v in classes.items() if (n in hidden) == side]) for side in (False, True))
        curve = [
            ["-inf", round(seen + 1, 3), 0.0],
            [0.0, round(seen, 3), round(new, 3)],
            ["inf", 0.0, round(new + 2, 3)],
        ]
        values = {task.seen: seen, task.unseen: new, task.harmonic: 2 * seen * new / (seen + new)}
        row["results"][task.key] = {**values, f"{task.metric}_AUSUC": area([(s, u) for _, s, u in curve])}
        row["classes"][task.key], row["curves"][task.key] = classes, curve
    return row


def made(rows: list[dict]) -> dict:
    """A results.json with these rows."""
    content = {"version": RESULTS_VERSION, "recipe": VERSION, "world": "test", "track": "clip", "budget": "standard"}
    content |= {"methods": [{"name": "mine", "title": "Mine", "task": "panoptic", "kind": "second"}], "rows": rows}
    return json.loads(json.dumps(content))


@pytest.fixture
def results() -> dict:
    return made([_row(fold, seed) for fold in (1, 4) for seed in (1, 2)])


def test_honest_results_pass(results, tmp_path, capsys):
    assert problems(results) == []
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results))
    assert cli(["verify", str(path)]) == 0
    assert "4 rows of 1 methods on 2 folds" in capsys.readouterr().out


def test_every_change_is_found(results):
    def changed(change) -> str:
        content = copy.deepcopy(results)
        change(content["rows"][1])
        (found,) = problems(content) or [""]
        return found

    panoptic = PANOPTIC.key
    for key in ("PQ_hm", "PQ_AUSUC"):
        assert f"{key} is" in changed(lambda row, key=key: row["results"][panoptic].update({key: 1.0}))
    assert "not the frozen" in changed(lambda row: row.update(data="0" * 64))
    assert "not the frozen" in changed(lambda row: row.update(vectors="0" * 64))
    assert "there is no fold 11" in changed(lambda row: row.update(fold=11))
    assert "is damaged" in changed(lambda row: row.pop("curves"))
    assert "is no class" in changed(lambda row: row["classes"][panoptic].update(zebra=3.0))
    assert "is there twice" in changed(lambda row: row.update(seed=1))
    assert "PQ_AUSUC" in changed(lambda row: row["curves"][panoptic].append(["9", 95.0, 95.0]))
    assert "PQ_AUSUC" in changed(lambda row: row["results"][panoptic].update(PQ_AUSUC=math.nan))


def test_metrics_of_another_fold_do_not_pass(results):
    """Its unseen classes are others."""
    results["rows"][0]["fold"] = 2
    assert any("PQ_un is" in problem for problem in problems(results))


def test_other_files_are_refused_in_words(results, tmp_path, capsys):
    assert "version 1" in problems({"version": 1})[0]
    assert "no rows" in problems({**results, "rows": []})[0]
    assert "track is 'hard'" in problems({**results, "track": "hard"})[0]
    (tmp_path / "results.json").write_text("no JSON")
    assert cli(["verify", str(tmp_path / "results.json")]) == 2
    assert "Traceback" not in capsys.readouterr().err
    (tmp_path / "results.json").write_text(json.dumps({**results, "rows": [3]}))
    assert cli(["verify", str(tmp_path / "results.json")]) == 1
