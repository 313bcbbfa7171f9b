"""``Step``: one command of the benchmark, its place among the others, and how far it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from minibench.runs import logged

# Characters at the end of a metrics.json that are looked at: many lines.
_TAIL = 2**14


@dataclass(frozen=True)
class Progress:
    """``done`` of ``total`` iterations of a training, ``seconds_left`` for the others, and the sums of its losses."""

    done: int
    total: int
    seconds_left: float
    losses: Mapping[str, float] = field(default_factory=dict)


def _nothing(*_) -> None:
    return None


def _never() -> bool:
    return False


@dataclass
class Step:
    """A command and its place among the others.

    Attributes:
        name: unique. command: the whole of it. log: where its output is added.
        done: whether it has been finished, now or earlier. always: run it even then; it checks by itself what is left.
        needs: names of the steps whose results it reads.
        env: additions to the environment.
        evaluated: whether the command is through and only its end has to be noted.
        note: called with a state and the seconds of the command: "running" at its start and now and then, "done" or
            "failed" at its end.
        progress: how far its training is, None when it is not training.
        usual, usual_end: seconds to expect when nothing better is known: of all, and of what follows the training.
        kind: steps of one kind take the same time. measured: the seconds that it took, if it is finished.
    """

    name: str
    command: list[str]
    log: Path
    done: Callable[[], bool]
    always: bool = False
    needs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    evaluated: Callable[[], bool] = _never
    note: Callable[[str, float], None] = _nothing
    progress: Callable[[], Progress | None] = _nothing
    usual: float = 10.0
    usual_end: float = 0.0
    kind: str = ""
    measured: Callable[[], float | None] = _nothing


def training_progress(folder: Path, total: int) -> Progress | None:
    """How far a training of ``total`` iterations is, by its folder's ``metrics.json``; None before the first line."""
    try:
        with open(folder / "metrics.json", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            entries = logged(file.read().decode("utf-8", "replace"))
    except OSError:
        return None
    # The evaluation's line has no losses.
    entries = [entry for entry in entries if "eta_seconds" in entry]
    if not entries:
        return None
    last = entries[-1]
    losses = {key: value for key, value in last.items() if key.endswith("total_loss")}
    return Progress(min(last["iteration"] + 1, total), total, last["eta_seconds"], losses)
