"""The committed results must give the committed report, and the pages that quote it must quote it rightly."""

import itertools
import json
import re
import statistics
from pathlib import Path

import pytest

from minibench.bench import OTHER, RESULTS, read_bench
from minibench.comparisons import compare, merge_twins
from minibench.distractor_runs import read_distractors
from minibench.methods import INSTANCE, PANOPTIC, TASKS, discover
from minibench.paired import BETTER, WORSE, judge, paired_test
from minibench.pool import pool
from minibench.report.reading import interval
from minibench.report.write import write_report

REPOSITORY = Path(__file__).resolve().parents[2]
COMMITTED = REPOSITORY / "docs" / "minibench"
AGAIN = "python -m minibench report --output docs/minibench --to docs/minibench"


@pytest.fixture(scope="module")
def bench():
    return read_bench(COMMITTED)


@pytest.fixture(scope="module")
def lines(bench) -> dict:
    return {(c.upper.name, c.lower.name): c.lines for c in compare(merge_twins(bench))}


def test_the_report_is_what_the_command_writes(tmp_path):
    write_report(COMMITTED, tmp_path)
    assert (tmp_path / "report.md").read_text() == (COMMITTED / "report.md").read_text(), f"make it again: {AGAIN}"
    found, expected = (json.loads((f / "summary.json").read_text()) for f in (tmp_path, COMMITTED))
    numbers = dict(_leaves(expected))
    # Libraries of other versions round the last digits differently.
    assert dict(_leaves(found)) == {k: pytest.approx(v) if type(v) is float else v for k, v in numbers.items()}


def _leaves(value: object, path: tuple = ()):
    if isinstance(value, (dict, list)):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(child, (*path, key))
    else:
        yield path, value


def test_all_runs_that_count_have_the_settings_of_the_present_methods(tmp_path):
    """Their hash covers config, start weights and data, so a changed default is noticed."""
    pool([COMMITTED / RESULTS, COMMITTED / OTHER], discover(), tmp_path)
    for name in (RESULTS, OTHER):
        runs, expected = ([_key(r) for r in json.loads((f / name).read_text())["runs"]] for f in (tmp_path, COMMITTED))
        assert runs == expected, f"pool docs/minibench/{RESULTS} and {OTHER} again, then {AGAIN}"


def _key(run: dict) -> tuple:
    return run["method"], run["seed"], run["hash"]


ROWS = [
    ("README.md", "Mask2Former, trained on seen classes only", "baseline", INSTANCE),
    ("README.md", "linear projection of class embeddings", "projection", INSTANCE),
    ("README.md", "PADing", "pading", INSTANCE),
    ("README.md", "D2Zero", "d2zero", INSTANCE),
    ("docs/reproducing.md", "PADing, PQ", "pading", PANOPTIC),
    ("docs/reproducing.md", "PADing, AP50", "pading", INSTANCE),
    ("docs/reproducing.md", "D2Zero, AP50", "d2zero", INSTANCE),
]


@pytest.mark.parametrize(("page", "row", "method", "task"), ROWS, ids=[f"{page}: {row}" for page, row, *_ in ROWS])
def test_tables_of_other_pages_have_the_results(bench, page, row, method, task):
    values = [bench.spread(bench.method(method), task, metric).text() for metric in task.metrics]
    assert f"| {row} | {' | '.join(values)} |" in (REPOSITORY / page).read_text()


def test_the_page_gives_each_finding_as_it_is_in_the_report(lines):
    """Difference and interval of each comparison that the page's sections state, whichever method it names first."""
    text = (REPOSITORY / "docs" / "minibench.md").read_text().split("## What was found")[1].split("\n## ")[0]
    text = " ".join(text.split())
    quoted = [
        *(("pading", "projection", task) for task in (PANOPTIC, INSTANCE)),
        *(("pading", "pading_no_noise", task) for task in (PANOPTIC, INSTANCE)),
        ("pading", "pading_no_disentanglement", PANOPTIC),
        ("pading_self_training", "pading", PANOPTIC),
        ("d2zero", "d2zero_plain_classifier", INSTANCE),
        ("d2zero", "d2zero_no_image_background", INSTANCE),
        ("d2zero_unseen_loss", "d2zero", INSTANCE),
    ]
    for upper, lower, task in quoted:
        line = lines[upper, lower][task]
        assert _bounds(interval(line)) & _all_bounds(text), f"{upper}, {lower}: {interval(line)}"
        assert f"{abs(line.difference.mean):.1f}" in text
    verdicts = [line.found.verdict for found in lines.values() for line in found.values() if line.test]
    counts = [verdicts.count(v) for v in ("better", "worse", "equivalent", "undecided")]
    assert counts == [3, 0, 3, 15] and "Three comparisons are decided as *better*, none as *worse*, three as" in text


def test_the_page_gives_the_metrics_with_distractors_as_they_are_in_the_file():
    """Each row of the page's table: method, number, and means over seeds."""
    text = (REPOSITORY / "docs" / "minibench.md").read_text().split("## Names that no image shows")[1].split("\n## ")[0]
    entries = read_distractors(COMMITTED)
    assert entries
    for name, number in {(e["method"], number) for e in entries for number in e["numbers"]}:
        runs = [e["numbers"][number] for e in entries if e["method"] == name and number in e["numbers"]]
        title = next(e["title"] for e in entries if e["method"] == name)
        cells = []
        for task in TASKS:
            values = [statistics.fmean(run[task.key][m] for run in runs) for m in task.metrics if task.key in runs[0]]
            cells.append(", ".join(f"{value:.1f}" for value in values))
        assert f"| {title} | {int(number):,} | {' | '.join(cells)} |" in text


def _signs(lines: dict) -> tuple[list[dict], list[dict]]:
    """Paired differences of all tests, and each way to exchange the two methods of every comparison in some seeds."""
    differences = [dict(line.difference.values) for found in lines.values() for line in found.values() if line.test]
    seeds = sorted({seed for values in differences for seed in values})
    signs = [dict(zip(seeds, choice, strict=True)) for choice in itertools.product((1, -1), repeat=len(seeds))]
    return differences, signs


def test_without_any_difference_the_family_rarely_raises_an_alarm(lines):
    """If methods did not differ, exchanging them would change nothing: all 64 ways, with their correlated seeds."""
    differences, signs = _signs(lines)
    alarms = 0
    for sign in signs:
        found = judge([paired_test([v * sign[s] for s, v in values.items()]) for values in differences])
        alarms += any(f.verdict in (BETTER, WORSE) for f in found)
    assert len(signs) == 64 and alarms / 64 <= 0.05


def test_the_page_says_how_often_a_planted_effect_is_found(lines):
    differences, signs = _signs(lines)
    found = {7: 0, 15: 0}
    for effect in found:
        for sign in signs:
            tests = [paired_test([v * sign[s] for s, v in values.items()]) for values in differences]
            for i, values in enumerate(differences):
                mean = statistics.fmean(values.values())
                planted = paired_test([(v - mean) * sign[s] + effect for s, v in values.items()])
                found[effect] += judge([*tests[:i], planted, *tests[i + 1 :]])[i].verdict == BETTER
    shares = {effect: round(100 * count / len(signs) / len(differences)) for effect, count in found.items()}
    text = " ".join((REPOSITORY / "docs" / "minibench.md").read_text().split())
    expected = (
        f"planted difference of 7 points in {shares[7]} % of the cases, and for one of 15 points in {shares[15]} %"
    )
    assert expected in text


def _all_bounds(text: str) -> set[tuple[float, ...]]:
    pairs = re.findall(r"([+−]?\d+\.\d) to ([+−]?\d+\.\d)", text)
    return set().union(*(_bounds(" to ".join(pair)) for pair in pairs))


def _bounds(text: str) -> set[tuple[float, ...]]:
    """An interval, and that of the difference the other way round."""
    low, high = (float(bound.replace("−", "-")) for bound in text.split(" to "))
    return {(low, high), (-high, -low)}
