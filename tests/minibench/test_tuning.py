"""Settings are chosen in the same way for every method: as many trials for each, the best by its harmonic mean."""

import dataclasses
from pathlib import Path

import pytest

from minibench.bench import read_bench
from minibench.methods import discover
from minibench.plan import Plan
from minibench.settings import make_settings
from minibench.tuning import _metrics, chosen, make_finals, make_trials, write_tuning
from PADing.errors import UserError
from tests.minibench.benchmark_folder import METRICS_OF, method, run, write_results

METHODS = discover()


def _trials(names):
    return {trial.name: trial for name in names for trial in make_trials(METHODS[name])}


def _last(command: list[str], key: str) -> str:
    """What counts of a repeated override."""
    return command[len(command) - command[::-1].index(key)]


def test_every_method_that_learns_from_class_vectors_tries_equally_many_settings():
    # Some take the hyperparameters of the methods that they are compared with; those with CLIP have the paper's.
    without = {"baseline", "mask2former_longer", "pading_self_training_same"}
    without |= {name for name, method in METHODS.items() if method.toy_clip}
    assert set(chosen(METHODS, None)) == set(METHODS) - without
    counts = {len(m.search.trials) for m in METHODS.values() if m.search.keys}
    assert len(counts) == 1, "the budget would not be equal"
    for name in chosen(METHODS, None):
        assert len(set(METHODS[name].search.trials)) == max(counts), f"{name} tries a setting twice"


def test_a_trial_is_a_run_of_the_method_with_other_values_on_the_tuning_split():
    trials = _trials(["pading_self_training", "d2zero"])
    plan = Plan({**METHODS, **trials}, list(trials), make_settings(split="tuning"), Path("/nowhere"))
    by_name = {run.method.name: plan.command(run) for run in plan.runs}
    for name, trial in trials.items():
        own = METHODS[name.partition(".")[0]]
        assert set(trial.overrides) == {*own.overrides, *own.search.keys}, "what a variant leaves out stays out"
        for key, value in trial.overrides.items():
            assert key.startswith("DATASETS.") or _last(by_name[name], key) == str(value)
        assert _last(by_name[name], "DATASETS.TEST").startswith("('mini_tuning_val_")
    teacher = _last(by_name["pading_self_training.2"], "MODEL.MASK_FORMER.SELF_TRAINING.WEIGHTS")
    assert teacher.startswith("/nowhere/runs/pading-seed0-")
    assert {plan.settings.iterations(r.method) for r in plan.runs if r.method.name.startswith("d2zero.")} == {300}
    assert len({r.hash for r in plan.runs}) == len(plan.runs)


def test_a_method_that_names_no_settings_is_told():
    with pytest.raises(UserError, match="'baseline' lists no hyperparameters"):
        chosen(METHODS, ["pading", "baseline"])
    with pytest.raises(UserError, match="'padding' does not exist"):
        chosen(METHODS, ["padding"])


def _results(folder, name, task, metrics):
    """results.json with a metric for some trials of a method: what follows its name -> harmonic mean."""
    kind = {"segm": "instance"}.get(task, "panoptic")
    methods = [method(f"{name}.{trial}", kind) for trial in metrics]
    runs = [run(f"{name}.{trial}", 0, {task: (60.0, 20.0, value)}) for trial, value in metrics.items()]
    return write_results(folder, methods, runs, split="tuning")


def test_the_table_marks_the_best_setting_and_the_one_in_use(tmp_path):
    search = dataclasses.replace(METHODS["d2zero"].search, finalists=0)
    d2zero = dataclasses.replace(METHODS["d2zero"], search=search)
    harmonic = [30.0 + n for n in range(len(search.trials))]
    text = write_tuning(_results(tmp_path, "d2zero", "segm", dict(enumerate(harmonic, 1))), [d2zero]).read_text()
    assert f"{len(search.trials)} trials for each method, tuning split, seed 0" in text
    assert "D2Zero: after 500 iterations" in text
    rows = [line for line in text.splitlines() if line.endswith((".0 |", ".0** |"))]
    assert len(rows) == len(search.trials)
    assert [f"**{harmonic[-1]:.1f}**" in row for row in rows] == [False] * (len(rows) - 1) + [True]
    assert sum("†" in row for row in rows) == 1, rows


def test_the_best_of_short_trials_are_trained_longer_and_decide(tmp_path):
    short = {1: 40.0, 2: 10.0, 3: 50.0, 4: 20.0, 5: 30.0, 6: 5.0}
    finals = make_finals(_results(tmp_path, "d2zero", "segm", short), METHODS["d2zero"])
    assert [(final.name, final.iterations) for final in finals] == [
        (f"d2zero.{n}.final", METHODS["d2zero"].iterations) for n in (1, 3)
    ]
    assert [final.overrides["SOLVER.BASE_LR"] for final in finals] == [0.001, 0.002]
    metrics = {**short, "1.final": 66.0, "3.final": 61.0}
    text = write_tuning(_results(tmp_path, "d2zero", "segm", metrics), [METHODS["d2zero"]]).read_text()
    assert "| AP50 | after 500 iterations |" in text
    assert "| **40.0** | **66.0** |" in text and "| 50.0 | 61.0 |" in text
    assert text.count("| – |") == len(short) - 2


def test_settings_are_compared_on_the_seeds_that_all_have(tmp_path):
    """Seed 1 alone would make the second look better than it is."""
    runs = [run(f"gmmn.{n}", s, {t: (60.0, 20.0, v) for t in METRICS_OF}) for n, s, v in [(1, 0, 60.0), (1, 1, 38.0)]]
    runs += [run("gmmn.2", 1, {t: (60.0, 20.0, 40.0) for t in METRICS_OF})]
    bench = read_bench(write_results(tmp_path, [method("gmmn.1"), method("gmmn.2")], runs))
    assert _metrics(bench, METHODS["gmmn"], ["gmmn.1", "gmmn.2", "gmmn.3"]) == [[38.0] * 3, [40.0] * 3, None]
    other = run("gmmn.3", 5, {t: (60.0, 20.0, 40.0) for t in METRICS_OF})
    bench = read_bench(write_results(tmp_path, [method(f"gmmn.{n}") for n in (1, 2, 3)], [*runs, other]))
    with pytest.raises(UserError, match="No seed has metrics of all"):
        _metrics(bench, METHODS["gmmn"], ["gmmn.1", "gmmn.2", "gmmn.3"])


def test_a_setting_that_failed_is_left_out(tmp_path):
    """Also the first."""
    folder = _results(tmp_path, "d2zero", "segm", {2: 10.0, 3: 50.0, 4: 20.0})
    assert [final.name for final in make_finals(folder, METHODS["d2zero"])] == ["d2zero.3.final", "d2zero.4.final"]
    text = write_tuning(folder, [METHODS["d2zero"]]).read_text()
    assert "| **50.0** | **–** |" in text, "no finals yet: the short trials decide"


def test_finals_are_longer_than_trials(tmp_path):
    folder = _results(tmp_path, "d2zero", "segm", {1: 40.0, 2: 10.0})
    assert make_finals(folder, METHODS["d2zero"], "quick") == []
    assert all(trial.iterations == {"quick": 250, "full": 300} for trial in make_trials(METHODS["d2zero"]))


def test_trials_of_full_length_have_no_finals(tmp_path):
    assert make_finals(_results(tmp_path, "gmmn", "panoptic_seg", {1: 40.0}), METHODS["gmmn"]) == []


def test_a_setting_is_judged_by_all_tasks_of_its_method(tmp_path):
    """PQ alone would take the first."""
    metrics = {"gmmn.1": (40.0, 30.0, 20.0), "gmmn.2": (39.0, 30.0, 30.0)}
    runs = [
        run(name, 0, {t: (60.0, 20.0, v) for t, v in zip(("panoptic_seg", "sem_seg", "segm"), values, strict=True)})
        for name, values in metrics.items()
    ]
    text = write_tuning(write_results(tmp_path, list(map(method, metrics)), runs), [METHODS["gmmn"]]).read_text()
    assert "| 40.0 | 30.0 | 20.0 | 30.0 |" in text
    assert "| **39.0** | **30.0** | **30.0** | **33.0** |" in text
    missing = len(METHODS["gmmn"].search.trials) - 2
    assert text.count("| – | – | – | – |") == missing > 0, "trials that have not run"
