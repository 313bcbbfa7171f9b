"""Seeds of several runs may be pooled only if nothing but the seed differs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from minibench.bench import OTHER, RESULTS, read_bench
from minibench.methods import Method, discover
from minibench.pool import pool
from minibench.results import write_results
from minibench.settings import make_settings
from PADing.errors import UserError
from tests.minibench.benchmark_folder import finished_run


@pytest.fixture(scope="module")
def methods() -> dict[str, Method]:
    return {name: m for name, m in discover().items() if name in ("baseline", "pading")}


@pytest.fixture(scope="module")
def folders(tmp_path_factory, methods) -> list[Path]:
    """Two benchmarks, with seeds 1 and 2 and with seeds 2 and 3."""
    folders = []
    for seeds in ((1, 2), (2, 3)):
        out, settings = tmp_path_factory.mktemp("benchmark"), make_settings(seeds=seeds)
        for name in methods:
            for seed in seeds:
                finished_run(out, methods, name, settings, seed, 10.0 * seed)
        write_results(out, methods, settings)
        folders.append(out)
    return folders


def _content(path: Path) -> dict:
    return json.loads(path.read_text())


def test_seeds_with_equal_settings_are_joined_and_count_once(folders, methods, tmp_path):
    told = pool([folder / RESULTS for folder in folders], methods, tmp_path)
    bench = read_bench(tmp_path)
    assert {m: [r.seed for r in bench.runs_of(m)] for m in methods} == dict.fromkeys(methods, [1, 2, 3])
    assert bench.seeds == (1, 2, 3) and set(bench.data["folders"]) == {"1", "2", "3"}
    assert "2 are there twice, with metrics that differ by at most 0 points" in told
    assert not (tmp_path / OTHER).exists()
    assert bench.method("pading").hyperparameters["SOLVER.GENERATOR_LR"] == 0.001


def test_another_hyperparameter_goes_to_another_file(folders, methods, tmp_path):
    """The first benchmark, if PADing had been run with what is now another setting."""
    changed = {**methods, "pading": _with_other_weight(methods["pading"])}
    told = pool([folder / RESULTS for folder in folders], changed, tmp_path)
    assert "3 runs with the present settings" in told and "3 with others" in told
    assert {run.method.name for run in read_bench(tmp_path).runs} == {"baseline"}
    other = read_bench(tmp_path, OTHER)
    assert [(run.method.name, run.seed) for run in other.runs] == [("pading", seed) for seed in (1, 2, 3)]
    # Pooled again, the present methods find theirs among both.
    pool([tmp_path / RESULTS, tmp_path / OTHER], methods, tmp_path)
    assert len(read_bench(tmp_path).runs) == 6 and not (tmp_path / OTHER).exists()


def _with_other_weight(method: Method) -> Method:
    return replace(method, overrides={"MODEL.MASK_FORMER.CLASS_ECO": 3.0})


def test_metrics_by_class_of_a_repeated_run_are_added_only_if_all_metrics_are_equal(folders, methods, tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    content = _content(folders[0] / RESULTS)
    assert all(entry["classes"] for entry in content["runs"])
    without = json.loads(json.dumps(content))
    for entry in without["runs"]:
        del entry["classes"]
    without["runs"][0]["results"]["mini_val_panoptic"]["panoptic_seg"]["PQ_hm"] += 0.25
    first.write_text(json.dumps(without))
    second.write_text(json.dumps(content))
    told = pool([first, second], methods, tmp_path / "out")
    has = [bool(entry.get("classes")) for entry in _content(tmp_path / "out" / RESULTS)["runs"]]
    assert has == [False, True, True, True] and "at most 0.25 points" in told


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: c.update(split="hard"), "its split is hard, not compositional. Pool them apart"),
        (lambda c: c["data"].update(noise=0.3), "its noise is 0.3, not 0.15"),
        (lambda c: c["data"]["checksum"].update({"2": "ff"}), "its checksum of seed 2 is ff"),
        (lambda c: c.update(version=2), "version 2; this program reads version 1. Update"),
        (lambda c: c.pop("runs"), "not what the mini benchmark writes"),
    ],
)
def test_files_that_do_not_fit_are_refused(folders, methods, tmp_path, change, complaint):
    content = _content(folders[1] / RESULTS)
    change(content)
    (tmp_path / "second.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=complaint):
        pool([folders[0] / RESULTS, tmp_path / "second.json"], methods, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [{"budget": "huge"}, {"data": {"size": "128"}}, {"data": {"noise": None}}])
def test_settings_that_no_benchmark_has_are_refused(folders, methods, tmp_path, change):
    content = _content(folders[0] / RESULTS)
    data = content["data"] | change.get("data", {})
    (tmp_path / "first.json").write_text(json.dumps({**content, **change, "data": data}))
    with pytest.raises(UserError, match=r"first.json has a split, budget or size that no benchmark has"):
        pool([tmp_path / "first.json"], methods, tmp_path / "out")


def test_results_that_are_there_are_not_overwritten(folders, methods, tmp_path):
    shutil.copy(folders[1] / RESULTS, tmp_path / RESULTS)
    with pytest.raises(UserError, match="Add it to the files that are pooled"):
        pool([folders[0] / RESULTS], methods, tmp_path)
    pool([folders[0] / RESULTS, tmp_path / RESULTS], methods, tmp_path)
    assert read_bench(tmp_path).seeds == (1, 2, 3)
