"""What to do when memory is not enough: one message that names the settings which cost most, with their values."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from PADing.engine.shared_memory import (
    SharedMemoryFull,
    end_half_made_loaders,
    explain_shared_memory,
    is_shared_memory_full,
)
from PADing.errors import UserError

# In messages of PyTorch on GPUs, on CPUs, and for a data-loading worker that the system has ended. The last one
# is all that oneDNN says on processors with matrix tiles (AMX).
SIGNS = (
    "out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory",
    "cublas_status_alloc_failed", "is killed by signal: killed", "unable to allocate",
    "could not create a primitive",
)  # fmt: skip


class OutOfMemory(UserError):
    """The device or the machine has too little memory; the message names settings that need less."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory could not be allocated, on a GPU or on the CPU."""
    if isinstance(error, UserError):
        return isinstance(error, OutOfMemory)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


@contextmanager
def explaining_memory(cfg: CfgNode, training: bool) -> Iterator[None]:
    """Turn an out-of-memory error of the block into ``OutOfMemory`` with a hint; other errors pass."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if isinstance(error, UserError):
            raise
        if is_shared_memory_full(error):
            end_half_made_loaders(error)
            raise SharedMemoryFull(explain_shared_memory(cfg)) from error
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory(explain(cfg, training)) from error


def explain(cfg: CfgNode, training: bool) -> str:
    """The message for a run of ``cfg`` that had too little memory, in a training or in an evaluation."""
    where = _where(cfg)
    lines = [f"Out of memory on {where} in {'training' if training else 'evaluation'}. What costs most in this run:"]
    lines += [f"  - {line}" for line in (_of_training(cfg) if training else _of_evaluation(cfg))]
    if training:
        lines.append("--find-batch-size tries which batch fits. docs/training.md, section Memory, has all settings.")
    return "\n".join(lines)


def _where(cfg: CfgNode) -> str:
    if not cfg.MODEL.DEVICE.startswith("cuda") or not torch.cuda.is_available():
        return "the CPU (main memory)"
    free, total = (size / 2**30 for size in torch.cuda.mem_get_info())
    return f"the GPU ({total:.1f} GiB, {free:.1f} GiB of it free now)"


def _of_training(cfg: CfgNode) -> Iterator[str]:
    processes, parts = comm.get_world_size(), cfg.SOLVER.ACCUMULATE
    images = max(cfg.SOLVER.IMS_PER_BATCH // max(processes, cfg.SOLVER.SHARES), 1)
    at_once = max(images // parts, 1)
    cure = "a larger SOLVER.ACCUMULATE keeps the batch and needs less" if at_once > 1 else "no smaller part is possible"
    yield f"{at_once} image(s) at a time in each process (SOLVER.IMS_PER_BATCH {cfg.SOLVER.IMS_PER_BATCH}, " \
          f"{processes} process(es), SOLVER.ACCUMULATE {parts}): {cure}"  # fmt: skip
    sizes = cfg.INPUT
    if "lsj" in sizes.DATASET_MAPPER_NAME:
        yield f"images of {sizes.IMAGE_SIZE} x {sizes.IMAGE_SIZE} pixels: INPUT.IMAGE_SIZE {sizes.IMAGE_SIZE}"
    elif sizes.CROP.ENABLED:
        yield f"crops ({sizes.CROP.TYPE}) of {tuple(sizes.CROP.SIZE)}: INPUT.CROP.SIZE"
    else:
        yield f"images of up to {max(sizes.MIN_SIZE_TRAIN)} x {sizes.MAX_SIZE_TRAIN} pixels: INPUT.MIN_SIZE_TRAIN"
    if not cfg.SOLVER.AMP.ENABLED:
        yield "numbers of 32 bits: SOLVER.AMP.ENABLED True halves most of them"
    node = cfg.MODEL.MASK_FORMER
    yield f"{node.TRAIN_NUM_POINTS} points of each mask in the losses: MODEL.MASK_FORMER.TRAIN_NUM_POINTS"
    yield f"{node.NUM_OBJECT_QUERIES} queries: MODEL.MASK_FORMER.NUM_OBJECT_QUERIES (it must fit the weights)"
    for part, section in {"backbone": "BACKBONE", "pixel decoder": "SEM_SEG_HEAD"}.items():
        if not cfg.MODEL[section].ACTIVATION_CHECKPOINTING:
            key = f"MODEL.{section}.ACTIVATION_CHECKPOINTING True"
            yield f"activations of the {part}, if it is trained: {key} computes them twice, slower"
    if processes > 1 and cfg.SOLVER.SHARDING == "none":
        yield f"the optimizer's state, whole in each process: SOLVER.SHARDING optimizer keeps 1/{processes} of it"
    if cfg.SOLVER.EMA.ENABLED:
        yield "a second copy of the model: SOLVER.EMA.ENABLED"
    if cfg.DATALOADER.NUM_WORKERS:
        yield f"{cfg.DATALOADER.NUM_WORKERS} data-loading workers (main memory only): DATALOADER.NUM_WORKERS"


def _of_evaluation(cfg: CfgNode) -> Iterator[str]:
    sizes = cfg.INPUT
    size = f"{sizes.MIN_SIZE_TEST} x {sizes.MAX_SIZE_TEST}"
    yield f"images of up to {size} pixels: INPUT.MIN_SIZE_TEST, INPUT.MAX_SIZE_TEST"
    yield f"{cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES} masks at the size of each image, before results are made"
    yield f"{cfg.TEST.DETECTIONS_PER_IMAGE} instances of each image: TEST.DETECTIONS_PER_IMAGE"
