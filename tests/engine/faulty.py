"""A plug-in: the tiny trainer, which notes each iteration and fails once where ``FAULT`` in the environment says.

``FAULT`` is "<what>:<iteration>:<rank>"; what is "kill" (the process), "saving" (the process, while it writes a
checkpoint) or "agent" (torchrun above the process). ``TRACE`` is a folder for one file of each process, with a line
"<iteration> <rank> <processes>" for each iteration, and for the fault that has happened. ``SLOW``: seconds of one
iteration; with the file ``slow`` in that folder it is 2.5.
"""

import os
import signal
import time
from pathlib import Path

from detectron2.utils import comm

import PADing.engine.checkpointer
import PADing.engine.trainer
from PADing.engine.torchrun import _agent_pid
from tests.engine import tiny

tiny.register()
TRACE = Path(os.environ["TRACE"])
WHAT, WHEN, WHO = (os.environ.get("FAULT") or "none:0:0").split(":")


def fail(what: str, iteration: int) -> None:
    if (what, iteration, comm.get_rank()) != (WHAT, int(WHEN), int(WHO)):
        return
    try:
        (TRACE / "fault").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(_agent_pid() if what == "agent" else os.getpid(), signal.SIGKILL)


class FaultyTrainer(tiny.TinyTrainer):
    def run_step(self):
        fail("kill", self.iter)
        fail("agent", self.iter)
        super().run_step()
        time.sleep(2.5 if (TRACE / "slow").exists() else float(os.environ.get("SLOW", "0.05")))
        with open(TRACE / f"{os.getpid()}.txt", "a") as file:
            file.write(f"{self.iter} {comm.get_rank()} {comm.get_world_size()}\n")


write = PADing.engine.checkpointer.write_checkpoint


def write_and_fail(path, content):
    if content.get("iteration") == int(WHEN) and WHAT == "saving" and not (TRACE / "fault").exists():
        Path(path.parent, f".{path.stem}.half.tmp.pth").write_bytes(b"half of a checkpoint")
        fail("saving", int(WHEN))
    write(path, content)


PADing.engine.checkpointer.write_checkpoint = write_and_fail
PADing.engine.trainer.Trainer = FaultyTrainer
