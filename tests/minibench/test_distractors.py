"""Distractors in a benchmark: every run once, in one file that takes further methods, and in the report."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from minibench import distractor_runs
from minibench.__main__ import cli
from minibench.distractor_runs import evaluate_runs, read_distractors, write_distractors
from minibench.report.distractors import distractor_section
from minibench.report.pages import to_markdown
from minibench.report.write import write_report
from PADing.errors import UserError
from tests.minibench.benchmark_folder import METRICS_OF, method, run, write_results

REPOSITORY = Path(__file__).resolve().parents[2]
TASKS = ("panoptic_seg", "sem_seg", "segm")
METHODS = [
    method("baseline", title="Mask2Former"),
    method("pading", title="PADing"),
    method("pading_no_noise", title="PADing without noise", ablates="pading"),
    method("d2zero", task="instance", title="D2Zero"),
]


def metrics(value: float, tasks=TASKS) -> dict:
    return {task: dict(zip(METRICS_OF[task], (value, value / 2, value / 4), strict=True)) for task in tasks}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A benchmark with two seeds; an evaluation is an invented one, which is noted in ``folder.asked``."""
    runs = [run(name, seed, dict.fromkeys(TASKS, (60.0 + seed, 20.0, 30.0))) for name in ("pading", "pading_no_noise")
            for seed in (1, 2)]  # fmt: skip
    runs.append(run("d2zero", 1, {"segm": (70.0, 40.0, 51.0)}))
    content = write_results(tmp_path / "benchmark", METHODS, runs)
    results = json.loads((content / "results.json").read_text())
    results["data"]["folders"]["2"] = "data/two"
    (content / "results.json").write_text(json.dumps(results))
    asked = []

    def evaluate(run, data, numbers, max_images):
        asked.append((run.name, data.relative_to(content).as_posix(), tuple(numbers), max_images))
        tasks = ("segm",) if "d2zero" in run.name else TASKS
        return {str(number): metrics(float(number) / 10, tasks) for number in numbers}

    monkeypatch.setattr(distractor_runs, "evaluate_with_distractors", evaluate)
    monkeypatch.setattr(distractor_runs, "_takes_names", lambda run: run.method.name != "baseline")
    return content, asked


def test_main_methods_are_evaluated_once_with_the_data_of_their_seed(folder):
    out, asked = folder
    lines = list(evaluate_runs(out, None, (0, 100), 0, overwrite=False))
    assert lines[0] == "pading-seed1: 0, 100 distractors" and len(lines) == 3
    assert [(name, numbers) for name, _, numbers, _ in asked] == [
        ("pading-seed1-0123456789", (100,)),  # 0: as at the end of the training
        ("pading-seed2-0123456789", (100,)),
        ("d2zero-seed1-0123456789", (100,)),
    ]
    assert asked[1][1] == "data/two"
    entry = read_distractors(out)[1]
    assert (entry["method"], entry["seed"], entry["hash"], entry["images"]) == ("pading", 2, "0123456789", 0)
    assert entry["numbers"]["0"]["segm"]["AP50_seen"] == 62.0 and entry["numbers"]["100"] == metrics(10.0)
    asked.clear()
    assert list(evaluate_runs(out, None, (0, 100), 0, False))[0].endswith("(done before)") and not asked
    list(evaluate_runs(out, ["pading"], (0, 100, 7), 0, False))
    assert [numbers for _, _, numbers, _ in asked] == [(7,), (7,)]
    assert list(read_distractors(out)[0]["numbers"]) == ["0", "7", "100"]


def test_other_images_another_hash_and_overwrite_evaluate_again(folder):
    out, asked = folder
    list(evaluate_runs(out, ["d2zero"], (0, 5), 20, False))
    assert asked == [("d2zero-seed1-0123456789", "data/v1-compositional-seed1-2-6-64px-noise0.15", (0, 5), 20)]
    list(evaluate_runs(out, ["d2zero"], (5,), 0, False))
    assert read_distractors(out)[0]["images"] == 0 and len(asked) == 2
    list(evaluate_runs(out, ["d2zero"], (5,), 0, overwrite=True))
    assert len(asked) == 3
    (entry,) = read_distractors(out)
    write_distractors(out, [{**entry, "hash": "another"}])
    list(evaluate_runs(out, ["d2zero"], (5,), 0, False))
    assert len(asked) == 4 and len(read_distractors(out)) == 1


def test_the_report_has_means_and_takes_methods_of_elsewhere(folder):
    out, _ = folder
    list(evaluate_runs(out, None, (0, 1000), 0, False))
    foreign = {"method": "clip", "title": "Frozen CLIP", "seed": 9, "hash": "x", "images": 30}
    write_distractors(out, [*read_distractors(out), {**foreign, "numbers": {"1000": metrics(44.0, ("segm",))}}])
    page = to_markdown("Page", [distractor_section(out)])
    assert (
        "| 0 | 61.5 ± 0.7 | 20.0 ± 0.0 | 30.0 ± 0.0 | 30.0 ± 0.0 | 61.5 ± 0.7 | 20.0 ± 0.0 | 30.0 ± 0.0 | 2 |" in page
    )
    assert "| 1,000 | – | – | – | – | 44.0 | 22.0 | 11.0 | 1 |" in page and "**Frozen CLIP**" in page
    assert "Seeds 1, 2, 9, evaluated on all or the first 30 validation images" in page
    write_report(out)
    for name in ("report.md", "index.html"):
        assert "Names that no image shows" in (out / "report" / name).read_text()
    (out / "distractors.json").unlink()
    assert distractor_section(out) is None
    write_report(out)
    assert "Names that no image shows" not in (out / "report" / "report.md").read_text()


@pytest.mark.parametrize("config, takes", [("panoptic-pretrain", False), ("panoptic-PADing", True), ("d2zero", True)])
def test_only_models_that_take_names_are_evaluated_by_default(tmp_path, config, takes):
    (tmp_path / "config.yaml").write_text(f"_BASE_: {REPOSITORY}/configs/mini/{config}.yaml\n")
    assert distractor_runs._takes_names(SimpleNamespace(folder=tmp_path)) == takes


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 2, "runs": []}', '{"version": 1, "runs": [{"method": "a"}]}'])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / "distractors.json").write_text(text)
    with pytest.raises(UserError, match=r"distractors\.json"):
        read_distractors(tmp_path)


def test_mistakes_of_the_command_are_answered(folder, tmp_path, capsys):
    out, asked = folder
    for arguments, said in (
        ([str(out), "--methods", "padding"], "has no runs of padding. It has those of baseline, d2zero, pading"),
        ([str(out), "--data", str(out)], "Leave --data out"),
        ([str(tmp_path)], "name its folder and --data"),
        ([str(tmp_path / "lost")], "name its folder and --data"),
    ):
        assert cli(["distractors", *arguments]) == 2 and said in capsys.readouterr().err
    assert not asked
    for numbers in ("-1", "1501", "ten", ""):
        with pytest.raises(SystemExit):
            cli(["distractors", str(out), "--numbers", numbers])
    assert cli(["distractors", str(out), "--methods", "d2zero"]) == 0
    assert "d2zero-seed1: 0, 100, 1000 distractors" in capsys.readouterr().out
