"""How long the rest will take, from what earlier steps took."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from minibench.steps import Step

if TYPE_CHECKING:
    from minibench.scheduler import Running


class TimeLeft:
    """Estimates from the usual times of steps, scaled by how this machine compares in those that are finished."""

    def __init__(self, steps: Sequence[Step], jobs: int):
        self.steps, self.jobs = {step.name: step for step in steps}, jobs
        self._read: set[str] = set()
        self._measured: dict[str, list[float]] = {}
        self._ratio = 1.0
        self._learn({step.name for step in steps if step.done()})

    def _learn(self, done: Collection[str]) -> None:
        for name in set(done) - self._read:
            self._read.add(name)
            seconds = self.steps[name].measured()
            if seconds:
                self._measured.setdefault(self.steps[name].kind, []).append(seconds)
        usual = measured = 0.0
        for step in self.steps.values():
            if step.kind in self._measured:
                usual, measured = usual + step.usual, measured + self._mean(step)
        self._ratio = measured / usual if usual else 1.0

    def _mean(self, step: Step) -> float:
        values = self._measured[step.kind]
        return sum(values) / len(values)

    def whole(self, step: Step) -> float:
        """Seconds that a step takes."""
        return self._mean(step) if step.kind in self._measured else step.usual * self._ratio

    def waiting_for(self, step: Step) -> float:
        """Seconds from a step's start to the end of the longest chain that begins with it."""
        after = (self.waiting_for(s) for s in self.steps.values() if step.name in s.needs)
        return self.whole(step) + max(after, default=0.0)

    def _rest(self, child: "Running") -> float:
        step, progress = child.step, child.progress
        if progress is None:
            return max(self.whole(step) - child.seconds, 1.0)
        after = step.usual_end * self._ratio if progress.phase == "training" else 0.0
        return progress.seconds_left + after

    def seconds(self, done: Collection[str], running: Sequence["Running"]) -> float:
        """Seconds until everything is done."""
        self._learn(done)
        rests = {child.step.name: self._rest(child) for child in running}
        left = {name: rests.get(name, self.whole(s)) for name, s in self.steps.items() if name not in done}
        chain: dict[str, float] = {}
        for name, step in self.steps.items():  # each behind what it needs
            if name in left:
                chain[name] = left[name] + max((chain.get(need, 0.0) for need in step.needs), default=0.0)
        return max(sum(left.values()) / self.jobs, max(chain.values(), default=0.0))
