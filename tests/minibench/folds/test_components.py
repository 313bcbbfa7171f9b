"""If these fail, the report says other things about the papers' components than its comparisons."""

import numpy as np
import pytest

from minibench.folds.causes import CAUSES, read_causes
from minibench.folds.command import report_version_2
from minibench.folds.components import COMPONENTS, components
from minibench.folds.differences import compare
from minibench.folds.report import report
from minibench.methods import discover
from PADing.errors import UserError
from PADing.files import write_json

FOLDS = range(1, 7)


def _method(name, title, task="panoptic", **more):
    return {"name": name, "title": title, "task": task, "kind": "second", "role": "", "limit": False, **more}


METHODS = [
    _method("pading", "PADing", role="main", expected_above={"projection": "the projection"}),
    _method("projection", "projection"),
    _method("pading_no_noise", "PADing without noise", ablates="pading", removes="noise"),
    _method("d2zero", "D2Zero", "instance"),
    _method("d2zero_unseen_loss", "D2Zero with the loss", "instance", extends="d2zero"),
]


def _results(effects):
    draws = np.random.default_rng(3)
    rows = []
    for method in METHODS:
        for fold in FOLDS:
            value = 20 + 3 * np.sin(fold) + effects.get(method["name"], 0.0) + 0.1 * draws.normal()
            values = {"panoptic_seg": {"PQ_AUSUC": value}, "segm": {"AP50_AUSUC": value, "AP50_hm": value}}
            row = {"method": method["name"], "fold": fold, "seed": 1, "results": values, "classes": {}, "curves": {}}
            row |= dict.fromkeys(("hash", "data", "vectors", "config", "code", "commit", "segmenter"), "h")
            rows.append({**row, "world": "test", "track": "clip", "version": 1, "processor_seconds": 1.0})
    about = {"version": 2, "recipe": 1, "world": "test", "track": "clip", "budget": "smoke", "trainings": []}
    about |= {"folds": list(FOLDS), "seeds": [1], "data": {"world": "h", "vectors": "h"}}
    return {**about, "methods": METHODS, "rows": rows}


def _causes(effects):
    """Rows of the experiment ``noise``."""
    draws, rows = np.random.default_rng(4), []
    for name, effect in effects.items():
        for fold in FOLDS:
            metrics = {"PQ_AUSUC": 10 + fold + effect + 0.05 * draws.normal(), "PQ_hm": 30 + effect}
            rows.append({"trial": f"noise.{name}", "fold": fold, "seed": 1, "metrics": metrics})
    return {"rows": rows}


def _table(text):
    """Component -> claim, and the answers of its comparisons."""
    found, name = {}, ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 7 and cells[0] not in ("Paper", "---"):
            name = cells[1] or name
            claim, answers = found.get(name, (cells[2].strip("*"), []))
            found[name] = claim, [*answers, cells[6]]
    return found


def test_shown_equal_and_undecided_claims():
    results = _results({"pading": 7.0, "pading_no_noise": 7.0, "d2zero_unseen_loss": -5.0})
    found = _table(components(results, compare(results), None))
    assert found == {
        "a generator, instead of a linear projection": ("holds", ["holds"]),
        "noise": ("does not hold", ["does not hold"]),
        "unseen-constrained loss": ("does not hold", ["does not hold"]),
    }
    for row in results["rows"]:  # differences of one sign in three folds, and of the other in three
        row["results"]["panoptic_seg"]["PQ_AUSUC"] += 9 * (-1) ** row["fold"] * (row["method"] == "pading")
    assert _table(components(results, compare(results), None))["noise"] == ("open", ["open"])


def test_conditions_that_disagree_are_named():
    results = _results({"pading_no_noise": 0.0})
    causes = _causes({"mmd_noise": 5.0, "mmd": 0.0})
    text = components(results, compare(results), causes)
    claim, answers = _table(text)["noise"]
    assert claim == "depends" and answers[0] == "does not hold" and "holds" in answers[1:]
    assert "mmd_noise − mmd ([noise](causes.md#noise))" in text
    assert components({**results, "methods": [], "rows": []}, [], None) == ""
    with pytest.raises(UserError, match="causes.json has no `rows`"):
        report(results, {"row": []})


def test_a_claim_that_other_comparisons_leave_open_holds_in_part():
    """The unseen-constrained loss was once said to hold by one of four comparisons."""
    results, causes = _results({"pading_no_noise": -7.0}), _causes({"mmd_noise": 0.0, "mmd": 0.0})
    for row in causes["rows"]:
        swing = 9 * (-1) ** row["fold"] * row["trial"].endswith("mmd_noise")
        row["metrics"] = {key: value + swing for key, value in row["metrics"].items()}
    claim, answers = _table(components(results, compare(results), causes))["noise"]
    assert answers[0] == "holds" and "open" in answers[1:] and claim == "holds, in part"


def test_the_command_writes_the_experiments_page_again(tmp_path):
    results = _results({"pading": 7.0})
    write_json(tmp_path / "results.json", results)
    text = report_version_2(tmp_path, tmp_path / "to")
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["report.md"] and "causes.md" not in text
    about = {"world": "test", "folds": list(FOLDS), "seeds": [1], "budget": "smoke", "images": 9, "chosen": {}}
    write_json(tmp_path / "causes.json", about | _causes({"mmd_noise": 5.0, "mmd": 0.0}))
    text = report_version_2(tmp_path, tmp_path / "to")
    page = (tmp_path / "to" / "causes.md").read_text()
    assert text == (tmp_path / "to" / "report.md").read_text() and "causes.md#noise" in text
    assert "## noise" in page and "| mmd_noise | " in page
    assert "Not run. The rows are d2zero,d2zero_no_image_background" not in page, "results.json has D2Zero's rows"


def test_every_component_is_compared_by_something_that_exists():
    folder = CAUSES.parent / "whole"
    methods, experiments = discover([folder]), {one.name: one for one in read_causes()}
    for one in COMPONENTS:
        assert one.pairs or one.experiments
        for upper, lower in one.pairs:
            above, below = methods[upper], methods[lower]
            assert below.ablates == upper or above.extends == lower or lower in above.expected_above
        for name in one.experiments:
            assert any(part.claim for part in experiments[name].expectations), name
