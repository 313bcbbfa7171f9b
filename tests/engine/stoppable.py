"""A plug-in: ``train_net.py`` with the tiny trainer, which says where it is, for tests that stop it from outside.

``STOPPABLE`` in the environment makes one part slow: "step", "evaluation" or "loading" (of 60 s). "long": an iteration
takes 2 s. In iteration 2, the last process raises ("raise"), is killed ("die"), or never goes on ("hang"). ``GRACE`` is
that of ``PADing.engine.interruption``.
"""

import os
import signal
import time

from detectron2.utils import comm

import PADing.engine.trainer
from PADing.engine import interruption
from tests.engine import tiny

tiny.register()
SLOW = os.environ.get("STOPPABLE", "")
interruption.GRACE = float(os.environ.get("GRACE", interruption.GRACE))


def reach(part: str) -> None:
    if comm.is_main_process():
        print(f"<{part}>", flush=True)
    if SLOW == part:
        time.sleep(60)


class Evaluator(tiny.Evaluator):
    def reset(self):
        super().reset()
        reach("evaluation")


class StoppableTrainer(tiny.TinyTrainer):
    @classmethod
    def build_evaluator(cls, cfg, dataset_name, output_folder=None):
        return Evaluator()

    def resume_or_load(self, resume=True):
        super().resume_or_load(resume)
        reach("loading")

    def run_step(self):
        reach("step")
        if self.iter == 2 and comm.get_rank() == comm.get_world_size() - 1:
            if SLOW == "raise":
                raise RuntimeError("one process fails")
            if SLOW == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if SLOW == "hang":
                time.sleep(600)
        super().run_step()
        time.sleep(2 if SLOW == "long" else 0.05)


PADing.engine.trainer.Trainer = StoppableTrainer
