"""Configs that were made for another number of processes."""

import logging

from detectron2.config import CfgNode

__all__ = ["scale_to_processes"]

# More images in each iteration go with larger steps and fewer of them.
ITERATIONS = ("SOLVER.MAX_ITER", "SOLVER.WARMUP_ITERS", "SOLVER.STEPS", "SOLVER.CHECKPOINT_PERIOD", "TEST.EVAL_PERIOD")


def scale_to_processes(cfg: CfgNode, processes: int) -> CfgNode:
    """Fit a config for ``SOLVER.REFERENCE_WORLD_SIZE`` processes to ``processes``, with as many images in each.

    Returns:
        a changed copy, frozen if ``cfg`` is; or ``cfg`` itself if it fits or its reference is 0 (no scaling).

    Raises:
        AssertionError: the reference's processes cannot share the batch evenly.
    """
    old = cfg.SOLVER.REFERENCE_WORLD_SIZE
    if old in (0, processes):
        return cfg
    assert not cfg.SOLVER.IMS_PER_BATCH % old, (
        f"SOLVER.REFERENCE_WORLD_SIZE is {old}, but so many processes cannot share SOLVER.IMS_PER_BATCH "
        f"({cfg.SOLVER.IMS_PER_BATCH}) evenly."
    )
    factor = processes / old
    changes = {
        "SOLVER.REFERENCE_WORLD_SIZE": processes,
        "SOLVER.IMS_PER_BATCH": round(cfg.SOLVER.IMS_PER_BATCH * factor),
        "SOLVER.BASE_LR": cfg.SOLVER.BASE_LR * factor,
    }
    for key in ITERATIONS:
        section, name = key.split(".")
        value = cfg[section][name]
        changes[key] = tuple(round(v / factor) for v in value) if key == "SOLVER.STEPS" else round(value / factor)

    scaled = cfg.clone()
    scaled.defrost()
    scaled.merge_from_list([part for change in changes.items() for part in change])
    if cfg.is_frozen():
        scaled.freeze()
    logging.getLogger(__name__).info("The config for %d processes is scaled to %d: %s", old, processes, changes)
    return scaled
