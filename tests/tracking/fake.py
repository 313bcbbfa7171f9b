"""Makes small packages that behave as wandb, mlflow and trackio, and write each call as a line of JSON."""

import json
import sys

COMMON = """
import json, os, time
def note(_call, *args, **kwargs):
    with open(os.environ["FAKE_CALLS"], "a") as file:
        file.write(json.dumps([_call, args, kwargs], default=str) + "\\n")
    print("the library prints this")
    what = os.environ.get("FAKE_" + _call.upper(), "")
    if what == "raise":
        raise RuntimeError(f"no {_call} today")
    if what == "exit":
        raise SystemExit(3)
    if what == "die":
        os._exit(9)
    if what == "hang":
        time.sleep(600)
"""
WANDB = (
    COMMON
    + """
class Settings(dict):
    def __init__(self, **values):
        super().__init__(values)
class Image:
    def __init__(self, path):
        self.path = path
    def __str__(self):
        return f"image {os.path.exists(self.path)}"
class Run:
    id, url = "run7", "https://example.org/run7"
    def define_metric(self, *args, **kwargs): note("define", *args, **kwargs)
    def log(self, values): note("log", values)
    def finish(self, exit_code): note("finish", exit_code)
def init(**kwargs):
    note("init", **kwargs)
    return Run()
"""
)
MLFLOW = (
    COMMON
    + """
from types import SimpleNamespace
def start_run(run_id=None, run_name=None):
    note("init", run_id=run_id, run_name=run_name)
    return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "abc123"))
def set_tracking_uri(uri): note("uri", uri)
def get_tracking_uri(): return "http://example.org"
def set_experiment(name): note("experiment", name)
def log_dict(content, name): note("config", len(content))
def log_params(values): note("params", len(values))
def log_metrics(values, step): note("log", values, step)
def log_artifact(path, artifact_path): note("image", os.path.exists(path), artifact_path)
def end_run(status): note("finish", status)
"""
)
TRACKIO = (
    COMMON
    + """
from types import SimpleNamespace
class Image:
    def __init__(self, path):
        self.path = path
def init(**kwargs):
    note("init", **kwargs)
    return SimpleNamespace(name=kwargs["name"])
def log(values, step): note("log", values, step)
def finish(): note("finish", 0)
"""
)
MODULES = {"wandb": WANDB, "mlflow": MLFLOW, "trackio": TRACKIO}


def install(folder, monkeypatch):
    """Put the packages on the path of this process and of those that it starts; returns a reader of their calls."""
    packages, calls = folder / "packages", folder / "calls"
    packages.mkdir()
    for name, code in MODULES.items():
        (packages / f"{name}.py").write_text(code)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.syspath_prepend(str(packages))
    monkeypatch.setenv("FAKE_CALLS", str(calls))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def read(call=""):
        lines = [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []
        return [line[1:] for line in lines if line[0] == call] if call else lines

    return read
