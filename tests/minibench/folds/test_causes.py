"""If these fail, the page of the cause experiments says other things than its rows."""

import pytest

from minibench.folds.cause_report import cause_report, metric_name
from minibench.folds.causes import CAUSES, all_rows, read_causes, rows_of_run, trials_of, verdicts
from minibench.folds.configs import job
from minibench.folds.settings import make_settings
from minibench.methods import discover
from PADing.errors import UserError

TEXT = """
experiments:
  - name: one
    question: Is a better than b?
    paper: It is.
    rows: {a: {method: pading}, b: {method: projection}}
    expectations:
      - {say: better, compare: [a, b], metric: PQ_AUSUC, expected: equal, claim: above}
      - {say: below five, compare: [b, 5], metric: PQ_AUSUC, expected: below}
      - {say: less spread, compare: [a, b], metric: PQ_AUSUC, expected: below, of: spread}
  - name: other
    question: And the whole network?
    of_run: true
    rows: {a: {method: d2zero}, b: {method: d2zero_unseen_loss}}
    expectations: [{say: better, compare: [a, b], metric: AP50_AUSUC, expected: above, claim: above}]
"""
ABOUT = {"world": "test", "folds": [1, 2], "seeds": [1, 2], "budget": "standard", "images": 9, "chosen": {}}


@pytest.fixture
def experiments(tmp_path):
    (tmp_path / "causes.yaml").write_text(TEXT)
    return read_causes(file=tmp_path / "causes.yaml")


def _rows(first, second, folds=6):
    """Rows of ``a`` and ``b`` with values by (fold, seed)."""
    return [
        {"trial": f"one.{name}", "fold": fold, "seed": seed, "metrics": {"PQ_AUSUC": value(fold, seed)}}
        for name, value in (("a", first), ("b", second))
        for fold in range(1, folds + 1)
        for seed in (1, 2)
    ]


def test_a_real_difference_holds_and_answers_the_expectation(experiments):
    rows = _rows(lambda f, s: 9 + f + 0.1 * s, lambda f, s: 3 + f * 0.9 + 0.1 * s * f)
    better, below, spread, later = verdicts(experiments, rows)
    assert better.values[2] == pytest.approx(9 + 2 + 0.15 - (3 + 1.8 + 0.3))
    assert (better.claim, better.as_expected) == ("yes", "no") and better.p < 0.05
    assert (below.claim, below.as_expected) == ("", "open") and below.values[1] == pytest.approx(3.9 + 0.15 - 5)
    assert spread.values[3] == pytest.approx((0.1 - 0.3) / 2**0.5) and len(spread.values) == 6
    assert (later.claim, later.as_expected, later.values) == ("open", "open", {})
    text = cause_report(experiments, [better, below, spread, later], rows, ABOUT)
    assert "| one | 1 holds |" in text and "| other | 1 open | 1 open |" in text
    assert "Not run. The rows are d2zero,d2zero_unseen_loss of" in text
    assert "no hyperparameters chosen yet" in text


def test_a_small_difference_is_equal_and_no_difference_is_never_a_claim(experiments):
    rows = _rows(lambda f, s: 10 + f + 0.02 * (-1) ** f, lambda f, s: 10 + f)
    equal = verdicts(experiments, rows)[0]
    assert (equal.as_expected, equal.claim) == ("yes", "no")
    noisy = verdicts(experiments, _rows(lambda f, s: 10 + 8 * (-1) ** f, lambda f, s: 10.0))[0]
    assert (noisy.as_expected, noisy.claim) == ("open", "open")


def test_one_fold_or_none_and_divergence_decide_nothing(experiments):
    assert {v.as_expected for v in verdicts(experiments, [])} == {"open"}
    assert {v.claim for v in verdicts(experiments, _rows(lambda f, s: 90, lambda f, s: 1, folds=1))} == {"", "open"}
    rows = _rows(lambda f, s: 9.0 + f, lambda f, s: 3.0)
    broken = [row if row["fold"] > 1 or row["trial"] != "one.a" else {**row, "metrics": {}} for row in rows]
    assert set(verdicts(experiments, broken)[0].values) == {2, 3, 4, 5, 6}
    lost = [{k: v for k, v in row.items() if k != "metrics"} for row in rows]
    text = cause_report(experiments, verdicts(experiments, lost), lost, ABOUT)
    assert "| a | 12 |" in text and "not run" in text


def test_whole_networks_are_compared_by_the_rows_of_the_benchmark(experiments):
    results = {
        "rows": [
            {"method": name, "fold": fold, "seed": 0, "hash": "h", "processor_seconds": 1.0, "results": {"segm": {
                "AP50_AUSUC": base + fold}, "region": {"acc_un_only": 9.0}}}
            for name, base in (("d2zero", 7.0), ("d2zero_unseen_loss", 2.0), ("projection", 1.0))
            for fold in (1, 2)
        ]
    }  # fmt: skip
    rows = rows_of_run(experiments, results)
    assert [(row["trial"], row["fold"]) for row in rows] == [
        ("other.a", 1),
        ("other.a", 2),
        ("other.b", 1),
        ("other.b", 2),
    ]
    verdict = verdicts(experiments, rows)[-1]
    assert verdict.values == {1: 5.0, 2: 5.0} and verdict.claim == "yes"
    text = cause_report(experiments, verdicts(experiments, rows), rows, ABOUT)
    assert "| a | 8.5 | 9 |" in text and "Not run. The rows" not in text


def test_experiments_on_other_segmenters_are_not_joined_to_a_run(experiments):
    row = {"trial": "one.a", "fold": 1, "seed": 1, "segmenter": "s1", "metrics": {}}
    results = {"rows": [{"method": "pading", "segmenter": "s1"}]}
    assert all_rows(experiments, {"rows": [row]}, results) == [row]
    with pytest.raises(UserError, match="is of another run than results.json"):
        all_rows(experiments, {"rows": [row, {**row, "segmenter": "s2"}]}, results)


def test_the_committed_experiments_can_be_run_and_say_what_they_expect():
    """Each row's config can be read, equal rows are trained once, and every row is compared."""
    experiments, methods, settings = read_causes(), discover([CAUSES.parent / "whole"]), make_settings()
    assert all(trial.method in methods for one in experiments for trial in one.rows.values())
    for trial in trials_of(experiments, lambda name: {}):
        made = job(methods[trial.method], settings, 1, "second", options=trial.all_options())
        variant = made.load().MODEL.MASK_FORMER.get("VARIANT")
        assert (variant is not None) == any(".VARIANT." in key for key in trial.options)
    for one in experiments:
        compared = {side for part in one.expectations for side in (part.first, part.second) if isinstance(side, str)}
        assert compared == set(one.rows), one.name
        assert all(part.say.endswith(".") for part in one.expectations)


def test_mistakes_in_the_declarations_are_named(tmp_path):
    file = tmp_path / "causes.yaml"
    for old, new, words in (
        (
            "compare: [a, b], metric: PQ_AUSUC, expected: equal",
            "compare: [a, c], metric: M, expected: equal",
            "two rows",
        ),
        ("expected: equal", "expected: higher", "above, below, equal"),
        ("of: spread", "of: range", "mean or spread"),
        ("a: {method: pading}", "a: {methods: pading}", "needs `method`"),
        ("name: other", "name: one", "two experiments one"),
        ("question: And the", "questions: And the", "needs name, question"),
        ("experiments:", "experiment:", "needs `experiments`"),
    ):
        assert old in TEXT
        file.write_text(TEXT.replace(old, new))
        with pytest.raises(UserError, match=words):
            read_causes(file=file)
    with pytest.raises(UserError, match=r"no experiment 'nois'.*noise"):
        read_causes(["nois"], CAUSES)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("PQ_AUSUC", "PQ AUSUC"),
        ("acc_un_only", "unseen-only accuracy"),
        ("acc_un_only_things", "unseen-only accuracy, things"),
        ("acc_un", "acc un"),
    ],
)
def test_metrics_have_names_for_readers(key, name):
    assert metric_name(key) == name
