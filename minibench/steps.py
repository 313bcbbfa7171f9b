"""``Step``: one command of the benchmark with its dependencies and progress; ``TimeLeft`` estimates the time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minibench.runs import logged

# Bytes that are read from the end of a metrics.json: many lines.
_TAIL = 2**14


@dataclass(frozen=True)
class Progress:
    """A training has ``done`` of ``total`` iterations and needs ``seconds_left``; ``losses`` are its total losses."""

    done: int
    total: int
    seconds_left: float
    losses: Mapping[str, float] = field(default_factory=dict)


def _nothing(*_) -> None:
    return None


@dataclass
class Step:
    """A command and its dependencies.

    Attributes:
        name: unique. command: with all arguments. log: the file to which its output is appended.
        done: whether it is finished, now or earlier. always: run it even then, because it checks itself what is left.
        needs: names of the steps that must be finished before.
        env: additions to the environment.
        note: called with a state ("running" regularly, "done" or "failed" at the end) and the command's seconds.
        progress: progress of its training, None if it is not training.
        usual, usual_end: default estimates in seconds, of the whole step and of the part after the training.
        kind: steps of one kind take the same time. measured: the seconds that it took, None if not finished.
    """

    name: str
    command: list[str]
    log: Path
    done: Callable[[], bool]
    always: bool = False
    needs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    note: Callable[[str, float], None] = _nothing
    progress: Callable[[], Progress | None] = _nothing
    usual: float = 10.0
    usual_end: float = 0.0
    kind: str = ""
    measured: Callable[[], float | None] = _nothing


def training_progress(folder: Path, total: int) -> Progress | None:
    """Progress of a training of ``total`` iterations from its ``metrics.json``; None before the first line."""
    try:
        with open(folder / "metrics.json", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL))
            entries = logged(file.read().decode("utf-8", "replace"))
    except OSError:
        return None
    last = next((entry for entry in reversed(entries) if "eta_seconds" in entry), None)  # the evaluation's has none
    if last is None:
        return None
    losses = {key: value for key, value in last.items() if key.endswith("total_loss")}
    return Progress(min(last["iteration"] + 1, total), total, last["eta_seconds"], losses)


class TimeLeft:
    """Estimates the time that is left from usual times of steps, scaled by the times of finished steps."""

    def __init__(self, steps: Sequence[Step], jobs: int):
        self.steps, self.jobs = {step.name: step for step in steps}, jobs
        self.done: set[str] = set()
        self._measured: dict[str, list[float]] = {}
        self._ratio = 1.0
        for step in steps:
            if step.done() and not step.always:
                self.learn(step)

    def learn(self, step: Step) -> None:
        """Note that a step is done."""
        self.done.add(step.name)
        if seconds := step.measured():
            self._measured.setdefault(step.kind, []).append(seconds)
        known = [s for s in self.steps.values() if s.kind in self._measured]
        if usual := sum(s.usual for s in known):
            self._ratio = sum(map(self.whole, known)) / usual

    def whole(self, step: Step) -> float:
        """Estimated seconds of a step."""
        values = self._measured.get(step.kind)
        return sum(values) / len(values) if values else step.usual * self._ratio

    def waiting_for(self, step: Step) -> float:
        """Seconds from a step's start to the end of the longest chain that begins with it."""
        after = (self.waiting_for(s) for s in self.steps.values() if step.name in s.needs)
        return self.whole(step) + max(after, default=0.0)

    def seconds(self, running: Sequence[tuple[Step, float]]) -> float:
        """Seconds until all steps are done; ``running``: started steps with their seconds so far."""
        left = {name: self.whole(step) for name, step in self.steps.items() if name not in self.done}
        left |= {step.name: self._rest(step, seconds) for step, seconds in running}
        chain: dict[str, float] = {}
        for name in left:
            chain[name] = left[name] + max((chain.get(need, 0.0) for need in self.steps[name].needs), default=0.0)
        return max(sum(left.values()) / self.jobs, max(chain.values(), default=0.0))

    def _rest(self, step: Step, seconds: float) -> float:
        progress = step.progress()
        if progress is None or progress.done >= progress.total:
            return max(self.whole(step) - seconds, 1.0)
        return progress.seconds_left + step.usual_end * self._ratio
