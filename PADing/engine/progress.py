"""How far a training or evaluation is, read from the lines that it logs."""

import re
from dataclasses import dataclass, field

__all__ = ["Progress", "read_progress"]


@dataclass(frozen=True)
class Progress:
    """``done`` iterations of a training (or images of an evaluation), with ``seconds_left`` for the others.

    ``total`` is None in a training, whose log does not name it. ``losses``: name -> value, as logged.
    """

    phase: str  # "training" or "evaluation"
    done: int
    total: int | None
    seconds_left: float
    losses: dict[str, str] = field(default_factory=dict)


def read_progress(line: str) -> Progress | None:
    """The progress that a line tells: the trainer's, every 20 iterations, or the evaluation's; None for others."""
    training = re.search(r"eta: (?:(\d+) days?, )?(\d+):(\d+):(\d+)\s+iter: (\d+)", line)
    if training:
        days, hours, minutes, seconds, iteration = (int(group or 0) for group in training.groups())
        losses = dict(re.findall(r"(\w*total_loss): (\S+)", line))
        return Progress("training", iteration, None, ((days * 24 + hours) * 60 + minutes) * 60 + seconds, losses)
    evaluation = re.search(r"Inference done (\d+)/(\d+)\..*ETA=(?:(\d+) days?, )?(\d+):(\d+):(\d+)", line)
    if evaluation:
        done, total, days, hours, minutes, seconds = (int(group or 0) for group in evaluation.groups())
        return Progress("evaluation", done, total, ((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    return None
