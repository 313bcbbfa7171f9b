"""The report must say "undecided" when the seeds do not tell: verdicts on metrics whose outcome can be seen by eye."""

import pytest

from minibench.bench import read_bench
from minibench.comparisons import compare, merge_twins, names_no_unseen
from minibench.methods import INSTANCE, PANOPTIC
from minibench.report.document import Table, Text
from minibench.report.reading import as_json, outcome, reading_section
from tests.minibench.benchmark_folder import method, run, write_results


def _bench(tmp_path, metrics: dict[str, list[tuple]], **kinds):
    """Metrics by method: (unseen, harmonic mean) for each seed."""
    methods = [method(name, **kinds.get(name, {})) for name in metrics]
    runs = []
    for entry in methods:
        tasks = ("segm",) if entry["task"] == "instance" else ("panoptic_seg", "sem_seg", "segm")
        for seed, (unseen, harmonic) in enumerate(metrics[entry["name"]], start=1):
            runs.append(run(entry["name"], seed, {task: (60.0, unseen, harmonic) for task in tasks}))
    return read_bench(write_results(tmp_path, methods, runs))


def _near(harmonic: float, jitter: float = 0.0) -> list[tuple]:
    """Four seeds that differ as in every other method, up to the jitter."""
    values = [harmonic + seed + sign * jitter for seed, sign in ((0.0, 1), (2.0, -1), (5.0, 0), (3.0, 1))]
    return [(20.0, value) for value in values]


ABLATION = {"ablates": "pading", "removes": "alignment"}
D2ZERO = {"task": "instance"}


@pytest.fixture()
def bench(tmp_path):
    metrics = {
        "baseline": [(0.0, 0.0)] * 4,
        "projection": _near(10.0, 0.1),
        "pading": _near(30.0),
        "pading_no_alignment": _near(30.5, 0.2),
        "pading_no_noise": _near(60.0, 0.3),
        "pading_self_training": [(20.0, h) for h in (10.0, 50.0, 40.0, 33.0)],
        "d2zero": _near(50.0),
        "d2zero_plain_classifier": _near(40.0, 0.4),
    }
    removed = {"ablates": "d2zero", "removes": "the input-conditional classifier"}
    kinds = {
        "pading_no_alignment": ABLATION,
        "pading_no_noise": {"ablates": "pading", "removes": "noise"},
        "d2zero": D2ZERO,
        "d2zero_plain_classifier": D2ZERO | removed,
    }
    return _bench(tmp_path, metrics, **kinds)


def _verdicts(bench) -> dict[tuple[str, str], str]:
    return {(c.upper.name, c.lower.name): c.verdict for c in compare(bench)}


def test_each_comparison_gets_its_own_verdict_once(bench):
    assert _verdicts(bench) == {
        ("pading", "projection"): "better",
        ("pading", "pading_no_alignment"): "equivalent",
        ("pading", "pading_no_noise"): "worse",
        ("pading_self_training", "pading"): "undecided",
        # Both expected of the method of the paper, and an ablation.
        ("d2zero", "d2zero_plain_classifier"): "better",
    }


def test_the_headline_counts_all_lines_but_none_that_is_known_before(bench):
    text = outcome(bench, compare(bench))
    assert "Pading reaches PQ 20.0 ± 0.0 on unseen classes and a harmonic mean of 32.5 ± 2.1 (projection: 12.5" in text
    # Four comparisons of panoptic methods in three tasks, and one of instance methods.
    assert "Of 13 differences" in text
    assert "better in 4, worse in 3 and equivalent in 3; 3 are undecided" in text
    assert "With 4 seeds" in text and "probability of 80 %" in text
    assert [m.name for m in names_no_unseen(bench)] == ["baseline"]


def test_all_lines_are_one_family(bench):
    """Holm multiplies the smallest p by the number of lines."""
    lines = [line for c in compare(bench) for line in c.lines.values()]
    least = min(lines, key=lambda line: line.test.p)
    assert len(lines) == 13 and least.found.p == pytest.approx(13 * least.test.p)


def test_the_table_has_the_interval_the_power_and_the_verdict(bench):
    section = reading_section(bench, compare(bench), None)
    (table,) = (block for block in section.blocks if isinstance(block, Table))
    rows = [[" ".join(filter(None, (c.text, c.detail))) for c in row.cells] for row in table.rows]
    at = rows.index(["Pading_self_training − Pading: ? undecided in PQ"])
    task, n, difference, interval, _, detectable, verdict = rows[at + 1]
    # Differences -20, 18, 5, 0 by hand: mean 0.75, sd 15.78, and 3.182 sd / 2 to each side.
    assert (task, n, difference) == ("PQ", "4", "+0.8 ± 15.8")
    assert interval == "−24.4 to +25.9" and verdict == "? undecided"
    assert float(detectable) == pytest.approx(4.2559 * 15.777 / 2, abs=0.1)
    notes = " ".join(block.text for block in section.blocks if isinstance(block, Text))
    assert "comparisons with Baseline" in notes


def test_a_baseline_that_names_unseen_classes_is_compared(tmp_path):
    """Which should not happen; then nothing about it is known before."""
    removed = {"baseline": {"extends": "pading"}}
    bench = _bench(tmp_path, {"baseline": [(0.0, 0.0), (0.3, 0.6)], "pading": [(2.0, 3.0)] * 2}, **removed)
    assert not names_no_unseen(bench)
    assert ("baseline", "pading") in _verdicts(bench)


def test_a_method_that_fails_on_unseen_classes_is_compared_all_the_same(tmp_path):
    metrics = {
        "baseline": [(0.0, 0.0)] * 3,
        "pading": [(0.0, 0.0)] * 3,
        "projection": [(20.0, h) for h in (25.0, 30.0, 28.0)],
    }
    bench = _bench(tmp_path, metrics)
    assert [m.name for m in names_no_unseen(bench)] == ["baseline"]
    assert _verdicts(bench) == {("pading", "projection"): "worse"}


def test_methods_that_were_not_run_give_no_verdict(tmp_path):
    bench = _bench(tmp_path, {"baseline": [(0.0, 0.0)], "projection": [(3.0, 4.0)], "pading": []})
    assert _verdicts(bench) == {("pading", "projection"): "not run"}
    text = outcome(bench, compare(bench))
    assert text.startswith("Neither Pading nor D2Zero was run.") and "differences" not in text


def test_one_seed_decides_nothing_and_says_so(tmp_path):
    bench = _bench(tmp_path, {"pading": [(20.0, 30.0)], "projection": [(10.0, 15.0)]})
    assert _verdicts(bench) == {("pading", "projection"): "undecided"}
    assert "With one seed nothing can be decided." in outcome(bench, compare(bench))
    (table,) = (b for b in reading_section(bench, compare(bench), None).blocks if isinstance(b, Table))
    assert table.rows[1].cells[-1].text == "? undecided (one seed)"


def test_other_hyperparameters_are_named(tmp_path):
    kinds = {
        "pading": {"hyperparameters": {"SOLVER.BASE_LR": 0.01, "SOLVER.GENERATOR_LR": 1.0}},
        "projection": {"hyperparameters": {"SOLVER.BASE_LR": 0.03, "SOLVER.GENERATOR_LR": 1.0}},
    }
    bench = _bench(tmp_path, {"pading": [(20.0, 30.0)], "projection": [(10.0, 15.0)]}, **kinds)
    (comparison,) = compare(bench)
    assert comparison.unequal == ("BASE_LR",)
    assert as_json([comparison])[0]["other_hyperparameters"] == ["BASE_LR"]


def test_variants_with_the_same_metrics_are_one_row(tmp_path):
    kinds = {
        "gmmn": {"ablates": "pading", "removes": "primitives and more"},
        "pading_no_primitives": {"ablates": "pading", "removes": "primitives"},
        "pading_no_noise": {"ablates": "pading", "removes": "noise"},
    }
    metrics = {
        "pading": [(20.0, 30.0), (22.0, 33.0)],
        "gmmn": [(15.0, 25.0), (16.0, 24.0)],
        "pading_no_primitives": [(15.4, 25.0), (16.0, 24.1)],
        # Equal in one seed only.
        "pading_no_noise": [(15.0, 25.0), (17.0, 24.0)],
    }
    bench = merge_twins(_bench(tmp_path, metrics, **kinds))
    names = {m.name: m.title for m in bench.methods}
    assert list(names) == ["pading", "pading_no_primitives", "pading_no_noise"]
    assert names["pading_no_primitives"] == "Pading_no_primitives (the same: Gmmn)"
    assert len(compare(bench)) == 2 and len(bench.runs) == 6


def test_seeds_with_other_hyperparameters_have_a_table_without_verdicts(tmp_path):
    metrics = {"d2zero": [(40.0, 50.0), (41.0, 52.0)], "d2zero_plain_classifier": [(39.0, 48.0), (40.0, 49.0)]}
    kinds = {"d2zero": D2ZERO, "d2zero_plain_classifier": D2ZERO | {"ablates": "d2zero", "removes": "x"}}
    bench = _bench(tmp_path / "now", metrics, **kinds)
    third = {"d2zero": 60.0, "d2zero_plain_classifier": 51.0}
    runs = [run(name, 3, {"segm": (60.0, 30.0, harmonic)}) for name, harmonic in third.items()]
    # Seed 1 is there already: it must not count twice.
    runs.append(run("d2zero", 1, {"segm": (60.0, 30.0, 99.0)}))
    other = read_bench(write_results(tmp_path / "other", [method(name, **kinds[name]) for name in kinds], runs))
    tables = [b for b in reading_section(bench, compare(bench), other).blocks if isinstance(b, Table)]
    cells = [c.text for c in tables[1].rows[0].cells]
    # 2, 3 and 9.
    assert cells[1:4] == [INSTANCE.metric, "1, 2, 3", "+4.7"] and len(tables[1].columns) == 5
    assert compare(bench)[0].lines[INSTANCE].difference.values == {1: 2.0, 2: 3.0}
    assert PANOPTIC not in compare(bench)[0].lines
