"""A plug-in: ``train_net.py`` with the tiny trainer, which says where it is, for tests that stop it from outside.

``STOPPABLE`` in the environment makes one part slow: "step", "evaluation" or "loading" (of 60 s). "long": an iteration
takes 2 s. In iteration 2, the last process raises ("raise"), finds a mistake of the user ("mistake"), has a NaN loss
("nan"), is killed ("die"), never goes on ("hang"), or is stopped by SIGSTOP ("freeze"); "freeze first" stops the first
one. At the end of the evaluation, the last process is killed ("die scoring"), or the first one needs ``SCORING``
seconds, half of them in a library that keeps Python's other threads waiting. ``GRACE`` is that of
``PADing.engine.interruption``, ``FROZEN`` that of ``PADing.engine.job_watch``.
"""

import ctypes
import os
import signal
import time

import torch
from detectron2.utils import comm

import PADing.engine.trainer
from PADing.engine import interruption, job_watch
from PADing.errors import UserError
from tests.engine import tiny

tiny.register()
SLOW = os.environ.get("STOPPABLE", "")
interruption.GRACE = float(os.environ.get("GRACE", interruption.GRACE))
job_watch.FROZEN = float(os.environ.get("FROZEN", job_watch.FROZEN))
SCORING = float(os.environ.get("SCORING", 0))


def reach(part: str) -> None:
    if comm.is_main_process():
        print(f"<{part}>", flush=True)
    if SLOW == part:
        time.sleep(60)


class Evaluator(tiny.Evaluator):
    def reset(self):
        super().reset()
        reach("evaluation")

    def evaluate(self):
        if SLOW == "die scoring" and is_last():
            os.kill(os.getpid(), signal.SIGKILL)
        if comm.is_main_process() and SCORING:
            time.sleep(SCORING / 2)
            ctypes.PyDLL(None).usleep(int(SCORING / 2 * 1e6))
        return super().evaluate()


def is_last():
    return comm.get_rank() == comm.get_world_size() - 1


class StoppableTrainer(tiny.TinyTrainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name, output_folder=None):
        return Evaluator()

    def resume_or_load(self, resume=True):
        super().resume_or_load(resume)
        reach("loading")

    def run_step(self):
        reach("step")
        if self.iter == 2 and comm.is_main_process() and SLOW == "freeze first":
            os.kill(os.getpid(), signal.SIGSTOP)
        if self.iter == 2 and is_last():
            if SLOW == "raise":
                raise RuntimeError("one process fails")
            if SLOW == "mistake":
                raise UserError("one process finds a mistake")
            if SLOW == "nan":
                for weight in self.model.parameters():
                    weight.data.fill_(torch.nan)
            if SLOW == "freeze":
                os.kill(os.getpid(), signal.SIGSTOP)
            if SLOW == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if SLOW == "hang":
                time.sleep(600)
        super().run_step()
        time.sleep(2 if SLOW == "long" else 0.05)


PADing.engine.trainer.Trainer = StoppableTrainer
