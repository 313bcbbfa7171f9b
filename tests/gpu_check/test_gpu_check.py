"""The check of a GPU, tried where there is none: every step ends, whatever happens in it, and the report says so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from PADing.commands import gpu_check
from PADing.errors import UserError
from PADing.gpu_check import packages, run
from PADing.gpu_check.plan import Step, plan
from PADing.gpu_check.report import markdown

ROOT = Path(__file__).resolve().parents[2]
MACHINE = {"gpus": [], "torch": "2", "cuda": None, "cpus": 2, "python": "3", "capability": None, "load": [0.0, 0, 0]}


def _python(name: str, code: str, out: Path, limit: float = 60.0) -> Step:
    return Step(name, ["-c", code, str(out / f"{name}.json")], out / f"{name}.json", limit)


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """Run steps of one's own; returns what the check returns, and its report."""

    def run_steps(*made: Step, seconds: float = 60.0, overwrite: bool = False):
        monkeypatch.setattr(run, "_machine", lambda variables: MACHINE)
        monkeypatch.setattr(run, "data_step", lambda out, gpu: made[0])
        monkeypatch.setattr(run, "plan", lambda names, out, gpu: list(made[1:]))
        failed = run.run_all(tmp_path / "out", [], seconds, None, True, overwrite)
        return failed, json.loads((tmp_path / "out" / "gpu_check.json").read_text())["steps"]

    return run_steps


GOOD = "import sys; open(sys.argv[1], 'w').write('{}')"


def test_a_step_that_hangs_crashes_or_dies_costs_only_itself(steps, tmp_path):
    out = tmp_path / "out"
    failed, rows = steps(
        _python("good", GOOD, out),
        _python("hangs", "import time; time.sleep(60)", out, limit=1.0),
        _python("crashes", "raise SystemExit('out of order')", out),
        _python("dies", "import os; os.kill(os.getpid(), 9)", out),
        _python("writes nothing", "pass", out),
        Step("needs a GPU", [], out / "none", 1.0, reason="it needs a GPU"),
        _python("last", GOOD, out),
    )
    assert failed
    assert {name: row["status"] for name, row in rows.items()} == {
        "good": "ok", "hangs": "stopped", "crashes": "failed", "dies": "failed", "writes nothing": "failed",
        "needs a GPU": "skipped", "last": "ok",
    }  # fmt: skip
    assert "out of order" in rows["crashes"]["output"] and "-9" in rows["dies"]["reason"]
    text = (out / "gpu_check.md").read_text()
    assert "| hangs | stopped |" in text and "it needs a GPU" in text


def test_no_step_starts_after_the_time(steps, tmp_path):
    out = tmp_path / "out"
    slow = "import sys, time; time.sleep(1.5); open(sys.argv[1], 'w').write('{}')"
    failed, rows = steps(_python("slow", slow, out), _python("late", GOOD, out), seconds=2.0)
    assert not failed and rows["slow"]["status"] == "ok" and rows["late"]["status"] == "not run"


def test_a_folder_with_other_files_is_left_alone(steps, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="has other files"):
        steps(_python("good", GOOD, tmp_path / "out"))
    assert (tmp_path / "out" / "thesis.tex").is_file()


def test_earlier_results_are_kept_unless_told_otherwise(steps, tmp_path):
    good = _python("good", GOOD, tmp_path / "out")
    steps(good)
    before = (tmp_path / "out" / "gpu_check.json").read_text()
    with pytest.raises(UserError, match="has the results of an earlier check"):
        steps(good)
    assert (tmp_path / "out" / "gpu_check.json").read_text() == before
    assert steps(good, overwrite=True)[1]["good"]["status"] == "ok"


def test_the_plan_for_a_gpu_and_for_the_cpu(tmp_path):
    for gpu in (True, False):
        made = plan(gpu_check.STEPS, tmp_path, gpu)
        assert [step.name for step in made] == list(gpu_check.STEPS)
        for step in made:
            script = step.command[0]
            assert script == "-m" or (ROOT / script).is_file()
        requests = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("*.request.json")}
        assert {"PADing.request.json", "D2Zero.request.json", "full.request.json"} <= set(requests)
        for request in requests.values():
            assert (ROOT / request["config_file"]).is_file()
            assert ("cuda" in request["opts"]) == gpu
    assert "cpu" not in json.dumps(plan(["operator"], tmp_path, True)[0].command)


def test_the_report_shows_each_variant_and_its_errors():
    rows = {
        "float32": {"losses": [3.0, 2.0], "ms": 100.0, "images_per_second": 40.0, "peak_mb": 900, "synchronisations": 2,
                    "synchronisations_by_place": {"modeling/matcher.py:12": 2}},
        "float16": {"error": "RuntimeError: no kernel"},
    }  # fmt: skip
    steps = {"full": {"status": "failed", "seconds": 3.0, "result": {"variants": rows}}}
    text = markdown({"machine": {**MACHINE, "gpus": ["H200"]}, "device": "cuda", "steps": steps})
    assert text.startswith("## H200") and "| float32 | 3 | 2 | 40 | 100 | 900 | 2 |" in text
    assert "float16 failed: RuntimeError: no kernel" in text and "waits 2 times at modeling/matcher.py:12" in text


def test_missing_packages_are_named_and_taken_from_wheels(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "NEEDED", {"torch": "torch", "no_such_module": "No-Such-Package"})
    with pytest.raises(UserError, match=r"Packages are missing: No-Such-Package\. .* add --wheels"):
        packages.environment(None, tmp_path / "packages")
    with pytest.raises(UserError, match="is not a folder"):
        packages.environment(tmp_path / "none", tmp_path / "packages")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    _write_wheel(wheels)
    variables = packages.environment(wheels, tmp_path / "packages")
    code = "import no_such_module, PADing, detectron2, d2lite; print(no_such_module.__file__)"
    result = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert result.stdout.strip().startswith(str(tmp_path / "packages")), result.stderr


def _write_wheel(folder: Path) -> None:
    import zipfile

    info = "no_such_package-1.dist-info"
    with zipfile.ZipFile(folder / "no_such_package-1-py3-none-any.whl", "w") as file:
        file.writestr("no_such_module.py", "")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: No-Such-Package\nVersion: 1\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


def test_a_damaged_wheel_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "NEEDED", {"no_such_module": "No-Such-Package"})
    (tmp_path / "no_such_package-1-py3-none-any.whl").write_bytes(b"torn")
    with pytest.raises(UserError, match="could not be installed"):
        packages.environment(tmp_path, tmp_path / "packages")


@pytest.mark.parametrize("words", [["--minutes", "0"], ["--minutes", "nan"], ["--steps", "everything"]])
def test_wrong_arguments(words, capsys):
    with pytest.raises(SystemExit) as end:
        gpu_check.main(words)
    assert end.value.code == 2 and words[1] in capsys.readouterr().err


def test_the_command_on_the_cpu(tmp_path):
    """Build, parity and a process group, as a user starts it."""
    command = [sys.executable, "tools/gpu_check.py", "--cpu", "--output", str(tmp_path / "out")]
    result = subprocess.run(
        [*command, "--steps", "build", "parity", "nccl", "sanitizer"],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    steps = json.loads((tmp_path / "out" / "gpu_check.json").read_text())["steps"]
    assert steps["sanitizer"]["status"] == "skipped" and steps["parity"]["status"] == "ok"
    assert len(steps["parity"]["result"]["rows"]) == 36


@pytest.mark.slow
def test_the_trainings_on_the_cpu(tmp_path):
    command = [sys.executable, "tools/gpu_check.py", "--cpu", "--output", str(tmp_path / "out"), "--minutes", "20"]
    names = ["pretraining", "PADing", "D2Zero", "full"]
    result = subprocess.run([*command, "--steps", *names], cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert result.returncode == 0, result.stdout + result.stderr
    steps = json.loads((tmp_path / "out" / "gpu_check.json").read_text())["steps"]
    for name in names:
        for row in steps[name]["result"]["variants"].values():
            assert len(row["losses"]) == 2 and all(loss > 0 for loss in row["losses"])
