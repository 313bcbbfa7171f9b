"""The progress bar of a training."""

from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase

from PADing.progress import Bar, close_bar, show_bar, shown_bar


class ProgressHook(HookBase):
    """Shows iteration, losses, time left and images a second, where ``PADing.progress`` shows bars. Main process only.

    Evaluations show a bar of their own in its place.
    """

    trainer: Any  # a PADing.engine.trainer.Trainer

    def __init__(self, cfg: CfgNode):
        self._images = cfg.SOLVER.IMS_PER_BATCH
        self._bar: Bar | None = None

    def before_step(self) -> None:
        """Show the bar again after an evaluation."""
        if self._bar is None or shown_bar() is not self._bar:
            self._bar = show_bar("training", self.trainer.max_iter, self.trainer.iter, self._losses)

    def after_step(self) -> None:
        """One more iteration."""
        if self._bar is not None and shown_bar() is self._bar:
            self._bar.step(self._images)

    def after_train(self) -> None:
        """Remove the bar."""
        close_bar()

    def _losses(self) -> str:
        totals = {name: one for name, one in self.trainer.storage.histories().items() if name.endswith("total_loss")}
        # `total_loss`, or PADing's `gan_loss_total_loss` and `id_loss_total_loss`.
        return "".join(
            f"{name.removesuffix('total_loss').strip('_') or 'loss'} {history.median(20):.3g}, "
            for name, history in totals.items()
        )
