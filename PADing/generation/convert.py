"""Converts weights of stage 1 (Mask2Former on seen classes) to starting weights of PADing's stage 2."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from PADing.checkpoint_files import read_checkpoint, weights_problem, write_checkpoint
from PADing.data.splits import Split
from PADing.engine.weight_average import ENTRY
from PADing.errors import UserError
from PADing.sharing.places import local_weights

logger = logging.getLogger(__name__)

TASKS = ("panoptic", "instance", "semantic")
LAYOUTS = ("reference", "clean")
KINDS = ("model", "ema")
Layout = Literal["reference", "clean"]
OLD_HEAD = "sem_seg_head.predictor.class_embed"
NEW_HEAD = "new_fc"


def convert_file(
    input_file: str | os.PathLike,
    output_file: str | os.PathLike,
    task: str,
    splits: Sequence[Split],
    layout: Layout = "reference",
    overwrite: bool = False,
    weights_from: str = "model",
) -> None:
    """Read a stage-1 checkpoint, convert it (see ``convert_checkpoint``), and write the output file.

    Args:
        input_file: the checkpoint of stage 1, or the folder or ``hf://`` name of a shared model.
        output_file: the file to write, ``.pth`` or ``.safetensors``; it appears when it is complete.
        task: one of ``TASKS``.
        splits: the splits in which to look up the total number of classes; see ``total_classes``.
        layout: see ``convert_checkpoint``.
        overwrite: replace an existing output file; the input file is never replaced.
        weights_from: one of ``KINDS``: the ordinary weights, or the averaged ones of ``SOLVER.EMA``.

    Raises:
        UserError: an unreadable or wrong input file, no averaged weights in it, an existing output file, or an unknown
            number of classes.
    """
    input_file, output_file = local_weights(os.fspath(input_file)), Path(output_file)
    checkpoint = read_checkpoint(input_file, "Input file")
    if not isinstance(checkpoint.get("model"), dict):
        raise UserError(f"Input file {input_file} has no `model`: it is not a checkpoint of train_net_pretrain.py.")
    if output_file.exists() and os.path.samefile(input_file, output_file):
        raise UserError(
            f"Input and output are the same file, {output_file}, so the weights of stage 1 would be lost. Choose "
            "another --output_file."
        )
    if output_file.exists() and not overwrite:
        raise UserError(f"{output_file} exists. Choose another --output_file, or add --overwrite to replace it.")
    taken = _choose_weights(checkpoint, weights_from, str(input_file))
    classes = _count_classes(checkpoint["model"], str(input_file))
    total = total_classes(task, classes, splits)
    write_checkpoint(output_file, convert_checkpoint(checkpoint, total, layout))
    logger.info(
        "%s: %s; %d classes of stage 1 -> %d classes in all, layout %s", output_file, taken, classes, total, layout
    )


def _choose_weights(checkpoint: dict[str, Any], weights_from: str, file: str) -> str:
    """Put the chosen weights into ``model``; returns words for them."""
    entry, model = checkpoint.get(ENTRY), checkpoint["model"]
    average = entry.get("weights") if isinstance(entry, dict) else None
    if weights_from == "model":
        others = " (--weights_from ema takes the averaged ones, which the file has, too)" if average else ""
        return f"ordinary weights{others}"
    if not isinstance(average, dict) or not average:
        raise UserError(
            f"Input file {file} has no averaged weights. Leave out --weights_from ema, or name a checkpoint of a "
            "training with SOLVER.EMA.ENABLED True."
        )
    if problem := weights_problem({"model": average}):
        raise UserError(f"Input file {file}, averaged weights: {problem}.")
    if average.keys() != model.keys():
        other = min(map(str, average.keys() ^ model.keys()))[:200]
        raise UserError(f"Input file {file}: its averaged and ordinary weights are not of one model: {other}.")
    model.update(average)  # in place, which keeps the version metadata
    return "averaged weights (EMA)"


def convert_checkpoint(checkpoint: dict[str, Any], total: int, layout: Layout = "reference") -> dict[str, Any]:
    """Extend the class head of a stage-1 checkpoint to all classes, and copy it to the classifier of stage 2.

    The head has S + 1 rows, the last for "no object". It gets ``total + 1`` rows; new rows are zero. Layout
    ``reference`` leaves old rows at the top, as in the published weights: the no-object row becomes the row of the
    first unseen class, and the new no-object row is zero. Layout ``clean`` moves the no-object row to the end. If S
    equals ``total``, both leave the head unchanged.

    Args:
        checkpoint: has ``model`` (a state dict, changed in place to keep its version metadata) and usually ``trainer``
            and ``iteration``; optimizer and scheduler states are dropped.
        total: number of classes, seen and unseen.
        layout: "reference" or "clean".

    Raises:
        UserError: not a stage-1 checkpoint, already converted, or more classes than ``total``.
    """
    model = checkpoint["model"]
    classes = _count_classes(model, "The checkpoint")
    if classes > total:
        raise UserError(f"The checkpoint has {classes} classes, but the split has only {total}.")
    for part in ("weight", "bias"):
        old = model[f"{OLD_HEAD}.{part}"]
        new = old.new_zeros((total + 1, *old.shape[1:]))
        new[: len(old)] = old
        if layout == "clean" and classes < total:
            new[-1], new[classes] = old[-1], 0
        # The same tensor under two names, so that the file stores it once.
        model[f"{OLD_HEAD}.{part}"] = model[f"{NEW_HEAD}.{part}"] = new
    converted: dict[str, Any] = {key: checkpoint[key] for key in ("model", "trainer", "iteration") if key in checkpoint}
    if "trainer" in converted:
        # Newer versions of Detectron2 store the optimizer there.
        converted["trainer"] = {key: value for key, value in checkpoint["trainer"].items() if key != "_trainer"}
    return converted


def total_classes(task: str, stage_1: int, splits: Sequence[Split]) -> int:
    """The total number of classes, for a stage 1 that was trained on ``stage_1`` classes.

    Looks for a split whose training data of kind ``task`` have ``stage_1`` classes (panoptic training data have all
    classes). UserError if there is none, or if several splits have different totals.
    """
    known, found = [], {}
    for split in splits:
        for data_set in split.data_sets:
            if data_set.kind == task and data_set.role == "train":
                space = split.class_space(data_set)
                known.append(f"{len(space)} ({split.name})")
                if len(space) == stage_1:
                    found[split.name] = len(space.vocabulary)
    if not found:
        raise UserError(
            f"The input file was trained on {stage_1} classes, which fits no training data of the task {task!r}: "
            f"{', '.join(known) or 'none known'}. Is it the file of another task, or already converted? For your own "
            "data set name its split file: --split my_split.yaml."
        )
    if len(set(found.values())) > 1:
        raise UserError(f"{stage_1} classes fit several splits: {', '.join(found)}. Choose one with --split.")
    return next(iter(found.values()))


def _count_classes(model: dict[str, Tensor], where: str) -> int:
    """The number of classes of stage 1; UserError for other or converted weights."""
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
    return len(bias) - 1
