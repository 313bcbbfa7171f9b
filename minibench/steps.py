"""One command of the benchmark, and how its progress is read from what it prints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


def _nothing(*_) -> None:
    return None


@dataclass
class Step:
    """A command and its place among the others.

    Attributes:
        name: unique. command: the whole of it. log: where its output is added.
        needs: names of the steps whose results it reads.
        env: additions to the environment.
        done: whether it has been finished, now or earlier. complete: whether only ``finish`` is left to be called.
        prepare: called before it starts. tick: called now and then with the seconds it has run.
        finish, fail: called with its seconds when the command succeeds or fails.
        usual, usual_end: seconds to expect when nothing better is known: of all, and of what follows the training.
        kind: steps of one kind take the same time. measured: the seconds that it took, if it is finished.
    """

    name: str
    command: list[str]
    log: Path
    done: Callable[[], bool]
    needs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    complete: Callable[[], bool] = _nothing
    prepare: Callable[[], None] = _nothing
    tick: Callable[[float], None] = _nothing
    finish: Callable[[float], None] = _nothing
    fail: Callable[[float], None] = _nothing
    usual: float = 10.0
    usual_end: float = 0.0
    kind: str = ""
    measured: Callable[[], float | None] = _nothing
