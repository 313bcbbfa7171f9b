"""The report must say "does not hold" when it does not: verdicts on metrics whose outcome can be seen by eye."""

import pytest

from minibench.bench import read_bench, spread
from minibench.methods import PANOPTIC
from minibench.report.reading import contradictions, expectations, outcome, verdict
from tests.minibench.benchmark_folder import method, run, write_results


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ((3.0, 4.0, 5.0), "holds"),
        ((-3.0, -4.0, -5.0), "does not hold"),
        ((3.0, -2.0, 1.0), "within the spread"),
        ((0.0, 2.0), "within the spread"),
        ((-1.0, 1.0), "within the spread"),
        # Never any different: there is no spread to hide in.
        ((0.0, 0.0), "does not hold"),
        ((1.0,), "holds"),
        ((-1.0,), "does not hold"),
        ((), "not run"),
    ],
)
def test_verdict_of_paired_differences(differences, expected):
    assert verdict(spread(dict(enumerate(differences)))) == expected


def _bench(tmp_path, metrics: dict[str, list[tuple]], **kinds):
    """Metrics by method: (unseen, harmonic mean) for each seed."""
    methods = [method(name, **kinds.get(name, {})) for name in metrics]
    runs = []
    for entry in methods:
        tasks = ("segm",) if entry["task"] == "instance" else ("panoptic_seg", "sem_seg", "segm")
        for seed, (unseen, harmonic) in enumerate(metrics[entry["name"]], start=1):
            runs.append(run(entry["name"], seed, {task: (60.0, unseen, harmonic) for task in tasks}))
    return read_bench(write_results(tmp_path, methods, runs))


ABLATION = {"ablates": "pading", "removes": "alignment"}
D2ZERO = {"task": "instance"}


@pytest.fixture()
def bench(tmp_path):
    metrics = {
        "baseline": [(0.0, 0.0)] * 3,
        "projection": [(10.0, 15.0), (12.0, 18.0), (11.0, 17.0)],
        "pading": [(20.0, 30.0), (22.0, 33.0), (21.0, 31.0)],
        "pading_no_alignment": [(24.0, 34.0), (25.0, 36.0), (24.0, 35.5)],
        "pading_self_training": [(21.0, 31.0), (21.0, 31.5), (21.0, 32.0)],
        "d2zero": [(40.0, 50.0), (41.0, 51.0), (42.0, 52.0)],
        "d2zero_plain_classifier": [(30.0, 40.0), (31.0, 41.0), (33.0, 43.5)],
    }
    removed = {"ablates": "d2zero", "removes": "the input-conditional classifier"}
    kinds = {"pading_no_alignment": ABLATION, "d2zero": D2ZERO, "d2zero_plain_classifier": D2ZERO | removed}
    return _bench(tmp_path, metrics, **kinds)


def test_each_expectation_gets_its_own_verdict(bench):
    found = {e.title: e.verdict for e in expectations(bench)}
    assert found == {
        "The baseline cannot name unseen classes": "holds",
        "Every zero-shot method names unseen classes better than the baseline": "holds",
        "Pading is above the projection baseline": "holds",
        "D2zero is above the plain semantic classifier": "holds",
        "Each ablation is below the full Pading": "does not hold",
        "Each addition is above Pading alone": "within the spread",
        "Each ablation is below the full D2zero": "holds",
    }


def test_an_ablation_that_beats_the_full_method_is_named(bench):
    wrong = contradictions(expectations(bench))
    assert [(e.metric, c.text) for e, c in wrong] == [("harmonic", "Pading − Pading_no_alignment")]
    # 30 - 34, 33 - 36 and 31 - 35.5.
    assert wrong[0][1].differences[PANOPTIC].mean == pytest.approx(-11.5 / 3)


def test_the_headline_counts_what_the_table_says(bench):
    text = outcome(bench, expectations(bench))
    assert "Pading reaches PQ 21.0 ± 1.0 on unseen classes" in text
    assert "harmonic mean of 51.0 ± 1.0" in text
    # 1 baseline, 6 above it, projection, plain classifier, which is an ablation too, 1 more ablation, 1 addition.
    assert "Of 11 comparisons" in text and "sign alone" not in text
    assert "9 came out as expected in these seeds, 1 within the spread of the seeds, 1 against expectation." in text


def test_the_headline_says_when_there_is_one_seed(tmp_path):
    bench = _bench(tmp_path, {"baseline": [(0.0, 0.0)], "pading": [(20.0, 30.0)]})
    assert "There is one seed, so the sign alone decides." in outcome(bench, expectations(bench))


def test_a_baseline_that_names_unseen_classes_is_noticed(tmp_path):
    bench = _bench(tmp_path, {"baseline": [(0.0, 0.0), (0.3, 0.6)]})
    assert expectations(bench)[0].verdict == "does not hold"


def test_methods_that_were_not_run_give_no_verdict(tmp_path):
    bench = _bench(tmp_path, {"baseline": [(0.0, 0.0)], "pading": []})
    found = {e.title: e.verdict for e in expectations(bench)}
    assert found["Pading is above the projection baseline"] == "not run"
    assert found["Every zero-shot method names unseen classes better than the baseline"] == "not run"
    assert outcome(bench, expectations(bench)).startswith("Neither Pading nor D2Zero was run.")


def test_one_seed_is_judged_by_its_sign_and_says_so(tmp_path):
    bench = _bench(tmp_path, {"pading": [(20.0, 30.0)], "projection": [(10.0, 15.0)]})
    line = next(e for e in expectations(bench) if "projection" in e.title).comparisons[0]
    assert (line.verdict, line.one_seed) == ("holds", True)
