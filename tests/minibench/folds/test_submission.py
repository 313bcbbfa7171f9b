"""If these fail, a leaderboard takes numbers that nobody has measured on the frozen data."""

import json
import math

import numpy as np
import pytest

from minibench.__main__ import cli
from minibench.folds.configs import VERSION
from minibench.folds.curve import area
from minibench.folds.form import RESULTS_VERSION
from minibench.folds.plan import row_hash
from minibench.folds.planted import main as planted
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
    row |= {"results": {}, "classes": {}, "curves": {}, "segmenter": f"segmenter of {fold}"}
    row |= {"commit": "0123456789abcdef" * 2 + "01234567", "code": "ab", "config": "cd", "processor_seconds": 1800.0}
    for task in (PANOPTIC, SEMANTIC, INSTANCE):
        listed = [c for c in TEST.categories() if c.isthing or task != INSTANCE]
        classes = {c.name: round(100 * float(draws.random()), 3) for c in listed}
        hidden = unseen(TEST, fold)
        seen, new = (np.mean([v for n, v in classes.items() if (n in hidden) == side]) for side in (False, True))
        curve = [
            ["-inf", round(seen + 1, 3), 0.0],
            [0.0, round(seen, 3), round(new, 3)],
            [1.5, round(seen - 9, 3), round(new + 1, 3)],
            ["inf", 0.0, round(new + 2, 3)],
        ]
        values = {task.seen: seen, task.unseen: new, task.harmonic: 2 * seen * new / (seen + new)}
        row["results"][task.key] = {**values, f"{task.metric}_AUSUC": area([(s, u) for _, s, u in curve])}
        row["classes"][task.key], row["curves"][task.key] = classes, curve
    # Points (60, 0), (40, 30), (0, 50) in percent: 10 % below the first two of them, 16 % below the others.
    accuracy = {"acc_se": 40.0, "acc_un": 30.0, "acc_hm": 240 / 7, "acc_se_only": 60.0, "acc_un_only": 50.0}
    row["results"]["region"] = {**accuracy, "acc_AUSUC": 19.0}
    return rehashed(row)


def rehashed(row: dict) -> dict:
    """The row with the hash that its own content gives."""
    own = [row[key] for key in ("method", "fold", "seed", "data", "config", "track", "segmenter")]
    return {**row, "hash": row_hash("second", *own)}


def made(rows: list[dict]) -> dict:
    """A results.json with these rows."""
    content = {"version": RESULTS_VERSION, "recipe": VERSION, "world": "test", "track": "clip", "budget": "standard"}
    method = {"name": "mine", "title": "Mine", "task": "panoptic", "kind": "second", "limit": False}
    content |= {"methods": [method], "rows": rows, "trainings": []}
    content |= {key + "s": sorted({row[key] for row in rows}) for key in ("fold", "seed")}
    content |= {"data": {"world": committed(TEST)["world"], "vectors": committed(TEST)["vectors"]["clip"]}}
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


PQ, CURVE = ("results", PANOPTIC.key), ("curves", PANOPTIC.key)


@pytest.mark.parametrize(
    "place, value, message",
    [
        ((*PQ, "PQ_hm"), 1.0, "PQ_hm is 1"),
        ((*PQ, "PQ_un"), 99.0, "PQ_un is 99"),
        ((*PQ, "PQ_AUSUC"), lambda old: old + 0.01, "PQ_AUSUC is"),
        ((*PQ, "PQ_AUSUC"), math.nan, "from 0 to 100, but is nan"),
        ((*PQ, "PQ_AUSUC"), None, "a number is missing"),
        ((*PQ, "PQ_AUSUC"), "12.5", "from 0 to 100, but is '12.5'"),
        ((*PQ, "PQ_AUSUC"), 10**400, "from 0 to 100, but is 1000"),
        ((*PQ, "PQ_AUSUC"), True, "from 0 to 100, but is True"),
        ((*PQ, "PQ_best"), 3.0, "'PQ_best' is missing, or is no class or metric"),
        (PQ, None, "must be an object, but is None"),
        (("results",), [], "must be an object, but is []"),
        (("results", "depth"), {"rmse": 1.0}, "'depth', which is no task"),
        (("results", "region", "acc_AUSUC"), 99.0, "acc_AUSUC is 99.000, but must be between 12.000 and 26.000"),
        (("results", "region", "acc_hm"), 99.0, "acc_hm is 99"),
        (("results", "region", "acc_un_only"), 12.0, "above that among one side"),
        (("results", "region"), {}, "accuracies of found segments must be"),
        (("classes", PANOPTIC.key, "zebra"), 3.0, "'zebra' is missing, or is no class"),
        (("classes", PANOPTIC.key), {}, "is missing, or is no class"),
        (CURVE, [], "must have the biases -inf, 0, inf"),
        ((*CURVE, 2), [1.5, 95.0, 95.0], "PQ_AUSUC is"),
        ((*CURVE, 2), [1.5, 950.0, 9.0], "two numbers from 0 to 100"),
        ((*CURVE, 2), [-1.5, 5.0, 5.0], "must ascend"),
        ((*CURVE, 2), "-inf", "a bias, and two numbers"),
        ((*CURVE, 2), [math.nan, 5.0, 5.0], "a bias, and two numbers"),
        ((*CURVE, 0, 2), 20.0, "unseen classes at the bias -inf"),
        (("data",), "0" * 64, "not the frozen"),
        (("vectors",), "0" * 64, "not the frozen"),
        (("fold",), 11, "there is no fold 11"),
        (("fold",), True, "must be a whole number of at least 1, but is True"),
        (("fold",), "1", "must be a whole number"),
        (("seed",), 3, "its hash is not that of"),
        (("seed",), 1, "it is there twice"),
        (("config",), "other", "its hash is not that of"),
        (("segmenter",), "other", "not that of the fold's other rows"),
        (("method",), "other", "'other', which is not described"),
        (("method",), ["mine"], "must be a line of text"),
        (("method",), "mine\x1b[2J", "must be a line of text"),
        (("processor_seconds",), -1, "must be a number of seconds"),
    ],
)
def test_every_change_is_found(results, place, value, message):
    *path, last = place
    where = results["rows"][1]
    for key in path:
        where = where[key]
    where[last] = value(where[last]) if callable(value) else value
    assert any(message in problem for problem in problems(results)), problems(results)


def test_a_class_cannot_be_left_out(results):
    """Also if the means leave it out: otherwise a method could drop its worst unseen class."""
    row = results["rows"][1]
    values, classes = row["results"][PANOPTIC.key], row["classes"][PANOPTIC.key]
    hidden = unseen(TEST, row["fold"])
    classes.pop(min(hidden, key=classes.get))
    values["PQ_un"] = float(np.mean([value for name, value in classes.items() if name in hidden]))
    values["PQ_hm"] = 2 * values["PQ_se"] * values["PQ_un"] / (values["PQ_se"] + values["PQ_un"])
    assert any("is missing, or is no class" in problem for problem in problems(results))


def test_what_the_head_says_is_what_the_rows_have(results):
    results["rows"].append(rehashed({**results["rows"][0], "seed": 7}))
    assert any("seeds are [1, 2], but its rows have [1, 2, 7]" in problem for problem in problems(results))
    assert any("folds are [1, 2, 4]" in problem for problem in problems({**results, "folds": [1, 2, 4]}))
    assert any("not the frozen" in p for p in problems({**made([_row(1, 1)]), "data": {"world": "", "vectors": ""}}))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "simple"}, "its kind is 'simple'"),
        ({"limit": True}, "whether it is a limit"),
        ({"task": "depth"}, "must be one of panoptic, instance"),
        ({"title": "a\nb"}, "must be a line of text"),
    ],
)
def test_a_method_is_what_it_says(results, change, message):
    results["methods"][0].update(change)
    assert any(message in problem for problem in problems(results))


def test_rounding_of_curves_is_no_change():
    """The area jumps where rounding makes two unseen metrics equal; honest results must pass."""
    row = _row(1, 1)
    exact = [(50.0, 0.0), (40.0, 10.0), (30.0, 10.0003), (0.0, 30.0)]
    rounded = [(seen, round(new, 3)) for seen, new in exact]
    assert area(exact) - area(rounded) < -0.5
    biases = ["-inf", 0.0, 1.5, "inf"]
    row["curves"][INSTANCE.key] = [[b, *point] for b, point in zip(biases, rounded, strict=True)]
    row["results"][INSTANCE.key]["AP50_AUSUC"] = area(exact)
    assert not [problem for problem in problems(made([row])) if "AUSUC" in problem]


def test_metrics_of_another_fold_do_not_pass(results):
    """Its unseen classes are others."""
    row = rehashed({**results["rows"][0], "fold": 2, "segmenter": "segmenter of 2"})
    found = problems(made([*results["rows"][1:], row]))
    assert any("PQ_un is" in problem for problem in found) and not any("hash" in problem for problem in found)


HOSTILE = [
    "",
    "no JSON",
    "[]",
    "{",
    "null",
    "3",
    "\xff\xfe",
    "[" * 100_000,
    '{"version": 2}',
    '{"version": 2, "rows": 3}',
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("command", ["verify", "leaderboard", "planted", "report", "board"])
def test_what_is_no_results_is_refused_in_words(text, command, tmp_path, capsys):
    path = tmp_path / "results.json"
    path.write_bytes(text.encode("latin-1"))
    if command == "planted":
        status = planted([str(path)])
    elif command == "report":
        status = cli(["report", "--output", str(tmp_path)])
    elif command == "board":
        status = cli(["leaderboard", "--file", str(path)])
    else:
        more = ["--method", "mine", "--tried", "3", "--file", str(tmp_path / "l.json")]
        status = cli([command, str(path), *more * (command == "leaderboard")])
    out, err = capsys.readouterr()
    assert status in (1, 2) and (out + err).strip() and "Traceback" not in err and "not run" not in out
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_other_files_are_refused_in_words(results, tmp_path, capsys):
    assert "version 1" in problems({"version": 1})[0]
    assert "no rows" in problems({**results, "rows": []})[-1]
    assert "track is 'hard'" in problems({**results, "track": "hard"})[0]
    assert "must be a line of text" in problems({**results, "world": ["test"]})[0]
    assert "recipe 9" in problems({**results, "recipe": 9})[0]
    (tmp_path / "results.json").write_text(json.dumps({**results, "rows": [3]}))
    assert cli(["verify", str(tmp_path / "results.json")]) == 1
    assert cli(["verify", str(tmp_path)]) == 2
    assert "Is a directory" in capsys.readouterr().err
