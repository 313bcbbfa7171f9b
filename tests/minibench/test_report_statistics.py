"""A table of means and deviations is worth nothing if the metrics in it are not those of the runs."""

import json
import statistics

import pytest

from minibench.bench import read_bench, spread
from minibench.methods import INSTANCE, PANOPTIC
from minibench.report.charts import Album
from minibench.report.results import groups, paired_table, results_section, task_table
from minibench.report.write import summary
from PADing.errors import UserError
from tests.minibench.benchmark_folder import method, run, write_results

PADING = {1: (60.0, 20.0, 30.0), 2: (64.0, 23.0, 33.8), 3: (59.0, 19.0, 28.7)}
ABLATED = {1: (61.0, 15.0, 24.1), 3: (60.0, 16.5, 25.9)}


@pytest.fixture()
def bench(tmp_path):
    methods = [
        method("pading"),
        method("pading_x", ablates="pading", removes="x"),
        method("pading_extra", extends="pading"),
    ]
    runs = [run("pading", seed, {"panoptic_seg": v}) for seed, v in PADING.items()]
    runs += [run("pading_x", seed, {"panoptic_seg": v}) for seed, v in ABLATED.items()]
    return read_bench(write_results(tmp_path, methods, runs))


def test_mean_and_deviation_are_the_samples(bench):
    for index, metric in enumerate(PANOPTIC.metrics):
        values = [v[index] for v in PADING.values()]
        found = bench.spread(bench.method("pading"), PANOPTIC, metric)
        assert found.mean == pytest.approx(statistics.mean(values))
        assert found.sd == pytest.approx(statistics.stdev(values))
        assert found.n == 3


def test_differences_pair_runs_of_the_same_seed(bench):
    # Seed 2 has no ablated run, so it must not count: neither its 33.8, nor as a difference to another seed.
    found = bench.difference(bench.method("pading_x"), bench.method("pading"), PANOPTIC, "PQ_hm")
    differences = [24.1 - 30.0, 25.9 - 28.7]
    assert found.values == pytest.approx({1: differences[0], 3: differences[1]})
    assert found.mean == pytest.approx(statistics.mean(differences))
    assert found.sd == pytest.approx(statistics.stdev(differences))


def test_one_value_has_no_deviation_and_none_has_no_mean():
    assert (spread({1: 12.0}).mean, spread({1: 12.0}).sd, spread({1: 12.0}).text()) == (12.0, None, "12.0")
    assert (spread({}).mean, spread({}).sd, spread({}).text()) == (None, None, "–")


def test_text_has_one_decimal_and_a_proper_minus():
    assert spread({1: 1.0, 2: 3.0}).text() == "2.0 ± 1.4"
    assert spread({1: -1.0, 2: -3.0}).text(signed=True) == "−2.0 ± 1.4"
    assert spread({1: 2.0}).text(signed=True) == "+2.0"
    # Neither "+0.0" nor "-0.0": what rounds to nothing has no sign.
    assert spread({1: -0.01}).text(signed=True) == "0.0" == spread({1: 0.01}).text(signed=True)


def test_undefined_metrics_do_not_count(tmp_path):
    runs = [
        run("pading", 1, {"panoptic_seg": (60.0, None, None)}),
        run("pading", 2, {"panoptic_seg": (70.0, float("nan"), 8.0)}),
    ]
    bench = read_bench(write_results(tmp_path, [method("pading")], runs))
    assert bench.spread(bench.method("pading"), PANOPTIC, "PQ_un").n == 0
    assert bench.spread(bench.method("pading"), PANOPTIC, "PQ_hm").values == {2: 8.0}
    assert bench.spread(bench.method("pading"), PANOPTIC, "PQ_se").mean == 65.0


def test_best_is_the_highest_mean_of_a_column_and_never_zero(tmp_path):
    runs = [run("a", 1, {"panoptic_seg": (50.0, 0.0, 0.0)}), run("b", 1, {"panoptic_seg": (60.0, 0.0, 0.0)})]
    bench = read_bench(write_results(tmp_path, [method("a"), method("b"), method("c")], runs))
    marked = [cell.text for row in task_table(bench, PANOPTIC).rows for cell in row.cells if cell.best]
    assert marked == ["60.0"]
    assert not any(cell.best for row in task_table(bench, INSTANCE).rows for cell in row.cells)


def test_summary_holds_every_metric_by_method_and_task(bench):
    content = json.loads(json.dumps(summary(bench)))["methods"]
    entry = content["pading"]["figures"]["panoptic_seg"]["PQ_un"]
    assert entry["mean"] == pytest.approx(62 / 3)
    assert entry["sd"] == pytest.approx(statistics.stdev([20.0, 23.0, 19.0]))
    assert (entry["n"], entry["values"]) == (3, {"1": 20.0, "2": 23.0, "3": 19.0})
    assert content["pading_x"]["full"] == "pading"
    assert content["pading_x"]["difference"]["panoptic_seg"]["PQ_un"]["mean"] == pytest.approx(-3.75)
    assert content["pading_extra"]["figures"] == {}
    assert "full" not in content["pading"]


def test_a_variant_is_compared_with_what_it_ablates_or_extends(bench):
    pading, ablated, added = bench.methods
    assert bench.full(ablated) is pading and bench.full(added) is pading and bench.full(pading) is None
    assert bench.variants(pading) == [ablated, added]


def test_a_variant_of_a_variant_has_its_row(tmp_path):
    methods = [method("pading"), method("pading_x", ablates="pading", removes="x"), method("mine", ablates="pading_x")]
    runs = [run(m["name"], 1, {"panoptic_seg": PADING[1]}) for m in methods]
    bench = read_bench(write_results(tmp_path, methods, runs))
    assert [m.name for _, group in groups(bench) for m in group] == ["pading", "pading_x", "mine"]
    rows = [row.cells[0].text for row in task_table(bench, PANOPTIC).rows]
    assert rows == ["Pading and variants", "Pading", "Pading_x", "Mine"]
    rows = [row.cells[0].text for row in paired_table(bench).rows]
    assert rows[:2] == ["Pading and variants: PQ minus that of Pading", "Pading_x"]
    assert rows[2:] == ["Pading_x and variants: PQ minus that of Pading_x", "Mine"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "does not exist"),
        ("{", "not valid JSON"),
        ('{"version": 2}', "version 2"),
        ('{"version": 1, "methods": 3}', "not what the mini benchmark writes"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, text, complaint):
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=complaint) as error:
        read_bench(tmp_path)
    assert "results.json" in str(error.value)


def test_methods_of_one_title_each_have_their_line(tmp_path):
    """As the trials of a method have."""
    methods = [method("pading.1", title="PADing"), method("pading.2", title="PADing")]
    runs = [run(m["name"], 1, {"panoptic_seg": PADING[i]}) for i, m in enumerate(methods, start=1)]
    bench = read_bench(write_results(tmp_path, methods, runs))
    (chart,) = results_section(bench, Album(tmp_path / "pictures")).blocks[0].items
    assert "for 2 methods" in chart.alt
