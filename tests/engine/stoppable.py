"""A plug-in: ``train_net.py`` with the tiny trainer, which says where it is, for tests that stop it from outside.

``STOPPABLE`` in the environment makes one part slow: "step", "evaluation" or "loading" (of 60 s); "raise": the last
process raises in iteration 2.
"""

import os
import time

from detectron2.utils import comm

import PADing.engine.trainer
from tests.engine import tiny

tiny.register()
SLOW = os.environ.get("STOPPABLE", "")


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
        if SLOW == "raise" and self.iter == 2 and comm.get_rank() == comm.get_world_size() - 1:
            raise RuntimeError("one process fails")
        super().run_step()
        time.sleep(0.05)


PADing.engine.trainer.Trainer = StoppableTrainer
