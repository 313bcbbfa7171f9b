"""What a process knows of the torchrun that has started it, and how processes meet in its store."""

import os
import subprocess
import sys
import threading
from datetime import timedelta

import pytest
from torch.distributed import HashStore

from PADing.engine import torchrun


def test_worker_knows_its_torchrun_also_behind_a_shell(monkeypatch):
    """The process between has the worker's environment, torchrun has not."""
    code = "from PADing.engine.torchrun import agent; print(agent())"
    worker = {**os.environ, torchrun.RUN_ID: "none", "PYTHONPATH": os.pathsep.join(sys.path)}
    commands = [[sys.executable, "-c", code], ["sh", "-c", f"{sys.executable} -c '{code}'; true"]]
    names = {subprocess.run(command, env=worker, capture_output=True, text=True).stdout for command in commands}
    assert len(names) == 1 and f" {os.getpid()} " in names.pop()
    monkeypatch.delenv(torchrun.RUN_ID, raising=False)
    assert torchrun.agent() == ""


def test_processes_meet_in_a_store_with_leftovers():
    """torchrun keeps its store when it starts processes again; they would read addresses of those that are gone."""
    store, names = HashStore(), []
    for attempt in range(3):
        world, found = (3, 2, 4)[attempt], {}

        def meet(rank, world=world, found=found):
            fresh = torchrun.fresh_store(store, rank, world, timedelta(seconds=20))
            fresh.add("met", 1)
            fresh.set(f"rank{rank}", "here")
            found[rank] = fresh

        threads = [threading.Thread(target=meet, args=(rank,)) for rank in range(world)]
        for thread in reversed(threads):
            thread.start()
        for thread in threads:
            thread.join(30)
        assert len(found) == world
        assert all(place.add("met", 0) == world for place in found.values())
        names.append(found[0])


def test_missing_process_is_an_error_in_time():
    with pytest.raises(RuntimeError, match="not all of the 2 processes"):
        torchrun.fresh_store(HashStore(), 0, 2, timedelta(seconds=0.2))
