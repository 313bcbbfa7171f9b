"""Builds the learning rate schedule that a config names, also DeepLab's."""

from detectron2 import solver
from detectron2.config import CfgNode
from torch.optim import Optimizer

from .lr_scheduler import WarmupPolyLR


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> solver.LRScheduler:
    """As ``detectron2.solver.build_lr_scheduler``, but with ``WarmupPolyLR``, too."""
    s = cfg.SOLVER
    if s.LR_SCHEDULER_NAME != "WarmupPolyLR":
        return solver.build_lr_scheduler(cfg, optimizer)
    warmup = {"warmup_method": s.WARMUP_METHOD, "warmup_iters": s.WARMUP_ITERS, "warmup_factor": s.WARMUP_FACTOR}
    decay = {"power": s.POLY_LR_POWER, "constant_ending": s.POLY_LR_CONSTANT_ENDING}
    return WarmupPolyLR(optimizer, s.MAX_ITER, **warmup, **decay)
