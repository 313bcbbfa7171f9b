"""Weights of stage 1 (Mask2Former on seen classes) -> starting weights of PADing's stage 2."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from PADing.checkpoint_files import read_checkpoint, write_checkpoint
from PADing.data.splits import Split
from PADing.errors import UserError

logger = logging.getLogger(__name__)

TASKS = ("panoptic", "instance", "semantic")
LAYOUTS = ("reference", "clean")
OLD_HEAD = "sem_seg_head.predictor.class_embed"
NEW_HEAD = "new_fc"


def convert_file(
    input_file: str | os.PathLike,
    output_file: str | os.PathLike,
    task: str,
    splits: Sequence[Split],
    layout: str = "reference",
    overwrite: bool = False,
) -> None:
    """Read a stage-1 checkpoint, convert it (see ``convert_checkpoint``), and write it under its name when complete.

    Args:
        task: panoptic, instance or semantic.
        splits: where to look up how many classes there are in all; see ``total_classes``.
        overwrite: replace an output file that exists; the input file is never replaced.

    Raises:
        UserError: a file that cannot be read, is not a stage-1 checkpoint, or fits none of the splits; an output file
            that exists, or is the input file under another name.
    """
    checkpoint = _read(Path(input_file))
    output_file = Path(output_file)
    if output_file.exists():
        if os.path.samefile(input_file, output_file):
            raise UserError(
                f"Input and output are the same file, {output_file}: the weights of stage 1 would be lost. Choose "
                "another --output_file."
            )
        if not overwrite:
            raise UserError(f"{output_file} exists. Choose another --output_file, or add --overwrite to replace it.")
    rows = _head(checkpoint["model"], str(input_file))[0].shape[0]
    total = total_classes(task, rows - 1, splits)
    write_checkpoint(output_file, convert_checkpoint(checkpoint, total, layout))
    logger.info("%s: %d classes of stage 1 -> %d classes in all, layout %s", output_file, rows - 1, total, layout)


def convert_checkpoint(checkpoint: dict[str, Any], total: int, layout: str = "reference") -> dict[str, Any]:
    """Grow the class head of a stage-1 checkpoint to all classes and copy it to the classifier that stage 2 trains.

    The head has S + 1 rows, the last for "no object"; it gets ``total + 1`` rows, new ones zero. Layout ``reference``
    leaves old rows at the top, as the published weights have it: the no-object row becomes that of the first unseen
    class, and no-object itself starts at zero. Layout ``clean`` keeps the no-object row last. When S equals ``total``
    both leave the head as it is.

    Args:
        checkpoint: with ``model`` (a state dict, changed in place so that its version metadata survive) and usually
            ``trainer`` and ``iteration``; optimizer and scheduler states are dropped.
        total: number of classes, seen and unseen.

    Returns:
        ``model``, ``trainer``, ``iteration``; the latter two if present.

    Raises:
        UserError: not a stage-1 checkpoint, one that has been converted, or one with more classes than ``total``.
    """
    if layout not in LAYOUTS:
        raise UserError(f"Layout {layout!r} is unknown; there are {' and '.join(LAYOUTS)}.")
    model = checkpoint["model"]
    _head(model, "the checkpoint")
    for part in ("weight", "bias"):
        grown = _grow(model[f"{OLD_HEAD}.{part}"], total + 1, layout)
        # The same tensor twice, so a file holds it once.
        model[f"{OLD_HEAD}.{part}"] = model[f"{NEW_HEAD}.{part}"] = grown
    converted = {"model": model}
    if "trainer" in checkpoint:
        # Detectron2's newer trainers keep the optimizer in here.
        converted["trainer"] = {key: value for key, value in checkpoint["trainer"].items() if key != "_trainer"}
    if "iteration" in checkpoint:
        converted["iteration"] = checkpoint["iteration"]
    return converted


def total_classes(task: str, stage_1: int, splits: Sequence[Split]) -> int:
    """How many classes there are in all, when stage 1 was trained on ``stage_1`` of them.

    Looks for a split with training data of kind ``task`` that have so many classes. (Panoptic data have all classes
    already in stage 1.)

    Raises:
        UserError: no split has, or several that disagree.
    """
    if task not in TASKS:
        raise UserError(f"Task {task!r} is unknown; there are {', '.join(TASKS)}.")
    known, found = [], {}
    for split in splits:
        for data_set in split.data_sets:
            if data_set.kind == task and data_set.role == "train":
                classes = len(split.classes(data_set))
                known.append(f"{classes} ({split.name})")
                if classes == stage_1:
                    found[split.name] = len(split.vocabulary(data_set.kind, data_set.class_order))
    if not found:
        raise UserError(
            f"The input file was trained on {stage_1} classes, which fits no training data of the task {task!r}: "
            f"{', '.join(known) or 'none known'}. Is it the file of another task, or converted already? For a data set "
            "of your own pass its split file: --split my_split.yaml."
        )
    if len(set(found.values())) > 1:
        raise UserError(f"{stage_1} classes fit several splits: {', '.join(found)}. Choose one with --split.")
    return next(iter(found.values()))


def _grow(old: Tensor, rows: int, layout: str) -> Tensor:
    if rows < len(old):
        raise UserError(f"The checkpoint has {len(old) - 1} classes, but the split has only {rows - 1}.")
    new = old.new_zeros((rows, *old.shape[1:]))
    new[: len(old)] = old
    if layout == "clean" and rows > len(old):
        new[-1] = old[-1]
        new[len(old) - 1] = 0
    return new


def _head(model: dict[str, Tensor], where: str) -> tuple[Tensor, Tensor]:
    converted = [key for key in model if key.startswith(f"{NEW_HEAD}.")]
    if converted:
        raise UserError(f"{where} already holds {converted[0]}: it has been converted, or comes from stage 2.")
    keys = [f"{OLD_HEAD}.{part}" for part in ("weight", "bias")]
    missing = [key for key in keys if key not in model]
    if missing:
        raise UserError(f"{where} lacks {', '.join(missing)}: it is not a Mask2Former checkpoint of stage 1.")
    weight, bias = (model[key] for key in keys)
    if weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise UserError(f"{where}: {OLD_HEAD} has shapes {tuple(weight.shape)} and {tuple(bias.shape)}.")
    return weight, bias


def _read(path: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(path, "Input file")
    if not isinstance(checkpoint.get("model"), dict):
        raise UserError(f"Input file {path} has no entry `model`: it is not a checkpoint of train_net_pretrain.py.")
    return checkpoint
