"""The real packages of the services, offline: what they store is what metrics.json has. Without a package, skipped.

The other tests use small packages that behave as these, for what a service may do wrong.
"""

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.test_trainer import run
from tests.engine.tiny import config

REPOSITORY = Path(__file__).resolve().parents[2]
SLOW_MACHINE = ["TRACKING_RUN.TIMEOUT", 120.0]


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No account, server or setting of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def package(name):
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        pytest.skip(f"{name} is not installed")


def train(folder, service, **kwargs):
    """What metrics.json has: iteration -> name -> value."""
    run(config(folder, "TRACKING", (service,), "TRACKING_RUN.OFFLINE", True, *SLOW_MACHINE), **kwargs)
    log = folder / "tracking" / f"{service}.log"
    assert (folder / "tracking" / f"{service}.json").is_file(), log.read_text()
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return {line.pop("iteration"): line for line in lines}


def in_a_process(code: str, *words) -> str:
    """The package in a process of its own, because it may start threads and change global state."""
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


WANDB_RECORDS = """
import glob, json, struct, sys
from wandb.proto.wandb_internal_pb2 import Record

def records(data):
    # LevelDB's log: a header of 7 bytes; blocks of 32 KiB with pieces of records: checksum, length, kind, bytes.
    place, record = 7, b""
    while place + 7 <= len(data):
        left = 2**15 - place % 2**15
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""

rows, configs = [], {}
for path in sorted(glob.glob(sys.argv[1] + "/wandb/offline-run-*/*.wandb")):
    for data in records(open(path, "rb").read()):
        record = Record()
        record.ParseFromString(data)
        if record.HasField("history"):
            rows.append({".".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item})
        for item in record.run.config.update:
            configs[item.key] = json.loads(item.value_json)
print(json.dumps([rows, configs]))
"""


def test_wandb_stores_scalars_and_config(tmp_path, offline):
    package("wandb")
    wanted = train(tmp_path / "out", "wandb")
    rows, configs = json.loads(in_a_process(WANDB_RECORDS, tmp_path / "out" / "tracking"))
    stored = {}
    for row in rows:
        stored.setdefault(row["iteration"], {}).update(row)
    for iteration, values in wanted.items():
        for name, value in values.items():
            assert stored[iteration][name] == pytest.approx(value), (iteration, name)
    assert configs["SOLVER.MAX_ITER"] == 8


MLFLOW_RUNS = """
import json, sys
from mlflow.tracking import MlflowClient
client = MlflowClient(sys.argv[1])
(experiment,) = [one for one in client.search_experiments() if one.name == "pading"]
found = []
for run in client.search_runs([experiment.experiment_id]):
    history = {name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
               for name in run.data.metrics}
    found.append([run.info.run_id, run.info.status, run.data.params, history])
print(json.dumps(found))
"""


def test_mlflow_stores_one_run_of_a_stopped_and_resumed_training(tmp_path, offline, monkeypatch):
    package("mlflow")
    folder = tmp_path / "out"
    train(folder, "mlflow", stop_before=5)
    wanted = train(folder, "mlflow", resume=True)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    found = json.loads(in_a_process(MLFLOW_RUNS, (folder / "tracking" / "mlruns").absolute().as_uri()))
    ((number, status, parameters, history),) = found
    assert number == json.loads((folder / "tracking" / "mlflow.json").read_text())["id"]
    assert status == "FINISHED" and parameters["SOLVER.MAX_ITER"] == "8"
    last = max(wanted)
    for name, value in wanted[last].items():
        steps = dict(map(tuple, history[name.replace("@", "_")]))
        assert steps[last] == pytest.approx(value), name


def test_trackio_stores_scalars(tmp_path, offline):
    package("trackio")
    wanted = train(tmp_path / "out", "trackio")
    (file,) = (tmp_path / "out" / "tracking" / "trackio").glob("pading*.db")
    with sqlite3.connect(file) as database:
        rows = database.execute("SELECT step, metrics FROM metrics ORDER BY id").fetchall()
    stored = {}
    for step, metrics in rows:
        stored.setdefault(step, {}).update(json.loads(metrics))
        stored[step]["time"] = stored[step].pop("__time", None)  # a name that Trackio uses itself
    for iteration, values in wanted.items():
        for name, value in values.items():
            assert stored[iteration][name] == pytest.approx(value), (iteration, name)


@pytest.mark.parametrize("service", ["wandb", "mlflow"])
def test_a_fast_dev_run_tracks_a_run_with_drawings(tmp_path, offline, service, monkeypatch):
    """The whole command, on drawn images: the trial shows whether tracking works, too."""
    package(service)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    from PADing.data.mini_files import make_mini_coco

    make_mini_coco(tmp_path / "data" / "mini", train=4, val=2, size=64, seed=3)
    small = "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES 4 MODEL.MASK_FORMER.DEC_LAYERS 2 MODEL.MASK_FORMER.HIDDEN_DIM 32"
    small += " MODEL.MASK_FORMER.DIM_FEEDFORWARD 32 MODEL.SEM_SEG_HEAD.CONVS_DIM 32 MODEL.SEM_SEG_HEAD.MASK_DIM 32"
    small += " MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS 1 INPUT.IMAGE_SIZE 64 SOLVER.IMS_PER_BATCH 2"
    command = [sys.executable, str(REPOSITORY / "train_net_pretrain.py"), "--num-gpus", "0", "--fast-dev-run"]
    command += ["--config-file", str(REPOSITORY / "configs" / "mini" / "panoptic-pretrain.yaml"), *small.split()]
    command += ["OUTPUT_DIR", str(tmp_path / "try"), "TRACKING", f"('{service}',)", "TRACKING_RUN.OFFLINE", "True"]
    done = subprocess.run(
        [*command, "DATALOADER.NUM_WORKERS", "0", *map(str, SLOW_MACHINE)], cwd=tmp_path, capture_output=True,
        text=True, timeout=300, env={**os.environ, "PADING_MSDA_BACKEND": "pytorch", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"of {service}: files in" in done.stdout and f"Tracking with {service}" not in done.stdout
    folder = tmp_path / "try_fast_dev_run" / "tracking"
    drawn = {path.read_bytes() for path in (folder / "images").iterdir()}
    pattern = "wandb/offline-run-*/files/media/images/**/*.png" if service == "wandb" else "mlruns/**/predictions/*.png"
    assert drawn and drawn == {path.read_bytes() for path in folder.glob(pattern)}
