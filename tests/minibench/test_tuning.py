"""Settings are chosen in the same way for every method: as many trials for each, the best by its harmonic mean."""

from pathlib import Path

import pytest

from minibench.methods import discover
from minibench.plan import Plan
from minibench.settings import make_settings
from minibench.tuning import chosen, make_trials, write_tuning
from PADing.errors import UserError
from tests.minibench.benchmark_folder import method, run, write_results

METHODS = discover()


def _trials(names):
    return {trial.name: trial for name in names for trial in make_trials(METHODS[name])}


def _last(command: list[str], key: str) -> str:
    """What counts of a repeated override."""
    return command[len(command) - command[::-1].index(key)]


def test_every_method_that_learns_from_class_vectors_tries_equally_many_settings():
    assert set(chosen(METHODS, None)) == set(METHODS) - {"baseline"}
    counts = {len(m.search.trials) for m in METHODS.values() if m.search}
    assert len(counts) == 1, "the budget would not be equal"
    for name in chosen(METHODS, None):
        assert len(set(METHODS[name].search.trials)) == max(counts), f"{name} tries a setting twice"


def test_a_trial_is_a_run_of_the_method_with_other_values_on_the_tuning_split():
    trials = _trials(["pading_self_training", "d2zero"])
    plan = Plan({**METHODS, **trials}, list(trials), make_settings(split="tuning"), Path("/nowhere"))
    by_name = {run.method.name: plan.command(run) for run in plan.runs}
    for name, trial in trials.items():
        own = METHODS[name.partition(".")[0]]
        assert set(trial.settings) == {*own.settings, *own.search.keys}, "what a variant leaves out stays out"
        for key, value in trial.settings.items():
            assert key.startswith("DATASETS.") or _last(by_name[name], key) == str(value)
        assert _last(by_name[name], "DATASETS.TEST").startswith("('mini_tuning_val_")
    teacher = _last(by_name["pading_self_training.2"], "MODEL.MASK_FORMER.SELF_TRAINING.WEIGHTS")
    assert teacher.startswith("/nowhere/runs/pading-seed0-")
    assert {r.iterations for r in plan.runs if r.method.name.startswith("d2zero.")} == {300}
    assert len({r.hash for r in plan.runs}) == len(plan.runs)


def test_a_method_that_names_no_settings_is_told():
    with pytest.raises(UserError, match="'baseline' names no settings"):
        chosen(METHODS, ["pading", "baseline"])
    with pytest.raises(UserError, match="'padding' does not exist"):
        chosen(METHODS, ["padding"])


def test_the_table_marks_the_best_setting_and_the_one_in_use(tmp_path):
    (name, search) = "d2zero", METHODS["d2zero"].search
    harmonic = [30.0 + n for n in range(len(search.trials))]
    write_results(
        tmp_path,
        [method(f"{name}.{n}", "instance") for n in range(1, len(search.trials) + 1)],
        [run(f"{name}.{n}", 0, {"segm": (60.0, 20.0, value)}) for n, value in enumerate(harmonic, 1)],
        split="tuning",
    )
    text = write_tuning(tmp_path, [METHODS[name]]).read_text()
    assert f"{len(search.trials)} settings for each method, tuning split, seed 0" in text
    assert "D2Zero: after 500 iterations" in text
    rows = [line for line in text.splitlines() if line.endswith((".0 |", ".0** |"))]
    assert len(rows) == len(search.trials)
    assert [f"**{harmonic[-1]:.1f}**" in row for row in rows] == [False] * (len(rows) - 1) + [True]
    assert sum("†" in row for row in rows) == 1, rows


def test_a_setting_is_judged_by_all_tasks_of_its_method(tmp_path):
    """PQ alone would take the first."""
    figures = {"gmmn.1": (40.0, 30.0, 20.0), "gmmn.2": (39.0, 30.0, 30.0)}
    runs = [
        run(name, 0, {t: (60.0, 20.0, v) for t, v in zip(("panoptic_seg", "sem_seg", "segm"), values, strict=True)})
        for name, values in figures.items()
    ]
    text = write_tuning(write_results(tmp_path, list(map(method, figures)), runs), [METHODS["gmmn"]]).read_text()
    assert "| 40.0 | 30.0 | 20.0 | 30.0 |" in text
    assert "| **39.0** | **30.0** | **30.0** | **33.0** |" in text
    missing = len(METHODS["gmmn"].search.trials) - 2
    assert text.count("| – | – | – | – |") == missing > 0, "trials that have not run"
