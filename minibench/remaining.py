"""How long the rest will take, from what earlier steps took."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minibench.steps import Step

if TYPE_CHECKING:
    from minibench.scheduler import Process


class TimeLeft:
    """Estimates from the usual times of steps, scaled by how this machine compares in those that are finished.

    Args:
        steps: each behind what it needs.
    """

    def __init__(self, steps: Sequence[Step], jobs: int):
        self.steps, self.jobs = {step.name: step for step in steps}, jobs
        self.done: set[str] = set()
        self._measured: dict[str, list[float]] = {}
        self._ratio = 1.0
        for step in steps:
            if step.done():
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
        """Seconds that a step takes."""
        values = self._measured.get(step.kind)
        return sum(values) / len(values) if values else step.usual * self._ratio

    def waiting_for(self, step: Step) -> float:
        """Seconds from a step's start to the end of the longest chain that begins with it."""
        after = (self.waiting_for(s) for s in self.steps.values() if step.name in s.needs)
        return self.whole(step) + max(after, default=0.0)

    def seconds(self, running: Sequence["Process"]) -> float:
        """Seconds until everything is done."""
        left = {name: self.whole(step) for name, step in self.steps.items() if name not in self.done}
        left |= {child.step.name: self._rest(child) for child in running}
        chain: dict[str, float] = {}
        for name in left:
            chain[name] = left[name] + max((chain.get(need, 0.0) for need in self.steps[name].needs), default=0.0)
        return max(sum(left.values()) / self.jobs, max(chain.values(), default=0.0))

    def _rest(self, child: "Process") -> float:
        step, progress = child.step, child.step.progress()
        whole, end = self.whole(step), step.usual_end * self._ratio
        if progress is None or progress.done >= progress.total:
            return max(whole - child.seconds, 1.0)
        return progress.seconds_left + end
