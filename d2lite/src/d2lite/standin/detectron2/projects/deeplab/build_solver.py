"""The schedule that a config names, DeepLab's among them."""

from detectron2 import solver
from detectron2.config import CfgNode
from torch.optim import Optimizer

from .lr_scheduler import WarmupPolyLR

__all__ = ["build_lr_scheduler"]

# Arguments of WarmupPolyLR and the keys of SOLVER that hold them.
ARGUMENTS = {
    "max_iters": "MAX_ITER",
    "power": "POLY_LR_POWER",
    "constant_ending": "POLY_LR_CONSTANT_ENDING",
    "warmup_method": "WARMUP_METHOD",
    "warmup_iters": "WARMUP_ITERS",
    "warmup_factor": "WARMUP_FACTOR",
}


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> solver.LRScheduler:
    """Like ``detectron2.solver.build_lr_scheduler``, which see, but ``WarmupPolyLR`` is known too."""
    if cfg.SOLVER.LR_SCHEDULER_NAME == WarmupPolyLR.__name__:
        return WarmupPolyLR(optimizer, **{argument: cfg.SOLVER[key] for argument, key in ARGUMENTS.items()})
    return solver.build_lr_scheduler(cfg, optimizer)
