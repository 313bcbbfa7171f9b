"""Registries, processes, seeds, memory and paths: if these fail, programs written for Detectron2 do not run."""

import json
import random

import detectron2
import numpy as np
import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng
from detectron2.utils.file_io import PathManager
from detectron2.utils.memory import retry_if_cuda_oom
from detectron2.utils.registry import Registry

from tests.d2lite.standin import standin_only


def test_registry():
    registry = Registry("THING")

    @registry.register()
    class A:
        pass

    assert registry.get("A") is A and "A" in registry and [name for name, _ in registry] == ["A"]
    with pytest.raises(KeyError, match="THING"):
        registry.get("B")
    with pytest.raises(AssertionError):
        registry.register(A)


# --- processes, seeds, memory, paths ----------------------------------------------------------------------------------


def test_a_single_process_needs_no_group():
    assert (comm.get_world_size(), comm.get_rank(), comm.get_local_rank(), comm.get_local_size()) == (1, 0, 0, 1)
    assert comm.is_main_process()
    comm.synchronize()
    losses = {"a": torch.tensor(1.0)}
    assert comm.all_gather("x") == ["x"] and comm.gather("x") == ["x"] and comm.reduce_dict(losses) is losses
    np.random.seed(4)
    expected = np.random.randint(2**31)
    np.random.seed(4)
    assert comm.shared_random_seed() == expected


TWO_PROCESSES = """
import json, sys
from datetime import timedelta
import numpy as np, torch
from detectron2.engine import launch
from detectron2.utils import comm

def main(folder):
    rank = comm.get_rank()
    np.random.seed(rank)
    result = {
        "size": comm.get_world_size(), "local": [comm.get_local_rank(), comm.get_local_size()],
        "main": comm.is_main_process(),
        "all_gather": comm.all_gather({"rank": rank}), "gather": comm.gather("x" * rank, dst=0),
        "seed": comm.shared_random_seed(),
        "waits": comm.get_local_process_group()._get_backend(torch.device("cpu")).options._timeout.total_seconds(),
        "reduced": float(comm.reduce_dict({"a": torch.tensor(float(rank + 1))})["a"]),
    }
    comm.synchronize()
    with open(f"{folder}/{rank}.json", "w") as file:
        json.dump(result, file)

if __name__ == "__main__":
    launch(main, num_gpus_per_machine=2, dist_url="auto", args=(sys.argv[1],), timeout=timedelta(hours=5))
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="launch would use GPUs; this is about CPU processes")
def test_two_processes_talk_over_gloo(run_script, tmp_path):
    run_script(TWO_PROCESSES, str(tmp_path))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["size"] == second["size"] == 2
    assert first["local"] == [0, 2] and second["local"] == [1, 2]
    assert first["main"] and not second["main"]
    assert first["all_gather"] == second["all_gather"] == [{"rank": 0}, {"rank": 1}]
    assert first["gather"] == ["", "x"] and second["gather"] == []
    np.random.seed(0)
    assert first["seed"] == second["seed"] == np.random.randint(2**31)
    assert first["reduced"] == 1.5
    if hasattr(detectron2, "__standin__"):  # the genuine package makes some groups with PyTorch's own patience
        # All groups wait as long as the job was told to: one that gives up earlier ends the whole job.
        assert first["waits"] == second["waits"] == 5 * 3600


@pytest.mark.parametrize("seed", [2**32, -1])
def test_a_seed_that_numpy_cannot_take_is_refused(seed):
    """The genuine package refuses it; half seeded, a run could not be repeated."""
    seed_all_rng(5)
    expected = random.random(), float(np.random.rand()), float(torch.rand(()))
    seed_all_rng(5)
    with pytest.raises(ValueError, match="2\\*\\*32"):
        seed_all_rng(seed)
    assert (random.random(), float(np.random.rand()), float(torch.rand(()))) == expected
    seed_all_rng(2**32 - 1)


@standin_only  # the genuine package fails
def test_what_cannot_be_found_out_about_the_machine_is_called_unknown(monkeypatch):
    """The table is written at the start of every training; it must never be the end of one."""

    def broken(*args):
        raise RuntimeError("no such driver")

    monkeypatch.setattr(torch.cuda, "is_available", broken)
    monkeypatch.setattr("importlib.metadata.version", broken)
    report = collect_env_info()
    assert report.count("no such driver") >= 4 and torch.__version__ in report


def test_seeding_covers_all_generators():
    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_all_rng(5)
    first = draw()
    seed_all_rng(5)
    assert draw() == first
    seed_all_rng()
    assert draw() != first


def test_out_of_memory_is_retried_and_other_errors_are_not():
    calls = []

    @retry_if_cuda_oom
    def fails_twice(x):
        calls.append(x)
        if len(calls) < 3:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return x + 1

    assert fails_twice(1) == 2 and len(calls) == 3

    @retry_if_cuda_oom
    def other():
        calls.append(None)
        raise RuntimeError("shapes differ")

    calls.clear()
    with pytest.raises(RuntimeError, match="shapes"):
        other()
    assert len(calls) == 1


def test_detectron2_names_resolve_through_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    cached = tmp_path / "detectron2" / "some" / "weights.txt"
    cached.parent.mkdir(parents=True)
    cached.write_text("content")
    assert PathManager.get_local_path("detectron2://some/weights.txt") == str(cached)
    with PathManager.open("detectron2://some/weights.txt") as file:
        assert file.read() == "content"


def test_offline_the_message_says_where_to_put_the_file(run_standin, tmp_path):
    # Port 9 of this machine answers nobody, so the download fails at once.
    code = """
from detectron2.utils.file_io import Detectron2Handler, PathManager
Detectron2Handler.S3_DETECTRON2_PREFIX = "http://127.0.0.1:9/detectron2/"
try:
    PathManager.get_local_path("detectron2://some/weights.pkl")
except FileNotFoundError as error:
    print(error)
"""
    message = run_standin(code, FVCORE_CACHE=str(tmp_path), http_proxy="", HTTP_PROXY="", no_proxy="*")
    assert "detectron2://some/weights.pkl" in message
    assert str(tmp_path / "detectron2" / "some" / "weights.pkl") in message


def test_downloads_are_not_taken_from_a_folder_of_all_users(run_standin, tmp_path):
    """When the cache cannot be written, iopath turns to a folder where another user may have put other weights."""
    planted = tmp_path / "iopath_cache" / "detectron2" / "some" / "weights.pkl"
    planted.parent.mkdir(parents=True)
    planted.write_text("another user's")
    (tmp_path / "file").write_text("")
    code = """
from detectron2.utils.file_io import PathManager
for name in ("detectron2://some/weights.pkl", "http://127.0.0.1:9/detectron2/some/weights.pkl"):
    try:
        print(PathManager.get_local_path(name))
    except OSError as error:
        print(error)
"""
    said = run_standin(code, FVCORE_CACHE=str(tmp_path / "file" / "cache"), TMPDIR=str(tmp_path)).splitlines()
    assert len(said) == 2 and all("Set FVCORE_CACHE to your own folder" in line for line in said)


@standin_only  # iopath alone would download the file again, to elsewhere
def test_a_cache_that_can_only_be_read_is_used(tmp_path, monkeypatch):
    cached = tmp_path / "detectron2" / "weights.txt"
    cached.parent.mkdir()
    cached.write_text("content")
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path))
    monkeypatch.setattr("os.access", lambda *arguments: False)
    assert PathManager.get_local_path("detectron2://weights.txt") == str(cached)
