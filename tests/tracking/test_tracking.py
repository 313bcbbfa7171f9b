"""Tracking: services get what metrics.json has, and whatever a service does, the training is the same and ends."""

import json
import time

import pytest
import torch

from PADing.errors import UserError
from PADing.tracking import process as process_module
from PADing.tracking.process import TrackingProcess
from PADing.tracking.writer import SERVICES, tracking_problems
from tests.engine.test_trainer import run, weights
from tests.engine.tiny import config
from tests.tracking.fake import install

FAST = ["TRACKING_RUN.TIMEOUT", 20.0]


@pytest.fixture
def calls(tmp_path, monkeypatch):
    return install(tmp_path, monkeypatch)


def track(folder, *services, opts=(), **kwargs):
    return run(config(folder, "TRACKING", services, *FAST, *opts), **kwargs)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_gets_config_scalars_and_end(tmp_path, calls, service):
    track(tmp_path / "my run", service)
    (lines) = [json.loads(line) for line in (tmp_path / "my run" / "metrics.json").read_text().splitlines()]
    sent = {}
    for args, _ in calls("log"):
        step = args[0].pop("iteration") if service == "wandb" else args[1]
        sent.setdefault(step, {}).update(args[0])
    assert sent.keys() == {line["iteration"] for line in lines}
    for line in lines:
        values = sent[line.pop("iteration")]
        assert values == line
    assert calls("finish") == [[["FINISHED"] if service == "mlflow" else [0], {}]]
    (start,) = calls("init")
    assert "my run" in start[1].values()
    if service == "wandb":
        assert start[1]["project"] == "pading" and start[1]["config"]["SOLVER.MAX_ITER"] == 8
    assert "the library prints this" in (tmp_path / "my run" / "tracking" / f"{service}.log").read_text()


def test_tracking_changes_no_number(tmp_path, calls):
    plain, tracked = run(config(tmp_path / "plain")), track(tmp_path / "tracked", *SERVICES)
    assert torch.equal(weights(plain), weights(tracked))
    timing = ("time", "data_time", "eta_seconds")
    first, second = (
        [{k: v for k, v in json.loads(line).items() if k not in timing} for line in open(tmp_path / n / "metrics.json")]
        for n in ("plain", "tracked")
    )
    assert first == second


@pytest.mark.parametrize("service", SERVICES)
def test_resume_continues_the_run_and_a_new_training_does_not(tmp_path, calls, service):
    track(tmp_path / "out", service, stop_before=5)
    assert calls("finish")[0][0] == {"wandb": [1], "mlflow": ["KILLED"], "trackio": [0]}[service]
    track(tmp_path / "out", service, resume=True)
    own = {"wandb": ("id", "run7"), "mlflow": ("run_id", "abc123"), "trackio": ("resume", "allow")}[service]
    fresh, again = (kwargs for _, kwargs in calls("init"))
    assert again[own[0]] == own[1] != fresh[own[0]]


@pytest.mark.parametrize("content", ["", "[]", '{"id": 5}', '{"id": "../../x"}', '{"id": ""}'])
def test_a_damaged_id_file_starts_a_new_run(tmp_path, calls, content, caplog):
    track(tmp_path / "out", "wandb", stop_before=5)
    (tmp_path / "out" / "tracking" / "wandb.json").write_text(content)
    track(tmp_path / "out", "wandb", resume=True)
    assert calls("init")[1][1]["id"] is None and "new run" in caplog.text


@pytest.mark.parametrize("call", ["init", "log", "finish"])
@pytest.mark.parametrize("failure", ["raise", "exit", "die", "hang"])
def test_no_failure_of_a_service_reaches_the_training(tmp_path, calls, call, failure, monkeypatch, caplog):
    monkeypatch.setenv(f"FAKE_{call.upper()}", failure)
    began = time.monotonic()
    trainer = track(tmp_path / "out", "wandb", opts=["TRACKING_RUN.TIMEOUT", 3.0])
    assert trainer.iter == 8 and (tmp_path / "out" / "model_final.pth").exists()
    assert time.monotonic() - began < 15
    warnings = [record.message for record in caplog.records if "Tracking with wandb" in record.message]
    if not (call == "finish" and failure == "die"):  # after everything was sent
        assert len(warnings) == 1
        expected = {"raise": f"no {call} today", "exit": "SystemExit: 3", "die": "status 9", "hang": "within 3 s"}
        assert expected[failure] in warnings[0]


def test_a_package_that_cannot_be_imported_is_a_warning(tmp_path, calls, caplog):
    (tmp_path / "packages" / "wandb.py").write_text("import no_such_module_at_all")
    assert track(tmp_path / "out", "wandb").iter == 8
    assert "No module named 'no_such_module_at_all'" in caplog.text


def test_a_hanging_service_costs_no_time_and_bounded_memory(tmp_path, calls, monkeypatch, caplog):
    monkeypatch.setenv("FAKE_LOG", "hang")
    monkeypatch.setattr(process_module, "MOST_WAITING", 50)
    tracker = TrackingProcess("wandb", tmp_path / "t", timeout=0.5)
    tracker.start({"project": "p", "name": "n", "offline": False, "config": {}}, resume=False)
    began = time.monotonic()
    for step in range(5000):
        tracker.send(do="scalars", step=step, values={"x" * 100: 1.0})
    assert time.monotonic() - began < 3 and len(tracker.waiting) <= 51
    assert caplog.text.count("too slow") == 1
    tracker.close(True)
    assert time.monotonic() - began < 6 and tracker.process is None


def test_mistakes_in_the_keys_are_found_before_the_start(tmp_path, monkeypatch):
    def problems(*names):
        return list(tracking_problems(config(tmp_path, "TRACKING", names)))

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert problems() == []
    assert "did you mean wandb?" in problems("wanbd")[0]
    assert "pip install mlflow-skinny" in problems("mlflow")[0]
    assert "once" in problems("trackio", "trackio")[-1]


def test_a_folder_that_wandb_has_written_is_not_its_package(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "wandb", raising=False)
    try:
        import wandb

        if getattr(wandb, "__file__", None):
            pytest.skip("the package is installed")
    except ImportError:
        pass
    assert "not installed" in list(tracking_problems(config(tmp_path, "TRACKING", ("wandb",))))[0]


def test_a_failing_drawing_is_one_warning(tmp_path, calls, caplog, monkeypatch):
    def fail(*args):
        raise UserError("no image")

    monkeypatch.setattr("PADing.tracking.hook.draw_predictions", fail)
    assert track(tmp_path / "out", "wandb").iter == 8
    assert caplog.text.count("Predictions cannot be drawn (UserError: no image)") == 1
