"""Commands of version 2 in the wrong folder, with wrong arguments, or on damaged files: one message, nothing lost."""

import json

import pytest

from minibench.__main__ import cli
from minibench.folds.plan import Plan
from minibench.folds.planted import main as planted
from minibench.folds.rows import collect
from minibench.folds.settings import make_settings, write_settings
from minibench.folds.worker import Work
from minibench.methods import discover
from PADing.errors import UserError


@pytest.fixture
def ends(monkeypatch):
    """Fail if a command begins to train."""

    def begin(*_):
        raise AssertionError("a step was begun")

    monkeypatch.setattr("minibench.folds.command.run_steps", begin)
    monkeypatch.setattr("minibench.folds.tune.run_steps", begin)


def _refused(capsys, *arguments) -> str:
    assert cli(list(map(str, arguments))) == 2
    return capsys.readouterr().err


def _benchmark(out, **settings):
    out.mkdir(exist_ok=True)
    write_settings(out, make_settings(**settings), methods=["pading"], plugins=[])
    return out


def test_results_of_other_settings_are_not_replaced(tmp_path, capsys, ends):
    """A trial run with the default --output would replace hours of work."""
    out = _benchmark(tmp_path / "out")
    content = json.dumps({"version": 2, "world": "test", "track": "clip", "budget": "standard"})
    (out / "results.json").write_text(content)
    for flag, value in (("budget", "smoke"), ("track", "easy"), ("world", "tuning")):
        told = _refused(capsys, "run", "--version", 2, "--output", out, f"--{flag}", value)
        assert f"with {value} would replace" in told and "Choose another --output" in told
    assert "with smoke would replace" in _refused(capsys, "warm-start", "--output", out, "--budget", "smoke")
    assert "has results of `minibench run`" in _refused(capsys, "tune", "--version", 2, "--output", out)
    assert (out / "results.json").read_text() == content
    assert json.loads((out / "settings.json").read_text())["budget"] == "standard"
    with pytest.raises(AssertionError, match="begun"):
        cli(["run", "--version", "2", "--output", str(out), "--methods", "conse"])


def test_tuning_does_not_take_the_folder_of_a_benchmark_that_has_no_results_yet(tmp_path, capsys, ends):
    out = _benchmark(tmp_path / "out")
    assert "has results of `minibench run`" in _refused(capsys, "tune", "--version", 2, "--output", out)


def test_a_warm_start_leaves_the_settings_of_a_benchmark(tmp_path, ends):
    out = _benchmark(tmp_path / "out", folds=[2])
    before = (out / "settings.json").read_text()
    with pytest.raises(AssertionError, match="begun"):
        cli(["warm-start", "--output", str(out)])
    assert (out / "settings.json").read_text() == before


def test_cause_experiments_only_read_the_benchmark(tmp_path, capsys):
    run, other = _benchmark(tmp_path / "run"), _benchmark(tmp_path / "other")
    (tmp_path / "link").symlink_to(run)
    assert "only read" in _refused(capsys, "causes", run, "--output", tmp_path / "link")
    assert "a benchmark of its own" in _refused(capsys, "causes", run, "--output", other)
    assert "Seeds are numbers" in _refused(capsys, "causes", run, "--seed-list", "0", "--output", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_damaged_row_is_named(tmp_path):
    plan = Plan(discover(), ["conse"], make_settings(folds=[1], seeds=[1]), tmp_path)
    (row,) = plan.rows(1)
    row.file.parent.mkdir()
    for text in ("{", json.dumps({"method": "conse", "fold": 1, "seed": 0, "hash": row.hash, "results": 3})):
        row.file.write_text(text)
        with pytest.raises(UserError, match="is damaged. Delete it and run the same command again"):
            collect(plan)
    row.file.write_text(json.dumps({"method": "conse", "fold": 1, "seed": 0, "hash": "of other settings"}))
    assert collect(plan)["rows"] == []


def test_a_step_without_its_method_is_refused(tmp_path):
    with pytest.raises(UserError, match="'' trains no whole network here. These do: none"):
        Work(_benchmark(tmp_path / "out")).whole(1, "")


@pytest.mark.parametrize("effect", ["0", "-3", "nan", "inf", "seven"])
def test_an_effect_is_a_number_above_zero(effect, capsys):
    with pytest.raises(SystemExit):
        planted(["results.json", f"--effect={effect}"])
    assert "must be a number above 0" in capsys.readouterr().err
