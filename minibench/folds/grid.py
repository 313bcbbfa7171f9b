"""The settings that are tried on the world `tuning`, and the rule that chooses one of them for each method.

The rule. The setting with the highest ``PQ_AUSUC`` is best, because the report ranks methods by it, and no bias on
unseen logits changes it. But just so it does not see a bad bias: a setting that names every segment after an unseen
class can have a good curve and a harmonic mean of 0. So all settings within ``TIE`` of the best AUSUC count as equally
good, and among them the harmonic mean of PQ at bias 0 decides. If it is 0 for all of them, AUSUC decides after all.
The other order would choose by one point of the curve, which a bias repairs. All numbers are means over folds and
seeds. A setting that diverges anywhere is never chosen.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from minibench.folds.trials import Trial
from PADing.errors import UserError, did_you_mean
from PADing.yaml_files import read_yaml

__all__ = ["DECIDES", "GRID", "TIE", "best", "means", "read_grid", "settings_of", "trials_of"]

GRID = Path(__file__).parent / "grid.yaml"
TIE = 0.05  # of the best AUSUC
DECIDES = ("PQ_AUSUC", "PQ_hm")
SHOWN = (*DECIDES, "PQ_se", "PQ_un", "acc_AUSUC", "acc_un_only")


def read_grid(names: Sequence[str] | None = None, file: Path = GRID) -> dict[str, tuple[list[str], list[list]]]:
    """Method -> config keys and settings, of ``names`` or of all.

    Raises:
        UserError: an unknown method; a file that is no grid, or in which methods have other numbers of settings.
    """
    content = read_yaml(file, "Grid of hyperparameters")
    every = content.get("methods") if isinstance(content, dict) else None
    if not isinstance(every, dict) or not every:
        raise UserError(f"{file} needs `methods`: names with `keys` and `settings`.")
    found = {}
    for name, entry in every.items():
        keys, settings = (entry.get(key) if isinstance(entry, dict) else None for key in ("keys", "settings"))
        fits = isinstance(keys, list) and isinstance(settings, list) and settings
        if not fits or any(not isinstance(s, list) or len(s) != len(keys or ()) for s in settings or ()):
            raise UserError(f"{file}: {name} needs `keys`, and `settings` with a value for each key.")
        found[name] = list(keys or ()), list(settings or ())
        if len(set(map(tuple, found[name][1]))) != len(found[name][1]):
            raise UserError(f"{file}: {name} has a setting twice.")
    if len({len(settings) for _, settings in found.values()}) > 1:
        raise UserError(f"{file}: every method must have the same number of settings.")
    for name in names or ():
        if name not in found:
            hint = did_you_mean(name, found, 1)
            raise UserError(f"Version 2 has no settings to try for {name!r}{hint}. Methods: {', '.join(found)}.")
    return {name: found[name] for name in names or found}


def trials_of(grid: Mapping[str, tuple[list[str], list[list]]]) -> list[Trial]:
    """A trial ``<method>.<number>`` for each setting."""
    return [
        Trial(f"{name}.{number}", name, dict(zip(keys, setting, strict=True)))
        for name, (keys, settings) in grid.items()
        for number, setting in enumerate(settings, start=1)
    ]


def settings_of(rows: Iterable[Mapping[str, Any]], method: str) -> dict[str, list[Mapping[str, Any]]]:
    """Trial -> its rows; only trials of ``method`` that have as many rows as the trial with most."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["method"] == method:
            found.setdefault(row["trial"], []).append(row)
    most = max(map(len, found.values()), default=0)
    return {name: own for name, own in found.items() if len(own) == most}


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float] | None:
    """Means of the metrics over rows, NaN for one that a row lacks; None if a row has diverged."""
    if any("metrics" not in row for row in rows):
        return None
    return {key: statistics.fmean(row["metrics"].get(key, math.nan) for row in rows) for key in SHOWN}


def best(rows: Iterable[Mapping[str, Any]], method: str) -> str | None:
    """The chosen trial of a method, see the module; None if none is finished and finite."""
    first, second = DECIDES
    known = {name: found for name, own in settings_of(rows, method).items() if (found := means(own))}
    known = {name: found for name, found in known.items() if not math.isnan(found[first] + found[second])}
    if not known:
        return None
    highest = max(found[first] for found in known.values())
    equal = {name: found for name, found in known.items() if found[first] >= (1 - TIE) * highest}
    return max(equal, key=lambda name: (equal[name][second], equal[name][first]))
