"""Checkpoints by time (``SOLVER.CHECKPOINT_MINUTES``), and errors of those that are written beside the training."""

import time
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm


class TimedCheckpoint(HookBase):
    """Saves after the first iteration that ends ``minutes`` after the last checkpoint, or after the start.

    The monotonic clock of the first process decides for all, since all have a part in the state that is saved. It comes
    after Detectron2's ``PeriodicCheckpointer``, whose checkpoints count, too.

    Args:
        minutes: between two checkpoints; 0: none by time.
    """

    trainer: Any  # a PADing.engine.trainer.Trainer

    def __init__(self, minutes: float):
        self.seconds = 60 * minutes
        self._since, self._known = 0.0, -1

    def before_train(self) -> None:
        """Start the clock."""
        self._since, self._known = time.monotonic(), self.trainer.checkpointer.begun

    def after_step(self) -> None:
        """Save if it is time. UserError if an earlier checkpoint could not be written."""
        checkpointer, iteration = self.trainer.checkpointer, self.trainer.iter
        checkpointer.raise_failure()
        if self.seconds <= 0 or iteration + 1 >= self.trainer.max_iter:  # the last iteration is saved anyway
            return
        if self._known != checkpointer.begun:
            self._since, self._known = time.monotonic(), checkpointer.begun
        if not _says_first(time.monotonic() - self._since >= self.seconds):
            return
        self.trainer.ranks.collect(iteration)
        if comm.is_main_process():
            checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
            # The time of writing does not count.
            self._since, self._known = time.monotonic(), checkpointer.begun


def _says_first(flag: bool) -> bool:
    """``flag`` of the first process; all processes call this together."""
    if comm.get_world_size() == 1:
        return flag
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    number = torch.tensor(int(flag), device=device)
    torch.distributed.broadcast(number, src=0)
    return bool(number)
