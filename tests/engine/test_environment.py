"""environment.json: enough to repeat a run, nothing secret, and never a reason not to train."""

import json
import shutil
import subprocess

import pytest

from PADing.engine import environment
from PADing.engine.environment import MOST_RUNS, record_run
from tests.engine.tiny import config


def runs(folder):
    return json.loads((folder / "environment.json").read_text())["runs"]


def test_each_run_is_recorded_and_a_new_training_starts_afresh(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train_net.py", "--resume"])
    cfg = config(tmp_path)
    record_run(cfg, "training", fresh=False)
    record_run(cfg, "resumed training", fresh=False)
    assert [run["run"] for run in runs(tmp_path)] == ["training", "resumed training"]
    (last,) = runs(tmp_path)[1:]
    assert last["command"] == ["train_net.py", "--resume"] and last["seed"] == 3 and last["device"] == "cpu"
    assert last["packages"]["torch"] and last["providers"].keys() == {"detectron2", "panopticapi"}
    record_run(cfg, "training", fresh=True)
    assert len(runs(tmp_path)) == 1


def test_only_named_variables_are_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "very-secret")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    record_run(config(tmp_path), "training", fresh=False)
    assert "very-secret" not in (tmp_path / "environment.json").read_text()
    assert runs(tmp_path)[0]["variables"]["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("content", ["{", "[]", '{"runs": 5}', ""])
def test_a_damaged_file_is_replaced(tmp_path, content):
    (tmp_path / "environment.json").write_text(content)
    record_run(config(tmp_path), "training", fresh=False)
    assert len(runs(tmp_path)) == 1


def test_the_file_does_not_grow_for_ever(tmp_path):
    (tmp_path / "environment.json").write_text(json.dumps({"runs": [{}] * 500}))
    record_run(config(tmp_path), "evaluation", fresh=False)
    assert len(runs(tmp_path)) == MOST_RUNS and runs(tmp_path)[-1]["run"] == "evaluation"


def test_without_git_the_commit_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    record_run(config(tmp_path), "training", fresh=False)
    assert runs(tmp_path)[0]["commit"] is None


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_the_commit_has_a_plus_when_the_code_differs_from_it(tmp_path, monkeypatch):
    def git(*words):
        settings = [word for text in ("user.name=a", "user.email=a@b", "commit.gpgsign=false") for word in ("-c", text)]
        command = ["git", "-C", tmp_path, *settings, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(environment, "PACKAGES", tmp_path)
    assert environment.commit() is None, "no checkout"
    (tmp_path / ".git").mkdir()
    assert environment.commit() is None, "a damaged one"
    git("init")
    (tmp_path / "code.py").write_text("1")
    git("add", "code.py")
    git("commit", "-m", "first")
    commit = git("rev-parse", "HEAD").strip()
    assert len(commit) == 40 and environment.commit() == commit
    (tmp_path / "untracked").write_text("results")
    assert environment.commit() == commit
    (tmp_path / "code.py").write_text("2")
    assert environment.commit() == commit + "+"
